//! Keeping up with other nodes: what the heads of a shared registry, and hints of it, mean for the rooms of this one.

use std::collections::VecDeque;
use std::time::Duration;

use super::registry::RequestNumber;
use crate::history::{Cursor, Seq};
use crate::ids::DocumentId;
use crate::registry::{RegistryError, RegistryEvent};
use crate::rng::Rng;
use crate::time::Time;

/// Settings of a [`HeadsPoll`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HeadsConfig {
    /// Longest time between two polls of a document: each begins a quarter of it earlier at most, so that nodes that
    /// started together do not ask together. Default 1 s. What other nodes appended, and no hint told of, is here within
    /// this time and that of two calls of the registry.
    pub interval: Duration,
    /// Documents in one call at most. Default 10,000. If more are live the calls are spread over the interval.
    pub documents_max: usize,
    /// Time after which a call that has not been answered counts as failed. Default 10 s.
    pub timeout: Duration,
    /// Longest delay after calls that failed, which doubles with each. Default 10 s.
    pub retry_delay_max: Duration,
    /// Randomness for the delays; different for every node.
    pub seed: u64,
}

impl HeadsConfig {
    /// The defaults.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            interval: Duration::from_secs(1),
            documents_max: 10_000,
            timeout: Duration::from_secs(10),
            retry_delay_max: Duration::from_secs(10),
            seed,
        }
    }
}

/// Decides when a node asks a registry that several nodes write to for the heads of the documents that are live here, and
/// what its rooms are told of the answers, and of hints.
///
/// ```text
///               somebody is here                due
///  Asleep ─────────────────────────▶ Waiting ───────▶ Collecting
///     ▲                                 ▲ answered,       │   │
///     │                                 │ failed          ▼   │
///     │                                 └────────────── Asked │
///     └───────────── nobody is here ──────────────────────────┘
/// ```
///
/// Rooms need nothing of it to be right: whatever they tell anybody for good, they read themselves. It makes them look.
#[derive(Debug, Clone)]
pub struct HeadsPoll {
    config: HeadsConfig,
    rng: Rng,
    phase: Phase,
    /// When this round's next call is due, or the next round.
    due: Time,
    /// Time between the calls of this round.
    gap: Duration,
    /// What this round has not asked for yet, call by call.
    left: VecDeque<Vec<(DocumentId, Cursor)>>,
    /// Failures since the last answer.
    attempt: u32,
    /// Hints were lost: the next round is not to wait for its time.
    is_hasty: bool,
    last_request: u64,
    outputs: VecDeque<HeadsOutput>,
}

#[derive(Debug, Clone)]
enum Phase {
    /// Nobody has a document open.
    Asleep,
    Waiting,
    Collecting,
    Asked {
        number: RequestNumber,
        /// Where the rooms stood before.
        asked: Vec<(DocumentId, Cursor)>,
        deadline: Time,
    },
}

/// What a [`HeadsPoll`] wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadsOutput {
    /// Collect the documents that somebody has open here, each with the [position](super::Room::position) of its room, and hand
    /// them to [`handle_collected`](HeadsPoll::handle_collected).
    Collect,
    /// Ask the registry for the heads of these documents, and hand the answer to
    /// [`handle_heads`](HeadsPoll::handle_heads): one call at a time. One that is under way still has been given up.
    Ask(RequestNumber, Vec<DocumentId>),
    /// Tell the room of this document, if there is one: [`handle_head`](super::Room::handle_head).
    Head(DocumentId, Seq),
    /// Tell the room of this document, if there is one: [`handle_replaced`](super::Room::handle_replaced).
    Replaced(DocumentId),
}

