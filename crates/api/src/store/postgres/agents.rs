//! The agents of accounts, in Postgres. That a token is bought for one is counted with the purchase.

use skytale_wire::{
    http::Revoked,
    id::{AgentId, Time},
    token::AccountId,
};
use sqlx::{PgConnection, Row as _};

use super::{list_revoked, ms, time, time_or_none};
use crate::store::AgentRow;

pub(super) async fn page(
    db: &mut PgConnection,
    account: AccountId,
    after: Option<AgentId>,
    limit: u32,
) -> Result<Vec<AgentRow>, sqlx::Error> {
    sqlx::query(
        "SELECT agent, first_ms, last_ms, disabled_ms FROM agents
         WHERE account = $1 AND ($2 IS NULL OR agent > $2) ORDER BY agent LIMIT $3",
    )
    .bind(account.0)
    .bind(after.map(|id| id.0))
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?
    .iter()
    .map(|row| {
        Ok(AgentRow {
            id: AgentId(row.try_get(0)?),
            first: time(row, 1)?,
            last: time(row, 2)?,
            disabled: time_or_none(row, 3)?,
        })
    })
    .collect()
}

pub(super) async fn disable(
    db: &mut PgConnection,
    account: AccountId,
    agent: AgentId,
    now: Time,
) -> Result<bool, sqlx::Error> {
    let ended = sqlx::query(
        "UPDATE agents SET disabled_ms = $3
         WHERE account = $1 AND agent = $2 AND disabled_ms IS NULL",
    )
    .bind(account.0)
    .bind(agent.0)
    .bind(ms(now))
    .execute(&mut *db)
    .await?;
    if ended.rows_affected() == 1 {
        list_revoked(db, &Revoked::Agent { account, agent }, now).await?;
        return Ok(true);
    }
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM agents WHERE account = $1 AND agent = $2)")
        .bind(account.0)
        .bind(agent.0)
        .fetch_one(db)
        .await
}

pub(super) async fn enable(
    db: &mut PgConnection,
    account: AccountId,
    agent: AgentId,
) -> Result<bool, sqlx::Error> {
    sqlx::query("UPDATE agents SET disabled_ms = NULL WHERE account = $1 AND agent = $2")
        .bind(account.0)
        .bind(agent.0)
        .execute(db)
        .await
        .map(|found| found.rows_affected() == 1)
}
