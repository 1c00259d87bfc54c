//! Starting a relay and stopping it: its key, its archive, its doors.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use iroh::SecretKey;
use skytale_wire::id::RelayKey;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::{
    archive::{Archive as _, ArchiveError, fjall::FjallArchive, sqlite::SqliteArchive},
    auth::{Gate, GateError, questions::Answers, reports::Reports, revocations},
    backup::BackupDoor,
    config::{BadConfig, Engine, RelayConfig},
    driver::{Clock, Door, Driver, StartError},
    edge::{
        grpc::{GrpcEdge, GrpcError, GrpcParts, GrpcState},
        quic::{QuicEdge, QuicError},
    },
    health::{Health, Watched},
    held::Pages,
    hub::HubConfig,
};

/// A running relay. Stop it; when it is only dropped, it stops without goodbyes.
pub struct Relay {
    key: RelayKey,
    quic_addr: SocketAddr,
    health_addr: SocketAddr,
    driver: Driver,
    quic: QuicEdge,
    grpc: Option<GrpcEdge>,
    health: Health,
    reports: Reports,
    answers: Answers,
    backup: Option<BackupDoor>,
    draining: CancellationToken,
    /// Ends what has no end of its own.
    _background: DropGuard,
}

/// Why a relay could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// A setting cannot be meant.
    #[error(transparent)]
    Config(#[from] BadConfig),
    /// The data directory cannot be used.
    #[error("cannot use the relay's data directory: {0}")]
    Directory(io::ErrorKind),
    /// The key file is not a relay's key, or others may read it.
    #[error("the relay's key file {0}")]
    Key(&'static str),
    /// The archive cannot be opened.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Tokens could not be checked.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The door for agents cannot be opened.
    #[error(transparent)]
    Quic(#[from] QuicError),
    /// The door for gRPC cannot be opened.
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    /// The health address is taken, or is not this machine's.
    #[error("cannot listen for health checks on {addr}: {reason}")]
    Health {
        /// Where.
        addr: SocketAddr,
        /// What the system says.
        reason: io::ErrorKind,
    },
    /// An embedded relay was to have what only a whole one has.
    #[error(
        "an embedded relay keeps its archive in SQLite and has no gRPC address: set both so, or start a whole one"
    )]
    Embedded,
    /// The system gave no thread.
    #[error("no thread could be started: {0}")]
    Threads(io::ErrorKind),
}

impl Relay {
    /// Opens the archive, then the doors. Everything that can fail has failed when this returns; the
    /// door for gRPC may still wait for the token issuers' keys, so that it turns nobody away.
    pub async fn start(config: RelayConfig) -> Result<Self, RelayError> {
        Self::open::<WHOLE>(config).await
    }

    /// As [`Self::start`], with SQLite's archive and the door for native agents alone: the linker
    /// leaves the other archive and gRPC out of a program that starts its relays by nothing else.
    pub async fn start_embedded(config: RelayConfig) -> Result<Self, RelayError> {
        if config.archive != Engine::Sqlite || config.grpc_addr.is_some() {
            return Err(RelayError::Embedded);
        }
        Self::open::<EMBEDDED>(config).await
    }

    async fn open<const IS_WHOLE: bool>(config: RelayConfig) -> Result<Self, RelayError> {
        config.check()?;
        let dir = config.data_dir.clone();
        let seed = blocking(move || prepare(&dir)).await?;
        let secret = SecretKey::from_bytes(&seed);
        let key = RelayKey(*secret.public().as_bytes());
        let clock = Clock::system();
        let gate = Gate::trusting(
            key,
            &config.issuers,
            config.ca_file.as_deref(),
            clock.clone(),
        )?;
        if config.issuers.len() > 1 && !gate.has_taker() {
            warn!("usage is not metered: with several token issuers none is told of it");
        }
        let hub = HubConfig {
            relay: key,
            limits: config.limits.clone(),
            guests: config.guests,
            retention_ms: config.retention_ms(),
            slim: config.slim.clone(),
            meters: gate.has_taker(),
        };
        let (driver, backup, pages) = open_driver::<IS_WHOLE>(&config, hub, clock).await?;
        let draining = CancellationToken::new();
        let watched = Watched {
            door: driver.door(),
            gate: gate.clone(),
            grpc: config.grpc_addr.is_some().then(Arc::<GrpcState>::default),
            draining: draining.clone(),
        };
        let following = revocations::follow(gate.clone(), secret.clone(), driver.door());
        let reports = Reports::start(gate.clone(), secret.clone(), driver.door(), driver.usage());
        let (seen, signing) = (watched.clone(), secret.clone());
        let background = CancellationToken::new();
        tokio::spawn(background.clone().run_until_cancelled_owned(following));
        let (health, quic, grpc) = match open_doors::<IS_WHOLE>(&config, secret, watched).await {
            Ok(doors) => doors,
            Err(error) => {
                background.cancel();
                if let Some(backup) = backup {
                    backup.close().await;
                }
                driver.stop().await;
                return Err(error);
            }
        };
        tokio::spawn(background.clone().run_until_cancelled_owned(refresh(gate)));
        let pages = config.answers_accounts.then_some(pages);
        let answers = Answers::start(seen, signing, pages);
        let quic_addr = quic.addr().unwrap_or(config.quic_addr);
        let health_addr = health.addr();
        let grpc_addr = grpc.as_ref().map(GrpcEdge::addr);
        info!(relay = %key.short(), %quic_addr, ?grpc_addr, %health_addr, "the relay is up");
        Ok(Self {
            key,
            quic_addr,
            health_addr,
            driver,
            quic,
            grpc,
            health,
            reports,
            answers,
            backup,
            draining,
            _background: background.drop_guard(),
        })
    }

