//! How large the document is, and what happens when that is too much (design 2.2).

use std::time::Duration;

use super::push::{Item, ItemKind};
use super::{Purpose, Room, RoomEvent};
use crate::error::{ErrorCode, PeerError};
use crate::history::Seq;
use crate::registry::{DocumentSize, RegistryError};
use crate::server::registry::{RegistryRequest, RequestNumber};

/// When clients try again whose document is full: only a fold or the operator makes room.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(30);

/// What is known beside the log's length, which [`Folding`](super::fold::Folding) keeps.
#[derive(Debug, Clone, Default)]
pub(super) struct Size {
    /// Asked for, and what has been published since.
    reading: Option<(RequestNumber, Vec<(Seq, usize)>)>,
    /// At most so many bytes of changes are in the line.
    waiting: usize,
    /// Whether somebody has been told that it is nearly too large.
    is_near: bool,
}

impl Room {
    /// Asks how large the document is; another history begins.
    pub(super) fn read_size(&mut self) {
        self.size = Size::default();
        if self.config.limits.document_bytes_max < usize::MAX && self.head() > Seq::ZERO {
            let number = self.request(Purpose::Size, RegistryRequest::Size);
            self.size.reading = Some((number, Vec::new()));
        }
    }

    pub(super) fn on_size(
        &mut self,
        number: RequestNumber,
        result: Result<DocumentSize, RegistryError>,
    ) {
        let Some((_, published)) = self.size.reading.take_if(|(asked, _)| *asked == number) else {
            return;
        };
        match result {
            Ok(size) => {
                let newer = published.iter().filter(|(last, _)| *last > size.head);
                let bytes = newer.map(|(_, bytes)| bytes).sum();
                self.folding.measure(&size, bytes);
                self.mind_size();
            }
            // What is published from now on is counted all the same.
            Err(error) => {
                self.registry_failed("size", error);
            }
        }
    }

    /// So many bytes of changes have been published, the last of them at this sequence.
    pub(super) fn grow(&mut self, last: Seq, bytes: usize) {
        if let Some((_, published)) = &mut self.size.reading {
            published.push((last, bytes));
        }
        self.folding.published(bytes);
        self.mind_size();
    }

    /// Tells, once, that the document is nearly too large.
    pub(super) fn mind_size(&mut self) {
        let max = self.config.limits.document_bytes_max;
        let bytes = self.folding.size();
        let is_near = bytes >= max / 5 * 4;
        if is_near && !self.size.is_near {
            self.event(RoomEvent::NearLimit { bytes, max });
        }
        self.size.is_near = is_near;
    }

    /// Whether a fold is worth it before the log is long enough for one, because the document is nearly too large.
    pub(super) const fn is_fold_urgent(&self) -> bool {
        self.size.is_near && self.folding.log_bytes() >= self.config.limits.document_bytes_max / 20
    }

    /// Makes room for a change in the line.
    ///
    /// # Errors
    /// The document would be too large. Never final: it may become smaller, or the limit larger.
    pub(super) fn make_room(&mut self, bytes: usize) -> Result<(), PeerError> {
        let max = self.config.limits.document_bytes_max;
        let size = self.folding.size().saturating_add(bytes);
        if size.saturating_add(self.size.waiting) > max {
            self.size.waiting = self.waiting_bytes();
            let size = size.saturating_add(self.size.waiting);
            if size > max {
                self.folding.is_due = true;
                let error = PeerError::new(
                    ErrorCode::DocumentFull,
                    format!("the document would have {size} bytes, the limit is {max}"),
                );
                return Err(error.retry_after(FULL_RETRY_AFTER));
            }
        }
        self.size.waiting = self.size.waiting.saturating_add(bytes);
        Ok(())
    }

    /// Bytes of changes that have been taken and not yet appended.
    fn waiting_bytes(&self) -> usize {
        let in_flight = self.in_flight.iter().flat_map(|batch| &batch.items);
        let lines = self.asks.items().chain(self.checks.items());
        let items = self.queue.iter().chain(lines).chain(in_flight);
        let bytes = |item: &Item| match &item.kind {
            ItemKind::Change { change, .. } => change.bytes.len(),
            _ => 0,
        };
        items.map(bytes).sum()
    }
}
