//! Chat templates: the model's own Jinja, in a sandbox.
//!
//! The environment is the one that Hugging Face's `apply_chat_template` gives a template
//! (`transformers/utils/chat_template_utils.py`): blocks trimmed, loop controls, Python's methods,
//! `raise_exception`, `strftime_now`, a `tojson` that escapes nothing for HTML. There is no file
//! access, no include, no import. Work and memory are paid for with fuel, the output is capped.

mod deep_stack;
mod functions;
mod guard;
mod json;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, machinery};

use crate::error::Error;
use functions::Raised;

/// Most bytes of a template. Real ones have up to 30,000.
const MAX_SOURCE_BYTES: usize = 128 * 1024;

/// Steps that a template may take, an instruction or 64 bytes of data each, beside those for the
/// messages. A real one takes some hundreds, and some dozens for each message.
const BASE_FUEL: u64 = 100_000;

/// Steps that each message adds.
const FUEL_PER_MESSAGE: u64 = 500;

/// Steps that each byte of the messages adds.
const FUEL_PER_BYTE: u64 = 1;

/// Bytes that a template may write, beside those for the messages.
const BASE_OUTPUT_BYTES: usize = 1 << 20;

/// Bytes that each byte of the messages adds.
const OUTPUT_PER_BYTE: usize = 4;

/// How deep calls and blocks may nest.
const RECURSION_LIMIT: usize = 100;

const NAME: &str = "chat_template";

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A model's chat template: a conversation becomes the text of a prompt.
pub struct ChatTemplate {
    source: String,
    bos: Option<String>,
    eos: Option<String>,
    /// The compiled template, under [`NAME`], or what is wrong with it.
    environment: Result<Environment<'static>, Problem>,
}

/// Why a template cannot be compiled.
#[derive(Debug, Clone)]
enum Problem {
    Length,
    Syntax(String),
}

impl ChatTemplate {
    /// Compiles a template; `bos` and `eos` are what `bos_token` and `eos_token` say in it.
    ///
    /// A malformed template is an error when it is rendered, so that a model can be used without.
    #[must_use]
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Self {
        Self {
            source: source.to_owned(),
            bos: bos.map(str::to_owned),
            eos: eos.map(str::to_owned),
            environment: compile(source),
        }
    }

    /// The template's text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt for `messages`; with `add_generation_prompt`, it ends where the answer begins.
    /// `strftime_now` in the template tells the time of the call, in UTC.
    ///
    /// Encode it with [`parse_special`](crate::EncodeOptions::parse_special) and without
    /// [`add_special`](crate::EncodeOptions::add_special): a template writes what BOS it wants.
    ///
    /// # Errors
    /// If the template is malformed, refuses the messages, fails, or does too much.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, Error> {
        self.render_at(messages, add_generation_prompt, SystemTime::now())
    }

    /// [`render`](Self::render) at a given time.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn render_at(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        now: SystemTime,
    ) -> Result<String, Error> {
        let environment = self.environment.as_ref().map_err(|problem| match problem {
            Problem::Length => Error::TemplateLength {
                found: self.source.len(),
                limit: MAX_SOURCE_BYTES,
            },
            Problem::Syntax(problem) => Error::TemplateSyntax(problem.clone()),
        })?;
        let limits = Limits::of(messages);
        let stack = deep_stack::bytes_for(limits.fuel);
        let rendered: Result<_, Error> = deep_stack::run(stack, || {
            let mut environment = environment.clone();
            environment.set_fuel(Some(limits.fuel));
            let context = self.context(messages, add_generation_prompt, now);
            evaluate(&environment, context).map_err(|error| limits.explain(&error))
        })?;
        let text = rendered?;
        if text.len() > limits.output {
            return Err(Error::TemplateOutput {
                limit: limits.output,
            });
        }
        Ok(text)
    }

    fn context(&self, messages: &[Message], add_generation_prompt: bool, now: SystemTime) -> Value {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| {
                Value::from_pairs([("role", &*message.role), ("content", &*message.content)])
            })
            .collect();
        let mut context = vec![
            ("messages", Value::from(messages)),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("strftime_now", functions::strftime(now)),
            // What transformers passes where the caller gives none.
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ];
        let token = |name, text: &Option<String>| Some((name, Value::from(text.as_deref()?)));
        context.extend(token("bos_token", &self.bos));
        context.extend(token("eos_token", &self.eos));
        Value::from_pairs(context)
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("source_bytes", &self.source.len())
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}

fn compile(source: &str) -> Result<Environment<'static>, Problem> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err(Problem::Length);
    }
    let source = source::prepare(source).map_err(Problem::Syntax)?;
    let compiled = deep_stack::run(deep_stack::bytes_for(0), || {
        let mut environment = environment()?;
        environment.add_template_owned(NAME, source)?;
        Ok(environment)
    });
    compiled
        .map_err(|error| Problem::Syntax(error.to_string()))?
        .map_err(|error: minijinja::Error| Problem::Syntax(describe(&error)))
}

/// What the template writes, as long as there is fuel.
fn evaluate(environment: &Environment<'_>, context: Value) -> Result<String, minijinja::Error> {
    let template = environment.get_template(NAME)?;
    let compiled = machinery::get_compiled_template(&template);
    let guarded = guard::guard(&compiled.instructions);
    let blocks = BTreeMap::new();
    let mut text = String::new();
    let mut output = machinery::make_string_output(&mut text);
    machinery::eval(
        environment,
        &guarded,
        context,
        &blocks,
        &mut output,
        AutoEscape::None,
    )?;
    drop(output);
    Ok(text)
}

/// Jinja as templates of transformers know it.
fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_recursion_limit(RECURSION_LIMIT);
    functions::install(&mut environment);
    Ok(environment)
}

struct Limits {
    fuel: u64,
    output: usize,
}

impl Limits {
    fn of(messages: &[Message]) -> Self {
        let bytes: usize = messages
            .iter()
            .map(|each| each.role.len() + each.content.len())
            .sum();
        let fuel = FUEL_PER_MESSAGE * messages.len() as u64 + FUEL_PER_BYTE * bytes as u64;
        Self {
            fuel: BASE_FUEL + fuel,
            output: BASE_OUTPUT_BYTES + OUTPUT_PER_BYTE * bytes,
        }
    }

    fn explain(&self, error: &minijinja::Error) -> Error {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(cause) = source {
            if let Some(Raised(message)) = cause.downcast_ref() {
                return Error::TemplateRaised(message.clone());
            }
            match cause.downcast_ref().map(minijinja::Error::kind) {
                Some(ErrorKind::OutOfFuel) => return Error::TemplateFuel { limit: self.fuel },
                _ => source = cause.source(),
            }
        }
        Error::TemplateFailed(describe(error))
    }
}

/// The error and its place.
fn describe(error: &minijinja::Error) -> String {
    // Without the alternate form there are no excerpts of the template.
    error.to_string()
}
