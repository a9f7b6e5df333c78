//! Broadcasts and extension messages: who is sent them, and what becomes of those that nobody reads.

use super::*;
use crate::wire::Broadcast;

fn broadcast(bytes: &str) -> Broadcast {
    Broadcast {
        channel: CHANNEL,
        topic: "chat".into(),
        bytes: bytes.to_owned().into(),
        sender: None,
        missed: 0,
    }
}

impl World {
    fn broadcast(&mut self, session: SessionId, bytes: &str) {
        self.room.handle_broadcast(session, broadcast(bytes));
        self.run();
    }

    /// The payloads of the broadcasts that a session is sent; `missed 3` for dropped ones.
    fn broadcasts(&mut self, session: SessionId) -> Vec<String> {
        let payload = |message| match message {
            Message::Broadcast(Broadcast {
                missed: 0, bytes, ..
            }) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
            Message::Broadcast(Broadcast { missed, .. }) => Some(format!("missed {missed}")),
            _ => None,
        };
        self.all(session).into_iter().filter_map(payload).collect()
    }
}

/// Scenario 70.
#[test]
fn a_broadcast_reaches_all_others_with_its_sender_and_is_not_logged() {
    let mut world = World::new();
    for session in [ADA, BOB, CYD] {
        world.open(session);
    }
    let mut forged = broadcast("hello");
    forged.sender = Some((BOB, "user 2".into()));
    forged.missed = 9;
    world.room.handle_broadcast(ADA, forged);
    world.run();
    let expected = Broadcast {
        sender: Some((ADA, user_of(ADA).id.to_string())),
        ..broadcast("hello")
    };
    let frames = [BOB, CYD].map(|session| world.next_frame(session).unwrap());
    let [of_bob, of_cyd] = frames.each_ref().map(|frame| frame.as_ptr());
    assert_eq!(of_bob, of_cyd, "encoded once, and shared");
    let [frame, _] = frames;
    assert_eq!(
        decode_frame(frame, 1 << 20),
        Ok(Message::Broadcast(expected.clone()))
    );
    assert_eq!(world.all(ADA), []);
    world.broadcast(ADA, "again");
    assert_eq!(
        world.all(BOB),
        [Message::Broadcast(Broadcast {
            bytes: "again".into(),
            ..expected
        })]
    );
    assert!(world.logged().is_empty());
    let told = world.events.iter().filter(|event| {
        matches!(
            event,
            RoomEvent::Broadcast {
                sender: Some(ADA),
                n_recipients: 2,
                ..
            }
        )
    });
    assert_eq!(told.count(), 2);
}

#[test]
fn whoever_may_only_read_receives_broadcasts_and_sends_none() {
    let mut world = World::new();
    world.create();
    world.open(ADA);
    let mut request = world.request(BOB);
    request.access = AccessLevel::Read;
    world.open_with(BOB, request);
    world.broadcast(BOB, "from a reader");
    assert_eq!(code_of(world.next(BOB)), ErrorCode::BroadcastRefused);
    assert_eq!(world.all(ADA), []);
    world.broadcast(ADA, "to a reader");
    assert_eq!(world.broadcasts(BOB), ["to a reader"]);
    // And so does one that is not here.
    world.broadcast(CYD, "from outside");
    assert_eq!(world.broadcasts(ADA), [""; 0]);
}

/// Scenario 49.
#[test]
fn a_reader_that_does_not_read_is_sent_the_newest_and_told_how_many_it_missed() {
    let mut world = World::with(|config| config.limits.broadcast_queue_bytes_max = 1_024);
    for session in [ADA, BOB, CYD] {
        world.open(session);
    }
    let sent: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    for bytes in &sent {
        world.broadcast(ADA, bytes);
        assert_eq!(world.broadcasts(CYD), std::slice::from_ref(bytes));
    }
    assert_eq!(world.broadcasts(BOB), ["missed 96", "96", "97", "98", "99"]);
    world.broadcast(ADA, "on time");
    assert_eq!(world.broadcasts(BOB), ["on time"]);
    let told = world.events.iter().filter_map(|event| match event {
        RoomEvent::BroadcastsMissed { session, missed } => Some((*session, *missed)),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [(BOB, 96)]);
}

#[test]
fn one_broadcast_larger_than_all_that_may_wait_arrives_alone() {
    let mut world = World::with(|config| config.limits.broadcast_queue_bytes_max = 1_024);
    world.open(ADA);
    world.open(BOB);
    world.broadcast(ADA, "small");
    let large = "x".repeat(200_000);
    world.broadcast(ADA, &large);
    assert_eq!(world.broadcasts(BOB), ["missed 1".to_owned(), large]);
}

#[test]
fn broadcasts_and_changes_take_turns() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    for number in 1..=3 {
        world.push(ADA, number, &["change"]);
        world.broadcast(ADA, "broadcast");
    }
    world.broadcast(ADA, "broadcast");
    let names: Vec<_> = world.all(BOB).iter().map(Message::name).collect();
    assert_eq!(
        names,
        [
            "Broadcast",
            "Changes",
            "Broadcast",
            "Changes",
            "Broadcast",
            "Changes",
            "Broadcast"
        ]
    );
}

