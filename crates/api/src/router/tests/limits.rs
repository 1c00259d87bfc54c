//! Rate limits as callers meet them: how many pass, what they are told, and whom they leave alone.

use std::net::IpAddr;

use super::*;
use crate::{
    secret::{ApiKey, Kind},
    visitor::Peer,
};

const HERE: &str = "192.0.2.1";
const THERE: &str = "198.51.100.7";

impl House {
    /// The same as `call`, over a socket from somewhere.
    async fn call_from(&self, from: &str, path: &str, bearer: &str, body: Value) -> Answer {
        self.forwarded(from, &[], path, bearer, body).await
    }

    /// And with `X-Forwarded-For`.
    async fn forwarded(
        &self,
        from: &str,
        forwarded: &[&str],
        path: &str,
        bearer: &str,
        body: Value,
    ) -> Answer {
        let mut request = Request::builder().uri(path);
        for line in forwarded {
            request = request.header("x-forwarded-for", *line);
        }
        if !bearer.is_empty() {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        if !body.is_null() {
            request = request
                .method(Method::POST)
                .header("content-type", "application/json");
        }
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        let mut request = request.body(body).unwrap();
        let from: IpAddr = from.parse().unwrap();
        request.extensions_mut().insert(Peer(from));
        self.send(request).await
    }
}

fn made_up_key() -> String {
    ApiKey::generate(Kind::Live).show().expose().to_owned()
}

/// Refused by a limit, with everything that belongs to that; and for how many seconds.
fn waits(answer: &Answer) -> u64 {
    let problem: Problem = answer.read();
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (429, Code::TooManyRequests),
        "{}",
        answer.body
    );
    let seconds: u64 = answer.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(problem.retry_after_s, Some(seconds));
    assert!(
        answer.headers["ratelimit"]
            .to_str()
            .unwrap()
            .contains(";r=0;")
    );
    assert!(answer.headers.contains_key("ratelimit-policy"));
    seconds
}

#[tokio::test]
async fn an_address_that_proves_nothing_waits_and_nobody_else_does() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    house
        .call_from(HERE, "/v1/usage", alice.key(), Value::Null)
        .await;
    let login = json!({"email": "nobody@example.org", "password": PASSWORD});
    let tries = ["malformed", "made up", "no token", "nothing", "sign-in"];
    for n in 0..120 {
        let answer = match tries[n % tries.len()] {
            "malformed" => {
                house
                    .call_from(HERE, "/v1/keys", "sk_live_x", Value::Null)
                    .await
            }
            "made up" => {
                house
                    .call_from(HERE, "/v1/keys", &made_up_key(), Value::Null)
                    .await
            }
            "no token" => {
                house
                    .call_from(HERE, "/v1/keys", "a.b.c", Value::Null)
                    .await
            }
            "nothing" => house.call_from(HERE, "/v1/keys", "", Value::Null).await,
            _ => {
                house
                    .call_from(HERE, "/v1/sessions", "", login.clone())
                    .await
            }
        };
        assert_eq!(answer.status, 401, "{n}: {}", answer.body);
        let left = format!("\"unproven\";r={};", 119 - n);
        let said = answer.headers["ratelimit"].to_str().unwrap();
        assert!(said.starts_with(&left), "{said}");
        assert_eq!(
            answer.headers["ratelimit-policy"],
            "\"unproven\";q=120;w=60"
        );
    }
    let hashed = house.app.hasher.runs();

    // Then each of them is told to wait, and nothing is hashed any more.
    for bearer in ["sk_live_x", &made_up_key(), "a.b.c", ""] {
        let answer = house.call_from(HERE, "/v1/keys", bearer, Value::Null).await;
        assert_eq!(waits(&answer), 1);
    }
    for path in ["/v1/sessions", "/v1/accounts"] {
        let answer = house.call_from(HERE, path, "", login.clone()).await;
        assert_eq!(waits(&answer), 1);
    }
    assert_eq!(house.app.hasher.runs(), hashed);
    // A familiar key and a session from the same place go on, and so do others.
    for bearer in [alice.key(), alice.session()] {
        let answer = house
            .call_from(HERE, "/v1/usage", bearer, Value::Null)
            .await;
        assert_eq!(answer.status, 200);
    }
    let other = house
        .call_from(THERE, "/v1/keys", "sk_live_x", Value::Null)
        .await;
    assert_eq!(other.status, 401);
    // Half a second brings one more.
    let passes = async || {
        let answer = house
            .call_from(HERE, "/v1/keys", "sk_live_x", Value::Null)
            .await;
        answer.status == 401
    };
    house.now.fetch_add(499, Ordering::Relaxed);
    assert!(!passes().await);
    house.now.fetch_add(1, Ordering::Relaxed);
    assert!(passes().await);
    assert!(!passes().await);
}

