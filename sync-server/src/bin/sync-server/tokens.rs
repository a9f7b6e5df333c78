//! Tokens that name users.

use std::path::PathBuf;
use std::time::Duration;

use sync_server::{Jwt, JwtError};

use crate::output::Failure;
use crate::settings::{Settings, SettingsError};

/// How tokens are checked.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// The setting that names the key.
    key: &'static str,
    path: PathBuf,
    issuer: Option<String>,
    audience: Option<String>,
    leeway: Duration,
}

const KEYS: [&str; 3] = ["jwt-secret-file", "jwt-key-file", "jwt-jwks-file"];

impl Tokens {
    /// `None` if there is no key for them.
    pub(crate) fn new(settings: &Settings) -> Result<Option<Self>, SettingsError> {
        let mut found = None;
        for key in KEYS {
            if let Some(path) = settings.find(key)?
                && let Some((other, _)) = found.replace((key, path))
            {
                return Err(SettingsError::Together(format!(
                    "{other} and {key} are both there: there is one key, or one set of them"
                )));
            }
        }
        let Some((key, path)) = found else {
            return Ok(None);
        };
        Ok(Some(Self {
            key,
            path,
            issuer: settings.find("jwt-issuer")?,
            audience: settings.find("jwt-audience")?,
            leeway: Duration::from_secs(settings.get("jwt-leeway-seconds")?),
        }))
    }

    /// Reads the key.
    pub(crate) fn jwt(&self) -> Result<Jwt, Failure> {
        let failed = |reason: &dyn std::error::Error| {
            let path = self.path.display();
            Failure::Configuration(format!("{}: {path}: {}", self.key, Failure::text(reason)))
        };
        let bytes = std::fs::read(&self.path).map_err(|error| failed(&error))?;
        let read = |bytes: &[u8]| -> Result<Jwt, JwtError> {
            match self.key {
                // Editors put an end of line behind it.
                "jwt-secret-file" => Jwt::hs256(bytes.trim_ascii_end()),
                "jwt-key-file" => Jwt::pem(bytes),
                _ => Jwt::jwks(bytes),
            }
        };
        let mut jwt = read(&bytes)
            .map_err(|error| failed(&error))?
            .leeway(self.leeway);
        if let Some(issuer) = &self.issuer {
            jwt = jwt.issuer(issuer);
        }
        if let Some(audience) = &self.audience {
            jwt = jwt.audience(audience);
        }
        Ok(jwt)
    }
}
