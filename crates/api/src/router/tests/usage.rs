//! What relays report, what accounts see of it, and what a plan refuses.

use ed25519_dalek::{Signer as _, SigningKey};
use skytale_wire::{
    http::{KeyUsage, RelaySignature, UsageEntry, UsageReport, Used},
    id::{Digest, Signed},
    month::Month,
    statement,
};

use super::*;
use crate::plans::Bounds;

const PATH: &str = "/v1/usage-reports";

fn secret() -> SigningKey {
    SigningKey::from_bytes(&[6; 32])
}

async fn house(bounds: Bounds) -> House {
    House::open_with(|config| {
        config.relays.push(RelayAt {
            key: RelayKey(secret().verifying_key().to_bytes()),
            addresses: vec!["other.example.org:4433".into()],
        });
        config.plans.insert("small".to_owned(), bounds);
        config.plan = "small".to_owned();
    })
    .await
}

fn signed(secret: &SigningKey, target: &str, time: Time, body: &str) -> String {
    let relay = RelayKey(secret.verifying_key().to_bytes());
    let body = Digest::of(&[body.as_bytes()]);
    let said = statement::relay_request(&relay, target, time, &body);
    let signature = RelaySignature {
        relay,
        time,
        signature: Signed(secret.sign(&said).to_bytes()),
    };
    signature.to_string()
}

fn entry(person: &Person, month: &str) -> UsageEntry {
    UsageEntry {
        account_id: person.session.account_id,
        key_id: Some(person.key.id.parse().unwrap()),
        month: month.parse().unwrap(),
        messages: 10,
        bytes: 5_000,
        delivered: 20,
        connected_ms: 61_000,
    }
}

fn report(number: u64, entries: Vec<UsageEntry>) -> String {
    serde_json::to_string(&UsageReport { number, entries }).unwrap()
}

