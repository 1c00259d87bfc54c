//! The driver with a real hub and real archives; only the disk's failures are made up.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use skytale_wire::{
    envelope::{Envelope, Grant, RosterChange},
    frame::{Commit, Create, Deliver, Publish, Subscribe, WelcomeFor, encode},
    id::{Epoch, RelayKey, Seq, TransportKey},
};

use super::*;
use crate::{
    archive::{Written, fjall::FjallArchive, sqlite::SqliteArchive},
    edge::terms::Terms,
    hub::{Payer, Presented, Right, SlimRules},
    limits::{Limits, Rate},
};

/// A disk that refuses on demand. Everything else about it is the archive's own.
struct Flaky<A> {
    archive: A,
    broken: Arc<AtomicBool>,
}

impl<A: Archive> Archive for Flaky<A> {
    type Reader = A::Reader;

    fn write(&mut self, batch: &[Write]) -> Result<Vec<Written>, ArchiveError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(ArchiveError::Unavailable("no space".into()));
        }
        self.archive.write(batch)
    }

    fn reader(&self) -> A::Reader {
        self.archive.reader()
    }
}

/// An agent without a line: it hands frames in and takes frames out.
struct Client {
    link: Link,
    waiting: VecDeque<ToAgent>,
}

impl Client {
    async fn enter(door: &Door, agent: AgentId) -> Self {
        let presented = Presented {
            agent,
            transport: TransportKey([9; 32]),
            right: Right::Account {
                payer: Payer::account("acc"),
                expires: Time(u64::MAX / 2),
            },
        };
        let mut client = Self {
            link: door.enter(presented, &Terms::default()).await.unwrap(),
            waiting: VecDeque::new(),
        };
        let ready = client.next().await;
        assert!(matches!(ready, ToAgent::Ready(_)), "{ready:?}");
        client
    }

    async fn send(&self, frame: ToRelay) {
        let bytes = encode(&frame).len();
        self.link.frame(frame, bytes).await.unwrap();
    }

    async fn next(&mut self) -> ToAgent {
        while self.waiting.is_empty() {
            let mut frames = Vec::new();
            let taken = self.link.take(Lane::Live, &mut frames, 100_000);
            let closing = tokio::time::timeout(PATIENCE, taken)
                .await
                .expect("a frame comes in time")
                .unwrap();
            for bytes in frames {
                self.waiting
                    .push_back(frame::decode(&bytes, usize::MAX).unwrap());
            }
            self.waiting.extend(closing.map(ToAgent::Closing));
        }
        self.waiting.pop_front().unwrap()
    }

    /// The next answer, past what is delivered meanwhile.
    async fn answer(&mut self) -> ToAgent {
        loop {
            let answer = self.next().await;
            if !matches!(answer, ToAgent::Deliver(_)) {
                return answer;
            }
        }
    }

    async fn delivered(&mut self) -> Deliver {
        loop {
            let frame = self.next().await;
            assert!(!matches!(frame, ToAgent::Closing(_)), "{frame:?}");
            if let ToAgent::Deliver(deliver) = frame {
                return deliver;
            }
        }
    }

    async fn create(&mut self) {
        let (channel, id) = (CHANNEL, id(1_000_000));
        self.send(ToRelay::Create(Create { channel, id })).await;
        let answer = self.answer().await;
        assert!(matches!(answer, ToAgent::Created(_)), "{answer:?}");
    }

    async fn publish(&mut self, number: u64, epoch: u64, body: &[u8]) -> ToAgent {
        self.send(publish(number, epoch, body)).await;
        self.answer().await
    }

    async fn add(&mut self, agent: AgentId) {
        let grant = Grant {
            agent,
            admin: false,
            may_invite: false,
        };
        let change = RosterChange {
            added: vec![grant],
            ..RosterChange::default()
        };
        self.send(ToRelay::Commit(Commit {
            channel: CHANNEL,
            id: id(2_000_000),
            epoch: Epoch(0),
            body: b"commit".as_slice().into(),
            change: encode(&change).into(),
            welcomes: vec![WelcomeFor {
                agents: vec![agent],
                body: b"welcome".as_slice().into(),
            }],
            sealed: None,
            join: None,
        }))
        .await;
        let answer = self.answer().await;
        assert!(matches!(answer, ToAgent::Ack(_)), "{answer:?}");
    }

