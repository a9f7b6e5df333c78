//! Folds of relayed documents, which clients are asked for.

use super::*;
use crate::wire::FoldOffer;

/// A room that has every five changes folded.
fn folding() -> World {
    World::with(|config| config.fold_changes = 5)
}

impl World {
    fn open_opaque(&mut self, session: SessionId, access: AccessLevel) {
        let request = OpenRequest {
            engine: EngineId::OPAQUE,
            access,
            ..self.request(session)
        };
        self.open_with(session, request);
    }

    fn asked(&mut self, session: SessionId) -> Vec<u64> {
        let asked = self
            .all(session)
            .into_iter()
            .filter_map(|message| match message {
                Message::FoldRequest(request) => Some(request.seq.0),
                _ => None,
            });
        asked.collect()
    }

    /// What an honest client offers.
    fn fold_at(&self, seq: u64) -> FoldOffer {
        let cursor = self.cursor(seq);
        FoldOffer {
            channel: CHANNEL,
            epoch: cursor.epoch,
            seq: cursor.seq,
            digest: cursor.digest,
            bytes: Bytes::from_static(b"folded"),
        }
    }

    fn offer(&mut self, session: SessionId, offer: FoldOffer) {
        self.room.handle_fold_offer(self.now, session, offer);
        self.run();
    }

    /// Answers what an offer made the room want: the rows have been read.
    fn read_rows(&mut self) {
        let request = self.folds.pop_front().unwrap();
        assert!(self.folds.is_empty(), "one at a time");
        let digest = self.registry.digest(request.through.0);
        let bytes = request.offered.unwrap();
        let rows = vec![1; usize::try_from(request.through.0).unwrap()];
        let folded = FoldedLog::new(Snapshot::new(request.through, digest, bytes), rows);
        self.room.handle_folded(self.now, Ok(folded));
        self.run();
    }

    fn offered_seq(&self) -> Option<u64> {
        self.registry.snapshot.as_ref().map(|found| found.seq.0)
    }
}

/// Scenario 60.
#[test]
fn exactly_one_client_that_may_maintain_is_asked_behind_the_last_change() {
    let mut world = folding();
    world.open_opaque(ADA, AccessLevel::Write);
    world.open_opaque(BOB, AccessLevel::Maintain);
    world.open_opaque(CYD, AccessLevel::Maintain);
    for number in 1..=4 {
        world.push(ADA, number, &["x"]);
    }
    for session in [ADA, BOB, CYD] {
        assert_eq!(world.asked(session), [0_u64; 0], "too few");
    }
    world.push(ADA, 5, &["x"]);
    assert_eq!(world.asked(ADA), [0_u64; 0], "it may not");
    let names = names(&[world.all(BOB), world.all(CYD)].concat());
    assert_eq!(
        names.iter().filter(|name| **name == "FoldRequest").count(),
        1
    );
    let at = names
        .iter()
        .position(|name| *name == "FoldRequest")
        .unwrap();
    assert_eq!(names[at - 1], "Changes", "right behind what it folds");
    world.push(ADA, 6, &["x"]);
    assert_eq!([world.asked(BOB), world.asked(CYD)].concat(), [0_u64; 0]);
}

/// Scenario 60.
#[test]
fn what_is_offered_becomes_the_snapshot_and_a_push_meanwhile_stays() {
    let mut world = folding();
    world.open_opaque(BOB, AccessLevel::Maintain);
    world.push(BOB, 1, &["1", "2", "3", "4", "5"]);
    assert_eq!(world.asked(BOB), [5]);
    world.push(BOB, 6, &["6"]);
    let offer = world.fold_at(5);
    world.offer(BOB, offer);
    world.push(BOB, 7, &["7"]);
    world.read_rows();
    assert_eq!(world.offered_seq(), Some(5));
    assert_eq!(world.logged().len(), 7, "nothing is dropped within 30 days");
    assert_eq!(names(&world.all(BOB)), ["Ack", "Ack"]);
    // A stranger gets the snapshot and what came after it.
    world.open_opaque(CYD, AccessLevel::Read);
    assert_eq!(names(&world.all(CYD)), ["Snapshot", "Changes", "Changes"]);
}

fn names(messages: &[Message]) -> Vec<&'static str> {
    messages.iter().map(Message::name).collect()
}

