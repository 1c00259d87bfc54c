//! The beats of the thread that lines with slots run on: between two of them it sees and does nothing.
//!
//! The thread wakes on each beat, whatever goes on, and looks once what has come: a cell that came in is
//! acknowledged, a slot that is due is served, what an application handed over is taken. What comes while
//! it is at work waits for the next beat, as what comes while it sleeps does. So how long this program
//! takes to wake up and to answer, which differs by some millionths of a second with what else it does,
//! does not show as the time between two datagrams. Beats are drawn from a generator of their own, one in
//! each period: on a strict grid a watcher could take the remainder.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    thread::sleep,
    time::Duration,
};

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use tokio::{
    runtime::{Builder, Runtime},
    sync::Notify,
    time::Instant,
};

/// Shared by the thread, which waits for beats, and its lines, which say whether there are any.
///
/// An [`Agent`](crate::Agent) has its own. Public for who drives lines without one, to measure a relay
/// under agents that keep time as agents do.
#[derive(Debug, Clone)]
pub struct Beats {
    state: Arc<Mutex<State>>,
    waited: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    began: Instant,
    /// The periods that lines have asked for, in microseconds. The shortest holds.
    held: Vec<u64>,
    grid: Grid,
}

/// One instant in each period, in microseconds since the thread began.
#[derive(Debug)]
struct Grid {
    rng: ChaCha8Rng,
    /// The last beat that was drawn, and the length of its period.
    drawn: u64,
    period: u64,
}

/// A line with slots. Without any the thread does everything at once.
#[derive(Debug)]
pub struct Held {
    beats: Beats,
    period: u64,
}

impl Beats {
    /// None until a line asks for them.
    pub fn new(rng: ChaCha8Rng) -> Self {
        let state = State {
            began: Instant::now(),
            held: Vec::new(),
            grid: Grid {
                rng,
                drawn: 0,
                period: 0,
            },
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            waited: Arc::default(),
        }
    }

    /// A runtime whose one thread works on these beats.
    ///
    /// # Errors
    ///
    /// The system has no descriptors left.
    pub fn runtime(&self) -> std::io::Result<Runtime> {
        let parking = self.clone();
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_park(move || parking.wait())
            // Between two beats nothing is looked at, however much there is to do.
            .event_interval(u32::MAX)
            .build()?;
        let waited = Arc::clone(&self.waited);
        // A thread that finds something to do when it is about to park does not wait: it looks at sockets
        // and timers once, and goes on.
        runtime.spawn(async move {
            loop {
                waited.notified().await;
                // Whoever looks at a socket does so now, and whoever answers does it afterwards.
                turn().await;
                rest();
            }
        });
        Ok(runtime)
    }

    /// From now on a beat in each period, until what is given back is dropped.
    pub fn hold(&self, period: Duration) -> Held {
        let period = micros(period).max(1);
        self.with(|state| state.held.push(period));
        Held {
            beats: self.clone(),
            period,
        }
    }

    /// Sleeps until the next beat, and has it looked then what has come: for the thread, each time that
    /// it has done everything.
    #[expect(
        clippy::disallowed_methods,
        reason = "all that runs on the thread is to wait, not one task"
    )]
    fn wait(&self) {
        let rest = self.with(|state| {
            let period = state.held.iter().min().copied()?;
            let now = micros(state.began.elapsed());
            Some(state.grid.next(now, period) - now)
        });
        if let Some(rest) = rest {
            sleep(Duration::from_micros(rest));
            self.waited.notify_one();
        }
    }

    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.beats.with(|state| {
            let at = state.held.iter().position(|held| *held == self.period);
            if let Some(at) = at {
                state.held.swap_remove(at);
            }
        });
    }
}

/// Between looking and answering. An acknowledgement names the time since its packet was read, and a
/// time above 512 µs takes a byte more: were it near that, its length would show how busy the machine is
/// with what else this program does.
#[expect(
    clippy::disallowed_methods,
    reason = "all that runs on the thread is to wait, not one task"
)]
fn rest() {
    sleep(REST);
}

