//! Mixtures of experts: what the verbs that route tokens to experts are told.
//!
//! Only a token's chosen experts are computed. A verb between routing and combining works on pairs of
//! a token and one of its experts, one row of a buffer each, ordered by expert and then by token: an
//! expert's tokens are neighbours, and its weights are read once for all of them.

use crate::Backend;

/// Experts a token can have at most.
pub const MAX_EXPERTS_PER_TOKEN: usize = 32;

/// How large routes can become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteShape {
    /// Tokens, at most.
    pub max_tokens: usize,
    /// Experts to choose from.
    pub experts: usize,
    /// Experts of each token, at most `experts` and [`MAX_EXPERTS_PER_TOKEN`].
    pub per_token: usize,
    /// Elements of a token's row that experts multiply.
    pub width: usize,
}

impl RouteShape {
    /// Rows of the largest buffer of pairs.
    #[must_use]
    pub const fn max_pairs(&self) -> usize {
        self.max_tokens * self.per_token
    }
}

/// How the router's logits become the weights of a token's experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// Softmax of the chosen experts' logits. A softmax of all logits whose chosen part is divided by
    /// its sum is the same function.
    SoftmaxOfChosen,
    /// Softmax of all logits: the chosen experts' weights sum to less than 1.
    SoftmaxOfAll,
}

/// Whose rows the input of [`Backend::expert_matmul`] has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertRows {
    /// A row for each token, `[tokens, width]`.
    Tokens,
    /// A row for each pair, `[pairs, cols]`, as another such product left them.
    Pairs,
}

/// One product of a [`Backend::expert_matmul`] dispatch.
#[derive(Debug)]
pub struct ExpertJob<'a, B: Backend + ?Sized> {
    /// `[experts]`, each `[rows, cols]`.
    pub weights: &'a [B::Matrix],
    /// `[experts]`, each `[rows]`.
    pub bias: Option<&'a [B::Vector]>,
    /// `[pairs, rows]`.
    pub out: &'a mut B::Buffer,
}
