//! How servers are started, set up, moved and kept.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{Args, Subcommand};
use skytale_api::DatabaseUrl;
use skytale_relay::edge::terms::AtLeast;

use crate::limits::Limits;

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Where the API server listens; port 0 takes a free one [default: 127.0.0.1:7700]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) api_addr: Option<SocketAddr>,
    /// Where the relay listens, by UDP [default: 127.0.0.1:4433]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) relay_addr: Option<SocketAddr>,
    /// Where the relay's health and metrics are served [default: 127.0.0.1:8443]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) health_addr: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) admin: Admin,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) grpc: Grpc,
    /// How other machines reach the relay; written into invites
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) public_addr: Option<PublicAddr>,
    /// Let nobody join who has no account here
    #[arg(long)]
    pub(crate) no_guests: bool,
    /// Serve no dashboard for browsers at /ui
    #[arg(long)]
    pub(crate) no_ui: bool,
    /// The least that every agent's line must hide: a mode or preset, as for --traffic
    /// [default: padded]
    #[arg(long, value_name = "MODE", value_parser = at_least)]
    pub(crate) traffic_at_least: Option<AtLeast>,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) settings: SettingsFile,
}

#[derive(Debug, Args)]
#[expect(
    clippy::struct_field_names,
    reason = "the fields are the names of flags"
)]
pub(crate) struct Api {
    /// Where the API server listens; port 0 takes a free one [default: 127.0.0.1:7700]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) api_addr: Option<SocketAddr>,
    /// PEM file of the certificate chain: the server then speaks TLS 1.3. Read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// PEM file of the certificate's private key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// A reverse proxy in front of it speaks TLS, so it may listen beyond this machine
    #[arg(long)]
    pub(crate) behind_proxy: bool,
    /// Serve no dashboard for browsers at /ui
    #[arg(long)]
    pub(crate) no_ui: bool,
    /// How many messages an account may send in a month
    #[arg(long, value_name = "COUNT")]
    pub(crate) messages_per_month: Option<u64>,
    /// How many sealed bytes an account may send in a month
    #[arg(long, value_name = "COUNT")]
    pub(crate) bytes_per_month: Option<u64>,
    #[command(flatten)]
    pub(crate) admin: Admin,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) settings: SettingsFile,
    #[command(subcommand)]
    pub(crate) command: Option<ApiCommand>,
}

/// What the servers are set up by, besides flags.
#[derive(Debug, Clone, Args)]
pub(crate) struct SettingsFile {
    /// A file of settings for the servers; flags go before it [env: SKYTALE_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The API server's address for operators.
#[derive(Debug, Args)]
pub(crate) struct Admin {
    /// Where the API server's health and metrics are served, by plain HTTP: not for the internet
    /// [default: off]
    #[arg(long, value_name = "IP:PORT", alias = "admin-listen")]
    pub(crate) admin_addr: Option<MaybeAddr>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApiCommand {
    /// Print the description of the server's HTTP interface (OpenAPI), as GET /openapi.json gives it
    Describe,
    /// Give an account another password without the old one, and end its sessions. Servers on the
    /// same database may run. The new one comes from SKYTALE_NEW_PASSWORD[_FILE], or is asked for
    ResetPassword {
        /// Whose; without it that of the account which `skytale up` makes
        #[arg(value_name = "E-MAIL")]
        email: Option<String>,
    },
    /// Make a new key to sign tokens with. Servers that run on this data directory take it within
    /// minutes, and nobody notices
    RotateSigningKey {
        /// For a key that was stolen: sign with the new one now. Tokens of the old one count no more,
        /// so agents have to come again
        #[arg(long)]
        at_once: bool,
    },
}

/// What the API server remembers by.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_field_names,
    reason = "the fields are the names of flags"
)]
pub(crate) struct Database {
    #[command(flatten)]
    pub(crate) place: DatabasePlace,
    /// How many connections to Postgres may be open at once [default: 10]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) database_connections_max: Option<u32>,
    /// Do not apply migrations that the Postgres database lacks: do not start then
    #[arg(long)]
    pub(crate) no_migrate: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DatabasePlace {
    /// A Postgres database in place of a file, reached by verified TLS unless it is on this machine:
    /// postgres://USER@HOST:PORT/NAME. With a password in it, by the environment only
    /// [env: SKYTALE_DATABASE_URL, SKYTALE_DATABASE_URL_FILE]
    #[arg(long, value_name = "URL")]
    pub(crate) database_url: Option<DatabaseUrl>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Migrate {
    /// Apply the migrations that the Postgres database lacks
    Schema {
        #[command(flatten)]
        place: DatabasePlace,
    },
    /// Copy accounts, keys and usage of a stopped API server into an empty Postgres database
    SqliteToPostgres {
        /// The SQLite file, or the data directory that it lies in
        #[arg(long, value_name = "DIR|FILE")]
        from: PathBuf,
        #[command(flatten)]
        place: DatabasePlace,
        /// Look whether it can be done, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Where health is served: a relay's --health-addr, an API server's --admin-addr
    #[arg(value_name = "IP:PORT", default_value = "127.0.0.1:8443")]
    pub(crate) addr: SocketAddr,
    /// Ask only whether it is alive
    #[arg(long)]
    pub(crate) live: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file to make; it holds secrets
    pub(crate) file: PathBuf,
    /// Replace it when it is there already
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The file that `skytale backup` made
    pub(crate) file: PathBuf,
    /// Only read it and look whether it is whole
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Args)]
#[expect(
    clippy::struct_field_names,
    reason = "the fields are the names of flags"
)]
pub(crate) struct Relay {
    /// Where the relay listens, by UDP; port 0 takes a free one [default: 127.0.0.1:4433]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) relay_addr: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) grpc: Grpc,
    /// Where health and metrics are served [default: 127.0.0.1:8443]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) health_addr: Option<SocketAddr>,
    /// Let nobody join who has no account
    #[arg(long)]
    pub(crate) no_guests: bool,
    /// The least that every agent's line must hide: a mode or preset, as for --traffic
    /// [default: padded]
    #[arg(long, value_name = "MODE", value_parser = at_least)]
    pub(crate) traffic_at_least: Option<AtLeast>,
    #[command(flatten)]
    pub(crate) settings: SettingsFile,
}

