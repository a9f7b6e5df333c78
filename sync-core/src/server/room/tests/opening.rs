//! Opens: resets, turns, takeovers, documents that are not there.

use super::*;

/// Scenario 24 and protocol section 8.1.
#[test]
fn a_cursor_of_another_history_is_reset_as_the_epoch_says() {
    let wrong = |world: &World, seq| Cursor {
        digest: Digest(1),
        ..world.cursor(seq)
    };
    let other = |world: &World, seq| Cursor {
        epoch: Epoch(1),
        ..world.cursor(seq)
    };
    type Make = fn(&World) -> Cursor;
    let cases: [(&str, EpochMode, Make, Reset); 6] = [
        (
            "wrong digest",
            EpochMode::New,
            |w| Cursor {
                digest: Digest(1),
                ..w.cursor(2)
            },
            Reset::Merge,
        ),
        (
            "beyond the head",
            EpochMode::New,
            |w| Cursor {
                seq: Seq(9),
                ..w.cursor(2)
            },
            Reset::Merge,
        ),
        (
            "new epoch",
            EpochMode::New,
            |w| Cursor {
                epoch: Epoch(1),
                ..w.cursor(2)
            },
            Reset::Merge,
        ),
        (
            "merge",
            EpochMode::Merge,
            |w| Cursor {
                epoch: Epoch(1),
                ..w.cursor(2)
            },
            Reset::Merge,
        ),
        (
            "rebase",
            EpochMode::Rebase,
            |w| Cursor {
                epoch: Epoch(1),
                ..w.cursor(2)
            },
            Reset::Rebase,
        ),
        (
            "discard",
            EpochMode::Discard,
            |w| Cursor {
                epoch: Epoch(1),
                ..w.cursor(2)
            },
            Reset::Discard,
        ),
    ];
    for (name, mode, cursor, reset) in cases {
        let mut world = World::new().with_log(["1".to_owned(), "2".to_owned()]);
        world.registry.meta.as_mut().unwrap().mode = mode;
        let cursor = cursor(&world);
        let opened = world.open_at(ADA, cursor);
        assert_eq!(
            opened.next,
            Continuation::Reset {
                reset,
                total_bytes: 0
            },
            "{name}"
        );
        assert_eq!(opened.epoch, Epoch(7), "{name}: a claim changes no epoch");
        assert_eq!(world.follow(ADA, 0), ["1", "2"], "{name}");
    }
    let world = World::new().with_log(["1".to_owned()]);
    assert_ne!(wrong(&world, 1), other(&world, 1));
}

#[test]
fn one_client_reconciles_at_a_time_and_the_next_is_told_when_it_is_its_turn() {
    let mut world = World::new().with_log(["1".to_owned()]);
    let elsewhere = Cursor::start(Epoch(1));
    let merge = Continuation::Reset {
        reset: Reset::Merge,
        total_bytes: 0,
    };
    assert_eq!(world.open_at(ADA, elsewhere).next, merge);
    assert_eq!(world.open_at(BOB, elsewhere).next, Continuation::Wait);
    assert_eq!(world.open_at(CYD, elsewhere).next, Continuation::Wait);
    // Who may only read needs no turn.
    let mut reader = world.request(SessionId(4));
    (reader.access, reader.cursor) = (AccessLevel::Read, Some(elsewhere));
    assert_eq!(world.open_with(SessionId(4), reader).next, merge);
    assert_eq!((world.all(BOB), world.all(CYD)), (vec![], vec![]));
    world.holds_appends = true;
    world.push_with(ADA, 1, &["lacking"], true);
    assert_eq!(world.all(BOB), []);
    world.release_appends();
    let Some(Message::Opened(opened)) = world.next(BOB) else {
        panic!("it is Bob's turn");
    };
    // Computed afresh: what Ada pushed is in it.
    assert_eq!(
        (opened.next, opened.head, opened.request),
        (merge, Seq(2), RequestId(1))
    );
    assert_eq!(world.follow(BOB, 0), ["1", "lacking"]);
    assert_eq!(world.all(CYD), []);
    world.pass(Duration::from_secs(59));
    assert_eq!(world.all(CYD), []);
    world.pass(Duration::from_secs(1));
    assert!(matches!(world.next(CYD), Some(Message::Opened(opened)) if opened.next == merge));
    world.room.handle_close(world.now, CYD);
    world.run();
    assert_eq!(world.open_at(ADA, elsewhere).next, merge);
}

#[test]
fn an_empty_reconciling_push_ends_the_turn() {
    let mut world = World::new().with_log(["1".to_owned()]);
    let elsewhere = Cursor::start(Epoch(1));
    world.open_at(ADA, elsewhere);
    assert_eq!(world.open_at(BOB, elsewhere).next, Continuation::Wait);
    world.push_with(ADA, 1, &[], true);
    assert!(matches!(world.next(BOB), Some(Message::Opened(_))));
}

