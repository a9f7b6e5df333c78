//! Who is in a document, and what the client says of itself. A scripted server answers.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod client_harness;

use std::time::Duration;

use bytes::Bytes;
use client_harness::{CHANNEL, Harness, id};
use sync_core::client::{Output, PresenceRefusal};
use sync_core::error::{ErrorCode, PeerError};
use sync_core::ids::{Channel, SessionId};
use sync_core::limits::Limits;
use sync_core::wire::{ErrorMessage, Message, Presence, PresenceDelta, Reference};

const DOC: &str = "doc";
const EVERYBODY: u64 = 0;
const INTERVAL: Duration = Duration::from_millis(50);

fn say(client: &mut Harness, state: &'static str) -> Result<(), PresenceRefusal> {
    let state = Some(Bytes::from_static(state.as_bytes()));
    let said = client.state.set_presence(client.now, &id(DOC), state);
    client.settle();
    said
}

fn clear(client: &mut Harness) {
    client
        .state
        .set_presence(client.now, &id(DOC), None)
        .unwrap();
    client.settle();
}

/// What the client has said since the last call: its session, and the state.
fn said(client: &mut Harness) -> Vec<(u64, Option<Bytes>)> {
    let deltas = |message| match message {
        Message::Presence(presence) => presence.deltas,
        _ => Vec::new(),
    };
    let sent = client.sent().into_iter().flat_map(deltas);
    sent.map(|delta| (delta.session.0, delta.state)).collect()
}

