//! `redline run`: generate text, once or in a chat.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use redline_engine::Drafts;
use redline_gguf::{Gguf, TokenId};
use redline_model::{ModelFile, Properties};
use redline_tokenizer::Tokenizer;

use super::repl;
use crate::cli::{Compute, Weights};
use crate::commands::Context;
use crate::draft::{self, Draft};
use crate::failure::Usage;
use crate::generate::{Answer, Call, Generation, Generator};
use crate::models::{self, Resolved};
use crate::prompt::{Conversation, Form};
use crate::room::{Room, Saving};
use crate::session::{self, Computing};
use crate::speech::Speech;
use crate::{input, output};

/// Flags of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A GGUF file, a folder of safetensors, a short name, or `synth:<shape>[:<quant>]`
    pub(super) model: Option<String>,
    /// What to answer or continue; without it, a chat on a terminal, else what is piped in
    pub(super) prompt: Option<String>,
    /// Continue the text as it is: no chat template
    #[arg(long)]
    pub(super) raw: bool,
    /// Instructions before the conversation
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub(super) system: Option<String>,
    /// Show token counts and rates on stderr
    #[arg(long)]
    pub(super) stats: bool,
    #[command(flatten)]
    pub(super) generation: Generation,
    #[command(flatten)]
    pub(crate) compute: Compute,
    #[command(flatten)]
    weights: Weights,
    /// A smaller model of the same vocabulary that guesses what comes next, where that is faster;
    /// answers are the same. `none`: the one of the settings is not used [env: REDLINE_DRAFT]
    #[arg(long, value_name = "MODEL", help_heading = "Computing")]
    pub(crate) draft: Option<String>,
    /// Positions to keep room for [default: what prompt and answer need; in a chat 4096]
    #[arg(long, value_name = "TOKENS", help_heading = "Computing")]
    pub(crate) context: Option<usize>,
}

/// Machine-readable result of one generation.
#[derive(Debug, serde::Serialize)]
struct Report<'a> {
    model: &'a str,
    weights: &'static str,
    prompt_form: &'static str,
    text: &'a str,
    reasoning: Option<&'a str>,
    tool_calls: &'a [Call],
    tokens: Vec<u32>,
    end_reason: &'static str,
    stop_sequence_matched: Option<&'a str>,
    seed: u64,
    prompt_tokens: usize,
    cached_tokens: usize,
    completion_tokens: usize,
    guessed_tokens: usize,
    accepted_tokens: usize,
    draft_guessed_tokens: usize,
    draft_accepted_tokens: usize,
    prefill_ms: f64,
    decode_ms: f64,
    prefill_tokens_per_s: Option<f64>,
    decode_tokens_per_s: Option<f64>,
    #[serde(flatten)]
    computing: Computing,
}

/// Generates.
///
/// # Errors
/// If the model cannot be had or run, or a parameter is out of range.
pub(crate) fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let prompt = match &args.prompt {
        Some(prompt) => Some(prompt.clone()),
        None if std::io::stdin().is_terminal() => None,
        None => Some(piped_prompt()?),
    };
    if prompt.is_none() && context.json {
        return Err(Usage("--json needs a prompt: a chat is for people".into()).into());
    }
    let resolved = models::resolve(args.model.as_deref(), context)?;
    let file = session::open_as(&resolved, args.weights, context)?;
    // The disk is busy while the tokenizer is built.
    file.read_ahead();
    let gguf = session::parse(&file, &resolved)?;
    let tokenizer = session::tokenizer(&gguf, &resolved)?;
    let form = Form::choose(&tokenizer, args.raw, &resolved.name);
    let model = Opened {
        resolved: &resolved,
        file: &file,
        gguf: &gguf,
        tokenizer: &tokenizer,
        weights: args.weights,
    };
    match prompt {
        Some(prompt) => once(&prompt, args, &form, &model, context),
        None => {
            let generator = model.load(
                &form,
                context.config.context_tokens.map(usize::from),
                context,
            )?;
            repl::chat(generator, args, &form, &model, context)
        }
    }
}

/// A model whose metadata has been read.
#[derive(Debug)]
pub(super) struct Opened<'a> {
    pub(super) resolved: &'a Resolved,
    pub(super) tokenizer: &'a Tokenizer,
    file: &'a ModelFile,
    gguf: &'a Gguf<'a>,
    weights: Weights,
}

impl<'a> Opened<'a> {
    fn load(
        &self,
        form: &Form,
        context_tokens: Option<usize>,
        context: &Context,
    ) -> anyhow::Result<Generator<'a>> {
        let options = session::load_options(&context.config, context_tokens);
        let room = Room::of(self.resolved, self.gguf, options, |options| {
            vec![
                Saving::kv(options),
                Saving::context(options),
                Saving::chunk(options),
            ]
        })?;
        let main = draft::Main {
            name: &self.resolved.name,
            gguf: self.gguf,
            tokenizer: self.tokenizer,
            room: &room,
        };
        let draft = Draft::open(&main, context)?;
        let model = session::load(self.file, self.gguf, self.resolved, &room, context)?;
        let chunk_tokens = context.config.chunk_tokens.get();
        let generator = Generator::new(model, self.tokenizer, form, chunk_tokens);
        match draft {
            Some(draft) => generator.with_draft(draft.load(context)?.0),
            None => Ok(generator),
        }
    }
}

