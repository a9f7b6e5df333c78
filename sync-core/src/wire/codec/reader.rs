//! Reads MessagePack values out of shared bytes, checking every length before anything is allocated for it.

use bytes::{Buf, Bytes};
use rmp::Marker;

use crate::wire::DecodeError;

/// Most entries of one list in a message. A list of empty values takes one to three bytes each on the wire and
/// up to 56 in memory; the bound keeps what a frame costs near what it weighs. Senders split longer lists.
pub const LIST_ENTRIES_MAX: usize = 65_536;

/// Entries for which room is made before they have been read.
const RESERVED_ENTRIES: usize = 256;

/// An integer of any width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Integer {
    NonNegative(u64),
    Negative(i64),
}

/// What is left of a payload.
#[derive(Debug)]
pub(super) struct Reader {
    bytes: Bytes,
}

impl Reader {
    pub(super) const fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    /// The fields of the array that comes next.
    pub(super) fn array(&mut self, field: &'static str) -> Result<Fields<'_>, DecodeError> {
        let count = match self.marker(field)? {
            Marker::FixArray(count) => u32::from(count),
            Marker::Array16 => u32::from(u16::from_be_bytes(self.fixed(field)?)),
            Marker::Array32 => u32::from_be_bytes(self.fixed(field)?),
            other => return Err(wrong_type(field, "array", other)),
        };
        // Every value takes at least a byte, so a count beyond that lies.
        self.check_remaining(u64::from(count), field)?;
        Ok(Fields {
            reader: self,
            left: count,
        })
    }

    /// Checks that everything has been read.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        match self.bytes.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::TrailingBytes { bytes }),
        }
    }

    fn integer(&mut self, field: &'static str) -> Result<Integer, DecodeError> {
        let signed = match self.marker(field)? {
            Marker::FixPos(value) => return Ok(Integer::NonNegative(value.into())),
            Marker::U8 => {
                return Ok(Integer::NonNegative(
                    u8::from_be_bytes(self.fixed(field)?).into(),
                ));
            }
            Marker::U16 => {
                return Ok(Integer::NonNegative(
                    u16::from_be_bytes(self.fixed(field)?).into(),
                ));
            }
            Marker::U32 => {
                return Ok(Integer::NonNegative(
                    u32::from_be_bytes(self.fixed(field)?).into(),
                ));
            }
            Marker::U64 => return Ok(Integer::NonNegative(u64::from_be_bytes(self.fixed(field)?))),
            Marker::FixNeg(value) => i64::from(value),
            Marker::I8 => i64::from(i8::from_be_bytes(self.fixed(field)?)),
            Marker::I16 => i64::from(i16::from_be_bytes(self.fixed(field)?)),
            Marker::I32 => i64::from(i32::from_be_bytes(self.fixed(field)?)),
            Marker::I64 => i64::from_be_bytes(self.fixed(field)?),
            other => return Err(wrong_type(field, "integer", other)),
        };
        Ok(u64::try_from(signed).map_or(Integer::Negative(signed), Integer::NonNegative))
    }

    fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.marker(field)? {
            Marker::True => Ok(true),
            Marker::False => Ok(false),
            other => Err(wrong_type(field, "boolean", other)),
        }
    }

    fn bytes(&mut self, field: &'static str) -> Result<Bytes, DecodeError> {
        let length = match self.marker(field)? {
            Marker::Bin8 => u32::from(u8::from_be_bytes(self.fixed(field)?)),
            Marker::Bin16 => u32::from(u16::from_be_bytes(self.fixed(field)?)),
            Marker::Bin32 => u32::from_be_bytes(self.fixed(field)?),
            other => return Err(wrong_type(field, "binary", other)),
        };
        self.take(length.into(), field)
    }

    fn string(&mut self, field: &'static str) -> Result<String, DecodeError> {
        let length = match self.marker(field)? {
            Marker::FixStr(length) => u32::from(length),
            Marker::Str8 => u32::from(u8::from_be_bytes(self.fixed(field)?)),
            Marker::Str16 => u32::from(u16::from_be_bytes(self.fixed(field)?)),
            Marker::Str32 => u32::from_be_bytes(self.fixed(field)?),
            other => return Err(wrong_type(field, "string", other)),
        };
        let bytes = self.take(length.into(), field)?;
        std::str::from_utf8(&bytes)
            .map(str::to_owned)
            .map_err(|_| DecodeError::InvalidUtf8 { field })
    }

    fn is_nil(&self) -> bool {
        self.bytes.first() == Some(&Marker::Null.to_u8())
    }

    /// Passes over one value, whatever it is. Counts what is still to come rather than recursing, so nesting
    /// costs no stack; the work is bounded by the bytes there are.
    fn skip(&mut self, field: &'static str) -> Result<(), DecodeError> {
        let mut values: u64 = 1;
        while values > 0 {
            values -= 1;
            let (bytes, inner): (u64, u64) = match self.marker(field)? {
                Marker::FixPos(_)
                | Marker::FixNeg(_)
                | Marker::Null
                | Marker::True
                | Marker::False => (0, 0),
                Marker::U8 | Marker::I8 => (1, 0),
                Marker::U16 | Marker::I16 | Marker::FixExt1 => (2, 0),
                Marker::FixExt2 => (3, 0),
                Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
                Marker::FixExt4 => (5, 0),
                Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
                Marker::FixExt8 => (9, 0),
                Marker::FixExt16 => (17, 0),
                Marker::FixStr(length) => (length.into(), 0),
                Marker::Str8 | Marker::Bin8 => (u8::from_be_bytes(self.fixed(field)?).into(), 0),
                Marker::Str16 | Marker::Bin16 => (u16::from_be_bytes(self.fixed(field)?).into(), 0),
                Marker::Str32 | Marker::Bin32 => (u32::from_be_bytes(self.fixed(field)?).into(), 0),
                // The type of an extension is one byte more.
                Marker::Ext8 => (u64::from(u8::from_be_bytes(self.fixed(field)?)) + 1, 0),
                Marker::Ext16 => (u64::from(u16::from_be_bytes(self.fixed(field)?)) + 1, 0),
                Marker::Ext32 => (u64::from(u32::from_be_bytes(self.fixed(field)?)) + 1, 0),
                Marker::FixArray(count) => (0, count.into()),
                Marker::Array16 => (0, u16::from_be_bytes(self.fixed(field)?).into()),
                Marker::Array32 => (0, u32::from_be_bytes(self.fixed(field)?).into()),
                Marker::FixMap(count) => (0, u64::from(count) * 2),
                Marker::Map16 => (0, u64::from(u16::from_be_bytes(self.fixed(field)?)) * 2),
                Marker::Map32 => (0, u64::from(u32::from_be_bytes(self.fixed(field)?)) * 2),
                other @ Marker::Reserved => return Err(wrong_type(field, "any value", other)),
            };
            self.take(bytes, field)?;
            values = values.saturating_add(inner);
            self.check_remaining(values, field)?;
        }
        Ok(())
    }

    fn marker(&mut self, field: &'static str) -> Result<Marker, DecodeError> {
        let byte = self
            .bytes
            .try_get_u8()
            .map_err(|_| truncated(field, 1, 0))?;
        Ok(Marker::from_u8(byte))
    }

    fn fixed<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let mut value = [0; N];
        let remaining = self.bytes.len();
        match self.bytes.try_copy_to_slice(&mut value) {
            Ok(()) => Ok(value),
            Err(error) => Err(truncated(field, error.requested, remaining)),
        }
    }

    fn take(&mut self, length: u64, field: &'static str) -> Result<Bytes, DecodeError> {
        self.check_remaining(length, field)?;
        let length =
            usize::try_from(length).map_err(|_| truncated(field, usize::MAX, self.bytes.len()))?;
        Ok(self.bytes.split_to(length))
    }

    fn check_remaining(&self, needed: u64, field: &'static str) -> Result<(), DecodeError> {
        let remaining = self.bytes.len();
        if u64::try_from(remaining).is_ok_and(|remaining| needed > remaining) {
            return Err(DecodeError::Truncated {
                field,
                needed,
                remaining,
            });
        }
        Ok(())
    }
}

