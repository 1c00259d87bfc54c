//! SLIM's streams at the driver: real archives, real threads.

use std::collections::BTreeMap;

use skytale_slim::{
    Draft, Generation, Header, Inbound, Instance, Link, MessageType, Name, Opening, Routed, Said,
    Session, SessionKind, open, proto,
};

use super::*;
use crate::{
    driver::{SlimLink, SlimOut, SlimTaken},
    hub::{SlimPresented, SlimRight},
};

/// A client of the first generation, whose links have no key.
struct Stream {
    link: SlimLink,
    name: Name,
}

impl Stream {
    async fn enter(door: &Door, name: &str) -> Self {
        let presented = SlimPresented {
            generation: Generation::One,
            owner: SlimRight::Open,
        };
        let stream = Self {
            link: door.enter_slim(presented).await.unwrap(),
            name: Name::parse(name).unwrap().at(Instance::Only(1)),
        };
        let subscribe = subscription(&stream.name);
        stream.link.routed(subscribe).await.unwrap();
        let answer = stream.next().await;
        assert!(matches!(answer[..], [SlimOut::Ack(_)]), "{answer:?}");
        stream
    }

    async fn says(&self, to: &Name, words: &str, number: u32) {
        let message = message(&self.name, to, words, number);
        self.link.routed(message).await.unwrap();
    }

    async fn next(&self) -> Vec<SlimOut> {
        let mut out = Vec::new();
        let taken = tokio::time::timeout(PATIENCE, self.link.take(&mut out)).await;
        assert_eq!(taken.expect("it comes in time"), SlimTaken::Some);
        out
    }

    async fn words(&self) -> Vec<String> {
        let plain = plain_link();
        let out = self.next().await;
        let words = |said: SlimOut| {
            let SlimOut::Onward(onward) = said else {
                return None;
            };
            let mut bytes = Vec::new();
            plain.write(&onward, &mut bytes).unwrap();
            let Inbound::Routed(message) = plain.read(bytes.into()).unwrap() else {
                return None;
            };
            let (_, blob) = message.payload()?;
            Some(String::from_utf8(blob.to_vec()).unwrap())
        };
        out.into_iter().filter_map(words).collect()
    }
}

fn message(from: &Name, to: &Name, words: &str, number: u32) -> Routed {
    let draft = Draft {
        header: Header {
            source: from.clone(),
            destination: to.clone(),
            identity: String::new(),
            fanout: 1,
        },
        session: Session {
            kind: SessionKind::PointToPoint,
            message: MessageType::Msg,
            id: 5,
            message_id: number,
        },
        said: Said::Application {
            payload_type: "msg".into(),
            blob: Bytes::copy_from_slice(words.as_bytes()),
        },
        metadata: BTreeMap::new(),
    };
    draft.routed(Generation::One).unwrap()
}

fn subscription(name: &Name) -> Routed {
    use prost::Message as _;
    use proto::one::{self, message::MessageType as Kind};

    let like = message(name, name, "x", 1);
    let decoded = one::Message::decode(like.original().clone()).unwrap();
    let Some(Kind::Publish(publish)) = decoded.message_type else {
        panic!("it was a publication")
    };
    let subscribe = one::Message {
        message_type: Some(Kind::Subscribe(one::Subscribe {
            header: publish.header,
            subscription_id: 1,
        })),
        ..one::Message::default()
    };
    Routed::from_archive(Generation::One, subscribe.encode_to_vec().into()).unwrap()
}

fn plain_link() -> Link {
    let name = Name::parse("org/ns/x").unwrap();
    let first = message(&name, &name, "x", 1);
    match open(first.original().clone()).unwrap() {
        Opening::Plain(link) => link,
        Opening::Offer(_) => panic!("a publication offers nothing"),
    }
}

