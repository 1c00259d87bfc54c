//! Requests that may be repeated, in Postgres.

use skytale_wire::id::Time;
use sqlx::{PgConnection, Row as _};

use super::{ms, senseless, time};
use crate::store::{Claim, Claimed, Earlier, Kept, Mark, ONCE_MS_KEPT};

pub(super) async fn claim(db: &mut PgConnection, claim: Claim) -> Result<Claimed, sqlx::Error> {
    sqlx::query("DELETE FROM once WHERE at_ms < $1")
        .bind(ms(Time(claim.now.0.saturating_sub(ONCE_MS_KEPT))))
        .execute(&mut *db)
        .await?;
    // Whoever is second waits here until the first has committed.
    let first = sqlx::query(
        "INSERT INTO once (id, request, at_ms) VALUES ($1, $2, $3)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(claim.mark.0)
    .bind(claim.request.0)
    .bind(ms(claim.now))
    .execute(&mut *db)
    .await?;
    if first.rows_affected() == 1 {
        return Ok(Claimed::First);
    }
    let earlier = sqlx::query("SELECT request, at_ms, status, answer FROM once WHERE id = $1")
        .bind(claim.mark.0)
        .fetch_optional(db)
        .await?;
    // Released in between: whoever asks again is the first.
    let Some(row) = earlier else {
        return Ok(Claimed::UnderWay);
    };
    let status: Option<i32> = row.try_get(2)?;
    let status = status
        .map(|status| u16::try_from(status).map_err(|_| senseless("a status")))
        .transpose()?;
    let earlier = Earlier {
        request: row.try_get(0)?,
        at: time(&row, 1)?,
        status,
        body: row.try_get(3)?,
    };
    Ok(earlier.seen_by(&claim))
}

pub(super) async fn keep(db: &mut PgConnection, mark: Mark, kept: Kept) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE once SET status = $2, answer = $3 WHERE id = $1")
        .bind(mark.0)
        .bind(i32::from(kept.status))
        .bind(kept.body)
        .execute(db)
        .await
        .map(|_| ())
}

pub(super) async fn release(db: &mut PgConnection, mark: Mark) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM once WHERE id = $1 AND status IS NULL")
        .bind(mark.0)
        .execute(db)
        .await
        .map(|_| ())
}
