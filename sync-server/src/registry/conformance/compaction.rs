//! What `compact` and `trim` keep, drop and refuse.

use sync_core::history::{Digest, EpochMode, Seq};
use sync_core::ids::OriginId;

use super::fixture::{
    Document, EPOCH, EVERYTHING, STALE, TRIMMED, change, change_by, fails, forged, same, that, user,
};
use super::{Checked, ServerRegistry};
use crate::registry::{
    NewChange, ORIGINS_PER_USER_MAX, OriginEntry, Outcome, RegistryError, Snapshot, Tail,
};

async fn six_changes<'a>(registry: &'a dyn ServerRegistry) -> Result<Document<'a>, super::Failure> {
    let mut document = Document::create(registry, "d").await?;
    let changes: Vec<_> = (1..=6).map(|number| change(1, number)).collect();
    document.commit(&changes).await?;
    Ok(document)
}

/// The snapshot is this one, the log starts there, and holds all that follows.
async fn starts_at(document: &Document<'_>, snapshot: Snapshot, log_start: u64) -> Checked {
    let meta = document.meta().await?;
    same(
        "meta's snapshot and log start",
        (meta.snapshot_seq, meta.log_start),
        (snapshot.seq, Seq(log_start)),
    )?;
    same(
        "the snapshot",
        document.registry.snapshot(&document.id).await?,
        Some(snapshot),
    )?;
    for after in 0..log_start {
        let compacted = Tail::Compacted {
            epoch: document.epoch,
            log_start: Seq(log_start),
        };
        let tail = document
            .registry
            .tail(&document.id, Seq(after), EVERYTHING)
            .await?;
        same("the tail before the log", tail, compacted)?;
    }
    for after in log_start..=document.head().0 {
        document.holds_all_after(after).await?;
    }
    Ok(())
}

pub(super) async fn a_snapshot_replaces_the_rows_through_keep_after(
    registry: &dyn ServerRegistry,
) -> Checked {
    let mut document = six_changes(registry).await?;
    document.compact(document.snapshot(5, "five"), 3).await?;
    starts_at(&document, document.snapshot(5, "five"), 3).await?;
    document.commit(&[change(1, 7)]).await?;
    starts_at(&document, document.snapshot(5, "five"), 3).await?;
    document.compact(document.snapshot(7, "seven"), 5).await?;
    starts_at(&document, document.snapshot(7, "seven"), 5).await
}

pub(super) async fn the_log_goes_on_after_everything_was_folded(
    registry: &dyn ServerRegistry,
) -> Checked {
    let mut document = six_changes(registry).await?;
    document.compact(document.snapshot(6, "six"), 6).await?;
    starts_at(&document, document.snapshot(6, "six"), 6).await?;
    document.commit(&[change(1, 7), change(2, 1)]).await?;
    starts_at(&document, document.snapshot(6, "six"), 6).await
}

pub(super) async fn a_snapshot_that_contradicts_the_log_is_refused(
    registry: &dyn ServerRegistry,
) -> Checked {
    let document = six_changes(registry).await?;
    document.compact(document.snapshot(3, "three"), 2).await?;
    let refused = |error: &RegistryError| matches!(error, RegistryError::Refused { .. });
    let with = |seq: u64, digest: Digest| Snapshot::new(Seq(seq), digest, "wrong".into());
    for (what, snapshot, keep_after) in [
        ("another digest", with(5, Digest(1)), 5),
        (
            "the digest of another sequence",
            with(5, document.digest_at(Seq(4))),
            5,
        ),
        (
            "another digest at the present snapshot",
            with(3, Digest(1)),
            3,
        ),
        ("beyond the head", with(7, document.digest()), 6),
        ("sequence 0", with(0, Digest::EMPTY), 0),
        (
            "rows dropped that it does not cover",
            document.snapshot(5, "wrong"),
            6,
        ),
    ] {
        fails(what, document.compact(snapshot, keep_after).await, refused)?;
    }
    let fenced = |error: &RegistryError| matches!(error, RegistryError::Fenced { current: EPOCH });
    let stale = registry
        .compact(&document.id, STALE, document.snapshot(5, "stale"), Seq(5))
        .await;
    fails("a stale epoch", stale, fenced)?;
    starts_at(&document, document.snapshot(3, "three"), 2).await
}

