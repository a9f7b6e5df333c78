//! Which tokens name a user, and which do not.
#![cfg(feature = "jwt")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod tokens;

use std::time::Duration;

use serde_json::{Value, json};
use sync_server::transport::PeerInfo;
use sync_server::{AuthError, Authenticator, ConnectRequest, Identity, Jwt, JwtError};
use tokens::{Ed25519, RS256, RS256_JWKS, RS256_PEM, SECRET, from_now, hs256, signed};

async fn ask(jwt: &Jwt, token: &str) -> Result<Identity, String> {
    let mut request = ConnectRequest::new(PeerInfo::default());
    request.credentials = Some(token.trim().to_owned().into());
    match jwt.authenticate(&request).await {
        Ok(identity) => Ok(identity),
        Err(AuthError::Refused { reason }) => Err(reason),
        Err(error) => panic!("{error}"),
    }
}

async fn is_ada(jwt: &Jwt, token: &str) {
    let identity = ask(jwt, token).await.unwrap();
    assert_eq!(&*identity.user.id, "ada");
    assert!(identity.valid_for.unwrap() > Duration::from_secs(3_000));
}

async fn is_refused(jwt: &Jwt, token: &str, why: &str) {
    let reason = ask(jwt, token).await.unwrap_err();
    assert!(reason.contains(why), "{reason}, not {why}: {token}");
    // What is in a token is nobody's business.
    assert!(!reason.contains("ada"), "{reason}");
}

fn jwt() -> Jwt {
    Jwt::hs256(SECRET).unwrap()
}

/// Claims of ada for an hour, and these.
fn claims(more: &Value) -> Value {
    let mut claims = json!({ "sub": "ada", "exp": from_now(3_600) });
    for (name, value) in more.as_object().unwrap() {
        claims
            .as_object_mut()
            .unwrap()
            .insert(name.clone(), value.clone());
    }
    claims
}

#[tokio::test]
async fn a_token_names_its_subject_until_it_expires() {
    let left = ask(&jwt(), &hs256(&claims(&json!({}))))
        .await
        .unwrap()
        .valid_for
        .unwrap();
    // An hour and the leeway of a minute.
    assert!(
        left <= Duration::from_secs(3_660) && left > Duration::from_secs(3_600),
        "{left:?}"
    );
    is_ada(
        &jwt(),
        &hs256(&claims(
            &json!({ "nbf": from_now(-1), "iat": from_now(-1) }),
        )),
    )
    .await;
}

/// Scenario 52.
#[tokio::test]
async fn expired_early_and_incomplete_tokens_are_refused() {
    for (more, why) in [
        (json!({ "exp": from_now(-61) }), "expired"),
        (json!({ "exp": "4102444800" }), "no token"),
        (json!({ "exp": null }), "no token"),
        (json!({ "nbf": from_now(120) }), "not valid yet"),
        (json!({ "nbf": "soon" }), "no token"),
        (json!({ "sub": "" }), "nobody"),
        (json!({ "sub": 7 }), "no token"),
        (json!({ "aud": "sync" }), "another audience"),
    ] {
        is_refused(&jwt(), &hs256(&claims(&more)), why).await;
    }
    let exact = jwt().leeway(Duration::ZERO);
    is_refused(
        &exact,
        &hs256(&claims(&json!({ "exp": from_now(-1) }))),
        "expired",
    )
    .await;
    let within = ask(&jwt(), &hs256(&claims(&json!({ "exp": from_now(-30) })))).await;
    assert!(within.unwrap().valid_for.unwrap() <= Duration::from_secs(30));
}

