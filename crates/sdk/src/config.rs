//! Where an agent lives and whom it talks to: flag > `SKYTALE_*` environment > context > default.
//!
//! Read once, when an agent is opened; nothing reads the environment later. A context is a file
//! `contexts/NAME.toml` (0600) in the configuration directory: lines of `key = "value"`. Beside it,
//! `NAME.advertise` holds what its `skytale up --public-addr` said: the address that invites name.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use skytale_wire::{http::Secret, id::RelayKey};
use zeroize::Zeroizing;

use crate::{error::Error, link::address::Doors, traffic::Traffic, vault::VaultKey};

/// Everything that was decided when an agent was opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct Config {
    /// Agents live in `agents/NAME` below it.
    pub data_dir: PathBuf,
    /// Contexts and the vaults' key file live here.
    pub config_dir: PathBuf,
    /// The context that was used, if there is one.
    pub context: Option<String>,
    /// The API server, `https://…`, or `http://…` on this machine.
    pub api_url: Option<String>,
    /// Buys tokens. Without it this agent is a guest at its relays.
    pub api_key: Option<Secret>,
    /// Where new channels are made. Without it, the API server names one.
    pub relay: Option<RelayAddr>,
    /// PEM file of an additional certificate authority for the API server.
    pub ca_file: Option<PathBuf>,
    /// Where invites say that the relay of the context is, `host:port`, when that is not where agents
    /// on this machine find it.
    pub advertised: Vec<String>,
    /// How lines to relays are to look to whoever watches them.
    pub traffic: Traffic,
    /// How long calls wait.
    pub timeouts: Timeouts,
    /// A key that was handed in or found in the environment; otherwise the key file's is used.
    pub(crate) vault_key: Option<VaultKey>,
}

/// What the caller sets; it goes before all other layers.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "the fields are those of `Config`")]
pub struct Flags {
    pub data_dir: Option<PathBuf>,
    pub config_dir: Option<PathBuf>,
    pub context: Option<String>,
    pub api_url: Option<String>,
    pub api_key: Option<Secret>,
    pub relay: Option<RelayAddr>,
    pub ca_file: Option<PathBuf>,
    pub traffic: Option<Traffic>,
    /// What holds when no layer says anything of traffic.
    pub traffic_otherwise: Traffic,
    pub timeouts: Timeouts,
    pub vault_key: Option<VaultKey>,
    /// Used when neither a key is handed in nor one stands in the environment.
    pub passphrase: Option<Zeroizing<String>>,
}

/// How long calls wait before they answer [`Error::Timeout`]. Where lines have slots, the time that
/// those need is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to a relay.
    pub connect: Duration,
    /// For a token.
    pub token: Duration,
    /// For the relay to have stored a message.
    pub stored: Duration,
    /// For creating, joining, adding, removing and everything else that changes a group.
    pub change: Duration,
    /// For somebody's answer.
    pub ask: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            token: Duration::from_secs(10),
            stored: Duration::from_secs(30),
            change: Duration::from_mins(1),
            ask: Duration::from_mins(2),
        }
    }
}

impl Config {
    /// Lays the flags over this process's environment, the context and the defaults.
    pub fn load(flags: Flags) -> Result<Self, Error> {
        Self::layered(flags, &|name| std::env::var_os(name))
    }

