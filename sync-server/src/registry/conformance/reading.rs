//! What reads answer, and the life of documents.

use bytes::Bytes;
use sync_core::history::{Cursor, Digest, Epoch, EpochMode, Seq};
use sync_core::ids::{EngineId, OriginId};

use super::fixture::{
    Document, EPOCH, EVERYTHING, STALE, change, change_by, document_id, fails, forged, same, that,
    user, with_bytes,
};
use super::{Checked, Failure, ServerRegistry};
use crate::registry::{
    DocumentMeta, NewDocument, OriginEntry, Outcome, RegistryError, Snapshot, Tail,
};

pub(super) async fn a_missing_document_is_not_found(registry: &dyn ServerRegistry) -> Checked {
    Document::create(registry, "another").await?;
    let not_found = |error: &RegistryError| matches!(error, RegistryError::NotFound);
    let id = document_id("missing")?;
    every_read_fails(registry, "missing", not_found).await?;
    fails("delete", registry.delete(&id).await, not_found)?;
    // None of these calls has brought it into being.
    every_read_fails(registry, "missing", not_found).await
}

async fn every_read_fails(
    registry: &dyn ServerRegistry,
    name: &str,
    is: impl Fn(&RegistryError) -> bool + Copy,
) -> Checked {
    let id = document_id(name)?;
    let snapshot = Snapshot::new(Seq(1), Digest::EMPTY, Bytes::new());
    fails("meta", registry.meta(&id).await, is)?;
    fails(
        "append",
        registry.append(&id, EPOCH, None, vec![change(1, 1)]).await,
        is,
    )?;
    fails("tail", registry.tail(&id, Seq::ZERO, EVERYTHING).await, is)?;
    fails("snapshot", registry.snapshot(&id).await, is)?;
    fails(
        "compact",
        registry.compact(&id, EPOCH, snapshot, Seq::ZERO).await,
        is,
    )?;
    fails("origins", registry.origins(&id, &[OriginId(1)]).await, is)?;
    same("heads", registry.heads(&[id]).await?, vec![None])
}

pub(super) async fn create_returns_what_exists(registry: &dyn ServerRegistry) -> Checked {
    let mut document = Document::create(registry, "d").await?;
    let empty = DocumentMeta::new(document.id.clone(), EngineId::OPAQUE, EPOCH, EpochMode::New);
    same("meta of an empty document", document.meta().await?, empty)?;
    same("its snapshot", registry.snapshot(&document.id).await?, None)?;
    document.commit(&[change(1, 1)]).await?;
    let meta = document.meta().await?;
    let mut other = NewDocument::new(document.id.clone(), EngineId::YRS, STALE);
    other.mode = EpochMode::Discard;
    other.snapshot = Some(Snapshot::new(
        Seq(5),
        Digest(5),
        Bytes::from_static(b"other"),
    ));
    same("create of what exists", registry.create(other).await?, meta)?;
    same("its snapshot", registry.snapshot(&document.id).await?, None)?;
    document.holds_all_after(0).await
}

pub(super) async fn a_document_can_start_with_a_snapshot(registry: &dyn ServerRegistry) -> Checked {
    let snapshot = Snapshot::new(Seq(7), Digest(0xd16e_57ed), Bytes::from_static(b"state"));
    let mut new = NewDocument::new(document_id("restored")?, EngineId::MERGEABLE, EPOCH);
    new.mode = EpochMode::Merge;
    new.snapshot = Some(snapshot.clone());
    let mut document = Document::create_with(registry, new.clone()).await?;
    let mut meta = DocumentMeta::new(new.id.clone(), EngineId::MERGEABLE, EPOCH, EpochMode::Merge);
    meta.head = Seq(7);
    meta.digest = snapshot.digest;
    meta.snapshot_seq = Seq(7);
    meta.log_start = Seq(7);
    same("meta", document.meta().await?, meta)?;
    same(
        "snapshot",
        registry.snapshot(&new.id).await?,
        Some(snapshot),
    )?;
    let compacted = Tail::Compacted {
        epoch: EPOCH,
        log_start: Seq(7),
    };
    same(
        "the tail before it",
        registry.tail(&new.id, Seq(6), EVERYTHING).await?,
        compacted,
    )?;
    document.commit(&[change(1, 1), change(1, 2)]).await?;
    document.holds_all_after(7).await?;

    let mut at_zero = NewDocument::new(document_id("at zero")?, EngineId::OPAQUE, EPOCH);
    at_zero.snapshot = Some(Snapshot::new(
        Seq::ZERO,
        Digest::EMPTY,
        Bytes::from_static(b"state"),
    ));
    let refused = |error: &RegistryError| matches!(error, RegistryError::Refused { .. });
    fails(
        "create with a snapshot at 0",
        registry.create(at_zero.clone()).await,
        refused,
    )?;
    same("heads", registry.heads(&[at_zero.id]).await?, vec![None])
}

