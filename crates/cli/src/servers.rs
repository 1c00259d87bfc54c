//! `skytale api` and `skytale relay`: the two servers apart; and what they and `up` share: binding
//! with clear words when a port is taken, and ending well.

use std::{
    error::Error as _,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use skytale_api::{
    Bounds, DatabaseUrl, Pace, Server,
    clock::{Clock, rfc3339},
    config::Layer,
};
use skytale_relay::{
    auth::GateError,
    config::{Issuer, RelayConfig},
    edge::{grpc::GrpcError, quic::QuicError, terms::AtLeast},
    run::{Relay, RelayError},
};
use skytale_sdk::Config;
use skytale_wire::http::RelayAt;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    accounts::new_password,
    args::{self, Everywhere},
    context,
    exit::{Exit, Failure},
    output::Output,
    secret,
    settings::{self, Settings},
    up::private_dir,
};

#[derive(Debug, Serialize)]
struct ApiStarted {
    api: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<String>,
    data_dir: PathBuf,
    pid: u32,
}

#[derive(Debug, Serialize)]
struct RelayStarted {
    relay: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    slim: Option<String>,
    health: String,
    data_dir: PathBuf,
    pid: u32,
}

#[derive(Debug, Serialize)]
struct SigningKeyRotated {
    kid: String,
    signs_from: String,
    old_counts_until: String,
}

/// `skytale api rotate-signing-key`.
fn rotate_signing_key(
    config: &skytale_api::Config,
    at_once: bool,
    output: Output,
) -> Result<(), Failure> {
    let clock = Clock::system();
    let pace = if at_once { Pace::AtOnce } else { Pace::Gentle };
    let rotated = skytale_api::rotate_signing_key(&config.key_dir, clock.now(), pace)
        .map_err(|error| api_failed(&error))?;
    let shown = SigningKeyRotated {
        kid: rotated.kid,
        signs_from: rfc3339(rotated.signs_from),
        old_counts_until: rfc3339(rotated.old_counts_until),
    };
    output.result(&shown, || {
        format!(
            "key {} signs tokens from {} on; those of the old one count until {}",
            shown.kid, shown.signs_from, shown.old_counts_until
        )
    })
}

/// `skytale api reset-password`.
async fn reset_password(
    config: &skytale_api::Config,
    email: Option<&str>,
    output: Output,
) -> Result<(), Failure> {
    let database = &config.database;
    if config.database_url.is_none() && !database.exists() {
        return Err(Failure::not_found(format!(
            "there is no API server's database at {}: give its --data-dir",
            database.display()
        )));
    }
    let password = new_password()?;
    let account = skytale_api::reset_password(config, email, &password, &Clock::system())
        .await
        .map_err(|error| api_failed(&error))?;
    let shown = serde_json::json!({"account_id": account, "changed": true});
    output.result(&shown, || {
        let name = email.unwrap_or(skytale_api::LOCAL_ACCOUNT);
        format!("{name} signs in with the new password now; API keys are as before")
    })
}

/// `skytale api describe`: the text as it is, which is JSON with and without `--json`.
fn describe(output: Output) -> Result<(), Failure> {
    output.line(skytale_api::openapi().trim_end())
}

