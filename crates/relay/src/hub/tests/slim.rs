//! SLIM's rules: a house with streams of SLIM's clients beside the native lines, and what is said
//! over them in SLIM's own bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use skytale_slim::{
    Address, Dial, Draft, Generation, Header, Inbound, Instance, Link, MessageType, Name, Onward,
    Opening, Pattern, Routed, Said, Session, SessionKind, SubscriptionId, Verb, open, proto,
};
use skytale_wire::{
    frame::{SlimDeliver, SlimName, SlimPublish, SlimSubscribe, ToAgent, ToRelay},
    id::{Seq, Time},
};

use super::house::{House, Person, SlimSaid};
use crate::hub::{Conn, Input, Payer, SlimPresented, SlimRight};

mod bounds;
mod native;
mod order;
mod records;
mod repeats;
mod rights;
mod routes;
mod usage;

/// A client of SLIM: one stream, one name.
struct Client {
    conn: Conn,
    name: Name,
    generation: Generation,
    link: Link,
}

impl House {
    /// A client that is subscribed to its own name, on a relay that asks for no token.
    fn client(&mut self, generation: Generation, name: &str, id: u128) -> Client {
        self.client_by(SlimRight::Open, generation, name, id)
    }

    fn client_by(
        &mut self,
        owner: SlimRight,
        generation: Generation,
        name: &str,
        id: u128,
    ) -> Client {
        let client = self.stream(owner, generation, name, id);
        let address = client.name.clone();
        self.subscribes(&client, &address);
        self.settle();
        self.heard(&client);
        client
    }

    fn stream(&mut self, owner: SlimRight, generation: Generation, name: &str, id: u128) -> Client {
        let conn = self.next_conn();
        let presented = SlimPresented { generation, owner };
        self.handle(Input::SlimOpened { conn, presented });
        Client {
            conn,
            name: at(name, id),
            generation,
            link: link(generation),
        }
    }

    fn says(&mut self, client: &Client, message: Routed) {
        let earlier = self.slim_earlier(&message);
        self.handle(Input::Slim {
            conn: client.conn,
            message: Box::new(message),
            earlier,
        });
    }

    fn subscribes(&mut self, client: &Client, to: &Name) {
        let message = subscription(client, to, true, 7);
        self.says(client, message);
    }

    /// What has come over a client's stream since the last look, as its own end reads it.
    fn heard(&mut self, client: &Client) -> Vec<Heard> {
        let said = self.slim.remove(&client.conn).unwrap_or_default();
        said.into_iter().map(|said| heard(client, said)).collect()
    }

    /// What was said in messages of applications.
    fn words(&mut self, client: &Client) -> Vec<String> {
        let heard = self.heard(client);
        heard.iter().filter_map(Heard::words).collect()
    }

    /// The types of messages that came.
    fn types(&mut self, client: &Client) -> Vec<MessageType> {
        let heard = self.heard(client);
        heard.iter().filter_map(Heard::message_type).collect()
    }

    /// What a native line was given of SLIM since the last look: places and words.
    fn given(&mut self, conn: Conn) -> Vec<(Option<u64>, String)> {
        self.delivered_slim(conn)
            .into_iter()
            .map(|deliver| {
                let message = routed_in(&deliver);
                let (_, blob) = message.payload().unwrap();
                let words = String::from_utf8(blob.to_vec()).unwrap();
                (deliver.seq.map(|seq| seq.0), words)
            })
            .collect()
    }

    fn delivered_slim(&mut self, conn: Conn) -> Vec<SlimDeliver> {
        let news = self.news(conn);
        let only = |frame| {
            if let ToAgent::SlimDeliver(deliver) = frame {
                Some(deliver)
            } else {
                None
            }
        };
        news.into_iter().filter_map(only).collect()
    }

    fn native_subscribes(&mut self, conn: Conn, name: &Name, after: Option<u64>) {
        let id = self.id();
        self.say(
            conn,
            ToRelay::SlimSubscribe(SlimSubscribe {
                id,
                name: wire_name(name.address),
                after: after.map(Seq),
            }),
        );
    }

    fn native_publishes(&mut self, conn: Conn, message: &Routed) {
        let id = self.id();
        self.say(conn, ToRelay::SlimPublish(publishing(id, message)));
    }

    /// A native agent of this account, whose line is ready.
    fn native(&mut self, person: &Person) -> Conn {
        let conn = self.open(person);
        self.news(conn);
        conn
    }
}

/// What a client's own end makes of what came.
#[derive(Debug)]
enum Heard {
    Message(Box<Routed>),
    Answer(SubscriptionId, Result<(), String>),
}

impl Heard {
    fn message(&self) -> Option<&Routed> {
        match self {
            Self::Message(message) => Some(message),
            Self::Answer(..) => None,
        }
    }

    fn message_type(&self) -> Option<MessageType> {
        Some(self.message()?.session()?.message)
    }

    fn words(&self) -> Option<String> {
        let (_, blob) = self.message()?.payload()?;
        Some(String::from_utf8(blob.to_vec()).unwrap())
    }
}

