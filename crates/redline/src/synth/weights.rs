//! Random weights, made as stored bytes: valid blocks directly, nothing is quantised.
//!
//! Every byte is a function of the tensor's key and the block's index, so pieces can be made in any
//! order by any number of threads. The integers of a block are uniform over all that the format can
//! hold, its scale varies by an eighth either way, and the mean is 0: formats whose integers are
//! not centred (−8..=7) have scales of random sign, those with minima have the minimum that centres
//! them. (With a mean, sums over a row would grow with its length and drown everything else.)
//! Floats are `±[1, 2) · 2ⁿ`, whose root mean square is within a factor √2 of what is asked for.

use redline_compute::Format;
use redline_compute::quant::Half;
use sha2::{Digest as _, Sha256};

use crate::splitmix;

/// A sequence of [`splitmix`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Noise {
    key: u64,
}

impl Noise {
    /// The sequence of one tensor of one model.
    pub(super) fn new(seed: u64, tensor: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(seed.to_le_bytes());
        hasher.update(tensor.as_bytes());
        let digest: [u8; 32] = hasher.finalize().into();
        let (words, _) = digest.as_chunks::<8>();
        Self {
            key: u64::from_le_bytes(words[0]),
        }
    }

    #[inline]
    fn word(self, index: u64) -> u64 {
        splitmix::word(self.key, index)
    }

    #[inline]
    fn fill(self, mut index: u64, out: &mut [u8]) {
        let (words, rest) = out.as_chunks_mut::<8>();
        for word in words {
            *word = self.word(index).to_le_bytes();
            index += 1;
        }
        let length = rest.len();
        rest.copy_from_slice(&self.word(index).to_le_bytes()[..length]);
    }

    /// `center ± spread`, uniform: values `first..` of a vector.
    pub(super) fn values(self, count: usize, center: f32, spread: f32) -> Vec<f32> {
        let unit = |index: u64| (self.word(index) >> 40) as f32 / (1_u64 << 23) as f32 - 1.0;
        (0..count as u64)
            .map(|index| center + spread * unit(index))
            .collect()
    }
}

/// Makes the blocks `first..` of a matrix of root mean square `rms` in `format`.
pub(super) fn fill(format: Format, noise: Noise, rms: f64, first: u64, out: &mut [u8]) {
    let blocks = Blocks { noise, first };
    match format {
        Format::F32 => blocks.floats::<4>(float_bits(rms, 127, 23, 32), out),
        Format::F16 => blocks.floats::<2>(float_bits(rms, 15, 10, 16), out),
        Format::BF16 => blocks.floats::<2>(float_bits(rms, 127, 7, 16), out),
        _ if format.block_weights() == 32 => fill_small(format, &blocks, rms, out),
        _ => fill_large(format, &blocks, rms, out),
    }
}

/// The same for the formats with blocks of 32.
fn fill_small(format: Format, blocks: &Blocks, rms: f64, out: &mut [u8]) {
    match format {
        Format::Q8_0 => {
            let scales = Scales::new(rms / uniform_rms(-127, 127), 0.0);
            blocks.quants::<34>(out, |block, choice| {
                scales.put_signed(choice, &mut block[..2]);
                // The quantiser never uses −128.
                block[2..]
                    .iter_mut()
                    .for_each(|q| *q = if *q == 0x80 { 0x81 } else { *q });
            });
        }
        Format::Q4_0 => {
            let scales = Scales::new(rms / uniform_rms(-8, 7), 0.0);
            blocks.quants::<18>(out, |block, choice| {
                scales.put_signed(choice, &mut block[..2])
            });
        }
        Format::Q5_0 => {
            let scales = Scales::new(rms / uniform_rms(-16, 15), 0.0);
            blocks.quants::<22>(out, |block, choice| {
                scales.put_signed(choice, &mut block[..2])
            });
        }
        Format::Q4_1 => {
            let scales = Scales::new(rms / centred_rms(15), -7.5);
            blocks.quants::<20>(out, |block, choice| {
                scales.put_pair(choice, &mut block[..4])
            });
        }
        Format::Q5_1 => {
            let scales = Scales::new(rms / centred_rms(31), -15.5);
            blocks.quants::<24>(out, |block, choice| {
                scales.put_pair(choice, &mut block[..4])
            });
        }
        Format::IQ4_NL => {
            let scales = Scales::new(rms / IQ4_RMS, 0.0);
            blocks.quants::<18>(out, |block, choice| {
                scales.put_signed(choice, &mut block[..2])
            });
        }
        Format::MXFP4 => {
            let powers = Powers::new(rms / MXFP4_RMS);
            blocks.quants::<17>(out, |block, choice| block[0] = powers.choose(choice));
        }
        format => panic!("{format} has no blocks of 32"),
    }
}