impl HeadsPoll {
    /// Asks for nothing until somebody opens a document.
    #[must_use]
    pub fn new(config: HeadsConfig) -> Self {
        Self {
            rng: Rng::new(config.seed.into()),
            config,
            phase: Phase::Asleep,
            due: Time::ZERO,
            gap: Duration::ZERO,
            left: VecDeque::new(),
            attempt: 0,
            is_hasty: false,
            last_request: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Whether nobody has a document open, as far as it was told: nothing is asked, and no hint is needed.
    #[must_use]
    pub const fn is_asleep(&self) -> bool {
        matches!(self.phase, Phase::Asleep)
    }

    /// Says that somebody opens a document. May be said as often as that happens.
    pub fn handle_open(&mut self, now: Time) {
        if self.is_asleep() {
            self.phase = Phase::Waiting;
            self.due = now + self.rng.up_to(self.config.interval);
        }
    }

    /// Takes the answer to a [`HeadsOutput::Collect`]: the documents that somebody has open. `None`: the room has no
    /// position at the moment.
    pub fn handle_collected(&mut self, now: Time, live: Vec<(DocumentId, Option<Cursor>)>) {
        if !matches!(self.phase, Phase::Collecting) {
            return;
        }
        if live.is_empty() {
            self.phase = Phase::Asleep;
            return;
        }
        let known = live.into_iter().filter_map(|(id, at)| Some((id, at?)));
        let known: Vec<_> = known.collect();
        let calls = known.chunks(self.config.documents_max.max(1));
        let n_calls = u32::try_from(calls.len()).unwrap_or(u32::MAX).max(1);
        self.left = calls.map(<[_]>::to_vec).collect();
        let interval = self.shortened(self.config.interval);
        self.gap = interval.checked_div(n_calls).unwrap_or(interval);
        self.due = now;
        self.next(now);
    }

    /// Takes the answer to a [`HeadsOutput::Ask`].
    pub fn handle_heads(
        &mut self,
        now: Time,
        number: RequestNumber,
        answer: Result<Vec<Option<Cursor>>, RegistryError>,
    ) {
        let Phase::Asked {
            number: expected,
            asked,
            ..
        } = &mut self.phase
        else {
            return;
        };
        if *expected != number {
            return;
        }
        let asked = std::mem::take(asked);
        match answer {
            Ok(heads) if heads.len() == asked.len() => {
                self.attempt = 0;
                let told = asked.into_iter().zip(heads);
                let told = told.filter_map(|((id, at), head)| compare(id, at, head));
                self.outputs.extend(told);
                self.rest(now);
            }
            _ => self.fail(now),
        }
    }

    /// Takes a hint.
    pub fn handle_event(&mut self, now: Time, event: RegistryEvent) {
        match event {
            RegistryEvent::Appended { document, head } => {
                self.outputs.push_back(HeadsOutput::Head(document, head));
            }
            RegistryEvent::Replaced { document, .. } | RegistryEvent::Deleted { document } => {
                self.outputs.push_back(HeadsOutput::Replaced(document));
            }
            RegistryEvent::Lagged => self.hasten(now),
        }
    }

    /// To be called when [`poll_timeout`](Self::poll_timeout) has passed. Early or repeated calls do nothing.
    pub fn handle_timeout(&mut self, now: Time) {
        match self.phase {
            Phase::Waiting if self.due <= now => self.next(now),
            Phase::Asked { deadline, .. } if deadline <= now => self.fail(now),
            _ => {}
        }
    }

    /// The next thing to do.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<HeadsOutput> {
        self.outputs.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Time> {
        match self.phase {
            Phase::Asleep | Phase::Collecting => None,
            Phase::Waiting => Some(self.due),
            Phase::Asked { deadline, .. } => Some(deadline),
        }
    }

    /// Makes the next call of the round, or begins the next round.
    fn next(&mut self, now: Time) {
        if let Some(asked) = self.left.pop_front() {
            self.due = self.due + self.gap;
            self.last_request += 1;
            let number = RequestNumber(self.last_request);
            let documents = asked.iter().map(|(id, _)| id.clone()).collect();
            self.outputs.push_back(HeadsOutput::Ask(number, documents));
            let deadline = now + self.config.timeout;
            self.phase = Phase::Asked {
                number,
                asked,
                deadline,
            };
        } else if matches!(self.phase, Phase::Collecting) {
            // Whoever is here is still opening.
            self.due = self.due + self.gap;
            self.phase = Phase::Waiting;
        } else {
            self.phase = Phase::Collecting;
            self.outputs.push_back(HeadsOutput::Collect);
        }
    }

    /// Waits for the next call.
    fn rest(&mut self, now: Time) {
        // A registry that is slow to answer is not asked all the time.
        self.due = self.due.max(now + self.gap / 4);
        self.phase = Phase::Waiting;
        if std::mem::take(&mut self.is_hasty) {
            self.hasten(now);
        }
    }

    fn fail(&mut self, now: Time) {
        self.left.clear();
        self.is_hasty = false;
        let factor = 1_u32.checked_shl(self.attempt).unwrap_or(u32::MAX);
        self.attempt = self.attempt.saturating_add(1);
        let delay = self.config.interval.saturating_mul(factor);
        let max = self.config.retry_delay_max.max(self.config.interval);
        self.due = now + self.shortened(delay.min(max));
        self.phase = Phase::Waiting;
    }

    /// Begins the next round soon, with all documents: anything may have happened to any of them.
    fn hasten(&mut self, now: Time) {
        match self.phase {
            // Whatever made calls fail is waited for.
            Phase::Waiting if self.attempt == 0 => {
                self.left.clear();
                // Not at once, because every node may have lost its hints now.
                let soon = now + self.rng.up_to(self.config.interval / 4);
                self.due = self.due.min(soon);
            }
            Phase::Asked { .. } => self.is_hasty = true,
            Phase::Asleep | Phase::Waiting | Phase::Collecting => {}
        }
    }

    /// Less by a quarter at most.
    fn shortened(&mut self, delay: Duration) -> Duration {
        delay.saturating_sub(self.rng.up_to(delay / 4))
    }
}

/// What the room of a document is to be told that stood at `at` when the registry was asked, or before.
fn compare(document: DocumentId, at: Cursor, head: Option<Cursor>) -> Option<HeadsOutput> {
    match head {
        Some(head) if head == at => None,
        // Whether it continues what the room has shows when it is read.
        Some(head) if head.epoch == at.epoch && head.seq > at.seq => {
            Some(HeadsOutput::Head(document, head.seq))
        }
        // Less than there was before, something else in its place, another history, or nothing.
        Some(_) | None => Some(HeadsOutput::Replaced(document)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Digest, Epoch};

    const SECOND: Duration = Duration::from_secs(1);

    fn id(name: &str) -> DocumentId {
        DocumentId::new(name).unwrap()
    }

    fn at(seq: u64) -> Cursor {
        Cursor {
            epoch: Epoch(7),
            seq: Seq(seq),
            digest: Digest(seq),
        }
    }

    /// A node whose rooms stand where it is told, and the registry.
    struct World {
        now: Time,
        poll: HeadsPoll,
        live: Vec<(DocumentId, Option<Cursor>)>,
        heads: Vec<(DocumentId, Cursor)>,
        fails: bool,
        answers: bool,
        /// When the registry was asked, and for how many documents.
        calls: Vec<(Time, usize)>,
        told: Vec<HeadsOutput>,
    }

    impl World {
        fn new(seed: u64, documents: usize) -> Self {
            let mut config = HeadsConfig::new(seed);
            config.documents_max = 100;
            let named = |n: usize| id(&format!("{n:04}"));
            Self {
                now: Time::ZERO,
                poll: HeadsPoll::new(config),
                live: (0..documents).map(|n| (named(n), Some(at(3)))).collect(),
                heads: (0..documents).map(|n| (named(n), at(3))).collect(),
                fails: false,
                answers: true,
                calls: Vec::new(),
                told: Vec::new(),
            }
        }

        fn run(&mut self) {
            while let Some(output) = self.poll.poll_output() {
                match output {
                    HeadsOutput::Collect => {
                        self.poll.handle_collected(self.now, self.live.clone());
                    }
                    HeadsOutput::Ask(number, documents) => {
                        self.calls.push((self.now, documents.len()));
                        let head = |document| {
                            let found = self.heads.iter().find(|(id, _)| id == document);
                            found.map(|(_, head)| *head)
                        };
                        let answer = if self.fails {
                            Err(RegistryError::unavailable("down"))
                        } else {
                            Ok(documents.iter().map(head).collect())
                        };
                        if self.answers {
                            self.poll.handle_heads(self.now, number, answer);
                        }
                    }
                    told => self.told.push(told),
                }
            }
        }

        /// Lets time pass, from timeout to timeout.
        fn pass(&mut self, time: Duration) {
            let end = self.now + time;
            self.run();
            while let Some(next) = self.poll.poll_timeout().filter(|next| *next <= end) {
                self.now = self.now.max(next);
                self.poll.handle_timeout(self.now);
                self.run();
            }
            self.now = end;
        }
    }

    #[test]
    fn nothing_is_asked_while_nobody_has_a_document_open() {
        let mut world = World::new(1, 0);
        world.pass(60 * SECOND);
        world.poll.handle_open(world.now);
        world.pass(60 * SECOND);
        assert_eq!(world.calls, []);
        assert!(world.poll.is_asleep());
        assert_eq!(world.poll.poll_timeout(), None);
    }

    #[test]
    fn a_document_that_is_still_being_opened_is_asked_for_later() {
        let mut world = World::new(1, 1);
        let known = std::mem::replace(&mut world.live, vec![(id("0000"), None)]);
        world.poll.handle_open(world.now);
        world.pass(10 * SECOND);
        assert_eq!(world.calls, []);
        world.live = known;
        world.pass(SECOND);
        assert!(!world.calls.is_empty());
    }

    #[test]
    fn all_live_documents_are_asked_for_with_one_call_within_each_interval() {
        for seed in 0..100 {
            let mut world = World::new(seed, 100);
            world.poll.handle_open(world.now);
            world.pass(60 * SECOND);
            assert!(world.calls.iter().all(|(_, n)| *n == 100));
            let mut last = Time::ZERO;
            for (when, _) in &world.calls {
                assert!(*when - last <= SECOND, "{:?}", world.calls);
                last = *when;
            }
            assert!(
                (60..=81).contains(&world.calls.len()),
                "{}",
                world.calls.len()
            );
            assert_eq!(world.told, []);
        }
    }

    #[test]
    fn nodes_that_start_together_do_not_ask_together() {
        let first = |seed| {
            let mut world = World::new(seed, 1);
            world.poll.handle_open(world.now);
            world.pass(SECOND);
            world.calls[0].0
        };
        let mut times: Vec<_> = (0..20).map(first).collect();
        times.sort_unstable();
        times.dedup();
        assert_eq!(times.len(), 20);
        assert!(times[19] - times[0] > SECOND / 2);
    }

    #[test]
    fn many_documents_are_asked_for_in_several_calls_spread_over_the_interval() {
        let mut world = World::new(5, 250);
        world.poll.handle_open(world.now);
        world.pass(2 * SECOND);
        let (begin, sizes): (Vec<_>, Vec<_>) = world.calls.iter().copied().unzip();
        assert_eq!(sizes[..4], [100, 100, 50, 100]);
        for gap in begin.windows(2).map(|pair| pair[1] - pair[0]) {
            assert!((SECOND / 4..=SECOND / 3).contains(&gap), "{begin:?}");
        }
    }

    #[test]
    fn rooms_are_told_what_is_new_and_what_is_not_their_history() {
        let cases = [
            (Some(at(3)), None),
            (Some(at(5)), Some(HeadsOutput::Head(id("0000"), Seq(5)))),
            (Some(at(2)), Some(HeadsOutput::Replaced(id("0000")))),
            (
                Some(Cursor {
                    digest: Digest(99),
                    ..at(3)
                }),
                Some(HeadsOutput::Replaced(id("0000"))),
            ),
            (
                Some(Cursor {
                    epoch: Epoch(8),
                    ..at(3)
                }),
                Some(HeadsOutput::Replaced(id("0000"))),
            ),
            (
                Some(Cursor {
                    epoch: Epoch(8),
                    ..at(5)
                }),
                Some(HeadsOutput::Replaced(id("0000"))),
            ),
            (None, Some(HeadsOutput::Replaced(id("0000")))),
        ];
        for (head, expected) in cases {
            let mut world = World::new(1, 2);
            match head {
                Some(head) => world.heads[0].1 = head,
                None => drop(world.heads.remove(0)),
            }
            world.poll.handle_open(world.now);
            world.pass(SECOND);
            assert_eq!(world.told.first(), expected.as_ref(), "{head:?}");
        }
    }

    #[test]
    fn failures_are_waited_for_longer_and_longer_and_the_first_answer_ends_that() {
        let mut world = World::new(1, 1);
        world.fails = true;
        world.poll.handle_open(world.now);
        world.pass(100 * SECOND);
        assert!(world.calls.len() < 20, "{:?}", world.calls);
        for pair in world.calls.windows(2) {
            assert!(pair[1].0 - pair[0].0 <= 10 * SECOND);
        }
        world.fails = false;
        world.pass(10 * SECOND);
        world.calls.clear();
        world.pass(10 * SECOND);
        assert!(world.calls.len() >= 10, "{:?}", world.calls);
    }

    #[test]
    fn an_answer_that_does_not_come_is_given_up_and_ignored_if_it_comes_later() {
        let mut world = World::new(1, 1);
        world.answers = false;
        world.poll.handle_open(world.now);
        world.pass(15 * SECOND);
        assert_eq!(world.calls.len(), 2);
        world
            .poll
            .handle_heads(world.now, RequestNumber(1), Ok(vec![None]));
        world
            .poll
            .handle_heads(world.now, RequestNumber(2), Ok(vec![Some(at(4))]));
        world.run();
        assert_eq!(world.told, [HeadsOutput::Head(id("0000"), Seq(4))]);
    }

    #[test]
    fn hints_are_passed_on_at_once_and_lost_ones_shorten_the_wait() {
        let mut world = World::new(1, 1);
        world.poll.handle_open(world.now);
        world.pass(10 * SECOND);
        let document = id("0000");
        let appended = RegistryEvent::Appended {
            document: document.clone(),
            head: Seq(9),
        };
        world.poll.handle_event(world.now, appended);
        let deleted = RegistryEvent::Deleted {
            document: document.clone(),
        };
        world.poll.handle_event(world.now, deleted);
        world.run();
        let told = [
            HeadsOutput::Head(document.clone(), Seq(9)),
            HeadsOutput::Replaced(document),
        ];
        assert_eq!(world.told, told);
        for _ in 0..20 {
            world.calls.clear();
            world.poll.handle_event(world.now, RegistryEvent::Lagged);
            world.pass(SECOND / 4);
            assert_eq!(world.calls.len(), 1);
        }
    }

    #[test]
    fn lost_hints_do_not_hasten_calls_that_fail() {
        let mut world = World::new(1, 1);
        world.fails = true;
        world.poll.handle_open(world.now);
        for _ in 0..1_000 {
            world.pass(SECOND / 10);
            world.poll.handle_event(world.now, RegistryEvent::Lagged);
        }
        assert!(world.calls.len() < 20, "{:?}", world.calls);
    }
}
