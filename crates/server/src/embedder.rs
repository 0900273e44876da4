//! A model of embeddings, on a thread of its own: texts one after another, in the order they came.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use redline_model::{
    Error as ModelError, Forward, Observer, Pooling, TokenId, hidden_rows, normalize,
};
use tokio::sync::oneshot;

use crate::error::ApiError;

/// How embeddings are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Embedding {
    /// Of what.
    pub pooling: Pooling,
    /// Numbers of one.
    pub dimensions: usize,
}

/// What others have of a thread that embeds. It ends when nobody has one of these any more.
#[derive(Debug, Clone)]
pub struct Embedder {
    jobs: SyncSender<Job>,
    context_length: usize,
    pub(crate) dimensions: usize,
}

type Rows = Result<Vec<Vec<f32>>, ModelError>;

#[derive(Debug)]
struct Job {
    /// Each at least one token, and no longer than the context.
    sequences: Vec<Vec<TokenId>>,
    answer: oneshot::Sender<Rows>,
}

impl Embedder {
    /// Puts a model that gives hidden state on a thread; so many requests may wait.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn spawn<F: Forward + Send + 'static>(
        model: F,
        embedding: Embedding,
        max_waiting: usize,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (jobs, inbox) = sync_channel(max_waiting);
        let embedder = Self {
            jobs,
            context_length: model.context_length().min(model.max_step_tokens()),
            dimensions: embedding.dimensions,
        };
        let thread = std::thread::Builder::new().name("redline-embedder".to_owned());
        let thread = thread.spawn(move || work(model, embedding, &inbox))?;
        Ok((embedder, thread))
    }

    /// Tokens of a text, at most.
    #[must_use]
    pub const fn context_length(&self) -> usize {
        self.context_length
    }

    /// The embeddings of some texts, each of length 1.
    pub(crate) async fn embed(
        &self,
        sequences: Vec<Vec<TokenId>>,
    ) -> Result<Vec<Vec<f32>>, ApiError> {
        let (answer, answered) = oneshot::channel();
        match self.jobs.try_send(Job { sequences, answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err(ApiError::overloaded("too many requests wait already"));
            }
            Err(TrySendError::Disconnected(_)) => return Err(gone()),
        }
        match answered.await {
            Ok(Ok(embeddings)) => Ok(embeddings),
            Ok(Err(error)) => Err(ApiError::internal(error.to_string())),
            Err(_) => Err(gone()),
        }
    }
}

fn gone() -> ApiError {
    ApiError::unavailable("degraded", "the model has stopped")
}

/// Whether whoever asked has left.
struct Watch<'a>(&'a oneshot::Sender<Rows>);

impl Observer for Watch<'_> {
    fn cancelled(&mut self) -> bool {
        self.0.is_closed()
    }
}

fn work(mut model: impl Forward, embedding: Embedding, inbox: &Receiver<Job>) {
    for job in inbox {
        let embed = |tokens: &Vec<TokenId>| {
            let rows = hidden_rows(&mut model, tokens, &mut Watch(&job.answer))?;
            let mut row = embedding.pooling.pool(&rows, embedding.dimensions);
            normalize(&mut row);
            Ok(row)
        };
        let rows: Rows = job.sequences.iter().map(embed).collect();
        // Nobody may be there to take it.
        let _ = job.answer.send(rows);
    }
}
