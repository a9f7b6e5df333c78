//! Replays the committed corpus, honest messages, and some thousand mutations of both, with every fuzz target: the same
//! inputs on every run.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stderr,
    reason = "test harness"
)]

mod mutate;
mod seeds;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use mutate::Random;
use sync_fuzz_targets::{TARGETS, Target};

/// Targets count the memory of the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap()
}

fn corpus_of(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../corpus")
        .join(name)
}

/// What a target is begun with.
fn inputs(name: &str) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(corpus_of(name)).into_iter().flatten();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort_unstable();
    let files = files.into_iter().map(|file| std::fs::read(file).unwrap());
    files.chain(seeds::of(name)).collect()
}

/// Says which input it was if a target finds something.
fn run(target: &Target, input: &[u8]) {
    if std::panic::catch_unwind(|| (target.run)(input)).is_err() {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{} finds something with {hex}", target.name);
    }
}

fn replay(name: &str, n_mutations: u32) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let target = target(name);
    let inputs = inputs(name);
    for input in &inputs {
        run(target, input);
    }
    let mut random = Random::new(name);
    for _ in 0..n_mutations {
        run(target, &random.mutated(&inputs));
    }
}

macro_rules! replayed {
    ($($name:ident => $n_mutations:literal),+ $(,)?) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name), $n_mutations);
        })+

        #[test]
        fn every_target_is_replayed_and_has_a_program_and_a_recipe() {
            let replayed = [$(stringify!($name)),+];
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), replayed);
            for name in replayed {
                let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz_targets").join(name);
                assert!(program.with_extension("rs").exists(), "{name}");
                assert!(!inputs(name).is_empty(), "{name}");
            }
        }
    };
}

replayed! {
    frame => 20_000,
    reassembly => 5_000,
    gzip => 5_000,
    client_session => 1_000,
    server_session => 1_000,
    room => 3_000,
    world => 60,
    yrs_update => 5_000,
    yrs_ledger => 2_000,
    mergeable => 3_000,
    opaque => 5_000,
    export_file => 5_000,
}

/// `SYNC_FUZZ_SEEDS=folder` writes the honest messages there, a folder for each target: fuzzers begin with them.
#[test]
fn seeds_are_written_where_they_are_asked_for() {
    let Ok(folder) = std::env::var("SYNC_FUZZ_SEEDS") else {
        return;
    };
    for target in TARGETS {
        let folder = PathBuf::from(&folder).join(target.name);
        std::fs::create_dir_all(&folder).unwrap();
        for (n, seed) in seeds::of(target.name).into_iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{n:03}")), seed).unwrap();
        }
    }
}
