//! Metadata values, read in place.

use std::fmt;

use crate::cursor::{Cursor, Part};
use crate::{Error, MAX_ARRAY_DEPTH};

macro_rules! value_types {
    ($($name:ident = $id:literal, $least:literal, $text:literal, $doc:literal;)*) => {
        /// The type of a metadata value.
        ///
        /// Source: `gguf_metadata_value_type` in the format's description.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ValueType { $(#[doc = $doc] $name,)* }

        impl ValueType {
            /// Every type, by ascending number.
            pub const ALL: [Self; 13] = [$(Self::$name,)*];

            /// The type with this number in a file, if GGUF defines one.
            #[must_use]
            pub const fn from_id(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The type's number in a file.
            #[must_use]
            pub const fn id(self) -> u32 {
                match self { $(Self::$name => $id,)* }
            }

            /// The type's name: `"u32"`, `"string"`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Bytes of a value: exact for numbers and booleans, a minimum for the others.
            pub(crate) const fn least_bytes(self) -> usize {
                match self { $(Self::$name => $least,)* }
            }
        }
    };
}

// name = number, least bytes
value_types! {
    U8 = 0, 1, "u8", "Unsigned, 8 bits.";
    I8 = 1, 1, "i8", "Signed, 8 bits.";
    U16 = 2, 2, "u16", "Unsigned, 16 bits.";
    I16 = 3, 2, "i16", "Signed, 16 bits.";
    U32 = 4, 4, "u32", "Unsigned, 32 bits.";
    I32 = 5, 4, "i32", "Signed, 32 bits.";
    F32 = 6, 4, "f32", "IEEE 754, 32 bits.";
    Bool = 7, 1, "bool", "One byte, 0 or 1.";
    String = 8, 8, "string", "Length and UTF-8 bytes.";
    Array = 9, 12, "array", "Element type, length, elements.";
    U64 = 10, 8, "u64", "Unsigned, 64 bits.";
    I64 = 11, 8, "i64", "Signed, 64 bits.";
    F64 = 12, 8, "f64", "IEEE 754, 64 bits.";
}

impl ValueType {
    /// Whether values are integers, of whatever width and sign.
    #[must_use]
    pub const fn is_integer(self) -> bool {
        match self {
            Self::U8
            | Self::I8
            | Self::U16
            | Self::I16
            | Self::U32
            | Self::I32
            | Self::U64
            | Self::I64 => true,
            Self::F32 | Self::F64 | Self::Bool | Self::String | Self::Array => false,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A metadata value. Text and arrays are borrowed.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(
    missing_docs,
    reason = "each variant is the ValueType of the same name"
)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(&'a str),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// The value's type.
    #[must_use]
    pub const fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// The value if it is an integer of any width.
    #[must_use]
    pub fn as_integer(&self) -> Option<i128> {
        match *self {
            Self::U8(value) => Some(value.into()),
            Self::I8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::I16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::I32(value) => Some(value.into()),
            Self::U64(value) => Some(value.into()),
            Self::I64(value) => Some(value.into()),
            _ => None,
        }
    }

    /// The value if it is an array.
    #[must_use]
    pub const fn as_array(&self) -> Option<Array<'a>> {
        match *self {
            Self::Array(array) => Some(array),
            _ => None,
        }
    }

    /// The value if it is text.
    #[must_use]
    pub const fn as_str(&self) -> Option<&'a str> {
        match *self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Appends the value as a file holds it, without its type.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::U8(value) => out.extend(value.to_le_bytes()),
            Self::I8(value) => out.extend(value.to_le_bytes()),
            Self::U16(value) => out.extend(value.to_le_bytes()),
            Self::I16(value) => out.extend(value.to_le_bytes()),
            Self::U32(value) => out.extend(value.to_le_bytes()),
            Self::I32(value) => out.extend(value.to_le_bytes()),
            Self::F32(value) => out.extend(value.to_le_bytes()),
            Self::Bool(value) => out.push(u8::from(value)),
            Self::String(text) => encode_string(text, out),
            Self::Array(array) => {
                out.extend(array.element.id().to_le_bytes());
                out.extend((array.len as u64).to_le_bytes());
                out.extend(array.bytes);
            }
            Self::U64(value) => out.extend(value.to_le_bytes()),
            Self::I64(value) => out.extend(value.to_le_bytes()),
            Self::F64(value) => out.extend(value.to_le_bytes()),
        }
    }
}

/// Appends length and bytes.
pub(crate) fn encode_string(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// An array of values of one type, still encoded; every element was checked when it was read.
///
/// Equality is that of element types and bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Array<'a> {
    element: ValueType,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// `bytes` are exactly `len` well-formed elements.
    pub(crate) const fn from_checked(element: ValueType, len: usize, bytes: &'a [u8]) -> Self {
        Self {
            element,
            len,
            bytes,
        }
    }

    /// The type of every element.
    #[must_use]
    pub const fn element_type(&self) -> ValueType {
        self.element
    }

    /// Number of elements.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements as a file holds them.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The elements.
    #[must_use]
    pub fn iter(&self) -> Elements<'a> {
        Elements {
            cursor: Cursor::new(self.bytes, 0),
            element: self.element,
            left: self.len,
        }
    }

    /// The elements if they are text.
    #[must_use]
    pub fn strings(&self) -> Option<Strings<'a>> {
        (self.element == ValueType::String).then(|| Strings::of_strings(self.iter()))
    }
}