/// Scenario 60.
#[test]
fn an_offer_of_anything_else_or_by_anybody_else_is_refused() {
    let change = |how: fn(&mut FoldOffer)| {
        let mut world = folding();
        world.open_opaque(BOB, AccessLevel::Maintain);
        world.push(BOB, 1, &["1", "2", "3", "4", "5"]);
        assert_eq!(world.asked(BOB), [5]);
        let mut offer = world.fold_at(5);
        how(&mut offer);
        world.offer(BOB, offer);
        let code = code_of(world.next(BOB));
        assert_eq!(world.folds.len(), 0);
        code
    };
    let wrong: [fn(&mut FoldOffer); 4] = [
        |offer| offer.epoch = Epoch(1),
        |offer| offer.seq = Seq(4),
        |offer| offer.digest = Digest(1),
        |offer| offer.bytes = Bytes::new(),
    ];
    for how in wrong {
        assert_eq!(change(how), ErrorCode::FoldRefused);
    }
    let mut world = folding();
    for (session, access) in [
        (ADA, AccessLevel::Write),
        (BOB, AccessLevel::Maintain),
        (CYD, AccessLevel::Maintain),
    ] {
        world.open_opaque(session, access);
    }
    world.push(ADA, 1, &["1", "2", "3", "4", "5"]);
    let (asked, other) = match (world.asked(BOB).len(), world.asked(CYD).len()) {
        (1, 0) => (BOB, CYD),
        (0, 1) => (CYD, BOB),
        other => panic!("{other:?}"),
    };
    world.all(ADA);
    let offer = world.fold_at(5);
    world.offer(ADA, offer.clone());
    assert_eq!(code_of(world.next(ADA)), ErrorCode::AccessDenied);
    world.offer(other, offer.clone());
    assert_eq!(code_of(world.next(other)), ErrorCode::FoldRefused);
    assert!(world.folds.is_empty());
    // Neither took the turn from the one that was asked.
    world.offer(asked, offer.clone());
    world.read_rows();
    assert_eq!(world.offered_seq(), Some(5));
    world.offer(asked, offer);
    assert_eq!(code_of(world.next(asked)), ErrorCode::FoldRefused, "twice");
}

#[test]
fn another_client_is_asked_when_one_takes_too_long_and_it_comes_too_late_then() {
    let mut world = folding();
    world.open_opaque(BOB, AccessLevel::Maintain);
    world.open_opaque(CYD, AccessLevel::Maintain);
    world.push(BOB, 1, &["1", "2", "3", "4", "5"]);
    let first = if world.asked(BOB).is_empty() {
        CYD
    } else {
        BOB
    };
    let second = if first == BOB { CYD } else { BOB };
    world.all(second);
    world.pass_to_timeout();
    assert_eq!(world.asked(second), [5]);
    let offer = world.fold_at(5);
    world.offer(first, offer.clone());
    assert_eq!(code_of(world.next(first)), ErrorCode::FoldRefused);
    world.offer(second, offer);
    world.read_rows();
    assert_eq!(world.offered_seq(), Some(5));
}

#[test]
fn another_client_is_asked_at_once_when_one_leaves_and_nobody_twice_without_news() {
    let mut world = folding();
    world.open_opaque(ADA, AccessLevel::Maintain);
    world.open_opaque(BOB, AccessLevel::Maintain);
    world.push(ADA, 1, &["1", "2", "3", "4", "5"]);
    let first = if world.asked(ADA).is_empty() {
        BOB
    } else {
        ADA
    };
    let second = if first == ADA { BOB } else { ADA };
    world.all(second);
    world.room.handle_close(world.now, first);
    world.run();
    assert_eq!(world.asked(second), [5]);
    world.pass_to_timeout();
    assert_eq!(world.asked(second), [0_u64; 0]);
    assert_eq!(world.room.poll_timeout(), None);
    let number = if second == ADA { 6 } else { 1 };
    world.push(second, number, &["6"]);
    assert_eq!(world.asked(second), [6]);
}

