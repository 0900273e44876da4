//! From a handler to the engine's thread and back: submitted, told of, and ended when nobody listens.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use redline_engine::{EndReason, Error as EngineError, Event, Handle, Request, RequestId, Sink};
use tokio::sync::mpsc;

use crate::app::App;
use crate::error::ApiError;
use crate::metrics::Watch;

/// Events that wait for a client before it counts as one that does not read.
const MAX_EVENTS: usize = 1024;

/// What the engine says of one of a job's requests.
#[derive(Debug)]
enum Told {
    Accepted(Result<(), EngineError>),
    Event(Event),
}

/// Requests of the engine that were taken in. Dropping it ends those that are not over.
#[derive(Debug)]
pub(crate) struct Job {
    engine: Handle,
    told: mpsc::Receiver<(usize, Told)>,
    tickets: Vec<Arc<Ticket>>,
    /// Events of some that came before all were accepted.
    early: VecDeque<(usize, Event)>,
}

impl Job {
    /// Hands requests over, and waits until the engine has taken in all of them.
    ///
    /// # Errors
    /// If it refuses one: then the others are ended.
    pub(crate) async fn submit(app: &Arc<App>, requests: Vec<Request>) -> Result<Self, ApiError> {
        let engine = app.served()?.engine()?.clone();
        let (sender, told) = mpsc::channel(MAX_EVENTS);
        let mut job = Self {
            engine: engine.clone(),
            told,
            tickets: Vec::with_capacity(requests.len()),
            early: VecDeque::new(),
        };
        let count = requests.len();
        for (index, request) in requests.into_iter().enumerate() {
            let ticket = Arc::new(Ticket::default());
            job.tickets.push(Arc::clone(&ticket));
            let listener = Listener {
                index,
                sender: sender.clone(),
                ticket,
                engine: engine.clone(),
                watch: Watch::new(app, request.choices),
            };
            engine.submit(request, Box::new(listener));
        }
        drop(sender);
        let mut accepted = 0;
        while accepted < count {
            match job.told.recv().await {
                Some((_, Told::Accepted(answer))) => answer.map(|()| accepted += 1)?,
                Some((index, Told::Event(event))) => job.early.push_back((index, event)),
                None => return Err(ApiError::unavailable("degraded", "the engine has stopped")),
            }
        }
        Ok(job)
    }

    /// The next event, and which request it is of; `None` if the engine has nothing more to say,
    /// because all is over or what it said was not taken.
    pub(crate) async fn next(&mut self) -> Option<(usize, Event)> {
        if let Some(early) = self.early.pop_front() {
            return Some(early);
        }
        loop {
            match self.told.recv().await? {
                (index, Told::Event(event)) => return Some((index, event)),
                (_, Told::Accepted(_)) => {}
            }
        }
    }

    /// Ends one answer: its stop string has come.
    pub(crate) fn stop(&self, index: usize, choice: usize) {
        if let Some(id) = self.tickets.get(index).and_then(|ticket| ticket.id()) {
            self.engine.end_choice(id, choice, EndReason::Stop);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        for ticket in &self.tickets {
            if let Some(id) = ticket.leave() {
                self.engine.end(id, EndReason::Cancelled);
            }
        }
    }
}

/// Who a client is to the engine, known to both: whoever comes second, to accept or to leave, sees
/// that the other was there.
#[derive(Debug, Default)]
struct Ticket(Mutex<State>);

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Waiting,
    Accepted(RequestId),
    Left,
}

impl Ticket {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self) -> Option<RequestId> {
        match *self.state() {
            State::Accepted(id) => Some(id),
            State::Waiting | State::Left => None,
        }
    }

    /// The engine has taken it in; `false` if nobody wants it any more.
    fn accept(&self, id: RequestId) -> bool {
        let mut state = self.state();
        if matches!(*state, State::Left) {
            return false;
        }
        *state = State::Accepted(id);
        true
    }

    /// The client goes; what is to be ended.
    fn leave(&self) -> Option<RequestId> {
        match std::mem::replace(&mut *self.state(), State::Left) {
            State::Accepted(id) => Some(id),
            State::Waiting | State::Left => None,
        }
    }
}

/// The engine's side. It waits for nobody.
struct Listener {
    index: usize,
    sender: mpsc::Sender<(usize, Told)>,
    ticket: Arc<Ticket>,
    engine: Handle,
    watch: Watch,
}

impl Sink for Listener {
    fn accepted(&mut self, accepted: Result<RequestId, EngineError>) {
        let accepted = accepted.map(|id| {
            if !self.ticket.accept(id) {
                self.engine.end(id, EndReason::Cancelled);
            }
        });
        let _ = self.sender.try_send((self.index, Told::Accepted(accepted)));
    }

    fn take(&mut self, event: Event) -> ControlFlow<()> {
        self.watch.observe(&event);
        match self.sender.try_send((self.index, Told::Event(event))) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_second_ends_the_request() {
        let ticket = Ticket::default();
        assert!(ticket.accept(RequestId(3)));
        assert_eq!(ticket.id(), Some(RequestId(3)));
        assert_eq!(ticket.leave(), Some(RequestId(3)));
        assert_eq!(ticket.leave(), None);

        let ticket = Ticket::default();
        assert_eq!(ticket.leave(), None);
        assert!(!ticket.accept(RequestId(4)));
    }
}
