//! When a room has its log folded, and what of the log stays.

use super::*;
use crate::engine::EngineError;

/// A room that folds every so many changes.
fn folding(changes: u64, keep_bytes: usize) -> World {
    World::with(|config| {
        config.fold_changes = changes;
        config.keep_bytes = keep_bytes;
        config.keep_age = Duration::ZERO;
        config.pin_bytes_max = 100;
    })
}

impl World {
    /// Ten bytes each.
    fn push_tens(&mut self, session: SessionId, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            self.push(session, number, &[&format!("{number:010}")]);
        }
    }

    /// What a driver makes of a request.
    fn folded(&mut self, request: &FoldRequest) -> FoldedLog {
        let from = self.registry.log_start;
        let rows = match self.registry.tail(Seq(from), usize::MAX) {
            Ok(Tail::Changes { changes, .. }) => changes,
            other => panic!("{other:?}"),
        };
        let rows = rows.iter().filter(|row| row.seq <= request.through);
        let rows: Vec<_> = rows.map(|row| row.bytes.clone()).collect();
        let bytes = NoBang.fold(None, &rows).unwrap();
        let digest = self.registry.digest(request.through.0);
        FoldedLog::new(
            Snapshot::new(request.through, digest, bytes),
            rows.iter().map(Bytes::len).collect(),
        )
    }

    fn answer_fold(&mut self, result: Result<FoldedLog, FoldError>) {
        self.room.handle_folded(self.now, result);
        self.run();
    }

    /// Answers the one fold that is asked for.
    fn fold(&mut self) -> FoldRequest {
        let request = self.folds.pop_front().unwrap();
        assert!(self.folds.is_empty(), "one at a time");
        let folded = self.folded(&request);
        self.answer_fold(Ok(folded));
        request
    }

    fn snapshot_seq(&self) -> Option<u64> {
        self.registry.snapshot.as_ref().map(|found| found.seq.0)
    }

    fn failures(&self) -> Vec<u64> {
        let failed = self.events.iter().filter_map(|event| match event {
            RoomEvent::FoldFailed { through, .. } => Some(through.0),
            _ => None,
        });
        failed.collect()
    }
}

fn failure() -> FoldError {
    FoldError::Engine(EngineError::Incomplete)
}

#[test]
fn a_log_is_folded_at_its_threshold_and_then_when_it_has_grown_as_much_again() {
    let mut world = folding(5, 0);
    world.open(ADA);
    world.push_tens(ADA, 1..=4);
    assert!(world.folds.is_empty());
    world.push_tens(ADA, 5..=7);
    world.all(ADA);
    let request = world.fold();
    assert_eq!((request.after, request.through), (Seq(0), Seq(5)));
    assert_eq!(
        (world.snapshot_seq(), world.registry.log_start),
        (Some(5), 5)
    );
    let folded = world.events.iter().any(|event| {
        matches!(event, RoomEvent::Folded { seq, bytes: 50, keep_after, .. }
            if (*seq, *keep_after) == (Seq(5), Seq(5)))
    });
    assert!(folded, "{:?}", world.events);
    world.push_tens(ADA, 8..=9);
    assert!(world.folds.is_empty());
    world.push_tens(ADA, 10..=10);
    assert_eq!(world.fold().through, Seq(10));
}

#[test]
fn the_newest_rows_stay_by_their_bytes() {
    for (keep, log_start) in [
        (0, 10),
        (9, 10),
        (10, 9),
        (55, 5),
        (100, 0),
        (usize::MAX, 0),
    ] {
        let mut world = folding(10, keep);
        world.open(ADA);
        world.push_tens(ADA, 1..=10);
        world.all(ADA);
        world.fold();
        assert_eq!(world.registry.log_start, log_start, "{keep}");
    }
}

#[test]
fn rows_younger_than_the_age_stay_within_the_larger_bound() {
    let minute = Duration::from_secs(60);
    // Ten rows of ten bytes, a minute apart, and a bound of a hundred bytes. Those from before the room count from there.
    for (keep_bytes, age, log_start) in [
        (0, minute * 3, 7),
        (0, Duration::from_secs(1), 9),
        (50, minute * 3, 5),
        (0, minute * 60, 0),
    ] {
        let mut world = World::with(|config| {
            config.fold_changes = 10;
            config.keep_bytes = keep_bytes;
            config.keep_age = age;
            config.pin_bytes_max = 100;
        });
        world.open(ADA);
        for number in 1..=10 {
            world.pass(minute);
            world.push_tens(ADA, number..=number);
            world.all(ADA);
        }
        world.fold();
        assert_eq!(world.registry.log_start, log_start, "{age:?}");
    }
    let mut world = World::with(|config| {
        config.fold_changes = 30;
        config.keep_bytes = 0;
        config.keep_age = minute;
        config.pin_bytes_max = 50;
    });
    world.open(ADA);
    world.push_tens(ADA, 1..=30);
    world.all(ADA);
    let request = world.folds.pop_front().unwrap();
    let mut folded = world.folded(&request);
    folded.snapshot.bytes = Bytes::from_static(b"small");
    world.answer_fold(Ok(folded));
    assert_eq!(
        world.registry.log_start, 25,
        "fifty bytes stay, however young"
    );
}

