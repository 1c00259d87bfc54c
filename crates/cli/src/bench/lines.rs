//! What lines with a schedule cost a relay that nobody says anything to, and how that grows.
//!
//! Beside it stands, in the same seconds and on the same machine, a second relay with as many padded
//! connections that are idle: what is left between the two is the price of the schedule.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use skytale_sdk::{Beats, Mode, RelayAddr, Shape};
use skytale_shape::{Micros, Shaper};
use tempfile::TempDir;
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Effort, Figure,
    client::{Client, Issuer, Reader, Writer, random},
    idle, number,
    parts::{Part, RelayIs, Role},
};
use crate::exit::Failure;

pub(super) async fn measure(effort: Effort) -> Result<Vec<Figure>, Failure> {
    let issuer = Arc::new(Issuer::new()?);
    let shape = Shape::new(Mode::Adaptive);
    let shaped = House::open(&issuer).await?;
    let quiet = House::open(&issuer).await?;
    let counts = Arc::new(Counts::default());
    let mut lines = JoinSet::new();
    let stop = CancellationToken::new();
    // Threads cannot be aborted: whatever goes wrong here, they must hear of it.
    let running = stop.clone().drop_guard();
    let mut idle_ones = Vec::new();
    let mut figures = Vec::new();
    let mut steps = Vec::new();
    for wanted in effort.shaped_lines {
        while lines.len() < *wanted as usize {
            let (up, is_up) = oneshot::channel();
            let line = Line {
                relay: shaped.addr.clone(),
                issuer: Arc::clone(&issuer),
                shape,
                counts: Arc::clone(&counts),
                stop: stop.clone(),
            };
            lines.spawn_blocking(|| line.live(up));
            if is_up.await.is_err() {
                return Err(first_end(&mut lines).await);
            }
        }
        while idle_ones.len() < *wanted as usize {
            idle_ones.push(idle::connected(&quiet.addr, &issuer).await?);
        }
        let watched = async {
            sleep(SETTLE).await;
            watch(&shaped, &quiet, &counts, effort.shaped_seconds).await
        };
        let watched = tokio::select! {
            watched = watched => watched,
            failure = first_end(&mut lines) => return Err(failure),
        };
        let Some(watched) = watched else {
            // This system does not say what a process uses.
            break;
        };
        figures.extend(watched.figures(*wanted, &shape));
        steps.push((f64::from(*wanted), watched.share(&watched.shaped)));
    }
    drop(running);
    lines.join_all().await;
    let closing: JoinSet<()> = idle_ones.into_iter().map(Client::close).collect();
    closing.join_all().await;
    shaped.close().await?;
    quiet.close().await?;
    if let Some(each) = slope(&steps) {
        figures.push(
            Figure::new(
                "lines",
                "each further 100 lines",
                each * 100.0,
                "% of a core",
            )
            .note("by the straight line that fits the steps above best"),
        );
    }
    Ok(figures)
}

/// A relay in a process of its own, and its directory.
struct House {
    relay: Part,
    addr: RelayAddr,
    dir: TempDir,
}

impl House {
    async fn open(issuer: &Issuer) -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let role = Role::Relay {
            dir: dir.path().join("relay"),
            keys: issuer.keys(),
        };
        let (relay, is): (_, RelayIs) = Part::start(&role).await?;
        Ok(Self {
            relay,
            addr: is.relay.parse()?,
            dir,
        })
    }

    /// What the system says of its relay so far.
    fn used(&self) -> Option<Used> {
        Some(Used {
            cpu: self.relay.cpu_time()?,
            wakes: self.relay.wakes()?,
        })
    }

    async fn close(self) -> Result<(), Failure> {
        self.relay.end().await?;
        Ok(self.dir.close()?)
    }
}

#[derive(Debug, Clone, Copy)]
struct Used {
    cpu: Duration,
    wakes: u64,
}

impl Used {
    fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            wakes: self.wakes.saturating_sub(before.wakes),
        }
    }
}

/// One step: what both relays used in the same stretch of time.
struct Watched {
    took: Duration,
    shaped: Used,
    quiet: Used,
    /// Cells from the relay and to it.
    cells: [u64; 2],
}

async fn watch(shaped: &House, quiet: &House, counts: &Counts, seconds: u64) -> Option<Watched> {
    let (begun, cells) = (Instant::now(), counts.now());
    let before = (shaped.used()?, quiet.used()?);
    sleep(Duration::from_secs(seconds)).await;
    let after = (shaped.used()?, quiet.used()?);
    let later = counts.now();
    Some(Watched {
        took: begun.elapsed(),
        shaped: after.0.since(before.0),
        quiet: after.1.since(before.1),
        cells: [later[0] - cells[0], later[1] - cells[1]],
    })
}

impl Watched {
    /// Of one core, in hundredths.
    fn share(&self, used: &Used) -> f64 {
        used.cpu.as_secs_f64() / self.took.as_secs_f64() * 100.0
    }

