//! A store that ends with its process: for tests, and to hand documents from one client to the next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sync_core::ids::{DocumentId, EngineId};

use super::{ClientStore, OutboxChange, StoreError, StoreWrite, StoredDocument};
use crate::cell::lock;

/// A store in the memory of this process. Clones share what it holds.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    account: Option<String>,
    documents: BTreeMap<DocumentId, StoredDocument>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of what it holds, that does not change with it: a backup.
    #[must_use]
    pub fn backup(&self) -> Self {
        let state = lock(&self.state);
        let copy = State {
            account: state.account.clone(),
            documents: state.documents.clone(),
        };
        Self {
            state: Arc::new(Mutex::new(copy)),
        }
    }
}

#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
impl ClientStore for MemoryStore {
    fn bind(&self, account: &str) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        let bound = state.account.get_or_insert_with(|| account.to_owned());
        if bound == account {
            return Ok(());
        }
        Err(StoreError::WrongAccount {
            bound: bound.clone(),
            asked: account.to_owned(),
        })
    }

    async fn load(&self, document: &DocumentId) -> Result<Option<StoredDocument>, StoreError> {
        Ok(lock(&self.state).documents.get(document).cloned())
    }

    async fn commit(&self, document: &DocumentId, write: &StoreWrite) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        let stored = state
            .documents
            .entry(document.clone())
            .or_insert_with(|| StoredDocument::new(write.state.engine.clone()));
        stored.apply(write.clone());
        Ok(())
    }

    async fn remove(&self, document: &DocumentId) -> Result<(), StoreError> {
        lock(&self.state).documents.remove(document);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<(DocumentId, usize)>, StoreError> {
        let state = lock(&self.state);
        Ok(state
            .documents
            .iter()
            .map(|(id, stored)| (id.clone(), stored.outbox.len()))
            .collect())
    }

    fn stage(
        &self,
        document: &DocumentId,
        engine: &EngineId,
        change: &OutboxChange,
    ) -> Result<bool, StoreError> {
        let mut state = lock(&self.state);
        let stored = state
            .documents
            .entry(document.clone())
            .or_insert_with(|| StoredDocument::new(engine.clone()));
        stored.stage(change.clone());
        Ok(true)
    }
}
