//! What relays are asked, and what of their answers reaches whom. The relay is written by hand: it signs
//! as a real one does and answers what the test says.

use std::{sync::Mutex, time::Duration};

use ed25519_dalek::Signer as _;
use skytale_wire::{
    http::{
        Ask, HELD_MAX, HeldChannels, HeldRecords, QUESTIONS_AT_ONCE, RecordKind, RelayAnswer,
        RelayCall, RelayHealth, RelayQuestion, RelayQuestions, RelaySignature, Relays, Told,
        ToldChannel, ToldRecord,
    },
    id::{ChannelId, MessageId, Signed},
    statement,
    token::AccountId,
};
use tokio::{task::JoinHandle, time::timeout};

use super::*;

const PATH: &str = "/v1/relay-questions";

/// A relay that comes, signs and answers until it is dropped.
pub(super) struct HandMade(JoinHandle<()>);

impl Drop for HandMade {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl House {
    /// The relay comes for the first time, and goes on to answer what this says.
    pub(super) async fn with_relay(
        &self,
        secret: SigningKey,
        tells: impl Fn(&RelayQuestion) -> Told + Send + 'static,
    ) -> HandMade {
        let key = key_of(&secret);
        let (router, clock) = (self.router.clone(), Arc::clone(&self.now));
        let relay = HandMade(tokio::spawn(async move {
            let mut said = call(Vec::new());
            loop {
                let now = Time(clock.load(Ordering::Relaxed));
                let request = signed(&secret, now, &said);
                let answer = router.clone().oneshot(request).await.unwrap();
                assert_eq!(answer.status(), 200);
                let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
                let asked: RelayQuestions = serde_json::from_slice(&body).unwrap();
                let answers = asked.questions.iter().map(|question| RelayAnswer {
                    id: question.id,
                    told: tells(question),
                });
                said = call(answers.collect());
            }
        }));
        while self.app.questions.heard(&key).is_none() {
            tokio::task::yield_now().await;
        }
        relay
    }

    async fn says(&self, request: Request<Body>) -> StatusCode {
        self.send(request).await.status
    }
}

fn key_of(secret: &SigningKey) -> RelayKey {
    RelayKey(secret.verifying_key().to_bytes())
}

fn second() -> SigningKey {
    SigningKey::from_bytes(&[8; 32])
}

fn call(answers: Vec<RelayAnswer>) -> RelayCall {
    RelayCall {
        health: RelayHealth {
            version: "0.1.0".to_owned(),
            uptime_s: 7,
            ready: true,
            hub: true,
            archive: true,
            issuers: true,
            draining: false,
        },
        answers,
    }
}

fn signed(secret: &SigningKey, time: Time, said: &RelayCall) -> Request<Body> {
    let body = serde_json::to_vec(said).unwrap();
    signed_bytes(secret, time, &body, body.clone())
}

/// With a signature over one body, and another one sent.
fn signed_bytes(secret: &SigningKey, time: Time, said: &[u8], sent: Vec<u8>) -> Request<Body> {
    let relay = key_of(secret);
    let target = format!("POST {PATH}");
    let statement = statement::relay_request(&relay, &target, time, &Digest::of(&[said]));
    let signature = RelaySignature {
        relay,
        time,
        signature: Signed(secret.sign(&statement).to_bytes()),
    };
    Request::post(PATH)
        .header("authorization", signature.to_string())
        .header("content-type", "application/json")
        .body(Body::from(sent))
        .unwrap()
}

/// The channel that the relay has of this account.
pub(super) fn channel(account: &AccountId) -> ChannelId {
    ChannelId(Digest::of(&[&account.0]).0)
}

/// A relay that has one channel of each account, with so many records.
pub(super) fn one_channel_each(records: u64) -> impl Fn(&RelayQuestion) -> Told + Send + 'static {
    move |question| {
        let own = channel(&question.account_id);
        match question.ask {
            Ask::Channels { after, limit } => {
                assert!(limit <= HELD_MAX);
                let behind = after.is_none_or(|after| after < own);
                let channels = behind.then(|| told_channel(own, records));
                Told::Channels {
                    channels: channels.into_iter().collect(),
                }
            }
            Ask::Records {
                channel,
                after,
                limit,
            } if channel == own => {
                let last = records.min(after.saturating_add(limit.into()));
                Told::Records {
                    records: (after.saturating_add(1)..=last).map(told_record).collect(),
                    more: last < records,
                }
            }
            Ask::Records { .. } => Told::Unknown,
        }
    }
}

