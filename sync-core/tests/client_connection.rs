//! The client's connection: handshake, liveness, retries. A scripted server answers.

mod client_harness;

use std::time::Duration;

use client_harness::Harness;
use sync_core::client::{ClientEvent, EndReason, FailedReason, Output, Status};
use sync_core::error::{ErrorCode, PeerError};
use sync_core::transport::{CertificateProblem, DialError};
use sync_core::wire::{ErrorMessage, GoAway, Message, Pong, Reference};

const SECOND: Duration = Duration::from_secs(1);

/// Scenario 16.
#[test]
fn one_handshake_leads_from_connecting_to_connected() {
    let mut client = Harness::new();
    assert_eq!(client.state.status(), Status::Connecting);
    client.dialed();
    assert!(matches!(client.sent().as_slice(), [Message::Hello(_)]));
    assert_eq!(client.state.status(), Status::Connecting);
    client.welcome();
    assert_eq!(client.state.status(), Status::Connected);
    assert!(
        client
            .events
            .iter()
            .any(|e| matches!(e, ClientEvent::SessionStarted { .. }))
    );
}

/// Scenario 26.
#[test]
fn a_handshake_answered_too_late_fails_and_the_late_answer_is_ignored() {
    let mut client = Harness::new();
    client.dialed();
    let late = client.attempt();
    client.advance(10 * SECOND);
    assert!(
        client
            .events
            .contains(&ClientEvent::SessionEnded(EndReason::HandshakeTimeout))
    );
    assert!(matches!(
        client.state.status(),
        Status::Reconnecting { attempt: 1, .. }
    ));
    client.advance(SECOND);
    client.dialed();
    client.welcome_on(late);
    assert_ne!(client.state.status(), Status::Connected);
    client.welcome();
    assert_eq!(client.state.status(), Status::Connected);
}

/// Scenario 26: the time runs from the start of the attempt, and a dial that never ends is given up.
#[test]
fn a_dial_that_never_ends_is_given_up() {
    let mut client = Harness::new();
    let hung = client.attempt();
    client.advance(10 * SECOND);
    assert!(matches!(client.state.status(), Status::Reconnecting { .. }));
    client.state.handle_connected(client.now, hung);
    assert!(
        client
            .drain_outputs()
            .iter()
            .any(|o| matches!(o, Output::Hangup { attempt, .. } if *attempt == hung))
    );
}

/// Scenario 27.
#[test]
fn an_error_that_will_not_pass_is_not_tried_again() {
    for code in [
        ErrorCode::UnsupportedVersion,
        ErrorCode::WrongProtocol,
        ErrorCode::Unauthenticated,
    ] {
        let mut client = Harness::new();
        client.dialed();
        client.receive(&Message::Error(ErrorMessage::new(
            PeerError::new(code, "no"),
            Reference::Session,
        )));
        assert_eq!(
            client.state.status(),
            Status::Failed(FailedReason::Server(PeerError::new(code, "no")))
        );
        let dials = client.dials;
        client.advance(3600 * SECOND);
        assert_eq!(client.dials, dials, "{code}");
    }
}

/// Scenario 27.
#[test]
fn a_server_that_speaks_something_else_is_told_and_left_alone() {
    let mut client = Harness::new();
    client.dialed();
    client.receive_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert!(matches!(
        client.state.status(),
        Status::Failed(FailedReason::Server(PeerError {
            code: ErrorCode::WrongProtocol,
            ..
        }))
    ));
    let sent = client.sent();
    assert!(
        sent.iter()
            .any(|m| matches!(m, Message::Error(e) if e.code == ErrorCode::WrongProtocol)),
        "{sent:?}"
    );
    client.advance(3600 * SECOND);
    assert_eq!(client.dials, 1);
}

/// Scenario 45: the client's side.
#[test]
fn garbage_from_the_server_ends_the_session_and_it_is_tried_again() {
    let mut client = Harness::connected();
    client.receive_bytes(&[0, 0xc1, 0xff]);
    assert!(matches!(
        client.state.status(),
        Status::Reconnecting { attempt: 1, .. }
    ));
    assert!(
        client
            .events
            .iter()
            .any(|e| matches!(e, ClientEvent::SessionEnded(EndReason::Protocol(_))))
    );
}

/// Scenario 38.
#[test]
fn silence_is_noticed_within_the_ping_timeout() {
    let mut client = Harness::connected();
    client.advance(15 * SECOND);
    assert!(client.sent().iter().any(|m| matches!(m, Message::Ping(_))));
    client.advance(10 * SECOND - Duration::from_micros(1));
    assert_eq!(client.state.status(), Status::Connected);
    client.advance(Duration::from_micros(1));
    assert!(matches!(client.state.status(), Status::Reconnecting { .. }));
    assert!(
        client
            .events
            .contains(&ClientEvent::SessionEnded(EndReason::Silence))
    );
}

