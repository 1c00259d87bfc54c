//! The identity key: who this agent is, for MLS, for the relay and for other members.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey};
use skytale_wire::id::{AgentId, Signed};
use zeroize::Zeroizing;

/// An Ed25519 key made on first use, kept in the vault, wiped on drop.
pub(crate) struct Identity {
    key: SigningKey,
}

impl Identity {
    /// A new one, from the operating system's randomness, so that no fork repeats it.
    pub(crate) fn generate() -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).expect("the operating system gives random bytes");
        Self::from_seed(&seed)
    }

    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        Self {
            key: SigningKey::from_bytes(seed),
        }
    }

    pub(crate) fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }

    pub(crate) fn id(&self) -> AgentId {
        AgentId(self.key.verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, statement: &[u8]) -> Signed {
        Signed(self.key.sign(statement).to_bytes())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.id())
    }
}
