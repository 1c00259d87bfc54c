//! The group's state for those who hold an invite: sealed so that no server can read it.
//!
//! The GroupInfo is encrypted once under a random key, and that key sealed to the HPKE half of
//! each open invite (protocol of invites in `docs/wire.md`).

use skytale_wire::{
    frame::{self, Sealed, SealedKey, ToRelay},
    id::Digest,
    invite::InviteSeed,
};
use zeroize::Zeroizing;

use super::Channel;
use crate::{
    Error,
    agent::Step,
    mls::{MlsError, aead_open, aead_seal, hpke_open, hpke_pair, hpke_seal, provider::Provider},
    policy::PolicyInvite,
    session::{Uplink, fresh_id},
};

impl Channel {
    /// A joiner could not open what the relay has: the present state is sealed afresh as soon as
    /// we know it.
    pub(crate) fn want_sealing(&mut self) {
        self.seal_wanted = true;
    }

    /// Seals the present state for whoever waits.
    pub(super) fn seal_group_info(
        &mut self,
        step: &mut Step<'_, '_>,
        uplink: &Uplink,
    ) -> Result<(), Error> {
        if !std::mem::take(&mut self.seal_wanted) {
            return Ok(());
        }
        let (provider, identity) = (step.provider, step.identity);
        let group = self.group()?;
        let leaves = group.leaves()?;
        let invites = group.policy()?.usable(&leaves);
        if invites.is_empty() {
            return Ok(());
        }
        let info = group.group_info(provider, identity)?;
        let sealed = seal(provider, &info, &invites)?;
        let frame = frame::SealGroupInfo {
            id: fresh_id(step),
            channel: self.record.id,
            epoch: self.record.epoch,
            sealed,
        };
        uplink.send(step, ToRelay::SealGroupInfo(frame));
        Ok(())
    }
}

/// Seals a GroupInfo to each of `invites`.
pub(super) fn seal(
    provider: &Provider<'_>,
    info: &[u8],
    invites: &[PolicyInvite],
) -> Result<Sealed, MlsError> {
    let mut key = Zeroizing::new([0; 16]);
    getrandom::fill(key.as_mut_slice()).map_err(|error| MlsError::Storage(error.to_string()))?;
    let keys = invites
        .iter()
        .map(|invite| {
            Ok(SealedKey {
                invite: invite.id(),
                sealed: hpke_seal(provider, &invite.hpke, PURPOSE, key.as_slice())?.into(),
            })
        })
        .collect::<Result<Vec<_>, MlsError>>()?;
    Ok(Sealed {
        ciphertext: aead_seal(provider, &key, info)?.into(),
        keys,
    })
}

/// Opens a GroupInfo with the invite's seed.
pub(super) fn open(
    provider: &Provider<'_>,
    seed: &InviteSeed,
    info: &frame::GroupInfo,
) -> Result<Vec<u8>, MlsError> {
    let (private, _) = hpke_pair(provider, &seed.derive(HPKE))?;
    let key = hpke_open(provider, &private, PURPOSE, &info.key)?;
    aead_open(provider, &key, &info.ciphertext)
}

/// The half of an invite that the group's state is sealed to.
pub(super) fn hpke_half(provider: &Provider<'_>, seed: &InviteSeed) -> Result<Digest, MlsError> {
    hpke_pair(provider, &seed.derive(HPKE)).map(|(_, public)| public)
}

const PURPOSE: &[u8] = b"skytale/1 group info";
const HPKE: &str = "hpke";
