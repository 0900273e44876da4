//! Which bytes of four rows' headers scale what.

/// For each row and two vectors, the bytes of a header (sixteen a row: scales, then minima) that
/// scale what `KLanes::dots` packs: of each lane, four words of the first vector, four of the second.
pub(super) const RUN_SCALES: [[[u8; 64]; 2]; 4] = {
    let runs = [[0, 2], [1, 3], [4, 6], [5, 7]];
    let (mut table, mut row) = ([[[0; 64]; 2]; 4], 0);
    while row < 4 {
        let mut byte = 0;
        while byte < 128 {
            let (half, at) = (byte / 64, byte % 64);
            let vector = 2 * half + at % 16 / 8;
            table[row][half][at] = 16 * row as u8 + runs[vector][at / 32];
            byte += 1;
        }
        row += 1;
    }
    table
};

/// The same for sixteen scales a row: vector `i` has scale `4 i + lane` in each lane.
pub(super) const NARROW_SCALES: [[[u8; 64]; 2]; 4] = {
    let (mut table, mut row) = ([[[0; 64]; 2]; 4], 0);
    while row < 4 {
        let mut byte = 0;
        while byte < 128 {
            let (half, at) = (byte / 64, byte % 64);
            let vector = 2 * half + at % 16 / 8;
            table[row][half][at] = (16 * row + 4 * vector + at / 16) as u8;
            byte += 1;
        }
        row += 1;
    }
    table
};

/// For each row's first (and second) four minima, each twice, as words.
pub(super) const MINIMA: [[u8; 64]; 2] = {
    let (mut table, mut byte) = ([[0; 64]; 2], 0);
    while byte < 64 {
        let minimum = byte / 16 * 16 + 8 + byte % 16 / 4;
        table[0][byte] = minimum as u8;
        table[1][byte] = minimum as u8 + 4;
        byte += 1;
    }
    table
};
