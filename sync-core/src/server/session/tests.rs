mod credentials;
mod presence;
mod turns;

use std::time::Duration;

use super::*;
use crate::ids::EngineId;
use crate::limits::Limits;
use crate::rate::Rate;
use crate::wire::{
    Broadcast, Close, Extension, Hello, PROTOCOL_VERSIONS, Ping, Push, VersionRange,
};

const SOME: Channel = Channel(5);

fn hello() -> Hello {
    Hello {
        versions: PROTOCOL_VERSIONS,
        software: "test".into(),
        origin: OriginId(1),
        connection: 1,
        credentials: Some("secret".into()),
        compression: vec![Compression::Gzip],
        resume: None,
    }
}

fn open(request: u32, document: &str) -> Message {
    Message::Open(Open {
        request: RequestId(request),
        document: document.try_into().unwrap(),
        engine: EngineId::YRS,
        cursor: None,
        origins: Vec::new(),
        access: AccessLevel::Write,
        create: true,
        partial: None,
    })
}

fn push(channel: Channel, bytes: usize) -> Message {
    Message::Push(Push {
        channel,
        origin: OriginId(1),
        first_number: 1,
        changes: vec![vec![0; bytes].into()],
        reconciling: false,
    })
}

fn feed(session: &mut ServerSession, message: &Message) {
    session.handle_frame(Time::ZERO, encode_frame(message, Compression::None));
}

fn outputs(session: &mut ServerSession) -> Vec<SessionOutput> {
    std::iter::from_fn(|| session.poll_output()).collect()
}

fn sent(session: &mut ServerSession) -> Vec<Message> {
    let decode = |output| match output {
        SessionOutput::Send(frame) => Some(decode_frame(frame, 1 << 20).unwrap()),
        _ => None,
    };
    outputs(session).into_iter().filter_map(decode).collect()
}

fn new_session(limits: Limits) -> ServerSession {
    ServerSession::new(Time::ZERO, SessionConfig::new(limits), SessionId(9))
}

fn live_with(limits: Limits) -> ServerSession {
    let mut session = new_session(limits);
    feed(&mut session, &Message::Hello(hello()));
    session.handle_authenticated(Time::ZERO, Ok(User::new("ada")));
    session.handle_joined(Time::ZERO, "notes".try_into().unwrap(), SOME);
    outputs(&mut session);
    session
}

fn live() -> ServerSession {
    live_with(Limits::default())
}

/// The error that ended a session, and its close code.
fn ended(session: &mut ServerSession) -> (ErrorCode, u16) {
    let outputs = outputs(session);
    let Some(SessionOutput::Close { code, reason }) = outputs.last() else {
        panic!("the session goes on: {outputs:?}");
    };
    let Some(SessionOutput::Send(frame)) = outputs.iter().rev().nth(1) else {
        panic!("the client is not told: {outputs:?}");
    };
    let Ok(Message::Error(error)) = decode_frame(frame.clone(), 1 << 20) else {
        panic!("the client is not told");
    };
    assert_eq!(
        (error.code, error.reference),
        (reason.code, Reference::Session)
    );
    assert!(session.is_closed() && session.poll_timeout().is_none());
    (error.code, *code)
}

/// Scenario 16.
#[test]
fn a_client_says_hello_is_authenticated_and_welcomed() {
    let mut session = new_session(Limits::default());
    feed(&mut session, &Message::Hello(hello()));
    let asked = outputs(&mut session);
    assert!(
        matches!(&asked[..], [SessionOutput::Authenticate(request)] if request.credentials == Some("secret".into())),
        "{asked:?}"
    );
    assert!(!format!("{asked:?}").contains("secret"), "it is printed");
    session.handle_authenticated(Time::ZERO, Ok(User::new("ada")));
    let welcomed = sent(&mut session);
    let [Message::Welcome(welcome)] = &welcomed[..] else {
        panic!("expected Welcome, got {welcomed:?}");
    };
    assert_eq!((welcome.version, welcome.session), (1, SessionId(9)));
    assert_eq!(
        (&*welcome.user, welcome.compression),
        ("ada", Compression::Gzip)
    );
    assert_eq!(welcome.limits.push_window_bytes, 1024 * 1024);
}

