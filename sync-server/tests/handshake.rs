//! Who gets in, and what becomes of those who do not speak the protocol. Through raw frames.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;
mod registries;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::*;
use sync_client::transport::WebSocketDialer;
use sync_core::error::{Action, ErrorCode};
use sync_core::ids::{Channel, EngineId, OriginId};
use sync_core::rng::Rng;
use sync_core::transport::memory::pair;
use sync_core::transport::{Dialer, PeerInfo};
use sync_core::wire::*;
use sync_server::{
    Access, Auth, AuthError, Authenticator, CloseReason, ConnectRequest, Identity, Limits,
    MemoryRegistry, Server, ServerEvent, User, authorize_fn,
};

/// Scenarios 16 and 53.
#[tokio::test(start_paused = true)]
async fn each_connection_is_welcomed_once_with_a_session_id_of_its_own() {
    let (server, _) = server();
    let mut events = server.events();
    let mut ids = Vec::new();
    for origin in [1, 2] {
        let mut peer = Peer::connect(&server, origin);
        let welcome = peer.hello().await;
        assert_eq!((welcome.version, &*welcome.user), (1, "anonymous"));
        let opened = event(&mut events, |event| match event {
            ServerEvent::SessionOpened { session, user, .. } => Some((session, user)),
            _ => None,
        })
        .await;
        assert_eq!(opened, (welcome.session, User::new("anonymous")));
        assert_eq!(peer.quiet().await, None);
        ids.push(welcome.session);
    }
    assert_ne!(ids[0], ids[1]);
}

