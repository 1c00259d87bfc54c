//! Tokens bought, counted together: whoever comes while a key's row is being written to waits, and
//! all who wait for one key are then counted in one transaction.
//!
//! Each purchase has to be on the server's disk before it is answered, and all with one key write to
//! the same row, so one at a time they would cost a turn of the disk each.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use skytale_wire::{
    id::{AgentId, Time},
    month::Month,
    token::{AccountId, KeyId},
};
use sqlx::{PgConnection, PgPool, Row as _};
use tokio::sync::oneshot;

use super::{account, ms, time_or_none, usage, verb};
use crate::{
    plans::Bounds,
    store::{AGENT_MS_KEPT, Exchange, Failure},
};

/// Purchases that wait, by their keys. A key that is in it has a task that serves it.
#[derive(Default)]
pub(super) struct Queues(Arc<Mutex<HashMap<KeyId, Vec<Waiting>>>>);

struct Waiting {
    purchase: Purchase,
    reply: oneshot::Sender<Result<Exchange, Failure>>,
}

/// One token, perhaps for an agent, bought at a time in a month that is bounded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Purchase {
    pub(super) agent: Option<AgentId>,
    pub(super) month: Month,
    pub(super) bounds: Bounds,
    pub(super) now: Time,
}

impl Queues {
    /// Counts it with the others that wait for this key. `limit` bounds each transaction.
    pub(super) fn count(
        &self,
        pool: &PgPool,
        limit: Duration,
        key: KeyId,
        purchase: Purchase,
    ) -> oneshot::Receiver<Result<Exchange, Failure>> {
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { purchase, reply };
        match self.lock().entry(key) {
            Entry::Occupied(mut waits) => waits.get_mut().push(waiting),
            Entry::Vacant(nobody) => {
                let turn = Turn {
                    queues: Self(Arc::clone(&self.0)),
                    key: nobody.key().clone(),
                    over: false,
                };
                nobody.insert(vec![waiting]);
                tokio::spawn(turn.serve(pool.clone(), limit));
            }
        }
        answer
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KeyId, Vec<Waiting>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to serve a key. However it ends, the next one who comes finds nobody in the way; who
/// waited then is told that the store is not there.
struct Turn {
    queues: Queues,
    key: KeyId,
    /// The key has no place any more, or somebody else's.
    over: bool,
}

impl Turn {
    /// Until nobody waits any more.
    async fn serve(mut self, pool: PgPool, limit: Duration) {
        while let Some(together) = self.next() {
            let (purchases, replies): (Vec<_>, Vec<_>) = together
                .into_iter()
                .map(|one| (one.purchase, one.reply))
                .unzip();
            let (tell, told) = oneshot::channel();
            let key = self.key.clone();
            tokio::spawn(verb(
                pool.clone(),
                limit,
                move |db| Box::pin(count(db, key, purchases)),
                tell,
            ));
            let counted: Result<Vec<Exchange>, Failure> =
                told.await.unwrap_or(Err(Failure::Unavailable));
            for (place, reply) in replies.into_iter().enumerate() {
                // Nobody waits any more when the request was given up: it is counted.
                let _ = reply.send(counted.as_ref().map(|all| all[place]).map_err(|why| *why));
            }
        }
    }

    /// Those who go together next. With none left the turn is over, in the same moment.
    fn next(&mut self) -> Option<Vec<Waiting>> {
        let mut queues = self.queues.lock();
        let waits = queues.get_mut(&self.key)?;
        if waits.is_empty() {
            queues.remove(&self.key);
            self.over = true;
            return None;
        }
        let later = waits.split_off(waits.len().min(TOGETHER_MAX));
        Some(mem::replace(waits, later))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.over {
            self.queues.lock().remove(&self.key);
        }
    }
}

/// What becomes of each of a key's purchases, in their order.
async fn count(
    db: &mut PgConnection,
    key: KeyId,
    purchases: Vec<Purchase>,
) -> Result<Vec<Exchange>, sqlx::Error> {
    // A revocation that is under way is waited for, and then seen.
    let row = sqlx::query(
        "SELECT account, expires_ms FROM api_keys WHERE id = $1 AND revoked_ms IS NULL
         FOR NO KEY UPDATE",
    )
    .bind(key.as_str())
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else {
        return Ok(vec![Exchange::NoKey; purchases.len()]);
    };
    let owner = account(&row, 0)?;
    let ends = time_or_none(&row, 1)?;
    let mut exhausted = Vec::new();
    let mut answers = Vec::new();
    for purchase in &purchases {
        answers.push(if ends.is_some_and(|end| end <= purchase.now) {
            Exchange::NoKey
        } else if is_exhausted(db, owner, purchase, &mut exhausted).await? {
            Exchange::Exhausted
        } else {
            Exchange::Counted
        });
    }
    let disabled = remember_agents(db, owner, still_counted(&purchases, &answers)).await?;
    for (purchase, answer) in purchases.iter().zip(&mut answers) {
        if *answer == Exchange::Counted && purchase.agent.is_some_and(|it| disabled.contains(&it)) {
            *answer = Exchange::AgentDisabled;
        }
    }
    let mut months: BTreeMap<Month, u32> = BTreeMap::new();
    for purchase in still_counted(&purchases, &answers) {
        *months.entry(purchase.month).or_default() += 1;
    }
    for (month, tokens) in months {
        usage::count_tokens(db, owner, &key, month, tokens).await?;
    }
    let last = still_counted(&purchases, &answers).map(|it| it.now).max();
    if let Some(last) = last {
        sqlx::query("UPDATE api_keys SET last_used_ms = $2 WHERE id = $1")
            .bind(key.as_str())
            .bind(ms(last))
            .execute(db)
            .await?;
    }
    Ok(answers)
}

fn still_counted<'a>(
    purchases: &'a [Purchase],
    answers: &'a [Exchange],
) -> impl Iterator<Item = &'a Purchase> {
    let all = purchases.iter().zip(answers);
    all.filter_map(|(purchase, answer)| (*answer == Exchange::Counted).then_some(purchase))
}

