//! Credentials that come with the request for a WebSocket, and those that come later.
#![cfg(all(feature = "http", feature = "jwt"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod asking;
mod e2e;
mod registries;
mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;

use asking::{ask, ask_upgrade};
use e2e::{push, text, until_status, within};
use sync_client::transport::WebSocketDialer;
use sync_client::{Client, ErrorCode, FailedReason, Status, SyncPhase};
use sync_server::http::{Routes, routes};
use sync_server::registry::FaultyRegistry;
use sync_server::{
    Access, Auth, AuthError, Authenticator, ConnectRequest, CredentialsSource, Identity, Jwt,
    MemoryRegistry, Server, ServerEvent, authorize_fn,
};
use tokens::{SECRET, from_now, hs256, token_of};
use tokio::net::TcpListener;

type Registry = Arc<FaultyRegistry<MemoryRegistry>>;

fn server(who: impl Authenticator) -> (Server, Registry) {
    let may = authorize_fn(|user, document| async move {
        let is_own = document.as_str().split('/').next() == Some(&*user.id);
        Ok(if is_own {
            Access::write()
        } else {
            Access::none()
        })
    });
    let registry = Arc::new(FaultyRegistry::new(MemoryRegistry::new()));
    let server = Server::builder(registry.clone(), Auth::new(who, may));
    (server.build().unwrap(), registry)
}

fn jwt() -> Jwt {
    Jwt::hs256(SECRET).unwrap()
}

async fn serve(routes: Routes) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = routes.sync("/").into_router::<()>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn expired() -> String {
    hs256(&serde_json::json!({ "sub": "ada", "exp": from_now(-3_600) }))
}

/// Scenario 52.
#[tokio::test]
async fn bad_credentials_of_a_request_are_refused_before_the_upgrade() {
    let (server, registry) = server(jwt());
    let mut events = server.events();
    let address = serve(routes(server)).await;
    let forged = format!("{}A", token_of("ada"));
    for token in [expired(), forged, "garbage".to_owned(), String::new()] {
        let header = format!("Authorization: Bearer {token}");
        let answer = ask_upgrade(address, "/", &[&header]).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert!(answer.contains("www-authenticate: Bearer\r\n"), "{answer}");
        assert!(token.is_empty() || !answer.contains(&token), "{answer}");
    }
    // Nothing began.
    assert!(events.try_next().is_none());
    assert!(registry.calls().is_empty());
    // What is no request for a WebSocket is told so, whoever asks.
    let answer = ask(address, "GET /", &["Authorization: Bearer garbage"]).await;
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
}

/// Scenario 52.
#[tokio::test]
async fn missing_and_bad_credentials_of_a_hello_close_the_connection_for_good() {
    let (server, registry) = server(jwt());
    let mut events = server.events();
    let url = format!("ws://{}", serve(routes(server)).await);
    for builder in [
        Client::builder(&url),
        Client::builder(&url).token(expired()),
        Client::builder(&url).token("garbage"),
    ] {
        let nobody = builder.start().unwrap();
        let _document = text(&nobody, "ada/notes").await;
        until_status(&nobody, "refused", |status| {
            matches!(status, Status::Failed(FailedReason::Server(error)) if error.code == ErrorCode::Unauthenticated)
        })
        .await;
        let event = within("told", events.next()).await;
        assert!(
            matches!(event, Some(ServerEvent::ConnectionFailed { .. })),
            "{event:?}"
        );
    }
    assert!(registry.calls().is_empty());
}

