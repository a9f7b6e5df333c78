//! What members may do while that changes, is not known, or is asked again.

use super::*;
use crate::server::Grant;

const MINUTE: Duration = Duration::from_secs(60);

fn grant(level: AccessLevel, valid_for: Duration) -> Grant {
    let mut grant = Grant::from(level);
    grant.valid_for = Some(valid_for);
    grant
}

fn unavailable() -> PeerError {
    PeerError::new(ErrorCode::AuthorizationUnavailable, "the database is away")
}

impl World {
    /// Opens with what was said now and holds for a minute.
    fn open_for_a_minute(&mut self, session: SessionId, cursor: Option<Cursor>) {
        let mut request = self.request(session);
        request.valid_until = Some(self.now + MINUTE);
        request.cursor = cursor;
        self.open_with(session, request);
    }

    fn say(&mut self, answer: Result<Grant, PeerError>) {
        let (number, _) = self.questions.remove(0);
        self.room.handle_authorized(self.now, number, answer);
        self.run();
    }

    fn allow(&mut self, level: AccessLevel) {
        self.say(Ok(grant(level, MINUTE)));
    }

    fn doubt(&mut self, session: SessionId) {
        self.room
            .handle_reauthorize(self.now, Some(&user_of(session)));
        self.run();
    }

    fn charge_settled(&self, session: SessionId) -> usize {
        self.settled.get(&session).copied().unwrap_or_default()
    }
}

/// Ada writes, Bob reads what comes.
fn two() -> World {
    let mut world = World::new();
    world.open_for_a_minute(ADA, None);
    world.open(BOB);
    world
}

fn is_ack(message: &Message, number: u64, count: u64) -> bool {
    matches!(message, Message::Ack(ack) if ack.number == number && ack.count == count)
}

#[test]
fn what_was_said_for_some_time_is_asked_again_in_good_time_and_until_somebody_answers() {
    let mut world = two();
    world.pass(MINUTE / 2 - Duration::from_secs(1));
    assert!(world.questions.is_empty());
    world.pass_to_timeout();
    assert!(world.now <= Time::ZERO + MINUTE * 3 / 4);
    let (_, user) = &world.questions[0];
    assert_eq!(*user, user_of(ADA));
    // Nobody knows: asked again, less and less often.
    let mut asked_at = Vec::new();
    for _ in 0..4 {
        world.say(Err(unavailable()));
        world.pass_to_timeout();
        asked_at.push(world.now);
    }
    assert!(
        asked_at
            .windows(3)
            .all(|at| at[2].since(at[1]) > at[1].since(at[0]))
    );
    // What was said last holds for its time.
    world.push(ADA, 1, &["a"]);
    assert_eq!(world.logged(), ["a"]);
    world.say(Err(unavailable().retry_after(Duration::from_secs(3))));
    let before = world.now;
    world.pass_to_timeout();
    assert_eq!(world.now.since(before), Duration::from_secs(3));
    world.allow(AccessLevel::Write);
    world.pass_to_timeout();
    assert!(world.now > Time::ZERO + MINUTE, "a new minute has begun");
}

/// Scenario 83: neither taken nor refused.
#[test]
fn changes_of_a_member_of_whom_nobody_can_tell_wait_and_are_taken_in_order_when_somebody_can() {
    let mut world = two();
    world.push(ADA, 1, &["a"]);
    assert!(is_ack(&world.next(ADA).unwrap(), 1, 1));
    assert_eq!(world.all(ADA), []);
    world.pass(MINUTE);
    let settled = world.charge_settled(ADA);
    world.push(ADA, 2, &["b", "c"]);
    world.push(ADA, 4, &["d"]);
    world.push(BOB, 1, &["x"]);
    assert_eq!(world.logged(), ["a", "x"]);
    // She is not sent what is published meanwhile.
    assert_eq!(world.all(ADA), []);
    assert_eq!(world.charge_settled(ADA), settled);
    world.say(Err(unavailable()));
    assert_eq!(world.all(ADA), []);
    world.pass_to_timeout();
    world.allow(AccessLevel::Write);
    assert_eq!(world.logged(), ["a", "x", "b", "c", "d"]);
    let sent = world.all(ADA);
    assert_eq!(texts(&sent[0]), [b"x"]);
    assert!(is_ack(&sent[1], 2, 3), "{sent:?}");
    assert!(world.charge_settled(ADA) > settled);
}

