//! Connections that are lost, and those who come back.

use super::*;

/// Scenario 42: a reconnect within the grace window keeps presence from flickering.
#[tokio::test(start_paused = true)]
async fn a_cut_connection_that_comes_back_in_time_is_not_seen_by_anybody() {
    let world = World::memory().await;
    let mut events = world.server.events();
    let mut watcher = seat(world.client()).await;
    within("connected", watcher.document.caught_up())
        .await
        .unwrap();
    let (mut ada, mut bob) = two(&world).await;
    let both = [at("ada", 1), at("bob", 1)];
    let before = sees(&mut watcher.roster, &both).await;
    assert_eq!(world.server.documents()[0].n_present, 2);

    for round in 0..3 {
        // What they know already. The watcher was the first to connect.
        let _ = watcher.roster.take_changed();
        assert!(world.network.cut_nth(1) && world.network.cut_nth(1));
        // All that anybody sees meanwhile is complete.
        let (mut resumed, mut n_seen) = (0, 0);
        let deadline = Instant::now() + GRACE + 20 * TICK;
        loop {
            tokio::select! {
                peers = watcher.roster.changed() => {
                    assert_eq!(others(&peers.unwrap()), both);
                    n_seen += 1;
                }
                peers = ada.roster.changed() => assert_eq!(others(&peers.unwrap()), [at("bob", 1)]),
                peers = bob.roster.changed() => assert_eq!(others(&peers.unwrap()), [at("ada", 1)]),
                event = events.next() => match event.unwrap() {
                    ServerEvent::PresenceJoined { instead_of, .. } => {
                        resumed += usize::from(instead_of.is_some());
                    }
                    ServerEvent::PresenceLeft { .. } => panic!("somebody left"),
                    _ => {}
                },
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        assert_eq!(resumed, 2, "round {round}");
        assert!(n_seen <= 2, "{n_seen}");
    }
    let after = watcher.roster.get();
    let sessions = |peers: &[Peer<Cursor>]| peers.iter().map(|p| p.session).collect::<Vec<_>>();
    assert_ne!(sessions(&before), sessions(&after));
    // And it still says what it says.
    ada.presence.set(&at("ada", 2)).unwrap();
    sees(&mut bob.roster, &[at("ada", 2)]).await;
}

/// Scenario 42: over real sockets; and what was missed is all that is sent.
#[tokio::test]
async fn a_cut_websocket_that_comes_back_in_time_is_not_seen_and_is_sent_what_it_missed() {
    let world = World::new(Over::WebSocket).await;
    let (proxy, tap) = (Proxy::start(&world).await, Tap::default());
    let dialer = tap.on(WebSocketDialer::new(&proxy.url).unwrap());
    let ada = Client::with_dialer(dialer).reconnect_max(TICK);
    let mut ada = seat(ada.start().unwrap()).await;
    let mut bob = seat(world.client()).await;
    ada.presence.set(&at("ada", 1)).unwrap();
    bob.presence.set(&at("bob", 1)).unwrap();
    push(&bob.document, "known");
    until(&ada.document, "known", |d, _| content(d) == "known").await;
    sees(&mut ada.roster, &[at("bob", 1)]).await;
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    let mut events = world.server.events();
    for round in 1..=3 {
        tap.clear();
        proxy.cut();
        push(&bob.document, ".");
        // All that anybody sees meanwhile is complete.
        let back = async {
            loop {
                tokio::select! {
                    peers = ada.roster.changed() => assert_eq!(others(&peers.unwrap()), [at("bob", 1)]),
                    peers = bob.roster.changed() => assert_eq!(others(&peers.unwrap()), [at("ada", 1)]),
                    event = events.next() => match event.unwrap() {
                        ServerEvent::PresenceJoined { instead_of, .. } => break instead_of,
                        ServerEvent::PresenceLeft { .. } => panic!("somebody left"),
                        _ => {}
                    },
                }
            }
        };
        let instead_of = within("she is back", back).await;
        assert!(instead_of.is_some(), "as somebody new");
        let all = format!("known{}", ".".repeat(round));
        until(&ada.document, "all of it", |d, _| content(d) == all).await;
        let sent = tap.pick(Way::Down, |message| match message {
            Message::Changes(changes) => Some(changes.changes.len()),
            Message::Snapshot(_) => panic!("she has most of it"),
            _ => None,
        });
        assert_eq!(sent, [1]);
    }
    // And it still says what it says.
    ada.presence.set(&at("ada", 2)).unwrap();
    sees(&mut bob.roster, &[at("ada", 2)]).await;
}

/// Scenario 69: gone when a client dies, over real sockets.
#[tokio::test]
async fn whose_websocket_dies_is_gone_when_the_time_to_come_back_is_over() {
    let world = World::new(Over::WebSocket).await;
    let proxy = Proxy::start(&world).await;
    let ada = Client::builder(&proxy.url).reconnect_max(TICK);
    let (mut ada, mut bob) = two_of(&world, ada.start().unwrap()).await;
    let mut events = world.server.events();
    proxy.set_online(false);
    let closed =
        async { while !matches!(events.next().await, Some(ServerEvent::SessionClosed { .. })) {} };
    within("the server has noticed", closed).await;
    until_status(&ada.client, "and so has she", |s| !s.is_connected()).await;
    assert_eq!(others(&bob.roster.get()), [at("ada", 1)]);
    assert_eq!(others(&ada.roster.get()), [at("bob", 1)]);
    world.pass(GRACE).await;
    sees(&mut bob.roster, &[]).await;
    sees(&mut ada.roster, &[]).await;
    proxy.set_online(true);
    ada.client.on_network_change();
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    sees(&mut ada.roster, &[at("bob", 1)]).await;
}

/// Scenario 69: gone when a client dies, after the grace and not before; its own others stay as long.
#[tokio::test(start_paused = true)]
async fn who_dies_is_gone_when_the_time_to_come_back_is_over() {
    let world = World::memory().await;
    let (mut ada, mut bob) = two(&world).await;
    world.network.set_online(false);
    assert!(world.network.cut_nth(0));
    let begun = Instant::now();
    sees(&mut bob.roster, &[]).await;
    let took = begun.elapsed();
    assert!(took >= GRACE && took <= GRACE + TICK, "{took:?}");
    sees(&mut ada.roster, &[]).await;
    let peers = ada.roster.get();
    assert_eq!(
        (peers.len(), peers[0].is_me),
        (1, true),
        "she is still there for herself"
    );
    let took = begun.elapsed();
    assert!(took >= GRACE && took <= GRACE + TICK, "{took:?}");
    // She comes back all the same, as somebody new.
    world.network.set_online(true);
    ada.client.on_network_change();
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    sees(&mut ada.roster, &[at("bob", 1)]).await;
}

/// Whoever leaves in order is not expected back.
#[tokio::test(start_paused = true)]
async fn who_says_goodbye_is_gone_at_once_and_sees_nobody() {
    let world = World::memory().await;
    let (mut ada, mut bob) = two(&world).await;
    let begun = Instant::now();
    ada.client.disconnect();
    sees(&mut ada.roster, &[]).await;
    sees(&mut bob.roster, &[]).await;
    assert!(begun.elapsed() <= TICK, "{:?}", begun.elapsed());
    ada.client.connect();
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    sees(&mut ada.roster, &[at("bob", 1)]).await;
    let client = ada.client.clone();
    assert!(within("it ends", client.shutdown(GRACE)).await);
    sees(&mut bob.roster, &[]).await;
    assert!(matches!(
        ada.presence.set(&at("ada", 2)),
        Err(PresenceError::Closed)
    ));
}

both! {
    /// Scenario 69: restored after a reconnection, also to a server that knows nothing of it.
    what_was_said_is_said_again_to_a_server_that_was_restarted => said_again
}

async fn said_again(mut world: World) {
    let (mut ada, mut bob) = two(&world).await;
    world.restart().await;
    let new = seat(world.client()).await;
    let mut roster = new.roster.clone();
    sees(&mut roster, &[at("ada", 1), at("bob", 1)]).await;
    sees(&mut ada.roster, &[at("bob", 1)]).await;
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    if !world.is_virtual() {
        return;
    }
    // Taken back while the connection was lost.
    world.network.set_online(false);
    world.network.cut();
    until_status(&ada.client, "lost", |s| !s.is_connected()).await;
    ada.presence.clear();
    world.network.set_online(true);
    sees(&mut roster, &[at("bob", 1)]).await;
}

/// A client that comes back finds out also that everybody has left.
#[tokio::test(start_paused = true)]
async fn who_comes_back_sees_who_has_left_meanwhile() {
    let world = World::memory().await;
    let mut ada = seat(world.client()).await;
    let bob = seat(world.client()).await;
    bob.presence.set(&at("bob", 1)).unwrap();
    sees(&mut ada.roster, &[at("bob", 1)]).await;
    world.network.set_online(false);
    assert!(world.network.cut_nth(0));
    until_status(&ada.client, "lost", |s| !s.is_connected()).await;
    bob.client.disconnect();
    sleep(TICK).await;
    assert_eq!(others(&ada.roster.get()), [at("bob", 1)], "she cannot know");
    let begun = Instant::now();
    world.network.set_online(true);
    ada.client.on_network_change();
    sees(&mut ada.roster, &[]).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
}

/// The secret, not the name, makes a client the same that it was.
#[tokio::test(start_paused = true)]
async fn nobody_takes_the_place_of_a_client_that_was_cut_off() {
    let world = World::memory().await;
    let mut bob = seat(world.client()).await;
    let (mut victim, own, channel) = scripted(&world, 1).await;
    let state: &[u8] = &[0x92, 0xa1, b'v', 1];
    send(&mut victim, says(channel, &[(own, state)])).await;
    sees(&mut bob.roster, &[at("v", 1)]).await;
    drop(victim);
    // The same origin and user, and no token.
    let (mut thief, own, channel) = scripted(&world, 1).await;
    let state: &[u8] = &[0x92, 0xa1, b't', 1];
    send(&mut thief, says(channel, &[(own, state)])).await;
    let begun = Instant::now();
    sees(&mut bob.roster, &[at("t", 1), at("v", 1)]).await;
    sees(&mut bob.roster, &[at("t", 1)]).await;
    assert!(begun.elapsed() >= GRACE - TICK, "{:?}", begun.elapsed());
}
