//! Who is here: ticks, places, coming back.

use super::*;
use crate::ids::ResumeToken;
use crate::wire::{Presence, PresenceDelta};

const TICK: Duration = Duration::from_millis(50);
const GRACE: Duration = Duration::from_secs(10);

fn state(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

fn token(n: u8) -> Option<ResumeToken> {
    Some(ResumeToken::new([n; ResumeToken::BYTES]))
}

/// A document with a change, so that there is something to open.
fn world() -> World {
    World::new().with_log(["one".to_owned()])
}

impl World {
    fn speak(&mut self, session: SessionId, text: &str) {
        self.room.handle_presence(self.now, session, state(text));
        self.run();
    }

    fn hush(&mut self, session: SessionId) {
        self.room.handle_presence(self.now, session, None);
        self.run();
    }

    fn lose(&mut self, session: SessionId) {
        self.room.handle_lost(self.now, session);
        self.run();
    }

    fn open_as(&mut self, session: SessionId, as_session: SessionId, token: Option<ResumeToken>) {
        let mut request = self.request(as_session);
        request.connection = session.0;
        request.token = token;
        request.is_resumed = session != as_session;
        self.open_with(session, request);
        self.follow_log(session);
    }

    /// Opens and reads the document, and nothing else.
    fn enter(&mut self, session: SessionId) {
        self.open_as(session, session, token(1));
    }

    fn follow_log(&mut self, session: SessionId) {
        while let Some(message) = self.next(session) {
            if matches!(message, Message::Changes(_)) {
                return;
            }
            self.heard
                .entry(session)
                .or_default()
                .extend(presence(message));
        }
    }

    /// What a session is sent of presence.
    fn hear(&mut self, session: SessionId) -> Vec<Presence> {
        let mut heard = self.heard.remove(&session).unwrap_or_default();
        heard.extend(self.all(session).into_iter().filter_map(presence));
        heard
    }
}

fn presence(message: Message) -> Option<Presence> {
    match message {
        Message::Presence(presence) => Some(presence),
        _ => None,
    }
}

/// A client's view of the table.
#[derive(Debug, Default, PartialEq, Eq)]
struct View(BTreeMap<SessionId, (String, String)>);

impl View {
    fn read(&mut self, messages: Vec<Presence>) -> usize {
        let n = messages.len();
        for delta in messages.into_iter().flat_map(|message| message.deltas) {
            match delta.state {
                None if delta.session == SessionId(0) => self.0.clear(),
                None => drop(self.0.remove(&delta.session)),
                Some(state) => {
                    let entry = self.0.entry(delta.session).or_default();
                    if !delta.user.is_empty() {
                        entry.0 = delta.user;
                    }
                    assert!(!entry.0.is_empty(), "a session without a user");
                    entry.1 = String::from_utf8(state.to_vec()).unwrap();
                }
            }
        }
        n
    }

    fn says(&self) -> Vec<(u64, &str)> {
        let says = self.0.iter();
        says.map(|(session, (_, text))| (session.0, &**text))
            .collect()
    }
}

#[test]
fn the_first_word_after_a_pause_goes_at_once_and_the_next_ones_together_at_the_tick() {
    let mut world = world();
    world.enter(ADA);
    world.enter(BOB);
    world.speak(ADA, "a1");
    let heard = world.hear(BOB);
    let expected = Presence {
        channel: CHANNEL,
        deltas: vec![PresenceDelta {
            session: ADA,
            user: user_of(ADA).id.to_string(),
            state: state("a1"),
        }],
        table_version: heard[0].table_version,
    };
    assert_eq!(heard, [expected]);
    for n in 2..100 {
        world.speak(ADA, &format!("a{n}"));
        assert_eq!(world.hear(BOB), []);
    }
    world.pass(TICK - Duration::from_micros(1));
    assert_eq!(world.hear(BOB), []);
    assert_eq!(
        world.room.poll_timeout(),
        Some(world.now + Duration::from_micros(1))
    );
    world.pass(Duration::from_micros(1));
    let heard = world.hear(BOB);
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].deltas[0].state, state("a99"), "the last of them");
    assert_eq!(heard[0].deltas[0].user, "", "which is known");
    world.pass(TICK);
    assert_eq!(world.hear(BOB), [], "nothing has changed");
}

