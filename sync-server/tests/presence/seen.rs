//! Coming, saying something, going.

use super::*;

both! {
    /// Scenario 69.
    who_comes_says_something_and_goes_is_seen => seen
}

async fn seen(world: World) {
    let mut ada = seat(world.client()).await;
    let mut bob = seat(world.client()).await;
    ada.presence.set(&at("ada", 1)).unwrap();
    let peers = sees(&mut bob.roster, &[at("ada", 1)]).await;
    assert_eq!(&*peers[0].user.id, "anonymous");
    bob.presence.set(&at("bob", 7)).unwrap();
    let peers = sees(&mut ada.roster, &[at("bob", 7)]).await;
    assert_eq!(peers.len(), 2, "and she sees herself");
    let me = peers.iter().find(|peer| peer.is_me).unwrap();
    assert_eq!(me.state, Some(at("ada", 1)));
    // Of a burst, the last.
    for place in [4, 3, 2] {
        ada.presence.set(&at("ada", place)).unwrap();
    }
    sees(&mut bob.roster, &[at("ada", 2)]).await;

    // Who comes later sees at once who is there.
    let mut cyd = seat(world.client()).await;
    sees(&mut cyd.roster, &[at("ada", 2), at("bob", 7)]).await;

    bob.presence.clear();
    sees(&mut ada.roster, &[]).await;
    sees(&mut cyd.roster, &[at("ada", 2)]).await;
    let Seat {
        client,
        document,
        presence,
        ..
    } = ada;
    drop((document, presence));
    // Her last handle is gone: the document is closed, the client is not.
    sees(&mut cyd.roster, &[]).await;
    assert!(client.status().get().is_connected());
    assert!(world.log(NOTES).await.is_empty(), "nothing of it is stored");
}

/// Scenario 69: each of these is seen within one tick.
#[tokio::test(start_paused = true)]
async fn what_happens_is_seen_within_one_tick() {
    let world = World::memory().await;
    let mut bob = seat(world.client()).await;
    let ada = seat(world.client()).await;
    within("connected", ada.document.caught_up()).await.unwrap();
    within("connected", bob.document.caught_up()).await.unwrap();

    let begun = Instant::now();
    ada.presence.set(&at("ada", 1)).unwrap();
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    ada.presence.set(&at("ada", 2)).unwrap();
    sees(&mut bob.roster, &[at("ada", 2)]).await;
    assert!(begun.elapsed() <= 2 * TICK, "{:?}", begun.elapsed());
    let begun = Instant::now();
    ada.client.disconnect();
    sees(&mut bob.roster, &[]).await;
    assert!(begun.elapsed() <= TICK, "{:?}", begun.elapsed());
}

/// Scenario 69: the last value of a burst wins, and nobody is sent more than one message in a tick.
#[tokio::test(start_paused = true)]
async fn of_a_burst_the_last_value_arrives_in_one_message_for_each_tick() {
    const WRITERS: u32 = 8;
    let world = World::memory().await;
    let (builder, tap) = world.tapped();
    let mut watcher = seat(builder.start().unwrap()).await;
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        let writer = seat(world.client()).await;
        within("connected", writer.document.caught_up())
            .await
            .unwrap();
        writers.push(writer);
    }
    within("connected", watcher.document.caught_up())
        .await
        .unwrap();
    tap.clear();
    let begun = Instant::now();
    for place in 0..=1_000 {
        for (name, writer) in writers.iter().enumerate() {
            writer.presence.set(&at(&name.to_string(), place)).unwrap();
        }
        sleep(Duration::from_millis(1)).await;
    }
    let last: Vec<_> = (0..WRITERS).map(|n| at(&n.to_string(), 1_000)).collect();
    sees(&mut watcher.roster, &last).await;
    let ticks = begun.elapsed().as_millis() / TICK.as_millis() + 1;
    let messages = tap.pick(Way::Down, |message| match message {
        Message::Presence(presence) => Some(presence),
        _ => None,
    });
    let n = u128::try_from(messages.len()).unwrap();
    assert!(n <= ticks, "{n} messages in {ticks} ticks");
    assert!(n * 2 >= ticks, "{n} messages in {ticks} ticks");
    let versions: Vec<_> = messages.iter().map(|m| m.table_version).collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    // A user is named once.
    let named = messages.iter().flat_map(|message| &message.deltas);
    let named = named.filter(|delta| !delta.user.is_empty()).count();
    assert_eq!(named, usize::try_from(WRITERS).unwrap());
}

