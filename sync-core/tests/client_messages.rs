//! What passes beside documents: broadcasts, extension messages, credentials, the clock. A scripted server answers.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod client_harness;

use std::time::Duration;

use bytes::Bytes;
use client_harness::{CHANNEL, Harness, id};
use sync_core::client::{
    Broadcast, BroadcastError, ClientEvent, EndReason, Extension, ExtensionError, FailedReason,
    Output, Sender, Status,
};
use sync_core::error::{ErrorCode, PeerError};
use sync_core::history::Seq;
use sync_core::ids::{Channel, DocumentId, SessionId};
use sync_core::wire::{self, Access, AccessLevel, Auth, ErrorMessage, Message, Reference};

const DOC: &str = "doc";

fn broadcast(client: &mut Harness, topic: &str, bytes: usize) -> Result<(), BroadcastError> {
    let bytes = vec![b'x'; bytes].into();
    client.state.broadcast(client.now, &id(DOC), topic, bytes)
}

fn extend(
    client: &mut Harness,
    document: Option<&DocumentId>,
    kind: u8,
    bytes: usize,
) -> Result<(), ExtensionError> {
    let bytes = vec![b'x'; bytes].into();
    client.state.extend(client.now, document, kind, bytes)
}

/// The server of these tests takes 100 bytes, and two each second, three at once.
#[test]
fn a_broadcast_is_sent_within_the_servers_limits_or_not_at_all() {
    let mut client = Harness::live(DOC);
    assert_eq!(
        broadcast(&mut client, &"t".repeat(256), 1),
        Err(BroadcastError::TopicTooLong {
            bytes: 256,
            max: 255
        })
    );
    assert_eq!(
        broadcast(&mut client, "t", 101),
        Err(BroadcastError::TooLarge {
            bytes: 101,
            max: 100
        })
    );
    assert_eq!(client.sent(), []);
    assert_eq!(broadcast(&mut client, &"t".repeat(255), 100), Ok(()));
    for _ in 0..2 {
        assert_eq!(broadcast(&mut client, "t", 1), Ok(()));
    }
    let retry_in = Duration::from_millis(500);
    let too_fast = Err(BroadcastError::TooFast { retry_in });
    assert_eq!(broadcast(&mut client, "t", 1), too_fast);
    let sent = client.sent();
    assert_eq!(sent.len(), 3);
    assert!(
        sent.iter()
            .all(|m| matches!(m, Message::Broadcast(b) if b.channel == CHANNEL))
    );
    client.advance(retry_in);
    assert_eq!(broadcast(&mut client, "t", 1), Ok(()));
}

#[test]
fn who_may_only_read_or_is_not_connected_broadcasts_nothing() {
    let mut client = Harness::new();
    client.open(DOC);
    assert_eq!(broadcast(&mut client, "t", 1), Err(BroadcastError::Offline));
    client.dialed();
    client.welcome();
    assert_eq!(broadcast(&mut client, "t", 1), Err(BroadcastError::Offline));
    client.opened(DOC);
    for (access, sends) in [(AccessLevel::Read, false), (AccessLevel::Maintain, true)] {
        client.receive(&Message::Access(Access {
            channel: CHANNEL,
            access,
            from: Seq(1),
        }));
        let expected = if sends {
            Ok(())
        } else {
            Err(BroadcastError::Denied)
        };
        assert_eq!(broadcast(&mut client, "t", 1), expected);
    }
    client.lost();
    assert_eq!(broadcast(&mut client, "t", 1), Err(BroadcastError::Offline));
}

#[test]
fn a_broadcast_of_another_is_handed_over_with_its_sender_and_a_gap_with_its_size() {
    let mut client = Harness::live(DOC);
    let message = |channel, sender, missed| {
        Message::Broadcast(wire::Broadcast {
            channel,
            topic: "t".to_owned(),
            bytes: Bytes::from_static(b"hi"),
            sender,
            missed,
        })
    };
    client.handed.clear();
    client.receive(&message(CHANNEL, Some((SessionId(3), "bob".to_owned())), 0));
    client.receive(&message(CHANNEL, None, 0));
    client.receive(&message(CHANNEL, None, 1));
    client.receive(&message(Channel(77), None, 0));
    let handed: Vec<_> = client
        .handed
        .drain(..)
        .filter_map(|output| match output {
            Output::Broadcast {
                document,
                broadcast,
            } => Some((document, broadcast)),
            _ => None,
        })
        .collect();
    let received = |sender| {
        let broadcast = Broadcast::Received {
            sender,
            topic: "t".into(),
            bytes: Bytes::from_static(b"hi"),
        };
        (id(DOC), broadcast)
    };
    assert_eq!(
        handed,
        [
            received(Some(Sender::new(SessionId(3), "bob"))),
            received(None),
            (id(DOC), Broadcast::Lagged { missed: 1 }),
        ]
    );
}

