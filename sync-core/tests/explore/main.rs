//! Small worlds of the real machines, explored exhaustively (`docs/testing.md`, "Model checks").

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "test harness"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stderr,
    reason = "test harness"
)]

mod changes;
mod explorer;
mod notes;
mod registry;
mod rooms;

use sync_core::planted::Bug;

use self::explorer::{explore, search};

/// More states than any of the ordinary tests has: what has more is in the wrong list.
const STATES_MAX: usize = 60_000;

/// States that are looked at before the machine's memory is.
const LARGE_STATES_MAX: usize = 20_000_000;

mod change {
    use super::changes::{Bounds, Changes, State};
    use super::*;

    fn opened(name: &str, bounds: Bounds, states_max: usize) {
        let model = Changes::new(bounds);
        explore(name, &model, &model.opened(), states_max);
    }

    fn fresh(name: &str, bounds: Bounds, states_max: usize) {
        let model = Changes::new(bounds);
        explore(name, &model, &model.fresh(), states_max);
    }

    fn restored(name: &str, bounds: Bounds, states_max: usize) {
        let model = Changes::new(bounds);
        explore(name, &model, &model.ahead_of_the_backup(), states_max);
    }

    /// Scenario 28.
    #[test]
    fn made_while_the_connection_is_being_made_is_neither_lost_nor_doubled() {
        let bounds = Bounds {
            cuts: 1,
            ..Bounds::of(1, 1)
        };
        fresh("connecting", bounds, STATES_MAX);
    }

    #[test]
    fn of_two_who_come_at_once_reaches_both() {
        opened("two edit", Bounds::of(2, 1), STATES_MAX);
        fresh("two come", Bounds::of(2, 0), STATES_MAX);
    }

    #[test]
    fn survives_cuts_once() {
        let bounds = Bounds {
            cuts: 1,
            ..Bounds::of(1, 2)
        };
        opened("a cut", bounds, STATES_MAX);
        let bounds = Bounds {
            cuts: 2,
            ..Bounds::of(1, 1)
        };
        opened("two cuts", bounds, STATES_MAX);
    }

    #[test]
    fn survives_a_registry_that_fails_or_does_not_say_whether() {
        let bounds = Bounds {
            faults: 2,
            ticks: 1,
            ..Bounds::of(1, 2)
        };
        opened("two faults", bounds, STATES_MAX);
        let bounds = Bounds {
            faults: 1,
            cuts: 1,
            ..Bounds::of(1, 1)
        };
        opened("a fault and a cut", bounds, STATES_MAX);
    }

    #[test]
    fn survives_a_server_that_dies() {
        let bounds = Bounds {
            crashes: 1,
            ..Bounds::of(1, 2)
        };
        opened("a crash", bounds, STATES_MAX);
    }

    #[test]
    fn acknowledged_comes_back_after_an_older_copy_has_taken_the_place_of_the_registry() {
        let bounds = Bounds {
            restores: 1,
            cuts: 1,
            ..Bounds::of(1, 2)
        };
        restored("an older copy and a cut", bounds, STATES_MAX);
        let bounds = Bounds {
            restores: 1,
            faults: 1,
            ..Bounds::of(1, 2)
        };
        restored("an older copy and a fault", bounds, STATES_MAX);
    }

    #[test]
    fn refused_is_followed_by_nothing_and_handed_back_with_what_was_made_after_it() {
        let bounds = Bounds {
            bad: [2].into(),
            cuts: 1,
            ..Bounds::of(1, 3)
        };
        opened("a refusal", bounds, STATES_MAX);
    }

    #[test]
    fn made_after_a_refused_one_is_made_again_once() {
        let bounds = Bounds {
            bad: [1].into(),
            rebases: true,
            cuts: 1,
            ..Bounds::of(1, 2)
        };
        opened("a refusal, replayed", bounds, STATES_MAX);
        let bounds = Bounds {
            bad: [1].into(),
            rebases: true,
            faults: 1,
            ticks: 1,
            ..Bounds::of(1, 2)
        };
        opened("a refusal and a fault", bounds, STATES_MAX);
    }

    #[test]
    #[ignore = "just explore"]
    fn larger_bounds() {
        let max = LARGE_STATES_MAX;
        let of = Bounds::of;
        let cuts = |cuts, of| Bounds { cuts, ..of };
        opened("2 clients, 1 edit, 1 cut", cuts(1, of(2, 1)), max);
        opened("1 client, 2 edits, 2 cuts", cuts(2, of(1, 2)), max);
        let bounds = Bounds {
            faults: 1,
            ticks: 1,
            ..of(2, 1)
        };
        opened("2 clients, 1 edit, 1 fault, 1 tick", bounds, max);
        let bounds = Bounds {
            faults: 1,
            cuts: 1,
            ticks: 1,
            ..of(1, 2)
        };
        opened("1 client, 2 edits, 1 fault, 1 cut, 1 tick", bounds, max);
        let bounds = Bounds {
            bad: [1].into(),
            ..of(2, 2)
        };
        opened("2 clients, 2 edits, 1 refusal", bounds, max);
        let bounds = Bounds {
            bad: [1].into(),
            rebases: true,
            cuts: 1,
            ..of(2, 1)
        };
        opened("2 clients, 1 edit, 1 refusal, 1 cut", bounds, max);
        fresh("2 clients that come, 1 edit", of(2, 1), max);
        let bounds = Bounds {
            restores: 1,
            faults: 1,
            ticks: 1,
            ..of(1, 2)
        };
        restored("2 edits, an older copy, 1 fault, 1 tick", bounds, max);
        let bounds = Bounds {
            restores: 1,
            ..of(2, 1)
        };
        restored("2 clients, an older copy", bounds, max);
        let bounds = Bounds {
            restores: 1,
            ..of(2, 2)
        };
        restored("2 clients, 2 edits, an older copy", bounds, max);
        let bounds = Bounds {
            crashes: 1,
            ..of(2, 1)
        };
        opened("2 clients, 1 edit, 1 crash", bounds, max);
    }