/// Scenario 38: whatever arrives is a sign of life.
#[test]
fn an_answered_ping_keeps_the_session() {
    let mut client = Harness::connected();
    for nonce in 1..100 {
        client.advance(15 * SECOND);
        client.receive(&Message::Pong(Pong {
            nonce,
            heads: Vec::new(),
        }));
    }
    assert_eq!(client.state.status(), Status::Connected);
    assert_eq!(
        client
            .sent()
            .iter()
            .filter(|m| matches!(m, Message::Ping(_)))
            .count(),
        99
    );
}

fn nobody_there() -> DialError {
    DialError::Unreachable("nobody is there".into())
}

/// Scenarios 39 and 41.
#[test]
fn attempts_never_end_and_stay_within_their_bounds_from_the_first_connect_on() {
    let mut client = Harness::new();
    let mut longest = Duration::ZERO;
    for attempt in 1..200_u32 {
        client
            .state
            .handle_dial_failed(client.now, client.attempt(), nobody_there());
        client.settle();
        let Status::Reconnecting {
            attempt: told,
            next_in,
        } = client.state.status()
        else {
            panic!()
        };
        assert_eq!(told, attempt);
        let bound = Duration::from_millis(500)
            .saturating_mul(1 << (attempt - 1).min(20))
            .min(30 * SECOND);
        assert!(next_in <= bound, "attempt {attempt} waits {next_in:?}");
        longest = longest.max(next_in);
        client.advance(next_in);
        assert_eq!(client.dials, attempt + 1);
    }
    assert!(longest > 25 * SECOND, "full jitter uses the whole window");
}

#[test]
fn a_server_that_is_not_trusted_is_named_and_tried_again() {
    let mut client = Harness::new();
    let problem = CertificateProblem::UnknownIssuer;
    client
        .state
        .handle_dial_failed(client.now, client.attempt(), DialError::Untrusted(problem));
    client.settle();
    let ended = ClientEvent::SessionEnded(EndReason::Untrusted(problem));
    assert!(client.events.contains(&ended));
    assert!(matches!(client.state.status(), Status::Reconnecting { .. }));
}

/// Scenario 52: with others to be had, 401 before the upgrade is no end.
#[test]
fn credentials_that_are_refused_at_the_door_are_fetched_anew_where_that_can_be_done() {
    for refreshes in [true, false] {
        let mut client = Harness::with(|config| config.refreshes = refreshes);
        let refused = DialError::Unauthenticated("the server answered 401".into());
        let attempt = client.attempt();
        client
            .state
            .handle_dial_failed(client.now, attempt, refused);
        client.settle();
        let status = client.state.status();
        if refreshes {
            assert!(
                matches!(status, Status::Reconnecting { attempt: 1, .. }),
                "{status:?}"
            );
        } else {
            assert!(
                matches!(status, Status::Failed(FailedReason::Refused(_))),
                "{status:?}"
            );
        }
    }
}

/// Scenario 39: a server that accepts and then fails is not stormed.
#[test]
fn only_a_healthy_session_resets_the_backoff() {
    let mut client = Harness::new();
    for expected in 1..6 {
        client.dialed();
        client.welcome();
        client.lost();
        let Status::Reconnecting { attempt, next_in } = client.state.status() else {
            panic!()
        };
        assert_eq!(attempt, expected);
        client.advance(next_in);
    }
    client.dialed();
    client.welcome();
    client.open("a");
    client.opened("a");
    client.lost();
    assert!(matches!(
        client.state.status(),
        Status::Reconnecting { attempt: 1, .. }
    ));
}

/// Scenario 40.
#[test]
fn disconnect_during_a_pending_retry_leads_to_no_later_attempt() {
    let mut client = Harness::connected();
    client.lost();
    assert!(matches!(client.state.status(), Status::Reconnecting { .. }));
    client.state.disconnect();
    client.settle();
    let dials = client.dials;
    client.advance(3600 * SECOND);
    assert_eq!(
        (client.dials, client.state.status()),
        (dials, Status::Offline)
    );
    client.state.connect(client.now);
    client.settle();
    assert_eq!(client.dials, dials + 1);
}

#[test]
fn a_network_change_ends_the_waiting_at_once() {
    let mut client = Harness::new();
    for _ in 0..10 {
        client
            .state
            .handle_dial_failed(client.now, client.attempt(), nobody_there());
        client.settle();
        client.state.network_changed(client.now);
        client.settle();
    }
    assert_eq!(client.dials, 11);
}

#[test]
fn a_network_change_finds_a_dead_link_within_the_ping_timeout() {
    let mut client = Harness::connected();
    client.state.network_changed(client.now);
    client.settle();
    assert!(client.sent().iter().any(|m| matches!(m, Message::Ping(_))));
    client.advance(10 * SECOND);
    assert!(matches!(client.state.status(), Status::Reconnecting { .. }));
}

