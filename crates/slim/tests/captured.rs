//! Against what unmodified clients said: `vectors/second.jsonl` is of slim-bindings 3.3.8 and
//! `vectors/first.jsonl` of 1.4.1, each a pair and a group of three with MLS, by way of the
//! independent relay in `vectors/record.py`, which also says how they are made.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::{collections::BTreeMap, convert::Infallible};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use prost::Message as _;
use rand::{TryCryptoRng, TryRng};
use serde_json::Value;
use skytale_slim::{
    Change, Dial, Generation, Inbound, Link, LinkId, MessageType, MlsContent, Opening, Refused,
    Routed, SubscriptionTable, Verb, answer_ping, open, proto::two, subscription_ack, verdict,
};

#[test]
fn a_stock_clients_first_message_tells_its_generation() {
    for (generation, recording) in recordings() {
        for link in recording.links() {
            let Opening::Offer(offer) = open(recording.first(link)).unwrap() else {
                panic!("it began with a Link");
            };
            assert_eq!(offer.generation(), generation);
            assert!(!offer.is_hybrid());
        }
    }
    // Releases before 1.3 know no Link and begin with their subscription.
    let (_, first) = &recordings()[0];
    let subscribe = first.said(1)[1].clone();
    let Opening::Plain(link) = open(subscribe.clone()).unwrap() else {
        panic!("a subscription is no offer");
    };
    assert_eq!(link.generation(), Generation::One);
    assert!(matches!(link.read(subscribe), Ok(Inbound::Routed(_))));
}

/// The MACs are the clients' own, so this holds key agreement, preimage and MAC to theirs.
#[test]
fn every_message_of_a_stock_client_is_read_on_its_link() {
    for (generation, recording) in recordings() {
        let links = recording.open_all();
        for (id, link) in &links {
            assert_eq!(link.generation(), generation);
            for bytes in &recording.said(*id)[1..] {
                let routed = routed(link.read(bytes.clone()));
                assert_eq!(routed.original(), bytes);
            }
        }
    }
}

/// The other implementation decoded, changed and encoded; here bytes are replaced where they stand.
#[test]
fn what_goes_on_is_byte_for_byte_what_another_relay_sent() {
    for (_, recording) in recordings() {
        let links = recording.open_all();
        let mut table = SubscriptionTable::default();
        let mut sent = Vec::new();
        for (from, bytes) in recording.all_said() {
            let Inbound::Routed(message) = links[&from].read(bytes).unwrap() else {
                continue;
            };
            let address = message.header().destination.address;
            match message.verb() {
                Verb::Subscribe(id) => {
                    table.subscribe(LinkId(from), address, id).unwrap();
                    sent.extend(subscription_ack(id, Ok(())).map(|ack| (from, ack)));
                }
                Verb::Unsubscribe(id) => {
                    table.unsubscribe(LinkId(from), address, id);
                    sent.extend(subscription_ack(id, Ok(())).map(|ack| (from, ack)));
                }
                Verb::Publish(_) => {
                    let mut to = Vec::new();
                    table.route(LinkId(from), address, message.header().fanout, &mut to);
                    let onward = message.onward(from).unwrap();
                    for to in to {
                        let mut bytes = Vec::new();
                        links[&to.0].write(&onward, &mut bytes).unwrap();
                        assert_eq!(bytes.len(), onward.len());
                        sent.push((to.0, bytes));
                    }
                }
            }
        }
        let mut expected = recording.all_heard();
        sent.sort();
        expected.sort();
        assert!(expected.len() > 40, "the recording has lost its lines");
        assert_eq!(sent.len(), expected.len());
        assert!(sent == expected, "some byte is different");
    }
}

#[test]
fn stock_names_hash_to_what_they_say() {
    for message in messages() {
        let header = message.header();
        for name in [&header.source, &header.destination] {
            let text = name.proven_text().expect("the hash is SLIM's");
            assert_eq!(&text[..2], ["org", "ns"]);
        }
    }
}

#[test]
fn the_epochs_of_commits_can_be_read() {
    for (generation, recording) in recordings() {
        let mut seen = Vec::new();
        for message in recording.messages() {
            let Some(commit) = message.mls() else {
                continue;
            };
            let commit = commit.unwrap();
            assert_eq!(commit.content, MlsContent::Commit);
            seen.push((message.session().unwrap().message, commit));
        }
        let types: Vec<_> = seen.iter().map(|(message, _)| *message).collect();
        let expected = match generation {
            Generation::One => [MessageType::GroupAdd, MessageType::GroupRemove],
            Generation::Two => [MessageType::GroupUpdate; 2],
        };
        assert_eq!(types, expected);
        let [(_, add), (_, remove)] = &seen[..] else {
            panic!("two commits cross the relay");
        };
        assert_eq!((add.change, remove.change), (Change::Add, Change::Remove));
        assert_eq!((add.commit_id, remove.commit_id), (Some(2), Some(3)));
        // The first commit, of epoch 0, is between the moderator and nobody.
        assert_eq!((add.epoch, remove.epoch), (1, 2));
        assert_eq!(add.group, remove.group);
    }
}

