//! A relay and two agents, as three processes; the API server runs in the one who measures, where
//! its work counts to nobody.

use std::path::PathBuf;

use serde_json::Value;
use skytale_api::Server;
use skytale_sdk::RelayAddr;
use skytale_wire::http::RelayAt;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::parts::{Access, Order, Part, RelayIs, Role};
use crate::{exit::Failure, servers};

/// Everything that two agents need to talk, and the two in one channel.
pub(super) struct House {
    pub(super) relay: Part,
    pub(super) sender: Part,
    pub(super) receiver: Part,
    api: (CancellationToken, JoinHandle<()>),
    dir: TempDir,
}

impl House {
    pub(super) async fn open() -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let mut config = skytale_api::Config::new(&dir.path().join("api"));
        config.addr.set_port(0);
        crate::up::private_dir(&dir.path().join("api"))?;
        let mut api: Server = servers::bind_api(config).await?;
        let failed = |error| servers::api_failed(&error);
        let account = api.bootstrap_local().await.map_err(failed)?;
        let account = account.ok_or_else(|| Failure::failed("the API server is not new"))?;
        let (relay, is): (_, RelayIs) = Part::start(&Role::Relay {
            dir: dir.path().join("relay"),
            keys: api.public_keys().to_json(),
        })
        .await?;
        let at: RelayAddr = is.relay.parse()?;
        api.set_relays(vec![RelayAt {
            key: at.key,
            addresses: vec![at.address],
        }]);
        let access = Access {
            url: format!("http://{}", api.addr()),
            key: account.api_key.expose().to_owned(),
        };
        let stop = CancellationToken::new();
        let api = (stop.clone(), tokio::spawn(api.serve(stop)));

        let agent = |name: &str, account| Role::Agent {
            dir: dir.path().join(name),
            name: name.to_owned(),
            relay: is.relay.clone(),
            account,
        };
        let (mut sender, _): (_, Value) = Part::start(&agent("sender", Some(access))).await?;
        let (mut receiver, _): (_, Value) = Part::start(&agent("receiver", None)).await?;
        let line: String = sender.ask(&Order::Open).await?;
        let _: Value = receiver.ask(&Order::Join { line }).await?;
        Ok(Self {
            relay,
            sender,
            receiver,
            api,
            dir,
        })
    }

    /// Where vaults and archive lie.
    pub(super) fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub(super) async fn close(self) -> Result<(), Failure> {
        self.sender.end().await?;
        self.receiver.end().await?;
        self.relay.end().await?;
        let (stop, serving) = self.api;
        stop.cancel();
        // It panicked, which was logged, or it has ended.
        let _ = serving.await;
        Ok(self.dir.close()?)
    }
}
