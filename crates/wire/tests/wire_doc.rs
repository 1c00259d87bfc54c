//! Holds `docs/wire.md` to the code: every annotated example is decoded by the decoders of this
//! crate, compared with the value that stands here, and encoded again; the tables of frames,
//! refusals and limits are compared with what the code knows.
//!
//! Left out: what agents agree on inside MLS (`skytale-agent` keeps it to itself), and the cell's
//! own decoder, which is `skytale-shape`'s; this crate does not lean on it, so the cell is opened
//! here by the rules that the document gives.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::{collections::BTreeMap, fmt::Debug};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ed25519_dalek::{Signer as _, SigningKey};
use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};
use skytale_wire::{
    Blob,
    envelope::{Envelope, Grant, Kind, OpenInvite, Place, RosterChange, content_hash},
    frame::{
        ADDS_MAX, Ack, BODY_BYTES_MAX, Closing, Commit, Create, Created, Credential, Deliver,
        FRAME_BYTES_MAX, GroupInfo, GroupInfoWanted, GuestProof, Hello, INVITES_MAX, JoinProof,
        KEY_PACKAGE_BYTES_MAX, KEY_PACKAGES_MAX, KeyPackage, KeyPackagesKept, Leave, Line, Nack,
        PAYLOAD_BYTES_MAX, PROTOCOL, Ping, Pong, Pruned, Publish, Published, PutKeyPackages, Ready,
        Renew, Renewed, SLIM_LOGS_MAX, SLIM_MESSAGE_BYTES_MAX, SealGroupInfo, Sealed, SealedKey,
        Seen, SlimDeliver, SlimLog, SlimLogs, SlimName, SlimPublish, SlimPublished, SlimSubscribe,
        SlimSubscribed, SlimUnsubscribe, Subscribe, Subscribed, TakeGroupInfo, TakeKeyPackage,
        TakeSlimLogs, TakeWelcome, ToAgent, ToRelay, Traffic, WantGroupInfo, Welcome, WelcomeFor,
        Welcomed, decode, encode,
    },
    id::{
        AgentId, ChannelId, Digest, Epoch, Generation, InviteId, MessageId, RelayKey, Seq, Signed,
        Time, TransportKey, verify,
    },
    invite::{ADDRESSES_MAX, INVITE_CHARS_MAX, INVITE_PREFIX, Invite, InviteSeed},
    name::NAME_BYTES_MAX,
    refusal::{Refusal, Remedy},
    statement,
    token::{
        LEEWAY_MS, LIFETIME_MS_MAX, SLIM_PATTERNS_BYTES_MAX, SLIM_PATTERNS_MAX, TOKEN_BYTES_MAX,
    },
};

#[test]
fn every_example_is_what_the_code_reads_and_writes() {
    let mut written = blocks("hex");
    let mut wrong = Vec::new();
    for Example { name, bytes, check } in examples() {
        let Some(text) = written.remove(name) else {
            wrong.push(format!("missing: {name} {}", HEXLOWER.encode(&bytes)));
            continue;
        };
        let documented = bytes_of(&text);
        if documented != bytes {
            wrong.push(format!("differs: {name} {}", HEXLOWER.encode(&bytes)));
        } else if let Err(why) = check(&documented) {
            wrong.push(format!("is not read: {name}: {why}"));
        }
    }
    wrong.extend(written.keys().map(|name| format!("unknown: {name}")));

    assert!(wrong.is_empty(), "docs/wire.md:\n{}", wrong.join("\n"));
}

#[test]
fn every_line_of_an_example_says_what_it_is() {
    for (name, text) in blocks("hex") {
        for line in text.lines() {
            let comment = line.split_once('#').map_or("", |(_, comment)| comment);
            assert!(!comment.trim().is_empty(), "{name}: {line:?}");
        }
    }
}

