//! A12: a fleet that starts at once with one key, behind one router, at a server that has just started
//! and knows none of them.

use std::{collections::BTreeSet, time::Duration};

use skytale_wire::http::Agents;
use tokio::time::{sleep, timeout};

use super::*;
use crate::store::postgres::cluster::Cluster;

const AGENTS: u16 = 1_000;
/// Far beyond what a request may take.
const PATIENCE: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_agents_at_once_all_get_tokens_and_each_is_counted() {
    in_a_file_and_in_postgres(async |house: House| {
        let alice = house.person("alice").await;
        let house = house.restarted().await;
        assert!(!house.app.hasher.knows(&alice.key.id.parse().unwrap()));

        let fleet: Vec<_> = (0..AGENTS)
            .map(|number| {
                let (router, key) = (house.router.clone(), alice.key().to_owned());
                tokio::spawn(async move { buy(router, &key, number).await })
            })
            .collect();
        let keys = house.app.keys.public(NOW);
        let relay = Verifier::new(Audience::Relay(relay()), &keys).unwrap();
        let mut names = BTreeSet::new();
        let mut refusals = 0;
        for (number, agent) in (0..).zip(fleet) {
            let bought = timeout(PATIENCE, agent)
                .await
                .expect("nobody waits for ever");
            let (token, refused) = bought.unwrap();
            let claims = relay.verify(token.token.expose(), NOW).unwrap();
            let Grant::Agent { agent, .. } = claims.grant else {
                panic!("a token of another kind");
            };
            assert_eq!(agent, agent_of(number));
            assert_eq!(claims.expires.since(claims.issued), 3_600_000);
            assert!(names.insert(claims.id), "each token has a name of its own");
            refusals += refused;
        }

        println!("{AGENTS} tokens, {refusals} refusals on the way");
        let usage: Usage = house.get("/v1/usage", alice.key()).await.read();
        assert_eq!(usage.months[0].used.token_exchanges, u64::from(AGENTS));
        assert_eq!(agents_of(&house, &alice).await, usize::from(AGENTS));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_gets_no_token_after_its_key_was_revoked() {
    in_a_file_and_in_postgres(async |house: House| {
        let alice = house.person("alice").await;
        assert_eq!(house.token(alice.key(), json!({})).await.status, 200);
        let path = format!("/v1/keys/{}", alice.key.id);
        let revoked = house.call(Method::DELETE, &path, alice.session(), Value::Null);
        assert_eq!(revoked.await.status, 204);

        let fleet: Vec<_> = (0..AGENTS)
            .map(|number| tokio::spawn(house.router.clone().oneshot(request(alice.key(), number))))
            .collect();

        for agent in fleet {
            let answer = timeout(PATIENCE, agent)
                .await
                .expect("nobody waits for ever");
            let answer = answer.unwrap().unwrap();
            let status = answer.status().as_u16();
            assert!([401, 429, 503].contains(&status), "{status}");
        }
        let usage: Usage = house.get("/v1/usage", alice.session()).await.read();
        assert_eq!(usage.months[0].used.token_exchanges, 1);
    })
    .await;
}

async fn in_a_file_and_in_postgres(test: impl AsyncFn(House)) {
    test(House::open().await).await;
    let database = Cluster::shared().database();
    let house = House::open_with(|config| {
        config.database_url = Some(database.url.clone().into());
        // All of them stand in line for one row, on a busy machine.
        config.database_wait_ms_max = 30_000;
        config.database_statement_ms_max = 60_000;
        config.request_ms_max = 60_000;
    });
    test(house.await).await;
}

/// As an agent does it: told to wait, it waits and asks again. Gives how often it was.
async fn buy(router: Router, key: &str, number: u16) -> (TokenAnswer, u32) {
    let mut refused = 0;
    loop {
        let answer = router.clone().oneshot(request(key, number)).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        if parts.status == StatusCode::OK {
            return (serde_json::from_slice(&body).unwrap(), refused);
        }
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        let for_now = [Code::Busy, Code::Unavailable, Code::TooManyRequests];
        let is_for_now = for_now.contains(&problem.code);
        assert!(is_for_now, "{} {:?}", parts.status, problem.code);
        assert!(parts.headers.contains_key("retry-after"));
        refused += 1;
        // A fraction of what was said: the test is in a hurry, and the crowd is thicker.
        sleep(Duration::from_millis(50)).await;
    }
}

fn request(key: &str, number: u16) -> Request<Body> {
    let mut body = agent_request();
    body["agent_id"] = json!(agent_of(number));
    Request::post("/v1/tokens")
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {key}"))
        .body(Body::from(body.to_string()))
        .unwrap()
}

fn agent_of(number: u16) -> AgentId {
    AgentId(Digest::of(&[b"agent", &number.to_be_bytes()]).0)
}

async fn agents_of(house: &House, person: &Person) -> usize {
    let mut count = 0;
    let mut path = "/v1/agents?limit=100".to_owned();
    loop {
        let page: Agents = house.get(&path, person.session()).await.read();
        count += page.agents.len();
        let Some(next) = page.next else {
            return count;
        };
        path = format!("/v1/agents?limit=100&after={next}");
    }
}