fn heard(client: &Client, said: SlimSaid) -> Heard {
    let bytes = match said {
        SlimSaid::Ack(bytes) => bytes,
        SlimSaid::Onward(onward) => signed(client, &onward),
    };
    match client.link.read(bytes).unwrap() {
        Inbound::Routed(message) => Heard::Message(message),
        Inbound::SubscriptionAck {
            subscription,
            result,
        } => Heard::Answer(subscription, result),
        Inbound::Link(_) => panic!("nobody negotiates here"),
    }
}

fn signed(client: &Client, onward: &Onward) -> Bytes {
    let mut bytes = Vec::new();
    client.link.write(onward, &mut bytes).unwrap();
    bytes.into()
}

/// Both ends of a link have one key, so the relay's end reads what it has signed.
fn link(generation: Generation) -> Link {
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};

    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let first = match generation {
        Generation::One => {
            let name = at("org/ns/x", 1);
            let message = said_by(Generation::One, &name, &name, "x", 1, 1);
            message.original().clone()
        }
        Generation::Two => {
            let (begin, _) = Dial::begin("link", "client", false, &mut rng);
            begin.into()
        }
    };
    match open(first).unwrap() {
        Opening::Plain(link) => link,
        Opening::Offer(offer) => offer.answer("relay", &mut rng).unwrap().1,
    }
}

fn at(name: &str, id: u128) -> Name {
    Name::parse(name).unwrap().at(Instance::Only(id))
}

fn any(name: &str) -> Name {
    Name::parse(name).unwrap()
}

/// A message of an application in a session of two.
fn msg(client: &Client, to: &Name, words: &str, number: u32) -> Routed {
    said_by(client.generation, &client.name, to, words, 5, number)
}

fn said_by(
    generation: Generation,
    from: &Name,
    to: &Name,
    words: &str,
    session: u32,
    number: u32,
) -> Routed {
    draft(
        generation,
        from,
        to,
        1,
        SessionKind::PointToPoint,
        MessageType::Msg,
        (session, number),
        application(words),
    )
}

/// A message of an application to all of a group.
fn cast(client: &Client, to: &Name, words: &str, number: u32) -> Routed {
    draft(
        client.generation,
        &client.name,
        to,
        256,
        SessionKind::Multicast,
        MessageType::Msg,
        (5, number),
        application(words),
    )
}

/// Something of SLIM's session layer that nobody here looks into.
fn control(client: &Client, to: &Name, message: MessageType, number: u32) -> Routed {
    draft(
        client.generation,
        &client.name,
        to,
        256,
        SessionKind::Multicast,
        message,
        (5, number),
        application("control"),
    )
}

fn application(words: &str) -> Said {
    Said::Application {
        payload_type: "msg".into(),
        blob: Bytes::copy_from_slice(words.as_bytes()),
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "a header and a session have so many"
)]
fn draft(
    generation: Generation,
    from: &Name,
    to: &Name,
    fanout: u32,
    kind: SessionKind,
    message: MessageType,
    (id, message_id): (u32, u32),
    said: Said,
) -> Routed {
    let draft = Draft {
        header: Header {
            source: from.clone(),
            destination: to.clone(),
            identity: "token".into(),
            fanout,
        },
        session: Session {
            kind,
            message,
            id,
            message_id,
        },
        said,
        metadata: BTreeMap::new(),
    };
    draft.routed(generation).unwrap()
}

/// A commit of a group, as far as anybody without its keys can read it.
fn commit(client: &Client, to: &Name, epoch: u64, number: u32) -> Routed {
    handshake(client, to, epoch, number, b"group", COMMIT)
}

fn handshake(
    client: &Client,
    to: &Name,
    epoch: u64,
    number: u32,
    group: &[u8],
    content: u8,
) -> Routed {
    let mls = public_message(group, epoch, content);
    let (message, said) = match client.generation {
        Generation::One => {
            use proto::one;
            let payload = one::GroupAddPayload {
                mls: Some(one::MlsPayload {
                    commit_id: number,
                    mls_content: mls,
                }),
                ..one::GroupAddPayload::default()
            };
            let command = one::command_payload::CommandPayloadType::GroupAdd(payload);
            (MessageType::GroupAdd, Said::One(command))
        }
        Generation::Two => {
            use proto::two;
            let payload = two::GroupUpdatePayload {
                mls: Some(two::MlsPayload {
                    commit_id: number,
                    mls_content: mls,
                }),
                ..two::GroupUpdatePayload::default()
            };
            let command = two::command_payload::CommandPayloadType::GroupUpdate(payload);
            (MessageType::GroupUpdate, Said::Two(command))
        }
    };
    group_command(client, to, message, said, number)
}

