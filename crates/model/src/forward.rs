//! One step through all layers.

use redline_compute::{AttentionSpan, Backend, FeedForward, KvSlot, MatmulJob, PAGE_POSITIONS};

use crate::load::Limits;
use crate::plan::{Forward, MAX_SEQUENCES, Observer, SequenceStep, Stage, StepPlan, pages_for};
use crate::weights::{LayerWeights, Linear};
use crate::{Error, Model, PlanError, Properties};

/// Everything a step writes, sized once at load.
#[derive(Debug)]
pub(crate) struct Scratch<B: Backend> {
    /// Residual stream, `[tokens, hidden]`
    x: B::Buffer,
    /// Normalised input of a half layer, `[tokens, hidden]`
    normed: B::Buffer,
    /// Result of a half layer, `[tokens, hidden]`
    delta: B::Buffer,
    /// `[tokens, heads · head_dim]`
    q: B::Buffer,
    /// `[tokens, kv_heads · head_dim]`
    k: B::Buffer,
    /// `[tokens, kv_heads · head_dim]`
    v: B::Buffer,
    /// `[tokens, heads · head_dim]`
    attended: B::Buffer,
    /// `[tokens, feed_forward]`
    gate: B::Buffer,
    /// `[tokens, feed_forward]`
    up: B::Buffer,
    /// `[rows, hidden]`
    selected: B::Buffer,
    /// `[rows, hidden]`
    selected_normed: B::Buffer,
    /// `[rows, vocab]`
    logits: B::Buffer,
    step: Step,
}

/// A plan's rows, laid out for the verbs.
#[derive(Debug)]
struct Step {
    /// `[tokens]`
    ids: Vec<u32>,
    /// `[tokens]`
    positions: Vec<u32>,
    /// `[tokens]`
    slots: Vec<KvSlot>,
    /// Rows that get logits.
    rows: Vec<usize>,
    /// Pages this step writes to, `[pages]`.
    written: Vec<bool>,
}

impl<B: Backend> Scratch<B> {
    pub(crate) fn new(backend: &mut B, properties: &Properties, limits: &Limits) -> Self {
        let p = properties;
        let (tokens, rows) = (limits.max_step_tokens, limits.max_logit_rows);
        let (q_width, kv_width) = (p.heads * p.head_dim, p.kv_heads * p.head_dim);
        Self {
            x: backend.buffer(tokens, p.hidden),
            normed: backend.buffer(tokens, p.hidden),
            delta: backend.buffer(tokens, p.hidden),
            q: backend.buffer(tokens, q_width),
            k: backend.buffer(tokens, kv_width),
            v: backend.buffer(tokens, kv_width),
            attended: backend.buffer(tokens, q_width),
            gate: backend.buffer(tokens, p.feed_forward),
            up: backend.buffer(tokens, p.feed_forward),
            selected: backend.buffer(rows, p.hidden),
            selected_normed: backend.buffer(rows, p.hidden),
            logits: backend.buffer(rows, p.vocab),
            step: Step {
                ids: Vec::with_capacity(tokens),
                positions: Vec::with_capacity(tokens),
                slots: Vec::with_capacity(tokens),
                rows: Vec::with_capacity(rows),
                written: vec![false; limits.kv_pages],
            },
        }
    }
}

impl Step {
    /// Checks a plan against the limits and lays its rows out.
    fn lay_out(
        &mut self,
        plan: &StepPlan<'_>,
        vocab: usize,
        limits: &Limits,
    ) -> Result<(), PlanError> {
        check_totals(plan, limits)?;
        self.ids.clear();
        self.positions.clear();
        self.slots.clear();
        self.rows.clear();
        self.written.fill(false);
        for (index, sequence) in plan.sequences.iter().enumerate() {
            check_sequence(index, sequence, vocab, limits)?;
            let row = self.ids.len();
            let count = sequence.tokens.len();
            let positions = sequence.position..sequence.position + count;
            let touched = positions.start / PAGE_POSITIONS..pages_for(positions.end);
            for page in &sequence.pages[touched] {
                if std::mem::replace(&mut self.written[page.0 as usize], true) {
                    return Err(PlanError::SharedPage {
                        sequence: index,
                        page: page.0,
                    });
                }
            }
            self.ids.extend(sequence.tokens.iter().map(|token| token.0));
            self.slots.extend(positions.clone().map(|position| KvSlot {
                page: sequence.pages[position / PAGE_POSITIONS],
                offset: position % PAGE_POSITIONS,
            }));
            self.positions
                .extend(positions.map(|position| position as u32));
            self.rows
                .extend(row + count - sequence.logits.count(count)..row + count);
        }
        Ok(())
    }
}

