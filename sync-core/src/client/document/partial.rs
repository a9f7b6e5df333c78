//! The part of a snapshot that has arrived. It outlives the connection, so that a cut costs what was on its way.

use bytes::Bytes;

use crate::history::Seq;
use crate::wire::{PartialSnapshot, SnapshotMessage};

/// Holds what has arrived and nothing more, whatever is announced: at most one snapshot for each document.
#[derive(Debug, Clone, Default)]
pub(super) struct Partial {
    seq: Seq,
    total: u64,
    bytes: Vec<u8>,
}

/// What became of a piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// More is to come.
    Part,
    /// It was the last one: the whole state.
    Whole(Bytes),
    /// It does not continue what is here, which is forgotten.
    Misplaced,
}

impl Partial {
    /// For `Open`: nothing unless something is held.
    pub(super) fn claim(&self) -> Option<PartialSnapshot> {
        (!self.bytes.is_empty()).then(|| PartialSnapshot::of(self.seq, &self.bytes))
    }

    /// What the snapshot covers of which something is held.
    pub(super) fn seq(&self) -> Option<Seq> {
        (!self.bytes.is_empty()).then_some(self.seq)
    }

    /// Bytes held, and bytes of the whole.
    pub(super) fn progress(&self) -> (u64, u64) {
        (wide(self.bytes.len()), self.total)
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Takes the next piece: one that continues what is here, or the first one of a snapshot that begins anew.
    pub(super) fn take(&mut self, piece: SnapshotMessage) -> Taken {
        if piece.offset == 0 {
            *self = Self {
                seq: piece.seq,
                total: piece.total_bytes,
                bytes: Vec::new(),
            };
        }
        let held = wide(self.bytes.len());
        let end = held.saturating_add(wide(piece.bytes.len()));
        let fits = (piece.seq, piece.total_bytes, piece.offset) == (self.seq, self.total, held)
            && end <= self.total
            && (end > held || self.total == 0);
        if !fits || !self.make_room(piece.bytes.len()) {
            self.forget();
            return Taken::Misplaced;
        }
        if end == self.total && held == 0 {
            self.forget();
            return Taken::Whole(piece.bytes);
        }
        self.bytes.extend_from_slice(&piece.bytes);
        if end < self.total {
            return Taken::Part;
        }
        Taken::Whole(std::mem::take(self).bytes.into())
    }

    /// Grows by doubling, but never beyond the whole: a document takes its size, not up to twice that.
    fn make_room(&mut self, more: usize) -> bool {
        let needed = self.bytes.len().saturating_add(more);
        if needed <= self.bytes.capacity() {
            return true;
        }
        let total = usize::try_from(self.total).unwrap_or(usize::MAX);
        let target = self
            .bytes
            .capacity()
            .saturating_mul(2)
            .min(total)
            .max(needed);
        self.bytes
            .try_reserve_exact(target - self.bytes.len())
            .is_ok()
    }
}

fn wide(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Digest, Epoch};
    use crate::ids::Channel;

    fn piece(seq: u64, offset: u64, total_bytes: u64, bytes: &'static str) -> SnapshotMessage {
        SnapshotMessage {
            channel: Channel(1),
            epoch: Epoch(1),
            seq: Seq(seq),
            digest: Digest::EMPTY,
            codec: 0,
            offset,
            total_bytes,
            bytes: Bytes::from_static(bytes.as_bytes()),
        }
    }

    #[test]
    fn pieces_make_the_whole_and_leave_nothing_behind() {
        let mut partial = Partial::default();
        assert_eq!(partial.claim(), None);
        assert_eq!(partial.take(piece(7, 0, 6, "ab")), Taken::Part);
        assert_eq!(
            partial.claim(),
            Some(PartialSnapshot::of(Seq(7), b"ab")),
            "said when the document is opened again"
        );
        assert_eq!(partial.take(piece(7, 2, 6, "cd")), Taken::Part);
        assert_eq!(partial.progress(), (4, 6));
        assert_eq!(
            partial.take(piece(7, 4, 6, "ef")),
            Taken::Whole(Bytes::from_static(b"abcdef"))
        );
        assert_eq!(partial.claim(), None);
        let empty = piece(8, 0, 0, "");
        assert_eq!(partial.take(empty), Taken::Whole(Bytes::new()));
    }

    #[test]
    fn a_snapshot_that_begins_anew_takes_the_place_of_what_was_held() {
        let mut partial = Partial::default();
        assert_eq!(partial.take(piece(7, 0, 6, "abcd")), Taken::Part);
        assert_eq!(partial.take(piece(9, 0, 3, "xy")), Taken::Part);
        let whole = Taken::Whole(Bytes::from_static(b"xyz"));
        assert_eq!(partial.take(piece(9, 2, 3, "z")), whole);
    }

    #[test]
    fn what_does_not_continue_is_refused_and_forgotten() {
        for wrong in [
            piece(7, 1, 6, "b"),
            piece(7, 3, 6, "d"),
            piece(8, 2, 6, "cd"),
            piece(7, 2, 7, "cd"),
            piece(7, 2, 6, ""),
            piece(7, 2, 6, "cdefg"),
            piece(7, u64::MAX, 6, "c"),
        ] {
            let mut partial = Partial::default();
            assert_eq!(partial.take(piece(7, 0, 6, "ab")), Taken::Part);
            assert_eq!(partial.take(wrong.clone()), Taken::Misplaced, "{wrong:?}");
            assert_eq!(partial.claim(), None);
        }
    }

    #[test]
    fn nothing_is_reserved_for_what_is_announced() {
        let mut partial = Partial::default();
        assert_eq!(partial.take(piece(7, 0, u64::MAX, "ab")), Taken::Part);
        assert!(partial.bytes.capacity() < 1024);
    }
}