/// A frame that gets a number must get a row in the table and an example too.
#[test]
fn the_tables_of_frames_list_the_numbers_that_the_code_knows() {
    let known = |is_known: fn(&[u8]) -> bool| -> Vec<u64> {
        (0..=255)
            .filter(|number| is_known(&encode(&(number, [0_u8; 0]))))
            .collect()
    };
    let has_example = |name: &str| blocks("hex").contains_key(name);

    for (heading, numbers) in [
        ("### Agent to relay", known(knows::<ToRelay>)),
        ("### Relay to agent", known(knows::<ToAgent>)),
    ] {
        let rows: Vec<Vec<String>> = rows_under(heading)
            .into_iter()
            .filter(|row| !row[1].is_empty() && row[1] != "*reserved*")
            .collect();
        let documented: Vec<u64> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
        assert_eq!(documented, numbers, "{heading}");
        for row in rows {
            assert!(has_example(&row[1]), "{} has no example", row[1]);
        }
    }
    for (frame, name) in frames() {
        let heading = match &frame {
            Frame::Up(_) => "### Agent to relay",
            Frame::Down(_) => "### Relay to agent",
        };
        let number = frame.bytes()[1];
        let row = rows_under(heading)
            .into_iter()
            .find(|row| row[0] == number.to_string());
        let stem = name.split('-').next().unwrap();
        assert_eq!(row.unwrap()[1], stem, "number {number}");
    }
}

/// Each field of an example is taken out in turn: the decoder misses exactly those that the table
/// does not mark as optional. Whatever else an example has, the table must name.
#[test]
fn the_tables_of_frames_say_which_fields_may_be_absent() {
    for (frame, name) in frames() {
        let (heading, reads): (_, fn(&[u8]) -> bool) = match &frame {
            Frame::Up(_) => ("### Agent to relay", reads::<ToRelay>),
            Frame::Down(_) => ("### Relay to agent", reads::<ToAgent>),
        };
        let stem = name.split('-').next().unwrap();
        let row = rows_under(heading).into_iter().find(|row| row[1] == stem);
        let documented: BTreeMap<u64, bool> = row.unwrap()[2]
            .split(" · ")
            .filter(|field| !field.is_empty())
            .map(|field| {
                let (key, name) = field.split_once(' ').unwrap();
                (key.parse().unwrap(), name.ends_with('?'))
            })
            .collect();

        let bytes = frame.bytes();
        let fields = fields_of(&bytes);
        for (key, optional) in &documented {
            assert!(*optional || fields.contains_key(key), "{name} lacks {key}");
        }
        for key in fields.keys() {
            let mut without = minicbor::Encoder::new(bytes[..3].to_vec());
            without
                .map(u64::try_from(fields.len() - 1).unwrap())
                .unwrap();
            let mut without = without.into_writer();
            for (_, field) in fields.iter().filter(|(other, _)| *other != key) {
                without.extend_from_slice(field);
            }
            assert_eq!(reads(&without), documented[key], "{name} without {key}");
        }
    }
}

#[test]
fn the_table_of_refusals_is_the_code_s() {
    let word = |remedy: Remedy| match remedy {
        Remedy::FixRequest => "fix the request",
        Remedy::GetPermission => "get permission",
        Remedy::Retry => "try again",
        Remedy::CatchUp => "catch up",
    };
    let known: Vec<Vec<String>> = Refusal::ALL
        .iter()
        .map(|refusal| {
            vec![
                refusal.number().to_string(),
                refusal.code().to_owned(),
                word(refusal.remedy()).to_owned(),
                refusal.to_string(),
            ]
        })
        .collect();

    assert_eq!(rows_under("## Refusals"), known);
}

#[test]
fn the_table_of_limits_is_the_code_s() {
    let known: BTreeMap<&str, usize> = BTreeMap::from([
        ("PROTOCOL", usize::from(PROTOCOL)),
        ("FRAME_BYTES_MAX", FRAME_BYTES_MAX),
        ("BODY_BYTES_MAX", BODY_BYTES_MAX),
        ("PAYLOAD_BYTES_MAX", PAYLOAD_BYTES_MAX),
        ("ADDS_MAX", ADDS_MAX),
        ("INVITES_MAX", INVITES_MAX),
        ("KEY_PACKAGES_MAX", KEY_PACKAGES_MAX),
        ("KEY_PACKAGE_BYTES_MAX", KEY_PACKAGE_BYTES_MAX),
        ("SLIM_MESSAGE_BYTES_MAX", SLIM_MESSAGE_BYTES_MAX),
        ("SLIM_LOGS_MAX", SLIM_LOGS_MAX),
        ("NAME_BYTES_MAX", NAME_BYTES_MAX),
        ("INVITE_CHARS_MAX", INVITE_CHARS_MAX),
        ("ADDRESSES_MAX", ADDRESSES_MAX),
        ("TOKEN_BYTES_MAX", TOKEN_BYTES_MAX),
        ("SLIM_PATTERNS_MAX", SLIM_PATTERNS_MAX),
        ("SLIM_PATTERNS_BYTES_MAX", SLIM_PATTERNS_BYTES_MAX),
        ("LIFETIME_MS_MAX", usize::try_from(LIFETIME_MS_MAX).unwrap()),
        ("LEEWAY_MS", usize::try_from(LEEWAY_MS).unwrap()),
    ]);
    let rows = rows_under("## Limits");
    let documented: BTreeMap<&str, usize> = rows
        .iter()
        .map(|row| (row[0].as_str(), row[1].replace(',', "").parse().unwrap()))
        .collect();

    assert_eq!(documented, known);
}