#[test]
fn go_away_moves_the_client_within_the_window_without_backing_off() {
    let mut client = Harness::connected();
    client.receive(&Message::GoAway(GoAway {
        reconnect_within: 60 * SECOND,
    }));
    let dials = client.dials;
    assert_eq!(client.state.status(), Status::Connected);
    let asked = client.now;
    while client.dials == dials {
        client.advance(SECOND);
        client.receive_if_up(&Message::Pong(Pong {
            nonce: 0,
            heads: Vec::new(),
        }));
    }
    assert!(client.now.since(asked) <= 60 * SECOND);
    assert_eq!(client.state.status(), Status::Connecting);
}

#[test]
fn a_server_without_room_is_tried_again_after_the_delay_that_it_gave() {
    let mut client = Harness::new();
    client.dialed();
    let error = PeerError::new(ErrorCode::TooManyConnections, "full").retry_after(120 * SECOND);
    client.receive(&Message::Error(ErrorMessage::new(
        error,
        Reference::Session,
    )));
    client.advance(119 * SECOND);
    assert_eq!(client.dials, 1);
    client.advance(2 * SECOND);
    assert_eq!(client.dials, 2);
}

/// Protocol section 9: a close code alone says whether to try again.
#[test]
fn a_bare_close_code_is_enough_to_know_whether_to_try_again() {
    for (close_code, tries_again) in [
        (None, true),
        (Some(1006), true),
        (Some(1012), true),
        (Some(1013), true),
        (Some(4407), false),
        (Some(4411), false),
        (Some(4499), false),
    ] {
        let mut client = Harness::connected();
        client
            .state
            .handle_lost(client.now, client.attempt(), close_code);
        client.settle();
        assert_eq!(
            matches!(client.state.status(), Status::Reconnecting { .. }),
            tries_again,
            "{close_code:?}"
        );
        assert_eq!(
            matches!(client.state.status(), Status::Failed(_)),
            !tries_again,
            "{close_code:?}"
        );
    }
}

#[test]
fn what_is_called_early_does_nothing() {
    let mut client = Harness::new();
    client.state.handle_timeout(client.now);
    client.settle();
    assert_eq!(
        (client.state.status(), client.dials),
        (Status::Connecting, 1)
    );
    client
        .state
        .handle_dial_failed(client.now, client.attempt(), nobody_there());
    client.state.handle_timeout(client.now);
    client.settle();
    assert!(matches!(client.state.status(), Status::Reconnecting { .. }));
    assert_eq!(client.dials, 1);
    let mut client = Harness::connected();
    client.receive(&Message::GoAway(GoAway {
        reconnect_within: 60 * SECOND,
    }));
    client.state.handle_timeout(client.now);
    client.settle();
    assert_eq!(
        (client.state.status(), client.dials),
        (Status::Connected, 1)
    );
}

/// Whatever is told of an attempt that is over, or of another stage of the present one.
#[test]
fn what_belongs_to_another_attempt_is_ignored() {
    let mut client = Harness::new();
    let old = client.attempt();
    client
        .state
        .handle_dial_failed(client.now, old, nobody_there());
    client.settle();
    client.advance(SECOND);
    assert_ne!(client.attempt(), old);
    let broken = || PeerError::new(ErrorCode::WrongProtocol, "what is that");
    let tell = |client: &mut Harness, attempt| {
        client.state.handle_lost(client.now, attempt, None);
        client.state.handle_broken(client.now, attempt, broken());
        client.settle();
    };
    let attempt = client.attempt();
    let dialing = client.state.status();
    client
        .state
        .handle_dial_failed(client.now, old, nobody_there());
    tell(&mut client, old);
    tell(&mut client, attempt);
    assert_eq!(client.state.status(), dialing);
    client.dialed();
    client.welcome();
    client
        .state
        .handle_dial_failed(client.now, attempt, nobody_there());
    tell(&mut client, old);
    assert_eq!(client.state.status(), Status::Connected);
}

#[test]
fn a_peer_that_speaks_something_else_is_told_and_left_and_one_that_breaks_a_limit_tried_again() {
    for (code, fails) in [
        (ErrorCode::WrongProtocol, true),
        (ErrorCode::FrameTooLarge, false),
    ] {
        let mut client = Harness::connected();
        client.sent();
        let error = PeerError::new(code, "");
        client
            .state
            .handle_broken(client.now, client.attempt(), error);
        let sent = client.sent();
        assert!(
            matches!(&sent[..], [Message::Error(error)] if error.code == code),
            "{sent:?}"
        );
        let status = client.state.status();
        assert_eq!(matches!(status, Status::Failed(_)), fails, "{status:?}");
        assert_eq!(matches!(status, Status::Reconnecting { .. }), !fails);
    }
}
