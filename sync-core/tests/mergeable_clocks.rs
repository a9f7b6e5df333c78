//! Which write wins when clocks are equal, slow, fast, or wrong by a day.

#![allow(clippy::unwrap_used, reason = "test harness")]
#![allow(clippy::indexing_slicing, reason = "test harness")]

mod mergeable_support;

use std::collections::BTreeSet;

use bytes::Bytes;
use mergeable_support::{Map, Random, assert_converged, content, edit, get, insert, replica, sync};
use sync_core::engine::Document;
use sync_core::mergeable::MergeableValidator;

const HOUR: u64 = 60 * 60 * 1000;
const DAY: u64 = 24 * HOUR;
/// Some morning.
const NOW: u64 = 1_800_000_000_000;

type Grid = Map<(u8, u8), char>;

/// Scenario 2.
#[test]
fn three_clients_editing_one_cell_at_the_same_time_show_the_same_winner_in_10_000_runs() {
    let mut winners = BTreeSet::new();
    for seed in 0..10_000 {
        let mut random = Random(seed);
        let mut clients: Vec<Grid> = (0..3).map(|_| replica(u128::from(random.next()))).collect();
        let changes: Vec<Bytes> = clients
            .iter_mut()
            .zip(['X', 'O', '#'])
            .map(|(client, mark)| insert(client, NOW, (1, 1), mark))
            .collect();
        for client in &mut clients {
            let mut arriving = changes.clone();
            random.shuffle(&mut arriving);
            client.import(&arriving).unwrap();
        }
        let shown: BTreeSet<Option<char>> =
            clients.iter().map(|client| get(client, &(1, 1))).collect();
        assert_eq!(shown.len(), 1, "seed {seed}: {shown:?}");
        let versions: Vec<_> = clients.iter_mut().map(|client| client.version()).collect();
        assert!(
            versions.windows(2).all(|pair| pair[0] == pair[1]),
            "seed {seed}"
        );
        winners.extend(shown);
    }
    // Nobody wins for being first in a list.
    assert_eq!(winners.len(), 3);
}

/// Scenario 3.
#[test]
fn equal_times_are_decided_by_who_wrote_and_repeats_do_not_change_the_winner() {
    let (mut small, mut large) = (replica::<u8, char>(10), replica::<u8, char>(20));
    let ours = insert(&mut small, NOW, 1, 's');
    let theirs = insert(&mut large, NOW, 1, 'l');
    for order in [[&ours, &theirs], [&theirs, &ours]] {
        let mut reader = replica::<u8, char>(30);
        for change in order
            .into_iter()
            .chain(order)
            .chain([&ours, &ours, &theirs, &ours])
        {
            reader.import(std::slice::from_ref(change)).unwrap();
            let winner = get(&reader, &1);
            assert!(winner == Some('l') || change == &ours, "{winner:?}");
        }
        assert_eq!(get(&reader, &1), Some('l'));
    }
}

/// Scenario 5.
#[test]
fn a_write_after_seeing_a_value_beats_it_with_a_clock_an_hour_slow() {
    for slow_by in [1, 1_000, HOUR, DAY] {
        let (mut sound, mut slow) = (replica::<u8, char>(2), replica::<u8, char>(1));
        insert(&mut sound, NOW, 1, 'a');
        slow.set_wall_time(NOW - slow_by);
        sync(&mut sound, &mut slow);
        insert(&mut slow, NOW - slow_by, 1, 'b');
        sync(&mut slow, &mut sound);
        assert_converged(&mut sound, &mut slow);
        assert_eq!(get(&sound, &1), Some('b'), "slow by {slow_by} ms");
    }
}

/// Scenario 5, over two keys: the slow clock follows what it saw, so a later write to *another* key counts as later
/// too.
#[test]
fn a_slow_clock_follows_what_it_has_seen() {
    let (mut sound, mut slow, mut third) = (
        replica::<u8, char>(3),
        replica::<u8, char>(2),
        replica::<u8, char>(1),
    );
    slow.set_wall_time(NOW - HOUR);
    insert(&mut sound, NOW, 1, 'a');
    sync(&mut sound, &mut slow);
    // A concurrent write on key 2, some minutes before.
    insert(&mut third, NOW - HOUR / 2, 2, 'c');
    insert(&mut slow, NOW - HOUR, 2, 'b');
    sync(&mut slow, &mut third);
    assert_eq!(get(&third, &2), Some('b'));
}

