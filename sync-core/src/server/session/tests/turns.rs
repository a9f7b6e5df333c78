//! What the driver and the rooms tell a session.

use super::*;
use crate::server::grant::Grant;
use crate::wire::FoldOffer;

fn joined(session: &mut ServerSession, access: AccessLevel, grant: Grant) -> OpenRequest {
    let Message::Open(mut wanted) = open(1, "a") else {
        panic!("an Open");
    };
    wanted.access = access;
    feed(session, &Message::Open(wanted));
    session.handle_authorized(Time::ZERO, RequestId(1), Ok(grant));
    match outputs(session).pop() {
        Some(SessionOutput::Join(join)) => join.open,
        other => panic!("expected Join, got {other:?}"),
    }
}

#[test]
fn who_asks_to_read_only_reads_and_who_asks_to_write_may_all_that_is_granted() {
    use AccessLevel::{Maintain, Read, Write};
    for (wanted, granted, access, access_max) in [
        (Read, Write, Read, Read),
        (Write, Read, Read, Maintain),
        (Write, Write, Write, Maintain),
        (Write, Maintain, Maintain, Maintain),
    ] {
        let open = joined(&mut live(), wanted, granted.into());
        assert_eq!((open.access, open.access_max), (access, access_max));
    }
}

#[test]
fn a_document_is_created_if_that_is_wanted_and_granted() {
    let granted = Grant::from(AccessLevel::Write);
    let denied = Grant {
        create: false,
        ..granted
    };
    assert!(joined(&mut live(), AccessLevel::Write, granted).create);
    assert!(!joined(&mut live(), AccessLevel::Write, denied).create);
}

#[test]
fn compression_is_agreed_with_the_welcome_if_both_sides_can() {
    for (ours, theirs, agreed) in [
        (true, true, Compression::Gzip),
        (true, false, Compression::None),
        (false, true, Compression::None),
    ] {
        let mut config = SessionConfig::new(Limits::default());
        config.gzip = ours;
        let mut session = ServerSession::new(Time::ZERO, config, SessionId(9));
        let compression = if theirs {
            hello().compression
        } else {
            Vec::new()
        };
        feed(
            &mut session,
            &Message::Hello(Hello {
                compression,
                ..hello()
            }),
        );
        assert_eq!(session.compression(), Compression::None);
        session.handle_authenticated(Time::ZERO, Ok(User::new("ada")));
        assert_eq!(session.compression(), agreed);
    }
}

#[test]
fn a_timeout_that_is_told_late_is_one_all_the_same() {
    let mut session = new_session(Limits::default());
    session.handle_timeout(Time::ZERO + 2 * Limits::default().handshake_timeout);
    assert_eq!(ended(&mut session).0, ErrorCode::HandshakeTimeout);
    let mut session = live();
    session.handle_timeout(Time::ZERO + 2 * Limits::default().idle_timeout);
    assert_eq!(ended(&mut session).0, ErrorCode::IdleTimeout);
}

#[test]
fn a_channel_that_a_room_has_closed_is_not_open() {
    let mut session = live();
    assert_eq!(session.channels().count(), 1);
    session.handle_left(Time::ZERO, SOME);
    assert_eq!(session.channels().count(), 0);
    let offer = |channel| {
        Message::FoldOffer(FoldOffer {
            channel,
            epoch: crate::history::Epoch(1),
            seq: Seq(1),
            digest: crate::history::Digest::EMPTY,
            bytes: Bytes::new(),
        })
    };
    for message in [push(SOME, 1), offer(SOME), broadcast(SOME, 1, 1)] {
        feed(&mut session, &message);
        let told = outputs(&mut session);
        assert_eq!(
            told.first(),
            Some(&SessionOutput::Event(SessionEvent::ErrorSent(
                ErrorCode::ChannelNotOpen
            ))),
            "{told:?}"
        );
        assert_eq!(told.len(), 2);
    }
    let mut session = live();
    feed(&mut session, &offer(SOME));
    assert!(matches!(
        outputs(&mut session)[..],
        [SessionOutput::FoldOffer(_)]
    ));
}

#[test]
fn a_push_of_a_user_who_has_cost_too_much_waits_and_then_goes_on() {
    let mut session = live();
    let until = Time::ZERO + Duration::from_secs(2);
    session.handle_hold(Time::ZERO, until);
    feed(&mut session, &push(SOME, 10));
    assert_eq!(outputs(&mut session), []);
    assert_eq!(session.poll_timeout(), Some(until));
    session.handle_timeout(until);
    assert!(matches!(
        outputs(&mut session)[..],
        [SessionOutput::Push(_)]
    ));
}

#[test]
fn a_push_that_waits_is_refused_when_the_wait_becomes_long() {
    let mut session = live();
    session.handle_hold(Time::ZERO, Time::ZERO + Duration::from_secs(2));
    feed(&mut session, &push(SOME, 10));
    outputs(&mut session);
    session.handle_hold(Time::ZERO, Time::ZERO + Duration::from_secs(60));
    let told = outputs(&mut session);
    assert!(
        matches!(&told[..], [SessionOutput::StopPush { channel: SOME, error }] if error.code == ErrorCode::QuotaExceeded),
        "{told:?}"
    );
}

