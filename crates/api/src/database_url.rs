//! Where a Postgres database is, and how a connection to it must be secured.
//!
//! The URL is read here and not by the driver, which lets a password's file (`~/.pgpass`) into the
//! log, warns of unknown parameters together with their values, and falls back to plain text when
//! nothing is said of TLS. Values that a URL leaves out may still come from the `PG…` variables of
//! the environment, but never the server and never whether TLS is used.

use std::{fmt, net::IpAddr, path::Path, sync::Arc};

use serde::Deserialize;
use skytale_wire::http::Secret;
use sqlx::{
    ConnectOptions as _,
    postgres::{PgConnectOptions, PgSslMode},
};
use zeroize::Zeroizing;

use crate::error::Error;

/// `postgres://USER:PASSWORD@HOST:PORT/NAME`, with parameters behind a `?`. It may hold a password:
/// it is never printed, and copies share one text, which is wiped with the last of them.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub struct DatabaseUrl(Arc<Secret>);

impl DatabaseUrl {
    /// Whether the text names a password, also when it is not a proper URL otherwise.
    pub fn has_password(&self) -> bool {
        let text = self.0.expose();
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
        let in_front = rest
            .rsplit_once('@')
            .is_some_and(|(user, _)| user.contains(':'));
        in_front || rest.contains("password=")
    }

    /// What the driver connects by. Everything that can be wrong with a URL is found here, before
    /// any connection is made.
    pub(crate) fn connect_options(&self) -> Result<PgConnectOptions, Error> {
        let parts = Parts::read(self.0.expose().trim())?;
        let tls = tls(&parts)?;
        let mut options = PgConnectOptions::new_without_pgpass()
            .port(parts.port)
            .database(&parts.database)
            .ssl_mode(tls)
            .application_name(APPLICATION);
        options = if parts.host.starts_with('/') {
            options.socket(&parts.host)
        } else {
            options.host(&parts.host)
        };
        if let Some(user) = &parts.user {
            options = options.username(user);
        }
        if let Some(password) = &parts.password {
            options = options.password(password);
        }
        if let Some(file) = &parts.authority_file {
            options = options.ssl_root_cert(Path::new(file));
        }
        if let Some(file) = &parts.certificate_file {
            options = options.ssl_client_cert(Path::new(file));
        }
        if let Some(file) = &parts.key_file {
            options = options.ssl_client_key(Path::new(file));
        }
        Ok(options.disable_statement_logging())
    }
}

impl From<String> for DatabaseUrl {
    fn from(text: String) -> Self {
        Self(Arc::new(Secret::new(text)))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl(…)")
    }
}

/// A URL taken apart; not `Debug`, because of the password.
struct Parts {
    user: Option<String>,
    password: Option<Zeroizing<String>>,
    /// A name, an address without brackets, or a socket's directory, which begins with a slash.
    host: String,
    port: u16,
    database: String,
    tls: Option<PgSslMode>,
    authority_file: Option<String>,
    certificate_file: Option<String>,
    key_file: Option<String>,
}

