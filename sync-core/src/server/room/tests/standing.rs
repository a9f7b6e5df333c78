//! What is told of a room and its members, in numbers.

use super::*;

fn member(world: &World, session: SessionId) -> MemberStats {
    let mut stats = world.room.member_stats();
    stats.find(|member| member.session == session).unwrap()
}

#[test]
fn a_member_lags_by_what_it_has_yet_to_be_sent_and_only_if_the_ring_does_not_have_it() {
    let mut world = World::with(|config| config.ring_bytes_max = 1);
    world.open(ADA);
    world.open(BOB);
    assert_eq!(world.room.head_for(CYD), None);
    assert_eq!(world.room.head_for(BOB), Some(Seq(0)));
    world.push(ADA, 1, &["a"]);
    let bob = member(&world, BOB);
    assert_eq!((bob.sent, bob.lag, bob.is_lagging), (Seq(0), 1, false));
    world.push(ADA, 2, &["b", "c"]);
    let bob = member(&world, BOB);
    assert_eq!((bob.sent, bob.lag, bob.is_lagging), (Seq(0), 3, true));
    let stats = world.room.stats(world.now);
    assert_eq!((stats.lag_max, stats.n_lagging), (3, 2));
    assert!(stats.ring_bytes > 2);
    world.all(ADA);
    world.all(BOB);
    let bob = member(&world, BOB);
    assert_eq!((bob.sent, bob.lag, bob.is_lagging), (Seq(3), 0, false));
    assert_eq!(world.room.head_for(BOB), Some(Seq(3)));
    assert_eq!(world.room.stats(world.now).n_lagging, 0);
}

#[test]
fn a_member_in_the_middle_of_a_message_does_not_lag_and_one_that_reads_does() {
    let mut world = World::with(|config| config.ring_bytes_max = 1);
    world.open(ADA);
    world.open(BOB);
    world.push(ADA, 1, &[&"x".repeat(200_000)]);
    world.next_frame(BOB).unwrap();
    world.push(ADA, 2, &["b"]);
    let bob = member(&world, BOB);
    assert_eq!((bob.lag, bob.is_lagging), (2, false));
    assert!(world.room.occupied(BOB).in_message);
    while world.next_frame(BOB).is_some() {}
    assert!(!world.room.occupied(BOB).in_message);
    // Of somebody who opened behind the ring, rows are in memory.
    world.push(ADA, 3, &["c"]);
    world.push(ADA, 4, &["d"]);
    world.open_at(CYD, world.cursor(2));
    assert!(world.room.occupied(CYD).catching_up);
    assert!(member(&world, CYD).is_lagging);
    world.all(CYD);
    assert!(!member(&world, CYD).is_lagging);
}

#[test]
fn a_member_that_is_sent_a_snapshot_lags_by_all_of_it() {
    let mut world = World::with(|config| config.snapshot_piece_bytes = 4);
    world = world.with_log((1..=5).map(|n| n.to_string()));
    let digest = world.registry.digest(5);
    let bytes = Bytes::from_static(b"the state");
    world.registry.snapshot = Some(Snapshot::new(Seq(5), digest, bytes));
    world.registry.log_start = 5;
    world.open(ADA);
    assert!(matches!(world.next(ADA), Some(Message::Snapshot(_))));
    let ada = member(&world, ADA);
    assert_eq!((ada.sent, ada.lag, ada.is_lagging), (Seq(0), 5, true));
    world.all(ADA);
    let ada = member(&world, ADA);
    assert_eq!((ada.sent, ada.lag, ada.is_lagging), (Seq(5), 0, false));
}

#[test]
fn what_waits_is_counted_wherever_it_does() {
    let mut world = World::with(|config| config.engines.check(EngineId::YRS));
    world.open(ADA);
    world.holds_checks = true;
    world.push(ADA, 1, &["a", "b"]);
    assert_eq!(world.room.stats(world.now).n_waiting, 2);
    world.push(ADA, 3, &["c"]);
    assert_eq!(world.room.stats(world.now).n_waiting, 3);
    world.release_checks();
    assert_eq!(world.room.stats(world.now).n_waiting, 0);
    let mut world = World::new();
    world.open(ADA);
    world.holds_appends = true;
    world.push(ADA, 1, &["a"]);
    world.push(ADA, 2, &["b", "c"]);
    assert_eq!(world.room.stats(world.now).n_waiting, 2);
}

#[test]
fn a_push_of_a_session_that_is_not_here_is_settled_and_one_of_nothing_is_not() {
    let mut world = World::new();
    world.open(ADA);
    world.push(BOB, 1, &["a"]);
    let charge = push_charge(&["a".into()]);
    assert_eq!(world.settled.get(&BOB), Some(&charge));
    world.push(CYD, 1, &[]);
    assert_eq!(world.settled.get(&CYD), None);
}
