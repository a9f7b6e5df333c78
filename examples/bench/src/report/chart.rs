//! Charts in SVG: one for each scenario, with a bar for each server in each case, as long as the median of what the scenario
//! is about, and a line from the least to the most.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{Cell, Metric, Results};
use crate::Failure;
use crate::cli::{Scenario, name_of};

const WIDTH: f64 = 900.0;
/// Where bars begin; names are in front of it.
const LEFT: f64 = 220.0;
/// Room for the number behind the longest bar.
const RIGHT: f64 = 90.0;
const TOP: f64 = 50.0;
const BAR: f64 = 18.0;
const GAP: f64 = 26.0;
const BASELINE_COLOUR: &str = "#9aa5b1";
const COLOUR: &str = "#2f6fab";

/// Writes one file for each scenario that was measured.
pub(crate) fn write_charts(results: &Results, folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder)?;
    let mut scenarios: Vec<Scenario> = results.cells().iter().map(|cell| cell.scenario).collect();
    scenarios.dedup();
    for scenario in scenarios {
        let file = folder.join(format!("{}.svg", name_of(scenario)));
        fs::write(file, chart(results, scenario)?)?;
    }
    Ok(())
}

fn chart(results: &Results, scenario: Scenario) -> Result<String, Failure> {
    let metric = Metric::chief(scenario);
    let cells: Vec<&Cell> = results
        .of(scenario)
        .filter(|cell| cell.spread(metric).is_some())
        .collect();
    let most = cells.iter().filter_map(|cell| cell.spread(metric));
    let most = most
        .map(|spread| spread.max)
        .fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / most;
    let mut bars = String::new();
    let mut y = TOP;
    let mut case = "";
    for cell in cells {
        if cell.case != case {
            case = &cell.case;
            y += GAP;
            let title = escape(case);
            writeln!(
                bars,
                r#"<text x="8" y="{:.0}" font-weight="bold">{title}</text>"#,
                y - 6.0
            )?;
        }
        bar(&mut bars, cell, metric, y, scale)?;
        y += BAR + 4.0;
    }
    let title = escape(scenario.title());
    let unit = escape(metric.title());
    Ok(format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>
<text x="8" y="22" font-size="16">{title}</text>
<text x="8" y="42">{unit}: median, least and most; less is better</text>
{bars}</svg>
"##,
        height = y + 10.0,
    ))
}

fn bar(out: &mut String, cell: &Cell, metric: Metric, y: f64, scale: f64) -> Result<(), Failure> {
    let Some(spread) = cell.spread(metric) else {
        return Ok(());
    };
    let colour = if cell.is_baseline {
        BASELINE_COLOUR
    } else {
        COLOUR
    };
    let name = escape(&cell.subject);
    let baseline = y + BAR - 5.0;
    let middle = y + BAR / 2.0;
    let width = spread.median * scale;
    let (from, to) = (LEFT + spread.min * scale, LEFT + spread.max * scale);
    writeln!(
        out,
        r#"<text x="16" y="{baseline:.0}">{name}</text>
<rect x="{LEFT}" y="{y:.0}" width="{width:.1}" height="{BAR}" fill="{colour}"/>
<path d="M{from:.1} {middle:.1}H{to:.1}" stroke="black"/>
<text x="{:.1}" y="{baseline:.0}">{:.2}</text>"#,
        to + 6.0,
        spread.median,
    )?;
    Ok(())
}

/// For text between tags.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_a_bar_for_each_server() {
        let chart = chart(&super::super::tests::results(), Scenario::FanOut).unwrap();
        assert_eq!(chart.matches("<rect x=").count(), 2, "{chart}");
        assert_eq!(chart.matches("10 clients").count(), 1, "{chart}");
        assert!(chart.contains("sync &lt;1&gt;"), "{chart}");
        // The longest line, to the most of the server, ends where the numbers begin.
        assert!(chart.contains("H810.0"), "{chart}");
        let other = super::chart(&Results::default(), Scenario::Pairs).unwrap();
        assert!(!other.contains("<rect x="), "{other}");
    }
}
