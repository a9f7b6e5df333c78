//! A headless Chromium, driven over the Chrome DevTools Protocol (<https://chromedevtools.github.io/devtools-protocol/>).

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::directory::Directory;

/// How long a page has to show what it is expected to.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the browser is, if there is one; without one, CI fails.
pub(crate) fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|program| program.is_file());
    if found.is_none() {
        let in_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!in_ci, "no Chromium, which CI has to have");
        println!("skipped: no Chromium");
    }
    found
}

/// A page, in a browser of its own that is killed when this is dropped.
pub(crate) struct Page {
    /// Killed first, as it writes to its profile until then.
    _browser: Child,
    _profile: Directory,
    socket: WebSocketStream<TcpStream>,
    session: Option<String>,
    calls: u64,
}

impl Page {
    /// Opens an address.
    pub(crate) async fn open(chromium: &Path, address: &str) -> Self {
        let profile = Directory::new();
        let mut browser = Command::new(chromium)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(browser.stderr.take().unwrap()).lines();
        let endpoint = loop {
            let line = lines.next_line().await.unwrap();
            let line = line.expect("Chromium says where it listens");
            if let Some(endpoint) = line.strip_prefix("DevTools listening on ") {
                break endpoint.to_owned();
            }
        };
        // What it says further on is not needed, but a full pipe would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let host = endpoint.trim_start_matches("ws://").split('/').next();
        let stream = TcpStream::connect(host.unwrap()).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async(&endpoint, stream)
            .await
            .unwrap();
        let mut page = Self {
            _browser: browser,
            _profile: profile,
            socket,
            session: None,
            calls: 0,
        };
        let target = page
            .call("Target.createTarget", json!({ "url": "about:blank" }))
            .await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = page.call("Target.attachToTarget", attach).await;
        page.session = attached["sessionId"].as_str().map(str::to_owned);
        page.call("Page.navigate", json!({ "url": address })).await;
        page
    }

    /// Makes the window so many pixels wide and high; below 600 wide it is a phone's.
    pub(crate) async fn resize(&mut self, width: u32, height: u32) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }

    /// The value of an expression on the page.
    pub(crate) async fn value(&mut self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", asked).await;
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].take()
    }

    /// Waits until an expression on the page is true.
    pub(crate) async fn until(&mut self, expression: &str) {
        let asked = format!(
            "new Promise((resolve) => {{
                const look = () => {{
                    let is = false;
                    try {{ is = Boolean({expression}); }} catch {{ /* Not there yet. */ }}
                    if (is) resolve(true); else setTimeout(look, 20);
                }};
                look();
            }})"
        );
        let seen = tokio::time::timeout(PATIENCE, self.value(&asked)).await;
        if seen.is_err() {
            let text = self.value("document.body.innerText").await;
            panic!("never: {expression}\n{text}");
        }
    }

    /// Keeps a picture of the whole page, and checks that nothing sticks out at the side.
    pub(crate) async fn screenshot(&mut self, file: &Path) {
        let sticking_out = self
            .value("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            .await;
        assert_eq!(sticking_out, 0, "pixels too wide, in {}", file.display());
        let asked = json!({ "format": "png", "captureBeyondViewport": true });
        let picture = self.call("Page.captureScreenshot", asked).await;
        let picture = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, picture).unwrap();
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut call = json!({ "id": self.calls, "method": method, "params": params });
        if let Some(session) = &self.session {
            call["sessionId"] = json!(session);
        }
        self.socket
            .send(Message::text(call.to_string()))
            .await
            .unwrap();
        loop {
            let message = self.socket.next().await.unwrap().unwrap();
            let Ok(text) = message.to_text() else {
                continue;
            };
            let Ok(mut answer) = serde_json::from_str::<Value>(text) else {
                continue;
            };
            if answer["id"] == self.calls {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }
}
