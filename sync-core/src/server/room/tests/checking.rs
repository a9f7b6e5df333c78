//! Changes that are checked against what the document holds.

use super::*;
use crate::error::PeerError;

/// What has been checked: the log, and what was accepted on top of it.
///
/// A change `b<a` rests on `a`; what rests on something that is not there is refused. `~` cannot be told now.
#[derive(Debug, Default)]
pub(super) struct Replica {
    name: Option<u64>,
    held: BTreeSet<String>,
    pub(super) n_loads: usize,
    /// What was looked at, batch by batch.
    pub(super) batches: Vec<Vec<String>>,
}

impl Replica {
    pub(super) fn check(
        &mut self,
        request: &CheckRequest,
        registry: &TestRegistry,
    ) -> Vec<Verdict> {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        if self.name.replace(request.replica) != Some(request.replica) {
            self.n_loads += 1;
            let log = registry.log.iter().take(request.at.0.try_into().unwrap());
            self.held = log.map(|(change, _)| text(&change.bytes)).collect();
        }
        let logged: BTreeSet<_> = registry.log.iter().map(|(c, _)| text(&c.bytes)).collect();
        assert_eq!(self.held, logged, "the replica is not what is committed");
        let mut closed = BTreeSet::new();
        let mut batch = Vec::new();
        let verdicts = request.changes.iter().map(|change| {
            if closed.contains(&change.writer) {
                return Verdict::Skipped;
            }
            let text = text(&change.bytes);
            batch.push(text.clone());
            let error = match text.split_once('<') {
                Some((_, before)) if !self.held.contains(before) => {
                    PeerError::new(ErrorCode::MissingDependency, "what is it about?")
                }
                _ if text == "~" => PeerError::new(ErrorCode::CheckUnavailable, "not now"),
                _ => {
                    let is_new = self.held.insert(text);
                    return Verdict::Accepted { is_new };
                }
            };
            closed.insert(change.writer);
            if error.code.is_final() {
                Verdict::Refused(error)
            } else {
                Verdict::Unknown(error)
            }
        });
        let verdicts = verdicts.collect();
        self.batches.push(batch);
        verdicts
    }
}

fn checked() -> World {
    World::with(|config| config.engines.check(EngineId::YRS))
}

fn opened(sessions: &[SessionId]) -> World {
    let mut world = checked();
    for session in sessions {
        world.open(*session);
    }
    world
}

fn refusal(message: Option<Message>) -> (u64, ErrorCode) {
    match message {
        Some(Message::Refuse(refuse)) => (refuse.number, refuse.code),
        other => panic!("expected Refuse, got {other:?}"),
    }
}

#[test]
fn what_has_not_been_checked_is_not_appended() {
    let mut world = opened(&[ADA, BOB]);
    world.holds_checks = true;
    world.push(ADA, 1, &["a", "b<a"]);
    assert_eq!(world.logged(), [""; 0]);
    world.release_checks();
    assert_eq!(world.logged(), ["a", "b<a"]);
    assert_eq!(world.follow(BOB, 0), ["a", "b<a"]);
}

/// Scenario 46.
#[test]
fn a_refused_change_is_named_after_what_came_before_it_and_stops_only_its_own_channel() {
    let mut world = opened(&[ADA, BOB, CYD]);
    world.holds_checks = true;
    world.push(ADA, 1, &["a", "x<nothing", "b"]);
    world.push(BOB, 1, &["c"]);
    world.push(ADA, 4, &["d"]);
    world.release_checks();
    assert_eq!(world.logged(), ["a", "c"]);
    assert_eq!(world.replica.batches, [vec!["a", "x<nothing"], vec!["c"]]);
    let told = world.all(ADA);
    assert!(
        matches!(told[0], Message::Ack(Ack { number: 1, .. })),
        "{told:?}"
    );
    assert_eq!(
        refusal(told.get(1).cloned()),
        (2, ErrorCode::MissingDependency)
    );
    assert_eq!(world.follow(CYD, 0), ["a", "c"]);
    // Everything that was pushed has been answered, and nothing more is taken before another open.
    world.push(ADA, 5, &["e"]);
    assert_eq!(world.logged(), ["a", "c"]);
    let charge: usize = ["a", "x<nothing", "b", "d", "e"]
        .map(|text| crate::limits::change_charge(text.as_bytes()))
        .iter()
        .sum();
    world.all(ADA);
    assert_eq!(world.settled.get(&ADA), Some(&charge));
    assert_eq!(world.replica.n_loads, 1);
}

