//! How large a document may be, and who is told what when it is.

use super::*;

fn of_100_bytes() -> World {
    World::with(|config| config.limits.document_bytes_max = 100)
}

impl World {
    fn push_bytes(&mut self, session: SessionId, number: u64, n: usize) {
        self.push(session, number, &[&"x".repeat(n)]);
    }

    fn near(&mut self) -> Vec<usize> {
        let near = |event: &RoomEvent| match event {
            RoomEvent::NearLimit { bytes, max: 100 } => Some(*bytes),
            _ => None,
        };
        let near = self.events.iter().filter_map(near).collect();
        self.events.clear();
        near
    }

    fn full(&mut self, session: SessionId) -> ErrorMessage {
        let told = self.all(session);
        let mut errors = told.iter().filter_map(|message| match message {
            Message::Error(error) => Some(error.clone()),
            _ => None,
        });
        errors.next().unwrap_or_else(|| panic!("{told:?}"))
    }
}

/// Scenarios 47 and 83.
#[test]
fn a_document_takes_the_bytes_that_it_may_have_and_not_one_more() {
    let mut world = of_100_bytes();
    world.create();
    world.open(ADA);
    world.push_bytes(ADA, 1, 60);
    world.push_bytes(ADA, 2, 40);
    world.push_bytes(ADA, 3, 1);
    let error = world.full(ADA);
    assert_eq!(
        (error.code, error.action),
        (ErrorCode::DocumentFull, Action::Retry)
    );
    assert!(error.retry_after.is_some());
    assert_eq!(world.registry.head(), 2);
}

/// Scenario 47: what waits to be appended counts.
#[test]
fn changes_that_are_still_in_the_line_are_counted() {
    let mut world = of_100_bytes();
    world.create();
    world.open(ADA);
    world.open(BOB);
    world.holds_appends = true;
    world.push_bytes(ADA, 1, 50);
    world.push_bytes(ADA, 2, 40);
    world.push_bytes(BOB, 1, 11);
    world.holds_appends = false;
    world.release_appends();
    assert_eq!(world.full(BOB).code, ErrorCode::DocumentFull);
    assert_eq!(world.registry.head(), 2);
    // Others are not stopped by that.
    world.push_bytes(ADA, 3, 10);
    assert_eq!(world.registry.head(), 3);
}

/// Scenario 47: what was there before the room was made counts.
#[test]
fn a_document_that_is_loaded_counts_as_the_registry_says() {
    let mut world = of_100_bytes().with_log(["x".repeat(50), "x".repeat(49)]);
    world.open(ADA);
    assert_eq!(world.near(), [99]);
    world.push_bytes(ADA, 1, 2);
    assert_eq!(world.full(ADA).code, ErrorCode::DocumentFull);
    world.open(ADA);
    world.push_bytes(ADA, 1, 1);
    assert_eq!(world.registry.head(), 3);
}

/// Scenario 47.
#[test]
fn that_a_document_is_nearly_too_large_is_said_once() {
    let mut world = of_100_bytes();
    world.create();
    world.open(ADA);
    world.push_bytes(ADA, 1, 79);
    assert_eq!(world.near(), Vec::<usize>::new());
    world.push_bytes(ADA, 2, 1);
    assert_eq!(world.near(), [80]);
    world.push_bytes(ADA, 3, 1);
    assert_eq!(world.near(), Vec::<usize>::new());
}

/// Scenario 47.
#[test]
fn a_document_that_is_nearly_too_large_is_folded_at_once_and_may_grow_again() {
    let mut world = of_100_bytes();
    world.create();
    world.open(ADA);
    world.push_bytes(ADA, 1, 79);
    assert!(world.folds.is_empty());
    world.push_bytes(ADA, 2, 1);
    assert_eq!(world.near(), [80]);
    let request = world.folds.pop_front().unwrap();
    let digest = world.registry.digest(2);
    let snapshot = Snapshot::new(request.through, digest, "0123456789".into());
    let folded = FoldedLog::new(snapshot, vec![79, 1]);
    world.room.handle_folded(world.now, Ok(folded));
    world.run();
    world.push_bytes(ADA, 3, 69);
    assert_eq!(world.near(), Vec::<usize>::new());
    world.push_bytes(ADA, 4, 1);
    assert_eq!(world.near(), [80]);
    assert_eq!(world.registry.head(), 4);
}

/// Scenario 47: what is published while the registry is being asked for the size counts once.
#[test]
fn what_is_published_while_the_size_is_read_counts_once() {
    for is_counted_by_the_registry in [false, true] {
        let mut world = of_100_bytes().with_log(["x".repeat(50)]);
        let request = world.request(ADA);
        world.room.handle_open(world.now, ADA, request).unwrap();
        let mut size = None;
        while let Some(output) = world.room.poll_output() {
            match output {
                RoomOutput::Registry(number, RegistryRequest::Size) => size = Some(number),
                RoomOutput::Registry(number, request) => {
                    let answer = world.registry.answer(request);
                    world.room.handle_registry(world.now, number, answer);
                }
                _ => {}
            }
        }
        let before = world.registry.answer(RegistryRequest::Size);
        world.push_bytes(ADA, 1, 40);
        let answer = if is_counted_by_the_registry {
            world.registry.answer(RegistryRequest::Size)
        } else {
            before
        };
        world
            .room
            .handle_registry(world.now, size.expect("asked for"), answer);
        world.run();
        world.push_bytes(ADA, 2, 10);
        world.push_bytes(ADA, 3, 1);
        assert_eq!(world.registry.head(), 3);
        world.ready.insert(ADA);
        assert_eq!(world.full(ADA).code, ErrorCode::DocumentFull);
    }
}

#[test]
fn a_document_that_is_nearly_too_large_is_not_folded_for_a_few_bytes() {
    let mut world = of_100_bytes().with_log(["x".to_owned()]);
    let digest = world.registry.digest(1);
    let state = Bytes::from(vec![b'x'; 85]);
    world.registry.snapshot = Some(Snapshot::new(Seq(1), digest, state));
    world.open(ADA);
    world.push_bytes(ADA, 1, 4);
    assert_eq!(world.near(), [85]);
    assert!(world.folds.is_empty());
    world.push_bytes(ADA, 2, 1);
    assert_eq!(world.folds.len(), 1);
}
