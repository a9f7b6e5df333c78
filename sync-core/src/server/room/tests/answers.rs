//! What becomes of changes that the registry answers otherwise than with a commit.

use super::*;

fn answer_append(world: &mut World, answer: Result<Vec<Outcome>, RegistryError>) {
    let (number, _) = world.held.pop_front().expect("an append is under way");
    let answer = RegistryAnswer::Append(answer);
    world.room.handle_registry(world.now, number, answer);
    world.run();
}

fn checked() -> World {
    World::with(|config| config.engines.check(EngineId::YRS))
}

/// A world in which Ada's first change is committed, and the append of what comes then is held.
fn after_one(mut world: World) -> World {
    world.open(ADA);
    world.push(ADA, 1, &["a"]);
    world.all(ADA);
    world.holds_appends = true;
    world
}

#[test]
fn an_append_that_is_not_answered_change_by_change_is_no_commit() {
    let at = |seq| Outcome::At(Seq(seq));
    for outcomes in [vec![], vec![at(2)], vec![at(2), at(3), at(4)]] {
        let mut world = after_one(World::new());
        let before = world.settled[&ADA];
        world.push(ADA, 2, &["b", "c"]);
        answer_append(&mut world, Ok(outcomes));
        let told = world.all(ADA);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(
            code_of(told.into_iter().next()),
            ErrorCode::StorageUnavailable
        );
        let charge = push_charge(&["b".into(), "c".into()]);
        assert_eq!(world.settled[&ADA] - before, charge);
    }
}

#[test]
fn a_head_that_nothing_was_expected_of_is_a_fault_of_the_registry() {
    let mut world = after_one(World::new());
    world.push(ADA, 2, &["b"]);
    let head = Seq(9);
    answer_append(&mut world, Err(RegistryError::Conflict { head }));
    assert_eq!(code_of(world.next(ADA)), ErrorCode::StorageUnavailable);
}

#[test]
fn an_append_that_always_meets_another_head_ends() {
    let mut world = checked();
    world.open(ADA);
    for _ in 0..100 {
        let conflict = RegistryError::Conflict { head: Seq(0) };
        world.registry.append_errors.push_back((conflict, false));
    }
    world.push(ADA, 1, &["a"]);
    assert_eq!(code_of(world.next(ADA)), ErrorCode::StorageUnavailable);
    // The first time, and 64 times again.
    assert_eq!(world.registry.append_errors.len(), 35);
    assert_eq!(world.logged(), [""; 0]);
}

#[test]
fn who_is_told_to_open_again_is_refused_nothing_on_top_of_that_and_who_repeats_is() {
    let duplicate = Outcome::Duplicate { last: 2, seq: None };
    for (outcome, is_refused) in [(Outcome::Gap { expected: 9 }, false), (duplicate, true)] {
        let mut world = after_one(World::new());
        let before = world.settled[&ADA];
        world.push(ADA, 2, &["b", "!bad", "c"]);
        answer_append(&mut world, Ok(vec![outcome]));
        let told = world.all(ADA);
        if is_refused {
            assert!(
                matches!(&told[..], [Message::Ack(Ack { number: 2, count: 0, .. }), Message::Refuse(r)] if r.number == 3),
                "{told:?}"
            );
        } else {
            assert_eq!(told.len(), 1, "{told:?}");
            assert_eq!(code_of(told.into_iter().next()), ErrorCode::Gap);
        }
        let charge = push_charge(&["b".into(), "!bad".into(), "c".into()]);
        assert_eq!(world.settled[&ADA] - before, charge);
    }
}

/// The document does not have it, so the id stands for other bytes, whose row is gone.
#[test]
fn a_repeat_that_the_document_does_not_have_is_an_id_used_again_and_the_replica_is_dropped() {
    let mut world = after_one(checked());
    world.push(ADA, 2, &["b"]);
    let duplicate = Outcome::Duplicate { last: 2, seq: None };
    answer_append(&mut world, Ok(vec![duplicate]));
    let refused = world.next(ADA);
    assert!(
        matches!(&refused, Some(Message::Refuse(r)) if r.code == ErrorCode::IdReused),
        "{refused:?}"
    );
    world.holds_appends = false;
    world.open(BOB);
    world.push(BOB, 1, &["c<b"]);
    let told = world.all(BOB);
    assert!(
        matches!(&told[..], [Message::Refuse(r), Message::Changes(_)] if r.code == ErrorCode::MissingDependency),
        "{told:?}"
    );
    assert_eq!(world.replica.n_loads, 2);
}

#[test]
fn a_sequence_that_the_registry_gives_twice_has_everybody_open_again() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world.push(ADA, 1, &["a", "b"]);
    world.all(ADA);
    world.all(BOB);
    world.registry.log.truncate(1);
    world.push(BOB, 1, &["c"]);
    for session in [ADA, BOB] {
        let told = world.all(session);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(code_of(told.into_iter().next()), ErrorCode::Fenced);
    }
    let opened = world.open_at(ADA, world.cursor(1));
    assert_eq!((opened.next, opened.head), (Continuation::Resume, Seq(2)));
}

#[test]
fn a_change_is_numbered_from_one_and_not_with_the_last_number() {
    for number in [0, u64::MAX] {
        let mut world = World::new();
        world.open(ADA);
        world.holds_appends = true;
        world.push(ADA, number, &["a"]);
        assert_eq!(code_of(world.next(ADA)), ErrorCode::Gap);
        assert!(world.held.is_empty(), "the registry is not asked");
    }
}

#[test]
fn who_is_stopped_is_told_once_after_what_came_before_and_goes_on_after_another_open() {
    let mut world = after_one(World::new());
    world.push(ADA, 2, &["b"]);
    for _ in 0..2 {
        let error = PeerError::new(ErrorCode::RateLimited, "slowly");
        world.room.handle_stop_push(world.now, ADA, error);
    }
    world.push(ADA, 3, &["c"]);
    world.release_appends();
    let told = world.all(ADA);
    assert!(
        matches!(told[..], [Message::Ack(_), Message::Error(_)]),
        "{told:?}"
    );
    assert_eq!(code_of(told.into_iter().nth(1)), ErrorCode::RateLimited);
    assert_eq!(world.logged(), ["a", "b"]);
    world.open(ADA);
    world.push(ADA, 3, &["c"]);
    assert_eq!(world.logged(), ["a", "b", "c"]);
}
