//! The file of settings for the servers: sections `[api]`, `[relay]`, `[traffic]` and `[limits]`, the
//! last two of them the relay's.
//!
//! What a section may hold is what the crates' own settings are called; this file knows no name of
//! them but those that follow the data directory, and so have no place in a file. A name that is not
//! known is refused with the nearest one that is.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::Value;
use skytale_api::config::Layer;
use skytale_relay::config::RelayConfig;
use toml::Table;

use crate::{args, exit::Failure, servers::api_failed};

/// A file as it was read, or nothing.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    path: Option<PathBuf>,
    table: Table,
}

/// One setting of a server, for people.
#[derive(Debug, PartialEq)]
pub(crate) struct Shown {
    pub(crate) name: String,
    pub(crate) value: Option<String>,
    pub(crate) origin: String,
}

impl Settings {
    /// Reads the file that the flag or the environment names, and refuses what nothing is called.
    pub(crate) fn load(wish: &args::SettingsFile) -> Result<Self, Failure> {
        let named = wish.config.clone().or_else(|| {
            let named = std::env::var_os("SKYTALE_CONFIG");
            named.filter(|it| !it.is_empty()).map(PathBuf::from)
        });
        let Some(path) = named else {
            return Ok(Self::default());
        };
        let cannot = |error: std::io::Error| {
            let kind = error.kind();
            Failure::usage(format!("the file of settings cannot be read ({kind})"))
        };
        let text = fs::read_to_string(&path).map_err(cannot)?;
        let mode = fs::metadata(&path).map_err(cannot)?.permissions().mode();
        let settings = Self {
            table: parse(&text)?,
            path: Some(path),
        };
        let url = settings
            .section("api")
            .and_then(|it| it.get("database_url"));
        let url = url.and_then(toml::Value::as_str).unwrap_or_default();
        if mode & 0o077 != 0 && skytale_api::DatabaseUrl::from(url.to_owned()).has_password() {
            return Err(Failure::usage(
                "others can read the file of settings, and database_url in it has a password: make it readable by its owner only (mode 600), or give the URL by SKYTALE_DATABASE_URL_FILE",
            ));
        }
        Ok(settings)
    }

    /// The API server's settings, below the flags. An address that is `off` by a flag is off whatever
    /// the file says.
    pub(crate) fn api(
        &self,
        dir: &Path,
        flags: Layer,
        admin: Option<args::MaybeAddr>,
    ) -> Result<skytale_api::Config, Failure> {
        let file: Layer = Self::read("api", self.section("api").cloned())?;
        let no_migrate = flags.database_migrate == Some(false);
        let config = skytale_api::Config::layered(dir, flags, file);
        let mut config = config.map_err(|error| api_failed(&error))?;
        if let Some(args::MaybeAddr(None)) = admin {
            config.admin_addr = None;
        }
        if no_migrate && config.database_url.is_none() {
            return Err(Failure::usage(
                "--no-migrate is for a Postgres database: give --database-url or SKYTALE_DATABASE_URL too",
            ));
        }
        Ok(config)
    }

    /// The relay's, with everything that it keeps below `dir`.
    pub(crate) fn relay(&self, dir: &Path) -> Result<RelayConfig, Failure> {
        let mut all = self.section("relay").cloned().unwrap_or_default();
        for section in OF_RELAY {
            if let Some(table) = self.section(section) {
                all.insert(section.to_owned(), table.clone().into());
            }
        }
        let config: RelayConfig = Self::read("relay", Some(all))?;
        Ok(RelayConfig {
            data_dir: dir.to_owned(),
            ..config
        })
    }

