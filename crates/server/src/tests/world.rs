//! A server without sockets: a model of the alphabet, and a tokenizer of bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, header};
use redline_engine::{Engine, EngineOptions, Snapshot};
use redline_gguf::{ArrayBuf, Gguf, Writer};
use redline_model::{
    Error as ModelError, Forward, ForwardShape, Observer, PAGE_POSITIONS, PageId, Pooling, StepPlan,
};
use redline_tokenizer::Tokenizer;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::app::App;
use crate::listen::routes;
use crate::{Embedder, Embedding, Grammars, Options, Served, Work};

/// Bytes, then three control tokens, two of which mark what is thought.
const VOCAB: usize = 260;
const END: usize = 256;
const CONTEXT: usize = 256;
const PAGES: usize = 32;
/// After this letter it has no more to say.
const LAST: u8 = b'z';

/// A model that goes on with the next letter, and ends after `z`. It remembers what was stored where.
#[derive(Debug)]
struct Alphabet {
    stored: HashMap<(PageId, usize), u32>,
    logits: Vec<f32>,
    /// How long a step takes.
    pace: Duration,
}

impl Forward for Alphabet {
    fn shape(&self) -> ForwardShape {
        ForwardShape {
            vocab_size: VOCAB,
            context_length: CONTEXT,
            page_count: PAGES,
            max_step_tokens: 64,
            max_logit_rows: 64,
        }
    }

    fn copy_page(&mut self, from: PageId, to: PageId) {
        for offset in 0..PAGE_POSITIONS {
            if let Some(token) = self.stored.get(&(from, offset)).copied() {
                self.stored.insert((to, offset), token);
            }
        }
    }

    fn forward(
        &mut self,
        plan: &StepPlan<'_>,
        observer: &mut dyn Observer,
    ) -> Result<&[f32], ModelError> {
        let end = Instant::now() + self.pace;
        while Instant::now() < end {
            if observer.cancelled() {
                return Err(ModelError::Cancelled);
            }
            std::thread::sleep(Duration::from_millis(1).min(self.pace));
        }
        self.logits.clear();
        for sequence in plan.sequences {
            for (offset, token) in sequence.tokens.iter().enumerate() {
                let position = sequence.position + offset;
                let page = sequence.pages[position / PAGE_POSITIONS];
                self.stored
                    .insert((page, position % PAGE_POSITIONS), token.0);
            }
            let rows = sequence.logits.count(sequence.tokens.len());
            for token in &sequence.tokens[sequence.tokens.len() - rows..] {
                let next = match token.0 as usize {
                    last if last == usize::from(LAST) => END,
                    token => (token + 1) % END,
                };
                let mut row = vec![0.0; VOCAB];
                row[next] = 20.0;
                self.logits.extend(row);
            }
        }
        Ok(&self.logits)
    }
}

/// A model whose rows are a token's id and 1.
#[derive(Debug)]
struct Bytes {
    rows: Vec<f32>,
}

impl Forward for Bytes {
    fn shape(&self) -> ForwardShape {
        ForwardShape {
            vocab_size: VOCAB,
            context_length: CONTEXT,
            page_count: PAGES,
            max_step_tokens: CONTEXT,
            max_logit_rows: CONTEXT,
        }
    }

    fn copy_page(&mut self, _: PageId, _: PageId) {}

    fn forward(&mut self, plan: &StepPlan<'_>, _: &mut dyn Observer) -> Result<&[f32], ModelError> {
        let tokens = plan.sequences.iter().flat_map(|sequence| sequence.tokens);
        self.rows = tokens.flat_map(|token| [token.0 as f32, 1.0]).collect();
        Ok(&self.rows)
    }
}

/// Ids are bytes.
fn tokenizer(has_template: bool) -> Tokenizer {
    let mut pieces: Vec<String> = (0..=255_u8).map(|byte| format!("<0x{byte:02X}>")).collect();
    pieces.extend(["</s>", "<think>", "</think>", "<unk>"].map(str::to_owned));
    let mut kinds = vec![6_i32; 256];
    kinds.extend([3, 3, 3, 2]);
    let mut writer = Writer::new();
    let scores = vec![0.0_f32; pieces.len()];
    let set = "a tokenizer's metadata";
    writer.metadata("tokenizer.ggml.model", "llama").expect(set);
    let texts = ArrayBuf::strings(&pieces);
    writer.metadata("tokenizer.ggml.tokens", &texts).expect(set);
    let kinds = ArrayBuf::from(&kinds[..]);
    writer
        .metadata("tokenizer.ggml.token_type", &kinds)
        .expect(set);
    let scores = ArrayBuf::from(&scores[..]);
    writer
        .metadata("tokenizer.ggml.scores", &scores)
        .expect(set);
    writer
        .metadata("tokenizer.ggml.eos_token_id", END as u32)
        .expect(set);
    writer
        .metadata("tokenizer.ggml.unknown_token_id", 259_u32)
        .expect(set);
    for flag in ["add_bos_token", "add_space_prefix"] {
        writer
            .metadata(&format!("tokenizer.ggml.{flag}"), false)
            .expect(set);
    }
    if has_template {
        let template = "{% for m in messages %}{% if m.role == 'bad' %}{{ raise_exception('no') }}\
                        {% endif %}{{ m.content }}{% endfor %}";
        writer
            .metadata("tokenizer.chat_template", template)
            .expect(set);
    }
    let bytes = writer
        .start(Vec::new())
        .and_then(|out| out.finish())
        .expect("a file");
    let gguf = Gguf::parse(&[&bytes]).expect("a file");
    Tokenizer::from_gguf(gguf.metadata()).expect("a tokenizer")
}

