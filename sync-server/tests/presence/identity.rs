//! Whose presence it is: the server says who somebody is, and nobody speaks for another.

use super::*;

struct Tokens;

#[async_trait]
impl Authenticator for Tokens {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        let token = request.credentials.clone().unwrap_or_default();
        Ok(User::new(String::from_utf8(token.to_vec()).unwrap()).into())
    }
}

fn auth() -> Auth {
    Auth::new(
        Tokens,
        authorize_fn(|_: User, _: DocumentId| async { Ok::<_, AuthError>(Access::read()) }),
    )
}

/// Whoever may read may be seen; the server says who it is.
#[tokio::test(start_paused = true)]
async fn the_server_says_who_somebody_is() {
    let world = World::with_auth(auth()).await;
    let document = DocumentId::new(NOTES).unwrap();
    let new = sync_server::registry::NewDocument::new(
        document,
        EngineId::YRS,
        sync_server::registry::Epoch(1),
    );
    sync_server::registry::ServerRegistry::create(&*world.registry, new)
        .await
        .unwrap();
    let ada = seat(world.builder().token("ada").start().unwrap()).await;
    let mut bob = seat(world.builder().token("bob").start().unwrap()).await;
    ada.presence.set(&at("I am bob", 1)).unwrap();
    let peers = sees(&mut bob.roster, &[at("I am bob", 1)]).await;
    assert_eq!(&*peers[0].user.id, "ada");
    bob.presence.set(&at("bob", 1)).unwrap();
    let me = bob.roster.wait_for(|peers| peers.len() == 2);
    let peers = within("both", me).await.unwrap();
    let me = peers.iter().find(|peer| peer.is_me).unwrap();
    assert_eq!(&*me.user.id, "bob");
}

/// Who may not read any more is not seen, and sees nobody.
#[tokio::test(start_paused = true)]
async fn who_loses_the_right_to_read_is_gone_at_once() {
    let denied = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let may = denied.clone();
    let auth = Auth::new(
        Tokens,
        authorize_fn(move |user: User, _: DocumentId| {
            let is_denied = &*user.id == "bob" && may.load(std::sync::atomic::Ordering::Relaxed);
            async move {
                Ok::<_, AuthError>(if is_denied {
                    Access::none()
                } else {
                    Access::write()
                })
            }
        }),
    );
    let world = World::with_auth(auth).await;
    let mut ada = seat(world.builder().token("ada").start().unwrap()).await;
    let mut bob = seat(world.builder().token("bob").start().unwrap()).await;
    ada.presence.set(&at("ada", 1)).unwrap();
    bob.presence.set(&at("bob", 1)).unwrap();
    sees(&mut ada.roster, &[at("bob", 1)]).await;
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    denied.store(true, std::sync::atomic::Ordering::Relaxed);
    let begun = Instant::now();
    world
        .server
        .reauthorize(&DocumentId::new(NOTES).unwrap())
        .await;
    ada.presence.set(&at("ada", 2)).unwrap();
    bob.presence.set(&at("bob", 2)).unwrap();
    sees(&mut ada.roster, &[]).await;
    assert!(begun.elapsed() <= 2 * TICK, "{:?}", begun.elapsed());
    // What she said since never reaches him.
    loop {
        let seen = others(&bob.roster.get());
        assert_ne!(seen, [at("ada", 2)]);
        if seen.is_empty() {
            break;
        }
        within("he sees nobody", bob.roster.changed())
            .await
            .unwrap();
    }
    sleep(GRACE).await;
    assert!(others(&ada.roster.get()).is_empty());
    assert!(others(&bob.roster.get()).is_empty());
}

both! {
    /// Scenario 69: never settable for another session.
    nobody_says_anything_of_another_session => another_session
}

async fn another_session(world: World) {
    let mut events = world.server.events();
    let ada = seat(world.client()).await;
    let mut bob = seat(world.client()).await;
    ada.presence.set(&at("ada", 1)).unwrap();
    let peers = sees(&mut bob.roster, &[at("ada", 1)]).await;
    let adas = peers[0].session;

    let (mut mallory, own, channel) = scripted(&world, 666).await;
    // Of another, of nobody, of everybody: nothing comes of it.
    let lie: &[u8] = &[0x92, 0xa3, b'l', b'i', b'e', 3];
    for session in [adas, SessionId(12), SessionId(0)] {
        send(&mut mallory, says(channel, &[(session, lie)])).await;
        send(&mut mallory, says(channel, &[(session, b"")])).await;
        send(&mut mallory, says(channel, &[])).await;
    }
    // Of several only its own, the last of it, and as the user that it is.
    let truth: &[u8] = &[0x92, 0xa1, b'm', 9];
    send(
        &mut mallory,
        says(
            channel,
            &[(own, lie), (adas, lie), (own, truth), (SessionId(0), b"")],
        ),
    )
    .await;
    let peers = sees(&mut bob.roster, &[at("ada", 1), at("m", 9)]).await;
    for peer in &*peers {
        assert_eq!(&*peer.user.id, "anonymous");
    }
    let mut ignored = 0;
    while let Some(event) = events.try_next() {
        if let ServerEvent::MessageIgnored { session, message } = event {
            assert_eq!((session, message), (own, "Presence"));
            ignored += 1;
        }
    }
    assert_eq!(ignored, 9);
}

/// Who has not opened the document is told so and does no harm.
#[tokio::test(start_paused = true)]
async fn nobody_says_anything_in_a_document_that_is_not_open() {
    let world = World::memory().await;
    let mut bob = seat(world.client()).await;
    let (mut mallory, own, channel) = scripted(&world, 666).await;
    send(
        &mut mallory,
        says(Channel(channel.0 + 1), &[(own, b"\xc0")]),
    )
    .await;
    let answer = receive(&mut mallory).await;
    assert!(
        matches!(&answer, Some(Message::Error(e)) if e.code == ErrorCode::ChannelNotOpen),
        "{answer:?}"
    );
    send(&mut mallory, says(channel, &[(own, b"\xa1x")])).await;
    let peers = bob.roster.wait_for(|peers| !peers.is_empty());
    assert_eq!(within("it goes on", peers).await.unwrap().len(), 1);
}
