//! The servers of a test, in this process: a real relay and a real API server, nothing to set up.
//!
//! Everything lies in a temporary directory that goes with the mesh. Nothing of the user's settings
//! is looked at by agents that are opened with those of the mesh: they name everything.

use std::{
    fmt::Write as _,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use pyo3::prelude::*;
use skytale_api::Server;
use skytale_relay::{
    config::{Engine, Issuer, RelayConfig},
    limits::{Limits, Rate},
    run::Relay,
};
use skytale_sdk::{Context, Error, RelayAddr, Secret};
use skytale_wire::http::RelayAt;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    channel::seconds,
    errors,
    native::Native,
    network::{Network, Weather},
    operation::{Kind, Operation},
};

/// A relay and an API server. They stop when this is dropped.
#[pyclass(frozen, module = "skytale._core")]
pub(crate) struct Mesh {
    running: Native<Running>,
}

struct Running {
    settings: MeshSettings,
    serving: Arc<Mutex<Option<JoinHandle<()>>>>,
    stop: CancellationToken,
    _until_dropped: DropGuard,
}

/// How agents find these servers. The key is one that lives as long as the mesh.
#[derive(IntoPyObject, Clone)]
struct MeshSettings {
    api_key: String,
    api_url: String,
    relay: String,
    data_dir: String,
    config_dir: String,
    context: &'static str,
    vault_key: String,
    traffic: &'static str,
    history: Option<f64>,
}

#[pymethods]
impl Mesh {
    /// Starts the servers, in a directory of their own.
    #[staticmethod]
    fn start(agents: usize, delay: f64, loss: f64, seed: u64) -> Operation {
        Operation::new(Kind::Change, async move {
            if !(0.0..1.0).contains(&loss) {
                return Err(Error::Misuse(
                    "loss is a probability: from 0, and less than 1".into(),
                ));
            }
            let weather = Weather {
                delay: seconds(delay)?,
                loss,
                seed,
            };
            let running = Running::start(weather, agents).await?;
            Ok(Self {
                running: Native::new(running),
            })
        })
    }

    /// With which agents are opened.
    fn settings(&self, py: Python<'_>) -> PyResult<MeshSettings> {
        Ok(self.running(py)?.settings.clone())
    }

    /// Stops the servers and removes what they and the agents had stored.
    fn stop(&self, py: Python<'_>) -> PyResult<Operation> {
        let running = self.running(py)?;
        running.stop.cancel();
        let serving = Arc::clone(&running.serving);
        Ok(Operation::silent(Kind::Change, async move {
            let serving = serving
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(serving) = serving {
                // It fails when the interpreter is ending, and then the servers have ended.
                let _ = serving.await;
            }
            Ok(())
        }))
    }
}

impl Mesh {
    fn running(&self, py: Python<'_>) -> PyResult<&Running> {
        self.running
            .get()
            .map_err(|error| errors::raise(py, &error))
    }
}

impl Running {
    async fn start(weather: Weather, agents: usize) -> Result<Self, Error> {
        let servers = Servers::start(weather, agents).await?;
        let settings = servers.settings();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let serving = tokio::spawn(async move {
            stopped.cancelled().await;
            servers.end().await;
        });
        Ok(Self {
            settings,
            serving: Arc::new(Mutex::new(Some(serving))),
            _until_dropped: stop.clone().drop_guard(),
            stop,
        })
    }
}

struct Servers {
    relay: Relay,
    relay_addr: RelayAddr,
    api: JoinHandle<()>,
    api_addr: SocketAddr,
    api_key: Secret,
    stop_api: CancellationToken,
    _network: Option<Network>,
    /// Removed last.
    dir: TempDir,
}

