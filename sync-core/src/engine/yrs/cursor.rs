//! Bounded reading of lib0 v1 bytes: every read names what it reads, so that a fault can be located.

use crate::engine::EngineError;

/// Client ids are JavaScript safe integers.
pub(super) const CLIENT_MAX: u64 = (1 << 53) - 1;

/// Clocks stay below this: yrs subtracts them as signed 32-bit numbers.
pub(super) const CLOCK_MAX: u32 = i32::MAX.cast_unsigned();

/// A position in bytes of somebody else.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset of the next byte.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) const fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// The fault that `what` at the current offset is wrong.
    pub(super) const fn malformed(&self, what: &'static str) -> EngineError {
        EngineError::Malformed {
            what,
            offset: self.at,
        }
    }

    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, EngineError> {
        let Some(&byte) = self.bytes.get(self.at) else {
            return Err(self.malformed(what));
        };
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], EngineError> {
        let end = self.at.checked_add(n).ok_or_else(|| self.malformed(what))?;
        let taken = self
            .bytes
            .get(self.at..end)
            .ok_or_else(|| self.malformed(what))?;
        self.at = end;
        Ok(taken)
    }

    /// An unsigned number of at most 64 bits. Longer ones wrap around in yrs, so they are refused.
    pub(super) fn var_u64(&mut self, what: &'static str) -> Result<u64, EngineError> {
        let start = self.at;
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(EngineError::Malformed {
            what,
            offset: start,
        })
    }

    pub(super) fn var_u32(&mut self, what: &'static str) -> Result<u32, EngineError> {
        let start = self.at;
        u32::try_from(self.var_u64(what)?).map_err(|_| EngineError::Malformed {
            what,
            offset: start,
        })
    }

    /// A signed number. yrs writes at most 32 bits so; beyond 62 its reader overflows.
    pub(super) fn var_i64(&mut self, what: &'static str) -> Result<(), EngineError> {
        for _ in 0..9 {
            if self.byte(what)? < 0x80 {
                return Ok(());
            }
        }
        Err(self.malformed(what))
    }

    pub(super) fn client(&mut self, what: &'static str) -> Result<u64, EngineError> {
        let start = self.at;
        match self.var_u64(what)? {
            client if client <= CLIENT_MAX => Ok(client),
            _ => Err(EngineError::Malformed {
                what,
                offset: start,
            }),
        }
    }

    pub(super) fn clock(&mut self, what: &'static str) -> Result<u32, EngineError> {
        let start = self.at;
        match self.var_u32(what)? {
            clock if clock < CLOCK_MAX => Ok(clock),
            _ => Err(EngineError::Malformed {
                what,
                offset: start,
            }),
        }
    }

    /// A length followed by as many bytes.
    pub(super) fn buffer(&mut self, what: &'static str) -> Result<&'a [u8], EngineError> {
        let len = self.var_u32(what)?;
        self.take(
            usize::try_from(len).map_err(|_| self.malformed(what))?,
            what,
        )
    }

    pub(super) fn string(&mut self, what: &'static str) -> Result<&'a str, EngineError> {
        let start = self.at;
        std::str::from_utf8(self.buffer(what)?).map_err(|_| EngineError::Malformed {
            what,
            offset: start,
        })
    }
}
