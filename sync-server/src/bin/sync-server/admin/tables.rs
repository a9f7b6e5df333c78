//! Answers of the admin API, for people.

use serde_json::Value;

use crate::output::{Failure, line, size};

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.pointer(name).and_then(Value::as_str).unwrap_or("-")
}

fn number(value: &Value, name: &str) -> u64 {
    value.pointer(name).and_then(Value::as_u64).unwrap_or(0)
}

fn maybe_size(value: &Value, name: &str) -> String {
    let bytes = value.pointer(name).and_then(Value::as_u64);
    bytes.map_or_else(|| "-".to_owned(), size)
}

fn float(value: &Value, name: &str) -> f64 {
    value.pointer(name).and_then(Value::as_f64).unwrap_or(0.0)
}

fn items<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    let found = value.pointer(name).and_then(Value::as_array);
    found.into_iter().flatten()
}

pub(super) fn documents_head() -> Result<(), Failure> {
    line(format_args!(
        "{:<10} {:>10} {:>8} {:>10} {:>10} {:>8} {:>8} {:>10}  ID",
        "ENGINE", "HEAD", "LOG", "LOG SIZE", "SNAPSHOT", "SESSIONS", "LAGGING", "CHANGES/S"
    ))
}

pub(super) fn document(found: &Value) -> Result<(), Failure> {
    line(format_args!(
        "{:<10} {:>10} {:>8} {:>10} {:>10} {:>8} {:>8} {:>10.1}  {:?}{}",
        text(found, "/engine"),
        number(found, "/head"),
        number(found, "/log_changes"),
        maybe_size(found, "/log_bytes"),
        maybe_size(found, "/snapshot_bytes"),
        number(found, "/live/n_sessions"),
        number(found, "/live/n_lagging"),
        float(found, "/live/changes_per_second"),
        text(found, "/document"),
        relayed(found, "/live/relayed"),
    ))
}

fn relayed(found: &Value, name: &str) -> String {
    let why = found.pointer(name).and_then(Value::as_str);
    why.map_or_else(String::new, |why| format!("  (relayed: {why})"))
}

pub(super) fn stored(found: &Value) -> Result<(), Failure> {
    line(format_args!("id        {:?}", text(found, "/document")))?;
    line(format_args!("engine    {}", text(found, "/engine")))?;
    line(format_args!(
        "epoch     {} ({})",
        text(found, "/epoch"),
        text(found, "/mode")
    ))?;
    line(format_args!(
        "head      {}, digest {}",
        number(found, "/head"),
        text(found, "/digest")
    ))?;
    line(format_args!(
        "log       {} changes, {}",
        number(found, "/log_changes"),
        maybe_size(found, "/log_bytes")
    ))?;
    match number(found, "/snapshot_seq") {
        0 => line("snapshot  none"),
        seq => line(format_args!(
            "snapshot  at {seq}, {}",
            maybe_size(found, "/snapshot_bytes")
        )),
    }
}

pub(super) fn inspected(found: &Value) -> Result<(), Failure> {
    stored(found.get("stored").unwrap_or(&Value::Null))?;
    let Some(live) = found.get("live").filter(|live| !live.is_null()) else {
        return line("live      no");
    };
    let stats = live.get("stats").unwrap_or(&Value::Null);
    line(format_args!(
        "live      {}, {:.1} changes/s, {} waiting{}",
        text(stats, "/phase"),
        float(stats, "/changes_per_second"),
        number(stats, "/n_waiting"),
        relayed(stats, "/relayed"),
    ))?;
    line(format_args!(
        "bytes     {} in, {} out",
        size(number(stats, "/bytes_in_total")),
        size(number(stats, "/bytes_out_total"))
    ))?;
    line(format_args!(
        "sessions  {}, {} lagging, {} present",
        number(stats, "/n_sessions"),
        number(stats, "/n_lagging"),
        number(stats, "/n_present")
    ))?;
    for session in items(live, "/sessions") {
        line(format_args!(
            "          {} {:?} from {}: {}, sent {}, {} behind{}",
            text(session, "/session"),
            text(session, "/user"),
            text(session, "/peer"),
            text(session, "/access"),
            number(session, "/sent"),
            number(session, "/lag"),
            if session.get("is_lagging") == Some(&Value::Bool(true)) {
                ", lagging"
            } else {
                ""
            },
        ))?;
    }
    Ok(())
}

pub(super) fn sessions(found: &Value) -> Result<(), Failure> {
    line(format_args!(
        "{:<16} {:>10} {:>10}  {:<21} USER",
        "SESSION", "IN", "OUT", "PEER"
    ))?;
    for session in items(found, "/sessions") {
        line(format_args!(
            "{:<16} {:>10} {:>10}  {:<21} {:?}",
            text(session, "/session"),
            size(number(session, "/bytes_in")),
            size(number(session, "/bytes_out")),
            text(session, "/peer"),
            text(session, "/user"),
        ))?;
    }
    Ok(())
}

pub(super) fn stats(found: &Value) -> Result<(), Failure> {
    let n = |name| number(found, name);
    line(format_args!("uptime       {} s", n("/uptime_ms") / 1_000))?;
    line(format_args!(
        "connections  {} now, {} in all",
        n("/n_connections"),
        n("/connections_total")
    ))?;
    line(format_args!(
        "sessions     {}, of {} users",
        n("/n_sessions"),
        n("/n_users")
    ))?;
    line(format_args!(
        "documents    {} live, open {} times, {} lagging, {} relayed",
        n("/n_documents"),
        n("/n_open"),
        n("/n_lagging"),
        n("/n_relayed")
    ))?;
    line(format_args!(
        "changes      {:.1}/s, {} in all, {} waiting",
        float(found, "/changes_per_second"),
        n("/changes_total"),
        n("/n_waiting")
    ))?;
    line(format_args!(
        "bytes        {} in, {} out",
        size(n("/bytes_in_total")),
        size(n("/bytes_out_total"))
    ))?;
    line(format_args!(
        "commits      half in {} ms, 99 % in {} ms",
        float(found, "/commits/p50_ms"),
        float(found, "/commits/p99_ms")
    ))?;
    let errors = found.get("errors").and_then(Value::as_object);
    for (code, n) in errors.into_iter().flatten() {
        line(format_args!("errors       {n} {code}"))?;
    }
    Ok(())
}

pub(super) fn folded(found: &Value) -> Result<(), Failure> {
    line(format_args!(
        "snapshot  at {}, {}, in {} ms",
        number(found, "/seq"),
        size(number(found, "/bytes")),
        number(found, "/took_ms")
    ))
}

pub(super) fn evicted(found: &Value) -> Result<(), Failure> {
    match found.get("unloaded").and_then(Value::as_bool) {
        Some(true) => line("unloaded"),
        _ => Ok(()),
    }
}

pub(super) fn disconnected(found: &Value) -> Result<(), Failure> {
    line(format_args!(
        "{} sessions ended",
        number(found, "/n_sessions")
    ))
}

pub(super) fn broadcast(found: &Value) -> Result<(), Failure> {
    line(format_args!(
        "sent to {} sessions",
        number(found, "/n_sessions")
    ))
}

pub(super) fn event(found: &Value) -> Result<(), Failure> {
    line(format_args!(
        "{:<8} {}",
        text(found, "/severity"),
        text(found, "/text")
    ))
}