/// `skytale api`.
pub(crate) async fn api(
    wish: args::Api,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let config = Config::load(context::flags_without_context(everywhere))?;
    let dir = directory(&config.data_dir)?;
    match wish.command {
        Some(args::ApiCommand::RotateSigningKey { at_once }) => {
            let api_config = skytale_api::Config::new(&dir);
            return rotate_signing_key(&api_config, at_once, output);
        }
        Some(args::ApiCommand::Describe) => return describe(output),
        Some(args::ApiCommand::ResetPassword { email }) => {
            let flags = database(wish.database)?;
            let api_config = Settings::load(&wish.settings)?.api(&dir, flags, None)?;
            return reset_password(&api_config, email.as_deref(), output).await;
        }
        None => {}
    }
    let settings = Settings::load(&wish.settings)?;
    let relay = everywhere.relay.as_ref().map(|relay| RelayAt {
        key: relay.key,
        addresses: vec![relay.address.clone()],
    });
    let flags = Layer {
        addr: wish.api_addr,
        behind_proxy: wish.behind_proxy.then_some(true),
        ui: wish.no_ui.then_some(false),
        tls_cert: wish.tls_cert,
        tls_key: wish.tls_key,
        admin_addr: wish.admin.admin_addr.and_then(|addr| addr.0),
        relays: relay.map(|relay| vec![relay]),
        ..database(wish.database)?
    };
    let flags = wish.limits.over(flags);
    let mut api_config = settings.api(&dir, flags, wish.admin.admin_addr)?;
    if api_config.behind_proxy && api_config.trusted_proxies.is_empty() {
        output.complain(
            "skytale: everybody who comes through the proxy counts as one address, whose limits all share: name the proxy with --trusted-proxy",
        );
    }
    let bounds = Bounds {
        messages_max: wish.messages_per_month,
        bytes_max: wish.bytes_per_month,
    };
    if bounds != Bounds::default() {
        api_config.plans.insert(PLAN.to_owned(), bounds);
        PLAN.clone_into(&mut api_config.plan);
    }
    if api_config.relays.is_empty() {
        output.complain(
            "skytale: no relay is given, so no agent can get a token: see --relay in `skytale api --help`",
        );
    }
    let api = bind_api(api_config).await?;
    let started = ApiStarted {
        api: api_url(&api),
        admin: admin_url(&api),
        data_dir: config.data_dir,
        pid: std::process::id(),
    };
    let mut parts = vec![Part::api(api)];
    let signals = Signals::listen()?;
    output.result(&started, || {
        let admin = admin_line(started.admin.as_deref());
        format!("  api    {}{admin}", started.api)
    })?;
    serve(&mut parts, signals, output).await
}

/// `skytale relay`.
pub(crate) async fn relay(
    wish: args::Relay,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let config = Config::load(context::flags(everywhere))?;
    let settings = Settings::load(&wish.settings)?;
    let dir = directory(&config.data_dir)?.join("relay");
    let mut relay_config = settings.relay(&dir)?;
    // What the file says goes before a context, which is for agents of this machine.
    let is_said = everywhere.api_url.is_some()
        || std::env::var_os("SKYTALE_API_URL").is_some_and(|it| !it.is_empty());
    if is_said || relay_config.issuers.is_empty() {
        let issuer = config.api_url.ok_or_else(|| {
            Failure::usage("a relay needs the API server whose tokens it takes: give --api-url")
        })?;
        let issuer = Issuer::try_from(issuer).map_err(|bad| Failure::usage(bad.to_string()))?;
        relay_config.issuers = vec![issuer];
    }
    if everywhere.ca_file.is_some() || relay_config.ca_file.is_none() {
        relay_config.ca_file = config.ca_file;
    }
    let wish = RelayWish {
        relay_addr: wish.relay_addr,
        health_addr: wish.health_addr,
        no_guests: wish.no_guests,
        traffic_at_least: wish.traffic_at_least,
        grpc: wish.grpc,
    };
    let relay_config = wish.over(relay_config);
    let open = relay_config.danger_slim_open;
    let with_tls = relay_config.grpc_tls_cert.is_some();
    let relay = start_relay(relay_config).await?;
    let started = RelayStarted {
        relay: format!("{}@{}", relay.key(), reachable(relay.quic_addr())),
        slim: slim_url(&relay, with_tls),
        health: format!("http://{}", reachable(relay.health_addr())),
        data_dir: config.data_dir,
        pid: std::process::id(),
    };
    let mut parts = vec![Part::relay(relay)];
    let signals = Signals::listen()?;
    output.result(&started, || {
        format!(
            "  relay  {}\n{}  health {}/readyz",
            started.relay,
            slim_line(started.slim.as_deref(), open),
            started.health
        )
    })?;
    serve(&mut parts, signals, output).await
}

/// The flags of a relay, alone or in `up`.
pub(crate) struct RelayWish {
    pub(crate) relay_addr: Option<SocketAddr>,
    pub(crate) health_addr: Option<SocketAddr>,
    pub(crate) no_guests: bool,
    pub(crate) traffic_at_least: Option<AtLeast>,
    pub(crate) grpc: args::Grpc,
}

impl RelayWish {
    /// Lays the flags over what holds without them.
    pub(crate) fn over(self, mut config: RelayConfig) -> RelayConfig {
        if let Some(addr) = self.relay_addr {
            config.quic_addr = addr;
        }
        if let Some(addr) = self.health_addr {
            config.health_addr = addr;
        }
        if let Some(at_least) = self.traffic_at_least {
            config.traffic.at_least = at_least;
        }
        config.guests &= !self.no_guests;
        let grpc = self.grpc;
        if let Some(addr) = grpc.grpc_addr {
            config.grpc_addr = addr.0;
        }
        // They belong together, so they come from one place.
        if grpc.grpc_tls_cert.is_some() {
            config.grpc_tls_cert = grpc.grpc_tls_cert;
            config.grpc_tls_key = grpc.grpc_tls_key;
        }
        config.danger_slim_open |= grpc.danger_slim_open;
        config
    }
}

