//! Messages that are kept for a while after they were read: only where somebody asked for it.
//!
//! What is kept can be read by whoever gets the vault and its key, long after MLS has thrown away the
//! key that the message came under. So nothing is kept unless a rule says for how long, what the rule
//! does not cover any more is wiped, and an end of the rule wipes everything. Any connection to the
//! vault may set the rule or look, within a transaction of its own; the mind puts and wipes.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};
use skytale_wire::{
    frame,
    id::{ChannelId, Epoch, Seq, Time},
};

use crate::{
    Error, Message,
    inbox::message,
    store::{signed, unsigned},
};

/// Wiping waits this long for more, so that a message that came a second later goes with it.
const SWEEP_MS: u64 = 60_000;

/// From now on messages are kept this long; nothing, and what was kept is wiped, for zero.
///
/// A shorter time holds for what is kept already.
pub fn keep(tx: &Connection, keep: Duration) -> Result<(), Error> {
    if keep.is_zero() {
        tx.execute("DELETE FROM history_rule", [])?;
        tx.execute("DELETE FROM history", [])?;
        return Ok(());
    }
    tx.execute(
        "INSERT INTO history_rule (one, keep) VALUES (1, ?1)
         ON CONFLICT (one) DO UPDATE SET keep = excluded.keep",
        [millis(keep)],
    )?;
    Ok(())
}

/// How long messages are kept, if they are.
pub fn kept_for(tx: &Connection) -> Result<Option<Duration>, Error> {
    let keep: Option<i64> = tx
        .prepare_cached("SELECT keep FROM history_rule")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(keep.map(|keep| Duration::from_millis(unsigned(keep))))
}

/// Up to `limit` messages of a channel after a place in its log, in the log's order.
pub fn after(
    tx: &Connection,
    channel: ChannelId,
    seq: Seq,
    now: Time,
    limit: usize,
) -> Result<Vec<Message>, Error> {
    let Some(keep) = kept_for(tx)? else {
        return Ok(Vec::new());
    };
    let mut query = tx.prepare_cached(
        "SELECT *, 0 AS row FROM history WHERE channel = ?1 AND seq > ?2 AND at > ?3
         ORDER BY seq LIMIT ?4",
    )?;
    let rows = query.query_map(
        params![
            channel.0,
            signed(seq.0),
            oldest(now, keep),
            signed(limit as u64)
        ],
        |row| Ok(message(row)),
    )?;
    rows.map(|row| row?).collect()
}

/// Keeps a message, if there is a rule.
pub(crate) fn put(tx: &Connection, message: &Message, now: Time) -> Result<(), Error> {
    if kept_for(tx)?.is_none() {
        return Ok(());
    }
    tx.prepare_cached(
        "INSERT OR IGNORE INTO history (channel, seq, at, id, epoch, sender, label, verified, sent,
             content_type, in_reply_to, headers, payload)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?
    .execute(params![
        message.channel.0,
        signed(message.seq.0),
        signed(now.0),
        message.id.0,
        signed(message.epoch.0),
        message.sender.0,
        message.label,
        message.verified,
        signed(message.sent.0),
        message.content_type,
        message.in_reply_to.map_or(Vec::new(), |id| id.0.to_vec()),
        frame::encode(&message.headers),
        &message.payload[..],
    ])?;
    Ok(())
}

/// The log tells in which epoch a message of ours was sealed; the relay's answer had not.
pub(crate) fn settle_epoch(
    tx: &Connection,
    channel: &ChannelId,
    seq: Seq,
    epoch: Epoch,
) -> Result<(), Error> {
    tx.prepare_cached("UPDATE history SET epoch = ?3 WHERE channel = ?1 AND seq = ?2")?
        .execute(params![channel.0, signed(seq.0), signed(epoch.0)])?;
    Ok(())
}

/// Wipes what the rule does not cover any more, and tells when there is more to wipe.
pub(crate) fn sweep(tx: &Connection, now: Time) -> Result<Option<Time>, Error> {
    let Some(keep) = kept_for(tx)? else {
        return Ok(None);
    };
    let first: Option<i64> = tx
        .prepare_cached("SELECT min(at) FROM history")?
        .query_row([], |row| row.get(0))?;
    let Some(first) = first else {
        return Ok(None);
    };
    if first > oldest(now, keep) {
        let ends = Time(unsigned(first)).plus(unsigned(millis(keep)));
        return Ok(Some(ends.plus(SWEEP_MS)));
    }
    tx.prepare_cached("DELETE FROM history WHERE at <= ?1")?
        .execute([oldest(now, keep)])?;
    Ok(Some(now.plus(SWEEP_MS)))
}

