//! Messages: checked at the door, kept as they came, and sent on with another hop.
//!
//! Peers sign headers and payloads end to end, and protobuf libraries drop or reorder what they do
//! not know. So a message is decoded only to be checked and looked at; what goes on is the bytes
//! that came, with the fields of the hop replaced where they stand.
//!
//! Left out: the MAC, which is the link's ([`crate::Link`]), and who gets it ([`crate::SubscriptionTable`]).

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use prost::Message as _;

use crate::{
    Generation, Name, SubscriptionId,
    field::{self, Broken, Field, Fields},
    link::{MAC_BYTES, Offer},
    proto::{one, two},
    session::{MessageType, MlsMessage, Session, SessionKind, Unreadable},
};

/// Bytes of a message that comes in. Twice what a client takes, so that one too large is refused
/// by itself instead of ending the stream with all that is in it.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of a message that goes out: SLIM's clients end the stream at more.
pub const CLIENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What came over a link.
#[derive(Debug)]
pub enum Inbound {
    /// To be routed, or about routes.
    Routed(Box<Routed>),
    /// An answer to a subscription, on the side that dialled.
    SubscriptionAck {
        /// Which.
        subscription: SubscriptionId,
        /// Why not.
        result: Result<(), String>,
    },
    /// A negotiation. After the first message it has no place and means nothing.
    Link(Offer),
}

/// A message with a header, and the bytes in which it came.
#[derive(Debug, Clone)]
pub struct Routed {
    generation: Generation,
    original: Bytes,
    header: Header,
    verb: Verb,
    metadata: BTreeMap<String, String>,
    content: Content,
    places: Places,
    hop: HopFields,
    /// What the MAC covers between the link's id and the fields of the hop.
    covered: Vec<u8>,
}

impl Routed {
    /// Where it comes from, where it goes.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What it asks for.
    pub fn verb(&self) -> Verb {
        self.verb
    }

    /// The generation of its sender, and so of those who can take it.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// As it came, for an archive: read again by a link of its generation it would lack the right
    /// MAC, so [`Routed::from_archive`] takes it back.
    pub fn original(&self) -> &Bytes {
        &self.original
    }

    /// What the application or SLIM put beside it. Peers sign it on control messages.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The session it belongs to; only a publication has one.
    pub fn session(&self) -> Option<Session> {
        match self.verb {
            Verb::Publish(session) => Some(session),
            Verb::Subscribe(_) | Verb::Unsubscribe(_) => None,
        }
    }

    /// Type and bytes of what the application said; ciphertext when the session uses MLS.
    pub fn payload(&self) -> Option<(&str, &Bytes)> {
        match &self.content {
            Content::One(Some(one::content::ContentType::AppPayload(said))) => {
                Some((&said.payload_type, &said.blob))
            }
            Content::Two(Some(two::content::ContentType::AppPayload(said))) => {
                Some((&said.payload_type, &said.blob))
            }
            Content::One(_) | Content::Two(_) => None,
        }
    }

    /// The commit or proposal that changes a group, by which its epoch can be followed without any
    /// key. `None` for everything else, and for groups without MLS.
    pub fn mls(&self) -> Option<Result<MlsMessage, Unreadable>> {
        match &self.content {
            Content::One(Some(one::content::ContentType::CommandPayload(command))) => {
                MlsMessage::in_one(command)
            }
            Content::Two(Some(two::content::ContentType::CommandPayload(command))) => {
                MlsMessage::in_two(command)
            }
            Content::One(_) | Content::Two(_) => None,
        }
    }

    /// The command that SLIM's session layer sent, for whoever takes part in a session.
    pub fn command(&self) -> Option<&two::CommandPayload> {
        match &self.content {
            Content::Two(Some(two::content::ContentType::CommandPayload(command))) => Some(command),
            Content::One(_) | Content::Two(_) => None,
        }
    }

