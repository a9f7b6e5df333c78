//! A progress bar on the terminal, for documents that take a while to arrive.

use std::io::{IsTerminal, Write, stderr};

use sync_client::{SyncPhase, SyncState, Watch};

/// Columns of the bar itself.
const WIDTH: u64 = 30;

/// Less than this arrives before anybody could read the bar.
const BYTES_MIN: u64 = 256 * 1024;

/// Draws what is on its way, over and over on one line of standard error, for as long as the document is open. Does
/// nothing where that is no terminal.
///
/// # Cancellation
/// Safe. What is drawn stays.
pub async fn show(mut state: Watch<SyncState>) {
    if !stderr().is_terminal() {
        return;
    }
    let mut shown = None;
    // The current state comes first.
    while let Ok(state) = state.changed().await {
        let line = line(state.phase);
        if line == shown {
            continue;
        }
        // "Erase in line", ECMA-48 section 8.3.41.
        let drawn = line.as_deref().unwrap_or_default();
        if write!(stderr(), "\r\x1b[K{drawn}").is_err() {
            return;
        }
        shown = line;
    }
}

/// What there is to draw, if anything.
fn line(phase: SyncPhase) -> Option<String> {
    let SyncPhase::CatchingUp { received, total } = phase else {
        return None;
    };
    // When everything has arrived, the program has something better to show.
    if total < BYTES_MIN || received >= total {
        return None;
    }
    let of_total = |n: u64| u64::try_from(u128::from(received) * u128::from(n) / u128::from(total));
    let done = usize::try_from(of_total(WIDTH).ok()?).ok()?;
    let left = usize::try_from(WIDTH).ok()?.saturating_sub(done);
    Some(format!(
        "[{}{}] {:>3} %  {} of {}",
        "#".repeat(done),
        "-".repeat(left),
        of_total(100).ok()?,
        megabytes(received),
        megabytes(total)
    ))
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_much_of_how_much_has_arrived() {
        let at = |received| {
            line(SyncPhase::CatchingUp {
                received,
                total: 20_000_000,
            })
            .unwrap()
        };
        assert_eq!(
            at(0),
            "[------------------------------]   0 %  0.0 MB of 20.0 MB"
        );
        assert_eq!(
            at(5_050_000),
            "[#######-----------------------]  25 %  5.0 MB of 20.0 MB"
        );
        assert_eq!(
            at(19_900_000),
            "[#############################-]  99 %  19.9 MB of 20.0 MB"
        );
    }

    #[test]
    fn nothing_is_drawn_when_nothing_or_little_is_on_its_way() {
        let small = SyncPhase::CatchingUp {
            received: 10,
            total: 1_000,
        };
        let all = SyncPhase::CatchingUp {
            received: 1_000_000,
            total: 1_000_000,
        };
        for phase in [SyncPhase::Live, SyncPhase::Offline, small, all] {
            assert_eq!(line(phase), None);
        }
    }
}
