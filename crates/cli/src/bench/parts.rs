//! The measured processes: this very program as `bench-part`, told by a first line on stdin what
//! to be, and by further lines what to do. It answers each with a line of JSON, and ends when its
//! stdin does, so that none outlives the one who measures.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use skytale_api::Server;
use skytale_relay::{
    config::{Issuer, RelayConfig},
    run::Relay,
};
use skytale_sdk::{Agent, Channel, Mode, RelayAddr, Secret};
use skytale_wire::{http::RelayAt, id::RelayKey, token::PublicKeys};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines, Stdin},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{CONNECTIONS_MAX, RAISED_PER_SECOND, client, machine, raised_limits, slim};
use crate::{exit::Failure, output::Output, servers};

/// What a part is.
#[derive(Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub(super) enum Role {
    /// A relay with its limits raised.
    Relay {
        dir: PathBuf,
        /// Whose tokens count, as a JWKS.
        keys: String,
    },
    /// A relay whose port for SLIM is open to all.
    SlimRelay {
        dir: PathBuf,
        /// Whose tokens count, as a JWKS.
        keys: String,
        /// Whether it stores messages before they go on.
        archive: bool,
    },
    /// An agent of the SDK. Without an account it is a guest.
    Agent {
        dir: PathBuf,
        name: String,
        relay: String,
        account: Option<Access>,
    },
    /// An API server with a local account, for the tokens of one relay.
    Api {
        dir: PathBuf,
        /// A Postgres database in place of a file.
        database_url: Option<String>,
        relay: RelayKey,
    },
    /// An API server with a local account and its relay, as `skytale up` runs them.
    Up { dir: PathBuf },
    /// Sends back what it gets.
    Echo,
}

/// How an agent gets its tokens.
#[derive(Serialize, Deserialize)]
pub(super) struct Access {
    pub(super) url: String,
    pub(super) key: String,
}

/// What an agent is to do.
#[derive(Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(super) enum Order {
    /// Open a channel and say an invite to it.
    Open,
    Join {
        line: String,
    },
    /// Send for so long, so many at once, each of so many bytes; then say how many.
    Flood {
        seconds: u64,
        at_once: usize,
        bytes: usize,
    },
    /// Read until a flood ends, and count.
    Drain,
    /// Send one message.
    One {
        bytes: usize,
    },
    /// Read one message.
    Await,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RelayIs {
    /// As `skytale up` prints it.
    pub(super) relay: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SlimIs {
    /// As SLIM's agents are given it.
    pub(super) slim: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ApiIs {
    pub(super) addr: SocketAddr,
    /// The local account's first key. Only where the database was new.
    pub(super) key: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct UpIs {
    pub(super) api: SocketAddr,
    /// As `skytale up` prints it.
    pub(super) relay: String,
    /// The local account's first key.
    pub(super) key: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Counted {
    pub(super) messages: u64,
}

/// A moment on the clock that all parts share, in nanoseconds.
#[derive(Serialize, Deserialize)]
pub(super) struct Moment {
    pub(super) at: u64,
    /// How long the call took, in nanoseconds.
    pub(super) took: u64,
}

/// A running part, as the one who measures holds it.
pub(super) struct Part {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Part {
    /// Starts it; done when it says its first line, which is given back.
    pub(super) async fn start<T: DeserializeOwned>(role: &Role) -> Result<(Self, T), Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bench-part");
        // What this user has set is about other servers.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"SKYTALE_") && name != "SKYTALE_LOG" {
                command.env_remove(name);
            }
        }
        let mut part = Self::spawn(command)?;
        part.tell(role).await?;
        let first = part.hear().await?;
        Ok((part, first))
    }

    /// Starts another program that speaks in lines of JSON.
    pub(super) fn spawn(mut command: Command) -> Result<Self, Failure> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::failed("a part of the bench has no pipes"));
        };
        Ok(Self {
            child,
            stdin,
            lines: BufReader::new(stdout).lines(),
        })
    }

    pub(super) async fn tell<T: Serialize>(&mut self, what: &T) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(what).map_err(|_| Failure::failed("no JSON"))?;
        line.push(b'\n');
        self.stdin.write_all(&line).await?;
        Ok(self.stdin.flush().await?)
    }

    pub(super) async fn hear<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let line = timeout(ANSWER_MAX, self.lines.next_line())
            .await
            .map_err(|_| Failure::timeout("a part of the bench does not answer"))??
            .ok_or_else(|| Failure::failed("a part of the bench has ended"))?;
        serde_json::from_str(&line)
            .map_err(|_| Failure::failed(format!("a part of the bench says: {line}")))
    }

    pub(super) async fn ask<T: DeserializeOwned>(&mut self, order: &Order) -> Result<T, Failure> {
        self.tell(order).await?;
        self.hear().await
    }

    /// Processor time that it has used.
    pub(super) fn cpu_time(&self) -> Option<Duration> {
        machine::cpu_time(self.child.id()?)
    }

    /// How often its threads have slept and were woken.
    pub(super) fn wakes(&self) -> Option<u64> {
        machine::wakes(self.child.id()?)
    }

    /// Memory that it holds, in bytes.
    pub(super) fn resident(&self) -> Option<u64> {
        machine::resident(self.child.id()?)
    }

    /// Ends it in order.
    pub(super) async fn end(self) -> Result<(), Failure> {
        let Self {
            mut child, stdin, ..
        } = self;
        drop(stdin);
        match timeout(END_MAX, child.wait()).await {
            Ok(ended) => Ok(ended.map(drop)?),
            Err(_) => Ok(child.kill().await?),
        }
    }

    /// Ends it as a power cut would.
    pub(super) async fn kill(mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }
}