impl Parts {
    fn read(text: &str) -> Result<Self, Error> {
        let rest = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .ok_or(NOT_A_URL)?;
        let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = place.split_once('/').ok_or(NOT_A_URL)?;
        // These end up here when they stand in a password as they are.
        if database.is_empty() || database.contains(['/', '@', '#', ':']) {
            return Err(NOT_A_URL);
        }
        let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(Zeroizing::new(decoded(password)?))),
            None => (login, None),
        };
        let (host, port) = host_and_port(address)?;
        let mut parts = Self {
            user: Some(decoded(user)?).filter(|user| !user.is_empty()),
            password: password.filter(|password| !password.is_empty()),
            host: decoded(host)?,
            port,
            database: decoded(database)?,
            tls: None,
            authority_file: None,
            certificate_file: None,
            key_file: None,
        };
        for parameter in parameters.split('&').filter(|text| !text.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or(UNKNOWN_PARAMETER)?;
            parts.set(name, decoded(value)?)?;
        }
        // A driver that is told no host would ask the environment for one.
        if parts.host.is_empty() {
            return Err(NOT_A_URL);
        }
        Ok(parts)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), Error> {
        match name {
            // A directory of sockets does not fit where a host stands, so this is the usual way.
            "host" if self.host.is_empty() => self.host = value,
            "sslmode" => self.tls = Some(value.parse().map_err(|_| UNKNOWN_TLS)?),
            "sslrootcert" => self.authority_file = Some(value),
            "sslcert" => self.certificate_file = Some(value),
            "sslkey" => self.key_file = Some(value),
            _ => return Err(UNKNOWN_PARAMETER),
        }
        Ok(())
    }

    fn is_local(&self) -> bool {
        self.host.starts_with('/')
            || self.host.eq_ignore_ascii_case("localhost")
            || self
                .host
                .parse()
                .is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

/// Full verification, unless the host is this machine. To another one nothing weaker is allowed:
/// without the certificate's authority and name anybody on the way could pass for the server.
fn tls(parts: &Parts) -> Result<PgSslMode, Error> {
    match (parts.tls, parts.is_local()) {
        (Some(mode), true) => Ok(mode),
        (None, true) => Ok(PgSslMode::Disable),
        (None | Some(PgSslMode::VerifyFull), false) => Ok(PgSslMode::VerifyFull),
        (Some(_), false) => Err(WEAK_TLS),
    }
}

/// The driver would look up an IPv6 address with its brackets as a name.
fn host_and_port(address: &str) -> Result<(&str, u16), Error> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or(NOT_A_URL)?,
        None => address
            .find(':')
            .map_or((address, ""), |at| address.split_at(at)),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().map_err(|_| NOT_A_URL)?,
        None if port.is_empty() => PORT,
        None => return Err(NOT_A_URL),
    };
    Ok((host, port))
}

/// Resolves `%2F` and its like.
fn decoded(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = digit().zip(digit()).ok_or(NOT_A_URL)?;
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| NOT_A_URL)?);
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
        .ok_or(NOT_A_URL)
}

/// Shown in the server's list of connections.
const APPLICATION: &str = "skytale";
const PORT: u16 = 5432;

const NOT_A_URL: Error = Error::Misuse(
    "the database URL must look like postgres://USER:PASSWORD@HOST:PORT/NAME; write special \
     characters of the password as %XX",
);
const UNKNOWN_PARAMETER: Error = Error::Misuse(
    "the database URL has a parameter that is not known here: host (a socket's directory), \
     sslmode, sslrootcert, sslcert and sslkey are",
);
const UNKNOWN_TLS: Error =
    Error::Misuse("sslmode in the database URL must be verify-full, or be left out");
