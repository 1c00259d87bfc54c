//! Opens the server, runs it, and lets it end well.
//!
//! `axum::serve` is not used: with it hyper's limit for slow request heads never fires. HTTP/1.1
//! only: the callers are small JSON clients, and HTTP/2's attack surface buys them nothing.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use skytale_wire::{
    http::{RelayAt, Secret},
    token::{AccountId, PublicKeys, Scopes},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin::Admin,
    clock::Clock,
    config::Config,
    crowd::Crowd,
    error::Error,
    limits,
    once::Secrets,
    patience::Patient,
    questions::Questions,
    router::{App, Shared, routes, routes_of_agents},
    secret::{ApiKey, Hashed, Hasher, Kind},
    signing::SigningKeys,
    store::{
        Created, Email, KeyCreated, NewAccount, NewKey, Store,
        postgres::{Limits, Migrations, Postgres},
        sqlite::Sqlite,
    },
    tally::Tally,
    tls::Doorway,
    visitor::Peer,
};

/// An API server that has opened its files and its port. Requests wait in the system's queue until
/// [`Server::serve`] is called.
#[derive(Debug)]
pub struct Server {
    shared: Shared,
    listener: TcpListener,
    addr: SocketAddr,
    doorway: Doorway,
    admin: Option<Admin>,
}

/// The account that `skytale up` works with, and a key for it.
#[derive(Debug)]
pub struct LocalAccount {
    /// The account.
    pub account: AccountId,
    /// Shown nowhere else: save it.
    pub api_key: Secret,
}

impl Server {
    /// Opens store, signing key and port with the system's clock.
    pub async fn bind(config: Config) -> Result<Self, Error> {
        Self::bind_with(config, Clock::system()).await
    }

    /// The same with another clock.
    pub async fn bind_with(config: Config, clock: Clock) -> Result<Self, Error> {
        let doors = Doors::open(&config).await?;
        let store = open_store(&config, &clock).await?;
        doors.before(store, config, clock).await
    }

    /// As [`Self::bind`], on a file only: the linker leaves Postgres' driver out of a program that
    /// opens its servers by nothing else.
    pub async fn bind_embedded(config: Config) -> Result<Self, Error> {
        if config.database_url.is_some() {
            return Err(Error::Misuse(
                "this server keeps its accounts in a file: leave the database URL out",
            ));
        }
        let doors = Doors::open(&config).await?;
        let store = open_file(&config).await?;
        doors.before(store, config, Clock::system()).await
    }