/// `bench-part`.
pub(crate) async fn run(output: Output) -> Result<(), Failure> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let Some(role) = next(&mut lines).await? else {
        return Err(Failure::usage("bench-part is started by `skytale bench`"));
    };
    match role {
        Role::Relay { dir, keys } => relay(&dir, &keys, &mut lines, output).await,
        Role::SlimRelay { dir, keys, archive } => {
            let (relay, is) = slim::relay(&dir, &keys, archive).await?;
            output.json_line(&is)?;
            lines.next_line().await?;
            relay.stop().await;
            Ok(())
        }
        Role::Agent {
            dir,
            name,
            relay,
            account,
        } => {
            let mut builder = Agent::builder(&name)
                .data_dir(dir.join("data"))
                .config_dir(dir.join("config"))
                // What is measured is the program, not a schedule.
                .traffic(Mode::Padded);
            if let Some(account) = account {
                builder = builder
                    .relay(relay.parse::<RelayAddr>()?)
                    .api_url(&account.url)
                    .api_key(Secret::new(account.key));
            }
            agent(builder.open().await?, &mut lines, output).await
        }
        Role::Api {
            dir,
            database_url,
            relay,
        } => api(&dir, database_url, relay, &mut lines, output).await,
        Role::Up { dir } => up(&dir, &mut lines, output).await,
        Role::Echo => {
            let (endpoint, addr) = client::echo_endpoint().await?;
            output.json_line(&addr)?;
            tokio::select! {
                ended = client::echo(&endpoint) => ended,
                ended = lines.next_line() => Ok(ended.map(drop)?),
            }
        }
    }
}

async fn relay(
    dir: &Path,
    keys: &str,
    lines: &mut Lines<BufReader<Stdin>>,
    output: Output,
) -> Result<(), Failure> {
    let keys = PublicKeys::from_json(keys.as_bytes())
        .map_err(|error| Failure::usage(error.to_string()))?;
    let relay = start_relay(RelayConfig::new(dir, vec![Issuer::Keys(keys)])).await?;
    output.json_line(&RelayIs {
        relay: format!("{}@{}", relay.key(), relay.quic_addr()),
    })?;
    lines.next_line().await?;
    relay.stop().await;
    Ok(())
}

async fn api(
    dir: &Path,
    database_url: Option<String>,
    relay: RelayKey,
    lines: &mut Lines<BufReader<Stdin>>,
    output: Output,
) -> Result<(), Failure> {
    crate::up::private_dir(dir)?;
    let mut config = skytale_api::Config::new(dir);
    config.addr.set_port(0);
    config.database_url = database_url.map(Into::into);
    config.key_requests_per_second_max = RAISED_PER_SECOND;
    config.account_requests_per_second_max = RAISED_PER_SECOND;
    config.relays = vec![RelayAt {
        key: relay,
        addresses: vec!["127.0.0.1:4433".to_owned()],
    }];
    let api = servers::bind_api(config).await?;
    output.json_line(&ApiIs {
        addr: api.addr(),
        key: local_key(&api).await?,
    })?;
    serve(api, lines).await
}

async fn up(
    dir: &Path,
    lines: &mut Lines<BufReader<Stdin>>,
    output: Output,
) -> Result<(), Failure> {
    crate::up::private_dir(&dir.join("api"))?;
    let mut config = skytale_api::Config::new(&dir.join("api"));
    config.addr.set_port(0);
    let mut api = servers::bind_api(config).await?;
    let issuer = Issuer::Known {
        url: format!("http://{}", api.addr()),
        keys: api.public_keys(),
    };
    let relay = start_relay(RelayConfig::new(&dir.join("relay"), vec![issuer])).await?;
    api.set_relays(vec![RelayAt {
        key: relay.key(),
        addresses: vec![relay.quic_addr().to_string()],
    }]);
    output.json_line(&UpIs {
        api: api.addr(),
        relay: format!("{}@{}", relay.key(), relay.quic_addr()),
        key: local_key(&api).await?.unwrap_or_default(),
    })?;
    serve(api, lines).await?;
    relay.stop().await;
    Ok(())
}

