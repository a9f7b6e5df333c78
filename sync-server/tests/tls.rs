//! TLS, both sides, over real sockets.
#![cfg(all(feature = "tls", feature = "tcp"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says that it failed by panicking"
)]

mod certificates;
mod e2e;
mod registries;

use std::net::SocketAddr;

use certificates::{authority, pem, tls};
use e2e::{content, push, text, until, until_status, within};
use sync_client::transport::{
    AddressError, CertificateProblem, DialError, Dialer, TcpDialer, WebSocketDialer,
};
use sync_client::{Client, ClientEvent, EndReason, StartError, Status};
use sync_core::transport::suite::Suite;
use sync_server::transport::{Acceptor, TcpAcceptor, Transport, TransportError, WebSocketAcceptor};
use sync_server::{Anonymous, Listener, MemoryRegistry, Server, Tls, TlsError};

async fn acceptor(tls: Tls) -> (WebSocketAcceptor, SocketAddr) {
    let acceptor = WebSocketAcceptor::bind("127.0.0.1:0").await.unwrap();
    let address = acceptor.local_addr().unwrap();
    (acceptor.tls(tls), address)
}

/// Trusts the authority of the tests, and nobody else.
fn dialer(address: &str) -> WebSocketDialer {
    let dialer = WebSocketDialer::new(address).unwrap();
    let dialer = dialer.platform_roots(false);
    dialer.root_certificate(&authority()).unwrap()
}

/// What a dialer and an acceptor make of each other.
async fn meet(
    dialer: &impl Dialer,
    acceptor: &mut impl Acceptor,
) -> (Result<(), DialError>, Result<(), TransportError>) {
    let (dialed, accepted) = tokio::join!(dialer.dial(), acceptor.accept());
    (dialed.map(drop), accepted.unwrap().map(drop))
}

/// Scenario 75.
#[tokio::test]
async fn websockets_over_tls_pass_the_transport_suite() {
    let connect = || async {
        let (mut acceptor, address) = acceptor(tls("loopback")).await;
        let dialer = dialer(&format!("wss://localhost:{}/sync", address.port()));
        let (dialed, accepted) = tokio::join!(dialer.dial(), acceptor.accept());
        let (transport, _) = accepted.unwrap().unwrap();
        (dialed.unwrap(), transport)
    };
    Suite::new(connect).run().await;
}

async fn serve(tls: Tls) -> (Listener, SocketAddr) {
    let server = Server::builder(MemoryRegistry::new(), Anonymous::read_write());
    let (acceptor, address) = acceptor(tls).await;
    (server.build().unwrap().listen(acceptor), address)
}

#[tokio::test]
async fn clients_sync_over_tls_at_names_and_at_addresses() {
    let (_listener, address) = serve(tls("loopback")).await;
    let port = address.port();
    let client = |host: &str| {
        let builder = Client::builder(format!("wss://{host}:{port}"));
        builder.root_certificate(authority()).start().unwrap()
    };
    let (ada, bob) = (client("localhost"), client("127.0.0.1"));
    let (hers, his) = (text(&ada, "notes").await, text(&bob, "notes").await);
    push(&hers, "hello");
    within("saved", hers.saved()).await.unwrap();
    until(&his, "the text arrives", |his, _| content(his) == "hello").await;
}

#[tokio::test]
async fn each_problem_of_a_certificate_is_named_and_nothing_is_sent() {
    for (name, expected) in [
        ("expired", CertificateProblem::Expired),
        ("future", CertificateProblem::NotYetValid),
        ("elsewhere", CertificateProblem::WrongName),
    ] {
        let (mut acceptor, address) = acceptor(tls(name)).await;
        let dialer = dialer(&format!("wss://{address}"))
            .header("secret", "s")
            .unwrap();
        let (dialed, accepted) = meet(&dialer, &mut acceptor).await;
        assert!(
            matches!(&dialed, Err(DialError::Untrusted(problem)) if *problem == expected),
            "{name} gave {dialed:?}"
        );
        assert!(accepted.is_err());
    }
    let (mut acceptor, address) = acceptor(tls("loopback")).await;
    let stranger = WebSocketDialer::new(&format!("wss://{address}"))
        .unwrap()
        .platform_roots(false)
        .root_certificate(&pem("elsewhere"))
        .unwrap();
    let (dialed, _) = meet(&stranger, &mut acceptor).await;
    let unknown = CertificateProblem::UnknownIssuer;
    assert!(
        matches!(&dialed, Err(DialError::Untrusted(problem)) if *problem == unknown),
        "{dialed:?}"
    );
}

