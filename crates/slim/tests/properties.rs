//! Rules that hold whatever comes: no decoder panics, what is sent on differs from what came in the
//! fields of the hop alone, and the table does what a naive one does.
//!
//! Left out: bounds, which `bounds.rs` holds by example.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::{collections::BTreeSet, ops::Range};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use proptest::{collection::vec, prelude::*, sample::Index};
use prost::{
    Message as _,
    encoding::{WireType, decode_key, decode_varint, encode_varint},
};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use serde_json::Value;
use skytale_slim::{
    Address, Components, Dial, Generation, Instance, Link, LinkId, MessageType, Name, Onward,
    Opening, Pattern, Routed, SubscriptionId, SubscriptionTable, Unsubscribed, answer_ping, open,
    proto::{one, two},
    verdict,
};

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..600), text in ".{0,60}") {
        let _ = open(bytes.clone().into());
        for generation in GENERATIONS {
            look_at(generation, bytes.clone().into());
        }
        let _ = Name::parse(&text);
        let _ = Pattern::parse(&text);
    }

    #[test]
    fn no_damage_to_a_real_message_makes_a_decoder_panic(
        (generation, bytes) in real(),
        wounds in vec(wound(), 1..6),
    ) {
        let mut bytes = bytes.to_vec();
        for wound in wounds {
            wound.inflict(&mut bytes);
        }
        let _ = open(bytes.clone().into());
        look_at(generation, bytes.into());
    }

    /// Also where fields are that nobody knows, and where fields stand in another order.
    #[test]
    fn what_goes_on_keeps_every_byte_but_those_of_the_hop(
        (generation, bytes) in real(),
        unknown in vec((0..3_usize, any::<Index>(), unknown_field()), 0..8),
        swap in any::<(Index, Index)>(),
        hints in any::<(bool, bool)>(),
        arrived_on in any::<u64>(),
    ) {
        let mut message = Taken::apart(&bytes);
        for (level, at, field) in unknown {
            let level = message.level(level);
            level.insert(at.index(level.len() + 1), field);
        }
        let header = message.level(2);
        let (one, other) = (swap.0.index(header.len()), swap.1.index(header.len()));
        header.swap(one, other);
        let (hop, [recv_from, forward_to]) = hop_of(generation);
        for (wanted, number) in [(hints.0, recv_from), (hints.1, forward_to)] {
            if wanted {
                header.push((number, vec![u8::try_from(number << 3).unwrap(), 5]));
            }
        }
        let bytes = message.put_together();

        let routed = Routed::from_archive(generation, bytes.into()).unwrap();
        let mut onward = Taken::apart(&onward_bytes(&routed, arrived_on));
        let hinted = |number| number == recv_from || number == forward_to;
        prop_assert!(!onward.level(2).iter().any(|(number, _)| hinted(*number)));
        for it in [&mut message, &mut onward] {
            it.level(2).retain(|(number, _)| !hop.contains(number));
        }
        prop_assert_eq!(message, onward);
    }

    #[test]
    fn what_goes_on_reads_as_what_came_but_for_the_hop((generation, bytes) in real()) {
        let routed = Routed::from_archive(generation, bytes.clone()).unwrap();
        let onward = onward_bytes(&routed, 7);
        match generation {
            Generation::One => {
                let mut expected = one::Message::decode(bytes).unwrap();
                header_one(&mut expected).incoming_conn = Some(7);
                prop_assert_eq!(one::Message::decode(&onward[..]).unwrap(), expected);
            }
            Generation::Two => {
                let mut expected = two::Message::decode(bytes).unwrap();
                let header = header_two(&mut expected);
                header.incoming_conn = Some(7);
                header.ttl -= 1;
                header.header_mac = Some(Bytes::from_static(&[0; 32]));
                prop_assert_eq!(two::Message::decode(&onward[..]).unwrap(), expected);
            }
        }
    }

    #[test]
    fn a_message_type_keeps_its_number(number in any::<i32>()) {
        for generation in GENERATIONS {
            let named = MessageType::from_number(generation, number);
            prop_assert_eq!(named.number(generation), Some(number));
        }
    }

    #[test]
    fn the_table_routes_as_a_naive_one_does(steps in vec(step(), 1..80)) {
        let mut table = SubscriptionTable::default();
        let mut model = BTreeSet::new();
        for step in steps {
            match step {
                Step::Subscribe(link, address, id) => {
                    table.subscribe(link, address, id).unwrap();
                    model.insert((link, address, id));
                }
                Step::Unsubscribe(link, address, id) => {
                    let held = |model: &BTreeSet<_>| {
                        let mine = |it: &&(LinkId, Address, _)| (it.0, it.1) == (link, address);
                        model.iter().filter(mine).copied().collect::<Vec<_>>()
                    };
                    let before = held(&model);
                    let gone = if id == SubscriptionId::NONE {
                        before.clone()
                    } else if model.contains(&(link, address, id)) {
                        vec![(link, address, id)]
                    } else {
                        let none = (link, address, SubscriptionId::NONE);
                        before.iter().copied().filter(|it| *it == none).collect()
                    };
                    for it in &gone {
                        model.remove(it);
                    }
                    let expected = match (gone.is_empty(), held(&model).is_empty()) {
                        (true, _) => Unsubscribed::Unknown,
                        (false, true) => Unsubscribed::Removed,
                        (false, false) => Unsubscribed::Kept,
                    };
                    prop_assert_eq!(table.unsubscribe(link, address, id), expected);
                }
                Step::Drop(link) => {
                    table.drop_link(link);
                    model.retain(|(held, ..)| *held != link);
                }
            }
            for link in (0..LINKS).map(LinkId) {
                for to in addresses() {
                    let expected: BTreeSet<LinkId> = model
                        .iter()
                        .filter(|(held, at, _)| *held != link && meets(to, *at))
                        .map(|(held, ..)| *held)
                        .collect();
                    let mut all = Vec::new();
                    table.route(link, to, 256, &mut all);
                    prop_assert!(all.iter().eq(&expected), "{:?} {:?}", all, expected);

                    // One at a time, everybody has a turn before anybody has a second.
                    let mut turns = BTreeSet::new();
                    for _ in &expected {
                        table.route(link, to, 1, &mut all);
                        prop_assert_eq!(all.len(), 1);
                        turns.insert(all[0]);
                    }
                    prop_assert_eq!(turns, expected);
                }
            }
        }
        let links: BTreeSet<_> = model.iter().map(|(link, ..)| link).collect();
        let names: BTreeSet<_> = model.iter().map(|(_, at, _)| at.components).collect();
        prop_assert_eq!(table.counts(), (names.len(), links.len()));
    }
}

