//! What it costs to draw a token: microseconds, the median of many, for a vocabulary's size.
//!
//! `cargo bench -p redline-engine --bench draw -- VOCAB...` prints a line of JSON for each way of drawing.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement's command"
)]

mod support;

use std::time::Instant;

use redline_engine::{Sampler, SamplingParams, Scratch, TokenId, draw_unit, log_probability};

use support::{arguments, median};

const DRAWS: u64 = 201;

fn main() {
    let sizes: Vec<usize> = (arguments().iter())
        .map(|argument| argument.parse().unwrap())
        .collect();
    if sizes.is_empty() {
        println!("expected: VOCAB...");
    }
    for vocab in sizes {
        // Spread as a model's: most far below the best.
        let logits: Vec<f32> = (0..vocab as u64)
            .map(|i| 25.0 * draw_unit(7, 0, i).powi(3) as f32)
            .collect();
        let with = |change: fn(&mut SamplingParams)| {
            let mut params = SamplingParams::default();
            change(&mut params);
            let sampler = Sampler::new(&params, 0, vocab);
            let mut scratch = Scratch::default();
            let draw = |position| {
                let id = sampler.sample(&logits, None, position, &mut scratch);
                u64::from(id.unwrap().0)
            };
            microseconds(draw)
        };
        let logprob = microseconds(|i| log_probability(&logits, TokenId(i as u32)).to_bits());
        println!(
            "{{\"vocab\":{vocab},\"likeliest_us\":{:.1},\"all_us\":{:.1},\"top_p_us\":{:.1},\
             \"top_k_us\":{:.1},\"logprob_us\":{logprob:.1}}}",
            with(|p| p.temperature = 0.0),
            with(|p| p.temperature = 0.8),
            with(|p| p.top_p = 0.9),
            with(|p| p.top_k = 40),
        );
    }
}

fn microseconds(mut draw: impl FnMut(u64) -> u64) -> f64 {
    let mut all = 0;
    let times: Vec<f64> = (0..DRAWS)
        .map(|position| {
            let start = Instant::now();
            all ^= draw(position);
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    // So that no draw is left out.
    assert!(all < u64::MAX);
    median(times)
}
