//! A real hub over a real archive; the API server is written by hand and forgets an answer.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::post,
};
use skytale_wire::{
    frame::{Create, Publish, ToRelay, encode},
    http::{RecordKind, RelaySignature},
    id::{AgentId, ChannelId, Epoch, MessageId, RelayKey, TransportKey},
    token::AccountId,
};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::{
    archive::{Archive as _, sqlite::SqliteArchive},
    auth::Gate,
    config::Issuer,
    driver::{Clock, Driver},
    edge::terms::Terms,
    hub::{HubConfig, Payer, Presented, Right, SlimRules},
    limits::Limits,
};

const CHANNEL: ChannelId = ChannelId([7; 32]);
const HERS: AccountId = AccountId([1; 16]);
const HIS: AccountId = AccountId([2; 16]);
/// Only a broken test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

fn secret() -> SecretKey {
    SecretKey::from_bytes(&[4; 32])
}

fn relay() -> RelayKey {
    RelayKey(*secret().public().as_bytes())
}

/// What the API server answers, one after the other: questions, or an error. Then it is silent.
type Script = Mutex<VecDeque<Result<Vec<RelayQuestion>, StatusCode>>>;

/// An API server as far as the relay knows it.
struct Asker {
    url: String,
    said: mpsc::Receiver<RelayCall>,
    _stop: DropGuard,
}

impl Asker {
    async fn start(script: Vec<Result<Vec<RelayQuestion>, StatusCode>>) -> Self {
        let (say, said) = mpsc::channel(16);
        let scene = Arc::new((Script::new(script.into()), say));
        let routes = Router::new().route(PATH, post(answer)).with_state(scene);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let serving = async move { axum::serve(listener, routes).await };
        tokio::spawn(stop.clone().run_until_cancelled_owned(serving));
        Self {
            url,
            said,
            _stop: stop.drop_guard(),
        }
    }

    async fn next(&mut self) -> RelayCall {
        timeout(PATIENCE, self.said.recv()).await.unwrap().unwrap()
    }
}

async fn answer(
    State(scene): State<Arc<(Script, mpsc::Sender<RelayCall>)>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let signature = headers["authorization"].to_str().unwrap();
    let signature: RelaySignature = signature.parse().unwrap();
    assert_eq!(signature.relay, relay());
    assert!(signature.covers("POST /v1/relay-questions", &body));
    let (script, say) = &*scene;
    say.send(serde_json::from_slice(&body).unwrap())
        .await
        .unwrap();
    let next = script.lock().unwrap().pop_front();
    match next {
        Some(Ok(questions)) => Json(RelayQuestions { questions }).into_response(),
        Some(Err(status)) => status.into_response(),
        None => std::future::pending().await,
    }
}

/// A relay's driver with a channel of hers, in which two messages are stored.
async fn with_channel() -> (Driver, Pages) {
    let archive = SqliteArchive::in_memory().unwrap();
    let pages = Pages::of(archive.reader());
    let config = HubConfig {
        relay: relay(),
        limits: Limits::default(),
        guests: true,
        retention_ms: 1_000_000_000,
        slim: SlimRules::default(),
        meters: false,
    };
    let driver = Driver::start(config, archive, Clock::system()).unwrap();
    let presented = Presented {
        agent: AgentId([1; 32]),
        transport: TransportKey([9; 32]),
        right: Right::Account {
            payer: Payer::account(HERS.to_string()),
            expires: Time(u64::MAX / 2),
        },
    };
    let door = driver.door();
    let link = door.enter(presented, &Terms::default()).await.unwrap();
    let (channel, id) = (CHANNEL, MessageId([0; 16]));
    let mut frames = vec![ToRelay::Create(Create { channel, id })];
    for n in 1..=2 {
        frames.push(ToRelay::Publish(Publish {
            channel,
            id: MessageId([n; 16]),
            epoch: Epoch(0),
            body: vec![0xab; 300].into(),
            resumes: true,
        }));
    }
    for frame in frames {
        let bytes = encode(&frame).len();
        link.frame(frame, bytes).await.unwrap();
    }
    let stored = async {
        loop {
            let owned = door.owned(HERS, Which::One(CHANNEL)).await.unwrap();
            if owned.first().is_some_and(|owned| owned.stored == Seq(2)) {
                break;
            }
        }
    };
    timeout(PATIENCE, stored).await.unwrap();
    (driver, pages)
}

fn question(id: u64, account_id: AccountId) -> RelayQuestion {
    RelayQuestion {
        id,
        account_id,
        ask: Ask::Records {
            channel: CHANNEL,
            after: 1,
            limit: 10,
        },
    }
}

fn answering(driver: &Driver, url: &str, pages: Option<Pages>) -> Answers {
    let issuers = [Issuer::Url(url.to_owned())];
    let watched = Watched {
        door: driver.door(),
        gate: Gate::new(relay(), &issuers, Clock::system()).unwrap(),
        grpc: None,
        draining: CancellationToken::new(),
    };
    Answers::start(watched, secret(), pages)
}

#[tokio::test]
async fn what_is_asked_is_answered_again_when_the_answer_was_lost() {
    let (driver, pages) = with_channel().await;
    let hers = || Ok(vec![question(5, HERS)]);
    let lost = Err(StatusCode::SERVICE_UNAVAILABLE);
    let his = Ok(vec![question(6, HIS)]);
    let mut asker = Asker::start(vec![hers(), lost, hers(), his]).await;

    let answers = answering(&driver, &asker.url, Some(pages));

    let first = asker.next().await;
    assert_eq!(first.answers, []);
    assert!(first.health.hub && first.health.archive && !first.health.draining);
    assert!(!first.health.ready, "nobody has said what was revoked");
    let answered = asker.next().await.answers;
    let [one] = &answered[..] else {
        panic!("{answered:?}");
    };
    let Told::Records { records, more } = &one.told else {
        panic!("{one:?}");
    };
    assert_eq!((one.id, records.len(), more), (5, 1, &false));
    assert_eq!(records[0].seq, 2);
    assert_eq!(records[0].kind, RecordKind::Application);
    assert_eq!(records[0].bytes, Some(300));
    assert_eq!(asker.next().await.answers, [], "it is not kept");
    assert_eq!(asker.next().await.answers, answered);
    let told = &asker.next().await.answers[0].told;
    assert_eq!(told, &Told::Unknown, "he has no such channel");
    answers.stop().await;
    driver.stop().await;
}

#[tokio::test]
async fn a_relay_that_answers_no_accounts_says_how_it_is_and_knows_of_nothing() {
    let (driver, _) = with_channel().await;
    let mut all = question(6, HERS);
    all.ask = Ask::Channels {
        after: None,
        limit: 10,
    };
    let mut asker = Asker::start(vec![Ok(vec![question(5, HERS), all])]).await;

    let answers = answering(&driver, &asker.url, None);

    assert!(asker.next().await.health.archive);
    let answered = asker.next().await.answers;
    let told: Vec<_> = answered.into_iter().map(|answer| answer.told).collect();
    let channels = Vec::new();
    assert_eq!(told, [Told::Unknown, Told::Channels { channels }]);
    answers.stop().await;
    driver.stop().await;
}

#[test]
fn it_rests_three_times_as_long_as_it_read() {
    assert_eq!([0, 10, 100, 900].map(rest_ms), [50, 50, 300, 1_000]);
}
