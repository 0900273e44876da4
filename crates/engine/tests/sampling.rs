//! What the sampler promises, through its public face.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use redline_engine::{Sampler, SamplingError, SamplingParams, Scratch, TokenId};

/// The defaults with a change.
fn with(change: impl FnOnce(&mut SamplingParams)) -> SamplingParams {
    let mut params = SamplingParams::default();
    change(&mut params);
    params
}

/// The ids that come up in 4000 draws.
fn reachable(params: &SamplingParams, seen: &[u32], logits: &[f32]) -> BTreeSet<u32> {
    let mut sampler = Sampler::new(params, 0, logits.len());
    sampler.observe(&seen.iter().map(|id| TokenId(*id)).collect::<Vec<_>>());
    let mut scratch = Scratch::default();
    (0..4000)
        .map(|position| {
            sampler
                .sample(logits, None, position, &mut scratch)
                .unwrap()
                .0
        })
        .collect()
}

fn sample(params: &SamplingParams, seen: &[u32], logits: &[f32]) -> Result<u32, SamplingError> {
    let mut sampler = Sampler::new(params, 0, logits.len());
    sampler.observe(&seen.iter().map(|id| TokenId(*id)).collect::<Vec<_>>());
    sampler
        .sample(logits, None, 0, &mut Scratch::default())
        .map(|id| id.0)
}

/// Logits of these probabilities, or of anything proportional to them.
fn logits_of(shares: &[f32]) -> Vec<f32> {
    shares.iter().map(|share| share.ln()).collect()
}

#[test]
fn greedy_takes_the_largest_and_the_lowest_id_of_several() {
    let check = |logits: &[f32], expected| {
        assert_eq!(
            sample(&SamplingParams::greedy(), &[], logits),
            Ok(expected),
            "{logits:?}"
        );
    };
    check(&[1.0, 3.0, 2.0], 1);
    check(&[2.0, 3.0, 3.0], 1);
    check(&[-0.0, 0.0], 0);
    check(&[f32::NEG_INFINITY, -1e30], 1);
    check(&[5.0; 9], 0);
}

#[test]
fn cuts_keep_exactly_their_tokens() {
    let check = |params: SamplingParams, shares: &[f32], expected: &[u32]| {
        let found = reachable(&params, &[], &logits_of(shares));
        assert_eq!(found, expected.iter().copied().collect(), "{params:?}");
    };
    let shares = [0.1, 0.4, 0.2, 0.3];
    check(SamplingParams::default(), &shares, &[0, 1, 2, 3]);
    check(with(|p| p.top_k = 1), &shares, &[1]);
    check(with(|p| p.top_k = 3), &shares, &[1, 2, 3]);
    check(with(|p| p.top_k = 2), &[0.25; 4], &[0, 1]);
    check(with(|p| p.top_p = 0.0), &shares, &[1]);
    check(with(|p| p.top_p = 0.39), &shares, &[1]);
    check(with(|p| p.top_p = 0.41), &shares, &[1, 3]);
    check(with(|p| p.top_p = 0.95), &shares, &[0, 1, 2, 3]);
    check(with(|p| p.min_p = 0.6), &shares, &[1, 3]);
    check(with(|p| p.min_p = 1.0), &shares, &[1]);
    // Temperature comes before top-p: 2 flattens 0.8 / 0.2 to 2/3 / 1/3.
    check(with(|p| p.top_p = 0.75), &[0.8, 0.2], &[0]);
    check(
        with(|p| {
            p.top_p = 0.75;
            p.temperature = 2.0;
        }),
        &[0.8, 0.2],
        &[0, 1],
    );
    // Top-k comes before top-p: of the two that stay the best one has 4/7.
    check(
        with(|p| {
            p.top_k = 2;
            p.top_p = 0.5;
        }),
        &shares,
        &[1],
    );
    check(with(|p| p.top_p = 0.5), &shares, &[1, 3]);
    // What cannot be drawn is not drawn.
    check(SamplingParams::default(), &[0.0, 1.0, 0.0], &[1]);
    check(with(|p| p.temperature = 1e-30), &shares, &[1]);
}

