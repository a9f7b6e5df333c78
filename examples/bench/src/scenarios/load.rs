//! A load of changes: clients in rooms, some of whom write, while what the others receive is counted.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sync_core::limits::FRAGMENT_BYTES;
use sync_core::wire::{Message, decode_frame};

use super::metronome::Metronome;
use crate::Failure;
use crate::changes::{Author, Identity};
use crate::clients::{Client, Member, is_last, sign_of_life};
use crate::generator::{Format, Frame, Generator};
use crate::latency::Latencies;
use crate::process::{ServerProcess, Usage};
use crate::report::{Metric, number};

/// Characters of a change: a few words, as an editor sends them when it does not send each keystroke.
pub(crate) const CHARACTERS: usize = 16;
/// Types of messages.
const SNAPSHOT: u8 = 9;
const FRAGMENT: u8 = 22;
/// How long nothing may arrive before what has not arrived counts as lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// When writers write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// So many changes in a second, evenly.
    PerSecond(u32),
    /// As fast as they arrive: so many at most that have not reached everybody.
    InFlight(u64),
}

/// The clients, and what they have seen.
pub(crate) struct Load {
    generator: Generator,
    format: Format,
    /// By connection.
    seats: Vec<Seat>,
    writers: Vec<Writer>,
    /// The one who is next.
    turn_of: usize,
    /// Those to whom each change goes.
    n_others: u64,
    characters: usize,
    change: Vec<u8>,
    seen: Seen,
}

/// What a connection is looked at for.
#[derive(Debug, Clone, Copy, Default)]
struct Seat {
    /// Of the author who has it: their own changes come back among others'.
    tag: Option<u16>,
    /// Whether latencies are measured here.
    is_probe: bool,
    /// Who stops reading: what arrives here is counted apart.
    is_late: bool,
}

struct Writer {
    member: Member,
    author: Author,
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Seen {
    counts: Counts,
    is_measuring: bool,
    latencies: Latencies,
    /// By the author's tag and the change's number.
    sent_at: Vec<Vec<Instant>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    sent: u64,
    /// Changes at clients other than their author.
    delivered: u64,
    /// Messages that had changes in them.
    frames: u64,
    acks: u64,
    /// Through which change those who stopped reading have the document.
    late: u64,
    /// Messages that brought them there.
    late_frames: u64,
}

impl Load {
    /// Nobody. Each change will go to so many others, and have so many characters.
    pub(crate) fn new(format: Format, n_others: u64, characters: usize) -> Result<Self, Failure> {
        Ok(Self {
            generator: Generator::new(sign_of_life(format).as_deref())?,
            format,
            seats: Vec::new(),
            writers: Vec::new(),
            turn_of: 0,
            n_others,
            characters,
            change: Vec::new(),
            seen: Seen::default(),
        })
    }

    /// Adds a client who only reads.
    pub(crate) fn add_reader(&mut self, client: Client, is_probe: bool) -> Result<(), Failure> {
        client.join(&mut self.generator)?;
        self.seats.push(Seat {
            is_probe,
            ..Seat::default()
        });
        // Nobody waits too long for the others to be there.
        self.turn(Duration::ZERO)
    }

    /// Adds a client who stops reading at once, until [`catch_up`](Self::catch_up).
    pub(crate) fn add_stopped(&mut self, client: Client) -> Result<(), Failure> {
        let member = client.join(&mut self.generator)?;
        self.seats.push(Seat {
            is_late: true,
            ..Seat::default()
        });
        self.generator.stop(member.connection)
    }

    /// Those who stopped read on. How long it takes until they have everything; `None` if nothing comes any more.
    pub(crate) fn catch_up(&mut self) -> Result<Option<Duration>, Failure> {
        let begun = Instant::now();
        for (connection, seat) in self.seats.iter().enumerate() {
            if seat.is_late {
                self.generator.go_on(connection)?;
            }
        }
        let mut last = (0, begun);
        while self.seen.counts.late < self.seen.counts.sent {
            self.turn(Duration::from_millis(10))?;
            let frames = self.seen.counts.late_frames;
            if frames != last.0 {
                last = (frames, Instant::now());
            } else if last.1.elapsed() > PATIENCE {
                return Ok(None);
            }
        }
        Ok(Some(begun.elapsed()))
    }

