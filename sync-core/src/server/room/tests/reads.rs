//! Opens and catching up, by what they read of the registry, and what comes of it when the document changes in between.

use super::*;

/// What is asked of the registry; everything else is passed over.
fn next_request(world: &mut World) -> Option<(RequestNumber, RegistryRequest)> {
    while let Some(output) = world.room.poll_output() {
        match output {
            RoomOutput::Registry(number, request) => return Some((number, request)),
            RoomOutput::Wake(session) => {
                world.ready.insert(session);
            }
            _ => {}
        }
    }
    None
}

fn answer(world: &mut World, number: RequestNumber, answer: RegistryAnswer) {
    world.room.handle_registry(world.now, number, answer);
}

/// The names of everything that is read, in order, while it is answered.
fn reads(world: &mut World) -> Vec<&'static str> {
    let mut names = Vec::new();
    while let Some((number, request)) = next_request(world) {
        names.push(match request {
            RegistryRequest::Meta => "meta",
            RegistryRequest::Tail { .. } => "tail",
            RegistryRequest::Origins(_) => "origins",
            RegistryRequest::Size => "size",
            RegistryRequest::Snapshot => "snapshot",
            _ => "other",
        });
        let answered = world.registry.answer(request);
        answer(world, number, answered);
    }
    names.sort_unstable();
    names
}

fn begin(world: &mut World, session: SessionId, cursor: Option<Cursor>) {
    let mut request = world.request(session);
    request.cursor = cursor;
    world.room.handle_open(world.now, session, request).unwrap();
}

fn opened(world: &mut World, session: SessionId) -> Opened {
    match world.next(session) {
        Some(Message::Opened(opened)) => opened,
        other => panic!("expected Opened, got {other:?}"),
    }
}

fn two() -> World {
    World::new().with_log(["1".to_owned(), "2".to_owned()])
}

/// Another history of the same document, with these changes.
fn replace(world: &mut World, epoch: Epoch, changes: &[&str]) {
    world.registry = TestRegistry::default();
    let new = NewDocument::new(document(), EngineId::YRS, epoch);
    world.registry.answer(RegistryRequest::Create(new));
    for change in changes {
        world.foreign_append(change);
    }
}

fn compact(world: &mut World, seq: u64, log_start: u64) {
    let digest = world.registry.digest(seq);
    let bytes = Bytes::from(format!("state at {seq}"));
    world.registry.snapshot = Some(Snapshot::new(Seq(seq), digest, bytes));
    world.registry.log_start = log_start;
}

#[test]
fn an_open_reads_the_registry_once_for_each_thing_that_it_needs() {
    let mut world = World::with(|config| config.limits.document_bytes_max = usize::MAX);
    world = world.with_log(["1".to_owned(), "2".to_owned()]);
    let cursor = world.cursor(0);
    for session in [ADA, BOB] {
        begin(&mut world, session, Some(cursor));
        assert_eq!(reads(&mut world), ["meta", "origins", "tail"]);
        opened(&mut world, session);
        // The rows that were read for the answer are what is sent.
        assert_eq!(world.follow(session, 0), ["1", "2"]);
    }
    assert_eq!(world.registry.n_tails, 2);
    let limit = |config: &mut RoomConfig| config.limits.document_bytes_max = 1_000;
    let mut world = World::with(limit).with_log(["1".to_owned()]);
    begin(&mut world, ADA, None);
    assert_eq!(reads(&mut world), ["meta", "origins", "size"]);
    let mut world = World::with(limit);
    world.create();
    begin(&mut world, ADA, None);
    assert_eq!(reads(&mut world), ["meta", "origins"], "it is empty");
}

#[test]
fn one_change_larger_than_an_open_reads_is_read_again_when_it_can_be_sent() {
    for (bytes, n_tails) in [(100, 1), (101, 2)] {
        let mut world = World::with(|config| config.catch_up_bytes = 1_600);
        world = world.with_log(["x".repeat(bytes)]);
        let cursor = world.cursor(0);
        world.open_at(ADA, cursor);
        assert_eq!(world.registry.n_tails, 1);
        assert_eq!(world.follow(ADA, 0).len(), 1);
        assert_eq!(world.registry.n_tails, n_tails, "{bytes}");
    }
}

