//! What a vault can open of a relay's archive: for proofs, not for use.

use std::path::Path;

use skytale_wire::{Blob, id::Seq};

pub use skytale_agent::audit::Tried;

use crate::{
    error::Error,
    vault::{Vault, VaultKey},
};

/// Gives the copy of an agent's vault in `dir` all records of its only channel, in order. Nothing
/// is written.
pub fn try_open(dir: &Path, key: VaultKey, records: &[(Seq, Blob)]) -> Result<Vec<Tried>, Error> {
    let mut conn = Vault::at(dir.to_owned(), key)?.connect()?;
    let channel = skytale_agent::view::channels(&conn)?
        .first()
        .map(|channel| channel.id)
        .ok_or_else(|| Error::NotFound("this vault is in no channel".into()))?;
    let tx = conn.transaction()?;
    Ok(skytale_agent::audit::try_open(&tx, channel, records)?)
}
