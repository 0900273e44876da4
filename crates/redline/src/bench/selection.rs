//! Which tests a benchmark runs: flags in the manner of llama-bench.

use redline_model::MAX_SEQUENCES;
use serde::{Deserialize, Serialize};

use crate::failure::Usage;

/// Tokens each sequence of a batched test has in the cache before it decodes.
const BATCH_PROMPT: usize = 64;
/// Steps of a batched test.
const BATCH_STEPS: usize = 32;

/// Flags that say what to test; the worker takes them as they were given.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TestArgs {
    /// Prompt lengths to test; 0: none [default: 512]
    #[arg(short = 'p', long, value_name = "TOKENS,…", value_delimiter = ',')]
    n_prompt: Vec<usize>,
    /// Numbers of tokens to generate; 0: none [default: 128]
    #[arg(short = 'n', long, value_name = "TOKENS,…", value_delimiter = ',')]
    n_gen: Vec<usize>,
    /// Tokens already in the cache before the timed ones: each with every -p and -n [default: 0]
    #[arg(short = 'd', long, value_name = "TOKENS,…", value_delimiter = ',')]
    n_depth: Vec<usize>,
    /// Sequences that decode together, 32 steps each after prompts of 64 tokens; 0: none [default: 0]
    #[arg(short = 'b', long, value_name = "SEQUENCES,…", value_delimiter = ',')]
    batch: Vec<usize>,
}

impl TestArgs {
    /// The tests, in the order of their flags.
    ///
    /// # Errors
    /// If there are none, or none that a depth is for.
    pub(crate) fn tests(&self) -> Result<Vec<Test>, Usage> {
        let depths = or(&self.n_depth, &[0]);
        let single = |phase, tokens: &'static [usize], given| -> Vec<Test> {
            let with = |tokens: &usize| {
                let tokens = *tokens;
                depths.iter().map(move |depth| Test {
                    phase,
                    tokens,
                    depth: *depth,
                    sequences: 1,
                })
            };
            let tokens = or(given, tokens).iter().filter(|tokens| **tokens > 0);
            tokens.flat_map(with).collect()
        };
        let mut tests = single(Phase::Prefill, &[512], &self.n_prompt);
        tests.extend(single(Phase::Decode, &[128], &self.n_gen));
        if tests.is_empty() && !self.n_depth.is_empty() {
            return Err(Usage(
                "-d is the depth of -p and -n, and both are 0; a test of -b has 64 tokens before it"
                    .into(),
            ));
        }
        let batch = self.batch.iter().filter(|sequences| **sequences > 0);
        tests.extend(batch.map(|sequences| Test {
            phase: Phase::Decode,
            tokens: BATCH_STEPS,
            depth: BATCH_PROMPT,
            sequences: *sequences,
        }));
        if tests.is_empty() {
            return Err(Usage("nothing to measure: -p, -n and -b are all 0".into()));
        }
        Ok(tests)
    }

    /// Whether any flag was given.
    pub(crate) fn are_given(&self) -> bool {
        !self.flags().is_empty()
    }

    /// The same flags again.
    pub(crate) fn flags(&self) -> Vec<String> {
        let given = [
            ("-p", &self.n_prompt),
            ("-n", &self.n_gen),
            ("-d", &self.n_depth),
            ("-b", &self.batch),
        ];
        let flag = |(name, numbers): (&str, &Vec<usize>)| {
            let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            [name.to_owned(), numbers.join(",")]
        };
        let given = given.into_iter().filter(|(_, numbers)| !numbers.is_empty());
        given.flat_map(flag).collect()
    }
}

/// What was given, or else the default.
fn or<'a>(given: &'a [usize], default: &'a [usize]) -> &'a [usize] {
    if given.is_empty() { default } else { given }
}

/// What a test does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// A prompt, from submission to the last position's logits.
    Prefill,
    /// Steps of one token for each sequence; choosing the token is not timed.
    Decode,
}

