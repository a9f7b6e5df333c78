//! What members are sent: from the ring, the registry or a snapshot.

use super::*;

/// Scenario 48.
#[test]
fn a_reader_that_fell_off_the_ring_catches_up_from_the_registry_in_one_bounded_read_at_a_time() {
    let mut world = World::with(|config| {
        config.ring_bytes_max = 2_000;
        config.catch_up_bytes = 1_000;
    });
    world.open(ADA);
    world.open(BOB);
    for number in 1..=200 {
        world.push(ADA, number, &[&format!("{number:0>100}")]);
        world.all(ADA);
    }
    assert_eq!(world.registry.n_tails, 0);
    // Nothing is read for somebody who does not take what there is.
    let first = world.next_frame(BOB).unwrap();
    assert_eq!(world.registry.n_tails, 1);
    assert!(matches!(
        decode_frame(first, 1 << 20),
        Ok(Message::Changes(_))
    ));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.registry.n_tails, 1);
    let mut world_again = world;
    let rest = world_again.follow_from_any(BOB);
    assert_eq!(rest, 200 - 10);
    assert!(
        world_again.registry.n_tails < 25,
        "{}",
        world_again.registry.n_tails
    );
    // And then it is on the ring again.
    let reads = world_again.registry.n_tails;
    world_again.push(ADA, 201, &["on the ring"]);
    assert_eq!(world_again.follow(BOB, 200), ["on the ring"]);
    assert_eq!(world_again.registry.n_tails, reads);
}

impl World {
    /// Follows a session that has taken one frame; gives the number of changes after that.
    fn follow_from_any(&mut self, session: SessionId) -> usize {
        let messages = self.all(session);
        messages.iter().map(|message| texts(message).len()).sum()
    }
}

#[test]
fn whoever_stands_inside_a_frame_of_the_ring_is_sent_its_rest_from_the_registry() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["1", "2", "3", "4", "5"]);
    world.push(ADA, 6, &["6"]);
    for cursor in 0..=6 {
        let opened = world.open_at(BOB, world.cursor(cursor));
        assert_eq!(opened.next, Continuation::Resume);
        let expected: Vec<_> = (cursor + 1..=6).map(|n| n.to_string()).collect();
        assert_eq!(world.follow(BOB, cursor), expected, "from {cursor}");
    }
}

#[test]
fn many_who_stand_at_one_place_share_a_read() {
    let mut world = World::new().with_log((1..=50).map(|n| n.to_string()));
    let sessions: Vec<_> = (10..60).map(SessionId).collect();
    for session in &sessions {
        world.open(*session);
    }
    // All ask before the registry answers.
    for session in &sessions {
        assert_eq!(world.room.poll_member(world.now, *session), None);
    }
    world.run();
    assert_eq!(world.registry.n_tails, 1);
    for session in &sessions {
        assert_eq!(world.follow(*session, 0).len(), 50);
    }
    assert_eq!(world.registry.n_tails, 1);
}

/// Scenarios 21 and 29.
#[test]
fn a_cursor_older_than_the_log_gets_the_snapshot_and_the_rest_and_one_inside_it_no_snapshot_byte() {
    let mut world = World::new().with_log((1..=10).map(|n| n.to_string()));
    let state = Bytes::from(vec![7_u8; 200_000]);
    let cursor = world.cursor(6);
    world.registry.snapshot = Some(Snapshot::new(Seq(6), cursor.digest, state.clone()));
    world.registry.log_start = 4;
    let total_bytes = 200_000;
    for cursor in [None, Some(world.cursor(3))] {
        let mut request = world.request(ADA);
        request.cursor = cursor;
        let opened = world.open_with(ADA, request);
        assert_eq!(opened.next, Continuation::Snapshot { total_bytes });
        let messages = world.all(ADA);
        let (sent, after) = snapshot_in(&messages);
        assert_eq!(sent, state);
        assert_eq!(texts(&after[0]), [&b"7"[..], b"8", b"9", b"10"]);
    }
    let opened = world.open_at(BOB, world.cursor(5));
    assert_eq!(opened.next, Continuation::Resume);
    assert_eq!(world.follow(BOB, 5), ["6", "7", "8", "9", "10"]);
    assert!(
        world.room.snapshot.is_none(),
        "nobody is being sent it any more"
    );
}

#[test]
fn a_slow_reader_whose_rows_are_compacted_meanwhile_is_sent_the_snapshot() {
    let mut world = World::with(|config| config.ring_bytes_max = 1);
    world.open(ADA);
    world.open(BOB);
    for number in 1..=9 {
        world.push(ADA, number, &[&number.to_string()]);
    }
    let digest = world.registry.digest(8);
    world.registry.snapshot = Some(Snapshot::new(Seq(8), digest, "state".into()));
    world.registry.log_start = 8;
    let messages = world.all(BOB);
    assert!(
        matches!(&messages[0], Message::Snapshot(s) if s.seq == Seq(8)),
        "{messages:?}"
    );
    assert_eq!(texts(&messages[1]), [b"9"]);
}