/// Scenario 56.
#[test]
fn a_no_for_writing_refuses_what_is_not_committed_and_lets_read_on() {
    let mut world = two();
    world.holds_appends = true;
    world.push(ADA, 1, &["a"]);
    world.push(ADA, 2, &["b", "c"]);
    world.push(BOB, 1, &["x"]);
    world.doubt(ADA);
    world.push(ADA, 4, &["d"]);
    world.allow(AccessLevel::Read);
    let told = world.next(ADA);
    let access = match told {
        Some(Message::Access(access)) => (access.access, access.from),
        other => panic!("{other:?}"),
    };
    assert_eq!(access, (AccessLevel::Read, Seq(1)));
    world.release_appends();
    // The first one was being committed.
    assert_eq!(world.logged(), ["a", "x"]);
    let sent = world.all(ADA);
    assert!(is_ack(&sent[0], 1, 1), "{sent:?}");
    assert!(
        matches!(
            &sent[1],
            Message::Refuse(Refuse {
                number: 2,
                code: ErrorCode::AccessDenied,
                ..
            })
        ),
        "{sent:?}"
    );
    assert_eq!(texts(&sent[2]), [b"x"]);
    assert_eq!(sent.len(), 3);
    // Nothing counts against her window any more.
    let all = ["a", "b", "c", "d"].map(|change| crate::limits::change_charge(change.as_bytes()));
    assert_eq!(world.charge_settled(ADA), all.into_iter().sum::<usize>());

    world.push(BOB, 2, &["y"]);
    assert_eq!(texts(&world.next(ADA).unwrap()), [b"y"]);
    // Until she opens again everything is ignored; then it is refused while she may not, and taken when she may.
    let mut request = world.request(ADA);
    request.access = AccessLevel::Read;
    request.cursor = Some(world.cursor(3));
    request.valid_until = Some(world.now + MINUTE);
    world.open_with(ADA, request);
    world.doubt(ADA);
    world.push(ADA, 2, &["e"]);
    assert_eq!(world.all(ADA), []);
    world.allow(AccessLevel::Write);
    assert_eq!(world.logged(), ["a", "x", "y", "e"]);
    assert!(
        matches!(world.next(ADA), Some(Message::Access(access)) if access.access == AccessLevel::Write)
    );
}

/// Scenario 87.
#[test]
fn who_lost_access_is_sent_nothing_that_was_committed_later_and_is_told_what_became_of_its_own() {
    let mut world = two();
    world.push(BOB, 1, &["x"]);
    world.push(ADA, 1, &["a"]);
    world.holds_appends = true;
    world.push(ADA, 2, &["b"]);
    world.push(ADA, 3, &["c"]);
    world.doubt(ADA);
    world.release_appends();
    world.push(BOB, 2, &["y"]);
    // What was committed before is on its way, and no more.
    let before = world.all(ADA);
    assert_eq!(texts(&before[0]), [b"x"]);
    assert!(is_ack(&before[1], 1, 1), "{before:?}");
    assert_eq!(before.len(), 2);
    world.allow(AccessLevel::None);
    world.push(BOB, 3, &["z"]);
    let last = world.all(ADA);
    assert!(is_ack(&last[0], 2, 0), "{last:?}");
    assert!(
        matches!(
            &last[1],
            Message::Refuse(Refuse {
                number: 3,
                code: ErrorCode::AccessDenied,
                ..
            })
        ),
        "{last:?}"
    );
    assert!(
        matches!(&last[2], Message::Closed(closed) if closed.reason == Some(ErrorCode::AccessDenied)),
        "{last:?}"
    );
    assert_eq!((last.len(), world.room.n_members()), (3, 1));
    assert_eq!(world.logged(), ["x", "a", "b", "y", "z"]);
    assert!(world.questions.is_empty());
}

/// Scenario 87: reads of the registry stop there too.
#[test]
fn who_is_behind_the_ring_reads_nothing_while_nobody_can_tell() {
    let mut world =
        World::with(|config| config.ring_bytes_max = 1).with_log((0..5).map(|n| format!("{n}")));
    let cursor = world.cursor(0);
    world.open_for_a_minute(ADA, Some(cursor));
    world.open(BOB);
    world.doubt(ADA);
    world.push(BOB, 1, &["x"]);
    assert_eq!(world.all(ADA), []);
    world.allow(AccessLevel::Read);
    let mut sent = world.all(ADA);
    assert!(
        matches!(sent.remove(0), Message::Access(access) if access.access == AccessLevel::Read)
    );
    let changes: Vec<_> = sent.iter().flat_map(texts).collect();
    assert_eq!(changes, [b"0", b"1", b"2", b"3", b"4", b"x"]);
}

/// Scenario 87: a snapshot that covers later changes is one of them.
#[test]
fn a_snapshot_made_after_access_was_lost_is_not_sent() {
    let mut world = World::new().with_log((0..5).map(|n| format!("{n}")));
    world.open(BOB);
    let mut request = world.request(ADA);
    request.valid_until = Some(world.now);
    // What was said may be out of date already: asked before anything is sent.
    let opened = world.open_with(ADA, request);
    assert_eq!(
        (opened.next, world.all(ADA)),
        (Continuation::Resume, vec![])
    );
    world.push(BOB, 1, &["x"]);
    let compact = RegistryRequest::Compact {
        epoch: Epoch(7),
        snapshot: Snapshot::new(Seq(6), world.registry.digest(6), Bytes::from_static(b"all")),
        keep_after: Seq(6),
    };
    world.registry.answer(compact);
    assert_eq!(world.all(ADA), []);
    world.allow(AccessLevel::Write);
    assert!(matches!(&world.all(ADA)[..], [Message::Snapshot(_), ..]));
}

