//! What came out: medians over runs, ratios to the relay, tables, JSON and charts.

mod chart;
mod json;
mod metric;
mod setting;
mod table;

pub(crate) use self::chart::write_charts;
pub(crate) use self::json::write_json;
pub(crate) use self::metric::Metric;
pub(crate) use self::setting::Setting;
pub(crate) use self::table::print_table;
use crate::cli::Scenario;

/// What one server did in one case of one run.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) scenario: Scenario,
    pub(crate) case: String,
    pub(crate) subject: String,
    /// Whether the others of the case are compared to it.
    pub(crate) is_baseline: bool,
    pub(crate) metrics: Vec<(Metric, f64)>,
}

/// All rows of all runs, in the order in which cases and servers came first.
#[derive(Debug, Default)]
pub(crate) struct Results {
    cells: Vec<Cell>,
}

/// One server in one case, over all runs.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) scenario: Scenario,
    pub(crate) case: String,
    pub(crate) subject: String,
    is_baseline: bool,
    /// Values of each metric, one of each run that has it.
    metrics: Vec<(Metric, Vec<f64>)>,
}

/// A metric over all runs.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Results {
    /// Adds what one run found.
    pub(crate) fn add(&mut self, row: Row) {
        let known = self.cells.iter().position(|cell| {
            cell.scenario == row.scenario && cell.case == row.case && cell.subject == row.subject
        });
        let place = known.unwrap_or_else(|| {
            self.cells.push(Cell {
                scenario: row.scenario,
                case: row.case,
                subject: row.subject,
                is_baseline: row.is_baseline,
                metrics: Vec::new(),
            });
            self.cells.len() - 1
        });
        if let Some(cell) = self.cells.get_mut(place) {
            for (metric, value) in row.metrics {
                // Nothing was delivered, say: there is no cost of one delivery then.
                if value.is_finite() {
                    cell.add(metric, value);
                }
            }
        }
    }

    /// The cells of a scenario.
    pub(crate) fn of(&self, scenario: Scenario) -> impl Iterator<Item = &Cell> {
        self.cells
            .iter()
            .filter(move |cell| cell.scenario == scenario)
    }

    /// All cells.
    pub(crate) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// The scenario's chief metric as a multiple of the relay's in the same run, over all runs. `None` for the relay itself,
    /// and where there is none.
    pub(crate) fn ratio(&self, cell: &Cell) -> Option<Spread> {
        if cell.is_baseline {
            return None;
        }
        let metric = Metric::chief(cell.scenario);
        let baseline = self.cells.iter().find(|other| {
            other.is_baseline && other.scenario == cell.scenario && other.case == cell.case
        })?;
        let pairs = cell.values(metric).iter().zip(baseline.values(metric));
        let ratios: Vec<f64> = pairs.map(|(value, floor)| value / floor).collect();
        Spread::of(&ratios)
    }
}

impl Cell {
    fn add(&mut self, metric: Metric, value: f64) {
        match self.metrics.iter_mut().find(|(known, _)| *known == metric) {
            Some((_, values)) => values.push(value),
            None => self.metrics.push((metric, vec![value])),
        }
    }

    /// One of each run.
    pub(crate) fn values(&self, metric: Metric) -> &[f64] {
        let found = self.metrics.iter().find(|(known, _)| *known == metric);
        found.map_or(&[], |(_, values)| values)
    }

    /// Over all runs; `None` if it was not measured here.
    pub(crate) fn spread(&self, metric: Metric) -> Option<Spread> {
        Spread::of(self.values(metric))
    }
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(*sorted.get(middle.checked_sub(1)?)?, upper)
        } else {
            upper
        };
        Some(Self { median, min, max })
    }
}

/// `part` of `whole`, between 0 and 1; half if there is nothing.
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.5,
        _ => number(part) / number(whole),
    }
}

/// For arithmetic: counts of things here are far below 2^53.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "exact below 2^53"
)]
pub(crate) fn number(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A relay and a server in two runs of one case.
    pub(crate) fn results() -> Results {
        let mut results = Results::default();
        for (relay, server) in [(2.0, 3.0), (4.0, 8.0)] {
            for (subject, cpu) in [("relay", relay), ("sync <1>", server)] {
                results.add(Row {
                    scenario: Scenario::FanOut,
                    case: "10 clients".to_owned(),
                    subject: subject.to_owned(),
                    is_baseline: subject == "relay",
                    metrics: vec![
                        (Metric::CpuMicros, cpu),
                        (Metric::CompletePercent, 100.0),
                        (Metric::P99Millis, f64::NAN),
                    ],
                });
            }
        }
        results
    }

    #[test]
    fn medians_and_ratios_are_taken_over_runs() {
        let results = results();
        let [relay, server] = results.cells() else {
            panic!("two cells");
        };
        let spread = |median, min, max| Some(Spread { median, min, max });
        assert_eq!(relay.spread(Metric::CpuMicros), spread(3.0, 2.0, 4.0));
        assert_eq!(results.ratio(relay), None);
        assert_eq!(results.ratio(server), spread(1.75, 1.5, 2.0));
        assert_eq!(server.spread(Metric::P99Millis), None);
        assert_eq!(results.of(Scenario::Pairs).count(), 0);
    }

    #[test]
    fn the_median_of_an_odd_number_is_one_of_them() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(Spread::of(&[]), None);
    }
}
