//! A message of ours on its way to bytes: a fresh token, MLS where the session has it, signatures
//! on what controls a session.

use std::collections::BTreeMap;

use bytes::Bytes;
use data_encoding::BASE64;
use prost::Message as _;
use rand::CryptoRng;
use skytale_slim::{
    Generation, MessageType, Name, Routed, SPOKEN_TWO,
    proto::two::{self, content::ContentType},
};

use crate::{
    Time,
    group::Mls,
    heard::{PAYLOAD_SIGNATURE, Said, cover, cover_payload, is_command},
    identity::Identity,
};

/// What is to be said.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) destination: Name,
    /// To all below the name, and not to any one.
    pub(crate) to_all: bool,
    pub(crate) kind: i32,
    pub(crate) message: MessageType,
    pub(crate) session: u32,
    pub(crate) id: u32,
    pub(crate) failed: bool,
    pub(crate) said: Said,
    pub(crate) metadata: BTreeMap<String, String>,
}

impl Draft {
    /// Makes the bytes. `None` when they would break a bound, or MLS no longer lets us speak.
    pub(crate) fn write(
        self,
        identity: &Identity,
        mls: Option<&mut Mls>,
        now: Time,
        chance: &mut dyn CryptoRng,
    ) -> Option<Routed> {
        let seals = matches!(self.message, MessageType::Msg | MessageType::RtxReply);
        let content = match self.said {
            Said::Nothing => None,
            Said::Application { payload_type, blob } => {
                Some(ContentType::AppPayload(two::ApplicationPayload {
                    payload_type,
                    blob,
                }))
            }
            Said::Command(command) => Some(ContentType::CommandPayload(two::CommandPayload {
                command_payload_type: Some(command),
            })),
        };
        let mut header = two::SlimHeader {
            source: Some(identity.name().to_two()),
            destination: Some(self.destination.to_two()),
            identity: identity.token(now, chance),
            fanout: if self.to_all { FANOUT_ALL } else { 1 },
            version: SPOKEN_TWO.to_owned(),
            ttl: TTL,
            error: self.failed.then_some(true),
            ..two::SlimHeader::default()
        };
        let session = two::SessionHeader {
            session_type: self.kind,
            session_message_type: self.message.number(Generation::Two)?,
            session_id: self.session,
            message_id: self.id,
        };
        let mut publish = two::Publish {
            header: Some(header.clone()),
            session: Some(session),
            msg: Some(two::Content {
                content_type: content,
            }),
        };
        let mut metadata = self.metadata;
        let covered = cover(&publish);
        if is_command(self.message) {
            let payload = publish
                .msg
                .as_ref()
                .map_or_else(Vec::new, two::Content::encode_to_vec);
            let signed = cover_payload(&covered, &payload, &metadata);
            let signature = BASE64.encode(&identity.key().sign(&signed));
            metadata.insert(PAYLOAD_SIGNATURE.to_owned(), signature);
            header.e2e_header_sig = Some(identity.key().sign(&covered).into());
            publish.header = Some(header);
        } else if seals
            && let Some(mls) = mls
            && let Some(two::Content {
                content_type: Some(ContentType::AppPayload(said)),
            }) = &mut publish.msg
        {
            said.blob = mls.seal(identity, &covered, &said.blob)?;
        }
        let message = two::Message {
            metadata,
            message_type: Some(two::message::MessageType::Publish(publish)),
        };
        Routed::from_archive(Generation::Two, message.encode_to_vec().into()).ok()
    }
}

/// A subscription to a name, or its end, as a node wants it.
pub(crate) fn subscription(
    identity: &Identity,
    name: &Name,
    number: u64,
    begins: bool,
    now: Time,
    chance: &mut dyn CryptoRng,
) -> Routed {
    use two::message::MessageType as Kind;

    let header = Some(two::SlimHeader {
        source: Some(identity.name().to_two()),
        destination: Some(name.to_two()),
        identity: identity.token(now, chance),
        version: SPOKEN_TWO.to_owned(),
        ttl: TTL,
        ..two::SlimHeader::default()
    });
    let kind = if begins {
        Kind::Subscribe(two::Subscribe {
            header,
            subscription_id: number,
        })
    } else {
        Kind::Unsubscribe(two::Unsubscribe {
            header,
            subscription_id: number,
        })
    };
    let message = two::Message {
        message_type: Some(kind),
        ..two::Message::default()
    };
    Routed::from_archive(Generation::Two, message.encode_to_vec().into())
        .expect("names are within bounds since they were read")
}

/// Nothing but bytes that mean nothing: acknowledgements carry an empty payload.
pub(crate) fn empty() -> Said {
    Said::Application {
        payload_type: String::new(),
        blob: Bytes::new(),
    }
}

/// What SLIM's clients write when a message is for all.
const FANOUT_ALL: u32 = 256;
/// Nodes that a message may go over, as SLIM's clients begin.
const TTL: u32 = 8;