#[test]
fn an_extension_message_is_sent_within_the_servers_limits_or_not_at_all() {
    let mut client = Harness::live(DOC);
    let document = id(DOC);
    assert_eq!(
        extend(&mut client, None, 127, 1),
        Err(ExtensionError::WrongKind { kind: 127 })
    );
    assert_eq!(
        extend(&mut client, None, 128, 101),
        Err(ExtensionError::TooLarge {
            bytes: 101,
            max: 100
        })
    );
    let other = id("other");
    assert_eq!(
        extend(&mut client, Some(&other), 128, 1),
        Err(ExtensionError::Offline)
    );
    assert_eq!(extend(&mut client, Some(&document), 128, 100), Ok(()));
    assert_eq!(extend(&mut client, None, 255, 1), Ok(()));
    assert_eq!(extend(&mut client, None, 255, 1), Ok(()));
    assert!(matches!(
        extend(&mut client, None, 255, 1),
        Err(ExtensionError::TooFast { .. })
    ));
    let sent = client.sent();
    let channels: Vec<_> = sent
        .iter()
        .filter_map(|message| match message {
            Message::Extension(extension) => Some((extension.kind, extension.channel)),
            _ => None,
        })
        .collect();
    assert_eq!(channels, [(128, Some(CHANNEL)), (255, None), (255, None)]);
    client.lost();
    assert_eq!(
        extend(&mut client, None, 128, 1),
        Err(ExtensionError::Offline)
    );
}

#[test]
fn an_extension_message_of_the_server_is_handed_over_with_its_document() {
    let mut client = Harness::live(DOC);
    client.handed.clear();
    for channel in [Some(CHANNEL), None, Some(Channel(77))] {
        client.receive(&Message::Extension(wire::Extension {
            kind: 200,
            channel,
            bytes: Bytes::from_static(b"hi"),
        }));
    }
    let documents: Vec<_> = client
        .handed
        .drain(..)
        .filter_map(|output| match output {
            Output::Extension(Extension::Received { document, .. }) => Some(document),
            _ => None,
        })
        .collect();
    assert_eq!(documents, [Some(id(DOC)), None]);
}

/// Scenario 52: the machine's half.
#[test]
fn fresh_credentials_are_fetched_when_the_server_asks_where_that_can_be_done() {
    for refreshes in [true, false] {
        let mut client = Harness::with(|config| config.refreshes = refreshes);
        client.dialed();
        client.welcome();
        client.sent();
        client.handed.clear();
        client.receive(&Message::Auth(Auth {
            credentials: Bytes::new(),
        }));
        let asked = client.handed.iter();
        let asked = asked.filter(|o| matches!(o, Output::Credentials)).count();
        assert_eq!(asked, usize::from(refreshes));
    }
}

#[test]
fn fresh_credentials_go_to_the_server_that_is_there_and_into_every_hello_from_then_on() {
    let credentials = || Bytes::from_static(b"fresh");
    let fresh = [Message::Auth(Auth {
        credentials: credentials(),
    })];
    for is_connected in [true, false] {
        let mut client = Harness::new();
        client.dialed();
        if is_connected {
            client.welcome();
        }
        client.sent();
        client.state.handle_credentials(credentials());
        let expected: &[Message] = if is_connected { &fresh } else { &[] };
        assert_eq!(client.sent(), expected);
        client.lost();
        client.advance(Duration::from_secs(1));
        client.dialed();
        let sent = client.sent();
        assert!(
            matches!(&sent[..], [Message::Hello(hello)] if hello.credentials == Some(credentials())),
            "{sent:?}"
        );
    }
    let mut client = Harness::new();
    client.state.set_credentials(credentials());
    client.dialed();
    assert!(
        matches!(&client.sent()[..], [Message::Hello(hello)] if hello.credentials == Some(credentials()))
    );
}

/// Credentials that are refused: others are fetched where that can be done.
#[test]
fn a_session_that_ends_for_good_says_why() {
    for (code, refreshes, fails) in [
        (ErrorCode::Unauthenticated, true, false),
        (ErrorCode::Unauthenticated, false, true),
        (ErrorCode::Superseded, true, true),
        (ErrorCode::UnsupportedVersion, true, true),
    ] {
        let mut client = Harness::with(|config| config.refreshes = refreshes);
        client.dialed();
        client.welcome();
        let error = PeerError::new(code, "");
        client.receive(&Message::Error(ErrorMessage::new(
            error.clone(),
            Reference::Session,
        )));
        let ended = ClientEvent::SessionEnded(EndReason::Server(error.clone()));
        assert!(client.events.contains(&ended));
        let status = client.state.status();
        let expected = match code {
            ErrorCode::Superseded => FailedReason::Superseded,
            _ => FailedReason::Server(error),
        };
        if fails {
            assert_eq!(status, Status::Failed(expected), "{code}");
        } else {
            assert!(matches!(status, Status::Reconnecting { .. }), "{code}");
        }
    }
}

/// The server's clock was 1,000 seconds at the welcome.
#[test]
fn the_servers_clock_is_known_from_the_first_welcome_on_and_goes_on_without_a_connection() {
    let mut client = Harness::new();
    client.dialed();
    assert_eq!(client.state.wall_time(client.now), None);
    client.welcome();
    let later = client.now + Duration::from_millis(1_500);
    assert_eq!(client.state.wall_time(client.now), Some(1_000_000));
    assert_eq!(client.state.wall_time(later), Some(1_001_500));
    client.lost();
    assert_eq!(client.state.wall_time(later), Some(1_001_500));
}

/// A status is told when it changes, and each once.
#[test]
fn every_change_of_the_status_is_told_once() {
    let mut client = Harness::new();
    client.dialed();
    client.welcome();
    client.open(DOC);
    client.opened(DOC);
    client.lost();
    client.state.disconnect();
    client.settle();
    let told: Vec<_> = client
        .events
        .iter()
        .filter_map(|event| match event {
            ClientEvent::StatusChanged(status) => Some(status.clone()),
            _ => None,
        })
        .collect();
    assert!(
        matches!(
            told[..],
            [
                Status::Connecting,
                Status::Connected,
                Status::Reconnecting { attempt: 1, .. },
                Status::Offline
            ]
        ),
        "{told:?}"
    );
}
