//! A model of embeddings, on a thread of its own: texts of several requests at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;

use redline_engine::{Embedding, EmbeddingEngine, EmbeddingId};
use redline_model::{Error as ModelError, Forward, TokenId};
use tokio::sync::oneshot;

use crate::error::ApiError;

/// Requests that take turns; others wait.
const MAX_OPEN: usize = 16;

/// What others have of a thread that embeds. It ends when nobody has one of these any more.
#[derive(Debug, Clone)]
pub struct Embedder {
    jobs: SyncSender<Job>,
    context_length: usize,
    pub(crate) dimensions: usize,
}

/// Those of one step share what went wrong.
type Rows = Result<Vec<Vec<f32>>, Arc<ModelError>>;

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
        let engine = EmbeddingEngine::new(model, embedding);
        let embedder = Self {
            jobs,
            context_length: engine.context_length(),
            dimensions: embedding.dimensions,
        };
        let thread = std::thread::Builder::new().name("redline-embedder".to_owned());
        let thread = thread.spawn(move || work(engine, &inbox))?;
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

type Answers = BTreeMap<EmbeddingId, oneshot::Sender<Rows>>;

/// Until nobody asks any more.
fn work(mut engine: EmbeddingEngine<impl Forward>, inbox: &Receiver<Job>) {
    let mut answers = Answers::new();
    while receive(&mut engine, inbox, &mut answers) {
        let mut done = Vec::new();
        // A step is for several: it is broken off when all have left.
        let mut all_left = |ids: &[EmbeddingId]| ids.iter().all(|id| has_left(&answers, *id));
        engine.step(&mut all_left, &mut done);
        // Nobody may be there to take it.
        for embedded in done {
            if let Some(answer) = answers.remove(&embedded.id) {
                let _ = answer.send(embedded.rows);
            }
        }
        let gone: Vec<EmbeddingId> = (answers.keys().copied())
            .filter(|id| has_left(&answers, *id))
            .collect();
        for id in gone {
            engine.cancel(id);
            answers.remove(&id);
        }
    }
}

fn has_left(answers: &Answers, id: EmbeddingId) -> bool {
    answers.get(&id).is_none_or(oneshot::Sender::is_closed)
}

/// Takes in what there is, waiting if there is nothing to do; `false` once nobody asks any more and all
/// is done.
fn receive(
    engine: &mut EmbeddingEngine<impl Forward>,
    inbox: &Receiver<Job>,
    answers: &mut Answers,
) -> bool {
    while engine.open() < MAX_OPEN {
        let job = match engine.open() {
            0 => match inbox.recv() {
                Ok(job) => job,
                Err(_) => return false,
            },
            _ => match inbox.try_recv() {
                Ok(job) => job,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            },
        };
        if !job.answer.is_closed() {
            answers.insert(engine.submit(job.sequences), job.answer);
        }
    }
    true
}