    /// The message for those who come next. `arrived_on` is what this node calls the link that it
    /// came over; receivers put their own number there.
    pub fn onward(&self, arrived_on: u64) -> Result<Onward, Undeliverable> {
        let mut new = Vec::new();
        let mut covered = Vec::new();
        match self.generation {
            Generation::One => new.push((ONE.incoming_conn, Value::Number(arrived_on))),
            Generation::Two => {
                let ttl = self.hop.ttl.saturating_sub(1);
                if ttl == 0 {
                    return Err(Undeliverable::Expired);
                }
                new.push((TWO.ttl, Value::Number(ttl.into())));
                new.push((TWO.incoming_conn, Value::Number(arrived_on)));
                new.push((TWO.mac, Value::Mac));
                covered.clone_from(&self.covered);
                let hop = HopFields {
                    ttl,
                    error: self.hop.error,
                    ..HopFields::default()
                };
                hop.cover(&mut covered);
            }
        }
        let (template, mac_at) = self.rewritten(&new);
        if template.len() > CLIENT_BYTES_MAX {
            return Err(Undeliverable::TooLarge);
        }
        Ok(Onward {
            template,
            mac_at,
            covered,
        })
    }

    /// Takes back what an archive kept. The MAC was checked when it came.
    pub fn from_archive(generation: Generation, original: Bytes) -> Result<Self, Refused> {
        match decode(generation, original)? {
            Inbound::Routed(routed) => Ok(*routed),
            Inbound::Link(_) | Inbound::SubscriptionAck { .. } => {
                Err(Refused::Malformed("not a routed message"))
            }
        }
    }

    pub(crate) fn mac(&self) -> Option<&[u8]> {
        self.hop.mac.as_deref()
    }

    pub(crate) fn covered_as_it_came(&self) -> Vec<u8> {
        let mut covered = self.covered.clone();
        self.hop.cover(&mut covered);
        covered
    }

    /// The bytes with the header's hop replaced, and where the MAC belongs in them.
    fn rewritten(&self, new: &[(u32, Value)]) -> (Vec<u8>, Option<usize>) {
        let places = &self.places;
        let numbers = numbers(self.generation);
        let mut header = Vec::with_capacity(places.header.len() + 64);
        let mut mac_at = None;
        let mut new = new.iter().peekable();
        let mut put = |(number, value): &(u32, Value), header: &mut Vec<u8>| match value {
            Value::Number(value) => field::put_number(*number, *value, header),
            Value::Mac => {
                field::put_bytes(*number, &[0; MAC_BYTES], header);
                mac_at = Some(header.len() - MAC_BYTES);
            }
        };
        for field in Fields::new(&self.original, places.header.clone()) {
            let field = field.expect("walked when it was read");
            // In the order of their numbers, as every encoder writes them.
            while let Some(next) = new.next_if(|(number, _)| *number <= field.number) {
                put(next, &mut header);
            }
            if !numbers.are_of_the_hop(field.number) {
                header.extend_from_slice(&self.original[field.whole]);
            }
        }
        for rest in new {
            put(rest, &mut header);
        }

        let mut body = Vec::with_capacity(16);
        body.extend_from_slice(&self.original[places.body.start..places.header_field.start]);
        field::put_length(HEADER, header.len(), &mut body);
        let after = &self.original[places.header_field.end..places.body.end];
        let body_len = body.len() + header.len() + after.len();

        let mut whole = Vec::with_capacity(self.original.len() + 64);
        whole.extend_from_slice(&self.original[..places.verb_field.start]);
        field::put_length(places.verb, body_len, &mut whole);
        whole.extend_from_slice(&body);
        let mac_at = mac_at.map(|at| at + whole.len());
        whole.extend_from_slice(&header);
        whole.extend_from_slice(after);
        whole.extend_from_slice(&self.original[places.verb_field.end..]);
        (whole, mac_at)
    }
}

/// What all messages that are routed have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Who says it, as claimed; peers check it, a node cannot.
    pub source: Name,
    /// Whom it is for.
    pub destination: Name,
    /// A token that peers check.
    pub identity: String,
    /// One or zero: any one receiver. More: all of them.
    pub fanout: u32,
}

/// What a message asks a node to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Send its sender what is for the destination.
    Subscribe(SubscriptionId),
    /// No longer.
    Unsubscribe(SubscriptionId),
    /// Give it to those who are subscribed.
    Publish(Session),
}

/// A message as it goes on, complete but for the MAC of the link that it will go over. Made once
/// for all receivers.
#[derive(Debug, Clone)]
pub struct Onward {
    template: Vec<u8>,
    mac_at: Option<usize>,
    covered: Vec<u8>,
}

