//! Guesses of the next tokens, out of what was there before.
//!
//! Every guess is checked by the model in the step that follows, and by the same draw that would
//! have been made without it, so an answer is the same with guesses and without; only the number of
//! steps is not.
//!
//! Source: Saxena, "Prompt lookup decoding", 2023, <https://github.com/apoorvumang/prompt-lookup-decoding>;
//! Leviathan, Kalman, Matias, "Fast inference from transformers via speculative decoding", ICML 2023.

use redline_model::TokenId;

/// Tokens guessed at a time, at most: a step that checks more costs as much as it saves.
pub(crate) const MAX_DRAFTS: usize = 15;
/// A guess is what followed the last so many tokens before: fewer are found by accident.
const SUFFIX: std::ops::RangeInclusive<usize> = 3..=8;
/// Steps without a guess after one that was all wrong; doubled each time, up to the second.
const PAUSE: (usize, usize) = (2, 64);

/// Finds guesses, more of them while they are right, none for a while when they were wrong.
#[derive(Debug)]
pub(crate) struct Speculator {
    length: usize,
    pause: usize,
    next_pause: usize,
}

impl Default for Speculator {
    fn default() -> Self {
        Self {
            length: 3,
            pause: 0,
            next_pause: PAUSE.0,
        }
    }
}

impl Speculator {
    /// What may follow `tokens`.
    pub(crate) fn guess(&mut self, tokens: &[TokenId]) -> Vec<TokenId> {
        if self.pause > 0 {
            self.pause -= 1;
            return Vec::new();
        }
        // What follows the end of the tokens is what follows there: guesses themselves.
        let after = follow(tokens).iter().cycle();
        after.take(self.length).copied().collect()
    }

    /// Takes note of how many guesses of a step were right.
    pub(crate) fn learn(&mut self, guessed: usize, right: usize) {
        if guessed == 0 {
            return;
        }
        if right == guessed {
            self.length = (2 * self.length + 1).min(MAX_DRAFTS);
            self.next_pause = PAUSE.0;
        } else {
            self.length = right.max(1);
        }
        // What a step that checks guesses costs beyond another is more than one right guess saves.
        if 2 * right < guessed {
            self.pause = self.next_pause;
            self.next_pause = (2 * self.next_pause).min(PAUSE.1);
            self.length = 3;
        }
    }
}

/// What followed the longest end of `tokens` where it was last seen.
fn follow(tokens: &[TokenId]) -> &[TokenId] {
    let (shortest, longest) = (*SUFFIX.start(), *SUFFIX.end());
    let Some(wanted) = tokens.last_chunk::<3>() else {
        return &[];
    };
    debug_assert_eq!(wanted.len(), shortest);
    let mut best: Option<(usize, usize)> = None;
    for end in (shortest..tokens.len()).rev() {
        if tokens[end - shortest..end] != *wanted {
            continue;
        }
        let same = tokens[..end].iter().rev();
        let length = (same.zip(tokens.iter().rev()))
            .take(longest)
            .take_while(|(a, b)| a == b)
            .count();
        if best.is_none_or(|(most, _)| length > most) {
            best = Some((length, end));
        }
        if length == longest {
            break;
        }
    }
    best.map_or(&[], |(_, end)| &tokens[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<TokenId> {
        text.bytes().map(|byte| TokenId(u32::from(byte))).collect()
    }

    #[test]
    fn a_guess_is_what_followed_the_longest_end_seen_before() {
        let check = |text: &str, expected: &str| {
            assert_eq!(follow(&ids(text)), ids(expected), "{text}");
        };
        check("abcd-abc", "d-abc");
        check("xabc1 abc2 xabc", "1 abc2 xabc");
        check("abc1 abc2 abc", "2 abc");
        check("aaaaaaa", "a");
        check("abcdef", "");
        check("ab", "");
        check("", "");
    }

    #[test]
    fn a_turn_that_comes_again_is_guessed_beyond_the_end() {
        let mut speculator = Speculator {
            length: 7,
            ..Speculator::default()
        };
        assert_eq!(speculator.guess(&ids("xabcabcab")), ids("cabcabc"));
        assert_eq!(speculator.guess(&ids("aaaaaa")), ids("aaaaaaa"));
    }

    #[test]
    fn right_guesses_bring_more_and_wrong_ones_a_pause() {
        let tokens = ids(&"abcdefghijklmnopqrstuvwxyz".repeat(3));
        let mut speculator = Speculator::default();
        for expected in [3, 7, 15, 15] {
            let guess = speculator.guess(&tokens).len();
            assert_eq!(guess, expected);
            speculator.learn(guess, guess);
        }
        for pause in [2, 4, 8] {
            let guess = speculator.guess(&tokens).len();
            assert!(guess > 0);
            speculator.learn(guess, 0);
            for _ in 0..pause {
                assert_eq!(speculator.guess(&tokens), []);
            }
        }
        assert_eq!(speculator.guess(&tokens).len(), 3);
    }
}
