//! A registry that fails, that others write to, or that lost something.

use super::*;

#[test]
fn an_append_of_unknown_outcome_is_settled_by_the_log_whether_it_was_carried_out_or_not() {
    for is_done in [true, false] {
        let mut world = World::new();
        world.open(ADA);
        world.open(BOB);
        let error = RegistryError::Unknown { source: None };
        world.registry.append_errors.push_back((error, is_done));
        world.push(ADA, 1, &["a"]);
        world.push(ADA, 2, &["b"]);
        assert_eq!(world.all(ADA), [], "nothing is acknowledged on a guess");
        world.pass_to_timeout();
        assert_eq!(world.logged(), ["a", "b"], "carried out: {is_done}");
        assert_eq!(world.follow(BOB, 0), ["a", "b"]);
        let told = world.all(ADA);
        // What the log is found to have comes in the stream, which is answer enough.
        let is_repeat = |message: &Message| matches!(message, Message::Changes(_));
        assert_eq!(told.iter().any(is_repeat), is_done, "{told:?}");
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(world.settled[&ADA], push_charge(&["a".into(), "b".into()]));
    }
}

/// Scenario 83, storage.
#[test]
fn storage_that_fails_closes_the_channel_with_a_delay_and_refuses_nothing() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    let retry_after = Some(Duration::from_secs(3));
    let error = RegistryError::Unavailable {
        retry_after,
        source: None,
    };
    world.registry.append_errors.push_back((error, false));
    world.push(ADA, 1, &["a"]);
    world.push(ADA, 2, &["b"]);
    world.push(BOB, 1, &["not affected"]);
    let told = world.all(ADA);
    let Message::Error(error) = &told[0] else {
        panic!("expected Error, got {told:?}");
    };
    assert_eq!(
        (error.code, error.retry_after),
        (ErrorCode::StorageUnavailable, retry_after)
    );
    assert_eq!(error.reference, Reference::Channel(CHANNEL));
    assert_eq!(texts(&told[1]), [b"not affected"]);
    world.open(ADA);
    world.push(ADA, 1, &["a", "b"]);
    assert_eq!(world.logged(), ["not affected", "a", "b"]);
}

#[test]
fn an_append_that_stays_unknown_is_given_up_after_its_attempts() {
    let mut world = World::new();
    world.open(ADA);
    for _ in 0..20 {
        let error = RegistryError::Unknown { source: None };
        world.registry.append_errors.push_back((error, false));
    }
    world.push(ADA, 1, &["a"]);
    while world.room.poll_timeout().is_some() {
        world.pass_to_timeout();
    }
    assert_eq!(code_of(world.next(ADA)), ErrorCode::StorageUnavailable);
    let done = 20 - world.registry.append_errors.len();
    assert_eq!(done, 7);
}

#[test]
fn what_others_append_is_published_in_log_order_before_ones_own() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world.holds_appends = true;
    world.push(ADA, 1, &["mine"]);
    world.foreign_append("theirs");
    world.release_appends();
    assert_eq!(world.follow(BOB, 0), ["theirs", "mine"]);
    world.foreign_append("a hint tells");
    world.room.handle_head(world.now, Seq(3));
    // A hint that lies does no harm.
    world.room.handle_head(world.now, Seq(1_000));
    world.run();
    assert_eq!(world.follow(BOB, 2), ["a hint tells"]);
}

/// Scenario 78: restored under the same epoch, then overtaken.
#[test]
fn a_registry_that_went_back_is_noticed_by_the_next_append_or_open() {
    let mut world = World::new().with_log((1..=5).map(|n| n.to_string()));
    world.open(BOB);
    world.follow(BOB, 0);
    let cursor = world.cursor(5);
    world.registry.log.truncate(2);
    for n in 0..6 {
        world.foreign_append(&format!("other {n}"));
    }
    let merge = Continuation::Reset {
        reset: Reset::Merge,
        total_bytes: 0,
    };
    world.open(ADA);
    assert_eq!(code_of(world.next(ADA)), ErrorCode::Fenced);
    assert_eq!(code_of(world.next(BOB)), ErrorCode::Fenced);
    world.open(ADA);
    world.push(ADA, 1, &["a"]);
    assert_eq!(world.open_at(BOB, cursor).next, merge);
    assert_eq!(world.follow(BOB, 0).len(), world.registry.log.len());
}

/// Scenario 61, the server's side: everything is lost under a live room.
#[test]
fn a_document_that_is_lost_under_a_live_room_is_created_again_and_everybody_reconciles() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world.push(ADA, 1, &["a"]);
    let cursor = Cursor {
        epoch: world.registry.meta.as_ref().unwrap().epoch,
        ..world.cursor(1)
    };
    world.all(ADA);
    world.all(BOB);
    world.registry = TestRegistry::default();
    world.push(ADA, 2, &["b"]);
    assert_eq!(code_of(world.next(ADA)), ErrorCode::Fenced);
    assert_eq!(code_of(world.next(BOB)), ErrorCode::Fenced);
    let opened = world.open_at(ADA, cursor);
    assert_eq!(
        opened.next,
        Continuation::Reset {
            reset: Reset::Merge,
            total_bytes: 0
        }
    );
    assert_ne!(opened.epoch, cursor.epoch);
    assert_eq!(opened.origins[0].1, 0);
    assert_eq!(world.open_at(BOB, cursor).next, Continuation::Wait);
}

#[test]
fn a_new_epoch_fences_everybody_and_the_next_open_starts_from_it() {
    let mut world = World::new().with_log(["1".to_owned()]);
    world.open(ADA);
    world.open(BOB);
    world.all(BOB);
    world.registry.meta.as_mut().unwrap().epoch = Epoch(8);
    world.registry.meta.as_mut().unwrap().mode = EpochMode::Discard;
    world.push(ADA, 1, &["a"]);
    assert_eq!(code_of(world.all(BOB).pop()), ErrorCode::Fenced);
    let opened = world.open_at(BOB, Cursor::start(Epoch(7)));
    assert_eq!(
        opened.next,
        Continuation::Reset {
            reset: Reset::Discard,
            total_bytes: 0
        }
    );
    assert_eq!(world.logged(), ["1"]);
}