/// Scenario 27.
#[test]
fn another_protocol_and_another_version_are_told_apart() {
    let mut session = new_session(Limits::default());
    session.handle_frame(Time::ZERO, "GET / HTTP/1.1\r\n".into());
    assert_eq!(ended(&mut session), (ErrorCode::WrongProtocol, 4406));
    let mut session = new_session(Limits::default());
    feed(&mut session, &open(1, "notes"));
    assert_eq!(ended(&mut session).0, ErrorCode::WrongProtocol);
    let mut session = new_session(Limits::default());
    let versions = VersionRange { min: 2, max: 9 };
    feed(
        &mut session,
        &Message::Hello(Hello {
            versions,
            ..hello()
        }),
    );
    assert_eq!(ended(&mut session), (ErrorCode::UnsupportedVersion, 4407));
}

#[test]
fn a_handshake_that_takes_too_long_is_ended_whoever_is_slow() {
    let timeout = Limits::default().handshake_timeout;
    for says_hello in [false, true] {
        let mut session = new_session(Limits::default());
        if says_hello {
            feed(&mut session, &Message::Hello(hello()));
            outputs(&mut session);
        }
        session.handle_timeout(Time::ZERO + timeout.saturating_sub(Duration::from_micros(1)));
        assert_eq!(outputs(&mut session), []);
        session.handle_timeout(Time::ZERO + timeout);
        assert_eq!(ended(&mut session), (ErrorCode::HandshakeTimeout, 1013));
        session.handle_authenticated(Time::ZERO, Ok(User::new("late")));
        assert_eq!(outputs(&mut session), []);
    }
}

#[test]
fn refused_credentials_end_the_session() {
    let mut session = new_session(Limits::default());
    feed(&mut session, &Message::Hello(hello()));
    outputs(&mut session);
    let error = PeerError::new(ErrorCode::Unauthenticated, "no");
    session.handle_authenticated(Time::ZERO, Err(error));
    assert_eq!(ended(&mut session), (ErrorCode::Unauthenticated, 4414));
}

/// Scenario 45.
#[test]
fn each_kind_of_bad_frame_ends_the_session_with_its_own_code() {
    let ping = |nonce| encode_frame(&Message::Ping(Ping { nonce }), Compression::None);
    let (fragment, wrong) = {
        let large = encode_frame(&push(SOME, 200_000), Compression::None);
        let pieces: Vec<_> = split(large, SOME, 1).collect();
        (pieces[0].clone(), pieces[2].clone())
    };
    let frames: [(&str, Vec<Bytes>, ErrorCode); 7] = [
        ("empty", vec![Bytes::new()], ErrorCode::MalformedFrame),
        (
            "truncated",
            vec![ping(300).slice(..3)],
            ErrorCode::MalformedFrame,
        ),
        (
            "unknown",
            vec![Bytes::from_static(&[0, 0x91, 60])],
            ErrorCode::UnknownMessage,
        ),
        (
            "not gzip",
            vec![Bytes::from_static(&[1, 2, 3, 4, 5, 6, 0, 0, 0, 0])],
            ErrorCode::DecompressionFailed,
        ),
        (
            "too large",
            vec![vec![0; 65 * 1024 * 1024].into()],
            ErrorCode::FrameTooLarge,
        ),
        (
            "fragments",
            vec![fragment, wrong],
            ErrorCode::InvalidFragment,
        ),
        (
            "order",
            vec![encode_frame(&Message::Hello(hello()), Compression::None)],
            ErrorCode::UnexpectedMessage,
        ),
    ];
    for (name, frames, code) in frames {
        let mut session = live();
        for frame in frames {
            session.handle_frame(Time::ZERO, frame);
        }
        assert_eq!(ended(&mut session).0, code, "{name}");
        session.handle_frame(Time::ZERO, ping(1));
        assert_eq!(
            outputs(&mut session),
            [],
            "{name}: nothing is processed after the end"
        );
    }
}

