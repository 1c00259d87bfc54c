//! What an operator can set, with the default of each.
//!
//! Whoever runs the server lays flags, environment and file over each other (`confique` reads the
//! environment names below) and hands over the result; nothing here reads anything later.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use confique::{
    Layer as _,
    meta::{FieldKind, LeafKind},
};
use skytale_wire::{http::RelayAt, token::AccountId};

use crate::{address::Cidr, database_url::DatabaseUrl, error::Error, plans::Bounds};

/// The API server's settings: the section `[api]`.
#[derive(Debug, Clone, confique::Config)]
#[config(layer_attr(derive(Debug, Clone)))]
#[config(layer_attr(serde(deny_unknown_fields)))]
pub struct Config {
    /// Where the server listens. Port 0 takes any free one.
    #[config(env = "SKYTALE_API_ADDR", default = "127.0.0.1:7700")]
    pub addr: SocketAddr,

    /// The `SQLite` database, made on first use. Not used when there is a `database_url`.
    #[config(default = "server/api.db")]
    pub database: PathBuf,

    /// A Postgres database instead: `postgres://USER:PASSWORD@HOST/NAME`. Unless it is on this
    /// machine, it is reached by verified TLS only.
    pub database_url: Option<DatabaseUrl>,

    /// Connections held to Postgres at once. A verb takes one for some milliseconds; those of all
    /// API servers together must stay below what the Postgres server allows.
    #[config(default = 10)]
    pub database_connections_max: u32,

    /// How long a request waits for a connection to Postgres, also for one that must be made.
    #[config(default = 2_000)]
    pub database_wait_ms_max: u64,

    /// How long a statement may take in Postgres. Together with the wait this should be well below
    /// `request_ms_max`, so that an outage is told as such.
    #[config(default = 2_500)]
    pub database_statement_ms_max: u64,

    /// Whether migrations that a Postgres database lacks are applied at the start. Otherwise the
    /// server does not start then. A `SQLite` file is always brought up to date.
    #[config(default = true)]
    pub database_migrate: bool,

    /// The directory of the key that signs tokens, made on first use.
    #[config(default = "server/keys")]
    pub key_dir: PathBuf,

    /// The relays that take this server's tokens. It signs tokens for no other.
    #[config(default = [])]
    pub relays: Vec<RelayAt>,

    /// The certificate chain of this server, a PEM file: with it and `tls_key` the server speaks
    /// TLS 1.3 and nothing else. Both are read again when they change.
    #[config(env = "SKYTALE_API_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// The private key that belongs to it.
    #[config(env = "SKYTALE_API_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// A reverse proxy in front of the server speaks TLS. Without it and without a certificate, only
    /// loopback addresses are listened on: passwords and keys must not cross a network in clear.
    #[config(env = "SKYTALE_API_BEHIND_PROXY", default = false)]
    pub behind_proxy: bool,

    /// Proxies whose `X-Forwarded-For` is believed, as addresses or blocks of them. From anybody else
    /// that header says nothing.
    #[config(env = "SKYTALE_API_TRUSTED_PROXIES", default = [], parse_env = confique::env::parse::list_by_comma)]
    pub trusted_proxies: Vec<Cidr>,

    /// Whether the dashboard is served at `/ui`, for people with a browser.
    #[config(env = "SKYTALE_API_UI", default = true)]
    pub ui: bool,

    /// Where health and metrics are read, by plain HTTP: for the operator's own network only.
    /// Nothing is served there unless an address is given.
    #[config(env = "SKYTALE_API_ADMIN_ADDR")]
    pub admin_addr: Option<SocketAddr>,

    /// How long a token lives, at most 3600 seconds.
    #[config(default = 3600)]
    pub token_lifetime_s: u64,

    /// How many keys an account may have that are not revoked.
    #[config(default = 100)]
    pub live_keys_max: u32,

    /// What accounts may use in a month, by the names of plans. `unlimited` is always there.
    #[config(default = {})]
    pub plans: BTreeMap<String, Bounds>,

    /// The plan of every account that has none of its own.
    #[config(env = "SKYTALE_API_PLAN", default = "unlimited")]
    pub plan: String,

    /// Accounts with a plan of their own.
    #[config(default = {})]
    pub account_plans: BTreeMap<AccountId, String>,

    /// The largest body taken.
    #[config(default = 65_536)]
    pub body_bytes_max: usize,

    /// The largest request head taken, at least 8192.
    #[config(default = 16_384)]
    pub head_bytes_max: usize,

