//! Reading little-endian numbers, strings and values front to back, never past the end.

use std::fmt;

use crate::error::{Error, Place, quote};
use crate::value::{Array, Value, ValueType};
use crate::{MAX_ARRAY_DEPTH, MAX_KEY_BYTES, MAX_TENSOR_NAME_BYTES};

/// What is being read, for the error message only.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part<'n> {
    Magic,
    Version,
    TensorCount,
    KeyCount,
    Key,
    TensorName,
    ValueType(&'n str),
    Value(&'n str),
    ArrayLength(&'n str),
    Element(&'n str, usize),
    DimensionCount(&'n str),
    Dimension(&'n str),
    TensorType(&'n str),
    TensorOffset(&'n str),
}

impl<'n> Part<'n> {
    /// The key or tensor it belongs to.
    const fn subject(self) -> &'n str {
        match self {
            Self::Magic
            | Self::Version
            | Self::TensorCount
            | Self::KeyCount
            | Self::Key
            | Self::TensorName => "",
            Self::ValueType(name)
            | Self::Value(name)
            | Self::ArrayLength(name)
            | Self::Element(name, _)
            | Self::DimensionCount(name)
            | Self::Dimension(name)
            | Self::TensorType(name)
            | Self::TensorOffset(name) => name,
        }
    }
}

impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Magic => write!(f, "the magic number"),
            Self::Version => write!(f, "the version"),
            Self::TensorCount => write!(f, "the number of tensors"),
            Self::KeyCount => write!(f, "the number of metadata keys"),
            Self::Key => write!(f, "a metadata key"),
            Self::TensorName => write!(f, "a tensor name"),
            Self::ValueType(key) => write!(f, "the value type of {}", quote(key)),
            Self::Value(key) => write!(f, "the value of {}", quote(key)),
            Self::ArrayLength(key) => write!(f, "the array length of {}", quote(key)),
            Self::Element(key, index) => write!(f, "element {index} of {}", quote(key)),
            Self::DimensionCount(name) => write!(f, "the number of dimensions of {}", quote(name)),
            Self::Dimension(name) => write!(f, "a dimension of {}", quote(name)),
            Self::TensorType(name) => write!(f, "the type of tensor {}", quote(name)),
            Self::TensorOffset(name) => write!(f, "the offset of tensor {}", quote(name)),
        }
    }
}

/// The bytes of one shard that are not read yet.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    place: Place,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], shard: usize) -> Self {
        Self {
            rest: bytes,
            place: Place { shard, offset: 0 },
        }
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    fn truncated(&self, part: Part<'_>, expected: u64) -> Error {
        let found = self.rest.len();
        Error::Truncated {
            place: self.place,
            what: part.to_string(),
            expected,
            found,
        }
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: u64, part: Part<'_>) -> Result<&'a [u8], Error> {
        let (taken, rest) = usize::try_from(count)
            .ok()
            .and_then(|count| self.rest.split_at_checked(count))
            .ok_or_else(|| self.truncated(part, count))?;
        self.rest = rest;
        self.place.offset = self.place.offset.saturating_add(taken.len());
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self, part: Part<'_>) -> Result<[u8; N], Error> {
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| self.truncated(part, N as u64))?;
        self.rest = rest;
        self.place.offset = self.place.offset.saturating_add(N);
        Ok(*taken)
    }

    pub(crate) fn magic(&mut self) -> Result<[u8; 4], Error> {
        self.fixed(Part::Magic)
    }

    pub(crate) fn u32(&mut self, part: Part<'_>) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.fixed(part)?))
    }

    pub(crate) fn u64(&mut self, part: Part<'_>) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.fixed(part)?))
    }

    /// A number of things of at least `least` bytes each, all of which are still to be read.
    pub(crate) fn count(&mut self, least: usize, part: Part<'_>) -> Result<usize, Error> {
        let place = self.place;
        let count = self.u64(part)?;
        self.check_count(count, least, place, part)
    }

    /// Checks a count again, once what stands between it and its things has been read.
    pub(crate) fn check_count(
        &self,
        count: u64,
        least: usize,
        place: Place,
        part: Part<'_>,
    ) -> Result<usize, Error> {
        let left = self.rest.len();
        let limit = left.checked_div(least).unwrap_or(0);
        match usize::try_from(count) {
            Ok(count) if count <= limit => Ok(count),
            _ => Err(Error::Count {
                place,
                what: part.to_string(),
                count,
                limit,
                left,
            }),
        }
    }

    /// A length, then so many bytes of UTF-8.
    fn string(&mut self, part: Part<'_>) -> Result<&'a str, Error> {
        let bytes = self.u64(part)?;
        let place = self.place;
        std::str::from_utf8(self.take(bytes, part)?).map_err(|_| Error::Utf8 {
            place,
            what: part.to_string(),
        })
    }

    /// A string of 1 to `limit` bytes.
    fn short_string(&mut self, limit: usize, part: Part<'_>) -> Result<&'a str, Error> {
        let place = self.place;
        let ahead = self.clone().u64(part)?;
        if ahead == 0 || ahead > limit as u64 {
            return Err(Error::Length {
                place,
                what: part.to_string(),
                found: ahead,
                limit,
            });
        }
        self.string(part)
    }

    pub(crate) fn key(&mut self) -> Result<&'a str, Error> {
        self.short_string(MAX_KEY_BYTES, Part::Key)
    }

    pub(crate) fn tensor_name(&mut self) -> Result<&'a str, Error> {
        self.short_string(MAX_TENSOR_NAME_BYTES, Part::TensorName)
    }

    pub(crate) fn value_type(&mut self, key: &str) -> Result<ValueType, Error> {
        let (place, part) = (self.place, Part::ValueType(key));
        let found = self.u32(part)?;
        ValueType::from_id(found).ok_or_else(|| Error::UnknownValueType {
            place,
            what: part.to_string(),
            found,
        })
    }

    /// A value of this type, checked to its last byte.
    ///
    /// `depth`: how many arrays it stands in.
    pub(crate) fn value(
        &mut self,
        value_type: ValueType,
        depth: usize,
        part: Part<'_>,
    ) -> Result<Value<'a>, Error> {
        Ok(match value_type {
            ValueType::U8 => Value::U8(u8::from_le_bytes(self.fixed(part)?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(self.fixed(part)?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(self.fixed(part)?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(self.fixed(part)?)),
            ValueType::U32 => Value::U32(u32::from_le_bytes(self.fixed(part)?)),
            ValueType::I32 => Value::I32(i32::from_le_bytes(self.fixed(part)?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(self.fixed(part)?)),
            ValueType::U64 => Value::U64(u64::from_le_bytes(self.fixed(part)?)),
            ValueType::I64 => Value::I64(i64::from_le_bytes(self.fixed(part)?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(self.fixed(part)?)),
            ValueType::Bool => Value::Bool(self.boolean(part)?),
            ValueType::String => Value::String(self.string(part)?),
            ValueType::Array => Value::Array(self.array(depth, part)?),
        })
    }

    fn boolean(&mut self, part: Part<'_>) -> Result<bool, Error> {
        let place = self.place;
        match u8::from_le_bytes(self.fixed(part)?) {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(Error::Boolean {
                place,
                what: part.to_string(),
                found,
            }),
        }
    }

    fn array(&mut self, depth: usize, part: Part<'_>) -> Result<Array<'a>, Error> {
        if depth >= MAX_ARRAY_DEPTH {
            return Err(Error::ArrayDepth {
                place: self.place,
                what: part.to_string(),
            });
        }
        let key = part.subject();
        let element = self.value_type(key)?;
        let len = self.count(element.least_bytes(), Part::ArrayLength(key))?;
        let start = self.rest;
        match element {
            ValueType::Bool | ValueType::String | ValueType::Array => {
                for index in 0..len {
                    self.value(element, depth.saturating_add(1), Part::Element(key, index))?;
                }
            }
            _ => {
                let bytes = len.saturating_mul(element.least_bytes());
                self.take(bytes as u64, part)?;
            }
        }
        let read = start.len().saturating_sub(self.rest.len());
        Ok(Array::from_checked(
            element,
            len,
            start.get(..read).unwrap_or_default(),
        ))
    }
}
