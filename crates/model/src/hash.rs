//! The fingerprint of a run's logits.

use redline_compute::ARITHMETIC_VERSION;

/// 64-bit FNV-1a over the arithmetic version (`u32`) and the bits of every logit, little-endian.
///
/// Source: <https://datatracker.ietf.org/doc/html/rfc9923>. Feed rows in order; how they are cut into
/// calls makes no difference.
#[derive(Debug, Clone)]
pub struct LogitsHash(u64);

impl LogitsHash {
    /// The hash of no logits at all.
    #[must_use]
    pub fn new() -> Self {
        let mut hash = Self(0xcbf2_9ce4_8422_2325);
        hash.bytes(ARITHMETIC_VERSION.to_le_bytes());
        hash
    }

    /// Takes more logits in.
    pub fn update(&mut self, logits: &[f32]) {
        for logit in logits {
            self.bytes(logit.to_bits().to_le_bytes());
        }
    }

    /// The hash of everything so far.
    #[must_use]
    pub fn finish(&self) -> u64 {
        self.0
    }

    fn bytes(&mut self, bytes: [u8; 4]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Default for LogitsHash {
    fn default() -> Self {
        Self::new()
    }
}

/// The [`LogitsHash`] of one slice.
#[must_use]
pub fn logits_hash(logits: &[f32]) -> u64 {
    let mut hash = LogitsHash::new();
    hash.update(logits);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV-1a of the bytes, written the other way round: one slice, no arithmetic version inside.
    fn fnv1a(bytes: &[u8]) -> u64 {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    #[test]
    fn the_hash_is_fnv1a_over_version_and_bits() {
        // Published test vector: FNV-1a 64 of "foobar".
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
        let logits = [1.0_f32, -0.0, f32::MIN_POSITIVE, 3.5e10];
        let mut bytes = ARITHMETIC_VERSION.to_le_bytes().to_vec();
        bytes.extend(logits.iter().flat_map(|logit| logit.to_le_bytes()));
        assert_eq!(logits_hash(&logits), fnv1a(&bytes));
    }

    #[test]
    fn cutting_makes_no_difference_and_a_sign_of_zero_does() {
        let mut hash = LogitsHash::new();
        hash.update(&[1.0]);
        hash.update(&[0.0, 2.0]);
        assert_eq!(hash.finish(), logits_hash(&[1.0, 0.0, 2.0]));
        assert_ne!(hash.finish(), logits_hash(&[1.0, -0.0, 2.0]));
    }
}