#[test]
fn an_open_whose_reads_are_of_two_histories_starts_over() {
    let mut world = two();
    let cursor = world.cursor(2);
    begin(&mut world, ADA, Some(cursor));
    let (number, request) = next_request(&mut world).unwrap();
    let meta = world.registry.answer(request);
    answer(&mut world, number, meta);
    replace(&mut world, Epoch(8), &["z"]);
    reads(&mut world);
    let answered = opened(&mut world, ADA);
    assert_eq!((answered.epoch, answered.head), (Epoch(8), Seq(1)));
    assert!(matches!(answered.next, Continuation::Reset { .. }));
    assert_eq!(world.follow(ADA, 0), ["z"]);
}

#[test]
fn an_open_between_whose_reads_the_log_was_compacted_starts_over() {
    let mut world = World::new().with_log((1..=6).map(|n| n.to_string()));
    let cursor = world.cursor(2);
    begin(&mut world, ADA, Some(cursor));
    let (number, request) = next_request(&mut world).unwrap();
    let meta = world.registry.answer(request);
    answer(&mut world, number, meta);
    compact(&mut world, 4, 4);
    reads(&mut world);
    let total_bytes = 10;
    assert_eq!(
        opened(&mut world, ADA).next,
        Continuation::Snapshot { total_bytes }
    );
}

#[test]
fn an_open_that_read_less_than_the_room_knows_by_now_starts_over_and_disturbs_nobody() {
    // Another history; and the same one, of which the registry has lost something.
    for (epoch, changes) in [(Epoch(8), vec!["z"]), (Epoch(7), vec!["1"])] {
        for answers_meta in [false, true] {
            let mut world = two();
            begin(&mut world, ADA, None);
            let (number, request) = next_request(&mut world).unwrap();
            let old = world.registry.answer(request);
            let mut late = vec![(number, old)];
            if answers_meta {
                let (number, meta) = late.pop().unwrap();
                answer(&mut world, number, meta);
                while let Some((number, request)) = next_request(&mut world) {
                    let old = world.registry.answer(request);
                    late.push((number, old));
                }
            }
            replace(&mut world, epoch, &changes);
            begin(&mut world, BOB, None);
            reads(&mut world);
            assert_eq!(opened(&mut world, BOB).epoch, epoch);
            for (number, old) in late {
                answer(&mut world, number, old);
            }
            reads(&mut world);
            let answered = opened(&mut world, ADA);
            assert_eq!((answered.epoch, answered.head), (epoch, Seq(1)));
            assert_eq!(world.follow(ADA, 0), changes);
            assert_eq!(world.follow(BOB, 0), changes);
        }
    }
}

#[test]
fn an_open_of_a_document_whose_history_keeps_changing_is_given_up() {
    let mut world = two();
    begin(&mut world, ADA, None);
    let mut n_metas = 0;
    while let Some((number, request)) = next_request(&mut world) {
        assert_eq!(request, RegistryRequest::Meta);
        n_metas += 1;
        let meta = world.registry.answer(request);
        answer(&mut world, number, meta);
        let mut late = Vec::new();
        while let Some((number, request)) = next_request(&mut world) {
            late.push((number, world.registry.answer(request)));
        }
        // Each time somebody else finds another one in between.
        replace(&mut world, Epoch(7 + n_metas), &["z"]);
        begin(&mut world, BOB, None);
        reads(&mut world);
        for (number, old) in late {
            answer(&mut world, number, old);
        }
        assert!(n_metas < 10);
    }
    assert_eq!(n_metas, 4);
    let told = world.next(ADA);
    assert!(
        matches!(&told, Some(Message::Error(error)) if error.code == ErrorCode::StorageUnavailable
            && error.reference == Reference::Request(RequestId(1))),
        "{told:?}"
    );
}

