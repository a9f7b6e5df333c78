//! Credentials that are good for some time only.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod e2e;
mod registries;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use e2e::{Over, World, push, text, until_status, within};
use sync_client::{Client, DocumentHandle, Engine, ErrorCode, FailedReason, Status};
use sync_server::{
    Access, Auth, AuthError, Authenticator, CloseReason, ConnectRequest, Events, Identity,
    ServerEvent, User, authorize_fn,
};

const DOC: &str = "doc";
/// How long each token is good.
const VALID: Duration = Duration::from_secs(100);

/// Takes tokens such as `ada-3`, and writes them down.
#[derive(Clone, Default)]
struct Office(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    seen: Vec<String>,
    refused: Vec<&'static str>,
    /// Questions that nobody can answer.
    unanswered: Vec<&'static str>,
}

impl Office {
    fn seen(&self) -> Vec<String> {
        self.0.lock().unwrap().seen.clone()
    }
}

#[async_trait]
impl Authenticator for Office {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        let token = request.credentials.clone().unwrap();
        let token = String::from_utf8(token.to_vec()).unwrap();
        let mut book = self.0.lock().unwrap();
        book.seen.push(token.clone());
        if book.refused.contains(&&*token) {
            return Err(AuthError::refused("not this one"));
        }
        if let Some(at) = book.unanswered.iter().position(|it| *it == token) {
            book.unanswered.remove(at);
            return Err(AuthError::unavailable("the database is away"));
        }
        let user = User::new(token.split_once('-').unwrap().0);
        Ok(Identity::new(user).valid_for(VALID))
    }
}

async fn world_over(over: Over) -> (World, Office) {
    let office = Office::default();
    let may = authorize_fn(|_, _| async { Ok(Access::write()) });
    let auth = Auth::new(office.clone(), may);
    (World::assemble(over, auth, |builder| builder).await, office)
}

async fn world() -> (World, Office) {
    world_over(Over::Memory).await
}

/// A client that has the tokens `ada-1`, `ada-2` and so on, or what `otherwise` makes of the number.
fn client(
    world: &World,
    otherwise: impl Fn(u32) -> Option<Result<&'static str, &'static str>> + Send + Sync + 'static,
) -> Client {
    let next = Mutex::new(1);
    let ask = move || {
        let n = {
            let mut next = next.lock().unwrap();
            let n = *next;
            *next += 1;
            n
        };
        let token = otherwise(n)
            .unwrap_or(Ok("ada"))
            .map(|user| format!("{user}-{n}"));
        async move { token }
    };
    world.builder().credentials(ask).start().unwrap()
}

async fn saved<E: Engine>(document: &DocumentHandle<E>) {
    within("saved", document.saved()).await.unwrap();
}

/// How the next session ends.
async fn ended(events: &mut Events<ServerEvent>) -> CloseReason {
    loop {
        if let Some(ServerEvent::SessionClosed { reason, .. }) = events.next().await {
            return reason;
        }
    }
}

fn is_unauthenticated(reason: &CloseReason) -> bool {
    matches!(reason, CloseReason::Ended(error) if error.code == ErrorCode::Unauthenticated)
}

/// Scenario 56: over real sockets.
#[tokio::test]
async fn credentials_are_refreshed_over_a_websocket_without_reconnecting() {
    let (world, office) = world_over(Over::WebSocket).await;
    let mut events = world.server.events();
    let ada = client(&world, |_| None);
    let doc = text(&ada, DOC).await;
    while office.seen().len() < 4 {
        push(&doc, ".");
        saved(&doc).await;
        // Not so much at once that the connection seems dead.
        world.pass(VALID / 20).await;
    }
    push(&doc, "!");
    saved(&doc).await;
    assert_eq!(office.seen(), ["ada-1", "ada-2", "ada-3", "ada-4"]);
    while let Some(event) = events.try_next() {
        let is_end = matches!(event, ServerEvent::SessionClosed { .. });
        assert!(!is_end, "{event:?}");
    }
}

/// Scenario 56.
#[tokio::test(start_paused = true)]
async fn credentials_are_refreshed_in_time_without_reconnecting() {
    let (world, office) = world().await;
    let ada = client(&world, |_| None);
    let doc = text(&ada, DOC).await;
    push(&doc, "one ");
    saved(&doc).await;
    // 30 s before each token ends.
    tokio::time::sleep(Duration::from_secs(3 * 70 + 1)).await;
    push(&doc, "two");
    saved(&doc).await;
    assert_eq!(office.seen(), ["ada-1", "ada-2", "ada-3", "ada-4"]);
    assert_eq!(world.network.dials(), 1);
}