/// Scenario 83.
#[test]
fn what_cannot_be_checked_now_is_not_refused() {
    let mut world = opened(&[ADA]);
    world.push(ADA, 1, &["a", "~", "b"]);
    assert_eq!(world.logged(), ["a"]);
    let told = world.all(ADA);
    assert!(
        matches!(told[0], Message::Ack(Ack { number: 1, .. })),
        "{told:?}"
    );
    assert_eq!(code_of(told.get(1).cloned()), ErrorCode::CheckUnavailable);
    world.open(ADA);
    world.push(ADA, 2, &["b"]);
    assert_eq!(world.logged(), ["a", "b"]);
}

#[test]
fn what_comes_during_an_append_is_checked_when_it_is_committed() {
    let mut world = opened(&[ADA, BOB]);
    world.holds_appends = true;
    world.push(ADA, 1, &["a"]);
    world.push(BOB, 1, &["b"]);
    world.push(ADA, 2, &["c<b"]);
    assert_eq!(world.replica.batches.len(), 1);
    world.release_appends();
    assert_eq!(world.logged(), ["a", "b", "c<b"]);
    assert_eq!(world.replica.batches, [vec!["a"], vec!["b", "c<b"]]);
    assert_eq!(world.replica.n_loads, 1);
}

#[test]
fn a_replica_that_is_ahead_of_a_failed_append_is_dropped_and_what_rests_on_it_refused() {
    let mut world = opened(&[ADA, BOB]);
    world.holds_checks = true;
    world.push(ADA, 1, &["a"]);
    world.push(BOB, 1, &["b<a"]);
    world
        .registry
        .append_errors
        .push_back((unavailable(), false));
    world.release_checks();
    assert_eq!(code_of(world.next(ADA)), ErrorCode::StorageUnavailable);
    assert_eq!(refusal(world.next(BOB)), (1, ErrorCode::MissingDependency));
    assert_eq!(world.logged(), [""; 0]);
    assert_eq!(world.replica.n_loads, 2);
}

fn unavailable() -> RegistryError {
    RegistryError::Unavailable {
        retry_after: None,
        source: None,
    }
}

#[test]
fn an_append_of_unknown_outcome_is_settled_once_by_checking_again() {
    for is_done in [true, false] {
        let mut world = opened(&[ADA, BOB]);
        let unknown = RegistryError::Unknown { source: None };
        world.registry.append_errors.push_back((unknown, is_done));
        world.push(ADA, 1, &["a", "b<a"]);
        world.pass_to_timeout();
        assert_eq!(world.logged(), ["a", "b<a"]);
        assert_eq!(world.follow(BOB, 0), ["a", "b<a"]);
        // Acknowledged either way, and nothing is refused.
        let told = world.all(ADA);
        assert!(
            told.iter()
                .all(|told| matches!(told, Message::Ack(_) | Message::Changes(_))),
            "{told:?}"
        );
        world.push(ADA, 3, &["c<b<a"]);
        assert_eq!(world.logged().len(), 3);
    }
}

#[test]
fn an_append_whose_outcome_stays_unknown_ends() {
    let mut world = opened(&[ADA]);
    for _ in 0..20 {
        let unknown = RegistryError::Unknown { source: None };
        world.registry.append_errors.push_back((unknown, false));
    }
    world.push(ADA, 1, &["a"]);
    while world.room.poll_timeout().is_some() {
        world.pass_to_timeout();
    }
    assert_eq!(code_of(world.next(ADA)), ErrorCode::StorageUnavailable);
    assert_eq!(world.registry.append_errors.len(), 13);
}