/// Everything that is read from a message that was taken.
fn look_at(generation: Generation, bytes: Bytes) {
    let Ok(message) = Routed::from_archive(generation, bytes) else {
        return;
    };
    let _ = (message.payload(), message.session(), message.command());
    let _ = message.header().source.proven_text();
    let _ = message.mls();
    for answer in [
        verdict(&message, true),
        verdict(&message, false),
        answer_ping(&message),
    ] {
        assert!(answer.is_none_or(|answer| answer.onward(0).is_ok()));
    }
    let Ok(onward) = message.onward(1) else {
        return;
    };
    // Whatever was taken, clients can take as well.
    let bytes = written(&message, &onward);
    assert_eq!(bytes.len(), onward.len());
    let again = Routed::from_archive(generation, bytes.into()).unwrap();
    assert_eq!(again.header(), message.header());
    assert_eq!(again.verb(), message.verb());
    assert_eq!(again.payload(), message.payload());
    assert_eq!(again.metadata(), message.metadata());
}

fn onward_bytes(message: &Routed, arrived_on: u64) -> Vec<u8> {
    written(message, &message.onward(arrived_on).unwrap())
}

/// The bytes with zeros for a MAC.
fn written(message: &Routed, onward: &Onward) -> Vec<u8> {
    let link = match message.generation() {
        Generation::One => link_one(),
        Generation::Two => link_two(),
    };
    let mut bytes = Vec::new();
    link.write(onward, &mut bytes).unwrap();
    if message.generation() == Generation::Two {
        let mut taken = Taken::apart(&bytes);
        for (number, field) in taken.level(2) {
            if *number == 11 {
                *field = [vec![0x5a, 32], vec![0; 32]].concat();
            }
        }
        bytes = taken.put_together();
    }
    bytes
}

// ----- what is drawn ---------------------------------------------------------------------------

/// A message of a stock client that can be routed.
fn real() -> impl Strategy<Value = (Generation, Bytes)> {
    let mut all = Vec::new();
    for (generation, text) in [
        (Generation::One, include_str!("vectors/first.jsonl")),
        (Generation::Two, include_str!("vectors/second.jsonl")),
    ] {
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if line["way"] == "->" {
                let bytes = HEXLOWER.decode(line["hex"].as_str().unwrap().as_bytes());
                let bytes = Bytes::from(bytes.unwrap());
                if Routed::from_archive(generation, bytes.clone()).is_ok() {
                    all.push((generation, bytes));
                }
            }
        }
    }
    proptest::sample::select(all)
}

