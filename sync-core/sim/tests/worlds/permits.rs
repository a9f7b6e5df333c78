//! Credentials that expire, hooks that veto, and permissions asked for while they change.

use std::time::Duration;

use sync_core::wire::AccessLevel;
use sync_sim::world::maps::{DOC, keys, set, world};
use sync_sim::world::{CALM, ROUGH, in_memory};

#[test]
fn clients_say_who_they_are_again_before_that_is_forgotten() {
    let mut world = world(in_memory(), 1, 0, CALM);
    world.permits.credentials = Some(Duration::from_secs(60));
    for client in 0..2 {
        world.add_client();
        world.open(client, DOC);
    }
    world.settle(DOC);
    world.run_for(Duration::from_secs(600));
    assert!(world.counts[&("sent by clients", "Auth")] > 10);
    assert!(
        !world
            .counts
            .contains_key(&("closed by server", "Unauthenticated"))
    );
    world.take_credentials(0, false);
    world.run_for(Duration::from_secs(120));
    assert!(world.counts[&("closed by server", "Unauthenticated")] > 0);
    set(&mut world, 0, 0, 0);
    world.take_credentials(0, true);
    world.reconnect(0);
    world.settle(DOC);
    world.assert_converged(DOC);
}

/// Nothing that builds on a change that was vetoed is committed; it comes back to whoever made it.
#[test]
fn every_edit_is_either_in_the_document_or_handed_back_whatever_hooks_veto() {
    let mut n_refused = 0;
    for seed in 1..=100 {
        let mut world = world(in_memory(), seed, 0, ROUGH);
        world.permits.vetoes = Some(100);
        for client in 0..2 {
            world.add_client();
            world.open(client, DOC);
        }
        let mut made = 0;
        for _ in 0..25 {
            let client = usize::try_from(world.below(2)).unwrap();
            if world.edit(client, DOC, |map| map.insert(made, made).unwrap()) {
                made += 1;
            }
            if world.below(8) == 0 {
                world.cut(client);
            }
            let pause = Duration::from_millis(world.below(400));
            world.run_for(pause);
        }
        world.permits.vetoes = Some(0);
        world.settle(DOC);
        world.assert_converged(DOC);
        let refused: usize = (0..2).map(|client| world.refused(client, DOC).len()).sum();
        let kept = keys(&world, 0).len();
        let made = usize::try_from(made).unwrap();
        assert_eq!(
            kept + refused,
            made,
            "seed {seed}: {kept} kept, {refused} handed back"
        );
        n_refused += refused;
    }
    assert!(n_refused > 50, "{n_refused}");
}

/// What was said of an open before somebody was told that it is not so any more counts for nothing.
#[test]
fn an_open_that_is_answered_while_permissions_change_goes_by_what_they_are() {
    for seed in 1..=100 {
        let mut world = world(in_memory(), seed, 2, ROUGH);
        world.weather.registry_delay_max = Duration::from_millis(800);
        for n in 0..12 {
            world.cut(0);
            let pause = Duration::from_millis(world.below(2_500));
            world.run_for(pause);
            let level = match n % 2 {
                0 => AccessLevel::None,
                _ => AccessLevel::Write,
            };
            // What is appended and sent from now on is looked at.
            world.permit(0, level, true);
            world.edit(0, DOC, |map| map.insert(n, n).unwrap());
            set(&mut world, 1, 100 + n, n);
        }
    }
}
