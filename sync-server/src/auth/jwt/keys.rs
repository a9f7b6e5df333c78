//! Keys that tokens are signed with. Read by `jsonwebtoken`, used by `ring`.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use ring::signature::{
    ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use ring::{hmac, signature};
use serde::Deserialize;

use super::JwtError;

/// RFC 7518 section 3.2: as many as the hash has.
const SECRET_BYTES_MIN: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Hs256,
    Rs256,
    EdDsa,
}

impl Algorithm {
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::Hs256),
            "RS256" => Some(Self::Rs256),
            "EdDSA" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// Keys, each with the name that tokens give it, if it has one.
pub(super) struct Keys(Vec<(Option<String>, Key)>);

pub(super) enum Key {
    Secret(hmac::Key),
    Rsa(DecodingKey),
    Ed25519(DecodingKey),
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

impl Keys {
    pub(super) fn secret(secret: &[u8]) -> Result<Self, JwtError> {
        Ok(Self(vec![(None, secret_key(secret)?)]))
    }

    pub(super) fn pem(pem: &[u8]) -> Result<Self, JwtError> {
        // A private key would be read too, and verify nothing.
        let mut lines = pem.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        if !lines.any(|line| line == b"-----BEGIN PUBLIC KEY-----") {
            return Err(unusable("no public key in PEM"));
        }
        let key = DecodingKey::from_ed_pem(pem).map(Key::Ed25519);
        let key = key.or_else(|_| DecodingKey::from_rsa_pem(pem).map(Key::Rsa));
        match key {
            Ok(key) => Ok(Self(vec![(None, key)])),
            Err(_) => Err(unusable("neither RSA nor Ed25519")),
        }
    }

    pub(super) fn jwks(json: &[u8]) -> Result<Self, JwtError> {
        let set: KeySet = serde_json::from_slice(json)
            .map_err(|error| unusable(format!("no JWK set: {error}")))?;
        let mut keys = Vec::new();
        for key in set.keys {
            // What this library does not know is as little for us as what it does and we do not.
            let Ok(key) = serde_json::from_value::<Jwk>(key) else {
                continue;
            };
            if let Some(usable) = of_jwk(&key)? {
                keys.push((key.common.key_id, usable));
            }
        }
        if keys.is_empty() {
            return Err(unusable("none in the set is for HS256, RS256 or EdDSA"));
        }
        Ok(Self(keys))
    }

    /// The keys that a token with this header may be signed with.
    pub(super) fn of(&self, algorithm: Algorithm, id: Option<&str>) -> impl Iterator<Item = &Key> {
        self.0
            .iter()
            .filter(move |(name, key)| {
                let fits = match (name.as_deref(), id) {
                    (Some(name), Some(id)) => name == id,
                    _ => true,
                };
                fits && key.algorithm() == algorithm
            })
            .map(|(_, key)| key)
    }
}

impl Key {
    const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Secret(_) => Algorithm::Hs256,
            Self::Rsa(_) => Algorithm::Rs256,
            Self::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let rsa: &'static signature::RsaParameters = &RSA_PKCS1_2048_8192_SHA256;
        let verified = match self {
            Self::Secret(key) => hmac::verify(key, message, signature),
            Self::Rsa(key) => match key.kind() {
                DecodingKeyKind::SecretOrDer(der) => {
                    UnparsedPublicKey::new(rsa, der).verify(message, signature)
                }
                DecodingKeyKind::RsaModulusExponent { n, e } => {
                    RsaPublicKeyComponents { n, e }.verify(rsa, message, signature)
                }
            },
            Self::Ed25519(key) => match key.kind() {
                DecodingKeyKind::SecretOrDer(bytes) => {
                    UnparsedPublicKey::new(&ED25519, bytes).verify(message, signature)
                }
                DecodingKeyKind::RsaModulusExponent { .. } => return false,
            },
        };
        verified.is_ok()
    }
}

/// The key, if it is for signatures with one of the algorithms.
fn of_jwk(key: &Jwk) -> Result<Option<Key>, JwtError> {
    if !matches!(
        key.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    ) {
        return Ok(None);
    }
    let algorithm = key.common.key_algorithm;
    let is_for = |ours| algorithm.is_none_or(|theirs| theirs == ours);
    let read = |key: &Jwk| DecodingKey::from_jwk(key).map_err(|error| unusable(error.to_string()));
    Ok(match &key.algorithm {
        AlgorithmParameters::RSA(_) if is_for(KeyAlgorithm::RS256) => Some(Key::Rsa(read(key)?)),
        AlgorithmParameters::OctetKeyPair(pair)
            if pair.curve == EllipticCurve::Ed25519 && is_for(KeyAlgorithm::EdDSA) =>
        {
            Some(Key::Ed25519(read(key)?))
        }
        AlgorithmParameters::OctetKey(_) if is_for(KeyAlgorithm::HS256) => {
            let key = read(key)?;
            let secret = key.try_get_hmac_secret();
            Some(secret_key(
                secret.map_err(|error| unusable(error.to_string()))?,
            )?)
        }
        _ => None,
    })
}

fn secret_key(secret: &[u8]) -> Result<Key, JwtError> {
    if secret.len() < SECRET_BYTES_MIN {
        return Err(JwtError::SecretTooShort {
            bytes: secret.len(),
            min: SECRET_BYTES_MIN,
        });
    }
    Ok(Key::Secret(hmac::Key::new(hmac::HMAC_SHA256, secret)))
}

fn unusable(reason: impl Into<String>) -> JwtError {
    JwtError::Key {
        reason: reason.into(),
    }
}