/// Scenario 50.
#[test]
fn a_decompression_bomb_is_refused() {
    let limits = Limits {
        message_bytes_max: 100_000,
        ..Limits::default()
    };
    let mut session = live_with(limits);
    let bomb = encode_frame(&push(SOME, 1_000_000), Compression::Gzip);
    assert!(bomb.len() < 10_000);
    session.handle_frame(Time::ZERO, bomb);
    assert_eq!(ended(&mut session).0, ErrorCode::DecompressionFailed);
}

#[test]
fn silence_ends_the_session_at_the_idle_timeout_and_any_frame_is_a_sign_of_life() {
    let idle = Limits::default().idle_timeout;
    let mut session = live();
    let later = Time::ZERO + Duration::from_secs(20);
    session.handle_frame(
        later,
        encode_frame(&Message::Ping(Ping { nonce: 1 }), Compression::None),
    );
    outputs(&mut session);
    session.handle_timeout(Time::ZERO + idle);
    assert_eq!(outputs(&mut session), []);
    session.handle_timeout(later + idle);
    assert_eq!(ended(&mut session), (ErrorCode::IdleTimeout, 1013));
}

#[test]
fn a_ping_is_answered_with_the_heads() {
    let mut session = live();
    feed(&mut session, &Message::Ping(Ping { nonce: 7 }));
    assert_eq!(outputs(&mut session), [SessionOutput::Heads { nonce: 7 }]);
    let heads = vec![(SOME, Seq(3))];
    session.handle_heads(Time::ZERO, 7, heads.clone());
    assert_eq!(
        sent(&mut session),
        [Message::Pong(Pong { nonce: 7, heads })]
    );
}

/// Scenario 47, documents.
#[test]
fn documents_beyond_the_limit_are_refused_and_the_others_stay() {
    let limits = Limits {
        documents_per_session_max: 2,
        ..Limits::default()
    };
    let mut session = live_with(limits);
    feed(&mut session, &open(1, "second"));
    assert!(matches!(
        outputs(&mut session)[..],
        [SessionOutput::Authorize { .. }]
    ));
    feed(&mut session, &open(2, "third"));
    let refused = sent(&mut session);
    assert!(
        matches!(&refused[..], [Message::Error(e)] if e.code == ErrorCode::TooManyDocuments && e.reference == Reference::Request(RequestId(2))),
        "{refused:?}"
    );
    feed(&mut session, &open(3, "notes"));
    assert!(
        matches!(outputs(&mut session)[..], [SessionOutput::Authorize { .. }]),
        "again is no more"
    );
}

#[test]
fn an_open_is_handed_on_with_what_the_user_may_do_or_refused() {
    let mut session = live();
    feed(&mut session, &open(1, "a"));
    session.handle_authorized(Time::ZERO, RequestId(1), Ok(AccessLevel::Read.into()));
    let joined = outputs(&mut session).pop();
    assert!(
        matches!(&joined, Some(SessionOutput::Join(join)) if join.open.access == AccessLevel::Read),
        "{joined:?}"
    );
    let unavailable = PeerError::new(ErrorCode::AuthorizationUnavailable, "later");
    for (answer, code) in [
        (Ok(AccessLevel::None.into()), ErrorCode::AccessDenied),
        (Err(unavailable), ErrorCode::AuthorizationUnavailable),
    ] {
        feed(&mut session, &open(2, "b"));
        outputs(&mut session);
        session.handle_authorized(Time::ZERO, RequestId(2), answer);
        let refused = sent(&mut session);
        assert!(
            matches!(&refused[..], [Message::Error(e)] if e.code == code),
            "{refused:?}"
        );
    }
    // Of two opens of one document the later counts.
    feed(&mut session, &open(3, "c"));
    feed(&mut session, &open(4, "c"));
    outputs(&mut session);
    session.handle_authorized(Time::ZERO, RequestId(3), Ok(AccessLevel::Write.into()));
    assert_eq!(outputs(&mut session), []);
    session.handle_authorized(Time::ZERO, RequestId(4), Ok(AccessLevel::Write.into()));
    assert!(matches!(
        outputs(&mut session)[..],
        [SessionOutput::Join(_)]
    ));
}

