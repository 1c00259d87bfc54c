//! What was used, in SQLite.

use rusqlite::{Row, Transaction, params};
use skytale_wire::{
    http::{UsageEntry, Used},
    id::{RelayKey, Time},
    month::Month,
    token::{AccountId, KeyId},
};

use super::{count, failure, ms, number};
use crate::{
    plans::Bounds,
    store::{Failure, ReportTaken},
};

/// Counts one token.
pub(super) fn count_token(
    tx: &Transaction<'_>,
    account: &[u8; 16],
    key: &KeyId,
    month: Month,
) -> Result<(), Failure> {
    tx.prepare_cached(
        "INSERT INTO usage_by_key (account, month, key, token_exchanges) VALUES (?1, ?2, ?3, 1)
         ON CONFLICT (account, month, key)
         DO UPDATE SET token_exchanges = token_exchanges + 1",
    )
    .and_then(|mut counted| counted.execute(params![account, month.to_string(), key.as_str()]))
    .map(|_| ())
    .map_err(failure)
}

/// Whether the account of a key has used up a month.
pub(super) fn is_exhausted(
    tx: &Transaction<'_>,
    key: &KeyId,
    month: Month,
    bounds: Bounds,
) -> Result<bool, Failure> {
    if bounds == Bounds::NONE {
        return Ok(false);
    }
    let (messages, bytes) = tx
        .prepare_cached(
            "SELECT coalesce(sum(messages), 0), coalesce(sum(bytes), 0) FROM usage_by_key
             WHERE account = (SELECT account FROM api_keys WHERE id = ?1) AND month = ?2",
        )
        .and_then(|mut found| {
            found.query_row(params![key.as_str(), month.to_string()], |row| {
                Ok((count(row, 0)?, count(row, 1)?))
            })
        })
        .map_err(failure)?;
    Ok(bounds.are_reached(messages, bytes))
}

pub(super) fn take_report(
    tx: &Transaction<'_>,
    relay: RelayKey,
    report: u64,
    entries: &[UsageEntry],
    now: Time,
) -> Result<ReportTaken, Failure> {
    let new = tx
        .execute(
            "INSERT INTO usage_reports (relay, number, taken_ms) VALUES (?1, ?2, ?3)
             ON CONFLICT (relay) DO UPDATE SET number = excluded.number, taken_ms = excluded.taken_ms
             WHERE usage_reports.number < excluded.number",
            params![relay.0, number(report), ms(now)],
        )
        .map_err(failure)?;
    if new == 0 {
        return Ok(ReportTaken::Before);
    }
    for entry in entries {
        // Of an account that was never here nothing can be kept; a deleted one has its number.
        tx.prepare_cached(
            "INSERT INTO usage_by_key (account, month, key, messages, bytes, delivered, connected_ms)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7
             WHERE EXISTS (SELECT 1 FROM accounts WHERE id = ?1)
             ON CONFLICT (account, month, key) DO UPDATE SET
                 messages = messages + excluded.messages, bytes = bytes + excluded.bytes,
                 delivered = delivered + excluded.delivered,
                 connected_ms = connected_ms + excluded.connected_ms",
        )
        .and_then(|mut added| {
            added.execute(params![
                entry.account_id.0,
                entry.month.to_string(),
                entry.key_id.as_ref().map_or("", |key| key.as_str()),
                number(entry.messages),
                number(entry.bytes),
                number(entry.delivered),
                number(entry.connected_ms)
            ])
        })
        .map_err(failure)?;
    }
    Ok(ReportTaken::Now)
}

pub(super) fn by_month(
    tx: &Transaction<'_>,
    account: AccountId,
) -> Result<Vec<(Month, Used)>, Failure> {
    tx.prepare_cached(
        "SELECT month, sum(token_exchanges), sum(messages), sum(bytes), sum(delivered),
                sum(connected_ms) / 1000
         FROM usage_by_key WHERE account = ?1 GROUP BY month ORDER BY month DESC",
    )
    .and_then(|mut found| {
        found
            .query_map([account.0], |row| {
                let month: String = row.get(0)?;
                let month = month.parse().map_err(|_| rusqlite::Error::InvalidQuery)?;
                Ok((month, used(row)?))
            })?
            .collect()
    })
    .map_err(failure)
}

pub(super) fn by_key(
    tx: &Transaction<'_>,
    account: AccountId,
    month: Month,
    limit: u32,
) -> Result<Vec<(Option<KeyId>, Used)>, Failure> {
    tx.prepare_cached(
        "SELECT key, token_exchanges, messages, bytes, delivered, connected_ms / 1000
         FROM usage_by_key WHERE account = ?1 AND month = ?2 ORDER BY key LIMIT ?3",
    )
    .and_then(|mut found| {
        found
            .query_map(params![account.0, month.to_string(), limit], |row| {
                let key: String = row.get(0)?;
                let key = match key.as_str() {
                    "" => None,
                    key => Some(key.parse().map_err(|_| rusqlite::Error::InvalidQuery)?),
                };
                Ok((key, used(row)?))
            })?
            .collect()
    })
    .map_err(failure)
}

/// Behind the first column.
fn used(row: &Row<'_>) -> rusqlite::Result<Used> {
    Ok(Used {
        token_exchanges: count(row, 1)?,
        messages: count(row, 2)?,
        bytes: count(row, 3)?,
        delivered: count(row, 4)?,
        connected_s: count(row, 5)?,
    })
}
