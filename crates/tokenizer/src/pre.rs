//! Pre-tokenizers: how byte-level vocabularies cut text into words before merging, by the name in
//! `tokenizer.ggml.pre`.
//!
//! The patterns are those of the upstream `tokenizer.json` files. Each ends with the alternatives
//! `\s+(?!\S)|\s+`: a run of white space, but without its last character where text follows, which
//! then begins the next word. That look-ahead is all that a finite automaton cannot do, so it is done
//! in code here: the automaton finds the run, and [`Words`] gives the last character back. Everything
//! else is plain alternation, and the automaton takes linear time where a backtracking engine takes
//! its limit of steps and then stops splitting (docs/decisions/0002-tokenizer.md).

use std::ops::Range;

use regex_automata::Input;
use regex_automata::meta::Regex;

use crate::error::{Error, quote};

/// What is known about one pre-tokenizer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Preset {
    /// Names in `tokenizer.ggml.pre`.
    names: &'static [&'static str],
    /// The pattern up to its alternatives for white space.
    pattern: &'static str,
    /// Every numeric character is cut out as a word of its own first, so that a word before it sees
    /// the end of the text there.
    isolate_digits: bool,
    /// Text is brought into Unicode's composed form (NFC) first.
    pub(crate) compose: bool,
    /// A word that is a piece as it stands is that piece, whatever the merges would give.
    pub(crate) whole_words: bool,
    /// Whether BOS is added where the file does not say.
    pub(crate) add_bos: bool,
}

const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+";

const LLAMA_3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
);

const QWEN_2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
);

const O200K: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
);

const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
);

const PLAIN: Preset = Preset {
    names: &[],
    pattern: GPT_2,
    isolate_digits: false,
    compose: false,
    whole_words: false,
    add_bos: false,
};

/// Names as llama.cpp writes and reads them (`llama_vocab::impl::load`), each with the upstream
/// tokenizer that it stands for.
const PRESETS: [Preset; 7] = [
    Preset {
        names: &["gpt-2", "phi-2", "mpt", "olmo"],
        ..PLAIN
    },
    Preset {
        names: &["smollm", "starcoder", "refact"],
        isolate_digits: true,
        ..PLAIN
    },
    Preset {
        names: &["qwen2"],
        pattern: QWEN_2,
        compose: true,
        ..PLAIN
    },
    Preset {
        names: &["deepseek-r1-qwen"],
        pattern: QWEN_2,
        ..PLAIN
    },
    Preset {
        names: &["llama-bpe", "llama3", "llama-v3"],
        pattern: LLAMA_3,
        whole_words: true,
        add_bos: true,
        ..PLAIN
    },
    Preset {
        names: &["gpt-4o", "o200k"],
        pattern: O200K,
        whole_words: true,
        ..PLAIN
    },
    Preset {
        names: &["tekken"],
        pattern: TEKKEN,
        whole_words: true,
        add_bos: true,
        ..PLAIN
    },
];

impl Preset {
    /// The pre-tokenizer that `key` names.
    pub(crate) fn named(key: &'static str, name: &str) -> Result<Self, Error> {
        let preset = PRESETS
            .into_iter()
            .find(|preset| preset.names.contains(&name));
        preset.ok_or_else(|| {
            let known: Vec<_> = PRESETS
                .iter()
                .flat_map(|preset| preset.names)
                .copied()
                .collect();
            Error::UnknownPreTokenizer {
                key,
                found: quote(name),
                known: known.join(", "),
            }
        })
    }
}

/// How patterns of `tokenizer.json` end, which [`Words`] does in code.
const TAIL: &str = r"|\s+(?!\S)|\s+";

impl Preset {
    /// GPT-2's words, every digit by itself first if that is wanted.
    pub(crate) fn of_gpt_2(isolate_digits: bool) -> Self {
        Self {
            isolate_digits,
            ..PLAIN
        }
    }

    /// The words of an upstream pattern, with nothing else said; none for an unknown one.
    pub(crate) fn of_pattern(pattern: &str) -> Option<Self> {
        let start = pattern.strip_suffix(TAIL)?;
        let known = PRESETS.iter().find(|preset| preset.pattern == start)?;
        Some(Self {
            pattern: known.pattern,
            ..PLAIN
        })
    }
}

/// Cuts text into words.
#[derive(Debug)]
pub(crate) struct PreTokenizer {
    regex: Regex,
    isolate_digits: bool,
}

/// The second of the two patterns, [`Preset::pattern`] being the first.
const WHITE_SPACE: usize = 1;

