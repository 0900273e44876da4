//! `redline serve`: a model for clients of OpenAI's interface.

mod residency;
mod savings;

use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use redline_compute::{ARITHMETIC_VERSION, Cpu};
use redline_engine::{Engine, EngineOptions, Handle};
use redline_gguf::Gguf;
use redline_model::{
    Forward as _, LoadOptions, MappedWeights, MemoryPlan, Model, Properties, pages_for,
};
use redline_server::{Embedder, Embedding, Grammars, Options, Served, Server, Work};

use crate::cli::{Compute, Weights};
use crate::commands::Context;
use crate::draft::{self, Draft};
use crate::failure::Usage;
use crate::models::Resolved;
use crate::room::Room;
use crate::{models, output, session, units};
use residency::Watch;

/// Rows of logits beside one for each answer that runs: guesses that are checked in one step.
const GUESSED_ROWS: usize = 32;
/// Whole contexts that the cache has pages for where nobody says.
const DEFAULT_CONTEXTS: usize = 4;
/// Texts that are embedded in one step, at most, if they are short.
const EMBEDDING_PAGES: usize = 32;
/// How often the main thread looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(20);
/// How long answers that are over may take to be sent.
const SEND_TIME: Duration = Duration::from_secs(2);

/// Flags of `serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A GGUF file, a folder of safetensors, a short name, or `synth:<shape>[:<quant>]`
    model: Option<String>,
    #[command(flatten)]
    listening: Listening,
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    pub(crate) compute: Compute,
    #[command(flatten)]
    weights: Weights,
    /// A smaller model of the same vocabulary that guesses what comes next, where that is faster;
    /// answers are the same. `none`: the one of the settings is not used [env: REDLINE_DRAFT]
    #[arg(long, value_name = "MODEL", help_heading = "Computing")]
    pub(crate) draft: Option<String>,
    /// Positions of a request [default: what the model was trained for, at most 4096]
    #[arg(long, value_name = "TOKENS", help_heading = "Computing")]
    pub(crate) context: Option<usize>,
    /// Seconds between two looks at whether the weights are in memory; 0: none [default: 60]
    #[arg(long, value_name = "SECONDS", help_heading = "Computing")]
    pub(crate) residency_check: Option<u64>,
}

/// Who may ask, and where.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Listening")]
struct Listening {
    /// Address to listen on; one that others can reach needs a key
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: String,
    /// Port; 0: any that is free
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Asked of every request but /health and /livez; better by the variable, which no list of
    /// processes shows [env: REDLINE_API_KEY]
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// Let everybody ask who can reach an address of `--host`
    #[arg(long)]
    insecure_no_auth: bool,
    /// Another value of the Host header to answer; may be given several times
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
    /// How requests call the model [default: as it is called here]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Seconds that answers under way have when the server is asked to end
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain_time: u64,
}

/// How much runs at a time.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Running")]
struct Running {
    /// Answers that run at a time
    #[arg(long, value_name = "N", default_value_t = 16)]
    max_running: usize,
    /// Answers that wait; who comes then is refused
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_waiting: usize,
    /// Pages of 64 positions for keys and values of all answers [default: four whole contexts]
    #[arg(long, value_name = "N", conflicts_with = "kv_memory")]
    kv_pages: Option<usize>,
    /// Memory for them, in MiB
    #[arg(long, value_name = "MIB")]
    kv_memory: Option<u64>,
    /// Compute one token at a time; answers are the same
    #[arg(long)]
    no_speculation: bool,
}

impl Args {
    /// The key by flag.
    pub(crate) fn api_key(&self) -> Option<&str> {
        self.listening.api_key.as_deref()
    }
}

/// Serves until it is asked to end.
///
/// # Errors
/// If it cannot listen, the model cannot be had or run, or its engine dies.
pub(crate) fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    check(args)?;
    let listener = listen(args, context)?;
    context.interrupt.also_on_termination()?;
    let server = Server::start(
        listener,
        Options {
            api_key: context.config.api_key.clone(),
            hosts: args.listening.allow_host.clone(),
        },
    )
    .context("cannot start the server")?;
    let address = server.address();
    output::note(&format!("listening on http://{address}: loading"));
    let (worker, weights) = start(args, &server, context)?;
    let mut watch = Watch::new(weights, context.config.residency_check_s);
    look(watch.as_mut(), &server);
    output::note(&format!("ready on http://{address}"));
    while !context.interrupt.asked() && !worker.is_finished() {
        std::thread::sleep(LOOK);
        look(watch.as_mut(), &server);
    }
    if worker.is_finished() {
        server.fail();
        anyhow::bail!("the engine has stopped");
    }
    end(args, server, worker)
}