/// A field of a number that SLIM does not use, of each wire type.
fn unknown_field() -> impl Strategy<Value = (u32, Vec<u8>)> {
    let key = |number: u32, kind: u32| {
        let mut key = Vec::new();
        encode_varint(u64::from(number << 3 | kind), &mut key);
        key
    };
    (20..2000_u32, 0..4_u32, vec(any::<u8>(), 0..40)).prop_map(move |(number, kind, bytes)| {
        let field = match kind {
            0 => [key(number, 0), vec![0x96, 0x01]].concat(),
            1 => [key(number, 1), vec![7; 8]].concat(),
            2 => [key(number, 5), vec![7; 4]].concat(),
            _ => {
                let mut field = key(number, 2);
                encode_varint(bytes.len() as u64, &mut field);
                [field, bytes].concat()
            }
        };
        (number, field)
    })
}

#[derive(Debug, Clone)]
enum Wound {
    Flip(Index, u8),
    Cut(Index),
    Double(Index, Index),
    Insert(Index, Vec<u8>),
}

fn wound() -> impl Strategy<Value = Wound> {
    prop_oneof![
        4 => any::<(Index, u8)>().prop_map(|(at, bits)| Wound::Flip(at, bits)),
        1 => any::<Index>().prop_map(Wound::Cut),
        1 => any::<(Index, Index)>().prop_map(|(from, to)| Wound::Double(from, to)),
        2 => (any::<Index>(), vec(any::<u8>(), 1..12)).prop_map(|(at, it)| Wound::Insert(at, it)),
    ]
}