    /// The key that clients pin.
    pub fn key(&self) -> RelayKey {
        self.key
    }

    /// Where agents connect.
    pub fn quic_addr(&self) -> SocketAddr {
        self.quic_addr
    }

    /// Where SLIM's agents connect, and ours where UDP is blocked.
    pub fn grpc_addr(&self) -> Option<SocketAddr> {
        self.grpc.as_ref().map(GrpcEdge::addr)
    }

    /// Where health and metrics are read.
    pub fn health_addr(&self) -> SocketAddr {
        self.health_addr
    }

    /// The driver's entrance, for another edge in the same process.
    pub fn door(&self) -> Door {
        self.driver.door()
    }

    /// Takes nothing more in, stores what has come, tells every agent to resume, and ends: within
    /// ten seconds.
    pub async fn stop(mut self) {
        self.draining.cancel();
        if let Some(backup) = self.backup.take() {
            backup.close().await;
        }
        self.answers.stop().await;
        self.quic.stop_listening();
        if let Some(grpc) = &mut self.grpc {
            // Before any stream ends: SLIM's clients dial again at once, and give up for good if
            // somebody who is about to go takes the call.
            grpc.stop_listening().await;
        }
        self.driver.stop().await;
        let grpc = async {
            if let Some(grpc) = self.grpc {
                grpc.finish(GOODBYE_MAX).await;
            }
        };
        let last_report = self.reports.stop();
        tokio::join!(self.quic.finish(GOODBYE_MAX), grpc, last_report);
        self.health.stop().await;
        info!(relay = %self.key.short(), "the relay has stopped");
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("key", &self.key)
            .field("quic_addr", &self.quic_addr)
            .field("grpc", &self.grpc)
            .field("health_addr", &self.health_addr)
            .finish_non_exhaustive()
    }
}

impl From<StartError> for RelayError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Archive(error) => Self::Archive(error),
            StartError::Threads(kind) => Self::Threads(kind),
        }
    }
}

impl From<io::Error> for RelayError {
    /// Only what went wrong, not where: the operator knows which directory was given.
    fn from(error: io::Error) -> Self {
        Self::Directory(error.kind())
    }
}

async fn open_doors<const IS_WHOLE: bool>(
    config: &RelayConfig,
    secret: SecretKey,
    watched: Watched,
) -> Result<(Health, QuicEdge, Option<GrpcEdge>), RelayError> {
    let addr = config.health_addr;
    let health = Health::open(addr, watched.clone())
        .await
        .map_err(|error| RelayError::Health {
            addr,
            reason: error.kind(),
        })?;
    let (door, gate) = (watched.door.clone(), watched.gate.clone());
    let quic = QuicEdge::open(config, secret.clone(), gate, door).await?;
    // The last: what it lets in is served at once.
    let grpc = match (config.grpc_addr, watched.grpc.clone()) {
        (Some(addr), Some(state)) if IS_WHOLE => {
            let parts = GrpcParts {
                addr,
                watched,
                state,
                secret,
            };
            Some(GrpcEdge::open(config, parts).await?)
        }
        _ => None,
    };
    Ok((health, quic, grpc))
}

