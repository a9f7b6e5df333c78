//! A snapshot as members are sent it: in pieces, each of them compressed once for all.

use std::sync::OnceLock;

use bytes::Bytes;

use crate::history::{Digest, Epoch, Seq};
use crate::ids::Channel;
use crate::limits::SNAPSHOT_PIECE_BYTES;
use crate::registry::Snapshot;
use crate::wire::{
    Compression, Message, PartialSnapshot, SnapshotMessage, compress_frame, encode_frame,
};

/// A snapshot that members are being sent, each at its own pace.
///
/// Kept are the state and the compressed pieces, so at most twice the state, however many are sent it. Plain pieces are
/// made for each member: a copy of 64 KiB is cheap, and a second copy of a large document is not.
#[derive(Debug)]
pub(super) struct Pieces {
    channel: Channel,
    epoch: Epoch,
    seq: Seq,
    digest: Digest,
    state: Bytes,
    /// Of each piece but the last.
    piece_bytes: usize,
    pieces: Box<[Piece]>,
}

#[derive(Debug, Default)]
struct Piece {
    /// `None` if it does not shrink.
    gzip: OnceLock<Option<Bytes>>,
    /// Of the bytes before the piece; looked up for whoever says that it holds them.
    before: OnceLock<PartialSnapshot>,
}

impl Pieces {
    pub(super) fn new(
        channel: Channel,
        epoch: Epoch,
        snapshot: Snapshot,
        piece_bytes: usize,
    ) -> Self {
        let piece_bytes = piece_bytes.clamp(1, SNAPSHOT_PIECE_BYTES);
        // An empty state travels too.
        let n = snapshot.bytes.len().div_ceil(piece_bytes).max(1);
        Self {
            channel,
            epoch,
            seq: snapshot.seq,
            digest: snapshot.digest,
            state: snapshot.bytes,
            piece_bytes,
            pieces: std::iter::repeat_with(Piece::default).take(n).collect(),
        }
    }

    /// What the state covers.
    pub(super) const fn seq(&self) -> Seq {
        self.seq
    }

    /// Bytes of the state.
    pub(super) fn total_bytes(&self) -> u64 {
        wide(self.state.len())
    }

    /// Bytes of the state and of its compressed pieces.
    pub(super) fn held_bytes(&self) -> usize {
        let gzip = |piece: &Piece| piece.gzip.get()?.as_ref().map(Bytes::len);
        self.state.len() + self.pieces.iter().filter_map(gzip).sum::<usize>()
    }

    /// The piece to go on with for a client that holds a part already: the first one, unless the part is really the
    /// beginning of this state.
    ///
    /// Only parts that end where a piece does are looked at, and each of these once: what a client claims costs little,
    /// however often it does.
    pub(super) fn after(&self, partial: Option<PartialSnapshot>) -> usize {
        let Some(partial) = partial.filter(|partial| partial.seq == self.seq) else {
            return 0;
        };
        let Ok(held) = usize::try_from(partial.offset) else {
            return 0;
        };
        let at = held / self.piece_bytes;
        let (Some(piece), Some(before)) = (self.pieces.get(at), self.state.get(..held)) else {
            return 0;
        };
        if !held.is_multiple_of(self.piece_bytes)
            || *piece
                .before
                .get_or_init(|| PartialSnapshot::of(self.seq, before))
                != partial
        {
            return 0;
        }
        at
    }

    /// The frame of the piece at this index, and whether it is the last one.
    pub(super) fn frame(&self, at: usize, compression: Compression) -> Option<(Bytes, bool)> {
        let piece = self.pieces.get(at)?;
        let is_last = at + 1 == self.pieces.len();
        let gzip = match compression {
            Compression::None => None,
            Compression::Gzip => piece
                .gzip
                .get_or_init(|| compress_frame(&self.plain(at)))
                .clone(),
        };
        Some((gzip.unwrap_or_else(|| self.plain(at)), is_last))
    }

    fn plain(&self, at: usize) -> Bytes {
        let offset = at.saturating_mul(self.piece_bytes).min(self.state.len());
        let end = offset
            .saturating_add(self.piece_bytes)
            .min(self.state.len());
        let message = SnapshotMessage {
            channel: self.channel,
            epoch: self.epoch,
            seq: self.seq,
            digest: self.digest,
            codec: 0,
            offset: wide(offset),
            total_bytes: self.total_bytes(),
            bytes: self.state.slice(offset..end),
        };
        encode_frame(&Message::Snapshot(message), Compression::None)
    }
}

fn wide(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
