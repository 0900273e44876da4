//! Generating text: the engine's tokens, decoded as they come, up to a stop string.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::Context as _;
use redline_compute::Cpu;
use redline_engine::{
    EndReason, Engine, EngineOptions, Outcome, Request, SamplingParams, random_seed,
};
use redline_gguf::TokenId;
use redline_model::Model;
use redline_tokenizer::{AnswerStream, Channel, Fragment, Tokenizer};

use crate::interrupt::Interrupt;
use crate::prompt::Form;

/// Tokens generated at most where nobody says and the context allows.
pub(crate) const DEFAULT_MAX_TOKENS: usize = 512;

/// How tokens are drawn and when to stop.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Generating")]
pub(crate) struct Generation {
    /// 0..=2; 0 always takes the likeliest token
    #[arg(long, default_value_t = 0.7)]
    temperature: f32,
    /// Only the k likeliest tokens stay; 0: all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// 0..=1: only the smallest set of tokens that reaches this probability stays
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    top_p: f32,
    /// 0..=1: only tokens with this share of the likeliest one's probability stay
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Above 0, up to 2: makes tokens that were seen less likely
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Chooses the random stream [default: a new one each time; shown by --stats and --json]
    #[arg(long)]
    seed: Option<u64>,
    /// Tokens to generate at most [default: 512, or what the context has room for]
    #[arg(short = 'n', long, value_name = "TOKENS")]
    max_tokens: Option<usize>,
    /// Text that ends the answer and is not shown; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on after a token that ends the text
    #[arg(long)]
    ignore_eos: bool,
}

impl Generation {
    /// Fixes the seed, if nobody named one, so that it can be told.
    pub(crate) fn with_seed(mut self) -> Self {
        self.seed = self.seed.or_else(|| Some(random_seed()));
        self
    }

    /// The seed; 0 before [`Self::with_seed`].
    pub(crate) fn seed(&self) -> u64 {
        self.seed.unwrap_or(0)
    }

    /// Positions needed for a prompt and its answer, at most `context_tokens` if nobody named the
    /// answer's length.
    pub(crate) fn positions(&self, prompt_tokens: usize, context_tokens: usize) -> usize {
        prompt_tokens.saturating_add(self.max_tokens(prompt_tokens, context_tokens))
    }

    /// Tokens to generate at most.
    fn max_tokens(&self, prompt_tokens: usize, context_tokens: usize) -> usize {
        let room = context_tokens.saturating_sub(prompt_tokens).max(1);
        self.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS.min(room))
    }

    fn sampling(&self) -> SamplingParams {
        SamplingParams {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed(),
            ..SamplingParams::default()
        }
    }
}

/// What was generated.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its text, without the stop string.
    pub(crate) text: String,
    /// What was thought before it, where the model's format marks that.
    pub(crate) reasoning: String,
    /// What is to be sent to tools, and to which.
    pub(crate) calls: Vec<Call>,
    /// The stop string that ended it.
    pub(crate) stopped_by: Option<String>,
    /// The engine's account.
    pub(crate) outcome: Outcome,
}

/// What a model sends to a tool.
#[derive(Debug, Default, PartialEq, serde::Serialize)]
pub(crate) struct Call {
    /// Where the format says it apart from the text.
    pub(crate) recipient: Option<String>,
    pub(crate) text: String,
}

/// Takes text as it comes.
pub(crate) type Emit<'e> = &'e mut dyn FnMut(Channel, &str) -> anyhow::Result<()>;

impl Answer {
    /// `eos`, `stop`, `length` or `cancelled`.
    pub(crate) fn end_reason(&self) -> &'static str {
        match self.outcome.end_reason {
            EndReason::Eos => "eos",
            EndReason::Stop => "stop",
            EndReason::Length => "length",
            EndReason::Cancelled => "cancelled",
            EndReason::TimeLimit => "time_limit",
        }
    }

    /// Prompt tokens computed, a second.
    pub(crate) fn prefill_rate(&self) -> Option<f64> {
        rate(
            self.outcome.prompt_tokens - self.outcome.cached_tokens,
            self.outcome.prefill,
        )
    }

    /// Tokens generated after the first, a second.
    pub(crate) fn decode_rate(&self) -> Option<f64> {
        rate(
            self.outcome.generated.len().saturating_sub(1),
            self.outcome.decode,
        )
    }
}

fn rate(tokens: usize, time: Duration) -> Option<f64> {
    (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
}

/// A loaded model that answers.
#[derive(Debug)]
pub(crate) struct Generator<'t> {
    engine: Engine<Model<Cpu>>,
    tokenizer: &'t Tokenizer,
    continues: bool,
}

impl<'t> Generator<'t> {
    /// Takes a model over.
    pub(crate) fn new(
        model: Model<Cpu>,
        tokenizer: &'t Tokenizer,
        form: &Form,
        chunk_tokens: usize,
    ) -> Self {
        let options = EngineOptions {
            chunk_tokens,
            ..EngineOptions::default()
        };
        let engine = Engine::new(model, options);
        Self {
            engine,
            tokenizer,
            continues: matches!(form, Form::Raw),
        }
    }

    /// Lets another model guess.
    ///
    /// # Errors
    /// If it has another number of tokens.
    pub(crate) fn with_draft(self, draft: Model<Cpu>) -> anyhow::Result<Self> {
        Ok(Self {
            engine: self.engine.with_draft(Box::new(draft))?,
            ..self
        })
    }

