//! Standing still while the document gets another history, and finding out that it has one.

use super::*;

const HOLD: Duration = Duration::from_secs(5);

/// Gives the document another history, behind the room's back.
fn trim(world: &mut World) {
    world.registry = TestRegistry::default();
    let new = NewDocument::new(document(), EngineId::YRS, Epoch(8));
    world.registry.answer(RegistryRequest::Create(new));
}

#[test]
fn what_is_pushed_during_a_trim_waits_until_it_is_over_or_has_taken_too_long() {
    for takes_too_long in [false, true] {
        let mut world = World::new();
        world.open(ADA);
        world.push(ADA, 1, &["a"]);
        let until = world.now + HOLD;
        world.room.hold_appends(world.now, until);
        world.push(ADA, 2, &["b"]);
        world.pass(HOLD - Duration::from_micros(1));
        assert_eq!(world.logged(), ["a"]);
        assert_eq!(world.room.poll_timeout(), Some(until));
        if takes_too_long {
            world.pass_to_timeout();
        } else {
            world.room.release_appends(world.now);
            world.run();
        }
        assert_eq!(world.logged(), ["a", "b"]);
        assert_eq!(world.room.poll_timeout(), None);
        world.push(ADA, 3, &["c"]);
        assert_eq!(world.logged(), ["a", "b", "c"]);
    }
}

#[test]
fn a_room_that_publishes_another_history_than_it_is_told_of_has_everybody_open_again() {
    let mut world = World::new().with_log(["1".to_owned()]);
    world.open(ADA);
    world.all(ADA);
    world.room.handle_trimmed(world.now, Epoch(7));
    world.run();
    assert_eq!(world.all(ADA), []);
    trim(&mut world);
    world.room.handle_trimmed(world.now, Epoch(8));
    world.run();
    assert_eq!(code_of(world.next(ADA)), ErrorCode::Fenced);
    assert_eq!(world.open(ADA).epoch, Epoch(8));
}

#[test]
fn an_open_that_read_the_registry_before_a_trim_reads_it_again() {
    let mut world = World::new().with_log(["1".to_owned()]);
    world.open(ADA);
    world.all(ADA);
    let request = world.request(BOB);
    world.room.handle_open(world.now, BOB, request).unwrap();
    let Some(RoomOutput::Registry(number, request)) = world.room.poll_output() else {
        panic!("the registry is read");
    };
    let before = world.registry.answer(request);
    trim(&mut world);
    world.room.handle_trimmed(world.now, Epoch(8));
    world.room.handle_registry(world.now, number, before);
    world.run();
    let Some(Message::Opened(opened)) = world.next(BOB) else {
        panic!("the document is there");
    };
    assert_eq!((opened.epoch, opened.head), (Epoch(8), Seq(0)));
}

#[test]
fn nothing_of_the_history_before_is_sent_to_who_opens_the_one_that_is_there() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["old", "older"]);
    world.all(ADA);
    trim(&mut world);
    world.foreign_append("new");
    world.room.handle_trimmed(world.now, Epoch(8));
    world.run();
    world.all(ADA);
    let cursor = Cursor::start(Epoch(8));
    assert_eq!(world.open_at(ADA, cursor).next, Continuation::Resume);
    assert_eq!(world.follow(ADA, 0), ["new"]);
}

#[test]
fn a_room_whose_standstill_is_over_with_nothing_to_append_wants_no_time() {
    let mut world = World::new();
    world.open(ADA);
    world.all(ADA);
    world.room.hold_appends(world.now, world.now + HOLD);
    world.pass_to_timeout();
    assert_eq!(world.room.poll_timeout(), None);
}

#[test]
fn a_room_that_stands_still_wants_no_time_for_its_next_append_before() {
    let mut world = World::with(|config| config.append_interval_members_min = 1);
    world.open(ADA);
    world.push(ADA, 1, &["a"]);
    let until = world.now + HOLD;
    world.room.hold_appends(world.now, until);
    world.push(ADA, 2, &["b"]);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.room.poll_timeout(), Some(until));
}
