//! Rules that every decoder of this crate keeps, whatever comes: it inverts its encoder, never
//! panics, takes nothing too much or too long, skips what it does not know in a map, and believes
//! no announced length.
//!
//! Left out: what the bytes mean, which `wire_doc.rs` holds to the document, and what decoding
//! allocates (`allocation.rs`).
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::{fmt::Debug, str::FromStr};

use data_encoding::BASE64URL_NOPAD;
use minicbor::{Decode, Encode};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select},
    test_runner::TestCaseError,
};
use skytale_wire::{
    Blob,
    envelope::{Envelope, Grant, Kind, OpenInvite, Place, RosterChange},
    frame::{
        Ack, Closing, Commit, Create, Created, Credential, Deliver, FRAME_BYTES_MAX, GroupInfo,
        GroupInfoWanted, GuestProof, Hello, JoinProof, KeyPackage, KeyPackagesKept, Leave, Line,
        Malformed, Nack, Ping, Pong, Pruned, Publish, Published, PutKeyPackages, Ready, Renew,
        Renewed, SealGroupInfo, Sealed, SealedKey, Seen, SlimDeliver, SlimLog, SlimLogs, SlimName,
        SlimPublish, SlimPublished, SlimSubscribe, SlimSubscribed, SlimUnsubscribe, Subscribe,
        Subscribed, TakeGroupInfo, TakeKeyPackage, TakeSlimLogs, TakeWelcome, ToAgent, ToRelay,
        Traffic, WantGroupInfo, Welcome, WelcomeFor, Welcomed, decode, encode,
    },
    id::{
        AgentId, ChannelId, Digest, Epoch, Generation, InviteId, MessageId, RelayKey, Seq, Signed,
        SlimInstance, Time, TransportKey,
    },
    invite::{ADDRESSES_MAX, BadInvite, INVITE_CHARS_MAX, INVITE_PREFIX, Invite, InviteSeed},
    name::{ChannelName, NAME_BYTES_MAX},
    refusal::Refusal,
    statement,
    token::{AccountId, Audience, Claims, PublicKeys, Scopes, TokenId, Verifier},
};

/// Calls a rule for one value of each format. A macro, because a rule is a generic function, and
/// those cannot be handed over as values.
macro_rules! for_each_format {
    ($formats:expr, $rule:ident $(, $more:expr)*) => {{
        let formats = &$formats;
        $rule(&formats.to_relay $(, $more)*)?;
        $rule(&formats.to_agent $(, $more)*)?;
        $rule(&formats.envelope $(, $more)*)?;
        $rule(&formats.change $(, $more)*)?;
        $rule(&formats.sealed $(, $more)*)?;
        $rule(&formats.leave $(, $more)*)?;
        $rule(&formats.invite $(, $more)*)?;
        $rule(&formats.place $(, $more)*)?;
        $rule(&formats.name $(, $more)*)?;
        $rule(&formats.digest $(, $more)*)?;
    }};
}

/// One value of each format.
#[derive(Debug, Clone)]
struct Formats {
    to_relay: ToRelay,
    to_agent: ToAgent,
    envelope: Envelope,
    change: RosterChange,
    sealed: Sealed,
    leave: statement::Leave,
    invite: Invite,
    place: Place,
    name: ChannelName,
    digest: Digest,
}