    /// The same, with the environment handed in.
    pub fn layered(
        flags: Flags,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        let env = Environment(environment);
        let config_dir = flags
            .config_dir
            .or_else(|| env.path("SKYTALE_CONFIG_DIR"))
            .or_else(|| env.path("XDG_CONFIG_HOME").map(|dir| dir.join("skytale")))
            .or_else(|| env.path("HOME").map(|home| home.join(".config/skytale")))
            .ok_or_else(|| Error::misuse("no home directory: set SKYTALE_CONFIG_DIR"))?;

        let wanted = flags.context.or(env.text("SKYTALE_CONTEXT")?);
        let (name, context) = match wanted {
            Some(name) => {
                let context = Context::read(&config_dir, &name)?.ok_or_else(|| {
                    Error::NotFound(format!(
                        "there is no context {name:?}: `skytale context ls` shows those there are"
                    ))
                })?;
                (Some(name), context)
            }
            None => match Context::current(&config_dir)? {
                Some(name) => match Context::read(&config_dir, &name)? {
                    Some(context) => (Some(name), context),
                    None => (None, Context::default()),
                },
                None => (None, Context::default()),
            },
        };

        let vault_key = match (flags.vault_key, env.secret("SKYTALE_VAULT_KEY")?) {
            (Some(key), _) => Some(key),
            (None, Some(hex)) => Some(VaultKey::from_hex(&hex)?),
            (None, None) => flags.passphrase.map(VaultKey::passphrase).transpose()?,
        };
        let config = Self {
            data_dir: flags
                .data_dir
                .or_else(|| env.path("SKYTALE_DATA_DIR"))
                .or(context.data_dir)
                .or_else(|| env.path("XDG_DATA_HOME").map(|dir| dir.join("skytale")))
                .or_else(|| env.path("HOME").map(|home| home.join(DATA_BELOW_HOME)))
                .ok_or_else(|| Error::misuse("no home directory: set SKYTALE_DATA_DIR"))?,
            advertised: match &name {
                Some(name) => Context::advertised(&config_dir, name)?,
                None => Vec::new(),
            },
            config_dir,
            context: name,
            api_url: flags
                .api_url
                .or(env.text("SKYTALE_API_URL")?)
                .or(context.api_url),
            api_key: match flags.api_key {
                Some(key) => Some(key),
                None => env
                    .secret("SKYTALE_API_KEY")?
                    .map(|key| Secret::new(key.to_string()))
                    .or(context.api_key),
            },
            relay: match flags.relay {
                Some(relay) => Some(relay),
                None => env
                    .text("SKYTALE_RELAY")?
                    .map(|text| text.parse())
                    .transpose()?
                    .or(context.relay),
            },
            ca_file: flags
                .ca_file
                .or_else(|| env.path("SKYTALE_CA_FILE"))
                .or(context.ca_file),
            traffic: match flags.traffic {
                Some(traffic) => traffic,
                None => env
                    .text("SKYTALE_TRAFFIC")?
                    .map(|text| text.parse())
                    .transpose()?
                    .or(context.traffic)
                    .unwrap_or(flags.traffic_otherwise),
            },
            timeouts: flags.timeouts,
            vault_key,
        };
        if config.api_key.is_some() && config.api_url.is_none() {
            return Err(Error::misuse(
                "an API key is set, but no API server: set SKYTALE_API_URL too",
            ));
        }
        Ok(config)
    }

    /// Where the agent of this name keeps its vault.
    pub fn agent_dir(&self, name: &str) -> Result<PathBuf, Error> {
        check_agent_name(name)?;
        Ok(self.data_dir.join("agents").join(name))
    }

    /// The names of the agents that have a vault here, sorted.
    pub fn agents(&self) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        let entries = match fs::read_dir(self.data_dir.join("agents")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
            Err(error) => return Err(unreadable("the data directory", &error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| unreadable("the data directory", &error))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if check_agent_name(&name).is_ok() && entry.path().join("vault.db").exists() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Whether a text can name an agent on this machine: it becomes a directory.
pub fn check_agent_name(name: &str) -> Result<(), Error> {
    let good = (1..=AGENT_NAME_BYTES_MAX).contains(&name.len())
        && !matches!(name, "." | "..")
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    good.then_some(()).ok_or_else(|| {
        Error::misuse(
            "a name here is 1 to 64 letters, digits, '.', '_' and '-', and not '.' or '..'",
        )
    })
}

/// A relay's key and where it is reached: `<hex key>@host:port`. That is its QUIC; where UDP does not
/// get through, its gRPC is tried at port 5000 of the same host, or where `?grpc=host:port`,
/// `?grpc=https://host:port` or `?grpc=off` behind the address says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayAddr {
    /// What its connection must prove.
    pub key: RelayKey,
    /// `host:port`, with or without a `?grpc=…`.
    pub address: String,
}

impl fmt::Display for RelayAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key, self.address)
    }
}

impl FromStr for RelayAddr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || {
            Error::misuse(
                "a relay is written as <64 hex digits>@host:port, as `skytale up` prints it",
            )
        };
        let (key, address) = text.trim().split_once('@').ok_or_else(bad)?;
        Doors::read(address).ok_or_else(bad)?;
        Ok(Self {
            key: key.parse().map_err(|_| bad())?,
            address: address.to_owned(),
        })
    }
}