impl Onward {
    /// Bytes it has on every link.
    #[expect(clippy::len_without_is_empty, reason = "a message is never empty")]
    pub fn len(&self) -> usize {
        self.template.len()
    }

    pub(crate) fn template(&self) -> &[u8] {
        &self.template
    }

    pub(crate) fn mac_at(&self) -> Option<usize> {
        self.mac_at
    }

    pub(crate) fn covered(&self) -> &[u8] {
        &self.covered
    }
}

/// Why what came is not taken. It is dropped and counted; the stream stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// More than [`MESSAGE_BYTES_MAX`].
    #[error("the message is too large")]
    TooLarge,
    /// No protobuf, not SLIM's, or beyond a bound; says which part.
    #[error("the message is malformed: {0}")]
    Malformed(&'static str),
    /// The header was not made for this link, or was changed on the way.
    #[error("the header has not the MAC of its link")]
    WrongMac,
}

/// Why what came does not go on. It is dropped and counted; SLIM tells nobody either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undeliverable {
    /// It went over too many nodes.
    #[error("the message has been on its way through too many nodes")]
    Expired,
    /// More than [`CLIENT_BYTES_MAX`].
    #[error("the message is larger than SLIM's clients take")]
    TooLarge,
}

/// Whether bytes are a Link, which can be told without knowing the generation.
pub(crate) fn is_link(bytes: &[u8]) -> Result<bool, Refused> {
    let mut kind = None;
    for field in Fields::new(bytes, 0..bytes.len()) {
        let field = field.map_err(|Broken| Refused::Malformed("message"))?;
        if KINDS.contains(&field.number) {
            kind = Some(field.number);
        }
    }
    match kind {
        Some(LINK) => Ok(true),
        Some(SUBSCRIBE | UNSUBSCRIBE | PUBLISH) => Ok(false),
        _ => Err(Refused::Malformed("first message")),
    }
}

/// Decodes as a client would, so that nothing passes which ends a client's stream, and holds what
/// it finds to bounds.
pub(crate) fn decode(generation: Generation, bytes: Bytes) -> Result<Inbound, Refused> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Refused::TooLarge);
    }
    let places = Places::find(&bytes, generation)?;
    match generation {
        Generation::One => decode_one(bytes, places),
        Generation::Two => decode_two(bytes, places),
    }
}

fn decode_one(bytes: Bytes, places: Option<Places>) -> Result<Inbound, Refused> {
    use one::message::MessageType as Kind;

    let message = one::Message::decode(bytes.clone()).map_err(|_| Refused::Malformed("message"))?;
    let (header, verb, content) = match message.message_type {
        Some(Kind::Subscribe(it)) => (
            it.header,
            Verb::Subscribe(SubscriptionId(it.subscription_id)),
            None,
        ),
        Some(Kind::Unsubscribe(it)) => (
            it.header,
            Verb::Unsubscribe(SubscriptionId(it.subscription_id)),
            None,
        ),
        Some(Kind::Publish(it)) => {
            let said = it.session.ok_or(Refused::Malformed("session"))?;
            let session = Session {
                kind: SessionKind::from_number(said.session_type),
                message: MessageType::from_number(Generation::One, said.session_message_type),
                id: said.session_id,
                message_id: said.message_id,
            };
            (it.header, Verb::Publish(session), it.msg)
        }
        Some(Kind::SubscriptionAck(ack)) => {
            return acknowledged(ack.subscription_id, ack.success, ack.error);
        }
        Some(Kind::Link(_)) => {
            // Fields that the first generation has not are empty.
            return link(bytes);
        }
        None => return Err(Refused::Malformed("message")),
    };
    let header = header.ok_or(Refused::Malformed("header"))?;
    let places = places.ok_or(Refused::Malformed("header"))?;
    let name = |name: Option<one::Name>, which| {
        name.and_then(Name::from_one)
            .ok_or(Refused::Malformed(which))
    };
    Ok(Inbound::Routed(Box::new(Routed {
        generation: Generation::One,
        original: bytes,
        header: Header {
            source: name(header.source, "source")?,
            destination: name(header.destination, "destination")?,
            identity: bounded_identity(header.identity)?,
            fanout: header.fanout,
        },
        verb,
        metadata: bounded_metadata(message.metadata)?,
        content: Content::One(content.and_then(|content| content.content_type)),
        places,
        hop: HopFields::default(),
        covered: Vec::new(),
    })))
}

