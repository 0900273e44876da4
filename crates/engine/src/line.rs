//! One answer under way: what draws its tokens, and its account.

use std::sync::Arc;
use std::time::Duration;

use redline_model::TokenId;

use crate::draft::Ask;
use crate::sampling::logprob;
use crate::schedule::{Part, SequenceId};
use crate::speculate::Speculator;
use crate::{
    Drafts, EndReason, Error, GeneratedToken, GrammarError, Logprob, Matcher, Outcome, Request,
    RequestId, Sampler, Scratch, TokenSet,
};

/// The rule an answer follows, and what it allows next.
#[derive(Debug)]
struct Rule {
    matcher: Box<dyn Matcher>,
    allowed: TokenSet,
    /// Whether `allowed` is that of the next token.
    is_ready: Result<bool, GrammarError>,
}

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) request: Arc<Request>,
    pub(crate) id: RequestId,
    pub(crate) choice: usize,
    sampler: Sampler,
    rule: Option<Rule>,
    pub(crate) speculator: Option<Speculator>,
    generated: Vec<TokenId>,
    /// Prompt tokens whose log-probability was told.
    prompt_told: usize,
    submitted: Duration,
    began: Option<Duration>,
    first_token: Option<Duration>,
    drafts: Drafts,
    /// Whether the draft model made the guesses that the next step checks.
    pub(crate) asked_model: bool,
}

/// What a step gave an answer.
#[derive(Debug, Default)]
pub(crate) struct Drawn {
    /// How likely the next tokens of the prompt are.
    pub(crate) prompt: Vec<Logprob>,
    pub(crate) tokens: Vec<GeneratedToken>,
    /// Guesses that were checked, and how many of them were right.
    pub(crate) guesses: (usize, usize),
    pub(crate) end: Option<Result<EndReason, Error>>,
}

impl Line {
    pub(crate) fn new(
        request: &Arc<Request>,
        id: RequestId,
        choice: usize,
        vocab: usize,
        now: Duration,
    ) -> Result<Self, GrammarError> {
        let mut sampler = Sampler::new(&request.sampling, choice as u64, vocab);
        sampler.observe(&request.prompt);
        let rule = match &request.grammar {
            Some(grammar) => Some(Rule {
                matcher: grammar.matcher()?,
                allowed: TokenSet::new(vocab),
                is_ready: Ok(false),
            }),
            None => None,
        };
        // A rule would have to follow guesses and come back.
        let speculates = request.speculation && rule.is_none();
        Ok(Self {
            request: Arc::clone(request),
            id,
            choice,
            sampler,
            rule,
            speculator: speculates.then(Speculator::default),
            generated: Vec::new(),
            prompt_told: 0,
            submitted: now,
            began: None,
            first_token: None,
            drafts: Drafts::default(),
            asked_model: false,
        })
    }

    /// Takes note of the first step that computes something of it.
    pub(crate) fn begin(&mut self, now: Duration) {
        self.began.get_or_insert(now);
    }

    /// Whether the next token needs [`Self::prepare`].
    pub(crate) fn needs_rule(&self) -> bool {
        (self.rule.as_ref()).is_some_and(|rule| rule.is_ready == Ok(false))
    }

    /// Finds out what the rule allows next: while the model computes, since it may take long.
    pub(crate) fn prepare(&mut self) {
        if let Some(rule) = &mut self.rule {
            rule.is_ready = rule.matcher.allow(&mut rule.allowed).map(|()| true);
        }
    }

    /// Reads the rows of logits that a step gives for a part of the answer's sequence.
    pub(crate) fn take(
        &mut self,
        rows: &[f32],
        vocab: usize,
        part: &Part<'_>,
        scratch: &mut Scratch,
    ) -> Drawn {
        let prompt = match self.request.prompt_logprobs {
            Some(top) if self.choice == 0 => self.tell_prompt(rows, vocab, part, top),
            _ => Vec::new(),
        };
        let mut drawn = match part.draws {
            true => {
                let last = rows.len() - (part.drafts.len() + 1) * vocab;
                self.draw(&rows[last..], part.known, part.drafts, scratch)
            }
            false => Drawn::default(),
        };
        drawn.prompt = prompt;
        drawn
    }

    /// How likely those tokens of the prompt are that follow the part's; none is told twice.
    fn tell_prompt(
        &mut self,
        rows: &[f32],
        vocab: usize,
        part: &Part<'_>,
        top: usize,
    ) -> Vec<Logprob> {
        let next = (part.position + 1..part.prompt_tokens).zip(rows.chunks_exact(vocab));
        let told: Vec<Logprob> = next
            .filter(|(index, _)| *index > self.prompt_told)
            .map(|(index, logits)| logprob(logits, self.request.prompt[index], top))
            .collect();
        self.prompt_told += told.len();
        told
    }

