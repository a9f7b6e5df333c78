//! Totals of the server.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::families::{counter, counters, gauge, histogram, histograms};
use crate::stats::ServerStats;

/// What was read for one scrape.
#[derive(Debug)]
pub(super) struct ServerMetrics(pub(super) ServerStats);

impl Collector for ServerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (stats, to) = (&self.0, &mut encoder);
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        to.encode_descriptor("build", "The software", None, MetricType::Info)?
            .encode_info(&labels)?;
        self.totals(to)?;
        self.now(to)?;
        histogram(
            to,
            "commit",
            "From a change's arrival until it was committed",
            &stats.commits,
        )?;
        histogram(
            to,
            "open",
            "From the request to open a document until it was answered",
            &stats.opens,
        )?;
        let calls = || stats.registry.iter();
        histograms(
            to,
            "registry_call",
            "Calls of the registry",
            "call",
            calls().map(|calls| (calls.call, &calls.latencies)),
        )?;
        counters(
            to,
            "registry_failures",
            "Calls of the registry that failed",
            "call",
            calls().map(|calls| (calls.call, calls.failures)),
        )
    }
}

impl ServerMetrics {
    fn totals(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &self.0;
        for (name, help, value) in [
            (
                "connections_accepted",
                "Connections, those turned away among them",
                stats.connections_total,
            ),
            ("changes", "Changes committed", stats.changes_total),
            (
                "received_bytes",
                "Bytes of frames received, without what the transport adds",
                stats.bytes_in_total,
            ),
            (
                "sent_bytes",
                "Bytes of frames sent, without what the transport adds",
                stats.bytes_out_total,
            ),
        ] {
            counter(to, name, help, value)?;
        }
        let errors = stats.errors.iter().map(|(code, n)| (code.name(), *n));
        counters(
            to,
            "errors",
            "Errors that clients were told, by their code",
            "code",
            errors,
        )?;
        let events = stats.events.iter().map(|(event, n)| (*event, *n));
        counters(to, "events", "Events, by their kind", "event", events)
    }

    fn now(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &self.0;
        for (name, help, value) in [
            (
                "serving",
                "1 while new connections are served",
                u64::from(stats.is_serving),
            ),
            ("connections", "Connections open", stats.n_connections),
            (
                "sessions",
                "Connections whose clients have been welcomed",
                stats.n_sessions,
            ),
            ("users", "Users that have a session", stats.n_users),
            ("documents_live", "Live documents", stats.n_documents),
            (
                "documents_open",
                "Documents open on sessions, each counted for every session",
                stats.n_open,
            ),
            (
                "documents_present",
                "Sessions that say something of themselves in a document, each counted for every document",
                stats.n_present,
            ),
            (
                "documents_lagging",
                "Documents open on sessions that are so far behind that they are served from the registry",
                stats.n_lagging,
            ),
            (
                "documents_folding",
                "Live documents whose log is being folded",
                stats.n_folding,
            ),
            (
                "documents_relayed",
                "Live documents that fell back to relay",
                stats.n_relayed,
            ),
            (
                "changes_waiting",
                "Changes that wait to be checked or appended",
                stats.n_waiting,
            ),
            (
                "ring_bytes",
                "Bytes of recent frames kept by live documents",
                stats.ring_bytes,
            ),
        ] {
            gauge(to, name, help, value)?;
        }
        Ok(())
    }
}
