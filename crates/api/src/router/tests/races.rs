//! A28: what happens when many do at once what only one may, or what another one forbids.

use std::sync::atomic::AtomicBool;

use super::*;

/// The address is unique however many ask at once.
#[tokio::test]
async fn of_many_sign_ups_with_one_address_one_counts() {
    let house = House::open_with(|config| {
        config.hashes_waiting_max = 200;
        config.unproven_per_minute_max = 1_000;
    })
    .await;
    let attempts = (0..100).map(|n| {
        let login = json!({"email": "race@example.org", "password": format!("password no {n}")});
        let router = house.router.clone();
        tokio::spawn(async move {
            let request = Request::post("/v1/accounts")
                .header("content-type", "application/json")
                .body(Body::from(login.to_string()))
                .unwrap();
            router.oneshot(request).await.unwrap().status()
        })
    });
    for attempt in attempts.collect::<Vec<_>>() {
        assert_eq!(attempt.await.unwrap(), StatusCode::ACCEPTED);
    }
    let mut winners = 0;
    for n in 0..100 {
        house.now.fetch_add(60_000, Ordering::Relaxed);
        let login = json!({"email": "race@example.org", "password": format!("password no {n}")});
        let answer = house.post("/v1/sessions", "", login).await;
        winners += u32::from(answer.status == StatusCode::CREATED);
    }
    assert_eq!(winners, 1);
}

/// Buys tokens from many sides until they are refused after `over` was set. For each: whether one was
/// sold that was asked for after that, and how many were sold.
async fn buyers(house: &House, key: &str, over: &Arc<AtomicBool>) -> Vec<(bool, u64)> {
    let buyers = (0..8).map(|_| {
        let (router, over, key) = (house.router.clone(), Arc::clone(over), key.to_owned());
        tokio::spawn(async move {
            let (mut too_late, mut sold) = (false, 0);
            loop {
                let was_over = over.load(Ordering::SeqCst);
                let request = Request::post("/v1/tokens")
                    .header("content-type", "application/json")
                    .header("authorization", format!("Bearer {key}"))
                    .body(Body::from("{}"))
                    .unwrap();
                let status = router.clone().oneshot(request).await.unwrap().status();
                if status == StatusCode::OK {
                    sold += 1;
                    too_late |= was_over;
                } else {
                    assert_eq!(status, StatusCode::UNAUTHORIZED);
                    if was_over {
                        return (too_late, sold);
                    }
                }
            }
        })
    });
    let buyers: Vec<_> = buyers.collect();
    let mut ended = Vec::new();
    for buyer in buyers {
        ended.push(buyer.await.unwrap());
    }
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_sold_after_a_revocation_was_answered_and_each_that_was_is_counted() {
    let house = House::open_with(|config| {
        config.unproven_per_minute_max = 1_000_000;
        config.key_requests_per_second_max = 1_000_000;
        config.account_requests_per_second_max = 1_000_000;
    })
    .await;
    let alice = house.person("alice").await;
    for ends in ["key", "account"] {
        let victim = house.person(ends).await;
        house.token(victim.key(), json!({})).await;
        let over = Arc::new(AtomicBool::new(false));
        let revoke = async {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            let answer = if ends == "key" {
                let path = format!("/v1/keys/{}", victim.key.id);
                let session = victim.session();
                house
                    .call(Method::DELETE, &path, session, Value::Null)
                    .await
            } else {
                let body = json!({"password": PASSWORD});
                let path = "/v1/accounts/me/deletion";
                house.post(path, victim.session(), body).await
            };
            assert_eq!(answer.status, 204);
            over.store(true, Ordering::SeqCst);
        };

        let (ended, ()) = tokio::join!(buyers(&house, victim.key(), &over), revoke);

        assert!(ended.iter().all(|(too_late, _)| !too_late), "{ends}");
        let sold: u64 = ended.iter().map(|(_, sold)| sold).sum();
        assert!(sold > 0, "there was a race");
        let account = victim.session.account_id;
        let usage = house.app.store.usage(account).await.unwrap();
        assert_eq!(usage[0].1.token_exchanges, sold + 1, "{ends}");
    }
    let bought = house.token(alice.key(), json!({})).await;
    assert_eq!(bought.status, 200, "others buy on");
}

/// The limit of living keys holds when many are made at once.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_keys_made_at_once_as_many_are_made_as_may_live() {
    let house = House::open_with(|config| {
        config.hashes_waiting_max = 200;
        config.live_keys_max = 5;
    })
    .await;
    let alice = house.person("alice").await;
    let makers = (0..50).map(|_| {
        let request = Request::post("/v1/keys")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {}", alice.session()))
            .body(Body::from(r#"{"name":"one of many"}"#))
            .unwrap();
        tokio::spawn(house.router.clone().oneshot(request))
    });
    let mut made = 0;
    for maker in makers.collect::<Vec<_>>() {
        let status = maker.await.unwrap().unwrap().status();
        made += u32::from(status == StatusCode::CREATED);
        assert!([201, 409].contains(&status.as_u16()), "{status}");
    }
    assert_eq!(made, 4, "and the first one");
}