#[test]
fn another_links_mac_is_refused_and_none_is_too() {
    let (_, recording) = &recordings()[1];
    let links = recording.open_all();
    let bytes = recording.said(1)[1].clone();
    assert_eq!(
        links[&2].read(bytes.clone()).unwrap_err(),
        Refused::WrongMac
    );

    // Field 11 of 32 bytes, made a field 15 that nobody knows.
    let key = bytes.windows(2).position(|key| key == [0x5a, 32]).unwrap();
    let mut without = bytes.to_vec();
    without[key] = 0x7a;
    let refused = links[&1].read(without.into()).unwrap_err();
    assert_eq!(refused, Refused::WrongMac);
}

/// Whatever byte of a header is changed: it is refused, or nothing that routes has changed.
#[test]
fn a_changed_header_is_refused() {
    let (_, recording) = &recordings()[1];
    let links = recording.open_all();
    let good = recording.said(1)[1].clone();
    let expected = routed(links[&1].read(good.clone()));
    let mut refused = 0;
    for at in 0..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        match links[&1].read(bad.into()) {
            Err(_) => refused += 1,
            Ok(inbound) => assert_eq!(routed(Ok(inbound)).header(), expected.header()),
        }
    }
    assert!(refused > good.len() * 3 / 4, "{refused} of {}", good.len());
}

#[test]
fn a_message_expires_after_as_many_hops_as_it_was_given() {
    let (_, recording) = &recordings()[1];
    let mut message = recording.messages().remove(0);
    for _ in 0..7 {
        let bytes = bytes(&recording.open_all()[&1], &message);
        message = Routed::from_archive(Generation::Two, bytes).unwrap();
    }
    assert!(message.onward(1).is_err());
}

#[test]
fn pings_are_answered_with_their_like_and_nothing_else_is() {
    for message in messages() {
        let session = message.session();
        let kind = session.map(|session| session.message);
        let is_ping = matches!(kind, Some(MessageType::Ping | MessageType::Heartbeat));
        let answer = answer_ping(&message);
        assert_eq!(answer.is_some(), is_ping);
        let Some(answer) = answer else { continue };
        assert_eq!(answer.session(), session);
        assert_eq!(answer.header().source, message.header().destination);
        assert_eq!(answer.header().destination, message.header().source);
    }
}

#[test]
fn a_verdict_goes_to_the_moderator_but_never_to_the_first_generation() {
    for commit in messages().iter().filter(|message| message.mls().is_some()) {
        for (accepted, kind) in [
            (true, MessageType::GroupAck),
            (false, MessageType::GroupNack),
        ] {
            let Some(verdict) = verdict(commit, accepted) else {
                assert_eq!(commit.generation(), Generation::One);
                continue;
            };
            assert_eq!(commit.generation(), Generation::Two);
            let (asked, said) = (commit.session().unwrap(), verdict.session().unwrap());
            assert_eq!(said.message, kind);
            assert_eq!((said.id, said.message_id), (asked.id, asked.message_id));
            assert_eq!(verdict.header().destination, commit.header().source);
        }
    }
}

#[test]
fn a_link_takes_nothing_of_the_other_generation() {
    let all = recordings();
    let (first, second) = (all[0].1.open_all(), all[1].1.open_all());
    for (link, foreign) in [(&first[&1], &all[1].1), (&second[&1], &all[0].1)] {
        let onward = foreign.messages()[0].onward(1).unwrap();
        let mut out = Vec::new();
        assert!(link.write(&onward, &mut out).is_err());
        assert!(out.is_empty());
    }
}

/// Computed by `vectors/hybrid.py`, as no released binding can be told to ask for it.
#[test]
fn a_hybrid_link_agrees_with_another_implementation() {
    let vector: Value = serde_json::from_str(include_str!("vectors/hybrid.json")).unwrap();
    let hex = |name: &str| {
        HEXLOWER
            .decode(vector[name].as_str().unwrap().as_bytes())
            .unwrap()
    };
    let id = vector["link_id"].as_str().unwrap();
    let (request, dial) = Dial::begin(id, "alice", true, &mut Drawn(hex("drawn")));
    assert_eq!(request, hex("request"));
    let link = dial.finish(hex("reply").into()).unwrap();
    let message = routed(link.read(hex("message").into()));
    assert_eq!(message.payload().unwrap().1, &b"hello"[..]);
    // What was for other nodes does not go on, and the error does.
    let onward = bytes(&link, &message);
    let header = two::Message::decode(onward).unwrap();
    let Some(two::message::MessageType::Publish(publish)) = header.message_type else {
        panic!("it was a publication");
    };
    let header = publish.header.unwrap();
    assert_eq!(
        (header.ttl, header.recv_from, header.error),
        (2, None, Some(true))
    );
}