/// The same for the formats with blocks of 256.
fn fill_large(format: Format, blocks: &Blocks, rms: f64, out: &mut [u8]) {
    match format {
        Format::Q2_K => {
            let scales = Scales::new(rms / centred_rms(3) / uniform_rms(8, 15), 1.5);
            blocks.quants::<84>(out, |block, choice| {
                // One number from 8 for each group, its scale and its minimum alike: bytes 0..16.
                for byte in &mut block[..16] {
                    let group = 8 | *byte & 7;
                    *byte = group | group << 4;
                }
                scales.put_pair(choice, &mut block[80..]);
            });
        }
        Format::Q3_K => {
            let scales = Scales::new(rms / uniform_rms(-4, 3) / high_half_rms(), 0.0);
            blocks.quants::<110>(out, |block, choice| {
                // Scales of both signs, from 16 in magnitude: their top bits are 0 or 3, bytes 104..108.
                for byte in &mut block[104..108] {
                    *byte = (*byte & 0x55) * 3;
                }
                scales.put_signed(choice, &mut block[108..]);
            });
        }
        Format::Q4_K => {
            let scales = Scales::new(rms / centred_rms(15) / uniform_rms(32, 63), 7.5);
            blocks.quants::<144>(out, |block, choice| scales.put_groups(choice, block));
        }
        Format::Q5_K => {
            let scales = Scales::new(rms / centred_rms(31) / uniform_rms(32, 63), 15.5);
            blocks.quants::<176>(out, |block, choice| scales.put_groups(choice, block));
        }
        Format::Q6_K => {
            let scales = Scales::new(rms / uniform_rms(-32, 31) / uniform_rms(64, 127), 0.0);
            blocks.quants::<210>(out, |block, choice| {
                // Scales of both signs, from 64 in magnitude: bytes 192..208.
                for scale in &mut block[192..208] {
                    let magnitude = 64 | *scale & 63;
                    *scale = if *scale & 64 == 0 {
                        magnitude
                    } else {
                        magnitude.wrapping_neg()
                    };
                }
                scales.put_signed(choice, &mut block[208..]);
            });
        }
        Format::IQ4_XS => {
            let scales = Scales::new(rms / IQ4_RMS / high_half_rms(), 0.0);
            blocks.quants::<136>(out, |block, choice| {
                // As Q3_K's: bytes 2..4.
                for byte in &mut block[2..4] {
                    *byte = (*byte & 0x55) * 3;
                }
                scales.put_signed(choice, &mut block[..2]);
            });
        }
        format => panic!("{format} has no blocks of 256"),
    }
}

/// Root mean square of the levels of IQ4_NL and IQ4_XS.
const IQ4_RMS: f64 = 67.438_861_200_349_46;

/// Root mean square of the integers within six bits with a sign that are −32..=−17 or 16..=31.
fn high_half_rms() -> f64 {
    ((uniform_rms(-32, -17).powi(2) + uniform_rms(16, 31).powi(2)) / 2.0).sqrt()
}

/// Root mean square of MXFP4's values.
const MXFP4_RMS: f64 = 2.926_174_977_679_906;