/// What changes a group without MLS: it has no epoch that could be read.
fn update_without_mls(client: &Client, to: &Name) -> Routed {
    let (message, said) = match client.generation {
        Generation::One => {
            use proto::one;
            let payload = one::GroupAddPayload::default();
            let command = one::command_payload::CommandPayloadType::GroupAdd(payload);
            (MessageType::GroupAdd, Said::One(command))
        }
        Generation::Two => {
            use proto::two;
            let payload = two::GroupUpdatePayload::default();
            let command = two::command_payload::CommandPayloadType::GroupUpdate(payload);
            (MessageType::GroupUpdate, Said::Two(command))
        }
    };
    group_command(client, to, message, said, 60)
}

/// What asks whether somebody is there, in each generation's word.
fn ping(client: &Client, to: &Name) -> Routed {
    let (message, said) = match client.generation {
        Generation::One => {
            use proto::one;
            let payload = one::PingPayload {};
            let command = one::command_payload::CommandPayloadType::Ping(payload);
            (MessageType::Ping, Said::One(command))
        }
        Generation::Two => {
            use proto::two;
            let payload = two::HeartbeatPayload::default();
            let command = two::command_payload::CommandPayloadType::Heartbeat(payload);
            (MessageType::Heartbeat, Said::Two(command))
        }
    };
    group_command(client, to, message, said, 61)
}

fn group_command(
    client: &Client,
    to: &Name,
    message: MessageType,
    said: Said,
    number: u32,
) -> Routed {
    draft(
        client.generation,
        &client.name,
        to,
        256,
        SessionKind::Multicast,
        message,
        (5, number),
        said,
    )
}

/// RFC 9420, section 6, up to where the content begins.
fn public_message(group: &[u8], epoch: u64, content: u8) -> Bytes {
    let mut mls = vec![0, 1, 0, 1, u8::try_from(group.len()).unwrap()];
    mls.extend_from_slice(group);
    mls.extend(epoch.to_be_bytes());
    mls.extend([1, 0, 0, 0, 0, 0, content]);
    mls.into()
}

/// A Subscribe or Unsubscribe, written as a client does.
fn subscription(client: &Client, to: &Name, begins: bool, id: u64) -> Routed {
    // A publication between the same names has the same header.
    let like = said_by(client.generation, &client.name, to, "x", 1, 1);
    let bytes = match client.generation {
        Generation::One => {
            use proto::one::{self, message::MessageType as Kind};
            let Some(Kind::Publish(publish)) = one::Message::decode(like.original().clone())
                .unwrap()
                .message_type
            else {
                panic!("it was a publication")
            };
            let (header, subscription_id) = (publish.header, id);
            let kind = if begins {
                Kind::Subscribe(one::Subscribe {
                    header,
                    subscription_id,
                })
            } else {
                Kind::Unsubscribe(one::Unsubscribe {
                    header,
                    subscription_id,
                })
            };
            one::Message {
                message_type: Some(kind),
                ..one::Message::default()
            }
            .encode_to_vec()
        }
        Generation::Two => {
            use proto::two::{self, message::MessageType as Kind};
            let Some(Kind::Publish(publish)) = two::Message::decode(like.original().clone())
                .unwrap()
                .message_type
            else {
                panic!("it was a publication")
            };
            let (header, subscription_id) = (publish.header, id);
            let kind = if begins {
                Kind::Subscribe(two::Subscribe {
                    header,
                    subscription_id,
                })
            } else {
                Kind::Unsubscribe(two::Unsubscribe {
                    header,
                    subscription_id,
                })
            };
            two::Message {
                message_type: Some(kind),
                ..two::Message::default()
            }
            .encode_to_vec()
        }
    };
    Routed::from_archive(client.generation, bytes.into()).unwrap()
}

fn account(name: &str, patterns: &[&str], expires: Time) -> SlimRight {
    SlimRight::Account {
        payer: Payer::account(name),
        patterns: patterns
            .iter()
            .map(|pattern| Pattern::parse(pattern).unwrap())
            .collect(),
        expires,
    }
}

fn wire_name(address: Address) -> SlimName {
    SlimName {
        components: address.components.0,
        instance: match address.instance {
            Instance::Any => None,
            Instance::Only(id) => Some(id.into()),
        },
    }
}

fn publishing(id: skytale_wire::id::MessageId, message: &Routed) -> SlimPublish {
    SlimPublish {
        id,
        generation: match message.generation() {
            Generation::One => 1,
            Generation::Two => 2,
        },
        message: skytale_wire::Blob(message.original().clone()),
    }
}

fn routed_in(deliver: &SlimDeliver) -> Routed {
    let generation = match deliver.generation {
        1 => Generation::One,
        2 => Generation::Two,
        other => panic!("there is no generation {other}"),
    };
    let message = Routed::from_archive(generation, deliver.message.0.clone()).unwrap();
    assert!(matches!(message.verb(), Verb::Publish(_)));
    assert_eq!(
        deliver.name,
        wire_name(message.header().destination.address)
    );
    message
}

const BOTH: [Generation; 2] = [Generation::One, Generation::Two];
const COMMIT: u8 = 3;
const PROPOSAL: u8 = 2;
