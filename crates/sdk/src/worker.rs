//! The one thread that owns an agent's mind and its database connection.
//!
//! Here async stops: MLS arithmetic and disk never block anybody's runtime, order is given, no
//! lock exists. What waits is taken together and handled in one transaction; only when that is
//! committed do frames, answers and news leave. As long as another process holds the vault's lock,
//! this thread is a hand instead (`hand.rs`).

mod line;
mod mind;

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::{Connection, TransactionBehavior};
use skytale_agent::{Answer, Command, CommandId, Event};
use skytale_wire::id::{AgentId, RelayKey};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::mind::Mind;
use crate::{
    account::Account,
    config::{RelayAddr, Timeouts},
    error::Error,
    hand,
    link::{self, LinkView},
    slim::desk::SlimAsk,
    standing::Standing,
    stillness::AtWork,
    threads::Threads,
    traffic::{LineTally, Traffic},
    vault::{Held, LockFile, Vault},
};

/// What handles ask of the worker.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a bounded queue holds them for a moment"
)]
pub(crate) enum Ask {
    Do {
        id: CommandId,
        command: Command,
        answer: Replier,
    },
    /// Where this account's channels are made; the line to it is kept open even without any, so
    /// that others find KeyPackages of ours and can add us.
    Home(RelayAddr),
    Status(oneshot::Sender<WorkerView>),
    /// Something about SLIM at a relay; the mind has no part in it.
    Slim(RelayKey, SlimAsk),
    /// Answered when everything is closed and the lock is free.
    Close(oneshot::Sender<()>),
}

/// Where a command's answer goes.
pub(crate) type Replier = oneshot::Sender<Result<Answer, Error>>;

/// How things stand now.
#[derive(Debug)]
pub(crate) struct WorkerView {
    /// The process that holds the line, when it is not this one.
    pub(crate) held_by: Option<u32>,
    pub(crate) links: Vec<(RelayKey, LinkView)>,
    /// How far we are with each relay that we are connected to.
    pub(crate) standings: BTreeMap<RelayKey, Standing>,
}

impl WorkerView {
    /// That the API server does not take the key, when no relay lets this agent in. Only its user can
    /// mend that.
    pub(crate) fn locked_out(&self) -> Option<Error> {
        let mut links = self.links.iter().map(|(_, link)| link);
        if links
            .clone()
            .any(|link| link.state == link::LinkState::Ready)
        {
            return None;
        }
        let said = links.find_map(|link| link.unauthorized.clone())?;
        Some(Error::Unauthorized(said))
    }
}

/// What the thread is started with.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) vault: Arc<Vault>,
    pub(crate) label: String,
    pub(crate) home: Option<RelayAddr>,
    pub(crate) account: Option<Arc<Account>>,
    pub(crate) timeouts: Timeouts,
    pub(crate) traffic: Traffic,
    pub(crate) notices: broadcast::Sender<Event>,
    pub(crate) tally: Arc<LineTally>,
    /// Where links run.
    pub(crate) runtime: link::Runtime,
}

/// The handles' side.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) asks: mpsc::Sender<Ask>,
    /// Changes when there may be something new to read. Ends with the worker.
    pub(crate) news: watch::Receiver<u64>,
}

/// Starts the thread and waits until the vault is open and has an identity.
pub(crate) async fn start(start: Start, threads: &Threads) -> Result<(AgentId, Started), Error> {
    let lock = start.vault.lock_file()?;
    let (asks, asked) = mpsc::channel(ASKS_MAX);
    let (news, heard) = watch::channel(0);
    let (opened, identity) = oneshot::channel();
    let body = Body {
        start,
        lock,
        stop: threads.stop_token(),
        asks: asked,
        news,
        waiting: BTreeMap::new(),
        opened: Some(opened),
    };
    let runtime = AtWork::resting(tokio::runtime::Builder::new_current_thread().enable_time())
        .build()
        .map_err(|_| Error::unreachable("this machine has no room for another thread"))?;
    threads.spawn("skytale-mind", move || {
        let _at_work = AtWork::begin();
        let done = runtime.block_on(body.run());
        if let Some(done) = done {
            // Nobody waits any more: then nobody needs to know.
            let _ = done.send(());
        }
    })?;
    let id = identity.await.map_err(|_| Error::closed())??;
    Ok((id, Started { asks, news: heard }))
}

