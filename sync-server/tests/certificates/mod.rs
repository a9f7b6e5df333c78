//! Certificates that `make.sh` made, for `localhost` unless their names say otherwise.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "test harness")]

use std::fs;
use std::path::PathBuf;

use sync_server::Tls;

pub(crate) fn path(file: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/certificates");
    folder.join(file)
}

pub(crate) fn pem(name: &str) -> Vec<u8> {
    fs::read(path(&format!("{name}.pem"))).unwrap()
}

pub(crate) fn key(name: &str) -> Vec<u8> {
    fs::read(path(&format!("{name}.key"))).unwrap()
}

/// Who signed them all.
pub(crate) fn authority() -> Vec<u8> {
    pem("authority")
}

pub(crate) fn tls(name: &str) -> Tls {
    Tls::from_pem(&pem(name), &key(name)).unwrap()
}
