//! The rules of `append`, `create`, `compact` and `trim`, whoever stores the rows.

use std::collections::BTreeSet;

use bytes::Bytes;
use sync_core::history::{Digest, Epoch, Seq};
use sync_core::ids::{ChangeId, OriginId};

use super::{DocumentMeta, NewChange, NewDocument, OriginEntry, Outcome, RegistryError};

/// What the rules of [`append`] ask of a document, and tell it. Whatever must be read for that has been read before:
/// nothing here fails, so that a call is carried out wholly or not at all.
pub(super) trait Log {
    fn epoch(&self) -> Epoch;

    /// The last sequence.
    fn head(&self) -> Seq;

    /// What the table that decides duplicates knows of an origin.
    fn entry(&self, origin: OriginId) -> Option<&OriginEntry>;

    /// Where a change stands that the log holds, and its bytes.
    fn find(&self, id: ChangeId) -> Option<(Seq, &Bytes)>;

    /// Takes the change as the next row.
    fn commit(&mut self, change: NewChange) -> Seq;
}

/// As [`append`](super::ServerRegistry::append).
pub(super) fn append(
    log: &mut impl Log,
    epoch: Epoch,
    expect: Option<Seq>,
    changes: Vec<NewChange>,
) -> Result<Vec<Outcome>, RegistryError> {
    fence(log.epoch(), epoch)?;
    let head = log.head();
    if expect.is_some_and(|expect| expect != head) {
        return Err(RegistryError::Conflict { head });
    }
    // By user too: one who borrows another's origin must not stop its owner.
    let mut refused = BTreeSet::new();
    let mut outcomes = Vec::with_capacity(changes.len());
    for change in changes {
        let stopped =
            !refused.is_empty() && refused.contains(&(change.id.origin, change.user.clone()));
        let verdict = if stopped {
            Err(gap(log.entry(change.id.origin)))
        } else {
            judge(log, &change)
        };
        outcomes.push(match verdict {
            Ok(()) => Outcome::At(log.commit(change)),
            Err(duplicate @ Outcome::Duplicate { .. }) => duplicate,
            Err(refusal) => {
                refused.insert((change.id.origin, change.user));
                refusal
            }
        });
    }
    Ok(outcomes)
}

/// `Ok` if the change is the origin's next.
fn judge(log: &impl Log, change: &NewChange) -> Result<(), Outcome> {
    let ChangeId { origin, number } = change.id;
    let entry = log.entry(origin);
    if entry.is_some_and(|entry| entry.user != change.user) {
        return Err(Outcome::ForeignOrigin);
    }
    let last = entry.map_or(0, |entry| entry.last);
    if last.checked_add(1) == Some(number) {
        return Ok(());
    }
    if number == 0 || number > last {
        return Err(gap(entry));
    }
    match log.find(change.id) {
        Some((_, bytes)) if *bytes != change.bytes => Err(Outcome::IdReused),
        found => Err(Outcome::Duplicate {
            last,
            seq: found.map(|(seq, _)| seq),
        }),
    }
}

fn gap(entry: Option<&OriginEntry>) -> Outcome {
    Outcome::Gap {
        expected: entry.map_or(0, |entry| entry.last).saturating_add(1),
    }
}

/// What is known of a document as [`create`](super::ServerRegistry::create) makes it.
pub(super) fn created(document: &NewDocument) -> Result<DocumentMeta, RegistryError> {
    let mut meta = DocumentMeta::new(
        document.id.clone(),
        document.engine.clone(),
        document.epoch,
        document.mode,
    );
    if let Some(snapshot) = &document.snapshot {
        refuse_if(
            snapshot.seq == Seq::ZERO,
            "no snapshot stands at sequence 0",
        )?;
        meta.head = snapshot.seq;
        meta.digest = snapshot.digest;
        meta.snapshot_seq = snapshot.seq;
        meta.log_start = snapshot.seq;
    }
    Ok(meta)
}

/// Whether [`compact`](super::ServerRegistry::compact) has anything to do. `digest_at` is asked only for sequences
/// that the log holds.
pub(super) fn compacts(
    meta: &DocumentMeta,
    epoch: Epoch,
    (seq, digest): (Seq, Digest),
    keep_after: Seq,
    digest_at: impl FnOnce(Seq) -> Result<Option<Digest>, RegistryError>,
) -> Result<bool, RegistryError> {
    fence(meta.epoch, epoch)?;
    refuse_if(seq == Seq::ZERO, "no snapshot stands at sequence 0")?;
    refuse_if(seq > meta.head, "the snapshot is beyond the head")?;
    refuse_if(
        keep_after > seq,
        "rows would be dropped that the snapshot does not cover",
    )?;
    if seq < meta.snapshot_seq {
        return Ok(false);
    }
    // Known: a snapshot is never before the start of the log, and this one is not before the present one.
    refuse_if(
        digest_at(seq)? != Some(digest),
        "the snapshot's digest is not the log's",
    )?;
    Ok(true)
}

/// Whether [`trim`](super::ServerRegistry::trim) has anything to do: not if it has been carried out.
pub(super) fn trims(
    meta: &DocumentMeta,
    epoch: Epoch,
    (seq, digest): (Seq, Digest),
    next: Epoch,
) -> Result<bool, RegistryError> {
    refuse_if(epoch == next, "a new history needs a new epoch")?;
    if meta.epoch == next {
        return Ok(false);
    }
    fence(meta.epoch, epoch)?;
    refuse_if(seq == Seq::ZERO, "no snapshot stands at sequence 0")?;
    if seq != meta.head {
        return Err(RegistryError::Conflict { head: meta.head });
    }
    refuse_if(
        digest != meta.digest,
        "the snapshot's digest is not the log's",
    )?;
    Ok(true)
}

const fn fence(current: Epoch, epoch: Epoch) -> Result<(), RegistryError> {
    if epoch.0 == current.0 {
        Ok(())
    } else {
        Err(RegistryError::Fenced { current })
    }
}

pub(super) const fn refuse_if(wrong: bool, what: &'static str) -> Result<(), RegistryError> {
    if wrong {
        Err(RegistryError::Refused { what })
    } else {
        Ok(())
    }
}