#[tokio::test]
async fn a_client_tells_what_is_wrong_with_a_certificate_and_connects_once_it_is_renewed() {
    let tls = tls("expired");
    let (_listener, address) = serve(tls.clone()).await;
    let client = Client::builder(format!("wss://{address}")).root_certificate(authority());
    let client = client.platform_roots(false).start().unwrap();
    let mut events = client.events();
    let told = async {
        loop {
            if let ClientEvent::SessionEnded(reason) = events.next().await.unwrap() {
                return reason;
            }
        }
    };
    let told = within("it is told", told).await;
    assert_eq!(told, EndReason::Untrusted(CertificateProblem::Expired));
    tls.replace(&pem("loopback"), &certificates::key("loopback"))
        .unwrap();
    until_status(&client, "connected", |status| *status == Status::Connected).await;
}

#[tokio::test]
async fn another_certificate_is_for_new_connections_and_a_bad_one_for_none() {
    let tls = tls("loopback");
    let (mut acceptor, address) = acceptor(tls.clone()).await;
    let dialer = dialer(&format!("wss://{address}"));
    let (dialed, accepted) = tokio::join!(dialer.dial(), acceptor.accept());
    let (mut dialed, (mut accepted, _)) = (dialed.unwrap(), accepted.unwrap().unwrap());

    let other_key = tls.replace(&pem("elsewhere"), &certificates::key("loopback"));
    assert_eq!(other_key, Err(TlsError::OtherKey));
    assert!(meet(&dialer, &mut acceptor).await.0.is_ok());
    tls.replace(&pem("elsewhere"), &certificates::key("elsewhere"))
        .unwrap();
    let (refused, _) = meet(&dialer, &mut acceptor).await;
    assert!(
        matches!(refused, Err(DialError::Untrusted(_))),
        "{refused:?}"
    );

    use std::future::poll_fn;
    poll_fn(|cx| dialed.poll_ready(cx)).await.unwrap();
    dialed.start_send("still here".into()).unwrap();
    let (sent, received) = tokio::join!(
        poll_fn(|cx| dialed.poll_flush(cx)),
        poll_fn(|cx| accepted.poll_receive(cx))
    );
    sent.unwrap();
    assert_eq!(received.unwrap().unwrap(), "still here");
}

/// Scenario 27.
#[tokio::test]
async fn tls_at_a_port_without_it_is_refused_for_good_by_both() {
    let mut websocket = WebSocketAcceptor::bind("127.0.0.1:0").await.unwrap();
    let address = websocket.local_addr().unwrap();
    let (dialed, accepted) = meet(&dialer(&format!("wss://{address}")), &mut websocket).await;
    assert!(matches!(dialed, Err(DialError::Refused(_))), "{dialed:?}");
    assert!(
        matches!(accepted, Err(TransportError::WrongProtocol(_))),
        "{accepted:?}"
    );

    let mut tcp = TcpAcceptor::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let (dialed, accepted) = meet(&dialer(&format!("wss://{address}")), &mut tcp).await;
    assert!(matches!(dialed, Err(DialError::Refused(_))), "{dialed:?}");
    assert!(
        matches!(accepted, Err(TransportError::WrongProtocol(_))),
        "{accepted:?}"
    );
}