#[test]
fn the_invite_line_in_words_and_in_bytes_is_the_same() {
    let line = blocks("text").remove("invite-line").unwrap();
    let line = line.trim();

    assert_eq!(line.parse(), Ok(invite()));
    assert_eq!(invite().to_string(), line);
    let body = line.strip_prefix(INVITE_PREFIX).unwrap();
    let bytes = BASE64URL_NOPAD.decode(body.as_bytes()).unwrap();
    assert_eq!(bytes, bytes_of(&blocks("hex")["invite-line"]));
}

/// So that whoever writes a second implementation can check theirs against the document.
#[test]
fn the_signatures_in_the_examples_hold_over_the_documented_statements() {
    let said = |name: &str| bytes_of(&blocks("hex")[name]);
    let signing = seed().signing_half().0;

    assert!(alice().signed(&said("statement-identity"), &proof()));
    assert!(verify(
        &signing,
        &said("statement-guest"),
        &guest_proof().signature
    ));
    assert!(alice().signed(
        &said("statement-invite"),
        &signed(&said("statement-invite"))
    ));
    assert!(verify(
        &signing,
        &said("statement-join"),
        &join_proof().signature
    ));
    assert!(alice().signed(&said("statement-leave"), &leave().signature));
    assert!(leave().holds(&CHANNEL, &alice()));
}

// ----- the examples ---------------------------------------------------------------------------

/// A block of the document: what its bytes must be, and how they are read.
struct Example {
    name: &'static str,
    bytes: Vec<u8>,
    check: Check,
}

type Check = Box<dyn Fn(&[u8]) -> Result<(), String>>;

enum Frame {
    Up(ToRelay),
    Down(ToAgent),
}

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Up(frame) => encode(frame),
            Self::Down(frame) => encode(frame),
        }
    }
}

fn examples() -> Vec<Example> {
    let mut all: Vec<Example> = frames()
        .into_iter()
        .map(|(frame, name)| match frame {
            Frame::Up(frame) => example(name, frame),
            Frame::Down(frame) => example(name, frame),
        })
        .collect();
    all.extend([
        example("Envelope", envelope()),
        example("Envelope-stub", envelope().stub()),
        example("RosterChange", change()),
        statement_example("statement-identity", identity_statement()),
        statement_example(
            "statement-guest",
            statement::guest(&RELAY, &TRANSPORT, &alice(), &CHANNEL),
        ),
        statement_example(
            "statement-invite",
            statement::invite(&group(), &seed().signing_half(), &HPKE, 1, EXPIRES),
        ),
        statement_example(
            "statement-join",
            statement::join(&group(), &CONTEXT, &seed().id(), &alice()),
        ),
        statement_example(
            "statement-leave",
            statement::leave(&group(), &leave().leaf_key),
        ),
        hash_example("hash-group", &[b"skytale/1 group", &CHANNEL.0, &[0; 4]], {
            CHANNEL.group_id(Generation(0)).0.to_vec()
        }),
        hash_example(
            "hash-invite-id",
            &[b"skytale/1 invite", &seed().signing_half().0],
            seed().id().0.to_vec(),
        ),
        hash_example(
            "hash-invite-seed",
            &[b"skytale/1 invite seed", b"signing", &[0x5e; 16]],
            seed().derive("signing").to_vec(),
        ),
        hash_example(
            "hash-credential",
            &[b"skytale/1 credential", TOKEN.as_bytes()],
            token().hash().0.to_vec(),
        ),
        hash_example(
            "hash-content",
            &[b"skytale/1 content", b"MLS", b""],
            content_hash(b"MLS", None).0.to_vec(),
        ),
        hash_example(
            "hash-log",
            &[
                b"skytale/1 log",
                &[0; 32],
                &1_u64.to_be_bytes(),
                &[0],
                &3_u64.to_be_bytes(),
                &alice().0,
                &ID.0,
                &content_hash(b"MLS", None).0,
            ],
            envelope().log_hash(&Digest([0; 32]), Seq(1)).0.to_vec(),
        ),
        Example {
            name: "invite-line",
            bytes: invite_bytes(),
            check: Box::new(|bytes| {
                let line = format!("{INVITE_PREFIX}{}", BASE64URL_NOPAD.encode(bytes));
                let read: Invite = line.parse().map_err(|error| format!("{error}"))?;
                same(&read, &invite())
            }),
        },
        Example {
            name: "cell",
            bytes: cell(),
            check: Box::new(|bytes| {
                let frame: ToRelay = decode(open_cell(bytes)?, FRAME_BYTES_MAX)
                    .map_err(|error| error.to_string())?;
                same(&frame, &ToRelay::Ping(Ping { id: ID }))
            }),
        },
    ]);
    all
}

