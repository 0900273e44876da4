//! An engine on a thread of its own, for who serves many.
//!
//! One thread owns the engine; everybody else sends it commands of one closed kind and is told what
//! comes of them. Nothing it does waits for anybody: who does not take what it is told loses its own
//! request, and nobody else's.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use redline_model::Forward;

use crate::schedule::Load;
use crate::{EndReason, Engine, Error, Event, Progress, Request, RequestId, Stats, UnderWay};

/// How long an idle engine sleeps at most before it looks whether somebody's time is over.
const IDLE: Duration = Duration::from_millis(50);

/// Takes what a request is told.
pub trait Sink: Send {
    /// Whether the request is taken in: the first it is told, and the last if not.
    fn accepted(&mut self, accepted: Result<RequestId, Error>);

    /// What comes of it. It must not wait; to break off ends the request, of which nothing more is
    /// told then.
    fn take(&mut self, event: Event) -> ControlFlow<()>;
}

/// All that can be asked of an engine.
enum Command {
    /// Generate.
    Submit(Box<Request>, Box<dyn Sink>),
    /// End answers of a request: one of them, or all.
    End(RequestId, Option<usize>, EndReason),
    /// Take nothing new, and come to an end when all is done.
    Drain,
    /// End everything, and come to an end.
    Stop,
}

/// Numbers of the moment, and since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Of the moment.
    pub load: Load,
    /// Since the start.
    pub stats: Stats,
    /// Whether nothing new is taken.
    pub is_draining: bool,
}

/// What others have of an engine that runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: Sender<Command>,
    snapshot: Arc<Mutex<Snapshot>>,
    context_length: usize,
}

impl Handle {
    /// Asks for answers; `sink` is told whether they will come, and then all there is.
    pub fn submit(&self, request: Request, sink: Box<dyn Sink>) {
        let command = Command::Submit(Box::new(request), sink);
        // Nobody is there to take it.
        if let Err(SendError(Command::Submit(_, mut sink))) = self.commands.send(command) {
            sink.accepted(Err(Error::Draining));
        }
    }

    /// Ends all answers of a request that are not over.
    pub fn end(&self, request: RequestId, reason: EndReason) {
        let _ = self.commands.send(Command::End(request, None, reason));
    }

    /// Ends one answer of a request, if it is not over.
    pub fn end_choice(&self, request: RequestId, choice: usize, reason: EndReason) {
        let _ = (self.commands).send(Command::End(request, Some(choice), reason));
    }

    /// Takes nothing new from now on; the thread ends when all is done.
    pub fn drain(&self) {
        let _ = self.commands.send(Command::Drain);
    }

    /// Ends everything, and the thread.
    pub fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
    }

    /// Numbers as they were after the last step.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Positions a sequence can have.
    #[must_use]
    pub const fn context_length(&self) -> usize {
        self.context_length
    }
}

/// Puts an engine on a thread of its own. The thread gives it back when it was drained or stopped, or
/// when nobody has a [`Handle`] any more and all is done.
///
/// # Errors
/// If the system gives no thread.
pub fn spawn<F: Forward + Send + 'static>(
    engine: Engine<F>,
) -> std::io::Result<(Handle, JoinHandle<Engine<F>>)> {
    let (commands, inbox) = channel();
    let snapshot = Arc::default();
    let handle = Handle {
        commands,
        snapshot: Arc::clone(&snapshot),
        context_length: engine.context_length(),
    };
    let worker = Worker {
        engine,
        inbox,
        pending: Vec::new(),
        sinks: BTreeMap::new(),
        snapshot,
        is_draining: false,
    };
    let thread = std::thread::Builder::new().name("redline-engine".to_owned());
    let thread = thread.spawn(|| worker.run())?;
    Ok((handle, thread))
}

/// A request's sink, and its answers that are not over.
struct Listener {
    sink: Box<dyn Sink>,
    open: usize,
}

