//! What a revoked API key or an agent that is shut out had let in, seen from outside: real servers, real
//! agents.
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
    let key = made["key"].as_str().unwrap();
    let names: Vec<_> = (0..AGENTS).map(|n| format!("shut-{n}")).collect();
    let shut = names.iter().map(|name| open(&machine, name, Some(key)));
    let shut = join_all(shut).await;
    let other = open(&machine, "other", None).await;

    let revoked = format!("keys revoke {}", made["id"].as_str().unwrap());
    machine.run(&revoked).ok();

    let ended = join_all(shut.iter().map(is_refused));
    timeout(PATIENCE, ended).await.unwrap();
    assert_eq!(state(&other).await, Some(LinkState::Ready));
    join_all(shut.into_iter().map(Agent::close)).await;
    other.close().await.unwrap();
    servers.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_shut_out_loses_its_line_and_nobody_else_does() {
    let machine = Machine::new();
    let servers = machine.up(None);
    let shut = open(&machine, "shut", None).await;
    let other = open(&machine, "other", None).await;

    machine.run(&format!("agents disable {}", shut.id())).ok();

    timeout(PATIENCE, is_refused(&shut)).await.unwrap();
    assert_eq!(state(&other).await, Some(LinkState::Ready));
    shut.close().await.unwrap();
    other.close().await.unwrap();
    servers.terminate();
}

async fn open(machine: &Machine, name: &str, key: Option<&str>) -> Agent {
    let mut builder = Agent::builder(name)
        .data_dir(machine.data())
        .config_dir(machine.config())
        .traffic(skytale_sdk::Mode::Padded);
    if let Some(key) = key {
        builder = builder.api_key(Secret::new(key.to_owned()));
    }
    let agent = builder.open().await.unwrap();
    agent.online().await.unwrap();
    agent
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