fn decode_two(bytes: Bytes, places: Option<Places>) -> Result<Inbound, Refused> {
    use two::message::MessageType as Kind;

    let message = two::Message::decode(bytes.clone()).map_err(|_| Refused::Malformed("message"))?;
    let (header, verb, content) = match message.message_type {
        Some(Kind::Subscribe(it)) => (
            it.header,
            Verb::Subscribe(SubscriptionId(it.subscription_id)),
            None,
        ),
        Some(Kind::Unsubscribe(it)) => (
            it.header,
            Verb::Unsubscribe(SubscriptionId(it.subscription_id)),
            None,
        ),
        Some(Kind::Publish(it)) => {
            let said = it.session.ok_or(Refused::Malformed("session"))?;
            let session = Session {
                kind: SessionKind::from_number(said.session_type),
                message: MessageType::from_number(Generation::Two, said.session_message_type),
                id: said.session_id,
                message_id: said.message_id,
            };
            (it.header, Verb::Publish(session), it.msg)
        }
        Some(Kind::SubscriptionAck(ack)) => {
            return acknowledged(ack.subscription_id, ack.success, ack.error);
        }
        Some(Kind::Link(link)) => return Ok(Inbound::Link(Offer::read(link)?)),
        None => return Err(Refused::Malformed("message")),
    };
    let header = header.ok_or(Refused::Malformed("header"))?;
    let places = places.ok_or(Refused::Malformed("header"))?;
    let covered = covered(&header);
    let name = |name: Option<two::Name>, which| {
        name.and_then(Name::from_two)
            .ok_or(Refused::Malformed(which))
    };
    Ok(Inbound::Routed(Box::new(Routed {
        generation: Generation::Two,
        original: bytes,
        header: Header {
            source: name(header.source, "source")?,
            destination: name(header.destination, "destination")?,
            identity: bounded_identity(header.identity)?,
            fanout: header.fanout,
        },
        verb,
        metadata: bounded_metadata(message.metadata)?,
        content: Content::Two(content.and_then(|content| content.content_type)),
        places,
        hop: HopFields {
            ttl: header.ttl,
            recv_from: header.recv_from,
            forward_to: header.forward_to,
            error: header.error,
            mac: header.header_mac,
        },
        covered,
    })))
}

fn link(bytes: Bytes) -> Result<Inbound, Refused> {
    let message = two::Message::decode(bytes).map_err(|_| Refused::Malformed("message"))?;
    match message.message_type {
        Some(two::message::MessageType::Link(link)) => Ok(Inbound::Link(Offer::read(link)?)),
        _ => Err(Refused::Malformed("link")),
    }
}

fn acknowledged(id: u64, success: bool, error: String) -> Result<Inbound, Refused> {
    if error.len() > ERROR_BYTES_MAX {
        return Err(Refused::Malformed("subscription ack"));
    }
    Ok(Inbound::SubscriptionAck {
        subscription: SubscriptionId(id),
        result: if success { Ok(()) } else { Err(error) },
    })
}

fn bounded_identity(identity: String) -> Result<String, Refused> {
    if identity.len() > IDENTITY_BYTES_MAX {
        return Err(Refused::Malformed("identity"));
    }
    Ok(identity)
}

