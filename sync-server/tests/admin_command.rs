//! `sync-server admin`, as an operator runs it, against `sync-server` as an operator runs it.
#![cfg(all(feature = "bin", unix))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod certificates;
mod e2e;
mod embedded;
mod program;
mod registries;
mod requests;
mod tokens;

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use e2e::{content, push, text, until, within};
use embedded::Directory;
use program::{Serving, program, run};
use requests::{TOKEN, send};
use serde_json::Value;
use sync_client::Client;
use tokio::io::{AsyncBufReadExt, BufReader};

struct World {
    directory: Directory,
    serving: Serving,
}

impl World {
    async fn new(more: &[&str]) -> Self {
        let directory = Directory::new();
        fs::create_dir_all(directory.path()).unwrap();
        fs::write(directory.path().join("token"), format!("{TOKEN}\n")).unwrap();
        let data = directory.path().join("data");
        let token = directory.path().join("token");
        let mut options = vec![
            "--anonymous",
            "--data",
            data.to_str().unwrap(),
            "--admin-token-file",
            token.to_str().unwrap(),
        ];
        options.extend(more);
        let serving = within("it listens", Serving::start(&options)).await;
        Self { directory, serving }
    }

    fn url(&self) -> String {
        format!("http://{}", self.serving.address)
    }

