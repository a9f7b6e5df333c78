//! Long changes of what is stored: prepared beside the writer, and carried out by it in small steps.

use bytes::Bytes;
use sync_core::history::{Digest, Epoch, Seq};
use sync_core::ids::{DocumentId, OriginId};

use super::row::{Entry, encode};
use crate::registry::{DocumentMeta, OriginEntry, RegistryError, Snapshot, rules};

/// What the writer is asked to do, one step at a time.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Take a snapshot, and drop what it covers.
    Compact(Compaction),
    /// Forget origins that have not written since.
    Evict {
        doc: i64,
        origins: Vec<OriginId>,
        through: Seq,
    },
    /// Move rows from the journal to the log.
    Fold(Vec<FoldedDocument>),
    /// Delete folded rows of the journal.
    Trim { from: i64, through: i64 },
    /// Delete a piece of what is not needed any more.
    Purge,
    /// Finish a checkpoint, so that the write-ahead log begins again at its start.
    RestartLog,
}

/// A snapshot on its way into the database, part by part; it counts with the last step.
#[derive(Debug)]
pub(crate) struct Compaction {
    pub(super) document: DocumentId,
    pub(super) doc: i64,
    pub(super) epoch: Epoch,
    pub(super) snapshot: Snapshot,
    pub(super) keep_after: Seq,
    /// The history that begins with the snapshot, which then stands at the head; none if the present one goes on.
    pub(super) begins: Option<Epoch>,
    /// Digest at `keep_after`.
    pub(super) start_digest: Digest,
    pub(super) evicted: Vec<OriginId>,
    pub(super) number: Option<i64>,
    pub(super) next: usize,
}

impl Compaction {
    /// Whether there is anything left to do, of a document that stands so.
    pub(super) fn goes_on(&self, meta: &DocumentMeta) -> Result<bool, RegistryError> {
        let stands = (self.snapshot.seq, self.snapshot.digest);
        match self.begins {
            Some(next) => rules::trims(meta, self.epoch, stands, next),
            // The log's digest there does not change.
            None => rules::compacts(meta, self.epoch, stands, self.keep_after, |_| {
                Ok(Some(stands.1))
            }),
        }
    }

    /// Bytes of a part.
    pub(super) const PART: usize = 64 << 10;
    /// Parts in one step.
    const STEP: usize = 8;

    pub(super) const fn is_begun(&self) -> bool {
        self.number.is_some()
    }

    pub(super) const fn begin(&mut self, number: i64) {
        self.number = Some(number);
    }

    /// The snapshot's number, once begun.
    pub(super) fn number(&self) -> i64 {
        self.number.unwrap_or_default()
    }

    /// The next few parts; none when all are written.
    pub(super) fn next_parts(&mut self) -> Vec<(i64, Bytes)> {
        let mut parts = Vec::new();
        let len = self.snapshot.bytes.len();
        while parts.len() < Self::STEP {
            let start = self.next * Self::PART;
            if start >= len {
                break;
            }
            let end = len.min(start + Self::PART);
            let number = i64::try_from(self.next).unwrap_or(i64::MAX);
            parts.push((number, self.snapshot.bytes.slice(start..end)));
            self.next += 1;
        }
        parts
    }
}

/// A document's rows of the journal, as they will be in the log.
#[derive(Debug)]
pub(crate) struct FoldedDocument {
    pub(super) document: DocumentId,
    pub(super) doc: i64,
    /// What is folded before.
    pub(super) after: Seq,
    /// What is folded afterwards, and the digest there.
    pub(super) through: Seq,
    pub(super) digest: Digest,
    pub(super) segments: Vec<Segment>,
    /// The entries that these changes have left.
    pub(super) origins: Vec<OriginEntry>,
}

/// A row of the log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(super) seq: Seq,
    pub(super) n: u32,
    pub(super) digest: Digest,
    pub(super) changes: Vec<u8>,
}

/// Bytes of changes after which a row of the log is not continued: what a read of one change reads.
const SEGMENT_BYTES: usize = 64 << 10;
/// Changes in a row of the log at most.
const SEGMENT_CHANGES: u32 = 4096;

/// Puts changes that follow on each other into rows of the log.
pub(super) fn segments(entries: &[Entry]) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let mut n = 0;
        let mut digest = first.change.digest;
        let mut len = 0;
        for entry in rest {
            if n > 0 && (bytes >= SEGMENT_BYTES || n >= SEGMENT_CHANGES) {
                break;
            }
            bytes += entry.change.bytes.len();
            n += 1;
            len += 1;
            digest = entry.change.digest;
        }
        let (now, later) = rest.split_at(len);
        rest = later;
        let mut changes = Vec::new();
        encode(&mut changes, first.change.seq, now.iter().map(Entry::part));
        segments.push(Segment {
            seq: first.change.seq,
            n,
            digest,
            changes,
        });
    }
    segments
}
