//! The power is cut at any moment: whatever the disk has kept of what was not synced, what was acknowledged is there, once.
//!
//! `SYNC_DISK_IMAGES` sets how many disks are looked at, `SYNC_DISK_SEED` which.
#![cfg(all(feature = "embedded", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

mod disk;
mod embedded;

use disk::{Disk, Fault, KILLED, Watched};
use embedded::load::{self, Acknowledged, CALLS, DIRECTORY, FIRST_ORIGIN, SHOWS, holds};
use embedded::{Directory, setting};

/// The process that writes; by itself it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    load::run().await;
}

/// Scenario 62, for the power instead of the process.
#[tokio::test]
async fn a_power_cut_at_any_moment_has_lost_nothing_that_was_acknowledged() {
    let Some(watched) = Watched::new() else {
        return;
    };
    let seed = setting("SYNC_DISK_SEED", 1);
    println!("seed {seed}");
    // The second process begins with what the first has left.
    for first in [1, 1_001] {
        let status = watched
            .child("child", None)
            .env(DIRECTORY, watched.data())
            .env(FIRST_ORIGIN, first.to_string())
            .env(CALLS, "10")
            .status()
            .unwrap();
        assert!(status.success(), "{}", watched.said());
    }
    let recording = watched.recording();
    let mut disk = Disk::new(&recording, seed.into());
    let mut acknowledged = Acknowledged::default();
    for moment in recording.moments(setting("SYNC_DISK_IMAGES", 200), seed) {
        acknowledged.read_all(&disk.advance(moment));
        let image = Directory::new();
        let what = disk.image(image.path());
        holds(&image.path().join("data"), &acknowledged, &what).await;
    }
    assert!(acknowledged.0.len() > 300, "{}", acknowledged.0.len());
}

/// Killing a process loses nothing that it wrote, synced or not: what the next one finds, it tells its clients.
#[tokio::test]
async fn what_is_shown_after_a_kill_is_there_after_a_power_cut() {
    for kind in ["sync", "write"] {
        for round in 0..8 {
            let Some(watched) = Watched::new() else {
                return;
            };
            let killed = Fault {
                kind,
                first: 60 + 37 * round,
                count: 1,
                error: KILLED,
            };
            let mut child = watched.child("child", Some(killed));
            child.env(DIRECTORY, watched.data());
            let status = child.env(FIRST_ORIGIN, "1").status().unwrap();
            assert!(!status.success(), "{}", watched.said());
            let mut reader = watched.child("child", None);
            reader.env(DIRECTORY, watched.data()).env(SHOWS, "1");
            reader.env(FIRST_ORIGIN, "1").status().unwrap();
            assert!(
                watched.said().ends_with("shown all\n"),
                "{}",
                watched.said()
            );

            let recording = watched.recording();
            let shown = *recording.after_words().last().unwrap();
            let mut disk = Disk::new(&recording, round.into());
            let mut acknowledged = Acknowledged::default();
            acknowledged.read_all(&disk.advance(shown));
            for _ in 0..8 {
                let image = Directory::new();
                let what = disk.image(image.path());
                holds(&image.path().join("data"), &acknowledged, &what).await;
            }
        }
    }
}
