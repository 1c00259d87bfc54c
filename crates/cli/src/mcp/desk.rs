//! One server's agent and its calls: opened by the first, closed after the last.
//!
//! A client that merely starts the server in some directory leaves no agent there. What the tools
//! do with the agent stands in `answers.rs`.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rmcp::model::{JsonObject, RequestId};
use skytale_sdk::{Agent, Channel, ChannelId, Message, Timeouts};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{NamedBy, inbox::Inbox, tools::Which};
use crate::{
    args::{self, Everywhere},
    context,
    exit::{Exit, Failure},
    wake::Waker,
};

/// One server's agent, and what is known of its calls.
pub(super) struct Desk {
    pub(super) name: String,
    pub(super) named_by: NamedBy,
    /// Those who may wake the agent.
    pub(super) wakers: Vec<Waker>,
    pub(super) everywhere: Everywhere,
    /// `None` before the first call and after the last.
    agent: tokio::sync::Mutex<Option<Agent>>,
    inboxes: Mutex<HashMap<ChannelId, Arc<tokio::sync::Mutex<Inbox>>>>,
    /// The newest message of each channel that a call has been given.
    given: Mutex<BTreeMap<ChannelId, i64>>,
    /// Calls whose answers the client does not want any more, oldest first.
    given_up: Mutex<VecDeque<RequestId>>,
    ending: CancellationToken,
    work: TaskTracker,
}

/// A call as the protocol brings it.
pub(super) struct Call {
    pub(super) tool: Which,
    pub(super) arguments: JsonObject,
    pub(super) id: RequestId,
    /// Cancelled when the client gives the call up.
    pub(super) given_up: CancellationToken,
}

impl Desk {
    pub(super) fn new(
        name: String,
        named_by: NamedBy,
        wakers: Vec<Waker>,
        everywhere: Everywhere,
    ) -> Self {
        Self {
            name,
            named_by,
            wakers,
            everywhere,
            agent: tokio::sync::Mutex::default(),
            inboxes: Mutex::default(),
            given: Mutex::default(),
            given_up: Mutex::default(),
            ending: CancellationToken::new(),
            work: TaskTracker::new(),
        }
    }

    /// Cancelled when no more calls come.
    pub(super) fn ending(&self) -> CancellationToken {
        self.ending.clone()
    }

    /// What the end of the server waits for.
    pub(super) const fn work(&self) -> &TaskTracker {
        &self.work
    }

    /// The client does not want the answer to this call any more.
    pub(super) fn give_up(&self, call: RequestId) {
        let mut given_up = lock(&self.given_up);
        if given_up.len() == GIVEN_UP_MAX {
            given_up.pop_front();
        }
        given_up.push_back(call);
    }

    /// Whether the client has given this call up.
    pub(super) fn has_given_up(&self, call: &RequestId) -> bool {
        lock(&self.given_up).contains(call)
    }

    /// The agent, which is opened, and made when it is new, the first time.
    pub(super) async fn agent(&self) -> Result<Agent, Failure> {
        let mut agent = self.agent.lock().await;
        if self.ending.is_cancelled() {
            return Err(Failure::failed("this server is ending: start it again"));
        }
        if let Some(agent) = &*agent {
            return Ok(agent.clone());
        }
        let mut flags = context::flags(&self.everywhere);
        if self.everywhere.timeout.is_none() {
            flags.timeouts = Timeouts {
                stored: STORED_MAX,
                change: CHANGE_MAX,
                ..flags.timeouts
            };
        }
        let opened = Agent::builder(&self.name).flags(flags).open().await?;
        Ok(agent.insert(opened).clone())
    }

    /// The newest message of this channel that a call has been given, as [`Message::row`].
    pub(super) fn given(&self, channel: ChannelId) -> i64 {
        lock(&self.given).get(&channel).copied().unwrap_or_default()
    }

    /// Lets what is being done come to its end, and what can still leave, leave.
    pub(super) async fn close(&self) {
        self.ending.cancel();
        self.work.close();
        let _ = timeout(LAST_CALLS_MAX, self.work.wait()).await;
        lock(&self.inboxes).clear();
        if let Some(agent) = self.agent.lock().await.take()
            && let Err(error) = agent.close().await
        {
            tracing::debug!(%error, "the agent was not closed well");
        }
    }

    /// The channel that a call names.
    pub(super) async fn channel(&self, agent: &Agent, named: &str) -> Result<Channel, Failure> {
        let which: args::Which = named.parse().map_err(Failure::usage)?;
        let found = context::channel(agent, Some(&which)).await;
        found.map_err(|failure| match failure.exit() {
            Exit::NotFound => Failure::not_found(
                "this agent is in no such channel: channels lists those it is in, open makes one, and join enters one by an invite",
            ),
            Exit::Failed
            | Exit::Usage
            | Exit::Denied
            | Exit::Unreachable
            | Exit::Policy
            | Exit::Timeout => failure,
        })
    }

    /// What `receive` reads this channel from.
    pub(super) fn inbox(&self, channel: &Channel) -> Arc<tokio::sync::Mutex<Inbox>> {
        let mut inboxes = lock(&self.inboxes);
        let inbox = inboxes
            .entry(channel.id())
            .or_insert_with(|| Arc::new(tokio::sync::Mutex::new(Inbox::of(channel))));
        Arc::clone(inbox)
    }

    /// A call gives these out.
    pub(super) fn were_given(&self, channel: ChannelId, messages: &[Message]) {
        let Some(newest) = messages.iter().map(Message::row).max() else {
            return;
        };
        let mut given = lock(&self.given);
        let row = given.entry(channel).or_insert(newest);
        *row = newest.max(*row);
    }
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call must be over before clients give it up, which they do after a minute.
pub(super) const CALL_MAX: Duration = Duration::from_secs(50);
/// Slots of a hidden line are not added: what has not left by then is kept, and that is an answer.
pub(super) const STORED_MAX: Duration = Duration::from_secs(20);
const CHANGE_MAX: Duration = Duration::from_secs(40);
/// How long calls that are under way may take when the server ends.
const LAST_CALLS_MAX: Duration = Duration::from_secs(2);
/// Calls that were given up, as far as they are remembered: only the last of each channel matters.
const GIVEN_UP_MAX: usize = 256;