/// Scenario 27.
#[tokio::test(start_paused = true)]
async fn a_peer_of_another_protocol_or_version_is_told_and_told_not_to_come_back() {
    let (server, _) = server();
    let http = Bytes::from_static(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut peer = Peer::connect(&server, 1);
    peer.send_frame(http).await.unwrap();
    let (error, close_code) = peer.ended().await;
    assert_eq!((error.code, close_code), (ErrorCode::WrongProtocol, 4406));

    let mut peer = Peer::connect(&server, 1);
    let Message::Hello(mut hello) = peer.hello_message() else {
        unreachable!()
    };
    hello.versions = VersionRange { min: 7, max: 9 };
    peer.send(&Message::Hello(hello)).await;
    let (error, close_code) = peer.ended().await;
    assert_eq!(
        (error.code, close_code),
        (ErrorCode::UnsupportedVersion, 4407)
    );
    assert_eq!(error.code.action(), Action::Upgrade);
    assert!(error.message.contains("7 to 9"), "{}", error.message);
}

/// Scenario 26, the server's side.
#[tokio::test(start_paused = true)]
async fn a_hello_that_never_comes_ends_the_connection_after_the_handshake_time() {
    let (server, _) = server();
    let mut events = server.events();
    let begun = tokio::time::Instant::now();
    let mut peer = Peer::connect(&server, 1);
    let (error, close_code) = peer.ended().await;
    assert_eq!(
        (error.code, close_code),
        (ErrorCode::HandshakeTimeout, 1013)
    );
    assert_eq!(
        begun.elapsed().as_secs(),
        Limits::default().handshake_timeout.as_secs()
    );
    let reason = event(&mut events, |event| match event {
        ServerEvent::ConnectionFailed { reason, .. } => Some(reason),
        _ => None,
    })
    .await;
    assert!(matches!(reason, CloseReason::Ended(e) if e.code == ErrorCode::HandshakeTimeout));
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_session_and_pings_keep_it() {
    let (server, _) = server();
    let mut peer = Peer::welcomed(&server, 1).await;
    for nonce in 0..5 {
        tokio::time::sleep(Duration::from_secs(30)).await;
        peer.send(&Message::Ping(Ping { nonce })).await;
        assert_eq!(
            peer.next().await,
            Message::Pong(Pong {
                nonce,
                heads: vec![]
            })
        );
    }
    let (error, close_code) = peer.ended().await;
    assert_eq!((error.code, close_code), (ErrorCode::IdleTimeout, 1013));
}

/// Scenario 45.
#[tokio::test(start_paused = true)]
async fn random_and_broken_frames_end_only_their_senders_session() {
    let (server, _) = server();
    let mut bystander = Peer::welcomed(&server, 1_000).await;
    let doc = bystander.open("notes").await;
    let mut rng = Rng::new(45);
    let (mut ended, mut ignored) = (0, 0);
    for round in 0..300 {
        let mut peer = Peer::welcomed(&server, round + 1).await;
        let open = peer.open_message("notes");
        let valid = encode_frame(&Message::Open(open), Compression::None);
        let mut bytes = valid.to_vec();
        match round % 3 {
            // Noise.
            0 => {
                bytes = (0..rng.next_u64() % 100)
                    .map(|_| rng.next_u64().to_le_bytes()[0])
                    .collect()
            }
            // One byte changed.
            1 => {
                let at = usize::try_from(rng.next_u64()).unwrap() % bytes.len();
                bytes[at] = rng.next_u64().to_le_bytes()[0];
            }
            // Cut off.
            _ => bytes.truncate(usize::try_from(rng.next_u64()).unwrap() % bytes.len()),
        }
        peer.send_frame(bytes.into()).await.unwrap();
        peer.send(&Message::Ping(Ping { nonce: 1 })).await;
        // Either the session ends with an error, or what arrived was a message after all.
        loop {
            match peer.try_next().await {
                Some(Message::Pong(_)) => break ignored += 1,
                Some(Message::Error(error)) if error.reference == Reference::Session => {
                    assert!(peer.try_next().await.is_none());
                    break ended += 1;
                }
                Some(_) => {}
                None => panic!("the session ended without a word, round {round}"),
            }
        }
    }
    assert!(
        ended > 200 && ignored > 0,
        "{ended} ended, {ignored} went on"
    );
    bystander.push_acked(&doc, 1, "undisturbed").await;
}

/// Scenario 45: each fault has its own code.
#[tokio::test(start_paused = true)]
async fn faults_are_named() {
    let (server, _) = server();
    let large = encode_frame(
        &Message::Push(Push {
            channel: Channel(1),
            origin: OriginId(1),
            first_number: 1,
            changes: vec![vec![0; 200_000].into()],
            reconciling: false,
        }),
        Compression::None,
    );
    let fragments: Vec<_> = split(large, Channel(1), 7).collect();
    let cases = [
        ("empty", vec![Bytes::new()], ErrorCode::MalformedFrame),
        (
            "unknown type",
            vec![Bytes::from_static(&[0, 0x91, 60])],
            ErrorCode::UnknownMessage,
        ),
        (
            "a server's message",
            vec![encode_frame(
                &Message::GoAway(GoAway {
                    reconnect_within: Duration::ZERO,
                }),
                Compression::None,
            )],
            ErrorCode::UnexpectedMessage,
        ),
        (
            "out of order",
            vec![fragments[1].clone()],
            ErrorCode::InvalidFragment,
        ),
    ];
    for (name, frames, expected) in cases {
        let mut peer = Peer::welcomed(&server, 1).await;
        for frame in frames {
            peer.send_frame(frame).await.unwrap();
        }
        assert_eq!(peer.ended().await.0.code, expected, "{name}");
    }
    let mut peer = Peer::connect(&server, 1);
    let open = peer.open_message("notes");
    peer.send(&Message::Open(open)).await;
    assert_eq!(
        peer.ended().await.0.code,
        ErrorCode::WrongProtocol,
        "before Hello"
    );
    let mut peer = Peer::welcomed(&server, 1).await;
    let hello = peer.hello_message();
    peer.send(&hello).await;
    assert_eq!(
        peer.ended().await.0.code,
        ErrorCode::UnexpectedMessage,
        "a second Hello"
    );
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_not_open_is_named_and_the_session_goes_on() {
    let (server, _) = server();
    let mut peer = Peer::welcomed(&server, 1).await;
    peer.send(&Message::Close(Close {
        channel: Channel(77),
    }))
    .await;
    let error = peer.error().await;
    assert_eq!(
        (error.code, error.reference),
        (ErrorCode::ChannelNotOpen, Reference::Channel(Channel(77)))
    );
    let doc = peer.open("notes").await;
    peer.send(&Message::Close(Close {
        channel: doc.channel,
    }))
    .await;
    assert!(
        matches!(peer.next().await, Message::Closed(c) if c.channel == doc.channel && c.reason.is_none())
    );
    peer.push(&doc, 1, &["late"]).await;
    assert_eq!(peer.error().await.code, ErrorCode::ChannelNotOpen);
}

/// Scenario 50.
#[tokio::test(start_paused = true)]
async fn a_decompression_bomb_is_refused() {
    let (server, _) = server();
    let mut peer = Peer::welcomed(&server, 1).await;
    let bomb = encode_frame(
        &Message::Push(Push {
            channel: Channel(1),
            origin: OriginId(1),
            first_number: 1,
            changes: vec![vec![0; 65 * 1024 * 1024].into()],
            reconciling: false,
        }),
        Compression::Gzip,
    );
    // Fragments are for frames, compressed or not.
    for frame in split(bomb, Channel(1), 1) {
        if peer.send_frame(frame).await.is_err() {
            break;
        }
    }
    assert_eq!(peer.ended().await.0.code, ErrorCode::DecompressionFailed);
}

/// Scenario 47: connections, documents, changes and frames each have their own code.
#[tokio::test(start_paused = true)]
async fn limits_are_told_apart() {
    let server = limited();
    told_apart(&server, async |origin| Peer::connect(&server, origin)).await;
}

/// Scenario 47: over real sockets.
#[tokio::test]
async fn limits_are_told_apart_over_websockets() {
    let server = limited();
    let listener = server.listen_websocket("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let dialer = WebSocketDialer::new(&url).unwrap();
    told_apart(&server, async |origin| {
        Peer::over_any(dialer.dial().await.unwrap(), origin)
    })
    .await;
}

fn limited() -> Server {
    let mut limits = Limits::default();
    limits.connections_max = 2;
    limits.documents_per_session_max = 1;
    limits.change_bytes_max = 10;
    limits.push_window_bytes = 100;
    limits.message_bytes_max = 1_000;
    builder(MemoryRegistry::new())
        .limits(limits)
        .build()
        .unwrap()
}

async fn told_apart(server: &Server, connect: impl AsyncFn(u128) -> Peer) {
    let mut events = server.events();
    let mut ada = connect(1).await;
    let told = ada.hello().await.limits;
    assert_eq!((told.documents_max, told.change_bytes_max), (1, 10));
    assert_eq!(
        (told.push_window_bytes, told.message_bytes_max),
        (100, 1_000)
    );
    let mut bob = connect(2).await;
    bob.hello().await;
    let (error, close_code) = connect(3).await.ended().await;
    assert_eq!(
        (error.code, close_code),
        (ErrorCode::TooManyConnections, 1013)
    );

    let doc = ada.open("one").await;
    let open = ada.open_message("two");
    ada.send(&Message::Open(open)).await;
    assert_eq!(ada.error().await.code, ErrorCode::TooManyDocuments);
    ada.push(&doc, 1, &["12345678901"]).await;
    assert!(matches!(ada.next().await, Message::Refuse(r) if r.code == ErrorCode::TooLarge));

    bob.send_frame(vec![0; 1_002].into()).await.unwrap();
    assert_eq!(bob.ended().await.0.code, ErrorCode::FrameTooLarge);
    drop(ada);
    drop(bob);
    for _ in 0..2 {
        event(&mut events, |event| {
            matches!(event, ServerEvent::SessionClosed { .. }).then_some(())
        })
        .await;
    }
    connect(4).await.hello().await;
}

/// Scenario 25.
#[tokio::test(start_paused = true)]
async fn an_unknown_document_is_an_error_or_created_as_the_open_asks() {
    let (server, _) = server();
    let mut peer = Peer::welcomed(&server, 1).await;
    let mut open = peer.open_message("notes");
    open.create = false;
    let request = open.request;
    peer.send(&Message::Open(open)).await;
    let error = peer.error().await;
    assert_eq!(
        (error.code, error.reference),
        (ErrorCode::NotFound, Reference::Request(request))
    );
    let created = peer.open("notes").await;
    let mut open = peer.open_message("notes");
    open.create = false;
    assert_eq!(
        peer.open_with(open).await.opened.epoch,
        created.opened.epoch
    );
    let mut open = peer.open_message("notes");
    open.engine = EngineId::MERGEABLE;
    peer.send(&Message::Open(open)).await;
    assert_eq!(peer.error().await.code, ErrorCode::EngineMismatch);
    let mut open = peer.open_message("other");
    open.engine = EngineId::new("paper").unwrap();
    peer.send(&Message::Open(open)).await;
    assert_eq!(peer.error().await.code, ErrorCode::UnknownEngine);
}

struct Tokens;

#[async_trait]
impl Authenticator for Tokens {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        match request.credentials.as_deref() {
            Some(b"ada") => Ok(User::new("ada").into()),
            Some(b"down") => Err(AuthError::unavailable("the directory is down")),
            Some(b"panic") => panic!("a bug in the application"),
            Some(b"slow") => std::future::pending().await,
            _ => Err(AuthError::refused("no such token")),
        }
    }
}

fn with_tokens() -> Server {
    let authorize = authorize_fn(|_, document| async move {
        match document.as_str() {
            "public" => Ok(Access::read()),
            "secret" => Ok(Access::none()),
            "unknown" => Err(AuthError::unavailable("the database is down")),
            "refused by mistake" => Err(AuthError::refused("not a no")),
            "bug" => panic!("a bug in the application"),
            "slow" => std::future::pending().await,
            _ => Ok(Access::write()),
        }
    });
    Server::builder(MemoryRegistry::new(), Auth::new(Tokens, authorize))
        .seed(1)
        .build()
        .unwrap()
}

async fn hello_with(peer: &mut Peer, token: &'static str) {
    let Message::Hello(mut hello) = peer.hello_message() else {
        unreachable!()
    };
    hello.credentials = Some(token.into());
    peer.send(&Message::Hello(hello)).await;
}

/// Scenarios 52 and 83, authentication.
#[tokio::test(start_paused = true)]
async fn only_an_explicit_no_is_a_no_to_credentials() {
    let server = with_tokens();
    for (token, code, close_code) in [
        ("wrong", ErrorCode::Unauthenticated, 4414),
        ("down", ErrorCode::AuthorizationUnavailable, 1013),
        ("panic", ErrorCode::AuthorizationUnavailable, 1013),
        ("slow", ErrorCode::HandshakeTimeout, 1013),
    ] {
        let mut peer = Peer::connect(&server, 1);
        hello_with(&mut peer, token).await;
        let (error, closed_with) = peer.ended().await;
        assert_eq!((error.code, closed_with), (code, close_code), "{token}");
        assert!(
            !error.message.contains("directory"),
            "inner faults are not told: {error}"
        );
    }
    let mut peer = Peer::connect(&server, 1);
    hello_with(&mut peer, "ada").await;
    assert!(matches!(peer.next().await, Message::Welcome(w) if w.user == "ada"));
}

/// Scenarios 54, 55 and 83, authorization.
#[tokio::test(start_paused = true)]
async fn permission_is_per_document_and_an_error_is_never_a_no() {
    let server = with_tokens();
    let mut peer = Peer::connect(&server, 1);
    hello_with(&mut peer, "ada").await;
    peer.next().await;
    assert_eq!(peer.open("mine").await.opened.access, AccessLevel::Write);
    for (name, code, retryable) in [
        ("secret", ErrorCode::AccessDenied, false),
        ("unknown", ErrorCode::AuthorizationUnavailable, true),
        (
            "refused by mistake",
            ErrorCode::AuthorizationUnavailable,
            true,
        ),
        ("bug", ErrorCode::AuthorizationUnavailable, true),
        ("public", ErrorCode::NotFound, false),
    ] {
        let open = peer.open_message(name);
        peer.send(&Message::Open(open)).await;
        let error = peer.error().await;
        assert_eq!((error.code, error.retryable), (code, retryable), "{name}");
    }
    let open = peer.open_message("slow");
    peer.send(&Message::Open(open)).await;
    assert_eq!(peer.error().await.code, ErrorCode::AuthorizationUnavailable);
}

#[tokio::test(start_paused = true)]
async fn a_user_known_beforehand_needs_no_credentials() {
    let server = with_tokens();
    let (ours, theirs) = pair(CAPACITY);
    tokio::spawn(server.serve_as(theirs, PeerInfo::default(), User::new("eve")));
    assert_eq!(Peer::over(ours, 1).hello().await.user, "eve");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_promises_too_little_makes_no_server() {
    use sync_server::registry::Durability;
    let built = builder(Arc::new(MemoryRegistry::new()))
        .durability_min(Durability::Synced)
        .build();
    assert!(matches!(
        built,
        Err(sync_server::BuildError::Durability { .. })
    ));
}