#[tokio::test]
async fn whoever_waits_as_long_as_was_said_passes_and_a_second_less_is_too_short() {
    let house = House::open_with(|config| {
        config.unproven_per_minute_max = 7;
        config.wrong_passwords_per_hour_max = 3;
    })
    .await;
    let by_address = async || {
        house
            .call_from(HERE, "/v1/keys", "sk_live_x", Value::Null)
            .await
    };
    let by_e_mail = async || {
        let wrong = json!({"email": "alice@example.org", "password": "wrong one!"});
        house.call_from(THERE, "/v1/sessions", "", wrong).await
    };
    for _ in 0..7 {
        assert_eq!(by_address().await.status, 401);
    }
    assert_eq!(waits(&by_address().await), 9);
    house.now.fetch_add(8_000, Ordering::Relaxed);
    assert_eq!(waits(&by_address().await), 1);
    house.now.fetch_add(1_000, Ordering::Relaxed);
    assert_eq!(by_address().await.status, 401);

    for _ in 0..3 {
        assert_eq!(by_e_mail().await.status, 401);
    }
    assert_eq!(waits(&by_e_mail().await), 1_200);
    house.now.fetch_add(1_199_000, Ordering::Relaxed);
    assert_eq!(waits(&by_e_mail().await), 1);
    house.now.fetch_add(1_000, Ordering::Relaxed);
    assert_eq!(by_e_mail().await.status, 401);
}

/// Of addresses that nobody has signed up with the same is said: that they are not there would show.
#[tokio::test]
async fn wrong_passwords_are_counted_by_e_mail_wherever_they_come_from() {
    let house = House::open_with(|config| config.wrong_passwords_per_hour_max = 5).await;
    let alice = house.person("alice").await;
    let login = |email: &str, password: &str| json!({"email": email, "password": password});
    for email in ["alice@example.org", "nobody@example.org"] {
        for n in 0..5 {
            let from = format!("203.0.113.{n}");
            let body = login(&email.to_uppercase(), "wrong one!");
            let answer = house.call_from(&from, "/v1/sessions", "", body).await;
            assert_eq!(answer.code(), Code::WrongPassword);
            let said = answer.headers["ratelimit"].to_str().unwrap();
            assert!(!said.contains("password"), "others' guesses are not told");
        }
        let body = login(email, PASSWORD);
        let answer = house.call_from(THERE, "/v1/sessions", "", body).await;
        assert_eq!(waits(&answer), 720, "{email}: also with the right one");
    }
    // In a session it is the same counter, and keys know nothing of it.
    let path = "/v1/accounts/me/deletion";
    let body = json!({"password": PASSWORD});
    let answer = house.call_from(HERE, path, alice.session(), body).await;
    waits(&answer);
    assert_eq!(house.token(alice.key(), json!({})).await.status, 200);

    house.now.fetch_add(720_000, Ordering::Relaxed);
    let body = login("alice@example.org", PASSWORD);
    for _ in 0..9 {
        let answer = house
            .call_from(HERE, "/v1/sessions", "", body.clone())
            .await;
        assert_eq!(answer.status, 201, "right ones do not count");
    }
}

#[tokio::test]
async fn keys_and_accounts_have_so_many_requests_a_second() {
    let house = House::open_with(|config| {
        config.key_requests_per_second_max = 4;
        config.account_requests_per_second_max = 10;
    })
    .await;
    let alice = house.person("alice").await;
    let bob = house.person("bob").await;
    house.now.fetch_add(5_000, Ordering::Relaxed);
    let made = json!({"name": "second"});
    let second: NewKey = house.post("/v1/keys", alice.session(), made).await.read();
    house.now.fetch_add(5_000, Ordering::Relaxed);
    let asks = async |bearer: &str, times: usize| {
        let mut passed = 0;
        for _ in 0..times {
            let answer = house.get("/v1/usage", bearer).await;
            if answer.status == 200 {
                passed += 1;
            } else {
                assert_eq!(waits(&answer), 1);
            }
        }
        passed
    };

    assert_eq!(asks(alice.key(), 9).await, 4);
    assert_eq!(asks(second.key.expose(), 9).await, 4);
    assert_eq!(asks(alice.session(), 9).await, 2, "ten for all of it");
    assert_eq!(asks(bob.key(), 9).await, 4, "others are not touched");
    house.now.fetch_add(1_000, Ordering::Relaxed);
    assert_eq!(asks(alice.key(), 9).await, 4);
    let answer = house.get("/v1/usage", bob.key()).await;
    assert_eq!(
        answer.headers["ratelimit-policy"],
        "\"key\";q=4;w=1, \"account\";q=10;w=1"
    );
    assert_eq!(
        answer.headers["ratelimit"],
        "\"key\";r=3;t=1, \"account\";r=9;t=1"
    );
}

#[tokio::test]
async fn an_account_makes_so_many_keys_a_minute() {
    let house = House::open_with(|config| config.new_keys_per_minute_max = 3).await;
    let alice = house.person("alice").await;
    let bob = house.person("bob").await;
    let make = async |bearer: &str| {
        let wish = json!({"name": "more"});
        house.post("/v1/keys", bearer, wish).await
    };
    let rotate = format!("/v1/keys/{}/rotation", alice.key.id);

    let rotated = house.post(&rotate, alice.session(), json!({})).await;
    assert_eq!(rotated.status, 201);
    assert_eq!(make(alice.session()).await.status, 201);
    let runs = house.app.hasher.runs();

    assert_eq!(waits(&make(alice.session()).await), 20);
    assert_eq!(house.app.hasher.runs(), runs, "nothing was hashed");
    assert_eq!(make(bob.session()).await.status, 201);
    house.now.fetch_add(20_000, Ordering::Relaxed);
    assert_eq!(make(alice.session()).await.status, 201);
}

