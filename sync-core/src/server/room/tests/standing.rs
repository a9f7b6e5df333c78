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

#[test]
fn a_session_is_told_of_once_when_it_opens_the_document_and_once_when_it_leaves() {
    let mut world = World::new();
    for _ in 0..3 {
        world.open(ADA);
    }
    world.room.handle_close(world.now, ADA);
    world.run();
    let told: Vec<_> = world
        .events
        .iter()
        .filter_map(|event| match event {
            RoomEvent::Opened { session, .. } => Some((*session, true)),
            RoomEvent::Left { session } => Some((*session, false)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(ADA, true), (ADA, false)]);
}

/// However much there is for it.
#[test]
fn a_member_that_has_been_woken_is_not_woken_again_before_it_has_polled() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world.all(BOB);
    let mut n_wakes = 0;
    for first_number in 1..=3 {
        let push = Push {
            channel: CHANNEL,
            origin: origin_of(ADA),
            first_number,
            changes: vec!["a".into()],
            reconciling: false,
        };
        world.room.handle_push(world.now, ADA, push);
        while let Some(output) = world.room.poll_output() {
            match output {
                RoomOutput::Wake(BOB) => n_wakes += 1,
                RoomOutput::Registry(number, request) => {
                    let answer = world.registry.answer(request);
                    world.room.handle_registry(world.now, number, answer);
                }
                _ => {}
            }
        }
    }
    assert_eq!(n_wakes, 1);
}

#[test]
fn the_size_of_the_snapshot_is_told_once_it_is_known() {
    let mut world = World::new();
    world.open(ADA);
    assert_eq!(world.room.stats(world.now).snapshot_bytes, None);
    let mut world = World::new().with_log(["1".to_owned()]);
    let digest = world.registry.digest(1);
    let bytes = Bytes::from_static(b"the state");
    world.registry.snapshot = Some(Snapshot::new(Seq(1), digest, bytes));
    world.open(ADA);
    world.all(ADA);
    assert_eq!(world.room.stats(world.now).snapshot_bytes, Some(9));
}