/// One set of servers and the key for them, under a name.
#[derive(Debug, Default)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are those of `Config`")]
pub struct Context {
    pub api_url: Option<String>,
    pub api_key: Option<Secret>,
    pub relay: Option<RelayAddr>,
    pub data_dir: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub traffic: Option<Traffic>,
}

impl Context {
    /// Reads the context of this name, if there is one.
    pub fn read(config_dir: &Path, name: &str) -> Result<Option<Self>, Error> {
        check_agent_name(name)?;
        match fs::read_to_string(Self::path(config_dir, name)) {
            Ok(text) => Self::parse(&Zeroizing::new(text)).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable("the context file", &error)),
        }
    }

    /// Writes it, replacing one of the same name at once or not at all.
    pub fn write(&self, config_dir: &Path, name: &str) -> Result<(), Error> {
        check_agent_name(name)?;
        private_dir(&config_dir.join("contexts"))?;
        let content = self.to_text()?;
        replace_private(&Self::path(config_dir, name), content.as_bytes()).map_err(unwritten)
    }

    /// The names of all contexts, sorted.
    pub fn names(config_dir: &Path) -> Result<Vec<String>, Error> {
        let entries = match fs::read_dir(config_dir.join("contexts")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable("the configuration directory", &error)),
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|file| file.strip_suffix(".toml").map(str::to_owned))
            .filter(|name| check_agent_name(name).is_ok())
            .collect();
        names.sort();
        Ok(names)
    }

    /// The context that is used when none is named: the chosen one, else `local`.
    pub fn current(config_dir: &Path) -> Result<Option<String>, Error> {
        match fs::read_to_string(config_dir.join(CHOSEN_FILE)) {
            Ok(name) => {
                let name = name.trim().to_owned();
                check_agent_name(&name)?;
                Ok(Some(name))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let local = Self::path(config_dir, DEFAULT_CONTEXT).exists();
                Ok(local.then(|| DEFAULT_CONTEXT.to_owned()))
            }
            Err(error) => Err(unreadable("the configuration directory", &error)),
        }
    }

    /// Makes this the context that is used when none is named.
    pub fn choose(config_dir: &Path, name: &str) -> Result<(), Error> {
        if Self::read(config_dir, name)?.is_none() {
            return Err(Error::NotFound(format!("there is no context {name:?}")));
        }
        replace_private(&config_dir.join(CHOSEN_FILE), name.as_bytes()).map_err(unwritten)
    }

    /// Remembers where invites are to say that the context's relay is, or forgets it.
    pub fn advertise(config_dir: &Path, name: &str, address: Option<&str>) -> io::Result<()> {
        let path = Self::advertised_path(config_dir, name);
        let Some(address) = address else {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Err(_) | Ok(()) => Ok(()),
            };
        };
        replace_private(&path, format!("{address}\n").as_bytes())
    }

    fn advertised(config_dir: &Path, name: &str) -> Result<Vec<String>, Error> {
        match fs::read_to_string(Self::advertised_path(config_dir, name)) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(unreadable("what the context advertises", &error)),
        }
    }

    fn advertised_path(config_dir: &Path, name: &str) -> PathBuf {
        config_dir
            .join("contexts")
            .join(format!("{name}.advertise"))
    }

    fn path(config_dir: &Path, name: &str) -> PathBuf {
        config_dir.join("contexts").join(format!("{name}.toml"))
    }

    /// Reads the part of TOML that [`Self::to_text`] writes. A key that is not known is refused: it
    /// is a typing mistake that would otherwise do nothing.
    fn parse(text: &str) -> Result<Self, Error> {
        let mut values = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let bad = |why: &str| Error::misuse(format!("context file, line {number}: {why}"));
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line
                .split_once('=')
                .ok_or_else(|| bad("expected key = \"value\""))?;
            // A basic string of TOML without its rarer escapes is a string of JSON.
            let value: String = serde_json::from_str(value.trim())
                .map_err(|_| bad("the value must stand in double quotes"))?;
            let key = key.trim();
            if !KEYS.contains(&key) {
                return Err(bad("this key is not known"));
            }
            if values.insert(key, value).is_some() {
                return Err(bad("this key stands there twice"));
            }
        }
        Ok(Self {
            api_url: values.remove("api_url"),
            api_key: values.remove("api_key").map(Secret::new),
            relay: values
                .remove("relay")
                .map(|text| text.parse())
                .transpose()?,
            data_dir: values.remove("data_dir").map(PathBuf::from),
            ca_file: values.remove("ca_file").map(PathBuf::from),
            traffic: values
                .remove("traffic")
                .map(|text| text.parse())
                .transpose()?,
        })
    }

    fn to_text(&self) -> Result<Zeroizing<String>, Error> {
        let path = |path: &Option<PathBuf>| {
            path.as_ref()
                .map(|path| {
                    path.to_str().map(str::to_owned).ok_or_else(|| {
                        Error::misuse("a path in a context must be written in UTF-8")
                    })
                })
                .transpose()
        };
        let values = [
            ("api_url", self.api_url.clone()),
            ("relay", self.relay.as_ref().map(ToString::to_string)),
            ("data_dir", path(&self.data_dir)?),
            ("ca_file", path(&self.ca_file)?),
            ("traffic", self.traffic.map(|traffic| traffic.to_string())),
        ];
        let mut text = Zeroizing::new(String::new());
        let mut line = |key: &str, value: &str| {
            let quoted = Zeroizing::new(serde_json::Value::from(value).to_string());
            for piece in [key, " = ", &quoted, "\n"] {
                text.push_str(piece);
            }
        };
        for (key, value) in values {
            if let Some(value) = value {
                line(key, &value);
            }
        }
        if let Some(key) = &self.api_key {
            line("api_key", key.expose());
        }
        Ok(text)
    }
}

