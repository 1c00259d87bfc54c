//! One link: which generation it speaks, how its key is agreed, and the MAC on every header.
//!
//! The key proves nothing about who is at the other end, since both halves are fresh: it only ties
//! headers to this link. Who may connect, and how long a silent one may stay, is decided by the
//! owner of the stream.

use std::fmt;

use bytes::{BufMut, Bytes};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use ml_kem::{
    DecapsulationKey, EncapsulationKey, MlKem768,
    kem::{Ciphertext, Decapsulate as _, Encapsulate as _, Kem as _, Key, KeyExport as _},
};
use prost::Message as _;
use rand::CryptoRng;
use sha2::Sha256;
use x25519_dalek::{EphemeralSecret, PublicKey, SharedSecret};
use zeroize::Zeroizing;

use crate::{
    Generation,
    message::{self, Inbound, Onward, Refused},
    proto::two,
};

/// What is said to links of the second generation; its clients want a semantic version.
pub const SPOKEN_TWO: &str = "3.4.6";
/// What is said to links of the first.
pub const SPOKEN_ONE: &str = "1.4.0";

/// Reads the first message of a stream, which tells the generation.
///
/// Link numbers its first three fields alike in both, so it can be read before that is known.
pub fn open(first: Bytes) -> Result<Opening, Refused> {
    if first.len() > message::MESSAGE_BYTES_MAX {
        return Err(Refused::TooLarge);
    }
    // Whatever has no Link speaks at once, and only the first generation may.
    let is_link = message::is_link(&first)?;
    if !is_link {
        return Ok(Opening::Plain(Link::one()));
    }
    let decoded = two::Message::decode(first).map_err(|_| Refused::Malformed("message"))?;
    let Some(two::message::MessageType::Link(link)) = decoded.message_type else {
        return Err(Refused::Malformed("message"));
    };
    let offer = Offer::read(link)?;
    if offer.is_reply {
        return Err(Refused::Malformed("reply to nothing"));
    }
    Ok(Opening::Offer(offer))
}

/// How a stream begins.
#[derive(Debug)]
pub enum Opening {
    /// It negotiates: [`Offer::answer`] goes back before anything else.
    Offer(Offer),
    /// SLIM 1.2 and older begin with a Subscribe or a Publish. The link stands, and the same
    /// message is to be read with it.
    Plain(Link),
}

/// What the other side says of itself and of the link, held to bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    generation: Generation,
    /// Chosen by whoever dialled; it salts the key. One that another link has now is suspicious.
    pub link_id: String,
    /// SLIM's version, as said.
    pub version: String,
    /// For logs; nothing proves it.
    pub node_id: String,
    is_reply: bool,
    connection_type: i32,
    key: Bytes,
    kem: Option<Bytes>,
}

impl Offer {
    /// The generation that its version belongs to.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether the link's key shall also withstand a quantum computer.
    pub fn is_hybrid(&self) -> bool {
        self.kem.is_some()
    }

    /// The first message back, and the link. With ML-KEM when the offer has a key for it, as such
    /// a client takes no answer without.
    pub fn answer(
        &self,
        node_id: &str,
        chance: &mut impl CryptoRng,
    ) -> Result<(Vec<u8>, Link), Refused> {
        let mut reply = two::LinkNegotiationPayload {
            link_id: self.link_id.clone(),
            is_reply: true,
            ..two::LinkNegotiationPayload::default()
        };
        if self.generation == Generation::One {
            SPOKEN_ONE.clone_into(&mut reply.slim_version);
            return Ok((link_message(reply), Link::one()));
        }
        let ours = EphemeralSecret::random_from_rng(chance);
        SPOKEN_TWO.clone_into(&mut reply.slim_version);
        node_id.clone_into(&mut reply.node_id);
        reply.connection_type = self.connection_type;
        reply.link_ecdh_public_key = Bytes::copy_from_slice(PublicKey::from(&ours).as_bytes());

        let shared = ours.diffie_hellman(&self.x25519()?);
        let mut hidden = None;
        if let Some(kem) = &self.kem {
            let key = <&Key<EncapsulationKey<MlKem768>>>::try_from(&kem[..])
                .map_err(|_| Refused::Malformed("link KEM key"))?;
            let key = EncapsulationKey::<MlKem768>::new(key)
                .map_err(|_| Refused::Malformed("link KEM key"))?;
            let (ciphertext, secret) = key.encapsulate_with_rng(chance);
            reply.link_kem_payload = Some(Bytes::copy_from_slice(&ciphertext));
            hidden = Some(Zeroizing::new(secret.0));
        }
        let key = LinkKey::agree(&self.link_id, &shared, hidden.as_deref())?;
        let link = Link::two(self.link_id.clone(), key);
        Ok((link_message(reply), link))
    }

