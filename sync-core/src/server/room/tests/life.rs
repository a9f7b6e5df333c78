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
