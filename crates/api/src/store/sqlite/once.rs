//! Requests that may be repeated, in SQLite.

use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use skytale_wire::id::Time;

use super::{failure, ms, time};
use crate::store::{Claim, Claimed, Earlier, Failure, Kept, Mark, ONCE_MS_KEPT};

pub(super) fn claim(tx: &Transaction<'_>, claim: &Claim) -> Result<Claimed, Failure> {
    let over = Time(claim.now.0.saturating_sub(ONCE_MS_KEPT));
    tx.prepare_cached("DELETE FROM once WHERE at_ms < ?1")
        .and_then(|mut deleted| deleted.execute([ms(over)]))
        .map_err(failure)?;
    let earlier = tx
        .prepare_cached("SELECT request, at_ms, status, answer FROM once WHERE id = ?1")
        .and_then(|mut found| {
            let row = |row: &Row<'_>| {
                Ok(Earlier {
                    request: row.get(0)?,
                    at: time(row, 1)?,
                    status: row.get(2)?,
                    body: row.get(3)?,
                })
            };
            found.query_row([claim.mark.0], row).optional()
        })
        .map_err(failure)?;
    if let Some(earlier) = earlier {
        return Ok(earlier.seen_by(claim));
    }
    tx.prepare_cached("INSERT INTO once (id, request, at_ms) VALUES (?1, ?2, ?3)")
        .and_then(|mut claimed| {
            claimed.execute(params![claim.mark.0, claim.request.0, ms(claim.now)])
        })
        .map(|_| Claimed::First)
        .map_err(failure)
}

pub(super) fn keep(tx: &Transaction<'_>, mark: Mark, kept: &Kept) -> Result<(), Failure> {
    tx.prepare_cached("UPDATE once SET status = ?2, answer = ?3 WHERE id = ?1")
        .and_then(|mut noted| noted.execute(params![mark.0, kept.status, kept.body]))
        .map(|_| ())
        .map_err(failure)
}

pub(super) fn release(tx: &Transaction<'_>, mark: Mark) -> Result<(), Failure> {
    tx.prepare_cached("DELETE FROM once WHERE id = ?1 AND status IS NULL")
        .and_then(|mut released| released.execute([mark.0]))
        .map(|_| ())
        .map_err(failure)
}
