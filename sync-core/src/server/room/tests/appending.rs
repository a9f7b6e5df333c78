//! Changes on their way in: order, commits, refusals, repeats.

use super::*;

/// Scenario 30.
#[test]
fn a_change_is_shown_and_acknowledged_only_after_its_commit() {
    let mut world = World::new();
    let opened = world.open(ADA);
    assert_eq!((opened.next, opened.head), (Continuation::Resume, Seq(0)));
    world.open(BOB);
    world.holds_appends = true;
    world.push(ADA, 1, &["a"]);
    assert_eq!((world.all(ADA), world.all(BOB)), (vec![], vec![]));
    world.release_appends();
    let ack = Ack {
        channel: CHANNEL,
        check: 1,
        number: 1,
        count: 1,
    };
    assert_eq!(world.all(ADA), [Message::Ack(ack)]);
    let seen = world.all(BOB);
    assert_eq!((seen.len(), texts(&seen[0])), (1, vec![&b"a"[..]]));
}

#[test]
fn what_queues_up_during_an_append_leaves_as_one_frame_with_the_same_bytes_for_all() {
    let mut world = World::new();
    for session in [ADA, BOB, CYD] {
        world.open(session);
    }
    world.holds_appends = true;
    world.push(ADA, 1, &["a1"]);
    world.push(ADA, 2, &["a2"]);
    world.push(BOB, 1, &["b1"]);
    world.push(ADA, 3, &["a3"]);
    world.release_appends();
    assert_eq!(world.logged(), ["a1", "a2", "b1", "a3"]);
    // The first append was alone, and all its own: an ack. The second is mixed: the frame that all get.
    assert!(matches!(
        world.next(ADA),
        Some(Message::Ack(Ack {
            number: 1,
            count: 1,
            ..
        }))
    ));
    let (ada, bob, cyd) = (
        world.next_frame(ADA),
        world.next_frame(BOB),
        world.next_frame(CYD),
    );
    assert_eq!(bob, cyd);
    let (bob, cyd) = (
        world.next_frame(BOB).unwrap(),
        world.next_frame(CYD).unwrap(),
    );
    assert_eq!((ada.as_ref(), bob.as_ptr()), (Some(&bob), cyd.as_ptr()));
    let ready = world.all(CYD);
    assert_eq!(ready, []);
}

#[test]
fn a_busy_room_of_many_gathers_what_comes_within_a_millisecond_and_an_idle_one_waits_for_nothing() {
    let mut world = World::new();
    let sessions: Vec<_> = (1..=16).map(SessionId).collect();
    for session in &sessions {
        world.open(*session);
    }
    world.push(ADA, 1, &["at once"]);
    assert_eq!(world.logged().len(), 1);
    for (number, session) in (1..).zip([BOB, CYD, BOB]) {
        world.push(session, number / 3 + 1, &["gathered"]);
    }
    assert_eq!(world.logged().len(), 1);
    world.pass_to_timeout();
    assert_eq!(world.now, Time::from_micros(1_000));
    assert_eq!(world.logged().len(), 4);
    let frames = world.all(sessions[9]);
    assert_eq!(
        frames
            .iter()
            .map(|frame| texts(frame).len())
            .collect::<Vec<_>>(),
        [1, 3]
    );
    assert_eq!(world.room.poll_timeout(), None);
    world.pass(Duration::from_millis(2));
    world.push(ADA, 2, &["at once"]);
    assert_eq!(world.logged().len(), 5);
}

/// Scenario 46, and 79 for what follows the refused change.
#[test]
fn a_bad_change_is_refused_after_what_came_before_it_and_what_follows_waits_for_a_new_open() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world.push(ADA, 1, &["one", "!two", "three"]);
    world.push(ADA, 4, &["four"]);
    assert_eq!(world.logged(), ["one"]);
    let told = world.all(ADA);
    assert!(
        matches!(
            told[0],
            Message::Ack(Ack {
                number: 1,
                count: 1,
                ..
            })
        ),
        "{told:?}"
    );
    assert!(
        matches!(
            &told[1],
            Message::Refuse(Refuse {
                number: 2,
                code: ErrorCode::InvalidChange,
                ..
            })
        ),
        "{told:?}"
    );
    assert_eq!(told.len(), 2);
    world.open(ADA);
    world.push(ADA, 2, &["another two"]);
    assert_eq!(world.logged(), ["one", "another two"]);
    let everything = push_charge(&["one".into(), "!two".into(), "three".into(), "four".into()]);
    assert_eq!(world.settled[&ADA], everything);
    assert_eq!(world.follow(BOB, 0), ["one", "another two"]);
}

