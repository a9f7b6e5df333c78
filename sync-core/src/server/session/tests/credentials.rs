//! How long it stays known who the client is, and what prolongs it.

use super::*;
use crate::wire::Auth;

const SECOND: Duration = Duration::from_secs(1);

fn after(time: Duration) -> Time {
    Time::ZERO + time
}

fn sign_of_life(session: &mut ServerSession, now: Time) {
    session.handle_frame(
        now,
        encode_frame(&Message::Ping(Ping { nonce: 1 }), Compression::None),
    );
    outputs(session);
}

fn asks(messages: &[Message]) -> bool {
    let empty = Auth {
        credentials: Bytes::new(),
    };
    messages == [Message::Auth(empty)]
}

/// A session whose client has sent other credentials, which are being looked at.
fn refreshing() -> ServerSession {
    let mut session = live();
    session.handle_validity(Time::ZERO, Some(20 * SECOND));
    let fresh = Message::Auth(Auth {
        credentials: "fresh".into(),
    });
    feed(&mut session, &fresh);
    let asked = outputs(&mut session);
    assert!(
        matches!(&asked[..], [SessionOutput::Authenticate(request)] if request.credentials == Some("fresh".into())),
        "{asked:?}"
    );
    feed(&mut session, &fresh);
    assert!(
        matches!(
            outputs(&mut session)[..],
            [SessionOutput::Event(SessionEvent::Ignored { .. })]
        ),
        "one answer at a time"
    );
    session
}

#[test]
fn fresh_credentials_are_asked_for_once_before_the_end_and_without_them_the_session_ends() {
    for (valid_for, ask_at) in [(60 * SECOND, 30 * SECOND), (20 * SECOND, 10 * SECOND)] {
        let mut session = live();
        session.handle_validity(Time::ZERO, Some(valid_for));
        assert_eq!(session.poll_timeout(), Some(after(ask_at)));
        session.handle_timeout(after(ask_at.saturating_sub(Duration::from_micros(1))));
        assert_eq!(outputs(&mut session), []);
        session.handle_timeout(after(ask_at));
        assert!(asks(&sent(&mut session)));
        sign_of_life(&mut session, after(ask_at));
        session.handle_timeout(after(ask_at + SECOND));
        assert_eq!(outputs(&mut session), []);
        assert_eq!(session.poll_timeout(), Some(after(valid_for)));
        session.handle_timeout(after(valid_for));
        assert_eq!(ended(&mut session), (ErrorCode::Unauthenticated, 4414));
    }
    let mut session = live();
    session.handle_validity(Time::ZERO, None);
    let idle = Limits::default().idle_timeout;
    assert_eq!(session.poll_timeout(), Some(after(idle)), "for ever");
}

#[test]
fn credentials_of_the_same_user_are_taken_and_of_another_they_end_the_session() {
    let mut session = refreshing();
    session.handle_authenticated(Time::ZERO, Ok(User::new("ada")));
    assert_eq!(outputs(&mut session), [], "nothing else is known of her");
    session.handle_validity(Time::ZERO, Some(30 * SECOND));
    assert_eq!(session.poll_timeout(), Some(after(15 * SECOND)));
    let again = Message::Auth(Auth {
        credentials: "fresher".into(),
    });
    feed(&mut session, &again);
    let asked = outputs(&mut session);
    assert!(matches!(asked[..], [SessionOutput::Authenticate(_)]));
    session.handle_authenticated(Time::ZERO, Ok(User::new("bob")));
    assert_eq!(ended(&mut session).0, ErrorCode::Unauthenticated);
}

#[test]
fn what_fresh_credentials_say_of_the_user_is_handed_on_also_that_it_is_nothing_any_more() {
    let mut session = refreshing();
    let admin = User::new("ada").with_claims("admin");
    session.handle_authenticated(Time::ZERO, Ok(admin.clone()));
    assert_eq!(outputs(&mut session), [SessionOutput::Refreshed(admin)]);
    feed(
        &mut session,
        &Message::Auth(Auth {
            credentials: "fresher".into(),
        }),
    );
    outputs(&mut session);
    let plain = User::new("ada");
    session.handle_authenticated(Time::ZERO, Ok(plain.clone()));
    assert_eq!(outputs(&mut session), [SessionOutput::Refreshed(plain)]);
}

#[test]
fn fresh_credentials_that_are_refused_end_the_session_and_others_are_asked_for_if_nobody_can_tell()
{
    let mut session = refreshing();
    let error = PeerError::new(ErrorCode::Unauthenticated, "no");
    session.handle_authenticated(Time::ZERO, Err(error));
    assert_eq!(ended(&mut session).0, ErrorCode::Unauthenticated);

    let mut session = refreshing();
    let now = after(11 * SECOND);
    session.handle_timeout(now);
    assert!(asks(&sent(&mut session)));
    let error = PeerError::new(ErrorCode::StorageUnavailable, "later");
    session.handle_authenticated(now, Err(error));
    assert_eq!(outputs(&mut session), []);
    assert_eq!(session.poll_timeout(), Some(now + 5 * SECOND));
    session.handle_timeout(now + 5 * SECOND);
    assert!(asks(&sent(&mut session)));
}