// ----- the recordings --------------------------------------------------------------------------

/// Lines as they were written: one message, or one link's secret.
struct Recording(Vec<Value>);

impl Recording {
    fn links(&self) -> Vec<u64> {
        let mut links: Vec<u64> = self.lines("->").map(|(link, _)| link).collect();
        links.sort_unstable();
        links.dedup();
        links
    }

    fn first(&self, link: u64) -> Bytes {
        self.said(link)[0].clone()
    }

    /// What a client said.
    fn said(&self, of: u64) -> Vec<Bytes> {
        let all = self.all_said().into_iter();
        all.filter(|(link, _)| *link == of)
            .map(|(_, bytes)| bytes)
            .collect()
    }

    fn all_said(&self) -> Vec<(u64, Bytes)> {
        self.lines("->").collect()
    }

    /// What the other relay sent, but for its answers to Link, which have its own name in them.
    fn all_heard(&self) -> Vec<(u64, Vec<u8>)> {
        let heard = self.lines("<-").map(|(link, bytes)| (link, bytes.to_vec()));
        heard.filter(|(_, bytes)| bytes[0] != LINK_KEY).collect()
    }

    fn lines(&self, way: &'static str) -> impl Iterator<Item = (u64, Bytes)> {
        self.0
            .iter()
            .filter(move |line| line["way"] == way)
            .map(|line| {
                let bytes = HEXLOWER.decode(line["hex"].as_str().unwrap().as_bytes());
                (line["link"].as_u64().unwrap(), bytes.unwrap().into())
            })
    }

    /// Negotiates each link as the other relay did, with the half of the key that it drew.
    fn open_all(&self) -> BTreeMap<u64, Link> {
        let secret = |link: u64| {
            let mut lines = self.0.iter();
            let line = lines.find(|line| line["link"] == link && line["secret"].is_string());
            line.map_or_else(Vec::new, |line| {
                HEXLOWER
                    .decode(line["secret"].as_str().unwrap().as_bytes())
                    .unwrap()
            })
        };
        let open = |id| {
            let Opening::Offer(offer) = open(self.first(id)).unwrap() else {
                panic!("it began with a Link");
            };
            offer.answer("relay", &mut Drawn(secret(id))).unwrap().1
        };
        self.links().into_iter().map(|id| (id, open(id))).collect()
    }

    fn messages(&self) -> Vec<Routed> {
        let links = self.open_all();
        let read = |(link, bytes)| match links[&link].read(bytes) {
            Ok(Inbound::Routed(message)) => Some(*message),
            Ok(Inbound::SubscriptionAck { .. } | Inbound::Link(_)) => None,
            Err(refused) => panic!("{refused}"),
        };
        self.all_said().into_iter().filter_map(read).collect()
    }
}

/// Chance that was drawn before.
struct Drawn(Vec<u8>);

impl TryRng for Drawn {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        panic!("keys are drawn as bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        panic!("keys are drawn as bytes")
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        to.copy_from_slice(&self.0.drain(..to.len()).collect::<Vec<u8>>());
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

fn recordings() -> [(Generation, Recording); 2] {
    [
        (Generation::One, include_str!("vectors/first.jsonl")),
        (Generation::Two, include_str!("vectors/second.jsonl")),
    ]
    .map(|(generation, text)| {
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        (generation, Recording(lines.collect()))
    })
}

/// All that can be routed, of both.
fn messages() -> Vec<Routed> {
    let all = recordings().into_iter();
    all.flat_map(|(_, recording)| recording.messages())
        .collect()
}

fn routed(inbound: Result<Inbound, Refused>) -> Routed {
    match inbound.unwrap() {
        Inbound::Routed(message) => *message,
        other @ (Inbound::SubscriptionAck { .. } | Inbound::Link(_)) => panic!("{other:?}"),
    }
}

fn bytes(link: &Link, message: &Routed) -> Bytes {
    let mut bytes = Vec::new();
    let onward = message.onward(1).unwrap();
    link.write(&onward, &mut bytes).unwrap();
    bytes.into()
}

/// First byte of a Message that holds a Link.
const LINK_KEY: u8 = 0x2a;