pub(super) async fn tail_pages_by_bytes_with_at_least_one_change(
    registry: &dyn ServerRegistry,
) -> Checked {
    let mut document = Document::create(registry, "d").await?;
    for (number, size) in (1..).zip([10, 20, 30, 40, 1000, 5, 5]) {
        document
            .commit(&[with_bytes(change(1, number), vec![0xa5; size])])
            .await?;
    }
    for (max_bytes, promised) in [
        (0, vec![1, 1, 1, 1, 1, 1, 1]),
        (29, vec![1, 1, 1, 1, 1, 2]),
        (60, vec![3, 1, 1, 2]),
        (100, vec![4, 1, 2]),
        (usize::MAX, vec![7]),
    ] {
        let mut pages = Vec::new();
        let mut after = Seq::ZERO;
        loop {
            let tail = registry.tail(&document.id, after, max_bytes).await?;
            let Tail::Changes { changes, head, .. } = tail else {
                return Err(Failure(format!("tail after {after}: found {tail:?}")));
            };
            same("head with a page", head, document.head())?;
            let Some(last) = changes.last() else { break };
            let of_model = document
                .rows_after(after)
                .into_iter()
                .take(changes.len())
                .collect();
            after = last.seq;
            pages.push(changes.len());
            same("rows of a page", changes, of_model)?;
        }
        same(
            &format!("sizes of pages of {max_bytes} bytes"),
            pages,
            promised,
        )?;
    }
    Ok(())
}

pub(super) async fn tail_tells_the_digest_at_every_position(
    registry: &dyn ServerRegistry,
) -> Checked {
    let mut document = Document::create(registry, "d").await?;
    // Equal bytes under other numbers, so that a digest of bytes alone is found out.
    for number in 1..=4 {
        document
            .commit(&[with_bytes(change(1, number), "same")])
            .await?;
    }
    for after in 0..=4 {
        document.holds_all_after(after).await?;
    }
    for after in [5, u64::MAX] {
        let beyond = Tail::BeyondHead {
            epoch: EPOCH,
            head: Seq(4),
        };
        same(
            "tail beyond the head",
            registry.tail(&document.id, Seq(after), EVERYTHING).await?,
            beyond,
        )?;
    }
    Ok(())
}

pub(super) async fn list_pages_in_byte_order(registry: &dyn ServerRegistry) -> Checked {
    // In byte order, which is neither that of any language nor that of lengths.
    let names = ["A", "B", "a", "a/b", "ab", "b", "z", "ä", "\u{1f600}"];
    for (name, epoch) in names.iter().rev().zip(0..) {
        registry
            .create(NewDocument::new(
                document_id(name)?,
                EngineId::OPAQUE,
                Epoch(epoch),
            ))
            .await?;
    }
    registry.delete(&document_id("ab")?).await?;
    let live: Vec<_> = names.into_iter().filter(|name| *name != "ab").collect();
    for limit in [1, 2, 3, 100] {
        let mut found: Vec<DocumentMeta> = Vec::new();
        loop {
            let page = registry
                .list(found.last().map(|meta| &meta.id), limit)
                .await?;
            that(page.len() <= limit, || {
                format!("a page of at most {limit}: found {}", page.len())
            })?;
            if page.is_empty() {
                break;
            }
            found.extend(page);
            that(found.len() <= live.len(), || {
                format!("list in pages of {limit}: found {found:?}")
            })?;
        }
        let ids: Vec<_> = found.iter().map(|meta| meta.id.as_str()).collect();
        same("ids listed", ids, live.clone())?;
        for meta in found {
            same("what is listed", registry.meta(&meta.id).await?, meta)?;
        }
    }
    same("a list of none", registry.list(None, 0).await?, Vec::new())?;
    let after_missing = registry.list(Some(&document_id("aa")?), 1).await?;
    same(
        "after an id that is missing",
        after_missing.first().map(|meta| meta.id.as_str()),
        Some("b"),
    )
}