pub(super) async fn an_older_snapshot_changes_nothing(registry: &dyn ServerRegistry) -> Checked {
    let document = six_changes(registry).await?;
    document.compact(document.snapshot(5, "five"), 2).await?;
    document.compact(document.snapshot(4, "four"), 4).await?;
    starts_at(&document, document.snapshot(5, "five"), 2).await
}

pub(super) async fn a_snapshot_at_the_same_sequence_drops_more_rows(
    registry: &dyn ServerRegistry,
) -> Checked {
    let document = six_changes(registry).await?;
    document.compact(document.snapshot(5, "five"), 0).await?;
    starts_at(&document, document.snapshot(5, "five"), 0).await?;
    document.compact(document.snapshot(5, "again"), 4).await?;
    starts_at(&document, document.snapshot(5, "again"), 4).await?;
    // What is dropped stays dropped.
    document.compact(document.snapshot(6, "six"), 1).await?;
    starts_at(&document, document.snapshot(6, "six"), 4).await
}

pub(super) async fn a_trim_begins_a_new_history_at_the_head(
    registry: &dyn ServerRegistry,
) -> Checked {
    let mut document = six_changes(registry).await?;
    document.compact(document.snapshot(3, "three"), 2).await?;
    let trimmed = document.snapshot(6, "trimmed");
    let id = document.id.clone();
    let trim = || registry.trim(&id, EPOCH, trimmed.clone(), TRIMMED);
    trim().await?;
    document.epoch = TRIMMED;
    let meta = document.meta().await?;
    same(
        "meta's epoch and mode",
        (meta.epoch, meta.mode),
        (TRIMMED, EpochMode::Rebase),
    )?;
    let heads = registry.heads(std::slice::from_ref(&id)).await?;
    same("heads", heads, vec![Some(meta.cursor())])?;
    starts_at(&document, trimmed.clone(), 6).await?;
    let fenced =
        |error: &RegistryError| matches!(error, RegistryError::Fenced { current: TRIMMED });
    let stale = registry.append(&id, EPOCH, None, vec![change(1, 7)]).await;
    fails("an append of the history before", stale, fenced)?;
    // Whoever did not hear that its changes were committed hears it now.
    let entry = OriginEntry::new(OriginId(1), user("ada"), 6, Seq(6));
    let origins = registry.origins(&id, &[OriginId(1)]).await?;
    same("the origin", origins, vec![Some(entry)])?;
    document.commit(&[change(1, 7), change(2, 1)]).await?;
    trim().await?;
    starts_at(&document, trimmed, 6).await?;
    document.compact(document.snapshot(8, "eight"), 8).await?;
    starts_at(&document, document.snapshot(8, "eight"), 8).await
}

pub(super) async fn a_trim_that_is_not_of_the_head_is_refused(
    registry: &dyn ServerRegistry,
) -> Checked {
    let document = six_changes(registry).await?;
    document.compact(document.snapshot(3, "three"), 2).await?;
    let id = &document.id;
    let head = document.snapshot(6, "wrong");
    let conflict =
        |error: &RegistryError| matches!(error, RegistryError::Conflict { head: Seq(6) });
    for seq in [3, 5, 7] {
        let elsewhere = Snapshot::new(Seq(seq), head.digest, "wrong".into());
        let trimmed = registry.trim(id, EPOCH, elsewhere, TRIMMED).await;
        fails("a snapshot that is not of the head", trimmed, conflict)?;
    }
    let refused = |error: &RegistryError| matches!(error, RegistryError::Refused { .. });
    let other = Snapshot::new(Seq(6), Digest(1), "wrong".into());
    let trimmed = registry.trim(id, EPOCH, other, TRIMMED).await;
    fails("another digest", trimmed, refused)?;
    let trimmed = registry.trim(id, EPOCH, head.clone(), EPOCH).await;
    fails("no new epoch", trimmed, refused)?;
    let fenced = |error: &RegistryError| matches!(error, RegistryError::Fenced { current: EPOCH });
    let trimmed = registry.trim(id, STALE, head.clone(), TRIMMED).await;
    fails("a stale epoch", trimmed, fenced)?;
    let not_found = |error: &RegistryError| matches!(error, RegistryError::NotFound);
    let missing = super::fixture::document_id("missing")?;
    let trimmed = registry.trim(&missing, EPOCH, head, TRIMMED).await;
    fails("a missing document", trimmed, not_found)?;
    starts_at(&document, document.snapshot(3, "three"), 2).await
}

