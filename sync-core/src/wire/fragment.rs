//! Cuts frames that are too large for one transport message, and puts them together again
//! (`docs/protocol.md` section 5).

use std::collections::BTreeMap;
use std::iter::FusedIterator;

use bytes::{Bytes, BytesMut};

use super::codec::{self, kind};
use super::error::DecodeError;
use super::frame::encode_frame;
use super::message::{Compression, Fragment, Message};
use crate::ids::Channel;
use crate::limits::{FRAGMENT_BYTES, Limits};

/// Most bytes of a fragment's frame beside its piece: flags, array and type, four integers, and the header of the
/// piece.
const FRAGMENT_OVERHEAD_BYTES: usize = 3 + 4 * 5 + 3;

/// Bytes of each piece but the last.
const PIECE_BYTES: usize = FRAGMENT_BYTES - FRAGMENT_OVERHEAD_BYTES;

/// The frames in which `frame` travels: itself if it fits into one transport message, else frames of `Fragment`
/// messages, each made when it is asked for and at most [`FRAGMENT_BYTES`] long.
///
/// `id` tells messages on the same channel apart that are on their way at the same time. Frames of other channels,
/// and small ones of the same, may go in between.
#[must_use]
pub const fn split(frame: Bytes, channel: Channel, id: u32) -> Fragments {
    let total = if frame.len() <= FRAGMENT_BYTES {
        1
    } else {
        frame.len().div_ceil(PIECE_BYTES)
    };
    Fragments {
        rest: frame,
        channel,
        id,
        index: 0,
        total,
    }
}

/// The frame that gives up a message of which some fragments have been sent.
#[must_use]
pub fn abort_frame(channel: Channel, id: u32) -> Bytes {
    let abort = Fragment {
        channel,
        id,
        index: 0,
        total: 0,
        bytes: Bytes::new(),
    };
    encode_frame(&Message::Fragment(abort), Compression::None)
}

/// Iterator of [`split`].
#[derive(Debug, Clone)]
pub struct Fragments {
    rest: Bytes,
    channel: Channel,
    id: u32,
    index: usize,
    total: usize,
}

impl Iterator for Fragments {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.index == self.total {
            return None;
        }
        if self.total == 1 {
            self.index = 1;
            return Some(std::mem::take(&mut self.rest));
        }
        let fragment = Fragment {
            channel: self.channel,
            id: self.id,
            // Frames are far below 4 billion pieces: they fit into memory.
            index: u32::try_from(self.index).ok()?,
            total: u32::try_from(self.total).ok()?,
            bytes: self.rest.split_to(PIECE_BYTES.min(self.rest.len())),
        };
        self.index += 1;
        Some(encode_frame(
            &Message::Fragment(fragment),
            Compression::None,
        ))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.total - self.index;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Fragments {}
impl FusedIterator for Fragments {}

/// Puts the fragments that one session receives together again.
///
/// Its memory is bounded by what has arrived and by the limits, whatever fragments claim. After an error the
/// session is closed, so nothing is repaired.
#[derive(Debug, Clone)]
pub struct Reassembler {
    bytes_max: usize,
    messages_max: usize,
    /// Bytes of all messages together; at most `bytes_max`, and a flag byte.
    bytes: usize,
    messages: BTreeMap<(Channel, u32), Partial>,
}

/// A message of which something has arrived.
#[derive(Debug, Clone)]
struct Partial {
    total: u32,
    /// Index of the next fragment; at least 1.
    next: u32,
    bytes: BytesMut,
}

impl Reassembler {
    /// Takes `message_bytes_max` and `fragmented_messages_max` from the limits.
    #[must_use]
    pub const fn new(limits: &Limits) -> Self {
        Self {
            bytes_max: limits.message_bytes_max,
            messages_max: limits.fragmented_messages_max,
            bytes: 0,
            messages: BTreeMap::new(),
        }
    }

    /// Takes a fragment; gives the whole frame if it was the last one. Decode that with
    /// [`super::decode_frame`]; it is not a fragment again.
    ///
    /// # Errors
    /// [`DecodeError`] if the fragment does not continue its message, or goes beyond a limit. The session is to be
    /// closed.
    pub fn handle(&mut self, fragment: Fragment) -> Result<Option<Bytes>, DecodeError> {
        let Fragment {
            channel,
            id,
            index,
            total,
            bytes: piece,
        } = fragment;
        let key = (channel, id);
        if total == 0 {
            self.forget(key);
            return Ok(None);
        }
        let (expected, known_total) = self
            .messages
            .get(&key)
            .map_or((0, total), |m| (m.next, m.total));
        if index != expected {
            return Err(DecodeError::FragmentOrder {
                channel: channel.0,
                id,
                expected,
                found: index,
            });
        }
        // A first fragment, alone, is always below its total, and the following ones are below `known_total`.
        if total != known_total {
            return Err(DecodeError::FragmentTotal {
                channel: channel.0,
                id,
                expected: known_total,
                found: total,
            });
        }
        if piece.is_empty() {
            return Err(DecodeError::EmptyFragment {
                channel: channel.0,
                id,
            });
        }
        let bytes = self.bytes.saturating_add(piece.len());
        // The flag byte is not part of the message.
        if bytes > self.bytes_max.saturating_add(1) {
            return Err(DecodeError::FrameTooLarge {
                bytes,
                limit: self.bytes_max,
            });
        }
        if total == 1 {
            return whole(channel, id, piece).map(Some);
        }
        if index == 0 && self.messages.len() >= self.messages_max {
            return Err(DecodeError::TooManyFragmented {
                limit: self.messages_max,
            });
        }
        self.bytes = bytes;
        let message = self.messages.entry(key).or_insert_with(|| Partial {
            total,
            next: 0,
            bytes: BytesMut::with_capacity(piece.len()),
        });
        message.bytes.extend_from_slice(&piece);
        message.next += 1;
        if message.next < message.total {
            return Ok(None);
        }
        self.forget(key)
            .map(|bytes| whole(channel, id, bytes.freeze()))
            .transpose()
    }

    /// Drops what has arrived for a channel: it has been closed.
    pub fn close_channel(&mut self, channel: Channel) {
        let closed: Vec<_> = self
            .messages
            .range((channel, 0)..=(channel, u32::MAX))
            .map(|(key, _)| *key)
            .collect();
        for key in closed {
            self.forget(key);
        }
    }

    /// Bytes of unfinished messages.
    #[must_use]
    pub const fn bytes_held(&self) -> usize {
        self.bytes
    }

    fn forget(&mut self, key: (Channel, u32)) -> Option<BytesMut> {
        let message = self.messages.remove(&key)?;
        self.bytes = self.bytes.saturating_sub(message.bytes.len());
        Some(message.bytes)
    }
}

/// A frame put together, if it is not a fragment again: that would let a peer nest them. A compressed one is refused
/// when it is inflated.
fn whole(channel: Channel, id: u32, frame: Bytes) -> Result<Bytes, DecodeError> {
    let is_fragment =
        frame.first() == Some(&0) && codec::kind_of(&frame.slice(1..)) == Some(kind::FRAGMENT);
    if is_fragment {
        Err(DecodeError::NestedFragment {
            channel: channel.0,
            id,
        })
    } else {
        Ok(frame)
    }
}
