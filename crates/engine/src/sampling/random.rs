//! The random stream: a function of counters, not a state.

use std::hash::{BuildHasher as _, Hasher as _};

/// A seed nobody can guess, of 32 bits: short enough to be typed again, exact in every JSON reader.
#[must_use]
pub fn random_seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish() >> 32
}

/// A number in `[0, 1)`, a multiple of 2⁻⁵³, decided by the three arguments alone.
#[must_use]
pub fn draw_unit(seed: u64, sequence: u64, position: u64) -> f64 {
    let counter = [low(sequence), high(sequence), low(position), high(position)];
    let random = philox(counter, [low(seed), high(seed)]);
    let bits = u64::from(random[0]) | u64::from(random[1]) << 32;
    (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// Philox4x32 with ten rounds.
///
/// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u64; 2] = [0xd251_1f53, 0xcd9e_8d57];
    const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
    for _ in 0..10 {
        let product0 = u64::from(counter[0]) * MULTIPLIERS[0];
        let product1 = u64::from(counter[2]) * MULTIPLIERS[1];
        counter = [
            high(product1) ^ counter[1] ^ key[0],
            low(product1),
            high(product0) ^ counter[3] ^ key[1],
            low(product0),
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

const fn low(value: u64) -> u32 {
    value as u32
}

const fn high(value: u64) -> u32 {
    (value >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the authors' Random123 library (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_gives_the_published_answers() {
        let check = |counter, key, expected: [u32; 4]| assert_eq!(philox(counter, key), expected);
        check(
            [0; 4],
            [0; 2],
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
        );
        check(
            [u32::MAX; 4],
            [u32::MAX; 2],
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
        );
        check(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        );
    }

    #[test]
    fn every_argument_moves_the_draw_and_none_leaves_the_range() {
        let mut seen = Vec::new();
        for (seed, sequence, position) in [
            (0, 0, 0),
            (1, 0, 0),
            (0, 1, 0),
            (0, 0, 1),
            (1 << 32, 0, 0),
            (0, 1 << 32, 0),
            (0, 0, 1 << 32),
        ] {
            let draw = draw_unit(seed, sequence, position);
            assert!((0.0..1.0).contains(&draw), "{draw}");
            assert!(!seen.contains(&draw), "{draw}");
            seen.push(draw);
        }
    }

    /// 16 bins, 15 degrees of freedom: chi-square above 37.7 has probability 0.001.
    #[test]
    fn draws_are_uniform_along_positions_and_along_seeds() {
        let draws: [&dyn Fn(u64) -> f64; 2] = [&|i| draw_unit(7, 0, i), &|i| draw_unit(i, 3, 100)];
        for draw in draws {
            let count = 16_000;
            let mut bins = [0_u32; 16];
            for i in 0..count {
                bins[(draw(i) * 16.0) as usize] += 1;
            }
            let expected = f64::from(count as u32) / 16.0;
            let chi_square: f64 = bins
                .iter()
                .map(|&n| (f64::from(n) - expected).powi(2) / expected)
                .sum();
            assert!(chi_square < 37.7, "{chi_square} {bins:?}");
        }
    }
}
