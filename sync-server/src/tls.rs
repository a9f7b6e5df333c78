//! TLS with rustls, for servers.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{InconsistentKeys, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

/// A certificate and its key, with which a server shows who it is: TLS 1.2 and 1.3. Cheap to clone; clones are the same.
///
/// ```no_run
/// # #[cfg(feature = "websocket")]
/// # async fn run(server: sync_server::Server) -> Result<(), Box<dyn std::error::Error>> {
/// use sync_server::{Tls, transport::WebSocketAcceptor};
///
/// let tls = Tls::from_pem(&std::fs::read("chain.pem")?, &std::fs::read("key.pem")?)?;
/// let acceptor = WebSocketAcceptor::bind("0.0.0.0:443").await?.tls(tls);
/// server.listen(acceptor).wait().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Tls {
    current: Arc<RwLock<Arc<ServerConfig>>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// Why a certificate and a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// There is no certificate.
    #[error("there is no certificate in PEM")]
    NoCertificate,
    /// There is no private key.
    #[error("there is no private key in PEM")]
    NoKey,
    /// The key is not the certificate's.
    #[error("the key is not the certificate's")]
    OtherKey,
    /// They cannot be read, or are of a kind that nobody takes.
    #[error("cannot use the certificate or its key: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
}

impl Tls {
    /// The certificate of this server and those above it, up to the root, which need not be there; and its private key. Both in
    /// PEM.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let config = config(chain, key)?;
        Ok(Self {
            current: Arc::new(RwLock::new(Arc::new(config))),
        })
    }

    /// Takes another certificate and key for connections from now on; those that are there stay. With an error it goes on as
    /// before.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn replace(&self, chain: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let config = Arc::new(config(chain, key)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Speaks TLS over a connection that was accepted. Bound the time that it may take.
    ///
    /// # Errors
    /// If the peer does not, or the connection breaks.
    ///
    /// # Cancellation
    /// Dropping the future closes the connection.
    pub async fn accept<S>(
        &self,
        stream: S,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<S>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let current = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        TlsAcceptor::from(current).accept(stream).await
    }
}

fn config(chain: &[u8], key: &[u8]) -> Result<ServerConfig, TlsError> {
    let invalid = |error: &dyn fmt::Display| TlsError::Invalid {
        reason: error.to_string(),
    };
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| invalid(&error))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        PemError::NoItemsFound => TlsError::NoKey,
        error => invalid(&error),
    })?;
    // The provider by name: an application may have installed another one for itself.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(&error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::OtherKey,
            error => invalid(&error),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
