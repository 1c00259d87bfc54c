//! The short form of judging the traffic hiding: do lines of silent and of busy agents differ in what
//! a watcher counts? The long form, with classifiers, is `scripts/traffic`.
//!
//! Twenty silent and twenty busy lines of one run are compared by eight sums ([`SUMS`]), each by the
//! exact test of Mann and Whitney: what is the chance that ranks part so far when the labels mean
//! nothing? Eight times the smallest of these chances (Bonferroni) must not be below [`ALARM`], so a
//! run in which nothing is to be seen fails with a chance below one in a thousand. With these
//! numbers of lines that is an AUC beyond 0.84 in either direction for one of the sums. It is no
//! proof that nothing is seen; the tests below show which leaks it catches. Since only ranks within one run
//! count, a machine that is slow is slow for both and changes nothing.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]
#![allow(clippy::print_stdout, reason = "the figures of a run")]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use skytale_shape::{Bulk, Micros, Mode, Preset, Shape, Shaper};

/// One datagram: when in microseconds, its length, and whether it came from the relay.
type Datagram = (u64, u64, bool);

type Sum = fn(&[Datagram]) -> f64;

#[test]
fn silent_and_busy_lines_cannot_be_told_apart_on_the_wire() {
    let dir = tempfile::tempdir().unwrap();
    // Both at once: the control is in the same weather.
    let labs = ["swift", "padded"].map(|mode| {
        Command::new(env!("CARGO_BIN_EXE_traffic_lab"))
            .args(["--mode", mode, "--agents", "40", "--workloads", "tools"])
            .args(["--seconds", "20", "--settle", "5", "--seed", "1"])
            .arg("--out")
            .arg(dir.path().join(mode))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let ended = labs.map(|lab| lab.wait_with_output().unwrap());
    for lab in &ended {
        let said = String::from_utf8_lossy(&lab.stderr);
        assert!(lab.status.success(), "{said}");
    }
    let hidden = Watched::read(&dir.path().join("swift"));
    let plain = Watched::read(&dir.path().join("padded"));

    println!("hidden: {hidden:?}\nplain: {plain:?}");
    assert!(hidden.messages > 0 && plain.messages > 0, "they were busy");
    assert!(
        // A machine that does other things too lets them say less, and so shows less.
        plain.chance() < ALARM / 10.0,
        "the control: what is plain to see is not seen"
    );
    assert!(
        hidden.chance() >= ALARM,
        "by ranks alone busy lines are told from silent ones"
    );
    // Which of both comes first is settled by the agent, not by chance: without that it is one in a
    // hundred, and more on busy lines.
    assert!(
        hidden.riding < RIDING,
        "cells carry acknowledgements, or not, as it happens"
    );
}

#[test]
fn a_slotted_schedule_raises_no_alarm_and_leaks_do() {
    // 100 runs without a leak: were the chance of an alarm a thousandth each, three or more would come
    // with a chance of 2e-4 over the choice of seeds.
    for shape in [Preset::Swift.shape(), Preset::Maximum.shape()] {
        let alarms = (0..100).filter(|seed| {
            let chance = simulated(shape, Bulk::Wait, *seed).chance();
            chance < ALARM
        });
        assert!(alarms.count() < 3, "{shape:?}");
    }

    let now = Preset::Swift.shape().with_bulk(Bulk::Now).unwrap();
    for leaky in [now, Shape::new(Mode::Padded), Shape::new(Mode::Immediate)] {
        for seed in 0..10 {
            let seen = simulated(leaky, Bulk::Now, seed);
            assert!(seen.chance() < ALARM, "{leaky:?}: {seen:?}");
        }
    }
}

#[test]
fn chances_are_those_of_all_orders() {
    // Of two and two there are six orders, of which one has both large ones last.
    assert!((chance_of(&[1.0, 2.0], &[3.0, 4.0]) - 2.0 / 6.0).abs() < 1e-12);
    assert!((chance_of(&[3.0, 4.0], &[1.0, 2.0]) - 2.0 / 6.0).abs() < 1e-12);
    // Of three and two there are ten: U is 0, 1, 2, 2, 3, 3, 4, 4, 5, 6.
    assert!((chance_of(&[1.0, 2.0, 4.0], &[3.0, 5.0]) - 4.0 / 10.0).abs() < 1e-12);
    // What is all the same says nothing.
    assert!((chance_of(&[7.0; 20], &[7.0; 20]) - 1.0).abs() < 1e-12);
    // Twenty and twenty: the bound that the head of this file states.
    let orders = orders(20, 20);
    let all: f64 = orders.iter().sum();
    let beyond = |u: usize| 2.0 * orders[u..].iter().sum::<f64>() / all;
    let bound = (0..orders.len())
        .find(|u| 8.0 * beyond(*u) < ALARM)
        .unwrap();
    assert_eq!(bound * 100 / 400, 84);
}

/// What was seen of the lines of a run.
#[derive(Debug)]
struct Watched {
    messages: usize,
    /// Of the agents' datagrams that hold a cell, the part that holds something beside it.
    riding: f64,
    /// For each sum its name, the AUC and the chance.
    found: Vec<(&'static str, f64, f64)>,
}

impl Watched {
    fn new(messages: usize, idle_lines: &[Vec<Datagram>], busy_lines: &[Vec<Datagram>]) -> Self {
        let found = SUMS.map(|(name, sum)| {
            let of = |lines: &[Vec<Datagram>]| -> Vec<f64> {
                lines.iter().map(|line| sum(line)).collect()
            };
            let (idle, busy) = (of(idle_lines), of(busy_lines));
            let auc = wins(&idle, &busy) / count(idle.len() * busy.len());
            (name, auc, chance_of(&idle, &busy))
        });
        let lines = || idle_lines.iter().chain(busy_lines);
        Self {
            messages,
            riding: riding(lines().flatten()),
            found: found.to_vec(),
        }
    }

    /// A run that `traffic_lab` has left.
    fn read(dir: &Path) -> Self {
        let text = fs::read_to_string(dir.join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_str(&text).unwrap();
        let number = |name: &str| manifest[name].as_u64().unwrap();
        let (begin, end) = (number("begin_us"), number("end_us"));
        let (mut idle, mut busy, mut messages) = (Vec::new(), Vec::new(), 0);
        for line in manifest["lines"].as_array().unwrap() {
            let capture = fs::read(dir.join(line["capture"].as_str().unwrap())).unwrap();
            let seen = capture
                .as_chunks::<8>()
                .0
                .iter()
                .map(|entry| u64::from_le_bytes(*entry))
                .map(|entry| (entry >> 17, entry & 0xffff, entry >> 16 & 1 == 1))
                .filter(|(at, _, _)| (begin..end).contains(at))
                .map(|(at, len, down)| (at - begin, len, down))
                .collect();
            messages += line["received"].as_array().unwrap().len();
            if line["workload"] == "idle" {
                idle.push(seen);
            } else {
                busy.push(seen);
            }
        }
        assert_eq!((idle.len(), busy.len()), (20, 20));
        Self::new(messages, &idle, &busy)
    }

    /// That labels without a meaning part as far as this for any of the sums; an upper bound.
    fn chance(&self) -> f64 {
        let least = self.found.iter().map(|(_, _, chance)| *chance);
        least.fold(1.0, f64::min) * count(self.found.len())
    }
}

/// What is compared: how much there is, and how unevenly it comes. Squares of bytes in a quarter
/// of a second grow when a burst is added, and when what was apart comes together.
const SUMS: [(&str, Sum); 8] = [
    ("datagrams up", |line| datagrams(line, false)),
    ("datagrams down", |line| datagrams(line, true)),
    ("bytes up", |line| bytes(line, false)),
    ("bytes down", |line| bytes(line, true)),
    ("bursts up", |line| bursts(line, false)),
    ("bursts down", |line| bursts(line, true)),
    ("close up", |line| close(line, false)),
    ("close down", |line| close(line, true)),
];

/// A datagram that holds a cell and nothing else has the commonest of the long lengths; with an
/// acknowledgement it is a little longer.
fn riding<'a>(datagrams: impl Iterator<Item = &'a Datagram>) -> f64 {
    let mut lens: BTreeMap<u64, usize> = BTreeMap::new();
    for (_, len, _) in datagrams.filter(|it| !it.2 && it.1 > 600) {
        *lens.entry(*len).or_default() += 1;
    }
    let Some((cell, alone)) = lens.iter().max_by_key(|(_, count)| **count) else {
        return 0.0;
    };
    let beside: usize = lens
        .range(cell + 1..cell + 60)
        .map(|(_, count)| count)
        .sum();
    count(beside) / count(*alone)
}

fn datagrams(line: &[Datagram], down: bool) -> f64 {
    count(line.iter().filter(|it| it.2 == down).count())
}

fn bytes(line: &[Datagram], down: bool) -> f64 {
    let lens = line.iter().filter(|it| it.2 == down).map(|it| it.1);
    whole(lens.sum())
}

fn bursts(line: &[Datagram], down: bool) -> f64 {
    let mut quarters: Vec<u64> = Vec::new();
    for (at, len, _) in line.iter().filter(|it| it.2 == down) {
        let quarter = usize::try_from(at / 250_000).unwrap();
        quarters.resize(quarters.len().max(quarter + 1), 0);
        quarters[quarter] += len;
    }
    quarters.iter().map(|sum| whole(*sum) * whole(*sum)).sum()
}

/// Datagrams that follow the one before within two milliseconds: slots are further apart.
fn close(line: &[Datagram], down: bool) -> f64 {
    let times: Vec<u64> = line
        .iter()
        .filter(|it| it.2 == down)
        .map(|it| it.0)
        .collect();
    count(
        times
            .windows(2)
            .filter(|two| two[1] - two[0] < 2_000)
            .count(),
    )
}

/// In how many of all pairs the second is larger; halves for equal ones.
fn wins(first: &[f64], second: &[f64]) -> f64 {
    let pairs = first
        .iter()
        .flat_map(|a| second.iter().map(move |b| (a, b)));
    pairs
        .map(|(a, b)| match a.total_cmp(b) {
            std::cmp::Ordering::Less => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Greater => 0.0,
        })
        .sum()
}

/// The chance, in either direction, that labels without a meaning part the ranks so far. Equal
/// values make the truth smaller than what is said here.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most the number of pairs"
)]
fn chance_of(first: &[f64], second: &[f64]) -> f64 {
    let won = wins(first, second);
    let pairs = first.len() * second.len();
    let far = won.max(count(pairs) - won).floor() as usize;
    let orders = orders(first.len(), second.len());
    let beyond: f64 = orders[far..].iter().sum();
    (2.0 * beyond / orders.iter().sum::<f64>()).min(1.0)
}

/// For each number of won pairs, in how many orders of `n` and `m` it comes about.
fn orders(n: usize, m: usize) -> Vec<f64> {
    // The largest of all belongs to the second kind and wins against all `n`, or to the first and
    // wins nothing.
    let mut row: Vec<Vec<f64>> = vec![vec![1.0]; m + 1];
    for n in 1..=n {
        let mut next = vec![vec![1.0]];
        for m in 1..=m {
            let mut ways = vec![0.0; n * m + 1];
            for (won, way) in row[m].iter().enumerate() {
                ways[won] += way;
            }
            for (won, way) in next[m - 1].iter().enumerate() {
                ways[won + n] += way;
            }
            next.push(ways);
        }
        row = next;
    }
    row.swap_remove(m)
}

/// Twenty silent lines and twenty busy ones, for 20 s, as their shapers alone would make them.
fn simulated(shape: Shape, bulk: Bulk, seed: u64) -> Watched {
    let line = |number: u64, is_busy: bool| {
        let mut seen = Vec::new();
        for (down, way) in [(false, 0), (true, 1)] {
            let rng = |part| ChaCha8Rng::seed_from_u64(seed << 16 | number << 8 | way << 4 | part);
            let mut shaper = Shaper::new(shape, rng(1), rng(2), Micros::new(0));
            let mut frames: Vec<u64> = if is_busy {
                // Every third second a burst of frames.
                (0..20).step_by(3).map(|s| s * 1_000_000 + 17).collect()
            } else {
                Vec::new()
            };
            frames.reverse();
            while let Some(at) = soonest(shaper.next_wake(), frames.last()) {
                if at >= 20_000_000 {
                    break;
                }
                if frames.last() == Some(&at) {
                    frames.pop();
                    for _ in 0..3 {
                        shaper.push(&[0; 700], bulk).unwrap();
                    }
                }
                let mut out = Vec::new();
                let passed = shaper.advance(Micros::new(at), &mut out);
                let cells = passed.cells().max(1);
                let len = passed.bytes() / cells;
                seen.extend((0..passed.cells()).map(|_| (at, len + 34, down)));
            }
        }
        seen
    };
    let idle: Vec<_> = (0..20).map(|number| line(number, false)).collect();
    let busy: Vec<_> = (20..40).map(|number| line(number, true)).collect();
    Watched::new(1, &idle, &busy)
}

fn soonest(wake: Option<Micros>, frame: Option<&u64>) -> Option<u64> {
    wake.map(Micros::get)
        .into_iter()
        .chain(frame.copied())
        .min()
}

fn count(number: usize) -> f64 {
    whole(u64::try_from(number).unwrap())
}

#[expect(clippy::cast_precision_loss, reason = "numbers far below 2^53")]
fn whole(number: u64) -> f64 {
    number as f64
}

/// Below this chance a run fails.
const ALARM: f64 = 0.001;
/// So few of an agent's cells may have something beside them.
const RIDING: f64 = 0.003;
