//! Activations as quant blocks: each row quantised once, by a fully specified rule.
//!
//! Per group of a row: `amax = max|x|`; below 1e-30 the group is zero; else `d = amax / 127`,
//! `q = rne(x · (127 / amax))`, always in `-127..=127`. The scale stays F32. Groups are 32 wide for
//! the 32-weight formats and 256 wide for the K formats. Sums of the q's stand beside them, so that
//! minima and offsets cost nothing per weight.

#[cfg(target_arch = "x86_64")]
use super::slabs::{self, Slabs};
use crate::Format;
use crate::memory::grow;
use crate::simd::{Isa, Kernel, Simd, dispatch};

/// Width of an activation group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// 32 values.
    Small,
    /// 256 values.
    K,
}

impl Group {
    pub(crate) const fn width(self) -> usize {
        match self {
            Self::Small => 32,
            Self::K => 256,
        }
    }
}

/// How a format wants its activations: quantised in groups, or as they are.
pub(crate) const fn activation_group(format: Format) -> Option<Group> {
    match format {
        Format::F32 | Format::F16 | Format::BF16 => None,
        Format::Q8_0
        | Format::Q4_0
        | Format::Q4_1
        | Format::Q5_0
        | Format::Q5_1
        | Format::IQ4_NL
        | Format::MXFP4 => Some(Group::Small),
        Format::Q2_K
        | Format::Q3_K
        | Format::Q4_K
        | Format::Q5_K
        | Format::Q6_K
        | Format::IQ4_XS => Some(Group::K),
    }
}

/// Quantised rows `[rows, cols]`; the buffers are sized once and reused.
#[derive(Debug)]
pub(crate) struct QuantizedRows {
    pub(crate) group: Group,
    cols: usize,
    /// `[rows, cols]`
    pub(crate) q: Vec<i8>,
    /// `[rows, cols / group]`
    pub(crate) scales: Vec<f32>,
    /// `[rows, cols / 16]`: sums of 16 consecutive q.
    pub(crate) sums: Vec<i16>,
    /// What stands for all of the above where the panel kernels will multiply.
    #[cfg(target_arch = "x86_64")]
    pub(crate) slabs: Slabs,
}

/// One quantised row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QuantizedRow<'a> {
    /// `[cols]`
    pub(crate) q: &'a [i8],
    /// `[cols / group]`
    pub(crate) scales: &'a [f32],
    /// `[cols / 16]`
    pub(crate) sums: &'a [i16],
}

impl QuantizedRows {
    /// Room for `max_values` values (rows · columns) in groups of `group`.
    pub(crate) fn with_capacity(group: Group, max_values: usize) -> Self {
        Self {
            group,
            cols: 0,
            q: Vec::with_capacity(max_values),
            scales: Vec::with_capacity(max_values / group.width()),
            sums: Vec::with_capacity(max_values / 16),
            #[cfg(target_arch = "x86_64")]
            slabs: Slabs::new(group),
        }
    }

    /// Makes room for `max_rows` rows of `cols` values.
    pub(crate) fn reserve(&mut self, max_rows: usize, cols: usize) {
        let max_values = max_rows * cols;
        grow(&mut self.q, max_values);
        grow(&mut self.scales, max_values / self.group.width());
        grow(&mut self.sums, max_values / 16);
        #[cfg(target_arch = "x86_64")]
        self.slabs.reserve(max_rows, cols);
    }

    /// Slabs of such groups, to be written in `parts`.
    ///
    /// # Panics
    /// If `cols` is not a multiple of the group's width.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn split(
        &mut self,
        group: Group,
        tokens: usize,
        cols: usize,
        parts: usize,
    ) -> slabs::Split<'_> {
        self.group = group;
        self.slabs.split(group, tokens, cols, parts)
    }

    /// Sets the shape; contents are unspecified.
    ///
    /// # Panics
    /// If `cols` is not a multiple of the group's width.
    pub(crate) fn resize(&mut self, rows: usize, cols: usize) {
        assert!(
            cols.is_multiple_of(self.group.width()),
            "{cols} columns in whole groups"
        );
        self.cols = cols;
        self.q.resize(rows * cols, 0);
        self.scales.resize(rows * cols / self.group.width(), 0.0);
        self.sums.resize(rows * cols / 16, 0);
    }

    /// One row.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> QuantizedRow<'_> {
        let (groups, sums) = (self.cols / self.group.width(), self.cols / 16);
        QuantizedRow {
            q: &self.q[row * self.cols..][..self.cols],
            scales: &self.scales[row * groups..][..groups],
            sums: &self.sums[row * sums..][..sums],
        }
    }
}

/// Quantises consecutive groups: `x` and `q` alike long, one scale a group, one sum per 16.
pub(crate) fn quantize(
    isa: Isa,
    group: Group,
    x: &[f32],
    q: &mut [i8],
    scales: &mut [f32],
    sums: &mut [i16],
) {
    assert_eq!(x.len(), q.len());
    assert_eq!(x.len(), scales.len() * group.width());
    assert_eq!(x.len(), sums.len() * 16);
    match group {
        Group::Small => dispatch(isa, Quantize::<32> { x, q, scales, sums }),
        Group::K => dispatch(isa, Quantize::<256> { x, q, scales, sums }),
    }
}

struct Quantize<'a, const WIDTH: usize> {
    x: &'a [f32],
    q: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i16],
}