    pub(crate) fn read(link: two::Link) -> Result<Self, Refused> {
        let Some(two::link::LinkType::LinkNegotiation(said)) = link.link_type else {
            return Err(Refused::Malformed("link"));
        };
        let texts = [
            &said.link_id,
            &said.slim_version,
            &said.node_id,
            &said.deployment_name,
        ];
        if said.link_id.is_empty() || texts.iter().any(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(Refused::Malformed("link"));
        }
        let generation = match major(&said.slim_version) {
            Some(1) => Generation::One,
            Some(2..) => Generation::Two,
            _ => return Err(Refused::Malformed("link version")),
        };
        Ok(Self {
            generation,
            link_id: said.link_id,
            version: said.slim_version,
            node_id: said.node_id,
            is_reply: said.is_reply,
            connection_type: said.connection_type,
            key: said.link_ecdh_public_key,
            kem: said.link_kem_payload,
        })
    }

    fn x25519(&self) -> Result<PublicKey, Refused> {
        let key: [u8; 32] = self
            .key
            .as_ref()
            .try_into()
            .map_err(|_| Refused::Malformed("link key"))?;
        Ok(PublicKey::from(key))
    }
}

/// The dialling side of a negotiation in the second generation, between its request and the reply.
pub struct Dial {
    link_id: String,
    secret: EphemeralSecret,
    kem: Option<DecapsulationKey<MlKem768>>,
}

impl Dial {
    /// The first message of a stream. `hybrid` asks for ML-KEM besides X25519.
    pub fn begin(
        link_id: &str,
        node_id: &str,
        hybrid: bool,
        chance: &mut impl CryptoRng,
    ) -> (Vec<u8>, Self) {
        let secret = EphemeralSecret::random_from_rng(chance);
        let kem = hybrid.then(|| MlKem768::generate_keypair_from_rng(chance));
        let request = two::LinkNegotiationPayload {
            link_id: link_id.to_owned(),
            slim_version: SPOKEN_TWO.to_owned(),
            is_reply: false,
            link_ecdh_public_key: Bytes::copy_from_slice(PublicKey::from(&secret).as_bytes()),
            connection_type: two::LinkConnectionType::Edge.into(),
            node_id: node_id.to_owned(),
            deployment_name: String::new(),
            link_kem_payload: kem
                .as_ref()
                .map(|(_, key)| Bytes::copy_from_slice(&key.to_bytes())),
        };
        let dial = Self {
            link_id: link_id.to_owned(),
            secret,
            kem: kem.map(|(key, _)| key),
        };
        (link_message(request), dial)
    }

    /// Takes the first message that came back. A reply without ML-KEM to a request with it is
    /// refused: else whoever stands between could take the stronger half away.
    pub fn finish(self, reply: Bytes) -> Result<Link, Refused> {
        let reply = match message::decode(Generation::Two, reply)? {
            Inbound::Link(reply) => reply,
            Inbound::Routed(_) | Inbound::SubscriptionAck { .. } => {
                return Err(Refused::Malformed("no link reply"));
            }
        };
        let answers = reply.is_reply
            && reply.link_id == self.link_id
            && reply.generation == Generation::Two
            && reply.is_hybrid() == self.kem.is_some();
        if !answers {
            return Err(Refused::Malformed("link reply"));
        }
        let shared = self.secret.diffie_hellman(&reply.x25519()?);
        let hidden = match (&self.kem, &reply.kem) {
            (Some(key), Some(ciphertext)) => {
                let ciphertext = <&Ciphertext<MlKem768>>::try_from(&ciphertext[..])
                    .map_err(|_| Refused::Malformed("link KEM ciphertext"))?;
                Some(Zeroizing::new(key.decapsulate(ciphertext).0))
            }
            _ => None,
        };
        let key = LinkKey::agree(&self.link_id, &shared, hidden.as_deref())?;
        Ok(Link::two(self.link_id, key))
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial").finish_non_exhaustive()
    }
}

/// A link that stands: what comes in is read with it, what goes out is written with it.
#[derive(Debug)]
pub struct Link {
    seal: Option<Seal>,
}

impl Link {
    fn one() -> Self {
        Self { seal: None }
    }