    /// How long a request head may take to arrive, and a connection may be idle.
    #[config(default = 10_000)]
    pub head_ms_max: u64,

    /// How long a request may take, its body's arrival included.
    #[config(default = 10_000)]
    pub request_ms_max: u64,

    /// How long a caller may leave an answer lying before its connection is closed.
    #[config(default = 10_000)]
    pub answer_ms_max: u64,

    /// Connections held at once; more wait in the system's queue.
    #[config(default = 4_096)]
    pub connections_max: usize,

    /// Connections from one address (IPv6: from one /64) at once; more are closed as they come. Trusted
    /// proxies may have as many as there are.
    #[config(env = "SKYTALE_API_CONNECTIONS_PER_ADDRESS_MAX", default = 512)]
    pub connections_per_address_max: usize,

    /// Requests worked on at once; more are told to come back.
    #[config(default = 1_024)]
    pub requests_max: usize,

    /// Passwords and unfamiliar keys that may wait to be hashed; more are told to come back.
    #[config(default = 32)]
    pub hashes_waiting_max: usize,

    /// How many requests a minute may come from one address (IPv6: from one /64) without a good key or
    /// token: sign-ups, sign-ins, wrong keys.
    #[config(env = "SKYTALE_API_UNPROVEN_PER_MINUTE_MAX", default = 120)]
    pub unproven_per_minute_max: u32,

    /// How many wrong passwords an hour are looked at for one e-mail.
    #[config(env = "SKYTALE_API_WRONG_PASSWORDS_PER_HOUR_MAX", default = 100)]
    pub wrong_passwords_per_hour_max: u32,

    /// How many requests a second may come with one API key.
    #[config(env = "SKYTALE_API_KEY_REQUESTS_PER_SECOND_MAX", default = 5_000)]
    pub key_requests_per_second_max: u32,

    /// How many requests a second may come for one account.
    #[config(env = "SKYTALE_API_ACCOUNT_REQUESTS_PER_SECOND_MAX", default = 10_000)]
    pub account_requests_per_second_max: u32,

    /// How many API keys a minute an account may make or rotate.
    #[config(env = "SKYTALE_API_NEW_KEYS_PER_MINUTE_MAX", default = 200)]
    pub new_keys_per_minute_max: u32,

    /// How long a stopping server lets requests finish.
    #[config(default = 8_000)]
    pub drain_ms_max: u64,

    /// Argon2id's memory. Less than 19456 is for tests only: stolen hashes are guessed faster.
    #[config(default = 19_456)]
    pub danger_argon2_memory_kib: u32,

    /// Argon2id's passes over that memory. Less than 2 is for tests only.
    #[config(default = 2)]
    pub danger_argon2_passes: u32,
}

/// What one place says of the settings, be it little.
pub type Layer = <Config as confique::Config>::Layer;

/// One of the settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Its name in the section.
    pub name: &'static str,
    /// The variable of the environment that sets it.
    pub variable: Option<&'static str>,
    /// What holds when nobody sets it.
    pub default: Option<serde_json::Value>,
}

impl Config {
    /// The defaults, with database and keys below `dir`.
    pub fn new(dir: &Path) -> Self {
        Self::over_defaults(dir, Layer::empty())
    }

    /// Lays flags over the environment, that over a file, and all over the defaults. Database and keys
    /// are below `dir`, whatever the layers say.
    pub fn layered(dir: &Path, flags: Layer, file: Layer) -> Result<Self, Error> {
        let environment = Layer::from_env().map_err(|_| {
            Error::Misuse(
                "a variable SKYTALE_API_… of the environment is not what its setting takes: see \
                 `skytale config show`",
            )
        })?;
        let layers = flags.with_fallback(environment).with_fallback(file);
        Ok(Self::over_defaults(dir, layers))
    }

    /// What can be set, for whoever shows it or reads a file.
    pub fn settings() -> Vec<Setting> {
        let fields = <Self as confique::Config>::META.fields;
        let settings = fields.iter().filter_map(|field| match field.kind {
            FieldKind::Leaf { env, kind } => Some(Setting {
                name: field.name,
                variable: env,
                default: match kind {
                    LeafKind::Required { default } => {
                        default.and_then(|it| serde_json::to_value(it).ok())
                    }
                    LeafKind::Optional => None,
                },
            }),
            FieldKind::Nested { .. } => None,
        });
        settings.collect()
    }

