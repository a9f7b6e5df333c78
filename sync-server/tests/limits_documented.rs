//! The guide's table of limits is that of the struct.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use sync_core::limits::LimitValue;
use sync_server::{ErrorCode, Limits, Rate};

/// A row: default, code, what happens.
fn table() -> BTreeMap<String, [String; 3]> {
    let guide = include_str!("../../docs/guide/limits.md");
    let rows = guide.lines().filter_map(|line| {
        let cells: Vec<_> = line
            .strip_prefix("| `")?
            .split('|')
            .map(str::trim)
            .collect();
        let [name, default, code, what, ""] = cells[..] else {
            panic!("{line}")
        };
        let row = [default, code.trim_matches('`'), what].map(str::to_owned);
        Some((name.trim_end_matches('`').to_owned(), row))
    });
    rows.collect()
}

/// Bytes in the largest unit that fits.
fn number(name: &str, n: u64) -> String {
    if !name.contains("bytes") {
        return n.to_string();
    }
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let fits = units
        .iter()
        .find(|(_, bytes)| n > 0 && n.is_multiple_of(*bytes));
    fits.map_or_else(
        || n.to_string(),
        |(unit, bytes)| format!("{} {unit}", n / bytes),
    )
}

fn text(name: &str, value: LimitValue) -> String {
    match value {
        LimitValue::Number(n) => number(name, n.try_into().unwrap()),
        LimitValue::Time(time) if time == Duration::from_secs(time.as_secs()) => {
            format!("{} s", time.as_secs())
        }
        LimitValue::Time(time) => format!("{} ms", time.as_millis()),
        LimitValue::Rate(Rate { per_second, burst }) => {
            let [per_second, burst] = [per_second, burst].map(|n| number(name, n));
            format!("{per_second}/s, {burst} at once")
        }
    }
}

/// Scenario 47.
#[test]
fn every_limit_is_in_the_guide_with_its_default_and_a_code_that_exists() {
    let mut table = table();
    let limits = Limits::default();
    for name in Limits::NAMES {
        let Some([default, code, what]) = table.remove(*name) else {
            panic!("{name} is not in docs/guide/limits.md")
        };
        assert_eq!(default, text(name, limits.get(name).unwrap()), "{name}");
        assert!(!what.is_empty(), "{name}");
        let known = ErrorCode::ALL.iter().any(|known| known.name() == code);
        assert!(code.is_empty() || known, "{name}: {code}");
    }
    assert!(table.is_empty(), "no limits: {table:?}");
}
