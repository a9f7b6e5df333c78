//! Outcomes of `append`.

use bytes::Bytes;
use sync_core::history::Seq;

use super::fixture::{
    Document, EPOCH, STALE, change, change_by, document_id, fails, forged, same, that, with_bytes,
};
use super::{Checked, ServerRegistry};
use crate::registry::{Outcome, RegistryError};

pub(super) async fn commits_are_numbered_from_one_without_holes(
    registry: &dyn ServerRegistry,
) -> Checked {
    let mut document = Document::create(registry, "d").await?;
    document.holds_all_after(0).await?;
    document
        .commit(&[change(1, 1), change(1, 2), change(1, 3)])
        .await?;
    document.commit(&[change(2, 1)]).await?;
    document
        .commit(&[change(1, 4), change(2, 2), change(3, 1)])
        .await?;
    document.holds_all_after(0).await
}

pub(super) async fn an_append_of_nothing_does_nothing(registry: &dyn ServerRegistry) -> Checked {
    let document = Document::create(registry, "d").await?;
    same("outcomes", document.append(&[]).await?, Vec::new())?;
    document.holds_all_after(0).await
}

pub(super) async fn bytes_and_names_are_kept_as_they_are(registry: &dyn ServerRegistry) -> Checked {
    let all_bytes: Vec<u8> = (0..=255).collect();
    let longest = "ä".repeat(127) + "x";
    for name in [
        "a",
        "A",
        "../a",
        "a/b/",
        " ",
        "\u{0}",
        "a\u{301}",
        "á",
        "%2e",
        "con",
        longest.as_str(),
    ] {
        let mut document = Document::create(registry, name).await?;
        let contents = [
            Bytes::new(),
            Bytes::from(all_bytes.clone()),
            Bytes::from(vec![7; 1 << 20]),
            name.to_owned().into(),
        ];
        let changes: Vec<_> = (1..)
            .zip(contents)
            .map(|(number, bytes)| with_bytes(change(u128::MAX, number), bytes))
            .collect();
        document.commit(&changes).await?;
        document.holds_all_after(0).await?;
    }
    Ok(())
}

pub(super) async fn a_repeat_is_a_duplicate_and_changes_nothing(
    registry: &dyn ServerRegistry,
) -> Checked {
    let mut document = Document::create(registry, "d").await?;
    document
        .commit(&[change(1, 1), change(2, 1), change(1, 2), change(1, 3)])
        .await?;
    let duplicate = |last, seq| Outcome::Duplicate {
        last,
        seq: Some(Seq(seq)),
    };
    let repeated = document
        .append(&[change(1, 1), change(2, 1), change(1, 2)])
        .await?;
    same(
        "outcomes of a repeat",
        repeated,
        vec![duplicate(3, 1), duplicate(1, 2), duplicate(3, 3)],
    )?;
    let half_new = document.append(&[change(1, 3), change(1, 4)]).await?;
    same(
        "outcomes of a repeat that goes on",
        half_new,
        vec![duplicate(3, 4), Outcome::At(Seq(5))],
    )?;
    document.add(&change(1, 4));
    document.holds_all_after(0).await
}

pub(super) async fn changes_see_the_ones_before_them_in_the_call(
    registry: &dyn ServerRegistry,
) -> Checked {
    let mut document = Document::create(registry, "d").await?;
    let outcomes = document
        .append(&[change(1, 1), change(1, 1), forged(1, 1)])
        .await?;
    let duplicate = Outcome::Duplicate {
        last: 1,
        seq: Some(Seq(1)),
    };
    same(
        "outcomes",
        outcomes,
        vec![Outcome::At(Seq(1)), duplicate, Outcome::IdReused],
    )?;
    document.add(&change(1, 1));
    let outcomes = document
        .append(&[change_by("ada", 2, 1), change_by("bob", 2, 2)])
        .await?;
    same(
        "outcomes",
        outcomes,
        vec![Outcome::At(Seq(2)), Outcome::ForeignOrigin],
    )?;
    document.add(&change(2, 1));
    document.holds_all_after(0).await
}

pub(super) async fn an_id_used_for_other_bytes_is_refused(
    registry: &dyn ServerRegistry,
) -> Checked {
    let mut document = Document::create(registry, "d").await?;
    document.commit(&[change(1, 1), change(1, 2)]).await?;
    for number in [1, 2] {
        same(
            "outcomes",
            document.append(&[forged(1, number)]).await?,
            vec![Outcome::IdReused],
        )?;
    }
    let longer = with_bytes(change(1, 1), [&change(1, 1).bytes[..], b"!"].concat());
    same(
        "outcomes",
        document.append(&[longer]).await?,
        vec![Outcome::IdReused],
    )?;
    document.holds_all_after(0).await
}

