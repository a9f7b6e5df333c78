//! Reads the numbers and lengths that loro's encodings are made of.

use crate::engine::EngineError;

/// Bytes that are read front to back. Offsets are those in the whole change.
#[derive(Debug, Clone)]
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    /// The bytes from an offset on.
    pub(super) const fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> u64 {
        u64::try_from(self.bytes.len().saturating_sub(self.at)).unwrap_or(u64::MAX)
    }

    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, EngineError> {
        let byte = self.bytes.get(self.at).ok_or(malformed(what, self.at))?;
        self.at += 1;
        Ok(*byte)
    }

    /// A number in LEB128, of at most 64 bits.
    pub(super) fn number(&mut self, what: &'static str) -> Result<u64, EngineError> {
        let start = self.at;
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed(what, start))
    }

    /// A number in LEB128 of at most 128 bits, passed over.
    pub(super) fn pass_number(&mut self, what: &'static str) -> Result<(), EngineError> {
        let start = self.at;
        for _ in 0..19 {
            if self.byte(what)? & 0x80 == 0 {
                return Ok(());
            }
        }
        Err(malformed(what, start))
    }

    pub(super) fn skip(&mut self, what: &'static str, length: u64) -> Result<(), EngineError> {
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length))
            .filter(|&end| end <= self.bytes.len())
            .ok_or(malformed(what, self.at))?;
        self.at = end;
        Ok(())
    }

    /// A length, and so many bytes, to be read on their own.
    pub(super) fn part(&mut self, what: &'static str) -> Result<Self, EngineError> {
        let length = self.number(what)?;
        let at = self.at;
        self.skip(what, length)?;
        let bytes = self.bytes.get(..self.at).unwrap_or_default();
        Ok(Self { bytes, at })
    }
}

pub(super) const fn malformed(what: &'static str, offset: usize) -> EngineError {
    EngineError::Malformed { what, offset }
}