fn told_channel(id: ChannelId, records: u64) -> ToldChannel {
    ToldChannel {
        id,
        records,
        pruned_to: 0,
        members: 2,
        bytes: Some(records * 512),
        first_ms: Some(NOW.0),
        last_ms: Some(NOW.0 + records),
    }
}

fn told_record(seq: u64) -> ToldRecord {
    ToldRecord {
        seq,
        kind: RecordKind::Application,
        id: MessageId([u8::try_from(seq % 256).unwrap(); 16]),
        agent_id: AgentId([9; 32]),
        epoch: 1,
        bytes: Some(512),
        stored_ms: NOW.0 + seq,
    }
}

fn records_path(account: &AccountId) -> String {
    format!("/v1/channels/{}/records", channel(account))
}

#[tokio::test]
async fn the_account_that_the_relay_knows_sees_its_channel_and_others_see_nothing() {
    let house = House::open().await;
    let [alice, bob] = [house.person("alice").await, house.person("bob").await];
    let _relay = house.with_relay(relay_secret(), one_channel_each(3)).await;
    let hers = alice.session.account_id;

    let listed: HeldChannels = house.get("/v1/channels", alice.key()).await.read();
    let path = records_path(&hers);
    let records: HeldRecords = house.get(&path, alice.key()).await.read();

    assert_eq!(listed.silent, []);
    assert_eq!(listed.next, None);
    let only = &listed.channels[..];
    assert!(
        matches!(only, [one] if one.id == channel(&hers) && one.relay == relay() && one.records == 3)
    );
    assert_eq!(
        only[0].first_at.as_deref(),
        Some("2026-09-21T14:13:20.000Z")
    );
    let seqs: Vec<_> = records
        .records
        .iter()
        .map(|it| (it.seq, it.bytes))
        .collect();
    assert_eq!(seqs, [(1, Some(512)), (2, Some(512)), (3, Some(512))]);
    assert_eq!(records.records[2].stored_at, "2026-09-21T14:13:20.003Z");
    assert_eq!(records.next, None);

    let his: HeldChannels = house.get("/v1/channels", bob.key()).await.read();
    assert_eq!(his.channels[0].id, channel(&bob.session.account_id));
    let theirs = house.get(&path, bob.key()).await;
    let nobodys = house
        .get(&records_path(&AccountId([0; 16])), bob.key())
        .await;
    assert_eq!(theirs.code(), Code::NotFound);
    let without_id = |answer: &Answer| {
        let mut said: Value = answer.read();
        said["request_id"] = Value::Null;
        said
    };
    assert_eq!(without_id(&theirs), without_id(&nobodys));
    let no_id = house.get("/v1/channels/plan/records", bob.key()).await;
    assert_eq!(no_id.code(), Code::NotFound);
}