/// The environment, as far as it may be looked at.
struct Environment<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Environment<'_> {
    /// An empty variable counts as not set, as in most programs.
    fn path(&self, name: &str) -> Option<PathBuf> {
        (self.0)(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    }

    fn text(&self, name: &str) -> Result<Option<String>, Error> {
        (self.0)(name)
            .filter(|value| !value.is_empty())
            .map(|value| {
                value
                    .into_string()
                    .map_err(|_| Error::misuse(format!("{name} is not UTF-8")))
            })
            .transpose()
    }

    /// `NAME`, or the content of the file that `NAME_FILE` names.
    fn secret(&self, name: &str) -> Result<Option<Zeroizing<String>>, Error> {
        let given = self.text(name)?.map(Zeroizing::new);
        let file = self.path(&format!("{name}_FILE"));
        match (given, file) {
            (Some(_), Some(_)) => Err(Error::misuse(format!(
                "{name} and {name}_FILE are both set: unset one"
            ))),
            (Some(value), None) => Ok(Some(Zeroizing::new(value.trim().to_owned()))),
            (None, Some(file)) => {
                let text = fs::read_to_string(file)
                    .map(Zeroizing::new)
                    .map_err(|error| unreadable(&format!("the file of {name}_FILE"), &error))?;
                Ok(Some(Zeroizing::new(text.trim().to_owned())))
            }
            (None, None) => Ok(None),
        }
    }
}

/// Makes a directory that only its owner can enter, with its parents.
pub(crate) fn private_dir(dir: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| unreadable("a private directory", &error))
}

/// Writes a 0600 file so that a reader sees the old content or the new, also after a power cut. Two who
/// write the same file at once have to take turns themselves.
pub fn replace_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_added_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn unwritten(error: io::Error) -> Error {
    unreadable("a file of the configuration directory", &error)
}

/// Says what could not be reached by its kind of error, and not by its path.
pub(crate) fn unreadable(what: &str, error: &io::Error) -> Error {
    Error::misuse(format!(
        "{what} cannot be read or written ({}): check its permissions and free space",
        error.kind()
    ))
}

