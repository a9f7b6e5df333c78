//! The certificate of the port: read at the start, and again when its files have been replaced.

use std::path::PathBuf;

use sync_server::Tls;

use crate::output::Failure;
use crate::settings::{Settings, SettingsError};

/// Where the certificate and its key are.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    chain: PathBuf,
    key: PathBuf,
}

impl Certificates {
    /// # Errors
    /// If only one of both files is named.
    pub(crate) fn new(settings: &Settings) -> Result<Option<Self>, SettingsError> {
        match (settings.find("tls-cert")?, settings.find("tls-key")?) {
            (Some(chain), Some(key)) => Ok(Some(Self { chain, key })),
            (None, None) => Ok(None),
            _ => Err(SettingsError::Together(
                "TLS takes both, --tls-cert and --tls-key".to_owned(),
            )),
        }
    }

    /// # Errors
    /// If the files cannot be read, or what is in them cannot be used.
    pub(crate) fn read(&self) -> Result<Tls, Failure> {
        let (chain, key) = self.files().map_err(Failure::Configuration)?;
        Tls::from_pem(&chain, &key).map_err(|error| Failure::Configuration(self.named(&error)))
    }

    /// Reads them again, for connections from now on.
    ///
    /// # Errors
    /// What is wrong, as for [`read`](Self::read); then nothing has changed.
    pub(crate) fn read_again(&self, tls: &Tls) -> Result<(), String> {
        let (chain, key) = self.files()?;
        tls.replace(&chain, &key)
            .map_err(|error| self.named(&error))
    }

    fn files(&self) -> Result<(Vec<u8>, Vec<u8>), String> {
        let read = |name: &str, path: &PathBuf| {
            std::fs::read(path).map_err(|error| format!("{name}: {}: {error}", path.display()))
        };
        Ok((read("tls-cert", &self.chain)?, read("tls-key", &self.key)?))
    }

    fn named(&self, error: &sync_server::TlsError) -> String {
        let (chain, key) = (self.chain.display(), self.key.display());
        format!("tls-cert {chain}, tls-key {key}: {error}")
    }
}
