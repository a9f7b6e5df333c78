//! Calls that overlap.

use std::collections::BTreeMap;

use futures_util::future::{self, join_all};
use sync_core::history::{Digest, Epoch, Seq};
use sync_core::ids::EngineId;

use super::fixture::{Document, EPOCH, EVERYTHING, TRIMMED, change, document_id, same, that};
use super::{Checked, Failure, ServerRegistry};
use crate::registry::{NewDocument, Outcome, RegistryError, Snapshot, StoredChange, Tail};

const WRITERS: u128 = 16;
const CALLS: u64 = 20;
const CHANGES_PER_CALL: u64 = 3;
/// More than there are appends.
const ATTEMPTS_MAX: usize = 10_000;

/// Appends its origin's changes call by call, each when the one before is answered, and returns where they stand.
async fn write(
    registry: &dyn ServerRegistry,
    name: &str,
    origin: u128,
) -> Result<Vec<Seq>, Failure> {
    let id = document_id(name)?;
    let mut stands = Vec::new();
    for call in 0..CALLS {
        let changes: Vec<_> = (1..=CHANGES_PER_CALL)
            .map(|n| change(origin, call * CHANGES_PER_CALL + n))
            .collect();
        let outcomes = registry.append(&id, EPOCH, None, changes).await?;
        for (outcome, n) in outcomes.iter().zip(0..) {
            let Outcome::At(seq) = outcome else {
                return Err(Failure(format!(
                    "the next change of an origin: found {outcome:?}"
                )));
            };
            let first = *stands.get(stands.len() - n).unwrap_or(seq);
            let next_to_each_other =
                n == 0 || seq.0 == first.0 + u64::try_from(n).unwrap_or(u64::MAX);
            that(next_to_each_other, || {
                format!("one call's commits: found {outcomes:?}")
            })?;
            stands.push(*seq);
        }
    }
    Ok(stands)
}

/// All rows after a sequence, read page by page.
pub(super) async fn read_all(
    registry: &dyn ServerRegistry,
    name: &str,
    mut after: Seq,
) -> Result<Vec<StoredChange>, Failure> {
    let id = document_id(name)?;
    let mut rows = Vec::new();
    loop {
        let tail = registry.tail(&id, after, 1_000).await?;
        let Tail::Changes { changes, .. } = tail else {
            return Err(Failure(format!("tail: found {tail:?}")));
        };
        let Some(last) = changes.last() else {
            return Ok(rows);
        };
        after = last.seq;
        rows.extend(changes);
    }
}

/// Sequences follow on each other, digests add up, and each origin's numbers come in order.
pub(super) fn is_a_log(rows: &[StoredChange], mut seq: Seq, mut digest: Digest) -> Checked {
    let mut last = BTreeMap::new();
    for row in rows {
        seq = seq.next();
        digest = digest.with(row.id.number, &row.bytes);
        same(
            "sequence and digest of a row",
            (row.seq, row.digest),
            (seq, digest),
        )?;
        let before = last
            .insert(row.id.origin, row.id.number)
            .unwrap_or(row.id.number.saturating_sub(1));
        same(
            "an origin's next number in the log",
            row.id.number,
            before + 1,
        )?;
    }
    Ok(())
}

pub(super) async fn concurrent_appends_leave_no_holes(registry: &dyn ServerRegistry) -> Checked {
    let names = ["one", "two"];
    for name in names {
        Document::create(registry, name).await?;
    }
    let writers = names
        .iter()
        .flat_map(|name| (1..=WRITERS).map(move |origin| write(registry, name, origin)));
    let written = join_all(writers)
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let per_document = usize::try_from(WRITERS).unwrap_or(usize::MAX);
    for (name, written) in names.iter().zip(written.chunks(per_document)) {
        let rows = read_all(registry, name, Seq::ZERO).await?;
        is_a_log(&rows, Seq::ZERO, Digest::EMPTY)?;
        let mut answered: Vec<_> = written.iter().flatten().copied().collect();
        answered.sort_unstable();
        same(
            "sequences answered",
            answered,
            rows.iter().map(|row| row.seq).collect(),
        )?;
        for (origin, stands) in (1..=WRITERS).zip(written) {
            let rows = rows.iter().filter(|row| row.id.origin.0 == origin);
            same(
                "where an origin's changes stand",
                &rows.map(|row| row.seq).collect(),
                stands,
            )?;
        }
    }
    Ok(())
}

pub(super) async fn a_call_repeated_concurrently_commits_once(
    registry: &dyn ServerRegistry,
) -> Checked {
    let mut document = Document::create(registry, "d").await?;
    let changes = [change(1, 1), change(1, 2), change(1, 3)];
    let answers = join_all((0..WRITERS).map(|_| document.append(&changes))).await;
    let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
    let committed = [1, 2, 3].map(|seq| Outcome::At(Seq(seq))).to_vec();
    let repeated = [1, 2, 3]
        .map(|seq| Outcome::Duplicate {
            last: 3,
            seq: Some(Seq(seq)),
        })
        .to_vec();
    same(
        "calls that committed",
        answers
            .iter()
            .filter(|outcomes| **outcomes == committed)
            .count(),
        1,
    )?;
    let others = answers
        .iter()
        .find(|outcomes| **outcomes != committed && **outcomes != repeated);
    same("other answers", others, None)?;
    for change in &changes {
        document.add(change);
    }
    document.holds_all_after(0).await
}

