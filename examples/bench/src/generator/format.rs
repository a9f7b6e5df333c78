//! What a message holds, read as far as counting needs it (`docs/protocol.md` sections 2 to 4).

use bytes::Bytes;
use sync_core::wire::{Message, decode_frame};

use crate::Failure;

/// What the relay answers an author. Changes are longer.
pub(crate) const RELAY_ACK: &[u8] = &[1];

/// Types of messages.
const CHANGES: u8 = 6;
const ACK: u8 = 7;
const PRESENCE: u8 = 12;
/// Those that end a measurement: Refuse, Closed, GoAway, Error.
const TROUBLE: [u8; 4] = [8, 17, 20, 21];
/// Bytes of an error, inflated, at most.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// What messages look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A change as it is, or an ack.
    Relay,
    /// A frame of the sync protocol.
    Sync,
}

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// Changes; walk them, or count them.
    Changes(Changes<'a>),
    /// An author's changes have been taken.
    Ack,
    /// So many sessions say something of themselves, or are gone.
    Presence(usize),
    /// Another message of this type; of type 0 if it is compressed.
    Other(u8),
}

impl Format {
    /// Reads a message.
    ///
    /// # Errors
    /// If it is none, or says that something was refused.
    pub(crate) fn read(self, message: &[u8]) -> Result<Frame<'_>, Failure> {
        match self {
            Self::Relay if message == RELAY_ACK => Ok(Frame::Ack),
            Self::Relay => Ok(Frame::Changes(Changes::One(message))),
            Self::Sync => read_sync(message).unwrap_or_else(|| Err("not a frame".into())),
        }
    }
}

/// `None` if it ends too early.
fn read_sync(message: &[u8]) -> Option<Result<Frame<'_>, Failure>> {
    let (flags, payload) = message.split_first()?;
    if *flags != 0 {
        return Some(Ok(Frame::Other(0)));
    }
    let (fields, rest) = array(payload)?;
    let (kind, rest) = rest.split_first()?;
    Some(match *kind {
        CHANGES => {
            let rest = skip_integer(skip_integer(rest)?)?;
            // Without type, channel and check; three values are a change.
            let left = fields.checked_sub(3)? / 3;
            Ok(Frame::Changes(Changes::Many { left, rest }))
        }
        ACK => Ok(Frame::Ack),
        PRESENCE => Ok(Frame::Presence(array(skip_integer(rest)?)?.0)),
        kind if TROUBLE.contains(&kind) => Err(trouble(message)),
        kind => Ok(Frame::Other(kind)),
    })
}

fn trouble(message: &[u8]) -> Failure {
    match decode_frame(Bytes::copy_from_slice(message), MESSAGE_BYTES_MAX) {
        Ok(Message::Error(error)) => format!("the server says: {}", error.message),
        Ok(Message::Refuse(refuse)) => format!("a change was refused: {}", refuse.message),
        Ok(message) => format!("unexpected: {message:?}"),
        Err(error) => error.to_string(),
    }
    .into()
}

/// The bytes of the changes in a message, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changes<'a> {
    /// The message itself.
    One(&'a [u8]),
    /// So many, each with its author and number in front of it.
    Many { left: usize, rest: &'a [u8] },
}

impl Changes<'_> {
    /// How many, as the message says; they are not walked for it.
    pub(crate) const fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many { left, .. } => *left,
        }
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Result<&'a [u8], Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        match *self {
            Self::One(change) => {
                *self = Self::Many { left: 0, rest: &[] };
                Some(Ok(change))
            }
            Self::Many { left: 0, .. } => None,
            Self::Many { left, rest } => {
                let change = skip_integer(rest).and_then(skip_integer).and_then(binary);
                let (change, rest, left) = match change {
                    Some((change, rest)) => (Ok(change), rest, left - 1),
                    None => (Err("a change that ends too early".into()), rest, 0),
                };
                *self = Self::Many { left, rest };
                Some(change)
            }
        }
    }
}

/// MessagePack: the length of an array, and what follows its header.
fn array(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (marker, rest) = bytes.split_first()?;
    match marker {
        0x90..=0x9f => Some((usize::from(marker & 0xf), rest)),
        0xdc => two(rest),
        0xdd => four(rest),
        _ => None,
    }
}