#[test]
fn one_frame_is_shared_by_all_and_who_spoke_alone_is_not_told_of_it() {
    let mut world = world();
    for n in 1..=20 {
        world.enter(SessionId(n));
    }
    world.speak(ADA, "a");
    let frame = world.next_frame(BOB).unwrap();
    for n in 3..=20 {
        let other = world.next_frame(SessionId(n)).unwrap();
        assert_eq!(other.as_ptr(), frame.as_ptr(), "the same bytes");
    }
    assert_eq!(world.next_frame(ADA), None);
    world.speak(ADA, "b");
    world.speak(BOB, "c");
    world.pass(TICK);
    let frame = world.next_frame(ADA).unwrap();
    assert_eq!(world.next_frame(BOB).unwrap().as_ptr(), frame.as_ptr());
}

#[test]
fn who_says_the_same_again_says_nothing() {
    let mut world = world();
    world.enter(ADA);
    world.enter(BOB);
    world.speak(ADA, "a");
    world.hear(BOB);
    for _ in 0..3 {
        world.pass(TICK);
        world.speak(ADA, "a");
        assert_eq!(world.hear(BOB), []);
    }
    // There and back between two ticks.
    world.speak(ADA, "b");
    world.hear(BOB);
    world.speak(ADA, "c");
    world.speak(ADA, "b");
    world.pass(TICK);
    assert_eq!(world.hear(BOB), []);
    assert!(
        !world
            .events
            .iter()
            .any(|event| matches!(event, RoomEvent::PresenceLeft { .. }))
    );
}

/// Join is position and roster in one turn.
#[test]
fn who_opens_is_sent_the_whole_table_before_the_document() {
    let mut world = world();
    world.enter(ADA);
    world.speak(ADA, "a");
    world
        .room
        .handle_open(world.now, BOB, world.request(BOB))
        .unwrap();
    world.run();
    let messages = world.all(BOB);
    let names: Vec<_> = messages.iter().map(Message::name).collect();
    assert_eq!(names, ["Opened", "Presence", "Changes"]);
    let mut view = View::default();
    view.read(messages.into_iter().filter_map(presence).collect());
    assert_eq!(view.says(), [(1, "a")]);
    // Where there is nobody, nothing is said of it, unless the client may know of somebody.
    world.hush(ADA);
    world.pass(TICK);
    world
        .room
        .handle_open(world.now, CYD, world.request(CYD))
        .unwrap();
    world.run();
    assert_eq!(world.hear(CYD), []);
    world.speak(ADA, "b");
    world.pass(TICK);
    assert_eq!(world.hear(CYD).len(), 1);
    world.hush(ADA);
    world.pass(TICK);
    world
        .room
        .handle_open(world.now, CYD, world.request(CYD))
        .unwrap();
    world.run();
    let heard = world.hear(CYD);
    assert_eq!(heard.len(), 1);
    assert_eq!(
        heard[0].deltas,
        [PresenceDelta {
            session: SessionId(0),
            user: String::new(),
            state: None,
        }]
    );
    assert_ne!(heard[0].table_version, 0);
}

#[test]
fn who_has_not_opened_or_has_left_says_nothing() {
    let mut world = world();
    world.enter(BOB);
    world.speak(ADA, "a");
    world
        .room
        .handle_open(world.now, CYD, world.request(CYD))
        .unwrap();
    world
        .room
        .handle_presence(world.now, CYD, state("before it is open"));
    world.run();
    assert_eq!(world.hear(BOB), []);
    world.hear(CYD);
    world.room.handle_close(world.now, CYD);
    world.speak(CYD, "after it is closed");
    world.pass(TICK);
    assert_eq!(world.hear(BOB), []);
    assert_eq!(world.room.poll_timeout(), None, "nothing is kept of it");
}

#[test]
fn who_closes_is_gone_at_the_next_tick_and_who_is_cut_off_after_the_grace() {
    let mut world = world();
    let mut view = View::default();
    for session in [ADA, BOB, CYD] {
        world.enter(session);
    }
    world.speak(ADA, "a");
    world.speak(CYD, "c");
    world.pass(TICK);
    view.read(world.hear(BOB));
    assert_eq!(view.says(), [(1, "a"), (3, "c")]);
    world.pass(TICK);
    world.room.handle_close(world.now, CYD);
    world.run();
    view.read(world.hear(BOB));
    assert_eq!(view.says(), [(1, "a")]);
    world.lose(ADA);
    world.lose(ADA);
    world.pass(GRACE - Duration::from_micros(1));
    assert_eq!(world.hear(BOB), []);
    world.pass(Duration::from_micros(1));
    view.read(world.hear(BOB));
    assert_eq!(view.says(), []);
    assert_eq!(world.room.poll_timeout(), None);
}