impl<'a> IntoIterator for Array<'a> {
    type Item = Value<'a>;
    type IntoIter = Elements<'a>;

    fn into_iter(self) -> Elements<'a> {
        self.iter()
    }
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}; {}]", self.element, self.len)
    }
}

/// Iterator over the elements of an [`Array`].
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    cursor: Cursor<'a>,
    element: ValueType,
    left: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        let value = self.cursor.value(self.element, 0, Part::Value(""));
        Some(value.expect("the array was checked when it was read"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Elements<'_> {}

/// Iterator over the elements of an [`Array`] of text.
#[derive(Debug, Clone)]
pub struct Strings<'a> {
    elements: Elements<'a>,
}

impl<'a> Strings<'a> {
    /// `elements` are all text.
    pub(crate) const fn of_strings(elements: Elements<'a>) -> Self {
        Self { elements }
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.elements.next()?.as_str()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.elements.size_hint()
    }
}

impl ExactSizeIterator for Strings<'_> {}

/// An array that owns its bytes, for writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayBuf {
    element: ValueType,
    len: usize,
    bytes: Vec<u8>,
    /// 1 for an array of anything but arrays.
    depth: usize,
}

impl ArrayBuf {
    fn of_values<'v>(element: ValueType, values: impl IntoIterator<Item = Value<'v>>) -> Self {
        let mut array = Self {
            element,
            len: 0,
            bytes: Vec::new(),
            depth: 1,
        };
        for value in values {
            value.encode(&mut array.bytes);
            array.len = array.len.saturating_add(1);
        }
        array
    }

    /// An array of text.
    pub fn strings<S: AsRef<str>>(strings: impl IntoIterator<Item = S>) -> Self {
        let mut array = Self::of_values(ValueType::String, []);
        for text in strings {
            encode_string(text.as_ref(), &mut array.bytes);
            array.len = array.len.saturating_add(1);
        }
        array
    }

    /// An array of arrays.
    ///
    /// # Errors
    /// If arrays would nest deeper than [`MAX_ARRAY_DEPTH`].
    pub fn arrays<'v>(arrays: impl IntoIterator<Item = &'v Self>) -> Result<Self, Error> {
        let mut outer = Self::of_values(ValueType::Array, []);
        for inner in arrays {
            outer.depth = outer.depth.max(inner.depth.saturating_add(1));
            Value::Array(inner.as_array()).encode(&mut outer.bytes);
            outer.len = outer.len.saturating_add(1);
        }
        if outer.depth > MAX_ARRAY_DEPTH {
            return Err(Error::ArrayDepthToWrite);
        }
        Ok(outer)
    }

    /// The array, borrowed.
    #[must_use]
    pub fn as_array(&self) -> Array<'_> {
        Array::from_checked(self.element, self.len, &self.bytes)
    }
}

impl<'a> From<Array<'a>> for Value<'a> {
    fn from(array: Array<'a>) -> Self {
        Self::Array(array)
    }
}

impl<'a> From<&'a ArrayBuf> for Value<'a> {
    fn from(array: &'a ArrayBuf) -> Self {
        Self::Array(array.as_array())
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::String(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::String(text)
    }
}

macro_rules! from_plain {
    ($($plain:ty => $variant:ident;)*) => {$(
        impl From<$plain> for Value<'_> {
            fn from(value: $plain) -> Self {
                Self::$variant(value)
            }
        }

        impl From<&[$plain]> for ArrayBuf {
            fn from(values: &[$plain]) -> Self {
                Self::of_values(ValueType::$variant, values.iter().copied().map(Value::from))
            }
        }
    )*};
}

from_plain! {
    u8 => U8;
    i8 => I8;
    u16 => U16;
    i16 => I16;
    u32 => U32;
    i32 => I32;
    f32 => F32;
    bool => Bool;
    u64 => U64;
    i64 => I64;
    f64 => F64;
}
