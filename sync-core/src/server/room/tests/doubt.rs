//! What becomes of what members pushed and are owed while it changes what they may do.

use super::*;
use crate::server::Grant;

const MINUTE: Duration = Duration::from_secs(60);

impl World {
    fn say_all(&mut self, answer: &Result<Grant, PeerError>) {
        for (number, _) in std::mem::take(&mut self.questions) {
            self.room
                .handle_authorized(self.now, number, answer.clone());
            self.run();
        }
    }

    fn doubts_everybody(&mut self) {
        self.room.handle_reauthorize(self.now, None);
        self.run();
    }

    fn settled_of(&self, session: SessionId) -> usize {
        self.settled.get(&session).copied().unwrap_or_default()
    }
}

fn push_of(origin: OriginId, first_number: u64, changes: &[&'static str]) -> Push {
    Push {
        channel: CHANNEL,
        origin,
        first_number,
        changes: changes.iter().map(|text| Bytes::from(*text)).collect(),
        reconciling: false,
    }
}

fn no() -> Result<Grant, PeerError> {
    Ok(AccessLevel::None.into())
}

#[test]
fn fresh_credentials_of_a_member_have_it_asked_anew_and_of_others_not() {
    let mut world = World::new();
    world.open(ADA);
    for (session, user, n_asked) in [
        (ADA, user_of(BOB), 0),
        (BOB, user_of(BOB), 0),
        (ADA, user_of(ADA), 1),
    ] {
        world.room.handle_user(world.now, session, user);
        world.run();
        assert_eq!(world.questions.len(), n_asked);
    }
    let user = user_of(ADA).with_claims("admin");
    world.room.handle_user(world.now, ADA, user);
    world.run();
    assert!(world.questions[1].1.has_claims());
    world.say_all(&no());
    world.all(ADA);
    world.room.handle_user(world.now, ADA, user_of(ADA));
    world.run();
    assert!(world.questions.is_empty(), "she is not here any more");
}

#[test]
fn a_member_that_has_left_is_not_asked_about() {
    for opens_again in [false, true] {
        let mut world = World::new();
        let mut request = world.request(ADA);
        request.valid_until = Some(world.now + MINUTE);
        world.open_with(ADA, request);
        if opens_again {
            world.open(ADA);
        } else {
            world.open(BOB);
            world.room.handle_close(world.now, ADA);
            world.run();
        }
        assert_eq!(world.room.poll_timeout(), None);
        world.pass(MINUTE);
        assert!(world.questions.is_empty());
    }
}

#[test]
fn members_are_not_asked_about_all_at_once() {
    let mut world = World::new();
    for session in (1..=64).map(SessionId) {
        let mut request = world.request(session);
        request.valid_until = Some(world.now + MINUTE);
        world.open_with(session, request);
    }
    let mut asked_at = BTreeSet::new();
    while world.questions.len() < 64 {
        world.pass_to_timeout();
        asked_at.insert(world.now.since(Time::ZERO));
    }
    assert!(asked_at.len() > 32, "{}", asked_at.len());
    let (first, last) = (asked_at.first().unwrap(), asked_at.last().unwrap());
    assert!(*first >= MINUTE / 2 && *last <= MINUTE * 3 / 4);
    assert!(*last - *first > MINUTE / 32, "{:?}", *last - *first);
}

/// An own commit that the stream does not reach is acknowledged by its number, each run of an origin once.
#[test]
fn who_loses_access_is_told_how_far_each_of_its_origins_was_committed() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world.holds_appends = true;
    world.push(BOB, 1, &["under way"]);
    for push in [
        push_of(origin_of(ADA), 1, &["a", "b"]),
        push_of(OriginId(77), 1, &["c"]),
    ] {
        world.room.handle_push(world.now, ADA, push);
        world.run();
    }
    let (number, request) = world.held.pop_front().unwrap();
    let answer = world.registry.answer(request);
    world.room.handle_registry(world.now, number, answer);
    world.run();
    // All three are being appended.
    world
        .room
        .handle_reauthorize(world.now, Some(&user_of(ADA)));
    world.run();
    world.release_appends();
    world.all(ADA);
    world.say_all(&no());
    let told = world.all(ADA);
    let acks: Vec<_> = told
        .iter()
        .filter_map(|message| match message {
            Message::Ack(ack) => Some((ack.number, ack.count)),
            _ => None,
        })
        .collect();
    assert_eq!(acks, [(2, 0), (1, 0)], "{told:?}");
    assert!(
        matches!(told.last(), Some(Message::Closed(closed)) if closed.reason == Some(ErrorCode::AccessDenied)),
        "{told:?}"
    );
}