/// Scenario 56: a client that has no others is turned away when they end.
#[tokio::test(start_paused = true)]
async fn a_session_ends_with_its_credentials() {
    let (world, office) = world().await;
    let mut events = world.server.events();
    let ada = world.builder().token("ada-1").start().unwrap();
    let doc = text(&ada, DOC).await;
    push(&doc, "one ");
    saved(&doc).await;
    let started = tokio::time::Instant::now();
    assert!(is_unauthenticated(&ended(&mut events).await));
    assert!(started.elapsed() <= VALID && started.elapsed() > VALID - Duration::from_secs(5));
    until_status(&ada, "turned away", |status| {
        matches!(status, Status::Failed(FailedReason::Server(error)) if error.code == ErrorCode::Unauthenticated)
    })
    .await;
    assert_eq!(office.seen(), ["ada-1"]);
}

/// Scenario 56.
#[tokio::test(start_paused = true)]
async fn credentials_that_are_not_to_be_had_in_time_are_asked_for_until_they_are() {
    let (world, office) = world().await;
    let mut events = world.server.events();
    // Not when the server asks, nor for the next two connections.
    let ada = client(&world, |n| {
        (2..=4)
            .contains(&n)
            .then_some(Err("the identity provider is away"))
    });
    let doc = text(&ada, DOC).await;
    saved(&doc).await;
    until_status(&ada, "connected", |status| *status == Status::Connected).await;
    assert!(is_unauthenticated(&ended(&mut events).await));
    push(&doc, "made meanwhile");
    saved(&doc).await;
    assert_eq!(office.seen(), ["ada-1", "ada-5"]);
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_fetched_anew() {
    let (world, office) = world().await;
    office.0.lock().unwrap().refused.extend(["ada-1", "ada-2"]);
    let ada = client(&world, |_| None);
    let doc = text(&ada, DOC).await;
    push(&doc, "in");
    saved(&doc).await;
    assert_eq!(office.seen(), ["ada-1", "ada-2", "ada-3"]);
}

#[tokio::test(start_paused = true)]
async fn code_for_credentials_that_panics_costs_one_attempt() {
    let (world, office) = world().await;
    let ada = client(&world, |n| {
        (n == 1).then(|| panic!("a bug of the application"))
    });
    let doc = text(&ada, DOC).await;
    push(&doc, "in");
    saved(&doc).await;
    assert_eq!(office.seen(), ["ada-2"]);
}

/// Scenario 56: who somebody is does not change within a session.
#[tokio::test(start_paused = true)]
async fn fresh_credentials_of_somebody_else_end_the_session() {
    let (world, _office) = world().await;
    let mut events = world.server.events();
    let ada = client(&world, |n| (n == 2).then_some(Ok("eve")));
    let doc = text(&ada, DOC).await;
    saved(&doc).await;
    assert!(is_unauthenticated(&ended(&mut events).await));
    // With her own again she is let in.
    push(&doc, "back");
    saved(&doc).await;
}

/// Scenario 56: an error is no no.
#[tokio::test(start_paused = true)]
async fn fresh_credentials_that_nobody_can_tell_about_are_asked_for_again() {
    let (world, office) = world().await;
    office
        .0
        .lock()
        .unwrap()
        .unanswered
        .extend(["ada-2", "ada-3"]);
    let ada = client(&world, |_| None);
    let doc = text(&ada, DOC).await;
    push(&doc, "one ");
    saved(&doc).await;
    tokio::time::sleep(VALID + Duration::from_secs(10)).await;
    push(&doc, "two");
    saved(&doc).await;
    assert_eq!(office.seen(), ["ada-1", "ada-2", "ada-3", "ada-4"]);
    assert_eq!(world.network.dials(), 1);
}

/// Scenario 56: the application ends what a user has, and nobody else's.
#[tokio::test(start_paused = true)]
async fn a_user_who_is_disconnected_has_to_say_again_who_it_is() {
    let (world, office) = world().await;
    let mut events = world.server.events();
    let ada = client(&world, |_| None);
    let bob = world.builder().token("bob-1").start().unwrap();
    let (hers, his) = (text(&ada, DOC).await, text(&bob, DOC).await);
    for document in [&hers, &his] {
        within("here", document.caught_up()).await.unwrap();
    }
    assert_eq!(world.server.disconnect("eve"), 0);
    assert_eq!(world.server.disconnect("ada"), 1);
    push(&hers, "two");
    assert!(is_unauthenticated(&ended(&mut events).await));
    saved(&hers).await;
    assert_eq!(office.seen().len(), 3);
    assert_eq!(office.seen().last().unwrap(), "ada-2");

    // Who has nothing else to say stays away until the application says otherwise.
    assert_eq!(world.server.disconnect("bob"), 1);
    let failed = |status: &Status| matches!(status, Status::Failed(_));
    until_status(&bob, "turned away", failed).await;
    bob.connect();
    until_status(&bob, "back", |status| *status == Status::Connected).await;
}
