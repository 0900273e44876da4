//! What the kernels need to know of each 32-weight format.

use std::arch::x86_64::__m256i;
use std::mem::offset_of;

use crate::quant::{
    Block, BlockIq4Nl, BlockMxfp4, BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0,
    SMALL_BLOCK, iq4_nl, mxfp4,
};
use crate::simd::{BlockLanes, IntSimd};

/// What a 32-weight format is made of.
pub(super) trait SmallFormat: Block {
    /// Subtracted from every unpacked integer.
    const OFFSET: i16;
    /// The largest of them, where they are unsigned.
    const LARGEST: i32;
    /// Whether the unpacked integers are signed bytes.
    const SIGNED: bool = false;
    /// Whether weights have a minimum beside the scale.
    const MINIMUM: bool = false;

    /// The integers `+ OFFSET` in element order.
    fn integers<S: IntSimd>(&self, s: S) -> __m256i;
    fn scale<S: IntSimd>(&self, s: S) -> f32;
    fn minimum<S: IntSimd>(&self, _: S) -> f32 {
        0.0
    }

    /// `B` blocks of each of four rows.
    fn unpack<S: BlockLanes<B>, const B: usize>(s: S, rows: [&[u8]; 4]) -> Unpacked<S, B>;
    /// Their scales, and their minima where they have any; `heads` are theirs, where they are at hand.
    fn scales<S: BlockLanes<B>, const B: usize>(
        s: S,
        rows: [&[u8]; 4],
        heads: Option<[S::Ints; 4]>,
    ) -> (S::Floats, Option<S::Floats>);
}

/// `B` blocks of each of four rows.
pub(super) struct Unpacked<S: BlockLanes<B>, const B: usize> {
    /// The integers `+ OFFSET`: each block's first sixteen, and its last.
    pub(super) halves: [[S::Ints; 2]; 4],
    pub(super) scales: S::Floats,
    pub(super) minima: Option<S::Floats>,
}

/// The numbers that a block begins with.
macro_rules! header {
    (half) => {
        #[inline(always)]
        fn scale<S: IntSimd>(&self, s: S) -> f32 {
            s.widen_one(self.d.0)
        }

        #[inline(always)]
        fn scales<S: BlockLanes<B>, const B: usize>(
            s: S,
            rows: [&[u8]; 4],
            heads: Option<[S::Ints; 4]>,
        ) -> (S::Floats, Option<S::Floats>) {
            let scales = s.block_scales::<{ size_of::<Self>() }>(rows, heads);
            (scales, None)
        }
    };
    (two halves) => {
        const MINIMUM: bool = true;

        #[inline(always)]
        fn scale<S: IntSimd>(&self, s: S) -> f32 {
            s.widen_one(self.d.0)
        }

        #[inline(always)]
        fn minimum<S: IntSimd>(&self, s: S) -> f32 {
            s.widen_one(self.m.0)
        }

        #[inline(always)]
        fn scales<S: BlockLanes<B>, const B: usize>(
            s: S,
            rows: [&[u8]; 4],
            heads: Option<[S::Ints; 4]>,
        ) -> (S::Floats, Option<S::Floats>) {
            let [scales, minima] = s.block_scales_and_minima::<{ size_of::<Self>() }>(rows, heads);
            (scales, Some(minima))
        }
    };
    (power) => {
        #[inline(always)]
        fn scale<S: IntSimd>(&self, _: S) -> f32 {
            self.e.half()
        }

        #[inline(always)]
        fn scales<S: BlockLanes<B>, const B: usize>(
            s: S,
            rows: [&[u8]; 4],
            _: Option<[S::Ints; 4]>,
        ) -> (S::Floats, Option<S::Floats>) {
            (s.block_powers::<{ size_of::<Self>() }>(rows), None)
        }
    };
}

/// [`SmallFormat::unpack`]: from a row's blocks (and their heads, where more than the scales is needed
/// of those), its integers.
macro_rules! unpack {
    (|$s:ident, $row:ident| $halves:expr) => {
        #[inline(always)]
        fn unpack<S: BlockLanes<B>, const B: usize>($s: S, rows: [&[u8]; 4]) -> Unpacked<S, B> {
            let mut halves = [[$s.zero_lanes(); 2]; 4];
            for r in 0..4 {
                let $row = rows[r];
                halves[r] = $halves;
            }
            let (scales, minima) = Self::scales($s, rows, None);
            Unpacked {
                halves,
                scales,
                minima,
            }
        }
    };
    (|$s:ident, $row:ident, $head:ident| $halves:expr) => {
        #[inline(always)]
        fn unpack<S: BlockLanes<B>, const B: usize>($s: S, rows: [&[u8]; 4]) -> Unpacked<S, B> {
            let mut heads = [$s.zero_lanes(); 4];
            let mut halves = [[$s.zero_lanes(); 2]; 4];
            for r in 0..4 {
                heads[r] = $s.heads::<{ size_of::<Self>() }>(rows[r]);
                let ($row, $head) = (rows[r], heads[r]);
                halves[r] = $halves;
            }
            let (scales, minima) = Self::scales($s, rows, Some(heads));
            Unpacked {
                halves,
                scales,
                minima,
            }
        }
    };
}

