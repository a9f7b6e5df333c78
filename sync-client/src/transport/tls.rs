//! TLS with rustls: whom to trust, and what went wrong.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};
use sync_core::transport::{CertificateProblem, DialError};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connect::unreachable;

/// Whom a dialer trusts to say who a server is.
#[derive(Clone)]
pub(super) struct Trust {
    /// Beside those of the platform.
    roots: Vec<CertificateDer<'static>>,
    platform: bool,
    /// Made by the first dial, because reading the platform's roots takes a while.
    connector: Arc<OnceCell<TlsConnector>>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("roots", &self.roots.len())
            .field("platform", &self.platform)
            .finish_non_exhaustive()
    }
}

impl Trust {
    pub(super) fn new() -> Self {
        Self {
            roots: Vec::new(),
            platform: true,
            connector: Arc::default(),
        }
    }

    /// Adds the certificates of a PEM file, at least one; says what is wrong with it otherwise.
    pub(super) fn add(&mut self, pem: &[u8]) -> Result<(), String> {
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            store
                .add(certificate.clone())
                .map_err(|error| error.to_string())?;
            self.roots.push(certificate);
        }
        if store.is_empty() {
            return Err("it has no certificate in PEM".to_owned());
        }
        self.connector = Arc::default();
        Ok(())
    }

    pub(super) fn set_platform(&mut self, value: bool) {
        self.platform = value;
        self.connector = Arc::default();
    }

    /// Speaks TLS over a connection, with a server that has to be `host`.
    pub(super) async fn connect<S>(&self, host: &str, stream: S) -> Result<TlsStream<S>, DialError>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| DialError::Refused(format!("{host:?}: {error}")))?;
        let connector = self.connector.get_or_try_init(|| self.connector()).await?;
        connector.connect(name, stream).await.map_err(dial_error)
    }

    async fn connector(&self) -> Result<TlsConnector, DialError> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(self.roots.iter().cloned());
        if self.platform {
            // Many files, or a slow system service.
            let loading = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
            let loaded = loading.await.map_err(unreachable)?;
            for error in loaded.errors {
                tracing::warn!(%error, "a root certificate of this platform cannot be read");
            }
            store.add_parsable_certificates(loaded.certs);
        }
        if store.is_empty() {
            let why = "no root certificate is trusted here: the platform has none";
            return Err(DialError::Refused(why.to_owned()));
        }
        // The provider by name: an application may have installed another one for itself.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unreachable)?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// What a failed handshake means.
fn dial_error(error: io::Error) -> DialError {
    let tls = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<Error>());
    match tls {
        Some(Error::InvalidCertificate(why)) => DialError::Untrusted(problem(why)),
        // The connection was damaged or cut, or the server is at the end of its wits; all of it may pass.
        None
        | Some(
            Error::DecryptError
            | Error::FailedToGetRandomBytes
            | Error::FailedToGetCurrentTime
            | Error::AlertReceived(
                AlertDescription::CloseNotify
                | AlertDescription::BadRecordMac
                | AlertDescription::DecryptError
                | AlertDescription::InternalError
                | AlertDescription::UserCanceled,
            ),
        ) => unreachable(error),
        Some(tls) => DialError::Refused(format!("the server does not speak our TLS: {tls}")),
    }
}

fn problem(error: &CertificateError) -> CertificateProblem {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            CertificateProblem::Expired
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            CertificateProblem::NotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            CertificateProblem::WrongName
        }
        CertificateError::UnknownIssuer => CertificateProblem::UnknownIssuer,
        _ => CertificateProblem::Invalid,
    }
}