impl PreTokenizer {
    pub(crate) fn new(preset: &Preset) -> Result<Self, Error> {
        let regex = Regex::new_many(&[preset.pattern, r"\s+"])
            .map_err(|error| Error::Library(error.to_string()))?;
        Ok(Self {
            regex,
            isolate_digits: preset.isolate_digits,
        })
    }

    /// The words of `text` in order; together they are the text.
    pub(crate) fn words<'t>(&'t self, text: &'t str) -> impl Iterator<Item = &'t str> {
        self.stretches(text).flat_map(|stretch| Words {
            regex: &self.regex,
            input: Input::new(stretch),
            stretch,
        })
    }

    /// The parts of the text between which no word spans.
    fn stretches<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let isolate = self.isolate_digits;
        let mut rest = text;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let end = if isolate {
                stretch_end(rest)
            } else {
                rest.len()
            };
            let stretch;
            (stretch, rest) = rest.split_at(end);
            Some(stretch)
        })
    }
}

/// Where the first stretch ends: after one numeric character, or before the first.
fn stretch_end(text: &str) -> usize {
    match text
        .char_indices()
        .find(|(_, character)| character.is_numeric())
    {
        Some((0, digit)) => digit.len_utf8(),
        Some((start, _)) => start,
        None => text.len(),
    }
}

struct Words<'t> {
    regex: &'t Regex,
    input: Input<'t>,
    stretch: &'t str,
}

impl<'t> Iterator for Words<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let start = self.input.start();
        if start == self.stretch.len() {
            return None;
        }
        let end = match self.regex.search(&self.input) {
            // Every character begins a match, so this is the whole rest of none.
            None => self.stretch.len(),
            // Text that no alternative covers is a word of its own.
            Some(found) if found.start() > start => found.start(),
            Some(found) if found.pattern().as_usize() == WHITE_SPACE => {
                self.without_last(found.range())
            }
            Some(found) => found.end(),
        };
        self.input.set_start(end);
        Some(&self.stretch[start..end])
    }
}

impl Words<'_> {
    /// The end of a run of white space, without its last character if text follows and others remain.
    fn without_last(&self, run: Range<usize>) -> usize {
        if run.end == self.stretch.len() {
            return run.end;
        }
        match self.stretch[run.clone()].char_indices().next_back() {
            Some((last, _)) if last > 0 => run.start + last,
            _ => run.end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, text: &str, words: &[&str]) {
        let pre_tokenizer = PreTokenizer::new(&Preset::named("pre", name).unwrap()).unwrap();
        assert_eq!(
            pre_tokenizer.words(text).collect::<Vec<_>>(),
            words,
            "{name}: {text:?}"
        );
    }

    #[test]
    fn the_last_white_space_of_a_run_belongs_to_the_next_word() {
        check("gpt-2", "a   b", &["a", "  ", " b"]);
        check("gpt-2", "a b ", &["a", " b", " "]);
        check("gpt-2", "a  \n", &["a", "  \n"]);
        check("gpt-2", "a\n\nb", &["a", "\n", "\n", "b"]);
        check("gpt-2", "\u{2003}\u{2003}b", &["\u{2003}", "\u{2003}", "b"]);
        check("llama-bpe", "a   b", &["a", "  ", " b"]);
        check("llama-bpe", "a \n \n  b", &["a", " \n \n", " ", " b"]);
        check("llama-bpe", "\t\tb", &["\t", "\tb"]);
    }

    #[test]
    fn digits_are_cut_by_name() {
        check("gpt-2", "x 12345", &["x", " 12345"]);
        check("smollm", "x  12²", &["x", "  ", "1", "2", "²"]);
        check("qwen2", "x 123", &["x", " ", "1", "2", "3"]);
        check("llama-bpe", "12345 6", &["123", "45", " ", "6"]);
        check("gpt-4o", "12345", &["123", "45"]);
        check("tekken", "123", &["1", "2", "3"]);
    }

    #[test]
    fn contractions_and_case_are_cut_by_name() {
        check("gpt-2", "I'm I'M", &["I", "'m", " I", "'", "M"]);
        check("llama-bpe", "I'M he'ſ", &["I", "'M", " he", "'ſ"]);
        check("gpt-4o", "I'M fooBar FOO", &["I'M", " foo", "Bar", " FOO"]);
        check("tekken", "don't", &["don", "'t"]);
        check("gpt-4o", "a//\n/b", &["a", "//\n/", "b"]);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = Preset::named("tokenizer.ggml.pre", "hybriddna")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("\"hybriddna\"") && error.contains("llama-bpe, "),
            "{error}"
        );
    }
}