    /// A model with a bug in its machines, and where it begins.
    struct Broken {
        bug: Bug,
        bounds: Bounds,
        start: fn(&Changes) -> State,
    }

    #[test]
    fn planted_bugs_are_found() {
        let of = Bounds::of;
        let broken = [
            Broken {
                bug: Bug::AckBeforeCommit,
                bounds: Bounds {
                    faults: 1,
                    ..of(1, 1)
                },
                start: Changes::opened,
            },
            Broken {
                bug: Bug::UnknownAppendFailed,
                bounds: Bounds {
                    faults: 1,
                    ..of(1, 1)
                },
                start: Changes::opened,
            },
            Broken {
                bug: Bug::EvictedOriginRefused,
                bounds: Bounds {
                    restores: 1,
                    ..of(1, 2)
                },
                start: Changes::ahead_of_the_backup,
            },
        ];
        for Broken { bug, bounds, start } in broken {
            let mut model = Changes::new(bounds);
            model.planted = Some(bug);
            let start = start(&model);
            match search(&model, &start, STATES_MAX) {
                Ok(explored) => panic!("{bug:?} is not found in {explored}"),
                Err(found) => eprintln!("{bug:?}: {}", found.shortened(&model, &start)),
            }
        }
    }
}

mod room {
    use super::rooms::{Bounds, Life};
    use super::*;

    fn life(name: &str, bounds: Bounds, states_max: usize) {
        let model = Life::new(bounds);
        explore(name, &model, &model.start(), states_max);
    }

    #[test]
    fn is_there_for_all_who_come_and_go() {
        life("come and go", Bounds::of(2, 1), STATES_MAX);
    }

    #[test]
    fn is_made_again_for_who_comes_after_it_was_unloaded() {
        let bounds = Bounds {
            ticks: 1,
            late_ticks: 1,
            ..Bounds::of(1, 2)
        };
        life("come again", bounds, STATES_MAX);
    }

    #[test]
    fn answers_and_appends_what_those_pushed_who_left() {
        let bounds = Bounds {
            pushes: 2,
            ..Bounds::of(1, 2)
        };
        life("push and leave", bounds, STATES_MAX);
    }

    #[test]
    fn answers_everything_when_its_registry_fails() {
        let bounds = Bounds {
            pushes: 1,
            faults: 1,
            late_ticks: 1,
            ..Bounds::of(1, 2)
        };
        life("push, with a fault", bounds, STATES_MAX);
    }

    #[test]
    fn reads_what_another_node_appends_and_still_ends() {
        let bounds = Bounds {
            elsewhere: 1,
            faults: 1,
            late_ticks: 1,
            ..Bounds::of(1, 1)
        };
        life("another node", bounds, STATES_MAX);
        let bounds = Bounds {
            elsewhere: 1,
            pushes: 1,
            ..Bounds::of(1, 1)
        };
        life("another node and a push", bounds, STATES_MAX);
    }

    #[test]
    fn that_is_evicted_leaves_nobody_behind() {
        let bounds = Bounds {
            pushes: 1,
            evictions: 1,
            ..Bounds::of(1, 2)
        };
        life("evicted", bounds, STATES_MAX);
    }

    #[test]
    fn ends_when_the_server_does_whoever_comes_meanwhile() {
        let bounds = Bounds {
            closes: true,
            ..Bounds::of(2, 1)
        };
        life("closing", bounds, STATES_MAX);
    }

    #[test]
    #[ignore = "just explore"]
    fn larger_bounds() {
        let max = LARGE_STATES_MAX;
        let of = Bounds::of;
        life("3 visitors", of(3, 1), max);
        life("2 visitors, twice", of(2, 2), max);
        let bounds = Bounds {
            pushes: 1,
            ..of(2, 1)
        };
        life("2 visitors, 1 push each", bounds, max);
        let bounds = Bounds {
            faults: 1,
            late_ticks: 1,
            ..of(2, 1)
        };
        life("2 visitors, 1 fault, 1 late tick", bounds, max);
        let bounds = Bounds {
            evictions: 1,
            ticks: 1,
            ..of(2, 1)
        };
        life("2 visitors, 1 eviction, 1 tick", bounds, max);
        let bounds = Bounds {
            pushes: 2,
            faults: 2,
            late_ticks: 2,
            ..of(1, 2)
        };
        life(
            "1 visitor, twice, 2 pushes, 2 faults, 2 late ticks",
            bounds,
            max,
        );
    }
}