#[test]
fn rows_from_before_the_room_stay_until_it_is_as_old_as_they_may_be() {
    let hour = Duration::from_secs(3_600);
    for (waits, log_start) in [(hour / 2, 0), (hour, 20)] {
        let mut world = World::with(|config| {
            config.fold_changes = 5;
            config.keep_bytes = 0;
            config.keep_age = hour;
        })
        .with_log((0..20).map(|n| n.to_string()));
        world.open(ADA);
        world.pass(waits);
        world.push(ADA, 1, &["x"]);
        world.all(ADA);
        world.fold();
        assert_eq!(world.registry.log_start, log_start, "{waits:?}");
    }
}

#[test]
fn what_a_member_has_yet_to_be_sent_stays_within_bounds() {
    // At most 100 bytes, or twice the snapshot.
    for (read, changes, log_start) in [(3, 8, 3), (0, 8, 0), (8, 8, 8)] {
        let mut world = folding(changes, 0);
        world.open(ADA);
        world.open(BOB);
        world.push_tens(ADA, 1..=read);
        world.all(BOB);
        world.push_tens(ADA, read + 1..=changes);
        world.all(ADA);
        world.fold();
        assert_eq!(world.registry.log_start, log_start, "{read}");
        // Whatever is there is enough to go on.
        world.push(ADA, changes + 1, &["next"]);
        assert_eq!(
            world.follow(BOB, read).last().map(String::as_str),
            Some("next")
        );
    }
    let mut world = folding(30, 0);
    world.open(ADA);
    world.open(BOB);
    world.push_tens(ADA, 1..=30);
    world.all(ADA);
    let request = world.folds.pop_front().unwrap();
    let mut folded = world.folded(&request);
    folded.snapshot.bytes = Bytes::from_static(b"small");
    world.answer_fold(Ok(folded));
    assert_eq!(world.registry.log_start, 20, "a hundred bytes stay");
}

#[test]
fn a_fold_that_failed_is_tried_again_when_the_log_is_twice_as_long() {
    let mut world = folding(5, 0);
    world.open(ADA);
    for number in 1..=40 {
        world.push_tens(ADA, number..=number);
        if world.folds.pop_front().is_some() {
            world.answer_fold(Err(failure()));
        }
    }
    assert_eq!(world.failures(), [5, 10, 20, 40]);
    assert_eq!(world.snapshot_seq(), None);
    assert_eq!(world.logged().len(), 40);
}

#[test]
fn a_newer_snapshot_of_somebody_else_is_no_failure() {
    let mut world = folding(5, 0);
    world.open(ADA);
    world.push_tens(ADA, 1..=5);
    world.folds.pop_front().unwrap();
    world.answer_fold(Err(FoldError::Newer { seq: Seq(4) }));
    world.push_tens(ADA, 6..=8);
    assert!(world.folds.is_empty());
    world.push_tens(ADA, 9..=9);
    let request = world.folds.pop_front().unwrap();
    assert_eq!((request.after, request.through), (Seq(4), Seq(9)));
    assert!(world.failures().is_empty());
}

#[test]
fn a_fold_of_a_history_that_was_replaced_meanwhile_is_dropped() {
    let mut world = folding(5, 0);
    world.open(ADA);
    world.push_tens(ADA, 1..=5);
    let request = world.folds.pop_front().unwrap();
    let folded = world.folded(&request);
    if let Some(meta) = &mut world.registry.meta {
        meta.epoch = Epoch(8);
    }
    world.open(BOB);
    world.answer_fold(Ok(folded));
    assert_eq!((world.snapshot_seq(), world.registry.log_start), (None, 0));
    assert!(world.failures().is_empty());
}

#[test]
fn reading_a_long_log_does_not_have_it_folded_and_writing_to_it_does() {
    let mut world = folding(5, 0).with_log((0..20).map(|n| n.to_string()));
    world.open(ADA);
    assert!(world.folds.is_empty());
    world.push(ADA, 1, &["x"]);
    assert_eq!(world.folds.len(), 1);
}

#[test]
fn a_room_stays_until_its_fold_is_over() {
    let mut world = folding(5, 0);
    world.open(ADA);
    world.push_tens(ADA, 1..=5);
    world.room.handle_close(world.now, ADA);
    world.run();
    world.pass(Duration::from_secs(3_600));
    assert_eq!(world.room.phase(), RoomPhase::Live);
    world.fold();
    assert!(matches!(world.room.phase(), RoomPhase::Draining { .. }));
    world.pass_to_timeout();
    assert!(world.is_unloaded);
}

#[test]
fn a_fold_of_another_sequence_than_was_asked_for_is_none() {
    let mut world = folding(5, 0);
    world.open(ADA);
    world.push_tens(ADA, 1..=6);
    let request = world.folds.pop_front().unwrap();
    let mut folded = world.folded(&request);
    folded.snapshot.seq = Seq(4);
    folded.snapshot.digest = world.registry.digest(4);
    world.answer_fold(Ok(folded));
    assert_eq!(world.failures(), [5]);
    assert_eq!(world.snapshot_seq(), None);
}

#[test]
fn an_open_does_not_make_the_log_count_from_the_start() {
    let mut world = World::with(|config| {
        (config.fold_changes, config.fold_bytes) = (u64::MAX, 50);
    });
    world.open(ADA);
    world.push_tens(ADA, 1..=4);
    world.open(BOB);
    assert!(world.folds.is_empty());
    world.push_tens(ADA, 5..=5);
    assert_eq!(world.folds.len(), 1);
}
