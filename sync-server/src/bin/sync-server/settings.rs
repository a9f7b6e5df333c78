//! Where settings come from: options, then the environment, then a file, then what is built in.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use sync_server::Limits;

use crate::limits::{self, CONNECTIONS_MAX};
use crate::output::Failure;
use crate::rules::RuleText;

/// One setting. All its names follow from the one that it has as an option and in the file.
struct Key {
    name: &'static str,
    shape: Shape,
    default: Option<&'static str>,
    help: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One value, called this in the help.
    One(&'static str),
    /// One value, or this one when the option stands alone.
    OneOr(&'static str, &'static str),
    /// Several values, called this in the help; a list in the file, else with commas between them.
    Many(&'static str),
}

const KEYS: &[Key] = &[
    Key {
        name: "listen",
        shape: Shape::One("ADDRESS"),
        default: Some("127.0.0.1:8080"),
        help: "Address and port to listen at; port 0 takes a free one. What it got is printed",
    },
    Key {
        name: "tls-cert",
        shape: Shape::One("FILE"),
        default: None,
        help: "Speak TLS there: the certificate and those above it, in PEM; read again on SIGHUP",
    },
    Key {
        name: "tls-key",
        shape: Shape::One("FILE"),
        default: None,
        help: "The key of that certificate, in PEM",
    },
    Key {
        name: "listen-tcp",
        shape: Shape::One("ADDRESS"),
        default: None,
        help: "Address and port to listen at as well, for frames without WebSockets or TLS: tcp:// for clients",
    },
    Key {
        name: "listen-unix",
        shape: Shape::One("PATH"),
        default: None,
        help: "Unix socket to listen at as well: unix:// for clients",
    },
    Key {
        name: "unix-mode",
        shape: Shape::One("MODE"),
        default: Some("600"),
        help: "Permissions of the Unix socket, in octal: 660 lets its group in",
    },
    Key {
        name: "data",
        shape: Shape::One("DIR"),
        default: None,
        help: "Directory of the documents; made if it is not there",
    },
    Key {
        name: "anonymous",
        shape: Shape::OneOr("ACCESS", "read-write"),
        default: Some("off"),
        help: "Let in whoever connects, without asking who it is: read-only, read-write, maintain or off",
    },
    Key {
        name: "jwt-secret-file",
        shape: Shape::One("FILE"),
        default: None,
        help: "Let in users named by tokens (JWT) with HS256: the secret, at least 32 bytes",
    },
    Key {
        name: "jwt-key-file",
        shape: Shape::One("FILE"),
        default: None,
        help: "The same with RS256 or EdDSA: the public key in PEM",
    },
    Key {
        name: "jwt-jwks-file",
        shape: Shape::One("FILE"),
        default: None,
        help: "The same with any of the keys of a JWK set",
    },
    Key {
        name: "jwt-issuer",
        shape: Shape::One("ISSUER"),
        default: None,
        help: "The issuer that tokens must have",
    },
    Key {
        name: "jwt-audience",
        shape: Shape::One("AUDIENCE"),
        default: None,
        help: "The audience that tokens must have; tokens with one are refused without this",
    },
    Key {
        name: "jwt-leeway-seconds",
        shape: Shape::One("SECONDS"),
        default: Some("60"),
        help: "How far the clocks of the issuer and of this machine may be apart",
    },
    Key {
        name: "access",
        shape: Shape::One("ACCESS"),
        default: Some("read-write"),
        help: "What users named by tokens may do with documents that no rule of the file is about: read-only, read-write, maintain or off",
    },
    Key {
        name: "token-cookie",
        shape: Shape::One("NAME"),
        default: None,
        help: "Cookie that may hold the token",
    },
    Key {
        name: "token-in-query",
        shape: Shape::OneOr("YES", "true"),
        default: Some("false"),
        help: "Whether the token may stand in the address, as ?token=",
    },
    Key {
        name: "allowed-origins",
        shape: Shape::Many("ORIGINS"),
        default: None,
        help: "Web pages that may connect, such as https://app.example.com, or `any`; default: those of this host",
    },
    Key {
        name: "health",
        shape: Shape::OneOr("YES", "true"),
        default: Some("true"),
        help: "Whether to serve /healthz and /readyz",
    },
    Key {
        name: "metrics",
        shape: Shape::OneOr("YES", "true"),
        default: Some("true"),
        help: "Whether to serve /metrics for Prometheus, to whoever asks: totals, without names",
    },
    Key {
        name: "metrics-documents",
        shape: Shape::One("NUMBER"),
        default: Some("0"),
        help: "Documents that are in the metrics by name: the busiest, at most so many",
    },
    Key {
        name: "admin-token-file",
        shape: Shape::One("FILE"),
        default: None,
        help: "Serve the admin API at /admin to whoever has this token; the variable SYNC_ADMIN_TOKEN may hold it instead",
    },
    Key {
        name: "admin-jwt",
        shape: Shape::OneOr("YES", "true"),
        default: Some("false"),
        help: "Serve the admin API to users whose token has the claim admin, and it is true",
    },
    Key {
        name: "engines",
        shape: Shape::One("WHERE"),
        default: Some(if cfg!(unix) { "workers" } else { "in-process" }),
        help: "Where changes are checked: workers (processes that may die of them), in-process or none",
    },
    Key {
        name: "connections-max",
        shape: Shape::One("NUMBER"),
        default: Some("100000"),
        help: "Connections at once; who comes then is told to try again",
    },
    Key {
        name: "drain-seconds",
        shape: Shape::One("SECONDS"),
        default: Some("10"),
        help: "How long clients have to leave after SIGTERM or SIGINT; they come back spread over that time",
    },
    Key {
        name: "log",
        shape: Shape::One("FILTER"),
        default: Some("info"),
        help: "What to log, to standard error: error, warn, info, debug, trace, or directives of tracing's EnvFilter",
    },
    Key {
        name: "log-format",
        shape: Shape::One("FORMAT"),
        default: Some("text"),
        help: "text, or json: one object per line",
    },
];

/// Name of the option that names the file; it cannot stand in the file.
const FILE: &str = "config";

/// Name of the list of rules, which stands only there.
const RULES: &str = "rules";

/// Why the settings cannot be used. Each names the setting.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("{from}: `{value}` is no {key}: {reason}")]
    Invalid {
        key: &'static str,
        from: Source,
        value: String,
        reason: String,
    },
    #[error(
        "{key} is missing: give --{key}, {}, or {key} in the file of --config",
        variable(key)
    )]
    Missing { key: &'static str },
    #[error("{}: there is no setting `{key}`", path.display())]
    Unknown { path: PathBuf, key: String },
    #[error("{}: {key} is no {}", path.display(), if *many { "list of texts" } else { "text, number or boolean" })]
    Shape {
        path: PathBuf,
        key: String,
        many: bool,
    },
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{0}")]
    Together(String),
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::Configuration(error.to_string())
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Option(&'static str),
    Environment(String),
    File(PathBuf),
    Default,
}

impl Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(name) => write!(f, "--{name}"),
            Self::Environment(name) => f.write_str(name),
            Self::File(path) => path.display().fmt(f),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Every setting that has a value, as text, and where it comes from.
#[derive(Debug)]
pub(crate) struct Settings {
    values: BTreeMap<&'static str, (String, Source)>,
    limits: Limits,
    pub(crate) rules: Vec<RuleText>,
}

/// The environment variable of a setting.
fn variable(name: &str) -> String {
    format!("SYNC_{}", name.replace('-', "_").to_uppercase())
}

/// Adds the options of all settings.
pub(crate) fn with_options(command: Command) -> Command {
    let file = Arg::new(FILE)
        .long(FILE)
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("File with settings, in TOML [env: SYNC_CONFIG]");
    let options = KEYS.iter().map(|key| {
        let mut help = format!("{} [env: {}]", key.help, variable(key.name));
        if let Some(default) = key.default {
            let _ = write!(help, " [default: {default}]");
        }
        let option = Arg::new(key.name)
            .long(key.name)
            .help(help)
            .action(ArgAction::Set);
        match key.shape {
            Shape::One(value) | Shape::Many(value) => option.value_name(value),
            Shape::OneOr(value, missing) => option
                .value_name(value)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value(missing),
        }
    });
    command.arg(file).args(options)
}

impl Settings {
    /// Reads the environment and the file behind what was given as options.
    pub(crate) fn read(options: &ArgMatches) -> Result<Self, SettingsError> {
        let from_environment =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let file = options.get_one::<PathBuf>(FILE).cloned();
        let file = file.or_else(|| from_environment(&variable(FILE)).map(PathBuf::from));
        let mut limits = Limits::default();
        let (mut from_file, rules) = match &file {
            Some(path) => read_file(path, &mut limits)?,
            None => Default::default(),
        };
        let mut values = BTreeMap::new();
        for key in KEYS {
            let given = (options.value_source(key.name) == Some(ValueSource::CommandLine))
                .then(|| options.get_one::<String>(key.name))
                .flatten();
            let name = variable(key.name);
            let in_file = from_file.remove(key.name).zip(file.clone());
            let found = if let Some(value) = given {
                Some((value.clone(), Source::Option(key.name)))
            } else if let Some(value) = from_environment(&name) {
                let value = value.to_string_lossy().into_owned();
                Some((value, Source::Environment(name)))
            } else if let Some((value, path)) = in_file {
                Some((value, Source::File(path)))
            } else {
                key.default.map(|value| (value.to_owned(), Source::Default))
            };
            values.extend(found.map(|found| (key.name, found)));
        }
        match from_file.into_keys().next().zip(file.clone()) {
            Some((key, path)) => Err(SettingsError::Unknown { path, key }),
            None => {
                let connections_max = values.get(CONNECTIONS_MAX);
                if let Some((value, Source::Default)) = connections_max
                    && let Some(path) = file
                    && *value != limits.connections_max.to_string()
                {
                    let value = limits.connections_max.to_string();
                    values.insert(CONNECTIONS_MAX, (value, Source::File(path)));
                }
                Ok(Self {
                    values,
                    limits,
                    rules,
                })
            }
        }
    }

    /// The value of a setting, if it has one.
    pub(crate) fn find<T: FromStr<Err: Display>>(
        &self,
        key: &'static str,
    ) -> Result<Option<T>, SettingsError> {
        let Some((value, _)) = self.values.get(key) else {
            return Ok(None);
        };
        match value.parse() {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(self.invalid(key, error)),
        }
    }

    /// The value of a setting.
    pub(crate) fn get<T: FromStr<Err: Display>>(
        &self,
        key: &'static str,
    ) -> Result<T, SettingsError> {
        self.find(key)?.ok_or(SettingsError::Missing { key })
    }

    /// The values of a setting that may have several.
    pub(crate) fn many(&self, key: &'static str) -> Vec<String> {
        let text = self.values.get(key).map_or("", |(text, _)| text.as_str());
        let values = text.split(',').map(str::trim);
        values
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// That the value of a setting cannot be used.
    pub(crate) fn invalid(&self, key: &'static str, reason: impl Display) -> SettingsError {
        let (value, from) = match self.values.get(key) {
            Some((value, source)) => (value.clone(), source.clone()),
            None => return SettingsError::Missing { key },
        };
        SettingsError::Invalid {
            key,
            from,
            value,
            reason: reason.to_string(),
        }
    }

    /// The limits as the file has them.
    pub(crate) const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// All of it as a file, with where each came from.
    pub(crate) fn to_toml(&self) -> String {
        let mut text = String::new();
        for (key, (value, source)) in &self.values {
            let value = toml::Value::String(value.clone());
            let _ = writeln!(text, "{key} = {value}  # {source}");
        }
        text += &limits::to_toml(&self.limits);
        for rule in &self.rules {
            // What has been read can be written.
            let rule = toml::to_string(rule).unwrap_or_default();
            let _ = write!(text, "\n[[{RULES}]]\n{rule}");
        }
        text
    }
}

/// What a file says: settings, and rules.
type FileContent = (BTreeMap<String, String>, Vec<RuleText>);

fn read_file(path: &Path, limits: &mut Limits) -> Result<FileContent, SettingsError> {
    let failed = |reason: String| SettingsError::File {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let mut table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| failed(error.to_string().trim_end().to_owned()))?;
    if let Some(found) = table.get("limits").and_then(toml::Value::as_table) {
        limits::read(path, found.clone(), limits)?;
        table.remove("limits");
    }
    let rules = match table.remove(RULES) {
        Some(rules) => rules.try_into().map_err(|error: toml::de::Error| {
            failed(format!("{RULES}: {}", error.to_string().trim_end()))
        })?,
        None => Vec::new(),
    };
    let values = table.into_iter().map(|(key, value)| {
        let many = KEYS
            .iter()
            .any(|known| known.name == key && matches!(known.shape, Shape::Many(_)));
        let text = match value {
            toml::Value::String(text) => Some(text),
            toml::Value::Integer(number) if !many => Some(number.to_string()),
            toml::Value::Boolean(value) if !many => Some(value.to_string()),
            toml::Value::Array(values) if many => {
                let values: Option<Vec<_>> = values.iter().map(toml::Value::as_str).collect();
                values.map(|values| values.join(","))
            }
            _ => None,
        };
        match text {
            Some(text) => Ok((key, text)),
            None => Err(SettingsError::Shape {
                path: path.to_owned(),
                key,
                many,
            }),
        }
    });
    let values: Result<_, _> = values.collect();
    Ok((values?, rules))
}
