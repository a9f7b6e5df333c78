//! The table `[limits]` of the file: all of [`Limits`], by their names.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use sync_core::limits::LimitValue;
use sync_core::rate::Rate;
use sync_server::Limits;

use crate::settings::SettingsError;

/// The limit that is a setting of its own too, which goes before.
pub(crate) const CONNECTIONS_MAX: &str = "connections-max";

/// A field's name in the file.
fn key(name: &str, value: LimitValue) -> String {
    let unit = match value {
        LimitValue::Time(_) => "-seconds",
        LimitValue::Number(_) | LimitValue::Rate(_) => "",
    };
    format!("{}{unit}", name.replace('_', "-"))
}

/// Takes what the file says.
pub(crate) fn read(
    path: &Path,
    mut table: toml::Table,
    limits: &mut Limits,
) -> Result<(), SettingsError> {
    for name in Limits::NAMES {
        let Some(value) = limits.get(name) else {
            continue;
        };
        let key = key(name, value);
        let Some(given) = table.remove(&key) else {
            continue;
        };
        let parsed = match value {
            LimitValue::Number(_) => number(&given).map(LimitValue::Number),
            LimitValue::Time(_) => seconds(&given).map(LimitValue::Time),
            LimitValue::Rate(_) => rate(&given).map(LimitValue::Rate),
        };
        let what = match value {
            LimitValue::Number(_) => "a number from 0",
            LimitValue::Time(_) => "a number of seconds from 0",
            LimitValue::Rate(_) => "{ per-second = NUMBER, burst = NUMBER }",
        };
        let failed = || SettingsError::File {
            path: path.to_owned(),
            reason: format!("limits.{key} is {given}, not {what}"),
        };
        let parsed = parsed.ok_or_else(failed)?;
        limits.set(name, parsed).map_err(|_| failed())?;
    }
    match table.into_iter().next() {
        None => Ok(()),
        Some((key, _)) => Err(SettingsError::Unknown {
            path: path.to_owned(),
            key: format!("limits.{key}"),
        }),
    }
}

fn number<T: TryFrom<i64>>(value: &toml::Value) -> Option<T> {
    value.as_integer().and_then(|number| number.try_into().ok())
}

fn seconds(value: &toml::Value) -> Option<Duration> {
    match value {
        toml::Value::Float(seconds) => Duration::try_from_secs_f64(*seconds).ok(),
        _ => number(value).map(Duration::from_secs),
    }
}

fn rate(value: &toml::Value) -> Option<Rate> {
    let table = value.as_table().filter(|table| table.len() == 2)?;
    let part = |name| number(table.get(name)?);
    Some(Rate::new(part("per-second")?, part("burst")?))
}

/// All of them as a table, but for the one that stands among the settings.
pub(crate) fn to_toml(limits: &Limits) -> String {
    let mut text = "\n[limits]\n".to_owned();
    for name in Limits::NAMES {
        let Some(value) = limits.get(name) else {
            continue;
        };
        let key = key(name, value);
        if key == CONNECTIONS_MAX {
            continue;
        }
        // What is larger cannot stand in a file.
        let max = u64::MAX >> 1;
        let _ = match value {
            LimitValue::Number(number) => {
                let number = u64::try_from(number).unwrap_or(max);
                writeln!(text, "{key} = {}", number.min(max))
            }
            LimitValue::Time(time) => writeln!(text, "{key} = {}", time.as_secs_f64()),
            LimitValue::Rate(rate) => writeln!(
                text,
                "{key} = {{ per-second = {}, burst = {} }}",
                rate.per_second.min(max),
                rate.burst.min(max)
            ),
        };
    }
    text
}
