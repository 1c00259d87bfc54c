//! What was used, in Postgres.

use skytale_wire::{
    http::{UsageEntry, Used},
    id::{RelayKey, Time},
    month::Month,
    token::{AccountId, KeyId},
};
use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::{count, ms, natural, number, senseless};
use crate::{plans::Bounds, store::ReportTaken};

/// Counts so many tokens.
pub(super) async fn count_tokens(
    db: &mut PgConnection,
    account: AccountId,
    key: &KeyId,
    month: Month,
    tokens: u32,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO usage_by_key (account, month, key, token_exchanges) VALUES ($1, $2, $3, $4)
         ON CONFLICT (account, month, key)
         DO UPDATE SET token_exchanges = usage_by_key.token_exchanges + excluded.token_exchanges",
    )
    .bind(account.0)
    .bind(month.to_string())
    .bind(key.as_str())
    .bind(i64::from(tokens))
    .execute(db)
    .await
    .map(|_| ())
}

/// Whether an account has used up a month.
pub(super) async fn is_exhausted(
    db: &mut PgConnection,
    account: AccountId,
    month: Month,
    bounds: Bounds,
) -> Result<bool, sqlx::Error> {
    if bounds == Bounds::NONE {
        return Ok(false);
    }
    let (messages, bytes): (i64, i64) = sqlx::query_as(
        "SELECT coalesce(sum(messages), 0)::BIGINT, coalesce(sum(bytes), 0)::BIGINT
         FROM usage_by_key WHERE account = $1 AND month = $2",
    )
    .bind(account.0)
    .bind(month.to_string())
    .fetch_one(db)
    .await?;
    Ok(bounds.are_reached(natural(messages)?, natural(bytes)?))
}

pub(super) async fn take_report(
    db: &mut PgConnection,
    relay: RelayKey,
    report: u64,
    entries: &[UsageEntry],
    now: Time,
) -> Result<ReportTaken, sqlx::Error> {
    // The same report at the same moment, by way of another server, waits here and is then old.
    let new = sqlx::query(
        "INSERT INTO usage_reports (relay, number, taken_ms) VALUES ($1, $2, $3)
         ON CONFLICT (relay) DO UPDATE SET number = excluded.number, taken_ms = excluded.taken_ms
         WHERE usage_reports.number < excluded.number",
    )
    .bind(relay.0)
    .bind(number(report))
    .bind(ms(now))
    .execute(&mut *db)
    .await?;
    if new.rows_affected() == 0 {
        return Ok(ReportTaken::Before);
    }
    let column = |of: fn(&UsageEntry) -> u64| -> Vec<i64> {
        entries.iter().map(|entry| number(of(entry))).collect()
    };
    let accounts = entries.iter().map(|entry| entry.account_id.0.to_vec());
    let months = entries.iter().map(|entry| entry.month.to_string());
    let keys = entries.iter().map(|entry| {
        let key = entry.key_id.as_ref();
        key.map_or("", |key| key.as_str()).to_owned()
    });
    // In the order of their keys, so that reports of several relays do not wait for each other in a
    // circle. Of an account that was never here nothing can be kept; a deleted one has its number.
    sqlx::query(
        "INSERT INTO usage_by_key (account, month, key, messages, bytes, delivered, connected_ms)
         SELECT entry.* FROM unnest($1::BYTEA[], $2::TEXT[], $3::TEXT[], $4::BIGINT[], $5::BIGINT[],
                                  $6::BIGINT[], $7::BIGINT[])
                           AS entry (account, month, key, messages, bytes, delivered, connected_ms)
         JOIN accounts ON accounts.id = entry.account
         ORDER BY entry.account, entry.month COLLATE \"C\", entry.key COLLATE \"C\"
         ON CONFLICT (account, month, key) DO UPDATE SET
             messages = usage_by_key.messages + excluded.messages,
             bytes = usage_by_key.bytes + excluded.bytes,
             delivered = usage_by_key.delivered + excluded.delivered,
             connected_ms = usage_by_key.connected_ms + excluded.connected_ms",
    )
    .bind(accounts.collect::<Vec<_>>())
    .bind(months.collect::<Vec<_>>())
    .bind(keys.collect::<Vec<_>>())
    .bind(column(|entry| entry.messages))
    .bind(column(|entry| entry.bytes))
    .bind(column(|entry| entry.delivered))
    .bind(column(|entry| entry.connected_ms))
    .execute(db)
    .await?;
    Ok(ReportTaken::Now)
}

pub(super) async fn by_month(
    db: &mut PgConnection,
    account: AccountId,
) -> Result<Vec<(Month, Used)>, sqlx::Error> {
    sqlx::query(
        "SELECT month, sum(token_exchanges)::BIGINT, sum(messages)::BIGINT, sum(bytes)::BIGINT,
                sum(delivered)::BIGINT, div(sum(connected_ms), 1000)::BIGINT
         FROM usage_by_key WHERE account = $1 GROUP BY month ORDER BY month DESC",
    )
    .bind(account.0)
    .fetch_all(db)
    .await?
    .iter()
    .map(|row| {
        let month: &str = row.try_get(0)?;
        let month = month.parse().map_err(|_| senseless("a month"))?;
        Ok((month, used(row)?))
    })
    .collect()
}

pub(super) async fn by_key(
    db: &mut PgConnection,
    account: AccountId,
    month: Month,
    limit: u32,
) -> Result<Vec<(Option<KeyId>, Used)>, sqlx::Error> {
    sqlx::query(
        "SELECT key, token_exchanges, messages, bytes, delivered, connected_ms / 1000
         FROM usage_by_key WHERE account = $1 AND month = $2 ORDER BY key LIMIT $3",
    )
    .bind(account.0)
    .bind(month.to_string())
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?
    .iter()
    .map(|row| {
        let key = match row.try_get(0)? {
            "" => None,
            key => Some(key.parse().map_err(|_| senseless("a key's id"))?),
        };
        Ok((key, used(row)?))
    })
    .collect()
}

/// Behind the first column.
fn used(row: &PgRow) -> Result<Used, sqlx::Error> {
    Ok(Used {
        token_exchanges: count(row, 1)?,
        messages: count(row, 2)?,
        bytes: count(row, 3)?,
        delivered: count(row, 4)?,
        connected_s: count(row, 5)?,
    })
}