fn frames() -> Vec<(Frame, &'static str)> {
    let up = |name, frame| (Frame::Up(frame), name);
    let down = |name, frame| (Frame::Down(frame), name);
    let hello = |credential: Credential| {
        ToRelay::Hello(Hello {
            version: PROTOCOL,
            agent: alice(),
            proof: signed(&statement::identity(&RELAY, &TRANSPORT, &credential.hash())),
            traffic: matches!(credential, Credential::Member).then_some(WISH),
            credential,
        })
    };
    vec![
        up("Hello", hello(token())),
        up("Hello-invite", hello(Credential::Invite(guest_proof()))),
        up("Hello-member", hello(Credential::Member)),
        up(
            "Create",
            ToRelay::Create(Create {
                channel: CHANNEL,
                id: ID,
            }),
        ),
        up(
            "Publish",
            ToRelay::Publish(Publish {
                channel: CHANNEL,
                id: ID,
                epoch: Epoch(3),
                body: mls(),
                resumes: true,
            }),
        ),
        up(
            "Commit",
            ToRelay::Commit(Commit {
                channel: CHANNEL,
                id: ID,
                epoch: Epoch(3),
                body: mls(),
                change: encode(&change()).into(),
                welcomes: vec![WelcomeFor {
                    agents: vec![bob()],
                    body: mls(),
                }],
                sealed: Some(sealed()),
                join: None,
            }),
        ),
        up(
            "Commit-join",
            ToRelay::Commit(Commit {
                channel: CHANNEL,
                id: ID,
                epoch: Epoch(4),
                body: mls(),
                change: encode(&join_change()).into(),
                welcomes: Vec::new(),
                sealed: None,
                join: Some(join_proof()),
            }),
        ),
        up(
            "Leave",
            ToRelay::Leave(Leave {
                channel: CHANNEL,
                id: ID,
                statement: leave(),
                cursor: Seq(7),
            }),
        ),
        up(
            "Subscribe",
            ToRelay::Subscribe(Subscribe {
                channel: CHANNEL,
                id: ID,
                after: Seq(41),
            }),
        ),
        up(
            "PutKeyPackages",
            ToRelay::PutKeyPackages(PutKeyPackages {
                id: ID,
                packages: vec![mls(), mls()],
                last_resort: Some(mls()),
            }),
        ),
        up(
            "TakeKeyPackage",
            ToRelay::TakeKeyPackage(TakeKeyPackage {
                id: ID,
                agent: bob(),
            }),
        ),
        up("TakeWelcome", ToRelay::TakeWelcome(TakeWelcome {})),
        up(
            "Welcomed",
            ToRelay::Welcomed(Welcomed {
                channel: CHANNEL,
                id: ID,
            }),
        ),
        up(
            "TakeGroupInfo",
            ToRelay::TakeGroupInfo(TakeGroupInfo {
                id: ID,
                channel: CHANNEL,
                invite: seed().id(),
            }),
        ),
        up(
            "WantGroupInfo",
            ToRelay::WantGroupInfo(WantGroupInfo {
                id: ID,
                channel: CHANNEL,
                invite: seed().id(),
            }),
        ),
        up(
            "SealGroupInfo",
            ToRelay::SealGroupInfo(SealGroupInfo {
                id: ID,
                channel: CHANNEL,
                epoch: Epoch(4),
                sealed: sealed(),
            }),
        ),
        up(
            "Seen",
            ToRelay::Seen(Seen {
                channel: CHANNEL,
                seq: Seq(64),
            }),
        ),
        up(
            "Renew",
            ToRelay::Renew(Renew {
                id: ID,
                credential: token(),
                proof: proof(),
            }),
        ),
        up("Ping", ToRelay::Ping(Ping { id: ID })),
        up(
            "SlimSubscribe",
            ToRelay::SlimSubscribe(SlimSubscribe {
                id: ID,
                name: slim_name(),
                after: Some(Seq(41)),
            }),
        ),
        up(
            "SlimUnsubscribe",
            ToRelay::SlimUnsubscribe(SlimUnsubscribe {
                name: SlimName {
                    instance: None,
                    ..slim_name()
                },
            }),
        ),
        up(
            "SlimPublish",
            ToRelay::SlimPublish(SlimPublish {
                id: ID,
                generation: 2,
                message: slim(),
            }),
        ),
        up(
            "TakeSlimLogs",
            ToRelay::TakeSlimLogs(TakeSlimLogs {
                id: ID,
                components: SLIM_COMPONENTS,
                after: Some(6.into()),
            }),
        ),
        down(
            "Ready",
            ToAgent::Ready(Ready {
                version: PROTOCOL,
                now: NOW,
                expires: EXPIRES,
                body_bytes_max: 327_680,
                key_packages: 30,
                welcomes: 1,
                last_resort: true,
                traffic: Some(Traffic {
                    to_relay: Line {
                        mode: 3,
                        ..WISH.to_relay
                    },
                    to_agent: WISH.to_agent,
                }),
                slim_bytes_max: Some(1_047_552),
            }),
        ),
        down(
            "Created",
            ToAgent::Created(Created {
                channel: CHANNEL,
                id: ID,
            }),
        ),
        down(
            "Published",
            ToAgent::Published(Published {
                channel: CHANNEL,
                id: ID,
                seq: Seq(42),
            }),
        ),
        down(
            "Ack",
            ToAgent::Ack(Ack {
                channel: CHANNEL,
                id: ID,
                seq: Seq(43),
            }),
        ),
        down(
            "Nack",
            ToAgent::Nack(Nack {
                id: ID,
                channel: Some(CHANNEL),
                refusal: Refusal::StaleEpoch,
                epoch: Some(Epoch(4)),
                winner: Some(Place {
                    seq: Seq(43),
                    content: content_hash(b"MLS", None),
                }),
            }),
        ),
        down(
            "Nack-bare",
            ToAgent::Nack(Nack {
                id: ID,
                channel: None,
                refusal: Refusal::KeyPackagesExhausted,
                epoch: None,
                winner: None,
            }),
        ),
        down(
            "Subscribed",
            ToAgent::Subscribed(Subscribed {
                channel: CHANNEL,
                id: ID,
                epoch: Epoch(3),
                head: Seq(42),
                hash: Some(Digest([0x4a; 32])),
                after: Seq(41),
            }),
        ),
        down(
            "Deliver",
            ToAgent::Deliver(Deliver {
                channel: CHANNEL,
                seq: Seq(42),
                record: encode(&envelope()).into(),
            }),
        ),
        down(
            "Pruned",
            ToAgent::Pruned(Pruned {
                channel: CHANNEL,
                up_to: Seq(40),
            }),
        ),
        down(
            "KeyPackagesKept",
            ToAgent::KeyPackagesKept(KeyPackagesKept {
                id: ID,
                key_packages: 32,
            }),
        ),
        down(
            "KeyPackage",
            ToAgent::KeyPackage(KeyPackage {
                id: ID,
                agent: bob(),
                package: mls(),
            }),
        ),
        down(
            "Welcome",
            ToAgent::Welcome(Welcome {
                id: ID,
                channel: CHANNEL,
                seq: Seq(43),
                body: mls(),
                by: alice(),
                hash: Digest([0x4a; 32]),
            }),
        ),
        down(
            "GroupInfo",
            ToAgent::GroupInfo(GroupInfo {
                id: ID,
                channel: CHANNEL,
                epoch: Epoch(4),
                ciphertext: b"AEAD".as_slice().into(),
                key: b"HPKE".as_slice().into(),
            }),
        ),
        down(
            "GroupInfoWanted",
            ToAgent::GroupInfoWanted(GroupInfoWanted { channel: CHANNEL }),
        ),
        down(
            "Renewed",
            ToAgent::Renewed(Renewed {
                id: ID,
                expires: EXPIRES,
            }),
        ),
        down("Pong", ToAgent::Pong(Pong { id: ID })),
        down(
            "Closing",
            ToAgent::Closing(Closing {
                refusal: Refusal::ShuttingDown,
                resume: true,
            }),
        ),
        down(
            "SlimSubscribed",
            ToAgent::SlimSubscribed(SlimSubscribed {
                id: ID,
                head: Seq(64),
                pruned: Seq(40),
            }),
        ),
        down(
            "SlimPublished",
            ToAgent::SlimPublished(SlimPublished {
                id: ID,
                seq: Some(Seq(42)),
            }),
        ),
        down(
            "SlimDeliver",
            ToAgent::SlimDeliver(SlimDeliver {
                name: slim_name(),
                seq: Some(Seq(42)),
                generation: 2,
                message: slim(),
            }),
        ),
        down(
            "SlimLogs",
            ToAgent::SlimLogs(SlimLogs {
                id: ID,
                logs: vec![SlimLog {
                    instance: Some(7.into()),
                    head: Seq(64),
                    pruned: Seq(40),
                }],
            }),
        ),
    ]
}

