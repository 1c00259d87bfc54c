//! Who signs payloads. Peers of SLIM 2.0 sign the header of a command alone, so a command without
//! the second signature may be one of theirs; of somebody who was seen to sign payloads it is one
//! that a node has changed.

use std::collections::VecDeque;

/// Keys that have signed a payload.
#[derive(Debug, Default)]
pub(crate) struct Signers {
    /// Who was heard last stands last.
    keys: VecDeque<Vec<u8>>,
}

impl Signers {
    /// Whether a command under this key is to be believed. Notes the key when it signed the payload.
    pub(crate) fn allow(&mut self, key: &[u8], signed: Option<Signed>) -> bool {
        let known = self.keys.iter().position(|it| it == key);
        match signed {
            Some(Signed::HeaderAndPayload) => {
                if let Some(known) = known {
                    self.keys.remove(known);
                } else if self.keys.len() == KEYS_MAX {
                    self.keys.pop_front();
                }
                self.keys.push_back(key.to_vec());
                true
            }
            Some(Signed::Header) | None => known.is_none(),
        }
    }
}

/// What of a command its sender's signatures cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signed {
    Header,
    HeaderAndPayload,
}

/// Beyond these the one that was silent for longest is forgotten. Only holders of the secret, who
/// can be anybody anyway, bring new ones.
const KEYS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_signed_a_payload_is_held_to_it() {
        let mut signers = Signers::default();
        assert!(signers.allow(b"bob", Some(Signed::Header)));
        assert!(signers.allow(b"bob", None));
        assert!(signers.allow(b"bob", Some(Signed::HeaderAndPayload)));
        assert!(!signers.allow(b"bob", Some(Signed::Header)));
        assert!(!signers.allow(b"bob", None));
        assert!(signers.allow(b"carol", Some(Signed::Header)));
    }

    #[test]
    fn who_was_silent_for_longest_is_forgotten_first() {
        let mut signers = Signers::default();
        let key = |number: usize| number.to_be_bytes();
        for number in 0..KEYS_MAX {
            signers.allow(&key(number), Some(Signed::HeaderAndPayload));
        }
        signers.allow(&key(0), Some(Signed::HeaderAndPayload));
        signers.allow(b"one more", Some(Signed::HeaderAndPayload));
        assert!(!signers.allow(&key(0), None));
        assert!(signers.allow(&key(1), None));
    }
}
