//! The snapshot that members are being sent: read once, cut and compressed once, kept while somebody needs it.

use std::sync::Arc;

use super::member::Member;
use super::pieces::Pieces;
use super::{Purpose, Room, RoomEvent};
use crate::ids::SessionId;
use crate::registry::{RegistryError, Snapshot};
use crate::server::registry::{RegistryRequest, RequestNumber};
use crate::time::Time;

impl Room {
    /// Reads the snapshot, once for all who wait for it.
    pub(super) fn read_snapshot(&mut self, key: (SessionId, u32)) {
        self.snapshot_waiters.push(key);
        if self.snapshot_request.is_none() {
            let number = self.request(Purpose::Snapshot, RegistryRequest::Snapshot);
            self.snapshot_request = Some(number);
        }
    }

    pub(super) fn on_snapshot(
        &mut self,
        now: Time,
        number: RequestNumber,
        result: Result<Option<Snapshot>, RegistryError>,
    ) {
        if self.snapshot_request != Some(number) {
            return;
        }
        self.snapshot_request = None;
        let waiters = std::mem::take(&mut self.snapshot_waiters);
        match result {
            Ok(Some(snapshot)) => {
                self.cache_snapshot(snapshot);
                for key in waiters {
                    self.on_snapshot_cached(now, key);
                }
                self.drop_unused_snapshot();
            }
            // The document has another history by now.
            Ok(None) => {
                self.mark_stale(now);
                for key in waiters {
                    if self.opening(key).is_some() {
                        self.start_open(key);
                    }
                }
            }
            Err(error) => match self.absent(now, error) {
                // Each goes by what it reads itself.
                Ok(()) => {
                    for key in waiters {
                        if self.opening(key).is_some() {
                            self.start_open(key);
                        }
                    }
                }
                Err(error) => {
                    let error = self.registry_failed("snapshot", error);
                    for key in waiters {
                        if self.opening(key).is_some() {
                            self.refuse_open(now, key, error.clone());
                        } else if self.live(key).is_some() {
                            self.stop(now, key.0, error.clone());
                        }
                    }
                }
            },
        }
    }

    fn cache_snapshot(&mut self, snapshot: Snapshot) {
        let Some(epoch) = self.history.as_ref().map(|history| history.epoch) else {
            return;
        };
        let (seq, bytes) = (snapshot.seq, snapshot.bytes.len());
        self.snapshot = Some(Arc::new(Pieces::new(
            self.channel,
            epoch,
            snapshot,
            self.config.snapshot_piece_bytes,
        )));
        self.event(RoomEvent::SnapshotRead { seq, bytes });
    }

    fn on_snapshot_cached(&mut self, now: Time, key: (SessionId, u32)) {
        let Some(pieces) = self.snapshot.clone() else {
            return;
        };
        if let Some(opening) = self.opening(key) {
            let promised = opening.meta.as_ref().map(|(_, meta)| meta.snapshot_seq);
            return if promised.is_some_and(|seq| seq > pieces.seq()) {
                // The document has another history since that was read.
                self.start_open(key)
            } else {
                self.finish_open(now, key)
            };
        }
        let Some(stream) = self.live(key).and_then(Member::stream) else {
            return;
        };
        stream.is_reading = false;
        if pieces.seq() < stream.next {
            let what = "the log starts after the snapshot".into();
            let error = self.registry_failed("snapshot", RegistryError::Damaged { what });
            return self.stop(now, key.0, error);
        }
        stream.snapshot = Some((pieces, 0));
        self.wake(key.0);
    }

    pub(super) fn drop_unused_snapshot(&mut self) {
        if self.snapshot_waiters.is_empty()
            && self
                .snapshot
                .as_ref()
                .is_some_and(|snapshot| Arc::strong_count(snapshot) == 1)
        {
            self.snapshot = None;
        }
    }
}