/// What follows an integer of any width.
fn skip_integer(bytes: &[u8]) -> Option<&[u8]> {
    let (marker, rest) = bytes.split_first()?;
    let width = match marker {
        0x00..=0x7f | 0xe0..=0xff => 0,
        0xcc | 0xd0 => 1,
        0xcd | 0xd1 => 2,
        0xce | 0xd2 => 4,
        0xcf | 0xd3 => 8,
        _ => return None,
    };
    rest.get(width..)
}

/// Bytes, and what follows them.
fn binary(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (marker, rest) = bytes.split_first()?;
    let (length, rest) = match marker {
        0xc4 => {
            let (length, rest) = rest.split_first()?;
            (usize::from(*length), rest)
        }
        0xc5 => two(rest)?,
        0xc6 => four(rest)?,
        _ => return None,
    };
    rest.split_at_checked(length)
}

fn two(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*number).into(), rest))
}

fn four(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    let number = usize::try_from(u32::from_be_bytes(*number)).ok()?;
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use sync_core::error::{ErrorCode, PeerError};
    use sync_core::history::Seq;
    use sync_core::ids::{Author, Channel, SessionId};
    use sync_core::wire::{
        Ack, Compression, ErrorMessage, Ping, Presence, PresenceDelta, Reference, changes_frame,
        encode_frame,
    };

    use super::*;

    #[test]
    fn changes_are_found_in_frames_of_any_size_and_number() {
        for n in [1, 4, 5, 6, 30_000] {
            for length in [0, 18, 255, 256, 65_536] {
                if n * length > 1 << 22 {
                    continue;
                }
                let change: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
                // Authors and numbers of every width, and numbers below the sequence.
                let parts: Vec<_> = (0..n)
                    .map(|i| {
                        let author = 1_u32 << (i % 32);
                        let number = 1_u64 << (i % 60);
                        (Author(author), number, change.as_slice())
                    })
                    .collect();
                let frame = changes_frame(Channel(70_000), Seq(100_000), parts);
                let Ok(Frame::Changes(changes)) = Format::Sync.read(&frame) else {
                    panic!("not changes");
                };
                assert_eq!(changes.len(), n);
                let walked: Vec<_> = changes.map(Result::unwrap).collect();
                assert_eq!(walked, vec![change.as_slice(); n]);
            }
        }
    }

    #[test]
    fn a_frame_that_ends_too_early_is_an_error() {
        let change = [5; 40];
        let frame = changes_frame(Channel(1), Seq(1), [(Author(1), 1, &change[..])]);
        for end in 0..frame.len() {
            let read = Format::Sync.read(&frame[..end]);
            let is_error = match read {
                Ok(Frame::Changes(mut changes)) => changes.any(|change| change.is_err()),
                Ok(_) => false,
                Err(_) => true,
            };
            assert!(is_error, "{end} bytes");
        }
    }

    #[test]
    fn other_messages_are_told_apart() {
        let ack = Message::Ack(Ack {
            channel: Channel(300),
            check: 3,
            number: 7,
            count: 1,
        });
        let ack = encode_frame(&ack, Compression::None);
        assert_eq!(Format::Sync.read(&ack).unwrap(), Frame::Ack);
        let delta = PresenceDelta {
            session: SessionId(7),
            user: "ada".to_owned(),
            state: None,
        };
        let presence = Message::Presence(Presence {
            channel: Channel(70_000),
            deltas: vec![delta; 20],
            table_version: 9,
        });
        let presence = encode_frame(&presence, Compression::None);
        let read = Format::Sync.read(&presence).unwrap();
        assert_eq!(read, Frame::Presence(20));
        let ping = encode_frame(&Message::Ping(Ping { nonce: 1 }), Compression::None);
        assert_eq!(Format::Sync.read(&ping).unwrap(), Frame::Other(18));
        assert_eq!(Format::Sync.read(&[1, 31, 139]).unwrap(), Frame::Other(0));
        let error = PeerError::new(ErrorCode::RateLimited, "too fast");
        let error = Message::Error(ErrorMessage::new(error, Reference::Session));
        assert!(
            Format::Sync
                .read(&encode_frame(&error, Compression::None))
                .is_err()
        );
    }

    #[test]
    fn the_relay_sends_changes_as_they_are() {
        assert_eq!(Format::Relay.read(RELAY_ACK).unwrap(), Frame::Ack);
        let Frame::Changes(mut changes) = Format::Relay.read(b"change").unwrap() else {
            panic!("not a change");
        };
        assert_eq!(changes.len(), 1);
        assert_eq!(changes.next().unwrap().unwrap(), b"change");
        assert!(changes.next().is_none());
    }
}