#[test]
fn an_extension_message_of_the_server_goes_to_those_who_have_been_welcomed() {
    let mut session = new_session(Limits::default());
    session.handle_extend(200, "early".into());
    assert_eq!(outputs(&mut session), []);
    let mut session = live();
    session.handle_extend(200, "hi".into());
    let expected = Message::Extension(Extension {
        kind: 200,
        channel: None,
        bytes: "hi".into(),
    });
    assert_eq!(sent(&mut session), [expected]);
}

#[test]
fn a_token_to_come_back_with_is_given_where_somebody_who_is_cut_off_is_waited_for() {
    for grace in [Duration::ZERO, Duration::from_secs(1)] {
        let limits = Limits {
            presence_grace: grace,
            ..Limits::default()
        };
        let mut config = SessionConfig::new(limits);
        config.resume_token = ResumeToken::from_bytes(&[7; 16]);
        assert!(config.resume_token.is_some());
        let mut session = ServerSession::new(Time::ZERO, config, SessionId(9));
        feed(&mut session, &Message::Hello(hello()));
        outputs(&mut session);
        session.handle_authenticated(Time::ZERO, Ok(User::new("ada")));
        let welcomed = sent(&mut session);
        let [Message::Welcome(welcome)] = &welcomed[..] else {
            panic!("expected Welcome, got {welcomed:?}");
        };
        assert_eq!(welcome.resume.is_some(), !grace.is_zero());
    }
}

#[test]
fn what_waits_is_forgotten_when_the_channel_is_left_or_opened_again() {
    let until = Time::ZERO + Duration::from_secs(2);
    for opens_again in [false, true] {
        let mut session = live();
        session.handle_hold(Time::ZERO, until);
        feed(&mut session, &push(SOME, 10));
        if opens_again {
            session.handle_joined(Time::ZERO, "notes".try_into().unwrap(), Channel(6));
        } else {
            session.handle_left(Time::ZERO, SOME);
        }
        session.handle_timeout(until);
        assert_eq!(outputs(&mut session), []);
    }
}

#[test]
fn a_close_takes_back_an_open_of_the_same_document_and_no_other() {
    let mut session = live();
    feed(&mut session, &open(1, "notes"));
    feed(&mut session, &open(2, "other"));
    feed(&mut session, &Message::Close(Close { channel: SOME }));
    outputs(&mut session);
    for (request, joins) in [(RequestId(1), 0), (RequestId(2), 1)] {
        session.handle_authorized(Time::ZERO, request, Ok(AccessLevel::Write.into()));
        let joined = outputs(&mut session);
        assert_eq!(joined.len(), joins, "{joined:?}");
    }
}

#[test]
fn a_client_that_reports_an_error_of_the_session_is_gone_and_of_a_document_it_stays() {
    for (reference, stays) in [
        (Reference::Session, false),
        (Reference::Channel(SOME), true),
    ] {
        let mut session = live();
        let error = PeerError::new(ErrorCode::MalformedFrame, "what was that");
        feed(
            &mut session,
            &Message::Error(ErrorMessage::new(error, reference)),
        );
        assert_eq!(!session.is_closed(), stays);
        let told = outputs(&mut session);
        assert_eq!(
            stays,
            matches!(
                told[..],
                [SessionOutput::Event(SessionEvent::Ignored { .. })]
            ),
            "{told:?}"
        );
    }
}

#[test]
fn an_open_names_ten_thousand_origins_at_most() {
    for (n, is_taken) in [(10_000, true), (10_001, false)] {
        let Message::Open(mut wanted) = open(1, "a") else {
            panic!("an Open");
        };
        wanted.origins = (0..n).map(|origin| (OriginId(origin), 0)).collect();
        let mut session = live();
        feed(&mut session, &Message::Open(wanted));
        assert_eq!(!session.is_closed(), is_taken, "{n}");
    }
}

/// Scenario 47, the push window.
#[test]
fn twice_the_push_window_and_a_message_is_taken_and_not_a_byte_more() {
    let limits = Limits {
        push_window_bytes: 1_000,
        message_bytes_max: 10_000,
        push_bytes: Rate::UNLIMITED,
        ..Limits::default()
    };
    for (bytes, code) in [(6_000, None), (6_001, Some(ErrorCode::WindowExceeded))] {
        let mut session = live_with(limits.clone());
        feed(&mut session, &push(SOME, 6_000));
        feed(&mut session, &push(SOME, bytes));
        let closed = outputs(&mut session).pop().and_then(|last| match last {
            SessionOutput::Close { reason, .. } => Some(reason.code),
            _ => None,
        });
        assert_eq!(closed, code);
    }
}

#[test]
fn what_a_session_keeps_is_counted() {
    let mut session = live();
    assert_eq!(session.held_bytes(), 0);
    session.handle_hold(Time::ZERO, Time::ZERO + Duration::from_secs(2));
    feed(&mut session, &push(SOME, 1_000));
    assert_eq!(session.held_bytes(), 1_000);
    let large = encode_frame(&push(SOME, 200_000), Compression::None);
    let piece = split(large, SOME, 1).next().unwrap();
    session.handle_frame(Time::ZERO, piece);
    let held = session.held_bytes();
    assert!((60_000..70_000).contains(&held), "{held}");
    session.handle_left(Time::ZERO, SOME);
    assert_eq!(session.held_bytes(), 0);
}