#[test]
fn a_message_for_a_channel_that_is_not_open_is_answered_and_ignored() {
    let mut session = live();
    let other = Channel(77);
    for message in [push(other, 10), Message::Close(Close { channel: other })] {
        feed(&mut session, &message);
        let told = sent(&mut session);
        assert!(
            matches!(&told[..], [Message::Error(e)] if e.code == ErrorCode::ChannelNotOpen && e.reference == Reference::Channel(other)),
            "{told:?}"
        );
    }
    feed(&mut session, &Message::Close(Close { channel: SOME }));
    let closed = outputs(&mut session);
    assert!(
        matches!(
            &closed[..],
            [SessionOutput::Leave(SOME), SessionOutput::Send(_)]
        ),
        "{closed:?}"
    );
    feed(&mut session, &push(SOME, 10));
    assert_eq!(sent(&mut session).len(), 1, "it may have crossed the close");
}

/// Scenario 47, the push window.
#[test]
fn far_more_than_the_push_window_ends_the_session_and_what_is_answered_does_not_count() {
    let limits = Limits {
        push_window_bytes: 1_000,
        message_bytes_max: 10_000,
        ..Limits::default()
    };
    let mut session = live_with(limits);
    for _ in 0..30 {
        feed(&mut session, &push(SOME, 9_000));
        assert!(matches!(
            outputs(&mut session)[..],
            [SessionOutput::Push(_)]
        ));
        session.handle_settled(9_000);
    }
    feed(&mut session, &push(SOME, 9_000));
    outputs(&mut session);
    feed(&mut session, &push(SOME, 9_000));
    assert_eq!(ended(&mut session).0, ErrorCode::WindowExceeded);
}

fn broadcast(channel: Channel, topic: usize, bytes: usize) -> Message {
    Message::Broadcast(Broadcast {
        channel,
        topic: "x".repeat(topic),
        bytes: vec![0; bytes].into(),
        sender: None,
        missed: 0,
    })
}

fn extension(channel: Option<Channel>, bytes: usize) -> Message {
    Message::Extension(Extension {
        kind: 200,
        channel,
        bytes: vec![0; bytes].into(),
    })
}

/// What becomes of one message that is answered with an `Error` at most.
fn answer(session: &mut ServerSession, now: Time, message: &Message) -> Result<(), ErrorMessage> {
    session.handle_frame(now, encode_frame(message, Compression::None));
    let mut outputs = outputs(session);
    outputs.retain(|output| !matches!(output, SessionOutput::Event(_)));
    match &outputs[..] {
        [SessionOutput::Broadcast(_) | SessionOutput::Extension { .. }] => Ok(()),
        [SessionOutput::Send(frame)] => match decode_frame(frame.clone(), 1 << 20).unwrap() {
            Message::Error(error) => Err(error),
            other => panic!("{other:?}"),
        },
        _ => panic!("{outputs:?}"),
    }
}

fn limited() -> ServerSession {
    live_with(Limits {
        broadcast_bytes_max: 1_000,
        broadcast_rate: Rate::new(10, 5),
        extension_bytes_max: 2_000,
        extension_rate: Rate::new(10, 5),
        ..Limits::default()
    })
}