fn example<T>(name: &'static str, value: T) -> Example
where
    T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + Debug + 'static,
{
    Example {
        name,
        bytes: encode(&value),
        check: Box::new(move |bytes| {
            let read: T = decode(bytes, bytes.len()).map_err(|error| error.to_string())?;
            same(&read, &value)?;
            same(&encode(&read), &bytes.to_vec())
        }),
    }
}

/// Statements are only ever built, by both ends: there is nothing to decode.
fn statement_example(name: &'static str, bytes: Vec<u8>) -> Example {
    Example {
        name,
        bytes,
        check: Box::new(|_| Ok(())),
    }
}

/// The block shows what goes into SHA-256; that it gives what the code computes is checked with
/// SHA-256 itself, not with our wrapper around it. An id is the first bytes of its hash.
fn hash_example(name: &'static str, parts: &[&[u8]], result: Vec<u8>) -> Example {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&u64::try_from(part.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(part);
    }
    Example {
        name,
        bytes,
        check: Box::new(move |bytes| {
            let hash = Sha256::digest(bytes);
            same(&hash[..result.len()].to_vec(), &result)
        }),
    }
}

fn same<T: PartialEq + Debug>(read: &T, meant: &T) -> Result<(), String> {
    if read == meant {
        Ok(())
    } else {
        Err(format!("reads as {read:?}"))
    }
}