#[test]
fn of_two_sessions_of_one_connection_number_the_later_takes_over() {
    let mut world = World::new();
    world.open(ADA);
    let mut request = world.request(BOB);
    (request.user, request.origin, request.connection) = (user_of(ADA), origin_of(ADA), ADA.0);
    world.open_with(BOB, request.clone());
    assert_eq!(world.superseded, [ADA]);
    // One that has left takes nothing with it.
    world.room.handle_close(world.now, BOB);
    world.open_with(CYD, request);
    assert_eq!(world.superseded, [ADA]);
}

/// Protocol 8.2.
#[test]
fn who_waits_for_its_turn_writes_nothing() {
    let mut world = two();
    let elsewhere = Cursor::start(Epoch(1));
    world.open_at(ADA, elsewhere);
    assert_eq!(world.open_at(BOB, elsewhere).next, Continuation::Wait);
    world.push(BOB, 1, &["x"]);
    assert_eq!(world.logged(), ["1", "2"]);
    let charge = push_charge(&["x".into()]);
    world.all(BOB);
    assert_eq!(world.settled.get(&BOB), Some(&charge));
}

#[test]
fn an_open_gets_the_newest_snapshot_while_another_is_sent_an_older_one() {
    let mut world = World::with(|config| config.snapshot_piece_bytes = 4);
    world = world.with_log((1..=10).map(|n| n.to_string()));
    compact(&mut world, 4, 4);
    world.open(ADA);
    assert!(matches!(world.next(ADA), Some(Message::Snapshot(piece)) if piece.seq == Seq(4)));
    compact(&mut world, 8, 8);
    world.open(BOB);
    assert!(matches!(world.next(BOB), Some(Message::Snapshot(piece)) if piece.seq == Seq(8)));
}

#[test]
fn a_reader_whose_rows_are_gone_is_sent_the_snapshot_if_that_has_them() {
    for (snapshot, is_sent) in [(4, false), (5, true), (7, true)] {
        let mut world = World::with(|config| config.catch_up_bytes = 0);
        world = world.with_log((1..=10).map(|n| n.to_string()));
        let cursor = world.cursor(5);
        world.open_at(ADA, cursor);
        compact(&mut world, snapshot + 1, 7);
        let told = world.next(ADA);
        if is_sent {
            assert!(
                matches!(&told, Some(Message::Snapshot(piece)) if piece.seq == Seq(snapshot + 1)),
                "{told:?}"
            );
        } else {
            assert_eq!(code_of(told), ErrorCode::StorageUnavailable);
        }
    }
}

/// A reader of the registry that finds another history, or less than there was.
#[test]
fn a_reader_that_finds_other_rows_than_were_published_opens_again() {
    type Change = fn(&mut World);
    let changes: [Change; 3] = [
        |world| replace(world, Epoch(8), &["a", "b", "c"]),
        |world| {
            replace(world, Epoch(8), &["a", "b", "c"]);
            compact(world, 3, 3);
        },
        |world| world.registry.log.truncate(1),
    ];
    for change in changes {
        let mut world = World::with(|config| config.catch_up_bytes = 0);
        world = world.with_log((1..=3).map(|n| n.to_string()));
        let cursor = world.cursor(1);
        world.open_at(ADA, cursor);
        change(&mut world);
        assert_eq!(code_of(world.next(ADA)), ErrorCode::Fenced);
        assert_eq!(world.next(ADA), None);
    }
}

#[test]
fn rows_are_sent_up_to_where_the_ring_goes_on() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["1", "2", "3", "4", "5"]);
    world.push(ADA, 6, &["6", "7"]);
    world.open_at(BOB, world.cursor(2));
    assert_eq!(world.follow(BOB, 2), ["3", "4", "5", "6", "7"]);
    assert_eq!(world.registry.n_tails, 1);
}