/// Looks whether the weights are in memory, if it is time.
fn look(watch: Option<&mut Watch>, server: &Server) {
    if let Some((seen, line)) = watch.and_then(Watch::look) {
        server.tell_residency(seen);
        line.iter().for_each(|line| output::note(line));
    }
}

fn check(args: &Args) -> anyhow::Result<()> {
    let running = &args.running;
    for (name, value) in [
        ("max-running", running.max_running),
        ("max-waiting", running.max_waiting),
    ] {
        if value == 0 {
            return Err(Usage(format!("{name} must be at least 1, found 0")).into());
        }
    }
    Ok(())
}

fn listen(args: &Args, context: &Context) -> anyhow::Result<TcpListener> {
    let Listening {
        host,
        port,
        insecure_no_auth,
        ..
    } = &args.listening;
    let has_key = context.config.api_key.is_some();
    Ok(redline_server::bind(
        host,
        *port,
        has_key,
        *insecure_no_auth,
    )?)
}

/// The thread that computes.
#[derive(Debug)]
enum Worker {
    /// It gives the engine back.
    Generates(Handle, JoinHandle<Engine<Model<Cpu>>>),
    /// It ends when nobody asks any more.
    Embeds(JoinHandle<()>),
}

impl Worker {
    fn is_finished(&self) -> bool {
        match self {
            Self::Generates(_, thread) => thread.is_finished(),
            Self::Embeds(thread) => thread.is_finished(),
        }
    }
}

/// Loads the model, and serves it; the other is where its weights are.
fn start(
    args: &Args,
    server: &Server,
    context: &Context,
) -> anyhow::Result<(Worker, MappedWeights)> {
    let resolved = models::resolve(args.model.as_deref(), context)?;
    let file = session::open_as(&resolved, args.weights, context)?;
    file.read_ahead();
    let gguf = session::parse(&file, &resolved)?;
    let properties = Properties::from_gguf(&gguf)
        .with_context(|| format!("cannot load {}", resolved.path.display()))?;
    let tokenizer = session::tokenizer(&gguf, &resolved)?;
    let asked = context.config.context_tokens.map(usize::from);
    let default = properties
        .context_length
        .min(session::DEFAULT_CONTEXT_TOKENS);
    let positions = asked.unwrap_or(default);
    let options = match properties.head {
        true => generating(args, positions, &gguf, context)?,
        false => embedding(&properties, positions, context),
    };
    let room = Room::of(&resolved, &gguf, options, |options| {
        savings::of(args, options, &properties, &gguf, context)
    })?;
    let draft = match properties.head {
        true => {
            let main = draft::Main {
                name: &resolved.name,
                gguf: &gguf,
                tokenizer: &tokenizer,
                room: &room,
            };
            Draft::open(&main, context)?
        }
        false => None,
    };
    let model = session::load(&file, &gguf, &resolved, &room, context)?;
    let mut weights = MappedWeights::new(&file, &gguf);
    let vocab_size = model.shape().vocab_size;
    let (work, worker) = match properties.head {
        true => generate(model, draft, &mut weights, args, context)?,
        false => {
            let embedding = Embedding {
                pooling: properties.pooling,
                dimensions: properties.hidden,
            };
            let waiting = args.running.max_waiting;
            let (embedder, thread) = Embedder::spawn(model, embedding, waiting)
                .context("cannot start the model's thread")?;
            (Work::Embeds(embedder), Worker::Embeds(thread))
        }
    };
    server.serve(Served {
        name: name(args, &resolved),
        tokenizer,
        grammars: Grammars::default(),
        work,
        vocab_size,
        max_running: args.running.max_running,
        speculation: !args.running.no_speculation,
        fingerprint: fingerprint(context),
    });
    Ok((worker, weights))
}