fn check_totals(plan: &StepPlan<'_>, limits: &Limits) -> Result<(), PlanError> {
    let sequences = plan.sequences;
    if sequences.len() > MAX_SEQUENCES {
        return Err(PlanError::Sequences {
            found: sequences.len(),
            limit: MAX_SEQUENCES,
        });
    }
    let tokens = sequences.iter().map(|sequence| sequence.tokens.len()).sum();
    if tokens > limits.max_step_tokens {
        return Err(PlanError::Tokens {
            found: tokens,
            limit: limits.max_step_tokens,
        });
    }
    let rows = sequences
        .iter()
        .map(|sequence| sequence.logits.count(sequence.tokens.len()))
        .sum();
    if rows > limits.max_logit_rows {
        return Err(PlanError::LogitRows {
            found: rows,
            limit: limits.max_logit_rows,
        });
    }
    Ok(())
}

fn check_sequence(
    sequence: usize,
    step: &SequenceStep<'_>,
    vocab: usize,
    limits: &Limits,
) -> Result<(), PlanError> {
    if step.tokens.is_empty() {
        return Err(PlanError::NoTokens { sequence });
    }
    if let Some(token) = step.tokens.iter().find(|token| token.0 as usize >= vocab) {
        return Err(PlanError::TokenId {
            sequence,
            found: token.0,
            vocab,
        });
    }
    let positions = step.position.saturating_add(step.tokens.len());
    if positions > limits.context {
        return Err(PlanError::Context {
            sequence,
            found: positions,
            context: limits.context,
        });
    }
    let (found, needed) = (step.pages.len(), pages_for(positions));
    if found < needed {
        return Err(PlanError::Pages {
            sequence,
            found,
            positions,
            needed,
        });
    }
    let pages = limits.kv_pages;
    match step.pages.iter().find(|page| page.0 as usize >= pages) {
        Some(page) => Err(PlanError::PageId {
            sequence,
            found: page.0,
            pages,
        }),
        None => Ok(()),
    }
}

impl<B: Backend> Forward for Model<B> {
    fn vocab_size(&self) -> usize {
        self.properties.vocab
    }

    fn context_length(&self) -> usize {
        self.limits.context
    }

    fn page_count(&self) -> usize {
        self.limits.kv_pages
    }

    fn max_step_tokens(&self) -> usize {
        self.limits.max_step_tokens
    }

    fn max_logit_rows(&self) -> usize {
        self.limits.max_logit_rows
    }

    fn forward(
        &mut self,
        plan: &StepPlan<'_>,
        observer: &mut dyn Observer,
    ) -> Result<&[f32], Error> {
        self.scratch
            .step
            .lay_out(plan, self.properties.vocab, &self.limits)?;
        let mut spans = [NO_SPAN; MAX_SEQUENCES];
        let spans = spans_of(plan, &mut spans);
        if !spans.is_empty() {
            self.embed(observer);
            for layer in 0..self.weights.layers.len() {
                if observer.cancelled() {
                    return Err(Error::Cancelled);
                }
                self.attend(layer, spans);
                self.feed_forward(layer);
                self.show(observer, Stage::Layer(layer), &self.scratch.x);
            }
        }
        self.head(observer);
        Ok(self.backend.read(&self.scratch.logits))
    }
}

const NO_SPAN: AttentionSpan<'static> = AttentionSpan {
    row: 0,
    rows: 0,
    position: 0,
    pages: &[],
};

/// The plan's sequences as spans of rows, in memory of the caller's: a step allocates nothing.
fn spans_of<'s, 'p>(
    plan: &StepPlan<'p>,
    spans: &'s mut [AttentionSpan<'p>; MAX_SEQUENCES],
) -> &'s [AttentionSpan<'p>] {
    let mut row = 0;
    for (span, sequence) in spans.iter_mut().zip(plan.sequences) {
        let rows = sequence.tokens.len();
        *span = AttentionSpan {
            row,
            rows,
            position: sequence.position,
            pages: sequence.pages,
        };
        row += rows;
    }
    &spans[..plan.sequences.len()]
}

