//! Statistics as Prometheus reads them: the text format of OpenMetrics 1.0.
//!
//! Nothing is counted here. A scrape reads [`Server::stats`] once and writes it down.

mod documents;
mod families;
mod server;

use std::fmt;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use self::documents::DocumentMetrics;
use self::server::ServerMetrics;
use crate::server::Server;

/// What the answer's `Content-Type` has to be.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is measured, with the busiest documents by name: as many as this, of those that are live.
///
/// # Errors
/// Never: text takes what is written to it.
pub(crate) fn text(server: &Server, documents_max: usize) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("sync");
    registry.register_collector(Box::new(ServerMetrics(server.stats())));
    if documents_max > 0 {
        let documents = DocumentMetrics::busiest(server.documents(), documents_max);
        registry.register_collector(Box::new(documents));
    }
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}