    async fn subscribe(&mut self, after: u64) {
        self.send(ToRelay::Subscribe(Subscribe {
            channel: CHANNEL,
            id: id(3_000_000),
            after: Seq(after),
        }))
        .await;
    }
}

fn publish(number: u64, epoch: u64, body: &[u8]) -> ToRelay {
    ToRelay::Publish(Publish {
        channel: CHANNEL,
        id: id(number),
        epoch: Epoch(epoch),
        body: body.into(),
        resumes: true,
    })
}

fn seq_of(answer: &ToAgent) -> u64 {
    let ToAgent::Published(published) = answer else {
        panic!("{answer:?}")
    };
    published.seq.0
}

fn refusal_of(answer: &ToAgent) -> Option<Refusal> {
    if let ToAgent::Nack(nack) = answer {
        Some(nack.refusal)
    } else {
        None
    }
}

fn body_of(deliver: &Deliver) -> Vec<u8> {
    let envelope: Envelope = frame::decode(&deliver.record, usize::MAX).unwrap();
    envelope.body.to_vec()
}

fn start<A: Archive + 'static>(archive: A) -> Driver {
    let limits = Limits {
        publishes: Rate::per_second(1_000_000, 1_000_000),
        frames: Rate::per_second(1_000_000, 1_000_000),
        ..Limits::default()
    };
    let config = HubConfig {
        relay: RelayKey([1; 32]),
        limits,
        guests: true,
        retention_ms: 1_000_000_000,
        slim: SlimRules::default(),
        meters: false,
    };
    Driver::start(config, archive, Clock::system()).unwrap()
}

async fn until(door: &Door, holds: impl Fn(&Snapshot) -> bool) {
    let looking = async { while !holds(&door.look().await.unwrap()) {} };
    tokio::time::timeout(PATIENCE, looking).await.unwrap();
}

fn id(number: u64) -> MessageId {
    MessageId(u128::from(number).to_be_bytes())
}

const CHANNEL: ChannelId = ChannelId([5; 32]);
const ALICE: AgentId = AgentId([1; 32]);
const BOB: AgentId = AgentId([2; 32]);
/// Only a broken test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_is_published_is_stored_acknowledged_and_delivered() {
    let archive = SqliteArchive::in_memory().unwrap();
    let reader = archive.reader();
    let driver = start(archive);
    let mut alice = Client::enter(&driver.door(), ALICE).await;
    alice.create().await;
    alice.add(BOB).await;
    let mut bob = Client::enter(&driver.door(), BOB).await;
    bob.subscribe(1).await;
    assert!(matches!(bob.answer().await, ToAgent::Subscribed(_)));

    let answer = alice.publish(7, 1, b"hello").await;

    assert_eq!(seq_of(&answer), 2);
    assert_eq!(reader.find(&CHANNEL, &ALICE, &id(7)).unwrap(), Some(Seq(2)));
    let deliver = bob.delivered().await;
    assert_eq!(
        (deliver.seq, body_of(&deliver)),
        (Seq(2), b"hello".to_vec())
    );
    driver.stop().await;
}

#[tokio::test]
async fn a_repeat_gets_the_same_answer_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let driver = start(FjallArchive::open(dir.path()).unwrap());
    let mut alice = Client::enter(&driver.door(), ALICE).await;
    alice.create().await;
    let first = alice.publish(7, 0, b"one").await;
    let second = alice.publish(8, 0, b"two").await;
    let again = alice.publish(7, 0, b"one").await;
    assert_eq!((seq_of(&first), seq_of(&second), seq_of(&again)), (1, 2, 1));
    drop(alice);
    driver.stop().await;

    let driver = start(FjallArchive::open(dir.path()).unwrap());
    let mut alice = Client::enter(&driver.door(), ALICE).await;

    assert_eq!(seq_of(&alice.publish(8, 0, b"two").await), 2);
    assert_eq!(seq_of(&alice.publish(9, 0, b"three").await), 3);
    driver.stop().await;
}

