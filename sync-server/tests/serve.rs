//! `sync-server` serving, as an operator runs it: the real program, real clients, real signals.
#![cfg(all(feature = "bin", unix))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

mod asking;
mod certificates;
mod e2e;
mod embedded;
mod program;
mod registries;
mod tokens;

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use asking::ask;
use e2e::{content, push, text, until, until_status, within};
use embedded::Directory;
use program::{Serving, fails, program, run};
use sync_client::{
    AccessLevel, CertificateProblem, Client, ClientEvent, EndReason, ErrorCode, FailedReason,
    Status, SyncPhase,
};
use sync_core::limits::LimitValue;
use sync_server::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A directory, and the options to serve it to everybody.
fn open_to_all(directory: &Directory) -> [String; 3] {
    let data = directory.path().to_str().unwrap().to_owned();
    ["--anonymous".to_owned(), "--data".to_owned(), data]
}

fn client(serving: &Serving) -> Client {
    Client::builder(serving.url()).start().unwrap()
}

/// Scenario 62, with the program and a signal.
#[tokio::test]
async fn what_was_saved_before_a_sigterm_is_served_after_a_restart() {
    let directory = Directory::new();
    let mut options = open_to_all(&directory).to_vec();
    // Clients come back spread over this time, in which nobody is there.
    options.extend(["--drain-seconds".to_owned(), "1".to_owned()]);
    let mut serving = within("it listens", Serving::start(&options)).await;
    let ada = client(&serving);
    let notes = text(&ada, "notes").await;
    push(&notes, "kept");
    within("saved", notes.saved()).await.unwrap();
    serving.signal("TERM");
    // Told to go, the client leaves by itself, and there is nothing left to wait for.
    let status = within("it ends", serving.ended()).await;
    assert_eq!(status.code(), Some(0));

    let mut serving = within("it listens again", Serving::start(&options)).await;
    let bob = client(&serving);
    let his = text(&bob, "notes").await;
    until(&his, "the text arrives", |his, _| content(his) == "kept").await;
    serving.signal("INT");
    assert_eq!(within("it ends", serving.ended()).await.code(), Some(0));
}

#[tokio::test]
async fn it_listens_without_http_where_it_is_told() {
    let directory = Directory::new();
    let socket = directory.path().join("sync.sock");
    let mut options = open_to_all(&directory).to_vec();
    let socket_text = socket.to_str().unwrap();
    options
        .extend(["--listen-tcp", "127.0.0.1:0", "--listen-unix", socket_text].map(str::to_owned));
    let mut serving = within("it listens", Serving::start(&options)).await;
    let mut last = text(&client(&serving), "notes").await;
    for (n, scheme) in ["tcp://", "unix://"].into_iter().enumerate() {
        let url = within("it listens", serving.next_url()).await;
        assert!(url.starts_with(scheme), "{url}");
        let client = Client::builder(url).start().unwrap();
        push(&last, "a");
        within("saved", last.saved()).await.unwrap();
        last = text(&client, "notes").await;
        until(&last, "the text arrives", |last, _| {
            content(last).len() == n + 1
        })
        .await;
    }
    serving.signal("INT");
    assert_eq!(within("it ends", serving.ended()).await.code(), Some(0));
    assert!(!socket.exists(), "the socket is left behind");
}