/// Whatever was put here by then is covered no more.
fn oldest(now: Time, keep: Duration) -> i64 {
    signed(now.0).saturating_sub(millis(keep))
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use skytale_wire::id::{AgentId, MessageId};

    use super::*;

    const CHANNEL: ChannelId = ChannelId([7; 32]);
    const HOUR: Duration = Duration::from_hours(1);
    const HOUR_MS: u64 = 3_600_000;

    fn vault() -> Connection {
        let mut vault = Connection::open_in_memory().unwrap();
        crate::Agent::migrate(&mut vault).unwrap();
        vault
    }

    fn said(seq: u64) -> Message {
        Message {
            row: 0,
            id: MessageId([1; 16]),
            channel: CHANNEL,
            seq: Seq(seq),
            epoch: Epoch(1),
            sender: AgentId([2; 32]),
            label: "coder".into(),
            verified: true,
            sent: Time(5),
            content_type: "text/plain".into(),
            in_reply_to: Some(MessageId([3; 16])),
            headers: vec![("trace".into(), "1".into())],
            payload: b"said"[..].into(),
        }
    }

    fn seqs(vault: &Connection, now: u64) -> Vec<u64> {
        let found = after(vault, CHANNEL, Seq(0), Time(now), 100).unwrap();
        found.into_iter().map(|message| message.seq.0).collect()
    }

    fn rows(vault: &Connection) -> i64 {
        vault
            .query_row("SELECT count(*) FROM history", [], |row| row.get(0))
            .unwrap()
    }

    #[test]
    fn nothing_is_kept_without_a_rule() {
        let vault = vault();

        put(&vault, &said(1), Time(0)).unwrap();

        assert_eq!(rows(&vault), 0);
        assert_eq!(sweep(&vault, Time(0)).unwrap(), None);
    }

    #[test]
    fn a_message_is_kept_as_it_was_and_in_the_order_of_the_log() {
        let vault = vault();
        keep(&vault, HOUR).unwrap();

        for seq in [3, 1, 2] {
            put(&vault, &said(seq), Time(0)).unwrap();
        }

        let found = after(&vault, CHANNEL, Seq(1), Time(0), 100).unwrap();
        assert_eq!(found, [said(2), said(3)]);
        assert_eq!(after(&vault, CHANNEL, Seq(0), Time(0), 1).unwrap().len(), 1);
        let other = ChannelId([8; 32]);
        assert!(after(&vault, other, Seq(0), Time(0), 9).unwrap().is_empty());
    }

    #[test]
    fn what_the_rule_does_not_cover_is_not_shown_and_then_wiped() {
        let vault = vault();
        keep(&vault, HOUR).unwrap();
        put(&vault, &said(1), Time(0)).unwrap();
        put(&vault, &said(2), Time(10)).unwrap();

        assert_eq!(seqs(&vault, HOUR_MS), [2]);
        let due = sweep(&vault, Time(1)).unwrap().unwrap();
        assert_eq!(rows(&vault), 2);
        assert!(due > Time(HOUR_MS));
        sweep(&vault, due).unwrap();
        assert_eq!(rows(&vault), 0);
    }

    #[test]
    fn a_shorter_rule_holds_for_what_is_kept_and_none_wipes_everything() {
        let vault = vault();
        keep(&vault, 2 * HOUR).unwrap();
        put(&vault, &said(1), Time(0)).unwrap();
        put(&vault, &said(2), Time(HOUR_MS)).unwrap();
        assert_eq!(seqs(&vault, HOUR_MS + 1), [1, 2]);

        keep(&vault, HOUR).unwrap();
        assert_eq!(seqs(&vault, HOUR_MS + 1), [2]);
        assert_eq!(kept_for(&vault).unwrap(), Some(HOUR));
        keep(&vault, Duration::ZERO).unwrap();

        assert_eq!(rows(&vault), 0);
        assert_eq!(kept_for(&vault).unwrap(), None);
    }
}