/// The values of one array that have not been read yet.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    reader: &'a mut Reader,
    left: u32,
}

impl Fields<'_> {
    /// How many values are left.
    pub(super) const fn left(&self) -> u32 {
        self.left
    }

    pub(super) fn integer(&mut self, field: &'static str) -> Result<Integer, DecodeError> {
        self.next(field)?.integer(field)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        match self.integer(field)? {
            Integer::NonNegative(value) => Ok(value),
            Integer::Negative(_) => Err(DecodeError::WrongType {
                field,
                expected: "non-negative integer",
                found: "negative integer",
            }),
        }
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        let found = self.u64(field)?;
        u32::try_from(found).map_err(|_| DecodeError::OutOfRange {
            field,
            found,
            limit: u32::MAX.into(),
        })
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        let found = self.u64(field)?;
        u16::try_from(found).map_err(|_| DecodeError::OutOfRange {
            field,
            found,
            limit: u16::MAX.into(),
        })
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        let found = self.u64(field)?;
        u8::try_from(found).map_err(|_| DecodeError::OutOfRange {
            field,
            found,
            limit: u8::MAX.into(),
        })
    }

    pub(super) fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        self.next(field)?.bool(field)
    }

    pub(super) fn string(&mut self, field: &'static str) -> Result<String, DecodeError> {
        self.next(field)?.string(field)
    }

    pub(super) fn bytes(&mut self, field: &'static str) -> Result<Bytes, DecodeError> {
        self.next(field)?.bytes(field)
    }

    /// A value that has one of a few meanings.
    pub(super) fn choice<T>(
        &mut self,
        field: &'static str,
        parse: impl FnOnce(u64) -> Option<T>,
    ) -> Result<T, DecodeError> {
        let found = self.u64(field)?;
        parse(found).ok_or(DecodeError::UnknownValue { field, found })
    }

    /// An array that is a value of this one. Call [`Fields::finish`] on it.
    pub(super) fn nested(&mut self, field: &'static str) -> Result<Fields<'_>, DecodeError> {
        self.next(field)?.array(field)
    }

    /// `None` for nil, else what `read` makes of the value.
    pub(super) fn optional<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.left > 0 && self.reader.is_nil() {
            self.next(field)?.skip(field)?;
            return Ok(None);
        }
        read(self).map(Some)
    }

    /// A list: `read` takes one entry.
    pub(super) fn list<T>(
        &mut self,
        field: &'static str,
        mut read: impl FnMut(&mut Fields<'_>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let mut entries = self.nested(field)?;
        let count = check_entries(field, entries.left)?;
        let mut list = Vec::with_capacity(count.min(RESERVED_ENTRIES));
        while entries.left > 0 {
            list.push(read(&mut entries)?);
        }
        Ok(list)
    }

    /// Passes over values that this version does not know.
    pub(super) fn finish(mut self) -> Result<(), DecodeError> {
        const FIELD: &str = "an unknown field";
        while self.left > 0 {
            self.next(FIELD)?.skip(FIELD)?;
        }
        Ok(())
    }

    fn next(&mut self, field: &'static str) -> Result<&mut Reader, DecodeError> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or(DecodeError::MissingField { field })?;
        Ok(self.reader)
    }
}