    fn over_defaults(dir: &Path, layers: Layer) -> Self {
        let layers = layers.with_fallback(Layer::default_values());
        let config =
            <Self as confique::Config>::from_layer(layers).expect("every setting has a default");
        Self {
            database: dir.join("api.db"),
            key_dir: dir.join("keys"),
            ..config
        }
    }

    /// Finds settings that cannot work together, before anything is opened.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = if self.tls_cert.is_some() != self.tls_key.is_some() {
            "tls_cert and tls_key belong together: give both or neither"
        } else if !self.addr.ip().is_loopback() && !self.behind_proxy && self.tls_cert.is_none() {
            "beyond this machine the API server must not speak plain HTTP: give it tls_cert and \
             tls_key, or behind_proxy when a proxy in front of it speaks TLS, or a loopback address"
        } else if self.token_lifetime_s == 0 || self.token_lifetime_s > 3600 {
            "token_lifetime_s must be between 1 and 3600"
        } else if self.head_bytes_max < 8192 {
            "head_bytes_max must be at least 8192"
        } else if [
            self.connections_max,
            self.connections_per_address_max,
            self.requests_max,
            self.hashes_waiting_max,
            self.body_bytes_max,
        ]
        .contains(&0)
        {
            "limits of zero would refuse everything"
        } else if [
            self.unproven_per_minute_max,
            self.wrong_passwords_per_hour_max,
            self.key_requests_per_second_max,
            self.account_requests_per_second_max,
            self.new_keys_per_minute_max,
        ]
        .contains(&0)
        {
            "a rate limit of zero would refuse everything: for as good as none, set a large one"
        } else if self.database_connections_max == 0
            || self.database_wait_ms_max == 0
            || self.database_statement_ms_max == 0
        {
            "limits of zero would keep the database out"
        } else {
            self.check_plans()?;
            return match &self.database_url {
                Some(url) => url.connect_options().map(|_| ()),
                None => Ok(()),
            };
        };
        Err(Error::Misuse(wrong))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound() {
        let config = Config::new(Path::new("x"));

        assert!(config.check().is_ok());
        assert_eq!(config.database, Path::new("x/api.db"));
        assert!(config.danger_argon2_memory_kib >= 19_456 && config.danger_argon2_passes >= 2);
    }

    #[test]
    fn a_public_address_needs_a_proxy_or_a_certificate() {
        let mut config = Config::new(Path::new("x"));
        config.addr = "0.0.0.0:7700".parse().unwrap();

        assert!(matches!(config.check(), Err(Error::Misuse(_))));
        config.behind_proxy = true;
        assert!(config.check().is_ok());
        config.behind_proxy = false;
        config.tls_cert = Some("cert.pem".into());
        assert!(config.check().is_err(), "a certificate without its key");
        config.tls_key = Some("key.pem".into());
        assert!(config.check().is_ok());
        config.tls_cert = None;
        assert!(config.check().is_err(), "a key without its certificate");
    }

    #[test]
    fn a_database_elsewhere_needs_verified_tls_and_its_password_is_not_shown() {
        let url = "postgres://alice:needle@db.example.org/skytale";
        let mut config = Config::new(Path::new("x"));
        config.database_url = Some(url.to_owned().into());
        assert!(config.check().is_ok());
        assert!(!format!("{config:?}").contains("needle"));

        config.database_url = Some(format!("{url}?sslmode=prefer").into());

        let refused = config.check().unwrap_err().to_string();
        assert!(refused.contains("sslmode"), "{refused}");
    }

    #[test]
    fn a_flag_goes_before_a_file_and_that_before_the_default() {
        let layer = |json: &str| serde_json::from_str::<Layer>(json).unwrap();
        let flags = layer(r#"{"addr":"127.0.0.1:1"}"#);
        let file = layer(r#"{"addr":"127.0.0.1:2","live_keys_max":3}"#);

        let config = Config::layered(Path::new("x"), flags, file).unwrap();

        assert_eq!(config.addr.port(), 1);
        assert_eq!(config.live_keys_max, 3);
        assert_eq!(config.head_bytes_max, 16_384);
        assert_eq!(config.key_dir, Path::new("x/keys"));
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        assert!(serde_json::from_str::<Layer>(r#"{"addr":"127.0.0.1:1"}"#).is_ok());
        assert!(serde_json::from_str::<Layer>(r#"{"adr":"127.0.0.1:1"}"#).is_err());
    }
}
