//! S3: connections that have a document of their own open and do nothing; and what is left of a large message in each.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Lab;
use super::lab::Running;
use crate::Failure;
use crate::cli::{RelayMode, Scenario};
use crate::clients::sign_of_life;
use crate::generator::Generator;
use crate::report::{Metric, Results, Row, number};
use crate::subject::Subject;

/// A message of 1 MB, which is kept nowhere: a broadcast.
const LARGE_BYTES: usize = 1_000_000;
/// How long it may take to arrive.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is still under way after everybody has connected, or has received something.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) fn measure(lab: &Lab, results: &mut Results) -> Result<(), Failure> {
    for n in &lab.options.idle {
        let relay = Subject::relay(RelayMode::Coalescing, true);
        for (place, subject) in [relay].into_iter().chain(lab.servers()).enumerate() {
            let server = lab.start(subject)?;
            results.add(Row {
                scenario: Scenario::Idle,
                case: format!("{n} connections"),
                subject: subject.name(),
                is_baseline: place == 0,
                metrics: connect(&server, *n, lab.time())?,
            });
        }
    }
    Ok(())
}

fn connect(server: &Running, n: usize, time: Duration) -> Result<Vec<(Metric, f64)>, Failure> {
    let mut idle = Idle {
        generator: Generator::new(sign_of_life(server.subject.format()).as_deref())?,
        received: vec![0; n],
    };
    let many = number(u64::try_from(n)?);
    let kib = |rss: u64, before: u64| number(rss.saturating_sub(before)) / 1024.0 / many;
    let start = server.process.usage()?;
    for place in 0..n {
        let client = server.client(place, &document(place))?;
        client.join(&mut idle.generator)?;
        idle.turn(Duration::ZERO)?;
    }
    let connected = server.process.usage()?;
    idle.wait(PAUSE)?;

    let before = server.process.usage()?;
    let begun = Instant::now();
    idle.wait(time)?;
    let after = server.process.usage()?;
    let spent = after.since(&before).total() / begun.elapsed().as_secs_f64();

    for place in 0..n {
        idle.send_large(server, place)?;
    }
    idle.wait(PAUSE)?;
    let large = server.process.usage()?;
    let whole = idle.received.iter().filter(|bytes| **bytes >= LARGE_BYTES);
    let whole = number(u64::try_from(whole.count())?);
    Ok(vec![
        (Metric::KibPerClient, kib(after.rss, start.rss)),
        (Metric::KibAfterLarge, kib(large.rss, start.rss)),
        (
            Metric::ConnectMicros,
            connected.since(&start).total() * 1e6 / many,
        ),
        (Metric::ServerPercent, spent * 100.0),
        (Metric::CompletePercent, whole * 100.0 / many),
        (Metric::RssMegabytes, number(after.rss) / 1e6),
    ])
}

fn document(place: usize) -> String {
    format!("document-{place}")
}

struct Idle {
    generator: Generator,
    /// Bytes of messages, by connection.
    received: Vec<usize>,
}

impl Idle {
    fn turn(&mut self, wait: Duration) -> Result<(), Failure> {
        let received = &mut self.received;
        self.generator.turn(wait, |connection, message| {
            // Of those who send, nothing is asked.
            if let Some(bytes) = received.get_mut(connection) {
                *bytes += message.len();
            }
            Ok(())
        })
    }

    fn wait(&mut self, time: Duration) -> Result<(), Failure> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.turn(Duration::from_millis(50))?;
        }
        Ok(())
    }

    /// Another client comes, sends a large message, and leaves.
    fn send_large(&mut self, server: &Running, place: usize) -> Result<(), Failure> {
        let number = self.received.len() + place;
        let sender = server.client(number, &document(place))?;
        let sender = sender.join(&mut self.generator)?;
        sender.broadcast(&mut self.generator, Bytes::from(vec![7; LARGE_BYTES]));
        let begun = Instant::now();
        let is_there = |idle: &Self| {
            idle.received
                .get(place)
                .is_none_or(|bytes| *bytes >= LARGE_BYTES)
        };
        while !is_there(self) && begun.elapsed() < PATIENCE {
            self.turn(Duration::from_millis(50))?;
        }
        self.generator.drop_connection(sender.connection)
    }
}