#[tokio::test]
async fn a_certificate_is_read_again_on_sighup_and_nobody_is_cut() {
    let directory = Directory::new();
    let file = |name: &str| directory.path().join(name);
    let install = |name: &str| {
        fs::copy(
            certificates::path(&format!("{name}.pem")),
            file("chain.pem"),
        )
        .unwrap();
        fs::copy(certificates::path(&format!("{name}.key")), file("key.pem")).unwrap();
    };
    install("loopback");
    let mut options = open_to_all(&directory).to_vec();
    let [chain, key] = ["chain.pem", "key.pem"].map(|name| file(name).display().to_string());
    options.extend([
        "--tls-cert".to_owned(),
        chain.clone(),
        "--tls-key".to_owned(),
        key,
    ]);
    let serving = within("it listens", Serving::start(&options)).await;
    let client = || {
        let builder = Client::builder(serving.secure_url()).platform_roots(false);
        builder
            .root_certificate(certificates::authority())
            .start()
            .unwrap()
    };
    let ada = client();
    let notes = text(&ada, "notes").await;
    push(&notes, "before");
    within("saved", notes.saved()).await.unwrap();
    let mut events = ada.events();

    install("elsewhere");
    serving.signal("HUP");
    let told = async {
        loop {
            // The signal may not have been handled when the first one comes.
            let bob = client();
            let mut events = bob.events();
            loop {
                match events.next().await.unwrap() {
                    ClientEvent::SessionEnded(reason) => return reason,
                    ClientEvent::SessionStarted { .. } => break,
                    _ => {}
                }
            }
        }
    };
    let told = within("others see the new one", told).await;
    assert_eq!(told, EndReason::Untrusted(CertificateProblem::WrongName));
    push(&notes, " and after");
    within("saved", notes.saved()).await.unwrap();
    while let Some(event) = events.try_next() {
        assert!(!matches!(event, ClientEvent::SessionEnded(_)), "{event:?}");
    }

    let [data, tls_cert] = ["--data", "--tls-cert"];
    let error = fails(
        &["check-config", data, "d", "--anonymous", tls_cert, &chain],
        2,
    );
    assert!(error.contains("--tls-key"), "{error}");
    let missing = ["--tls-key", "/nowhere/key.pem"];
    let error = fails(
        &[
            &["check-config", data, "d", "--anonymous", tls_cert, &chain],
            &missing[..],
        ]
        .concat(),
        2,
    );
    assert!(error.contains("/nowhere/key.pem"), "{error}");
}

#[tokio::test]
async fn a_second_signal_ends_it_before_clients_have_left() {
    let directory = Directory::new();
    let mut options = open_to_all(&directory).to_vec();
    options.extend(["--drain-seconds".to_owned(), "3600".to_owned()]);
    let mut serving = within("it listens", Serving::start(&options)).await;
    let ada = client(&serving);
    until_status(&ada, "connected", |status| *status == Status::Connected).await;
    let mut events = ada.events();
    serving.signal("TERM");
    let going_away =
        async { while !matches!(events.next().await, Some(ClientEvent::GoingAway { .. })) {} };
    within("the client is told", going_away).await;
    // Whoever directs clients is told too.
    let answer = ask(serving.socket(), "GET /readyz", &[]).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    serving.signal("TERM");
    assert_eq!(within("it ends", serving.ended()).await.code(), Some(9));
}

#[tokio::test]
async fn one_port_says_how_it_is_and_refuses_what_is_too_large_or_from_elsewhere() {
    let directory = Directory::new();
    let mut options = open_to_all(&directory).to_vec();
    options
        .extend(["--allowed-origins", "https://a.example, https://b.example"].map(str::to_owned));
    let serving = within("it listens", Serving::start(&options)).await;
    let address = serving.socket();
    let upgrade = async |line: &str| asking::ask_upgrade(address, "/", &[line]).await;
    let cookie = format!("Cookie: {}", "c".repeat(100_000));
    for (answer, status) in [
        (ask(address, "GET /healthz", &[]).await, "200"),
        (ask(address, "GET /readyz", &[]).await, "200"),
        (ask(address, "GET /", &[]).await, "426"),
        (ask(address, "GET /healthz", &[&cookie]).await, "431"),
        (upgrade("Origin: https://b.example").await, "101"),
        (upgrade("Origin: https://c.example").await, "403"),
    ] {
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}

/// Scenario 27: whoever dials the port in another way is told, and does not come again.
#[tokio::test]
async fn a_client_that_dials_the_port_as_something_else_fails_for_good() {
    let directory = Directory::new();
    let serving = within("it listens", Serving::start(&open_to_all(&directory))).await;
    for url in [serving.secure_url(), format!("tcp://{}", serving.address)] {
        let client = Client::builder(url).start().unwrap();
        until_status(&client, "it fails", |status| {
            matches!(status, Status::Failed(FailedReason::Refused(_)))
        })
        .await;
    }
}

#[tokio::test]
async fn users_are_those_that_tokens_name() {
    let directory = Directory::new();
    let secret = directory.path().join("secret");
    fs::write(&secret, format!("{}\n", tokens::SECRET)).unwrap();
    let data = directory.path().join("data");
    let [secret, data] = [&secret, &data].map(|path| path.to_str().unwrap());
    let options = ["--data", data, "--jwt-secret-file", secret];
    let serving = within("it listens", Serving::start(&options)).await;
    let builder = || Client::builder(serving.url());
    let ada = builder().token(tokens::token_of("ada")).start().unwrap();
    let notes = text(&ada, "notes").await;
    push(&notes, "here");
    within("saved", notes.saved()).await.unwrap();
    let nobody = builder().start().unwrap();
    until_status(&nobody, "refused", |status| {
        matches!(status, Status::Failed(_))
    })
    .await;

    let [data, key, secret] = ["--data", "--jwt-secret-file", secret];
    let error = fails(&["check-config", data, "d", key, secret, "--anonymous"], 2);
    assert!(error.contains("--anonymous"), "{error}");
    let error = fails(
        &[
            "check-config",
            data,
            "d",
            key,
            secret,
            "--jwt-key-file",
            "k",
        ],
        2,
    );
    assert!(error.contains("jwt-key-file"), "{error}");
    fs::write(secret, "short").unwrap();
    let error = fails(&["check-config", data, "d", key, secret], 2);
    assert!(
        error.contains("jwt-secret-file") && !error.contains("short:"),
        "{error}"
    );
    let error = fails(&["check-config", data, "d", key, "/nowhere/secret"], 2);
    assert!(error.contains("/nowhere/secret"), "{error}");
}

#[test]
fn nobody_is_let_in_unless_somebody_says_who() {
    let error = fails(&["--data", "anywhere"], 2);
    assert!(error.contains("--anonymous"), "{error}");
    let error = fails(&["--data", "anywhere", "--anonymous=off"], 2);
    assert!(error.contains("--anonymous"), "{error}");
}

#[test]
fn what_cannot_be_used_is_named_with_where_it_comes_from() {
    let error = fails(&["--anonymous"], 2);
    assert!(error.contains("data is missing"), "{error}");

    let error = fails(&["--data", "d", "--anonymous", "--listen", "localhost"], 2);
    assert!(error.contains("--listen: `localhost`"), "{error}");

    let output = program()
        .args(["--data", "d", "--anonymous"])
        .env("SYNC_DRAIN_SECONDS", "soon")
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("SYNC_DRAIN_SECONDS: `soon`"), "{error}");
}