/// Scenario 69.
#[tokio::test(start_paused = true)]
async fn two_documents_have_nothing_to_do_with_each_other() {
    let world = World::memory().await;
    let (ada, bob) = (world.client(), world.client());
    let open = async |client: &Client, id| {
        let document = text(client, id).await;
        within("connected", document.caught_up()).await.unwrap();
        document.presence::<Cursor>()
    };
    let (one, two) = (open(&ada, "one").await, open(&ada, "two").await);
    let (bobs_one, bobs_two) = (open(&bob, "one").await, open(&bob, "two").await);
    one.set(&at("ada", 1)).unwrap();
    two.set(&at("ada", 2)).unwrap();
    sees(&mut bobs_one.roster(), &[at("ada", 1)]).await;
    sees(&mut bobs_two.roster(), &[at("ada", 2)]).await;
    one.clear();
    sees(&mut bobs_one.roster(), &[]).await;
    assert_eq!(others(&bobs_two.roster().get()), [at("ada", 2)]);
}

#[tokio::test(start_paused = true)]
async fn what_one_says_of_oneself_is_seen_at_once_also_offline() {
    let world = World::memory().await;
    world.network.set_online(false);
    let ada = seat(world.client()).await;
    assert!(ada.roster.get().is_empty());
    ada.presence.set(&at("ada", 1)).unwrap();
    let peers = ada.roster.get();
    assert!(peers[0].is_me);
    assert_eq!(peers[0].state, Some(at("ada", 1)));
    assert_eq!(peers.len(), 1);
    world.network.set_online(true);
    ada.client.on_network_change();
    let mut bob = seat(world.client()).await;
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    ada.presence.clear();
    assert!(ada.roster.get().is_empty());
    sees(&mut bob.roster, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_a_presence_takes_nothing_back_and_keeps_the_document_open_until_then() {
    let world = World::memory().await;
    let Seat {
        client,
        document,
        presence,
        roster: ada,
    } = seat(world.client()).await;
    let mut bob = seat(world.client()).await;
    document.presence().set(&at("ada", 1)).unwrap();
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    drop(document);
    sleep(GRACE * 2).await;
    assert_eq!(others(&bob.roster.get()), [at("ada", 1)]);
    presence.set(&at("ada", 2)).unwrap();
    sees(&mut bob.roster, &[at("ada", 2)]).await;
    drop(presence);
    sees(&mut bob.roster, &[]).await;
    let mut ada = ada;
    while let Ok(peers) = within("nobody changes it", ada.changed()).await {
        drop(peers);
    }
    assert_eq!(ada.changed().await.err(), Some(Closed));
    drop(client);
}

/// What an application does not understand of another version is no error.
#[tokio::test(start_paused = true)]
async fn somebody_who_says_something_else_is_there_without_a_state() {
    let world = World::memory().await;
    let mut ada = seat(world.client()).await;
    let bob = seat(world.client()).await;
    bob.document
        .presence::<Vec<bool>>()
        .set(&vec![true])
        .unwrap();
    let peers = ada.roster.wait_for(|peers| !peers.is_empty());
    let peers = within("bob is there", peers).await.unwrap();
    assert_eq!((peers.len(), &peers[0].state), (1, &None));
    let same = ada.document.presence::<Vec<bool>>().roster().get();
    assert_eq!(same[0].state, Some(vec![true]));
    bob.presence.set(&at("bob", 1)).unwrap();
    sees(&mut ada.roster, &[at("bob", 1)]).await;
    assert_eq!(
        ada.document.presence::<Vec<bool>>().roster().get()[0].state,
        None
    );
}

/// A fault in the application's own code for reading costs that state.
#[tokio::test(start_paused = true)]
async fn a_panic_while_a_state_is_read_leaves_the_client_alive() {
    #[derive(Debug)]
    struct Faulty;
    impl serde::Serialize for Faulty {
        fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_unit()
        }
    }
    impl<'de> serde::Deserialize<'de> for Faulty {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            panic!("a fault of the application")
        }
    }
    let world = World::memory().await;
    let ada = seat(world.client()).await;
    let mut bob = seat(world.client()).await;
    let mut faulty = bob.document.presence::<Faulty>().roster();
    ada.presence.set(&at("ada", 1)).unwrap();
    let peers = faulty.wait_for(|peers| !peers.is_empty());
    let peers = within("ada is there", peers).await.unwrap();
    assert!(peers[0].state.is_none());
    sees(&mut bob.roster, &[at("ada", 1)]).await;
}
