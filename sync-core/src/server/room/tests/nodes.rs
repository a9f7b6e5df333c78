//! A room of one node among several: what the others do to the document.

use super::*;

impl World {
    /// What the room asks of the registry next, which is not answered.
    fn next_request(&mut self) -> Option<(RequestNumber, RegistryRequest)> {
        loop {
            match self.room.poll_output()? {
                RoomOutput::Registry(number, request) => return Some((number, request)),
                RoomOutput::Wake(session) => drop(self.ready.insert(session)),
                RoomOutput::Event(event) => self.events.push(event),
                _ => {}
            }
        }
    }
}

/// Scenario 63, by another node: found out by a hint, or by a poll.
#[test]
fn a_hint_that_comes_during_an_append_is_looked_into_after_it() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world.holds_appends = true;
    world.push(ADA, 1, &["a"]);
    world.room.handle_replaced(world.now);
    let (number, request) = world.held.pop_front().unwrap();
    let answer = world.registry.answer(request);
    world.registry.is_deleted = true;
    world.room.handle_registry(world.now, number, answer);
    world.run();
    let told = world.all(BOB);
    assert!(
        matches!(told.last(), Some(Message::Closed(c)) if c.reason == Some(ErrorCode::Deleted)),
        "{told:?}"
    );
}

#[test]
fn a_hint_that_comes_while_the_log_is_read_is_not_forgotten() {
    let mut world = World::new();
    world.open(ADA);
    world.foreign_append("one");
    world.room.handle_head(world.now, Seq(1));
    let (number, request) = world.next_request().unwrap();
    let answer = world.registry.answer(request);
    world.foreign_append("two");
    world.room.handle_head(world.now, Seq(2));
    world.room.handle_registry(world.now, number, answer);
    world.run();
    assert_eq!(world.follow(ADA, 0), ["one", "two"]);
}

/// Scenario 86, the room's part: the answer to another's read is not for who is opening.
#[test]
fn whoever_is_opening_goes_by_what_was_read_for_it() {
    let mut world = World::new().with_log(["1".to_owned()]);
    world.open(ADA);
    world.all(ADA);
    // Deleted, as an older read says, and brought back since by an operator.
    world.room.handle_replaced(world.now);
    let (number, _) = world.next_request().unwrap();
    let request = world.request(BOB);
    world.room.handle_open(world.now, BOB, request).unwrap();
    let deleted = RegistryAnswer::Tail(Err(RegistryError::Deleted));
    world.room.handle_registry(world.now, number, deleted);
    world.run();
    let told = world.all(BOB);
    assert!(
        matches!(told.first(), Some(Message::Opened(_))),
        "BOB: {told:?}"
    );
    let told = world.all(ADA);
    assert!(
        matches!(told.last(), Some(Message::Closed(c)) if c.reason == Some(ErrorCode::Deleted)),
        "ADA: {told:?}"
    );
}

/// Scenario 61, noticed by a poll before anybody pushes.
#[test]
fn a_document_that_is_found_lost_is_not_taken_for_one_that_never_was() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["a"]);
    let cursor = world.cursor(1);
    world.all(ADA);
    world.registry = TestRegistry::default();
    world.room.handle_replaced(world.now);
    world.run();
    assert_eq!(code_of(world.next(ADA)), ErrorCode::Fenced);
    let opened = world.open_at(ADA, cursor);
    assert!(matches!(
        opened.next,
        Continuation::Reset {
            reset: Reset::Merge,
            ..
        }
    ));
}

#[test]
fn a_room_without_members_is_not_kept_by_what_others_append() {
    let mut world = World::new();
    world.open(ADA);
    world.room.handle_close(world.now, ADA);
    world.run();
    for n in 1..=60 {
        world.foreign_append("elsewhere");
        world.room.handle_head(world.now, Seq(n));
        world.run();
        world.pass(Duration::from_secs(1));
    }
    assert!(world.is_unloaded);
}

#[test]
fn a_snapshot_of_another_history_is_not_read_again_and_again() {
    let mut world = World::new().with_log((1..=5).map(|n| n.to_string()));
    world.registry.snapshot = Some(Snapshot::new(
        Seq(5),
        world.registry.digest(5),
        "five".into(),
    ));
    let request = world.request(ADA);
    world.room.handle_open(world.now, ADA, request).unwrap();
    // The document is replaced by a shorter one after the room has read how long it is.
    let mut n_requests = 0;
    while let Some((number, request)) = world.next_request() {
        if matches!(request, RegistryRequest::Snapshot) && n_requests < 5 {
            world.registry.log.truncate(2);
            let digest = world.registry.digest(2);
            world.registry.snapshot = Some(Snapshot::new(Seq(2), digest, "two".into()));
            world.registry.meta.as_mut().unwrap().epoch = Epoch(9);
        }
        let answer = world.registry.answer(request);
        world.room.handle_registry(world.now, number, answer);
        n_requests += 1;
        assert!(n_requests < 50, "asks for ever");
    }
    let told = world.all(ADA);
    assert!(
        matches!(told.first(), Some(Message::Opened(opened)) if opened.epoch == Epoch(9)),
        "{told:?}"
    );
}

#[test]
fn an_open_that_read_the_registry_before_another_read_found_it_changed_reads_it_again() {
    for is_deleted in [false, true] {
        let mut world = World::new().with_log(["1".to_owned()]);
        world.open(ADA);
        world.all(ADA);
        let request = world.request(BOB);
        world.room.handle_open(world.now, BOB, request).unwrap();
        let (number, request) = world.next_request().unwrap();
        let before = world.registry.answer(request);
        world.registry.is_deleted = is_deleted;
        world.registry.meta.as_mut().unwrap().epoch = Epoch(8);
        // A poll has found out, and its news comes before what was asked for first.
        world.room.handle_replaced(world.now);
        world.run();
        world.room.handle_registry(world.now, number, before);
        world.run();
        let told = world.all(BOB);
        let is_told = match told.first() {
            Some(Message::Opened(opened)) => !is_deleted && opened.epoch == Epoch(8),
            Some(Message::Error(error)) => is_deleted && error.code == ErrorCode::Deleted,
            _ => false,
        };
        assert!(is_told, "deleted: {is_deleted}: {told:?}");
    }
}

#[test]
fn a_room_leaves_other_nodes_time_between_two_appends_that_were_checked() {
    let mut world = World::with(|config| {
        config.is_shared = true;
        config.engines.check(EngineId::YRS);
    });
    world.open(ADA);
    world.holds_appends = true;
    world.push(ADA, 1, &["a"]);
    world.pass(Duration::from_millis(10));
    world.release_appends();
    world.push(ADA, 2, &["b"]);
    assert_eq!(world.logged(), ["a"]);
    let until = Time::ZERO + Duration::from_millis(140);
    assert_eq!(world.room.poll_timeout(), Some(until));
    world.pass_to_timeout();
    assert_eq!(world.logged(), ["a", "b"]);
    // Nobody waits after a pause.
    world.pass(Duration::from_secs(1));
    world.holds_appends = true;
    world.push(ADA, 3, &["c"]);
    world.pass(Duration::from_millis(10));
    // Nor who was not quick enough.
    world.foreign_append("quicker");
    world.release_appends();
    assert_eq!(world.logged(), ["a", "b", "quicker", "c"]);
}