// ----- the values of the examples --------------------------------------------------------------

const RELAY: RelayKey = RelayKey([0x10; 32]);
const TRANSPORT: TransportKey = TransportKey([0x20; 32]);
const CHANNEL: ChannelId = ChannelId([0xc0; 32]);
const ID: MessageId = MessageId([0x1d; 16]);
const HPKE: Digest = Digest([0x4e; 32]);
const CONTEXT: Digest = Digest([0xcc; 32]);
const WISH: Traffic = Traffic {
    to_relay: Line {
        mode: 2,
        millislots: 4_000,
        cell: 1_056,
        bank: 8,
        bulk_now: false,
    },
    to_agent: Line {
        mode: 2,
        millislots: 4_000,
        cell: 1_056,
        bank: 8,
        bulk_now: true,
    },
};
const NOW: Time = Time(1_800_000_000_000);
const EXPIRES: Time = Time(1_800_003_600_000);
/// Stands for a JWT of some 600 characters.
/// XXH64 of "org", "ns" and "app", each with the byte 0xff behind it.
const SLIM_COMPONENTS: [u64; 3] = [
    0x873e_5803_76ea_963b,
    0xeef9_769a_4c69_90d1,
    0x86cb_5427_76a5_f6d5,
];
const TOKEN: &str = "header.claims.signature";

