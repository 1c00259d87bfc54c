//! A message of a session as it was heard, and what of it its sender signed.
//!
//! Left out: what it means.

use std::collections::BTreeMap;

use bytes::Bytes;
use data_encoding::BASE64;
use prost::Message as _;
use skytale_slim::{
    Generation, MessageType, Name, Routed,
    proto::two::{self, command_payload::CommandPayloadType, content::ContentType},
};

use crate::{
    identity::{BadToken, Claim},
    signers::Signed,
};

/// A publication of the second generation.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) source: Name,
    pub(crate) destination: Name,
    /// The sender's token.
    pub(crate) identity: String,
    pub(crate) kind: i32,
    pub(crate) message: MessageType,
    pub(crate) session: u32,
    pub(crate) id: u32,
    /// The sender says that it cannot do what was asked.
    pub(crate) failed: bool,
    pub(crate) said: Said,
    pub(crate) metadata: BTreeMap<String, String>,
    /// What signatures and MLS bind: see [`cover`].
    pub(crate) covered: Vec<u8>,
    signature: Option<Bytes>,
    payload: Vec<u8>,
}

/// What a message says.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "one message is looked at at a time"
)]
pub(crate) enum Said {
    Nothing,
    Application { payload_type: String, blob: Bytes },
    Command(CommandPayloadType),
}

impl Heard {
    /// `None` for what is no publication of the second generation. The bytes are read again, since
    /// signatures cover names as their sender wrote them.
    pub(crate) fn read(routed: &Routed) -> Option<Self> {
        if routed.generation() != Generation::Two {
            return None;
        }
        let session = routed.session()?;
        let message = two::Message::decode(routed.original().clone()).ok()?;
        let Some(two::message::MessageType::Publish(publish)) = message.message_type else {
            return None;
        };
        let covered = cover(&publish);
        let header = publish.header?;
        let payload = publish
            .msg
            .as_ref()
            .map_or_else(Vec::new, two::Content::encode_to_vec);
        let said = match publish.msg.and_then(|content| content.content_type) {
            Some(ContentType::AppPayload(said)) => Said::Application {
                payload_type: said.payload_type,
                blob: said.blob,
            },
            Some(ContentType::CommandPayload(command)) => match command.command_payload_type {
                Some(command) => Said::Command(command),
                None => Said::Nothing,
            },
            None => Said::Nothing,
        };
        Some(Self {
            source: routed.header().source.clone(),
            destination: routed.header().destination.clone(),
            identity: header.identity,
            kind: publish.session?.session_type,
            message: session.message,
            session: session.id,
            id: session.message_id,
            failed: header.error == Some(true),
            said,
            metadata: message.metadata,
            covered,
            signature: header.e2e_header_sig,
            payload,
        })
    }

    /// What of it the holder of a claim signed: the header, and payload with metadata where that
    /// signature is there. Peers of SLIM 2.0 sign the header alone.
    pub(crate) fn verify(&self, claim: &Claim) -> Result<Signed, BadToken> {
        let signature = self.signature.as_ref().ok_or(BadToken)?;
        claim.verify(&self.covered, signature)?;
        let Some(signature) = self.metadata.get(PAYLOAD_SIGNATURE) else {
            return Ok(Signed::Header);
        };
        let signature = BASE64.decode(signature.as_bytes()).map_err(|_| BadToken)?;
        let covered = cover_payload(&self.covered, &self.payload, &self.metadata);
        claim.verify(&covered, &signature)?;
        Ok(Signed::HeaderAndPayload)
    }

    pub(crate) fn is_signed(&self) -> bool {
        self.signature.is_some()
    }

    pub(crate) fn has(&self, mark: &str) -> bool {
        self.metadata.contains_key(mark)
    }
}

/// What a session's control messages are, as SLIM counts them.
pub(crate) fn is_command(message: MessageType) -> bool {
    match message {
        MessageType::DiscoveryRequest
        | MessageType::DiscoveryReply
        | MessageType::JoinRequest
        | MessageType::JoinReply
        | MessageType::LeaveRequest
        | MessageType::LeaveReply
        | MessageType::GroupUpdate
        | MessageType::GroupWelcome
        | MessageType::GroupClose
        | MessageType::GroupProposal
        | MessageType::GroupAck
        | MessageType::GroupNack
        | MessageType::Heartbeat
        | MessageType::UpdateParticipantState
        | MessageType::RejoinRequest
        | MessageType::RejoinReply => true,
        MessageType::Msg
        | MessageType::MsgAck
        | MessageType::RtxRequest
        | MessageType::RtxReply
        | MessageType::GroupAdd
        | MessageType::GroupRemove
        | MessageType::Ping
        | MessageType::Unknown(_) => false,
    }
}

/// The parts of a header that no node changes. Control messages are signed over it, and MLS
/// carries it as authenticated data of what the application says.
pub(crate) fn cover(publish: &two::Publish) -> Vec<u8> {
    let payload_type = match publish.msg.as_ref().and_then(|it| it.content_type.as_ref()) {
        Some(ContentType::AppPayload(said)) => said.payload_type.clone(),
        Some(ContentType::CommandPayload(_)) | None => String::new(),
    };
    let header = publish.header.clone().unwrap_or_default();
    let session = publish.session.unwrap_or_default();
    Covered {
        version: 1,
        source: header.source,
        destination: header.destination,
        identity: header.identity,
        session_type: session.session_type,
        message_type: session.session_message_type,
        session: session.session_id,
        id: session.message_id,
        payload_type,
    }
    .encode_to_vec()
}

/// What the second signature of a control message covers.
pub(crate) fn cover_payload(
    covered: &[u8],
    payload: &[u8],
    metadata: &BTreeMap<String, String>,
) -> Vec<u8> {
    let mut input = PAYLOAD_LABEL.to_vec();
    let mut put = |part: &[u8]| {
        input.extend_from_slice(&(part.len() as u64).to_be_bytes());
        input.extend_from_slice(part);
    };
    put(covered);
    put(payload);
    for (key, value) in metadata {
        if !UNSIGNED.contains(&key.as_str()) {
            put(key.as_bytes());
            put(value.as_bytes());
        }
    }
    input
}

/// SLIM's `HeaderIntegrityAad`.
#[derive(Clone, PartialEq, prost::Message)]
struct Covered {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, optional, tag = "2")]
    source: Option<two::Name>,
    #[prost(message, optional, tag = "3")]
    destination: Option<two::Name>,
    #[prost(string, tag = "4")]
    identity: String,
    #[prost(int32, tag = "5")]
    session_type: i32,
    #[prost(int32, tag = "6")]
    message_type: i32,
    #[prost(uint32, tag = "7")]
    session: u32,
    #[prost(uint32, tag = "8")]
    id: u32,
    #[prost(string, tag = "9")]
    payload_type: String,
}

/// Metadata that carries the second signature.
pub(crate) const PAYLOAD_SIGNATURE: &str = "slim-payload-sig";
/// Metadata that nodes may change, and what receivers add.
const UNSIGNED: [&str; 5] = [
    "traceparent",
    "tracestate",
    "baggage",
    PAYLOAD_SIGNATURE,
    "slim-peer-subject",
];
const PAYLOAD_LABEL: &[u8] = b"slim-payload-v1";