proptest! {
    #[test]
    fn what_is_encoded_reads_back(formats in formats()) {
        for_each_format!(formats, reads_back);
    }

    #[test]
    fn bytes_after_the_end_are_refused(formats in formats(), more in vec(any::<u8>(), 1..40)) {
        for_each_format!(formats, refuses_trailing, &more);
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_read(formats in formats(), spare in 0_usize..9) {
        for_each_format!(formats, refuses_too_long, spare);
    }

    #[test]
    fn whatever_is_cut_is_refused(formats in formats(), at in any::<Index>()) {
        for_each_format!(formats, refuses_cut, at);
    }

    #[test]
    fn unknown_keys_of_maps_are_skipped(
        formats in formats(),
        key in unknown_key(),
        value in any_cbor(),
        at in any::<Index>(),
    ) {
        for_each_format!(formats, skips_unknown, &key, &value, at);
    }

    /// Each length in turn is replaced by one beyond the input: there cannot be so many bytes, and
    /// so many items cannot be there either, since each has a byte at least.
    #[test]
    fn announced_lengths_beyond_the_input_are_refused(
        formats in formats(),
        announced in announced_length(),
    ) {
        for_each_format!(formats, refuses_announced, announced);
    }

    #[test]
    fn random_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..600)) {
        survives_all(&bytes)?;
    }

    /// Valid CBOR that means nothing gets further than noise.
    #[test]
    fn random_cbor_is_read_or_refused(kind in 0_u8..24, bytes in any_cbor(), more in any_cbor()) {
        let arguments = [&[0x81][..], &bytes].concat();
        let two = [&[0x82][..], &bytes, &more].concat();
        for bytes in [&bytes, &arguments, &two, &[&[0x82, kind][..], &arguments].concat()] {
            survives_all(bytes)?;
        }
    }

    #[test]
    fn damaged_encodings_are_read_or_refused(formats in formats(), damages in vec(damage(), 1..5)) {
        for_each_format!(formats, survives_damage, &damages);
    }

    #[test]
    fn an_invite_line_reads_back(invite in invite(ADDRESSES_MAX)) {
        let line = invite.to_string();
        prop_assert_eq!(line.parse(), Ok(invite));
    }

    #[test]
    fn any_text_as_an_invite_line_is_read_or_refused(text in "\\PC*", end in "[A-Za-z0-9_-]*") {
        let _ = Invite::from_str(&text);
        let _ = Invite::from_str(&format!("{INVITE_PREFIX}{text}"));
        let _ = Invite::from_str(&format!("{INVITE_PREFIX}{end}"));
    }

    /// A good checksum is no secret: what stands under it is checked all the same.
    #[test]
    fn a_line_with_a_good_checksum_over_anything_is_read_or_refused(
        version in 0_u8..3,
        content in vec(any::<u8>(), 0..300),
    ) {
        let _ = Invite::from_str(&line_over(version, &content));
    }

    #[test]
    fn a_line_may_grow_by_unknown_keys_and_by_nothing_else(
        invite in invite(3),
        key in unknown_key(),
        value in any_cbor(),
        at in any::<Index>(),
        more in vec(any::<u8>(), 1..9),
    ) {
        let map = encode(&invite);
        let mut item = Item::parse_all(&map);
        item.add_everywhere(&key, &value, at);
        prop_assert_eq!(line_over(1, &item.written(None)).parse(), Ok(invite));
        let longer = [&map[..], &more].concat();
        prop_assert_eq!(line_over(1, &longer).parse::<Invite>(), Err(BadInvite::Altered));
        prop_assert_eq!(line_over(2, &map).parse::<Invite>(), Err(BadInvite::Altered));
    }

    #[test]
    fn ids_read_back_from_their_texts(
        long in any::<[u8; 32]>(),
        short in any::<[u8; 16]>(),
        signature in any::<[u8; 64]>(),
    ) {
        reads_back_as_text(&AgentId(long))?;
        reads_back_as_text(&TransportKey(long))?;
        reads_back_as_text(&RelayKey(long))?;
        reads_back_as_text(&ChannelId(long))?;
        reads_back_as_text(&Digest(long))?;
        reads_back_as_text(&MessageId(short))?;
        reads_back_as_text(&InviteId(short))?;
        reads_back_as_text(&AccountId(short))?;
        reads_back_as_text(&TokenId(short))?;
        reads_back_as_text(&Signed(signature))?;
    }

    #[test]
    fn an_id_of_another_length_is_refused(bytes in vec(any::<u8>(), 0..80)) {
        let encoded = encode(&Blob::from(&bytes[..]));
        prop_assert_eq!(decode::<Digest>(&encoded, 100).is_ok(), bytes.len() == 32);
        prop_assert_eq!(decode::<MessageId>(&encoded, 100).is_ok(), bytes.len() == 16);
        prop_assert_eq!(decode::<Signed>(&encoded, 100).is_ok(), bytes.len() == 64);
        prop_assert_eq!(decode::<InviteSeed>(&encoded, 100).is_ok(), bytes.len() == 16);
        prop_assert_eq!(AgentId::from_slice(&bytes).is_ok(), bytes.len() == 32);
    }

    #[test]
    fn any_text_as_an_id_or_name_is_read_or_refused(
        text in "\\PC{0,70}",
        name in "[a-z./]{0,300}",
        id in "(agt_|acc_|tok_)?[a-z2-7]{0,60}",
    ) {
        for text in [text, name, id] {
            let _ = (AgentId::from_str(&text), Digest::from_str(&text));
            let _ = (MessageId::from_str(&text), Signed::from_str(&text));
            let _ = (AccountId::from_str(&text), TokenId::from_str(&text));
            let _ = (Scopes::from_str(&text), Audience::from_str(&text));
            if let Ok(name) = ChannelName::from_str(&text) {
                prop_assert_eq!(name.as_str(), &text);
                prop_assert!(text.len() <= NAME_BYTES_MAX);
            }
        }
    }

    #[test]
    fn refusals_of_newer_peers_keep_their_number(number in any::<u16>()) {
        let refusal: Refusal = decode(&encode(&number), 3).unwrap();
        prop_assert_eq!(refusal.number(), number);
        prop_assert_eq!(encode(&refusal), encode(&number));
    }

    #[test]
    fn any_text_as_a_token_is_refused(
        text in "\\PC{0,80}",
        token in "[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{0,90}",
        claims in "\\{(\"[a-z]{3}\":([0-9]{1,20}|\"[a-z]{0,9}\"|null|\\[\\]),?){0,6}\\}?",
    ) {
        let verifier = Verifier::new(Audience::Api, &PublicKeys::default()).unwrap();
        let written = format!(
            "{}.{}.c2ln",
            BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"EdDSA","kid":"k"}"#),
            BASE64URL_NOPAD.encode(claims.as_bytes()),
        );
        for token in [&text, &token, &written] {
            prop_assert!(verifier.verify(token, Time(0)).is_err());
            let _ = Claims::danger_read_unverified(token);
        }
        let _ = PublicKeys::from_json(text.as_bytes());
        let _ = PublicKeys::from_json(claims.as_bytes());
    }
}

