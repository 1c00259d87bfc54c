//! The agents of accounts, in SQLite.

use rusqlite::{OptionalExtension as _, Transaction, params};
use skytale_wire::{
    http::Revoked,
    id::{AgentId, Time},
    token::{AccountId, KeyId},
};

use super::{failure, list_revoked, ms, time, time_or_none};
use crate::store::{AGENT_MS_KEPT, AgentRow, Failure};

pub(super) fn page(
    tx: &Transaction<'_>,
    account: AccountId,
    after: Option<AgentId>,
    limit: u32,
) -> Result<Vec<AgentRow>, Failure> {
    tx.prepare_cached(
        "SELECT agent, first_ms, last_ms, disabled_ms FROM agents
         WHERE account = ?1 AND (?2 IS NULL OR agent > ?2) ORDER BY agent LIMIT ?3",
    )
    .and_then(|mut found| {
        found
            .query_map(params![account.0, after.map(|id| id.0), limit], |row| {
                Ok(AgentRow {
                    id: AgentId(row.get(0)?),
                    first: time(row, 1)?,
                    last: time(row, 2)?,
                    disabled: time_or_none(row, 3)?,
                })
            })?
            .collect()
    })
    .map_err(failure)
}

pub(super) fn disable(
    tx: &Transaction<'_>,
    account: AccountId,
    agent: AgentId,
    now: Time,
) -> Result<bool, Failure> {
    let enabled: Option<bool> = tx
        .query_row(
            "SELECT disabled_ms IS NULL FROM agents WHERE account = ?1 AND agent = ?2",
            params![account.0, agent.0],
            |row| row.get(0),
        )
        .optional()
        .map_err(failure)?;
    if enabled == Some(true) {
        tx.execute(
            "UPDATE agents SET disabled_ms = ?3 WHERE account = ?1 AND agent = ?2",
            params![account.0, agent.0, ms(now)],
        )
        .map_err(failure)?;
        list_revoked(tx, &Revoked::Agent { account, agent }, now)?;
    }
    Ok(enabled.is_some())
}

pub(super) fn enable(
    tx: &Transaction<'_>,
    account: AccountId,
    agent: AgentId,
) -> Result<bool, Failure> {
    let found = tx.execute(
        "UPDATE agents SET disabled_ms = NULL WHERE account = ?1 AND agent = ?2",
        params![account.0, agent.0],
    );
    found.map(|rows| rows == 1).map_err(failure)
}

/// Whether the account of a key has shut out this agent.
pub(super) fn is_disabled(
    tx: &Transaction<'_>,
    key: &KeyId,
    agent: &AgentId,
) -> Result<bool, Failure> {
    tx.prepare_cached(
        "SELECT agents.disabled_ms IS NOT NULL FROM agents
         JOIN api_keys ON api_keys.account = agents.account
         WHERE api_keys.id = ?1 AND agents.agent = ?2",
    )
    .and_then(|mut found| {
        found
            .query_row(params![key.as_str(), agent.0], |row| row.get(0))
            .optional()
    })
    .map(Option::unwrap_or_default)
    .map_err(failure)
}

/// Notes that a token was bought for an agent; with a new one, forgets those that are long gone.
pub(super) fn remember(
    tx: &Transaction<'_>,
    account: AccountId,
    agent: &AgentId,
    now: Time,
) -> Result<(), Failure> {
    let known = tx
        .prepare_cached("UPDATE agents SET last_ms = ?3 WHERE account = ?1 AND agent = ?2")
        .and_then(|mut seen| seen.execute(params![account.0, agent.0, ms(now)]))
        .map_err(failure)?;
    if known == 1 {
        return Ok(());
    }
    tx.execute(
        "INSERT INTO agents (account, agent, first_ms, last_ms) VALUES (?1, ?2, ?3, ?3)",
        params![account.0, agent.0, ms(now)],
    )
    .map_err(failure)?;
    let gone = Time(now.0.saturating_sub(AGENT_MS_KEPT));
    tx.execute(
        "DELETE FROM agents WHERE account = ?1 AND last_ms < ?2 AND disabled_ms IS NULL",
        params![account.0, ms(gone)],
    )
    .map(|_| ())
    .map_err(failure)
}