#[test]
fn what_was_withheld_of_a_member_that_leaves_is_settled() {
    for ends in [false, true] {
        let mut world = World::new();
        world.open(ADA);
        world.open(BOB);
        world.doubts_everybody();
        world.push(ADA, 1, &["a", "b"]);
        assert_eq!(world.settled_of(ADA), 0);
        if ends {
            world.say_all(&no());
            world.all(ADA);
        } else {
            world.room.handle_close(world.now, ADA);
            world.run();
        }
        let charge = push_charge(&["a".into(), "b".into()]);
        assert_eq!(world.settled_of(ADA), charge);
        assert!(world.logged().is_empty());
    }
}

#[test]
fn what_a_member_has_not_been_told_of_is_settled_when_it_leaves() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["a"]);
    // Committed and not sent; answered and not sent.
    world.push(ADA, 2, &["b", "!bad"]);
    world.room.handle_close(world.now, ADA);
    world.run();
    let charge = push_charge(&["a".into(), "b".into(), "!bad".into()]);
    assert_eq!(world.settled_of(ADA), charge);
}

/// Only what is pushed is taken from it, and it may not broadcast.
#[test]
fn who_may_write_again_gets_its_turn_in_what_others_say() {
    let mut world = World::new();
    world.open(ADA);
    world.doubts_everybody();
    let unknown = world.room.may_broadcast(ADA).unwrap_err();
    assert_eq!(unknown.code, ErrorCode::BroadcastUnavailable);
    world.say_all(&Ok(AccessLevel::Read.into()));
    let refused = world.room.may_broadcast(ADA).unwrap_err();
    assert_eq!(refused.code, ErrorCode::BroadcastRefused);
    world.doubts_everybody();
    world.say_all(&Ok(AccessLevel::Write.into()));
    assert_eq!(world.room.may_broadcast(ADA), Ok(()));
}

/// Scenario 56: also what its session pushed before it opened the document again.
#[test]
fn a_no_for_writing_holds_for_what_was_pushed_before_another_open() {
    for level in [AccessLevel::Read, AccessLevel::None] {
        let mut world = World::new();
        world.open(ADA);
        world.open(BOB);
        world.holds_appends = true;
        world.push(BOB, 1, &["x"]);
        world.push(ADA, 1, &["a"]);
        let mut request = world.request(ADA);
        request.access = AccessLevel::Read;
        world.open_with(ADA, request);
        world.doubts_everybody();
        for (number, user) in std::mem::take(&mut world.questions) {
            let level = if user == user_of(ADA) {
                level
            } else {
                AccessLevel::Write
            };
            world
                .room
                .handle_authorized(world.now, number, Ok(level.into()));
            world.run();
        }
        world.release_appends();
        assert_eq!(world.logged(), ["x"], "{level:?}");
        world.all(ADA);
        let charge = push_charge(&["a".into()]);
        assert_eq!(world.settled_of(ADA), charge);
    }
}

/// It is told what became of what it pushed before it goes.
#[test]
fn who_may_nothing_any_more_goes_when_its_last_append_has_been_answered() {
    for is_checked in [false, true] {
        let mut world = World::with(|config| {
            if is_checked {
                config.engines.check(EngineId::YRS);
            }
        });
        world.open(ADA);
        world.open(BOB);
        world.holds_appends = true;
        world.push(ADA, 1, &["a"]);
        world.doubts_everybody();
        for (number, user) in std::mem::take(&mut world.questions) {
            let level = if user == user_of(ADA) {
                AccessLevel::None
            } else {
                AccessLevel::Write
            };
            world
                .room
                .handle_authorized(world.now, number, Ok(level.into()));
            world.run();
        }
        assert_eq!(world.all(ADA), [], "its append is under way");
        assert_eq!(world.room.n_members(), 2);
        world.release_appends();
        let told = world.all(ADA);
        assert!(
            matches!(
                told[..],
                [Message::Ack(Ack { number: 1, .. }), Message::Closed(_)]
            ),
            "{told:?}"
        );
        assert_eq!(world.room.n_members(), 1);
    }
}

#[test]
fn what_others_pushed_who_have_left_stays_when_one_user_is_in_doubt() {
    let mut world = World::new();
    for session in [ADA, BOB, CYD] {
        world.open(session);
    }
    world.holds_appends = true;
    world.push(CYD, 1, &["under way"]);
    world.push(ADA, 1, &["a"]);
    world.push(BOB, 1, &["b"]);
    for session in [ADA, BOB] {
        world.room.handle_close(world.now, session);
    }
    world
        .room
        .handle_reauthorize(world.now, Some(&user_of(ADA)));
    world.run();
    world.release_appends();
    assert_eq!(world.logged(), ["under way", "b"]);
}