#[test]
fn penalties_push_seen_tokens_down() {
    let check = |params: SamplingParams, seen: &[u32], logits: &[f32], expected| {
        let params = SamplingParams {
            temperature: 0.0,
            ..params
        };
        assert_eq!(
            sample(&params, seen, logits),
            Ok(expected),
            "{params:?} {seen:?}"
        );
    };
    let repetition = with(|p| p.repetition_penalty = 2.0);
    check(repetition.clone(), &[], &[3.0, 2.0], 0);
    check(repetition.clone(), &[0], &[3.0, 2.0], 1);
    check(repetition.clone(), &[0], &[-2.0, -3.0], 1);
    // Once, however often it was seen.
    check(repetition, &[0, 0, 0], &[3.0, 1.4], 0);
    let rewarded = with(|p| p.repetition_penalty = 0.5);
    check(rewarded, &[1], &[3.0, 2.0], 1);
    let presence = with(|p| p.presence_penalty = 1.0);
    check(presence.clone(), &[0, 0, 0], &[3.0, 1.9], 0);
    check(presence, &[0], &[3.0, 2.1], 1);
    let frequency = with(|p| p.frequency_penalty = 1.0);
    check(frequency.clone(), &[0], &[3.0, 1.9], 0);
    check(frequency, &[0, 0], &[3.0, 1.9], 1);
    let bias = with(|p| p.logit_bias = vec![(TokenId(2), 5.0)]);
    check(bias, &[], &[3.0, 2.0, -1.9], 2);
    // Bias comes first: 4 - 3 = 1 is then halved, not 4.
    let both = with(|p| {
        p.logit_bias = vec![(TokenId(0), -3.0)];
        p.repetition_penalty = 2.0;
    });
    check(both, &[0], &[4.0, 0.6], 1);
    // A penalty that overflows leaves the best token the best.
    let tiny = with(|p| p.repetition_penalty = 1e-44);
    check(tiny, &[0], &[3.0, 2.0], 0);
}

#[test]
fn logits_that_are_no_numbers_are_errors() {
    for params in [SamplingParams::default(), SamplingParams::greedy()] {
        for bad in [f32::NAN, f32::INFINITY] {
            let error = sample(&params, &[], &[0.0, bad]).unwrap_err();
            assert!(matches!(
                error,
                SamplingError::NotANumber { id: TokenId(1), .. }
            ));
        }
        let none = sample(&params, &[], &[f32::NEG_INFINITY; 3]);
        assert_eq!(none, Err(SamplingError::NoToken));
    }
}

#[test]
fn ranges_are_checked_field_by_field() {
    let check = |params: SamplingParams, expected: &str| {
        let errors = params.field_errors(10);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found.join("; "), expected);
    };
    check(SamplingParams::default(), "");
    check(
        with(|p| {
            p.temperature = 2.0;
            p.top_k = 10;
            p.top_p = 0.0;
            p.min_p = 1.0;
        }),
        "",
    );
    check(
        with(|p| p.temperature = 2.1),
        "temperature: expected 0..=2, found 2.1",
    );
    check(
        with(|p| {
            p.repetition_penalty = 0.0;
            p.min_p = -1.0;
        }),
        "min_p: expected 0..=1, found -1; \
         repetition_penalty: expected above 0, at most 2, found 0",
    );
    check(
        with(|p| {
            p.presence_penalty = -2.5;
            p.frequency_penalty = 2.5;
        }),
        "presence_penalty: expected -2..=2, found -2.5; \
         frequency_penalty: expected -2..=2, found 2.5",
    );
    let bias = |list: &[(u32, f32)]| {
        with(|p| {
            p.logit_bias = list
                .iter()
                .map(|(id, bias)| (TokenId(*id), *bias))
                .collect()
        })
    };
    check(bias(&[(9, 100.0), (0, -100.0)]), "");
    check(
        bias(&[(10, 1.0)]),
        "logit_bias: expected token ids below 10, found 10",
    );
    check(
        bias(&[(3, 1.0), (4, 0.0), (3, 2.0)]),
        "logit_bias: expected each token id once, found 3",
    );
    check(
        bias(&[(3, f32::NAN)]),
        "logit_bias: expected -100..=100, found NaN",
    );
}

