//! What an operator can set, with the default of each.
//!
//! Whoever runs the relay lays flags, environment and file over each other and hands over the
//! result; nothing here reads anything later. The addresses that invites advertise are not here:
//! the relay does not need to know them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use skytale_wire::token::PublicKeys;

use crate::{edge::terms::TrafficRules, hub::SlimRules, limits::Limits};

/// The relay's settings: the section `[relay]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelayConfig {
    /// Where the relay keeps its key and its archive; made on first use.
    pub data_dir: PathBuf,
    /// Where agents connect, by UDP. Port 0 takes any free one.
    pub quic_addr: SocketAddr,
    /// Where SLIM's agents connect, and ours where UDP is blocked: gRPC, by TCP. Port 0 takes any
    /// free one; without an address, in a file `"off"`, nothing is served there.
    #[serde(with = "or_off")]
    pub grpc_addr: Option<SocketAddr>,
    /// The certificate chain and the private key of that door, as PEM files; with neither it speaks
    /// without TLS. They are read again when they change.
    pub grpc_tls_cert: Option<PathBuf>,
    /// The key that belongs to it.
    pub grpc_tls_key: Option<PathBuf>,
    /// Whether SLIM's agents are let in without a token: whoever reaches the address can then take
    /// part under any name.
    pub danger_slim_open: bool,
    /// Where health and metrics are read, by plain HTTP: for the operator's own network only.
    pub health_addr: SocketAddr,
    /// Whose tokens count: the base URLs of API servers.
    pub issuers: Vec<Issuer>,
    /// Certificate authorities for those, beside the system's own: a PEM file.
    pub ca_file: Option<PathBuf>,
    /// Whether agents without an account may join by invite.
    pub guests: bool,
    /// Whether accounts may ask, through the API server, what is held of the channels that they pay
    /// for. Without it their questions are answered as if there were none.
    pub answers_accounts: bool,
    /// How long application messages are kept; commits stay.
    pub retention_days: u32,
    /// Which store the archive uses.
    pub archive: Engine,
    /// Connections held at once; more are turned away.
    pub connections_max: usize,
    /// Connections held at once from one IPv4 address or one IPv6 /64.
    pub connections_per_ip_max: usize,
    /// Connections held at once that have not said who they are.
    pub strangers_max: usize,
    /// How long a connection may take to shake hands, and then to say Hello.
    pub hello_ms_max: u64,
    /// How lines are shaped at least.
    pub traffic: TrafficRules,
    /// What holds for SLIM's names and logs.
    pub slim: SlimRules,
    /// What agents may ask for.
    pub limits: Limits,
}

/// A token issuer that the relay trusts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Issuer {
    /// The API server at this base URL, which publishes its keys.
    Url(String),
    /// The same, whose keys are known already: an API server in the same process.
    Known {
        /// Its base URL.
        url: String,
        /// Its keys.
        keys: PublicKeys,
    },
    /// These keys, and nothing that they signed is ever revoked: for tests and measurements.
    Keys(PublicKeys),
}

/// Which store the archive uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// A log-structured store, for many messages.
    Fjall,
    /// `SQLite`, for few.
    Sqlite,
}

/// A setting that cannot be meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadConfig(pub &'static str);

impl RelayConfig {
    /// The defaults, with everything below `dir`, for these issuers.
    pub fn new(dir: &Path, issuers: Vec<Issuer>) -> Self {
        Self {
            data_dir: dir.to_owned(),
            issuers,
            ..Self::default()
        }
    }

    /// Finds settings that cannot work, before anything is opened.
    pub(crate) fn check(&self) -> Result<(), BadConfig> {
        let wrong = if self.issuers.is_empty() {
            "the relay needs at least one token issuer: without one it could check nobody"
        } else if self.retention_days == 0 {
            "retention_days must be at least 1"
        } else if [
            self.connections_max,
            self.connections_per_ip_max,
            self.strangers_max,
        ]
        .contains(&0)
            || self.hello_ms_max == 0
        {
            "limits of zero would refuse everything"
        } else if self.grpc_tls_cert.is_some() != self.grpc_tls_key.is_some() {
            "grpc_tls_cert and grpc_tls_key belong together: give both or neither"
        } else {
            return self.traffic.check();
        };
        Err(BadConfig(wrong))
    }

