//! How much may be said, and how often.

use super::*;

fn limited(bytes: usize, rate: Rate) -> Limits {
    let mut limits = Limits::default();
    limits.presence_bytes_max = bytes;
    limits.presence_rate = rate;
    limits
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_an_error_before_it_is_sent() {
    let limits = limited(100, Rate::new(60, 120));
    let world = World::with(Over::Memory, |server| server.limits(limits)).await;
    world.network.set_online(false);
    let ada = seat(world.client()).await;
    let long = |bytes: usize| (String::from_utf8(vec![b'x'; bytes]).unwrap(), 1);
    // Nobody has said what the limit is.
    let refused = ada.presence.set(&long(5_000));
    assert!(
        matches!(
            refused,
            Err(PresenceError::TooLarge {
                bytes: 5_005,
                max: 4_096
            })
        ),
        "{refused:?}"
    );
    world.network.set_online(true);
    ada.client.on_network_change();
    until_status(&ada.client, "connected", Status::is_connected).await;
    let mut bob = seat(world.client()).await;
    // An array, a text with its length, a number: four bytes more.
    ada.presence.set(&long(96)).unwrap();
    sees(&mut bob.roster, &[long(96)]).await;
    let refused = ada.presence.set(&long(97));
    assert!(
        matches!(
            refused,
            Err(PresenceError::TooLarge {
                bytes: 101,
                max: 100
            })
        ),
        "{refused:?}"
    );
    // What was said before stays.
    sleep(TICK * 4).await;
    assert_eq!(others(&bob.roster.get()), [long(96)]);
    assert_eq!(ada.roster.get().iter().filter(|p| p.is_me).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_refuses_what_is_too_large_and_goes_on() {
    let limits = limited(3, Rate::new(60, 120));
    let world = World::with(Over::Memory, |server| server.limits(limits)).await;
    let mut bob = seat(world.client()).await;
    let (mut mallory, own, channel) = scripted(&world, 666).await;
    send(&mut mallory, says(channel, &[(own, b"four")])).await;
    let answer = receive(&mut mallory).await;
    assert!(
        matches!(&answer, Some(Message::Error(e)) if e.code == ErrorCode::PresenceTooLarge && e.reference == Reference::Channel(channel)),
        "{answer:?}"
    );
    assert!(bob.roster.get().is_empty());
    send(&mut mallory, says(channel, &[(own, b"3by")])).await;
    let peers = bob.roster.wait_for(|peers| !peers.is_empty());
    within("as much as allowed", peers).await.unwrap();
}

/// What was said too large while offline for a server that turns out to take less is reported, and harms nothing.
#[tokio::test(start_paused = true)]
async fn a_client_learns_that_its_server_takes_less() {
    let limits = limited(5, Rate::new(60, 120));
    let world = World::with(Over::Memory, |server| server.limits(limits)).await;
    world.network.set_online(false);
    let ada = seat(world.client()).await;
    let mut events = ada.client.events();
    ada.presence.set(&at("much too long", 1)).unwrap();
    world.network.set_online(true);
    ada.client.on_network_change();
    loop {
        let event = within("it is told", events.next()).await.unwrap();
        if let ClientEvent::DocumentError { error, .. } = event {
            assert_eq!(error.code, ErrorCode::PresenceTooLarge);
            break;
        }
    }
    push(&ada.document, "it goes on");
    within("saved", ada.document.saved()).await.unwrap();
}

/// A client keeps to the rate it is told; the last value arrives all the same.
#[tokio::test(start_paused = true)]
async fn a_client_keeps_to_the_servers_rate() {
    let limits = limited(4_096, Rate::new(2, 3));
    let world = World::with(Over::Memory, |server| server.limits(limits)).await;
    let (builder, tap) = world.tapped();
    let ada = seat(builder.start().unwrap()).await;
    let mut bob = seat(world.client()).await;
    within("connected", ada.document.caught_up()).await.unwrap();
    let begun = Instant::now();
    for place in 0..=100 {
        ada.presence.set(&at("ada", place)).unwrap();
        sleep(TICK).await;
    }
    sees(&mut bob.roster, &[at("ada", 100)]).await;
    let sent = tap.pick(Way::Up, |message| {
        matches!(message, Message::Presence(_)).then_some(())
    });
    let allowed = 3 + 2 * begun.elapsed().as_secs() + 1;
    let n = u64::try_from(sent.len()).unwrap();
    assert!((allowed - 2..=allowed).contains(&n), "{n} of {allowed}");
    let errors = tap.pick(Way::Down, |message| {
        matches!(message, Message::Error(_)).then_some(())
    });
    assert!(errors.is_empty());
}

/// With many documents there is a turn for each.
#[tokio::test(start_paused = true)]
async fn many_documents_take_turns_within_the_rate() {
    const DOCUMENTS: u32 = 40;
    let limits = limited(4_096, Rate::new(10, 10));
    let world = World::with(Over::Memory, |server| server.limits(limits)).await;
    let (ada, bob) = (world.client(), world.client());
    let (mut said, mut heard) = (Vec::new(), Vec::new());
    for n in 0..DOCUMENTS {
        let id = format!("notes/{n}");
        let presence = text(&ada, &id).await.presence::<Cursor>();
        presence.set(&at("ada", n)).unwrap();
        said.push(presence);
        // A roster alone keeps nothing open.
        let theirs = text(&bob, &id).await.presence::<Cursor>();
        heard.push(theirs.roster());
        said.push(theirs);
    }
    let begun = Instant::now();
    for (n, roster) in (0..).zip(&mut heard) {
        sees(roster, &[at("ada", n)]).await;
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_drops_what_comes_too_fast_and_says_when_to_try_again() {
    let limits = limited(4_096, Rate::new(2, 3));
    let world = World::with(Over::Memory, |server| server.limits(limits)).await;
    let bob = seat(world.client()).await;
    let (mut mallory, own, channel) = scripted(&world, 666).await;
    // Twice the burst that clients are told.
    for _ in 0..6 {
        send(&mut mallory, says(channel, &[(own, b"\xa1a")])).await;
    }
    send(&mut mallory, says(channel, &[(own, b"\xa1b")])).await;
    let error = loop {
        match receive(&mut mallory).await {
            Some(Message::Error(error)) => break error,
            Some(_) => {}
            None => panic!("it ended"),
        }
    };
    assert_eq!(error.code, ErrorCode::PresenceTooFast);
    assert_eq!(error.reference, Reference::Channel(channel));
    let wait = error.retry_after.unwrap();
    assert_eq!(wait, Duration::from_millis(500));
    let names = bob.document.presence::<String>();
    let mut roster = names.roster();
    let a = roster.wait_for(|p| !p.is_empty());
    assert_eq!(within("a", a).await.unwrap()[0].state.as_deref(), Some("a"));
    sleep(wait).await;
    send(&mut mallory, says(channel, &[(own, b"\xa1b")])).await;
    let b = roster.wait_for(|p| p[0].state.as_deref() == Some("b"));
    within("b", b).await.unwrap();
}
