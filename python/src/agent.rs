//! An agent as Python holds it.

use std::path::PathBuf;

use pyo3::prelude::*;
use skytale_sdk::{self as sdk, ChannelState, Closed, Error, Secret, Traffic, VaultKey};
use tokio::sync::broadcast;

use crate::{
    channel::{Channel, seconds},
    errors,
    events::{self, Events, Told},
    native::Native,
    operation::{Kind, Operation},
};

/// One open agent.
#[pyclass(frozen, module = "skytale._core")]
pub(crate) struct Agent {
    agent: Native<sdk::Agent>,
    /// What this package itself has to tell, besides the SDK.
    notices: broadcast::Sender<Told>,
}

/// What was set by the program. What was not comes from the environment, the context or the
/// defaults.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Settings {
    api_key: Option<String>,
    api_url: Option<String>,
    relay: Option<String>,
    data_dir: Option<PathBuf>,
    config_dir: Option<PathBuf>,
    context: Option<String>,
    vault_key: Option<String>,
    traffic: Option<String>,
    /// Seconds that messages are kept. As it was, without it.
    history: Option<f64>,
}

/// Id, name, state, epoch, members, confirmed, admin, may invite, unread, outbox.
type View = (
    String,
    Option<String>,
    &'static str,
    u64,
    u32,
    bool,
    bool,
    bool,
    u32,
    u32,
);

impl Agent {
    /// Made inside the runtime.
    fn new(agent: sdk::Agent) -> Self {
        let (notices, _) = broadcast::channel(NOTICES_MAX);
        Self {
            agent: Native::new(agent),
            notices,
        }
    }

    fn agent(&self, py: Python<'_>) -> PyResult<sdk::Agent> {
        self.agent
            .get()
            .cloned()
            .map_err(|error| errors::raise(py, &error))
    }
}

#[pymethods]
impl Agent {
    /// Opens the agent of this name, making it on first use.
    #[staticmethod]
    fn open(name: String, settings: Settings) -> Operation {
        Operation::new(Kind::Change, async move {
            let mut builder = sdk::Agent::builder(&name);
            if let Some(key) = settings.api_key {
                builder = builder.api_key(Secret::new(key));
            }
            if let Some(url) = settings.api_url {
                builder = builder.api_url(&url);
            }
            if let Some(relay) = settings.relay {
                builder = builder.relay(relay.parse()?);
            }
            if let Some(dir) = settings.data_dir {
                builder = builder.data_dir(dir);
            }
            if let Some(dir) = settings.config_dir {
                builder = builder.config_dir(dir);
            }
            if let Some(context) = settings.context {
                builder = builder.context(&context);
            }
            if let Some(hex) = settings.vault_key {
                builder = builder.vault_key(VaultKey::from_hex(&hex)?);
            }
            if let Some(traffic) = settings.traffic {
                builder = builder.traffic(traffic.parse::<Traffic>()?);
            }
            let agent = builder.open().await?;
            if let Some(keep) = settings.history {
                agent.keep_history(seconds(keep)?).await?;
            }
            Ok(Self::new(agent))
        })
    }

    #[getter]
    fn id(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.agent(py)?.id().to_string())
    }

    #[getter]
    fn data_dir(&self, py: Python<'_>) -> PyResult<PathBuf> {
        Ok(self.agent(py)?.data_dir().to_owned())
    }

    fn channel(&self, py: Python<'_>, name: String) -> PyResult<Operation> {
        let agent = self.agent(py)?;
        Ok(Operation::new(Kind::Change, async move {
            agent.channel(&name).await.map(Channel::new)
        }))
    }

    fn find(&self, py: Python<'_>, name: String) -> PyResult<Operation> {
        let agent = self.agent(py)?;
        Ok(Operation::new(Kind::Waiting, async move {
            Ok(agent.find(&name).await?.map(Channel::new))
        }))
    }

    fn join(&self, py: Python<'_>, line: String) -> PyResult<Operation> {
        let agent = self.agent(py)?;
        Ok(Operation::new(Kind::Change, async move {
            agent.join(&line).await.map(Channel::new)
        }))
    }

    fn accept(&self, py: Python<'_>, channel: String) -> PyResult<Operation> {
        let agent = self.agent(py)?;
        Ok(Operation::new(Kind::Change, async move {
            agent.accept(&channel).await.map(Channel::new)
        }))
    }

    fn decline(&self, py: Python<'_>, channel: String) -> PyResult<Operation> {
        let agent = self.agent(py)?;
        Ok(Operation::silent(Kind::Change, async move {
            agent.decline(&channel).await
        }))
    }

    fn channels(&self, py: Python<'_>) -> PyResult<Operation> {
        let agent = self.agent(py)?;
        Ok(Operation::new(Kind::Waiting, async move {
            let views = agent.channels().await?;
            Ok(views.iter().map(view).collect::<Vec<View>>())
        }))
    }

    fn online(&self, py: Python<'_>) -> PyResult<Operation> {
        let agent = self.agent(py)?;
        Ok(Operation::silent(Kind::Waiting, async move {
            agent.online().await
        }))
    }

    fn caught_up(&self, py: Python<'_>) -> PyResult<Operation> {
        let agent = self.agent(py)?;
        Ok(Operation::silent(Kind::Waiting, async move {
            agent.caught_up().await
        }))
    }

    fn events(&self, py: Python<'_>) -> PyResult<Events> {
        let agent = self.agent(py)?;
        let events = self.agent.beside(agent.events());
        Ok(Events::new(events, self.notices.subscribe()))
    }

    /// Tells whoever listens to events that replies to a peer are paused.
    fn tell_paused(&self, channel: String, peer: String) {
        // It fails when nobody listens.
        let _ = self.notices.send(events::replies_paused(channel, peer));
    }

    fn close(&self, py: Python<'_>) -> PyResult<Operation> {
        let agent = self.agent(py)?;
        Ok(Operation::silent(Kind::Change, async move {
            agent.close().await
        }))
    }
}

fn view(view: &sdk::ChannelView) -> View {
    let state = match view.state {
        ChannelState::Creating => "creating",
        ChannelState::Joining => "joining",
        ChannelState::Offered(_) => "offered",
        ChannelState::Active => "active",
        ChannelState::Leaving => "leaving",
        ChannelState::Stuck => "stuck",
        ChannelState::Closed(Closed::Removed) => "removed",
        ChannelState::Closed(Closed::Left) => "left",
        ChannelState::Closed(Closed::Declined) => "declined",
        ChannelState::Closed(Closed::Refused) => "refused",
    };
    (
        view.id.to_string(),
        view.name.as_ref().map(ToString::to_string),
        state,
        view.epoch.0,
        view.members,
        view.confirmed,
        view.admin,
        view.may_invite,
        view.unread,
        view.outbox,
    )
}

/// An id as Python has it: text.
pub(crate) fn agent_id(text: &str) -> Result<sdk::AgentId, Error> {
    text.parse()
        .map_err(|_| Error::Misuse("an agent's id is agt_ and 52 letters and digits".into()))
}

/// Events of ours that wait for a slow reader; older ones are dropped.
const NOTICES_MAX: usize = 64;
