//! From the hidden state of a sequence's tokens to one embedding of it.

use redline_compute::PageId;
use redline_gguf::TokenId;

use crate::Error;
use crate::plan::{Forward, LogitRows, Observer, SequenceStep, StepPlan, pages_for};

/// What a sequence's embedding is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all tokens' rows.
    Mean,
    /// The first token's row.
    Cls,
    /// The last token's row.
    Last,
}

impl Pooling {
    /// Every pooling.
    pub const ALL: [Self; 3] = [Self::Mean, Self::Cls, Self::Last];

    /// `mean`, `cls` or `last`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Last => "last",
        }
    }

    /// The embedding of a sequence whose rows are `[tokens, hidden]`. Sums run in F64, in order of the
    /// tokens.
    ///
    /// # Panics
    /// If `rows` is not whole rows, at least one.
    #[must_use]
    pub fn pool(self, rows: &[f32], hidden: usize) -> Vec<f32> {
        assert!(
            !rows.is_empty() && rows.len().is_multiple_of(hidden),
            "whole rows, at least one"
        );
        let tokens = rows.len() / hidden;
        match self {
            Self::Cls => rows[..hidden].to_vec(),
            Self::Last => rows[rows.len() - hidden..].to_vec(),
            Self::Mean => {
                let column = |i: usize| rows[i..].iter().step_by(hidden);
                let sum = |i: usize| column(i).map(|x| f64::from(*x)).sum::<f64>();
                (0..hidden)
                    .map(|i| (sum(i) / tokens as f64) as f32)
                    .collect()
            }
        }
    }
}

/// The last hidden state of every token of a sequence, `[tokens, hidden]`, of a model that was loaded for
/// [`Output::Hidden`](crate::Output::Hidden) and has pages for it. Others of its pages are left alone,
/// these are overwritten.
///
/// # Errors
/// As [`Forward::forward`].
pub fn hidden_rows(
    model: &mut impl Forward,
    tokens: &[TokenId],
    observer: &mut dyn Observer,
) -> Result<Vec<f32>, Error> {
    let pages: Vec<PageId> = (0..pages_for(tokens.len()) as u32).map(PageId).collect();
    let mut rows = Vec::new();
    let mut position = 0;
    for chunk in tokens.chunks(model.shape().max_step_tokens) {
        let sequences = [SequenceStep {
            tokens: chunk,
            position,
            pages: &pages,
            logits: LogitRows::All,
        }];
        let plan = StepPlan {
            sequences: &sequences,
        };
        rows.extend_from_slice(model.forward(&plan, observer)?);
        position += chunk.len();
    }
    Ok(rows)
}

/// Scales a vector to length 1, its length computed in F64; one of zeros stays.
pub fn normalize(vector: &mut [f32]) {
    let square: f64 = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    if square > 0.0 {
        let length = square.sqrt();
        for x in vector {
            *x = (f64::from(*x) / length) as f32;
        }
    }
}

impl std::fmt::Display for Pooling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Pooling {
    type Err = UnknownPooling;

    fn from_str(text: &str) -> Result<Self, UnknownPooling> {
        let found = Self::ALL.into_iter().find(|pooling| pooling.name() == text);
        found.ok_or_else(|| UnknownPooling(text.to_owned()))
    }
}

/// A name that is no [`Pooling`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown pooling {0:?}: expected mean, cls or last")]
pub struct UnknownPooling(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_takes_the_rows_it_says() {
        let rows = [1.0, 2.0, 3.0, 5.0, 8.0, 14.0];
        assert_eq!(Pooling::Mean.pool(&rows, 2), [4.0, 7.0]);
        assert_eq!(Pooling::Cls.pool(&rows, 2), [1.0, 2.0]);
        assert_eq!(Pooling::Last.pool(&rows, 2), [8.0, 14.0]);
    }

    #[test]
    fn a_normalised_vector_has_length_one_and_zeros_stay() {
        let mut vector = [3.0, -4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, -0.8]);
        let mut zeros = [0.0; 3];
        normalize(&mut zeros);
        assert_eq!(zeros, [0.0; 3]);
    }

    #[test]
    fn names_are_read_back() {
        for pooling in Pooling::ALL {
            assert_eq!(pooling.name().parse(), Ok(pooling));
        }
        assert!("max".parse::<Pooling>().is_err());
    }
}