struct Worker<F> {
    engine: Engine<F>,
    inbox: Receiver<Command>,
    /// Commands that came while a step was under way.
    pending: Vec<Command>,
    sinks: BTreeMap<RequestId, Listener>,
    snapshot: Arc<Mutex<Snapshot>>,
    is_draining: bool,
}

impl<F: Forward> Worker<F> {
    fn run(mut self) -> Engine<F> {
        let mut events = Vec::new();
        loop {
            self.receive();
            for command in std::mem::take(&mut self.pending) {
                self.obey(command, &mut events);
            }
            self.tell(&mut events);
            let progress = self.step(&mut events);
            self.tell(&mut events);
            self.publish();
            if progress == Progress::Idle {
                if self.is_draining && self.sinks.is_empty() {
                    return self.engine;
                }
                self.wait();
            }
        }
    }

    /// Takes what is there without waiting. Without anybody left to send more, it drains.
    fn receive(&mut self) {
        loop {
            match self.inbox.try_recv() {
                Ok(command) => self.pending.push(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.is_draining = true;
                    break;
                }
            }
        }
    }

    fn wait(&mut self) {
        match self.inbox.recv_timeout(IDLE) {
            Ok(command) => self.pending.push(command),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.is_draining = true,
        }
    }

    fn obey(&mut self, command: Command, events: &mut Vec<Event>) {
        match command {
            Command::Submit(request, mut sink) => {
                let open = request.choices;
                let accepted = match self.is_draining {
                    true => Err(Error::Draining),
                    false => self.engine.submit(*request),
                };
                let id = accepted.as_ref().ok().copied();
                sink.accepted(accepted);
                if let Some(id) = id {
                    self.sinks.insert(id, Listener { sink, open });
                }
            }
            Command::End(request, None, reason) => self.engine.end(request, reason, events),
            Command::End(request, Some(choice), reason) => {
                (self.engine).end_choice(request, choice, reason, events);
            }
            Command::Drain => self.is_draining = true,
            Command::Stop => {
                self.is_draining = true;
                for request in self.sinks.keys() {
                    self.engine.end(*request, EndReason::Cancelled, events);
                }
            }
        }
    }

    /// One step, broken off if the prompt it reads is not wanted any more, or nothing is.
    fn step(&mut self, events: &mut Vec<Event>) -> Progress {
        let (inbox, pending) = (&self.inbox, &mut self.pending);
        let mut break_off = |under_way: &UnderWay| {
            let first = pending.len();
            pending.extend(inbox.try_iter());
            pending[first..].iter().any(|command| match command {
                Command::End(request, ..) => under_way.has_prompt_of(*request),
                Command::Stop => true,
                Command::Submit(..) | Command::Drain => false,
            })
        };
        match self.engine.step(&mut break_off, events) {
            Ok(progress) => progress,
            Err(error) => {
                self.engine.fail(&Arc::new(error), events);
                Progress::Step
            }
        }
    }

    /// Tells what there is; who hears of it finds it counted.
    fn tell(&mut self, events: &mut Vec<Event>) {
        while !events.is_empty() {
            self.publish();
            for event in std::mem::take(events) {
                let request = event.request();
                let Some(listener) = self.sinks.get_mut(&request) else {
                    continue;
                };
                listener.open -= usize::from(matches!(event, Event::End { .. }));
                let is_over = listener.open == 0;
                let left = listener.sink.take(event).is_break();
                if is_over || left {
                    self.sinks.remove(&request);
                }
                if left {
                    // What that tells, nobody hears.
                    self.engine.end(request, EndReason::Cancelled, events);
                }
            }
        }
    }

    fn publish(&self) {
        let snapshot = Snapshot {
            load: self.engine.load(),
            stats: *self.engine.stats(),
            is_draining: self.is_draining,
        };
        *(self.snapshot.lock()).unwrap_or_else(PoisonError::into_inner) = snapshot;
    }
}