fn alice_key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn alice() -> AgentId {
    AgentId(alice_key().verifying_key().to_bytes())
}

fn bob() -> AgentId {
    AgentId([0xb0; 32])
}

fn signed(statement: &[u8]) -> Signed {
    Signed(alice_key().sign(statement).to_bytes())
}

fn seed() -> InviteSeed {
    InviteSeed::new([0x5e; 16])
}

fn group() -> Digest {
    CHANNEL.group_id(Generation(0))
}

/// Stands for bytes that MLS has made.
fn mls() -> Blob {
    b"MLS".as_slice().into()
}

/// As short as no message of SLIM is.
fn slim() -> Blob {
    b"SLIM".as_slice().into()
}

/// What `org/ns/app` is hashed to, at instance 7.
fn slim_name() -> SlimName {
    SlimName {
        components: SLIM_COMPONENTS,
        instance: Some(7.into()),
    }
}

fn token() -> Credential {
    Credential::Token(TOKEN.to_owned())
}

fn identity_statement() -> Vec<u8> {
    statement::identity(&RELAY, &TRANSPORT, &token().hash())
}

fn proof() -> Signed {
    signed(&identity_statement())
}

fn guest_proof() -> GuestProof {
    GuestProof {
        channel: CHANNEL,
        invite: seed().id(),
        signature: seed().sign(&statement::guest(&RELAY, &TRANSPORT, &alice(), &CHANNEL)),
    }
}

fn join_proof() -> JoinProof {
    JoinProof {
        group: group(),
        context: CONTEXT,
        invite: seed().id(),
        signature: seed().sign(&statement::join(&group(), &CONTEXT, &seed().id(), &alice())),
    }
}

fn sealed() -> Sealed {
    Sealed {
        ciphertext: b"AEAD".as_slice().into(),
        keys: vec![SealedKey {
            invite: seed().id(),
            sealed: b"HPKE".as_slice().into(),
        }],
    }
}

fn leave() -> statement::Leave {
    let leaf_key = [0x1e; 32];
    statement::Leave {
        generation: Generation(0),
        leaf_key: leaf_key.as_slice().into(),
        signature: signed(&statement::leave(&group(), &leaf_key)),
    }
}

/// Adds Bob, who may invite, and opens an invite while another one ends.
fn change() -> RosterChange {
    RosterChange {
        added: vec![Grant {
            agent: bob(),
            admin: false,
            may_invite: true,
        }],
        opened: vec![OpenInvite {
            signing: seed().signing_half(),
            uses: 1,
            expires: EXPIRES,
        }],
        closed: vec![InviteId([0x0e; 16])],
        ..RosterChange::default()
    }
}

fn join_change() -> RosterChange {
    RosterChange {
        added: vec![Grant {
            agent: alice(),
            admin: false,
            may_invite: false,
        }],
        ..RosterChange::default()
    }
}

fn envelope() -> Envelope {
    Envelope {
        kind: Kind::Application,
        epoch: Epoch(3),
        agent: alice(),
        id: ID,
        body: mls(),
        change: None,
        pruned: None,
        received: NOW,
    }
}

fn invite() -> Invite {
    Invite {
        relay: RELAY,
        addresses: vec!["192.0.2.7:4433".to_owned()],
        channel: CHANNEL,
        generation: Generation(0),
        inviter: alice(),
        expires: EXPIRES,
        seed: seed(),
    }
}

/// Version, map, checksum: built by the document's rule, not by the code that writes lines.
fn invite_bytes() -> Vec<u8> {
    let mut bytes = vec![1];
    bytes.extend(encode(&invite()));
    let mut hash = Sha256::new();
    for part in [b"skytale/1 invite line".as_slice(), &bytes] {
        hash.update(u64::try_from(part.len()).unwrap().to_be_bytes());
        hash.update(part);
    }
    bytes.extend_from_slice(&hash.finalize()[..4]);
    bytes
}