#[test]
fn a_validator_that_panics_refuses_the_change_and_is_reported() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["?"]);
    let code = ErrorCode::InvalidChange;
    assert!(matches!(world.next(ADA), Some(Message::Refuse(refuse)) if refuse.code == code));
    let panicked = |event: &RoomEvent| matches!(event, RoomEvent::ValidatorPanicked { .. });
    assert!(world.events.iter().any(panicked));
}

/// Scenario 47, the limit of a change.
#[test]
fn a_change_over_the_limit_is_too_large_unless_it_reconciles() {
    let mut world = World::with(|config| config.limits.change_bytes_max = 4);
    world.open(ADA);
    world.push_with(ADA, 1, &["12345"], true);
    world.push(ADA, 2, &["1234"]);
    world.push(ADA, 3, &["12345"]);
    assert_eq!(world.logged(), ["12345", "1234"]);
    let refused = world.all(ADA).pop();
    assert!(
        matches!(refused, Some(Message::Refuse(r)) if r.code == ErrorCode::TooLarge && r.number == 3)
    );
}

/// Scenario 54.
#[test]
fn a_reader_receives_and_its_writes_are_refused() {
    let mut world = World::new();
    world.open(ADA);
    let mut request = world.request(BOB);
    request.access = AccessLevel::Read;
    assert_eq!(world.open_with(BOB, request).access, AccessLevel::Read);
    world.push(BOB, 1, &["b"]);
    world.push(ADA, 1, &["a"]);
    let told = world.all(BOB);
    let denied = ErrorCode::AccessDenied;
    assert!(
        matches!(&told[0], Message::Refuse(r) if r.code == denied && r.number == 1),
        "{told:?}"
    );
    assert_eq!(texts(&told[1]), [b"a"]);
    assert_eq!(world.logged(), ["a"]);
}

#[test]
fn changes_are_settled_only_when_their_author_has_been_told() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["a"]);
    assert_eq!(world.logged(), ["a"]);
    assert_eq!(world.settled.get(&ADA), None);
    world.all(ADA);
    assert_eq!(world.settled[&ADA], push_charge(&["a".into()]));
}

/// Scenario 31: pushed by a session that was cut, pushed again by the next one.
#[test]
fn a_repeat_is_told_by_the_stream_that_shows_it_and_is_in_the_log_once() {
    let mut world = World::new();
    world.open(ADA);
    world.open(CYD);
    world.holds_appends = true;
    world.push(ADA, 1, &["a", "b"]);
    world.room.handle_close(world.now, ADA);
    let opened = world.open(ADA);
    assert_eq!(opened.origins[0].1, 0);
    world.push(ADA, 1, &["a", "b"]);
    world.push(ADA, 3, &["c"]);
    world.release_appends();
    assert_eq!(world.logged(), ["a", "b", "c"]);
    assert_eq!(world.follow(CYD, 0), ["a", "b", "c"]);
    let told = world.all(ADA);
    // What an earlier session pushed comes in the stream, never as an `Ack` with a count.
    assert_eq!(texts(&told[0]), [b"a", b"b"]);
    assert!(
        matches!(
            told[1],
            Message::Ack(Ack {
                number: 3,
                count: 1,
                ..
            })
        ),
        "{told:?}"
    );
    assert_eq!(told.len(), 2, "{told:?}");
    let charge = push_charge(&["a".into(), "b".into()]) * 2 + push_charge(&["c".into()]);
    assert_eq!(world.settled[&ADA], charge);
}

