//! The dashboard, in a real browser.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod browser;
#[path = "embedded/directory.rs"]
mod directory;

use std::net::SocketAddr;
use std::path::PathBuf;

use browser::{Page, chromium};
use sync_client::yrs::{Text, WriteTxn};
use sync_client::{Client, Yrs};
use sync_server::http::{AdminToken, routes};
use sync_server::{Anonymous, MemoryRegistry, Server};
use tokio::net::TcpListener;

const TOKEN: &str = "a token for administrators";
/// Markup, if somebody took it for that.
const NAME: &str = "notes/<b onclick=alert(1)>ü</b>";

/// A server with everything on, and its address.
async fn serve() -> (Server, SocketAddr) {
    let server = Server::builder(MemoryRegistry::new(), Anonymous::read_write())
        .build()
        .unwrap();
    let app = routes(server.clone())
        .sync("/")
        .admin(AdminToken::new(TOKEN).unwrap())
        .dashboard()
        .into_router();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (server, address)
}

/// Where pictures are kept.
fn picture(name: &str) -> PathBuf {
    let folder = std::env::var_os("SYNC_SCREENSHOTS").map_or_else(
        || PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("screenshots"),
        PathBuf::from,
    );
    folder.join(name)
}

fn cell(label: &str) -> String {
    format!("document.querySelector('#documents [data-label=\"{label}\"]').textContent")
}

/// Scenario 73.
#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_shows_sessions_documents_and_broadcasts_as_they_come() {
    let Some(chromium) = chromium() else { return };
    let (server, address) = serve().await;
    let mut page = Page::open(&chromium, &format!("http://{address}/dashboard")).await;
    page.resize(1280, 900).await;

    // Nothing is shown to who has no token, or a wrong one.
    page.until("!document.querySelector('#login').hidden").await;
    page.value("document.querySelector('#token').value = 'a wrong token'")
        .await;
    page.value("document.querySelector('#login button').click()")
        .await;
    page.until("document.querySelector('#denied').textContent.includes('may not')")
        .await;
    assert_eq!(
        page.value("document.querySelector('#board').hidden").await,
        true
    );
    page.value(&format!(
        "document.querySelector('#token').value = '{TOKEN}'"
    ))
    .await;
    page.value("document.querySelector('#login button').click()")
        .await;
    page.until("document.querySelector('#state').textContent === 'live'")
        .await;
    page.until("document.querySelector('#tile-sessions dd').textContent === '0'")
        .await;

    // A session appears, and its document.
    let client = Client::builder(format!("ws://{address}/")).start().unwrap();
    let notes = client.open(NAME, Yrs::new()).await.unwrap();
    notes
        .edit(|txn| txn.get_or_insert_text("body").push(txn, "hello"))
        .unwrap();
    notes.saved().await.unwrap();
    page.until("document.querySelector('#tile-sessions dd').textContent === '1'")
        .await;
    page.until(&format!("{} === '1'", cell("Head"))).await;
    let name = page
        .value("document.querySelector('#documents tbody button').textContent")
        .await;
    assert_eq!(name, NAME);
    assert_eq!(
        page.value("document.querySelector('#documents b') === null")
            .await,
        true
    );

    // The document grows.
    let before = page.value(&cell("Log")).await;
    for _ in 0..200 {
        notes
            .edit(|txn| {
                txn.get_or_insert_text("body")
                    .push(txn, "more and more of it; ")
            })
            .unwrap();
    }
    notes.saved().await.unwrap();
    page.until(&format!("{} === '201'", cell("Head"))).await;
    assert_ne!(page.value(&cell("Log")).await, before);

    // Its sessions, and what is said to them.
    page.value("document.querySelector('#documents tbody button').click()")
        .await;
    page.until("document.querySelectorAll('#sessions tbody tr').length === 1")
        .await;
    page.until("document.querySelector('#sessions [data-label=\"May\"]').textContent === 'write'")
        .await;
    notes
        .presence::<String>()
        .set(&"reading".to_owned())
        .unwrap();
    page.until("document.querySelector('#tile-present dd').textContent === '1'")
        .await;
    notes.broadcast("chat", "hello").unwrap();
    page.until(
        "[...document.querySelectorAll('#events li')].some((e) => e.textContent.includes('broadcast'))",
    )
    .await;
    page.screenshot(&picture("dashboard.png")).await;
    page.resize(375, 812).await;
    page.screenshot(&picture("dashboard-phone.png")).await;

    // It goes, and so does the server.
    notes.close();
    drop(client);
    page.until("document.querySelector('#tile-sessions dd').textContent === '0'")
        .await;
    server.shutdown(std::time::Duration::ZERO).await;
    page.until("document.querySelector('#state').dataset.state === 'lost'")
        .await;
}
