//! `POST /v1/completions`.

use redline_model::TokenId;
use redline_tokenizer::EncodeOptions;

use super::common::{self, Common};
use super::fields::Fields;
use super::prompts::{self, Given};
use super::{Ask, AskedPrompt, Dialect};
use crate::app::Served;
use crate::error::ApiError;

/// Prompts of one request.
const MAX_PROMPTS: usize = 128;
/// Tokens where nobody says, as clients of this interface expect.
const DEFAULT_MAX_TOKENS: usize = 16;

/// Reads a body.
pub(crate) fn read(mut fields: Fields<'_>, served: &Served) -> Result<Ask, ApiError> {
    let common = Common::read(&mut fields, served)?;
    let max_tokens = fields.count("max_tokens").unwrap_or(DEFAULT_MAX_TOKENS);
    let echo = fields.flag("echo");
    let logprobs = fields.count("logprobs");
    if echo && common.stream {
        fields.refuse("echo", "no echo in a stream", "both".to_owned());
    }
    let best_of = fields.count("best_of").unwrap_or(common.choices);
    if best_of != common.choices {
        fields.refuse("best_of", "as many as n", best_of.to_string());
    }
    if fields
        .text("suffix")
        .is_some_and(|suffix| !suffix.is_empty())
    {
        fields.refuse("suffix", "none: it is not supported", "a string".to_owned());
    }
    let given = prompts::read(&mut fields, "prompt", MAX_PROMPTS);
    let options = EncodeOptions {
        add_special: true,
        parse_special: true,
    };
    // Who wants to know of the prompt alone gets no token, but one is computed.
    let prompt_only = echo && max_tokens == 0;
    let mut requests = Vec::with_capacity(given.len());
    let mut asked = Vec::with_capacity(given.len());
    for given in given {
        let ids = given.encode(&served.tokenizer, options, "prompt")?;
        asked.push(AskedPrompt {
            echo: echo.then(|| echoed(&given, &ids, served)),
            ids: if echo { ids.clone() } else { Vec::new() },
        });
        let max_tokens = max_tokens.max(usize::from(prompt_only));
        let mut request = common.request(ids, Some(max_tokens), served);
        request.logprobs = logprobs;
        request.prompt_logprobs = logprobs.filter(|_| echo);
        requests.push(request);
    }
    common::check(fields, &requests, served)?;
    let ask = Ask::new(Dialect::Text, common, requests, asked);
    Ok(Ask { prompt_only, ..ask })
}

/// The prompt's text as it is given back.
fn echoed(given: &Given<'_>, ids: &[TokenId], served: &Served) -> String {
    match given {
        Given::Text(text) => (*text).to_owned(),
        Given::Ids(_) => served.tokenizer.decode(ids, false),
    }
}
