//! Plans drawn from seeds, run in simulated worlds.

#![allow(clippy::panic, reason = "helpers of tests")]

use sync_core::planted::Bug;
use sync_sim::campaign::{Options, run_seeds};
use sync_sim::plan::{Kind, Level, Op, Plan, Settings, Sky};
use sync_sim::run::{Bugs, run, run_planned, run_with};

#[test]
fn a_plan_does_the_same_each_time() {
    for seed in 1..=20 {
        let plan = Plan::draw(seed);
        assert_eq!(plan, Plan::draw(seed));
        assert_eq!(run(&plan), run(&plan), "seed {seed}");
    }
}

#[test]
fn what_breaks_a_rule_is_found_and_cut_down_to_what_it_takes() {
    let options = Options {
        first: 1,
        seeds: 200,
        threads: 1,
        says_progress: false,
        goes_on: false,
    };
    let bugs = Bugs {
        machine: Some(Bug::AckBeforeCommit),
        ..Bugs::default()
    };
    let report = run_seeds(&options, |plan| run_with(plan, bugs));
    let Some(failure) = report.failure else {
        panic!("not found in {} runs", report.runs);
    };
    assert!(failure.smallest.ops.len() < 8, "{failure}");
    assert!(run(&failure.smallest).is_ok(), "{failure}");
}

#[test]
fn two_thousand_plans_break_no_rule() {
    let options = Options {
        first: 1,
        seeds: 2_000,
        threads: 2,
        says_progress: false,
        goes_on: false,
    };
    let report = run_seeds(&options, run);
    if let Some(failure) = report.failure {
        panic!("{failure}");
    }
}

#[test]
fn what_a_reader_kept_through_a_restore_comes_back_when_it_may_write_again() {
    run_planned(&Plan {
        seed: 3762,
        settings: Settings {
            clients: 1,
            ..Settings::SMALL
        },
        ops: vec![
            (
                1,
                Op::Open {
                    client: 0,
                    document: 0,
                },
            ),
            (
                754,
                Op::Permit {
                    client: 0,
                    level: Level::Reading,
                    is_told: false,
                },
            ),
            (1107, Op::Backup),
            (
                1460,
                Op::Edit {
                    client: 0,
                    document: 0,
                    n: 1,
                },
            ),
            (
                5590,
                Op::RestoreDocument {
                    document: 0,
                    same_epoch: false,
                },
            ),
            (
                5834,
                Op::Edit {
                    client: 1,
                    document: 0,
                    n: 1,
                },
            ),
        ],
    });
}

#[test]
fn presence_of_a_document_that_was_closed_on_a_connection_that_broke_is_gone_when_it_is_opened_again()
 {
    run_planned(&Plan {
        seed: 4727,
        settings: Settings {
            clients: 1,
            sky: Sky::Stormy,
            ..Settings::SMALL
        },
        ops: vec![
            (
                2,
                Op::Open {
                    client: 0,
                    document: 0,
                },
            ),
            (
                1004,
                Op::Show {
                    client: 0,
                    document: 0,
                    says: true,
                },
            ),
            (
                56837,
                Op::Close {
                    client: 0,
                    document: 0,
                },
            ),
            (56887, Op::Cut { client: 0 }),
        ],
    });
}

#[test]
fn what_was_replayed_behind_a_refused_change_is_in_the_log_once_though_its_client_is_killed() {
    run_planned(&Plan {
        seed: 26569,
        settings: Settings {
            content: Kind::Mergeable,
            documents: 2,
            clients: 3,
            stores: 0b1110,
            nodes: 3,
            sky: Sky::Stormy,
            fold_after: 0,
            keep_bytes: 0,
            ring_bytes: 1048576,
            piece_bytes: 32768,
            checks: false,
            grant_s: 0,
            credentials_s: 0,
        },
        ops: vec![
            (
                1,
                Op::Open {
                    client: 0,
                    document: 0,
                },
            ),
            (
                4,
                Op::Open {
                    client: 2,
                    document: 0,
                },
            ),
            (
                5,
                Op::Open {
                    client: 2,
                    document: 1,
                },
            ),
            (
                22,
                Op::Edit {
                    client: 2,
                    document: 1,
                    n: 1,
                },
            ),
            (
                114,
                Op::Edit {
                    client: 2,
                    document: 1,
                    n: 1,
                },
            ),
            (
                943,
                Op::Edit {
                    client: 0,
                    document: 0,
                    n: 1,
                },
            ),
            (6392, Op::Cut { client: 2 }),
            (
                6400,
                Op::Edit {
                    client: 2,
                    document: 1,
                    n: 1,
                },
            ),
            (
                6560,
                Op::DropRefused {
                    client: 2,
                    document: 0,
                },
            ),
            (
                6775,
                Op::EditBadly {
                    client: 2,
                    document: 0,
                },
            ),
            (
                8471,
                Op::Edit {
                    client: 0,
                    document: 0,
                    n: 1,
                },
            ),
            (
                8942,
                Op::Edit {
                    client: 2,
                    document: 0,
                    n: 5,
                },
            ),
            (9089, Op::KillClient { client: 2 }),
        ],
    });
}

#[test]
fn a_trimmed_copy_of_a_lost_document_does_not_take_what_was_begun_anew_from_those_who_have_it() {
    run_planned(&Plan {
        seed: 76240,
        settings: Settings {
            clients: 1,
            ..Settings::SMALL
        },
        ops: vec![
            (
                2,
                Op::Open {
                    client: 0,
                    document: 0,
                },
            ),
            (
                29624,
                Op::Edit {
                    client: 0,
                    document: 0,
                    n: 1,
                },
            ),
            (
                39781,
                Op::Trim {
                    node: 0,
                    document: 0,
                    keep: 3,
                },
            ),
            (42650, Op::Backup),
            (44651, Op::LoseEverything),
            (
                49211,
                Op::Edit {
                    client: 0,
                    document: 0,
                    n: 1,
                },
            ),
            (51505, Op::Restore),
        ],
    });
}
