//! A shared grid of cells in which the last writer wins.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod e2e;
mod registries;

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::{until, within};
use sync_client::{Client, DocumentHandle, LwwMap, Status, Typed};
use sync_sim::world::{CALM, ROUGH, World};

/// Cells by row and column.
type Grid = LwwMap<(u8, u8), char>;

const DOC: &str = "grid";
const CENTRE: (u8, u8) = (1, 1);
const MARKS: [char; 3] = ['X', 'O', '+'];

fn cells(grid: &Grid) -> Vec<((u8, u8), char)> {
    grid.iter().map(|(cell, mark)| (*cell, *mark)).collect()
}

fn three_players(seed: u64) -> World<Typed<Grid>> {
    let mut world = World::on(registries::simulated(), seed, Typed::new(), ROUGH);
    for player in 0..3 {
        world.add_client();
        world.open(player, DOC);
    }
    world
}

/// Scenarios 2 and 3.
#[test]
fn players_who_mark_one_cell_at_the_same_time_all_see_the_same_winner() {
    let mut winners = BTreeSet::new();
    for seed in 0..300 {
        let mut world = three_players(seed);
        let online = world.below(2) == 0;
        for player in 0..3 {
            world.set_online(player, online);
        }
        // Nothing travels between these: they carry the same time.
        for (player, row) in (0..3).zip(0..) {
            let mark = MARKS[player];
            assert!(world.edit(player, DOC, |grid| grid.insert(CENTRE, mark).unwrap()));
            assert!(world.edit(player, DOC, |grid| grid.insert((row, 0), mark).unwrap()));
        }
        for player in 0..3 {
            let pause = Duration::from_millis(world.below(500));
            world.run_for(pause);
            world.set_online(player, true);
        }
        world.settle(DOC);
        world.assert_converged(DOC);
        let seen = world.read(0, DOC, cells);
        for player in 1..3 {
            assert_eq!(world.read(player, DOC, cells), seen, "seed {seed}");
        }
        assert_eq!(
            seen.len(),
            4,
            "seed {seed}: the other cells are nobody else's"
        );
        winners.insert(world.read(0, DOC, |grid| grid.get(&CENTRE).copied()));
    }
    assert_eq!(winners.len(), 3, "nobody wins because of who they are");
}

/// Scenario 3: the same again, and again after a cut, changes nothing.
#[test]
fn a_mark_that_is_delivered_twice_does_not_win_twice() {
    for seed in 0..50 {
        let mut world = three_players(seed);
        for (player, mark) in MARKS.into_iter().enumerate() {
            assert!(world.edit(player, DOC, |grid| grid.insert(CENTRE, mark).unwrap()));
        }
        for _ in 0..3 {
            let pause = Duration::from_millis(world.below(800));
            world.run_for(pause);
            (0..3).for_each(|player| world.cut(player));
        }
        world.settle(DOC);
        world.assert_converged(DOC);
        let winner = world.read(0, DOC, |grid| grid.get(&CENTRE).copied());
        world.lose_everything();
        world.run_for(Duration::from_secs(60));
        world.settle(DOC);
        world.assert_converged(DOC);
        for player in 0..3 {
            let mark = world.read(player, DOC, |grid| grid.get(&CENTRE).copied());
            assert_eq!(mark, winner, "seed {seed}");
        }
    }
}

/// Scenario 5.
#[test]
fn a_mark_made_after_seeing_another_beats_it_although_the_clock_is_an_hour_slow() {
    const HOUR_MS: u64 = 3_600_000;
    let now = 100 * HOUR_MS;
    let mut world = World::<Typed<Grid>>::on(registries::simulated(), 1, Typed::new(), CALM);
    for player in 0..2 {
        world.add_client();
        world.open(player, DOC);
    }
    let mark = |world: &mut World<Typed<Grid>>, player, wall_ms, mark| {
        let set = |grid: &mut Grid| grid.insert(CENTRE, mark).unwrap();
        assert!(world.edit_at(player, DOC, wall_ms, set));
    };
    let seen = |world: &mut World<Typed<Grid>>| {
        world.settle(DOC);
        world.assert_converged(DOC);
        world.read(0, DOC, |grid| grid.get(&CENTRE).copied())
    };
    mark(&mut world, 0, now, 'X');
    assert_eq!(seen(&mut world), Some('X'));
    mark(&mut world, 1, now - HOUR_MS, 'O');
    assert_eq!(seen(&mut world), Some('O'));
    mark(&mut world, 0, now, '+');
    assert_eq!(seen(&mut world), Some('+'));
    // Nobody has seen the other: the clocks decide.
    mark(&mut world, 1, now, 'O');
    mark(&mut world, 0, now + 1, 'X');
    assert_eq!(seen(&mut world), Some('X'));
}

both! {
    /// Scenario 2.
    three_players_see_the_same_grid => same_grid
}

async fn same_grid(world: e2e::World) {
    let clients = [world.client(), world.client(), world.client()];
    let mut players = Vec::new();
    for client in &clients {
        players.push(grid(client).await);
    }
    // Apart, so that nobody sees another's mark before making their own.
    for client in &clients {
        client.disconnect();
        within(
            "offline",
            client.status().wait_for(|s| *s == Status::Offline),
        )
        .await
        .unwrap();
    }
    for (player, mark) in players.iter().zip(MARKS) {
        player
            .edit(|grid| grid.insert(CENTRE, mark))
            .unwrap()
            .unwrap();
    }
    for client in &clients {
        client.connect();
    }
    for player in &players {
        within("saved", player.saved()).await.unwrap();
    }
    let watcher = grid(&world.client()).await;
    within("caught up", watcher.caught_up()).await.unwrap();
    let seen = watcher.read(cells);
    assert_eq!(seen.len(), 1);
    for player in &players {
        until(player, "the same grid", |player, _| {
            player.read(cells) == seen
        })
        .await;
    }
}

async fn grid(client: &Client) -> DocumentHandle<Typed<Grid>> {
    client.open(DOC, Typed::new()).await.unwrap()
}