    /// Draws tokens from rows of logits (`[1 + drafts, vocab]`): the next one after `known` tokens,
    /// and those after it as long as guesses were right.
    fn draw(
        &mut self,
        logits: &[f32],
        known: usize,
        drafts: &[TokenId],
        scratch: &mut Scratch,
    ) -> Drawn {
        let vocab = logits.len() / (drafts.len() + 1);
        let mut drawn = Drawn::default();
        for (row, logits) in logits.chunks_exact(vocab).enumerate() {
            match self.draw_one(logits, known + row, scratch) {
                Ok(Some(token)) => {
                    let id = token.id;
                    drawn.tokens.push(token);
                    drawn.end = self.end_after().map(Ok);
                    if drawn.end.is_some() || drafts.get(row) != Some(&id) {
                        break;
                    }
                }
                Ok(None) => {
                    drawn.end = Some(Ok(EndReason::Eos));
                    break;
                }
                Err(error) => {
                    drawn.end = Some(Err(error));
                    break;
                }
            }
        }
        drawn.guesses = (drafts.len(), drawn.tokens.len().saturating_sub(1));
        self.learn(drawn.guesses);
        drawn
    }

    /// Takes note of guesses that were checked, and of how many were right.
    fn learn(&mut self, (guessed, right): (usize, usize)) {
        self.drafts.proposed += guessed;
        self.drafts.accepted += right;
        if self.asked_model {
            self.drafts.model_proposed += guessed;
            self.drafts.model_accepted += right;
        } else if let Some(speculator) = &mut self.speculator {
            speculator.learn(guessed, right);
        }
    }

    /// What a draft model needs to know to guess its tokens, which are `tokens` up to now.
    pub(crate) fn ask<'a>(&'a self, id: SequenceId, tokens: &'a [TokenId]) -> Ask<'a> {
        Ask {
            id,
            tokens,
            sampler: &self.sampler,
            end_tokens: &self.request.end_tokens,
            remaining: self.request.max_tokens - self.generated.len(),
        }
    }

    /// The token at `position`, unless it is an end token.
    fn draw_one(
        &mut self,
        logits: &[f32],
        position: usize,
        scratch: &mut Scratch,
    ) -> Result<Option<GeneratedToken>, Error> {
        let index = self.generated.len();
        let allowed = match &mut self.rule {
            Some(rule) => {
                let is_ready = rule.is_ready.clone().map_err(Error::Grammar)?;
                assert!(is_ready, "a rule is asked before the token is drawn");
                if rule.allowed.is_empty() && rule.matcher.is_whole() {
                    return Ok(None);
                }
                Some(&rule.allowed)
            }
            None => None,
        };
        let id = (self.sampler)
            .sample(logits, allowed, position as u64, scratch)
            .map_err(|source| Error::Sampling { index, source })?;
        if self.request.end_tokens.contains(&id) {
            return Ok(None);
        }
        if let Some(rule) = &mut self.rule {
            rule.matcher.accept(id).map_err(Error::Grammar)?;
            rule.is_ready = Ok(false);
        }
        self.sampler.observe(&[id]);
        self.generated.push(id);
        let top = self.request.logprobs;
        Ok(Some(GeneratedToken {
            id,
            index,
            logprob: top.map(|top| logprob(logits, id, top)),
        }))
    }

    /// Whether the last token was the last.
    fn end_after(&mut self) -> Option<EndReason> {
        if let Some(rule) = &mut self.rule
            && rule.matcher.is_whole()
        {
            return Some(EndReason::Eos);
        }
        (self.generated.len() == self.request.max_tokens).then_some(EndReason::Length)
    }

    /// Takes note of when the first token was drawn.
    pub(crate) fn drew(&mut self, now: Duration) {
        self.first_token.get_or_insert(now);
    }

    /// The account of an answer that is over.
    pub(crate) fn end(self, end_reason: EndReason, cached_tokens: usize, now: Duration) -> Outcome {
        let began = self.began.unwrap_or(now);
        let first_token = self.first_token.unwrap_or(now);
        Outcome {
            end_reason,
            prompt_tokens: self.request.prompt.len(),
            cached_tokens,
            generated: self.generated,
            queued: began.saturating_sub(self.submitted),
            prefill: first_token.saturating_sub(began),
            decode: now.saturating_sub(first_token),
            drafts: self.drafts,
        }
    }
}
