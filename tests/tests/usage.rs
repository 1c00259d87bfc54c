//! What agents said is what accounts have used: real servers, which are killed again and again while
//! reports are on their way.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use skytale_sdk::{Agent, Channel, Mode};
use skytale_tests::{
    metrics::metric_meanwhile,
    processes::{Machine, PATIENCE, Servers},
};
use tokio::time::{sleep, timeout};

const ROUNDS: usize = 8;
const MESSAGES: usize = 4;
/// A report goes out every ten seconds, and is tried again after two.
const REPORT: Duration = Duration::from_secs(10);

/// An API server and a relay in places of their own, and a machine with agents.
struct Places {
    api_at: String,
    relay_at: String,
    relay: String,
    api_machine: Machine,
    relay_machine: Machine,
    people: Machine,
}

impl Places {
    fn new() -> (Self, Servers, Servers) {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let api_at = free.local_addr().unwrap().to_string();
        drop(free);
        let mut places = Self {
            api_at,
            relay_at: "127.0.0.1:0".to_owned(),
            relay: String::new(),
            api_machine: Machine::new(),
            relay_machine: Machine::new(),
            people: Machine::new(),
        };
        let relay = places.relay();
        relay.text("relay").clone_into(&mut places.relay);
        let (_, at) = places.relay.split_once('@').unwrap();
        at.clone_into(&mut places.relay_at);
        let api = places.api();
        let signup = format!(
            "signup --api-url http://{} --email alice@example.org --password-stdin",
            places.api_at
        );
        places.people.say("correct horse battery\n", &signup).ok();
        // A relay that starts before its API server asks it for keys some seconds later.
        relay.kill();
        let relay = places.relay();
        (places, api, relay)
    }

    fn api(&self) -> Servers {
        let Self { api_at, relay, .. } = self;
        let start = format!("api --json --quiet --api-addr {api_at} --relay {relay}");
        self.api_machine.serve(&start)
    }

    fn relay(&self) -> Servers {
        let Self {
            api_at, relay_at, ..
        } = self;
        self.relay_machine.serve(&format!(
            "relay --json --quiet --api-url http://{api_at} --relay-addr {relay_at} --health-addr 127.0.0.1:0 --grpc-addr off"
        ))
    }

    async fn agent(&self, name: &str) -> Agent {
        let agent = Agent::builder(name)
            .data_dir(self.people.data())
            .config_dir(self.people.config())
            .traffic(Mode::Padded)
            .open()
            .await
            .unwrap();
        timeout(PATIENCE, agent.online()).await.unwrap().unwrap();
        agent
    }

    /// What the account has used, all months together: one may end while this test runs.
    fn used(&self) -> [u64; 4] {
        let usage = self.people.run("usage --json").ok().json();
        ["messages", "bytes", "delivered", "connected_s"].map(|what| {
            let months = usage["months"].as_array().unwrap().iter();
            months.map(|month| month[what].as_u64().unwrap()).sum()
        })
    }
}

async fn say(channel: &Channel, count: usize, rng: &mut ChaCha8Rng) {
    for _ in 0..count {
        let words = "x".repeat(rng.random_range(1..300));
        channel.send(words.as_str()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_counts_once_when_relay_and_api_server_are_killed() {
    let seed = std::process::id().into();
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (places, mut api, mut relay) = Places::new();
    let planner = places.agent("planner").await;
    let coder = places.agent("coder").await;
    let plan = planner.channel("acme/ops/plan").await.unwrap();
    let line = plan.invite().await.unwrap();
    coder.join(&line).await.unwrap();

    let mut messages = 0;
    for _ in 0..ROUNDS {
        say(&plan, MESSAGES, &mut rng).await;
        messages += MESSAGES as u64;
        // A relay reports when it starts, if it has something: most of these fall among the
        // report, its answer and what follows.
        sleep(Duration::from_millis(rng.random_range(0..400))).await;
        match rng.random_range(0..3) {
            0 => {
                api.kill();
                api = places.api();
            }
            1 => {
                relay.kill();
                relay = places.relay();
            }
            _ => {
                api.kill();
                relay.kill();
                api = places.api();
                relay = places.relay();
            }
        }
        sleep(Duration::from_millis(rng.random_range(0..400))).await;
    }
    say(&plan, 1, &mut rng).await;
    messages += 1;

    let all = async {
        while places.used()[0] < messages {
            sleep(Duration::from_millis(500)).await;
        }
    };
    timeout(PATIENCE, all).await.unwrap();
    // And nothing that is sent again counts again.
    sleep(REPORT + Duration::from_secs(3)).await;
    let [counted, bytes, delivered, connected_s] = places.used();
    assert_eq!(counted, messages, "seed {seed}");
    assert!(bytes > 256 * messages, "padded: {bytes}");
    assert!(delivered > 0 && connected_s > 0);

    planner.close().await.unwrap();
    coder.close().await.unwrap();
    relay.terminate();
    api.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_told_to_end_reports_before_it_does() {
    let (places, api, relay) = Places::new();
    let planner = places.agent("planner").await;
    let plan = planner.channel("acme/ops/plan").await.unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    say(&plan, 3, &mut rng).await;

    relay.terminate();

    assert_eq!(places.used()[0], 3);
    planner.close().await.unwrap();
    api.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_nobody_takes_is_shown_to_operators_and_counts_later() {
    let (places, api, relay) = Places::new();
    let health = relay.text("health");
    let health: SocketAddr = health.trim_start_matches("http://").parse().unwrap();
    let planner = places.agent("planner").await;
    let plan = planner.channel("acme/ops/plan").await.unwrap();
    let stands_at = async |wanted| {
        while metric_meanwhile(health, "skytale_relay_usage_report_waits").await != Some(wanted) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, stands_at(0)).await.unwrap();
    api.kill();
    say(&plan, 3, &mut ChaCha8Rng::seed_from_u64(1)).await;

    timeout(PATIENCE, stands_at(1)).await.unwrap();
    let api = places.api();
    timeout(PATIENCE, stands_at(0)).await.unwrap();

    // Some may be in the report after it.
    let all = async {
        while places.used()[0] < 3 {
            sleep(Duration::from_millis(500)).await;
        }
    };
    timeout(PATIENCE, all).await.unwrap();
    assert_eq!(places.used()[0], 3);
    planner.close().await.unwrap();
    relay.terminate();
    api.terminate();
}

/// As the command line tells it: a code for programs, and an exit code.
#[test]
fn a_month_that_is_used_up_has_an_exit_code_of_its_own() {
    let (servers, people) = (Machine::new(), Machine::new());
    let relay = format!("{}@127.0.0.1:9", "03".repeat(32));
    let api = servers.serve(&format!(
        "api --json --quiet --api-addr 127.0.0.1:0 --relay {relay} --messages-per-month 0"
    ));
    let url = api.text("api");
    let signup = format!("signup --api-url {url} --email alice@example.org --password-stdin");
    people.say("correct horse battery\n", &signup).ok();

    let refused = people.run("token --slim acme/* --json");

    assert_eq!(refused.code, 6, "{refused:?}");
    let told: Value = serde_json::from_str(refused.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(told["error"]["code"], "quota_exceeded", "{told}");
    let shown = people.run("usage --month 2031-01 --json").ok().json();
    assert_eq!(shown["plan"]["messages_max"], 0);
    assert_eq!(shown["months"][0]["month"], "2031-01");
    let shown = people.run("usage").ok().stdout;
    assert!(
        shown.contains("0 messages and any bytes a month"),
        "{shown}"
    );
    assert_eq!(people.run("usage --month 2031-1").code, 2);
    api.terminate();
}