#[test]
fn what_was_checked_before_another_node_appended_is_checked_again() {
    let mut world = opened(&[ADA, BOB]);
    world.holds_checks = true;
    world.push(ADA, 1, &["a<theirs"]);
    world.foreign_append("theirs");
    // Checked against a log without it; what the registry says of the head is not known yet.
    world.holds_checks = false;
    let (number, request) = world.held_checks.pop_front().unwrap();
    assert_eq!(request.at, Seq(0));
    let verdict = Verdict::Accepted { is_new: true };
    world.room.handle_checked(world.now, number, vec![verdict]);
    world.run();
    assert_eq!(world.logged(), ["theirs", "a<theirs"]);
    assert_eq!(world.follow(BOB, 0), ["theirs", "a<theirs"]);
    assert_eq!(world.replica.n_loads, 1);
}

#[test]
fn a_repeat_of_a_logged_change_is_acknowledged_and_the_replica_stays() {
    let mut world = opened(&[ADA]);
    world.push(ADA, 1, &["a", "b"]);
    world.open(ADA);
    world.all(ADA);
    world.push(ADA, 1, &["a", "b", "c<b"]);
    let told = world.all(ADA);
    assert!(
        told.iter().all(|told| matches!(told, Message::Ack(_))),
        "{told:?}"
    );
    assert_eq!(world.logged(), ["a", "b", "c<b"]);
    assert_eq!(world.replica.n_loads, 1);
}

#[test]
fn a_document_that_is_replaced_during_a_check_forgets_it() {
    let mut world = opened(&[ADA]);
    world.holds_checks = true;
    world.push(ADA, 1, &["a"]);
    world.registry = TestRegistry::default();
    let new = NewDocument::new(document(), EngineId::YRS, Epoch(8));
    world.registry.answer(RegistryRequest::Create(new));
    world.open(BOB);
    world.release_checks();
    assert_eq!(world.logged(), [""; 0]);
    let charge = crate::limits::change_charge(b"a");
    assert_eq!(world.settled.get(&ADA), Some(&charge));
    world.push(BOB, 1, &["b"]);
    assert_eq!(world.logged(), ["b"]);
}

#[test]
fn a_room_does_not_unload_during_a_check() {
    let mut world = opened(&[ADA]);
    world.holds_checks = true;
    world.push(ADA, 1, &["a"]);
    world.room.handle_close(world.now, ADA);
    world.run();
    world.pass(Duration::from_secs(3_600));
    assert!(!world.is_unloaded);
    world.release_checks();
    assert_eq!(world.logged(), ["a"]);
    world.pass_to_timeout();
    assert!(world.is_unloaded);
}

#[test]
fn a_busy_room_of_many_checks_what_comes_within_a_millisecond_at_once() {
    let sessions: Vec<_> = (1..=16).map(SessionId).collect();
    let mut world = opened(&sessions);
    world.push(ADA, 1, &["a"]);
    for (number, session) in [(1, BOB), (1, CYD), (2, BOB)] {
        world.push(session, number, &["b<a"]);
    }
    assert_eq!(world.logged(), ["a"]);
    world.pass_to_timeout();
    assert_eq!(world.now, Time::from_micros(1_000));
    assert_eq!(world.logged().len(), 4);
    assert_eq!(world.replica.batches.len(), 2);
    assert_eq!(world.room.poll_timeout(), None);
}

/// Takes the check that is held, and answers it.
fn answer_check(world: &mut World, verdicts: Vec<Verdict>) {
    let (number, _) = world.held_checks.pop_front().expect("a check is under way");
    world.room.handle_checked(world.now, number, verdicts);
    world.run();
}

const ACCEPTED: Verdict = Verdict::Accepted { is_new: true };

#[test]
fn what_follows_a_refused_change_is_not_appended_whatever_the_check_says_of_it() {
    let mut world = opened(&[ADA]);
    world.holds_checks = true;
    world.push(ADA, 1, &["a", "b", "c"]);
    let refused = Verdict::Refused(PeerError::new(ErrorCode::InvalidChange, "no"));
    answer_check(&mut world, vec![ACCEPTED, refused, ACCEPTED]);
    assert_eq!(world.logged(), ["a"]);
    let told = world.all(ADA);
    assert_eq!(refusal(told.get(1).cloned()), (2, ErrorCode::InvalidChange));
    assert_eq!(told.len(), 2);
}