    /// What those who stopped have by now.
    pub(crate) fn late_percent(&self) -> f64 {
        number(self.seen.counts.late) * 100.0 / number(self.seen.counts.sent)
    }

    /// Adds a client who reads, and writes when it is their turn.
    pub(crate) fn add_writer(&mut self, client: Client, is_probe: bool) -> Result<(), Failure> {
        let member = client.join(&mut self.generator)?;
        let tag = u16::try_from(self.writers.len())?;
        self.seats.push(Seat {
            tag: Some(tag),
            is_probe,
            is_late: false,
        });
        self.seen.sent_at.push(Vec::new());
        self.writers.push(Writer {
            member,
            author: Author::new(tag),
        });
        self.turn(Duration::ZERO)
    }

    /// Warms up, writes for a while, waits until everything has arrived, and says what the server spent.
    pub(crate) fn measure(
        &mut self,
        server: &ServerProcess,
        pace: Pace,
        time: Duration,
    ) -> Result<Vec<(Metric, f64)>, Failure> {
        self.write_for(pace, time / 5)?;
        let before = self.look(server)?;
        self.seen.is_measuring = true;
        self.write_for(pace, time)?;
        self.seen.is_measuring = false;
        let after = self.look(server)?;
        self.drain()?;
        Ok(self.report(&before, &after))
    }

    fn write_for(&mut self, pace: Pace, time: Duration) -> Result<(), Failure> {
        let begun = Instant::now();
        match pace {
            Pace::PerSecond(rate) => {
                let mut metronome = Metronome::start(rate);
                while begun.elapsed() < time {
                    for _ in 0..metronome.beats() {
                        self.write()?;
                    }
                    self.turn(metronome.wait())?;
                }
            }
            Pace::InFlight(window) => {
                while begun.elapsed() < time {
                    while self.in_flight() < window {
                        self.write()?;
                    }
                    self.turn(Duration::from_millis(100))?;
                }
            }
        }
        Ok(())
    }

    /// Changes that have not reached everybody, if they arrive in order.
    fn in_flight(&self) -> u64 {
        let counts = &self.seen.counts;
        counts
            .sent
            .saturating_sub(counts.delivered / self.n_others.max(1))
    }

    fn write(&mut self) -> Result<(), Failure> {
        let n = self.writers.len();
        let place = self.turn_of;
        self.turn_of = (place + 1) % n.max(1);
        let writer = self.writers.get_mut(place).ok_or("nobody writes")?;
        writer.author.next(self.characters, &mut self.change);
        writer.member.push(&mut self.generator, &self.change);
        if let Some(sent_at) = self.seen.sent_at.get_mut(place) {
            sent_at.push(Instant::now());
        }
        self.seen.counts.sent += 1;
        Ok(())
    }

    fn turn(&mut self, wait: Duration) -> Result<(), Failure> {
        let Self {
            generator,
            format,
            seats,
            seen,
            ..
        } = self;
        generator.turn(wait, |connection, message| {
            let seat = seats.get(connection).copied().unwrap_or_default();
            seen.receive(seat, *format, message)
        })
    }

    /// Waits until everything has arrived, or nothing does any more.
    fn drain(&mut self) -> Result<(), Failure> {
        let mut last = (self.seen.counts.delivered, Instant::now());
        while self.in_flight() > 0 && last.1.elapsed() < PATIENCE {
            self.turn(Duration::from_millis(10))?;
            if self.seen.counts.delivered != last.0 {
                last = (self.seen.counts.delivered, Instant::now());
            }
        }
        // What comes twice comes after everything has come once.
        self.turn(Duration::from_millis(10))
    }