impl<S: Simd, const WIDTH: usize> Kernel<S> for Quantize<'_, WIDTH> {
    type Output = ();

    /// Sixteen groups at a time: their two divisions are then one vector's.
    #[inline(always)]
    fn run(self, s: S) {
        let groups = self.x.chunks(16 * WIDTH).zip(self.q.chunks_mut(16 * WIDTH));
        let scales = self.scales.chunks_mut(16);
        let sums = self.sums.chunks_mut(WIDTH);
        for (((x, q), scales), sums) in groups.zip(scales).zip(sums) {
            let (x, _) = x.as_chunks::<WIDTH>();
            let mut largest = [0.0; 16];
            for (x, largest) in x.iter().zip(&mut largest) {
                *largest = magnitude(s, x);
            }
            let largest = s.load(&largest);
            let (zero, full, least) = (s.zero(), s.splat(127.0), s.splat(1e-30));
            let scale = s.select_lt(largest, least, zero, s.div(largest, full));
            s.store_partial(scale, scales);
            let mut inverses = [0.0; 16];
            let inverse = s.select_lt(largest, least, zero, s.div(full, largest));
            s.store(inverse, &mut inverses);
            let groups = x.iter().zip(q.as_chunks_mut::<WIDTH>().0).zip(inverses);
            for (((x, q), inverse), sums) in groups.zip(sums.chunks_exact_mut(WIDTH / 16)) {
                let (x, _) = x.as_chunks::<16>();
                let (q, _) = q.as_chunks_mut::<16>();
                let inverse = s.splat(inverse);
                for ((x, q), sum) in x.iter().zip(q).zip(sums) {
                    let integers = s.round(s.mul(s.load(x), inverse));
                    s.narrow_i8(integers, q);
                    // Sixteen integers of seven bits: exact in any order.
                    *sum = s.sum(integers) as i16;
                }
            }
        }
    }
}

/// `max |x|`, or NaN if there is one.
#[inline(always)]
fn magnitude<S: Simd, const WIDTH: usize>(s: S, x: &[f32; WIDTH]) -> f32 {
    let mut largest = s.zero();
    for x in x.as_chunks::<16>().0 {
        largest = s.max_magnitude(largest, s.load(x));
    }
    s.max_of_magnitudes(largest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The rule of the module's documentation, as plain as it can be written.
    fn plainly(width: usize, x: &[f32]) -> (Vec<i8>, Vec<f32>, Vec<i16>) {
        let (mut q, mut scales) = (Vec::new(), Vec::new());
        for group in x.chunks(width) {
            let amax = group.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
            if amax < 1e-30 {
                scales.push(0.0);
                q.extend(std::iter::repeat_n(0_i8, width));
            } else {
                scales.push(amax / 127.0);
                let inverse = 127.0 / amax;
                q.extend(group.iter().map(|x| (x * inverse).round_ties_even() as i8));
            }
        }
        let sums = q
            .chunks(16)
            .map(|q| q.iter().map(|q| i16::from(*q)).sum())
            .collect();
        (q, scales, sums)
    }

    fn check(x: &[f32]) {
        for group in [Group::Small, Group::K] {
            let expected = plainly(group.width(), x);
            for isa in Isa::available() {
                let mut rows = QuantizedRows::with_capacity(group, x.len());
                rows.resize(1, x.len());
                let QuantizedRows {
                    q, scales, sums, ..
                } = &mut rows;
                quantize(isa, group, x, q, scales, sums);
                assert_eq!(rows.q, expected.0, "{isa} {group:?}");
                assert_eq!(
                    rows.scales.iter().map(|d| d.to_bits()).collect::<Vec<_>>(),
                    expected.1.iter().map(|d| d.to_bits()).collect::<Vec<_>>(),
                    "{isa} {group:?}"
                );
                assert_eq!(rows.sums, expected.2, "{isa} {group:?}");
                assert!(rows.q.iter().all(|q| *q != i8::MIN));
            }
        }
    }

    proptest! {
        #[test]
        fn every_isa_quantises_as_the_rule_says(
            x in proptest::collection::vec(
                prop_oneof![-1e3_f32..1e3, Just(0.0), Just(-0.0), -1e-30_f32..1e-30, -1e37_f32..1e37],
                512,
            )
        ) {
            check(&x);
        }
    }

    #[test]
    fn a_nan_leaves_its_group_without_a_scale() {
        for group in [Group::Small, Group::K] {
            let width = group.width();
            for isa in Isa::available() {
                for place in 0..width {
                    let mut x = [1.0; 512];
                    x[width + place] = f32::NAN;
                    let mut rows = QuantizedRows::with_capacity(group, x.len());
                    rows.resize(1, x.len());
                    let QuantizedRows {
                        q, scales, sums, ..
                    } = &mut rows;
                    quantize(isa, group, &x, q, scales, sums);
                    let spoilt: Vec<bool> = rows.scales.iter().map(|d| d.is_nan()).collect();
                    let expected: Vec<bool> = (0..512 / width).map(|group| group == 1).collect();
                    assert_eq!(spoilt, expected, "{isa} {group:?} {place}");
                }
            }
        }
    }

    #[test]
    fn there_is_room_for_the_largest_input_and_no_more() {
        let mut rows = QuantizedRows::with_capacity(Group::Small, 0);
        for columns in [512, 768, 256] {
            rows.reserve(10, columns);
        }
        assert_eq!(rows.q.capacity(), 10 * 768);
        assert_eq!(rows.scales.capacity(), 10 * 768 / 32);
    }

    #[test]
    fn extremes() {
        check(&[0.0; 256]);
        check(&[f32::MAX; 256]);
        check(&[-f32::MAX; 256]);
        check(&[1e-30; 256]);
        check(&[9e-31; 256]);
        // Ties: 0.5, 1.5 … of a step go to even.
        let mut ties = [127.0; 256];
        for (i, x) in ties.iter_mut().enumerate().skip(1) {
            *x = (i % 127) as f32 + 0.5;
        }
        check(&ties);
    }
}