const WEAK_TLS: Error = Error::Misuse(
    "the database is on another machine, and sslmode in its URL is weaker than verify-full: \
     remove sslmode; for a certificate authority of your own add sslrootcert=FILE",
);

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> DatabaseUrl {
        text.to_owned().into()
    }

    fn parts(text: &str) -> Parts {
        Parts::read(text)
            .map_err(|error| error.to_string())
            .unwrap()
    }

    fn mode(text: &str) -> Result<&'static str, String> {
        match url(text).connect_options() {
            Ok(options) => Ok(match options.get_ssl_mode() {
                PgSslMode::Disable => "disable",
                PgSslMode::Allow => "allow",
                PgSslMode::Prefer => "prefer",
                PgSslMode::Require => "require",
                PgSslMode::VerifyCa => "verify-ca",
                PgSslMode::VerifyFull => "verify-full",
            }),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn another_machine_is_reached_by_verified_tls_or_not_at_all() {
        for host in [
            "db.example.org",
            "192.0.2.1",
            "[2001:db8::1]",
            "localhost.example.org",
        ] {
            let plain = format!("postgres://alice@{host}/skytale");
            assert_eq!(mode(&plain).unwrap(), "verify-full", "{host}");
            let full = format!("{plain}?sslmode=verify-full");
            assert_eq!(mode(&full).unwrap(), "verify-full", "{host}");
            for weak in [
                "disable",
                "allow",
                "prefer",
                "require",
                "verify-ca",
                "PREFER",
            ] {
                let refused = mode(&format!("{plain}?sslmode={weak}")).unwrap_err();
                assert!(
                    refused.contains("remove sslmode"),
                    "{host} {weak}: {refused}"
                );
            }
        }
    }

    #[test]
    fn this_machine_is_reached_without_tls_unless_it_is_asked_for() {
        for place in [
            "localhost/skytale",
            "LOCALHOST:5433/skytale",
            "127.0.0.1/skytale",
            "127.8.9.1/skytale",
            "[::1]/skytale",
            "%2Fvar%2Frun%2Fpostgresql/skytale",
            "/skytale?host=/var/run/postgresql",
        ] {
            assert_eq!(
                mode(&format!("postgres://{place}")).unwrap(),
                "disable",
                "{place}"
            );
        }
        let asked = mode("postgres://localhost/skytale?sslmode=verify-full");
        assert_eq!(asked.unwrap(), "verify-full");
    }

    #[test]
    fn every_part_is_read() {
        let all = parts(
            "postgresql://alice:p%40ss%2Fw%25@[2001:db8::1]:5433/sky%20tale\
             ?sslmode=verify-full&sslrootcert=/etc/ca.pem&sslcert=c.pem&sslkey=k.pem",
        );

        assert_eq!(all.user.as_deref(), Some("alice"));
        assert_eq!(all.password.as_ref().unwrap().as_str(), "p@ss/w%");
        assert_eq!((all.host.as_str(), all.port), ("2001:db8::1", 5433));
        assert_eq!(all.database, "sky tale");
        assert_eq!(all.authority_file.as_deref(), Some("/etc/ca.pem"));
        assert_eq!(all.certificate_file.as_deref(), Some("c.pem"));
        assert_eq!(all.key_file.as_deref(), Some("k.pem"));
        let plain = parts("postgres://alice:a:b#c@d@localhost/skytale");
        assert_eq!(plain.password.as_ref().unwrap().as_str(), "a:b#c@d");
        let least = parts("postgres://db.example.org/skytale");
        assert_eq!((least.port, least.user.is_none()), (5432, true));
    }

    #[test]
    fn what_is_no_proper_url_is_refused_and_not_repeated() {
        for bad in [
            "",
            "needle",
            "mysql://needle@localhost/skytale",
            "postgres://needle@localhost",
            "postgres://needle@localhost/",
            "postgres://needle@/skytale",
            "postgres://alice:need/le@localhost/skytale",
            "postgres://alice:need?le@localhost/skytale",
            "postgres://alice:1/needle@localhost/skytale",
            "postgres://alice:%needle@localhost/skytale",
            "postgres://alice:%00needle@localhost/skytale",
            "postgres://localhost:needle/skytale",
            "postgres://localhost/skytale?password=needle",
            "postgres://localhost/skytale?pasword=needle",
            "postgres://localhost/skytale?host=needle.example.org",
            "postgres://localhost/skytale?sslmode=needle",
            "postgres://localhost/skytale?needle",
        ] {
            let refused = url(bad).connect_options().unwrap_err();
            let said = format!("{refused} {refused:?}");
            assert!(!said.contains("needle") && !said.contains("need"), "{said}");
        }
    }

    #[test]
    fn a_password_is_noticed_and_never_shown() {
        for with in [
            "postgres://alice:needle@localhost/skytale",
            "alice:needle@localhost",
            "postgres://alice:need@le@localhost/skytale",
            "postgres://localhost/skytale?password=needle",
        ] {
            assert!(url(with).has_password(), "{with}");
            assert!(!format!("{:?}", url(with)).contains("need"));
        }
        for without in ["postgres://alice@localhost:5432/skytale", "postgres://h/n"] {
            assert!(!url(without).has_password(), "{without}");
        }
    }
}