/// Of changes that were being checked when the no came.
#[test]
fn a_no_for_writing_refuses_what_comes_back_from_its_check() {
    for level in [AccessLevel::Read, AccessLevel::None] {
        let mut world = World::with(|config| config.engines.check(EngineId::YRS));
        world.open(ADA);
        world.holds_checks = true;
        world.push(ADA, 1, &["a"]);
        world.doubts_everybody();
        world.say_all(&Ok(level.into()));
        world.release_checks();
        assert!(world.logged().is_empty(), "{level:?}");
        let told = world.all(ADA);
        let refused =
            |message: &&Message| matches!(message, Message::Refuse(refuse) if refuse.number == 1);
        assert_eq!(told.iter().filter(refused).count(), 1, "{told:?}");
        assert_eq!(world.settled_of(ADA), push_charge(&["a".into()]));
    }
}

/// Nobody waits for an answer to what was pushed before the document was opened again.
#[test]
fn a_no_for_writing_is_told_of_what_was_pushed_since_the_last_open() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world.holds_appends = true;
    world.push(BOB, 1, &["x"]);
    world.push(ADA, 1, &["a"]);
    world.open(ADA);
    world.push(ADA, 1, &["a"]);
    world
        .room
        .handle_reauthorize(world.now, Some(&user_of(ADA)));
    world.run();
    world.say_all(&Ok(AccessLevel::Read.into()));
    world.release_appends();
    assert_eq!(world.logged(), ["x"]);
    let told = world.all(ADA);
    let refused =
        |message: &&Message| matches!(message, Message::Refuse(refuse) if refuse.number == 1);
    assert_eq!(told.iter().filter(refused).count(), 1, "{told:?}");
    assert_eq!(
        world.settled_of(ADA),
        push_charge(&["a".into(), "a".into()])
    );
}

/// A snapshot of what had been published by then is not withheld.
#[test]
fn who_is_in_doubt_is_sent_the_snapshot_of_what_there_was() {
    let mut world = World::new().with_log((1..=5).map(|n| n.to_string()));
    let digest = world.registry.digest(5);
    let bytes = Bytes::from_static(b"the state");
    world.registry.snapshot = Some(Snapshot::new(Seq(5), digest, bytes));
    world.registry.log_start = 5;
    world.open(ADA);
    world.open(BOB);
    world.doubts_everybody();
    world.push(BOB, 1, &["later"]);
    assert!(matches!(&world.all(ADA)[..], [Message::Snapshot(_)]));
}

/// Behind the ring too: its own commit is the last that it is sent.
#[test]
fn who_loses_access_behind_the_ring_is_sent_the_rows_up_to_its_last_commit() {
    let mut world = World::with(|config| config.ring_bytes_max = 1);
    world.open(ADA);
    world.open(BOB);
    world.push(BOB, 1, &["x"]);
    world.push(ADA, 1, &["a"]);
    world.push(BOB, 2, &["y"]);
    world
        .room
        .handle_reauthorize(world.now, Some(&user_of(ADA)));
    world.run();
    world.say_all(&no());
    let told = world.all(ADA);
    assert!(
        matches!(told[..], [Message::Changes(_), Message::Closed(_)]),
        "{told:?}"
    );
    assert_eq!(texts(&told[0]), [b"x", b"a"]);
}

/// Nobody can be asked for it any more.
#[test]
fn what_was_pushed_by_who_has_left_is_appended_while_it_was_allowed_to() {
    for (late, is_taken) in [(Duration::ZERO, false), (Duration::from_micros(1), true)] {
        let mut world = World::new();
        world.open(BOB);
        let mut request = world.request(ADA);
        request.valid_until = Some(world.now + MINUTE);
        world.open_with(ADA, request);
        world.holds_appends = true;
        world.push(BOB, 1, &["under way"]);
        world.push(ADA, 1, &["a"]);
        world.room.handle_close(world.now, ADA);
        world.now = world.now + MINUTE.saturating_sub(late);
        world.release_appends();
        assert_eq!(world.logged().len(), 1 + usize::from(is_taken), "{late:?}");
        assert_eq!(world.settled_of(ADA), push_charge(&["a".into()]));
    }
}

/// Protocol 8.2: more or less of the right to write does not cost the turn.
#[test]
fn who_reconciles_and_may_still_write_keeps_its_turn() {
    for (level, keeps) in [(AccessLevel::Maintain, true), (AccessLevel::Read, false)] {
        let mut world = World::new().with_log(["1".to_owned()]);
        let elsewhere = Cursor::start(Epoch(1));
        world.open_at(ADA, elsewhere);
        assert_eq!(world.open_at(BOB, elsewhere).next, Continuation::Wait);
        world
            .room
            .handle_reauthorize(world.now, Some(&user_of(ADA)));
        world.run();
        world.say_all(&Ok(level.into()));
        assert_eq!(world.all(BOB).is_empty(), keeps);
        if keeps {
            world
                .room
                .handle_reauthorize(world.now, Some(&user_of(ADA)));
            world.run();
            world.say_all(&Ok(AccessLevel::Write.into()));
            assert_eq!(world.all(BOB), []);
        }
    }
}