#[test]
fn answers_to_questions_from_before_a_doubt_are_not_looked_at() {
    let mut world = two();
    world.pass(MINUTE / 2);
    world.pass(MINUTE / 4);
    world.doubt(ADA);
    assert_eq!(world.questions.len(), 2);
    world.push(ADA, 1, &["a"]);
    world.allow(AccessLevel::Write);
    assert!(world.logged().is_empty());
    world.allow(AccessLevel::Read);
    assert!(world.logged().is_empty());
    assert!(
        world
            .all(ADA)
            .iter()
            .any(|message| matches!(message, Message::Refuse(_)))
    );
}

/// Nobody can be asked for them: their clients have them still.
#[test]
fn what_somebody_pushed_who_has_left_is_appended_only_if_nobody_doubts_it() {
    for doubts in [false, true] {
        let mut world = two();
        world.holds_appends = true;
        world.push(BOB, 1, &["x"]);
        world.push(ADA, 1, &["a"]);
        world.room.handle_close(world.now, ADA);
        if doubts {
            world.doubt(ADA);
        }
        world.release_appends();
        let expected: &[&str] = if doubts { &["x"] } else { &["x", "a"] };
        assert_eq!(world.logged(), expected);
    }
}

#[test]
fn a_client_that_wants_to_read_is_given_no_more_whatever_is_said() {
    let mut world = World::new();
    world.open(BOB);
    let mut request = world.request(ADA);
    request.access = AccessLevel::Read;
    request.access_max = AccessLevel::Read;
    world.open_with(ADA, request);
    world.room.handle_reauthorize(world.now, None);
    world.run();
    assert_eq!(world.questions.len(), 2);
    for _ in 0..2 {
        world.allow(AccessLevel::Maintain);
    }
    assert_eq!(world.all(ADA), []);
    assert!(matches!(&world.all(BOB)[..], [Message::Access(_)]));
}

/// Who waits for its turn to reconcile needs none to read.
#[test]
fn who_may_only_read_from_now_on_waits_for_no_turn() {
    let mut world = World::new().with_log(["0".to_owned()]);
    let mut elsewhere = world.cursor(1);
    elsewhere.digest = Digest(1);
    for session in [ADA, BOB] {
        world.open_for_a_minute(session, Some(elsewhere));
    }
    world.doubt(BOB);
    world.allow(AccessLevel::Read);
    let next = world.next(BOB);
    assert!(
        matches!(&next, Some(Message::Opened(opened)) if opened.access == AccessLevel::Read
            && matches!(opened.next, Continuation::Reset { .. })),
        "{next:?}"
    );
}

#[test]
fn checked_changes_wait_in_the_line_and_are_checked_again() {
    for level in [AccessLevel::Write, AccessLevel::Read] {
        let mut world = World::with(|config| config.engines.check(EngineId::YRS));
        world.open_for_a_minute(ADA, None);
        world.open(BOB);
        world.holds_appends = true;
        world.push(BOB, 1, &["x"]);
        world.holds_checks = true;
        world.push(ADA, 1, &["a"]);
        world.push(BOB, 2, &["y"]);
        world.push(ADA, 2, &["b"]);
        world.release_appends();
        // They are being checked, and come back.
        world.doubt(ADA);
        world.release_checks();
        assert_eq!(world.logged(), ["x", "y"]);
        world.allow(level);
        let sent = world.all(ADA);
        if level == AccessLevel::Write {
            assert_eq!(world.logged(), ["x", "y", "a", "b"]);
        } else {
            assert_eq!(world.logged(), ["x", "y"]);
            let refused = |message: &&Message| matches!(message, Message::Refuse(refuse) if refuse.number == 1);
            assert_eq!(sent.iter().filter(refused).count(), 1, "{sent:?}");
        }
    }
}

/// Neither what waits for a hook when the no comes, nor what its session pushed before and has left.
#[test]
fn changes_that_somebody_has_yet_to_accept_are_refused_or_dropped_like_all_others() {
    let mut world = World::with(|config| config.asks = true);
    world.open(ADA);
    world.open(BOB);
    world.push(ADA, 1, &["a", "b"]);
    world.doubt(ADA);
    world.push(ADA, 3, &["c"]);
    world.allow(AccessLevel::Read);
    let refused =
        |message: &Message| matches!(message, Message::Refuse(refuse) if refuse.number == 1);
    assert!(world.all(ADA).iter().any(refused));
    let charges = ["a", "b", "c"].map(|change| crate::limits::change_charge(change.as_bytes()));
    assert_eq!(
        world.charge_settled(ADA),
        charges.into_iter().sum::<usize>()
    );

    world.push(BOB, 1, &["x"]);
    world.room.handle_close(world.now, BOB);
    world.doubt(BOB);
    for (number, request) in std::mem::take(&mut world.asks) {
        let n = request.changes.len();
        world.room.handle_asked(world.now, number, n, None);
        world.run();
    }
    assert!(world.logged().is_empty(), "{:?}", world.logged());
}