/// As the verb `embed` loads a model, with room for short texts beside each other.
fn embedding(properties: &Properties, positions: usize, context: &Context) -> LoadOptions {
    let pages = pages_for(positions).max(EMBEDDING_PAGES);
    LoadOptions {
        kv_pages: Some(pages),
        ..super::embed::load_options(properties, positions, context)
    }
}

/// Puts an engine on its thread; the weights of a draft model are added to `weights`.
fn generate(
    model: Model<Cpu>,
    draft: Option<Draft>,
    weights: &mut MappedWeights,
    args: &Args,
    context: &Context,
) -> anyhow::Result<(Work, Worker)> {
    let options = EngineOptions {
        chunk_tokens: context.config.chunk_tokens.get(),
        max_running: args.running.max_running,
        max_waiting: args.running.max_waiting,
        ..EngineOptions::default()
    };
    let mut engine = Engine::new(model, options);
    if let Some(draft) = draft {
        let (guesser, its_weights) = draft.load(context)?;
        engine = engine.with_draft(Box::new(guesser))?;
        weights.append(its_weights);
        output::note(&format!("{} guesses", draft.name()));
    }
    let (engine, thread) = redline_engine::spawn(engine).context("cannot start the engine")?;
    let work = Work::Generates(engine.clone());
    Ok((work, Worker::Generates(engine, thread)))
}

/// What a model is called: of a path, the last part.
fn name(args: &Args, resolved: &Resolved) -> String {
    let short = resolved
        .name
        .rsplit(['/', '\\'])
        .find(|part| !part.is_empty());
    (args.listening.name.clone()).unwrap_or_else(|| short.unwrap_or(&resolved.name).to_owned())
}

/// What decides the bits of an answer beside model, prompt and parameters.
fn fingerprint(context: &Context) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "redline-{version}-a{ARITHMETIC_VERSION}-kv{}",
        context.config.kv.name()
    )
}

/// What a load of a model that generates prepares.
fn generating(
    args: &Args,
    positions: usize,
    gguf: &Gguf<'_>,
    context: &Context,
) -> anyhow::Result<LoadOptions> {
    let options = LoadOptions {
        max_logit_rows: args.running.max_running + GUESSED_ROWS,
        ..session::load_options(&context.config, Some(positions))
    };
    let pages = match (args.running.kv_pages, args.running.kv_memory) {
        (Some(pages), _) => pages,
        (None, Some(mib)) => pages_in(mib, gguf, &options)?,
        (None, None) => DEFAULT_CONTEXTS * pages_for(positions),
    };
    Ok(LoadOptions {
        kv_pages: Some(pages),
        ..options
    })
}

/// Pages that so much memory holds, at least one.
fn pages_in(mib: u64, gguf: &Gguf<'_>, options: &LoadOptions) -> anyhow::Result<usize> {
    let one = LoadOptions {
        kv_pages: Some(1),
        ..options.clone()
    };
    let page_bytes = MemoryPlan::new(gguf, &one)?.kv_bytes;
    let bytes = mib.saturating_mul(1 << 20);
    match usize::try_from(bytes / page_bytes.max(1)) {
        Ok(0) | Err(_) => Err(Usage(format!(
            "kv-memory: a page of 64 positions takes {}, found {mib} MiB",
            units::bytes(page_bytes)
        ))
        .into()),
        Ok(pages) => Ok(pages),
    }
}

/// Lets answers under way finish, for a time.
fn end(args: &Args, server: Server, worker: Worker) -> anyhow::Result<()> {
    server.drain();
    let deadline = Instant::now() + Duration::from_secs(args.listening.drain_time);
    let Worker::Generates(engine, thread) = worker else {
        // What is under way is answered, or not, with its connection.
        server.close(deadline.saturating_duration_since(Instant::now()));
        return Ok(());
    };
    engine.drain();
    let load = engine.snapshot().load;
    output::note(&format!(
        "ending: {} answers under way have {} s",
        load.running + load.waiting,
        args.listening.drain_time
    ));
    while !thread.is_finished() && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
    engine.stop();
    let ended = thread.join();
    server.close(SEND_TIME);
    match ended {
        Ok(_) => Ok(()),
        Err(_) => anyhow::bail!("the engine has failed"),
    }
}