/// Scenario 52.
#[tokio::test]
async fn forged_tokens_are_refused() {
    let good = hs256(&claims(&json!({})));
    let (text, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = text.split_once('.').unwrap();
    let other = hs256(&claims(&json!({ "sub": "bob" })));
    let others = other.split('.').nth(1).unwrap();
    let with =
        |header: Value, secret: &str| signed(&header, &claims(&json!({})), secret.as_bytes());
    let unsigned = with(json!({ "alg": "none" }), SECRET);
    let unsigned = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
    for (token, why) in [
        (
            with(
                json!({ "alg": "HS256" }),
                "another secret of thirty-two bytes",
            ),
            "signature",
        ),
        (unsigned, "algorithm"),
        (with(json!({ "alg": "None" }), SECRET), "algorithm"),
        (with(json!({ "alg": "HS512" }), SECRET), "algorithm"),
        (with(json!({ "alg": "RS256" }), SECRET), "signature"),
        (
            with(json!({ "alg": "HS256", "crit": ["exp"] }), SECRET),
            "extension",
        ),
        (with(json!({ "typ": "JWT" }), SECRET), "no token"),
        (format!("{header}.{others}.{signature}"), "signature"),
        (format!("{header}.{payload}."), "signature"),
        (format!("{header}.{payload}"), "no token"),
        (format!("{good}.{signature}"), "no token"),
        (format!("{good}="), "no token"),
        (format!("{good}{}", "A".repeat(20_000)), "too long"),
        (String::new(), "no token"),
        ("..".to_owned(), "no token"),
        ("\u{0}".to_owned(), "no token"),
    ] {
        is_refused(&jwt(), &token, why).await;
    }
    let nothing = ConnectRequest::new(PeerInfo::default());
    assert!(matches!(
        jwt().authenticate(&nothing).await,
        Err(AuthError::Refused { .. })
    ));
}

/// Scenario 52.
#[tokio::test]
async fn the_issuer_and_the_audience_are_those_that_were_said() {
    let jwt = jwt().issuer("https://id.example").audience("sync");
    for aud in [json!("sync"), json!(["other", "sync"])] {
        let token = hs256(&claims(&json!({ "iss": "https://id.example", "aud": aud })));
        is_ada(&jwt, &token).await;
    }
    for (more, why) in [
        (json!({ "aud": "sync" }), "issuer"),
        (
            json!({ "iss": "https://evil.example", "aud": "sync" }),
            "issuer",
        ),
        (json!({ "iss": "https://id.example" }), "audience"),
        (
            json!({ "iss": "https://id.example", "aud": "syn" }),
            "audience",
        ),
        (
            json!({ "iss": "https://id.example", "aud": [] }),
            "audience",
        ),
    ] {
        is_refused(&jwt, &hs256(&claims(&more)), why).await;
    }
}

#[tokio::test]
async fn rsa_and_ed25519_keys_are_read_from_pem_and_from_jwk_sets() {
    let rsa = |jwt: Jwt| jwt.issuer("https://id.example").audience("sync");
    is_ada(&rsa(Jwt::pem(RS256_PEM).unwrap()), RS256).await;
    is_ada(&rsa(Jwt::jwks(RS256_JWKS).unwrap()), RS256).await;

    let (one, two) = (Ed25519::new(1), Ed25519::new(2));
    let header = json!({ "alg": "EdDSA", "kid": "two" });
    let token = two.token(&header, &claims(&json!({})));
    is_ada(&Jwt::pem(two.pem()).unwrap(), &token).await;
    is_refused(&Jwt::pem(one.pem()).unwrap(), &token, "signature").await;

    let set = json!({ "keys": [one.jwk("one"), two.jwk("two")] }).to_string();
    let set = Jwt::jwks(set).unwrap();
    is_ada(&set, &token).await;
    // A name says which key, and not just that there is one.
    let misnamed = one.token(&header, &claims(&json!({})));
    is_refused(&set, &misnamed, "signature").await;
    let unnamed = one.token(&json!({ "alg": "EdDSA" }), &claims(&json!({})));
    is_ada(&set, &unnamed).await;
}

/// Scenario 52: what is public must not do as a secret.
#[tokio::test]
async fn a_public_key_is_no_secret() {
    let key = Ed25519::new(1);
    for public in [RS256_PEM.to_owned(), key.pem()] {
        let header = json!({ "alg": "HS256" });
        let forged = signed(&header, &claims(&json!({})), public.as_bytes());
        is_refused(&Jwt::pem(&public).unwrap(), &forged, "signature").await;
    }
}

#[test]
fn what_is_no_key_is_named() {
    assert!(matches!(
        Jwt::hs256("short"),
        Err(JwtError::SecretTooShort { bytes: 5, min: 32 })
    ));
    let private = RS256_PEM.replace("PUBLIC", "PRIVATE");
    for result in [
        Jwt::pem("nothing"),
        Jwt::pem(private),
        Jwt::pem("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
        Jwt::jwks("{}"),
        Jwt::jwks("{\"keys\": []}"),
    ] {
        assert!(matches!(result, Err(JwtError::Key { .. })), "{result:?}");
    }
    // Printed, it gives nothing away.
    assert!(!format!("{:?}", jwt()).contains("secret"));
}