/// The first key of the local account, where that is new.
async fn local_key(api: &Server) -> Result<Option<String>, Failure> {
    let account = api.bootstrap_local().await;
    let account = account.map_err(|error| servers::api_failed(&error))?;
    Ok(account.map(|it| it.api_key.expose().to_owned()))
}

/// Serves until there is nothing more on stdin.
async fn serve(api: Server, lines: &mut Lines<BufReader<Stdin>>) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let serving = tokio::spawn(api.serve(stop.clone()));
    lines.next_line().await?;
    stop.cancel();
    serving
        .await
        .map_err(|_| Failure::failed("the API server failed"))
}

/// A relay on free ports, with its limits raised and without gRPC.
async fn start_relay(mut config: RelayConfig) -> Result<Relay, Failure> {
    config.quic_addr.set_port(0);
    config.health_addr.set_port(0);
    config.grpc_addr = None;
    config.limits = raised_limits();
    config.connections_per_ip_max = CONNECTIONS_MAX;
    config.strangers_max = CONNECTIONS_MAX;
    Relay::start(config)
        .await
        .map_err(|error| Failure::failed(error.to_string()))
}

async fn agent(
    me: Agent,
    lines: &mut Lines<BufReader<Stdin>>,
    output: Output,
) -> Result<(), Failure> {
    output.json_line(&Value::Null)?;
    let mut here = None;
    while let Some(order) = next(lines).await? {
        match order {
            Order::Open => {
                let channel = me.channel("bench/pair/line").await?;
                output.json_line(&channel.invite().await?)?;
                here = Some((channel.messages(), channel));
            }
            Order::Join { line } => {
                let channel = me.join(&line).await?;
                output.json_line(&Value::Null)?;
                here = Some((channel.messages(), channel));
            }
            Order::Flood {
                seconds,
                at_once,
                bytes,
            } => {
                let (_, channel) = here.as_ref().ok_or_else(nowhere)?;
                let until = Instant::now() + Duration::from_secs(seconds);
                let messages = flood(channel, until, at_once, bytes).await?;
                output.json_line(&Counted { messages })?;
            }
            Order::Drain => {
                let (inbox, _) = here.as_mut().ok_or_else(nowhere)?;
                let mut messages = 0;
                while let Some(message) = inbox.next().await? {
                    messages += 1;
                    if message.payload() == LAST {
                        message.ack().await?;
                        break;
                    }
                }
                output.json_line(&Counted { messages })?;
            }
            Order::One { bytes } => {
                let (_, channel) = here.as_ref().ok_or_else(nowhere)?;
                let (at, begun) = (wall_clock(), Instant::now());
                channel.send(vec![b'x'; bytes]).await?;
                output.json_line(&moment(at, begun))?;
            }
            Order::Await => {
                let (inbox, _) = here.as_mut().ok_or_else(nowhere)?;
                let begun = Instant::now();
                let message = inbox.next().await?;
                let here_at = moment(wall_clock(), begun);
                if let Some(message) = message {
                    message.ack().await?;
                }
                output.json_line(&here_at)?;
            }
        }
    }
    Ok(me.close().await?)
}

/// Sends until it is time, and a last message that says so.
async fn flood(
    channel: &Channel,
    until: Instant,
    at_once: usize,
    bytes: usize,
) -> Result<u64, Failure> {
    let mut senders = JoinSet::new();
    for _ in 0..at_once {
        let channel = channel.clone();
        senders.spawn(async move {
            let mut sent = 0;
            while Instant::now() < until {
                channel.send(vec![b'x'; bytes]).await?;
                sent += 1;
            }
            Ok::<u64, skytale_sdk::Error>(sent)
        });
    }
    let mut messages = 0;
    while let Some(sent) = senders.join_next().await {
        messages += sent.map_err(|_| Failure::failed("a sender failed"))??;
    }
    channel.send(LAST).await?;
    Ok(messages + 1)
}

async fn next<T: DeserializeOwned>(
    lines: &mut Lines<BufReader<Stdin>>,
) -> Result<Option<T>, Failure> {
    let Some(line) = lines.next_line().await? else {
        return Ok(None);
    };
    serde_json::from_str(&line)
        .map(Some)
        .map_err(|_| Failure::usage("bench-part is started by `skytale bench`"))
}

fn nowhere() -> Failure {
    Failure::usage("the agent is in no channel yet")
}

fn moment(at: u64, begun: Instant) -> Moment {
    let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Moment { at, took }
}

#[expect(
    clippy::disallowed_methods,
    reason = "two processes of one machine compare their moments: nothing is decided by it"
)]
fn wall_clock() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// The payload that ends a flood.
const LAST: &[u8] = b"that was all";
/// How long a part may take to answer: a flood lasts as long as it was told.
const ANSWER_MAX: Duration = Duration::from_mins(15);
const END_MAX: Duration = Duration::from_secs(15);
