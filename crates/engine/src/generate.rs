//! One answer at a time, for who has nobody else to serve.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redline_model::Forward;

use crate::{EndReason, Engine, Error, Event, GeneratedToken, Outcome, Request};

impl<F: Forward> Engine<F> {
    /// Generates until an end token, `max_tokens`, `cancel`, or `on_token` breaking off.
    ///
    /// `cancel` is polled in every half of a layer, so it works inside a long prompt too.
    ///
    /// # Errors
    /// If the request breaks its rules or does not fit in the context: nothing is computed then.
    /// If the model or the sampler fails.
    ///
    /// # Panics
    /// If the request asks for several answers, or others are under way.
    pub fn generate(
        &mut self,
        request: Request,
        cancel: &AtomicBool,
        on_token: &mut dyn FnMut(GeneratedToken) -> ControlFlow<()>,
    ) -> Result<Outcome, Error> {
        assert!(request.choices <= 1, "one answer: {}", request.choices);
        let load = self.load();
        assert_eq!((load.running, load.waiting), (0, 0), "nobody else");
        let id = self.submit(request)?;
        let is_cancelled = || cancel.load(Ordering::Relaxed);
        let mut events = Vec::new();
        // Tokens taken when the receiver had enough: a step may have given more.
        let mut taken = None;
        loop {
            if taken.is_some() {
                self.end(id, EndReason::Stop, &mut events);
            } else if is_cancelled() {
                self.end(id, EndReason::Cancelled, &mut events);
            } else if let Err(error) = self.step(&mut |_| is_cancelled(), &mut events) {
                self.fail(&Arc::new(error), &mut events);
            }
            for event in events.drain(..) {
                match event {
                    Event::Token { token, .. } if taken.is_none() => {
                        let count = token.index + 1;
                        taken = on_token(token).is_break().then_some(count);
                    }
                    Event::End { outcome, .. } => {
                        return outcome.map(|outcome| match taken {
                            Some(count) => outcome.stopped_after(count),
                            None => outcome,
                        });
                    }
                    Event::Token { .. } | Event::PromptLogprobs { .. } => {}
                }
            }
        }
    }
}