/// Asks once for each month and each bounds; nearly always all are the same.
async fn is_exhausted(
    db: &mut PgConnection,
    owner: AccountId,
    purchase: &Purchase,
    asked: &mut Vec<(Month, Bounds, bool)>,
) -> Result<bool, sqlx::Error> {
    let Purchase { month, bounds, .. } = *purchase;
    let known = asked.iter().find(|it| (it.0, it.1) == (month, bounds));
    if let Some((_, _, exhausted)) = known {
        return Ok(*exhausted);
    }
    let exhausted = usage::is_exhausted(db, owner, month, bounds).await?;
    asked.push((month, bounds, exhausted));
    Ok(exhausted)
}

/// Notes that they were seen, and gives those that are shut out. When a new one comes, those that
/// were not seen for long are forgotten.
async fn remember_agents(
    db: &mut PgConnection,
    owner: AccountId,
    purchases: impl Iterator<Item = &Purchase>,
) -> Result<Vec<AgentId>, sqlx::Error> {
    let mut seen: BTreeMap<AgentId, Time> = BTreeMap::new();
    for purchase in purchases {
        if let Some(agent) = purchase.agent {
            let last = seen.entry(agent).or_insert(purchase.now);
            *last = purchase.now.max(*last);
        }
    }
    let Some(now) = seen.values().max().copied() else {
        return Ok(Vec::new());
    };
    // In the order of their ids: another key of the account may buy for the same agents at this
    // moment, and the two must not wait for each other in a circle.
    let rows = sqlx::query(
        "INSERT INTO agents (account, agent, first_ms, last_ms)
         SELECT $1, seen.agent, seen.at, seen.at
         FROM unnest($2::BYTEA[], $3::BIGINT[]) AS seen (agent, at) ORDER BY seen.agent
         ON CONFLICT (account, agent) DO UPDATE SET last_ms =
             CASE WHEN agents.disabled_ms IS NULL THEN excluded.last_ms ELSE agents.last_ms END
         RETURNING agent, disabled_ms IS NOT NULL, first_ms = last_ms",
    )
    .bind(owner.0)
    .bind(
        seen.keys()
            .map(|agent| agent.0.to_vec())
            .collect::<Vec<_>>(),
    )
    .bind(seen.values().map(|at| ms(*at)).collect::<Vec<_>>())
    .fetch_all(&mut *db)
    .await?;
    let (mut disabled, mut any_new) = (Vec::new(), false);
    for row in rows {
        if row.try_get(1)? {
            disabled.push(AgentId(row.try_get(0)?));
        }
        any_new |= row.try_get::<bool, _>(2)?;
    }
    if any_new {
        let long_ago = Time(now.0.saturating_sub(AGENT_MS_KEPT));
        sqlx::query(
            "DELETE FROM agents WHERE account = $1 AND last_ms < $2 AND disabled_ms IS NULL",
        )
        .bind(owner.0)
        .bind(ms(long_ago))
        .execute(db)
        .await?;
    }
    Ok(disabled)
}

/// So many in one transaction: beyond it the first would wait longer than the others gain.
const TOGETHER_MAX: usize = 64;