/// Writes the file and has it checked.
fn check(file: &str) -> (std::process::Output, String) {
    let directory = Directory::new();
    let path = directory.path().join("sync.toml");
    fs::write(&path, file).unwrap();
    let output = run(&["check-config", "--config", path.to_str().unwrap()]);
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    (output, error)
}

#[test]
fn a_file_that_makes_no_sense_is_refused_by_the_name_of_what_is_wrong() {
    for (file, wrong) in [
        ("lisen = \"127.0.0.1:80\"", "`lisen`"),
        ("anonymous = true\ndata = [\"a\"]", "data is no text"),
        (
            "anonymous = true\nallowed-origins = 1",
            "allowed-origins is no list",
        ),
        ("data = \"d", "sync.toml"),
        ("\u{0}\u{1}", "sync.toml"),
        ("data = \"d\"\nanonymous = \"some\"", "`some`"),
        (
            "data = \"d\"\nanonymous = true\nconnections-max = -1",
            "connections-max",
        ),
        ("data = \"d\"\nanonymous = true\nlog = \"a=b=c\"", "`a=b=c`"),
        ("listen-tcp = \"localhost\"", "listen-tcp"),
        ("limits = 1", "`limits`"),
        ("[limits]\nno-such = 1", "`limits.no-such`"),
        (
            "[limits]\nchange-bytes-max = -1",
            "limits.change-bytes-max is -1, not a number",
        ),
        (
            "[limits]\nidle-timeout-seconds = \"1\"",
            "limits.idle-timeout-seconds",
        ),
        ("[limits]\npush-changes = 7", "limits.push-changes is 7"),
        (
            "[limits]\npush-changes = { per-second = 1 }",
            "{ per-second = NUMBER, burst = NUMBER }",
        ),
        ("unix-mode = 999", "unix-mode"),
    ] {
        let (output, error) = check(file);
        assert_eq!(output.status.code(), Some(2), "{file}: {error}");
        assert!(error.contains(wrong), "{file}: {error}");
    }
    let error = fails(&["check-config", "--config", "/nowhere/sync.toml"], 2);
    assert!(error.contains("/nowhere/sync.toml"), "{error}");
}

