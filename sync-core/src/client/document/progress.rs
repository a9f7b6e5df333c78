//! How much of what a document lacks has arrived.

use crate::history::Seq;

/// Counts bytes from the open that found something missing until the document is caught up, over any number of
/// connections.
///
/// A snapshot's bytes are known beforehand. Of the changes after it only the number is, so their bytes are reckoned from
/// those that have come, or from the snapshot's while none have. What is told never goes back: not the bytes received,
/// nor their share of the total, unless the server begins a snapshot anew.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    snapshot_received: u64,
    snapshot_total: u64,
    snapshot_seq: Seq,
    changes: u64,
    change_bytes: u64,
    /// As told: received, total.
    told: (u64, u64),
}

impl Progress {
    /// Bytes received, and bytes in all; 0 if that is not known.
    pub(super) const fn told(&self) -> (u64, u64) {
        self.told
    }

    /// A snapshot of so many bytes follows; a part of it may be here.
    pub(super) fn snapshot(&mut self, seq: Seq, received: u64, total: u64) {
        self.snapshot_seq = seq;
        self.snapshot_received = received;
        self.snapshot_total = total;
    }

    /// So many changes of the log have come, with so many bytes.
    pub(super) const fn changes(&mut self, n: u64, bytes: u64) {
        self.changes = self.changes.saturating_add(n);
        self.change_bytes = self.change_bytes.saturating_add(bytes);
    }

    /// Reckons again; so many changes have yet to come.
    pub(super) fn update(&mut self, changes_left: u64) {
        let left = match (self.changes, self.snapshot_seq.0) {
            (0, 0) => 0,
            (0, seq) => share(changes_left, self.snapshot_total, seq),
            (changes, _) => share(changes_left, self.change_bytes, changes),
        };
        let received = self.snapshot_received.saturating_add(self.change_bytes);
        let mut total = self
            .snapshot_total
            .saturating_add(self.change_bytes)
            .saturating_add(left);
        let (before, total_before) = self.told;
        if before > 0 && received >= before {
            total = total.min(share(received, total_before, before));
        }
        self.told = (received, total.max(received));
    }

    /// Nothing is missing any more.
    pub(super) fn finish(&mut self) {
        *self = Self::default();
    }
}

/// `value * numerator / denominator`, which is not 0.
fn share(value: u64, numerator: u64, denominator: u64) -> u64 {
    let share = u128::from(value) * u128::from(numerator) / u128::from(denominator.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_counts_as_it_comes_and_the_changes_after_it_are_reckoned() {
        let mut progress = Progress::default();
        progress.snapshot(Seq::ZERO, 0, 1_000);
        progress.update(0);
        assert_eq!(progress.told(), (0, 1_000));
        progress.snapshot(Seq(100), 500, 1_000);
        progress.update(20);
        assert_eq!(progress.told(), (500, 1_200), "ten bytes for each change");
        progress.snapshot(Seq(100), 1_000, 1_000);
        progress.update(20);
        assert_eq!(progress.told(), (1_000, 1_200));
        progress.changes(10, 50);
        progress.update(10);
        assert_eq!(progress.told(), (1_050, 1_100), "five, as it turns out");
        progress.changes(10, 50);
        progress.update(0);
        assert_eq!(progress.told(), (1_100, 1_100));
    }

    #[test]
    fn the_share_never_goes_back() {
        let mut progress = Progress::default();
        let mut shown = 0;
        for (n, bytes, left) in [(1, 10, 9), (1, 1_000, 8), (3, 3, 500), (1, 1, 0)] {
            progress.changes(n, bytes);
            progress.update(left);
            let (received, total) = progress.told();
            assert!(received <= total);
            let share = received * 1_000 / total;
            assert!(share >= shown, "{share} after {shown}");
            shown = share;
        }
    }

    #[test]
    fn a_snapshot_that_begins_anew_begins_at_nothing() {
        let mut progress = Progress::default();
        progress.snapshot(Seq(5), 900, 1_000);
        progress.update(0);
        progress.snapshot(Seq(9), 100, 2_000);
        progress.update(0);
        assert_eq!(progress.told(), (100, 2_000));
    }
}