    /// Where it listens: the real port, when 0 was asked for.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where health and metrics are read, if anywhere.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::addr)
    }

    /// Whether callers must speak TLS.
    pub const fn speaks_tls(&self) -> bool {
        self.doorway.speaks_tls()
    }

    /// What verifies this server's tokens, for a relay in the same process.
    pub fn public_keys(&self) -> PublicKeys {
        self.shared.keys.public(self.shared.clock.now())
    }

    /// Names the relays that take this server's tokens, for a program that knows their addresses
    /// only after this server was opened.
    pub fn set_relays(&mut self, relays: Vec<RelayAt>) {
        self.shared.config.relays = relays;
    }

    /// Makes the local account and its first key, together or not at all. `None` when the account
    /// is there already.
    pub async fn bootstrap_local(&self) -> Result<Option<LocalAccount>, Error> {
        let app = &self.shared;
        let account = AccountId(app.uuid());
        let (key, row) = self.local_key(account).await?;
        let row_account = NewAccount {
            id: account,
            email: Email::local(),
            name: String::new(),
            password: Hashed::of_nothing(),
            now: app.clock.now(),
        };
        let created = app.store.create_account_with_key(row_account, row).await?;
        Ok(match created {
            Created::Yes => Some(LocalAccount {
                account,
                api_key: key.show(),
            }),
            Created::Taken => None,
        })
    }

    /// One more key for the local account, for when the first one was lost before it was saved.
    pub async fn new_local_key(&self) -> Result<LocalAccount, Error> {
        let app = &self.shared;
        let (account, _) = app.store.login(Email::local()).await?.ok_or(Error::Misuse(
            "there is no local account yet: run `skytale up` once",
        ))?;
        let (key, row) = self.local_key(account).await?;
        match app.store.create_key(row, app.config.live_keys_max).await? {
            KeyCreated::Yes => Ok(LocalAccount {
                account,
                api_key: key.show(),
            }),
            KeyCreated::TooMany => Err(Error::Misuse(
                "the local account has as many keys as it may: revoke one first",
            )),
            KeyCreated::NoAccount => Err(Error::Damaged("the local account vanished")),
        }
    }

    /// Serves until `shutdown`, then stops accepting, lets requests finish, and returns. What does
    /// not finish in time is cut off.
    pub async fn serve(self, shutdown: CancellationToken) {
        self.answer(routes, shutdown).await;
    }

    /// As [`Self::serve`], with nothing but tokens, their keys and health: for agents whose relay was given
    /// the keys. The linker leaves the other routes out of a program that serves by nothing else.
    pub async fn serve_agents(self, shutdown: CancellationToken) {
        self.answer(routes_of_agents, shutdown).await;
    }

    async fn answer(self, routes: fn(App) -> Router, shutdown: CancellationToken) {
        let app = App::new(self.shared);
        let router = routes(app.clone());
        let looking = look_after_keys(app.clone());
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(looking));
        let crowd = Crowd::new(&app.config);
        let watching = self.doorway.clone().watch();
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(watching));
        // Ends when it is dropped, with the last request.
        let mut admin = JoinSet::new();
        if let Some(listening) = self.admin {
            admin.spawn(listening.serve(app.clone()));
        }
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept(),
                    if connections.len() < app.config.connections_max =>
                {
                    match accepted {
                        Ok((stream, from)) => {
                            app.tally.accept();
                            // Dropped, and so closed, when its address has enough of them.
                            let Some(place) = crowd.enter(from.ip()) else { continue };
                            let (from, door) = (from.ip(), self.doorway.clone());
                            let served =
                                connection(stream, from, door, &router, &app, shutdown.clone());
                            connections.spawn(async move {
                                served.await;
                                drop(place);
                            });
                        }
                        // Mostly "too many open files": accepting again at once would only spin.
                        Err(error) => {
                            tracing::warn!(kind = ?error.kind(), "accepting failed");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    }
                }
            }
        }
        app.draining.store(true, Ordering::Relaxed);
        app.revoked.notify_waiters();
        app.questions.ring();
        drop(self.listener);
        let limit = Duration::from_millis(app.config.drain_ms_max);
        let drained = tokio::time::timeout(limit, async {
            while connections.join_next().await.is_some() {}
            app.unattended.close();
            app.unattended.wait().await;
        });
        if drained.await.is_err() {
            tracing::warn!(left = connections.len(), "cut off what did not finish");
            connections.shutdown().await;
        }
    }

    /// The application without its socket.
    #[cfg(test)]
    pub(crate) fn into_app(self) -> App {
        App::new(self.shared)
    }

    async fn local_key(&self, account: AccountId) -> Result<(ApiKey, NewKey), Error> {
        let key = ApiKey::generate(Kind::Test);
        let hash = self.shared.hasher.hash_key(&key).await.map_err(|_| {
            Error::Unreachable("the server is busy", io::ErrorKind::WouldBlock.into())
        })?;
        let row = NewKey {
            id: key.id().clone(),
            account,
            name: "local".to_owned(),
            hash,
            scopes: Scopes::all(),
            expires: None,
            now: self.shared.clock.now(),
        };
        Ok((key, row))
    }
}

/// Where requests will come in.
struct Doors {
    listener: TcpListener,
    addr: SocketAddr,
    admin: Option<Admin>,
}

impl Doors {
    /// Before anything is stored: a second server on the same address changes nothing.
    async fn open(config: &Config) -> Result<Self, Error> {
        config.check()?;
        let listener = TcpListener::bind(config.addr)
            .await
            .map_err(|e| Error::Unreachable("the API server's address cannot be listened on", e))?;
        let addr = listener
            .local_addr()
            .map_err(|e| Error::Unreachable("the API server's port is unknown", e))?;
        let admin = match config.admin_addr {
            Some(addr) => Some(Admin::bind(addr).await?),
            None => None,
        };
        Ok(Self {
            listener,
            addr,
            admin,
        })
    }

