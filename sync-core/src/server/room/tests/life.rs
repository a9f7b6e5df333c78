//! The life of a room, and what is told of it.

use super::*;

/// Scenario 59.
#[test]
fn an_idle_room_unloads_and_a_busy_one_does_not() {
    let mut world = World::new();
    assert_eq!(world.room.phase(), RoomPhase::Loading);
    world.open(ADA);
    assert_eq!(world.room.phase(), RoomPhase::Live);
    world.holds_appends = true;
    world.push(ADA, 1, &["a"]);
    world.room.handle_close(world.now, ADA);
    assert_eq!(
        world.room.phase(),
        RoomPhase::Live,
        "an append is under way"
    );
    world.release_appends();
    assert!(matches!(world.room.phase(), RoomPhase::Draining { .. }));
    world.pass(Duration::from_secs(29));
    world.open(BOB);
    assert_eq!(world.room.phase(), RoomPhase::Live);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.room.phase(), RoomPhase::Live);
    world.room.handle_close(world.now, BOB);
    world.run();
    world.pass_to_timeout();
    assert!(world.is_unloaded);
    assert_eq!(
        (world.room.phase(), world.room.poll_timeout()),
        (RoomPhase::Unloaded, None)
    );
    assert_eq!(world.logged(), ["a"]);
}

/// Nothing of an unloaded room is under way: another one may begin.
#[test]
fn a_room_whose_time_is_over_begins_no_call_any_more() {
    let mut world = World::new();
    world.open(ADA);
    world.room.handle_head(world.now, Seq(1));
    let Some(RoomOutput::Registry(number, RegistryRequest::Tail { .. })) = world.room.poll_output()
    else {
        panic!("the room reads what it was told of");
    };
    world.room.handle_close(world.now, ADA);
    let failed = RegistryAnswer::Tail(Err(RegistryError::unavailable("a fault")));
    world.room.handle_registry(world.now, number, failed);
    // Noticed late: reading again was due long before.
    world.now = world.now + Duration::from_secs(60);
    world.room.handle_timeout(world.now);
    world.room.handle_head(world.now, Seq(2));
    let mut outputs = Vec::new();
    while let Some(output) = world.room.poll_output() {
        outputs.push(output);
    }
    assert!(
        matches!(outputs.last(), Some(RoomOutput::Unloaded)),
        "{outputs:?}"
    );
    let is_call = |output: &RoomOutput| matches!(output, RoomOutput::Registry(..));
    assert!(!outputs.iter().any(is_call), "{outputs:?}");
}

/// Scenario 63, who is in the room.
#[test]
fn a_deleted_document_is_closed_for_everybody() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world
        .registry
        .append_errors
        .push_back((RegistryError::Deleted, false));
    world.push(ADA, 1, &["a"]);
    for session in [ADA, BOB] {
        let closed = world.next(session);
        assert!(
            matches!(&closed, Some(Message::Closed(c)) if c.reason == Some(ErrorCode::Deleted)),
            "{closed:?}"
        );
        assert_eq!(world.next(session), None);
    }
    assert_eq!(world.room.n_members(), 0);
}

#[test]
fn an_evicted_room_ends_when_what_was_pushed_is_committed_and_everybody_has_left() {
    let mut world = World::new();
    world.open(ADA);
    world.holds_appends = true;
    world.push(ADA, 1, &["a"]);
    let reason = PeerError::new(ErrorCode::ShuttingDown, "unloading");
    world.room.handle_evict(world.now, &reason);
    world.run();
    let closed = world.next(ADA);
    assert!(
        matches!(&closed, Some(Message::Closed(c)) if c.reason == Some(ErrorCode::ShuttingDown)),
        "{closed:?}"
    );
    assert_eq!(world.next(ADA), None);
    assert_eq!(world.room.n_members(), 0);
    assert!(!world.is_unloaded, "an append is under way");
    world.release_appends();
    assert!(world.is_unloaded);
    assert_eq!(world.logged(), ["a"]);
}

#[test]
fn a_room_that_somebody_comes_back_to_stays() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    let reason = PeerError::new(ErrorCode::ShuttingDown, "unloading");
    world.room.handle_evict(world.now, &reason);
    world.open(BOB);
    while world.next(ADA).is_some() {}
    world.pass(Duration::from_secs(60));
    assert!(!world.is_unloaded);
    world.push(BOB, 1, &["a"]);
    assert_eq!(world.logged(), ["a"]);
}

#[test]
fn a_hint_that_the_document_was_replaced_is_looked_into_and_a_wrong_one_does_no_harm() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["a"]);
    while world.next(ADA).is_some() {}
    world.room.handle_replaced(world.now);
    world.run();
    assert_eq!(world.next(ADA), None);
    world.push(ADA, 2, &["b"]);
    assert_eq!(world.logged(), ["a", "b"]);
    while world.next(ADA).is_some() {}
    world.registry.meta.as_mut().unwrap().epoch = Epoch(8);
    world.room.handle_replaced(world.now);
    world.run();
    assert_eq!(code_of(world.next(ADA)), ErrorCode::Fenced);
}

#[test]
fn what_a_room_counts_is_what_happened() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world.push(ADA, 1, &["hello", "!"]);
    let bytes: usize = [ADA, BOB]
        .into_iter()
        .flat_map(|session| std::iter::from_fn(|| world.next_frame(session)).collect::<Vec<_>>())
        .map(|frame| frame.len())
        .sum();
    let counters = world.room.counters();
    assert_eq!((counters.changes, counters.bytes_in), (1, 6));
    assert_eq!(counters.errors.get(&ErrorCode::InvalidChange), Some(&1));
    assert_eq!((counters.commits.count(), counters.opens.count()), (1, 2));
    let members: Vec<_> = world.room.member_stats().collect();
    assert_eq!(members.len(), 2);
    assert_eq!(members.iter().map(|member| member.bytes_in).sum::<u64>(), 6);
    let out: u64 = members.iter().map(|member| member.bytes_out).sum();
    assert_eq!(out, counters.bytes_out);
    assert!(counters.bytes_out >= u64::try_from(bytes).unwrap());
    assert!(
        members
            .iter()
            .all(|member| member.sent == Seq(1) && member.lag == 0)
    );
}

/// Scenario 72, the room's part.
#[test]
fn each_event_is_told_once() {
    let mut world = World::new();
    world.open(ADA);
    world.open(ADA);
    world.push(ADA, 1, &["a", "b"]);
    world.push(ADA, 3, &["!"]);
    world.room.handle_close(world.now, ADA);
    world.run();
    let told: Vec<_> = world
        .events
        .iter()
        .map(|event| format!("{event:?}"))
        .collect();
    let expected = ["Loaded", "Opened", "Committed", "Refused", "Left"];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (event, name) in told.iter().zip(expected) {
        assert!(event.starts_with(name), "{event} is not {name}");
    }
}
