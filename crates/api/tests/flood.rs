//! A2: what a flood of wrong keys costs the process in memory, and those with a good key in time.
//!
//! Alone in its process, because it looks at the memory of all of it. The flood's own 200
//! connections are in it too, so what is measured is more than what the server takes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use caller::{Answer, Line, wrong_key};
use skytale_api::{Config, Server, clock::Clock};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

#[allow(dead_code, reason = "other tests need more of it")]
mod caller;

const CONNECTIONS: u64 = 200;
const LASTS: Duration = Duration::from_secs(6);
/// Longer than a starved machine needs for what follows.
const PATIENCE: Duration = Duration::from_mins(1);
/// More than what an address may try meanwhile, each of which may find the line for hashes full.
const HELD_UP_MIN: u64 = 1_000;
/// Argon2's block for each core, and what connections, requests and their answers may take.
const MIB: u64 = 1 << 20;
const BLOCK: u64 = 19 * MIB;
const BESIDE: u64 = 64 * MIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_wrong_keys_costs_little_memory_and_good_keys_go_on() {
    for (what, unproven_per_minute_max, held_up_by) in
        [("hashes", u32::MAX, 503), ("addresses", 120, 429)]
    {
        // Given a server and somebody with a key that it has seen,
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            unproven_per_minute_max,
            ..config(dir.path())
        };
        let server = Server::bind_with(config, Clock::system()).await.unwrap();
        let addr = server.addr();
        let good = server.bootstrap_local().await.unwrap().unwrap();
        let good = good.api_key.expose().to_owned();
        let stop = CancellationToken::new();
        let served = tokio::spawn(server.serve(stop.clone()));
        let mut warm = Line::open(addr).await.unwrap();
        assert_eq!(buy(&mut warm, &good).await.unwrap().status, 200);
        let before = memory("VmRSS:");

        // when 200 connections try keys that look like keys,
        let flood = Flood::begin(addr, held_up_by);
        let (mut good_ones, mut most) = (Vec::new(), before);
        let until = Instant::now() + LASTS;
        // On a busy machine it takes longer until a flood is one.
        while Instant::now() < until || !flood.is_held_up() && Instant::now() < until + PATIENCE {
            let answer = buy(&mut warm, &good).await.unwrap();
            assert_eq!(answer.status, 200);
            good_ones.push(answer.took);
            most = most.max(memory("VmRSS:"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let flood = flood.end().await;

        // then the good key is served, and the process has not grown by more than it may.
        let grown = most - before;
        let cores = std::thread::available_parallelism().map_or(2, usize::from) as u64;
        println!(
            "held up by {what}: {} wrong keys hashed, {} turned away, half within {:?}, \
             99 of 100 within {:?}; {} good ones, 99 of 100 within {:?}; {} KiB more memory",
            flood.hashed,
            flood.refused.len(),
            nth(&flood.refused, 50),
            nth(&flood.refused, 99),
            good_ones.len(),
            nth(&good_ones, 99),
            grown / 1024,
        );
        assert!(nth(&good_ones, 99) < Duration::from_secs(1));
        assert!(grown <= cores * BLOCK + BESIDE, "{} MiB", grown / MIB);
        assert!(flood.refused.len() as u64 > flood.hashed, "a flood");
        let most_often = flood.statuses.iter().max_by_key(|(_, count)| **count);
        assert_eq!(most_often.map(|(status, _)| *status), Some(held_up_by));
        assert!(nth(&flood.refused, 50) < Duration::from_millis(50));
        stop.cancel();
        served.await.unwrap();
    }
}

/// What the flood met.
#[derive(Default)]
struct Met {
    hashed: u64,
    statuses: BTreeMap<u16, u64>,
    /// How long each refusal took.
    refused: Vec<Duration>,
}

struct Flood {
    stop: CancellationToken,
    held_up: Arc<AtomicU64>,
    lines: JoinSet<Met>,
}

impl Flood {
    fn begin(addr: SocketAddr, held_up_by: u16) -> Self {
        let stop = CancellationToken::new();
        let number = Arc::new(AtomicU64::new(0));
        let held_up = Arc::new(AtomicU64::new(0));
        let mut lines = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let told = HeldUp {
                by: held_up_by,
                count: Arc::clone(&held_up),
            };
            lines.spawn(flood(addr, stop.clone(), Arc::clone(&number), told));
        }
        Self {
            stop,
            held_up,
            lines,
        }
    }

    /// Whether what is to hold it up has done so more often than anything else could.
    fn is_held_up(&self) -> bool {
        self.held_up.load(Ordering::Relaxed) >= HELD_UP_MIN
    }

    async fn end(self) -> Met {
        self.stop.cancel();
        let all = self.lines.join_all().await;
        let mut whole = Met::default();
        for met in all {
            whole.hashed += met.hashed;
            whole.refused.extend(met.refused);
            for (status, count) in met.statuses {
                *whole.statuses.entry(status).or_default() += count;
            }
        }
        whole
    }
}

/// Counts refusals of one kind, of all connections.
struct HeldUp {
    by: u16,
    count: Arc<AtomicU64>,
}

async fn flood(
    addr: SocketAddr,
    stop: CancellationToken,
    number: Arc<AtomicU64>,
    held_up: HeldUp,
) -> Met {
    let mut met = Met::default();
    let mut line = Line::open(addr).await.unwrap();
    while !stop.is_cancelled() {
        let key = wrong_key(number.fetch_add(1, Ordering::Relaxed));
        let answer = buy(&mut line, &key).await.unwrap();
        *met.statuses.entry(answer.status).or_default() += 1;
        if answer.status == held_up.by {
            held_up.count.fetch_add(1, Ordering::Relaxed);
        }
        match answer.status {
            401 => met.hashed += 1,
            429 | 503 => {
                assert!(answer.head.contains("\nretry-after: "), "{}", answer.head);
                met.refused.push(answer.took);
            }
            other => panic!("{other}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    met
}

/// Tries to buy a token.
async fn buy(line: &mut Line, key: &str) -> io::Result<Answer> {
    line.post("/v1/tokens", key, "{}").await
}

fn config(dir: &Path) -> Config {
    let mut config = Config::new(dir);
    config.addr = "127.0.0.1:0".parse().unwrap();
    config
}

/// Of a hundred, in order.
fn nth(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[(times.len() - 1) * percent / 100]
}

/// Bytes, as the kernel counts them.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kib.parse::<u64>().unwrap() * 1024
}
