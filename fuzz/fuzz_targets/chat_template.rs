//! Any template, and messages, cut apart at zero bytes: a text within the limit, or an error.
#![no_main]

use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use redline_tokenizer::{ChatTemplate, Message};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\0');
    let source = parts.next().unwrap_or_default();
    let roles = ["user", "assistant", "system"];
    let messages: Vec<_> = parts
        .zip(roles.iter().cycle())
        .map(|(content, role)| Message { role: (*role).to_owned(), content: content.to_owned() })
        .collect();
    let template = ChatTemplate::new(source, Some("<s>"), Some("</s>"));
    match template.render_at(&messages, true, SystemTime::UNIX_EPOCH) {
        Ok(rendered) => assert!(rendered.len() <= (1 << 20) + 16 * text.len()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