    /// Positions there are.
    pub(crate) fn context_length(&self) -> usize {
        self.engine.context_length()
    }

    /// Answers a prompt; `emit` gets the text as it comes, stop strings being those of the answer alone.
    /// An interrupt ends the answer, not the
    /// process.
    ///
    /// # Errors
    /// If the request breaks a rule or does not fit, or `emit` fails.
    pub(crate) fn answer(
        &mut self,
        prompt: Vec<TokenId>,
        generation: &Generation,
        interrupt: &Interrupt,
        emit: Emit<'_>,
    ) -> anyhow::Result<Answer> {
        let mut stream = match self.continues {
            true => AnswerStream::unsplit(self.tokenizer.stream_decoder().continuing()),
            false => self.tokenizer.answer_stream(&prompt),
        }
        .with_stops(&generation.stop);
        let max_tokens = generation.max_tokens(prompt.len(), self.engine.context_length());
        let request = Request {
            sampling: generation.sampling(),
            speculation: true,
            end_tokens: if generation.ignore_eos {
                Vec::new()
            } else {
                self.tokenizer.end_of_generation().to_vec()
            },
            ..Request::new(prompt, max_tokens)
        };
        let mut sink = Sink::new(emit);
        let outcome = self
            .engine
            .generate(request, interrupt.flag(), &mut |token| {
                if let Some(fragment) = stream.push(token.id) {
                    sink.push(&fragment, stream.recipient())?;
                }
                match stream.stopped_by() {
                    Some(_) => ControlFlow::Break(()),
                    None => ControlFlow::Continue(()),
                }
            })
            .context("cannot generate")?;
        if sink.failure.is_none()
            && let Some(fragment) = stream.finish()
        {
            let _ = sink.push(&fragment, stream.recipient());
        }
        match sink.failure {
            Some(failure) => Err(failure),
            None => Ok(Answer {
                text: sink.text,
                reasoning: sink.reasoning,
                calls: sink.calls,
                stopped_by: stream.stopped_by().map(str::to_owned),
                outcome,
            }),
        }
    }
}

/// Where decoded text goes.
struct Sink<'e> {
    emit: Emit<'e>,
    text: String,
    reasoning: String,
    calls: Vec<Call>,
    failure: Option<anyhow::Error>,
}

impl<'e> Sink<'e> {
    fn new(emit: Emit<'e>) -> Self {
        Self {
            emit,
            text: String::new(),
            reasoning: String::new(),
            calls: Vec::new(),
            failure: None,
        }
    }

    fn push(&mut self, fragment: &Fragment, recipient: Option<&str>) -> ControlFlow<()> {
        let text = &fragment.text;
        match fragment.channel {
            Channel::Answer => {
                self.text.push_str(text);
                self.emit(Channel::Answer, text);
            }
            Channel::Reasoning => {
                self.reasoning.push_str(text);
                self.emit(Channel::Reasoning, text);
            }
            Channel::Call => {
                self.call(recipient).push_str(text);
                self.emit(Channel::Call, text);
            }
        }
        match self.failure {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    }

    /// The text of the call to `recipient`.
    fn call(&mut self, recipient: Option<&str>) -> &mut String {
        let is_same = |call: &Call| call.recipient.as_deref() == recipient;
        if !self.calls.last().is_some_and(is_same) {
            self.calls.push(Call {
                recipient: recipient.map(str::to_owned),
                text: String::new(),
            });
        }
        let last = self.calls.len() - 1;
        &mut self.calls[last].text
    }

    fn emit(&mut self, channel: Channel, text: &str) {
        if let Err(error) = (self.emit)(channel, text) {
            self.failure = Some(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_is_kept_and_a_failure_breaks_off() {
        let mut seen = Vec::new();
        let mut emit = |channel, text: &str| {
            seen.push((channel, text.to_owned()));
            Ok(())
        };
        let mut sink = Sink::new(&mut emit);
        let parts = [
            (Channel::Reasoning, "a b", None),
            (Channel::Call, "{", Some("f")),
            (Channel::Call, "}", Some("f")),
            (Channel::Call, "x", Some("g")),
            (Channel::Answer, "yes", None),
        ];
        for (channel, text, recipient) in parts {
            let text = text.to_owned();
            assert!(
                sink.push(&Fragment { channel, text }, recipient)
                    .is_continue()
            );
        }
        assert_eq!((&*sink.reasoning, &*sink.text), ("a b", "yes"));
        let call = |recipient: &str, text: &str| Call {
            recipient: Some(recipient.to_owned()),
            text: text.to_owned(),
        };
        assert_eq!(sink.calls, [call("f", "{}"), call("g", "x")]);
        assert_eq!(seen.len(), 5);

        let said = Fragment {
            channel: Channel::Answer,
            text: "a".to_owned(),
        };
        let mut emit = |_, _: &str| anyhow::bail!("closed");
        let mut sink = Sink::new(&mut emit);
        assert!(sink.push(&said, None).is_break());
        assert!(sink.failure.is_some());
    }

    #[test]
    fn the_answer_fits_unless_its_length_is_named() {
        let generation = |max_tokens| Generation {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: None,
            max_tokens,
            stop: Vec::new(),
            ignore_eos: false,
        };
        assert_eq!(
            generation(None).positions(10, 8192),
            10 + DEFAULT_MAX_TOKENS
        );
        assert_eq!(generation(None).positions(10, 100), 100);
        assert_eq!(generation(None).positions(100, 100), 101);
        assert_eq!(generation(Some(200)).positions(10, 100), 210);
    }
}