/// Scenario 42.
#[test]
fn who_comes_back_in_time_has_its_old_place_in_one_message() {
    const ADA_2: SessionId = SessionId(12);
    let mut world = world();
    world.enter(ADA);
    world.enter(BOB);
    world.speak(ADA, "a");
    let mut view = View::default();
    view.read(world.hear(BOB));
    world.lose(ADA);
    world.pass(GRACE / 2);
    world.open_as(ADA_2, ADA, token(1));
    let heard = world.hear(BOB);
    assert_eq!(heard.len(), 1);
    let deltas = heard[0].deltas.iter();
    let deltas: Vec<_> = deltas.map(|d| (d.session, d.state.clone())).collect();
    assert_eq!(deltas, [(ADA, None), (ADA_2, state("a"))]);
    view.read(heard);
    assert_eq!(view.says(), [(12, "a")]);
    world.pass(2 * GRACE);
    assert_eq!(world.hear(BOB), [], "it stays");
    let told: Vec<_> = world
        .events
        .iter()
        .filter_map(|event| match event {
            RoomEvent::PresenceJoined {
                session,
                instead_of,
                ..
            } => Some((*session, *instead_of)),
            RoomEvent::PresenceLeft { session } => panic!("{session} left"),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(ADA, None), (ADA_2, Some(ADA))]);
}

/// The new connection comes before the server has noticed that the old one is dead.
#[test]
fn a_newer_connection_takes_the_place_of_one_that_still_seems_alive() {
    const ADA_2: SessionId = SessionId(12);
    let mut world = world();
    world.enter(ADA);
    world.enter(BOB);
    world.speak(ADA, "a");
    let mut view = View::default();
    view.read(world.hear(BOB));
    world.pass(TICK);
    world.open_as(ADA_2, ADA, token(1));
    assert_eq!(world.superseded, [ADA]);
    view.read(world.hear(BOB));
    assert_eq!(view.says(), [(12, "a")]);
    // The old one is found dead later.
    world.lose(ADA);
    world.room.handle_close(world.now, ADA);
    world.pass(2 * GRACE);
    assert_eq!(world.hear(BOB), []);
    world.speak(ADA_2, "b");
    view.read(world.hear(BOB));
    assert_eq!(view.says(), [(12, "b")]);
}

