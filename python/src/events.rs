//! What happens besides messages, on its way to Python: as in [`crate::inbox`], waiting fills the
//! store and taking out is one step.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pyo3::prelude::*;
use skytale_sdk::{self as sdk, AgentId, ChannelId, Error, Event, RelayKey};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::{
    errors,
    native::Native,
    operation::{Kind, Operation},
};

/// Events from the moment the agent was opened.
#[pyclass(frozen, module = "skytale._core")]
pub(crate) struct Events {
    events: Native<Arc<Shared>>,
}

struct Shared {
    source: tokio::sync::Mutex<Source>,
    ready: Mutex<VecDeque<Told>>,
}

struct Source {
    events: sdk::Events,
    notices: broadcast::Receiver<Told>,
}

/// An event as a dictionary: what it is about, as far as it is about that.
#[derive(IntoPyObject, Debug, Clone, Default)]
pub(crate) struct Told {
    kind: &'static str,
    channel: Option<String>,
    agent: Option<String>,
    by: Option<String>,
    epoch: Option<u64>,
    seq: Option<u64>,
    amount: Option<u64>,
    relay: Option<String>,
}

impl Events {
    pub(crate) fn new(events: Native<sdk::Events>, notices: broadcast::Receiver<Told>) -> Self {
        let (beside, events) = events.take_apart();
        Self {
            events: beside.beside(Arc::new(Shared {
                source: tokio::sync::Mutex::new(Source { events, notices }),
                ready: Mutex::default(),
            })),
        }
    }

    fn shared(&self, py: Python<'_>) -> PyResult<&Arc<Shared>> {
        self.events.get().map_err(|error| errors::raise(py, &error))
    }
}

#[pymethods]
impl Events {
    /// Waits for an event; false when there will be none.
    fn arrival(&self, py: Python<'_>) -> PyResult<Operation> {
        let shared = Arc::clone(self.shared(py)?);
        Ok(Operation::new(
            Kind::Waiting,
            async move { shared.fill().await },
        ))
    }

    /// The next event that is here.
    fn pop(&self, py: Python<'_>) -> PyResult<Option<Told>> {
        let event = lock(&self.shared(py)?.ready).pop_front();
        Ok(event)
    }
}

impl Shared {
    async fn fill(&self) -> Result<bool, Error> {
        let mut source = self.source.lock().await;
        if !lock(&self.ready).is_empty() {
            return Ok(true);
        }
        let Some(told) = source.next().await? else {
            return Ok(false);
        };
        lock(&self.ready).push_back(told);
        Ok(true)
    }
}

impl Source {
    async fn next(&mut self) -> Result<Option<Told>, Error> {
        loop {
            tokio::select! {
                event = self.events.next() => return Ok(event?.map(|event| tell(&event))),
                notice = self.notices.recv() => match notice {
                    Ok(told) => return Ok(Some(told)),
                    Err(RecvError::Lagged(_)) => {}
                    // The agent is gone: only what the vault holds is left to tell.
                    Err(RecvError::Closed) => {
                        return Ok(self.events.next().await?.map(|event| tell(&event)));
                    }
                },
            }
        }
    }
}

/// Replies to a peer are paused: the package's own event, beside the SDK's.
pub(crate) fn replies_paused(channel: String, peer: String) -> Told {
    Told {
        kind: "replies_paused",
        channel: Some(channel),
        agent: Some(peer),
        ..Told::default()
    }
}

fn tell(event: &Event) -> Told {
    match event {
        Event::Entered { channel } => of("entered", channel),
        Event::AcceptanceWanted { channel, by } => by_whom("acceptance_wanted", channel, by),
        Event::Joined { channel, agent } => about("joined", channel, agent),
        Event::Left { channel, agent } => about("left", channel, agent),
        Event::Removed { channel, agent, by } => Told {
            by: Some(by.to_string()),
            ..about("removed", channel, agent)
        },
        Event::EpochChanged { channel, epoch } => Told {
            epoch: Some(epoch.0),
            ..of("epoch_changed", channel)
        },
        Event::LabelChanged { channel, agent } => about("label_changed", channel, agent),
        Event::Gap {
            channel,
            agent,
            missing,
        } => Told {
            amount: Some(*missing),
            ..about("gap", channel, agent)
        },
        Event::Pruned { channel, up_to } => Told {
            seq: Some(up_to.0),
            ..of("pruned", channel)
        },
        Event::ForkSuspected {
            channel,
            agent,
            seq,
        } => Told {
            seq: Some(seq.0),
            ..about("fork_suspected", channel, agent)
        },
        Event::LogRollback { channel, seq } => Told {
            seq: Some(seq.0),
            ..of("log_rollback", channel)
        },
        Event::Unreadable {
            channel,
            agent,
            seq,
        } => Told {
            seq: Some(seq.0),
            ..about("unreadable", channel, agent)
        },
        Event::ChannelStuck { channel, by, seq } => Told {
            seq: Some(seq.0),
            ..by_whom("channel_stuck", channel, by)
        },
        Event::OrphanWelcome { channel } => of("orphan_welcome", channel),
        Event::Confirmed { channel } => of("confirmed", channel),
        Event::Connected { relay } => at("connected", relay, None),
        Event::Disconnected { relay } => at("disconnected", relay, None),
        Event::CoverMissing { relay, missing } => at("cover_missing", relay, Some(*missing)),
        Event::OverSchedule { relay, cells } => at("over_schedule", relay, Some(*cells)),
    }
}

fn of(kind: &'static str, channel: &ChannelId) -> Told {
    Told {
        kind,
        channel: Some(channel.to_string()),
        ..Told::default()
    }
}

fn about(kind: &'static str, channel: &ChannelId, agent: &AgentId) -> Told {
    Told {
        agent: Some(agent.to_string()),
        ..of(kind, channel)
    }
}

fn by_whom(kind: &'static str, channel: &ChannelId, by: &AgentId) -> Told {
    Told {
        by: Some(by.to_string()),
        ..of(kind, channel)
    }
}

fn at(kind: &'static str, relay: &RelayKey, amount: Option<u64>) -> Told {
    Told {
        kind,
        amount,
        relay: Some(relay.to_string()),
        ..Told::default()
    }
}

/// Nothing panics while it holds this lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
