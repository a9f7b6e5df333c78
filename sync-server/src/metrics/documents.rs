//! The busiest documents, by name: only where somebody has said so, and only so many of them.

use std::cmp::Reverse;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::families::{counters, gauges};
use crate::stats::DocumentStats;

/// What was read for one scrape; each with its name as a label.
#[derive(Debug)]
pub(super) struct DocumentMetrics(Vec<(String, DocumentStats)>);

impl DocumentMetrics {
    /// Those with most sessions; of equally many, those with most changes.
    pub(super) fn busiest(mut documents: Vec<DocumentStats>, max: usize) -> Self {
        documents.sort_by_key(|found| Reverse((found.n_sessions, found.changes_total)));
        documents.truncate(max);
        let named = documents
            .into_iter()
            .map(|found| (escaped(found.document.as_str()), found));
        Self(named.collect())
    }

    fn of(&self, value: impl Fn(&DocumentStats) -> u64) -> impl Iterator<Item = (&str, u64)> {
        self.0
            .iter()
            .map(move |(name, found)| (name.as_str(), value(found)))
    }
}

impl Collector for DocumentMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (to, label) = (&mut encoder, "document");
        gauges(
            to,
            "document_sessions",
            "Sessions that have the document open",
            label,
            self.of(|found| found.n_sessions),
        )?;
        gauges(
            to,
            "document_present",
            "Sessions that say something of themselves in the document",
            label,
            self.of(|found| found.n_present),
        )?;
        gauges(
            to,
            "document_lagging",
            "Of the sessions, how many are so far behind that they are served from the registry",
            label,
            self.of(|found| found.n_lagging),
        )?;
        gauges(
            to,
            "document_log_bytes",
            "Bytes of changes since the document's snapshot, or since it was loaded",
            label,
            self.of(|found| found.log_bytes),
        )?;
        counters(
            to,
            "document_changes",
            "Changes committed since the document was loaded",
            label,
            self.of(|found| found.changes_total),
        )?;
        counters(
            to,
            "document_received_bytes",
            "Bytes of changes pushed since the document was loaded",
            label,
            self.of(|found| found.bytes_in_total),
        )?;
        counters(
            to,
            "document_sent_bytes",
            "Bytes of frames sent since the document was loaded",
            label,
            self.of(|found| found.bytes_out_total),
        )
    }
}

/// A label's value, as the format wants it; the library writes it as it is.
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn a_name_cannot_end_its_label() {
        assert_eq!(escaped("a\"} 1\nb\\"), "a\\\"} 1\\nb\\\\");
        assert_eq!(escaped("notes/42 ü"), "notes/42 ü");
    }
}