    fn two(link_id: String, key: LinkKey) -> Self {
        Self {
            seal: Some(Seal { link_id, key }),
        }
    }

    /// Which generation is spoken on it.
    pub fn generation(&self) -> Generation {
        match self.seal {
            None => Generation::One,
            Some(_) => Generation::Two,
        }
    }

    /// Reads what came. In the second generation a header without the right MAC is refused; the
    /// stream may stay, as SLIM's does.
    pub fn read(&self, bytes: Bytes) -> Result<Inbound, Refused> {
        let inbound = message::decode(self.generation(), bytes)?;
        if let (Some(seal), Inbound::Routed(routed)) = (&self.seal, &inbound) {
            let mac = routed.mac().ok_or(Refused::WrongMac)?;
            seal.mac_over(&routed.covered_as_it_came())
                .verify_slice(mac)
                .map_err(|_| Refused::WrongMac)?;
        }
        Ok(inbound)
    }

    /// Writes a prepared message with the MAC of this link. `Err` and nothing written when it is of
    /// the other generation, whose sessions this link's client cannot take part in.
    pub fn write(&self, onward: &Onward, out: &mut impl BufMut) -> Result<(), OtherGeneration> {
        match (&self.seal, onward.mac_at()) {
            (None, None) => out.put_slice(onward.template()),
            (Some(seal), Some(at)) => {
                let mac = seal.mac_over(onward.covered()).finalize().into_bytes();
                let (before, after) = onward.template().split_at(at);
                out.put_slice(before);
                out.put_slice(&mac);
                out.put_slice(&after[MAC_BYTES..]);
            }
            (None, Some(_)) | (Some(_), None) => return Err(OtherGeneration),
        }
        Ok(())
    }
}

/// A message of one generation for a link of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message is of the other generation of SLIM than the link")]
pub struct OtherGeneration;

#[derive(Debug)]
struct Seal {
    link_id: String,
    key: LinkKey,
}

impl Seal {
    fn mac_over(&self, covered: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&*self.key.0).expect("HMAC takes keys of every length");
        mac.update(MAC_LABEL);
        let len = u32::try_from(self.link_id.len()).expect("bounded when it was read");
        mac.update(&len.to_le_bytes());
        mac.update(self.link_id.as_bytes());
        mac.update(covered);
        mac
    }
}

/// What both ends of a link share. Wiped when dropped.
struct LinkKey(Zeroizing<[u8; 32]>);

impl LinkKey {
    /// Refuses a shared secret of zeros, which a peer can force by a point of small order.
    fn agree(
        link_id: &str,
        shared: &SharedSecret,
        hidden: Option<&[u8; 32]>,
    ) -> Result<Self, Refused> {
        if !shared.was_contributory() {
            return Err(Refused::Malformed("link key"));
        }
        let mut secret = Zeroizing::new(Vec::with_capacity(64));
        secret.extend_from_slice(shared.as_bytes());
        let label = match hidden {
            None => KEY_LABEL,
            Some(hidden) => {
                secret.extend_from_slice(hidden);
                KEY_LABEL_HYBRID
            }
        };
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(link_id.as_bytes()), &secret)
            .expand(label, &mut *key)
            .expect("HKDF gives 32 bytes");
        Ok(Self(key))
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey(..)")
    }
}

/// Both generations number what the first one has alike.
fn link_message(said: two::LinkNegotiationPayload) -> Vec<u8> {
    two::Message {
        message_type: Some(two::message::MessageType::Link(two::Link {
            link_type: Some(two::link::LinkType::LinkNegotiation(said)),
        })),
        ..two::Message::default()
    }
    .encode_to_vec()
}

/// The major number of a semantic version.
fn major(version: &str) -> Option<u32> {
    let (major, rest) = version.split_once('.')?;
    let digits = major.bytes().all(|byte| byte.is_ascii_digit());
    (digits && rest.contains('.')).then(|| major.parse().ok())?
}

