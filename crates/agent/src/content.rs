//! What stands inside a sealed message: the application's words and what members check them by.
//!
//! Agents agree on this among themselves; no server can read it. It is padded before it is
//! sealed, so that the relay learns a size class and no more.

use minicbor::{Decode, Encode, bytes::ByteArray};
use skytale_wire::{
    Blob,
    frame::{self, BODY_BYTES_MAX},
    id::{MessageId, Seq, Time},
};
use zeroize::Zeroizing;

use crate::mls::MlsError;

/// The plaintext of one message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
#[expect(
    clippy::struct_field_names,
    reason = "a content type is what everybody calls it"
)]
pub(crate) struct Content {
    /// The sender's counter in this channel, from 1.
    #[n(0)]
    pub(crate) n: u64,
    /// The counter of its message before this one that it has not given up: a receiver that has
    /// not seen that one has a gap.
    #[n(1)]
    pub(crate) previous: u64,
    /// By the sender's clock.
    #[n(2)]
    pub(crate) sent: Time,
    /// What the sender calls itself.
    #[n(3)]
    pub(crate) label: String,
    /// A media type.
    #[n(4)]
    pub(crate) content_type: String,
    /// The message that it answers.
    #[n(5)]
    pub(crate) in_reply_to: Option<MessageId>,
    /// Names and values of the application.
    #[n(6)]
    pub(crate) headers: Vec<(String, String)>,
    /// What it says.
    #[n(7)]
    pub(crate) payload: Blob,
    /// The log as the sender saw it: two members that were shown different logs notice as soon
    /// as one reads the other.
    #[n(8)]
    pub(crate) log: LogMark,
}

/// A place in the log with the first half of the hash there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct LogMark {
    #[n(0)]
    pub(crate) seq: Seq,
    #[n(1)]
    pub(crate) half: ByteArray<16>,
}

impl Content {
    /// The padded plaintext: length, encoding, zeros. What pads is sealed, so that it need not be
    /// random.
    pub(crate) fn seal(&self) -> Zeroizing<Vec<u8>> {
        let encoded = Zeroizing::new(frame::encode(self));
        let length = u32::try_from(encoded.len()).expect("a message is smaller than 4 GiB");
        let mut plaintext = Zeroizing::new(Vec::with_capacity(padded_len(encoded.len() + 4)));
        plaintext.extend_from_slice(&length.to_be_bytes());
        plaintext.extend_from_slice(&encoded);
        plaintext.resize(padded_len(encoded.len() + 4), 0);
        plaintext
    }

    pub(crate) fn open(plaintext: &[u8]) -> Result<Self, MlsError> {
        let bad = || MlsError::Refused("a message that is not padded as messages are".into());
        let (length, rest) = plaintext.split_first_chunk::<4>().ok_or_else(bad)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| bad())?;
        let encoded = rest.get(..length).ok_or_else(bad)?;
        if rest[length..].iter().any(|byte| *byte != 0) || padded_len(length + 4) != plaintext.len()
        {
            return Err(bad());
        }
        frame::decode(encoded, BODY_BYTES_MAX).map_err(|error| MlsError::Refused(error.to_string()))
    }
}

/// The size that a plaintext of `len` bytes is padded to.
///
/// The eight size classes of the line less what sealing and framing add, so that a message that
/// fills its class here fills its cell there (`skytale_shape::bucket`, held equal by a test):
/// above them Padmé, at most 12 % more.
pub fn padded_len(len: usize) -> usize {
    let sealed = len + SEALED_OVERHEAD;
    let cell = BUCKETS
        .into_iter()
        .find(|bucket| sealed <= *bucket)
        .unwrap_or_else(|| padme(sealed));
    cell - SEALED_OVERHEAD
}

/// Padmé (Nikitin et al., PETS 2019): keeps only the highest bits of a length, so that it leaks
/// O(log log len).
fn padme(len: usize) -> usize {
    let exponent = len.ilog2();
    let kept = exponent.ilog2() + 1;
    let dropped = exponent.saturating_sub(kept);
    let mask = (1_usize << dropped) - 1;
    (len + mask) & !mask
}

/// Size classes in bytes.
const BUCKETS: [usize; 8] = [256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768];
/// What MLS, the envelope, the frame and the cell add at most.
pub const SEALED_OVERHEAD: usize = 384;

#[cfg(test)]
mod tests {
    use super::*;

    fn content(payload: usize) -> Content {
        Content {
            n: 3,
            previous: 2,
            sent: Time(5),
            label: "planner".into(),
            content_type: "text/plain".into(),
            in_reply_to: None,
            headers: vec![("trace".into(), "1".into())],
            payload: vec![7; payload].into(),
            log: LogMark {
                seq: Seq(9),
                half: [1; 16].into(),
            },
        }
    }

    #[test]
    fn a_message_reads_back_from_its_padding_and_has_a_class_size() {
        for payload in [0, 1, 20, 300, 1000, 5000, 40_000, 262_144] {
            let plaintext = content(payload).seal();

            assert_eq!(Content::open(&plaintext).unwrap(), content(payload));
            assert_eq!(plaintext.len(), padded_len(plaintext.len()), "{payload}");
        }
    }

    #[test]
    fn padding_that_is_not_ours_is_refused() {
        let mut longer = content(3).seal().to_vec();
        longer.push(0);
        let mut dirty = content(3).seal().to_vec();
        *dirty.last_mut().unwrap() = 1;

        for plaintext in [longer, dirty, vec![], vec![0xff; 128]] {
            assert!(Content::open(&plaintext).is_err());
        }
    }
}