/// Scenario 47, broadcasts and extensions.
#[test]
fn broadcasts_and_extensions_over_a_limit_are_refused_and_nothing_ends() {
    use ErrorCode::{BroadcastTooLarge, ExtensionTooLarge};
    let mut session = limited();
    let told = |code, channel| Err((code, Reference::Channel(channel)));
    for (message, expected) in [
        (broadcast(SOME, 255, 1_000), Ok(())),
        (broadcast(SOME, 255, 1_001), told(BroadcastTooLarge, SOME)),
        (broadcast(SOME, 256, 0), told(BroadcastTooLarge, SOME)),
        (extension(Some(SOME), 2_000), Ok(())),
        (extension(Some(SOME), 2_001), told(ExtensionTooLarge, SOME)),
        (extension(None, 2_000), Ok(())),
        (extension(None, 2_001), told(ExtensionTooLarge, Channel(0))),
        (
            broadcast(Channel(77), 1, 1),
            told(ErrorCode::ChannelNotOpen, Channel(77)),
        ),
        (
            extension(Some(Channel(77)), 1),
            told(ErrorCode::ChannelNotOpen, Channel(77)),
        ),
    ] {
        let answer = answer(&mut session, Time::ZERO, &message);
        assert_eq!(
            answer.map_err(|error| (error.code, error.reference)),
            expected
        );
    }
    assert!(!session.is_closed());
}

/// Scenario 47, rates: twice what the client is told may come at once.
#[test]
fn broadcasts_and_extensions_that_come_too_fast_are_dropped_and_told_when_to_try_again() {
    for (message, code) in [
        (broadcast(SOME, 1, 1), ErrorCode::BroadcastTooFast),
        (extension(None, 1), ErrorCode::ExtensionTooFast),
    ] {
        let mut session = limited();
        for _ in 0..10 {
            assert_eq!(answer(&mut session, Time::ZERO, &message), Ok(()));
        }
        let refused = answer(&mut session, Time::ZERO, &message).unwrap_err();
        assert_eq!(refused.code, code);
        let wait = refused.retry_after.unwrap();
        assert_eq!(wait, Duration::from_millis(100));
        assert!(answer(&mut session, Time::ZERO, &message).is_err());
        assert_eq!(answer(&mut session, Time::ZERO + wait, &message), Ok(()));
    }
}

#[test]
fn messages_that_are_not_offered_are_refused_or_ignored_and_the_session_goes_on() {
    let mut session = live();
    session.handle_frame(Time::ZERO, Bytes::from_static(&[0, 0x91, 100]));
    feed(
        &mut session,
        &Message::Pong(Pong {
            nonce: 1,
            heads: Vec::new(),
        }),
    );
    let ignored = outputs(&mut session);
    assert!(
        matches!(
            ignored[..],
            [
                SessionOutput::Event(SessionEvent::Ignored { .. }),
                SessionOutput::Event(SessionEvent::Ignored { .. })
            ]
        ),
        "{ignored:?}"
    );
    assert!(!session.is_closed());
}

/// Scenario 44, one session.
#[test]
fn a_drain_tells_the_client_and_then_closes_with_try_again() {
    let mut session = live();
    session.handle_go_away(Time::ZERO, Duration::from_secs(5));
    assert!(matches!(sent(&mut session)[..], [Message::GoAway(_)]));
    session.handle_end(
        Time::ZERO,
        PeerError::new(ErrorCode::ShuttingDown, "draining"),
    );
    assert_eq!(ended(&mut session), (ErrorCode::ShuttingDown, 1012));
}

#[test]
fn a_user_known_beforehand_is_not_asked_for_credentials() {
    let mut config = SessionConfig::new(Limits::default());
    config.user = Some(User::new("behind a login"));
    let mut session = ServerSession::new(Time::ZERO, config, SessionId(1));
    feed(&mut session, &Message::Hello(hello()));
    assert!(matches!(&sent(&mut session)[..], [Message::Welcome(w)] if w.user == "behind a login"));
}
