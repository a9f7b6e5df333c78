//! What members are told of the table: the entries that changed after their place, in pieces that all at one place share.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::super::super::ring::Encoded;
use super::Table;
use crate::ids::{Channel, SessionId};
use crate::limits::FRAGMENT_BYTES;
use crate::wire::{Compression, Message, Presence, PresenceDelta, encode_frame};

/// The session that means everybody: gone is whoever the receiver knew of.
const EVERYBODY: SessionId = SessionId(0);

/// Pieces kept for members at one place each. Most members share one.
const PIECES_MAX: usize = 64;

/// Bytes of a message beside its deltas, and of a delta beside its user and state, at most.
const MESSAGE_BYTES_MAX: usize = 32;
const DELTA_BYTES_MAX: usize = 24;

/// How far a member has been told.
#[derive(Debug, Clone, Copy)]
pub(in super::super::super) struct Told {
    place: Place,
    /// The version in which it was begun from the start: it has not heard of anybody who had gone by then.
    begun: u64,
}

impl Told {
    /// Everything is next, and whatever the member knows does not count.
    pub(in super::super::super) const NOTHING: Self = Self {
        place: Place::START,
        begun: 0,
    };
}

/// An entry in the order of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) version: u64,
    pub(super) session: SessionId,
}

impl Place {
    /// Before all entries.
    pub(super) const START: Self = Self {
        version: 0,
        session: SessionId(0),
    };

    /// After everything of this version.
    const fn through(version: u64) -> Self {
        Self {
            version,
            session: SessionId(u64::MAX),
        }
    }

    /// The version of which a member that stands here knows everything, if there is one.
    fn known(self) -> Option<u64> {
        (self == Self::through(self.version)).then_some(self.version)
    }
}

/// What members at one place are sent next.
#[derive(Debug, Clone)]
pub(in super::super) struct Piece {
    /// Their place after it.
    end: Place,
    /// The session, if it says nothing of any other.
    pub(in super::super) only: Option<SessionId>,
    encoded: Encoded,
}

impl Piece {
    /// Its only frame: it is made so that it is not cut.
    pub(in super::super) fn frame(&self, compression: Compression) -> Option<Bytes> {
        self.encoded.send(compression).next()
    }
}

impl Table {
    /// What a member has been told that has just come and shows nobody.
    pub(in super::super) fn start(&self) -> Told {
        if self.rows.is_empty() {
            Told {
                place: Place::through(self.version),
                begun: self.version,
            }
        } else {
            Told::NOTHING
        }
    }

    /// What a member that has been told so much is sent next; `None` if that was everything.
    pub(in super::super) fn next_piece(
        &mut self,
        channel: Channel,
        told: &mut Told,
    ) -> Option<Arc<Piece>> {
        if told.place >= Place::through(self.version) {
            return None;
        }
        if told.place.max(Place::through(told.begun)) < self.forgotten {
            told.place = Place::START;
        }
        if told.place == Place::START {
            told.begun = self.version;
        }
        let piece = self.piece(channel, told.place);
        told.place = piece.end;
        Some(piece)
    }

    fn piece(&mut self, channel: Channel, place: Place) -> Arc<Piece> {
        if let Some(piece) = self.pieces.get(&place) {
            return Arc::clone(piece);
        }
        let piece = Arc::new(self.encode(channel, place));
        if self.pieces.len() < PIECES_MAX {
            self.pieces.insert(place, Arc::clone(&piece));
        }
        piece
    }

    fn encode(&self, channel: Channel, place: Place) -> Piece {
        let known = place.known();
        let is_whole = place == Place::START;
        let mut deltas = Vec::new();
        let mut bytes = MESSAGE_BYTES_MAX;
        if is_whole {
            deltas.push(PresenceDelta {
                session: EVERYBODY,
                user: String::new(),
                state: None,
            });
            bytes += DELTA_BYTES_MAX;
        }
        let mut end = place;
        let mut is_last = true;
        for next in self.order.range((Bound::Excluded(place), Bound::Unbounded)) {
            let row = self.rows.get(&next.session);
            if row.is_none() && is_whole {
                end = *next;
                continue;
            }
            let user = row
                .filter(|row| known.is_none_or(|known| row.since > known))
                .map_or("", |row| &*row.owner.user.id);
            let state = row.map(|row| row.state.clone());
            bytes += DELTA_BYTES_MAX + user.len() + state.as_ref().map_or(0, Bytes::len);
            if bytes > FRAGMENT_BYTES && end != place {
                is_last = false;
                break;
            }
            deltas.push(PresenceDelta {
                session: next.session,
                user: user.to_owned(),
                state,
            });
            end = *next;
        }
        let only = match &deltas[..] {
            [delta] if known.is_some() && is_last => Some(delta.session),
            _ => None,
        };
        if is_last {
            end = Place::through(self.version);
        }
        let message = Message::Presence(Presence {
            channel,
            deltas,
            table_version: if is_last { self.version } else { 0 },
        });
        Piece {
            end,
            only,
            // Never cut, so the id that its pieces would have is nobody's.
            encoded: Encoded::new(channel, 0, encode_frame(&message, Compression::None)),
        }
    }
}
