//! Random schemas, and what they accept, said a second time and in other words.

use serde_json::{Map, Value, json};

use redline_testkit::Random;

/// What a value may be.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    Null,
    Bool,
    Integer(i64, i64),
    /// Any, with as many digits as it likes.
    Number,
    /// In quarters, below 10.
    Quarters,
    /// Characters, from and to.
    Text(usize, usize),
    /// Two to four small letters, a hyphen, three digits.
    Code,
    Date,
    OneOf(Vec<Value>),
    /// Items, from and to how many.
    List(Box<Shape>, usize, usize),
    /// A first and a second.
    Pair(Box<Shape>, Box<Shape>),
    /// Name, value, and whether it must be there. Nothing else may be.
    Record(Vec<(String, Shape, bool)>),
    Either(Box<Shape>, Box<Shape>),
    /// `{"name": Code, "children": [at most 2 of the same]}`, by reference.
    Tree,
}

const NAMES: [&str; 8] = ["name", "age", "é", "a b", "x\"y", "list", "$id2", "日本"];

impl Shape {
    /// `endless`: whether it may be one whose values have no end.
    fn random(random: &mut Random, depth: usize, endless: bool) -> Self {
        let kinds = if depth == 0 { 9 } else { 13 };
        let inner =
            |random: &mut Random| Box::new(Self::random(random, depth.saturating_sub(1), endless));
        match random.index(kinds) {
            0 => Self::Null,
            1 => Self::Bool,
            2 => {
                let low = random.index(2000) as i64 - 1000;
                Self::Integer(low, low + random.index(5000) as i64)
            }
            3 if endless => Self::Number,
            3 => Self::Quarters,
            4 | 5 => {
                let low = random.index(4);
                Self::Text(low, low + random.index(20))
            }
            6 => Self::Code,
            7 => Self::Date,
            8 => {
                let values = [
                    json!("red"),
                    json!(3),
                    json!(null),
                    json!([1]),
                    json!({"a": "ü"}),
                ];
                let count = 1 + random.index(values.len());
                Self::OneOf(values[..count].to_vec())
            }
            9 => {
                let low = random.index(3);
                Self::List(inner(random), low, low + random.index(3))
            }
            10 => Self::Pair(inner(random), inner(random)),
            11 => Self::Either(inner(random), inner(random)),
            _ => Self::record(random, depth - 1, endless),
        }
    }

    /// Named values, nested `depth` deep at most.
    pub(crate) fn record(random: &mut Random, depth: usize, endless: bool) -> Self {
        let first = random.index(NAMES.len());
        let fields = (0..1 + random.index(4)).map(|i| {
            let name = NAMES[(first + i) % NAMES.len()].to_owned();
            let shape = match endless && random.once_in(12) {
                true => Self::Tree,
                false => Self::random(random, depth, endless),
            };
            (name, shape, !random.once_in(3))
        });
        Self::Record(fields.collect())
    }

    /// The schema of values of this shape.
    pub(crate) fn schema(&self) -> Value {
        let mut schema = self.part();
        schema["$defs"] = json!({"tree": {
            "type": "object",
            "properties": {
                "name": Self::Code.part(),
                "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2},
            },
            "required": ["name", "children"],
            "additionalProperties": false,
        }});
        schema
    }

    fn part(&self) -> Value {
        match self {
            Self::Null => json!({"type": "null"}),
            Self::Bool => json!({"type": "boolean"}),
            Self::Integer(low, high) => {
                json!({"type": "integer", "minimum": low, "maximum": high})
            }
            Self::Number => json!({"type": "number"}),
            Self::Quarters => {
                json!({"type": "number", "multipleOf": 0.25, "minimum": 0, "exclusiveMaximum": 10})
            }
            Self::Text(low, high) => {
                json!({"type": "string", "minLength": low, "maxLength": high})
            }
            Self::Code => json!({"type": "string", "pattern": "^[a-z]{2,4}-[0-9]{3}$"}),
            Self::Date => json!({"type": "string", "format": "date"}),
            Self::OneOf(values) => json!({"enum": values}),
            Self::List(items, low, high) => {
                json!({"type": "array", "items": items.part(), "minItems": low, "maxItems": high})
            }
            Self::Pair(first, second) => json!({
                "type": "array",
                "prefixItems": [first.part(), second.part()],
                "items": false,
                "minItems": 2,
            }),
            Self::Record(fields) => {
                let properties: Map<String, Value> = (fields.iter())
                    .map(|(name, shape, _)| (name.clone(), shape.part()))
                    .collect();
                let required: Vec<&String> = (fields.iter())
                    .filter_map(|(name, _, required)| required.then_some(name))
                    .collect();
                json!({
                    "type": "object",
                    "properties": properties,
                    "required": required,
                    "additionalProperties": false,
                })
            }
            Self::Either(one, other) => json!({"anyOf": [one.part(), other.part()]}),
            Self::Tree => json!({"$ref": "#/$defs/tree"}),
        }
    }

    /// Whether `value` is of this shape.
    pub(crate) fn accepts(&self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            Self::Bool => value.is_boolean(),
            Self::Integer(low, high) => value.as_f64().is_some_and(|number| {
                number.fract() == 0.0 && *low as f64 <= number && number <= *high as f64
            }),
            Self::Number => value.is_number(),
            Self::Quarters => (value.as_f64()).is_some_and(|number| {
                (0.0..10.0).contains(&number) && (4.0 * number).fract() == 0.0
            }),
            Self::Text(low, high) => value
                .as_str()
                .is_some_and(|text| (*low..=*high).contains(&text.chars().count())),
            Self::Code => value.as_str().is_some_and(is_code),
            Self::Date => value.as_str().is_some_and(is_date),
            Self::OneOf(values) => values.contains(value),
            Self::List(items, low, high) => value.as_array().is_some_and(|values| {
                (*low..=*high).contains(&values.len()) && values.iter().all(|v| items.accepts(v))
            }),
            Self::Pair(first, second) => match value.as_array().map(Vec::as_slice) {
                Some([one, other]) => first.accepts(one) && second.accepts(other),
                _ => false,
            },
            Self::Record(fields) => value.as_object().is_some_and(|map| {
                let is_right = |(name, shape, required): &(String, Self, bool)| match map.get(name)
                {
                    Some(value) => shape.accepts(value),
                    None => !required,
                };
                let is_known = |name: &String| fields.iter().any(|(known, ..)| known == name);
                fields.iter().all(is_right) && map.keys().all(is_known)
            }),
            Self::Either(one, other) => one.accepts(value) || other.accepts(value),
            Self::Tree => value.as_object().is_some_and(|map| {
                let children = map.get("children").and_then(Value::as_array);
                map.len() == 2
                    && map.get("name").is_some_and(|name| Self::Code.accepts(name))
                    && children.is_some_and(|children| {
                        children.len() <= 2 && children.iter().all(|child| self.accepts(child))
                    })
            }),
        }
    }
}

fn is_code(text: &str) -> bool {
    let Some((letters, digits)) = text.split_once('-') else {
        return false;
    };
    (2..=4).contains(&letters.len())
        && letters.bytes().all(|byte| byte.is_ascii_lowercase())
        && digits.len() == 3
        && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let number = |part: &str, digits: usize, range: std::ops::RangeInclusive<u32>| {
        part.len() == digits && part.parse().is_ok_and(|number| range.contains(&number))
    };
    match parts.as_slice() {
        [year, month, day] => {
            number(year, 4, 0..=9999) && number(month, 2, 1..=12) && number(day, 2, 1..=31)
        }
        _ => false,
    }
}