fn state(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

/// The server says this of sessions: user and state.
fn told(client: &mut Harness, version: u64, deltas: &[(u64, &str, Option<&'static str>)]) {
    told_on(client, CHANNEL, version, deltas);
}

fn told_on(
    client: &mut Harness,
    channel: Channel,
    version: u64,
    deltas: &[(u64, &str, Option<&'static str>)],
) {
    let delta = |(session, user, text): &(u64, &str, Option<&'static str>)| PresenceDelta {
        session: SessionId(*session),
        user: (*user).to_owned(),
        state: text.map(|text| Bytes::from_static(text.as_bytes())),
    };
    client.receive(&Message::Presence(Presence {
        channel,
        deltas: deltas.iter().map(delta).collect(),
        table_version: version,
    }));
}

/// Session, user and state of everybody, `*` behind this client.
fn roster(client: &Harness) -> Vec<String> {
    let (_, peers) = client.state.roster(&id(DOC)).unwrap();
    let text = |state: &Bytes| String::from_utf8(state.to_vec()).unwrap();
    peers
        .iter()
        .map(|peer| {
            let me = if peer.is_me { "*" } else { "" };
            let (session, user) = (peer.session.0, &peer.user.id);
            format!("{session} {user} {}{me}", text(&peer.state))
        })
        .collect()
}

fn revision(client: &Harness) -> u64 {
    client.state.roster(&id(DOC)).unwrap().0
}

/// Whether the application has been told to look since the last call.
fn is_shown(client: &mut Harness) -> bool {
    client.settle();
    let shown = client
        .handed
        .iter()
        .any(|o| matches!(o, Output::Presence(_)));
    client.handed.clear();
    shown
}

#[test]
fn what_the_client_says_of_itself_goes_out_at_once_and_then_the_last_of_each_interval() {
    let mut client = Harness::live(DOC);
    say(&mut client, "a").unwrap();
    assert_eq!(said(&mut client), [(9, state("a"))]);
    say(&mut client, "b").unwrap();
    say(&mut client, "c").unwrap();
    client.advance(INTERVAL - Duration::from_micros(1));
    assert_eq!(said(&mut client), []);
    client.advance(Duration::from_micros(1));
    assert_eq!(said(&mut client), [(9, state("c"))]);
    client.advance(10 * INTERVAL);
    assert_eq!(said(&mut client), []);
    clear(&mut client);
    assert_eq!(said(&mut client), [(9, None)]);
    client.advance(10 * INTERVAL);
    clear(&mut client);
    assert_eq!(said(&mut client), [], "the server has nothing of it");
}

#[test]
fn what_is_taken_back_before_it_was_sent_is_not_sent() {
    let mut client = Harness::connected();
    client.open(DOC);
    say(&mut client, "a").unwrap();
    clear(&mut client);
    client.opened(DOC);
    assert_eq!(said(&mut client), []);
}

/// The server of these tests takes 10 each second, 20 at once.
#[test]
fn the_client_keeps_to_the_rate_that_the_server_told() {
    let mut client = Harness::live(DOC);
    let begun = client.now;
    let mut n = 0;
    while client.now.since(begun) < Duration::from_secs(10) {
        say(&mut client, "here").unwrap();
        client.advance(INTERVAL);
        n += said(&mut client).len();
    }
    assert!((115..=121).contains(&n), "{n}");
}

#[test]
fn what_is_said_is_as_large_as_the_server_takes_and_offline_as_is_configured() {
    let mut client = Harness::live(DOC);
    let set = |client: &mut Harness, n: usize| {
        let state = Some(vec![b'x'; n].into());
        client.state.set_presence(client.now, &id(DOC), state)
    };
    assert_eq!(set(&mut client, 100), Ok(()));
    let refused = Err(PresenceRefusal::TooLarge {
        bytes: 101,
        max: 100,
    });
    assert_eq!(set(&mut client, 101), refused);
    client.lost();
    let max = Limits::default().presence_bytes_max;
    assert_eq!(set(&mut client, max), Ok(()));
    assert!(set(&mut client, max + 1).is_err());
}

#[test]
fn in_a_document_that_is_closed_or_was_never_open_nothing_can_be_said() {
    let mut client = Harness::live(DOC);
    let state = || Some(Bytes::from_static(b"x"));
    let other = client.state.set_presence(client.now, &id("other"), state());
    assert_eq!(other, Err(PresenceRefusal::Closed));
    assert!(client.state.roster(&id("other")).is_none());
    client.edit(DOC, "a", "keeps it here");
    client.state.close(client.now, &id(DOC));
    let closed = client.state.set_presence(client.now, &id(DOC), state());
    assert_eq!(closed, Err(PresenceRefusal::Closed));
    told(&mut client, 2, &[(1, "bob", Some("b"))]);
    assert_eq!(roster(&client), [""; 0]);
}

#[test]
fn the_roster_is_by_session_and_has_the_client_itself_at_once() {
    let mut client = Harness::live(DOC);
    say(&mut client, "a").unwrap();
    assert!(is_shown(&mut client));
    told(
        &mut client,
        2,
        &[(12, "cyd", Some("c")), (3, "bob", Some("b"))],
    );
    assert!(is_shown(&mut client));
    assert_eq!(roster(&client), ["3 bob b", "9 ann a*", "12 cyd c"]);
    // A known user is not named again; what the server says of this client it knows better.
    let before = revision(&client);
    told(
        &mut client,
        3,
        &[(3, "", Some("b2")), (9, "ann", Some("old"))],
    );
    assert_eq!(roster(&client), ["3 bob b2", "9 ann a*", "12 cyd c"]);
    assert!(revision(&client) > before);
    told(&mut client, 4, &[(12, "", None)]);
    assert_eq!(roster(&client), ["3 bob b2", "9 ann a*"]);
    // The table from the start: whoever was known is gone.
    told(
        &mut client,
        5,
        &[(EVERYBODY, "", None), (7, "dan", Some("d"))],
    );
    assert_eq!(roster(&client), ["7 dan d", "9 ann a*"]);
    clear(&mut client);
    assert_eq!(roster(&client), ["7 dan d"]);
}

#[test]
fn of_a_table_in_several_messages_nothing_is_seen_before_the_last() {
    let mut client = Harness::live(DOC);
    told(&mut client, 2, &[(3, "bob", Some("b"))]);
    is_shown(&mut client);
    let before = revision(&client);
    told(
        &mut client,
        0,
        &[(EVERYBODY, "", None), (4, "cyd", Some("c"))],
    );
    assert_eq!(roster(&client), ["3 bob b"]);
    assert!(!is_shown(&mut client));
    assert_eq!(revision(&client), before);
    told(&mut client, 3, &[(5, "dan", Some("d"))]);
    assert_eq!(roster(&client), ["4 cyd c", "5 dan d"]);
    // One that was cut is begun anew.
    told(&mut client, 0, &[(6, "eve", Some("e"))]);
    client.reconnect();
    client.opened(DOC);
    told(&mut client, 1, &[(EVERYBODY, "", None)]);
    assert_eq!(roster(&client), [""; 0]);
}

#[test]
fn what_arrives_on_another_channel_is_not_seen() {
    let mut client = Harness::live(DOC);
    is_shown(&mut client);
    told_on(&mut client, Channel(77), 2, &[(3, "bob", Some("b"))]);
    assert!(!is_shown(&mut client));
    assert_eq!(roster(&client), [""; 0]);
}

/// Scenario 42: the machine's half.
#[test]
fn others_are_thought_to_be_there_for_a_while_after_a_loss_if_the_client_may_come_back() {
    let grace = Limits::default().presence_grace;
    let mut client = Harness::new();
    client.resume = Some(Bytes::from_static(&[7; 16]));
    client.dialed();
    client.welcome();
    client.open(DOC);
    client.opened(DOC);
    say(&mut client, "a").unwrap();
    told(&mut client, 2, &[(3, "bob", Some("b"))]);
    client.lost();
    is_shown(&mut client);
    let lost = client.now;
    while client.now.since(lost) + Duration::from_millis(100) < grace {
        client.advance(Duration::from_millis(50));
        assert_eq!(roster(&client), ["3 bob b", "9 ann a*"]);
    }
    let before = revision(&client);
    client.advance(Duration::from_millis(200));
    assert_eq!(roster(&client), ["9 ann a*"]);
    assert!(is_shown(&mut client));
    assert!(revision(&client) > before);
}

/// Scenario 42: the machine's half.
#[test]
fn who_comes_back_in_time_says_it_again_and_knows_its_earlier_session_for_its_own() {
    for resumes in [true, false] {
        let mut client = Harness::new();
        client.resume = resumes.then(|| Bytes::from_static(&[7; 16]));
        client.dialed();
        client.welcome();
        client.open(DOC);
        client.opened(DOC);
        say(&mut client, "a").unwrap();
        told(&mut client, 2, &[(3, "bob", Some("b"))]);
        said(&mut client);
        client.session = SessionId(10);
        client.reconnect();
        let others: &[&str] = if resumes { &["3 bob b"] } else { &[] };
        let me = ["10 ann a*"];
        assert_eq!(roster(&client), [others, &me].concat(), "{resumes}");
        client.opened(DOC);
        assert_eq!(said(&mut client), [(10, state("a"))]);
        told(
            &mut client,
            5,
            &[
                (EVERYBODY, "", None),
                (3, "bob", Some("b")),
                (9, "ann", Some("a")),
            ],
        );
        let expected: &[&str] = if resumes {
            &["3 bob b", "10 ann a*"]
        } else {
            &["3 bob b", "9 ann a", "10 ann a*"]
        };
        assert_eq!(roster(&client), expected);
        // It is fresh: nothing of it expires.
        client.advance(Duration::from_secs(12));
        assert_eq!(roster(&client), expected);
    }
}

#[test]
fn what_was_taken_back_while_the_connection_was_lost_is_told_to_the_server() {
    let mut client = Harness::live(DOC);
    say(&mut client, "a").unwrap();
    said(&mut client);
    client.lost();
    clear(&mut client);
    client.advance(Duration::from_secs(1));
    client.dialed();
    client.welcome();
    client.opened(DOC);
    assert_eq!(said(&mut client), [(9, None)]);
}

#[test]
fn what_was_taken_back_is_taken_back_again_if_the_connection_is_lost_before_the_server_can_be_known_to_have_heard_it()
 {
    let mut client = Harness::live(DOC);
    say(&mut client, "a").unwrap();
    client.advance(INTERVAL);
    clear(&mut client);
    assert_eq!(said(&mut client), [(9, state("a")), (9, None)]);
    client.reconnect();
    client.opened(DOC);
    assert_eq!(said(&mut client), [(9, None)]);
}

#[test]
fn what_was_said_in_a_document_that_was_closed_while_the_connection_was_lost_is_taken_back_when_it_is_opened_again()
 {
    let mut client = Harness::live(DOC);
    say(&mut client, "a").unwrap();
    said(&mut client);
    client.lost();
    client.state.close(client.now, &id(DOC));
    client.settle();
    assert!(client.state.roster(&id(DOC)).is_none(), "it is forgotten");
    client.advance(Duration::from_secs(1));
    client.dialed();
    client.welcome();
    client.open(DOC);
    client.opened(DOC);
    assert_eq!(said(&mut client), [(9, None)]);
}

#[test]
fn what_was_said_in_a_document_that_was_closed_is_taken_back_when_it_is_opened_again_since_the_server_may_not_have_heard_of_it()
 {
    let mut client = Harness::live(DOC);
    say(&mut client, "a").unwrap();
    client.state.close(client.now, &id(DOC));
    client.settle();
    said(&mut client);
    client.reconnect();
    client.open(DOC);
    client.opened(DOC);
    assert_eq!(said(&mut client), [(9, None)]);
    client.state.close(client.now, &id(DOC));
    client.settle();
    client.open(DOC);
    client.opened(DOC);
    assert_eq!(said(&mut client), [], "once");
}

#[test]
fn who_opens_a_document_again_before_the_last_of_its_outbox_is_saved_sees_who_is_there() {
    let mut client = Harness::live(DOC);
    told(&mut client, 2, &[(3, "bob", Some("b"))]);
    client.edit(DOC, "key", "value");
    client.state.close(client.now, &id(DOC));
    client.settle();
    assert!(is_shown(&mut client));
    assert_eq!(roster(&client), [""; 0]);
    told(&mut client, 3, &[(4, "cy", Some("c"))]);
    assert!(!is_shown(&mut client));
    assert_eq!(roster(&client), [""; 0]);
    let n = client.n_opens();
    client.open(DOC);
    assert!(is_shown(&mut client));
    assert_eq!(roster(&client), ["3 bob b", "4 cy c"]);
    assert_eq!(client.n_opens(), n, "the channel is the same");
}

#[test]
fn who_disconnects_sees_nobody_and_is_another_one_afterwards() {
    let mut client = Harness::new();
    client.resume = Some(Bytes::from_static(&[7; 16]));
    client.dialed();
    client.welcome();
    client.open(DOC);
    client.opened(DOC);
    told(&mut client, 2, &[(3, "bob", Some("b"))]);
    is_shown(&mut client);
    client.state.disconnect();
    assert!(is_shown(&mut client));
    assert_eq!(roster(&client), [""; 0]);
    client.state.connect(client.now);
    client.sent();
    client.dialed();
    let sent = client.sent();
    assert!(
        matches!(&sent[..], [Message::Hello(hello)] if hello.resume.is_none()),
        "{sent:?}"
    );
}

#[test]
fn who_cannot_come_back_sees_nobody_when_the_connection_is_lost() {
    let mut client = Harness::live(DOC);
    told(&mut client, 2, &[(3, "bob", Some("b"))]);
    client.lost();
    assert_eq!(roster(&client), [""; 0]);
}

#[test]
fn what_came_too_fast_is_said_again_when_the_server_takes_it_and_nothing_else_is() {
    for (code, again) in [
        (ErrorCode::PresenceTooFast, true),
        (ErrorCode::PresenceTooLarge, false),
    ] {
        let mut client = Harness::live(DOC);
        say(&mut client, "a").unwrap();
        said(&mut client);
        let wait = Duration::from_secs(1);
        let error = PeerError::new(code, "").retry_after(wait);
        client.receive(&Message::Error(ErrorMessage::new(
            error,
            Reference::Channel(CHANNEL),
        )));
        client.advance(wait - Duration::from_micros(1));
        assert_eq!(said(&mut client), []);
        client.advance(Duration::from_micros(1));
        assert_eq!(said(&mut client).len(), usize::from(again), "{code}");
    }
}

#[test]
fn a_document_that_is_opened_again_sees_nobody_until_it_is_told() {
    let mut client = Harness::live(DOC);
    told(&mut client, 2, &[(3, "bob", Some("b"))]);
    is_shown(&mut client);
    let before = revision(&client);
    // The stream and the client do not fit.
    client.changes(5, &[]);
    client.receive(&Message::Changes(sync_core::wire::Changes {
        channel: CHANNEL,
        check: 77,
        changes: Vec::new(),
    }));
    assert_eq!(roster(&client), [""; 0]);
    assert!(is_shown(&mut client));
    assert!(revision(&client) > before);
}

/// Whoever watches sees that a client has become another session, if it shows anybody.
#[test]
fn a_new_session_is_shown_where_somebody_is_seen() {
    for (says, sees, shown) in [
        (true, false, true),
        (false, true, true),
        (false, false, false),
    ] {
        let mut client = Harness::new();
        client.resume = Some(Bytes::from_static(&[7; 16]));
        client.dialed();
        client.welcome();
        client.open(DOC);
        client.opened(DOC);
        if says {
            say(&mut client, "a").unwrap();
        }
        if sees {
            told(&mut client, 2, &[(3, "bob", Some("b"))]);
        }
        client.lost();
        client.advance(Duration::from_secs(1));
        client.dialed();
        is_shown(&mut client);
        let before = revision(&client);
        client.session = SessionId(10);
        client.welcome();
        assert_eq!(is_shown(&mut client), shown);
        assert_eq!(revision(&client), before + 1);
    }
}

#[test]
fn a_document_that_is_closed_takes_back_what_was_said_and_each_change_is_counted() {
    let mut client = Harness::live(DOC);
    let mut revisions = vec![revision(&client)];
    for text in ["a", "b"] {
        say(&mut client, text).unwrap();
        revisions.push(revision(&client));
    }
    assert!(revisions.is_sorted_by(|a, b| a < b));
    client.advance(INTERVAL);
    said(&mut client);
    client.edit(DOC, "a", "keeps it here");
    client.state.close(client.now, &id(DOC));
    client.advance(INTERVAL);
    assert_eq!(said(&mut client), [(9, None)]);
    assert_eq!(roster(&client), [""; 0]);
}

#[test]
fn a_document_that_is_opened_again_is_looked_at_anew() {
    let mut client = Harness::live(DOC);
    client.edit(DOC, "a", "keeps it here");
    client.state.close(client.now, &id(DOC));
    let before = revision(&client);
    client.open(DOC);
    assert!(revision(&client) > before);
}
