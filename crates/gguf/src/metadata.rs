//! Metadata of a file: keys in file order, looked up by name.

use crate::error::{Error, quote};
use crate::value::{Array, Elements, Strings, Value, ValueType};

/// The key-value pairs of a GGUF file (of the first shard, where it is split).
///
/// The typed getters return `Ok(None)` for a key that is absent, and an error for one of another
/// type; each has a `require_…` form where absence is an error too. An integer getter takes an
/// integer of any width, provided that its value fits.
#[derive(Debug, Clone)]
pub struct Metadata<'a> {
    // In file order.
    entries: Vec<(&'a str, Value<'a>)>,
    // Indices into `entries`, sorted by key.
    by_key: Vec<usize>,
}

macro_rules! integer_getters {
    ($($name:ident, $require:ident, $integer:ty;)*) => {$(
        #[doc = concat!("The integer under `key`, as ", stringify!($integer), ".")]
        ///
        /// # Errors
        /// If the value is not an integer, or does not fit.
        pub fn $name(&self, key: &str) -> Result<Option<$integer>, Error> {
            self.integer(key, stringify!($integer))
        }

        #[doc = concat!("The integer under `key`, as ", stringify!($integer), ".")]
        ///
        /// # Errors
        /// If it is missing, not an integer, or does not fit.
        pub fn $require(&self, key: &str) -> Result<$integer, Error> {
            self.$name(key)?.ok_or_else(|| missing(key, stringify!($integer)))
        }
    )*};
}

macro_rules! plain_getters {
    ($($name:ident, $require:ident, $plain:ty, $variant:ident, $text:literal;)*) => {$(
        #[doc = concat!("The ", $text, " under `key`.")]
        ///
        /// # Errors
        /// If the value is of another type.
        pub fn $name(&self, key: &str) -> Result<Option<$plain>, Error> {
            match self.get(key) {
                None => Ok(None),
                Some(Value::$variant(value)) => Ok(Some(*value)),
                Some(other) => Err(wrong_type(key, $text, other.value_type())),
            }
        }

        #[doc = concat!("The ", $text, " under `key`.")]
        ///
        /// # Errors
        /// If it is missing, or of another type.
        pub fn $require(&self, key: &str) -> Result<$plain, Error> {
            self.$name(key)?.ok_or_else(|| missing(key, $text))
        }
    )*};
}

impl<'a> Metadata<'a> {
    /// Sorts the keys, and refuses one that is there twice.
    pub(crate) fn new(entries: Vec<(&'a str, Value<'a>)>, shard: usize) -> Result<Self, Error> {
        let key_at = |index: usize| entries.get(index).map_or("", |(key, _)| *key);
        let mut by_key: Vec<usize> = (0..entries.len()).collect();
        by_key.sort_unstable_by_key(|&index| key_at(index));
        for (&first, &second) in by_key.iter().zip(by_key.iter().skip(1)) {
            if key_at(first) == key_at(second) {
                return Err(Error::DuplicateKey {
                    shard,
                    key: quote(key_at(first)),
                });
            }
        }
        Ok(Self { entries, by_key })
    }