pub(super) async fn folded_changes_are_still_duplicates(registry: &dyn ServerRegistry) -> Checked {
    let mut document = six_changes(registry).await?;
    document.compact(document.snapshot(5, "five"), 4).await?;
    let outcomes = document
        .append(&[change(1, 2), change(1, 4), change(1, 5), change(1, 6)])
        .await?;
    for (outcome, stands) in outcomes.iter().zip([2, 4, 5, 6]) {
        let promised = match outcome {
            Outcome::Duplicate {
                last: 6,
                seq: Some(seq),
            } => *seq == Seq(stands),
            // A row that was dropped may be forgotten.
            Outcome::Duplicate { last: 6, seq: None } => stands <= 4,
            Outcome::Duplicate { .. }
            | Outcome::At(_)
            | Outcome::Gap { .. }
            | Outcome::ForeignOrigin
            | Outcome::IdReused => false,
        };
        that(promised, || {
            format!("the repeat of what stands at {stands}: found {outcome:?}")
        })?;
    }
    same("four outcomes", outcomes.len(), 4)?;
    same(
        "a forged row of the log",
        document.append(&[forged(1, 5)]).await?,
        vec![Outcome::IdReused],
    )?;
    let foreign = document.append(&[change_by("bob", 1, 2)]).await?;
    same("a foreign origin", foreign, vec![Outcome::ForeignOrigin])?;
    document.commit(&[change(1, 7)]).await?;
    document.holds_all_after(4).await
}

pub(super) async fn origins_in_the_log_are_never_forgotten(
    registry: &dyn ServerRegistry,
) -> Checked {
    let mut document = Document::create(registry, "d").await?;
    let per_user = u128::try_from(ORIGINS_PER_USER_MAX).unwrap_or(u128::MAX);
    let more = per_user + 20;
    let of = |name: &str, first: u128, count: u128| -> Vec<NewChange> {
        (first..first + count)
            .map(|origin| change_by(name, origin, 1))
            .collect()
    };
    // Ada's last ones are older than all of Bob's: each has a share of their own.
    document.commit(&of("ada", 1_000, more)).await?;
    document.commit(&of("bob", 2_000, more)).await?;
    let folded = document.head();
    document.commit(&of("ada", 3_000, more)).await?;
    document
        .compact(document.snapshot(folded.0, "folded"), folded.0)
        .await?;

    let remembered = async |name: &str, first: u128, count: u128, position: u64| -> Checked {
        let origins: Vec<_> = (first..first + count).map(OriginId).collect();
        let found = registry.origins(&document.id, &origins).await?;
        let promised = origins.iter().zip(position..);
        let promised = promised
            .map(|(origin, seq)| Some(OriginEntry::new(*origin, user(name), 1, Seq(seq))))
            .collect();
        same("origins", found, promised)
    };
    remembered("ada", 3_000, more, folded.0 + 1).await?;
    remembered("ada", 1_000 + more - per_user, per_user, 21).await?;
    remembered("bob", 2_000 + more - per_user, per_user, folded.0 + 1 - 100).await
}
