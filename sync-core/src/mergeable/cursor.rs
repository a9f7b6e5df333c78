//! Reading and writing the numbers and parts that everything else is made of.

use super::clock::ReplicaId;
use super::vector::Ranges;
use crate::engine::EngineError;

/// Reads bytes front to back; every failure names what was being read and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where this cursor must stop: the end of its node.
    end: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            end: bytes.len(),
        }
    }

    pub(super) const fn is_at_end(&self) -> bool {
        self.at >= self.end
    }

    /// Where it stands, and where it must stop: offsets into the whole input.
    pub(super) const fn span(&self) -> (usize, usize) {
        (self.at, self.end)
    }

    /// A part of the same input, which [`span`](Self::span) gave.
    pub(super) const fn at_span(&self, (at, end): (usize, usize)) -> Self {
        Self {
            bytes: self.bytes,
            at,
            end,
        }
    }

    pub(super) const fn malformed(&self, what: &'static str) -> EngineError {
        EngineError::Malformed {
            what,
            offset: self.at,
        }
    }

    pub(super) fn take(&mut self, n: u64, what: &'static str) -> Result<&'a [u8], EngineError> {
        let to = usize::try_from(n)
            .ok()
            .and_then(|n| self.at.checked_add(n))
            .filter(|to| *to <= self.end);
        let taken = to
            .and_then(|to| self.bytes.get(self.at..to))
            .ok_or_else(|| self.malformed(what))?;
        self.at += taken.len();
        Ok(taken)
    }

    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, EngineError> {
        self.take(1, what)?
            .first()
            .copied()
            .ok_or_else(|| self.malformed(what))
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], EngineError> {
        let taken = self.take(u64::try_from(N).unwrap_or(u64::MAX), what)?;
        taken.try_into().map_err(|_| self.malformed(what))
    }

    pub(super) fn varint(&mut self, what: &'static str) -> Result<u64, EngineError> {
        let start = *self;
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if bits
                .checked_shl(shift)
                .is_none_or(|shifted| shifted >> shift != bits)
            {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(start.malformed(what))
    }

    pub(super) fn replica(&mut self) -> Result<ReplicaId, EngineError> {
        self.array("a replica id")
            .map(|bytes| ReplicaId(u64::from_be_bytes(bytes)))
    }

    /// Cuts off a part of `n` bytes, which gets a cursor of its own.
    pub(super) fn part(&mut self, n: u64, what: &'static str) -> Result<Self, EngineError> {
        let at = self.at;
        self.take(n, what)?;
        Ok(Self {
            bytes: self.bytes,
            at,
            end: self.at,
        })
    }

    /// Reads ranges, calling `each` with `(first, last)`.
    pub(super) fn ranges(&mut self, mut each: impl FnMut(u64, u64)) -> Result<(), EngineError> {
        const WHAT: &str = "ranges of commit numbers";
        let n = self.varint(WHAT)?;
        let mut end = 0_u64;
        for index in 0..n {
            let start = *self;
            let gap = self.varint(WHAT)?;
            let length = self.varint(WHAT)?;
            let first = end
                .checked_add(gap)
                .filter(|_| gap >= if index == 0 { 1 } else { 2 });
            let last = first.and_then(|first| {
                length
                    .checked_sub(1)
                    .and_then(|more| first.checked_add(more))
            });
            let (Some(first), Some(last)) = (first, last) else {
                return Err(start.malformed(WHAT));
            };
            each(first, last);
            end = last;
        }
        Ok(())
    }
}

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

/// The lowest 7 bits of `value`.
fn low_byte(value: u64) -> u8 {
    u8::try_from(value & 0x7f).unwrap_or_default()
}

pub(super) fn put_len(out: &mut Vec<u8>, length: usize) {
    put_varint(out, u64::try_from(length).unwrap_or(u64::MAX));
}

pub(super) fn put_ranges(out: &mut Vec<u8>, ranges: Option<&Ranges>) {
    put_len(out, ranges.map_or(0, Ranges::len));
    let mut end = 0;
    for (first, last) in ranges.into_iter().flat_map(Ranges::iter) {
        put_varint(out, first - end);
        put_varint(out, last - first + 1);
        end = last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_refuse_what_does_not_fit() {
        for value in [
            0,
            1,
            0x7f,
            0x80,
            0x3fff,
            0x4000,
            u64::from(u32::MAX),
            u64::MAX - 1,
            u64::MAX,
        ] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut cursor = Cursor::new(&bytes);
            assert_eq!(cursor.varint("it"), Ok(value));
            assert!(cursor.is_at_end());
        }
        let too_large = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        let too_long = [0x80; 11];
        for bytes in [&too_large[..], &too_long[..], &[0x80][..], &[][..]] {
            assert!(Cursor::new(bytes).varint("it").is_err(), "{bytes:?}");
        }
    }
}
