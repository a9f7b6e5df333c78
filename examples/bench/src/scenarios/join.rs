//! S4: many who open a long document at once. They are connected already: what is measured begins with the `Open`, and for
//! the relay with a message that it answers with as many bytes as the document has without compression.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sync_core::limits::Limits;
use sync_core::wire::{Compression, Message, Reassembler, decode_frame, encode_frame};

use super::history::{self, History};
use super::lab::{Lab, Running};
use crate::Failure;
use crate::cli::{RelayMode, Scenario};
use crate::clients::{Who, is_last, open_message, sign_of_life};
use crate::generator::{Format, Generator};
use crate::latency::Latencies;
use crate::process::Usage;
use crate::report::{Metric, Results, Row, number};
use crate::subject::Subject;

const DOCUMENT: &str = "document";
/// Nothing has come for so long: nothing is under way.
const PAUSE: Duration = Duration::from_millis(20);
/// Nothing has come for so long: everybody has everything.
const QUIET: Duration = Duration::from_millis(500);
/// How long a joiner may wait for anything at all.
const PATIENCE: Duration = Duration::from_secs(30);
const MESSAGE_BYTES_MAX: usize = 64 << 20;

pub(super) fn measure(lab: &Lab, results: &mut Results) -> Result<(), Failure> {
    let history = lab.history();
    let n_changes = history.changes.len();
    let relay = Subject::Relay {
        mode: RelayMode::Coalescing,
        acks: false,
        blob: history.state_bytes,
    };
    for (place, subject) in [relay].into_iter().chain(lab.servers()).enumerate() {
        let server = lab.start(subject)?;
        if subject.format() == Format::Sync {
            history::write(&history.changes, &server, DOCUMENT)?;
        }
        let herds = [
            ("the first to join", 1),
            ("the next one", 1),
            ("all at once", lab.options.joiners),
        ];
        // Client 0 has written the document.
        let mut first = 1;
        for (who, n) in herds {
            results.add(Row {
                scenario: Scenario::Join,
                case: format!("{n_changes} changes, {who}: {n}"),
                subject: subject.name(),
                is_baseline: place == 0,
                metrics: join(&server, history, first, n)?,
            });
            first += n;
        }
    }
    Ok(())
}

/// What one joiner has received.
#[derive(Debug, Default)]
struct Joiner {
    frames: Vec<Bytes>,
    last: Option<Instant>,
}

/// So many clients, from this number on, open the document in the same moment.
fn join(
    server: &Running,
    history: &History,
    first: usize,
    n: usize,
) -> Result<Vec<(Metric, f64)>, Failure> {
    let format = server.subject.format();
    let mut generator = Generator::new(sign_of_life(format).as_deref())?;
    for number in first..first + n {
        let who = Who { number, gzip: true };
        server.dial(who, DOCUMENT)?.join(&mut generator)?;
    }
    server.settle()?;
    let open = match format {
        Format::Relay => Bytes::from_static(b"open"),
        Format::Sync => encode_frame(&open_message(DOCUMENT, None)?, Compression::None),
    };
    let mut joiners: Vec<Joiner> = (0..n).map(|_| Joiner::default()).collect();
    let before = server.process.usage()?;
    let begun = Instant::now();
    for connection in 0..n {
        generator.send(connection, &open);
    }
    let mut last = begun;
    // As soon as nothing is under way, so that what an idle server does is not counted.
    let mut after = None;
    let is_done = |joiners: &[Joiner], last: Instant| {
        let everybody = joiners.iter().all(|joiner| joiner.last.is_some());
        last.elapsed() > if everybody { QUIET } else { PATIENCE }
    };
    while !is_done(&joiners, last) {
        let earlier = last;
        generator.turn(Duration::from_millis(10), |connection, message| {
            last = Instant::now();
            let joiner = joiners.get_mut(connection).ok_or("a stranger")?;
            joiner.frames.push(Bytes::copy_from_slice(message));
            joiner.last = Some(last);
            Ok(())
        })?;
        if last != earlier {
            after = None;
        } else if after.is_none() && last > begun && last.elapsed() > PAUSE {
            after = Some(server.process.usage()?);
        }
    }
    let after = after.ok_or("nothing came")?;
    report(
        server,
        history,
        &joiners,
        begun,
        (&before, &after),
        generator.bytes_received(),
    )
}

fn report(
    server: &Running,
    history: &History,
    joiners: &[Joiner],
    begun: Instant,
    (before, after): (&Usage, &Usage),
    bytes: u64,
) -> Result<Vec<(Metric, f64)>, Failure> {
    let n = number(u64::try_from(joiners.len())?);
    let mut latencies = Latencies::default();
    for last in joiners.iter().filter_map(|joiner| joiner.last) {
        latencies.add(last - begun);
    }
    let mut whole = 0;
    let mut beside = 0;
    for joiner in joiners {
        match server.subject.format() {
            Format::Relay => {
                let received: usize = joiner.frames.iter().map(Bytes::len).sum();
                whole += u64::from(received == history.state_bytes);
            }
            Format::Sync => {
                let (head, n_beside) = received(joiner)?;
                whole += u64::from(head == u64::try_from(history.changes.len())?);
                beside = n_beside;
            }
        }
    }
    let growth = after.rss_peak.saturating_sub(before.rss);
    let mut metrics = vec![
        (Metric::JoinMillis, after.since(before).total() * 1e3 / n),
        (Metric::CompletePercent, number(whole) * 100.0 / n),
        (Metric::BytesPerClient, number(bytes) / n),
        (Metric::ChangesBeside, number(beside)),
        (Metric::GrowthMegabytes, number(growth) / 1e6),
    ];
    metrics.extend(latencies.percentiles());
    let last = latencies.per_mille(1_000);
    metrics.extend(last.map(|ms| (Metric::LastMillis, ms)));
    Ok(metrics)
}

/// Through which sequence a joiner has the document, and how many changes came beside the snapshot.
fn received(joiner: &Joiner) -> Result<(u64, u64), Failure> {
    let mut reassembler = Reassembler::new(&Limits::default());
    let mut snapshot = 0;
    let mut beside = 0;
    for frame in &joiner.frames {
        let mut message = decode_frame(frame.clone(), MESSAGE_BYTES_MAX)?;
        if let Message::Fragment(fragment) = message {
            let Some(frame) = reassembler.handle(fragment)? else {
                continue;
            };
            message = decode_frame(frame, MESSAGE_BYTES_MAX)?;
        }
        match message {
            Message::Snapshot(piece) => {
                snapshot = if is_last(&piece) {
                    piece.seq.0
                } else {
                    snapshot
                };
            }
            Message::Changes(changes) => beside += u64::try_from(changes.changes.len())?,
            _ => {}
        }
    }
    Ok((snapshot + beside, beside))
}
