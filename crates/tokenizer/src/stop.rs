//! Stop strings, matched on decoded text: what could be the beginning of one is held back.

/// Watches a stream of text for the first of several strings.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    /// Text that is the beginning of a stop string, so far.
    held: String,
}

/// What a piece of text leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Release {
    /// Text that certainly belongs to the answer.
    pub(crate) text: String,
    /// The stop string that follows it: the answer ends here.
    pub(crate) stopped_by: Option<String>,
}

impl StopMatcher {
    /// Watches for any of `stops`. Empty strings match nothing.
    pub(crate) fn new(stops: &[String]) -> Self {
        let stops = stops
            .iter()
            .filter(|stop| !stop.is_empty())
            .cloned()
            .collect();
        Self {
            stops,
            held: String::new(),
        }
    }

    /// Takes the next text.
    pub(crate) fn push(&mut self, text: &str) -> Release {
        self.held.push_str(text);
        let first = self
            .stops
            .iter()
            .filter_map(|stop| Some((self.held.find(stop.as_str())?, stop)))
            // Whatever is complete first ends the answer, however the text was cut into pieces.
            .min_by_key(|(at, stop)| (at + stop.len(), *at));
        if let Some((at, stop)) = first {
            let stopped_by = Some(stop.clone());
            let mut text = std::mem::take(&mut self.held);
            text.truncate(at);
            return Release { text, stopped_by };
        }
        let rest = self.held.split_off(self.certain_bytes());
        Release {
            text: std::mem::replace(&mut self.held, rest),
            stopped_by: None,
        }
    }

    /// The stream has ended: nothing can follow what was held back.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes before the earliest place where a stop string may have begun.
    fn certain_bytes(&self) -> usize {
        let may_begin_at = |at: usize| {
            let rest = &self.held[at..];
            self.stops.iter().any(|stop| stop.starts_with(rest))
        };
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest);
        (from..self.held.len())
            .find(|at| self.held.is_char_boundary(*at) && may_begin_at(*at))
            .unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut matcher = StopMatcher::new(&stops);
        let mut text = String::new();
        for piece in pieces {
            let release = matcher.push(piece);
            text.push_str(&release.text);
            if release.stopped_by.is_some() {
                return (text, release.stopped_by);
            }
        }
        (text + &matcher.finish(), None)
    }

    #[test]
    fn stop_text_is_not_emitted_and_a_false_alarm_is() {
        let stopped = |text: &str, stop: &str| (text.to_owned(), Some(stop.to_owned()));
        assert_eq!(run(&["END"], &["a E", "N", "D b"]), stopped("a ", "END"));
        assert_eq!(
            run(&["END"], &["a E", "N", "Q"]),
            ("a ENQ".to_owned(), None)
        );
        assert_eq!(run(&["END"], &["a EN"]), ("a EN".to_owned(), None));
        assert_eq!(run(&["aab"], &["aa", "ab"]), stopped("a", "aab"));
        assert_eq!(
            run(&["é\n", "\n"], &["caf", "é", "\n"]),
            stopped("caf", "é\n")
        );
        assert_eq!(run(&["bcd", "c"], &["abcd"]), stopped("ab", "c"));
        assert_eq!(run(&["d", "bcd"], &["abcd"]), stopped("a", "bcd"));
        assert_eq!(run(&[""], &["a"]), ("a".to_owned(), None));
    }

    #[test]
    fn nothing_is_held_back_that_cannot_be_a_stop() {
        let mut matcher = StopMatcher::new(&["\n\n".to_owned()]);
        assert_eq!(matcher.push("word").text, "word");
        assert_eq!(matcher.push("x\n").text, "x");
        assert_eq!(matcher.push("y").text, "\ny");
    }

    proptest! {
        /// However the text is cut into pieces, the same comes out.
        #[test]
        fn cuts_make_no_difference(text in "[abé]{0,24}", stops in prop::collection::vec("[abé]{1,4}", 0..3), cuts in any::<u64>()) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let mut pieces = vec![String::new()];
            for (index, character) in text.chars().enumerate() {
                if cuts >> (index % 64) & 1 == 1 {
                    pieces.push(String::new());
                }
                pieces.last_mut().unwrap().push(character);
            }
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (found, stopped_by) = run(&stops, &pieces);
            prop_assert_eq!((found, stopped_by), run(&stops, &[&text]));
        }
    }
}
