//! Users named by signed tokens (RFC 7519).

mod claims;
mod keys;

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sync_core::ids::User;

pub use self::claims::JwtClaims;
use self::keys::{Algorithm, Keys};
use super::{AuthError, Authenticator, ConnectRequest, Identity};

/// Bytes of a token that is looked at; those of identity providers have one or two thousand.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// An [`Authenticator`] that takes JSON Web Tokens: the user is the claim `sub`, until `exp`; both must be there. The authorizer
/// finds all claims as [`JwtClaims`].
///
/// The keys say which algorithm a token may have, never the token: HS256 (RFC 7518 section 3.2), RS256 (3.3) or EdDSA with
/// Ed25519 (RFC 8037). A token says with `aud` whom it is for; one that does is refused unless [`audience`](Self::audience) is
/// among them.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use sync_server::{Access, Auth, Jwt, authorize_fn};
///
/// let secret = "at least 32 bytes, from the environment";
/// let tokens = Jwt::hs256(secret)?.issuer("https://id.example.com").audience("sync");
/// let auth = Auth::new(tokens, authorize_fn(|_user, _document| async { Ok(Access::write()) }));
/// # let _ = auth; Ok(()) }
/// ```
pub struct Jwt {
    keys: Keys,
    issuer: Option<String>,
    audience: Option<String>,
    leeway: Duration,
}

/// Why keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwtError {
    /// Others could guess it.
    #[error("a secret of {bytes} bytes, HS256 needs {min} at least")]
    SecretTooShort {
        /// What it has.
        bytes: usize,
        /// What it needs.
        min: usize,
    },
    /// It is no key, or not of an algorithm that is supported.
    #[error("no usable key: {reason}")]
    Key {
        /// What is wrong.
        reason: String,
    },
}

impl Jwt {
    /// Tokens with HS256 and this secret, which has 32 bytes at least.
    ///
    /// # Errors
    /// [`JwtError::SecretTooShort`].
    pub fn hs256(secret: impl AsRef<[u8]>) -> Result<Self, JwtError> {
        Keys::secret(secret.as_ref()).map(Self::with)
    }

    /// Tokens with RS256 or EdDSA: as the key is, a public one in PEM (`BEGIN PUBLIC KEY`).
    ///
    /// # Errors
    /// [`JwtError::Key`].
    pub fn pem(pem: impl AsRef<[u8]>) -> Result<Self, JwtError> {
        Keys::pem(pem.as_ref()).map(Self::with)
    }

    /// Tokens with any of the keys of a JWK set (RFC 7517), by their `kid` where a token has one. Keys that are not for
    /// signatures with an algorithm of these are left out.
    ///
    /// # Errors
    /// [`JwtError::Key`], also if no key is left.
    pub fn jwks(json: impl AsRef<[u8]>) -> Result<Self, JwtError> {
        Keys::jwks(json.as_ref()).map(Self::with)
    }

    const fn with(keys: Keys) -> Self {
        Self {
            keys,
            issuer: None,
            audience: None,
            leeway: Duration::from_secs(60),
        }
    }

    /// The claim `iss` has to be this. Default: it is not looked at.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// The claim `aud` has to be there, and to be or to contain this. Default: it must not be there.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// How far the clocks of who signs and of this server may be apart. Default 60 s.
    #[must_use]
    pub const fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// Who a token names now, and whether it says that this is an admin.
    #[cfg(feature = "http")]
    pub(crate) fn admin(&self, token: &[u8]) -> Result<(User, bool), AuthError> {
        let verified = self.verify(token)?;
        Ok((verified.identity.user, verified.is_admin))
    }

    fn verify(&self, token: &[u8]) -> Result<Verified, AuthError> {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(AuthError::unavailable)?;
        self.check(token, now).map_err(AuthError::refused)
    }

    /// Who a token names, at this time since 1970.
    fn check(&self, token: &[u8], now: Duration) -> Result<Verified, &'static str> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("the token is too long");
        }
        let mut parts = token.rsplitn(2, |byte| *byte == b'.');
        let (Some(signature), Some(signed)) = (parts.next(), parts.next()) else {
            return Err(MALFORMED);
        };
        let mut parts = signed.split(|byte| *byte == b'.');
        let (Some(header), Some(claims), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(MALFORMED);
        };
        let header: Header = decoded(header)?;
        // Extensions that must be understood (RFC 7515 section 4.1.11); there are none here.
        if header.crit.is_some() {
            return Err("the token needs an extension that is not supported");
        }
        let algorithm =
            Algorithm::named(&header.alg).ok_or("the token's algorithm is not taken")?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| MALFORMED)?;
        let is_signed = self
            .keys
            .of(algorithm, header.kid.as_deref())
            .any(|key| key.verifies(signed, &signature));
        if !is_signed {
            return Err("the token's signature is wrong");
        }
        let named: Claims = decoded(claims)?;
        let mut identity = self.check_claims(&named, now.as_secs_f64())?;
        identity.user = identity.user.with_claims(JwtClaims(decoded(claims)?));
        Ok(Verified {
            identity,
            is_admin: named.admin == Some(serde_json::Value::Bool(true)),
        })
    }

    fn check_claims(&self, claims: &Claims, now: f64) -> Result<Identity, &'static str> {
        let leeway = self.leeway.as_secs_f64();
        let left = claims.exp + leeway - now;
        if left <= 0.0 {
            return Err("the token has expired");
        }
        if claims.nbf.is_some_and(|nbf| nbf - leeway > now) {
            return Err("the token is not valid yet");
        }
        if self.issuer.is_some() && claims.iss != self.issuer {
            return Err("the token is of another issuer");
        }
        let is_for_us = match (&claims.aud, &self.audience) {
            (None, None) => true,
            (Some(Audience::One(theirs)), Some(ours)) => theirs == ours,
            (Some(Audience::Many(theirs)), Some(ours)) => theirs.contains(ours),
            _ => false,
        };
        if !is_for_us {
            return Err("the token is for another audience");
        }
        if claims.sub.is_empty() {
            return Err("the token names nobody");
        }
        let user = Identity::new(User::new(claims.sub.as_str()));
        // What does not fit is not within anybody's lifetime.
        Ok(match Duration::try_from_secs_f64(left) {
            Ok(left) => user.valid_for(left),
            Err(_) => user,
        })
    }
}

/// A token that is good.
struct Verified {
    identity: Identity,
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "there is nothing to administer over HTTP")
    )]
    is_admin: bool,
}

const MALFORMED: &str = "the credentials are no token";

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

/// RFC 7519 section 4.1; times in seconds since 1970, which may have fractions.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    iss: Option<String>,
    aud: Option<Audience>,
    /// Of any type: others may use it for something else.
    admin: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

fn decoded<T: DeserializeOwned>(part: &[u8]) -> Result<T, &'static str> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| MALFORMED)?;
    serde_json::from_slice(&json).map_err(|_| MALFORMED)
}

/// Without the keys.
impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("leeway", &self.leeway)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Authenticator for Jwt {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        let Some(token) = &request.credentials else {
            return Err(AuthError::refused("a token is needed"));
        };
        Ok(self.verify(token)?.identity)
    }
}
