//! Messages that are made here: answers of a node, and what somebody who is not a SLIM client says
//! to a SLIM name.
//!
//! Nothing made here carries the signature that peers put on control messages, so stock clients
//! take control messages from here for noise, as they should.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use crate::{
    Generation, Header, MessageType, Refused, Routed, Session, SubscriptionId,
    proto::{one, two},
};

/// A publication before it has bytes.
#[derive(Debug, Clone)]
pub struct Draft {
    /// From where, whereto, to how many.
    pub header: Header,
    /// The place in its session. That its type is one for what is said, the caller knows.
    pub session: Session,
    /// What is said.
    pub said: Said,
    /// Beside it.
    pub metadata: BTreeMap<String, String>,
}

/// What a draft says.
#[derive(Debug, Clone)]
pub enum Said {
    /// Something of the application, of a type that SLIM's clients call "msg" if it has none.
    Application {
        /// The application's word for it.
        payload_type: String,
        /// The bytes.
        blob: Bytes,
    },
    /// A command of the second generation.
    Two(two::command_payload::CommandPayloadType),
    /// A command of the first.
    One(one::command_payload::CommandPayloadType),
}

impl Draft {
    /// The message, as if it had come in: it goes on by [`Routed::onward`]. Refused where the
    /// generation has no such message, or a bound is broken.
    pub fn routed(self, generation: Generation) -> Result<Routed, Refused> {
        let kind = self.session.message.number(generation);
        let kind = kind.ok_or(Refused::Malformed("message type"))?;
        let bytes = match generation {
            Generation::One => self.bytes_one(kind)?,
            Generation::Two => self.bytes_two(kind)?,
        };
        Routed::from_archive(generation, bytes.into())
    }

    fn bytes_one(self, kind: i32) -> Result<Vec<u8>, Refused> {
        use one::content::ContentType;

        let content = match self.said {
            Said::Application { payload_type, blob } => {
                ContentType::AppPayload(one::ApplicationPayload { payload_type, blob })
            }
            Said::One(command) => ContentType::CommandPayload(one::CommandPayload {
                command_payload_type: Some(command),
            }),
            Said::Two(_) => return Err(Refused::Malformed("command")),
        };
        let publish = one::Publish {
            header: Some(one::SlimHeader {
                source: Some(self.header.source.to_one()),
                destination: Some(self.header.destination.to_one()),
                fanout: self.header.fanout,
                identity: self.header.identity,
                ..one::SlimHeader::default()
            }),
            session: Some(one::SessionHeader {
                session_type: self.session.kind.number(),
                session_message_type: kind,
                session_id: self.session.id,
                message_id: self.session.message_id,
            }),
            msg: Some(one::Content {
                content_type: Some(content),
            }),
        };
        Ok(one::Message {
            metadata: self.metadata,
            message_type: Some(one::message::MessageType::Publish(publish)),
        }
        .encode_to_vec())
    }

    fn bytes_two(self, kind: i32) -> Result<Vec<u8>, Refused> {
        use two::content::ContentType;

        let content = match self.said {
            Said::Application { payload_type, blob } => {
                ContentType::AppPayload(two::ApplicationPayload { payload_type, blob })
            }
            Said::Two(command) => ContentType::CommandPayload(two::CommandPayload {
                command_payload_type: Some(command),
            }),
            Said::One(_) => return Err(Refused::Malformed("command")),
        };
        let publish = two::Publish {
            header: Some(two::SlimHeader {
                source: Some(self.header.source.to_two()),
                destination: Some(self.header.destination.to_two()),
                identity: self.header.identity,
                fanout: self.header.fanout,
                version: crate::SPOKEN_TWO.to_owned(),
                ttl: TTL,
                ..two::SlimHeader::default()
            }),
            session: Some(two::SessionHeader {
                session_type: self.session.kind.number(),
                session_message_type: kind,
                session_id: self.session.id,
                message_id: self.session.message_id,
            }),
            msg: Some(two::Content {
                content_type: Some(content),
            }),
        };
        Ok(two::Message {
            metadata: self.metadata,
            message_type: Some(two::message::MessageType::Publish(publish)),
        }
        .encode_to_vec())
    }
}

/// What a node says when a subscription was applied, or why it was not; alike in both generations.
/// Subscriptions without an id want no answer.
pub fn subscription_ack(subscription: SubscriptionId, result: Result<(), &str>) -> Option<Vec<u8>> {
    if subscription == SubscriptionId::NONE {
        return None;
    }
    let ack = two::SubscriptionAck {
        subscription_id: subscription.0,
        success: result.is_ok(),
        error: result.err().unwrap_or_default().to_owned(),
    };
    let message = two::Message {
        message_type: Some(two::message::MessageType::SubscriptionAck(ack)),
        ..two::Message::default()
    };
    Some(message.encode_to_vec())
}

/// A node's own `GroupAck` or `GroupNack` to the commit's sender, in the name of the commit's
/// destination. `None` in the first generation, whose clients abort on one.
pub fn verdict(commit: &Routed, accepted: bool) -> Option<Routed> {
    use two::command_payload::CommandPayloadType as Command;

    if commit.generation() == Generation::One {
        return None;
    }
    let (message, command) = if accepted {
        (
            MessageType::GroupAck,
            Command::GroupAck(two::GroupAckPayload {}),
        )
    } else {
        (
            MessageType::GroupNack,
            Command::GroupNack(two::GroupNackPayload {}),
        )
    };
    reply(commit, message, Said::Two(command))
}

/// The answer to a Ping, or in the second generation a Heartbeat, that was addressed to a node's own
/// name: its like, back to where it came from. SLIM has no Pong. `None` for other messages.
pub fn answer_ping(ping: &Routed) -> Option<Routed> {
    let message = ping.session()?.message;
    let said = match (ping.generation(), message) {
        (Generation::One, MessageType::Ping) => Said::One(
            one::command_payload::CommandPayloadType::Ping(one::PingPayload {}),
        ),
        (Generation::Two, MessageType::Heartbeat) => {
            Said::Two(ping.command()?.command_payload_type.clone()?)
        }
        _ => return None,
    };
    reply(ping, message, said)
}

fn reply(to: &Routed, message: MessageType, said: Said) -> Option<Routed> {
    let header = Header {
        source: to.header().destination.clone(),
        destination: to.header().source.clone(),
        identity: String::new(),
        fanout: 1,
    };
    let session = Session {
        message,
        ..to.session()?
    };
    let draft = Draft {
        header,
        session,
        said,
        metadata: BTreeMap::new(),
    };
    // Names and numbers were within bounds when they came.
    draft.routed(to.generation()).ok()
}

/// Nodes that a message may go over, as SLIM's clients begin.
const TTL: u32 = 8;
