//! SLIM's names, as an agent reaches them over its own line: plain messages here, sessions with
//! stock SLIM agents in [`SlimParty`].
//!
//! A plain message belongs to no session: stock SLIM agents ignore it, whoever is subscribed to the
//! name hears it. The relay sees what is in it, unless the application sealed it.
//!
//! Only the process that holds the agent's line can do this; others are told which one does.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use rand::RngExt as _;
use skytale_slim::{Draft, Generation, Header, MessageType, Said, Session, SessionKind};
use skytale_wire::{
    frame::{SLIM_LOGS_MAX, SlimName, TakeSlimLogs},
    id::{MessageId, RelayKey, Seq, SlimInstance},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use self::desk::{Delivery, SlimAsk, Subscribed};
use crate::{client::Inner, error::Error, worker::Ask};

pub(crate) mod desk;
mod party;

pub use party::SlimParty;
pub use skytale_slim::{Address, Instance, Name, Routed};
pub use skytale_slim_session::{
    BadSecret, Ended, Event, Invitations, Message, Reliability, SessionId, Settings, SharedSecret,
};
pub use skytale_wire::frame::SlimLog;

/// A name of SLIM at the agent's home relay.
#[derive(Debug)]
pub struct Slim {
    inner: Arc<Inner>,
    relay: RelayKey,
    name: Name,
    /// Makes messages of this handle different from all others, so that the relay can tell a
    /// repeated one.
    session: u32,
    count: AtomicU32,
}

impl Slim {
    pub(crate) fn new(inner: Arc<Inner>, relay: RelayKey, name: Name) -> Self {
        Self {
            inner,
            relay,
            name,
            session: rand::rng().random(),
            count: AtomicU32::new(1),
        }
    }

    /// The same name at one instance, as a group's data and control names are.
    #[must_use]
    pub fn at(mut self, instance: u128) -> Self {
        self.name = self.name.at(Instance::Only(instance));
        self
    }

    /// Which name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What is said to the name. With a place, the relay's log of the name is read from behind it,
    /// and then what comes, each message once and in order; without, only what comes while the line
    /// is up.
    ///
    /// One subscription of a process to a name at a time.
    pub async fn messages(&self, after: Option<Seq>) -> Result<SlimMessages, Error> {
        let (to, deliveries) = mpsc::channel(DELIVERIES_MAX);
        let (answer, answered) = oneshot::channel();
        let name = wire_name(self.name.address);
        let guard = Unsubscribe {
            inner: Arc::clone(&self.inner),
            relay: self.relay,
            name,
            to: to.downgrade(),
        };
        let ask = SlimAsk::Subscribe {
            name,
            after,
            to,
            answer: Some(answer),
        };
        let subscribed = self.inner.slim(self.relay, ask, answered).await?;
        Ok(SlimMessages {
            _guard: guard,
            deliveries,
            subscribed,
        })
    }

    /// Which logs the relay keeps of the name: of what went to any who holds it, and of what went to one
    /// instance, as everything in sessions does. In the order of instances.
    pub async fn logs(&self) -> Result<Vec<SlimLog>, Error> {
        let mut logs: Vec<SlimLog> = Vec::new();
        loop {
            let of = TakeSlimLogs {
                id: MessageId(rand::rng().random()),
                components: self.name.address.components.0,
                after: logs.last().and_then(|last| last.instance),
            };
            let (answer, answered) = oneshot::channel();
            let ask = SlimAsk::Logs { of, answer };
            let more = self.inner.slim(self.relay, ask, answered).await?;
            let may_follow = more.len() >= SLIM_LOGS_MAX;
            logs.extend(more);
            // One that has no instance comes first, so the last of many has one.
            if !may_follow || logs.last().is_none_or(|last| last.instance.is_none()) {
                return Ok(logs);
            }
        }
    }

    /// Says something to all who are subscribed to the name. Its place in the relay's log, if the
    /// relay keeps one.
    pub async fn publish(&self, payload: impl Into<Bytes>) -> Result<Option<Seq>, Error> {
        let draft = Draft {
            header: Header {
                source: self.name.clone().at(self.inner.slim_instance()),
                destination: self.name.clone(),
                identity: String::new(),
                fanout: TO_ALL,
            },
            session: Session {
                kind: SessionKind::Unknown(0),
                message: MessageType::Msg,
                id: self.session,
                message_id: self.count.fetch_add(1, Ordering::Relaxed),
            },
            said: Said::Application {
                payload_type: PAYLOAD_TYPE.to_owned(),
                blob: payload.into(),
            },
            metadata: std::collections::BTreeMap::new(),
        };
        let routed = draft
            .routed(Generation::Two)
            .map_err(|refused| Error::misuse(refused.to_string()))?;
        self.publish_message(&routed).await
    }

    /// Says a message that was made elsewhere, whole; its own header says where it goes.
    pub async fn publish_message(&self, message: &Routed) -> Result<Option<Seq>, Error> {
        let (answer, answered) = oneshot::channel();
        let ask = SlimAsk::Publish {
            message: message.clone(),
            answer: Some(answer),
        };
        self.inner.slim(self.relay, ask, answered).await
    }
}

/// What is said to a name, from the moment it was asked for. Dropping it ends the subscription.
#[derive(Debug)]
pub struct SlimMessages {
    _guard: Unsubscribe,
    deliveries: mpsc::Receiver<Delivery>,
    subscribed: Subscribed,
}

impl SlimMessages {
    /// The last place of the relay's log of the name when the subscription began.
    pub fn head(&self) -> Seq {
        self.subscribed.head
    }

    /// Places up to this one were gone by then.
    pub fn pruned(&self) -> Seq {
        self.subscribed.pruned
    }

    /// The next message. `None` when the agent was closed or its line went to another process.
    pub async fn next(&mut self) -> Result<Option<SlimMessage>, Error> {
        match self.deliveries.recv().await {
            None => Ok(None),
            Some(Delivery::Message { seq, message }) => Ok(Some(SlimMessage { seq, message })),
            Some(Delivery::Ended(error)) => Err(error),
        }
    }
}

/// A message that was said to a name.
#[derive(Debug, Clone)]
pub struct SlimMessage {
    seq: Option<Seq>,
    message: Routed,
}

impl SlimMessage {
    /// Its place in the relay's log of the name, if it has one. Where one is missing between two,
    /// it was larger than a frame.
    pub fn seq(&self) -> Option<Seq> {
        self.seq
    }

    /// Whom it claims to be from; nothing here proves it.
    pub fn source(&self) -> &Name {
        &self.message.header().source
    }

    /// The application's word for it and its bytes, if it is something that an application said.
    /// Ciphertext in sessions with MLS.
    pub fn payload(&self) -> Option<(&str, &Bytes)> {
        self.message.payload()
    }

    /// All of it, as its sender wrote it.
    pub fn message(&self) -> &Routed {
        &self.message
    }
}

impl fmt::Display for SlimMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.payload() {
            Some((_, payload)) => f.write_str(&String::from_utf8_lossy(payload)),
            None => Ok(()),
        }
    }
}

