//! Writes MessagePack values, each in its shortest form.

use rmp::encode::{self, ByteBuf};

/// A growing buffer of values.
#[derive(Debug)]
pub(in crate::wire) struct Writer {
    buffer: ByteBuf,
}

impl Writer {
    pub(in crate::wire) fn with_capacity(bytes: usize) -> Self {
        Self {
            buffer: ByteBuf::with_capacity(bytes),
        }
    }

    pub(in crate::wire) fn into_vec(self) -> Vec<u8> {
        self.buffer.into_vec()
    }

    /// A byte that is not a value.
    pub(in crate::wire) fn raw(&mut self, byte: u8) {
        self.buffer.as_mut_vec().push(byte);
    }

    pub(in crate::wire) fn uint(&mut self, value: impl Into<u64>) {
        let Ok(_) = encode::write_uint(&mut self.buffer, value.into());
    }

    /// `-1 - distance`; the distance is at most `i64::MAX`.
    pub(in crate::wire) fn negative(&mut self, distance: u64) {
        debug_assert!(
            i64::try_from(distance).is_ok(),
            "a distance beyond any sequence"
        );
        let value = i64::try_from(distance).map_or(i64::MIN, |distance| -1 - distance);
        let Ok(_) = encode::write_sint(&mut self.buffer, value);
    }

    pub(in crate::wire) fn bool(&mut self, value: bool) {
        let Ok(()) = encode::write_bool(&mut self.buffer, value);
    }

    pub(in crate::wire) fn nil(&mut self) {
        let Ok(()) = encode::write_nil(&mut self.buffer);
    }

    pub(in crate::wire) fn string(&mut self, value: &str) {
        let Ok(_) = encode::write_str_len(&mut self.buffer, length(value.len()));
        self.buffer.as_mut_vec().extend_from_slice(value.as_bytes());
    }

    pub(in crate::wire) fn bytes(&mut self, value: &[u8]) {
        let Ok(_) = encode::write_bin_len(&mut self.buffer, length(value.len()));
        self.buffer.as_mut_vec().extend_from_slice(value);
    }

    pub(in crate::wire) fn array(&mut self, count: usize) {
        let Ok(_) = encode::write_array_len(&mut self.buffer, length(count));
    }

    /// Nil, or what `write` makes of the value.
    pub(in crate::wire) fn optional<T>(
        &mut self,
        value: Option<T>,
        write: impl FnOnce(&mut Self, T),
    ) {
        match value {
            Some(value) => write(self, value),
            None => self.nil(),
        }
    }

    pub(in crate::wire) fn list<T>(&mut self, list: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.array(list.len());
        for entry in list {
            write(self, entry);
        }
    }
}

/// Messages are far below 4 GiB: `Limits::message_bytes_max` on both sides sees to it.
fn length(length: usize) -> u32 {
    debug_assert!(u32::try_from(length).is_ok(), "a message of over 4 GiB");
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Bytes of a non-negative integer.
pub(in crate::wire) const fn uint_len(value: u64) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// Bytes of the negative integer `-1 - distance`.
pub(in crate::wire) const fn negative_len(distance: u64) -> usize {
    match distance {
        0..=0x1f => 1,
        0x20..=0x7f => 2,
        0x80..=0x7fff => 3,
        0x8000..=0x7fff_ffff => 5,
        _ => 9,
    }
}

/// Bytes of a `bin` value and its header.
pub(in crate::wire) const fn bin_len(length: usize) -> usize {
    length
        + match length {
            0..=0xff => 2,
            0x100..=0xffff => 3,
            _ => 5,
        }
}

/// Bytes of an array's header.
pub(in crate::wire) const fn array_len(count: usize) -> usize {
    match count {
        0..=0xf => 1,
        0x10..=0xffff => 3,
        _ => 5,
    }
}
