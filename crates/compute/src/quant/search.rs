//! Least-squares search of the K formats' group scales.
//!
//! Source: ggml's `make_qkx2_quants` and `make_qx_quants` (`ggml-quants.c`). Every group's sums run
//! in element order, one operation at a time, exactly as there; but the groups of a block run side
//! by side, group = lane, which compilers turn into vector code.

/// Values of a block's groups, transposed: `[element][group]`.
pub(super) type Lanes<T, const GROUPS: usize, const N: usize> = [[T; GROUPS]; N];

/// Groups whose largest magnitude is below this are all zeros.
pub(super) const ALL_ZERO: f32 = 1e-15;

/// Transposes consecutive groups of `N` into lanes.
pub(super) fn lanes<const GROUPS: usize, const N: usize>(values: &[f32]) -> Lanes<f32, GROUPS, N> {
    assert_eq!(values.len(), GROUPS * N);
    std::array::from_fn(|i| std::array::from_fn(|g| values[g * N + i]))
}

/// The nearest integer, ties to even, of magnitudes below 2²²: the sum's mantissa holds it.
pub(super) fn nearest(value: f32) -> i32 {
    ((value + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// What a search found for each group.
#[derive(Debug)]
pub(super) struct Fit<const GROUPS: usize, const N: usize> {
    /// Multiplies the levels.
    pub(super) scale: [f32; GROUPS],
    /// Added to each weight; at most 0, and 0 in symmetric fits.
    pub(super) min: [f32; GROUPS],
    /// The integers, from 0.
    pub(super) levels: Lanes<i32, GROUPS, N>,
}

/// The candidate scales of an affine fit: `(first + 0.1 step + largest) / range`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidates {
    /// The largest level.
    pub(super) largest: i32,
    /// Of step 0.
    pub(super) first: f32,
    /// The last step.
    pub(super) last_step: i32,
    /// What is made small.
    pub(super) error: Error,
}

/// What an affine fit makes small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Error {
    /// Squares of errors, weighted by the group's root mean square plus the value's magnitude.
    Squared,
    /// Errors, weighted by the value's magnitude.
    Absolute,
}

/// Fits `scale · level + min` to each group.
pub(super) fn fit_affine<const GROUPS: usize, const N: usize>(
    x: &Lanes<f32, GROUPS, N>,
    candidates: Candidates,
) -> Fit<GROUPS, N> {
    let kind = candidates.error;
    let w = importance(x, kind);
    let mut min = x[0];
    let mut max = x[0];
    let mut sum_w = w[0];
    let mut sum_x: [f32; GROUPS] = std::array::from_fn(|g| w[0][g] * x[0][g]);
    for (x, w) in x.iter().zip(&w).skip(1) {
        for g in 0..GROUPS {
            min[g] = if x[g] < min[g] { x[g] } else { min[g] };
            max[g] = if x[g] > max[g] { x[g] } else { max[g] };
            sum_w[g] += w[g];
            sum_x[g] += w[g] * x[g];
        }
    }
    let min = min.map(|min| if min > 0.0 { 0.0 } else { min });
    let largest = candidates.largest as f32;
    let scale = std::array::from_fn(|g| 1.0 / (largest / (max[g] - min[g])));
    let levels = levels_over(x, &min, &max, largest, candidates.largest);
    let mut best_error = weighted_error(kind, (x, &w), &scale, &min, &levels);
    let mut best = Fit { scale, min, levels };
    for step in 0..=candidates.last_step {
        let numerator = candidates.first + 0.1 * step as f32 + largest;
        // From the best minimum so far, as the reference has it: the grid moves with the fit.
        let levels = levels_over(x, &best.min, &max, numerator, candidates.largest);
        let (scale, min, solvable) = solve(x, &w, (&sum_w, &sum_x), &levels);
        let error = weighted_error(kind, (x, &w), &scale, &min, &levels);
        for g in 0..GROUPS {
            if solvable[g] && error[g] < best_error[g] {
                best_error[g] = error[g];
                best.scale[g] = scale[g];
                best.min[g] = min[g];
                for (best, level) in best.levels.iter_mut().zip(&levels) {
                    best[g] = level[g];
                }
            }
        }
    }
    for g in 0..GROUPS {
        if max[g] == min[g] {
            best.scale[g] = 0.0;
            best.min[g] = min[g];
            best.levels.iter_mut().for_each(|level| level[g] = 0);
        }
    }
    best
}

/// Levels on the grid that puts `numerator` steps between `min` and `max`.
fn levels_over<const GROUPS: usize, const N: usize>(
    x: &Lanes<f32, GROUPS, N>,
    min: &[f32; GROUPS],
    max: &[f32; GROUPS],
    numerator: f32,
    largest: i32,
) -> Lanes<i32, GROUPS, N> {
    let inverse: [f32; GROUPS] = std::array::from_fn(|g| numerator / (max[g] - min[g]));
    x.map(|x| std::array::from_fn(|g| nearest(inverse[g] * (x[g] - min[g])).clamp(0, largest)))
}

fn importance<const GROUPS: usize, const N: usize>(
    x: &Lanes<f32, GROUPS, N>,
    kind: Error,
) -> Lanes<f32, GROUPS, N> {
    if kind == Error::Absolute {
        return x.map(|x| x.map(f32::abs));
    }
    let mut squares = [0.0_f32; GROUPS];
    for x in x {
        for g in 0..GROUPS {
            squares[g] += x[g] * x[g];
        }
    }
    let rms = squares.map(|sum| (sum / N as f32).sqrt());
    x.map(|x| std::array::from_fn(|g| rms[g] + x[g].abs()))
}

fn weighted_error<const GROUPS: usize, const N: usize>(
    kind: Error,
    (x, w): (&Lanes<f32, GROUPS, N>, &Lanes<f32, GROUPS, N>),
    scale: &[f32; GROUPS],
    min: &[f32; GROUPS],
    levels: &Lanes<i32, GROUPS, N>,
) -> [f32; GROUPS] {
    let mut error = [0.0; GROUPS];
    for ((x, w), level) in x.iter().zip(w).zip(levels) {
        for g in 0..GROUPS {
            let difference = scale[g] * level[g] as f32 + min[g] - x[g];
            let size = match kind {
                Error::Squared => difference * difference,
                Error::Absolute => difference.abs(),
            };
            error[g] += w[g] * size;
        }
    }
    error
}

/// The weighted least-squares scale and minimum (at most 0) for given levels, and where the
/// equations had a solution.
fn solve<const GROUPS: usize, const N: usize>(
    x: &Lanes<f32, GROUPS, N>,
    w: &Lanes<f32, GROUPS, N>,
    (sum_w, sum_x): (&[f32; GROUPS], &[f32; GROUPS]),
    levels: &Lanes<i32, GROUPS, N>,
) -> ([f32; GROUPS], [f32; GROUPS], [bool; GROUPS]) {
    let mut sum_l = [0.0_f32; GROUPS];
    let mut sum_l2 = [0.0_f32; GROUPS];
    let mut sum_xl = [0.0_f32; GROUPS];
    for ((x, w), level) in x.iter().zip(w).zip(levels) {
        for g in 0..GROUPS {
            let level = level[g] as f32;
            sum_l[g] += w[g] * level;
            sum_l2[g] += w[g] * level * level;
            sum_xl[g] += w[g] * level * x[g];
        }
    }
    let mut scale = [0.0; GROUPS];
    let mut min = [0.0; GROUPS];
    let mut solvable = [false; GROUPS];
    for g in 0..GROUPS {
        let determinant = sum_w[g] * sum_l2[g] - sum_l[g] * sum_l[g];
        solvable[g] = determinant > 0.0;
        scale[g] = (sum_w[g] * sum_xl[g] - sum_x[g] * sum_l[g]) / determinant;
        min[g] = (sum_l2[g] * sum_x[g] - sum_l[g] * sum_xl[g]) / determinant;
        if min[g] > 0.0 {
            min[g] = 0.0;
            scale[g] = sum_xl[g] / sum_l2[g];
        }
    }
    (scale, min, solvable)
}

/// Fits `scale · (level − half)` to each group, `level` in `0..2 half`, errors weighted by the
/// value's square; the scale has either sign. A group of zeros has scale 0 and levels 0.
pub(super) fn fit_symmetric<const GROUPS: usize, const N: usize>(
    x: &Lanes<f32, GROUPS, N>,
    half: i32,
) -> Fit<GROUPS, N> {
    let mut peak = [0.0_f32; GROUPS];
    for x in x {
        for g in 0..GROUPS {
            peak[g] = if x[g].abs() > peak[g].abs() {
                x[g]
            } else {
                peak[g]
            };
        }
    }
    let levels_at = |numerator: f32| -> Lanes<i32, GROUPS, N> {
        let inverse = peak.map(|peak| numerator / peak);
        x.map(|x| std::array::from_fn(|g| nearest(inverse[g] * x[g]).clamp(-half, half - 1)))
    };
    let mut levels = levels_at(-half as f32);
    let (sum_xl, sum_l2) = products(x, &levels);
    let mut scale: [f32; GROUPS] = std::array::from_fn(|g| {
        if sum_l2[g] != 0.0 {
            sum_xl[g] / sum_l2[g]
        } else {
            0.0
        }
    });
    let mut best: [f32; GROUPS] = std::array::from_fn(|g| scale[g] * sum_xl[g]);
    for step in (-9..=9).filter(|&step| step != 0) {
        let candidate = levels_at(-(half as f32 + 0.1 * step as f32));
        let (sum_xl, sum_l2) = products(x, &candidate);
        for g in 0..GROUPS {
            if sum_l2[g] > 0.0 && sum_xl[g] * sum_xl[g] > best[g] * sum_l2[g] {
                scale[g] = sum_xl[g] / sum_l2[g];
                best[g] = scale[g] * sum_xl[g];
                for (level, candidate) in levels.iter_mut().zip(&candidate) {
                    level[g] = candidate[g];
                }
            }
        }
    }
    let zero = peak.map(|peak| peak.abs() < ALL_ZERO);
    for level in &mut levels {
        for g in 0..GROUPS {
            level[g] = if zero[g] { 0 } else { level[g] + half };
        }
    }
    for g in 0..GROUPS {
        scale[g] = if zero[g] { 0.0 } else { scale[g] };
    }
    Fit {
        scale,
        min: [0.0; GROUPS],
        levels,
    }
}

/// Sums of `x² · x · level` and `x² · level²`.
fn products<const GROUPS: usize, const N: usize>(
    x: &Lanes<f32, GROUPS, N>,
    levels: &Lanes<i32, GROUPS, N>,
) -> ([f32; GROUPS], [f32; GROUPS]) {
    let mut sum_xl = [0.0_f32; GROUPS];
    let mut sum_l2 = [0.0_f32; GROUPS];
    for (x, level) in x.iter().zip(levels) {
        for g in 0..GROUPS {
            let level = level[g] as f32;
            let weight = x[g] * x[g];
            sum_xl[g] += weight * x[g] * level;
            sum_l2[g] += weight * level * level;
        }
    }
    (sum_xl, sum_l2)
}
