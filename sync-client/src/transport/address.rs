//! What addresses have in common.

/// An address or header that cannot be dialed with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It is not an address.
    #[error("invalid address {address:?}: {reason}")]
    Invalid {
        /// What was given, without user, password and query.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No dialer here knows its scheme.
    #[error("addresses that begin with {scheme}:// are not supported by this version")]
    Unsupported {
        /// Its scheme, such as `http`.
        scheme: String,
    },
    /// This build cannot dial addresses of its scheme.
    #[error("addresses that begin with {scheme}:// need the feature `{feature}`")]
    FeatureOff {
        /// Its scheme.
        scheme: &'static str,
        /// The feature of this crate that can.
        feature: &'static str,
    },
    /// What was given as root certificates cannot be used.
    #[error("cannot use the root certificate: {reason}")]
    InvalidCertificate {
        /// What is wrong with it.
        reason: String,
    },
    /// HTTP does not allow this header, or WebSocket needs it for itself.
    #[error("the header {name:?} cannot be set")]
    InvalidHeader {
        /// Its name.
        name: String,
    },
}

impl AddressError {
    pub(crate) fn invalid(address: &str, reason: impl ToString) -> Self {
        Self::Invalid {
            address: without_secrets(address),
            reason: reason.to_string(),
        }
    }

    #[cfg(not(all(
        feature = "websocket",
        feature = "tcp",
        feature = "tls",
        any(feature = "unix", not(unix))
    )))]
    pub(crate) const fn off(scheme: &'static str, feature: &'static str) -> Self {
        Self::FeatureOff { scheme, feature }
    }

    /// That it is not of the scheme that a dialer takes.
    pub(crate) fn other_scheme(address: &str, expected: &str) -> Self {
        match address.split_once("://") {
            Some((scheme, _)) => Self::Unsupported {
                scheme: scheme.to_owned(),
            },
            None => Self::invalid(address, format!("it does not begin with {expected}://")),
        }
    }
}

/// An address as it may be shown: a password or a token may stand in it.
pub(crate) fn without_secrets(address: &str) -> String {
    let (shown, query) = match address.split_once('?') {
        Some((shown, _)) => (shown, "?..."),
        None => (address, ""),
    };
    let (scheme, rest) = match shown.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), shown),
    };
    match rest.rsplit_once('@') {
        Some((_, rest)) => format!("{scheme}...@{rest}{query}"),
        None => format!("{scheme}{rest}{query}"),
    }
}

/// The host and the port of an address. Without brackets around an IPv6 address: they belong to the address around it.
#[cfg(any(feature = "websocket", feature = "tcp"))]
pub(super) fn host_and_port(
    authority: &str,
    default_port: Option<u16>,
) -> Result<(String, u16), &'static str> {
    if authority.contains('@') {
        return Err("it names a user, which is not sent");
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest
            .split_once(']')
            .ok_or("a bracket in it is not closed")?,
        None => match authority.find(':') {
            Some(at) => authority.split_at(at),
            None => (authority, ""),
        },
    };
    if host.is_empty() {
        return Err("it names no host");
    }
    let port = match port.strip_prefix(':') {
        Some(port) => port
            .parse()
            .map_err(|_| "its port is not a number up to 65535")?,
        None if port.is_empty() => default_port.ok_or("it names no port")?,
        None => return Err("something stands between its host and its port"),
    };
    Ok((host.to_owned(), port))
}