/// What stays the same whether the thread is the mind or a hand.
pub(crate) struct Body {
    pub(crate) start: Start,
    pub(crate) lock: LockFile,
    /// Cancelled when the thread shall end without waiting for anything.
    pub(crate) stop: CancellationToken,
    pub(crate) asks: mpsc::Receiver<Ask>,
    news: watch::Sender<u64>,
    /// Who waits for which command's answer.
    pub(crate) waiting: BTreeMap<CommandId, Replier>,
    opened: Option<oneshot::Sender<Result<AgentId, Error>>>,
}

/// Why the thread stopped being what it was.
pub(crate) enum Ended {
    /// The handles are gone, or one asked for the end and waits.
    Closed(Option<oneshot::Sender<()>>),
    /// The lock is ours now.
    Mind(Held),
}

impl Body {
    /// Gives back who waits for the end; everything is closed by then.
    async fn run(mut self) -> Option<oneshot::Sender<()>> {
        match self.live().await {
            Ok(done) => done,
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    async fn live(&mut self) -> Result<Option<oneshot::Sender<()>>, Error> {
        let held = match self.lock.try_hold()? {
            Some(held) => held,
            None => match hand::serve(self).await? {
                Ended::Closed(done) => return Ok(done),
                Ended::Mind(held) => held,
            },
        };
        let mut mind = Mind::open(self, &held)?;
        let done = mind.serve(self).await;
        mind.close(&self.stop).await;
        done
    }

    /// The vault has an identity and can be used.
    pub(crate) fn opened(&mut self, id: AgentId) {
        if let Some(opened) = self.opened.take() {
            // Whoever opened has lost patience; then the asks end too.
            let _ = opened.send(Ok(id));
        }
    }

    pub(crate) fn tell_news(&self) {
        self.news
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn reply(&mut self, id: CommandId, answer: Answer) {
        if let Some(replier) = self.waiting.remove(&id) {
            // Whoever asked has stopped waiting.
            let _ = replier.send(match answer {
                Answer::Failed(failure) => Err(skytale_agent::Error::from(failure).into()),
                Answer::Done | Answer::Channel(_) | Answer::Invite(_) | Answer::Stored(_) => {
                    Ok(answer)
                }
            });
        }
    }

    /// These commands were not taken up.
    pub(crate) fn refuse(&mut self, ids: impl Iterator<Item = CommandId>, error: &Error) {
        for id in ids {
            if let Some(replier) = self.waiting.remove(&id) {
                let _ = replier.send(Err(Error::Damaged(error.to_string())));
            }
        }
    }

    /// Nothing can go on: everybody who waits is told why.
    fn fail(&mut self, error: Error) {
        let text = error.to_string();
        if let Some(opened) = self.opened.take() {
            // Whoever opened has lost patience.
            let _ = opened.send(Err(error));
        } else {
            tracing::warn!(code = error.code(), text, "the agent's thread has ended");
        }
        for (_, replier) in std::mem::take(&mut self.waiting) {
            let _ = replier.send(Err(Error::Damaged(text.clone())));
        }
    }
}

/// A transaction that has the right to write from its first statement on.
pub(crate) fn begin(conn: &mut Connection) -> rusqlite::Result<rusqlite::Transaction<'_>> {
    conn.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Inputs of one step. More would make the first of them wait longer than a commit takes.
pub(crate) const STEP_INPUTS_MAX: usize = 256;
/// Commands that wait for the worker; more make their callers wait.
const ASKS_MAX: usize = 1024;

#[cfg(test)]
mod tests;