/// The relay's door for gRPC.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_field_names,
    reason = "the fields are the names of flags"
)]
pub(crate) struct Grpc {
    /// Where SLIM's agents connect, and ours where UDP is blocked; port 0 takes a free one, off none
    /// [default: 127.0.0.1:5000]
    #[arg(long, value_name = "IP:PORT", alias = "slim-addr")]
    pub(crate) grpc_addr: Option<MaybeAddr>,
    /// PEM file of the certificate chain for that address; read again when it changes
    #[arg(long, value_name = "FILE", requires = "grpc_tls_key")]
    pub(crate) grpc_tls_cert: Option<PathBuf>,
    /// PEM file of the certificate's private key
    #[arg(long, value_name = "FILE", requires = "grpc_tls_cert")]
    pub(crate) grpc_tls_key: Option<PathBuf>,
    /// Let SLIM's agents in without a token: whoever reaches the address can take part as anybody
    #[arg(long)]
    pub(crate) danger_slim_open: bool,
}

/// An address to listen on, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaybeAddr(pub(crate) Option<SocketAddr>);

impl FromStr for MaybeAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        text.parse()
            .map(|addr| Self(Some(addr)))
            .map_err(|_| "expected IP:PORT or off".to_owned())
    }
}

/// A host and perhaps a port, as others reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicAddr {
    host: String,
    port: Option<u16>,
}

impl PublicAddr {
    /// `host:port`, with this port when none was given.
    pub(crate) fn with_port(&self, port: u16) -> String {
        format!("{}:{}", self.host, self.port.unwrap_or(port))
    }
}

impl FromStr for PublicAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || "expected HOST or HOST:PORT, an IPv6 address in brackets".to_owned();
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| bad())?))
            }
            Some(_) | None => (text, None),
        };
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let odd = |c: char| c.is_whitespace() || "[]@/".contains(c) || c == ':';
        if host.is_empty() || (!bracketed && host.contains(odd)) {
            return Err(bad());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

fn at_least(text: &str) -> Result<AtLeast, String> {
    AtLeast::try_from(text.to_owned()).map_err(|bad| bad.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_address_takes_the_relays_port_unless_it_has_its_own() {
        let with = |text: &str| text.parse::<PublicAddr>().map(|addr| addr.with_port(4433));

        assert_eq!(with("relay.example.org").unwrap(), "relay.example.org:4433");
        assert_eq!(with("relay.example.org:9").unwrap(), "relay.example.org:9");
        assert_eq!(with("[::1]").unwrap(), "[::1]:4433");
        assert_eq!(with("[::1]:9").unwrap(), "[::1]:9");
        for bad in ["", ":9", "a b", "host:port", "::1", "host:70000"] {
            assert!(with(bad).is_err(), "{bad}");
        }
    }
}