/// 5 bins, 4 degrees of freedom: chi-square above 18.5 has probability 0.001.
#[test]
fn draws_follow_the_distribution() {
    let shares = [0.05, 0.3, 0.15, 0.4, 0.1];
    let squared: Vec<f64> = shares
        .iter()
        .map(|share| f64::from(share * share))
        .collect();
    let total: f64 = squared.iter().sum();
    for (seed, sequence) in [(0, 0), (1, 0), (99, 5)] {
        for (temperature, expected) in [
            (1.0, shares.map(f64::from).to_vec()),
            (0.5, squared.iter().map(|share| share / total).collect()),
        ] {
            let params = with(|p| {
                p.seed = seed;
                p.temperature = temperature;
            });
            let sampler = Sampler::new(&params, sequence, shares.len());
            let mut scratch = Scratch::default();
            let (mut bins, draws) = ([0_u32; 5], 20_000);
            for position in 0..draws {
                let id = sampler
                    .sample(&logits_of(&shares), None, position, &mut scratch)
                    .unwrap();
                bins[id.0 as usize] += 1;
            }
            let chi_square: f64 = bins
                .iter()
                .zip(&expected)
                .map(|(&n, share)| {
                    let expected = share * draws as f64;
                    (f64::from(n) - expected).powi(2) / expected
                })
                .sum();
            assert!(chi_square < 18.5, "seed {seed}: {chi_square} {bins:?}");
        }
    }
}

/// Guards the promise across versions: the same request gives the same tokens.
#[test]
fn a_seed_means_the_same_tokens_for_ever() {
    let logits: Vec<f32> = (0..1000).map(|i| ((i * 37) % 101) as f32 * 0.05).collect();
    let params = with(|p| {
        p.seed = 42;
        p.top_p = 0.9;
    });
    let sampler = Sampler::new(&params, 0, logits.len());
    let mut scratch = Scratch::default();
    let ids: Vec<u32> = (0..8)
        .map(|position| {
            sampler
                .sample(&logits, None, position, &mut scratch)
                .unwrap()
                .0
        })
        .collect();
    assert_eq!(ids, GOLDEN_IDS);
}

const GOLDEN_IDS: [u32; 8] = [466, 128, 524, 447, 742, 412, 655, 898];

fn any_params() -> impl Strategy<Value = SamplingParams> {
    let cuts = (0_usize..50, 0.0_f32..=1.0, 0.0_f32..=1.0);
    let penalties = (0.1_f32..=2.0, -2.0_f32..=2.0, -2.0_f32..=2.0);
    (0.0_f32..=2.0, cuts, penalties, any::<u64>()).prop_map(
        |(temperature, (top_k, top_p, min_p), (repetition, presence, frequency), seed)| {
            SamplingParams {
                temperature,
                top_k,
                top_p,
                min_p,
                repetition_penalty: repetition,
                presence_penalty: presence,
                frequency_penalty: frequency,
                logit_bias: Vec::new(),
                seed,
            }
        },
    )
}

fn any_logits() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![
        8 => -20.0_f32..20.0,
        1 => Just(f32::NEG_INFINITY),
        1 => (-3_i8..3).prop_map(f32::from),
        1 => -3e38_f32..3e38,
    ];
    prop::collection::vec(logit, 50..900)
}

proptest! {
    #[test]
    fn some_token_that_can_be_drawn_is_drawn_and_always_the_same(
        params in any_params(),
        logits in any_logits(),
        seen in prop::collection::vec(0_u32..50, 0..20),
    ) {
        if logits.iter().all(|logit| *logit == f32::NEG_INFINITY) {
            return Ok(());
        }
        let id = sample(&params, &seen, &logits).unwrap();
        prop_assert!(logits[id as usize] > f32::NEG_INFINITY);
        prop_assert_eq!(sample(&params, &seen, &logits), Ok(id));
    }

    #[test]
    fn cuts_that_cut_nothing_change_nothing(logits in any_logits(), seed in any::<u64>()) {
        prop_assume!(logits.iter().any(|logit| *logit > f32::NEG_INFINITY));
        let plain = with(|p| p.seed = seed);
        let idle = SamplingParams { top_k: logits.len(), ..plain.clone() };
        for position in 0..5 {
            let draw = |params: &SamplingParams| {
                Sampler::new(params, 0, logits.len()).sample(&logits, None, position, &mut Scratch::default())
            };
            prop_assert_eq!(draw(&plain), draw(&idle));
        }
    }

    #[test]
    fn the_best_token_survives_every_cut(
        params in any_params(),
        logits in prop::collection::vec(-5.0_f32..5.0, 50),
        best in 0_usize..50,
    ) {
        let mut logits = logits;
        logits[best] = 60.0;
        let no_penalties = SamplingParams {
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            ..params
        };
        prop_assert_eq!(sample(&no_penalties, &[], &logits), Ok(best as u32));
    }
}
