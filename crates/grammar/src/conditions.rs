//! How many conditions one text has to fulfil at the same time.
//!
//! To follow one expression costs little, to follow n at once up to 2ⁿ, and llguidance counts that work
//! only when it is done. So sources with too many are refused before.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::Error;

/// Conditions on one text, at most.
const MAX_CONDITIONS: usize = 8;

/// Whether no value of a schema has too many.
pub(crate) fn check_schema(schema: &Value) -> Result<(), Error> {
    let mut counter = Counter {
        root: schema,
        known: HashMap::new(),
    };
    let mut open = vec![schema];
    while let Some(value) = open.pop() {
        if counter.conditions(value) > MAX_CONDITIONS {
            return Err(Error::TooManyConditions {
                expected: MAX_CONDITIONS,
                what: "pattern and format, patternProperties, joined by allOf and $ref",
            });
        }
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(map) => open.extend(map.values()),
            _ => {}
        }
    }
    Ok(())
}

/// The same for a grammar, whose rules are not followed: all there are count as those of one text.
pub(crate) fn check_lark(text: &str) -> Result<(), Error> {
    let marks = ["&", "~", "\"pattern", "\"format\""];
    let count: usize = marks.iter().map(|mark| text.matches(mark).count()).sum();
    match count <= MAX_CONDITIONS {
        true => Ok(()),
        false => Err(Error::TooManyConditions {
            expected: MAX_CONDITIONS,
            what: "& and ~, pattern and format",
        }),
    }
}

struct Counter<'v> {
    root: &'v Value,
    /// By address: what was counted, 0 for what is being counted. A reference to what it stands in
    /// adds nothing.
    known: HashMap<*const Value, usize>,
}

impl<'v> Counter<'v> {
    /// Those that a value as a schema puts on one text.
    fn conditions(&mut self, schema: &'v Value) -> usize {
        let Value::Object(map) = schema else {
            return 0;
        };
        if let Some(count) = self.known.get(&std::ptr::from_ref(schema)) {
            return *count;
        }
        self.known.insert(schema, 0);
        let count = self.own(map) + self.joined(map);
        self.known.insert(schema, count);
        count
    }

    fn own(&self, map: &Map<String, Value>) -> usize {
        let patterns = map.get("patternProperties").and_then(Value::as_object);
        let texts = ["pattern", "format"].iter();
        texts.filter(|name| map.contains_key(**name)).count() + patterns.map_or(0, Map::len)
    }

    /// Those of the schemas that hold for the same value.
    fn joined(&mut self, map: &'v Map<String, Value>) -> usize {
        let parts = |name| {
            map.get(name)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        };
        let all: usize = parts("allOf")
            .map(|part| self.conditions(part))
            .fold(0, usize::saturating_add);
        let any = ["anyOf", "oneOf"]
            .into_iter()
            .flat_map(parts)
            .map(|part| self.conditions(part))
            .max();
        let path = map.get("$ref").and_then(Value::as_str);
        let target = path.and_then(|path| self.root.pointer(path.strip_prefix('#')?));
        let referred = target.map_or(0, |target| self.conditions(target));
        all.saturating_add(any.unwrap_or(0))
            .saturating_add(referred)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn is_refused(schema: &Value) -> bool {
        check_schema(schema).is_err()
    }

    fn patterns(count: usize) -> Vec<Value> {
        (0..count)
            .map(|i| json!({"pattern": format!("^{i}")}))
            .collect()
    }

    #[test]
    fn conditions_on_one_value_count_together_and_those_on_several_do_not() {
        for (count, refused) in [(MAX_CONDITIONS, false), (MAX_CONDITIONS + 1, true)] {
            assert_eq!(is_refused(&json!({"allOf": patterns(count)})), refused);
            assert_eq!(
                is_refused(&json!({"items": {"allOf": patterns(count)}})),
                refused
            );
            assert_eq!(
                is_refused(&json!({"anyOf": [{}, {"allOf": patterns(count)}]})),
                refused
            );
            let referred = json!({
                "$defs": {"a": {"allOf": patterns(count - 1)}},
                "properties": {"x": {"$ref": "#/$defs/a", "format": "date"}},
            });
            assert_eq!(is_refused(&referred), refused);
            assert!(!is_refused(&json!({"anyOf": patterns(count)})));
            assert!(!is_refused(
                &json!({"properties": {"a": {"pattern": "a"}, "b": {"format": "date"}}})
            ));
            assert_eq!(check_lark(&"&".repeat(count)).is_err(), refused);
        }
    }

    #[test]
    fn references_that_double_or_go_in_circles_are_counted_in_time() {
        let defs: Map<String, Value> = (0..60)
            .map(|i| {
                let next = json!({"$ref": format!("#/$defs/d{}", i + 1)});
                (format!("d{i}"), json!({"allOf": [next.clone(), next]}))
            })
            .collect();
        let mut schema = json!({"$ref": "#/$defs/d0", "$defs": defs});
        assert!(!is_refused(&schema));
        schema["$defs"]["d60"] = json!({"pattern": "a"});
        assert!(is_refused(&schema));
        assert!(!is_refused(
            &json!({"allOf": [{"$ref": "#"}, {"pattern": "a"}]})
        ));
    }
}