/// Many agents behind one router, after the server has started anew: all of them get in.
#[tokio::test]
async fn good_keys_are_not_counted_by_address() {
    let house = House::open_with(|config| config.unproven_per_minute_max = 5).await;
    let alice = house.person("alice").await;
    let house = house.restarted().await;
    let mut keys = Vec::new();
    for n in 0..20 {
        let wish = json!({"name": format!("agent {n}")});
        let made: NewKey = house.post("/v1/keys", alice.key(), wish).await.read();
        keys.push(made.key);
    }
    for key in &keys {
        let cold = house
            .call_from(HERE, "/v1/usage", key.expose(), Value::Null)
            .await;
        assert_eq!(cold.status, 200);
        let said = cold.headers["ratelimit"].to_str().unwrap();
        assert!(!said.contains("unproven"), "{said}");
    }
    // Nor is what could not be looked at for a flood.
    let stranger = made_up_key();
    let flood = house.app.hasher.occupy();
    for _ in 0..20 {
        let answer = house
            .call_from(HERE, "/v1/usage", &stranger, Value::Null)
            .await;
        assert_eq!(answer.code(), Code::Busy);
    }
    drop(flood);
    let answer = house
        .call_from(HERE, "/v1/usage", &stranger, Value::Null)
        .await;
    assert_eq!(answer.status, 401);
}

/// The public part of a key is no secret: to know one must not be a way round the limit.
#[tokio::test]
async fn a_familiar_id_with_a_wrong_secret_is_counted() {
    let house = House::open_with(|config| config.unproven_per_minute_max = 4).await;
    let alice = house.person("alice").await;
    house.token(alice.key(), json!({})).await;
    let guess = ApiKey::parse(alice.key()).unwrap().guess().show();
    for _ in 0..4 {
        let answer = house
            .call_from(HERE, "/v1/usage", guess.expose(), Value::Null)
            .await;
        assert_eq!(answer.status, 401);
    }
    let runs = house.app.hasher.runs();

    let answer = house
        .call_from(HERE, "/v1/usage", guess.expose(), Value::Null)
        .await;

    waits(&answer);
    assert_eq!(house.app.hasher.runs(), runs);
    // So is one that was good until it was revoked by another server.
    let now = house.app.clock.now();
    let id = alice.key.id.parse().unwrap();
    let account = alice.session.account_id;
    house.app.store.revoke_key(account, id, now).await.unwrap();
    for _ in 0..4 {
        let answer = house
            .call_from(THERE, "/v1/usage", alice.key(), Value::Null)
            .await;
        assert_eq!(answer.status, 401);
    }
    let answer = house
        .call_from(THERE, "/v1/usage", alice.key(), Value::Null)
        .await;
    waits(&answer);
}

/// A20: what anybody can write into a header moves nobody to another bucket.
#[tokio::test]
async fn x_forwarded_for_counts_from_trusted_proxies_only() {
    let house = House::open_with(|config| {
        config.unproven_per_minute_max = 2;
        config.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    })
    .await;
    let asks = async |from: &str, forwarded: &[&str]| {
        let answer = house
            .forwarded(from, forwarded, "/v1/keys", "sk_live_x", Value::Null)
            .await;
        answer.status.as_u16()
    };

    let mut statuses = Vec::new();
    for n in 0..4 {
        statuses.push(asks(HERE, &[&format!("203.0.113.{n}")]).await);
    }
    assert_eq!(statuses, [401, 401, 429, 429], "from anybody: nothing");
    for n in 0..4 {
        let client = format!("203.0.113.{n}");
        assert_eq!(asks("10.0.0.1", &[&client]).await, 401, "from the proxy");
        assert_eq!(asks("10.0.0.2", &["1.2.3.4", &client]).await, 401);
        let spoofed = format!("198.51.100.{n}, {client}");
        assert_eq!(asks("10.0.0.1", &[&spoofed]).await, 429, "the last counts");
    }
}

#[tokio::test]
async fn of_ipv6_addresses_one_subscriber_is_one() {
    let house = House::open_with(|config| config.unproven_per_minute_max = 3).await;
    let mut statuses = Vec::new();
    for n in 1..=5 {
        let from = format!("2001:db8:0:1::{n}");
        let answer = house
            .call_from(&from, "/v1/keys", "sk_live_x", Value::Null)
            .await;
        statuses.push(answer.status.as_u16());
    }
    assert_eq!(statuses, [401, 401, 401, 429, 429]);
    let answer = house
        .call_from("2001:db8:0:2::1", "/v1/keys", "sk_live_x", Value::Null)
        .await;
    assert_eq!(answer.status, 401);
}