/// What is piped in.
fn piped_prompt() -> anyhow::Result<String> {
    let prompt = input::stdin().context("cannot read the prompt from stdin")?;
    if prompt.is_empty() {
        return Err(Usage("no prompt: none is given and stdin is empty".into()).into());
    }
    Ok(prompt)
}

/// Answers one prompt.
fn once(
    prompt: &str,
    args: &Args,
    form: &Form,
    model: &Opened<'_>,
    context: &Context,
) -> anyhow::Result<()> {
    let mut conversation = Conversation::new(args.system.as_deref(), form);
    conversation.say("user", prompt);
    let prompt = conversation.prompt(form, model.tokenizer)?;
    let generation = args.generation.clone().with_seed();
    let positions = needed_positions(&prompt, &generation, model.gguf, context)?;
    let mut generator = model.load(form, Some(positions), context)?;
    if context.json {
        let mut emit = |_, _: &str| Ok(());
        let answer = generator.answer(prompt, &generation, &context.interrupt, &mut emit)?;
        return output::json(&report(&answer, &generation, form, model, context));
    }
    let mut speech = Speech::default();
    let mut emit = |channel, text: &str| speech.say(channel, text);
    let answer = generator.answer(prompt, &generation, &context.interrupt, &mut emit)?;
    speech.end()?;
    if args.stats {
        output::note(&stats(&answer, &generation));
    }
    Ok(())
}

/// Positions to keep room for: what prompt and answer need, unless the user says.
fn needed_positions(
    prompt: &[TokenId],
    generation: &Generation,
    gguf: &Gguf<'_>,
    context: &Context,
) -> anyhow::Result<usize> {
    let trained = Properties::from_gguf(gguf)?.context_length;
    let limit = context.config.context_tokens.map_or(trained, usize::from);
    let needed = generation.positions(prompt.len(), limit);
    if needed > limit {
        anyhow::bail!(
            "context length exceeded: prompt of {} tokens and answer of up to {} make {needed}, \
             the context has {limit}",
            prompt.len(),
            needed - prompt.len()
        );
    }
    Ok(if context.config.context_tokens.is_some() {
        limit
    } else {
        needed
    })
}

fn report<'a>(
    answer: &'a Answer,
    generation: &Generation,
    form: &Form,
    model: &Opened<'a>,
    context: &Context,
) -> Report<'a> {
    let outcome = &answer.outcome;
    Report {
        model: &model.resolved.name,
        weights: model.resolved.weights(),
        prompt_form: form.name(),
        text: &answer.text,
        reasoning: Some(&*answer.reasoning).filter(|text| !text.is_empty()),
        tool_calls: &answer.calls,
        tokens: outcome.generated.iter().map(|id| id.0).collect(),
        end_reason: answer.end_reason(),
        stop_sequence_matched: answer.stopped_by.as_deref(),
        seed: generation.seed(),
        prompt_tokens: outcome.prompt_tokens,
        cached_tokens: outcome.cached_tokens,
        completion_tokens: outcome.generated.len(),
        guessed_tokens: outcome.drafts.proposed,
        accepted_tokens: outcome.drafts.accepted,
        draft_guessed_tokens: outcome.drafts.model_proposed,
        draft_accepted_tokens: outcome.drafts.model_accepted,
        prefill_ms: outcome.prefill.as_secs_f64() * 1e3,
        decode_ms: outcome.decode.as_secs_f64() * 1e3,
        prefill_tokens_per_s: answer.prefill_rate(),
        decode_tokens_per_s: answer.decode_rate(),
        computing: Computing::new(&context.config).with(model.weights),
    }
}

/// How many guesses were right, if there were any.
fn guesses(drafts: &Drafts) -> String {
    let part = |all: usize, right: usize| format!("{right} of {all}");
    match drafts.proposed {
        0 => String::new(),
        all => format!(
            ", guesses {} right (the draft model's {})",
            part(all, drafts.accepted),
            part(drafts.model_proposed, drafts.model_accepted)
        ),
    }
}

/// One line for people.
pub(super) fn stats(answer: &Answer, generation: &Generation) -> String {
    let outcome = &answer.outcome;
    let rate = |rate: Option<f64>| rate.map_or("n/a".to_owned(), |rate| format!("{rate:.1} tok/s"));
    format!(
        "prompt {} tokens ({} cached), prefill {}; answer {} tokens, decode {}{}; ended by {}; seed {}",
        outcome.prompt_tokens,
        outcome.cached_tokens,
        rate(answer.prefill_rate()),
        outcome.generated.len(),
        rate(answer.decode_rate()),
        guesses(&outcome.drafts),
        answer.end_reason(),
        generation.seed()
    )
}