/// Scenario 74, mixed clients in one room.
#[test]
fn clients_with_and_without_gzip_share_a_room_and_large_changes_come_in_pieces() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world.compression = Compression::Gzip;
    world.open(CYD);
    let repeating = "abcdefgh".repeat(200);
    world.push(ADA, 1, &[&repeating]);
    let plain = world.next_frame(BOB).unwrap();
    let gzip = world.next_frame(CYD).unwrap();
    assert!(
        gzip.len() * 5 < plain.len(),
        "{} {}",
        gzip.len(),
        plain.len()
    );
    assert_eq!(decode_frame(plain, 1 << 20), decode_frame(gzip, 1 << 20));
    let large: String = (0_u32..200_000)
        .map(|n| char::from(b' ' + u8::try_from(n % 311 * n % 89).unwrap()))
        .collect();
    world.push(ADA, 2, &[&large]);
    for session in [BOB, CYD] {
        let message = world.next(session).unwrap();
        assert_eq!(texts(&message), [large.as_bytes()]);
    }
}

#[test]
fn an_open_in_the_middle_of_a_message_gives_the_message_up() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    let large = "x".repeat(300_000);
    world.push(ADA, 1, &[&large]);
    assert!(matches!(
        decode_frame(world.next_frame(BOB).unwrap(), 1 << 20),
        Ok(Message::Fragment(_))
    ));
    world
        .room
        .handle_open(world.now, BOB, world.request(BOB))
        .unwrap();
    world.run();
    let Ok(Message::Fragment(abort)) = decode_frame(world.next_frame(BOB).unwrap(), 1 << 20) else {
        panic!("the rest of the message is not coming");
    };
    assert_eq!(abort.total, 0);
    assert!(matches!(world.next(BOB), Some(Message::Opened(_))));
    assert_eq!(texts(&world.next(BOB).unwrap()), [large.as_bytes()]);
}

#[test]
fn a_second_open_before_anything_is_read_gives_the_message_up_as_well() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world.push(ADA, 1, &[&"x".repeat(300_000)]);
    world.next_frame(BOB).unwrap();
    for _ in 0..2 {
        let open = world.request(BOB);
        world.room.handle_open(world.now, BOB, open).unwrap();
    }
    world.run();
    let Ok(Message::Fragment(abort)) = decode_frame(world.next_frame(BOB).unwrap(), 1 << 20) else {
        panic!("the rest of the message is not coming");
    };
    assert_eq!(abort.total, 0);
}

#[test]
fn what_a_session_does_not_allow_now_waits_and_small_things_go_on() {
    const SMALL: Allowance = Allowance {
        large: false,
        read: true,
    };
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world.all(BOB);
    world.push(ADA, 1, &["small"]);
    world.push(ADA, 2, &[&"x".repeat(200_000)]);
    let within = |world: &mut World, allowance| {
        let now = world.now;
        match world.room.poll_member_within(now, BOB, allowance) {
            Some(MemberOutput::Frame(frame)) => Some(decode_frame(frame, 1 << 20).unwrap()),
            _ => None,
        }
    };
    assert!(matches!(
        within(&mut world, SMALL),
        Some(Message::Changes(_))
    ));
    assert_eq!(within(&mut world, SMALL), None);
    assert!(!world.room.occupied(BOB).in_message);
    assert!(matches!(
        within(&mut world, Allowance::ALL),
        Some(Message::Fragment(_))
    ));
    // Begun is begun: the rest needs no leave.
    assert!(world.room.occupied(BOB).in_message);
    while within(&mut world, SMALL).is_some() {}
    assert!(!world.room.occupied(BOB).in_message);
    assert_eq!(world.room.poll_member(world.now, BOB), None);
}

#[test]
fn the_log_is_read_for_a_session_only_with_its_leave() {
    const NO_READ: Allowance = Allowance {
        large: true,
        read: false,
    };
    let mut world = World::with(|config| config.ring_bytes_max = 1);
    world.open(ADA);
    world.open(BOB);
    world.all(BOB);
    for number in 1..=3 {
        world.push(ADA, number, &["x"]);
    }
    let now = world.now;
    assert_eq!(world.room.poll_member_within(now, BOB, NO_READ), None);
    world.run();
    assert_eq!(world.registry.n_tails, 0);
    assert!(!world.room.occupied(BOB).catching_up);
    assert_eq!(world.room.poll_member(now, BOB), None);
    assert!(world.room.occupied(BOB).catching_up);
    assert_eq!(world.follow(BOB, 0), ["x", "x", "x"]);
    assert!(!world.room.occupied(BOB).catching_up);
}