    /// Retention as the hub counts.
    pub(crate) fn retention_ms(&self) -> u64 {
        u64::from(self.retention_days) * 24 * 3_600_000
    }
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("server/relay"),
            quic_addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4433),
            grpc_addr: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000)),
            grpc_tls_cert: None,
            grpc_tls_key: None,
            danger_slim_open: false,
            health_addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443),
            issuers: Vec::new(),
            ca_file: None,
            guests: true,
            answers_accounts: true,
            retention_days: 7,
            archive: Engine::Fjall,
            connections_max: 20_000,
            connections_per_ip_max: 64,
            strangers_max: 1_024,
            hello_ms_max: 5_000,
            traffic: TrafficRules::default(),
            slim: SlimRules::default(),
            limits: Limits::default(),
        }
    }
}

impl TryFrom<String> for Issuer {
    type Error = BadConfig;

    /// Whoever can change the keys on their way can let anybody in: plain HTTP is for this
    /// machine only.
    fn try_from(url: String) -> Result<Self, BadConfig> {
        let parsed = reqwest::Url::parse(&url).map_err(|_| BAD_ISSUER)?;
        let local = match parsed.host_str() {
            Some("localhost") => true,
            Some(host) => host
                .trim_matches(['[', ']'])
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.is_loopback()),
            None => return Err(BAD_ISSUER),
        };
        match parsed.scheme() {
            "https" => Ok(Self::Url(url)),
            "http" if local => Ok(Self::Url(url)),
            _ => Err(BAD_ISSUER),
        }
    }
}

impl From<Issuer> for String {
    fn from(issuer: Issuer) -> Self {
        match issuer {
            Issuer::Url(url) | Issuer::Known { url, .. } => url,
            Issuer::Keys(keys) => keys.to_json(),
        }
    }
}

/// An address or the word `off`: not every form of file has a word for nothing.
mod or_off {
    use std::net::SocketAddr;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    #[expect(clippy::ref_option, reason = "the shape that serde calls")]
    pub(super) fn serialize<S: Serializer>(
        addr: &Option<SocketAddr>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match addr {
            Some(addr) => addr.serialize(to),
            None => OFF.serialize(to),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(from)?;
        if text == OFF {
            return Ok(None);
        }
        let addr = text.parse().map(Some);
        addr.map_err(|_| D::Error::custom("expected IP:PORT or off"))
    }

    const OFF: &str = "off";
}

const BAD_ISSUER: BadConfig =
    BadConfig("a token issuer is an https URL, or an http URL of this machine");

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<RelayConfig, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn a_relay_without_an_issuer_does_not_start() {
        assert!(RelayConfig::default().check().is_err());
        let issuers = vec![Issuer::Url("https://api.example.org".into())];
        assert_eq!(RelayConfig::new(Path::new("x"), issuers).check(), Ok(()));
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        assert!(parse(r#"{"guests":false,"limits":{"subscriptions_max":3}}"#).is_ok());
        assert!(parse(r#"{"traffic":{"at_least":"maximum"}}"#).is_ok());
        assert!(parse(r#"{"traffic":{"at_least":"most"}}"#).is_err());
        assert_eq!(parse(r#"{"grpc_addr":"off"}"#).unwrap().grpc_addr, None);
        assert!(parse(r#"{"grpc_addr":"on"}"#).is_err());
        assert!(parse(r#"{"guest":false}"#).is_err());
        assert!(parse(r#"{"limits":{"subscription_max":3}}"#).is_err());
    }

    #[test]
    fn a_certificate_without_its_key_does_not_start() {
        let issuers = vec![Issuer::Url("https://api.example.org".into())];
        let mut config = RelayConfig::new(Path::new("x"), issuers);

        config.grpc_tls_cert = Some("cert.pem".into());
        assert!(config.check().is_err());
        config.grpc_tls_key = Some("key.pem".into());
        assert_eq!(config.check(), Ok(()));
        config.grpc_tls_cert = None;
        assert!(config.check().is_err());
    }

    #[test]
    fn keys_are_not_fetched_in_clear_over_a_network() {
        let issuer = |url: &str| Issuer::try_from(url.to_owned());

        assert!(issuer("https://api.example.org").is_ok());
        assert!(issuer("http://127.0.0.1:7700").is_ok());
        assert!(issuer("http://[::1]:7700").is_ok());
        assert!(issuer("http://localhost:7700").is_ok());
        for bad in [
            "http://api.example.org",
            "http://10.0.0.1:7700",
            "http://127.0.0.1.example.org",
            "file:///etc/keys",
            "api.example.org",
            "",
        ] {
            assert_eq!(issuer(bad), Err(BAD_ISSUER), "{bad}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let config = RelayConfig::new(
            Path::new("x"),
            vec![Issuer::Url("https://api.example.org".into())],
        );

        let json = serde_json::to_string(&config).unwrap();

        assert_eq!(parse(&json).unwrap(), config);
    }
}