const AGENT_NAME_BYTES_MAX: usize = 64;
const DATA_BELOW_HOME: &str = ".local/share/skytale";
const CHOSEN_FILE: &str = "context";
const DEFAULT_CONTEXT: &str = "local";
const KEYS: [&str; 6] = [
    "api_url", "api_key", "relay", "data_dir", "ca_file", "traffic",
];

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const RELAY: &str =
        "0101010101010101010101010101010101010101010101010101010101010101@localhost:4433";

    fn layered(flags: Flags, variables: &[(&str, &str)]) -> Result<Config, Error> {
        Config::layered(flags, &|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.into())
        })
    }

    #[test]
    fn a_flag_goes_before_the_environment_and_that_before_the_context() {
        let dir = tempfile::tempdir().unwrap();
        let context = Context {
            api_url: Some("http://127.0.0.1:1".into()),
            api_key: Some(Secret::new("sk_from_context".into())),
            relay: Some(RELAY.parse().unwrap()),
            ..Context::default()
        };
        context.write(dir.path(), "local").unwrap();
        let config_dir = dir.path().to_str().unwrap();

        let config = layered(
            Flags {
                api_url: Some("http://127.0.0.1:3".into()),
                ..Flags::default()
            },
            &[
                ("SKYTALE_CONFIG_DIR", config_dir),
                ("SKYTALE_API_URL", "http://127.0.0.1:2"),
                ("SKYTALE_API_KEY", "sk_from_environment"),
                ("HOME", "/home/alice"),
            ],
        )
        .unwrap();

        assert_eq!(config.context.as_deref(), Some("local"));
        assert_eq!(config.api_url.as_deref(), Some("http://127.0.0.1:3"));
        assert_eq!(config.api_key.unwrap().expose(), "sk_from_environment");
        assert_eq!(config.relay.unwrap().to_string(), RELAY);
        assert_eq!(
            config.data_dir,
            Path::new("/home/alice/.local/share/skytale")
        );
    }

    #[test]
    fn traffic_is_adaptive_unless_a_layer_says_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let home = ("HOME", dir.path().to_str().unwrap());
        let traffic = |flags: Flags, variables: &[(&str, &str)]| {
            layered(flags, &[&[home], variables].concat()).map(|config| config.traffic.to_string())
        };
        let flag = |text: &str| Flags {
            traffic: Some(text.parse().unwrap()),
            ..Flags::default()
        };
        let once = || Flags {
            traffic_otherwise: "padded".parse().unwrap(),
            ..Flags::default()
        };
        let env = [("SKYTALE_TRAFFIC", "quiet")];

        assert_eq!(traffic(Flags::default(), &[]).unwrap(), "adaptive");
        assert_eq!(traffic(once(), &[]).unwrap(), "padded");
        assert_eq!(traffic(once(), &env).unwrap(), "adaptive,rate=1");
        assert_eq!(traffic(flag("constant"), &env).unwrap(), "constant");
        assert!(traffic(Flags::default(), &[("SKYTALE_TRAFFIC", "loud")]).is_err());
        let config_dir = dir.path().join(".config/skytale");
        let context = Context {
            traffic: Some("swift".parse().unwrap()),
            ..Context::default()
        };
        context.write(&config_dir, "local").unwrap();
        assert_eq!(traffic(once(), &[]).unwrap(), "adaptive,rate=16");
    }

    #[test]
    fn directories_follow_the_platform_unless_told_otherwise() {
        let platform = layered(
            Flags::default(),
            &[("XDG_DATA_HOME", "/d"), ("XDG_CONFIG_HOME", "/c")],
        )
        .unwrap();
        let told = layered(
            Flags::default(),
            &[
                ("SKYTALE_DATA_DIR", "/x"),
                ("SKYTALE_CONFIG_DIR", "/y"),
                ("XDG_DATA_HOME", "/d"),
            ],
        )
        .unwrap();

        assert_eq!(platform.data_dir, Path::new("/d/skytale"));
        assert_eq!(platform.config_dir, Path::new("/c/skytale"));
        assert_eq!((told.data_dir, told.config_dir), ("/x".into(), "/y".into()));
        assert!(matches!(
            layered(Flags::default(), &[]),
            Err(Error::Misuse(_))
        ));
    }

    #[test]
    fn a_context_reads_back_what_was_written_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let context = Context {
            api_url: Some("https://example.org".into()),
            api_key: Some(Secret::new("sk_\"quoted\"\\".into())),
            data_dir: Some("/data".into()),
            ..Context::default()
        };

        context.write(dir.path(), "work").unwrap();
        let back = Context::read(dir.path(), "work").unwrap().unwrap();

        assert_eq!(back.api_key.unwrap().expose(), "sk_\"quoted\"\\");
        assert_eq!(back.data_dir.unwrap(), Path::new("/data"));
        let file = dir.path().join("contexts/work.toml");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Context::current(dir.path()).unwrap(), None);
        Context::choose(dir.path(), "work").unwrap();
        assert_eq!(
            Context::current(dir.path()).unwrap().as_deref(),
            Some("work")
        );
        assert_eq!(Context::names(dir.path()).unwrap(), ["work"]);
    }

    #[test]
    fn a_misspelt_key_a_bare_value_and_an_unknown_context_are_refused() {
        assert!(Context::parse("api_kee = \"x\"").is_err());
        assert!(Context::parse("api_key = x").is_err());
        assert!(Context::parse("api_key = \"x\"\napi_key = \"y\"").is_err());
        assert!(Context::parse("# fine\n\napi_key = \"x\"\n").is_ok());
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            Context::choose(dir.path(), "nowhere"),
            Err(Error::NotFound(_))
        ));
    }

    #[test]
    fn a_secret_comes_from_the_environment_or_a_file_but_not_from_both() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        fs::write(&file, "sk_from_file\n").unwrap();
        let base = [
            ("HOME", dir.path().to_str().unwrap()),
            ("SKYTALE_API_URL", "http://127.0.0.1:1"),
            ("SKYTALE_API_KEY_FILE", file.to_str().unwrap()),
        ];

        let config = layered(Flags::default(), &base).unwrap();
        assert_eq!(config.api_key.unwrap().expose(), "sk_from_file");

        let both: Vec<_> = base
            .into_iter()
            .chain([("SKYTALE_API_KEY", "sk_x")])
            .collect();
        let error = layered(Flags::default(), &both).unwrap_err();
        assert!(error.to_string().contains("unset one"), "{error}");
    }

    #[test]
    fn a_relay_address_reads_back_and_nonsense_is_refused() {
        let six = RELAY.replace("localhost", "[::1]");

        assert_eq!(RELAY.parse::<RelayAddr>().unwrap().to_string(), RELAY);
        assert_eq!(six.parse::<RelayAddr>().unwrap().to_string(), six);
        let with_grpc = format!("{RELAY}?grpc=https://gw.example.org:443");
        let read = with_grpc.parse::<RelayAddr>().unwrap();
        assert_eq!(read.to_string(), with_grpc);
        for bad in [
            "",
            "localhost:4433",
            "01@localhost:4433",
            &RELAY.replace(":4433", ""),
            &RELAY.replace("4433", "70000"),
            &RELAY.replace("localhost", "::1"),
            &RELAY.replace("localhost", "a b"),
            &format!("{RELAY}?grpc="),
        ] {
            assert!(bad.parse::<RelayAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_agent_s_name_cannot_leave_its_directory() {
        for bad in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(check_agent_name(bad).is_err(), "{bad:?}");
        }
        for good in ["planner", "a.b_c-9", &"x".repeat(64)] {
            check_agent_name(good).unwrap();
        }
    }

    #[test]
    fn an_advertised_address_is_remembered_with_its_context_and_can_be_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        Context::default().write(dir.path(), "local").unwrap();
        let read = || {
            let flags = Flags {
                config_dir: Some(dir.path().to_owned()),
                context: Some("local".to_owned()),
                ..Flags::default()
            };
            let home = |name: &str| (name == "HOME").then(|| dir.path().into());
            Config::layered(flags, &home).unwrap().advertised
        };

        Context::advertise(dir.path(), "local", Some("relay.example.org:4433")).unwrap();
        assert_eq!(read(), ["relay.example.org:4433"]);
        Context::advertise(dir.path(), "local", None).unwrap();
        Context::advertise(dir.path(), "local", None).unwrap();

        assert!(read().is_empty());
        assert_eq!(Context::names(dir.path()).unwrap(), ["local"]);
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = layered(
            Flags::default(),
            &[
                ("HOME", "/home/alice"),
                ("SKYTALE_API_URL", "http://127.0.0.1:1"),
                ("SKYTALE_API_KEY", "sk_needle"),
                ("SKYTALE_VAULT_KEY", &"ab".repeat(32)),
            ],
        )
        .unwrap();

        let shown = format!("{config:?}");

        assert!(
            !shown.contains("needle") && !shown.contains("abab"),
            "{shown}"
        );
    }
}
