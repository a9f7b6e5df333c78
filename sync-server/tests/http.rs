//! The server inside an axum application, over real sockets.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod asking;
mod e2e;
mod registries;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use asking::{ask, ask_upgrade};
use axum::Router;
use axum::extract::{State, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use e2e::{content, push, text, until, until_status, within};
use sync_client::transport::{Dialer, WebSocketDialer};
use sync_client::{Client, Status};
use sync_core::transport::suite::Suite;
use sync_server::registry::FaultyRegistry;
use sync_server::transport::{Transport, TransportError};
use sync_server::{
    Access, Anonymous, Auth, AuthError, Authenticator, ConnectRequest, Identity, MemoryRegistry,
    Server, ServerEvent, User, authorize_fn, http,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

fn server() -> Server {
    Server::builder(MemoryRegistry::new(), Anonymous::read_write())
        .build()
        .unwrap()
}

/// Serves the application at a free port.
async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Sends the transport of each connection.
async fn accepting(
    State(accepted): State<mpsc::Sender<Box<dyn Transport>>>,
    ws: WebSocketUpgrade,
) -> Response {
    http::configured(ws).on_upgrade(|socket| async move {
        let _ = accepted.send(Box::new(http::transport(socket))).await;
    })
}

async fn acceptor() -> (SocketAddr, mpsc::Receiver<Box<dyn Transport>>) {
    let (sender, accepted) = mpsc::channel(1);
    let app = Router::new().route("/", get(accepting)).with_state(sender);
    (serve(app).await, accepted)
}

/// Scenario 75.
#[tokio::test]
async fn the_transport_over_axum_passes_the_transport_suite() {
    let connect = || async {
        let (address, mut accepted) = acceptor().await;
        let dialer = WebSocketDialer::new(&format!("ws://{address}")).unwrap();
        let dialed = dialer.dial().await.unwrap();
        (dialed, accepted.recv().await.unwrap())
    };
    Suite::new(connect).run().await;
}

/// What an accepted connection makes of a message, and the close code that its sender gets.
async fn reaction_to(message: Message) -> (TransportError, u16) {
    let (address, mut accepted) = acceptor().await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut client, _) = tokio_tungstenite::client_async(format!("ws://{address}/"), stream)
        .await
        .unwrap();
    let mut transport = accepted.recv().await.unwrap();
    let (received, _) = tokio::join!(
        poll_fn(|cx| transport.poll_receive(cx)),
        futures_util::SinkExt::send(&mut client, message)
    );
    let error = received.unwrap().unwrap_err();
    loop {
        let next = futures_util::StreamExt::next(&mut client).await;
        match next.unwrap().unwrap() {
            Message::Close(Some(frame)) => return (error, frame.code.into()),
            other => assert!(!other.is_binary(), "{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_frame_or_too_large_is_refused_and_its_sender_is_told() {
    let (error, code) = reaction_to(Message::text("hello")).await;
    assert!(
        matches!(error, TransportError::WrongProtocol(_)),
        "{error:?}"
    );
    assert_eq!(code, 1003);
    let bytes = 128 * 1024 + 1;
    let (error, code) = reaction_to(Message::binary(vec![0; bytes])).await;
    assert!(
        matches!(error, TransportError::TooLarge { bytes: b, .. } if b == bytes),
        "{error:?}"
    );
    assert_eq!(code, 1009);
}

/// Scenario 75, inside an application that has routes and a state of its own.
#[tokio::test]
async fn clients_sync_through_a_router_that_is_nested_in_an_application() {
    let server = server();
    let mut events = server.events();
    let app = Router::new()
        .route(
            "/",
            get(|State(name): State<&'static str>| async move { name }),
        )
        .nest("/sync", http::router(server.clone()))
        .with_state("an application");
    let address = serve(app).await;
    assert!(ask(address, "GET /", &[]).await.ends_with("an application"));

    let url = format!("ws://{address}/sync");
    let (ada, bob) = (
        Client::builder(&url).start().unwrap(),
        Client::builder(&url).start().unwrap(),
    );
    let (hers, his) = (text(&ada, "notes").await, text(&bob, "notes").await);
    push(&hers, "hello");
    until(&his, "the text arrives", |his, _| content(his) == "hello").await;
    within("saved", hers.saved()).await.unwrap();
    loop {
        if let Some(ServerEvent::SessionOpened { peer, .. }) = events.next().await {
            assert!(peer.address.unwrap().ip().is_loopback());
            break;
        }
    }

    // axum knows nothing of these connections any more; the server does.
    server.shutdown(Duration::ZERO).await;
    until_status(&ada, "cut", |status| *status != Status::Connected).await;
    let answer = ask_upgrade(address, "/sync", &[]).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

/// Scenario 27.
#[tokio::test]
async fn what_is_no_request_for_a_websocket_gets_a_bare_answer() {
    let address = serve(http::router(server())).await;
    let answer = ask(address, "GET /", &[]).await;
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    assert!(answer.contains("upgrade: websocket\r\n"), "{answer}");
    assert!(
        answer.ends_with("This address speaks the sync protocol over WebSocket.\n"),
        "{answer}"
    );
    for (request, status) in [
        ("POST /", "405"),
        ("GET /other", "404"),
        ("GET /../../etc/passwd", "404"),
    ] {
        let answer = ask(address, request, &[]).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {answer}"
        );
    }
    let old = [
        "Connection: upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 8",
    ];
    let answer = ask(address, "GET /", &old).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn pages_of_other_origins_may_connect_only_if_that_is_said() {
    let own = serve(http::router(server())).await;
    let routes = || http::routes(server()).sync("/");
    let some = routes().allowed_origins(["https://app.example.com"]);
    let some = serve(some.into_router()).await;
    let any = serve(routes().any_origin().into_router()).await;

    let page_of = |address: SocketAddr| format!("Origin: http://{address}");
    for (address, origin, may) in [
        (own, String::new(), true),
        (own, page_of(own), true),
        (own, page_of(some), false),
        (own, "Origin: https://app.example.com".to_owned(), false),
        (own, "Origin: null".to_owned(), false),
        (some, "Origin: https://app.example.com".to_owned(), true),
        (
            some,
            "Origin: https://app.example.com.evil.org".to_owned(),
            false,
        ),
        (some, page_of(some), false),
        (some, String::new(), true),
        (any, "Origin: null".to_owned(), true),
    ] {
        let lines: &[&str] = if origin.is_empty() { &[] } else { &[&origin] };
        let answer = ask_upgrade(address, "/", lines).await;
        let status = if may {
            "HTTP/1.1 101 "
        } else {
            "HTTP/1.1 403 "
        };
        assert!(answer.starts_with(status), "{origin}: {answer}");
    }
}

#[tokio::test]
async fn a_server_is_healthy_always_and_ready_while_its_registry_answers() {
    let registry = Arc::new(FaultyRegistry::new(MemoryRegistry::new()));
    let server = Server::builder(registry.clone(), Anonymous::read_write())
        .build()
        .unwrap();
    let address = serve(http::routes(server.clone()).health().into_router()).await;
    let status = async |path: &str| {
        let answer = ask(address, &format!("GET {path}"), &[]).await;
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(status("/healthz").await, "200");
    assert_eq!(status("/readyz").await, "200");
    registry.fail_reads(1);
    assert_eq!(status("/readyz").await, "503");
    assert_eq!(status("/readyz").await, "200");
    // Clients are served only where that is asked for.
    assert_eq!(status("/").await, "404");
    server.shutdown(Duration::ZERO).await;
    assert_eq!(status("/healthz").await, "200");
    assert_eq!(status("/readyz").await, "503");
}

/// Nobody: who gets here has not been let in by the application.
struct Nobody;

#[async_trait::async_trait]
impl Authenticator for Nobody {
    async fn authenticate(&self, _: &ConnectRequest) -> Result<Identity, AuthError> {
        Err(AuthError::refused("not by this door"))
    }
}

#[tokio::test]
async fn an_application_with_a_login_of_its_own_says_who_the_user_is() {
    let auth = Auth::new(
        Nobody,
        authorize_fn(|user, _| async move {
            Ok(if &*user.id == "ada" {
                Access::write()
            } else {
                Access::none()
            })
        }),
    );
    let server = Server::builder(MemoryRegistry::new(), auth)
        .build()
        .unwrap();
    let handler = |State(server): State<Server>, ws: WebSocketUpgrade| async move {
        http::upgrade(&server, ws, Some(User::new("ada")))
    };
    let app = Router::new()
        .route("/door", get(handler))
        .with_state(server);
    let url = format!("ws://{}/door", serve(app).await);
    let ada = Client::builder(url).start().unwrap();
    let notes = text(&ada, "notes").await;
    push(&notes, "in");
    within("saved", notes.saved()).await.unwrap();
}
