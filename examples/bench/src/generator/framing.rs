//! WebSocket frames as a client writes and reads them (RFC 6455 section 5.2).
//!
//! The key that masks what is sent is zero, so that nothing needs to be masked. No frame is cut by the servers that are
//! measured, or taken to be.

use crate::Failure;

pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Bit of the first byte: the frame is not continued.
const FINAL: u8 = 0x80;
/// Bit of the second byte: four bytes of a key follow the length.
const MASKED: u8 = 0x80;

/// A frame from a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Incoming<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
}

impl Incoming<'_> {
    /// Why the server closes the connection.
    pub(crate) fn close_reason(&self) -> String {
        let Some((code, reason)) = self.payload.split_first_chunk::<2>() else {
            return "the server closed a connection".to_owned();
        };
        let code = u16::from_be_bytes(*code);
        let reason = String::from_utf8_lossy(reason);
        format!("the server closed a connection: {code} {reason}")
    }
}

/// Appends a whole frame.
pub(crate) fn put_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(FINAL | opcode);
    let length = payload.len();
    if let Ok(short) = u8::try_from(length)
        && short < 126
    {
        out.push(MASKED | short);
    } else if let Ok(medium) = u16::try_from(length) {
        out.push(MASKED | 126);
        out.extend(medium.to_be_bytes());
    } else {
        out.push(MASKED | 127);
        out.extend(u64::try_from(length).unwrap_or(u64::MAX).to_be_bytes());
    }
    out.extend([0; 4]);
    out.extend(payload);
}

/// Bytes of the header of a server's frame with so much in it.
pub(crate) const fn header_bytes(length: usize) -> usize {
    match length {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// The first frame of `bytes`, and what follows it; `None` if its end is still to come.
///
/// # Errors
/// If it is part of a cut message, or masked.
pub(crate) fn next_frame(bytes: &[u8]) -> Result<Option<(Incoming<'_>, &[u8])>, Failure> {
    let Some((&[first, second], rest)) = bytes.split_first_chunk::<2>() else {
        return Ok(None);
    };
    if first & FINAL == 0 || second & MASKED != 0 {
        return Err("a cut or masked WebSocket frame from the server".into());
    }
    let (length, rest) = match second {
        126 => match rest.split_first_chunk::<2>() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        short => (short.into(), rest),
    };
    Ok(rest
        .split_at_checked(usize::try_from(length)?)
        .map(|(payload, rest)| {
            let opcode = first & !FINAL;
            (Incoming { opcode, payload }, rest)
        }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_only_when_they_are_whole() {
        for length in [0_usize, 1, 125, 126, 65_535, 65_536] {
            let mut bytes = vec![FINAL | BINARY];
            match length {
                0..126 => bytes.push(u8::try_from(length).unwrap()),
                126..65_536 => {
                    bytes.push(126);
                    bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
                }
                _ => {
                    bytes.push(127);
                    bytes.extend(u64::try_from(length).unwrap().to_be_bytes());
                }
            }
            bytes.extend(vec![7; length]);
            let whole = bytes.len();
            assert_eq!(whole, header_bytes(length) + length);
            for part in [0, 1, 2, 3, whole - 1] {
                if part < whole {
                    assert_eq!(next_frame(&bytes[..part]).unwrap(), None);
                }
            }
            bytes.extend([1, 2, 3]);
            let (frame, rest) = next_frame(&bytes).unwrap().unwrap();
            assert_eq!((frame.opcode, frame.payload.len()), (BINARY, length));
            assert_eq!(rest, [1, 2, 3]);
        }
    }

    #[test]
    fn what_is_sent_is_masked_with_zeros() {
        for (length, header) in [(3, 6), (126, 8), (70_000, 14)] {
            let payload = vec![9; length];
            let mut bytes = Vec::new();
            put_frame(&mut bytes, BINARY, &payload);
            assert_eq!(bytes[0], 0x82);
            assert_eq!(bytes[1] & MASKED, MASKED);
            assert_eq!(bytes[header - 4..header], [0; 4]);
            assert_eq!(bytes[header..], payload);
        }
    }

    #[test]
    fn a_cut_message_is_refused() {
        assert!(next_frame(&[BINARY, 0]).is_err());
        assert!(next_frame(&[FINAL | BINARY, MASKED]).is_err());
    }
}
