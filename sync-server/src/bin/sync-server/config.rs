//! What serving needs to know.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sync_server::{Access, Anonymous, Auth, EngineHost, InProcess, Limits, Server, Tls, http};
use tracing_subscriber::EnvFilter;

use crate::admins::Admins;
use crate::certificates::Certificates;
use crate::limits::CONNECTIONS_MAX;
use crate::output::Failure;
use crate::rules::{RuleText, Rules};
use crate::settings::{Settings, SettingsError};
use crate::tokens::Tokens;

/// The settings, understood.
#[derive(Debug)]
pub(crate) struct Config {
    /// Host and port.
    pub(crate) listen: String,
    pub(crate) certificates: Option<Certificates>,
    /// Where frames are taken without HTTP.
    pub(crate) listen_tcp: Option<String>,
    pub(crate) listen_unix: Option<PathBuf>,
    pub(crate) unix_mode: u32,
    pub(crate) data: PathBuf,
    /// What those may do who do not say who they are.
    anonymous: Level,
    /// What those may do whom tokens name.
    access: Level,
    tokens: Option<Tokens>,
    rules: Vec<RuleText>,
    token_cookie: Option<String>,
    token_in_query: bool,
    allowed_origins: Vec<String>,
    health: bool,
    metrics: bool,
    metrics_documents: usize,
    admins: Admins,
    engines: EnginesWhere,
    limits: Limits,
    pub(crate) drain: Duration,
    /// Parses as an [`EnvFilter`], which cannot be cloned.
    pub(crate) log: String,
    pub(crate) log_format: LogFormat,
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Off,
    ReadOnly,
    ReadWrite,
    Maintain,
}

#[derive(Debug, Clone, Copy)]
enum EnginesWhere {
    Workers,
    InProcess,
    None,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl FromStr for Level {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" | "false" => Ok(Self::Off),
            "read-only" => Ok(Self::ReadOnly),
            "read-write" | "true" => Ok(Self::ReadWrite),
            "maintain" => Ok(Self::Maintain),
            _ => Err("it is read-only, read-write, maintain or off"),
        }
    }
}

impl Level {
    pub(crate) const fn access(self) -> Access {
        match self {
            Self::Off => Access::none(),
            Self::ReadOnly => Access::read(),
            Self::ReadWrite => Access::write(),
            Self::Maintain => Access::maintain(),
        }
    }
}

impl FromStr for EnginesWhere {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "workers" if cfg!(unix) => Ok(Self::Workers),
            "workers" => Err("there are workers on Unix only"),
            "in-process" => Ok(Self::InProcess),
            "none" => Ok(Self::None),
            _ => Err("it is workers, in-process or none"),
        }
    }
}

impl FromStr for LogFormat {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("it is text or json"),
        }
    }
}

impl Config {
    /// # Errors
    /// The first setting that is missing or makes no sense.
    pub(crate) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let unix_mode: String = settings.get("unix-mode")?;
        let unix_mode = u32::from_str_radix(&unix_mode, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .ok_or_else(|| settings.invalid("unix-mode", "it is three octal digits, as in 660"))?;
        let listen_unix: Option<PathBuf> = settings.find("listen-unix")?;
        if listen_unix.is_some() && cfg!(not(unix)) {
            return Err(settings.invalid("listen-unix", "there are Unix sockets on Unix only"));
        }
        let log: String = settings.get("log")?;
        if let Err(error) = EnvFilter::try_new(&log) {
            return Err(settings.invalid("log", error));
        }
        let tokens = Tokens::new(settings)?;
        let config = Self {
            listen: address(settings, "listen")?.ok_or(SettingsError::Missing { key: "listen" })?,
            certificates: Certificates::new(settings)?,
            listen_tcp: address(settings, "listen-tcp")?,
            listen_unix,
            unix_mode,
            data: settings.get("data")?,
            anonymous: settings.get("anonymous")?,
            access: settings.get("access")?,
            admins: Admins::new(settings, tokens.as_ref())?,
            tokens,
            rules: settings.rules.clone(),
            token_cookie: settings.find("token-cookie")?,
            token_in_query: settings.get("token-in-query")?,
            allowed_origins: settings.many("allowed-origins"),
            health: settings.get("health")?,
            metrics: settings.get("metrics")?,
            metrics_documents: settings.get("metrics-documents")?,
            engines: settings.get("engines")?,
            limits: {
                let mut limits = settings.limits().clone();
                limits.connections_max = settings.get(CONNECTIONS_MAX)?;
                limits
            },
            drain: Duration::from_secs(settings.get("drain-seconds")?),
            log,
            log_format: settings.get("log-format")?,
        };
        config.rules().map_err(SettingsError::Together)?;
        match (config.anonymous, &config.tokens) {
            (_, None) if !config.rules.is_empty() => Err(SettingsError::Together(
                "there are rules for users whom tokens name, and no key for tokens".to_owned(),
            )),
            (Level::Off, None) => Err(SettingsError::Together(
                "nothing says who may come in: --jwt-secret-file, --jwt-key-file or --jwt-jwks-file lets in users that tokens \
                 name, --anonymous everybody"
                    .to_owned(),
            )),
            (Level::ReadOnly | Level::ReadWrite | Level::Maintain, Some(_)) => Err(
                SettingsError::Together("--anonymous asks nobody for a token: leave out it, or the key".to_owned()),
            ),
            _ => Ok(config),
        }
    }