    /// Each setting of the servers, its value and where that comes from. Flags belong to the command
    /// that starts a server, so they are not seen here.
    pub(crate) fn shown(&self, is_set: &dyn Fn(&str) -> Option<String>) -> Vec<Shown> {
        let file = self.path.as_deref().map(Path::display);
        let origin = file.map_or_else(String::new, |path| format!("file {path}"));
        let mut all = Vec::new();
        for it in skytale_api::Config::settings() {
            if FOLLOW_DATA_DIR.contains(&("api", it.name)) {
                continue;
            }
            let is_secret = it.name == "database_url";
            let variables: Vec<&str> = if is_secret {
                DATABASE_URL.to_vec()
            } else {
                it.variable.into_iter().collect()
            };
            let set = variables
                .iter()
                .find_map(|name| Some(((*name).to_owned(), is_set(name)?)));
            let said = self.section("api").and_then(|table| table.get(it.name));
            let (value, origin) = match (set, said) {
                (Some((name, value)), _) => (Some(value), name),
                (None, Some(value)) => (Some(plain(&json(value))), origin.clone()),
                (None, None) => match it.default {
                    Some(value) => (Some(plain(&value)), "default".to_owned()),
                    None => (None, String::new()),
                },
            };
            all.push(Shown {
                name: format!("api.{}", it.name),
                value: value.map(|it| if is_secret { HIDDEN.to_owned() } else { it }),
                origin,
            });
        }
        let defaults = serde_json::to_value(RelayConfig::default()).unwrap_or_default();
        self.show_relay("relay", &defaults, &origin, &mut all);
        for section in OF_RELAY {
            self.show_relay(section, &defaults[section], &origin, &mut all);
        }
        all
    }

    fn show_relay(&self, section: &str, defaults: &Value, origin: &str, all: &mut Vec<Shown>) {
        let Some(defaults) = defaults.as_object() else {
            return;
        };
        for (name, default) in defaults {
            let elsewhere = section == "relay" && OF_RELAY.contains(&name.as_str());
            if elsewhere || FOLLOW_DATA_DIR.contains(&(section, name.as_str())) {
                continue;
            }
            let said = self.section(section).and_then(|table| table.get(name));
            let value = said.map_or_else(|| default.clone(), json);
            all.push(Shown {
                name: format!("{section}.{name}"),
                origin: if said.is_some() {
                    origin.to_owned()
                } else if value.is_null() {
                    String::new()
                } else {
                    "default".to_owned()
                },
                value: (!value.is_null()).then(|| plain(&value)),
            });
        }
    }

    fn section(&self, name: &str) -> Option<&Table> {
        self.table.get(name).and_then(toml::Value::as_table)
    }

    /// Names were looked at before: what is wrong now is a value.
    fn read<T: DeserializeOwned>(name: &str, table: Option<Table>) -> Result<T, Failure> {
        table
            .unwrap_or_default()
            .try_into()
            .map_err(|error: toml::de::Error| {
                let why = error.message();
                Failure::usage(format!("the file of settings, section [{name}]: {why}"))
            })
    }
}

/// No flag at all.
pub(crate) fn no_flags() -> Layer {
    serde_json::from_value(Value::Object(serde_json::Map::new()))
        .expect("each setting may be left out")
}

fn parse(text: &str) -> Result<Table, Failure> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        // Its own words quote the line, and a line may hold a password.
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(1, |before| before.lines().count().max(1));
        let why = error.message();
        Failure::usage(format!("the file of settings, line {line}: {why}"))
    })?;
    let known = known();
    for (section, said) in &table {
        let names = known.get(section).ok_or_else(|| {
            let sections = known.keys().map(String::as_str);
            unknown(
                "there is no section",
                &format!("[{section}]"),
                section,
                sections,
            )
        })?;
        let Some(said) = said.as_table() else {
            return Err(Failure::usage(format!(
                "the file of settings: {section} is a section, so it is written as [{section}]"
            )));
        };
        check(section, said, names)?;
    }
    Ok(table)
}