#[test]
fn a_check_that_refuses_for_now_refuses_nothing() {
    let mut world = opened(&[ADA]);
    world.holds_checks = true;
    world.push(ADA, 1, &["a"]);
    let error = PeerError::new(ErrorCode::StorageUnavailable, "later");
    answer_check(&mut world, vec![Verdict::Refused(error)]);
    assert_eq!(code_of(world.next(ADA)), ErrorCode::StorageUnavailable);
    assert_eq!(world.logged(), [""; 0]);
}

/// Scenario 79: also when another node appends in between.
#[test]
fn nothing_overtakes_a_change_refused_by_a_check_that_has_to_be_made_again() {
    let mut world = opened(&[ADA, BOB]);
    world.holds_checks = true;
    world.push(BOB, 1, &["b1"]);
    world.push(ADA, 1, &["x<nothing"]);
    world.push(BOB, 2, &["b2"]);
    answer_check(&mut world, vec![ACCEPTED]);
    assert_eq!(world.logged(), ["b1"]);
    // Hers and his are being checked together, and she goes on, under another origin.
    let push = Push {
        channel: CHANNEL,
        origin: OriginId(77),
        first_number: 1,
        changes: vec!["on top of it".into()],
        reconciling: false,
    };
    world.room.handle_push(world.now, ADA, push);
    world.run();
    world.foreign_append("theirs");
    world.holds_checks = false;
    let refused = Verdict::Refused(PeerError::new(ErrorCode::MissingDependency, "no"));
    answer_check(&mut world, vec![refused, ACCEPTED]);
    assert_eq!(world.logged(), ["b1", "theirs", "b2"]);
}

#[test]
fn what_was_checked_before_others_changes_were_read_is_checked_again() {
    let mut world = opened(&[ADA]);
    world.holds_checks = true;
    world.push(ADA, 1, &["a<theirs"]);
    world.foreign_append("theirs");
    world.room.handle_head(world.now, Seq(1));
    world.run();
    assert_eq!(world.replica.batches.len(), 0);
    world.holds_checks = false;
    answer_check(&mut world, vec![ACCEPTED]);
    assert_eq!(world.replica.batches, [vec!["a<theirs"]]);
    assert_eq!(world.logged(), ["theirs", "a<theirs"]);
}

/// The registry's answer to one may keep the other from being appended.
#[test]
fn changes_checked_together_and_appended_one_after_the_other_are_checked_once() {
    let mut world = opened(&[ADA]);
    let push = |first_number, changes: &[&'static str]| Push {
        channel: CHANNEL,
        origin: OriginId(77),
        first_number,
        changes: changes.iter().map(|text| Bytes::from(*text)).collect(),
        reconciling: false,
    };
    world.holds_checks = true;
    world
        .room
        .handle_push(world.now, ADA, push(1, &["a", "b<a", "c<b<a"]));
    world.run();
    world.release_checks();
    assert_eq!(world.logged(), ["a", "b<a", "c<b<a"]);
    assert_eq!(world.replica.batches.len(), 1);
    assert_eq!(world.replica.n_loads, 1);
}

#[test]
fn every_request_has_a_number_of_its_own() {
    let mut world = checked();
    let request = world.request(ADA);
    world.room.handle_open(world.now, ADA, request).unwrap();
    let mut numbers = Vec::new();
    for first_number in 1..=3 {
        while let Some(output) = world.room.poll_output() {
            match output {
                RoomOutput::Registry(number, request) => {
                    numbers.push(number);
                    let answer = world.registry.answer(request);
                    world.room.handle_registry(world.now, number, answer);
                }
                RoomOutput::Check(number, _) => {
                    numbers.push(number);
                    world.room.handle_checked(world.now, number, vec![ACCEPTED]);
                }
                _ => {}
            }
        }
        let push = Push {
            channel: CHANNEL,
            origin: origin_of(ADA),
            first_number,
            changes: vec!["a".into()],
            reconciling: false,
        };
        world.room.handle_push(world.now, ADA, push);
    }
    let n = numbers.len();
    let distinct: BTreeSet<_> = numbers.into_iter().collect();
    assert_eq!(distinct.len(), n);
    assert!(n >= 6);
}