#[tokio::test]
async fn a_disk_that_fails_stops_publishing_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let driver = start(Flaky {
        archive: FjallArchive::open(dir.path()).unwrap(),
        broken: Arc::clone(&broken),
    });
    let door = driver.door();
    let mut alice = Client::enter(&door, ALICE).await;
    alice.create().await;
    let mut acknowledged = Vec::new();
    for number in 1..=20 {
        acknowledged.push(seq_of(&alice.publish(number, 0, b"before").await));
    }

    broken.store(true, Ordering::SeqCst);
    for number in 21..=40 {
        alice.send(publish(number, 0, b"during")).await;
    }
    for _ in 21..=40 {
        let answer = alice.answer().await;
        assert_eq!(
            refusal_of(&answer),
            Some(Refusal::Unavailable),
            "{answer:?}"
        );
    }
    assert!(!door.look().await.unwrap().writable);
    alice.subscribe(0).await;
    for seq in &acknowledged {
        assert_eq!(alice.delivered().await.seq.0, *seq, "reading goes on");
    }

    broken.store(false, Ordering::SeqCst);
    until(&door, |snapshot| snapshot.writable).await;
    for number in 21..=40 {
        acknowledged.push(seq_of(&alice.publish(number, 0, b"after").await));
    }
    assert_eq!(acknowledged, (1..=40).collect::<Vec<u64>>());
    drop(alice);
    driver.stop().await;

    let reader = FjallArchive::open(dir.path()).unwrap().reader();
    let records = reader.records(&CHANNEL, Seq(0), 100, usize::MAX).unwrap();
    assert_eq!(records.len(), acknowledged.len());
}

#[tokio::test]
async fn a_slow_reader_gets_everything_once_and_in_order() {
    let driver = start(SqliteArchive::in_memory().unwrap());
    let mut alice = Client::enter(&driver.door(), ALICE).await;
    alice.create().await;
    alice.add(BOB).await;
    let mut bob = Client::enter(&driver.door(), BOB).await;
    bob.subscribe(1).await;
    // Far more than fits into Bob's queue, of which he takes nothing meanwhile.
    let body = vec![7; 50_000];
    for number in 1..=200 {
        assert_eq!(seq_of(&alice.publish(number, 1, &body).await), number + 1);
    }

    for seq in 2..=201 {
        assert_eq!(bob.delivered().await.seq, Seq(seq));
    }
    assert_eq!(bob.link.outbound().close_reason(), None);
    driver.stop().await;
}

/// The edge says that there is room, the queue fills up again, and only then the driver hears it.
#[tokio::test]
async fn a_late_word_of_room_overflows_nobody() {
    let driver = start(SqliteArchive::in_memory().unwrap());
    let mut alice = Client::enter(&driver.door(), ALICE).await;
    alice.create().await;
    alice.add(BOB).await;
    let mut bob = Client::enter(&driver.door(), BOB).await;
    bob.subscribe(1).await;
    let body = vec![7; 50_000];
    for number in 1..=40 {
        alice.publish(number, 1, &body).await;
    }

    bob.link.drained().await.unwrap();
    for number in 41..=200 {
        alice.publish(number, 1, &body).await;
    }

    for seq in 2..=201 {
        assert_eq!(bob.delivered().await.seq, Seq(seq));
    }
    assert_eq!(bob.link.outbound().close_reason(), None);
    driver.stop().await;
}

#[tokio::test]
async fn stopping_finishes_what_has_come_in_and_says_goodbye() {
    let driver = start(SqliteArchive::in_memory().unwrap());
    let mut alice = Client::enter(&driver.door(), ALICE).await;
    alice.create().await;
    for number in 1..=50 {
        alice.send(publish(number, 0, b"last")).await;
    }

    driver.stop().await;

    for number in 1..=50 {
        assert_eq!(seq_of(&alice.answer().await), number);
    }
    let goodbye = Closing {
        refusal: Refusal::ShuttingDown,
        resume: true,
    };
    assert_eq!(alice.answer().await, ToAgent::Closing(goodbye));
    assert!(alice.link.frame(publish(51, 0, b"late"), 1).await.is_err());
}

#[tokio::test]
async fn a_link_that_was_only_dropped_is_forgotten() {
    let driver = start(SqliteArchive::in_memory().unwrap());
    let door = driver.door();
    let alice = Client::enter(&door, ALICE).await;
    let bob = Client::enter(&door, BOB).await;
    assert_eq!(door.look().await.unwrap().connections, 2);

    bob.link.leave().await;
    assert_eq!(door.look().await.unwrap().connections, 1);
    drop(alice);

    until(&door, |snapshot| snapshot.connections == 0).await;
    driver.stop().await;
}

mod slim;
