//! Slow readers.

use super::*;

/// A session that does not read costs the table's size at most, and is sent the latest when it reads again.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_sent_the_latest_and_no_queue() {
    const WRITERS: u32 = 20;
    let world = World::memory().await;
    let (builder, tap) = world.tapped();
    let mut slow = seat(builder.start().unwrap()).await;
    within("connected", slow.document.caught_up())
        .await
        .unwrap();
    let mut writers = Vec::new();
    for n in 0..WRITERS {
        let writer = seat(world.client()).await;
        writer.presence.set(&at(&"x".repeat(3_000), n)).unwrap();
        writers.push(writer);
    }
    within(
        "all are there",
        slow.roster.wait_for(|p| p.len() == writers.len()),
    )
    .await
    .unwrap();
    let link = &world.network.links()[0];
    link.stall(true);
    tap.clear();
    for round in 0..200 {
        for (n, writer) in (0..).zip(&writers) {
            writer
                .presence
                .set(&at(&"x".repeat(3_000), round * WRITERS + n))
                .unwrap();
        }
        sleep(TICK).await;
    }
    // 12 MB of states have gone by.
    link.stall(false);
    let last: Vec<_> = (0..WRITERS)
        .map(|n| at(&"x".repeat(3_000), 199 * WRITERS + n))
        .collect();
    sees(&mut slow.roster, &last).await;
    let bytes: usize = tap
        .all()
        .iter()
        .filter(|seen| seen.way == Way::Down)
        .map(|seen| seen.bytes)
        .sum();
    // What the connection held when it stalled, which is 256 KiB, and the table once.
    assert!(bytes < 500_000, "{bytes} bytes");
}

/// A document's changes and its presence share a slow connection.
#[tokio::test(start_paused = true)]
async fn presence_that_never_rests_does_not_hold_up_changes_nor_they_it() {
    let world = World::memory().await;
    let slow = e2e::slow::Slow {
        dialer: world.network.dialer(),
        pause: 2 * TICK,
    };
    let reader = Client::with_dialer(slow).start().unwrap();
    let document = map(&reader, NOTES).await;
    let mut roster = document.presence::<Cursor>().roster();
    let keep = document.presence::<Cursor>();
    let writer = world.client();
    let theirs = map(&writer, NOTES).await;
    let presence = theirs.presence::<Cursor>();
    for round in 0..100 {
        presence.set(&at("writer", round)).unwrap();
        set(&theirs, "round", &round.to_string());
        sleep(TICK).await;
    }
    let begun = Instant::now();
    until(&document, "the last change", |d, _| {
        e2e::get(d, "round").as_deref() == Some("99")
    })
    .await;
    sees(&mut roster, &[at("writer", 99)]).await;
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    drop(keep);
}