/// Bytes of a link's id, version and names.
const TEXT_BYTES_MAX: usize = 256;
/// Bytes of a header's MAC.
pub(crate) const MAC_BYTES: usize = 32;
const MAC_LABEL: &[u8] = b"SLIM-DP-HDR-v1\0";
const KEY_LABEL: &[u8] = b"SLIM-DP-inter-node-hmac-v1";
const KEY_LABEL_HYBRID: &[u8] = b"SLIM-DP-inter-node-hmac-v1-pq";

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    fn chance(seed: u64) -> ChaCha20Rng {
        ChaCha20Rng::seed_from_u64(seed)
    }

    fn offer(bytes: Vec<u8>) -> Offer {
        match open(bytes.into()).unwrap() {
            Opening::Offer(offer) => offer,
            Opening::Plain(link) => panic!("{link:?}"),
        }
    }

    fn key(link: &Link) -> [u8; 32] {
        *link.seal.as_ref().unwrap().key.0
    }

    #[test]
    fn both_ends_agree_with_and_without_a_kem() {
        for hybrid in [false, true] {
            let (request, dial) = Dial::begin("link", "alice", hybrid, &mut chance(1));
            let offer = offer(request);
            assert_eq!(offer.is_hybrid(), hybrid);
            let (reply, theirs) = offer.answer("relay", &mut chance(2)).unwrap();
            let ours = dial.finish(reply.into()).unwrap();
            assert_eq!(key(&ours), key(&theirs));
        }
    }

    #[test]
    fn links_and_their_kinds_have_different_keys() {
        let shared = EphemeralSecret::random_from_rng(&mut chance(1))
            .diffie_hellman(&PublicKey::from([9; 32]));
        let agree = |id, hidden| *LinkKey::agree(id, &shared, hidden).unwrap().0;
        assert_ne!(agree("one", None), agree("two", None));
        assert_ne!(agree("one", None), agree("one", Some(&[0; 32])));
    }

    #[test]
    fn a_shared_secret_of_zeros_is_refused() {
        let (request, _) = Dial::begin("link", "alice", false, &mut chance(1));
        let mut offer = offer(request);
        // The points of small order that fit into 32 bytes begin with these two.
        for order in [[0; 32], core::array::from_fn(|at| u8::from(at == 0))] {
            offer.key = Bytes::copy_from_slice(&order);
            assert_eq!(
                offer.answer("relay", &mut chance(2)).unwrap_err(),
                Refused::Malformed("link key")
            );
        }
    }

    #[test]
    fn keys_of_another_length_are_refused() {
        let (request, _) = Dial::begin("link", "alice", true, &mut chance(1));
        let good = offer(request);
        for len in [0, 31, 33] {
            let mut offer = good.clone();
            offer.key = Bytes::from(vec![9; len]);
            assert!(offer.answer("relay", &mut chance(2)).is_err());
        }
        for len in [0, 1183, 1185] {
            let mut offer = good.clone();
            offer.kem = Some(Bytes::from(vec![0; len]));
            assert!(offer.answer("relay", &mut chance(2)).is_err());
        }
        // A coefficient that is no member of the field.
        let mut offer = good;
        offer.kem = Some(Bytes::from(vec![0xff; 1184]));
        assert!(offer.answer("relay", &mut chance(2)).is_err());
    }

    #[test]
    fn a_reply_cannot_take_the_kem_away_or_be_another_links() {
        let (request, dial) = Dial::begin("link", "alice", true, &mut chance(1));
        let mut weaker = offer(request.clone());
        weaker.kem = None;
        let (reply, _) = weaker.answer("relay", &mut chance(2)).unwrap();
        assert!(dial.finish(reply.into()).is_err());

        let (_, dial) = Dial::begin("link", "alice", true, &mut chance(1));
        let mut other = offer(request);
        other.link_id.push('2');
        let (reply, _) = other.answer("relay", &mut chance(2)).unwrap();
        assert!(dial.finish(reply.into()).is_err());
    }

    #[test]
    fn the_version_tells_the_generation() {
        let say = |version: &str| -> Result<Generation, Refused> {
            let said = two::LinkNegotiationPayload {
                link_id: "link".to_owned(),
                slim_version: version.to_owned(),
                ..two::LinkNegotiationPayload::default()
            };
            match open(link_message(said).into())? {
                Opening::Offer(offer) => Ok(offer.generation()),
                Opening::Plain(_) => panic!("a Link is an offer"),
            }
        };
        assert_eq!(say("1.4.0"), Ok(Generation::One));
        assert_eq!(say("2.0.0"), Ok(Generation::Two));
        assert_eq!(say("3.4.6-rc.1"), Ok(Generation::Two));
        for bad in [
            "",
            "0.7.0",
            "one.two.three",
            "2",
            "-2.0.0",
            "+2.0.0",
            "99999999999.0.0",
        ] {
            assert!(say(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        let key = LinkKey(Zeroizing::new([0xab; 32]));
        assert_eq!(format!("{key:?}"), "LinkKey(..)");
    }
}
