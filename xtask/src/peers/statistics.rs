//! Medians, and intervals by resampling.

/// Samples drawn for an interval.
const RESAMPLES: usize = 4000;
/// Fewer rounds give no interval.
const LEAST: usize = 3;

/// The middle value, or the mean of the two in the middle; NaN when there are none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len(), sorted.len() % 2) {
        (0, _) => f64::NAN,
        (_, 1) => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// A 95 % percentile interval of the median by bootstrap (Efron 1979), the same in every run;
/// `None` below three values.
pub(super) fn interval(values: &[f64]) -> Option<[f64; 2]> {
    if values.len() < LEAST {
        return None;
    }
    let mut state = 0_u64;
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn: Vec<f64> = (0..values.len())
                .map(|_| values[(random(&mut state) % values.len() as u64) as usize])
                .collect();
            median(&drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let at = |share: f64| medians[(share * (RESAMPLES - 1) as f64).round() as usize];
    Some([at(0.025), at(0.975)])
}

/// SplitMix64 (Steele et al. 2014).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_the_median_and_narrows_with_more_values() {
        assert_eq!(interval(&[1.0, 2.0]), None);
        assert_eq!(interval(&[2.0; 5]), Some([2.0, 2.0]));
        let width = |count: usize| {
            let values: Vec<f64> = (0..count).map(|i| 1.0 + (i % 7) as f64 / 10.0).collect();
            let [low, high] = interval(&values).unwrap();
            assert!(low <= median(&values) && median(&values) <= high);
            high - low
        };
        assert!(width(7) > 0.3 && width(700) < 0.15);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert!(median(&[]).is_nan());
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
    }
}
