//! A real agent is stopped for some seconds, as a laptop that sleeps: when it goes on, its line does
//! not make up for the slots that it has missed. A burst would show what the schedule hides.
//!
//! Counted at a proxy before the relay, from the moment of waking on. Whatever is late on a busy
//! machine comes later and not earlier, so that the bound holds there too.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]
#![allow(clippy::print_stdout, reason = "the figures of a run")]

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    process::Command,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use skytale_tests::processes::{Addresses, Machine, PATIENCE, Speaker, finish, program};

#[test]
fn a_suspended_agent_misses_its_slots_and_never_makes_up_for_them() {
    let machine = Machine::new();
    // Between addresses of two families there is no way but by the proxy.
    let servers = machine.up(Some(&Addresses {
        relay: "[::1]:0".to_owned(),
        ..Addresses::default()
    }));
    let (key, addr) = servers.text("relay").split_once('@').unwrap();
    let relay: SocketAddr = addr.parse().unwrap();
    for (traffic, bank) in [("constant,rate=32", 0), ("adaptive,rate=32", 8)] {
        let proxy = Proxy::before(relay);
        // An agent that knows of no other way to the relay.
        let name = traffic.split(',').next().unwrap();
        let by_proxy = |arguments: &[&str]| {
            let mut command = machine.command(program(), arguments);
            command.args(["--as", name]);
            command.env("SKYTALE_RELAY", format!("{key}@{}", proxy.addr));
            command
        };
        finish(by_proxy(&["open", &format!("acme/ops/{name}")]), "").ok();
        let mut command = by_proxy(&["watch", "--json", "--cells"]);
        command.env("SKYTALE_TRAFFIC", traffic);
        let (ears, said) = mpsc::channel();
        let watching = Speaker::start(command, (), &ears);
        let next_cells = || loop {
            let said = said.recv_timeout(PATIENCE).unwrap();
            let line: Value = said.what.expect("it goes on");
            if line["event"] == "cells" {
                return line;
            }
        };
        while next_cells()["sent"]["cover"].as_u64() < Some(20) {}
        assert!(proxy.cells_since(Duration::ZERO).len() > 20, "by the proxy");

        signal("STOP", watching.pid());
        sleep_meanwhile();
        let woken = proxy.now();
        signal("CONT", watching.pid());
        let mut missed = 0;
        let mut sent = 0;
        // Until it has kept to the schedule for some seconds again.
        while sent < 3 * RATE {
            let line = next_cells();
            missed += line["missed"].as_u64().unwrap();
            sent += line["sent"]["cover"].as_u64().unwrap();
        }

        let after = proxy.cells_since(woken);
        let most = after
            .iter()
            .zip(1..)
            .map(|(at, count)| {
                let due = u64::try_from(at.as_millis()).unwrap() * RATE / 1_000;
                let count: u64 = count;
                count.saturating_sub(due)
            })
            .max()
            .unwrap();
        println!(
            "{traffic}: {missed} slots missed; at most {most} datagrams ahead of the rate among {}",
            after.len()
        );
        assert!(
            missed >= RATE * SUSPENDED.as_secs() - 3 * RATE / 2,
            "it was suspended: {missed}"
        );
        assert!(
            most <= bank + AHEAD_MAX,
            "{traffic}: {most} datagrams more than the schedule has, {after:?}"
        );
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time in which the agent is stopped"
)]
fn sleep_meanwhile() {
    thread::sleep(SUSPENDED);
}

fn signal(name: &str, pid: u32) {
    let told = Command::new("sh")
        .args(["-c", &format!("kill -{name} \"$0\""), &pid.to_string()])
        .status();
    assert!(told.unwrap().success());
}

/// Stands between the agent and the relay, and notes when datagrams go to the relay that are as
/// large as a cell.
struct Proxy {
    addr: SocketAddr,
    began: Instant,
    seen: Arc<Mutex<Vec<Duration>>>,
}

impl Proxy {
    fn before(relay: SocketAddr) -> Self {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let back = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        back.connect(relay).unwrap();
        let addr = front.local_addr().unwrap();
        let began = now();
        let seen: Arc<Mutex<Vec<Duration>>> = Arc::default();
        let client: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let (noted, caller) = (Arc::clone(&seen), Arc::clone(&client));
        let (out, home) = (front.try_clone().unwrap(), back.try_clone().unwrap());
        // Both threads end with the test's process.
        thread::spawn(move || {
            let mut datagram = vec![0; 65_536];
            while let Ok((len, from)) = front.recv_from(&mut datagram) {
                *caller.lock().unwrap() = Some(from);
                if len >= CELL {
                    noted.lock().unwrap().push(now().duration_since(began));
                }
                // What the system does not take is lost, as it may be.
                let _ = back.send(&datagram[..len]);
            }
        });
        thread::spawn(move || {
            let mut datagram = vec![0; 65_536];
            while let Ok(len) = home.recv(&mut datagram) {
                let client = *client.lock().unwrap();
                if let Some(client) = client {
                    let _ = out.send_to(&datagram[..len], client);
                }
            }
        });
        Self { addr, began, seen }
    }

    fn now(&self) -> Duration {
        now().duration_since(self.began)
    }

    /// When cells went by after this moment, counted from it.
    fn cells_since(&self, moment: Duration) -> Vec<Duration> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter_map(|at| at.checked_sub(moment))
            .collect()
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own clock")]
fn now() -> Instant {
    Instant::now()
}

/// Slots a second.
const RATE: u64 = 32;
const SUSPENDED: Duration = Duration::from_secs(3);
/// A slot that is a little late is served, and QUIC asks after what was on its way.
const AHEAD_MAX: u64 = 8;
/// Smaller datagrams carry no cell.
const CELL: usize = 1_000;