#[test]
fn of_two_large_messages_one_is_finished_before_the_other_begins() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    let large = "x".repeat(300_000);
    world.push(ADA, 1, &[&large]);
    let first = world.next_frame(BOB).unwrap();
    world.broadcast(ADA, &large);
    let rest = std::iter::from_fn(|| world.next_frame(BOB));
    let ids: Vec<_> = std::iter::once(first)
        .chain(rest)
        .map(|frame| match decode_frame(frame, 1 << 20).unwrap() {
            Message::Fragment(fragment) => fragment.id,
            other => panic!("expected Fragment, got {other:?}"),
        })
        .collect();
    assert!(ids.is_sorted(), "{ids:?}");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 2);
}

#[test]
fn whoever_opens_later_is_sent_only_what_comes_after() {
    let mut world = World::new();
    world.open(ADA);
    world.open(CYD);
    world.broadcast(ADA, "before");
    world
        .room
        .handle_open(world.now, BOB, world.request(BOB))
        .unwrap();
    world.broadcast(ADA, "meanwhile");
    world.run();
    world.broadcast(ADA, "after");
    let messages = world.all(BOB);
    assert!(matches!(&messages[0], Message::Opened(_)), "{messages:?}");
    assert_eq!(world.broadcasts(CYD), ["before", "meanwhile", "after"]);
    let Some(Message::Broadcast(last)) = messages.last() else {
        panic!("{messages:?}");
    };
    assert_eq!(&*last.bytes, b"after");
}

#[test]
fn a_broadcast_of_the_server_has_no_sender_and_reaches_everybody() {
    let mut world = World::new();
    assert_eq!(world.room.broadcast("news".into(), "nobody".into()), 0);
    world.open(ADA);
    world.open(BOB);
    assert_eq!(world.room.broadcast("news".into(), "down at 5".into()), 2);
    assert_eq!(world.room.extend(200, "x".into()), 2);
    world.run();
    for session in [ADA, BOB] {
        let messages = world.all(session);
        assert!(
            matches!(
                &messages[..],
                [Message::Broadcast(Broadcast { sender: None, .. }), Message::Extension(e)]
                    if e.kind == 200 && e.channel == Some(CHANNEL)
            ),
            "{messages:?}"
        );
    }
}

#[test]
fn a_broadcast_is_for_those_who_have_opened_the_document_and_have_not_left() {
    let mut world = World::new();
    world.open(ADA);
    let request = world.request(BOB);
    world.room.handle_open(world.now, BOB, request).unwrap();
    let send = |world: &mut World| world.room.broadcast("chat".to_owned(), "hi".into());
    assert_eq!(send(&mut world), 1, "Bob's open has not been answered");
    world.run();
    assert_eq!(send(&mut world), 2);
    let reason = PeerError::new(ErrorCode::ShuttingDown, "unloading");
    world.room.handle_evict(world.now, &reason);
    assert_eq!(send(&mut world), 0, "they are on their way out");
}

#[test]
fn a_broadcast_does_not_overtake_the_answer_to_an_open() {
    let mut world = World::new();
    let request = world.request(ADA);
    world.room.handle_open(world.now, ADA, request).unwrap();
    world.run();
    world.room.broadcast("chat".to_owned(), "hi".into());
    world.run();
    let sent = world.all(ADA);
    assert!(
        matches!(sent[..], [Message::Opened(_), Message::Broadcast(_)]),
        "{sent:?}"
    );
}

#[test]
fn a_broadcast_waits_while_nobody_can_tell_what_a_member_may() {
    let mut world = World::new();
    world.open(ADA);
    world.room.handle_reauthorize(world.now, None);
    world.room.broadcast("chat".to_owned(), "hi".into());
    world.run();
    assert_eq!(world.all(ADA), []);
    let (number, _) = world.questions.remove(0);
    let write = Ok(AccessLevel::Write.into());
    world.room.handle_authorized(world.now, number, write);
    world.run();
    assert_eq!(world.broadcasts(ADA), ["hi"]);
}

/// A client puts only a few messages together at once.
#[test]
fn a_large_change_waits_for_the_end_of_a_large_broadcast_that_has_begun() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    let large = "x".repeat(300_000);
    world.broadcast(ADA, &large);
    world.next_frame(BOB).unwrap();
    assert!(world.room.occupied(BOB).in_message);
    world.push(ADA, 1, &[&large]);
    let mut ids = Vec::new();
    while let Some(frame) = world.next_frame(BOB) {
        let Message::Fragment(piece) = decode_frame(frame, 1 << 20).unwrap() else {
            panic!("a piece");
        };
        if ids.last() != Some(&piece.id) {
            ids.push(piece.id);
        }
    }
    assert_eq!(ids.len(), 2, "one after the other");
    assert!(!world.room.occupied(BOB).in_message);
}
