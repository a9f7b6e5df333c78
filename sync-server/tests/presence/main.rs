//! Who has a document open, and what they say of themselves.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "scenarios are plain async functions"
)]

#[path = "../e2e/mod.rs"]
mod e2e;
#[path = "../registries/mod.rs"]
mod registries;

mod events;
mod identity;
mod limits;
mod lost;
mod seen;
mod slow;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use e2e::frames::{Peer as Scripted, frame, hello, receive, send};
use e2e::proxy::Proxy;
use e2e::tap::{Tap, Way};
use e2e::{Over, World, content, map, push, set, text, until, until_status, within};
use sync_client::transport::WebSocketDialer;
use sync_client::{
    Client, ClientEvent, Closed, DocumentHandle, EngineId, ErrorCode, Peer, Presence,
    PresenceError, SessionId, Status, Watch, Yrs,
};
use sync_core::ids::{Channel, RequestId};
use sync_core::rate::Rate;
use sync_core::wire::{
    AccessLevel, Message, Open, Presence as PresenceMessage, PresenceDelta, Reference,
};
use sync_server::{
    Access, Auth, AuthError, Authenticator, ConnectRequest, DocumentId, Identity, Limits,
    ServerEvent, User, authorize_fn,
};
use tokio::time::{Instant, sleep};

const NOTES: &str = "notes";
const GRACE: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(50);

/// A name and a place.
type Cursor = (String, u32);
type Roster = Watch<Arc<[Peer<Cursor>]>>;

fn at(name: &str, place: u32) -> Cursor {
    (name.to_owned(), place)
}

/// The others, by what they say.
fn others(peers: &[Peer<Cursor>]) -> Vec<Cursor> {
    let others = peers.iter().filter(|peer| !peer.is_me);
    let mut said: Vec<_> = others.filter_map(|peer| peer.state.clone()).collect();
    said.sort();
    said
}

async fn sees(roster: &mut Roster, wanted: &[Cursor]) -> Arc<[Peer<Cursor>]> {
    let what = format!("{wanted:?} are there");
    let seen = roster.wait_for(|peers| others(peers) == wanted);
    within(&what, seen).await.unwrap()
}

struct Seat {
    client: Client,
    document: DocumentHandle<Yrs>,
    presence: Presence<Cursor>,
    roster: Roster,
}

async fn seat(client: Client) -> Seat {
    let document = text(&client, NOTES).await;
    let presence = document.presence();
    let roster = presence.roster();
    Seat {
        client,
        document,
        presence,
        roster,
    }
}

/// Ada and Bob, who see each other.
async fn two(world: &World) -> (Seat, Seat) {
    two_of(world, world.client()).await
}

/// The same, where this client is Ada's.
async fn two_of(world: &World, ada: Client) -> (Seat, Seat) {
    let mut ada = seat(ada).await;
    let mut bob = seat(world.client()).await;
    ada.presence.set(&at("ada", 1)).unwrap();
    bob.presence.set(&at("bob", 1)).unwrap();
    sees(&mut ada.roster, &[at("bob", 1)]).await;
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    (ada, bob)
}

async fn scripted(world: &World, origin: u128) -> (Scripted, SessionId, Channel) {
    let mut peer = world.dial().await;
    send(&mut peer, hello(origin)).await;
    let Some(Message::Welcome(welcome)) = receive(&mut peer).await else {
        panic!("not welcome");
    };
    let open = Message::Open(Open {
        request: RequestId(1),
        document: DocumentId::new(NOTES).unwrap(),
        engine: EngineId::YRS,
        cursor: None,
        origins: Vec::new(),
        access: AccessLevel::Write,
        create: true,
        partial: None,
    });
    send(&mut peer, frame(&open)).await;
    let channel = loop {
        if let Some(Message::Opened(opened)) = receive(&mut peer).await {
            break opened.channel;
        }
    };
    (peer, welcome.session, channel)
}

fn says(channel: Channel, deltas: &[(SessionId, &'static [u8])]) -> bytes::Bytes {
    let delta = |(session, state): &(SessionId, &'static [u8])| PresenceDelta {
        session: *session,
        user: "root".into(),
        state: (!state.is_empty()).then(|| bytes::Bytes::from_static(state)),
    };
    frame(&Message::Presence(PresenceMessage {
        channel,
        deltas: deltas.iter().map(delta).collect(),
        table_version: 0,
    }))
}
