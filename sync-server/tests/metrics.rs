//! `/metrics`, as Prometheus reads it.
#![cfg(feature = "http")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod common;
mod e2e;
mod registries;
mod requests;

use std::collections::BTreeMap;

use common::{Peer, builder};
use requests::{send, serve};
use sync_core::wire::Message;
use sync_server::registry::MemoryRegistry;
use sync_server::{ErrorCode, Server, http};

/// Samples by their name and labels.
type Samples = BTreeMap<String, f64>;

/// What is served, after it has been read as the format wants it (OpenMetrics 1.0).
async fn scrape(server: &Server, routes: impl Fn(http::Routes) -> http::Routes) -> Samples {
    let routes = routes(http::routes(server.clone()));
    let address = serve(routes.into_router()).await;
    let answer = send(address, "GET /metrics", &[], &[]).await;
    assert_eq!(answer.status, 200);
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(answer.head.contains(kind), "{}", answer.head);
    let text = answer.text().strip_suffix("# EOF\n").expect("an end");
    let (mut samples, mut kinds) = (Samples::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(about) = line.strip_prefix("# ") {
            let mut words = about.splitn(3, ' ');
            let (what, name) = (words.next().unwrap(), words.next().unwrap());
            let rest = words.next().unwrap();
            if what == "TYPE" {
                assert!(kinds.insert(name.to_owned(), rest.to_owned()).is_none());
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let bare = name.split('{').next().unwrap();
        let is_typed = kinds.iter().any(|(family, kind)| {
            let suffixes: &[&str] = match kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_sum", "_count"],
                "info" => &["_info"],
                other => panic!("{other}"),
            };
            suffixes
                .iter()
                .any(|suffix| bare == format!("{family}{suffix}"))
        });
        assert!(is_typed, "{line}");
        assert!(bare.starts_with("sync_"), "{line}");
        assert!(
            bare.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
            "{line}"
        );
        let value = value.parse().unwrap();
        assert!(samples.insert(name.to_owned(), value).is_none(), "{line}");
    }
    samples
}

fn server() -> Server {
    builder(MemoryRegistry::new()).build().unwrap()
}

/// Scenario 73.
#[tokio::test]
async fn totals_errors_and_latencies_are_there_without_any_name() {
    let server = server();
    let mut ada = Peer::welcomed(&server, 1).await;
    let notes = ada.open("private notes").await;
    ada.push_acked(&notes, 1, "hello").await;
    ada.push_acked(&notes, 2, "world").await;
    let mut open = ada.open_message("none");
    open.create = false;
    ada.send(&Message::Open(open)).await;
    assert_eq!(ada.error().await.code, ErrorCode::NotFound);

    let samples = scrape(&server, http::Routes::metrics).await;
    for (name, value) in [
        ("sync_serving", 1.0),
        ("sync_connections", 1.0),
        ("sync_sessions", 1.0),
        ("sync_users", 1.0),
        ("sync_connections_accepted_total", 1.0),
        ("sync_documents_open", 1.0),
        ("sync_documents_lagging", 0.0),
        ("sync_changes_total", 2.0),
        ("sync_errors_total{code=\"NotFound\"}", 1.0),
        ("sync_events_total{event=\"committed\"}", 2.0),
        ("sync_events_total{event=\"worker_died\"}", 0.0),
        ("sync_commit_seconds_count", 2.0),
        ("sync_commit_seconds_bucket{le=\"+Inf\"}", 2.0),
        ("sync_open_seconds_count", 1.0),
        ("sync_registry_call_seconds_count{call=\"append\"}", 2.0),
        ("sync_registry_failures_total{call=\"append\"}", 0.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}");
    }
    assert!(samples["sync_received_bytes_total"] > 0.0);
    assert!(samples["sync_sent_bytes_total"] > 0.0);
    assert!(
        samples
            .keys()
            .any(|name| name.starts_with("sync_build_info{version="))
    );
    for name in samples.keys() {
        assert!(
            !name.contains("notes") && !name.contains("anonymous"),
            "{name}"
        );
    }
    // Buckets count what is in the narrower ones too.
    let mut before = 0.0;
    let buckets = samples
        .iter()
        .filter(|(name, _)| name.contains("call_seconds_bucket{le"));
    let mut counts: Vec<_> = buckets.map(|(_, n)| *n).collect();
    counts.sort_by(f64::total_cmp);
    for n in counts {
        assert!(n >= before);
        before = n;
    }
}

#[tokio::test]
async fn documents_are_named_only_where_that_is_said_and_only_the_busiest() {
    let server = server();
    let mut ada = Peer::welcomed(&server, 1).await;
    let mut bob = Peer::welcomed(&server, 2).await;
    let odd = ada.open("odd\"} 1\nsync_evil 1 \\").await;
    bob.open("odd\"} 1\nsync_evil 1 \\").await;
    ada.push_acked(&odd, 1, "hello").await;
    let plan = ada.open("plan").await;
    for number in 1..=3 {
        ada.push_acked(&plan, number, "x").await;
    }
    ada.open("idle").await;

    let samples = scrape(&server, |routes| routes.metrics_by_document(2)).await;
    let named: Vec<_> = samples
        .keys()
        .filter(|name| name.contains("document="))
        .collect();
    assert_eq!(named.len(), 14, "{named:?}");
    let of =
        |metric: &str, id: &str| samples[&format!("sync_document_{metric}{{document=\"{id}\"}}")];
    assert_eq!(of("sessions", r#"odd\"} 1\nsync_evil 1 \\"#), 2.0);
    assert_eq!(of("changes_total", "plan"), 3.0);
    assert_eq!(of("received_bytes_total", "plan"), 3.0);
    assert!(!samples.keys().any(|name| name.contains("idle")));
}
