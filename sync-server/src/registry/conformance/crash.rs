//! What a registry has answered is there when it is opened again, and a call that was cut short was carried out or not.
//!
//! Each check goes through a script of calls, next to a registry in memory that says what is promised.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use futures_util::future::{LocalBoxFuture, join_all};
use sync_core::history::{Digest, EpochMode, Seq};
use sync_core::ids::{EngineId, OriginId};

use super::concurrency::{is_a_log, read_all};
use super::fixture::{
    Document, EPOCH, EVERYTHING, STALE, TRIMMED, change, change_by, document_id, fails, forged,
    same, that, with_bytes,
};
use super::{Checked, Cut, Failure, ServerRegistry};
use crate::registry::{
    DocumentMeta, MemoryRegistry, NewChange, NewDocument, Outcome, RegistryError, Snapshot, Tail,
};

/// Opens the registry of one place, again and again.
pub(super) type Open<'a> = &'a dyn Fn() -> LocalBoxFuture<'a, Box<dyn ServerRegistry>>;

/// How a registry ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Dropped,
}

impl End {
    async fn of(self, registry: Box<dyn ServerRegistry>) -> Checked {
        if self == Self::Closed {
            registry.close().await?;
        }
        Ok(())
    }
}

/// A call that changes something.
#[derive(Debug, Clone)]
enum Call {
    Create(NewDocument),
    Append(&'static str, Vec<NewChange>),
    /// Name, sequence of the snapshot, and the rows to be dropped.
    Compact(&'static str, u64, u64),
    /// Name: at the head.
    Trim(&'static str),
    Delete(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Meta(DocumentMeta),
    Outcomes(Vec<Outcome>),
    Done,
}

fn script() -> Result<Vec<Call>, Failure> {
    let new = |name| Ok::<_, Failure>(NewDocument::new(document_id(name)?, EngineId::YRS, EPOCH));
    let mut restored = new("restored")?;
    restored.mode = EpochMode::Merge;
    restored.snapshot = Some(Snapshot::new(
        Seq(7),
        Digest(0xd16e_57ed),
        Bytes::from_static(b"state"),
    ));
    let large = |change| with_bytes(change, vec![0xa5; 3_000]);
    Ok(vec![
        Call::Create(new("a")?),
        Call::Append(
            "a",
            vec![change(1, 1), change(1, 2), change_by("bob", 2, 1)],
        ),
        Call::Create(restored),
        Call::Append("restored", vec![change(1, 1), large(change(1, 2))]),
        // Some of it is refused.
        Call::Append(
            "a",
            vec![change(1, 3), change(1, 2), change(9, 2), forged(1, 1)],
        ),
        Call::Compact("a", 4, 2),
        Call::Append("a", vec![large(change(1, 4)), change(3, 1)]),
        Call::Create(new("gone")?),
        Call::Append("gone", vec![change(1, 1)]),
        Call::Delete("gone"),
        Call::Compact("a", 6, 6),
        Call::Append("a", vec![change(1, 5), change_by("bob", 2, 2)]),
        Call::Compact("restored", 9, 8),
        Call::Append("restored", vec![change(2, 1)]),
        Call::Trim("restored"),
        Call::Append("restored", vec![change(2, 2), large(change(1, 3))]),
    ])
}

impl Call {
    /// `log` has the document as it is, to know digests.
    async fn carry_out(
        &self,
        registry: &dyn ServerRegistry,
        log: &MemoryRegistry,
    ) -> Result<Answer, RegistryError> {
        match self {
            Self::Create(new) => registry.create(new.clone()).await.map(Answer::Meta),
            Self::Append(name, changes) => {
                let id = id(name)?;
                let epoch = log.meta(&id).await?.epoch;
                let outcomes = registry.append(&id, epoch, None, changes.clone()).await;
                outcomes.map(Answer::Outcomes)
            }
            Self::Compact(name, seq, keep_after) => {
                let (id, seq) = (id(name)?, Seq(*seq));
                let digest = match log.tail(&id, seq, 0).await? {
                    Tail::Changes { digest, .. } => digest,
                    Tail::Compacted { .. } | Tail::BeyondHead { .. } => Digest::EMPTY,
                };
                let snapshot = Snapshot::new(seq, digest, Bytes::from_static(b"folded"));
                let compacted = registry.compact(&id, EPOCH, snapshot, Seq(*keep_after));
                compacted.await.map(|()| Answer::Done)
            }
            Self::Trim(name) => {
                let id = id(name)?;
                let meta = log.meta(&id).await?;
                let trimmed = Bytes::from_static(b"trimmed");
                let snapshot = Snapshot::new(meta.head, meta.digest, trimmed);
                let trim = registry.trim(&id, meta.epoch, snapshot, TRIMMED);
                trim.await.map(|()| Answer::Done)
            }
            Self::Delete(name) => registry.delete(&id(name)?).await.map(|()| Answer::Done),
        }
    }
}

fn id(name: &str) -> Result<sync_core::ids::DocumentId, RegistryError> {
    sync_core::ids::DocumentId::new(name).map_err(|_| RegistryError::NotFound)
}

/// All that a registry says of the script's documents, one after the other.
async fn state(registry: &dyn ServerRegistry) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for meta in registry.list(None, usize::MAX).await? {
        let id = &meta.id;
        let tail = registry.tail(id, meta.log_start, EVERYTHING).await?;
        let before = registry.tail(id, Seq::ZERO, EVERYTHING).await?;
        let snapshot = registry.snapshot(id).await?;
        let origins = registry.origins(id, &[1, 2, 3, 9].map(OriginId)).await?;
        let head = registry.heads(std::slice::from_ref(id)).await?;
        all.push(format!(
            "{meta:?} {head:?} {tail:?} {before:?} {snapshot:?} {origins:?}"
        ));
    }
    for name in ["a", "restored", "gone"] {
        let known = match registry.meta(&document_id(name)?).await {
            Ok(_) => "is there",
            Err(RegistryError::NotFound) => "is not there",
            Err(RegistryError::Deleted) => "is deleted",
            Err(error) => return Err(error.into()),
        };
        all.push(format!("{name} {known}"));
    }
    Ok(all)
}

/// Which document is not as promised.
fn same_state(what: &str, found: &[String], promised: &[String]) -> Checked {
    let differs = found
        .iter()
        .zip(promised)
        .find(|(found, promised)| found != promised);
    if let Some((found, promised)) = differs {
        return Err(Failure(format!(
            "{what}: found {found}, promised {promised}"
        )));
    }
    same(&format!("{what}: documents"), found.len(), promised.len())
}

/// Goes through the script, and has the registry end after every call.
async fn survives(open: Open<'_>, end: End) -> Result<Cut, Failure> {
    let promised = MemoryRegistry::new();
    for call in script()? {
        let registry = open().await;
        let answer = call.carry_out(&*registry, &promised).await?;
        let expected = call.carry_out(&promised, &promised).await?;
        same(&format!("the answer to {call:?}"), answer, expected)?;
        end.of(registry).await?;
        let registry = open().await;
        let what = format!("opened again after {call:?}");
        same_state(&what, &state(&*registry).await?, &state(&promised).await?)?;
        end.of(registry).await?;
    }
    let registry = open().await;
    let a = document_id("a")?;
    let fenced = |error: &RegistryError| matches!(error, RegistryError::Fenced { current: EPOCH });
    let stale = registry.append(&a, STALE, None, vec![change(1, 6)]).await;
    fails("a stale epoch, opened again", stale, fenced)?;
    let deleted = |error: &RegistryError| matches!(error, RegistryError::Deleted);
    let gone = NewDocument::new(document_id("gone")?, EngineId::YRS, STALE);
    fails(
        "a tombstone, opened again",
        registry.create(gone).await,
        deleted,
    )?;
    end.of(registry).await?;
    Ok(Cut::None)
}

pub(super) async fn what_was_answered_is_there_after_it_was_closed(
    open: Open<'_>,
    _: usize,
) -> Result<Cut, Failure> {
    survives(open, End::Closed).await
}

pub(super) async fn what_was_answered_is_there_after_it_was_dropped(
    open: Open<'_>,
    _: usize,
) -> Result<Cut, Failure> {
    survives(open, End::Dropped).await
}

pub(super) async fn a_call_whose_answer_was_lost_changes_nothing_when_repeated(
    open: Open<'_>,
    _: usize,
) -> Result<Cut, Failure> {
    let promised = MemoryRegistry::new();
    for call in script()? {
        let registry = open().await;
        // Nobody hears of it.
        drop(call.carry_out(&*registry, &promised).await);
        drop(registry);
        let log = promised.backup();
        call.carry_out(&promised, &log).await?;
        let expected = call.carry_out(&promised, &log).await?;
        let registry = open().await;
        let answer = call.carry_out(&*registry, &log).await?;
        same(
            &format!("the answer to the repeat of {call:?}"),
            answer,
            expected,
        )?;
        let what = format!("after {call:?} and a repeat");
        same_state(&what, &state(&*registry).await?, &state(&promised).await?)?;
    }
    Ok(Cut::None)
}

/// Polls a call so often at most, each time when it asks for it, and then drops it.
async fn cut<T>(call: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut call = pin!(call);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match call.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Goes through the script, drops each call after so many polls, and finishes it afterwards. Whether any was dropped.
async fn cut_each(open: Open<'_>, polls: usize, reopens: bool) -> Result<Cut, Failure> {
    let promised = MemoryRegistry::new();
    let mut any = false;
    let mut registry = open().await;
    for call in script()? {
        let log = promised.backup();
        let before = state(&promised).await?;
        call.carry_out(&promised, &log).await?;
        let after = state(&promised).await?;
        let answer = cut(call.carry_out(&*registry, &log), polls).await;
        any |= answer.is_none();
        let what = format!("{call:?}, dropped after {polls} polls");
        if reopens {
            drop(registry);
            registry = open().await;
            let found = state(&*registry).await?;
            if found != before || answer.is_some() {
                same_state(&what, &found, &after)?;
            }
        }
        call.carry_out(&*registry, &log)
            .await
            .map_err(|error| Failure(format!("the repeat of {what}: {error}")))?;
        same_state(&what, &state(&*registry).await?, &after)?;
    }
    Ok(if any { Cut::Some } else { Cut::None })
}

pub(super) async fn a_call_that_was_cut_short_is_carried_out_or_not(
    open: Open<'_>,
    polls: usize,
) -> Result<Cut, Failure> {
    cut_each(open, polls, true).await
}

pub(super) async fn a_call_that_was_dropped_is_in_nobodys_way(
    open: Open<'_>,
    polls: usize,
) -> Result<Cut, Failure> {
    cut_each(open, polls, false).await
}

pub(super) async fn appends_cut_short_together_leave_a_whole_log(
    open: Open<'_>,
    polls: usize,
) -> Result<Cut, Failure> {
    const WRITERS: u128 = 12;
    let registry = open().await;
    let document = Document::create(&*registry, "d").await?;
    let id = document.id.clone();
    let append = |origin| {
        let changes = vec![change(origin, 1), change(origin, 2), change(origin, 3)];
        registry.append(&id, EPOCH, None, changes)
    };
    // Some more patient than others.
    let patience = (1..=WRITERS).zip((polls..=polls + 2).cycle());
    let appends = patience.map(|(origin, polls)| cut(append(origin), polls));
    let answers = join_all(appends).await;
    drop(registry);
    let registry = open().await;
    let rows = read_all(&*registry, "d", Seq::ZERO).await?;
    is_a_log(&rows, Seq::ZERO, Digest::EMPTY)?;
    for (answer, origin) in answers.iter().zip(1..=WRITERS) {
        let stands: Vec<_> = rows
            .iter()
            .filter(|row| row.id.origin.0 == origin)
            .map(|row| Outcome::At(row.seq))
            .collect();
        that(stands.is_empty() || stands.len() == 3, || {
            format!("a call of three changes: found {stands:?}")
        })?;
        if let Some(answered) = answer {
            match answered {
                Ok(outcomes) => same("what was answered, opened again", &stands, outcomes)?,
                Err(error) => return Err(Failure(format!("an append: {error}"))),
            }
        }
    }
    let any = answers.iter().any(Option::is_none);
    Ok(if any { Cut::Some } else { Cut::None })
}