/// The flags about the API server's database, and the environment's URL.
pub(crate) fn database(wish: args::Database) -> Result<Layer, Failure> {
    Ok(Layer {
        database_url: database_url(wish.place)?,
        database_connections_max: wish.database_connections_max,
        database_migrate: wish.no_migrate.then_some(false),
        ..settings::no_flags()
    })
}

/// The flag, else the environment. A URL that holds a password comes by the environment only.
pub(crate) fn database_url(place: args::DatabasePlace) -> Result<Option<DatabaseUrl>, Failure> {
    let Some(url) = place.database_url else {
        let url = secret::from_environment(DATABASE_URL)?;
        return Ok(url.map(|url| DatabaseUrl::from(url.to_string())));
    };
    if url.has_password() {
        return Err(Failure::usage(
            "every process of this machine can read a password on the command line: change it, \
             and give the URL by SKYTALE_DATABASE_URL, or by a file that \
             SKYTALE_DATABASE_URL_FILE names",
        ));
    }
    Ok(Some(url))
}

/// Where this machine reaches the API server; by TLS its certificate names another host, as a rule.
pub(crate) fn api_url(api: &Server) -> String {
    let scheme = if api.speaks_tls() { "https" } else { "http" };
    format!("{scheme}://{}", reachable(api.addr()))
}

pub(crate) fn admin_url(api: &Server) -> Option<String> {
    Some(format!("http://{}", reachable(api.admin_addr()?)))
}

/// The line about the API server's admin address among what a started server says of itself.
pub(crate) fn admin_line(url: Option<&str>) -> String {
    url.map_or_else(String::new, |url| format!("\n  admin  {url}/readyz"))
}

/// What a SLIM agent of this machine dials.
pub(crate) fn slim_url(relay: &Relay, with_tls: bool) -> Option<String> {
    let scheme = if with_tls { "https" } else { "http" };
    let addr = reachable(relay.grpc_addr()?);
    Some(format!("{scheme}://{addr}"))
}

/// The line about SLIM among what a started server says of itself.
pub(crate) fn slim_line(url: Option<&str>, open: bool) -> String {
    let how = if open {
        "open: agents need no token"
    } else {
        "with tokens"
    };
    url.map_or_else(String::new, |url| format!("  slim   {url}  {how}\n"))
}

/// `server` below the data directory, made on first use.
pub(crate) fn directory(data_dir: &Path) -> Result<PathBuf, Failure> {
    let dir = data_dir.join("server");
    private_dir(&dir)?;
    Ok(dir)
}

pub(crate) async fn bind_api(config: skytale_api::Config) -> Result<Server, Failure> {
    let addr = config.addr;
    Server::bind(config).await.map_err(|error| {
        if let skytale_api::Error::Admin(addr, cause) = &error {
            return cannot_listen("--admin-addr", *addr, "TCP", cause.kind());
        }
        if let skytale_api::Error::Unreachable(_, cause) = &error
            && matches!(
                cause.kind(),
                io::ErrorKind::AddrInUse
                    | io::ErrorKind::AddrNotAvailable
                    | io::ErrorKind::PermissionDenied
            )
        {
            return cannot_listen("--api-addr", addr, "TCP", cause.kind());
        }
        api_failed(&error)
    })
}

pub(crate) fn api_failed(error: &skytale_api::Error) -> Failure {
    let cause = error.source();
    let cause = cause.map_or_else(String::new, |why| format!(" ({why})"));
    let exit = if let skytale_api::Error::Misuse(_) | skytale_api::Error::Certificate(_) = error {
        Exit::Usage
    } else {
        Exit::Failed
    };
    Failure::new(exit, format!("{error}{cause}"))
}

