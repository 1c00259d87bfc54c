//! What an application may set, and the opening of an agent.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64},
    },
};

use skytale_agent::view;
use skytale_wire::http::Secret;
use tokio::{
    runtime::Handle,
    sync::{OnceCell, broadcast},
};
use zeroize::Zeroizing;

use super::{Agent, inner::Inner};
use crate::{
    account::Account,
    config::{Config, Flags, RelayAddr, Timeouts},
    error::Error,
    link,
    shelf::Shelf,
    threads::Threads,
    traffic::{LineTally, Traffic},
    vault::{Vault, VaultKey},
    worker::{self, Start},
};

/// What a program sets before an agent is opened. Everything else comes from the environment, the
/// context or the defaults.
#[derive(Debug)]
pub struct AgentBuilder {
    pub(super) name: String,
    pub(super) flags: Flags,
}

impl AgentBuilder {
    /// Agents live in `agents/NAME` below it.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.flags.data_dir = Some(dir.into());
        self
    }

    /// Where contexts and the key file are.
    #[must_use]
    pub fn config_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.flags.config_dir = Some(dir.into());
        self
    }

    /// The context to use instead of the current one.
    #[must_use]
    pub fn context(mut self, name: &str) -> Self {
        self.flags.context = Some(name.to_owned());
        self
    }

    /// The API server.
    #[must_use]
    pub fn api_url(mut self, url: &str) -> Self {
        self.flags.api_url = Some(url.to_owned());
        self
    }

    /// The account's key.
    #[must_use]
    pub fn api_key(mut self, key: Secret) -> Self {
        self.flags.api_key = Some(key);
        self
    }

    /// Where new channels are made.
    #[must_use]
    pub fn relay(mut self, relay: RelayAddr) -> Self {
        self.flags.relay = Some(relay);
        self
    }

    /// Opens the vault, before any key of the environment or the key file.
    #[must_use]
    pub fn vault_key(mut self, key: VaultKey) -> Self {
        self.flags.vault_key = Some(key);
        self
    }

    /// Opens the vault when the environment holds no key.
    #[must_use]
    pub fn passphrase(mut self, passphrase: Zeroizing<String>) -> Self {
        self.flags.passphrase = Some(passphrase);
        self
    }

    /// A certificate authority for the API server, beside the system's.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.flags.ca_file = Some(path.into());
        self
    }

    /// How its lines are to look to whoever watches them: a mode, a preset or a shape of one's own.
    #[must_use]
    pub fn traffic(mut self, traffic: impl Into<Traffic>) -> Self {
        self.flags.traffic = Some(traffic.into());
        self
    }

    /// How long calls wait.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.flags.timeouts = timeouts;
        self
    }

    /// Everything at once, for programs with flags of their own.
    #[must_use]
    pub fn flags(mut self, flags: Flags) -> Self {
        self.flags = flags;
        self
    }

    /// Opens the agent. No network is needed: it connects by itself when there is one.
    pub async fn open(self) -> Result<Agent, Error> {
        let runtime = Handle::try_current()
            .map_err(|_| Error::misuse("an agent is opened inside a tokio runtime"))?;
        let mut config = Config::load(self.flags)?;
        let vault = Arc::new(Vault::prepare(&mut config, &self.name)?);
        let account = config
            .api_url
            .as_deref()
            .map(|url| {
                Account::new(
                    url,
                    config.api_key.take(),
                    config.ca_file.as_deref(),
                    config.timeouts.token,
                )
            })
            .transpose()?
            .map(Arc::new);
        let (notices, _) = broadcast::channel(NOTICES_MAX);
        let tally: Arc<LineTally> = Arc::default();
        let threads = Threads::new(&runtime);
        let start = Start {
            vault: Arc::clone(&vault),
            label: self.name.clone(),
            home: config.relay.clone(),
            account: account.clone().filter(|account| account.has_key()),
            timeouts: config.timeouts,
            traffic: config.traffic,
            notices: notices.clone(),
            tally: Arc::clone(&tally),
            runtime: link::Runtime::start(&threads)?,
        };
        let (id, started) = worker::start(start, &threads).await?;
        let shelf = Shelf::open(&vault, &threads)?;
        let first_event = shelf
            .with(|reading| Ok(view::newest_event(reading.conn())?))
            .await?;
        let inner = Arc::new(Inner {
            pid: std::process::id(),
            id,
            name: self.name,
            dir: vault.dir().to_owned(),
            advertised: config.advertised,
            timeouts: config.timeouts,
            traffic: config.traffic,
            tally,
            sending: AtomicU64::new(0),
            notices,
            account,
            home: OnceCell::new_with(config.relay),
            home_search: Mutex::new(None),
            asks: started.asks,
            news: started.news,
            shelf: Mutex::new(Some(shelf)),
            holders: Mutex::default(),
            first_event,
            closed: AtomicBool::new(false),
            threads,
        });
        inner.look_for_home();
        Ok(Agent { inner })
    }
}

/// Events of lines that wait for a slow reader; older ones are dropped.
const NOTICES_MAX: usize = 64;
