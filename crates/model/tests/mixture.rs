//! Mixtures of experts: files that make no sense, and what their metadata means.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    dead_code,
    reason = "each test file uses its part of the support module"
)]

#[path = "support/tiny.rs"]
mod tiny;

use redline_compute::{Activation, Routing};
use redline_gguf::TensorType;
use redline_model::{Experts, Properties, Yarn};
use tiny::Metadata::{Float, Int, Text};
use tiny::{GPT_OSS, TinyModel, load};

/// Changes a model and expects this error.
fn check(expected: &str, change: impl FnOnce(&mut TinyModel)) {
    let mut model = TinyModel::new(GPT_OSS);
    change(&mut model);
    let error = load(&model).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, expected);
}

fn properties(change: impl FnOnce(&mut TinyModel)) -> Properties {
    let mut model = TinyModel::new(GPT_OSS);
    change(&mut model);
    load(&model).unwrap().properties().clone()
}

#[test]
fn counts_of_experts() {
    check(
        "metadata gpt-oss.expert_used_count: expected 1..=5, found 6",
        |m| m.set("gpt-oss.expert_used_count", Int(6)),
    );
    check(
        "metadata has no \"gpt-oss.expert_count\": expected u64",
        |m| m.remove("gpt-oss.expert_count"),
    );
    check(
        "metadata gpt-oss.expert_count: expected 1..=16777216, found 0",
        |m| m.set("gpt-oss.expert_count", Int(0)),
    );
}

#[test]
fn experts_are_as_many_as_they_are_said_to_be() {
    check(
        "tensor blk.0.ffn_gate_inp.weight: expected dims [256, 4], found [256, 5]",
        |m| m.set("gpt-oss.expert_count", Int(4)),
    );
    check(
        "tensor blk.1.ffn_up_exps.weight: expected dims [256, 256, 5], found [256, 256, 4]",
        |m| m.tensor("blk.1.ffn_up_exps.weight").dims[2] = 4,
    );
    check(
        "tensor blk.0.ffn_down_exps.bias: expected dims [256, 5], found [1280]",
        |m| m.tensor("blk.0.ffn_down_exps.bias").dims = vec![1280],
    );
    check(
        "tensor blk.0.ffn_gate_exps.bias: missing, expected dims [256, 5]",
        |m| m.remove("blk.0.ffn_gate_exps.bias"),
    );
}

#[test]
fn sinks_are_a_number_for_each_head() {
    check(
        "tensor blk.1.attn_sinks.weight: expected dims [4], found [3]",
        |m| m.tensor("blk.1.attn_sinks.weight").dims[0] = 3,
    );
    check(
        "tensor blk.0.attn_sinks.weight: expected type F32, F16 or BF16, found I32",
        |m| m.tensor("blk.0.attn_sinks.weight").tensor_type = TensorType::I32,
    );
}

#[test]
fn what_yarn_needs() {
    check(
        "metadata has no \"gpt-oss.rope.scaling.original_context_length\": expected u64",
        |m| m.remove("gpt-oss.rope.scaling.original_context_length"),
    );
    check(
        "metadata gpt-oss.rope.freq_base: expected a number above 1, found 0.5",
        |m| m.set("gpt-oss.rope.freq_base", Float(0.5)),
    );
}

#[test]
fn metadata_means_what_it_says() {
    let p = properties(|_| {});
    let experts = Experts {
        count: 5,
        per_token: 2,
        routing: Routing::SoftmaxOfChosen,
    };
    assert_eq!(p.experts, Some(experts));
    assert_eq!(p.activation, Activation::ClampedSwiglu);
    assert!(p.sinks);
    let windows: Vec<_> = p.layers.iter().map(|layer| layer.window).collect();
    assert_eq!(windows, [Some(20), None]);
    let yarn = Yarn {
        factor: 8.0,
        original_context: 64,
        fast_turns: 32.0,
        slow_turns: 1.0,
        whole_pairs: false,
    };
    assert_eq!(p.ropes[0].yarn, Some(yarn));
    assert!((p.ropes[0].magnitude - (1.0 + 0.1 * 8.0_f64.ln())).abs() < 1e-12);

    let plain = properties(|m| m.set("gpt-oss.rope.scaling.type", Text("none")));
    assert_eq!((plain.ropes[0].yarn, plain.ropes[0].magnitude), (None, 1.0));
}

/// The frequencies of gpt-oss-20b, by the definition written down in another order.
#[test]
fn yarn_keeps_fast_rotations_and_slows_slow_ones() {
    let mut rope = properties(|m| {
        m.set("gpt-oss.rope.freq_base", Float(150_000.0));
        m.set("gpt-oss.rope.scaling.factor", Float(32.0));
        m.set("gpt-oss.rope.scaling.original_context_length", Int(4096));
    })
    .ropes
    .remove(0);
    // Position 1 turns by the frequency itself.
    let angles = |rope: &redline_model::Rope| -> Vec<f64> {
        let table = rope.table(2).table;
        let row = &table[table.len() / 2..];
        row.iter()
            .map(|(cos, sin)| f64::from(*sin).atan2(f64::from(*cos)))
            .collect()
    };
    let stretched = angles(&rope);
    rope.yarn = None;
    let ratios: Vec<f64> = stretched
        .iter()
        .zip(angles(&rope))
        .map(|(a, b)| a / b)
        .collect();
    // Pairs whose wavelength is below 4096 / 32 positions, and those beyond 4096.
    let pair =
        |turns: f64| 32.0 * (4096.0 / (turns * std::f64::consts::TAU)).ln() / 150_000_f64.ln();
    let (low, high) = (pair(32.0), pair(1.0));
    for (i, ratio) in ratios.iter().enumerate() {
        let slow = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        let expected = 1.0 + slow * (1.0 / 32.0 - 1.0);
        assert!(
            (ratio / expected - 1.0).abs() < 1e-5,
            "pair {i}: {ratio}, not {expected}"
        );
    }
    assert!(ratios[0] > 0.9999 && ratios[31] < 0.0313, "{ratios:?}");
}
