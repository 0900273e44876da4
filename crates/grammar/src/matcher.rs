//! Follows answers.

use std::fmt;

use llguidance::TokenParser;
use redline_engine::{Grammar, GrammarError, Matcher, TokenSet};
use redline_tokenizer::TokenId;

use crate::error::reason;

/// How llguidance calls an end where no text is whole.
const NO_WAY_ON: &str = "NoExtensionBias";

/// A grammar that was compiled, before the first token.
pub(crate) struct Compiled(TokenParser);

impl Compiled {
    /// Takes what was compiled, if there is a text that begins as it says.
    pub(crate) fn new(mut parser: TokenParser) -> Result<Self, GrammarError> {
        parser.start_without_prompt();
        let compiled = Self(parser);
        let mut first = compiled.follower()?;
        match first.0.compute_mask() {
            Ok(_) => Ok(compiled),
            // Nothing may come, and nothing is not enough: it stops before it began.
            Err(error) if error.to_string().contains(NO_WAY_ON) => Err(GrammarError(
                "expected something that a text can fulfil, found what none can".to_owned(),
            )),
            Err(error) => Err(GrammarError(reason(error))),
        }
    }

    /// Nothing is shared: what one answer's lexer learns is no limit for another's.
    fn follower(&self) -> Result<Follower, GrammarError> {
        let matcher = llguidance::Matcher::new(Ok(self.0.deep_clone()));
        match matcher.get_error() {
            Some(error) => Err(GrammarError(reason(error))),
            None => Ok(Follower(matcher)),
        }
    }
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled").finish_non_exhaustive()
    }
}

impl Grammar for Compiled {
    fn matcher(&self) -> Result<Box<dyn Matcher>, GrammarError> {
        Ok(Box::new(self.follower()?))
    }
}

struct Follower(llguidance::Matcher);

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").finish_non_exhaustive()
    }
}

impl Matcher for Follower {
    fn allow(&mut self, allowed: &mut TokenSet) -> Result<(), GrammarError> {
        let mask = (self.0.compute_mask_or_eos()).map_err(|error| GrammarError(reason(error)))?;
        allowed.set_words(mask.as_slice());
        Ok(())
    }

    fn accept(&mut self, token: TokenId) -> Result<(), GrammarError> {
        (self.0.consume_token(token.0)).map_err(|error| GrammarError(reason(error)))
    }

    fn is_whole(&mut self) -> bool {
        !self.0.is_error() && self.0.is_stopped()
    }
}