/// Scenario 55.
#[tokio::test]
async fn who_the_request_names_may_do_what_that_user_may_and_no_more() {
    let (server, _registry) = server(jwt());
    let url = format!("ws://{}", serve(routes(server)).await);
    let bearer = format!("Bearer {}", token_of("ada"));
    let dialer = WebSocketDialer::new(&url).unwrap();
    let dialer = dialer.header("Authorization", &bearer).unwrap();
    // Her hello says something else, which nobody looks at.
    let ada = Client::with_dialer(dialer)
        .token(token_of("bob"))
        .start()
        .unwrap();
    let hers = text(&ada, "ada/notes").await;
    push(&hers, "mine");
    within("saved", hers.saved()).await.unwrap();
    let his = text(&ada, "bob/notes").await;
    let denied = SyncPhase::Refused(ErrorCode::AccessDenied);
    let mut state = his.sync_state();
    within("denied", state.wait_for(|state| state.phase == denied))
        .await
        .unwrap();
}

#[tokio::test]
async fn cookies_and_addresses_hold_credentials_only_where_that_is_said() {
    let plain = serve(routes(server(jwt()).0)).await;
    let all = serve(routes(server(jwt()).0).cookie("session").token_in_query()).await;
    let (good, bad) = (token_of("ada"), expired());
    let cookie = |token: &str| format!("Cookie: a=b; session={token}; sessions=x");
    let query = |token: &str| format!("/?a=b&token={token}");
    let other = "Authorization: Basic YWRhOg==".to_owned();
    for (address, path, line, status) in [
        (plain, "/".to_owned(), cookie(&bad), "101"),
        (plain, query(&bad), other.clone(), "101"),
        (all, "/".to_owned(), cookie(&bad), "401"),
        (all, "/".to_owned(), cookie(&good), "101"),
        (all, query(&bad), other.clone(), "401"),
        (all, query(&good), other, "101"),
        // The header goes first.
        (
            all,
            query(&bad),
            format!("Authorization: bearer {good}"),
            "101",
        ),
    ] {
        let answer = ask_upgrade(address, &path, &[&line]).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{path} {line}: {answer}");
    }
}

/// Says what it was asked, and cannot tell.
struct Away;

#[async_trait::async_trait]
impl Authenticator for Away {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        assert_eq!(request.source, CredentialsSource::Authorization);
        assert!(!format!("{request:?}").contains("a secret"));
        Err(AuthError::unavailable("the database is away"))
    }
}

#[tokio::test]
async fn an_authenticator_that_cannot_tell_is_no_refusal() {
    let address = serve(routes(server(Away).0)).await;
    let answer = ask_upgrade(address, "/", &["Authorization: Bearer a secret"]).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after: "), "{answer}");
    assert!(!answer.contains("database"), "{answer}");
}

/// Lets in whoever has been refused often enough.
struct Doorman(std::sync::atomic::AtomicU32);

#[async_trait::async_trait]
impl Authenticator for Doorman {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        assert_eq!(request.source, CredentialsSource::Authorization);
        match self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => Err(AuthError::refused("not yet")),
            _ => Ok(sync_server::User::new("ada").into()),
        }
    }
}

/// Scenario 52: who can get other credentials is asked for them, and tries again.
#[tokio::test]
async fn a_401_has_credentials_asked_for_again_where_they_can_be() {
    let (server, _registry) = server(Doorman(0.into()));
    let url = format!("ws://{}", serve(routes(server)).await);
    let dialer = WebSocketDialer::new(&url).unwrap();
    let dialer = dialer.header("Authorization", "Bearer of a proxy").unwrap();
    let nobody = Client::with_dialer(dialer)
        .token("the same for ever")
        .start()
        .unwrap();
    until_status(&nobody, "refused for good", |status| {
        matches!(status, Status::Failed(FailedReason::Refused(_)))
    })
    .await;

    let (server, _registry) = self::server(Doorman(0.into()));
    let url = format!("ws://{}", serve(routes(server)).await);
    let dialer = WebSocketDialer::new(&url).unwrap();
    let dialer = dialer.header("Authorization", "Bearer of a proxy").unwrap();
    let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let ask = move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async { Ok::<_, std::io::Error>("fresh") }
    };
    let ada = Client::with_dialer(dialer)
        .credentials(ask)
        .start()
        .unwrap();
    until_status(&ada, "in", |status| *status == Status::Connected).await;
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 2);
}
