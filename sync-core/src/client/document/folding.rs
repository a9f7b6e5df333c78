//! Folding a document for the server, which only relays it (design 2.4).

use bytes::Bytes;

use super::{DocumentState, Effect, Link, Plan, Turn};
use crate::client::replica::Job;
use crate::history::{Cursor, Seq};
use crate::ids::Channel;
use crate::planted::Bug;
use crate::wire::{AccessLevel, FoldOffer, Message};

/// Room for the fields of a `FoldOffer` beside its bytes.
const OFFER_OVERHEAD_BYTES: usize = 64;

/// A fold that the server has asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    channel: Channel,
    /// Exactly what is to be folded.
    cursor: Cursor,
    /// The newest edit when it was asked: what has been edited since may be in the replica and not in the log.
    last_ordinal: u64,
    bytes_max: usize,
}

impl DocumentState {
    /// The server asks for a snapshot of everything through a sequence. Without an answer it asks somebody else, so what
    /// does not fit is ignored.
    pub(crate) fn handle_fold_request(
        &mut self,
        seq: Seq,
        message_bytes_max: u64,
        turn: &mut Turn,
    ) {
        let Link::Streaming(stream) = &self.link else {
            return;
        };
        let stands_there = stream.plan == Plan::Follow
            && !stream.awaits_snapshot
            && stream.received.seq == seq
            && !self.headless
            && self.fresh.is_none();
        let may = self.access >= AccessLevel::Maintain;
        let is_clean = self.unsaved() == 0 || self.planted.has(Bug::FoldWithOutbox);
        if !stands_there || !may || !is_clean || self.pending {
            return;
        }
        let bytes_max = usize::try_from(message_bytes_max).unwrap_or(usize::MAX);
        let asked = Asked {
            channel: stream.channel,
            cursor: stream.received,
            last_ordinal: self.outbox.last_ordinal(),
            bytes_max: bytes_max.saturating_sub(OFFER_OVERHEAD_BYTES),
        };
        // Jobs run in order: what is before it has been imported then, and nothing that comes later.
        self.queue(Job::Fold, Effect::Folded(asked), turn);
    }

    /// The fold has been made and proven, if that was possible.
    pub(super) fn offer_fold(&mut self, asked: Asked, folded: Option<Bytes>, turn: &mut Turn) {
        let is_open =
            matches!(&self.link, Link::Streaming(stream) if stream.channel == asked.channel);
        let is_unedited = self.outbox.last_ordinal() == asked.last_ordinal;
        let is_exact = is_open && (is_unedited || self.planted.has(Bug::FoldWithOutbox));
        let fits = |bytes: &Bytes| !bytes.is_empty() && bytes.len() <= asked.bytes_max;
        if let Some(bytes) = folded.filter(|bytes| is_exact && fits(bytes)) {
            turn.messages.push(Message::FoldOffer(FoldOffer {
                channel: asked.channel,
                epoch: asked.cursor.epoch,
                seq: asked.cursor.seq,
                digest: asked.cursor.digest,
                bytes,
            }));
        }
    }
}