    fn look(&self, server: &ServerProcess) -> Result<Look, Failure> {
        Ok(Look {
            at: Instant::now(),
            server: server.usage()?,
            own: Usage::own()?,
            counts: self.seen.counts,
            bytes: self.generator.bytes_received(),
        })
    }

    fn report(&mut self, before: &Look, after: &Look) -> Vec<(Metric, f64)> {
        let seconds = (after.at - before.at).as_secs_f64();
        let spent = after.server.since(&before.server);
        let own = after.own.since(&before.own);
        let delivered = number(after.counts.delivered - before.counts.delivered);
        let frames = number(after.counts.frames - before.counts.frames);
        let counts = self.seen.counts;
        let expected = number(counts.sent * self.n_others);
        let mut metrics = vec![
            (Metric::CpuMicros, spent.total() * 1e6 / delivered),
            (Metric::UserMicros, spent.user * 1e6 / delivered),
            (Metric::SystemMicros, spent.system * 1e6 / delivered),
            (Metric::ChangesPerFrame, delivered / frames),
            (Metric::DeliveredPerSecond, delivered / seconds),
            (
                Metric::CompletePercent,
                number(counts.delivered) * 100.0 / expected,
            ),
            (
                Metric::AcksPerChange,
                number(counts.acks) / number(counts.sent),
            ),
            (
                Metric::BytesPerDelivered,
                number(after.bytes - before.bytes) / delivered,
            ),
            (Metric::RssMegabytes, number(after.server.rss) / 1e6),
            (Metric::ServerPercent, spent.total() * 100.0 / seconds),
            (Metric::GeneratorPercent, own.total() * 100.0 / seconds),
        ];
        metrics.extend(self.seen.latencies.percentiles());
        metrics
    }
}

impl Seen {
    fn receive(&mut self, seat: Seat, format: Format, message: &[u8]) -> Result<(), Failure> {
        let changes = match format.read(message)? {
            Frame::Changes(changes) if seat.is_late => {
                self.counts.late += u64::try_from(changes.len())?;
                self.counts.late_frames += 1;
                return Ok(());
            }
            Frame::Changes(changes) => changes,
            Frame::Other(SNAPSHOT) if seat.is_late => return self.receive_snapshot(message),
            Frame::Ack => {
                self.counts.acks += 1;
                return Ok(());
            }
            // Compressed, which nobody here has asked for, cut, or a whole state: it would not be counted.
            Frame::Other(0 | SNAPSHOT | FRAGMENT) => {
                return Err("a frame that cannot be counted".into());
            }
            Frame::Presence(_) | Frame::Other(_) => return Ok(()),
        };
        self.counts.frames += 1;
        if seat.tag.is_none() && !seat.is_probe {
            self.counts.delivered += u64::try_from(changes.len())?;
            return Ok(());
        }
        let now = Instant::now();
        for change in changes {
            let identity = Identity::of(change?).ok_or("a change that nobody made")?;
            if Some(identity.tag) == seat.tag {
                continue;
            }
            self.counts.delivered += 1;
            if seat.is_probe && self.is_measuring {
                let sent_at = self.sent_at.get(usize::from(identity.tag));
                let sent_at =
                    sent_at.and_then(|sent| sent.get(usize::try_from(identity.number).ok()?));
                self.latencies
                    .add(now - *sent_at.ok_or("a change from the future")?);
            }
        }
        Ok(())
    }
}

impl Seen {
    /// A piece of a state that takes the place of changes; with the last one it is there.
    fn receive_snapshot(&mut self, message: &[u8]) -> Result<(), Failure> {
        self.counts.late_frames += 1;
        let frame = Bytes::copy_from_slice(message);
        if let Message::Snapshot(piece) = decode_frame(frame, FRAGMENT_BYTES)?
            && is_last(&piece)
        {
            self.counts.late = piece.seq.0;
        }
        Ok(())
    }
}

/// How things are at one moment.
#[derive(Debug)]
struct Look {
    at: Instant,
    server: Usage,
    own: Usage,
    counts: Counts,
    bytes: u64,
}