#[test]
fn nobody_has_the_place_of_another_user_or_without_the_token() {
    type Attempt = (&'static str, fn(&mut OpenRequest));
    let attempts: [Attempt; 4] = [
        ("user", |open| open.user = User::new("mallory")),
        ("token", |open| open.token = token(2)),
        ("no token", |open| open.token = None),
        ("origin", |open| open.origin = OriginId(77)),
    ];
    for (what, change) in attempts {
        let mut world = world();
        world.enter(ADA);
        world.enter(BOB);
        world.speak(ADA, "a");
        let mut view = View::default();
        view.read(world.hear(BOB));
        world.lose(ADA);
        let mut request = world.request(ADA);
        request.connection = 100;
        request.token = token(1);
        request.is_resumed = true;
        change(&mut request);
        world.open_with(SessionId(100), request);
        assert_eq!(world.hear(BOB), [], "{what}");
        world.pass(GRACE);
        view.read(world.hear(BOB));
        assert_eq!(view.says(), [], "{what}");
    }
}

#[test]
fn without_a_token_or_a_grace_nobody_is_expected_back() {
    for (n, grace) in [(None, GRACE), (token(1), Duration::ZERO)] {
        let mut world = World::with(|config| config.limits.presence_grace = grace);
        world.create();
        world.foreign_append("one");
        world.open_as(ADA, ADA, n);
        world.enter(BOB);
        world.speak(ADA, "a");
        world.hear(BOB);
        world.lose(ADA);
        world.pass(TICK);
        let mut view = View::default();
        view.read(world.hear(BOB));
        assert_eq!(view.says(), []);
        assert_eq!(world.room.poll_timeout(), None);
    }
}

#[test]
fn who_is_cut_off_twice_and_who_takes_it_back_are_gone() {
    let mut world = world();
    world.enter(ADA);
    world.enter(BOB);
    let mut view = View::default();
    world.speak(ADA, "a");
    world.lose(ADA);
    let (second, third) = (SessionId(12), SessionId(13));
    // Dead again before a tick, and again after one.
    world.open_as(second, ADA, token(1));
    world.lose(second);
    world.open_as(third, ADA, token(1));
    world.pass(TICK);
    view.read(world.hear(BOB));
    assert_eq!(view.says(), [(13, "a")]);
    let left = |world: &World| {
        let left = world.events.iter();
        left.filter(|event| matches!(event, RoomEvent::PresenceLeft { .. }))
            .count()
    };
    assert_eq!(left(&world), 0);
    world.hush(third);
    world.lose(third);
    world.pass(TICK);
    view.read(world.hear(BOB));
    assert_eq!(view.says(), []);
    assert_eq!(left(&world), 1);
    assert_eq!(world.room.poll_timeout(), None);
}

#[test]
fn a_room_that_ends_says_that_all_have_left() {
    let mut world = World::with(|config| config.unload_after = GRACE / 2);
    world.create();
    world.foreign_append("one");
    world.enter(ADA);
    world.speak(ADA, "a");
    world.lose(ADA);
    world.pass(GRACE / 2);
    assert!(world.is_unloaded);
    let left = world.events.iter();
    let left = left.filter(|event| matches!(event, RoomEvent::PresenceLeft { session: ADA }));
    assert_eq!(left.count(), 1);
}

/// Slow readers, large tables, everybody coming and going: whatever a member misses, it ends with the table, and costs
/// the room nothing.
#[test]
fn whoever_reads_at_whatever_pace_has_the_same_table_in_the_end() {
    const READERS: u64 = 12;
    let (mut n_large, mut n_afresh) = (0, 0);
    for seed in 0..40_u128 {
        let mut rng = crate::rng::Rng::new(seed);
        let mut below = |n: usize| usize::try_from(rng.next_u64()).unwrap() % n;
        let mut world = world();
        let size = if seed % 3 == 0 { 30_000 } else { 100 };
        let mut truth: BTreeMap<u64, String> = BTreeMap::new();
        let mut views: BTreeMap<u64, View> = BTreeMap::new();
        for n in 1..=READERS {
            world.enter(SessionId(n));
            views.insert(n, View::default());
        }
        let mut next = 100;
        let mut here: Vec<u64> = Vec::new();
        for _ in 0..1_000 {
            match below(10) {
                0 | 1 => {
                    next += 1;
                    world.enter(SessionId(next));
                    here.push(next);
                }
                2 | 3 if !here.is_empty() => {
                    let at = below(here.len());
                    let gone = here.swap_remove(at);
                    truth.remove(&gone);
                    world.room.handle_close(world.now, SessionId(gone));
                    world.run();
                }
                4..=7 if !here.is_empty() => {
                    let who = here[below(here.len())];
                    let text = format!("{}{}", below(1_000), "x".repeat(below(size)));
                    world.speak(SessionId(who), &text);
                    truth.insert(who, text);
                }
                8 => world.pass(TICK),
                _ => {
                    // Somebody reads a little.
                    let reader = 1 + u64::try_from(below(12)).unwrap();
                    let session = SessionId(reader);
                    for _ in 0..below(4) {
                        let mut messages = world.heard.remove(&session).unwrap_or_default();
                        messages.extend(world.next(session).and_then(presence));
                        views.get_mut(&reader).unwrap().read(messages);
                    }
                }
            }
        }
        world.pass(TICK);
        let truth: Vec<_> = truth.iter().map(|(n, text)| (*n, &**text)).collect();
        for n in 1..=READERS {
            let messages = world.hear(SessionId(n));
            n_afresh += messages
                .iter()
                .filter(|m| m.deltas[0].session == SessionId(0))
                .count();
            n_large += messages.iter().filter(|m| m.table_version == 0).count();
            assert_ne!(messages.last().map(|m| m.table_version), Some(0));
            let view = views.get_mut(&n).unwrap();
            view.read(messages);
            assert_eq!(view.says(), truth, "seed {seed}, reader {n}");
        }
    }
    assert!(n_large > 0, "no table was sent in several messages");
    assert!(
        n_afresh > 0,
        "nobody was so far behind that it began afresh"
    );
}

/// Presence that never rests leaves room for the document, on a connection that takes a frame now and then.
#[test]
fn a_slow_member_is_sent_presence_and_changes_in_turn() {
    let mut world = world();
    world.enter(ADA);
    world.enter(BOB);
    let mut names = Vec::new();
    for n in 0..20 {
        world.speak(ADA, &format!("a{n}"));
        world.push(ADA, n + 1, &["typed"]);
        world.pass(TICK);
        names.push(world.next(BOB).unwrap().name());
    }
    let n_changes = names.iter().filter(|name| **name == "Changes").count();
    assert!((8..=12).contains(&n_changes), "{names:?}");
    let rest: Vec<_> = world.all(BOB).iter().map(Message::name).collect();
    assert!(
        rest.iter().filter(|name| **name == "Presence").count() <= 1,
        "{rest:?}"
    );
}