/// How a server of a test differs from others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setting {
    pub(crate) api_key: Option<&'static str>,
    pub(crate) max_running: Option<usize>,
    pub(crate) max_waiting: Option<usize>,
    pub(crate) pace: Duration,
    pub(crate) no_template: bool,
}

/// A server that listens nowhere.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) app: Arc<App>,
    routes: Router,
}

impl World {
    pub(crate) fn new(setting: &Setting) -> Self {
        let model = Alphabet {
            stored: HashMap::new(),
            logits: Vec::new(),
            pace: setting.pace,
        };
        let engine = Engine::new(
            model,
            EngineOptions {
                max_running: setting.max_running.unwrap_or(8),
                max_waiting: setting.max_waiting.unwrap_or(64),
                ..EngineOptions::default()
            },
        );
        let (engine, _) = redline_engine::spawn(engine).expect("a thread");
        let options = Options {
            api_key: setting.api_key.map(str::to_owned),
            hosts: Vec::new(),
        };
        let app = App::new(options, true);
        app.serve(Served {
            name: "alphabet".to_owned(),
            tokenizer: tokenizer(!setting.no_template),
            grammars: Grammars::default(),
            work: Work::Generates(engine),
            vocab_size: VOCAB,
            max_running: setting.max_running.unwrap_or(8),
            speculation: true,
            fingerprint: "f".to_owned(),
        });
        let routes = routes(&app);
        Self { app, routes }
    }

    /// One whose model makes embeddings of a text's bytes: their mean and 1, scaled to length 1.
    pub(crate) fn of_embeddings() -> Self {
        let model = Bytes { rows: Vec::new() };
        let embedding = Embedding {
            pooling: Pooling::Mean,
            dimensions: 2,
        };
        let (embedder, _) = Embedder::spawn(model, embedding, 8).expect("a thread");
        let app = App::new(Options::default(), true);
        app.serve(Served {
            name: "bytes".to_owned(),
            tokenizer: tokenizer(false),
            grammars: Grammars::default(),
            work: Work::Embeds(embedder),
            vocab_size: VOCAB,
            max_running: 1,
            speculation: false,
            fingerprint: "f".to_owned(),
        });
        let routes = routes(&app);
        Self { app, routes }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        match self.routes.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Body>) -> Response<Body> {
        self.send(post(path, body)).await
    }

    /// Status and JSON of an answer.
    pub(crate) async fn ask(&self, path: &str, body: Value) -> (u16, Value) {
        read(self.post(path, body.to_string()).await).await
    }

    /// What `GET` gives.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let request = Request::get(path).header(header::HOST, "localhost");
        let response = self
            .send(request.body(Body::empty()).expect("a request"))
            .await;
        let status = response.status().as_u16();
        (status, text(response).await)
    }
}

pub(crate) fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path)
        .header(header::HOST, "localhost:8080")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .expect("a request")
}

pub(crate) async fn text(response: Response<Body>) -> String {
    let bytes = to_bytes(response.into_body(), 1 << 24)
        .await
        .expect("a body");
    String::from_utf8(bytes.to_vec()).expect("text")
}

pub(crate) async fn read(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = text(response).await;
    let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (status, value)
}

/// The events of a stream, and whether `[DONE]` came last.
pub(crate) async fn events(response: Response<Body>) -> (Vec<Value>, bool) {
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/event-stream"
    );
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let text = text(response).await;
    let mut data: Vec<&str> = text
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
        .collect();
    let is_done = data.last() == Some(&"[DONE]");
    if is_done {
        data.pop();
    }
    let events = data
        .iter()
        .map(|data| serde_json::from_str(data).expect("JSON"));
    (events.collect(), is_done)
}

/// Waits until the engine's numbers are so, at most a second. They are told after each step, so what was
/// taken in a moment ago may not be among them yet.
pub(crate) async fn until(world: &World, is_so: impl Fn(&Snapshot) -> bool) -> bool {
    for _ in 0..500 {
        if is_so(&world.app.loaded().expect("a model").snapshot()) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    false
}

/// Waits until nothing is under way, at most a second.
pub(crate) async fn idle(world: &World) -> bool {
    until(world, |snapshot| {
        let load = &snapshot.load;
        (load.running, load.waiting, load.pages_in_use) == (0, 0, 0)
    })
    .await
}
