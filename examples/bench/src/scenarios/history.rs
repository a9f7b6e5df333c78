//! A document that somebody has typed for a long time: real yrs changes of one character each, mostly next to each other.

use bytes::Bytes;
use sync_core::history::Epoch;
use sync_core::rng::Rng;
use sync_core::yrs::block::ClientID;
use sync_core::yrs::{Doc, Options, ReadTxn, StateVector, Text, Transact};

use super::lab::Running;
use crate::Failure;
use crate::clients::Who;

/// The writer goes elsewhere in the text once in so many changes,
const JUMP_EVERY: u64 = 80;
/// and deletes instead of writing once in so many.
const DELETE_EVERY: u64 = 25;
/// Changes in one message, and without an acknowledgement.
const BATCH: usize = 1_000;

/// Its changes, in order, by one writer.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) changes: Vec<Bytes>,
    /// Bytes of all of it as one Yjs update of version 1: what a server without compression would send.
    pub(crate) state_bytes: usize,
}

impl History {
    /// Types so many changes; the same every time.
    pub(crate) fn typed(n: usize) -> Self {
        let mut random = Rng::new(1);
        let doc = Doc::with_options(Options::with_client_id(ClientID::new(0x12_3456_789a)));
        let text = doc.get_or_insert_text("body");
        let mut length = 0;
        let mut place = 0;
        let mut changes = Vec::with_capacity(n);
        for _ in 0..n {
            if random.next_u64().is_multiple_of(JUMP_EVERY) {
                let anywhere = random.next_u64() % (u64::from(length) + 1);
                place = u32::try_from(anywhere).unwrap_or(length);
            }
            let is_deletion = random.next_u64().is_multiple_of(DELETE_EVERY);
            let letter = u8::try_from(random.next_u64() % 26).unwrap_or(0) + b'a';
            let mut transaction = doc.transact_mut();
            if is_deletion && place > 0 {
                place -= 1;
                length -= 1;
                text.remove_range(&mut transaction, place, 1);
            } else {
                text.insert(&mut transaction, place, &char::from(letter).to_string());
                place += 1;
                length += 1;
            }
            changes.push(transaction.encode_update_v1().into());
        }
        let state = doc.transact().encode_diff_v1(&StateVector::default());
        Self {
            changes,
            state_bytes: state.len(),
        }
    }
}

/// Has client 0 write all of it into a document of a sync server, and waits until the server has come to rest. Returns the
/// document's epoch.
pub(crate) fn write(changes: &[Bytes], server: &Running, document: &str) -> Result<Epoch, Failure> {
    let who = Who {
        number: 0,
        gzip: false,
    };
    let mut client = server.dial(who, document)?;
    let epoch = client.open(document, None)?.epoch;
    for batch in changes.chunks(BATCH) {
        client.push(batch.to_vec())?;
        client.saved()?;
    }
    server.settle()?;
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use sync_core::yrs::updates::decoder::Decode;
    use sync_core::yrs::{GetString, Update};

    use super::*;

    #[test]
    fn a_replica_that_applies_the_changes_has_the_text() {
        let history = History::typed(300);
        let doc = Doc::new();
        let text = doc.get_or_insert_text("body");
        for change in &history.changes {
            let update = Update::decode_v1(change).unwrap();
            doc.transact_mut().apply_update(update).unwrap();
        }
        let transaction = doc.transact();
        assert_eq!(history.changes.len(), 300);
        assert!(text.get_string(&transaction).len() > 150);
        let state = transaction.encode_diff_v1(&StateVector::default());
        assert_eq!(state.len(), history.state_bytes);
    }
}