/// Checks the length of a list.
pub(super) fn check_entries(field: &'static str, found: u32) -> Result<usize, DecodeError> {
    match usize::try_from(found) {
        Ok(count) if count <= LIST_ENTRIES_MAX => Ok(count),
        _ => Err(DecodeError::TooManyEntries {
            field,
            found: found.into(),
            limit: u64::try_from(LIST_ENTRIES_MAX).unwrap_or(u64::MAX),
        }),
    }
}

fn truncated(field: &'static str, needed: usize, remaining: usize) -> DecodeError {
    DecodeError::Truncated {
        field,
        needed: u64::try_from(needed).unwrap_or(u64::MAX),
        remaining,
    }
}

const fn wrong_type(field: &'static str, expected: &'static str, found: Marker) -> DecodeError {
    let found = match found {
        Marker::Null => "nil",
        Marker::True | Marker::False => "boolean",
        Marker::FixPos(_)
        | Marker::FixNeg(_)
        | Marker::U8
        | Marker::U16
        | Marker::U32
        | Marker::U64
        | Marker::I8
        | Marker::I16
        | Marker::I32
        | Marker::I64 => "integer",
        Marker::F32 | Marker::F64 => "float",
        Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => "string",
        Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => "binary",
        Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => "array",
        Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => "map",
        Marker::FixExt1
        | Marker::FixExt2
        | Marker::FixExt4
        | Marker::FixExt8
        | Marker::FixExt16
        | Marker::Ext8
        | Marker::Ext16
        | Marker::Ext32 => "extension",
        Marker::Reserved => "reserved byte",
    };
    DecodeError::WrongType {
        field,
        expected,
        found,
    }
}