#[test]
fn a_line_with_too_many_addresses_or_characters_is_refused() {
    let with = |count: usize, length: usize| Invite {
        relay: RelayKey([1; 32]),
        addresses: vec!["a".repeat(length); count],
        channel: ChannelId([2; 32]),
        generation: Generation(0),
        inviter: AgentId([3; 32]),
        expires: Time(4),
        seed: InviteSeed::new([5; 16]),
    };
    let read = |invite: Invite| invite.to_string().parse::<Invite>();

    assert!(read(with(ADDRESSES_MAX, 9)).is_ok());
    assert_eq!(read(with(ADDRESSES_MAX + 1, 9)), Err(BadInvite::Altered));
    assert_eq!(read(with(1, INVITE_CHARS_MAX)), Err(BadInvite::Altered));
}

// ----- the rules ------------------------------------------------------------------------------

type Outcome = Result<(), TestCaseError>;

fn reads_back<T>(value: &T) -> Outcome
where
    T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + Debug,
{
    let bytes = encode(value);
    prop_assert_eq!(&decode::<T>(&bytes, bytes.len()).unwrap(), value);
    Ok(())
}

fn refuses_trailing<T>(value: &T, more: &[u8]) -> Outcome
where
    T: Encode<()> + for<'b> Decode<'b, ()> + Debug,
{
    let mut bytes = encode(value);
    bytes.extend_from_slice(more);
    match decode::<T>(&bytes, usize::MAX) {
        Err(Malformed::Trailing(trailing)) => prop_assert_eq!(trailing, more.len()),
        other => prop_assert!(false, "{other:?}"),
    }
    Ok(())
}

fn refuses_too_long<T>(value: &T, spare: usize) -> Outcome
where
    T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + Debug,
{
    let bytes = encode(value);
    let len = bytes.len();
    prop_assert!(decode::<T>(&bytes, len + spare).is_ok());
    let max = len.saturating_sub(spare + 1);
    let refused = Err(Malformed::TooLarge { len, max });
    prop_assert_eq!(decode::<T>(&bytes, max), refused);
    Ok(())
}

fn refuses_cut<T>(value: &T, at: Index) -> Outcome
where
    T: Encode<()> + for<'b> Decode<'b, ()>,
{
    let bytes = encode(value);
    let rest = &bytes[..at.index(bytes.len())];
    prop_assert!(decode::<T>(rest, FRAME_BYTES_MAX).is_err());
    Ok(())
}

fn skips_unknown<T>(value: &T, key: &[u8], unknown: &[u8], at: Index) -> Outcome
where
    T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + Debug,
{
    let bytes = encode(value);
    let mut item = Item::parse_all(&bytes);
    prop_assert_eq!(
        &item.written(None),
        &bytes,
        "the tree of this test is the encoding"
    );
    item.add_everywhere(key, unknown, at);
    let grown = item.written(None);
    prop_assert_eq!(&decode::<T>(&grown, usize::MAX).unwrap(), value);
    Ok(())
}

fn refuses_announced<T>(value: &T, announced: u64) -> Outcome
where
    T: Encode<()> + for<'b> Decode<'b, ()> + Debug,
{
    let item = Item::parse_all(&encode(value));
    for place in 0..item.lengths() {
        let lie = Lie { place, announced };
        let bytes = item.written(Some(lie));
        let read = decode::<T>(&bytes, usize::MAX);
        prop_assert!(read.is_err(), "length {place} as {announced}: {read:?}");
    }
    Ok(())
}

fn survives_damage<T>(value: &T, damages: &[Damage]) -> Outcome
where
    T: Encode<()>,
{
    let mut bytes = encode(value);
    for damage in damages {
        damage.hit(&mut bytes);
    }
    survives_all(&bytes)
}

/// No decoder panics, and what is read is read again from what it is written as.
fn survives_all(bytes: &[u8]) -> Outcome {
    survives::<ToRelay>(bytes)?;
    survives::<ToAgent>(bytes)?;
    survives::<Envelope>(bytes)?;
    survives::<RosterChange>(bytes)?;
    survives::<Sealed>(bytes)?;
    survives::<statement::Leave>(bytes)?;
    survives::<Invite>(bytes)?;
    survives::<Place>(bytes)?;
    survives::<ChannelName>(bytes)?;
    survives::<Digest>(bytes)?;
    survives::<Refusal>(bytes)
}

fn survives<T>(bytes: &[u8]) -> Outcome
where
    T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + Debug,
{
    if let Ok(value) = decode::<T>(bytes, FRAME_BYTES_MAX) {
        reads_back(&value)?;
    }
    Ok(())
}