pub(super) async fn one_of_many_that_expect_the_same_head_wins(
    registry: &dyn ServerRegistry,
) -> Checked {
    let mut document = Document::create(registry, "d").await?;
    document.commit(&[change(99, 1)]).await?;
    let id = document.id.clone();
    let appends = (1..=WRITERS)
        .map(|origin| registry.append(&id, EPOCH, Some(Seq(1)), vec![change(origin, 1)]));
    let mut winners = Vec::new();
    for (origin, answer) in (1..=WRITERS).zip(join_all(appends).await) {
        match answer {
            Ok(outcomes) if outcomes == [Outcome::At(Seq(2))] => winners.push(origin),
            Err(RegistryError::Conflict { head: Seq(2) }) => {}
            other => {
                return Err(Failure(format!(
                    "an append that expects a head: found {other:?}"
                )));
            }
        }
    }
    let [winner] = winners[..] else {
        return Err(Failure(format!("winners: found {winners:?}, promised one")));
    };
    document.add(&change(winner, 1));
    document.holds_all_after(0).await
}

pub(super) async fn concurrent_creates_agree(registry: &dyn ServerRegistry) -> Checked {
    let id = document_id("d")?;
    let creates = (1..=8)
        .map(|epoch| registry.create(NewDocument::new(id.clone(), EngineId::OPAQUE, Epoch(epoch))));
    let metas = join_all(creates)
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let stored = registry.meta(&id).await?;
    that(metas.iter().all(|meta| *meta == stored), || {
        format!("creates: found {metas:?}, stored is {stored:?}")
    })
}

pub(super) async fn compaction_among_appends_loses_nothing(
    registry: &dyn ServerRegistry,
) -> Checked {
    let name = "d";
    let document = Document::create(registry, name).await?;
    let writers = join_all((1..=WRITERS).map(|origin| write(registry, name, origin)));
    let folds = async {
        // Folds what is there, again and again, and keeps what it folded: the rows it has seen are the model.
        let mut folded: Vec<StoredChange> = Vec::new();
        for _ in 0..CALLS {
            let after = folded.last().map_or(Seq::ZERO, |row| row.seq);
            let tail = registry.tail(&document.id, after, EVERYTHING).await?;
            let Tail::Changes { changes, .. } = tail else {
                return Err(Failure(format!("tail: found {tail:?}")));
            };
            folded.extend(changes);
            if let Some(last) = folded.last() {
                let snapshot = Snapshot::new(last.seq, last.digest, "folded".into());
                registry
                    .compact(&document.id, EPOCH, snapshot, last.seq)
                    .await?;
            }
        }
        Ok(folded)
    };
    let (written, folded) = future::join(writers, folds).await;
    let written = written.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut rows = folded?;
    let after = rows.last().map_or(Seq::ZERO, |row| row.seq);
    rows.extend(read_all(registry, name, after).await?);
    is_a_log(&rows, Seq::ZERO, Digest::EMPTY)?;
    same(
        "rows committed",
        rows.len(),
        written.iter().map(Vec::len).sum(),
    )
}

pub(super) async fn a_trim_among_appends_loses_nothing(registry: &dyn ServerRegistry) -> Checked {
    let name = "d";
    let document = Document::create(registry, name).await?;
    // Each goes on until it is told that the history is over, if it is told in time.
    let writers = (1..=WRITERS).map(|origin| async move {
        let id = document_id(name)?;
        let mut written = Vec::new();
        for number in 1..=CALLS {
            let appended = registry.append(&id, EPOCH, None, vec![change(origin, number)]);
            match appended.await {
                Ok(outcomes) => written.extend(outcomes),
                Err(RegistryError::Fenced { current: TRIMMED }) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok::<_, Failure>(written)
    });
    let trim = async {
        // The log moves on: the last attempt comes when it does not any more.
        for _ in 0..ATTEMPTS_MAX {
            let meta = registry.meta(&document.id).await?;
            let snapshot = Snapshot::new(meta.head, meta.digest, "trimmed".into());
            let trimmed = registry.trim(&document.id, EPOCH, snapshot, TRIMMED).await;
            match trimmed {
                Ok(()) => return Ok::<_, Failure>(meta.head),
                Err(RegistryError::Conflict { .. } | RegistryError::Refused { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Failure(
            "a trim at the head: found none that is taken".into(),
        ))
    };
    let (written, trimmed) = future::join(join_all(writers), trim).await;
    let head = trimmed?;
    let mut written: Vec<_> = written
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?
        .concat()
        .into_iter()
        .map(|outcome| format!("{outcome:?}"))
        .collect();
    written.sort_unstable();
    let mut all: Vec<_> = (1..=head.0)
        .map(|seq| format!("{:?}", Outcome::At(Seq(seq))))
        .collect();
    all.sort_unstable();
    same("what was committed, and what was trimmed", written, all)?;
    let meta = registry.meta(&document.id).await?;
    same("the head", (meta.epoch, meta.head), (TRIMMED, head))
}
