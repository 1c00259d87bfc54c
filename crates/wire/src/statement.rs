//! What is signed outside MLS: the exact bytes, so that both ends build the same.
//!
//! Each statement begins with its own label, so that a signature for one purpose can never serve
//! another; parts are length-prefixed, so that no two lists of parts give the same bytes.

use minicbor::{Decode, Encode};

use crate::{
    Blob,
    id::{AgentId, ChannelId, Digest, Generation, InviteId, RelayKey, Signed, Time, TransportKey},
};

/// Identity proof in Hello and Renew: this identity key speaks on this connection with this
/// credential. `credential` is [`credential_hash`] of what stands beside it.
pub fn identity(relay: &RelayKey, transport: &TransportKey, credential: &Digest) -> Vec<u8> {
    statement("identity", &[&relay.0, &transport.0, &credential.0])
}

/// Hash of the credential that a Hello shows: a token's text, or nothing for guests.
pub fn credential_hash(token: Option<&str>) -> Digest {
    Digest::of(&[
        b"skytale/1 credential",
        token.unwrap_or_default().as_bytes(),
    ])
}

/// Guest proof: whoever holds the invite's signing key lets this agent connect.
pub fn guest(
    relay: &RelayKey,
    transport: &TransportKey,
    agent: &AgentId,
    channel: &ChannelId,
) -> Vec<u8> {
    statement("guest", &[&relay.0, &transport.0, &agent.0, &channel.0])
}

/// The inviter's signature over an invite that enters the group's policy.
pub fn invite(
    group: &Digest,
    signing: &Digest,
    hpke: &Digest,
    uses: u32,
    expires: Time,
) -> Vec<u8> {
    statement(
        "invite",
        &[
            &group.0,
            &signing.0,
            &hpke.0,
            &uses.to_be_bytes(),
            &expires.0.to_be_bytes(),
        ],
    )
}

/// The invite key's signature over an external commit that joins by it.
///
/// `context` is the hash of the GroupContext that the commit builds on. The joiner's leaf key need
/// not stand here: the commit that carries this signature is itself signed by the agent's key.
pub fn join(group: &Digest, context: &Digest, invite: &InviteId, agent: &AgentId) -> Vec<u8> {
    statement("join", &[&group.0, &context.0, &invite.0, &agent.0])
}

/// A relay's signature over a request to the API server: method, path and query as they are sent,
/// the time, and the hash of the body.
pub fn relay_request(relay: &RelayKey, target: &str, time: Time, body: &Digest) -> Vec<u8> {
    statement(
        "relay request",
        &[&relay.0, target.as_bytes(), &time.0.to_be_bytes(), &body.0],
    )
}

/// A member's word that it has left. The leaf key pins it to this stay: a later re-join is not
/// undone by an old statement.
pub fn leave(group: &Digest, leaf_key: &[u8]) -> Vec<u8> {
    statement("leave", &[&group.0, leaf_key])
}

/// A signed leave as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Leave {
    /// The generation that is left.
    #[n(0)]
    pub generation: Generation,
    /// The leaf encryption key of the member that leaves.
    #[n(1)]
    pub leaf_key: Blob,
    /// By the identity key, over [`leave`].
    #[n(2)]
    pub signature: Signed,
}

impl Leave {
    /// Whether `agent` signed this for `channel`.
    pub fn holds(&self, channel: &ChannelId, agent: &AgentId) -> bool {
        let group = channel.group_id(self.generation);
        agent.signed(&leave(&group, &self.leaf_key), &self.signature)
    }
}

fn statement(label: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("skytale/1 {label}\0").into_bytes();
    for part in parts {
        let length = u32::try_from(part.len()).expect("statement parts are short");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}
