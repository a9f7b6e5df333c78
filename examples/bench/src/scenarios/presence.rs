//! S8: many sessions in one document that say something of themselves again and again. What each says goes to all the others,
//! but the server may let what comes within a tick travel together.
//!
//! There is no relay to compare it to: it would have to pass on as many messages as there are sessions, squared.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sync_core::ids::SessionId;
use sync_core::wire::{Message, decode_frame};

use super::Lab;
use super::lab::Running;
use super::metronome::Metronome;
use crate::Failure;
use crate::cli::Scenario;
use crate::clients::{Member, sign_of_life};
use crate::generator::{Format, Frame, Generator, header_bytes};
use crate::report::{Metric, Results, Row, number};

const DOCUMENT: &str = "document";
/// How long it may take until everybody has seen the last that everybody says.
const PATIENCE: Duration = Duration::from_secs(20);
const MESSAGE_BYTES_MAX: usize = 1 << 20;

pub(super) fn measure(lab: &Lab, results: &mut Results) -> Result<(), Failure> {
    let rate = lab.options.updates;
    // Presence is kept nowhere: one registry is as good as another.
    for subject in lab.servers().take(1) {
        for n in &lab.options.sessions {
            let server = lab.start(subject)?;
            let mut crowd = Crowd::gather(&server, *n)?;
            results.add(Row {
                scenario: Scenario::Presence,
                case: format!("{n} sessions, {rate} updates/s each"),
                subject: subject.name(),
                is_baseline: false,
                metrics: crowd.measure(&server, rate, lab.time())?,
            });
        }
    }
    Ok(())
}

/// Sessions that say where they are, and one more that only looks.
struct Crowd {
    generator: Generator,
    members: Vec<Member>,
    /// The one whose turn it is to say something.
    turn_of: usize,
    /// Counts what they say; it is in what they say.
    place: u32,
    seen: Seen,
}

#[derive(Debug, Default)]
struct Seen {
    counts: Counts,
    /// Connection of the one who looks.
    observer: usize,
    /// What the one who looks knows.
    table: BTreeMap<SessionId, Bytes>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    frames: u64,
    updates: u64,
    bytes: u64,
}

impl Crowd {
    fn gather(server: &Running, n: usize) -> Result<Self, Failure> {
        let format = server.subject.format();
        let mut crowd = Self {
            generator: Generator::new(sign_of_life(format).as_deref())?,
            members: Vec::new(),
            turn_of: 0,
            place: 0,
            seen: Seen {
                observer: n,
                ..Seen::default()
            },
        };
        for member in 0..=n {
            let client = server.client(member, DOCUMENT)?;
            let member = client.join(&mut crowd.generator)?;
            crowd.members.push(member);
            crowd.turn(Duration::ZERO)?;
        }
        // The last one says nothing.
        crowd.members.truncate(n);
        Ok(crowd)
    }

    fn measure(
        &mut self,
        server: &Running,
        rate: u32,
        time: Duration,
    ) -> Result<Vec<(Metric, f64)>, Failure> {
        self.talk(rate, time / 5)?;
        let (before, counts, begun) = (server.process.usage()?, self.seen.counts, Instant::now());
        self.talk(rate, time)?;
        let (after, seconds) = (server.process.usage()?, begun.elapsed().as_secs_f64());
        let frames = number(self.seen.counts.frames - counts.frames);
        let updates = number(self.seen.counts.updates - counts.updates);
        let bytes = number(self.seen.counts.bytes - counts.bytes);
        let spent = after.since(&before);
        let n = number(u64::try_from(self.members.len())?);
        Ok(vec![
            (Metric::CpuMicros, spent.total() * 1e6 / updates),
            (Metric::UserMicros, spent.user * 1e6 / updates),
            (Metric::SystemMicros, spent.system * 1e6 / updates),
            (Metric::ChangesPerFrame, updates / frames),
            (Metric::DeliveredPerSecond, updates / seconds),
            (Metric::CompletePercent, self.last_words()? * 100.0 / n),
            (
                Metric::MillisPerClientSecond,
                spent.total() * 1e3 / n / seconds,
            ),
            (Metric::BytesPerDelivered, bytes / updates),
            (Metric::RssMegabytes, number(after.rss) / 1e6),
            (Metric::ServerPercent, spent.total() * 100.0 / seconds),
        ])
    }

    /// Everybody says so much in a second, one after the other.
    fn talk(&mut self, rate: u32, time: Duration) -> Result<(), Failure> {
        let n = u32::try_from(self.members.len())?;
        let mut metronome = Metronome::start(rate.saturating_mul(n));
        let begun = Instant::now();
        while begun.elapsed() < time {
            for _ in 0..metronome.beats() {
                self.say_next()?;
            }
            self.turn(metronome.wait())?;
        }
        Ok(())
    }

    fn say_next(&mut self) -> Result<(), Failure> {
        let n = self.members.len();
        let member = self.members.get_mut(self.turn_of).ok_or("nobody there")?;
        self.turn_of = (self.turn_of + 1) % n;
        self.place = self.place.wrapping_add(1);
        member.say(&mut self.generator, state(member.connection, self.place)?);
        Ok(())
    }

    /// Everybody says something for the last time. Of how many the one who looks has seen that.
    fn last_words(&mut self) -> Result<f64, Failure> {
        // What was said right before travels with the last words, within the rate that sessions are held to.
        let mut wanted = BTreeMap::new();
        for member in &mut self.members {
            let state = state(member.connection, u32::MAX)?;
            member.say(&mut self.generator, state.clone());
            wanted.insert(member.session, state);
        }
        let begun = Instant::now();
        while self.seen.table != wanted && begun.elapsed() < PATIENCE {
            self.turn(Duration::from_millis(10))?;
        }
        let seen = wanted
            .iter()
            .filter(|(session, state)| self.seen.table.get(session) == Some(state));
        Ok(number(u64::try_from(seen.count())?))
    }

    fn turn(&mut self, wait: Duration) -> Result<(), Failure> {
        let seen = &mut self.seen;
        self.generator.turn(wait, |connection, message| {
            seen.receive(connection, message)
        })
    }
}

impl Seen {
    fn receive(&mut self, connection: usize, message: &[u8]) -> Result<(), Failure> {
        let Frame::Presence(updates) = Format::Sync.read(message)? else {
            return Ok(());
        };
        if connection != self.observer {
            self.counts.frames += 1;
            self.counts.updates += u64::try_from(updates)?;
            self.counts.bytes += u64::try_from(header_bytes(message.len()) + message.len())?;
            return Ok(());
        }
        let frame = Bytes::copy_from_slice(message);
        if let Message::Presence(presence) = decode_frame(frame, MESSAGE_BYTES_MAX)? {
            for delta in presence.deltas {
                match delta.state {
                    Some(state) => self.table.insert(delta.session, state),
                    None => self.table.remove(&delta.session),
                };
            }
        }
        Ok(())
    }
}

/// What a session says of itself, as an application would write it: an array of two numbers, of four bytes each.
fn state(member: usize, place: u32) -> Result<Bytes, Failure> {
    let mut state = vec![0x92, 0xce];
    state.extend(u32::try_from(member)?.to_be_bytes());
    state.push(0xce);
    state.extend(place.to_be_bytes());
    Ok(state.into())
}