impl House {
    async fn reports(&self, authorization: &str, body: &str) -> Answer {
        let request = Request::post(PATH)
            .header("authorization", authorization)
            .header("content-type", "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap();
        self.send(request).await
    }

    async fn takes(&self, body: &str) -> StatusCode {
        let now = Time(self.now.load(Ordering::Relaxed));
        let signature = signed(&secret(), &format!("POST {PATH}"), now, body);
        self.reports(&signature, body).await.status
    }

    async fn usage_of(&self, person: &Person, query: &str) -> Usage {
        let path = format!("/v1/usage{query}");
        self.get(&path, person.session()).await.read()
    }
}

const USED: Used = Used {
    token_exchanges: 0,
    messages: 10,
    bytes: 5_000,
    delivered: 20,
    connected_s: 61,
};

#[tokio::test]
async fn a_report_that_comes_again_counts_once() {
    let house = house(Bounds::NONE).await;
    let alice = house.person("alice").await;
    let first = report(7, vec![entry(&alice, "2026-09"), entry(&alice, "2026-08")]);

    for _ in 0..3 {
        assert_eq!(house.takes(&first).await, StatusCode::NO_CONTENT);
    }
    let older = report(6, vec![entry(&alice, "2026-09")]);
    assert_eq!(house.takes(&older).await, StatusCode::NO_CONTENT);

    let usage = house.usage_of(&alice, "").await;
    let months: Vec<_> = usage.months.iter().map(|it| (it.month, it.used)).collect();
    let month = |text: &str| text.parse::<Month>().unwrap();
    assert_eq!(months, [(month("2026-09"), USED), (month("2026-08"), USED)]);
    assert!(usage.months.iter().all(|month| month.keys.is_none()));
    assert_eq!(usage.plan.name, "small");
    assert_eq!(usage.plan.renews_at, "2026-10-01T00:00:00.000Z");
    let next = report(8, vec![entry(&alice, "2026-09")]);
    assert_eq!(house.takes(&next).await, StatusCode::NO_CONTENT);
    let usage = house.usage_of(&alice, "?month=2026-09").await;
    assert_eq!(usage.months[0].used.messages, 20);
}

/// A proxy may put the header on every POST. A report's own number is what counts, and it is not taken
/// for another one's answer.
#[tokio::test]
async fn an_idempotency_key_changes_nothing_about_a_report() {
    let house = house(Bounds::NONE).await;
    let alice = house.person("alice").await;
    for number in [1, 1, 2] {
        let body = report(number, vec![entry(&alice, "2026-09")]);
        let signature = signed(&secret(), &format!("POST {PATH}"), NOW, &body);
        let request = Request::post(PATH)
            .header("authorization", signature)
            .header("content-type", "application/json")
            .header("idempotency-key", "the same")
            .body(Body::from(body))
            .unwrap();
        assert_eq!(house.send(request).await.status, StatusCode::NO_CONTENT);
    }

    let usage = house.usage_of(&alice, "").await;
    assert_eq!(usage.months[0].used.messages, 20);
}

#[tokio::test]
async fn a_month_is_shown_by_its_keys_to_its_account_and_to_nobody_else() {
    let house = house(Bounds::NONE).await;
    let (alice, bob) = (house.person("alice").await, house.person("bob").await);
    house.token(alice.key(), agent_request()).await;
    let of_guests = UsageEntry {
        key_id: None,
        ..entry(&alice, "2026-09")
    };
    let told = report(1, vec![entry(&alice, "2026-09"), of_guests]);
    house.takes(&told).await;

    let usage = house.usage_of(&alice, "?month=2026-09").await;

    let with_key = Used {
        token_exchanges: 1,
        ..USED
    };
    let keys = vec![
        KeyUsage {
            key_id: None,
            used: USED,
        },
        KeyUsage {
            key_id: alice.key.id.parse().ok(),
            used: with_key,
        },
    ];
    assert_eq!(usage.months[0].keys, Some(keys));
    let all = usage.months[0].used;
    assert_eq!((all.messages, all.connected_s), (20, 122));
    // A month of which nothing is known is a month all the same.
    let usage = house.usage_of(&alice, "?month=2031-01").await;
    assert_eq!(usage.months[0].used, Used::default());
    assert_eq!(usage.months[0].keys, Some(Vec::new()));
    assert!(house.usage_of(&bob, "").await.months.is_empty());
    for bad in ["?month=2026-13", "?month=", "?mont=2026-09"] {
        let answer = house.get(&format!("/v1/usage{bad}"), alice.session()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test]
async fn only_relays_of_this_server_report_and_only_what_they_have_signed() {
    let house = house(Bounds::NONE).await;
    let alice = house.person("alice").await;
    let body = report(1, vec![entry(&alice, "2026-09")]);
    let other = report(2, vec![entry(&alice, "2026-09")]);
    let target = format!("POST {PATH}");
    let stranger = SigningKey::from_bytes(&[7; 32]);
    for bad in [
        String::new(),
        format!("Bearer {}", alice.key()),
        format!("Bearer {}", alice.session()),
        signed(&stranger, &target, NOW, &body),
        signed(&secret(), &target, NOW, &other),
        signed(&secret(), &target, NOW, ""),
        signed(&secret(), &format!("GET {PATH}"), NOW, &body),
        signed(&secret(), "POST /v1/usage", NOW, &body),
        signed(&secret(), &target, Time(NOW.0 - 61_000), &body),
    ] {
        let answer = house.reports(&bad, &body).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{bad}");
    }
    assert!(house.usage_of(&alice, "").await.months.is_empty());
    assert_eq!(house.takes(&body).await, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_report_that_makes_no_sense_changes_nothing() {
    let house = house(Bounds::NONE).await;
    let alice = house.person("alice").await;
    let good = entry(&alice, "2026-09");
    let huge = UsageEntry {
        bytes: u64::MAX,
        ..good.clone()
    };
    for bad in [
        "[]".to_owned(),
        r#"{"number":1}"#.to_owned(),
        report(u64::MAX, vec![good.clone()]),
        report(1, vec![good.clone(), good.clone()]),
        report(1, vec![huge]),
        report(1, vec![good.clone()]).replace("2026-09", "2026-9"),
        report(1, vec![good.clone()]).replace("\"messages\":10", "\"messages\":-1"),
        report(1, vec![good.clone()]).replace("\"messages\":10", "\"messages\":10,\"more\":1"),
    ] {
        assert_eq!(house.takes(&bad).await, 422, "{bad}");
    }
    assert_eq!(house.takes("{").await, StatusCode::BAD_REQUEST);
    assert!(house.usage_of(&alice, "").await.months.is_empty());
    // And the number is still free.
    let told = report(1, vec![good]);
    assert_eq!(house.takes(&told).await, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_month_that_is_used_up_sells_no_tokens_until_it_ends() {
    let house = house(Bounds {
        messages_max: Some(11),
        bytes_max: None,
    })
    .await;
    let (alice, bob) = (house.person("alice").await, house.person("bob").await);
    let told = report(1, vec![entry(&alice, "2026-09"), entry(&bob, "2026-08")]);
    house.takes(&told).await;
    let sold = house.token(alice.key(), agent_request()).await;
    assert_eq!(sold.status, StatusCode::OK, "one message is left");

    house
        .takes(&report(2, vec![entry(&alice, "2026-09")]))
        .await;

    let refused = house.token(alice.key(), agent_request()).await;
    assert_eq!(
        (refused.status, refused.code()),
        (StatusCode::FORBIDDEN, Code::QuotaExceeded)
    );
    let october = "2026-10".parse::<Month>().unwrap().begins();
    let left_s = october.since(NOW) / 1000;
    assert_eq!(refused.headers["retry-after"], left_s.to_string().as_str());
    let problem: Problem = refused.read();
    assert_eq!(problem.retry_after_s, Some(left_s));
    let slim = json!({"audience": relay(), "slim": ["acme/*"]});
    assert_eq!(
        house.token(alice.key(), slim).await.code(),
        Code::QuotaExceeded
    );
    // What was refused is not counted, and whoever asks may see why.
    let account = house.token(alice.key(), json!({})).await;
    assert_eq!(account.status, StatusCode::OK);
    let usage = house.usage_of(&alice, "?month=2026-09").await;
    assert_eq!(usage.months[0].used.token_exchanges, 2);
    assert_eq!(usage.plan.messages_max, Some(11));
    let sold = house.token(bob.key(), agent_request()).await;
    assert_eq!(sold.status, StatusCode::OK, "that was in August");

    house.now.store(october.0, Ordering::Relaxed);
    let sold = house.token(alice.key(), agent_request()).await;
    assert_eq!(sold.status, StatusCode::OK);
}