/// Scenario 6: whoever has seen the write of a clock a day ahead replaces it at once, and stays replaced while the
/// wrong clock does not write again.
#[test]
fn a_clock_a_day_ahead_cannot_win_for_a_day() {
    let mut ahead = replica::<u8, char>(9);
    let mut others: Vec<Map<u8, char>> = vec![replica(1), replica(2)];
    insert(&mut ahead, NOW + DAY, 1, '!');
    for other in &mut others {
        other.set_wall_time(NOW);
        sync(&mut ahead, other);
    }
    insert(&mut others[0], NOW + 1, 1, 'a');
    let (first, second) = others.split_at_mut(1);
    for reader in [&mut ahead, &mut second[0]] {
        sync(&mut first[0], reader);
        assert_eq!(get(reader, &1), Some('a'));
    }
    insert(&mut second[0], NOW + 2, 1, 'b');
    sync(&mut second[0], &mut first[0]);
    assert_eq!(get(&first[0], &1), Some('b'));
}

/// Scenario 6: a clock a day ahead drags nobody along. Who has seen it does not win over writes that are really
/// later.
#[test]
fn a_clock_a_day_ahead_does_not_move_other_clocks() {
    let (mut ahead, mut seen, mut unseen) = (
        replica::<u8, char>(3),
        replica::<u8, char>(2),
        replica::<u8, char>(1),
    );
    insert(&mut ahead, NOW + DAY, 1, '!');
    seen.set_wall_time(NOW);
    sync(&mut ahead, &mut seen);
    insert(&mut seen, NOW + 1, 2, 'a');
    insert(&mut unseen, NOW + 1_000, 2, 'b');
    sync(&mut unseen, &mut seen);
    assert_eq!(get(&seen, &2), Some('b'));
}

/// Scenario 6: a clock that has been put right is an ordinary clock again, at once.
#[test]
fn a_clock_that_has_been_put_right_stops_winning() {
    let (mut wrong, mut sound) = (replica::<u8, char>(2), replica::<u8, char>(1));
    insert(&mut wrong, NOW + DAY, 1, '!');
    insert(&mut wrong, NOW, 2, 'a');
    insert(&mut sound, NOW + 1_000, 2, 'b');
    sync(&mut sound, &mut wrong);
    assert_eq!(get(&wrong, &2), Some('b'));
    // And its own next write to the key that it wrote in the future still takes effect.
    insert(&mut wrong, NOW + 2, 1, 'c');
    assert_eq!(get(&wrong, &1), Some('c'));
}

/// Scenario 6: a server's hook can tell such a change before it is logged.
#[test]
fn a_change_of_a_clock_a_day_ahead_can_be_told_by_its_bytes() {
    let validator = MergeableValidator::new();
    let mut ahead = replica::<u8, char>(1);
    insert(&mut ahead, NOW, 1, 'a');
    let change = insert(&mut ahead, NOW + DAY, 2, '!');
    assert_eq!(validator.latest_time(&change), Ok(Some(NOW + DAY)));
    assert_eq!(
        validator.latest_time(&ahead.snapshot().unwrap()),
        Ok(Some(NOW + DAY))
    );
    assert_eq!(
        validator.latest_time(&replica::<u8, char>(2).snapshot().unwrap()),
        Ok(None)
    );
    assert!(validator.latest_time(&change[1..]).is_err());
}

/// Scenario 6: 70,000 edits within one millisecond.
#[test]
fn seventy_thousand_edits_of_one_millisecond_keep_their_order() {
    let (mut writer, mut reader) = (replica::<u8, u32>(2), replica::<u8, u32>(1));
    let mut changes: Vec<Bytes> = (0..70_000)
        .map(|value| insert(&mut writer, NOW, 1, value))
        .collect();
    // The last one wins, whatever the order of arrival: so all stamps differ, in the order of the edits.
    Random(6).shuffle(&mut changes);
    reader.import(&changes).unwrap();
    assert_eq!(get(&reader, &1), Some(69_999));
    assert_converged(&mut writer, &mut reader);
}

/// Replicas that were never told the time still agree, and a write after seeing still wins.
#[test]
fn without_any_wall_clock_causality_still_decides() {
    let (mut a, mut b) = (replica::<u8, char>(2), replica::<u8, char>(1));
    a.import(&[edit(&mut b, NOW, |map| map.insert(1, 'b').unwrap()).remove(0)])
        .unwrap();
    let engine = sync_core::engine::typed::Typed::new();
    sync_core::engine::Engine::edit(&engine, &mut a, usize::MAX, |map| {
        map.insert(1, 'a').unwrap()
    })
    .unwrap();
    sync(&mut a, &mut b);
    assert_eq!(content(&b), [(1, 'a')]);
}
