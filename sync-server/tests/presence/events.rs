//! What the server tells of it.

use super::*;

/// Scenario 72.
#[tokio::test(start_paused = true)]
async fn the_server_tells_who_joined_and_left_once_each() {
    let world = World::memory().await;
    let mut events = world.server.events();
    let ada = seat(world.client()).await;
    let mut bob = seat(world.client()).await;
    let mut told = Vec::new();
    let mut tell = |events: &mut sync_client::Events<ServerEvent>| {
        while let Some(event) = events.try_next() {
            match event {
                ServerEvent::PresenceJoined {
                    document,
                    session,
                    user,
                    instead_of,
                } => {
                    assert_eq!((document.as_str(), &*user.id), (NOTES, "anonymous"));
                    told.push((session, true, instead_of));
                }
                ServerEvent::PresenceLeft { document, session } => {
                    assert_eq!(document.as_str(), NOTES);
                    told.push((session, false, None));
                }
                _ => {}
            }
        }
        std::mem::take(&mut told)
    };
    ada.presence.set(&at("ada", 1)).unwrap();
    let first = sees(&mut bob.roster, &[at("ada", 1)]).await[0].session;
    ada.presence.set(&at("ada", 2)).unwrap();
    sees(&mut bob.roster, &[at("ada", 2)]).await;
    assert_eq!(tell(&mut events), [(first, true, None)]);
    assert!(world.network.cut_nth(0));
    let second = bob.roster.wait_for(|p| p[0].session != first);
    let second = within("she is back", second).await.unwrap()[0].session;
    assert_eq!(tell(&mut events), [(second, true, Some(first))]);
    ada.presence.clear();
    sees(&mut bob.roster, &[]).await;
    assert_eq!(tell(&mut events), [(second, false, None)]);
    // Said and taken back in one tick: nothing has happened.
    sleep(2 * TICK).await;
    ada.presence.set(&at("ada", 3)).unwrap();
    sees(&mut bob.roster, &[at("ada", 3)]).await;
    assert_eq!(tell(&mut events), [(second, true, None)]);
    world.network.set_online(false);
    assert!(world.network.cut_nth(1), "hers is the newer one now");
    sees(&mut bob.roster, &[]).await;
    assert_eq!(tell(&mut events), [(second, false, None)]);
}