pub(super) async fn skipped_numbers_are_a_gap(registry: &dyn ServerRegistry) -> Checked {
    let mut document = Document::create(registry, "d").await?;
    let gap = |expected| vec![Outcome::Gap { expected }];
    same(
        "a new origin that starts at 2",
        document.append(&[change(1, 2)]).await?,
        gap(1),
    )?;
    same(
        "number 0 of a new origin",
        document.append(&[change(1, 0)]).await?,
        gap(1),
    )?;
    document.commit(&[change(1, 1), change(1, 2)]).await?;
    same(
        "a number skipped",
        document.append(&[change(1, 4)]).await?,
        gap(3),
    )?;
    same("number 0", document.append(&[change(1, 0)]).await?, gap(3))?;
    same(
        "the last number of all",
        document.append(&[change(1, u64::MAX)]).await?,
        gap(3),
    )?;
    document.commit(&[change(1, 3)]).await?;
    document.holds_all_after(0).await
}

pub(super) async fn an_origin_belongs_to_its_first_user(registry: &dyn ServerRegistry) -> Checked {
    let mut document = Document::create(registry, "d").await?;
    document
        .commit(&[change_by("ada", 1, 1), change_by("bob", 2, 1)])
        .await?;
    for number in [1, 2, 9] {
        let outcomes = document.append(&[change_by("bob", 1, number)]).await?;
        same(
            "another user's change",
            outcomes,
            vec![Outcome::ForeignOrigin],
        )?;
    }
    document.commit(&[change_by("ada", 1, 2)]).await?;
    document.holds_all_after(0).await
}

pub(super) async fn a_refused_change_stops_its_origin_and_nobody_else(
    registry: &dyn ServerRegistry,
) -> Checked {
    let mut document = Document::create(registry, "d").await?;
    document
        .commit(&[change(1, 1), change(2, 1), change(3, 1)])
        .await?;
    let call = [
        forged(1, 1),
        change(2, 3),
        change_by("bob", 3, 2),
        change(1, 2),
        change(2, 2),
        change_by("bob", 3, 2),
        change(3, 2),
        change(4, 1),
    ];
    let outcomes = document.append(&call).await?;
    let promised = matches!(
        outcomes[..],
        [
            Outcome::IdReused,
            Outcome::Gap { expected: 2 },
            Outcome::ForeignOrigin,
            Outcome::Gap { .. },
            Outcome::Gap { .. },
            Outcome::Gap { .. },
            Outcome::At(Seq(4)),
            Outcome::At(Seq(5)),
        ]
    );
    that(promised, || format!("outcomes: found {outcomes:?}"))?;
    document.add(&change(3, 2));
    document.add(&change(4, 1));
    document.holds_all_after(0).await?;
    document.commit(&[change(1, 2), change(2, 2)]).await
}

pub(super) async fn origins_count_per_document(registry: &dyn ServerRegistry) -> Checked {
    let mut one = Document::create(registry, "one").await?;
    let mut other = Document::create(registry, "other").await?;
    one.commit(&[change_by("ada", 1, 1), change_by("ada", 1, 2)])
        .await?;
    other.commit(&[change_by("bob", 1, 1)]).await?;
    one.holds_all_after(0).await?;
    other.holds_all_after(0).await
}

pub(super) async fn a_stale_epoch_is_fenced(registry: &dyn ServerRegistry) -> Checked {
    let mut document = Document::create(registry, "d").await?;
    document.commit(&[change(1, 1)]).await?;
    let fenced = |error: &RegistryError| matches!(error, RegistryError::Fenced { current: EPOCH });
    for (expect, changes) in [
        (None, vec![change(1, 2)]),
        (Some(Seq(9)), vec![change(1, 2)]),
        (None, Vec::new()),
    ] {
        fails(
            "append",
            registry.append(&document.id, STALE, expect, changes).await,
            fenced,
        )?;
    }
    document.holds_all_after(0).await
}

pub(super) async fn an_unexpected_head_is_a_conflict(registry: &dyn ServerRegistry) -> Checked {
    let mut document = Document::create(registry, "d").await?;
    let id = document_id("d")?;
    let append = |expect, change| registry.append(&id, EPOCH, Some(Seq(expect)), vec![change]);
    same(
        "at the head",
        append(0, change(1, 1)).await?,
        vec![Outcome::At(Seq(1))],
    )?;
    document.add(&change(1, 1));
    for expect in [0, 2] {
        let conflict =
            |error: &RegistryError| matches!(error, RegistryError::Conflict { head: Seq(1) });
        fails("elsewhere", append(expect, change(1, 2)).await, conflict)?;
    }
    same(
        "at the head",
        append(1, change(1, 2)).await?,
        vec![Outcome::At(Seq(2))],
    )?;
    document.add(&change(1, 2));
    document.holds_all_after(0).await
}