#[test]
fn without_anybody_who_may_maintain_nothing_is_asked_until_somebody_comes() {
    let mut world = folding();
    world.open_opaque(ADA, AccessLevel::Write);
    world.push(ADA, 1, &["1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(world.asked(ADA), [0_u64; 0]);
    world.open_opaque(BOB, AccessLevel::Maintain);
    assert_eq!(world.asked(BOB), [7]);
    world.room.handle_close(world.now, BOB);
    world.run();
    world.open_opaque(CYD, AccessLevel::Maintain);
    assert_eq!(world.asked(CYD), [7], "the one asked before has left");
}

#[test]
fn folded_rows_stay_for_thirty_days_or_as_many_bytes_as_may_be_pinned() {
    let mut world = World::with(|config| {
        config.fold_changes = 5;
        config.keep_bytes = 0;
        config.pin_bytes_max = 3;
    });
    world.open_opaque(BOB, AccessLevel::Maintain);
    world.push(BOB, 1, &["1", "2", "3", "4", "5"]);
    world.all(BOB);
    let mut offer = world.fold_at(5);
    offer.bytes = Bytes::from_static(b"f");
    world.offer(BOB, offer);
    world.read_rows();
    assert_eq!(world.registry.log_start, 2, "three bytes");
    let mut world = World::with(|config| {
        config.fold_changes = 5;
        config.keep_bytes = 0;
    });
    world.open_opaque(BOB, AccessLevel::Maintain);
    for (days, expected) in [(0, 0), (31, 5)] {
        // How old a row is shows a 32nd of the age later.
        for days in [days / 31, days] {
            world.pass(Duration::from_secs(days * 24 * 3_600));
        }
        let from = days / 31 * 5;
        for number in from + 1..=from + 5 {
            world.push(BOB, number, &["x"]);
        }
        world.all(BOB);
        let offer = world.fold_at(from + 5);
        world.offer(BOB, offer);
        world.read_rows();
        assert_eq!(world.registry.log_start, expected);
    }
}

#[test]
fn who_comes_back_is_asked_again_and_who_may_not_write_now_is_not_asked() {
    let mut world = folding();
    world.open_opaque(ADA, AccessLevel::Write);
    world.open_opaque(BOB, AccessLevel::Maintain);
    world
        .room
        .handle_reauthorize(world.now, Some(&user_of(BOB)));
    world.run();
    for number in 1..=5 {
        world.push(ADA, number, &["x"]);
    }
    assert_eq!(world.asked(BOB), [0_u64; 0], "nobody can tell what it may");
    let (number, _) = world.questions.remove(0);
    let maintain = Ok(AccessLevel::Maintain.into());
    world.room.handle_authorized(world.now, number, maintain);
    world.run();
    assert_eq!(world.asked(BOB), [5]);
    world.pass_to_timeout();
    assert_eq!(world.asked(BOB), [0_u64; 0], "asked in vain");
    world.room.handle_close(world.now, BOB);
    world.open_opaque(BOB, AccessLevel::Maintain);
    world.push(ADA, 6, &["x"]);
    assert_eq!(world.asked(BOB), [6]);
}

#[test]
fn an_offer_is_in_time_until_its_deadline_and_as_large_as_a_message() {
    let timeout = RoomConfig::new(Limits::default(), Engines::new(), 0).fold_offer_timeout;
    for (late, bytes, is_taken) in [
        (Duration::ZERO, 100, true),
        (Duration::ZERO, 101, false),
        (Duration::ZERO, 0, false),
        (timeout - Duration::from_micros(1), 100, true),
        (timeout, 100, false),
    ] {
        let mut world = World::with(|config| {
            config.fold_changes = 5;
            config.limits.message_bytes_max = 100;
        });
        world.open_opaque(BOB, AccessLevel::Maintain);
        world.push(BOB, 1, &["1", "2", "3", "4", "5"]);
        assert_eq!(world.asked(BOB), [5]);
        let mut offer = world.fold_at(5);
        offer.bytes = vec![7; bytes].into();
        world.now = world.now + late;
        world.offer(BOB, offer);
        assert_eq!(!world.folds.is_empty(), is_taken, "{late:?} {bytes}");
    }
}

#[test]
fn a_room_that_has_asked_for_a_fold_of_a_history_that_is_no_more_does_not_wait_for_it() {
    let mut world = folding();
    world.open_opaque(ADA, AccessLevel::Maintain);
    world.push(ADA, 1, &["1", "2", "3", "4", "5"]);
    assert_eq!(world.asked(ADA), [5]);
    world.room.handle_trimmed(world.now, Epoch(8));
    world.run();
    assert_eq!(world.room.poll_timeout(), None);
}

#[test]
fn of_two_who_could_be_asked_one_that_nobody_can_tell_about_is_passed_over() {
    let mut world = folding();
    world.open_opaque(ADA, AccessLevel::Write);
    for session in [BOB, CYD] {
        world.open_opaque(session, AccessLevel::Maintain);
    }
    for number in 1..=4 {
        world.push(ADA, number, &["x"]);
    }
    // Bob has been sent most.
    world.all(BOB);
    world
        .room
        .handle_reauthorize(world.now, Some(&user_of(BOB)));
    world.run();
    world.push(ADA, 5, &["x"]);
    assert_eq!(world.asked(CYD), [5]);
}

#[test]
fn who_was_asked_in_vain_and_comes_back_is_asked_before_nobody() {
    let mut world = folding();
    world.open_opaque(ADA, AccessLevel::Write);
    for session in [BOB, CYD] {
        world.open_opaque(session, AccessLevel::Maintain);
    }
    for number in 1..=5 {
        world.push(ADA, number, &["x"]);
    }
    let first = if world.asked(BOB).is_empty() {
        CYD
    } else {
        BOB
    };
    let second = if first == BOB { CYD } else { BOB };
    world.all(first);
    world.pass_to_timeout();
    assert_eq!(world.asked(second), [5]);
    world.room.handle_close(world.now, first);
    world.open_opaque(first, AccessLevel::Maintain);
    world.pass_to_timeout();
    assert_eq!(world.asked(first), [5]);
}