/// The driver, where a backup asks for the archive if it cannot open that itself, and what is read for
/// accounts that ask what is held of their channels.
async fn open_driver<const IS_WHOLE: bool>(
    config: &RelayConfig,
    hub: HubConfig,
    clock: Clock,
) -> Result<(Driver, Option<BackupDoor>, Pages), RelayError> {
    let dir = config.data_dir.clone();
    let engine = config.archive;
    blocking(move || match engine {
        Engine::Fjall if IS_WHOLE => {
            let archive = FjallArchive::open(&dir)?;
            let (copied, pages) = (archive.reader(), Pages::of(archive.reader()));
            let driver = Driver::start(hub, archive, clock)?;
            Ok((driver, BackupDoor::open(&dir, copied), pages))
        }
        Engine::Fjall => Err(RelayError::Embedded),
        Engine::Sqlite => {
            let archive = SqliteArchive::open(&dir)?;
            let pages = Pages::of(archive.reader());
            Ok((Driver::start(hub, archive, clock)?, None, pages))
        }
    })
    .await
}

/// Runs what waits for the disk where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RelayError> + Send + 'static,
) -> Result<T, RelayError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
}

/// Keys that an issuer has retired stop counting at the next round.
async fn refresh(gate: Gate) {
    loop {
        gate.refresh().await;
        let pause = if gate.is_ready() {
            REFRESH_INTERVAL
        } else {
            REFRESH_RETRY
        };
        tokio::time::sleep(pause).await;
    }
}

/// Makes the data directory and gives the relay's secret, made on first use.
fn prepare(dir: &Path) -> Result<Zeroizing<[u8; 32]>, RelayError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let path = dir.join(KEY_FILE);
    match File::open(&path) {
        Ok(file) => read_key(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_key(dir)?;
            // What stands there counts, also when another process was quicker.
            read_key(File::open(&path)?)
        }
        Err(error) => Err(error.into()),
    }
}

fn read_key(mut file: File) -> Result<Zeroizing<[u8; 32]>, RelayError> {
    let metadata = file.metadata()?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(RelayError::Key(
            "can be read by others: make it readable by its owner only (mode 600)",
        ));
    }
    if metadata.len() != 32 {
        return Err(RelayError::Key(
            "is damaged: restore it, or remove it to start as a new relay",
        ));
    }
    let mut seed = Zeroizing::new([0; 32]);
    file.read_exact(&mut *seed)?;
    Ok(seed)
}

/// Written beside its place and linked to it: whole or not there, and never over another key.
fn make_key(dir: &Path) -> Result<(), RelayError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed)
        .map_err(|_| RelayError::Key("cannot be made: the system gives no randomness"))?;
    let fresh = dir.join(format!("{KEY_FILE}.{}", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(&*seed)?;
    file.sync_all()?;
    let linked = fs::hard_link(&fresh, dir.join(KEY_FILE));
    fs::remove_file(&fresh)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        Err(_) | Ok(()) => {}
    }
    File::open(dir)?.sync_all()?;
    Ok(())
}

/// A relay with everything, and one that is part of a program for other purposes.
const WHOLE: bool = true;
const EMBEDDED: bool = !WHOLE;

/// Where the relay's secret lies below its data directory.
pub const KEY_FILE: &str = "relay.key";
/// How often issuers' keys are fetched, and how often until they have come at all.
/// A key that an issuer has retired counts no longer than a minute.
const REFRESH_INTERVAL: Duration = Duration::from_secs(40);
const REFRESH_RETRY: Duration = Duration::from_secs(11);
/// How long connections may take to read their goodbye, after the archive has had its time.
const GOODBYE_MAX: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use skytale_wire::token::PublicKeys;

    use super::*;
    use crate::config::Issuer;

    #[tokio::test]
    async fn an_embedded_relay_refuses_what_only_a_whole_one_has() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("relay");
        let config = || RelayConfig::new(&dir, vec![Issuer::Keys(PublicKeys::default())]);

        let mut with_grpc = config();
        with_grpc.archive = Engine::Sqlite;
        let mut with_fjall = config();
        with_fjall.grpc_addr = None;

        for config in [with_grpc, with_fjall] {
            let refused = Relay::start_embedded(config).await;
            assert!(matches!(refused, Err(RelayError::Embedded)), "{refused:?}");
        }
        assert!(!dir.exists(), "nothing is made before it is refused");
    }

    #[test]
    fn a_key_is_made_once_and_read_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("relay");

        let first = prepare(&dir).unwrap();

        assert_eq!(*prepare(&dir).unwrap(), *first);
        assert_ne!(*first, [0; 32]);
        let mode = fs::metadata(dir.join(KEY_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing else stays");
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_damaged_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).unwrap();
        let path = dir.path().join(KEY_FILE);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(prepare(dir.path()), Err(RelayError::Key(_))));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, [1; 31]).unwrap();
        assert!(matches!(prepare(dir.path()), Err(RelayError::Key(_))));
    }
}