impl<B: Backend> Model<B> {
    fn embed(&mut self, observer: &mut dyn Observer) {
        let Scratch { x, step, .. } = &mut self.scratch;
        let scale = self.properties.embedding_scale;
        self.backend
            .embed(&self.weights.embedding, &step.ids, scale, x);
        self.show(observer, Stage::Embedding, &self.scratch.x);
    }

    /// `x += attention(norm(x))`
    fn attend(&mut self, layer: usize, spans: &[AttentionSpan<'_>]) {
        let (b, p, s) = (&mut self.backend, &self.properties, &mut self.scratch);
        let w = &self.weights.layers[layer];
        b.norm(p.norm, &w.attention_norm, None, &s.x, &mut s.normed);
        let mut jobs = [
            w.query.job(&mut s.q),
            w.key.job(&mut s.k),
            w.value.job(&mut s.v),
        ];
        b.matmul(&s.normed, &mut jobs, Some(&w.attention_output.matrix));
        if let Some(weight) = &w.query_norm {
            b.norm_heads(p.norm, weight, &mut s.q);
        }
        if let Some(weight) = &w.key_norm {
            b.norm_heads(p.norm, weight, &mut s.k);
        }
        let rope = &self.ropes[p.layers[layer].rope];
        b.rope(rope, p.head_dim, &s.step.positions, &mut s.q);
        b.rope(rope, p.head_dim, &s.step.positions, &mut s.k);
        b.append_kv(&mut self.kv, layer, &s.step.slots, &s.k, &s.v);
        b.attention(&self.kv, p.attention(layer), spans, &s.q, &mut s.attended);
        b.matmul(
            &s.attended,
            &mut [w.attention_output.job(&mut s.delta)],
            Some(&w.gate.matrix),
        );
        add_delta(b, p, w.attention_post_norm.as_ref(), s);
    }

    /// `x += down(activation(gate(norm(x))) · up(norm(x)))`
    fn feed_forward(&mut self, layer: usize) {
        let (b, p, s) = (&mut self.backend, &self.properties, &mut self.scratch);
        let w: &LayerWeights<B> = &self.weights.layers[layer];
        b.norm(p.norm, &w.feed_forward_norm, None, &s.x, &mut s.normed);
        let network = FeedForward {
            activation: p.activation,
            gate_up: [w.gate.job(&mut s.gate), w.up.job(&mut s.up)],
            down: w.down.job(&mut s.delta),
        };
        let next = match self.weights.layers.get(layer + 1) {
            Some(next) => &next.query.matrix,
            None => &*self.weights.head,
        };
        b.feed_forward(&s.normed, network, Some(next));
        add_delta(b, p, w.feed_forward_post_norm.as_ref(), s);
    }

    /// Logits of the rows that were asked for.
    fn head(&mut self, observer: &mut dyn Observer) {
        let (b, s) = (&mut self.backend, &mut self.scratch);
        if s.step.rows.is_empty() {
            b.resize(&mut s.logits, 0);
            return;
        }
        b.select(&s.x, &s.step.rows, &mut s.selected);
        let norm = self.properties.norm;
        b.norm(
            norm,
            &self.weights.final_norm,
            None,
            &s.selected,
            &mut s.selected_normed,
        );
        let job = MatmulJob {
            weights: &*self.weights.head,
            bias: None,
            out: &mut s.logits,
        };
        // With which the next step begins.
        let first = self.weights.layers.first();
        b.matmul(
            &s.selected_normed,
            &mut [job],
            first.map(|layer| &layer.query.matrix),
        );
        self.show(observer, Stage::FinalNorm, &self.scratch.selected_normed);
    }

    fn show(&self, observer: &mut dyn Observer, stage: Stage, buffer: &B::Buffer) {
        if observer.wants_hidden() {
            observer.hidden(stage, self.backend.read(buffer));
        }
    }
}

impl<B: Backend> Linear<B> {
    fn job<'a>(&'a self, out: &'a mut B::Buffer) -> MatmulJob<'a, B> {
        MatmulJob {
            weights: &self.matrix,
            bias: self.bias.as_ref(),
            out,
        }
    }
}

/// `x += delta`, normalised first where the model has post norms.
fn add_delta<B: Backend>(
    backend: &mut B,
    properties: &Properties,
    post_norm: Option<&B::Vector>,
    scratch: &mut Scratch<B>,
) {
    let Scratch {
        x, normed, delta, ..
    } = scratch;
    match post_norm {
        None => backend.add(x, delta),
        Some(weight) => {
            backend.norm(properties.norm, weight, None, delta, normed);
            backend.add(x, normed);
        }
    }
}
