//! Any bytes as a tokenizer.json, and some of them as text: an error, or ids that stream as they decode.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redline_tokenizer::{EncodeOptions, JsonFiles, Tokenizer};

fuzz_target!(|data: &[u8]| {
    let Some((&text_bytes, rest)) = data.split_first() else { return };
    let Some((text, file)) = rest.split_at_checked(text_bytes.into()) else { return };
    let files = JsonFiles { tokenizer: file, ..JsonFiles::default() };
    let tokenizer = match Tokenizer::from_json(&files) {
        Ok(tokenizer) => tokenizer,
        Err(error) => {
            assert!(error.to_string().len() < 2_000);
            return;
        }
    };
    let text = String::from_utf8_lossy(text);
    for parse_special in [false, true] {
        let options = EncodeOptions { add_special: parse_special, parse_special };
        let Ok(ids) = tokenizer.encode(&text, options) else { continue };
        assert!(ids.iter().all(|id| (id.0 as usize) < tokenizer.vocab_size()));
        let mut decoder = tokenizer.stream_decoder();
        let mut streamed: String = ids.iter().map(|id| decoder.push(*id)).collect();
        streamed.push_str(&decoder.finish());
        assert_eq!(streamed, tokenizer.decode(&ids, true));
    }
});
