//! What a vault can open of a log that it was not meant to read: for proofs, not for use.
//!
//! `skytale demo` and the tests hand a removed agent's vault everything that the relay has, as a
//! colluding relay would, and count. Nothing is written.

use rusqlite::Connection;
use skytale_wire::{
    Blob,
    envelope::{Envelope, Kind},
    frame::{self, FRAME_BYTES_MAX},
    id::{ChannelId, Generation, Seq},
};

use crate::{
    Error,
    mls::{Group, Opened, provider::Provider},
};

/// What came of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// Its place.
    pub seq: Seq,
    /// Whether it is an application message; others are commits.
    pub is_message: bool,
    /// Whether this vault could open it.
    pub opened: bool,
}

/// Tries every record in order with whatever keys the vault still has, following commits where
/// they can be followed, whatever the channel's rules say.
pub fn try_open(
    tx: &Connection,
    channel: ChannelId,
    records: &[(Seq, Blob)],
) -> Result<Vec<Tried>, Error> {
    // Never flushed, so that nothing of it lasts.
    let provider = Provider::new(tx);
    let group_id = channel.group_id(Generation(0));
    let mut group = Group::load(&provider, &group_id)?;
    let mut tried = Vec::new();
    for (seq, record) in records {
        let envelope: Envelope = frame::decode(record, FRAME_BYTES_MAX)
            .map_err(|error| Error::Misuse(error.to_string()))?;
        if envelope.kind == Kind::Leave {
            continue;
        }
        let opened = match group
            .as_mut()
            .map(|group| group.open(&provider, &envelope.body))
        {
            Some(Ok(Opened::Application { .. })) => true,
            Some(Ok(Opened::Commit(commit))) => group
                .as_mut()
                .is_some_and(|group| group.merge(&provider, *commit).is_ok()),
            Some(Err(_)) | None => {
                group = Group::load(&provider, &group_id)?;
                false
            }
        };
        tried.push(Tried {
            seq: *seq,
            is_message: envelope.kind == Kind::Application,
            opened,
        });
    }
    Ok(tried)
}