/// Root mean square of the integers `low..=high`.
fn uniform_rms(low: i32, high: i32) -> f64 {
    let squares: f64 = (low..=high).map(|q| f64::from(q).powi(2)).sum();
    (squares / f64::from(high - low + 1)).sqrt()
}

/// Root mean square of `0..=largest` around its mean.
fn centred_rms(largest: i32) -> f64 {
    let count = f64::from(largest + 1);
    ((count * count - 1.0) / 12.0).sqrt()
}

/// The blocks `first..` of one tensor.
struct Blocks {
    noise: Noise,
    first: u64,
}

impl Blocks {
    /// Blocks of `N` random bytes, into which `finish` puts the fields that are not integers, with
    /// a random word to choose by.
    fn quants<const N: usize>(&self, out: &mut [u8], finish: impl Fn(&mut [u8; N], u64)) {
        let words = N.div_ceil(8) as u64 + 1;
        let (blocks, rest) = out.as_chunks_mut::<N>();
        assert!(rest.is_empty(), "whole blocks");
        for (index, block) in (self.first..).zip(blocks) {
            self.noise.fill(index * words, block);
            finish(block, self.noise.word(index * words + words - 1));
        }
    }

    /// Floats of `N` bytes: `exponent`, with random bits where `random` has ones.
    fn floats<const N: usize>(&self, (exponent, random): (u32, u32), out: &mut [u8]) {
        let (floats, rest) = out.as_chunks_mut::<N>();
        assert!(rest.is_empty(), "whole floats");
        for (index, float) in (self.first..).zip(floats) {
            let bits = exponent | self.noise.word(index) as u32 & random;
            float.copy_from_slice(&bits.to_le_bytes()[..N]);
        }
    }
}

/// Exponent bits of the power of two whose `±[1, 2)` multiples come nearest to `rms`, and the mask
/// of the other bits.
fn float_bits(rms: f64, bias: i32, mantissa: u32, width: u32) -> (u32, u32) {
    // Mean square of uniform [1, 2) is 7/3.
    let mut exponent = 0;
    let mut power = (7.0_f64 / 3.0).sqrt();
    while power > rms * std::f64::consts::SQRT_2 {
        power /= 2.0;
        exponent -= 1;
    }
    let bits = u32::try_from(exponent + bias).expect("no matrix has rows of 2¹⁴ or more squared");
    (bits << mantissa, ((1 << mantissa) - 1) | (1 << (width - 1)))
}

/// The two powers of two around a number, as MXFP4 stores them.
struct Powers {
    lower: u8,
    /// Of 2³² choices, those that are the upper one.
    upper: u64,
}

impl Powers {
    /// Chosen so that the squares' mean is that of `center`.
    fn new(center: f64) -> Self {
        let (mut exponent, mut square) = (0_i32, center * center);
        while square < 1.0 {
            square *= 4.0;
            exponent -= 1;
        }
        assert!(square < 4.0, "no matrix has weights as large as 2");
        Self {
            lower: u8::try_from(exponent + 127).expect("a weight's scale is a normal number"),
            upper: ((square - 1.0) / 3.0 * (1_u64 << 32) as f64) as u64,
        }
    }

    fn choose(&self, choice: u64) -> u8 {
        self.lower + u8::from(choice >> 32 < self.upper)
    }
}

/// Scales to choose from, each with a minimum that goes with it.
struct Scales([(Half, Half); Self::COUNT]);

impl Scales {
    const COUNT: usize = 64;

    /// `center ± 1/8`; minima are `ratio` times the scale as it is stored.
    fn new(center: f64, ratio: f32) -> Self {
        Self(std::array::from_fn(|i| {
            let spread = 0.875 + i as f64 / 256.0;
            let scale = Half::from_f32((center * spread) as f32);
            (scale, Half::from_f32(ratio * scale.to_f32()))
        }))
    }