    fn path(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// Off the threads of the test: clients go on meanwhile.
    async fn admin(&self, arguments: &[&str]) -> Output {
        let mut command = program();
        command
            .args(["admin", "--token-file"])
            .arg(self.path("token"))
            .args(arguments)
            .env("SYNC_ADMIN_URL", self.url());
        let ran = tokio::task::spawn_blocking(move || command.output().unwrap());
        within("it ends", ran).await.unwrap()
    }

    async fn printed(&self, arguments: &[&str]) -> String {
        let output = self.admin(arguments).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let printed = self.printed(&all).await;
        printed
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    async fn fails(&self, arguments: &[&str], code: i32) -> String {
        let output = self.admin(arguments).await;
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {output:?}"
        );
        String::from_utf8(output.stderr).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_and_does_everything_from_the_terminal() {
    let world = World::new(&[]).await;
    let ada = Client::builder(world.serving.url()).start().unwrap();
    let notes = text(&ada, "notes/ü 1").await;
    push(&notes, "hello");
    within("saved", notes.saved()).await.unwrap();

    let stats = world.json(&["stats"]).await;
    assert_eq!(
        (&stats[0]["changes_total"], &stats[0]["n_sessions"]),
        (&1.into(), &1.into())
    );
    assert!(
        world
            .printed(&["stats"])
            .await
            .contains("documents    1 live")
    );
    let list = world.json(&["list"]).await;
    assert_eq!((list.len(), &list[0]["document"]), (1, &"notes/ü 1".into()));
    assert!(
        world
            .printed(&["list", "--live"])
            .await
            .contains("\"notes/ü 1\"")
    );
    let inspected = world.printed(&["inspect", "notes/ü 1"]).await;
    assert!(inspected.contains("head      1"), "{inspected}");
    assert!(inspected.contains("write, sent 1, 0 behind"), "{inspected}");
    assert!(world.printed(&["sessions"]).await.contains("\"anonymous\""));
    let read = world.printed(&["read", "notes/ü 1"]).await;
    assert_eq!(read, "{\"body\":\"hello\"}\n");
    assert!(
        world
            .printed(&["compact", "notes/ü 1"])
            .await
            .contains("snapshot  at 1")
    );

    let file = world.path("notes.syncdoc");
    world.printed(&["export", "notes/ü 1", &file]).await;
    world.fails(&["export", "notes/ü 1", &file], 4).await;
    world
        .printed(&["export", "notes/ü 1", &file, "--replace"])
        .await;
    world.printed(&["import", "../copy", &file]).await;
    world.fails(&["import", "../copy", &file], 4).await;
    world.printed(&["fork", "../copy", ".."]).await;
    let copy = text(&ada, "..").await;
    until(&copy, "the fork arrives", |copy, _| {
        content(copy) == "hello"
    })
    .await;
    assert_eq!(world.json(&["list", "--limit", "2"]).await.len(), 2);
    let sent = world
        .printed(&["broadcast", "..", "notice", "closing soon"])
        .await;
    assert_eq!(sent, "sent to 1 sessions\n");
    world.printed(&["evict", ".."]).await;
    world.printed(&["delete", ".."]).await;
    world.fails(&["inspect", ".."], 3).await;
    world.fails(&["inspect", "nothing"], 3).await;
    assert_eq!(
        world.printed(&["disconnect", "eve"]).await,
        "0 sessions ended\n"
    );
    push(&notes, "!");
    within("saved", notes.saved()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_printed_as_they_come() {
    let world = World::new(&[]).await;
    let mut command = tokio::process::Command::from(program());
    command
        .args(["admin", "--url", &world.url(), "--token-file"])
        .args([&world.path("token"), "events"])
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut printing = command.spawn().unwrap();
    let mut lines = BufReader::new(printing.stdout.take().unwrap()).lines();
    let printed = async {
        // Whoever connects before the stream has begun is not told.
        let mut clients = Vec::new();
        loop {
            clients.push(Client::builder(world.serving.url()).start().unwrap());
            let line = tokio::time::timeout(Duration::from_millis(100), lines.next_line());
            if let Ok(line) = line.await {
                return line.unwrap().unwrap();
            }
        }
    };
    let line = within("a line", printed).await;
    assert!(
        line.starts_with("info     anonymous connected from 127.0.0.1:"),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_has_a_code_and_no_secret_in_it() {
    let world = World::new(&[]).await;
    let wrong = world.path("wrong");
    fs::write(&wrong, "a token of nobody here").unwrap();
    let url = world.url();
    for (arguments, code) in [
        (
            &["admin", "--url", &url, "--token-file", &wrong, "stats"][..],
            10,
        ),
        (&["admin", "--url", &url, "stats"], 2),
        (
            &[
                "admin",
                "--url",
                &url,
                "--token-file",
                "/no/such/file",
                "stats",
            ],
            1,
        ),
        (
            &[
                "admin",
                "--url",
                "http://127.0.0.1:1",
                "--token-file",
                &wrong,
                "stats",
            ],
            11,
        ),
        (
            &[
                "admin",
                "--url",
                "no address",
                "--token-file",
                &wrong,
                "stats",
            ],
            2,
        ),
        (&["admin", "frobnicate"], 2),
    ] {
        let arguments: Vec<_> = arguments
            .iter()
            .map(|&argument| argument.to_owned())
            .collect();
        let told = arguments.clone();
        let ran = tokio::task::spawn_blocking(move || {
            run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        });
        let output = ran.await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{told:?}: {output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            !said.contains("nobody here") && !said.contains(TOKEN),
            "{said}"
        );
    }
    let file = world.path("bad.syncdoc");
    fs::write(&file, "garbage").unwrap();
    world.fails(&["import", "x", &file], 2).await;
    world.fails(&["read", "nothing"], 3).await;
    world.fails(&["list", "--after", ""], 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_behind_tls_is_spoken_to_if_its_certificate_holds() {
    let file = |name: &str| certificates::path(name).to_str().unwrap().to_owned();
    let (chain, key) = (file("loopback.pem"), file("loopback.key"));
    let world = World::new(&["--tls-cert", &chain, "--tls-key", &key]).await;
    let url = format!("https://{}", world.serving.address);
    let (roots, other) = (file("authority.pem"), file("elsewhere.pem"));
    for (roots, code) in [
        (Some(&roots), 0),
        (None, 11),
        (Some(&other), 11),
        (Some(&key), 2),
    ] {
        let mut arguments = vec!["--url", &url, "stats"];
        if let Some(roots) = roots {
            arguments.extend(["--roots-file", roots]);
        }
        let output = world.admin(&arguments).await;
        assert_eq!(output.status.code(), Some(code), "{roots:?}: {output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_is_what_the_settings_say() {
    let status = async |world: &World, path: &str| {
        let answer = send(world.serving.socket(), &format!("GET {path}"), &[], &[]).await;
        answer.status
    };
    let world = World::new(&[]).await;
    for (path, expected) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/admin/api/v1/stats", 401),
        ("/admin/openapi.json", 401),
    ] {
        assert_eq!(status(&world, path).await, expected, "{path}");
    }
    let bare = World::new(&["--metrics=false", "--health=false"]).await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(status(&bare, path).await, 404, "{path}");
    }

    // Admins by their JWT; without any of it there is no admin API.
    let directory = Directory::new();
    fs::create_dir_all(directory.path()).unwrap();
    let secret = directory.path().join("secret");
    fs::write(&secret, tokens::SECRET).unwrap();
    let data = directory.path().join("data");
    let options = |more: &'static [&'static str]| {
        let mut options = vec!["--data".to_owned(), name(&data)];
        options.extend(["--jwt-secret-file".to_owned(), name(&secret)]);
        options.extend(more.iter().map(|&option| option.to_owned()));
        options
    };
    let serving = within("it listens", Serving::start(&options(&["--admin-jwt"]))).await;
    let claims = serde_json::json!({ "sub": "ada", "exp": tokens::from_now(60), "admin": true });
    for (token, expected) in [
        (tokens::hs256(&claims), 200),
        (tokens::token_of("ada"), 403),
        ("nonsense".to_owned(), 401),
    ] {
        let credentials = format!("Authorization: Bearer {token}");
        let first = "GET /admin/api/v1/stats";
        let answer = send(serving.socket(), first, &[&credentials], &[]).await;
        assert_eq!(answer.status, expected);
    }
    drop(serving);
    let serving = within("it listens", Serving::start(&options(&[]))).await;
    let answer = send(serving.socket(), "GET /admin/api/v1/stats", &[], &[]).await;
    assert_eq!(answer.status, 404);
}

fn name(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_token_is_checked_beforehand_and_never_printed() {
    let directory = Directory::new();
    fs::create_dir_all(directory.path()).unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "short").unwrap();
    let check = |more: &[&str], secret: &str| {
        let mut command = program();
        command
            .args(["check-config", "--anonymous", "--data", "./data"])
            .args(more)
            .env("SYNC_ADMIN_TOKEN", secret);
        let output = command.output().unwrap();
        let mut said = String::from_utf8(output.stdout).unwrap();
        said.push_str(std::str::from_utf8(&output.stderr).unwrap());
        (output.status.code(), said)
    };
    let (code, said) = check(&["--admin-token-file", file.to_str().unwrap()], "");
    assert_eq!(code, Some(2));
    assert!(said.contains("5 bytes"), "{said}");
    let (code, said) = check(&[], "small");
    assert_eq!(code, Some(2));
    assert!(said.contains("SYNC_ADMIN_TOKEN"), "{said}");
    let (code, said) = check(&[], TOKEN);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains(TOKEN), "{said}");
    let (code, said) = check(&["--admin-jwt"], "");
    assert_eq!(code, Some(2), "{said}");
}
