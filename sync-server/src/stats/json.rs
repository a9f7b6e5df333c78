//! Statistics as JSON.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use serde::{Serialize, Serializer};
use sync_core::error::ErrorCode;
use sync_core::history::Seq;
use sync_core::ids::User;
use sync_core::server::Latencies;
use sync_core::wire::AccessLevel;

/// How long something took. Quantiles are upper bounds, at most twice what they were.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct LatencySummary {
    /// How many there were.
    count: u64,
    /// The mean, in milliseconds.
    mean_ms: f64,
    /// Half of them took at most so many milliseconds.
    p50_ms: f64,
    /// Of a hundred, 99 took at most so many milliseconds.
    p99_ms: f64,
}

impl From<&Latencies> for LatencySummary {
    fn from(latencies: &Latencies) -> Self {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let count = latencies.count();
        let sum = latencies.sum();
        let mean = u32::try_from(count).ok().and_then(|n| sum.checked_div(n));
        Self {
            count,
            mean_ms: ms(mean.unwrap_or_default()),
            p50_ms: ms(latencies.quantile(0.5)),
            p99_ms: ms(latencies.quantile(0.99)),
        }
    }
}

pub(super) fn text<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

pub(super) fn maybe_text<S: Serializer>(
    value: &Option<impl Display>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => to.collect_str(value),
        None => to.serialize_none(),
    }
}

pub(super) fn user<S: Serializer>(user: &User, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&user.id)
}

pub(super) fn seq<S: Serializer>(seq: &Seq, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(seq.0)
}

pub(super) fn access<S: Serializer>(access: &AccessLevel, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(match access {
        AccessLevel::None => "none",
        AccessLevel::Read => "read",
        AccessLevel::Write => "write",
        AccessLevel::Maintain => "maintain",
    })
}

pub(super) fn errors<S: Serializer>(
    errors: &BTreeMap<ErrorCode, u64>,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_map(errors.iter().map(|(code, n)| (code.to_string(), n)))
}

pub(super) fn latencies<S: Serializer>(latencies: &Latencies, to: S) -> Result<S::Ok, S::Error> {
    LatencySummary::from(latencies).serialize(to)
}