/// An answer without an origin would be taken for what is at the front of the outbox by then: a change of another origin, which nobody
/// has.
#[test]
fn a_repeat_of_what_the_stream_has_shown_already_is_not_answered_again() {
    let mut world = World::new();
    world.open(ADA);
    world.holds_appends = true;
    world.push(ADA, 1, &["a"]);
    world.room.handle_close(world.now, ADA);
    world.open(ADA);
    world.release_appends();
    let told = world.all(ADA);
    assert_eq!(texts(&told[0]), [b"a"]);
    // Sent before that arrived.
    world.push(ADA, 1, &["a"]);
    assert_eq!(world.all(ADA), []);
    assert_eq!(world.logged(), ["a"]);
    assert_eq!(world.settled[&ADA], push_charge(&["a".into()]) * 2);
}

/// Nothing else tells the client of what came before its cursor.
#[test]
fn a_repeat_of_what_came_before_the_stream_is_answered_as_had_before() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["a"]);
    world.all(ADA);
    let cursor = world.cursor(1);
    world.room.handle_close(world.now, ADA);
    world.open_at(ADA, cursor);
    world.push(ADA, 1, &["a"]);
    let told = world.all(ADA);
    assert!(
        matches!(
            &told[..],
            [Message::Ack(Ack {
                number: 1,
                count: 0,
                ..
            })]
        ),
        "{told:?}"
    );
}

/// Scenario 84.
#[test]
fn a_reused_id_a_gap_and_a_foreign_origin_each_have_their_answer_and_close_the_channel() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["a"]);
    world.all(ADA);
    world.push(ADA, 1, &["other bytes", "b"]);
    world.push(ADA, 2, &["b"]);
    let refused = world.next(ADA);
    assert!(
        matches!(&refused, Some(Message::Refuse(r)) if r.code == ErrorCode::IdReused && r.number == 1),
        "{refused:?}"
    );
    world.open(ADA);
    world.all(ADA);
    world.push(ADA, 5, &["e", "f"]);
    assert_eq!(code_of(world.next(ADA)), ErrorCode::Gap);
    let mut request = world.request(BOB);
    request.origins = vec![(origin_of(ADA), 0)];
    let opened = world.open_with(BOB, request);
    assert_eq!(
        opened.origins[0].1, 0,
        "nothing is told about other users' origins"
    );
    world.all(BOB);
    let push = Push {
        channel: CHANNEL,
        origin: origin_of(ADA),
        first_number: 2,
        changes: vec!["stolen".into()],
        reconciling: false,
    };
    world.room.handle_push(world.now, BOB, push);
    world.run();
    assert_eq!(code_of(world.next(BOB)), ErrorCode::ForeignOrigin);
    assert_eq!(world.logged(), ["a"]);
}

#[test]
fn nothing_of_another_origin_overtakes_a_change_that_the_registry_refuses() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["a"]);
    let fresh = Push {
        channel: CHANNEL,
        origin: OriginId(77),
        first_number: 1,
        changes: vec!["builds on it".into()],
        reconciling: false,
    };
    world.holds_appends = true;
    world.push(ADA, 1, &["other bytes"]);
    world.room.handle_push(world.now, ADA, fresh);
    world.release_appends();
    assert_eq!(world.logged(), ["a"]);
}

#[test]
fn the_number_of_a_late_origin_is_told_before_it_is_used() {
    let mut world = World::new();
    let opened = world.open(ADA);
    let push = Push {
        channel: CHANNEL,
        origin: OriginId(77),
        first_number: 1,
        changes: vec!["fresh".into()],
        reconciling: false,
    };
    world.open(BOB);
    world.room.handle_push(world.now, ADA, push);
    world.run();
    let told = world.all(ADA);
    let Message::Author(author) = &told[0] else {
        panic!("expected Author, got {told:?}");
    };
    assert_eq!(author.origin, OriginId(77));
    assert_ne!(author.author, opened.origins[0].2);
    let Some(Message::Changes(seen)) = world.next(BOB) else {
        panic!("Bob sees the change");
    };
    assert_eq!(seen.changes[0].author, author.author);
}