fn reads_back_as_text<T>(id: &T) -> Outcome
where
    T: FromStr<Err: Debug> + ToString + PartialEq + Debug,
{
    let text = id.to_string();
    prop_assert_eq!(&text.parse::<T>().unwrap(), id);
    let longer = format!("{text}a");
    prop_assert!(longer.parse::<T>().is_err());
    prop_assert!(text.to_uppercase() == text || text.to_uppercase().parse::<T>().is_err());
    Ok(())
}

fn line_over(version: u8, content: &[u8]) -> String {
    let mut bytes = vec![version];
    bytes.extend_from_slice(content);
    let checksum = Digest::of(&[b"skytale/1 invite line", &bytes]);
    bytes.extend_from_slice(&checksum.0[..4]);
    format!("{INVITE_PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
}

// ----- encodings as trees -----------------------------------------------------------------------

/// An encoding of ours, taken apart far enough to add keys and to lie about lengths.
#[derive(Debug, Clone)]
enum Item {
    /// A number or a boolean, as it is written.
    Plain(Vec<u8>),
    /// Bytes or text, by their major type.
    Content(u8, Vec<u8>),
    Array(Vec<Self>),
    /// Keys and values, each as they are written.
    Map(Vec<(Self, Self)>),
}

/// A length to announce in place of the true one.
#[derive(Debug, Clone, Copy)]
struct Lie {
    place: usize,
    announced: u64,
}

impl Item {
    fn parse_all(mut bytes: &[u8]) -> Self {
        let item = Self::parse(&mut bytes);
        assert!(bytes.is_empty(), "one item and no more");
        item
    }

    fn parse(bytes: &mut &[u8]) -> Self {
        let (major, argument, head) = read_head(bytes);
        let take = |bytes: &mut &[u8], count: usize| {
            let (taken, rest) = bytes.split_at(count);
            *bytes = rest;
            taken.to_vec()
        };
        let count = usize::try_from(argument).unwrap();
        if major == 0 || major == 7 {
            return Self::Plain(take(bytes, head));
        }
        take(bytes, head);
        match major {
            2 | 3 => Self::Content(major, take(bytes, count)),
            4 => Self::Array((0..count).map(|_| Self::parse(bytes)).collect()),
            5 => {
                let pair = |_| (Self::parse(bytes), Self::parse(bytes));
                Self::Map((0..count).map(pair).collect())
            }
            _ => panic!("our encoders write no item of major type {major}"),
        }
    }

    /// Puts a key and its value into this map and every one below it.
    fn add_everywhere(&mut self, key: &[u8], value: &[u8], at: Index) {
        match self {
            Self::Plain(_) | Self::Content(..) => {}
            Self::Array(items) => {
                for item in items {
                    item.add_everywhere(key, value, at);
                }
            }
            Self::Map(pairs) => {
                for (_, item) in pairs.iter_mut() {
                    item.add_everywhere(key, value, at);
                }
                let unknown = (Self::Plain(key.to_vec()), Self::Plain(value.to_vec()));
                pairs.insert(at.index(pairs.len() + 1), unknown);
            }
        }
    }

    /// How many lengths are announced in it.
    fn lengths(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Content(..) => 1,
            Self::Array(items) => 1 + items.iter().map(Self::lengths).sum::<usize>(),
            Self::Map(pairs) => {
                let inner = pairs
                    .iter()
                    .map(|(key, value)| key.lengths() + value.lengths());
                1 + inner.sum::<usize>()
            }
        }
    }

    fn written(&self, lie: Option<Lie>) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, &mut 0, lie);
        out
    }

    fn write(&self, out: &mut Vec<u8>, place: &mut usize, lie: Option<Lie>) {
        let head = |out: &mut Vec<u8>, place: &mut usize, major, len: usize| {
            let lie = lie.filter(|lie| lie.place == *place);
            *place += 1;
            match lie {
                Some(lie) => long_head(out, major, lie.announced),
                None => short_head(out, major, u64::try_from(len).unwrap()),
            }
        };
        match self {
            Self::Plain(bytes) => out.extend_from_slice(bytes),
            Self::Content(major, bytes) => {
                head(out, place, *major, bytes.len());
                out.extend_from_slice(bytes);
            }
            Self::Array(items) => {
                head(out, place, 4, items.len());
                for item in items {
                    item.write(out, place, lie);
                }
            }
            Self::Map(pairs) => {
                head(out, place, 5, pairs.len());
                for (key, value) in pairs {
                    key.write(out, place, lie);
                    value.write(out, place, lie);
                }
            }
        }
    }
}

/// Major type, argument and length of the head that `bytes` begin with.
fn read_head(bytes: &[u8]) -> (u8, u64, usize) {
    let (major, short) = (bytes[0] >> 5, bytes[0] & 31);
    if short < 24 {
        return (major, u64::from(short), 1);
    }
    let width = 1_usize << (short - 24);
    let argument = bytes[1..=width]
        .iter()
        .fold(0, |argument, byte| argument << 8 | u64::from(*byte));
    (major, argument, 1 + width)
}