pub(super) async fn heads_come_in_the_order_asked(registry: &dyn ServerRegistry) -> Checked {
    let mut one = Document::create(registry, "one").await?;
    let mut two = Document::create(registry, "two").await?;
    let empty = Document::create(registry, "empty").await?;
    let gone = Document::create(registry, "gone").await?;
    one.commit(&[change(1, 1)]).await?;
    two.commit(&[change(1, 1), change(1, 2)]).await?;
    registry.delete(&gone.id).await?;
    let [at_one, at_two] = [one.meta().await?.cursor(), two.meta().await?.cursor()];
    let asked = [
        two.id.clone(),
        document_id("missing")?,
        one.id,
        gone.id,
        empty.id,
        two.id,
    ];
    let promised = vec![
        Some(at_two),
        None,
        Some(at_one),
        None,
        Some(Cursor::start(EPOCH)),
        Some(at_two),
    ];
    same("sequences", (at_one.seq, at_two.seq), (Seq(1), Seq(2)))?;
    same("heads", registry.heads(&asked).await?, promised)?;
    same("heads of nothing", registry.heads(&[]).await?, Vec::new())
}

pub(super) async fn the_size_counts_the_snapshot_and_what_is_after_it(
    registry: &dyn ServerRegistry,
) -> Checked {
    let mut document = Document::create(registry, "d").await?;
    let size = registry.size(&document.id).await?;
    let snapshot = (size.head, size.snapshot_seq, size.snapshot_bytes);
    same("of nothing", snapshot, (Seq::ZERO, Seq::ZERO, 0))?;
    same("the log of nothing", size.log_bytes, 0)?;
    // Large enough to tell the changes from what it takes to store them.
    for number in 1..=6 {
        let large = with_bytes(change(1, number), vec![7; 10_000]);
        document.commit(&[large]).await?;
    }
    let size = registry.size(&document.id).await?;
    same("its head", size.head, Seq(6))?;
    is_about("of six changes", size.log_bytes, 60_000)?;
    let mut snapshot = document.snapshot(4, "");
    snapshot.bytes = vec![1; 5_000].into();
    document.compact(snapshot, 2).await?;
    let size = registry.size(&document.id).await?;
    let snapshot = (size.head, size.snapshot_seq, size.snapshot_bytes);
    same("of a snapshot", snapshot, (Seq(6), Seq(4), 5_000))?;
    is_about("of the two after it", size.log_bytes, 20_000)
}

/// At least as much, and not twice as much.
fn is_about(what: &str, found: u64, bytes: u64) -> Checked {
    that((bytes..2 * bytes).contains(&found), || {
        format!("{what}: found {found} bytes, there are {bytes}")
    })
}

pub(super) async fn origins_tell_user_last_number_and_position(
    registry: &dyn ServerRegistry,
) -> Checked {
    let mut document = Document::create(registry, "d").await?;
    document
        .commit(&[
            change_by("ada", 1, 1),
            change_by("bob", 2, 1),
            change_by("ada", 1, 2),
        ])
        .await?;
    // What is refused leaves no trace.
    document
        .append(&[forged(1, 1), change_by("eve", 2, 2), change(9, 2)])
        .await?;
    let asked = [OriginId(2), OriginId(9), OriginId(1), OriginId(2)];
    let ada = Some(OriginEntry::new(OriginId(1), user("ada"), 2, Seq(3)));
    let bob = Some(OriginEntry::new(OriginId(2), user("bob"), 1, Seq(2)));
    let found = registry.origins(&document.id, &asked).await?;
    same("origins", found, vec![bob.clone(), None, ada, bob])?;
    same(
        "origins of none",
        registry.origins(&document.id, &[]).await?,
        Vec::new(),
    )
}

pub(super) async fn a_deleted_document_stays_deleted(registry: &dyn ServerRegistry) -> Checked {
    let mut document = Document::create(registry, "d").await?;
    let mut other = Document::create(registry, "other").await?;
    document.commit(&[change(1, 1)]).await?;
    registry.delete(&document.id).await?;
    let deleted = |error: &RegistryError| matches!(error, RegistryError::Deleted);
    every_read_fails(registry, "d", deleted).await?;
    let again = NewDocument::new(document.id.clone(), EngineId::OPAQUE, STALE);
    fails("create", registry.create(again).await, deleted)?;
    registry.delete(&document.id).await?;
    every_read_fails(registry, "d", deleted).await?;
    same(
        "the other document",
        other.append(&[change(1, 1)]).await?,
        vec![Outcome::At(Seq(1))],
    )?;
    other.add(&change(1, 1));
    other.holds_all_after(0).await
}