/// Refuses names that are not known, also in sections of sections.
fn check(section: &str, said: &Table, known: &Value) -> Result<(), Failure> {
    let Some(known) = known.as_object() else {
        return Ok(());
    };
    for (name, value) in said {
        if FOLLOW_DATA_DIR.contains(&(section, name.as_str())) {
            return Err(Failure::usage(format!(
                "the file of settings, section [{section}]: {name} follows the data directory: give --data-dir or SKYTALE_DATA_DIR instead"
            )));
        }
        let elsewhere = section == "relay" && OF_RELAY.contains(&name.as_str());
        let Some(within) = known.get(name).filter(|_| !elsewhere) else {
            if elsewhere {
                return Err(Failure::usage(format!(
                    "the file of settings: write [{name}] and not [relay.{name}]"
                )));
            }
            let names = known.keys().map(String::as_str);
            let shown = format!("[{section}] {name}");
            return Err(unknown("there is no setting", &shown, name, names));
        };
        if let Some(table) = value.as_table() {
            check(&format!("{section}.{name}"), table, within)?;
        }
    }
    Ok(())
}

/// Sections with the names that stand in them.
fn known() -> serde_json::Map<String, Value> {
    let api = skytale_api::Config::settings();
    let api = api.iter().map(|it| (it.name.to_owned(), Value::Null));
    let relay = serde_json::to_value(RelayConfig::default()).unwrap_or_default();
    let mut known = serde_json::Map::new();
    for section in OF_RELAY {
        known.insert(section.to_owned(), relay[section].clone());
    }
    known.insert("api".to_owned(), Value::Object(api.collect()));
    known.insert("relay".to_owned(), relay);
    known
}

fn unknown<'a>(
    what: &str,
    shown: &str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> Failure {
    let nearest = known
        .map(|it| (distance(name, it), it))
        .min()
        .filter(|(distance, it)| *distance <= it.len().max(name.len()) / 2);
    let hint = nearest.map_or_else(
        || "`skytale config show` lists those that there are".to_owned(),
        |(_, it)| format!("did you mean {it}?"),
    );
    Failure::usage(format!("the file of settings: {what} {shown}: {hint}"))
}

/// How many letters must be changed, added or left out (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let changed = corner + usize::from(a != *b);
            corner = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