    fn figures(&self, lines: u32, shape: &Shape) -> Vec<Figure> {
        let seconds = self.took.as_secs_f64();
        let rate = f64::from(shape.millislots()) / 1_000.0;
        let per_line = |count: u64| number(count) / seconds / f64::from(lines);
        let [from, to] = self.cells.map(per_line);
        let wanted = if lines == JUDGED { "; wanted: 10" } else { "" };
        let each = self.shaped.cpu.as_secs_f64() * 1e6 / number(self.cells.iter().sum::<u64>());
        vec![
            Figure::new(
                "lines",
                format!("relay with {lines} lines, adaptive at {rate}/s"),
                self.share(&self.shaped),
                "% of a core",
            )
            .note(format!(
                "{from:.2} cells/s a line from it, {to:.2} to it, {:.0} wake-ups/s, {seconds:.0} s{wanted}",
                number(self.shaped.wakes) / seconds
            )),
            Figure::new("lines", format!("a cell, with {lines} lines"), each, "µs of CPU")
                .note("all that the relay used, over all cells of both directions"),
            Figure::new(
                "lines",
                format!("relay with {lines} padded connections, idle"),
                self.share(&self.quiet),
                "% of a core",
            )
            .note("the same seconds, a relay of its own"),
        ]
    }
}

/// An agent's line on a thread of its own, which sees the world on its beats only.
struct Line {
    relay: RelayAddr,
    issuer: Arc<Issuer>,
    shape: Shape,
    counts: Arc<Counts>,
    stop: CancellationToken,
}

impl Line {
    /// Until it is stopped; `up` is told when the relay has let it in.
    fn live(self, up: oneshot::Sender<()>) -> Result<(), Failure> {
        let beats = Beats::new(ChaCha8Rng::from_seed(random()?));
        beats.runtime()?.block_on(async {
            let client = Client::connect_shaped(&self.relay, &self.issuer, &self.shape).await?;
            let (reader, writer, open) = client.split();
            // Whoever started it may have given up.
            let _ = up.send(());
            let held = self.shape.beat().map(|period| beats.hold(period));
            let ended = tokio::select! {
                ended = send(writer, self.shape, Arc::clone(&self.counts)) => ended,
                ended = receive(reader, Arc::clone(&self.counts)) => ended,
                () = self.stop.cancelled() => Ok(()),
            };
            drop(held);
            open.close().await;
            ended
        })
    }
}

/// Why the first line that ended did.
async fn first_end(lines: &mut JoinSet<Result<(), Failure>>) -> Failure {
    match lines.join_next().await {
        Some(Ok(Err(failure))) => failure,
        Some(Ok(Ok(())) | Err(_)) | None => Failure::failed("a line has ended early"),
    }
}

/// Keeps to the schedule with cover alone, as an agent that has nothing to say.
async fn send(mut writer: Writer, shape: Shape, counts: Arc<Counts>) -> Result<(), Failure> {
    let rng = || random().map(ChaCha8Rng::from_seed);
    let mut shaper = Shaper::new(shape, rng()?, rng()?, Micros::new(0));
    let began = Instant::now();
    let mut cells = Vec::new();
    while let Some(at) = shaper.next_wake() {
        sleep_until(began + Duration::from_micros(at.get())).await;
        let now = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let passed = shaper.advance(Micros::new(now), &mut cells);
        writer.cells(&cells).await?;
        cells.clear();
        counts.to_relay.fetch_add(passed.cells(), Ordering::Relaxed);
    }
    Ok(())
}

/// Counts what comes, for ever.
async fn receive(mut reader: Reader, counts: Arc<Counts>) -> Result<(), Failure> {
    let mut seen = 0;
    loop {
        reader.next_encoded(|_| Ok(())).await?;
        let covers = reader.covers();
        counts
            .from_relay
            .fetch_add(covers - seen, Ordering::Relaxed);
        seen = covers;
    }
}

#[derive(Default)]
struct Counts {
    from_relay: AtomicU64,
    to_relay: AtomicU64,
}

impl Counts {
    fn now(&self) -> [u64; 2] {
        [&self.from_relay, &self.to_relay].map(|count| count.load(Ordering::Relaxed))
    }
}

/// The slope of the straight line with the least squares.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = number(points.len() as u64);
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let along: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let both: f64 = (points.iter())
        .map(|point| (point.0 - x) * (point.1 - y))
        .sum();
    (points.len() > 1 && along > 0.0).then(|| both / along)
}

/// So many lines shall cost no more than a tenth of a core.
const JUDGED: u32 = 200;
/// Handshakes and what they bring about are over by then.
const SETTLE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_the_slope_of_what_was_measured() {
        let line = [(50.0, 3.0), (100.0, 4.0), (200.0, 6.0), (400.0, 10.0)];

        assert!((slope(&line).unwrap() - 0.02).abs() < 1e-12);
        assert!(slope(&line[..1]).is_none());
        assert!(slope(&[]).is_none());
    }
}
