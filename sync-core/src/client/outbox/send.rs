//! Changes on their way to the server, within the push window.

use bytes::Bytes;

use super::Outbox;
use crate::ids::ChangeId;
use crate::limits::change_charge;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PushBatch {
    pub(crate) first: ChangeId,
    pub(crate) reconciling: bool,
    pub(crate) changes: Vec<Bytes>,
    pub(crate) charge: usize,
}

impl Outbox {
    /// The next changes to send: one origin, numbers without holes, within both bounds or one alone. They are
    /// then in flight.
    pub(crate) fn take_push(&mut self, bytes_max: usize, charge_max: usize) -> Option<PushBatch> {
        let first = self.entries.get(self.sent)?;
        let mut batch = PushBatch {
            first: first.id,
            reconciling: first.reconciling,
            changes: Vec::new(),
            charge: 0,
        };
        let mut bytes = 0;
        for (entry, number) in self.entries.range(self.sent..).zip(batch.first.number..) {
            let charge = change_charge(&entry.bytes);
            let fits = batch.changes.is_empty()
                || (bytes + entry.bytes.len() <= bytes_max && batch.charge + charge <= charge_max);
            let follows = entry.id
                == ChangeId {
                    origin: batch.first.origin,
                    number,
                };
            if !fits || !follows || entry.reconciling != batch.reconciling {
                break;
            }
            bytes += entry.bytes.len();
            batch.charge += charge;
            batch.changes.push(entry.bytes.clone());
        }
        self.sent += batch.changes.len();
        self.in_flight_charge += batch.charge;
        Some(batch)
    }

    /// What the next change to send counts for in the push window.
    pub(crate) fn next_charge(&self) -> Option<usize> {
        self.entries
            .get(self.sent)
            .map(|entry| change_charge(&entry.bytes))
    }

    /// The connection is gone: what was in flight may or may not have arrived.
    pub(crate) const fn requeue(&mut self) {
        self.sent = self.committed;
        self.in_flight_charge = 0;
    }

    pub(crate) const fn in_flight_charge(&self) -> usize {
        self.in_flight_charge
    }
}
