//! Thousands of schedules, each from a seed: `SKYTALE_SEED=n cargo test -p skytale-tests --test sim
//! -- --nocapture` replays one.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use skytale_tests::sim::{Counters, World, world::TRACE};

/// Schedules of an ordinary run; `SKYTALE_SCHEDULES` asks for more.
const SCHEDULES: u64 = 2_000;

#[test]
fn honest_agents_agree_whatever_the_network_does() {
    #[expect(clippy::disallowed_methods, reason = "a test's own switch")]
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    if let Some(seed) = number("SKYTALE_SEED") {
        TRACE.set(true);
        let outcome = World::run(seed);
        println!("trace {} {:#?}", outcome.trace, outcome.counters);
        assert!(
            outcome.broken.is_empty(),
            "seed {seed}: {:#?}",
            outcome.broken
        );
        return;
    }
    let schedules = number("SKYTALE_SCHEDULES").unwrap_or(SCHEDULES);
    let next = AtomicU64::new(0);
    let all = Mutex::new((Counters::default(), Vec::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= schedules || all.lock().unwrap().1.len() >= 5 {
                        return;
                    }
                    let outcome = std::panic::catch_unwind(|| World::run(seed));
                    let mut all = all.lock().unwrap();
                    match outcome {
                        Ok(outcome) => {
                            all.0.merge(&outcome.counters);
                            if !outcome.broken.is_empty() {
                                all.1.push((seed, outcome.broken));
                            }
                        }
                        Err(_) => all.1.push((seed, vec!["panicked".into()])),
                    }
                }
            });
        }
    });
    let (counters, broken) = all.into_inner().unwrap();
    for (seed, what) in &broken {
        println!(
            "SKYTALE_SEED={seed} cargo test -p skytale-tests --test sim honest -- --nocapture\n  {}",
            what.join("\n  ")
        );
    }
    println!("{counters:#?}");
    assert!(broken.is_empty(), "{} schedules failed", broken.len());
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..10 {
        assert_eq!(
            World::run(seed).trace,
            World::run(seed).trace,
            "seed {seed}"
        );
    }
}