fn json(value: &toml::Value) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// Text without its quotation marks, everything else as JSON.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Sections of their own that belong to the relay.
const OF_RELAY: [&str; 2] = ["traffic", "limits"];
const FOLLOW_DATA_DIR: [(&str, &str); 3] = [
    ("api", "database"),
    ("api", "key_dir"),
    ("relay", "data_dir"),
];
const DATABASE_URL: [&str; 2] = ["SKYTALE_DATABASE_URL", "SKYTALE_DATABASE_URL_FILE"];
const HIDDEN: &str = "(set, not shown)";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, Failure> {
        parse(text).map(|table| Settings {
            path: Some("skytale.toml".into()),
            table,
        })
    }

    #[track_caller]
    fn refused(text: &str) -> String {
        let settings = match read(text) {
            Err(failure) => return failure.to_string(),
            Ok(settings) => settings,
        };
        let dir = Path::new("x");
        let api = settings.api(dir, no_flags(), None).map(|_| ());
        let relay = settings.relay(dir).map(|_| ());
        api.and(relay).unwrap_err().to_string()
    }

    #[test]
    fn each_section_reaches_its_server() {
        let text = r#"
            [api]
            addr = "127.0.0.1:7701"
            live_keys_max = 7
            [relay]
            grpc_addr = "off"
            issuers = ["https://api.example.org"]
            [relay.slim]
            [traffic]
            at_least = "adaptive"
            [limits]
            subscriptions_max = 3
        "#;
        let settings = read(text).unwrap();

        let api = settings.api(Path::new("x"), no_flags(), None).unwrap();
        let relay = settings.relay(Path::new("x")).unwrap();

        assert_eq!((api.addr.port(), api.live_keys_max), (7701, 7));
        assert_eq!((relay.grpc_addr, relay.issuers.len()), (None, 1));
        assert_eq!(relay.limits.subscriptions_max, 3);
        assert_eq!(relay.data_dir, Path::new("x"));
        let traffic = serde_json::to_value(&relay.traffic).unwrap();
        assert_eq!(traffic["at_least"], "adaptive");
    }

    #[test]
    fn a_name_that_is_not_known_is_refused_with_the_nearest() {
        for (text, nearest) in [
            ("[api]\nadr = \"127.0.0.1:1\"", "did you mean addr?"),
            (
                "[relay]\nquick_addr = \"127.0.0.1:1\"",
                "did you mean quic_addr?",
            ),
            (
                "[limits]\nsubscription_max = 1",
                "did you mean subscriptions_max?",
            ),
            ("[traffic]\nat_last = \"padded\"", "did you mean at_least?"),
            ("[relays]\n", "did you mean relay?"),
            ("[api]\nnonsense_at_all_here = 1", "config show"),
            ("[relay.traffic]\n", "write [traffic]"),
            ("[relay]\ndata_dir = \"x\"", "--data-dir"),
            ("[api]\nkey_dir = \"x\"", "--data-dir"),
            ("api = 1", "[api]"),
        ] {
            let refused = refused(text);
            assert!(refused.contains(nearest), "{text}: {refused}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_meant_names_its_section_and_a_broken_line_its_number() {
        assert!(refused("[api]\naddr = 7").contains("[api]"));
        assert!(refused("[relay]\nretention_days = \"x\"").contains("[relay]"));
        let broken = refused("[api]\n\ndatabase_url = \"postgres://a:needle@h/d\n");
        assert!(broken.contains("line 3"), "{broken}");
        assert!(!broken.contains("needle"), "{broken}");
    }

    #[test]
    fn the_sample_names_real_settings_with_their_real_defaults() {
        let sample = include_str!("../../../deploy/skytale.toml");
        let is_setting = |line: &str| {
            let name = line.split_once(" = ").map_or("", |(name, _)| name);
            !name.is_empty() && name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_')
        };
        let switched_on: Vec<&str> = sample
            .lines()
            .map(|line| {
                line.strip_prefix("# ")
                    .filter(|it| is_setting(it))
                    .unwrap_or(line)
            })
            .collect();

        let all = read(&switched_on.join("\n")).unwrap();
        all.api(Path::new("x"), no_flags(), None).unwrap();
        all.relay(Path::new("x")).unwrap();
        let none = Settings::default();
        let defaults = none.shown(&|_| None);
        let mut said = 0;
        for shown in all.shown(&|_| None) {
            let default = defaults.iter().find(|it| it.name == shown.name).unwrap();
            said += usize::from(shown.origin.starts_with("file"));
            if default.value.is_some() {
                assert_eq!(shown.value, default.value, "{}", shown.name);
            }
        }
        assert!(said > 40, "{said}");
        assert!(read(sample).is_ok());
    }

    #[test]
    fn each_setting_is_shown_with_where_it_comes_from_and_no_password() {
        let text = "[api]\nlive_keys_max = 7\naddr = \"127.0.0.1:1\"\n\
                    database_url = \"postgres://a:needle@h/d\"\n[limits]\nsubscriptions_max = 3";
        let shown = read(text)
            .unwrap()
            .shown(&|name| (name == "SKYTALE_API_ADDR").then(|| "127.0.0.1:2".to_owned()));
        let of = |name: &str| {
            let found = shown.iter().find(|it| it.name == name);
            let found = found.unwrap_or_else(|| panic!("{name}"));
            (found.value.as_deref().unwrap_or("-"), found.origin.as_str())
        };

        assert_eq!(of("api.addr"), ("127.0.0.1:2", "SKYTALE_API_ADDR"));
        assert_eq!(of("api.live_keys_max"), ("7", "file skytale.toml"));
        assert_eq!(of("api.database_url"), (HIDDEN, "file skytale.toml"));
        assert_eq!(of("api.head_bytes_max"), ("16384", "default"));
        assert_eq!(of("api.tls_cert"), ("-", ""));
        assert_eq!(of("limits.subscriptions_max"), ("3", "file skytale.toml"));
        assert_eq!(of("traffic.at_least"), ("padded", "default"));
        assert_eq!(of("relay.guests"), ("true", "default"));
    }
}
