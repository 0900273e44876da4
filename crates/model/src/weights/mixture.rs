//! The weights of a mixture of experts.

use redline_compute::Backend;

use super::{Linear, Tensors};
use crate::{Error, Experts, Properties};

/// A router and the networks that it chooses from.
#[derive(Debug)]
pub(crate) struct Mixture<B: Backend> {
    /// `[experts, hidden]`
    pub(crate) router: Linear<B>,
    /// `[experts]`, each `[feed_forward, hidden]`
    pub(crate) gate: Stack<B>,
    /// `[experts]`, each `[feed_forward, hidden]`
    pub(crate) up: Stack<B>,
    /// `[experts]`, each `[hidden, feed_forward]`
    pub(crate) down: Stack<B>,
}

/// The same projection of every expert.
#[derive(Debug)]
pub(crate) struct Stack<B: Backend> {
    /// `[experts]`, each `[rows, cols]`
    pub(crate) matrices: Vec<B::Matrix>,
    /// `[experts]`, each `[rows]`
    pub(crate) biases: Option<Vec<B::Vector>>,
}

impl<B: Backend> Mixture<B> {
    pub(super) fn load(
        tensors: &mut Tensors<'_, '_, B>,
        properties: &Properties,
        experts: &Experts,
        (name, bias): (impl Fn(&str) -> String, bool),
    ) -> Result<Self, Error> {
        let (hidden, width) = (properties.hidden, properties.feed_forward);
        let count = experts.count;
        let router = tensors.linear(&name("ffn_gate_inp"), count, hidden, bias)?;
        let mut stack = |part, [rows, cols]: [usize; 2]| -> Result<Stack<B>, Error> {
            let name = name(part);
            let matrices = tensors.stacked(&format!("{name}.weight"), [count, rows, cols])?;
            let name = format!("{name}.bias");
            let biases = if bias || tensors.has(&name) {
                Some(tensors.stacked_vectors(&name, [count, rows])?)
            } else {
                None
            };
            Ok(Stack { matrices, biases })
        };
        Ok(Self {
            router,
            gate: stack("ffn_gate_exps", [width, hidden])?,
            up: stack("ffn_up_exps", [width, hidden])?,
            down: stack("ffn_down_exps", [hidden, width])?,
        })
    }
}