/// Gives the other tasks of the thread a turn. The runtime's own way to yield would look at sockets and
/// timers on the occasion: between two beats.
pub(super) async fn turn() {
    let mut had = false;
    poll_fn(|context| {
        if had {
            return Poll::Ready(());
        }
        had = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Above what fits into one byte (RFC 9000, 16 and 19.3, with the usual exponent of 3), and far below
/// what takes four.
const REST: Duration = Duration::from_micros(700);

fn micros(passed: Duration) -> u64 {
    u64::try_from(passed.as_micros()).unwrap_or(u64::MAX)
}

impl Grid {
    /// The first beat after `now`: less than two periods away.
    fn next(&mut self, now: u64, period: u64) -> u64 {
        if self.period != period {
            (self.drawn, self.period) = (0, period);
        }
        while self.drawn <= now {
            // Periods in which nobody asked have their beats too; nobody needs to know them.
            let index = (self.drawn / period + 1).max(now / period);
            self.drawn = index * period + self.rng.random_range(0..period);
        }
        self.drawn
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use rand::SeedableRng as _;
    use tokio::sync::mpsc;

    use super::*;

    const PERIOD: u64 = 20_000;

    fn grid(seed: u64) -> Grid {
        Grid {
            rng: ChaCha8Rng::seed_from_u64(seed),
            drawn: 0,
            period: 0,
        }
    }

    #[test]
    fn each_period_has_one_beat_and_no_two_lie_alike() {
        let mut grid = grid(1);
        let mut now = 5 * PERIOD;
        let mut places = Vec::new();
        for index in 0..1_000 {
            let next = grid.next(now, PERIOD);
            assert!(next > now && next < now + 2 * PERIOD);
            if index > 0 {
                assert_eq!(next / PERIOD, now / PERIOD + 1);
            }
            places.push(next % PERIOD);
            now = next;
        }
        places.sort_unstable();
        // A thousand even draws all in one half: a chance of 2 in 2^1000.
        assert!(places[0] < PERIOD / 2 && places[999] >= PERIOD / 2);
    }

    #[test]
    fn who_wakes_often_sees_the_same_beats() {
        let mut grid = grid(2);
        let next = grid.next(7 * PERIOD, PERIOD);
        for now in 7 * PERIOD..next {
            assert_eq!(grid.next(now, PERIOD), next);
        }
        assert!(grid.next(next, PERIOD) > next);
    }

    #[test]
    fn after_a_long_silence_the_next_beat_is_near() {
        let mut grid = grid(3);
        let _ = grid.next(0, PERIOD);
        let now = 1_000_000 * PERIOD + 3;
        assert!(grid.next(now, PERIOD) < now + 2 * PERIOD);
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the thread of the runtime is to be busy"
    )]
    fn what_comes_is_seen_at_the_next_beat_however_busy_the_thread_is() {
        let beats = Beats::new(ChaCha8Rng::seed_from_u64(5));
        let runtime = beats.runtime().unwrap();
        let _held = beats.hold(Duration::from_millis(100));
        let to_us = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        to_us.set_nonblocking(true).unwrap();
        let addr = to_us.local_addr().unwrap();
        let from = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let beat = move || beats.with(|state| state.grid.drawn);
        let line = runtime.spawn(async move {
            let to_us = tokio::net::UdpSocket::from_std(to_us).unwrap();
            let (heard, mut seen) = mpsc::channel(1);
            tokio::spawn(async move {
                let mut cell = [0; 4];
                while to_us.recv(&mut cell).await.is_ok() {
                    heard.send(()).await.unwrap();
                }
            });
            for _ in 0..10 {
                let now = beat();
                from.send_to(b"cell", addr).unwrap();
                sleep(Duration::from_millis(5));
                for _ in 0..1000 {
                    turn().await;
                }
                assert_eq!(beat(), now);
                assert!(seen.try_recv().is_err());
                seen.recv().await.unwrap();
                assert!(beat() > now);
            }
        });
        runtime.block_on(line).unwrap();
    }

    #[test]
    fn beats_are_there_while_a_line_wants_them_and_the_shortest_period_holds() {
        let beats = Beats::new(ChaCha8Rng::seed_from_u64(4));
        let period = || beats.with(|state| state.held.iter().min().copied());
        assert_eq!(period(), None);
        let slow = beats.hold(Duration::from_millis(20));
        let fast = beats.hold(Duration::from_millis(5));
        assert_eq!(period(), Some(5_000));
        drop(fast);
        assert_eq!(period(), Some(20_000));
        drop(slow);
        assert_eq!(period(), None);
    }
}
