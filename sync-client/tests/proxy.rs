//! Through an HTTP proxy that the environment names.
#![cfg(feature = "proxy")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says that it failed by panicking"
)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;

use sync_client::transport::{DialError, Dialer, WebSocketDialer};

/// The address to dial, for the process that is told of a proxy; and what has to come of it.
const DIAL: &str = "PROXY_TEST_DIAL";
const EXPECTED: &str = "PROXY_TEST_EXPECTED";

/// Dials in a process of its own, because the environment is the whole process's. Returns what the proxy was sent, up to the
/// request that went through it, if it answers so.
fn dial(address: &str, variables: &[(&str, &str)], answer: &str, expected: &str) -> Vec<String> {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ada:s%20cret@{}", proxy.local_addr().unwrap());
    let mut command = Command::new(std::env::current_exe().unwrap());
    for name in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "REQUEST_METHOD",
    ] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    for (name, value) in variables {
        command.env(name, value.replace("PROXY", &url));
    }
    command.args(["--exact", "dials", "--nocapture"]);
    command.env(DIAL, address).env(EXPECTED, expected);
    let child = command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = Vec::new();
    if !answer.is_empty() {
        let (mut stream, _) = proxy.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        for answer in [answer, ""] {
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap() == 0 || line == "\r\n" {
                    break;
                }
                lines.push(line.trim_end().to_owned());
            }
            stream.write_all(answer.as_bytes()).unwrap();
            if !answer.contains(" 200 ") {
                break;
            }
        }
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
    lines
}

/// What the tests below start as a process of its own; nothing when it is started with the others.
#[tokio::test]
async fn dials() {
    let Ok(address) = std::env::var(DIAL) else {
        return;
    };
    let dialer = WebSocketDialer::new(&address).unwrap();
    let dialer = dialer.proxy_from_environment();
    assert!(!format!("{dialer:?}").contains("cret"));
    let dialed = match dialer.dial().await.map(drop) {
        Ok(()) => "connected",
        Err(DialError::Unreachable(_)) => "unreachable",
        Err(DialError::Refused(_)) => "refused",
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!(dialed, std::env::var(EXPECTED).unwrap());
}

#[test]
fn a_tunnel_is_asked_for_with_the_credentials_and_the_request_goes_through_it() {
    let variables = [
        ("HTTP_PROXY", "http://PROXY"),
        ("HTTPS_PROXY", "http://nowhere.invalid"),
    ];
    let answer = "HTTP/1.1 200 OK\r\nVia: test\r\n\r\n";
    let lines = dial("ws://sync.invalid/path", &variables, answer, "unreachable");
    assert_eq!(lines[0], "CONNECT sync.invalid:80 HTTP/1.1");
    assert!(lines.contains(&"Proxy-Authorization: Basic YWRhOnMgY3JldA==".to_owned()));
    assert!(
        lines.contains(&"GET /path HTTP/1.1".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn what_a_proxy_answers_is_final_or_not_as_from_a_server() {
    for (answer, expected) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno",
            "refused",
        ),
        ("HTTP/1.1 200 OK\r\n\r\n<html>", "refused"),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "refused"),
        ("HTTP/1.1 429 Too Many Requests\r\n\r\n", "unreachable"),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "unreachable"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "refused"),
        ("HTTP/1.1 200", "unreachable"),
    ] {
        let variables = [("ALL_PROXY", "PROXY")];
        let lines = dial("ws://[::1]:7/", &variables, answer, expected);
        assert_eq!(lines[0], "CONNECT [::1]:7 HTTP/1.1");
    }
}

#[test]
fn hosts_that_are_excepted_are_dialed_directly_and_other_kinds_of_proxies_are_refused() {
    let past = [("HTTP_PROXY", "http://PROXY"), ("NO_PROXY", "127.0.0.0/8")];
    // Nobody listens there.
    dial("ws://127.0.0.1:1", &past, "", "unreachable");
    let socks = [("ALL_PROXY", "socks5://PROXY")];
    dial("ws://sync.invalid", &socks, "", "refused");
}
