//! What is done to a template's text before Jinja reads it.
//!
//! Code in one tag is limited: the engine folds constants in time that grows with the square of an
//! expression's length, and no list may be repeated in it, since a repeated constant is folded whatever
//! its length. And the statement `{% generation %}`, which transformers adds to Jinja to mark
//! what the assistant said, becomes an empty `with`: it renders what is in it, in a scope of its own.

/// Most bytes of code in one tag, without the contents of its strings. Real ones have some hundreds.
const MAX_TAG_BYTES: usize = 2048;

/// Words that a value follows.
const OPERATORS: [&str; 10] = [
    "and",
    "elif",
    "else",
    "if",
    "in",
    "is",
    "not",
    "or",
    "recursive",
    "set",
];

/// The text for Jinja.
pub(super) fn prepare(source: &str) -> Result<String, String> {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = tag_start(rest) {
        let (before, from_tag) = rest.split_at(start);
        let (end, code_bytes) = measure(from_tag);
        let (tag, after) = from_tag.split_at(end);
        let line = || {
            1 + source[..source.len() - from_tag.len()]
                .matches('\n')
                .count()
        };
        if code_bytes > MAX_TAG_BYTES {
            return Err(format!(
                "the tag in line {} has {code_bytes} bytes of code: expected at most {MAX_TAG_BYTES}",
                line()
            ));
        }
        if may_repeat_list(tag) {
            return Err(format!(
                "the tag in line {} has a list and a product",
                line()
            ));
        }
        result.push_str(before);
        result.push_str(&without_generation(tag).unwrap_or_else(|| tag.to_owned()));
        rest = after;
    }
    Ok(result + rest)
}

/// Where the next tag or comment begins.
fn tag_start(text: &str) -> Option<usize> {
    text.as_bytes()
        .windows(2)
        .position(|pair| matches!(pair, b"{{" | b"{%" | b"{#"))
}

/// The length of the tag or comment that `text` begins with, and how much of it is code.
fn measure(text: &str) -> (usize, usize) {
    if text.starts_with("{#") {
        return (text.find("#}").map_or(text.len(), |end| end + 2), 0);
    }
    let is_block = text.starts_with("{%");
    let bytes = text.as_bytes();
    let (mut at, mut code_bytes, mut braces) = (2, 2, 0_usize);
    while at < bytes.len() {
        code_bytes += 1;
        match (bytes[at], bytes.get(at + 1)) {
            (b'%', Some(b'}')) if is_block => return (at + 2, code_bytes),
            (b'}', Some(b'}')) if !is_block && braces == 0 => return (at + 2, code_bytes),
            (quote @ (b'"' | b'\''), _) => at = string_end(bytes, at + 1, quote),
            (b'{', _) => braces += 1,
            (b'}', _) => braces = braces.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    (bytes.len(), code_bytes)
}

/// Whether there is a list and, somewhere, a product.
fn may_repeat_list(tag: &str) -> bool {
    if tag.starts_with("{#") {
        return false;
    }
    let bytes = tag.as_bytes();
    let (mut at, mut has_list, mut has_product) = (2, false, false);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => at = string_end(bytes, at + 1, quote),
            b'[' => has_list |= !is_operand(&tag[..at]),
            // Not where arguments are unpacked.
            b'*' => has_product |= !tag[..at].trim_end().ends_with(['(', ',', '*']),
            _ => {}
        }
        at += 1;
    }
    has_list && has_product
}

/// Whether code ends in something that has elements, so that a bracket after it is an index.
fn is_operand(code: &str) -> bool {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let start = code.trim_end_matches(is_word).len();
    match &code[start..] {
        "" => code.ends_with([')', ']', '}', '"', '\'']),
        word => !OPERATORS.contains(&word),
    }
}

/// Where the string that goes on at `at` has its closing quote.
fn string_end(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at
}

/// The replacement of a tag that is the statement's.
fn without_generation(tag: &str) -> Option<String> {
    let is_mark = |character| matches!(character, '-' | '+');
    let inner = tag.strip_prefix("{%")?.strip_suffix("%}")?;
    let name = inner
        .trim_start_matches(is_mark)
        .trim_end_matches(is_mark)
        .trim();
    let with = match name {
        "generation" => "with",
        "endgeneration" => "endwith",
        _ => return None,
    };
    Some(tag.replacen(name, with, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_generation_statement_is_replaced() {
        assert_eq!(
            prepare("é{%- generation +%}a{% endgeneration -%}").unwrap(),
            "é{%- with +%}a{% endwith -%}"
        );
        let kept = [
            "{% if generation %}é{% endif %}",
            "{# {% generation %} #}",
            "{{ '{% generation %}' }}",
            "{% set x = '%} {% generation %}' %}",
            "{%",
            "{{ 'é",
            "{{ '\\",
            "{% generation",
            "generation %}",
            "",
        ];
        for same in kept {
            assert_eq!(prepare(same).unwrap(), same);
        }
    }

    #[test]
    fn code_is_measured_without_strings() {
        let check = |text, expected| assert_eq!(measure(text), expected, "{text}");
        check("{{ a }} b", (7, 6));
        check("{{ '}}' }} b", (10, 6));
        check("{{ \"a\\\"}}\" }} b", (13, 6));
        check("{{ {'a': {}} }} b", (15, 12));
        check("{% a }} %} b", (10, 9));
        check("{# {{ #} b", (8, 0));
        check("{{ 'open", (8, 4));
    }

    #[test]
    fn products_of_lists_are_refused() {
        let check = |tag, expected| assert_eq!(may_repeat_list(tag), expected, "{tag}");
        check("{{ [1] * 9 }}", true);
        check("{{ 9*([1]) }}", true);
        check("{{ 1 in[1]*9 }}", true);
        check("{% if [[1]] * 9 %}", true);
        check("{{ x[0] * 2 + f()[1] * 'a'[0] }}", false);
        check("{{ f(*[1], **x) }}", false);
        check("{{ [1, '*'] }}", false);
        check("{{ '[' * 9 }}", false);
        check("{# [1] * 9 #}", false);
        let error = prepare("\n{% set x = [1] * 9 %}").unwrap_err();
        assert!(
            error.contains("line 2") && error.contains("product"),
            "{error}"
        );
    }

    #[test]
    fn long_expressions_are_refused() {
        let long = ["{{ 'a'\n}}{{ 1", &"+1".repeat(1100), " }}"].concat();
        let error = prepare(&long).unwrap_err();
        assert!(
            error.contains("line 2") && error.contains("2048"),
            "{error}"
        );
        let string = ["{{ '", &"+1".repeat(1100), "' }}"].concat();
        assert_eq!(prepare(&string).unwrap(), string);
    }
}
