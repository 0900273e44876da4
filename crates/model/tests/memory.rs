//! A load takes the memory that was planned. Alone in its file, for it is read off the process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    dead_code,
    reason = "each test file uses its part of the support module"
)]

#[path = "support/tiny.rs"]
mod tiny;

use redline_compute::{Cpu, Isa, KvFormat};
use redline_model::{LoadOptions, MemoryPlan};
use tiny::{CONTEXT, GPT_OSS, HIDDEN, LLAMA, PHI3, TinyModel};

/// So many that quantised copies outweigh what happens to be free on the heap.
const STEP_TOKENS: usize = 8192;

/// Private memory of this process, touched or not (proc_pid_status(5)).
fn data_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:"));
    let kilobytes: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kilobytes << 10
}

#[test]
fn a_load_takes_what_is_planned() {
    // Fused projections and stacked experts are taken apart without a copy; a token takes two of those.
    for (shape, networks) in [(LLAMA, 1), (PHI3, 1), (GPT_OSS, 2)] {
        let file = TinyModel::new(shape).file();
        let gguf = file.gguf().unwrap();
        let options = LoadOptions {
            context: Some(CONTEXT),
            kv_pages: Some(64),
            kv_format: KvFormat::F16,
            max_step_tokens: STEP_TOKENS,
            max_logit_rows: 256,
            ..LoadOptions::default()
        };
        let plan = MemoryPlan::new(&gguf, &options).unwrap();
        let before = data_bytes();
        let model = tiny::load_on(&file, Cpu::new(Isa::detect(), 1), &options).unwrap();
        let taken = data_bytes() - before;
        drop(model);
        // Cosines and sines may lie where the heap had room.
        let ropes = (CONTEXT * 64 * size_of::<f32>()) as u64;
        let planned = plan.kv_bytes + plan.scratch_bytes;
        // Beside it what the backend keeps, as `MemoryPlan` says: quantised copies of a buffer, and
        // one thread's room for products and attention, four times 16 elements a head.
        let quantised = (13 * networks * STEP_TOKENS * HIDDEN / 2) as u64;
        let thread = (1024 + 154 + 4 * (25 + 2 * 64 * 64 / 256)) << 10;
        let what = format!("{}: {taken} of {planned} bytes", shape.architecture);
        assert!(taken + ropes >= planned, "{what}");
        assert!(taken < planned + quantised + thread, "{what}");
    }
}