/// A Ping in the smallest cell. On a line mask and fill are random.
fn cell() -> Vec<u8> {
    let frame = encode(&ToRelay::Ping(Ping { id: ID }));
    let length = u32::try_from(frame.len()).unwrap();
    let mask = [0xa1, 0xa2, 0xa3, 0xa4];
    let mut cell = mask.to_vec();
    let payload = length + 4;
    cell.extend_from_slice(&(payload ^ u32::from_be_bytes(mask)).to_be_bytes());
    cell.push(1 ^ mask[0]);
    cell.extend_from_slice(&length.to_be_bytes());
    cell.extend_from_slice(&frame);
    cell.resize(256, 0);
    cell
}

/// The first frame of a cell, by the rules of the document.
fn open_cell(cell: &[u8]) -> Result<&[u8], String> {
    let word = |bytes: &[u8], at: usize| -> Option<u32> {
        let word = bytes.get(at..at + 4)?;
        Some(u32::from_be_bytes(word.try_into().ok()?))
    };
    let open = || {
        let mask = word(cell, 0)?;
        let payload = usize::try_from(word(cell, 4)? ^ mask).ok()?;
        let kind = cell.get(8)? ^ cell.first()?;
        let payload = cell.get(9..9 + payload)?;
        let frame = usize::try_from(word(payload, 0)?).ok()?;
        let frame = payload.get(4..4 + frame)?;
        (kind == 1 && cell.len() == 256).then_some(frame)
    };
    open().ok_or_else(|| "not a cell of 256 bytes with a frame".to_owned())
}

// ----- reading the document --------------------------------------------------------------------

const DOCUMENT: &str = include_str!("../../../docs/wire.md");

/// The document's blocks of one kind, by their names, each of which stands once.
fn blocks(kind: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open: Option<(String, String)> = None;
    for line in DOCUMENT.lines() {
        if let Some((name, text)) = &mut open {
            if line == "```" {
                let twice = found.insert(name.clone(), text.clone());
                assert!(twice.is_none(), "{name} stands twice");
                open = None;
            } else {
                text.push_str(line);
                text.push('\n');
            }
        } else if let Some(name) = line.strip_prefix(&format!("```{kind} ")) {
            open = Some((name.trim().to_owned(), String::new()));
        } else {
            assert!(
                kind != "hex" || line.trim_end() != "```hex",
                "an example without a name"
            );
        }
    }
    assert!(open.is_none(), "a block does not end");
    found
}

fn bytes_of(block: &str) -> Vec<u8> {
    let digits: String = block
        .lines()
        .filter_map(|line| line.split('#').next())
        .flat_map(str::chars)
        .filter(|digit| !digit.is_whitespace())
        .collect();
    HEXLOWER.decode(digits.as_bytes()).unwrap()
}

/// The body rows of the first table under a heading, without the back quotes around words.
fn rows_under(heading: &str) -> Vec<Vec<String>> {
    let mut lines = DOCUMENT.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "no heading {heading}");
    lines
        .take_while(|line| !line.starts_with('#'))
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|row| {
            row.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().trim_matches('`').to_owned())
                .collect()
        })
        .collect()
}

/// The fields of a frame's map: key and value as they are written, by key.
fn fields_of(frame: &[u8]) -> BTreeMap<u64, &[u8]> {
    let mut decoder = minicbor::Decoder::new(frame);
    decoder.set_position(3);
    let count = decoder.map().unwrap().unwrap();
    (0..count)
        .map(|_| {
            let start = decoder.position();
            let key = decoder.u64().unwrap();
            decoder.skip().unwrap();
            (key, &frame[start..decoder.position()])
        })
        .collect()
}

fn reads<T: for<'b> Decode<'b, ()>>(frame: &[u8]) -> bool {
    decode::<T>(frame, FRAME_BYTES_MAX).is_ok()
}

/// Whether a frame's number means something: its empty arguments are wrong, but not its number.
fn knows<T: for<'b> Decode<'b, ()> + Debug>(frame: &[u8]) -> bool {
    let error = minicbor::decode::<T>(frame).expect_err("a frame has a map");
    !error.is_unknown_variant()
}

#[test]
fn a_frame_number_that_nobody_knows_is_refused() {
    for number in [5_u8, 6, 15, 23, 200] {
        let bytes = encode(&(number, [0_u8; 0]));
        assert!(decode::<ToRelay>(&bytes, FRAME_BYTES_MAX).is_err());
        assert!(!knows::<ToRelay>(&bytes), "{number} is reserved or free");
    }
}
