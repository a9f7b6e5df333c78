//! Who may administer the server.

use std::path::PathBuf;

use async_trait::async_trait;
use sync_server::Jwt;
use sync_server::http::{Admin, AdminAccess, AdminRefusal, AdminRequest, AdminToken};

use crate::output::Failure;
use crate::settings::{Settings, SettingsError};
use crate::tokens::Tokens;

/// The variable that may hold the token itself. No setting: those are printed, and options are seen by everybody.
const TOKEN: &str = "SYNC_ADMIN_TOKEN";

/// How admins are known.
#[derive(Debug)]
pub(crate) struct Admins {
    token_file: Option<PathBuf>,
    /// Whether those are admins whose JWT says so.
    jwt: bool,
}

impl Admins {
    pub(crate) fn new(settings: &Settings, tokens: Option<&Tokens>) -> Result<Self, SettingsError> {
        let admins = Self {
            token_file: settings.find("admin-token-file")?,
            jwt: settings.get("admin-jwt")?,
        };
        if admins.jwt && tokens.is_none() {
            return Err(SettingsError::Together(
                "--admin-jwt needs a key: --jwt-secret-file, --jwt-key-file or --jwt-jwks-file"
                    .to_owned(),
            ));
        }
        Ok(admins)
    }

    /// Who is let in; `None` if nobody ever is, and there is no admin API then.
    pub(crate) fn access(&self, tokens: Option<&Tokens>) -> Result<Option<Access>, Failure> {
        let access = Access {
            token: self.token()?,
            jwt: match tokens {
                Some(tokens) if self.jwt => Some(tokens.jwt()?),
                _ => None,
            },
        };
        let is_none = access.token.is_none() && access.jwt.is_none();
        Ok((!is_none).then_some(access))
    }

    fn token(&self) -> Result<Option<AdminToken>, Failure> {
        let (from, bytes) = match &self.token_file {
            Some(path) => {
                let name = format!("admin-token-file: {}", path.display());
                let bytes = std::fs::read(path)
                    .map_err(|error| Failure::Configuration(format!("{name}: {error}")))?;
                (name, bytes)
            }
            None => match std::env::var(TOKEN) {
                Ok(token) if !token.is_empty() => (TOKEN.to_owned(), token.into_bytes()),
                _ => return Ok(None),
            },
        };
        // Editors put an end of line behind it.
        AdminToken::new(bytes.trim_ascii())
            .map(Some)
            .map_err(|error| Failure::Configuration(format!("{from}: {error}")))
    }
}

/// Lets in who has the token, and whose JWT says so.
#[derive(Debug)]
pub(crate) struct Access {
    token: Option<AdminToken>,
    jwt: Option<Jwt>,
}

#[async_trait]
impl AdminAccess for Access {
    async fn admit(&self, request: &AdminRequest) -> Result<Admin, AdminRefusal> {
        if let Some(token) = &self.token
            && let Ok(admin) = token.admit(request).await
        {
            return Ok(admin);
        }
        match &self.jwt {
            Some(jwt) => jwt.admit(request).await,
            None => Err(AdminRefusal::Unauthenticated),
        }
    }
}