/// Who waits knows its request, and no channel that it could be told of the end of a history on.
#[test]
fn who_waits_for_a_turn_is_answered_again_when_the_document_is_replaced_once_more() {
    let mut world = World::new().with_log(["1".to_owned()]);
    let elsewhere = Cursor::start(Epoch(1));
    world.open_at(ADA, elsewhere);
    assert_eq!(world.open_at(BOB, elsewhere).next, Continuation::Wait);
    world.registry.meta.as_mut().unwrap().epoch = Epoch(8);
    world.room.handle_replaced(world.now);
    world.run();
    assert_eq!(code_of(world.next(ADA)), ErrorCode::Fenced);
    let Some(Message::Opened(opened)) = world.next(BOB) else {
        panic!("nothing is left to wait for");
    };
    assert_eq!((opened.epoch, opened.request), (Epoch(8), RequestId(1)));
    assert!(matches!(opened.next, Continuation::Reset { .. }));
    assert_eq!(world.open_at(ADA, elsewhere).next, Continuation::Wait);
}

#[test]
fn who_waits_for_a_turn_is_told_by_its_request_that_it_has_to_leave() {
    let mut world = World::new().with_log(["1".to_owned()]);
    let elsewhere = Cursor::start(Epoch(1));
    world.open_at(ADA, elsewhere);
    assert_eq!(world.open_at(BOB, elsewhere).next, Continuation::Wait);
    let reason = PeerError::new(ErrorCode::ShuttingDown, "unloading");
    world.room.handle_evict(world.now, &reason);
    world.run();
    let told = world.next(BOB);
    assert!(
        matches!(&told, Some(Message::Error(error)) if error.reference == Reference::Request(RequestId(1))),
        "{told:?}"
    );
    assert_eq!(world.next(BOB), None);
}

/// Scenario 31, the server's side.
#[test]
fn a_newer_session_of_the_same_client_takes_over_before_anything_is_computed_for_it() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["a"]);
    let mut request = world.request(BOB);
    (request.user, request.origin) = (user_of(ADA), origin_of(ADA));
    let opened = world.open_with(BOB, request);
    assert_eq!(
        opened
            .origins
            .iter()
            .map(|o| (o.0, o.1))
            .collect::<Vec<_>>(),
        [(origin_of(ADA), 1)]
    );
    assert_eq!(world.superseded, [ADA]);
    world.push(ADA, 2, &["late"]);
    assert_eq!(world.logged(), ["a"]);
    assert_eq!(world.all(ADA), []);
    // A straggler of the older connection does not take over in turn.
    let request = world.request(ADA);
    world.room.handle_open(world.now, ADA, request).unwrap();
    world.run();
    assert_eq!(world.superseded, [ADA, ADA]);
    assert_eq!((world.all(ADA), world.room.n_members()), (vec![], 1));
    world.superseded.pop();
    // Another user with the same origin takes nothing over.
    let mut request = world.request(CYD);
    request.origin = origin_of(ADA);
    world.open_with(CYD, request);
    assert_eq!(world.superseded, [ADA]);
}

/// Scenario 25.
#[test]
fn an_unknown_document_is_created_or_not_as_the_open_asks() {
    let mut world = World::new();
    let mut request = world.request(ADA);
    request.create = false;
    world
        .room
        .handle_open(world.now, ADA, request.clone())
        .unwrap();
    world.run();
    assert_eq!(code_of(world.next(ADA)), ErrorCode::NotFound);
    assert_eq!(world.next(ADA), None);
    assert!(
        world.is_unloaded,
        "asking for what is not there leaves nothing behind"
    );
    assert_eq!(
        world.room.handle_open(world.now, ADA, request),
        Err(RoomUnloaded)
    );

    let mut world = World::new();
    let mut request = world.request(ADA);
    request.access = AccessLevel::Read;
    world.room.handle_open(world.now, ADA, request).unwrap();
    world.run();
    assert_eq!(
        code_of(world.next(ADA)),
        ErrorCode::NotFound,
        "readers create nothing"
    );
    assert!(world.registry.meta.is_none());
}

#[test]
fn an_open_with_another_or_an_unknown_engine_is_refused() {
    let mut world = World::new().with_log(["1".to_owned()]);
    let mut request = world.request(ADA);
    request.engine = EngineId::OPAQUE;
    world.room.handle_open(world.now, ADA, request).unwrap();
    world.run();
    assert_eq!(code_of(world.next(ADA)), ErrorCode::EngineMismatch);
    let mut world = World::new();
    let mut request = world.request(ADA);
    request.engine = EngineId::new("loro").unwrap();
    world.room.handle_open(world.now, ADA, request).unwrap();
    world.run();
    assert_eq!(code_of(world.next(ADA)), ErrorCode::UnknownEngine);
}