/// Scenario 47: none of them can be forgotten, for they are those of the struct.
#[test]
fn every_limit_can_be_set_in_the_file_and_is_printed() {
    let mut file = "data = \"d\"\nanonymous = true\n[limits]\n".to_owned();
    let mut lines = Vec::new();
    for name in Limits::NAMES {
        let key = name.replace('_', "-");
        let line = match Limits::default().get(name).unwrap() {
            LimitValue::Number(_) => format!("{key} = 12345"),
            LimitValue::Time(_) => format!("{key}-seconds = 1.5"),
            LimitValue::Rate(_) => format!("{key} = {{ per-second = 12, burst = 345 }}"),
        };
        file.push_str(&line);
        file.push('\n');
        lines.push(line);
    }
    let (output, error) = check(&file);
    assert_eq!(output.status.code(), Some(0), "{error}");
    let printed = String::from_utf8(output.stdout).unwrap();
    for line in lines {
        // This one is a setting of its own as well.
        let line = line.replace("connections-max = 12345", "connections-max = \"12345\"");
        assert!(
            printed.lines().any(|found| found.starts_with(&line)),
            "{line} is not in {printed}"
        );
    }
}

/// Peers that take their time, or send too much, before they say what they want.
#[tokio::test]
async fn who_does_not_get_to_the_point_is_cut_off_or_told_why() {
    let directory = Directory::new();
    let file = directory.path().join("sync.toml");
    fs::write(&file, "[limits]\nhandshake-timeout-seconds = 1\n").unwrap();
    let mut options = open_to_all(&directory).to_vec();
    options.extend(["--config".to_owned(), file.display().to_string()]);
    let serving = within("it listens", Serving::start(&options)).await;
    let connect = || async { TcpStream::connect(serving.socket()).await.unwrap() };
    let read_all = async |mut socket: TcpStream| {
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };

    let silent = connect().await;
    let mut started = connect().await;
    started
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n")
        .await
        .unwrap();
    for socket in [silent, started] {
        let answer = within("it is cut off", read_all(socket)).await;
        assert!(!answer.contains(" 101 "), "{answer}");
    }
    // Byte by byte does not help: at a pace at which 32 KiB would take longer than the test may.
    let mut slow = connect().await;
    let trickle = async {
        while slow.write_all(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("it is cut off", trickle).await;

    let long = |n: usize| "c".repeat(n);
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    for (head, status) in [
        (
            format!("GET / HTTP/1.1\r\nCookie: {}\r\n\r\n", long(100_000)),
            " 431 ",
        ),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), " 431 "),
        (format!("GET /{} HTTP/1.1\r\n\r\n", long(100_000)), " 4"),
        ("\u{16}\u{3}\u{1}".to_owned() + &long(100), " 400 "),
    ] {
        let mut socket = connect().await;
        // It may be cut off before all of it is sent.
        let _ = socket.write_all(head.as_bytes()).await;
        let answer = within("it is answered", read_all(socket)).await;
        assert!(
            answer.is_empty() || answer.lines().next().unwrap().contains(status),
            "{status}: {answer}"
        );
    }
    let ada = client(&serving);
    let notes = text(&ada, "notes").await;
    push(&notes, "served");
    within("saved", notes.saved()).await.unwrap();
}

#[test]
fn options_go_before_the_environment_and_that_before_the_file() {
    let directory = Directory::new();
    let path = directory.path().join("sync.toml");
    fs::write(
        &path,
        "data = \"file\"\nlog = \"trace\"\nlisten = \"127.0.0.1:1\"\nanonymous = true\n",
    )
    .unwrap();
    let output = program()
        .args(["check-config", "--listen", "127.0.0.1:3"])
        .env("SYNC_CONFIG", &path)
        .env("SYNC_LISTEN", "127.0.0.1:2")
        .env("SYNC_LOG", "warn")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let file = path.display();
    for line in [
        "listen = \"127.0.0.1:3\"  # --listen",
        "log = \"warn\"  # SYNC_LOG",
        &format!("data = \"file\"  # {file}"),
        "log-format = \"text\"  # default",
    ] {
        assert!(
            printed.lines().any(|found| found == line),
            "{line}: {printed}"
        );
    }
    // What it prints is a file that says the same.
    let (again, error) = check(&printed);
    assert_eq!(again.status.code(), Some(0), "{error}");
}

#[test]
fn a_port_that_is_taken_has_an_exit_code_of_its_own() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = Directory::new();
    let [anonymous, data, path] = open_to_all(&directory);
    let error = fails(&[&anonymous, &data, &path, "--listen", &address], 8);
    assert!(error.contains(&address), "{error}");
}

