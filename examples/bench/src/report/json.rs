//! Files for programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::{Metric, Results, Setting, Spread};
use crate::Failure;

#[derive(Serialize)]
struct File<'a> {
    setting: &'a Setting,
    cells: Vec<Cell<'a>>,
}

#[derive(Serialize)]
struct Cell<'a> {
    scenario: String,
    case: &'a str,
    server: &'a str,
    /// Of the relay's chief metric in the same runs.
    ratio: Option<Spread>,
    metrics: BTreeMap<&'static str, Values<'a>>,
}

#[derive(Serialize)]
struct Values<'a> {
    #[serde(flatten)]
    spread: Spread,
    runs: &'a [f64],
}

/// Writes everything.
pub(crate) fn write_json(results: &Results, setting: &Setting, file: &Path) -> Result<(), Failure> {
    let cells = results.cells().iter().map(|cell| Cell {
        scenario: crate::cli::name_of(cell.scenario),
        case: &cell.case,
        server: &cell.subject,
        ratio: results.ratio(cell),
        metrics: Metric::ALL
            .into_iter()
            .filter_map(|metric| {
                let values = Values {
                    spread: cell.spread(metric)?,
                    runs: cell.values(metric),
                };
                Some((metric.name(), values))
            })
            .collect(),
    });
    let content = File {
        setting,
        cells: cells.collect(),
    };
    Ok(fs::write(file, serde_json::to_string_pretty(&content)?)?)
}