#[test]
fn the_newest_frame_stays_in_the_ring_however_large() {
    let mut world = World::with(|config| config.ring_bytes_max = 1);
    world.open(ADA);
    world.open(BOB);
    for number in 1..=3 {
        world.push(ADA, number, &["x"]);
        assert_eq!(world.follow(BOB, number - 1), ["x"]);
    }
    assert_eq!(world.registry.n_tails, 0);
}

#[test]
fn changes_that_do_not_fit_into_a_frame_together_come_in_several_and_not_in_pieces() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    let large = "x".repeat(30_000);
    world.holds_appends = true;
    world.push(ADA, 1, &["under way"]);
    world.push(
        ADA,
        2,
        &[&large, &large, &large, &"y".repeat(70_000), "last"],
    );
    world.release_appends();
    let mut whole = Vec::new();
    let mut n_pieces = 0;
    while let Some(frame) = world.next_frame(BOB) {
        match decode_frame(frame, 1 << 20).unwrap() {
            Message::Changes(changes) => whole.push(changes.changes.len()),
            Message::Fragment(_) => n_pieces += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((whole, n_pieces), (vec![1, 2, 1, 1], 2));
}

#[test]
fn a_large_row_of_the_registry_waits_until_the_session_allows_it() {
    let mut world = World::new().with_log(["small".to_owned(), "x".repeat(70_000)]);
    let cursor = world.cursor(0);
    world.open_at(ADA, cursor);
    let small = Allowance {
        large: false,
        read: true,
    };
    let mut frames = 0;
    for _ in 0..4 {
        while let Some(output) = world.room.poll_member_within(world.now, ADA, small) {
            frames += usize::from(matches!(output, MemberOutput::Frame(_)));
        }
        world.run();
    }
    assert_eq!(frames, 1);
    world.ready.insert(ADA);
    assert_eq!(world.all(ADA).len(), 1);
}

#[test]
fn who_opens_again_gives_up_what_it_holds_a_part_of_and_nothing_else() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world.push(ADA, 1, &["first in pieces"]);
    world.push(ADA, 2, &[&"x".repeat(200_000)]);
    world.next_frame(BOB).unwrap();
    let Message::Fragment(piece) = decode_frame(world.next_frame(BOB).unwrap(), 1 << 20).unwrap()
    else {
        panic!("a piece");
    };
    for (rest, gives_up) in [(false, true), (true, false)] {
        if rest {
            while world.next_frame(BOB).is_some() {}
        }
        let cursor = world.cursor(1);
        begin(&mut world, BOB, Some(cursor));
        world.run();
        let first = decode_frame(world.next_frame(BOB).unwrap(), 1 << 20).unwrap();
        match first {
            Message::Fragment(abort) if gives_up => {
                assert_eq!((abort.total, abort.id), (0, piece.id));
                let next = world.next_frame(BOB).unwrap();
                assert!(matches!(
                    decode_frame(next, 1 << 20),
                    Ok(Message::Opened(_))
                ));
            }
            Message::Opened(_) => assert!(!gives_up),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_others_appended_is_read_again_after_a_while_if_it_could_not_be_read() {
    let delay = RoomConfig::new(Limits::default(), Engines::new(), 0).retry_delay_min;
    let mut world = World::new();
    world.open(ADA);
    world.foreign_append("theirs");
    world.room.handle_head(world.now, Seq(1));
    let (number, _) = next_request(&mut world).unwrap();
    let unavailable = RegistryError::Unavailable {
        retry_after: None,
        source: None,
    };
    answer(&mut world, number, RegistryAnswer::Tail(Err(unavailable)));
    assert_eq!(world.room.poll_timeout(), Some(world.now + delay));
    world.pass(delay - Duration::from_micros(1));
    assert_eq!(world.all(ADA), []);
    world.pass(Duration::from_micros(1));
    assert_eq!(world.follow(ADA, 0), ["theirs"]);
    assert_eq!(world.room.position(), Some(world.cursor(1)));
    assert_eq!(world.room.poll_timeout(), None);
}
