//! What a revoked API key had let in, seen from outside: real servers, real agents, one key taken back.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::time::Duration;

use futures_util::future::join_all;
use skytale_sdk::{Agent, LinkState, Secret};
use skytale_tests::processes::{Machine, PATIENCE};
use skytale_wire::refusal::Refusal;
use tokio::time::{sleep, timeout};

const AGENTS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_ends_its_lines_within_seconds() {
    let machine = Machine::new();
    let servers = machine.up(None);
    let made = machine.run("keys create ci --json").ok().json();
    let open = |name: String, key: Option<String>| {
        let mut builder = Agent::builder(&name)
            .data_dir(machine.data())
            .config_dir(machine.config())
            .traffic(skytale_sdk::Mode::Padded);
        if let Some(key) = key {
            builder = builder.api_key(Secret::new(key));
        }
        async move {
            let agent = builder.open().await.unwrap();
            agent.online().await.unwrap();
            agent
        }
    };
    let key = made["key"].as_str().unwrap();
    let shut = (0..AGENTS).map(|n| open(format!("shut-{n}"), Some(key.to_owned())));
    let shut = join_all(shut).await;
    let other = open("other".to_owned(), None).await;

    let revoked = format!("keys revoke {}", made["id"].as_str().unwrap());
    machine.run(&revoked).ok();

    let ended = join_all(shut.iter().map(is_refused));
    timeout(PATIENCE, ended).await.unwrap();
    assert_eq!(state(&other).await, Some(LinkState::Ready));
    join_all(shut.into_iter().map(Agent::close)).await;
    other.close().await.unwrap();
    servers.terminate();
}

async fn is_refused(agent: &Agent) {
    while state(agent).await != Some(LinkState::Refused(Refusal::Revoked)) {
        sleep(Duration::from_millis(10)).await;
    }
}

async fn state(agent: &Agent) -> Option<LinkState> {
    let status = agent.status().await.unwrap();
    status.relays.first().and_then(|relay| relay.state)
}