#[tokio::test]
async fn what_relays_hold_comes_by_pages() {
    let house = House::open_with(|config| {
        config.relays.push(RelayAt {
            key: key_of(&second()),
            addresses: Vec::new(),
        });
    })
    .await;
    let alice = house.person("alice").await;
    let hers = alice.session.account_id;
    // Even channels at one relay, odd ones at the other.
    let tells = |odd: u8| {
        move |question: &RelayQuestion| match question.ask {
            Ask::Channels { after, limit } => {
                let ids = (0..5).map(|n| ChannelId([2 * n + odd; 32]));
                let behind = ids.filter(|id| after.is_none_or(|after| *id > after));
                let told = behind.map(|id| told_channel(id, 1));
                Told::Channels {
                    channels: told.take(limit as usize).collect(),
                }
            }
            Ask::Records { .. } if odd == 1 => one_channel_each(7)(question),
            Ask::Records { .. } => Told::Unknown,
        }
    };
    let _relays = (
        house.with_relay(relay_secret(), tells(0)).await,
        house.with_relay(second(), tells(1)).await,
    );

    let mut seen = Vec::new();
    let mut path = "/v1/channels?limit=3".to_owned();
    loop {
        let page: HeldChannels = house.get(&path, alice.key()).await.read();
        assert!(page.channels.len() <= 3);
        seen.extend(page.channels.iter().map(|it| (it.id.0[0], it.relay)));
        let Some(next) = page.next else { break };
        path = format!("/v1/channels?limit=3&after={next}");
    }
    let all: Vec<_> = (0..10)
        .map(|n| {
            (
                n,
                if n % 2 == 0 {
                    relay()
                } else {
                    key_of(&second())
                },
            )
        })
        .collect();
    assert_eq!(seen, all);

    let mut seen = Vec::new();
    let mut path = format!("{}?limit=3", records_path(&hers));
    loop {
        let page: HeldRecords = house.get(&path, alice.key()).await.read();
        assert_eq!(page.relay, key_of(&second()));
        seen.extend(page.records.iter().map(|it| it.seq));
        let Some(next) = page.next else { break };
        path = format!("{}?limit=3&after={next}", records_path(&hers));
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7]);
    for query in ["limit=0", "limit=101", "after=x", "after=-1"] {
        let path = format!("{}?{query}", records_path(&hers));
        assert_eq!(house.get(&path, alice.key()).await.code(), Code::BadBody);
        let path = format!("/v1/channels?{query}");
        assert_eq!(house.get(&path, alice.key()).await.code(), Code::BadBody);
    }
}

#[tokio::test]
async fn a_relay_that_does_not_answer_is_told_as_such_in_time_and_never_waited_for_twice() {
    let house = House::open_with(|config| config.request_ms_max = 1_000).await;
    let alice = house.person("alice").await;
    let path = records_path(&alice.session.account_id);
    let asks = |path: String| {
        let (house, alice) = (&house, &alice);
        async move {
            let asking = house.get(&path, alice.key());
            let answer = timeout(Duration::from_secs(5), asking).await.unwrap();
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(answer.headers["retry-after"], "1");
            answer.code()
        }
    };
    // Never heard.
    assert_eq!(asks(path.clone()).await, Code::RelaySilent);
    let relays: Relays = house.get("/v1/relays", alice.key()).await.read();
    assert!(matches!(&relays.relays[..], [it] if !it.healthy && it.heard_at.is_none()));

    // Heard, and then gone without a word.
    drop(house.with_relay(relay_secret(), one_channel_each(1)).await);
    let relays: Relays = house.get("/v1/relays", alice.key()).await.read();
    assert!(matches!(&relays.relays[..], [it] if it.healthy));
    assert_eq!(asks(path.clone()).await, Code::RelaySilent);
    assert_eq!(asks("/v1/channels".to_owned()).await, Code::RelaySilent);
    house.now.fetch_add(13_000, Ordering::Relaxed);
    let relays: Relays = house.get("/v1/relays", alice.key()).await.read();
    let gone = &relays.relays[0];
    assert!(!gone.healthy);
    assert_eq!(gone.heard_at.as_deref(), Some("2026-09-21T14:13:20.000Z"));
    assert_eq!(gone.health.as_ref().unwrap().version, "0.1.0");

    // And back.
    let _relay = house.with_relay(relay_secret(), one_channel_each(1)).await;
    while !house
        .app
        .questions
        .heard(&relay())
        .unwrap()
        .counts(house.app.clock.now())
    {
        tokio::task::yield_now().await;
    }
    assert_eq!(house.get(&path, alice.key()).await.status, 200);
}