    /// Keys and values, in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a str, &Value<'a>)> {
        self.entries.iter().map(|(key, value)| (*key, value))
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        let entry = |index: usize| self.entries.get(index);
        let found = self
            .by_key
            .binary_search_by(|&index| entry(index).map_or("", |(found, _)| *found).cmp(key))
            .ok()?;
        self.by_key
            .get(found)
            .and_then(|&index| entry(index))
            .map(|(_, value)| value)
    }

    integer_getters! {
        u32, require_u32, u32;
        u64, require_u64, u64;
        i32, require_i32, i32;
        i64, require_i64, i64;
        usize, require_usize, usize;
    }

    plain_getters! {
        f32, require_f32, f32, F32, "f32";
        f64, require_f64, f64, F64, "f64";
        bool, require_bool, bool, Bool, "bool";
        str, require_str, &'a str, String, "string";
        array, require_array, Array<'a>, Array, "array";
    }

    fn integer<T: TryFrom<i128>>(
        &self,
        key: &str,
        expected: &'static str,
    ) -> Result<Option<T>, Error> {
        self.get(key)
            .map(|value| to_integer(key, value, expected))
            .transpose()
    }

    /// The texts of the array under `key`, without copying them.
    ///
    /// # Errors
    /// If the value is not an array of text.
    pub fn str_array(&self, key: &str) -> Result<Option<Strings<'a>>, Error> {
        let is_string = |element| element == ValueType::String;
        Ok(self
            .elements(key, STRINGS, is_string)?
            .map(Strings::of_strings))
    }

    /// The texts of the array under `key`, without copying them.
    ///
    /// # Errors
    /// If it is missing, or not an array of text.
    pub fn require_str_array(&self, key: &str) -> Result<Strings<'a>, Error> {
        self.str_array(key)?.ok_or_else(|| missing(key, STRINGS))
    }

    /// The numbers of the array under `key`.
    ///
    /// # Errors
    /// If the value is not an array of `f32`.
    pub fn f32_array(&self, key: &str) -> Result<Option<Vec<f32>>, Error> {
        let elements =
            self.elements(key, "an array of f32", |element| element == ValueType::F32)?;
        let number = |value: Value<'a>| {
            if let Value::F32(number) = value {
                Some(number)
            } else {
                None
            }
        };
        Ok(elements.map(|elements| elements.filter_map(number).collect()))
    }

    /// The booleans of the array under `key`.
    ///
    /// # Errors
    /// If the value is not an array of booleans.
    pub fn bool_array(&self, key: &str) -> Result<Option<Vec<bool>>, Error> {
        let elements = self.elements(key, "an array of bool", |element| {
            element == ValueType::Bool
        })?;
        let boolean = |value: Value<'a>| {
            if let Value::Bool(boolean) = value {
                Some(boolean)
            } else {
                None
            }
        };
        Ok(elements.map(|elements| elements.filter_map(boolean).collect()))
    }

    /// The integers of the array under `key`, of whatever width, if they all fit.
    ///
    /// # Errors
    /// If the value is not an array of integers, or one of them does not fit.
    pub fn i32_array(&self, key: &str) -> Result<Option<Vec<i32>>, Error> {
        self.integers(key, "an array of i32", "i32")
    }

    /// The integers of the array under `key`, of whatever width, if they all fit.
    ///
    /// # Errors
    /// If the value is not an array of integers, or one of them does not fit.
    pub fn u32_array(&self, key: &str) -> Result<Option<Vec<u32>>, Error> {
        self.integers(key, "an array of u32", "u32")
    }

    fn integers<T: TryFrom<i128>>(
        &self,
        key: &str,
        expected: &'static str,
        element: &'static str,
    ) -> Result<Option<Vec<T>>, Error> {
        self.elements(key, expected, ValueType::is_integer)?
            .map(|elements| {
                elements
                    .map(|value| to_integer(key, &value, element))
                    .collect()
            })
            .transpose()
    }

    /// The elements of the array under `key`, if they are of a type that suits.
    ///
    /// No elements suit always: a tool that had none could not tell their type.
    fn elements(
        &self,
        key: &str,
        expected: &'static str,
        suits: impl Fn(ValueType) -> bool,
    ) -> Result<Option<Elements<'a>>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) if array.is_empty() || suits(array.element_type()) => {
                Ok(Some(array.iter()))
            }
            Some(Value::Array(array)) => {
                let found = array.element_type();
                Err(Error::WrongElementType {
                    key: quote(key),
                    expected,
                    found,
                })
            }
            Some(other) => Err(wrong_type(key, expected, other.value_type())),
        }
    }
}

const STRINGS: &str = "an array of strings";

fn to_integer<T: TryFrom<i128>>(
    key: &str,
    value: &Value<'_>,
    expected: &'static str,
) -> Result<T, Error> {
    let found = value
        .as_integer()
        .ok_or_else(|| wrong_type(key, expected, value.value_type()))?;
    T::try_from(found).map_err(|_| Error::IntegerRange {
        key: quote(key),
        expected,
        found,
    })
}

fn wrong_type(key: &str, expected: &'static str, found: ValueType) -> Error {
    Error::WrongType {
        key: quote(key),
        expected,
        found,
    }
}

fn missing(key: &str, expected: &'static str) -> Error {
    Error::MissingKey {
        key: quote(key),
        expected,
    }
}