impl Wound {
    fn inflict(self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        if len == 0 {
            return;
        }
        match self {
            Self::Flip(at, bits) => bytes[at.index(len)] ^= bits,
            Self::Cut(at) => bytes.truncate(at.index(len)),
            Self::Double(from, to) => {
                let (from, to) = (from.index(len), to.index(len));
                let piece = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(from..from, piece);
            }
            Self::Insert(at, it) => {
                let at = at.index(len);
                bytes.splice(at..at, it);
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Subscribe(LinkId, Address, SubscriptionId),
    Unsubscribe(LinkId, Address, SubscriptionId),
    Drop(LinkId),
}

fn step() -> impl Strategy<Value = Step> {
    let one = || {
        let address = proptest::sample::select(addresses());
        (0..LINKS, address, 0..3_u64)
            .prop_map(|(link, address, id)| (LinkId(link), address, SubscriptionId(id)))
    };
    prop_oneof![
        6 => one().prop_map(|(link, address, id)| Step::Subscribe(link, address, id)),
        4 => one().prop_map(|(link, address, id)| Step::Unsubscribe(link, address, id)),
        1 => (0..LINKS).prop_map(|link| Step::Drop(LinkId(link))),
    ]
}

fn addresses() -> Vec<Address> {
    let ids = [
        Instance::Any,
        Instance::Only(1),
        Instance::Only(u128::MAX - 1),
    ];
    let names = [Components([1, 2, 3]), Components([1, 2, 4])];
    let all = names.into_iter().flat_map(|components| {
        ids.map(|instance| Address {
            components,
            instance,
        })
    });
    all.collect()
}

/// Whether a message goes to a subscription.
fn meets(to: Address, subscribed: Address) -> bool {
    let reaches = to.instance == Instance::Any || to.instance == subscribed.instance;
    to.components == subscribed.components && reaches
}

// ----- a message taken apart, by other code than the crate's ---------------------------------------

/// Fields with their numbers, as bytes: of the message, of what it holds, and of that one's header.
#[derive(Debug, Clone, PartialEq)]
struct Taken {
    levels: [Vec<(u32, Vec<u8>)>; 3],
}

impl Taken {
    fn apart(bytes: &[u8]) -> Self {
        let outer = split(bytes);
        let verb = outer.iter().find(|(number, ..)| (1..=3).contains(number));
        let body = split(&bytes[verb.unwrap().2.clone()]);
        let start = verb.unwrap().2.start;
        let header = body
            .iter()
            .find(|(number, ..)| *number == 1)
            .unwrap()
            .2
            .clone();
        let own = |fields: Vec<(u32, Range<usize>, Range<usize>)>, at: usize| {
            let field = |(number, whole, _): (u32, Range<usize>, Range<usize>)| {
                (number, bytes[at + whole.start..at + whole.end].to_vec())
            };
            fields.into_iter().map(field).collect::<Vec<_>>()
        };
        let inner = start + header.start;
        let header = split(&bytes[inner..start + header.end]);
        let mut levels = [own(outer, 0), own(body, start), own(header, inner)];
        // What stands a level deeper is not kept twice.
        for (level, number) in [(0, None), (1, Some(1))] {
            for field in &mut levels[level] {
                if number.map_or((1..=3).contains(&field.0), |number| field.0 == number) {
                    field.1.clear();
                }
            }
        }
        Self { levels }
    }

    fn level(&mut self, level: usize) -> &mut Vec<(u32, Vec<u8>)> {
        &mut self.levels[level]
    }

    fn put_together(&self) -> Vec<u8> {
        let [outer, body, header] = &self.levels;
        let within = |fields: &[(u32, Vec<u8>)], inner: &[u8], is_it: &dyn Fn(u32) -> bool| {
            let mut bytes = Vec::new();
            for (number, field) in fields {
                if is_it(*number) {
                    encode_varint(u64::from(number << 3 | 2), &mut bytes);
                    encode_varint(inner.len() as u64, &mut bytes);
                    bytes.extend(inner);
                } else {
                    bytes.extend(field);
                }
            }
            bytes
        };
        let header = within(header, &[], &|_| false);
        let body = within(body, &header, &|number| number == 1);
        within(outer, &body, &|number| (1..=3).contains(&number))
    }
}

/// Number, whole field, and its inside if it has a length.
fn split(bytes: &[u8]) -> Vec<(u32, Range<usize>, Range<usize>)> {
    let mut rest = bytes;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let start = bytes.len() - rest.len();
        let (number, kind) = decode_key(&mut rest).unwrap();
        let mut inside = 0..0;
        let len = match kind {
            WireType::Varint => {
                decode_varint(&mut rest).unwrap();
                0
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::StartGroup | WireType::EndGroup => panic!("no encoder writes groups"),
            WireType::LengthDelimited => {
                let len = usize::try_from(decode_varint(&mut rest).unwrap()).unwrap();
                let from = bytes.len() - rest.len();
                inside = from..from + len;
                len
            }
        };
        rest = &rest[len..];
        fields.push((number, start..bytes.len() - rest.len(), inside));
    }
    fields
}

fn header_one(message: &mut one::Message) -> &mut one::SlimHeader {
    use one::message::MessageType as Kind;
    let header = match message.message_type.as_mut().unwrap() {
        Kind::Subscribe(it) => &mut it.header,
        Kind::Unsubscribe(it) => &mut it.header,
        Kind::Publish(it) => &mut it.header,
        Kind::Link(_) | Kind::SubscriptionAck(_) => panic!("no header"),
    };
    header.as_mut().unwrap()
}

fn header_two(message: &mut two::Message) -> &mut two::SlimHeader {
    use two::message::MessageType as Kind;
    let header = match message.message_type.as_mut().unwrap() {
        Kind::Subscribe(it) => &mut it.header,
        Kind::Unsubscribe(it) => &mut it.header,
        Kind::Publish(it) => &mut it.header,
        Kind::Link(_) | Kind::SubscriptionAck(_) => panic!("no header"),
    };
    header.as_mut().unwrap()
}

/// Numbers of the fields that a node makes anew, and of `recv_from` and `forward_to` among them.
fn hop_of(generation: Generation) -> (&'static [u32], [u32; 2]) {
    match generation {
        Generation::One => (&[5, 6, 7], [5, 6]),
        Generation::Two => (&[6, 7, 8, 9, 11], [7, 8]),
    }
}

fn link_one() -> Link {
    // Field 1, empty: a subscription at once is the first generation's.
    match open(Bytes::from_static(&[0x0a, 0])).unwrap() {
        Opening::Plain(link) => link,
        Opening::Offer(_) => panic!("no Link was sent"),
    }
}

fn link_two() -> Link {
    let mut chance = ChaCha20Rng::seed_from_u64(1);
    let (request, _) = Dial::begin("link", "node", false, &mut chance);
    match open(request.into()).unwrap() {
        Opening::Offer(offer) => offer.answer("node", &mut chance).unwrap().1,
        Opening::Plain(_) => panic!("a Link was sent"),
    }
}

const GENERATIONS: [Generation; 2] = [Generation::One, Generation::Two];
const LINKS: u64 = 4;
