//! What the benches have in common.
#![allow(dead_code, reason = "not every bench needs all")]

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use redline_compute::{Cpu, Isa};
use redline_engine::{Engine, Outcome, Request};
use redline_model::{LoadOptions, Model, ModelFile};

/// Those after `--`; cargo adds one of its own.
pub(crate) fn arguments() -> Vec<String> {
    let arguments = std::env::args().skip(1);
    arguments.filter(|argument| argument != "--bench").collect()
}

pub(crate) fn load(path: &str, threads: usize, options: &LoadOptions) -> Model<Cpu> {
    let file = ModelFile::open(path.as_ref()).unwrap();
    let backend = Cpu::new(Isa::detect(), threads);
    Model::load(&file, &file.gguf().unwrap(), backend, options, &mut |_| ()).unwrap()
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

/// A request alone, to its end.
pub(crate) fn answer(engine: &mut Engine<Model<Cpu>>, request: Request) -> Outcome {
    let go_on = &mut |_| ControlFlow::Continue(());
    let outcome = engine.generate(request, &AtomicBool::new(false), go_on);
    outcome.unwrap()
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
