//! Tables in Markdown.

use std::fmt::Write as _;
use std::io::{Write as _, stdout};

use super::{Metric, Results, Setting, Spread};
use crate::Failure;
use crate::cli::Scenario;

/// Prints the table of a scenario.
pub(crate) fn print_table(
    results: &Results,
    setting: &Setting,
    scenario: Scenario,
) -> Result<(), Failure> {
    let mut out = stdout().lock();
    writeln!(out, "{}\n{setting}\n", table(results, scenario)?)?;
    Ok(())
}

fn table(results: &Results, scenario: Scenario) -> Result<String, Failure> {
    let metrics = Metric::ALL.into_iter();
    let metrics: Vec<Metric> = metrics
        .filter(|metric| {
            results
                .of(scenario)
                .any(|cell| !cell.values(*metric).is_empty())
        })
        .collect();
    let mut text = format!(
        "### {}\n\n| case | server | of the relay's |",
        scenario.title()
    );
    for metric in &metrics {
        write!(text, " {} |", metric.title())?;
    }
    text.push_str("\n|");
    text.push_str(&" --- |".repeat(metrics.len() + 3));
    text.push('\n');
    for cell in results.of(scenario) {
        let ratio = results.ratio(cell).map(show).unwrap_or_default();
        write!(text, "| {} | {} | {ratio} |", cell.case, cell.subject)?;
        for metric in &metrics {
            let value = cell.spread(*metric).map(show).unwrap_or_default();
            write!(text, " {value} |")?;
        }
        text.push('\n');
    }
    Ok(text)
}

/// The median, with the least and the most if there is a difference.
fn show(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    let (median, min, max) = (digits(median), digits(min), digits(max));
    if min == max {
        median
    } else {
        format!("{median} [{min}..{max}]")
    }
}

/// As many digits as mean something.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        0.0 => 0,
        size if size < 10.0 => 3,
        size if size < 1_000.0 => 1,
        _ => 0,
    };
    format!("{value:.places$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_what_was_measured_and_nothing_else() {
        let table = table(&super::super::tests::results(), Scenario::FanOut).unwrap();
        let expected = "\
### S1: one document

| case | server | of the relay's | server CPU, us per delivered change | complete, % |
| --- | --- | --- | --- | --- |
| 10 clients | relay |  | 3.000 [2.000..4.000] | 100.0 |
| 10 clients | sync <1> | 1.750 [1.500..2.000] | 5.500 [3.000..8.000] | 100.0 |
";
        assert_eq!(table, expected);
    }

    #[test]
    fn numbers_have_the_digits_that_mean_something() {
        let shown = [0.0, 0.1234, 12.34, 123_456.7].map(digits);
        assert_eq!(shown, ["0", "0.123", "12.3", "123457"]);
    }
}