impl SmallFormat for BlockQ8_0 {
    const OFFSET: i16 = 0;
    const LARGEST: i32 = 127;
    const SIGNED: bool = true;
    header!(half);

    #[inline(always)]
    fn integers<S: IntSimd>(&self, s: S) -> __m256i {
        s.bytes_i8(&self.qs)
    }

    unpack!(|s, row| [
        s.lanes::<{ size_of::<Self>() }, { offset_of!(Self, qs) }>(row),
        s.lanes::<{ size_of::<Self>() }, { offset_of!(Self, qs) + 16 }>(row),
    ]);
}

macro_rules! four_bits {
    () => {
        #[inline(always)]
        fn integers<S: IntSimd>(&self, s: S) -> __m256i {
            s.nibbles(&self.qs)
        }

        unpack!(|s, row| nibbles(
            s,
            s.lanes::<{ size_of::<Self>() }, { offset_of!(Self, qs) }>(row)
        ));
    };
}

impl SmallFormat for BlockQ4_0 {
    const OFFSET: i16 = 8;
    const LARGEST: i32 = 15;
    header!(half);
    four_bits!();
}

impl SmallFormat for BlockQ4_1 {
    const OFFSET: i16 = 0;
    const LARGEST: i32 = 15;
    header!(two halves);
    four_bits!();
}

macro_rules! five_bits {
    () => {
        #[inline(always)]
        fn integers<S: IntSimd>(&self, s: S) -> __m256i {
            s.or(
                s.nibbles(&self.qs),
                s.spread_bits(u32::from_le_bytes(self.qh), 16),
            )
        }

        unpack!(|s, row, head| s.fifth_bits::<{ offset_of!(Self, qh) }>(
            nibbles(
                s,
                s.lanes::<{ size_of::<Self>() }, { offset_of!(Self, qs) }>(row)
            ),
            head
        ));
    };
}

impl SmallFormat for BlockQ5_0 {
    const OFFSET: i16 = 16;
    const LARGEST: i32 = 31;
    header!(half);
    five_bits!();
}

impl SmallFormat for BlockQ5_1 {
    const OFFSET: i16 = 0;
    const LARGEST: i32 = 31;
    header!(two halves);
    five_bits!();
}

/// A format whose four bits name an entry of a table.
pub(super) trait TableFormat: SmallFormat {
    /// The integers `+ OFFSET`, signed or unsigned.
    const TABLE: [u8; 16];
    /// Sixteen bytes of nibbles: all low ones, then all high ones.
    fn packed(&self) -> &[u8; SMALL_BLOCK / 2];
}

macro_rules! named_bits {
    () => {
        #[inline(always)]
        fn integers<S: IntSimd>(&self, s: S) -> __m256i {
            s.table_bytes(&Self::TABLE, s.nibbles(&self.qs))
        }

        unpack!(|s, row| s.table_halves(
            &Self::TABLE,
            s.lanes::<{ size_of::<Self>() }, { offset_of!(Self, qs) }>(row)
        ));
    };
}

impl SmallFormat for BlockMxfp4 {
    const OFFSET: i16 = 12;
    const LARGEST: i32 = 24;
    header!(power);
    named_bits!();
}

impl TableFormat for BlockMxfp4 {
    const TABLE: [u8; 16] = shifted(mxfp4::DOUBLED, Self::OFFSET as u8);

    #[inline(always)]
    fn packed(&self) -> &[u8; 16] {
        &self.qs
    }
}

impl SmallFormat for BlockIq4Nl {
    const OFFSET: i16 = 0;
    const LARGEST: i32 = 127;
    const SIGNED: bool = true;
    header!(half);
    named_bits!();
}

impl TableFormat for BlockIq4Nl {
    const TABLE: [u8; 16] = shifted(iq4_nl::LEVELS, 0);

    #[inline(always)]
    fn packed(&self) -> &[u8; 16] {
        &self.qs
    }
}

/// `table + offset`, as bytes.
pub(super) const fn shifted(table: [i8; 16], offset: u8) -> [u8; 16] {
    let (mut out, mut i) = ([0; 16], 0);
    while i < 16 {
        out[i] = table[i].cast_unsigned().wrapping_add(offset);
        i += 1;
    }
    out
}

#[inline(always)]
fn nibbles<S: BlockLanes<B>, const B: usize>(s: S, packed: S::Ints) -> [S::Ints; 2] {
    [s.low_nibbles(packed), s.high_nibbles(packed)]
}
