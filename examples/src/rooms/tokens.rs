//! Tokens, as the login of an application would sign them: JWTs with HS256 (RFC 7515 and 7519).

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::json;

/// How long they are good for.
const SECONDS: u64 = 3_600;

/// A token for this user, signed with a secret that the server has too: 32 bytes at least.
#[must_use]
pub fn sign(user: &str, secret: &[u8]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let until = now.unwrap_or_default().as_secs() + SECONDS;
    let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let header = part(json!({ "alg": "HS256", "typ": "JWT" }));
    let claims = part(json!({ "sub": user, "exp": until }));
    let text = format!("{header}.{claims}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes()));
    format!("{text}.{signature}")
}
