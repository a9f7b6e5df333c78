//! What a session says of itself, on its way to the room.

use super::*;
use crate::limits::{FRAGMENT_BYTES, PRESENCE_BYTES_MAX};
use crate::wire::{Presence, PresenceDelta};

fn says(channel: Channel, deltas: &[(SessionId, usize)]) -> Message {
    let delta = |(session, bytes): &(SessionId, usize)| PresenceDelta {
        session: *session,
        user: String::new(),
        state: Some(vec![0; *bytes].into()),
    };
    Message::Presence(Presence {
        channel,
        deltas: deltas.iter().map(delta).collect(),
        table_version: 0,
    })
}

/// Bytes of the state that the room is handed, or why it is not.
fn handed(session: &mut ServerSession, message: &Message) -> Result<usize, ErrorCode> {
    feed(session, message);
    let outputs = outputs(session);
    match &outputs[..] {
        [
            SessionOutput::Presence {
                channel: SOME,
                state,
            },
        ] => Ok(state.as_ref().unwrap().len()),
        [
            SessionOutput::Event(SessionEvent::ErrorSent(code)),
            SessionOutput::Send(_),
        ] => Err(*code),
        _ => panic!("{outputs:?}"),
    }
}

#[test]
fn of_what_a_session_says_the_last_about_itself_counts_and_nothing_about_others() {
    let mut session = live();
    let (me, other) = (session.id(), SessionId(77));
    let both = says(SOME, &[(me, 1), (me, 2), (other, 3)]);
    assert_eq!(handed(&mut session, &both), Ok(2));
    feed(&mut session, &says(SOME, &[(other, 3)]));
    assert!(matches!(
        outputs(&mut session)[..],
        [SessionOutput::Event(SessionEvent::Ignored { .. })]
    ));
    assert_eq!(
        handed(&mut session, &says(Channel(77), &[(me, 1)])),
        Err(ErrorCode::ChannelNotOpen)
    );
}

/// Scenario 47, presence.
#[test]
fn what_a_session_says_is_as_large_as_the_limit_and_fits_into_a_frame_with_its_user() {
    let mut session = live_with(Limits {
        presence_bytes_max: 100,
        ..Limits::default()
    });
    let me = session.id();
    assert_eq!(handed(&mut session, &says(SOME, &[(me, 100)])), Ok(100));
    assert_eq!(
        handed(&mut session, &says(SOME, &[(me, 101)])),
        Err(ErrorCode::PresenceTooLarge)
    );

    let limits = Limits {
        presence_bytes_max: usize::MAX,
        ..Limits::default()
    };
    let mut session = new_session(limits);
    feed(&mut session, &Message::Hello(hello()));
    let room_for_user = FRAGMENT_BYTES - 128 - PRESENCE_BYTES_MAX;
    let user = "u".repeat(room_for_user + 1);
    session.handle_authenticated(Time::ZERO, Ok(User::new(user)));
    session.handle_joined(Time::ZERO, "notes".try_into().unwrap(), SOME);
    outputs(&mut session);
    for (bytes, expected) in [
        (PRESENCE_BYTES_MAX - 1, Ok(PRESENCE_BYTES_MAX - 1)),
        (PRESENCE_BYTES_MAX, Err(ErrorCode::PresenceTooLarge)),
    ] {
        assert_eq!(
            handed(&mut session, &says(SOME, &[(me, bytes)])),
            expected,
            "{bytes}"
        );
    }
}

#[test]
fn who_says_something_too_often_is_told_when_to_try_again() {
    let mut session = live_with(Limits {
        presence_rate: Rate::new(10, 5),
        ..Limits::default()
    });
    let message = says(SOME, &[(session.id(), 1)]);
    for _ in 0..10 {
        assert_eq!(handed(&mut session, &message), Ok(1));
    }
    assert_eq!(
        handed(&mut session, &message),
        Err(ErrorCode::PresenceTooFast)
    );
}