#[tokio::test]
async fn a_directory_that_another_server_has_open_is_left_alone() {
    let directory = Directory::new();
    let options = open_to_all(&directory);
    let serving = within("it listens", Serving::start(&options)).await;
    let [anonymous, data, path] = &options;
    let error = fails(&[anonymous, data, path, "--listen", "127.0.0.1:0"], 5);
    assert!(error.contains(path.as_str()), "{error}");
    // The first one is none the worse for it.
    let ada = client(&serving);
    let notes = text(&ada, "notes").await;
    push(&notes, "here");
    within("saved", notes.saved()).await.unwrap();
}

/// Scenarios 25 and 55, without a program of one's own.
#[tokio::test]
async fn rules_of_the_file_say_who_may_do_what_with_which_documents() {
    let directory = Directory::new();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (config, secret) = (path("sync.toml"), path("secret"));
    fs::write(&secret, tokens::SECRET).unwrap();
    let rules = r#"
        access = "off"
        [[rules]]
        documents = "home/{user}/*"
        access = "read-write"
        [[rules]]
        documents = "team/{value}/*"
        claim = "teams"
        access = "read-write"
        create = false
        [[rules]]
        documents = "team/*"
        claim = "role"
        value = "auditor"
        access = "read-only"
    "#;
    fs::write(&config, rules).unwrap();
    let data = path("data");
    let options = [
        "--config",
        &config,
        "--data",
        &data,
        "--jwt-secret-file",
        &secret,
    ];
    let printed = run(&[&["check-config"], &options[..]].concat());
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("value = \"auditor\""), "{printed}");

    let serving = within("it listens", Serving::start(&options)).await;
    let client = |claims: serde_json::Value| {
        let token = tokens::hs256(&claims);
        Client::builder(serving.url()).token(token).start().unwrap()
    };
    let exp = tokens::from_now(3_600);
    let ada = client(serde_json::json!({ "sub": "ada", "exp": exp, "teams": ["red", "blue"] }));
    let eve =
        client(serde_json::json!({ "sub": "eve", "exp": exp, "role": "auditor", "teams": "*" }));
    let phase = async |client: &Client, id: &str| {
        let document = text(client, id).await;
        let mut state = document.sync_state();
        let decided = |state: &sync_client::SyncState| {
            matches!(state.phase, SyncPhase::Live | SyncPhase::Refused(_))
        };
        let state = within("decided", state.wait_for(decided)).await.unwrap();
        (state.phase, state.access)
    };
    let refused = |code| (SyncPhase::Refused(code), AccessLevel::None);
    let live = |access| (SyncPhase::Live, access);
    assert_eq!(phase(&ada, "home/ada/x").await, live(AccessLevel::Write));
    assert_eq!(
        phase(&eve, "home/ada/x").await,
        refused(ErrorCode::AccessDenied)
    );
    assert_eq!(
        phase(&ada, "elsewhere").await,
        refused(ErrorCode::AccessDenied)
    );
    let missing = phase(&ada, "team/red/x").await.0;
    assert_eq!(missing, SyncPhase::Refused(ErrorCode::NotFound));
    assert_eq!(
        phase(&ada, "team/green/x").await,
        refused(ErrorCode::AccessDenied)
    );
    let missing = phase(&eve, "team/red/x").await.0;
    assert_eq!(missing, SyncPhase::Refused(ErrorCode::NotFound));

    for (rule, why) in [
        (
            "documents = \"{team}/*\"\naccess = \"off\"",
            "rule 1: documents is `{team}/*`",
        ),
        (
            "documents = \"*\"\naccess = \"all\"",
            "rule 1: access is `all`",
        ),
        (
            "documents = \"*\"\naccess = \"off\"\nvalue = \"x\"",
            "rule 1: a value needs",
        ),
        (
            "documents = \"*\"\naccess = \"off\"\nlevel = 1",
            "unknown field `level`",
        ),
        ("access = \"off\"", "missing field `documents`"),
    ] {
        fs::write(&config, format!("[[rules]]\n{rule}\n")).unwrap();
        let error = fails(&[&["check-config"], &options[..]].concat(), 2);
        assert!(error.contains(why), "{rule}: {error}");
    }
    fs::write(&config, "[[rules]]\ndocuments = \"*\"\naccess = \"off\"\n").unwrap();
    let error = fails(
        &[
            "check-config",
            "--config",
            &config,
            "--data",
            &data,
            "--anonymous",
        ],
        2,
    );
    assert!(error.contains("no key for tokens"), "{error}");
}
