//! `skytale up`: API server and relay in one process, for one machine or a small team.
//!
//! The first start makes a local account, a key and the context "local", so that nothing has to be
//! signed up for. Every start writes the real addresses into the context.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::Serialize;
use skytale_api::{Server, config::Layer};
use skytale_relay::config::Issuer;
use skytale_sdk::{Config, Context, GRPC_PORT, RelayAddr};
use skytale_wire::{
    http::{RelayAt, Secret},
    id::RelayKey,
};

use crate::{
    args::{self, Everywhere},
    context::{self, LOCAL},
    exit::Failure,
    output::Output,
    servers::{self, Part, RelayWish, Signals, reachable},
    settings::Settings,
};

#[derive(Debug, Serialize)]
struct Started {
    api: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<String>,
    relay: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    slim: Option<String>,
    /// Whether SLIM's agents need no token.
    slim_open: bool,
    health: String,
    data_dir: PathBuf,
    context: String,
    pid: u32,
}

pub(crate) async fn run(
    up: args::Up,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let name = everywhere
        .context
        .clone()
        .unwrap_or_else(|| LOCAL.to_owned());
    let config = Config::load(context::flags_without_context(everywhere))?;
    let dir = servers::directory(&config.data_dir)?;

    let settings = Settings::load(&up.settings)?;
    let flags = Layer {
        addr: up.api_addr,
        ui: up.no_ui.then_some(false),
        admin_addr: up.admin.admin_addr.and_then(|addr| addr.0),
        ..servers::database(up.database)?
    };
    let api_config = settings.api(&dir, up.limits.over(flags), up.admin.admin_addr)?;
    if !api_config.addr.ip().is_loopback() || api_config.tls_cert.is_some() {
        return Err(Failure::usage(
            "the API server of `up` is for this machine, or for a proxy on it: run `skytale api` and `skytale relay` for one that others reach",
        ));
    }
    let mut api = servers::bind_api(api_config).await?;
    let wish = RelayWish {
        relay_addr: up.relay_addr,
        health_addr: up.health_addr,
        no_guests: up.no_guests,
        traffic_at_least: up.traffic_at_least,
        grpc: up.grpc,
    };
    let mut relay_config = wish.over(settings.relay(&dir.join("relay"))?);
    // What only this machine can reach is open, so that a first SLIM agent needs nothing but the
    // address; it is said when it starts.
    relay_config.danger_slim_open |= relay_config
        .grpc_addr
        .is_some_and(|addr| addr.ip().is_loopback());
    let slim_open = relay_config.danger_slim_open;
    let own = Issuer::Known {
        url: format!("http://{}", reachable(api.addr())),
        keys: api.public_keys(),
    };
    relay_config.issuers.insert(0, own);
    let with_tls = relay_config.grpc_tls_cert.is_some();
    let relay = servers::start_relay(relay_config).await?;

    let port = relay.quic_addr().port();
    let grpc = relay.grpc_addr().map(reachable);
    let public = up
        .public_addr
        .map(|addr| with_door(addr.with_port(port), grpc));
    let local = reachable(relay.quic_addr()).to_string();
    let here = RelayAddr {
        key: relay.key(),
        address: with_door(local.clone(), grpc),
    };
    api.set_relays(vec![offered(here.key, public.as_deref(), &here.address)]);
    let started = Started {
        api: servers::api_url(&api),
        admin: servers::admin_url(&api),
        relay: format!("{}@{local}", here.key),
        slim: servers::slim_url(&relay, with_tls),
        slim_open: slim_open && relay.grpc_addr().is_some(),
        health: format!("http://{}", reachable(relay.health_addr())),
        data_dir: config.data_dir.clone(),
        context: name.clone(),
        pid: std::process::id(),
    };

    let context = Context::read(&config.config_dir, &name)?.unwrap_or_default();
    let context = with_key(context, &api, &dir).await?;
    save(
        context,
        &config.config_dir,
        &started,
        here,
        public.as_deref(),
    )?;

    let mut parts = vec![Part::api(api), Part::relay(relay)];
    let signals = Signals::listen()?;
    output.result(&started, || described(&started))?;
    if public.is_none() {
        output.say("only this machine can reach the relay; --public-addr lets others join");
    }
    servers::serve(&mut parts, signals, output).await
}

fn described(started: &Started) -> String {
    let (key, address) = started.relay.split_once('@').unwrap_or_default();
    format!(
        "  api    {}{}\n  relay  quic {address}  key {key}\n{}  health {}/readyz\n  saved  context \"{}\"",
        started.api,
        servers::admin_line(started.admin.as_deref()),
        servers::slim_line(started.slim.as_deref(), started.slim_open),
        started.health,
        started.context
    )
}

/// The relay's address for agents, with its port for gRPC where they would look for another.
fn with_door(address: String, grpc: Option<SocketAddr>) -> String {
    match grpc {
        Some(grpc) if grpc.port() == GRPC_PORT => address,
        Some(grpc) => {
            let host = address.rsplit_once(':').map_or(&*address, |(host, _)| host);
            format!("{address}?grpc={host}:{}", grpc.port())
        }
        None => format!("{address}?grpc=off"),
    }
}

/// How tokens' answers name the relay: from outside first.
fn offered(key: RelayKey, public: Option<&str>, local: &str) -> RelayAt {
    let addresses = public.into_iter().chain([local]).map(str::to_owned);
    RelayAt {
        key,
        addresses: addresses.collect(),
    }
}

/// Gives the context a key of this server. Which key was made here last is noted by its public id,
/// so that a context of another data directory is noticed.
async fn with_key(mut context: Context, api: &Server, dir: &Path) -> Result<Context, Failure> {
    let note = dir.join(KEY_NOTE);
    let failed = |error| servers::api_failed(&error);
    let first = api.bootstrap_local().await.map_err(failed)?;
    let made = if let Some(made) = first {
        made
    } else {
        let noted = match fs::read_to_string(&note) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let saved = context.api_key.as_ref().and_then(public_id);
        if saved.is_some() && saved == noted.as_deref() {
            return Ok(context);
        }
        api.new_local_key().await.map_err(failed)?
    };
    let id = public_id(&made.api_key)
        .ok_or_else(|| Failure::failed("the new API key has no public part: this is a bug"))?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(note)?;
    io::Write::write_all(&mut file, id.as_bytes())?;
    context.api_key = Some(made.api_key);
    Ok(context)
}

/// The part of `sk_test_XXXXXXXX_…` by which a key is listed.
pub(crate) fn public_id(key: &Secret) -> Option<&str> {
    key.expose().split('_').nth(2)
}

fn save(
    mut context: Context,
    config_dir: &Path,
    started: &Started,
    relay: RelayAddr,
    public: Option<&str>,
) -> Result<(), Failure> {
    context.api_url = Some(started.api.clone());
    context.relay = Some(relay);
    context.write(config_dir, &started.context)?;
    Context::advertise(config_dir, &started.context, public)?;
    Ok(())
}

/// The server's directory, for its owner only.
pub(crate) fn private_dir(dir: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| {
            Failure::failed(format!(
                "the data directory cannot be made ({}): choose another with --data-dir",
                error.kind()
            ))
        })
}

const KEY_NOTE: &str = "local-key";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keys_public_part_is_found_and_its_secret_is_not() {
        let key = Secret::new("sk_test_8H2kQ0aZ_secretsecret".to_owned());

        assert_eq!(public_id(&key), Some("8H2kQ0aZ"));
        assert_eq!(public_id(&Secret::new("nonsense".to_owned())), None);
    }
}
