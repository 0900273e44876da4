//! How likely tokens are under the model's own logits.

use redline_model::{TokenId, exponentials};

use super::PIECE;
use crate::Logprob;

/// Natural logarithm of the probability of `id` under `logits` (`[vocab]`): `logit[id] − ln Σ exp(logit)`,
/// summed in F64. Not finite if a logit is NaN or +∞, or that of `id` is −∞.
///
/// # Panics
/// If there is no logit of `id`.
#[must_use]
pub fn log_probability(logits: &[f32], id: TokenId) -> f64 {
    let (largest, log_sum) = log_sum(logits);
    f64::from(logits[id.0 as usize]) - largest - log_sum
}

/// How likely `id` is, and the `top` likeliest tokens: lower ids first among equals.
///
/// # Panics
/// If there is no logit of `id`.
pub(crate) fn logprob(logits: &[f32], id: TokenId, top: usize) -> Logprob {
    let (largest, log_sum) = log_sum(logits);
    let of = |id: usize| (f64::from(logits[id]) - largest - log_sum) as f32;
    let mut likeliest: Vec<usize> = Vec::with_capacity(top + 1);
    for (id, logit) in logits.iter().enumerate() {
        if likeliest.len() == top && likeliest.last().is_none_or(|last| *logit <= logits[*last]) {
            continue;
        }
        let place = likeliest.partition_point(|other| logits[*other] >= *logit);
        likeliest.insert(place, id);
        likeliest.truncate(top);
    }
    Logprob {
        logprob: of(id.0 as usize),
        top: (likeliest.into_iter())
            .map(|id| (TokenId(id as u32), of(id)))
            .collect(),
    }
}

/// The largest logit `m`, and `ln Σ exp(logit − m)`.
fn log_sum(logits: &[f32]) -> (f64, f64) {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let mut sum = 0.0;
    let mut room = [0.0; PIECE];
    for piece in logits.chunks(PIECE) {
        let shares = &mut room[..piece.len()];
        for (x, logit) in shares.iter_mut().zip(piece) {
            *x = f64::from(*logit) - largest;
        }
        exponentials(shares);
        sum = shares.iter().fold(sum, |sum, share| sum + share);
    }
    (largest, libm::log(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_first_and_of_equals_the_lower_id() {
        let logits = [0.0, 2.0, 1.0, 2.0, f32::NEG_INFINITY];
        let told = logprob(&logits, TokenId(2), 3);
        let ids: Vec<u32> = told.top.iter().map(|(id, _)| id.0).collect();
        assert_eq!(ids, [1, 3, 2]);
        assert_eq!(told.top[2].1, told.logprob);
        let all: f64 = [0.0, 2.0, 1.0, 2.0].iter().map(|x: &f64| x.exp()).sum();
        assert!((f64::from(told.logprob) - (1.0 - all.ln())).abs() < 1e-6);
        assert_eq!(logprob(&logits, TokenId(0), 0).top, []);
        assert_eq!(logprob(&logits, TokenId(4), 9).top.len(), 5);
    }
}