    fn choose(&self, choice: u64) -> (Half, Half) {
        self.0[choice as usize % Self::COUNT]
    }

    /// A scale of either sign.
    fn put_signed(&self, choice: u64, out: &mut [u8]) {
        let (scale, _) = self.choose(choice);
        out.copy_from_slice(&scale.0);
        out[1] |= (choice >> 63 << 7) as u8;
    }

    /// A scale, then its minimum.
    fn put_pair(&self, choice: u64, out: &mut [u8]) {
        let (scale, min) = self.choose(choice);
        out[..2].copy_from_slice(&scale.0);
        out[2..].copy_from_slice(&min.0);
    }

    /// The head of a Q4_K or Q5_K block: scale and minimum, and for each of eight groups one
    /// six-bit number from 32, its scale and its minimum alike.
    fn put_groups(&self, choice: u64, block: &mut [u8]) {
        self.put_pair(choice, &mut block[..4]);
        let group = |g: usize| 32 | (choice >> (8 + 5 * g)) as u8 & 31;
        for g in 0..4 {
            let (low, high) = (group(g), group(g + 4));
            let packed = low | high >> 4 << 6;
            block[4 + g] = packed;
            block[8 + g] = packed;
            block[12 + g] = high & 15 | high << 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use redline_compute::quant::dequantize;

    use super::*;

    #[test]
    fn weights_have_the_mean_and_the_size_asked_for() {
        const COUNT: usize = 256 * 4096;
        for format in Format::ALL {
            for rms in [0.0083, 0.0625] {
                let mut bytes = vec![0; format.row_bytes(COUNT)];
                fill(
                    format,
                    Noise::new(7, "blk.0.attn_q.weight"),
                    rms,
                    0,
                    &mut bytes,
                );
                let mut weights = vec![0.0; COUNT];
                dequantize(format, &bytes, &mut weights);
                let sum: f64 = weights.iter().map(|w| f64::from(*w)).sum();
                let squares: f64 = weights.iter().map(|w| f64::from(*w).powi(2)).sum();
                let (mean, found) = (sum / COUNT as f64, (squares / COUNT as f64).sqrt());
                assert!(mean.abs() < 0.01 * rms, "{format}: mean {mean}");
                let tolerance = if format.block_weights() == 1 {
                    1.4143
                } else {
                    1.02
                };
                let ratio = found / rms;
                assert!(
                    (1.0 / tolerance..tolerance).contains(&ratio),
                    "{format}: {ratio}"
                );
            }
        }
    }

    #[test]
    fn pieces_made_apart_are_the_whole() {
        for format in Format::ALL {
            let noise = Noise::new(1, "x");
            let mut whole = vec![0; 40 * format.block_bytes()];
            fill(format, noise, 0.05, 0, &mut whole);
            let mut pieces = vec![0; whole.len()];
            let (head, tail) = pieces.split_at_mut(13 * format.block_bytes());
            fill(format, noise, 0.05, 13, tail);
            fill(format, noise, 0.05, 0, head);
            assert!(pieces == whole, "{format}");
        }
    }

    #[test]
    fn rows_differ_and_so_do_tensors_and_seeds() {
        let block = |seed, name, first| {
            let mut bytes = vec![0; 34];
            fill(
                Format::Q8_0,
                Noise::new(seed, name),
                0.05,
                first,
                &mut bytes,
            );
            bytes
        };
        let blocks = [
            block(0, "a", 0),
            block(0, "a", 1),
            block(0, "b", 0),
            block(1, "a", 0),
        ];
        for (i, a) in blocks.iter().enumerate() {
            assert!(blocks[..i].iter().all(|b| a != b));
        }
    }

    #[test]
    fn values_stay_around_their_center() {
        let values = Noise::new(3, "output_norm.weight").values(1000, 1.0, 0.125);
        assert!(values.iter().all(|value| (0.875..=1.125).contains(value)));
        let mean = values.iter().sum::<f32>() / 1000.0;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
    }
}