    /// Who is let in.
    pub(crate) fn auth(&self) -> Result<Auth, Failure> {
        let Some(tokens) = &self.tokens else {
            return Ok(match self.anonymous {
                Level::ReadOnly => Anonymous::read_only(),
                Level::Maintain => Anonymous::maintain(),
                Level::ReadWrite | Level::Off => Anonymous::read_write(),
            });
        };
        let rules = self.rules().map_err(Failure::Configuration)?;
        Ok(Auth::new(tokens.jwt()?, rules))
    }

    fn rules(&self) -> Result<Rules, String> {
        Rules::new(&self.rules, self.access.access())
    }

    /// What the port shows who it is with.
    pub(crate) fn tls(&self) -> Result<Option<Tls>, Failure> {
        self.certificates
            .as_ref()
            .map(Certificates::read)
            .transpose()
    }

    /// What is served over HTTP.
    pub(crate) fn routes(&self, server: &Server) -> Result<axum::Router, Failure> {
        let mut routes = http::routes(server.clone()).sync("/");
        if self.health {
            routes = routes.health();
        }
        if self.metrics {
            routes = routes.metrics_by_document(self.metrics_documents);
        }
        if let Some(access) = self.admins()? {
            routes = routes.admin(access).dashboard();
        }
        if let Some(cookie) = &self.token_cookie {
            routes = routes.cookie(cookie);
        }
        if self.token_in_query {
            routes = routes.token_in_query();
        }
        let routes = match self.allowed_origins.as_slice() {
            [] => routes,
            [any] if any == "any" => routes.any_origin(),
            origins => routes.allowed_origins(origins),
        };
        Ok(routes.into_router())
    }

    /// Who may administer the server, if anybody may.
    pub(crate) fn admins(&self) -> Result<Option<impl http::AdminAccess + use<>>, Failure> {
        self.admins.access(self.tokens.as_ref())
    }

    pub(crate) fn engines(&self) -> Result<EngineHost, Failure> {
        match self.engines {
            #[cfg(unix)]
            EnginesWhere::Workers => sync_server::Workers::current_exe()
                .map(EngineHost::Workers)
                .map_err(|error| Failure::Other(format!("no workers: {error}"))),
            EnginesWhere::None => Ok(EngineHost::None),
            _ => Ok(InProcess::default().into()),
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits.clone()
    }
}

/// An address and a port.
fn address(settings: &Settings, key: &'static str) -> Result<Option<String>, SettingsError> {
    let address: Option<String> = settings.find(key)?;
    let is_one = |address: &String| {
        let parts = address.rsplit_once(':');
        parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    match address {
        Some(address) if !is_one(&address) => {
            Err(settings.invalid(key, "it is an address and a port, as in [::1]:8080"))
        }
        address => Ok(address),
    }
}
