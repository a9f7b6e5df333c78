//! Credentials that are asked for when they are needed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use sync_core::BoxError;

/// Credentials that are on their way.
pub(crate) type Asking = Pin<Box<dyn Future<Output = Result<Bytes, BoxError>> + Send>>;

/// Where fresh credentials come from.
#[derive(Clone)]
pub(crate) struct Credentials(Arc<dyn Fn() -> Asking + Send + Sync>);

impl Credentials {
    pub(crate) fn new<F, Fut, T, X>(ask: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, X>> + Send + 'static,
        T: Into<Bytes>,
        X: Into<BoxError>,
    {
        Self(Arc::new(move || {
            let asked = ask();
            Box::pin(async move { asked.await.map(Into::into).map_err(Into::into) })
        }))
    }

    /// Asks, on a task of its own: the application's code may panic.
    pub(crate) fn ask(&self) -> Asking {
        let ask = self.clone();
        let task = tokio::spawn(async move { (ask.0)().await });
        Box::pin(async move { task.await.unwrap_or_else(|error| Err(error.into())) })
    }
}