#[tokio::test]
async fn what_a_client_says_is_stored_passed_on_and_known_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..2 {
        let driver = start(FjallArchive::open(dir.path()).unwrap());
        let door = driver.door();
        let alice = Stream::enter(&door, "org/ns/alice").await;
        let bob = Stream::enter(&door, "org/ns/bob").await;

        for number in 1..=3 {
            alice.says(&bob.name, "hello", number).await;
            assert_eq!(bob.words().await, ["hello"]);
        }

        let snapshot = door.look().await.unwrap();
        let slim = &snapshot.counters.slim;
        assert_eq!(
            (slim.archived, slim.repeated),
            if round == 0 { (3, 0) } else { (0, 3) }
        );
        assert_eq!((snapshot.slim_links, snapshot.slim_logs), (2, 1));
        alice.link.leave().await;
        bob.link.leave().await;
        driver.stop().await;
    }
    let reader = FjallArchive::open(dir.path()).unwrap().reader();
    let heads: Vec<Seq> = reader
        .channels()
        .unwrap()
        .iter()
        .map(|row| row.head)
        .collect();
    assert_eq!(heads, [Seq(3)]);
}

#[tokio::test]
async fn a_stream_that_takes_nothing_loses_what_has_no_room_and_nobody_waits_for_it() {
    let driver = start(SqliteArchive::in_memory().unwrap());
    let door = driver.door();
    let alice = Stream::enter(&door, "org/ns/alice").await;
    let bob = Stream::enter(&door, "org/ns/bob").await;
    let carol = Stream::enter(&door, "org/ns/carol").await;
    let large = "x".repeat(1_000_000);
    for number in 1..=20 {
        alice.says(&bob.name, &large, number).await;
    }
    alice.says(&carol.name, "and you?", 21).await;

    assert_eq!(carol.words().await, ["and you?"]);
    let snapshot = door.look().await.unwrap();
    assert_eq!(snapshot.slim_overrun, 12, "eight fit");
    for _ in 0..8 {
        assert_eq!(bob.words().await.len(), 1);
    }
    alice.says(&bob.name, "there is room again", 22).await;
    assert_eq!(bob.words().await, ["there is room again"]);
    driver.stop().await;
}

#[tokio::test]
async fn a_stopping_driver_passes_on_what_it_has_taken_and_then_ends_the_streams() {
    let driver = start(SqliteArchive::in_memory().unwrap());
    let door = driver.door();
    let alice = Stream::enter(&door, "org/ns/alice").await;
    let bob = Stream::enter(&door, "org/ns/bob").await;
    for number in 1..=50 {
        alice.says(&bob.name, "last", number).await;
    }

    driver.stop().await;

    let mut words = 0;
    let mut out = Vec::new();
    while bob.link.take(&mut out).await == SlimTaken::Some {
        words += out.drain(..).count();
    }
    assert_eq!(words, 50);
    let end = alice.link.take(&mut out).await;
    assert_eq!(end, SlimTaken::Closing(Refusal::ShuttingDown));
    assert_eq!(bob.link.closing().await, Refusal::ShuttingDown);
    let late = message(&alice.name, &bob.name, "late", 51);
    assert!(alice.link.routed(late).await.is_err());
}

#[tokio::test]
async fn a_stream_that_was_only_dropped_is_forgotten() {
    let driver = start(SqliteArchive::in_memory().unwrap());
    let door = driver.door();
    let alice = Stream::enter(&door, "org/ns/alice").await;
    let bob = Stream::enter(&door, "org/ns/bob").await;
    bob.link.leave().await;
    assert_eq!(door.look().await.unwrap().slim_links, 1);
    drop(alice);
    until(&door, |snapshot| snapshot.slim_links == 0).await;
    driver.stop().await;
}

#[tokio::test]
async fn a_disk_that_fails_keeps_messages_back_and_streams_open() {
    let dir = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let driver = start(Flaky {
        archive: FjallArchive::open(dir.path()).unwrap(),
        broken: Arc::clone(&broken),
    });
    let door = driver.door();
    let alice = Stream::enter(&door, "org/ns/alice").await;
    let bob = Stream::enter(&door, "org/ns/bob").await;
    alice.says(&bob.name, "before", 1).await;
    assert_eq!(bob.words().await, ["before"]);

    broken.store(true, Ordering::SeqCst);
    alice.says(&bob.name, "during", 2).await;
    until(&door, |snapshot| !snapshot.writable).await;
    broken.store(false, Ordering::SeqCst);
    until(&door, |snapshot| snapshot.writable).await;
    alice.says(&bob.name, "during", 2).await;

    assert_eq!(bob.words().await, ["during"]);
    drop((alice, bob));
    driver.stop().await;
}