#[tokio::test]
async fn what_one_relay_does_not_say_is_not_taken_for_nothing() {
    let house = House::open_with(|config| {
        config.request_ms_max = 1_000;
        config.relays.push(RelayAt {
            key: key_of(&second()),
            addresses: Vec::new(),
        });
    })
    .await;
    let alice = house.person("alice").await;
    let hers = alice.session.account_id;
    let _relay = house.with_relay(relay_secret(), one_channel_each(1)).await;

    let listed: HeldChannels = house.get("/v1/channels", alice.key()).await.read();

    assert_eq!(listed.channels.len(), 1);
    assert_eq!(listed.silent, [key_of(&second())]);
    let own = house.get(&records_path(&hers), alice.key()).await;
    assert_eq!(own.status, 200);
    // The silent one may have it.
    let other = house
        .get(&records_path(&AccountId([0; 16])), alice.key())
        .await;
    assert_eq!(other.code(), Code::RelaySilent);
    let nonsense = |_: &RelayQuestion| Told::Channels {
        channels: Vec::new(),
    };
    let _other = house.with_relay(second(), nonsense).await;
    let other = house
        .get(&records_path(&AccountId([0; 16])), alice.key())
        .await;
    assert_eq!(
        other.code(),
        Code::RelaySilent,
        "no answer to what was asked"
    );
}

#[tokio::test]
async fn only_what_a_relay_of_this_server_has_signed_is_an_answer() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let good = call(Vec::new());
    let body = serde_json::to_vec(&good).unwrap();
    let stranger = SigningKey::from_bytes(&[7; 32]);

    for bad in [
        signed(&stranger, NOW, &good),
        signed(&relay_secret(), Time(NOW.0 - 61_000), &good),
        signed_bytes(&relay_secret(), NOW, b"{}", body.clone()),
        Request::post(PATH)
            .header("authorization", format!("Bearer {}", alice.key()))
            .header("content-type", "application/json")
            .body(Body::from(body.clone()))
            .unwrap(),
    ] {
        assert_eq!(house.says(bad).await, StatusCode::UNAUTHORIZED);
    }
    assert!(house.app.questions.heard(&relay()).is_none());
    let mut text: Value = serde_json::from_slice(&body).unwrap();
    text["health"]["version"] = json!("acme plan");
    let mut more = serde_json::to_value(&good).unwrap();
    more["name"] = json!("acme/plan");
    let mut many = good.clone();
    let unknown = RelayAnswer {
        id: 1,
        told: Told::Unknown,
    };
    many.answers = vec![unknown; QUESTIONS_AT_ONCE + 1];
    for bad in [text, more, serde_json::to_value(many).unwrap()] {
        let bad = bad.to_string().into_bytes();
        let request = signed_bytes(&relay_secret(), NOW, &bad, bad.clone());
        assert_eq!(house.says(request).await, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert!(house.app.questions.heard(&relay()).is_none());
}

#[tokio::test]
async fn two_full_pages_arrive_in_one_request_and_a_third_question_waits_its_turn() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let path = format!("{}?limit=100", records_path(&alice.session.account_id));
    let batches = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&batches);
    let full = one_channel_each(100);
    let relay = house.with_relay(relay_secret(), move |question| {
        *counted.lock().unwrap() += 1;
        full(question)
    });
    let _relay = relay.await;

    let (one, two, three) = tokio::join!(
        house.get(&path, alice.key()),
        house.get(&path, alice.key()),
        house.get(&path, alice.key()),
    );

    for answer in [one, two, three] {
        let records: HeldRecords = answer.read();
        assert_eq!(records.records.len(), 100);
    }
    assert!(*batches.lock().unwrap() >= 3);
}

#[tokio::test]
async fn a_relay_that_waits_is_let_go_when_the_server_ends() {
    let house = House::open().await;
    let said = call(Vec::new());
    let coming = house.send(signed(&relay_secret(), NOW, &said));

    let (answer, ()) = tokio::join!(timeout(Duration::from_secs(2), coming), async {
        // The relay waits by now: it is polled first.
        while house.app.questions.heard(&relay()).is_none() {
            tokio::task::yield_now().await;
        }
        house.app.draining.store(true, Ordering::Relaxed);
        house.app.questions.ring();
    });

    let asked: RelayQuestions = answer.unwrap().read();
    assert_eq!(asked.questions, []);
}
