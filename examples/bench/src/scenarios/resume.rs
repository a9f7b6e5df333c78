//! S5: somebody comes back to a long document after having missed a little.

use std::time::Instant;

use sync_core::history::Cursor;
use sync_core::wire::Message;

use super::lab::Running;
use super::{Lab, history};
use crate::Failure;
use crate::cli::Scenario;
use crate::clients::{Client, Who};
use crate::latency::Latencies;
use crate::report::{Metric, Results, Row, number};

const DOCUMENT: &str = "document";
/// Changes that were missed.
const MISSED: usize = 100;
/// Who comes back, one after the other.
const CLIENTS: usize = 50;

pub(super) fn measure(lab: &Lab, results: &mut Results) -> Result<(), Failure> {
    let whole = lab.history();
    // The same after a tenth of it: what was missed is to cost the same.
    for n in [whole.changes.len() / 10, whole.changes.len()] {
        let changes = whole.changes.get(..n).unwrap_or_default();
        let (seen, missed) = changes.split_at(n.saturating_sub(MISSED));
        let own_bytes: usize = missed.iter().map(|change| change.len()).sum();
        for subject in lab.servers() {
            let server = lab.start(subject)?;
            let epoch = history::write(changes, &server, DOCUMENT)?;
            // One writer: numbers are sequences.
            let cursor = (1..)
                .zip(seen)
                .fold(Cursor::start(epoch), |cursor, (number, change)| {
                    cursor.with(number, change)
                });
            let mut metrics = resume(&server, cursor, missed.len())?;
            let bytes = metrics
                .iter()
                .find(|(metric, _)| *metric == Metric::BytesPerClient);
            let bytes = bytes.map_or(f64::NAN, |(_, bytes)| *bytes);
            let own_bytes = number(u64::try_from(own_bytes)?);
            metrics.push((Metric::BytesOfOwn, bytes / own_bytes));
            results.add(Row {
                scenario: Scenario::Resume,
                case: format!("{} of {n} changes missed", missed.len()),
                subject: subject.name(),
                is_baseline: false,
                metrics,
            });
        }
    }
    Ok(())
}

fn resume(server: &Running, cursor: Cursor, missed: usize) -> Result<Vec<(Metric, f64)>, Failure> {
    let mut clients = Vec::new();
    for number in 2..2 + CLIENTS {
        clients.push(server.dial(Who { number, gzip: true }, DOCUMENT)?);
    }
    server.settle()?;
    let mut latencies = Latencies::default();
    let mut bytes = 0;
    let mut whole = 0;
    let before = server.process.usage()?;
    for client in &mut clients {
        let earlier = client.bytes_received();
        let begun = Instant::now();
        let n = changes_after(client, cursor, missed)?;
        latencies.add(begun.elapsed());
        bytes += client.bytes_received() - earlier;
        whole += u64::from(n == missed);
    }
    let after = server.process.usage()?;
    let n = number(u64::try_from(CLIENTS)?);
    let mut metrics = vec![
        (Metric::JoinMillis, after.since(&before).total() * 1e3 / n),
        (Metric::CompletePercent, number(whole) * 100.0 / n),
        (Metric::BytesPerClient, number(bytes) / n),
    ];
    metrics.extend(latencies.percentiles());
    Ok(metrics)
}

/// Opens the document where the client stood, and counts what comes until it has caught up. More than it missed, if it has to
/// begin anew.
fn changes_after(client: &mut Client, cursor: Cursor, missed: usize) -> Result<usize, Failure> {
    client.open(DOCUMENT, Some(cursor))?;
    let mut n = 0;
    while n < missed {
        match client.receive()? {
            Message::Changes(changes) => n += changes.changes.len(),
            Message::Snapshot(_) => return Err("resumed with a snapshot".into()),
            _ => {}
        }
    }
    Ok(n)
}