fn short_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let bytes = argument.to_be_bytes();
    let width = match argument {
        0..=23 => {
            out.push(major << 5 | bytes[7]);
            return;
        }
        24..=0xff => 0,
        0x100..=0xffff => 1,
        0x1_0000..=0xffff_ffff => 2,
        0x1_0000_0000.. => 3,
    };
    out.push(major << 5 | (24 + width));
    out.extend_from_slice(&bytes[8 - (1 << width)..]);
}

fn long_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    out.push(major << 5 | 0x1b);
    out.extend_from_slice(&argument.to_be_bytes());
}

// ----- what may come ----------------------------------------------------------------------------

/// Something that happens to bytes on their way.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
}

impl Damage {
    fn hit(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let end = |at: usize, count: usize, len: usize| (at + count).min(len);
        match self {
            Self::Flip(at, bit) => {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << (bit % 8);
            }
            Self::Set(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Self::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = at.index(bytes.len());
                bytes.drain(at..end(at, *count, bytes.len()));
            }
            Self::Repeat(at, count) => {
                let at = at.index(bytes.len());
                let again = bytes[at..end(at, *count, bytes.len())].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        // The first byte of an item of each major type, short, long and without an end.
        (
            at(),
            select(vec![
                0x00, 0x1b, 0x40, 0x5f, 0x7f, 0x80, 0x9f, 0xa0, 0xbb, 0xbf, 0xf6, 0xff
            ])
        )
            .prop_map(|(at, byte)| Damage::Set(at, byte)),
        (at(), vec(any::<u8>(), 1..9)).prop_map(|(at, more)| Damage::Insert(at, more)),
        (at(), 1_usize..40).prop_map(|(at, count)| Damage::Remove(at, count)),
        (at(), 1_usize..40).prop_map(|(at, count)| Damage::Repeat(at, count)),
    ]
}

/// A key that no map of this version has.
fn unknown_key() -> impl Strategy<Value = Vec<u8>> {
    let ahead = (100_u64..=u64::MAX >> 1).prop_map(|key| (0, key));
    let negative = (0_u64..=u64::MAX >> 1).prop_map(|key| (1, key));
    prop_oneof![ahead, negative].prop_map(|(major, key)| {
        let mut out = Vec::new();
        short_head(&mut out, major, key);
        out
    })
}

/// Any well-formed CBOR item, also such as our encoders never write.
fn any_cbor() -> impl Strategy<Value = Vec<u8>> {
    let headed = |major: u8, argument: u64, content: &[u8]| {
        let mut out = Vec::new();
        short_head(&mut out, major, argument);
        out.extend_from_slice(content);
        out
    };
    let counted = move |major: u8, content: &[u8]| {
        headed(major, u64::try_from(content.len()).unwrap(), content)
    };
    let leaf = prop_oneof![
        any::<u64>().prop_map(move |number| headed(0, number, b"")),
        any::<u64>().prop_map(move |number| headed(1, number, b"")),
        vec(any::<u8>(), 0..70).prop_map(move |bytes| counted(2, &bytes)),
        "\\PC{0,20}".prop_map(move |text| counted(3, text.as_bytes())),
        select(vec![vec![0xf4], vec![0xf5], vec![0xf6], vec![0xf7]]),
        any::<f64>().prop_map(|number| [&[0xfb][..], &number.to_be_bytes()].concat()),
        Just(vec![0x5f, 0x42, 1, 2, 0x41, 3, 0xff]),
        Just(vec![0x7f, 0x61, b'a', 0xff]),
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        let pairs = vec((inner.clone(), inner.clone()), 0..4).prop_map(|pairs| {
            let flat: Vec<Vec<u8>> = pairs
                .into_iter()
                .map(|(key, value)| [key, value].concat())
                .collect();
            flat
        });
        let list = vec(inner.clone(), 0..5);
        let count = |items: &[Vec<u8>]| u64::try_from(items.len()).unwrap();
        prop_oneof![
            list.clone()
                .prop_map(move |items| headed(4, count(&items), &items.concat())),
            pairs
                .clone()
                .prop_map(move |items| headed(5, count(&items), &items.concat())),
            list.prop_map(|items| [&[0x9f][..], &items.concat(), &[0xff]].concat()),
            pairs.prop_map(|items| [&[0xbf][..], &items.concat(), &[0xff]].concat()),
            (0_u64..99_999, inner).prop_map(move |(tag, inner)| headed(6, tag, &inner)),
        ]
    })
}

/// Far beyond any input here, at the edges where arithmetic goes wrong.
fn announced_length() -> impl Strategy<Value = u64> {
    let edges = [1 << 31, 1 << 32, 1 << 62, 1 << 63, u64::MAX]
        .into_iter()
        .flat_map(|edge: u64| [edge - 1, edge, edge.saturating_add(1)])
        .collect::<Vec<_>>();
    prop_oneof![select(edges), 1_u64 << 24..=u64::MAX]
}

fn formats() -> impl Strategy<Value = Formats> {
    let first = (to_relay(), to_agent(), envelope(), change(), sealed());
    let second = (leave(), invite(3), place(), name(), digest());
    (first, second).prop_map(
        |((to_relay, to_agent, envelope, change, sealed), (leave, invite, place, name, digest))| {
            Formats {
                to_relay,
                to_agent,
                envelope,
                change,
                sealed,
                leave,
                invite,
                place,
                name,
                digest,
            }
        },
    )
}

fn to_relay() -> impl Strategy<Value = ToRelay> {
    let requests = prop_oneof![
        (
            any::<u16>(),
            agent(),
            credential(),
            signed(),
            option::of(traffic())
        )
            .prop_map(
                |(version, agent, credential, proof, traffic)| ToRelay::Hello(Hello {
                    version,
                    agent,
                    credential,
                    proof,
                    traffic,
                })
            ),
        (channel(), id()).prop_map(|(channel, id)| ToRelay::Create(Create { channel, id })),
        (channel(), id(), number(), blob(), any::<bool>()).prop_map(
            |(channel, id, epoch, body, resumes)| ToRelay::Publish(Publish {
                channel,
                id,
                epoch: Epoch(epoch),
                body,
                resumes
            })
        ),
        commit().prop_map(ToRelay::Commit),
        (channel(), id(), leave(), number()).prop_map(|(channel, id, statement, cursor)| {
            ToRelay::Leave(Leave {
                channel,
                id,
                statement,
                cursor: Seq(cursor),
            })
        }),
        (channel(), id(), number()).prop_map(|(channel, id, after)| ToRelay::Subscribe(
            Subscribe {
                channel,
                id,
                after: Seq(after)
            }
        )),
        (id(), vec(blob(), 0..5), option::of(blob())).prop_map(|(id, packages, last_resort)| {
            ToRelay::PutKeyPackages(PutKeyPackages {
                id,
                packages,
                last_resort,
            })
        }),
        (id(), agent())
            .prop_map(|(id, agent)| ToRelay::TakeKeyPackage(TakeKeyPackage { id, agent })),
    ];
    let rest = prop_oneof![
        Just(ToRelay::TakeWelcome(TakeWelcome {})),
        (channel(), id()).prop_map(|(channel, id)| ToRelay::Welcomed(Welcomed { channel, id })),
        (id(), channel(), invite_id()).prop_map(|(id, channel, invite)| {
            ToRelay::TakeGroupInfo(TakeGroupInfo {
                id,
                channel,
                invite,
            })
        }),
        (id(), channel(), invite_id()).prop_map(|(id, channel, invite)| {
            ToRelay::WantGroupInfo(WantGroupInfo {
                id,
                channel,
                invite,
            })
        }),
        (id(), channel(), number(), sealed()).prop_map(|(id, channel, epoch, sealed)| {
            ToRelay::SealGroupInfo(SealGroupInfo {
                id,
                channel,
                epoch: Epoch(epoch),
                sealed,
            })
        }),
        (channel(), number()).prop_map(|(channel, seq)| ToRelay::Seen(Seen {
            channel,
            seq: Seq(seq)
        })),
        (id(), credential(), signed()).prop_map(|(id, credential, proof)| ToRelay::Renew(Renew {
            id,
            credential,
            proof
        })),
        id().prop_map(|id| ToRelay::Ping(Ping { id })),
    ];
    let slim = prop_oneof![
        (id(), slim_name(), option::of(number())).prop_map(|(id, name, after)| {
            ToRelay::SlimSubscribe(SlimSubscribe {
                id,
                name,
                after: after.map(Seq),
            })
        }),
        (id(), any::<[u64; 3]>(), option::of(any::<u128>())).prop_map(|(id, components, after)| {
            ToRelay::TakeSlimLogs(TakeSlimLogs {
                id,
                components,
                after: after.map(SlimInstance::from),
            })
        }),
        slim_name().prop_map(|name| ToRelay::SlimUnsubscribe(SlimUnsubscribe { name })),
        (id(), any::<u8>(), blob()).prop_map(|(id, generation, message)| {
            ToRelay::SlimPublish(SlimPublish {
                id,
                generation,
                message,
            })
        }),
    ];
    prop_oneof![requests, rest, slim]
}

fn slim_name() -> impl Strategy<Value = SlimName> {
    let instance = any::<u128>().prop_map(SlimInstance::from);
    (any::<[u64; 3]>(), option::of(instance)).prop_map(|(components, instance)| SlimName {
        components,
        instance,
    })
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let line = || {
        (any::<u8>(), any::<[u32; 3]>(), any::<bool>()).prop_map(
            |(mode, [millislots, cell, bank], bulk_now)| Line {
                mode,
                millislots,
                cell,
                bank,
                bulk_now,
            },
        )
    };
    (line(), line()).prop_map(|(to_relay, to_agent)| Traffic { to_relay, to_agent })
}

fn to_agent() -> impl Strategy<Value = ToAgent> {
    let ready = (
        any::<u16>(),
        (number(), number()),
        any::<[u32; 3]>(),
        any::<bool>(),
        option::of(traffic()),
        option::of(any::<u32>()),
    );
    let answers = prop_oneof![
        ready.prop_map(
            |(version, (now, expires), counts, last_resort, traffic, slim)| {
                let [body_bytes_max, key_packages, welcomes] = counts;
                ToAgent::Ready(Ready {
                    version,
                    now: Time(now),
                    expires: Time(expires),
                    body_bytes_max,
                    key_packages,
                    welcomes,
                    last_resort,
                    traffic,
                    slim_bytes_max: slim,
                })
            }
        ),
        (channel(), id()).prop_map(|(channel, id)| ToAgent::Created(Created { channel, id })),
        (channel(), id(), number()).prop_map(|(channel, id, seq)| ToAgent::Published(Published {
            channel,
            id,
            seq: Seq(seq)
        })),
        (channel(), id(), number()).prop_map(|(channel, id, seq)| ToAgent::Ack(Ack {
            channel,
            id,
            seq: Seq(seq)
        })),
        (
            id(),
            option::of(channel()),
            any::<u16>(),
            option::of(number()),
            option::of(place())
        )
            .prop_map(|(id, channel, refusal, epoch, winner)| ToAgent::Nack(Nack {
                id,
                channel,
                refusal: Refusal::from(refusal),
                epoch: epoch.map(Epoch),
                winner
            })),
        (channel(), id(), any::<[u64; 3]>(), option::of(digest())).prop_map(
            |(channel, id, [epoch, head, after], hash)| ToAgent::Subscribed(Subscribed {
                channel,
                id,
                epoch: Epoch(epoch),
                head: Seq(head),
                hash,
                after: Seq(after)
            })
        ),
        (channel(), number(), blob()).prop_map(|(channel, seq, record)| ToAgent::Deliver(
            Deliver {
                channel,
                seq: Seq(seq),
                record
            }
        )),
        (channel(), number()).prop_map(|(channel, up_to)| ToAgent::Pruned(Pruned {
            channel,
            up_to: Seq(up_to)
        })),
    ];
    let rest =
        prop_oneof![
            (id(), any::<u32>()).prop_map(|(id, key_packages)| {
                ToAgent::KeyPackagesKept(KeyPackagesKept { id, key_packages })
            }),
            (id(), agent(), blob()).prop_map(|(id, agent, package)| ToAgent::KeyPackage(
                KeyPackage { id, agent, package }
            )),
            (id(), channel(), number(), blob(), agent(), digest()).prop_map(
                |(id, channel, seq, body, by, hash)| ToAgent::Welcome(Welcome {
                    id,
                    channel,
                    seq: Seq(seq),
                    body,
                    by,
                    hash
                })
            ),
            (id(), channel(), number(), blob(), blob()).prop_map(
                |(id, channel, epoch, ciphertext, key)| ToAgent::GroupInfo(GroupInfo {
                    id,
                    channel,
                    epoch: Epoch(epoch),
                    ciphertext,
                    key
                })
            ),
            channel().prop_map(|channel| ToAgent::GroupInfoWanted(GroupInfoWanted { channel })),
            (id(), number()).prop_map(|(id, expires)| ToAgent::Renewed(Renewed {
                id,
                expires: Time(expires)
            })),
            id().prop_map(|id| ToAgent::Pong(Pong { id })),
            (any::<u16>(), any::<bool>()).prop_map(|(refusal, resume)| ToAgent::Closing(Closing {
                refusal: Refusal::from(refusal),
                resume
            })),
        ];
    let log = (slim_name(), number(), number()).prop_map(|(name, head, pruned)| SlimLog {
        instance: name.instance,
        head: Seq(head),
        pruned: Seq(pruned),
    });
    let slim = prop_oneof![
        (id(), vec(log, 0..5)).prop_map(|(id, logs)| ToAgent::SlimLogs(SlimLogs { id, logs })),
        (id(), number(), number()).prop_map(|(id, head, pruned)| {
            ToAgent::SlimSubscribed(SlimSubscribed {
                id,
                head: Seq(head),
                pruned: Seq(pruned),
            })
        }),
        (id(), option::of(number())).prop_map(|(id, seq)| {
            ToAgent::SlimPublished(SlimPublished {
                id,
                seq: seq.map(Seq),
            })
        }),
        (slim_name(), option::of(number()), any::<u8>(), blob()).prop_map(
            |(name, seq, generation, message)| ToAgent::SlimDeliver(SlimDeliver {
                name,
                seq: seq.map(Seq),
                generation,
                message,
            })
        ),
    ];
    prop_oneof![answers, rest, slim]
}

fn commit() -> impl Strategy<Value = Commit> {
    let welcome =
        (vec(agent(), 0..3), blob()).prop_map(|(agents, body)| WelcomeFor { agents, body });
    let join = (digest(), digest(), invite_id(), signed()).prop_map(
        |(group, context, invite, signature)| JoinProof {
            group,
            context,
            invite,
            signature,
        },
    );
    let whole = (
        (channel(), id(), number()),
        (blob(), blob()),
        vec(welcome, 0..3),
        option::of(sealed()),
        option::of(join),
    );
    whole.prop_map(
        |((channel, id, epoch), (body, change), welcomes, sealed, join)| Commit {
            channel,
            id,
            epoch: Epoch(epoch),
            body,
            change,
            welcomes,
            sealed,
            join,
        },
    )
}

fn credential() -> impl Strategy<Value = Credential> {
    prop_oneof![
        "\\PC{0,60}".prop_map(Credential::Token),
        (channel(), invite_id(), signed()).prop_map(|(channel, invite, signature)| {
            Credential::Invite(GuestProof {
                channel,
                invite,
                signature,
            })
        }),
        Just(Credential::Member),
    ]
}

fn envelope() -> impl Strategy<Value = Envelope> {
    let kind = select(vec![
        Kind::Application,
        Kind::Commit,
        Kind::Join,
        Kind::Leave,
        Kind::SlimMessageOne,
        Kind::SlimMessageTwo,
        Kind::SlimCommitOne,
        Kind::SlimCommitTwo,
    ]);
    let whole = (
        (kind, number(), agent(), id()),
        blob(),
        option::of(blob()),
        option::of(digest()),
        number(),
    );
    whole.prop_map(
        |((kind, epoch, agent, id), body, change, pruned, received)| Envelope {
            kind,
            epoch: Epoch(epoch),
            agent,
            id,
            body,
            change,
            pruned,
            received: Time(received),
        },
    )
}

fn change() -> impl Strategy<Value = RosterChange> {
    let grant = || {
        (agent(), any::<bool>(), any::<bool>()).prop_map(|(agent, admin, may_invite)| Grant {
            agent,
            admin,
            may_invite,
        })
    };
    let open = (digest(), any::<u32>(), number()).prop_map(|(signing, uses, expires)| OpenInvite {
        signing,
        uses,
        expires: Time(expires),
    });
    let whole = (
        vec(grant(), 0..4),
        vec(agent(), 0..4),
        vec(grant(), 0..4),
        vec(open, 0..4),
        vec(invite_id(), 0..4),
    );
    whole.prop_map(|(added, removed, granted, opened, closed)| RosterChange {
        added,
        removed,
        granted,
        opened,
        closed,
    })
}

fn sealed() -> impl Strategy<Value = Sealed> {
    let key = (invite_id(), blob()).prop_map(|(invite, sealed)| SealedKey { invite, sealed });
    (blob(), vec(key, 0..4)).prop_map(|(ciphertext, keys)| Sealed { ciphertext, keys })
}

fn leave() -> impl Strategy<Value = statement::Leave> {
    (any::<u32>(), blob(), signed()).prop_map(|(generation, leaf_key, signature)| {
        statement::Leave {
            generation: Generation(generation),
            leaf_key,
            signature,
        }
    })
}

fn invite(addresses_max: usize) -> impl Strategy<Value = Invite> {
    let whole = (
        any::<[u8; 32]>(),
        vec("[a-z0-9.:\\[\\]]{0,40}", 0..=addresses_max),
        channel(),
        any::<u32>(),
        agent(),
        number(),
        any::<[u8; 16]>(),
    );
    whole.prop_map(
        |(relay, addresses, channel, generation, inviter, expires, seed)| Invite {
            relay: RelayKey(relay),
            addresses,
            channel,
            generation: Generation(generation),
            inviter,
            expires: Time(expires),
            seed: InviteSeed::new(seed),
        },
    )
}

fn place() -> impl Strategy<Value = Place> {
    (number(), digest()).prop_map(|(seq, content)| Place {
        seq: Seq(seq),
        content,
    })
}

fn name() -> impl Strategy<Value = ChannelName> {
    let part =
        || "[A-Za-z0-9._-]{1,80}".prop_filter("dots alone", |part| part != "." && part != "..");
    (part(), part(), part()).prop_map(|(org, namespace, service)| {
        format!("{org}/{namespace}/{service}").parse().unwrap()
    })
}

fn blob() -> impl Strategy<Value = Blob> {
    prop_oneof![
        9 => vec(any::<u8>(), 0..60),
        1 => vec(any::<u8>(), 250..300),
    ]
    .prop_map(Blob::from)
}

/// Numbers of each width that CBOR writes.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..24, 24_u64..70_000, any::<u64>(), Just(u64::MAX)]
}

fn agent() -> impl Strategy<Value = AgentId> {
    any::<[u8; 32]>().prop_map(AgentId)
}

fn channel() -> impl Strategy<Value = ChannelId> {
    any::<[u8; 32]>().prop_map(ChannelId)
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn id() -> impl Strategy<Value = MessageId> {
    any::<[u8; 16]>().prop_map(MessageId)
}

fn invite_id() -> impl Strategy<Value = InviteId> {
    any::<[u8; 16]>().prop_map(InviteId)
}

fn signed() -> impl Strategy<Value = Signed> {
    any::<[u8; 64]>().prop_map(Signed)
}
