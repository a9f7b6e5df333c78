//! S7: the server is killed right after it has shown somebody a change. Is the change there when it comes back?

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sync_core::wire::Message;

use super::Lab;
use super::lab::Running;
use super::load::CHARACTERS;
use crate::Failure;
use crate::changes::{Author, Identity};
use crate::cli::{Registry, Scenario};
use crate::clients::{Client, Who};
use crate::latency::Latencies;
use crate::report::{Metric, Results, Row, number};
use crate::subject::Subject;

const DOCUMENT: &str = "document";

pub(super) fn measure(lab: &Lab, results: &mut Results) -> Result<(), Failure> {
    // What a registry in memory loses is no news.
    let is_on_disk = |subject: &Subject| *subject == Subject::Sync(Registry::Embedded);
    let kills = lab.options.kills;
    for subject in lab.servers().filter(is_on_disk) {
        let mut server = lab.start(subject)?;
        let mut latencies = Latencies::default();
        let mut shown = BTreeSet::new();
        let mut lost = 0;
        for tag in 0..kills {
            let (identity, latency) = show_one(&server, tag)?;
            latencies.add(latency);
            shown.insert(identity);
            server.kill_and_restart(lab)?;
            let there = read_all(&server, tag)?;
            // What is lost is counted once.
            let before = shown.len();
            shown.retain(|identity| there.contains(identity));
            lost += before - shown.len();
        }
        let mut metrics = vec![
            (Metric::Kills, f64::from(kills)),
            (Metric::Lost, number(u64::try_from(lost)?)),
        ];
        metrics.extend(latencies.percentiles());
        results.add(Row {
            scenario: Scenario::Kills,
            case: "killed after the delivery".to_owned(),
            subject: subject.name(),
            is_baseline: false,
            metrics,
        });
    }
    Ok(())
}

/// Somebody writes a change and somebody else sees it: which one, and how long that took.
fn show_one(server: &Running, tag: u16) -> Result<(Identity, Duration), Failure> {
    let mut reader = open(server, tag, 0)?.0;
    let mut writer = open(server, tag, 1)?.0;
    let mut author = Author::new(tag);
    let mut change = Vec::new();
    author.next(CHARACTERS, &mut change);
    let written = Identity::of(&change).ok_or("a change without identity")?;
    let begun = Instant::now();
    writer.push(vec![Bytes::from(change)])?;
    let mut seen = BTreeSet::new();
    while !seen.contains(&written) {
        read(&mut reader, &mut seen)?;
    }
    Ok((written, begun.elapsed()))
}

/// All changes in the document, as somebody finds them who has never been there.
fn read_all(server: &Running, tag: u16) -> Result<BTreeSet<Identity>, Failure> {
    let (mut reader, head) = open(server, tag, 2)?;
    let mut seen = BTreeSet::new();
    while seen.len() < usize::try_from(head)? {
        read(&mut reader, &mut seen)?;
    }
    Ok(seen)
}

fn read(reader: &mut Client, seen: &mut BTreeSet<Identity>) -> Result<(), Failure> {
    match reader.receive()? {
        Message::Changes(changes) => {
            for change in changes.changes {
                seen.insert(Identity::of(&change.bytes).ok_or("a change that nobody made")?);
            }
            Ok(())
        }
        // Far fewer changes than are folded.
        Message::Snapshot(_) => Err("a snapshot, in which changes cannot be told apart".into()),
        _ => Ok(()),
    }
}

/// One of three new clients in each round, and the document's head.
fn open(server: &Running, tag: u16, place: usize) -> Result<(Client, u64), Failure> {
    let who = Who {
        number: usize::from(tag) * 3 + place,
        gzip: false,
    };
    let mut client = server.dial(who, DOCUMENT)?;
    let head = client.open(DOCUMENT, None)?.head.0;
    Ok((client, head))
}