/// One test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Test {
    /// What it does.
    pub(crate) phase: Phase,
    /// Timed tokens of each sequence.
    pub(crate) tokens: usize,
    /// Tokens of each sequence that are in the cache before.
    pub(crate) depth: usize,
    /// Sequences that step together.
    pub(crate) sequences: usize,
}

impl Test {
    /// Timed tokens of all sequences.
    pub(crate) const fn total_tokens(self) -> usize {
        self.tokens * self.sequences
    }

    /// Positions each sequence has at the end.
    pub(crate) const fn positions(self) -> usize {
        self.depth.saturating_add(self.tokens)
    }

    /// `pp512`, `tg128 @ d4096`, `tg32 @ d64 b8`.
    pub(crate) fn name(self) -> String {
        let phase = match self.phase {
            Phase::Prefill => "pp",
            Phase::Decode => "tg",
        };
        let mut name = format!("{phase}{}", self.tokens);
        if self.depth > 0 {
            name += &format!(" @ d{}", self.depth);
        }
        if self.sequences > 1 {
            name += &format!(" b{}", self.sequences);
        }
        name
    }

    /// Refuses a test that a model, called `name`, has no room for.
    ///
    /// # Errors
    /// If its positions exceed `context`, or its sequences what a step takes.
    pub(crate) fn check(self, name: &str, context: usize) -> Result<(), Usage> {
        if self.sequences > MAX_SEQUENCES {
            return Err(Usage(format!(
                "-b: at most {MAX_SEQUENCES} sequences step together, found {}",
                self.sequences
            )));
        }
        if self.positions() > context {
            return Err(Usage(format!(
                "{}: {} tokens do not fit, {name} has a context of {context}",
                self.name(),
                self.positions()
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        tests: TestArgs,
    }

    fn names(flags: &[&str]) -> Vec<String> {
        let line = Line::parse_from([&["x"], flags].concat());
        let again = Line::parse_from([vec!["x".to_owned()], line.tests.flags()].concat());
        let tests = line.tests.tests().unwrap();
        assert_eq!(tests, again.tests.tests().unwrap());
        tests.into_iter().map(Test::name).collect()
    }

    #[test]
    fn every_length_comes_at_every_depth_and_batches_once() {
        assert_eq!(names(&[]), ["pp512", "tg128"]);
        let flags = ["-p", "32,0,512", "-n", "64", "-d", "0,4096", "-b", "1,8"];
        let expected = [
            "pp32",
            "pp32 @ d4096",
            "pp512",
            "pp512 @ d4096",
            "tg64",
            "tg64 @ d4096",
            "tg32 @ d64",
            "tg32 @ d64 b8",
        ];
        assert_eq!(names(&flags), expected);
        assert_eq!(names(&["-p", "0"]), ["tg128"]);
        assert_eq!(names(&["-n", "0", "-d", "9"]), ["pp512 @ d9"]);
        assert_eq!(names(&["-p0", "-n0", "-b", "0,3"]), ["tg32 @ d64 b3"]);
    }

    #[test]
    fn nothing_to_measure_is_refused() {
        let error = |flags: &[&str]| {
            let line = Line::parse_from([&["x"], flags].concat());
            line.tests.tests().unwrap_err().to_string()
        };
        assert!(error(&["-p0", "-n0"]).contains("nothing to measure"));
        assert!(error(&["-p0", "-n0", "-b0"]).contains("nothing to measure"));
        assert!(error(&["-p0", "-n0", "-d9", "-b8"]).contains("-d is the depth of -p and -n"));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let test = Test {
            phase: Phase::Decode,
            tokens: 32,
            depth: 64,
            sequences: 8,
        };
        assert!(test.check("m", 96).is_ok());
        let error = test.check("m", 95).unwrap_err().to_string();
        assert!(error.contains("tg32 @ d64 b8: 96 tokens"), "{error}");
        let endless = Test {
            tokens: usize::MAX,
            ..test
        };
        assert!(endless.check("m", 96).is_err());
        let sequences = MAX_SEQUENCES + 1;
        assert!(Test { sequences, ..test }.check("m", 96).is_err());
    }
}
