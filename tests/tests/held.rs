//! What a relay holds of a channel, as the account that pays for it is shown it: real servers apart, a
//! real agent, and the answers as they come over HTTP.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use serde_json::Value;
use skytale_sdk::{Agent, Mode};
use skytale_tests::processes::{Machine, PATIENCE};
use tokio::time::{sleep, timeout};

/// A needle in everything that is sealed: the channel's name and what is said in it.
const NEEDLE: &str = "heron";

/// The status and the body of a GET with a key.
fn get(at: &str, path: &str, key: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {at}\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

fn read(answer: &(u16, String)) -> Value {
    assert_eq!(answer.0, 200, "{}", answer.1);
    serde_json::from_str(&answer.1).unwrap()
}

/// The application messages of a page.
fn said(page: &Value) -> Vec<Value> {
    let records = page["records"].as_array().unwrap().iter();
    let said = records.filter(|record| record["kind"] == "application");
    said.cloned().collect()
}

/// Signs up, and gives an API key.
fn sign_up(machine: &Machine, api_at: &str, name: &str) -> String {
    let signup =
        format!("signup --api-url http://{api_at} --email {name}@example.org --password-stdin");
    machine.say("correct horse battery\n", &signup).ok();
    let made = machine.run("keys create looks --json").ok().json();
    made["key"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_sees_sizes_and_times_of_its_own_channels_and_nothing_else() {
    let (api_machine, relay_machine) = (Machine::new(), Machine::new());
    let (alice, bob) = (Machine::new(), Machine::new());
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let api_at = free.local_addr().unwrap().to_string();
    drop(free);
    let relay_starts = format!(
        "relay --json --quiet --api-url http://{api_at} --relay-addr 127.0.0.1:0 --health-addr 127.0.0.1:0 --grpc-addr off"
    );
    // Only a relay that was started once knows its key.
    let relay = relay_machine.serve(&relay_starts);
    let (key, at) = relay.text("relay").split_once('@').unwrap();
    let relay_starts =
        relay_starts.replace("--relay-addr 127.0.0.1:0", &format!("--relay-addr {at}"));
    let (relay_key, named) = (key.to_owned(), format!("{key}@{at}"));
    relay.kill();
    let api = api_machine.serve(&format!(
        "api --json --quiet --api-addr {api_at} --relay {named}"
    ));
    let relay = relay_machine.serve(&relay_starts);
    let hers = sign_up(&alice, &api_at, "alice");
    let his = sign_up(&bob, &api_at, "bob");
    let planner = Agent::builder("planner")
        .data_dir(alice.data())
        .config_dir(alice.config())
        .traffic(Mode::Padded)
        .open()
        .await
        .unwrap();
    timeout(PATIENCE, planner.online()).await.unwrap().unwrap();
    let plan = planner
        .channel(&format!("acme/{NEEDLE}/plan"))
        .await
        .unwrap();
    // Below a size class, just below its end, and far beyond.
    for text in [NEEDLE.to_owned(), NEEDLE.repeat(2), NEEDLE.repeat(400)] {
        plan.send(text.as_str()).await.unwrap();
    }

    let id = plan.view().await.unwrap().id;
    let records_path = format!("/v1/channels/{id}/records");
    let all = async {
        loop {
            let (status, body) = get(&api_at, &records_path, &hers);
            // A relay that starts before its API server is known there some seconds later.
            if status == 200 && said(&serde_json::from_str(&body).unwrap()).len() == 3 {
                break serde_json::from_str::<Value>(&body).unwrap();
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    let all = timeout(PATIENCE, all).await.unwrap();

    let records = all["records"].as_array().unwrap();
    let said = said(&all);
    let sizes: Vec<_> = said
        .iter()
        .map(|record| record["bytes"].as_u64().unwrap())
        .collect();
    println!("sizes {sizes:?}");
    // Five characters and ten look the same; two thousand do not fit there.
    assert_eq!(sizes[0], sizes[1]);
    assert!(sizes[0] > 256 && sizes[2] > 2_000);
    assert!(sizes[2] > sizes[0]);
    for record in &said {
        assert_eq!(record["agent_id"], planner.id().to_string());
    }
    assert_eq!(all["relay"], relay_key);

    // The same by pages of one, to the end.
    let mut one_by_one = Vec::new();
    let mut path = format!("{records_path}?limit=1");
    loop {
        let page = read(&get(&api_at, &path, &hers));
        one_by_one.extend(page["records"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_u64() else {
            break;
        };
        path = format!("{records_path}?limit=1&after={next}");
    }
    assert_eq!(&one_by_one, records);

    let listed = read(&get(&api_at, "/v1/channels", &hers));
    let channels = listed["channels"].as_array().unwrap();
    assert_eq!(channels.len(), 1, "{listed}");
    assert_eq!(channels[0]["id"], id.to_string());
    assert_eq!(
        channels[0]["records"].as_u64().unwrap(),
        records.len() as u64
    );
    let bytes: u64 = records.iter().map(|it| it["bytes"].as_u64().unwrap()).sum();
    assert_eq!(channels[0]["bytes"].as_u64(), Some(bytes));
    let shown = alice.run(&format!("seen {id} --json")).ok();
    assert_eq!(shown.json_lines(), *records);
    let relays = get(&api_at, "/v1/relays", &hers);
    let state = &read(&relays)["relays"][0];
    assert_eq!(
        (&state["key"], &state["healthy"]),
        (&relay_key.clone().into(), &true.into())
    );
    assert_eq!(state["health"]["archive"], true);

    // Nothing of it tells what was said, or what it is called.
    let seen = [all.to_string(), listed.to_string(), relays.1, shown.stdout].concat();
    for word in [NEEDLE, "acme", "plan\"", "planner", "alice"] {
        assert!(!seen.contains(word), "{word}: {seen}");
    }

    // Another account is told nothing, not even that there is something.
    let other = get(&api_at, &records_path, &his);
    let nobodys = get(
        &api_at,
        &format!("/v1/channels/{}/records", "0".repeat(64)),
        &his,
    );
    assert_eq!((other.0, nobodys.0), (404, 404));
    let listed = read(&get(&api_at, "/v1/channels", &his));
    assert_eq!(listed["channels"], serde_json::json!([]));

    // A relay that is gone is told as such, and soon.
    relay.kill();
    for path in [records_path.as_str(), "/v1/channels"] {
        let (status, body) = {
            #[expect(
                clippy::disallowed_methods,
                reason = "how long a caller waits is the promise"
            )]
            let began = Instant::now();
            let answer = get(&api_at, path, &hers);
            #[expect(
                clippy::disallowed_methods,
                reason = "how long a caller waits is the promise"
            )]
            let took = began.elapsed();
            println!("refused after {took:?}");
            assert!(took < Duration::from_secs(5), "{took:?}");
            answer
        };
        let refused: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &refused["code"]), (503, &"relay_silent".into()));
    }
    let unheard = async {
        while read(&get(&api_at, "/v1/relays", &hers))["relays"][0]["healthy"] == true {
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(PATIENCE, unheard).await.unwrap();

    // And when it is back, so is what it holds.
    let relay = relay_machine.serve(&relay_starts);
    let back = async {
        while get(&api_at, &records_path, &hers).0 != 200 {
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(PATIENCE, back).await.unwrap();
    assert_eq!(
        read(&get(&api_at, &records_path, &hers))["records"],
        all["records"]
    );

    // Unless its operator wants it otherwise.
    relay.terminate();
    let settings = relay_machine.data().join("skytale.toml");
    std::fs::write(&settings, "[relay]\nanswers_accounts = false\n").unwrap();
    let settings = settings.to_str().unwrap();
    let relay = relay_machine.serve(&format!("{relay_starts} --config {settings}"));
    let closed = async {
        while get(&api_at, &records_path, &hers).0 != 404 {
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(PATIENCE, closed).await.unwrap();
    assert_eq!(
        read(&get(&api_at, "/v1/channels", &hers))["channels"],
        serde_json::json!([])
    );
    let well = async {
        while read(&get(&api_at, "/v1/relays", &hers))["relays"][0]["healthy"] != true {
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(PATIENCE, well).await.unwrap();
    planner.close().await.unwrap();
    relay.terminate();
    api.terminate();
}