pub(crate) async fn start_relay(config: RelayConfig) -> Result<Relay, Failure> {
    let quic_addr = config.quic_addr;
    Relay::start(config).await.map_err(|error| {
        if let RelayError::Health { addr, reason } = error {
            return cannot_listen("--health-addr", addr, "TCP", reason);
        }
        if let RelayError::Grpc(GrpcError::Bind { addr, reason }) = error {
            return cannot_listen("--grpc-addr", addr, "TCP", reason);
        }
        if let RelayError::Quic(QuicError::Bind { .. }) = error {
            // Its reason is a text; the system says it again as a kind.
            let again = UdpSocket::bind(quic_addr).err();
            let reason = again.map_or(io::ErrorKind::Other, |error| error.kind());
            return cannot_listen("--relay-addr", quic_addr, "UDP", reason);
        }
        let exit = if let RelayError::Config(_)
        | RelayError::Gate(GateError::Authorities)
        | RelayError::Grpc(GrpcError::Tls(_)) = error
        {
            Exit::Usage
        } else {
            Exit::Failed
        };
        Failure::new(exit, error.to_string())
    })
}

fn cannot_listen(flag: &str, addr: SocketAddr, what: &str, reason: io::ErrorKind) -> Failure {
    let (ip, port) = (addr.ip(), addr.port());
    Failure::failed(if reason == io::ErrorKind::AddrInUse {
        format!(
            "{what} port {port} is taken by another program: choose another with {flag} {ip}:PORT (0 takes a free one)"
        )
    } else {
        format!("cannot listen on {addr} ({reason}): choose another address with {flag}")
    })
}

/// The address by which this machine reaches what listens there.
pub(crate) fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// A server that runs in this process.
#[derive(Debug)]
pub(crate) enum Part {
    Api(CancellationToken, JoinHandle<()>),
    Relay(Box<Relay>),
}

impl Part {
    pub(crate) fn api(server: Server) -> Self {
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.serve(stop.clone()));
        Self::Api(stop, serving)
    }

    pub(crate) fn relay(relay: Relay) -> Self {
        Self::Relay(Box::new(relay))
    }

    async fn stop(self) {
        match self {
            Self::Api(stop, serving) => {
                stop.cancel();
                // It panicked, which was logged, or it has ended: nothing is left to do.
                let _ = serving.await;
            }
            Self::Relay(relay) => relay.stop().await,
        }
    }
}

/// What tells a server to end.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on signals are taken and kept. Before anybody is told that the servers run: who
    /// hears it may end them at once.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs until a signal comes, then ends the parts together. A second signal ends at once.
pub(crate) async fn serve(
    parts: &mut Vec<Part>,
    mut signals: Signals,
    output: Output,
) -> Result<(), Failure> {
    signals.next().await;
    output.say("stopping: what has begun is finished first; once more stops at once");
    let stopping = parts.drain(..).map(|part| tokio::spawn(part.stop()));
    let stopping: Vec<_> = stopping.collect();
    let stopped = async {
        for part in stopping {
            let _ = part.await;
        }
    };
    tokio::select! {
        ended = tokio::time::timeout(DRAIN_MAX, stopped) => {
            ended.map_err(|_| Failure::timeout("not everything was finished in ten seconds"))
        }
        () = signals.next() => Err(Failure::failed("stopped at once")),
    }
}

/// What the plan is called that flags have made.
const PLAN: &str = "standard";
/// Or with `_FILE` behind it.
pub(crate) const DATABASE_URL: &str = "SKYTALE_DATABASE_URL";
/// How long a stopping server may take.
const DRAIN_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_everywhere_is_reached_here_by_loopback() {
        let on = |text: &str| reachable(text.parse().unwrap()).to_string();

        assert_eq!(on("0.0.0.0:4433"), "127.0.0.1:4433");
        assert_eq!(on("[::]:4433"), "[::1]:4433");
        assert_eq!(on("192.0.2.1:4433"), "192.0.2.1:4433");
    }

    #[test]
    fn a_password_is_not_taken_from_the_command_line_and_not_repeated() {
        let given = |url: &str| {
            database_url(args::DatabasePlace {
                database_url: Some(url.to_owned().into()),
            })
        };

        assert!(
            given("postgres://alice@localhost/skytale")
                .unwrap()
                .is_some()
        );
        let refused = given("postgres://alice:needle@localhost/skytale").unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains("SKYTALE_DATABASE_URL_FILE") && !text.contains("needle"),
            "{text}"
        );
    }

    #[test]
    fn a_taken_port_is_named_with_the_flag_that_changes_it() {
        let addr = "127.0.0.1:7700".parse().unwrap();

        let failure = cannot_listen("--api-addr", addr, "TCP", io::ErrorKind::AddrInUse);

        let text = failure.to_string();
        assert!(
            text.contains("port 7700") && text.contains("--api-addr"),
            "{text}"
        );
        assert_eq!(failure.exit(), Exit::Failed);
    }
}