    /// The server that stands behind them.
    async fn before(
        self,
        store: Box<dyn Store>,
        config: Config,
        clock: Clock,
    ) -> Result<Server, Error> {
        let opening = aside(move || {
            let doorway = Doorway::open(&config)?;
            Ok((doorway, open(config, clock, store)?))
        });
        let (doorway, shared) = opening.await?;
        Ok(Server {
            shared,
            listener: self.listener,
            addr: self.addr,
            doorway,
            admin: self.admin,
        })
    }
}

/// The database that the settings name.
pub(crate) async fn open_store(config: &Config, clock: &Clock) -> Result<Box<dyn Store>, Error> {
    let Some(url) = &config.database_url else {
        return open_file(config).await;
    };
    let migrations = if config.database_migrate {
        Migrations::Apply
    } else {
        Migrations::Demand
    };
    let limits = Limits {
        connections_max: config.database_connections_max,
        wait: Duration::from_millis(config.database_wait_ms_max),
        statement: Duration::from_millis(config.database_statement_ms_max),
    };
    let store = Postgres::open(url, limits, migrations, clock.now()).await?;
    Ok(Box::new(store))
}

async fn open_file(config: &Config) -> Result<Box<dyn Store>, Error> {
    let path = config.database.clone();
    let store = aside(move || Sqlite::open(&path)).await?;
    Ok(Box::new(store))
}

/// Opens what touches the disk or costs time, where it holds nobody up.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::Unreachable("opening was interrupted", io::Error::other(e)))?
}

/// Keys and hashes.
fn open(config: Config, clock: Clock, store: Box<dyn Store>) -> Result<Shared, Error> {
    let keys = SigningKeys::open(&config.key_dir, clock.now())?;
    Ok(Shared {
        hasher: Hasher::new(&config)?,
        limits: limits::Limits::new(&config),
        secrets: Secrets::new(),
        unattended: TaskTracker::new(),
        places: Semaphore::new(config.requests_max),
        revoked: Notify::new(),
        draining: AtomicBool::new(false),
        questions: Questions::default(),
        tally: Tally::default(),
        config,
        clock,
        store,
        keys,
    })
}

/// Notices when the operator rotates the signing key.
async fn look_after_keys(app: App) {
    let mut is_well = true;
    loop {
        tokio::time::sleep(KEYS_LOOK).await;
        let look = {
            let app = app.clone();
            aside(move || app.keys.reload(app.clock.now()))
        };
        let done = look.await;
        if let (Err(error), true) = (&done, is_well) {
            tracing::error!(%error, "the signing key cannot be read again: the old one goes on");
        }
        is_well = done.is_ok();
    }
}

/// One connection until its end. When the server stops, the request in it is finished first.
fn connection(
    stream: TcpStream,
    from: IpAddr,
    doorway: Doorway,
    router: &Router,
    app: &App,
    shutdown: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let service = TowerToHyperService::new(router.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(from));
        service.call(request)
    });
    let answers_wait = Duration::from_millis(app.config.answer_ms_max);
    let app = app.clone();
    async move {
        let head_max = Duration::from_millis(app.config.head_ms_max);
        let greeting = doorway.greet(stream, head_max);
        let Some(Some(stream)) = shutdown.run_until_cancelled(greeting).await else {
            app.tally.fail_handshake();
            return;
        };
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_max)
            .max_buf_size(app.config.head_bytes_max)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(Patient::new(stream, answers_wait)), service);
        let mut serving = std::pin::pin!(serving);
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = shutdown.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            tracing::trace!(timeout = error.is_timeout(), "connection ended early");
        }
    }
}

/// How often the signing key's files are looked at.
const KEYS_LOOK: Duration = Duration::from_secs(5);
const HEADERS_MAX: usize = 64;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
