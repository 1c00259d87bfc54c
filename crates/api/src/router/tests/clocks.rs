//! A9: clocks that are wrong, jump, or do not agree. Nothing counts for long after its end, nobody is
//! turned away for a few seconds, and what was revoked stays so.

use super::*;

const HOUR: u64 = 3_600_000;
/// How far apart clocks may be.
const APART: u64 = skytale_wire::token::LEEWAY_MS;

impl House {
    /// Sets the server's clock, forward or back.
    fn set_clock(&self, now: Time) {
        self.now.store(now.0, Ordering::Relaxed);
    }

    async fn opens(&self, token: &str) -> u16 {
        self.get("/v1/accounts/me", token).await.status.as_u16()
    }

    async fn buys(&self, key: &str) -> String {
        let bought: TokenAnswer = self.token(key, json!({})).await.read();
        bought.token.expose().to_owned()
    }
}

fn before(now: Time, ms: u64) -> Time {
    Time(now.0 - ms)
}

#[tokio::test]
async fn a_token_counts_five_seconds_around_its_time_and_not_a_millisecond_more() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let token = house.buys(alice.key()).await;
    let quarter = 15 * 60_000;
    for (token, life) in [(token.as_str(), HOUR), (alice.session(), quarter)] {
        for (now, status) in [
            (before(NOW, APART + 1), 401),
            (before(NOW, APART), 200),
            (NOW, 200),
            (NOW.plus(life), 200),
            (NOW.plus(life + APART - 1), 200),
            (NOW.plus(life + APART), 401),
            (NOW.plus(24 * HOUR), 401),
            (Time(u64::MAX), 401),
            (Time(0), 401),
        ] {
            house.set_clock(now);
            assert_eq!(house.opens(token).await, status, "{now:?}");
        }
    }
}

/// What was bought before is early until the clock is there again; everybody goes on with what they
/// buy now, and at no time is anybody let in whose time is over.
#[tokio::test]
async fn a_clock_that_is_set_back_or_forth_stops_nobody() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let first = house.buys(alice.key()).await;
    let hashed = house.app.hasher.runs();
    for jump in [HOUR, 24 * HOUR, 400 * 24 * HOUR] {
        for now in [before(NOW, jump), NOW, NOW.plus(jump), NOW] {
            house.set_clock(now);
            let (early, late) = (now < before(NOW, APART), now >= NOW.plus(HOUR + APART));
            let status = if early || late { 401 } else { 200 };
            assert_eq!(house.opens(&first).await, status, "{now:?}");

            let new = house.buys(alice.key()).await;
            assert_eq!(house.opens(&new).await, 200, "{now:?}");
            let keys = house.app.keys.public(now);
            let relay = Verifier::new(Audience::Relay(relay()), &keys).unwrap();
            let bought: TokenAnswer = house.token(alice.key(), agent_request()).await.read();
            let at_relay = |now| relay.verify(bought.token.expose(), now).is_ok();
            for (its_now, is_good) in [
                (before(now, APART + 1_000), false),
                (before(now, APART), true),
                (now, true),
                (now.plus(HOUR + APART - 1_000), true),
                (now.plus(HOUR + APART), false),
            ] {
                assert_eq!(
                    at_relay(its_now),
                    is_good,
                    "{now:?}, at a relay {its_now:?}"
                );
            }
        }
    }
    assert_eq!(house.app.hasher.runs(), hashed, "the key stayed familiar");
    // Who signs in meanwhile gets a session that opens the account.
    house.set_clock(before(NOW, HOUR));
    let login = json!({"email": "alice@example.org", "password": PASSWORD});
    let session: Session = house.post("/v1/sessions", "", login).await.read();
    assert_eq!(house.opens(session.token.expose()).await, 200);
}

/// A clock that is a second or two off, this way and that between requests, as they are corrected.
#[tokio::test]
async fn a_clock_that_wavers_by_seconds_turns_nobody_away() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let mut held = house.buys(alice.key()).await;
    for step in 0..200_u64 {
        // Between 2.5 s before and after, in an order that looks like none.
        house.set_clock(Time(NOW.0 + step * 37 + (step * 7_919) % 5_000 - 2_500));
        assert_eq!(house.opens(&held).await, 200, "{step}");
        assert_eq!(house.opens(alice.session()).await, 200, "{step}");
        held = house.buys(alice.key()).await;
    }
}

#[tokio::test]
async fn what_was_revoked_stays_so_whatever_the_clock_says() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let wish = json!({"name": "second"});
    let second: NewKey = house.post("/v1/keys", alice.key(), wish).await.read();
    let token = house.buys(second.key.expose()).await;
    let bought = house.token(alice.key(), agent_request()).await;
    assert_eq!(bought.status, 200);
    let carol = house.person("carol").await;
    let hers = house.buys(carol.key()).await;
    // The clock is an hour behind when all of it is said.
    let then = before(NOW, HOUR);
    house.set_clock(then);
    let login = json!({"email": "alice@example.org", "password": PASSWORD});
    let session: Session = house.post("/v1/sessions", "", login).await.read();
    let session = session.token.expose();
    let path = format!("/v1/keys/{}", second.id);
    let revoked = house
        .call(Method::DELETE, &path, session, Value::Null)
        .await;
    assert_eq!(revoked.status, 204);
    let agent = format!("/v1/agents/{}", AgentId([4; 32]));
    let shut = json!({"disabled": true});
    let shut = house.call(Method::PUT, &agent, session, shut).await;
    assert_eq!(shut.status, 204);
    let login = json!({"email": "carol@example.org", "password": PASSWORD});
    let end: Session = house.post("/v1/sessions", "", login).await.read();
    let end = end.token.expose();
    let deletion = json!({"password": PASSWORD});
    let deleted = house.post("/v1/accounts/me/deletion", end, deletion).await;
    assert_eq!(deleted.status, 204);

    for now in [
        then,
        before(NOW, 400 * 24 * HOUR),
        NOW,
        NOW.plus(60_000),
        NOW.plus(400 * 24 * HOUR),
    ] {
        house.set_clock(now);
        for over in [second.key.expose(), carol.key(), &token, &hers, end] {
            assert_eq!(house.opens(over).await, 401, "{now:?}");
        }
        let refused = house.token(alice.key(), agent_request()).await;
        assert_eq!(refused.code(), Code::AgentDisabled, "{now:?}");
        assert_eq!(house.token(alice.key(), json!({})).await.status, 200);
    }
}

/// Limits count by the same clock: they neither open nor close for good when it jumps.
#[tokio::test]
async fn limits_outlive_a_jump_of_the_clock() {
    let house = House::open_with(|config| config.unproven_per_minute_max = 3).await;
    let passes = async || {
        let mut passed = 0;
        for _ in 0..9 {
            passed += u32::from(house.get("/v1/usage", "").await.status == 401);
        }
        passed
    };
    assert_eq!(passes().await, 3);
    house.set_clock(before(NOW, 24 * HOUR));
    assert_eq!(passes().await, 0, "a jump back gives nothing");
    house.set_clock(before(NOW, 24 * HOUR).plus(60_000));
    assert_eq!(passes().await, 3, "and takes nothing for long");
    house.set_clock(NOW.plus(24 * HOUR));
    assert_eq!(passes().await, 3, "a jump forth gives no more than fits");
}
