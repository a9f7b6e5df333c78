//! How much goes into one append, one check and one frame.

use super::*;

/// Answers the appends that are held, one after the other: what was in each.
fn release_each(world: &mut World) -> Vec<Vec<String>> {
    let mut batches = Vec::new();
    while let Some((number, request)) = world.held.pop_front() {
        let RegistryRequest::Append { changes, .. } = &request else {
            panic!("expected an append, got {request:?}");
        };
        let text = |change: &NewChange| String::from_utf8(change.bytes.to_vec()).unwrap();
        batches.push(changes.iter().map(text).collect());
        let answer = world.registry.answer(request);
        world.room.handle_registry(world.now, number, answer);
        world.run();
    }
    batches
}

#[test]
fn an_append_takes_what_is_configured_and_one_larger_change_goes_alone() {
    for is_checked in [false, true] {
        let mut world = World::with(|config| {
            config.append_changes_max = 3;
            config.append_bytes_max = 10;
            if is_checked {
                config.engines.check(EngineId::YRS);
            }
        });
        world.open(ADA);
        world.holds_appends = true;
        world.push(ADA, 1, &["first"]);
        let more = [
            "2",
            "3",
            "4",
            "55555",
            "66666",
            "7",
            "larger than that",
            "9",
        ];
        world.push(ADA, 2, &more);
        let expected = [
            vec!["first"],
            vec!["2", "3", "4"],
            vec!["55555", "66666"],
            vec!["7"],
            vec!["larger than that"],
            vec!["9"],
        ];
        assert_eq!(release_each(&mut world), expected, "checked: {is_checked}");
        if is_checked {
            assert_eq!(world.replica.batches, expected);
            assert_eq!(world.replica.n_loads, 1, "each on top of the one before");
        }
    }
}

#[test]
fn a_frame_ends_where_a_member_is_told_something_in_between() {
    let dan = SessionId(4);
    let mut world = World::new();
    for session in [ADA, BOB, CYD, dan] {
        world.open(session);
    }
    world.holds_appends = true;
    world.push(CYD, 1, &["under way"]);
    world.push(BOB, 1, &["b", "!bad"]);
    world.push(CYD, 2, &["c"]);
    world.push(ADA, 1, &["d"]);
    world.release_appends();
    let frames = world.all(dan);
    let frames: Vec<_> = frames.iter().map(texts).collect();
    assert_eq!(
        frames,
        [vec![&b"under way"[..]], vec![b"b"], vec![b"c", b"d"]]
    );
    let told = world.all(BOB);
    assert!(
        matches!(
            told[..],
            [
                Message::Changes(_),
                Message::Ack(_),
                Message::Refuse(_),
                Message::Changes(_)
            ]
        ),
        "{told:?}"
    );
}

#[test]
fn a_busy_room_waits_for_nothing_while_an_append_is_under_way() {
    let mut world = World::new();
    for session in (1..=16).map(SessionId) {
        world.open(session);
    }
    world.holds_appends = true;
    world.push(ADA, 1, &["under way"]);
    world.push(BOB, 1, &["next"]);
    assert_eq!(world.room.poll_timeout(), None);
    release_each(&mut world);
    assert_eq!(world.room.poll_timeout(), Some(Time::from_micros(1_000)));
}

/// An `Ack` with a count says that numbers of one origin follow each other.
#[test]
fn own_changes_of_two_origins_in_one_append_come_as_changes() {
    let mut world = World::new();
    world.open(ADA);
    let push = |first_number, bytes: &'static str| Push {
        channel: CHANNEL,
        origin: OriginId(77),
        first_number,
        changes: vec![bytes.into()],
        reconciling: false,
    };
    world.room.handle_push(world.now, ADA, push(1, "77:1"));
    world.run();
    world.all(ADA);
    world.open(BOB);
    world.holds_appends = true;
    world.push(BOB, 1, &["under way"]);
    world.push(ADA, 1, &["1"]);
    world.room.handle_push(world.now, ADA, push(2, "77:2"));
    world.release_appends();
    let told = world.all(ADA);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(texts(&told[0]), [b"under way"]);
    assert_eq!(texts(&told[1]), [&b"1"[..], b"77:2"]);
}

#[test]
fn what_has_been_committed_is_settled_as_far_as_its_author_has_been_told() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    let large = "x".repeat(20_000);
    let pushed = [
        (ADA, 1, large.as_str()),
        (ADA, 2, "next"),
        (BOB, 1, "b"),
        (ADA, 3, "last"),
    ];
    for (session, number, text) in pushed {
        world.push(session, number, &[text]);
    }
    let mut expected = 0;
    for (session, _, text) in pushed {
        // One frame for each; what it settles comes before the next one.
        assert!(world.next_frame(ADA).is_some());
        if session == ADA {
            expected += push_charge(&[text.to_owned().into()]);
            let output = world.room.poll_member(world.now, ADA);
            let Some(MemberOutput::Settled(charge)) = output else {
                panic!("expected a settlement, got {output:?}");
            };
            *world.settled.entry(ADA).or_default() += charge;
        }
        assert_eq!(world.settled[&ADA], expected);
    }
}

/// As much as one append takes, and one larger change alone.
#[test]
fn what_somebody_has_a_say_in_is_asked_about_in_the_same_batches() {
    let mut world = World::with(|config| {
        config.append_changes_max = 3;
        config.append_bytes_max = 10;
        config.asks = true;
    });
    world.open(ADA);
    let changes = [
        "1",
        "2",
        "3",
        "44444",
        "55555",
        "6",
        "larger than that",
        "8",
    ];
    world.push(ADA, 1, &changes);
    let mut batches = Vec::new();
    while let Some((number, request)) = world.asks.pop_front() {
        let changes = request.changes.iter();
        let texts: Vec<_> = changes
            .map(|change| String::from_utf8(change.bytes.to_vec()).unwrap())
            .collect();
        world
            .room
            .handle_asked(world.now, number, texts.len(), None);
        world.run();
        batches.push((number, texts));
    }
    let texts: Vec<_> = batches.iter().map(|(_, texts)| texts.clone()).collect();
    let expected = [
        vec!["1", "2", "3"],
        vec!["44444", "55555"],
        vec!["6"],
        vec!["larger than that"],
        vec!["8"],
    ];
    assert_eq!(texts, expected);
    assert!(batches.is_sorted_by(|(a, _), (b, _)| a < b));
    assert_eq!(world.logged(), changes);
}
