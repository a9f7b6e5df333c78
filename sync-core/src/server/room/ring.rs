//! Recent frames of a room, encoded once for all members.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::history::Seq;
use crate::ids::{Channel, OriginId, SessionId};
use crate::limits::FRAGMENT_BYTES;
use crate::wire::{Compression, Fragments, compress_frame, split};

/// Frames up to this size are cut once for all members; of larger ones (reconciling changes) each member cuts the piece it
/// sends next, because cutting copies and a second copy of a large document is dearer than the work.
const CUT_ONCE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Larger frames travel plain: compressing takes about 10 ms for each MiB, and holds up the room.
const COMPRESS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One message to many members: encoded, compressed and cut at most once each, when first needed.
#[derive(Debug, Clone)]
pub(super) struct Encoded {
    channel: Channel,
    /// Names its fragments.
    id: u32,
    plain: Cut,
    gzip: OnceLock<Option<Cut>>,
}

impl Encoded {
    pub(super) fn new(channel: Channel, id: u32, frame: Bytes) -> Self {
        Self {
            channel,
            id,
            plain: Cut::new(frame),
            gzip: OnceLock::new(),
        }
    }

    /// Bytes of the plain frame.
    pub(super) fn len(&self) -> usize {
        self.plain.frame.len()
    }

    /// The frame's transport messages, for one member.
    pub(super) fn send(&self, compression: Compression) -> Sending {
        let plain = &self.plain;
        let cut = match compression {
            Compression::None => plain,
            Compression::Gzip => self
                .gzip
                .get_or_init(|| {
                    (plain.frame.len() <= COMPRESS_BYTES_MAX)
                        .then(|| compress_frame(&plain.frame))
                        .flatten()
                        .map(Cut::new)
                })
                .as_ref()
                .unwrap_or(plain),
        };
        cut.send(self.channel, self.id)
    }
}

#[derive(Debug, Clone)]
struct Cut {
    frame: Bytes,
    pieces: OnceLock<Arc<[Bytes]>>,
}

impl Cut {
    const fn new(frame: Bytes) -> Self {
        Self {
            frame,
            pieces: OnceLock::new(),
        }
    }

    fn send(&self, channel: Channel, id: u32) -> Sending {
        let fragments = || split(self.frame.clone(), channel, id);
        let rest = if self.frame.len() <= FRAGMENT_BYTES || self.frame.len() > CUT_ONCE_BYTES_MAX {
            Rest::Cut(fragments())
        } else {
            Rest::Shared(Arc::clone(
                self.pieces.get_or_init(|| fragments().collect()),
            ))
        };
        Sending { id, next: 0, rest }
    }
}

/// What one member has yet to send of one message.
#[derive(Debug, Clone)]
pub(super) struct Sending {
    id: u32,
    next: usize,
    rest: Rest,
}

#[derive(Debug, Clone)]
enum Rest {
    Cut(Fragments),
    Shared(Arc<[Bytes]>),
}

impl Sending {
    /// The next transport message.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let frame = match &mut self.rest {
            Rest::Cut(fragments) => fragments.next(),
            Rest::Shared(pieces) => pieces.get(self.next).cloned(),
        }?;
        self.next += 1;
        Some(frame)
    }

    /// Whether it is one transport message in all.
    pub(super) fn is_single(&self) -> bool {
        let left = match &self.rest {
            Rest::Cut(fragments) => fragments.len(),
            Rest::Shared(pieces) => pieces.len(),
        };
        self.next == 0 && left <= 1
    }

    pub(super) fn is_done(&self) -> bool {
        match &self.rest {
            Rest::Cut(fragments) => fragments.len() == 0,
            Rest::Shared(pieces) => self.next >= pieces.len(),
        }
    }

    /// The id of the message if the receiver holds a part of it.
    pub(super) fn begun(&self) -> Option<u32> {
        (self.next > 0 && !self.is_done()).then_some(self.id)
    }
}

/// Changes that one member pushed after opening, alone in a frame: it gets an `Ack` in its stead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sole {
    pub(super) session: SessionId,
    pub(super) generation: u32,
    pub(super) origin: OriginId,
    pub(super) first_number: u64,
}

#[derive(Debug, Clone)]
pub(super) struct RingFrame {
    pub(super) first: Seq,
    pub(super) last: Seq,
    pub(super) sole: Option<Sole>,
    pub(super) encoded: Encoded,
}

/// Frames of the newest changes, without holes, within a number of bytes whatever the number of readers.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    bytes_max: usize,
    bytes: usize,
    frames: VecDeque<RingFrame>,
}

impl Ring {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            frames: VecDeque::new(),
        }
    }

    pub(super) fn push(&mut self, frame: RingFrame) {
        self.bytes = self.bytes.saturating_add(frame.encoded.len());
        self.frames.push_back(frame);
        while self.bytes > self.bytes_max && self.frames.len() > 1 {
            if let Some(oldest) = self.frames.pop_front() {
                self.bytes = self.bytes.saturating_sub(oldest.encoded.len());
            }
        }
    }

    /// Bytes of the frames kept.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes = 0;
        self.frames.clear();
    }

    /// The frame that starts exactly here.
    pub(super) fn starting_at(&self, first: Seq) -> Option<&RingFrame> {
        let at = self.frames.partition_point(|frame| frame.first < first);
        self.frames.get(at).filter(|frame| frame.first == first)
    }

    /// Where the first frame that starts after this sequence starts.
    pub(super) fn next_boundary(&self, after: Seq) -> Option<Seq> {
        let at = self.frames.partition_point(|frame| frame.first <= after);
        self.frames.get(at).map(|frame| frame.first)
    }
}