/// Scenario 27.
#[tokio::test]
async fn no_tls_at_a_port_with_it_is_refused_for_good_by_both() {
    let (mut acceptor, address) = acceptor(tls("loopback")).await;
    let websocket = WebSocketDialer::new(&format!("ws://{address}")).unwrap();
    let (dialed, accepted) = meet(&websocket, &mut acceptor).await;
    assert!(matches!(dialed, Err(DialError::Refused(_))), "{dialed:?}");
    assert!(
        matches!(accepted, Err(TransportError::WrongProtocol(_))),
        "{accepted:?}"
    );

    let tcp = TcpDialer::new(&format!("tcp://{address}")).unwrap();
    let (dialed, accepted) = meet(&tcp, &mut acceptor).await;
    assert!(matches!(dialed, Err(DialError::Refused(_))), "{dialed:?}");
    assert!(
        matches!(accepted, Err(TransportError::WrongProtocol(_))),
        "{accepted:?}"
    );
}

/// Runs a test of this file in a process of its own, because the environment is the whole process's.
#[test]
fn whom_the_platform_trusts_is_trusted() {
    let test = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "trusts_the_platform"])
        .env("SSL_CERT_FILE", certificates::path("authority.pem"))
        .env(IS_TOLD, "yes")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&test.stdout);
    assert!(test.status.success() && said.contains("1 passed"), "{said}");
}

/// Set for the process whose platform trusts the authority of the tests.
const IS_TOLD: &str = "TLS_TEST_PLATFORM_TRUSTS_AUTHORITY";

/// What the test above starts as a process of its own; nothing when it is started with the others.
#[tokio::test]
async fn trusts_the_platform() {
    if std::env::var_os(IS_TOLD).is_none() {
        return;
    }
    let (mut acceptor, address) = acceptor(tls("loopback")).await;
    let trusting = WebSocketDialer::new(&format!("wss://{address}")).unwrap();
    let (dialed, _) = meet(&trusting, &mut acceptor).await;
    assert!(dialed.is_ok(), "{dialed:?}");
    let distrusting = trusting.platform_roots(false).dial().await.map(drop);
    assert!(
        matches!(distrusting, Err(DialError::Refused(_))),
        "{distrusting:?}"
    );
}

#[test]
fn what_is_no_certificate_or_no_key_is_told_apart_and_never_shown() {
    let (chain, key) = (pem("loopback"), certificates::key("loopback"));
    let error = |chain: &[u8], key: &[u8]| Tls::from_pem(chain, key).unwrap_err();
    assert_eq!(error(b"", &key), TlsError::NoCertificate);
    assert_eq!(error(&chain, b"not a key"), TlsError::NoKey);
    assert_eq!(
        error(&chain, &certificates::key("renewed")),
        TlsError::OtherKey
    );
    let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(error(broken, &key), TlsError::Invalid { .. }));
    let shown = format!("{:?}", Tls::from_pem(&chain, &key).unwrap());
    assert_eq!(shown, "Tls { .. }");
}

#[tokio::test]
async fn a_client_does_not_start_with_what_cannot_be_sent_or_trusted() {
    let builder = || Client::builder("wss://127.0.0.1:1/?token=secret");
    let started = builder().root_certificate("no certificate").start();
    let error = started.map(drop).unwrap_err();
    assert!(
        matches!(error, StartError::RootCertificate { .. }),
        "{error:?}"
    );
    let started = builder().header("Upgrade", "x").start();
    let error = started.map(drop).unwrap_err();
    assert!(
        matches!(&error, StartError::Header { name } if name == "Upgrade"),
        "{error:?}"
    );
    let builder = builder().header("X-Key", "secret");
    let dialer = WebSocketDialer::new("wss://127.0.0.1:1/?token=secret").unwrap();
    let dialer = dialer.header("X-Key", "secret").unwrap();
    let broken = WebSocketDialer::new("wss://ada:secret@host/?token=secret").unwrap_err();
    assert!(matches!(broken, AddressError::Invalid { .. }));
    for shown in [
        format!("{builder:?}"),
        format!("{dialer:?}"),
        format!("{broken:?} {broken}"),
    ] {
        assert!(!shown.contains("secret"), "{shown}");
    }
}