/// Ends a subscription when whoever reads it is gone.
#[derive(Debug)]
struct Unsubscribe {
    inner: Arc<Inner>,
    relay: RelayKey,
    name: SlimName,
    /// Weak, so that the reader sees the end when the worker lets go.
    to: mpsc::WeakSender<Delivery>,
}

impl Drop for Unsubscribe {
    fn drop(&mut self) {
        if let Some(to) = self.to.upgrade() {
            let name = self.name;
            let ask = Ask::Slim(self.relay, SlimAsk::Unsubscribe { name, to });
            // Without room the worker finds out by itself that nobody reads any more.
            let _ = self.inner.asks().try_send(ask);
        }
    }
}

impl Inner {
    /// Hands something about SLIM to the worker and waits for its answer.
    pub(crate) async fn slim<T>(
        &self,
        relay: RelayKey,
        ask: SlimAsk,
        answered: oneshot::Receiver<Result<T, Error>>,
    ) -> Result<T, Error> {
        self.check_process()?;
        let asked = async {
            let ask = Ask::Slim(relay, ask);
            self.asks().send(ask).await.map_err(|_| Error::closed())?;
            answered.await.map_err(|_| Error::closed())?
        };
        timeout(self.slim_limit(), asked).await.map_err(|_| {
            Error::unreachable("the relay did not answer in time: `skytale doctor` says more")
        })?
    }
}

pub(crate) fn wire_name(address: Address) -> SlimName {
    SlimName {
        components: address.components.0,
        instance: match address.instance {
            Instance::Any => None,
            Instance::Only(id) => Some(SlimInstance::from(id)),
        },
    }
}

/// Messages that wait for whoever reads a subscription. One with a cursor goes on from where it was
/// when there is room again; one without loses what comes meanwhile.
const DELIVERIES_MAX: usize = 256;
/// What SLIM's clients write when a message is for all.
const TO_ALL: u32 = 256;
/// What SLIM's clients call bytes without a type.
const PAYLOAD_TYPE: &str = "msg";
