//! Changes that somebody has a say in before they line up.

use super::*;
use crate::error::PeerError;

fn asking() -> World {
    World::with(|config| config.asks = true)
}

impl World {
    /// What is asked about, by session.
    fn questions(&self) -> Vec<(SessionId, Vec<&str>)> {
        self.asks
            .iter()
            .map(|(_, request)| {
                let changes = request.changes.iter();
                let texts = changes.map(|change| std::str::from_utf8(&change.bytes).unwrap());
                (request.session, texts.collect())
            })
            .collect()
    }

    /// Answers the oldest question of a session.
    fn answer(&mut self, session: SessionId, accepted: usize, code: Option<ErrorCode>) {
        let at = self
            .asks
            .iter()
            .position(|(_, request)| request.session == session)
            .expect("a question");
        let (number, _) = self.asks.remove(at).unwrap();
        let error = code.map(|code| PeerError::new(code, "because"));
        self.room.handle_asked(self.now, number, accepted, error);
        self.run();
    }
}

#[test]
fn nothing_is_appended_before_it_is_accepted_and_others_do_not_wait() {
    let mut world = asking();
    world.open(ADA);
    world.open(BOB);
    world.push(ADA, 1, &["a1", "a2"]);
    world.push(BOB, 1, &["b1"]);
    world.push(ADA, 3, &["a3"]);
    assert_eq!(
        world.questions(),
        [(ADA, vec!["a1", "a2"]), (BOB, vec!["b1"])]
    );
    assert!(world.logged().is_empty());
    world.answer(BOB, 1, None);
    assert_eq!(world.logged(), ["b1"]);
    world.answer(ADA, 2, None);
    assert_eq!(world.logged(), ["b1", "a1", "a2"]);
    // One question of a session at a time: its changes stay in their order.
    assert_eq!(world.questions(), [(ADA, vec!["a3"])]);
    world.answer(ADA, 1, None);
    assert_eq!(world.logged(), ["b1", "a1", "a2", "a3"]);
    assert!(matches!(world.all(ADA).last(), Some(Message::Ack(_))));
}

#[test]
fn without_a_say_nobody_is_asked() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["a1"]);
    assert_eq!(
        (world.questions(), world.logged()),
        (vec![], vec!["a1".to_owned()])
    );
}

/// Scenario 79, a veto.
#[test]
fn a_veto_refuses_the_change_after_what_came_before_it_and_what_follows_waits_for_a_new_open() {
    let mut world = asking();
    world.open(ADA);
    world.open(BOB);
    world.push(ADA, 1, &["a1", "a2", "a3"]);
    world.push(ADA, 4, &["a4"]);
    world.push(BOB, 1, &["b1"]);
    world.answer(ADA, 1, Some(ErrorCode::Vetoed));
    world.push(ADA, 5, &["a5"]);
    world.answer(BOB, 1, None);
    assert_eq!(world.questions(), []);
    assert_eq!(world.logged(), ["a1", "b1"]);
    let told = world.all(ADA);
    let position = |is: fn(&Message) -> bool| told.iter().position(is);
    let ack = position(|message| matches!(message, Message::Ack(_))).unwrap();
    let refuse = position(|message| {
        matches!(
            message,
            Message::Refuse(Refuse {
                number: 2,
                code: ErrorCode::Vetoed,
                ..
            })
        )
    });
    assert!(refuse.unwrap() > ack, "{told:?}");
    // All that was taken has been answered for.
    let charge = 32;
    assert_eq!(world.settled[&ADA], 5 * charge);
    world.open_at(ADA, world.cursor(2));
    world.push(ADA, 2, &["a2 again"]);
    world.answer(ADA, 1, None);
    assert_eq!(world.logged(), ["a1", "b1", "a2 again"]);
}

#[test]
fn what_cannot_be_told_now_is_not_refused() {
    for (accepted, code) in [
        (0, Some(ErrorCode::HookUnavailable)),
        // An answer that is none.
        (0, None),
    ] {
        let mut world = asking();
        world.open(ADA);
        world.push(ADA, 1, &["a1", "a2"]);
        world.answer(ADA, accepted, code);
        assert_eq!(code_of(world.next(ADA)), ErrorCode::HookUnavailable);
        assert!(world.logged().is_empty());
        world.open_at(ADA, world.cursor(0));
        world.push(ADA, 1, &["a1", "a2"]);
        world.answer(ADA, 2, None);
        assert_eq!(world.logged(), ["a1", "a2"]);
    }
}

#[test]
fn a_bad_change_is_refused_after_the_answer_to_what_came_before_it() {
    let mut world = asking();
    world.open(ADA);
    world.push(ADA, 1, &["good", "!"]);
    assert_eq!(
        world.questions(),
        [(ADA, vec!["good"])],
        "only what is well-formed"
    );
    world.answer(ADA, 1, None);
    assert_eq!(world.logged(), ["good"]);
    let told = world.all(ADA);
    assert!(
        matches!(
            &told[..],
            [Message::Ack(_), Message::Refuse(Refuse { number: 2, .. })]
        ),
        "{told:?}"
    );
}

#[test]
fn what_was_pushed_before_leaving_is_appended_when_it_is_accepted_and_the_room_stays_until_then() {
    let mut world = asking();
    world.open(ADA);
    world.push(ADA, 1, &["a1"]);
    world.push(ADA, 2, &["a2"]);
    world.room.handle_close(world.now, ADA);
    world.run();
    world.pass(Duration::from_secs(3_600));
    assert!(!world.is_unloaded);
    world.answer(ADA, 1, None);
    world.answer(ADA, 1, None);
    assert_eq!(world.logged(), ["a1", "a2"]);
    world.pass_to_timeout();
    assert!(world.is_unloaded);
}

#[test]
fn an_answer_to_a_question_about_another_history_does_nothing() {
    let mut world = asking();
    world.open(ADA);
    world.push(ADA, 1, &["a1"]);
    let late = world.asks.pop_front().unwrap().0;
    world
        .registry
        .append_errors
        .push_back((RegistryError::Fenced { current: Epoch(9) }, false));
    world.open(BOB);
    world.push(BOB, 1, &["b1"]);
    world.answer(BOB, 1, None);
    assert_eq!(code_of(world.next(ADA)), ErrorCode::Fenced);
    world.room.handle_asked(world.now, late, 1, None);
    world.run();
    assert!(world.logged().is_empty());
    assert_eq!(world.settled[&ADA], 32);
}

#[test]
fn what_is_accepted_is_checked_as_well() {
    let mut world = World::with(|config| {
        config.asks = true;
        config.engines.check(EngineId::YRS);
    });
    world.open(ADA);
    world.holds_checks = true;
    world.push(ADA, 1, &["a1"]);
    assert!(world.held_checks.is_empty());
    world.answer(ADA, 1, None);
    assert_eq!(world.held_checks.len(), 1);
    world.release_checks();
    assert_eq!(world.logged(), ["a1"]);
}