fn bounded_metadata(
    metadata: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Refused> {
    let bytes: usize = metadata
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if metadata.len() > METADATA_ENTRIES_MAX || bytes > METADATA_BYTES_MAX {
        return Err(Refused::Malformed("metadata"));
    }
    Ok(metadata)
}

/// What an application or SLIM's session layer says, in the words of its generation.
#[derive(Debug, Clone)]
enum Content {
    One(Option<one::content::ContentType>),
    Two(Option<two::content::ContentType>),
}

/// Header fields of the second generation that a node makes anew, and the one beside them that the
/// MAC covers.
#[derive(Debug, Clone, Default)]
struct HopFields {
    ttl: u32,
    recv_from: Option<u64>,
    forward_to: Option<u64>,
    error: Option<bool>,
    mac: Option<Bytes>,
}

impl HopFields {
    fn cover(&self, out: &mut Vec<u8>) {
        for hint in [self.recv_from, self.forward_to] {
            out.push(hint.is_some().into());
            out.extend(hint.into_iter().flat_map(u64::to_le_bytes));
        }
        out.push(self.error.is_some().into());
        out.extend(self.error.map(u8::from));
        out.extend(self.ttl.to_le_bytes());
    }
}

/// What the MAC covers of names, identity and fan-out. Presence counts: a name without an id and
/// one with the id NULL are routed alike and covered differently.
fn covered(header: &two::SlimHeader) -> Vec<u8> {
    let mut out = Vec::with_capacity(header.identity.len() + 256);
    cover_name(header.source.as_ref(), &mut out);
    cover_name(header.destination.as_ref(), &mut out);
    cover_text(&header.identity, &mut out);
    out.extend(header.fanout.to_le_bytes());
    out
}

fn cover_name(name: Option<&two::Name>, out: &mut Vec<u8>) {
    out.push(name.is_some().into());
    let Some(name) = name else { return };
    out.push(name.name.is_some().into());
    if let Some(encoded) = &name.name {
        for component in [
            encoded.component_0,
            encoded.component_1,
            encoded.component_2,
        ] {
            out.extend(component.to_le_bytes());
        }
        out.push(encoded.name_id.is_some().into());
        if let Some(id) = &encoded.name_id {
            out.extend(id.id_0.to_le_bytes());
            out.extend(id.id_1.to_le_bytes());
        }
    }
    out.push(name.str_name.is_some().into());
    if let Some(text) = &name.str_name {
        for part in [
            &text.str_component_0,
            &text.str_component_1,
            &text.str_component_2,
        ] {
            cover_text(part, out);
        }
    }
}

fn cover_text(text: &str, out: &mut Vec<u8>) {
    let len = u32::try_from(text.len()).expect("a message has fewer bytes");
    out.extend(len.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Where the header stands in the bytes.
#[derive(Debug, Clone)]
struct Places {
    /// Number of the field that is the message: Subscribe, Unsubscribe or Publish.
    verb: u32,
    verb_field: Range<usize>,
    body: Range<usize>,
    header_field: Range<usize>,
    header: Range<usize>,
}

impl Places {
    /// `None` for messages without a header. Protobuf lets a field stand twice, and decoders merge
    /// or choose; no encoder writes that, and a node that looked at one while a client took the
    /// other could be fooled, so it is refused wherever something is replaced.
    fn find(bytes: &[u8], generation: Generation) -> Result<Option<Self>, Refused> {
        let malformed = |part| move |Broken| Refused::Malformed(part);
        let mut kind = None;
        let mut entries = 0;
        for field in Fields::new(bytes, 0..bytes.len()) {
            let field = field.map_err(malformed("message"))?;
            if field.number == METADATA {
                entries += 1;
            } else if KINDS.contains(&field.number) && kind.replace(field).is_some() {
                return Err(Refused::Malformed("two messages in one"));
            }
        }
        // Before the decoder makes a map of them.
        if entries > METADATA_ENTRIES_MAX {
            return Err(Refused::Malformed("metadata"));
        }
        let kind = kind.ok_or(Refused::Malformed("message"))?;
        if kind.number == LINK || kind.number == ACK {
            return Ok(None);
        }
        let body = kind.inside.ok_or(Refused::Malformed("message"))?;

        let mut header = None;
        let mut seen = Once::default();
        for field in Fields::new(bytes, body.clone()) {
            let field = field.map_err(malformed("message"))?;
            seen.see(field.number, BODY_FIELD_LAST)?;
            match field.number {
                HEADER => header = Some(field),
                CONTENT if kind.number == PUBLISH => {
                    let inside = field.inside.ok_or(Refused::Malformed("content"))?;
                    check_content(bytes, inside)?;
                }
                _ => {}
            }
        }
        let header = header.ok_or(Refused::Malformed("header"))?;
        let inside = header.inside.ok_or(Refused::Malformed("header"))?;
        if inside.len() > HEADER_BYTES_MAX {
            return Err(Refused::Malformed("header"));
        }
        let mut seen = Once::default();
        for field in Fields::new(bytes, inside.clone()) {
            let field = field.map_err(malformed("header"))?;
            seen.see(field.number, numbers(generation).last)?;
        }
        Ok(Some(Self {
            verb: kind.number,
            verb_field: kind.whole,
            body,
            header_field: header.whole,
            header: inside,
        }))
    }
}

/// An empty entry of a list takes two bytes on the wire and a hundred times that when it is
/// decoded, so lists are counted first. They stand only directly in a command's payload.
fn check_content(bytes: &[u8], content: Range<usize>) -> Result<(), Refused> {
    let malformed = |Broken| Refused::Malformed("content");
    let Some(content) = only(bytes, content)? else {
        return Ok(());
    };
    if content.number != COMMAND {
        return Ok(());
    }
    let Some(command) = only(bytes, content.inside.unwrap_or_default())? else {
        return Ok(());
    };
    let mut fields = 0;
    for field in Fields::new(bytes, command.inside.unwrap_or_default()) {
        field.map_err(malformed)?;
        fields += 1;
        if fields > COMMAND_FIELDS_MAX {
            return Err(Refused::Malformed("command too long"));
        }
    }
    Ok(())
}

/// The one field of a message that holds a choice; merged lists would escape the count.
fn only(bytes: &[u8], within: Range<usize>) -> Result<Option<Field>, Refused> {
    let mut fields = Fields::new(bytes, within);
    let first = fields.next().transpose();
    if fields.next().is_some() {
        return Err(Refused::Malformed("two contents in one"));
    }
    first.map_err(|Broken| Refused::Malformed("content"))
}

/// Fields that were seen, up to the last number that is known.
#[derive(Debug, Default)]
struct Once(u32);

impl Once {
    fn see(&mut self, number: u32, last: u32) -> Result<(), Refused> {
        if number > last {
            return Ok(());
        }
        let bit = 1 << number;
        if self.0 & bit != 0 {
            return Err(Refused::Malformed("a field stands twice"));
        }
        self.0 |= bit;
        Ok(())
    }
}

/// What goes into a field of the hop.
#[derive(Debug, Clone, Copy)]
enum Value {
    Number(u64),
    /// Zeros, until the link is known.
    Mac,
}

/// Numbers of the header's fields. Zero stands for what a generation has not.
#[derive(Debug)]
struct Numbers {
    ttl: u32,
    recv_from: u32,
    forward_to: u32,
    incoming_conn: u32,
    mac: u32,
    last: u32,
}

impl Numbers {
    fn are_of_the_hop(&self, number: u32) -> bool {
        [
            self.ttl,
            self.recv_from,
            self.forward_to,
            self.incoming_conn,
            self.mac,
        ]
        .contains(&number)
    }
}

fn numbers(generation: Generation) -> &'static Numbers {
    match generation {
        Generation::One => &ONE,
        Generation::Two => &TWO,
    }
}

const ONE: Numbers = Numbers {
    ttl: 0,
    recv_from: 5,
    forward_to: 6,
    incoming_conn: 7,
    mac: 0,
    last: 8,
};

const TWO: Numbers = Numbers {
    ttl: 6,
    recv_from: 7,
    forward_to: 8,
    incoming_conn: 9,
    mac: 11,
    last: 12,
};

// Field numbers of Message, and of the three messages that have a header; alike in both.
const SUBSCRIBE: u32 = 1;
const UNSUBSCRIBE: u32 = 2;
const PUBLISH: u32 = 3;
const METADATA: u32 = 4;
const LINK: u32 = 5;
const ACK: u32 = 6;
const KINDS: [u32; 5] = [SUBSCRIBE, UNSUBSCRIBE, PUBLISH, LINK, ACK];
const HEADER: u32 = 1;
const CONTENT: u32 = 3;
const COMMAND: u32 = 2;
const BODY_FIELD_LAST: u32 = 3;

/// Bytes of a header: two names, and an identity that may be a certificate.
const HEADER_BYTES_MAX: usize = 64 * 1024;
const IDENTITY_BYTES_MAX: usize = 32 * 1024;
/// Fields of a command's payload, which is about how many participants it can list.
const COMMAND_FIELDS_MAX: usize = 8192;
const METADATA_ENTRIES_MAX: usize = 256;
const METADATA_BYTES_MAX: usize = 64 * 1024;
const ERROR_BYTES_MAX: usize = 1024;