impl Servers {
    async fn start(weather: Weather, agents: usize) -> Result<Self, Error> {
        let dir = tempfile::Builder::new()
            .prefix("skytale-mesh-")
            .tempdir()
            .map_err(|error| no_room(&error))?;
        let mut config = skytale_api::Config::new(&dir.path().join("server"));
        std::fs::create_dir(dir.path().join("server")).map_err(|error| no_room(&error))?;
        config.addr.set_port(0);
        config.ui = false;
        // The key lives as long as the mesh: there is nothing to protect by slow hashes.
        config.danger_argon2_memory_kib = 64;
        config.danger_argon2_passes = 1;
        let mut api = Server::bind_embedded(config)
            .await
            .map_err(|error| Error::Unreachable(error.to_string()))?;
        let mut config = RelayConfig::new(
            &dir.path().join("relay"),
            vec![Issuer::Keys(api.public_keys())],
        );
        let is_fine = weather.delay.is_zero() && weather.loss <= 0.0;
        if !is_fine && std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
            return Err(Error::Unreachable(
                "delay and loss need IPv6 on this machine's loopback, which it has not: switch it on, or leave them out"
                    .into(),
            ));
        }
        // Agents and relay look for a direct way, which would have no weather. Between addresses of
        // two families there is none.
        config.quic_addr = if is_fine {
            (Ipv4Addr::LOCALHOST, 0).into()
        } else {
            (Ipv6Addr::LOCALHOST, 0).into()
        };
        config.health_addr = (Ipv4Addr::LOCALHOST, 0).into();
        config.grpc_addr = None;
        config.archive = Engine::Sqlite;
        config.connections_per_ip_max = config.connections_per_ip_max.max(2 * agents);
        config.limits = Limits {
            frames: UNHINDERED,
            publishes: UNHINDERED,
            commits: UNHINDERED,
            creates: UNHINDERED,
            welcomes: UNHINDERED,
            claims: UNHINDERED,
            claims_of_target: UNHINDERED,
            ..Limits::default()
        };
        let relay = Relay::start_embedded(config);
        let account = api.bootstrap_local();
        let (relay, account) = tokio::join!(relay, account);
        let relay = relay.map_err(|error| Error::Unreachable(error.to_string()))?;
        let account = account
            .map_err(|error| Error::Unreachable(error.to_string()))?
            .ok_or_else(|| Error::Damaged("a new server has an account already".into()))?;
        let network = if is_fine {
            None
        } else {
            let network = Network::start(relay.quic_addr(), weather).await;
            Some(network.map_err(|error| no_room(&error))?)
        };
        let here = network
            .as_ref()
            .map_or_else(|| relay.quic_addr(), Network::addr);
        let relay_addr = RelayAddr {
            key: relay.key(),
            address: format!("{here}?grpc=off"),
        };
        api.set_relays(vec![RelayAt {
            key: relay_addr.key,
            addresses: vec![relay_addr.address.clone()],
        }]);
        let api_addr = api.addr();
        let stop_api = CancellationToken::new();
        let api = tokio::spawn(api.serve_agents(stop_api.clone()));
        let config_dir = dir.path().join("config");
        Context::default().write(&config_dir, CONTEXT)?;
        Ok(Self {
            relay,
            relay_addr,
            api,
            api_addr,
            api_key: account.api_key,
            stop_api,
            _network: network,
            dir,
        })
    }

    fn settings(&self) -> MeshSettings {
        let below = |name| self.dir.path().join(name).display().to_string();
        let vault_key: [u8; 32] = rand::random();
        let hex = |mut text: String, byte: &u8| {
            // Writing into a text cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        };
        MeshSettings {
            api_key: self.api_key.expose().to_owned(),
            api_url: format!("http://{}", self.api_addr),
            relay: self.relay_addr.to_string(),
            data_dir: below("data"),
            config_dir: below("config"),
            context: CONTEXT,
            vault_key: vault_key.iter().fold(String::new(), hex),
            // A schedule would make tests slow, and nobody watches this line.
            traffic: "padded",
            history: None,
        }
    }

    async fn end(self) {
        self.relay.stop().await;
        self.stop_api.cancel();
        // It fails when the server has panicked, which was printed.
        let _ = self.api.await;
    }
}

fn no_room(error: &io::Error) -> Error {
    Error::Unreachable(format!(
        "this machine has no room for a mesh ({}): free some space or ports",
        error.kind()
    ))
}

const CONTEXT: &str = "mesh";
/// Limits protect a relay from strangers, and here are none.
const UNHINDERED: Rate = Rate::per_second(100_000, 100_000);
