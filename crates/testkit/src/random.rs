//! SplitMix64 (Steele, Lea, Flood 2014): numbers that look random, the same for the same seed.

/// A sequence of numbers.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`.
    ///
    /// # Panics
    /// If that is 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A place among `length`.
    ///
    /// # Panics
    /// If that is 0.
    pub const fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// One of some.
    ///
    /// # Panics
    /// If there is none.
    pub const fn one_of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// Whether something happens that does so once in `n` times.
    ///
    /// # Panics
    /// If that is 0.
    pub const fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A number that says nothing of the one it was made of.
#[must_use]
pub const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_of_seed_0_begins_as_published() {
        let mut random = Random::new(0);
        let first = [random.next(), random.next()];
        assert_eq!(first, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
    }
}
