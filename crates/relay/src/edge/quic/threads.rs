//! The threads that QUIC lines run on, which rest a little each time that something has woken them.
//!
//! A line with slots brings a datagram every eighth of a second, whether it is used or not, and each
//! that wakes a thread by itself costs more for the waking than for the datagram. A thread that rests
//! finds several. The rest grows with the number of such lines: a few cost little and make nobody
//! wait, and many bring so much that a rest of [`REST_MAX`] is soon worth it. It shows a watcher
//! nothing: how many lines there are does not depend on what they carry.

use std::{
    io,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread::{available_parallelism, sleep},
    time::Duration,
};

use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime for all of one door's lines. When it is dropped, their tasks end where they stand.
#[derive(Debug)]
pub(super) struct Threads {
    /// Only the drop takes it.
    runtime: Option<Runtime>,
    handle: Handle,
    slotted: Slotted,
}

/// How many lines have slots.
#[derive(Debug, Clone, Default)]
pub(super) struct Slotted(Arc<AtomicU32>);

/// A line with slots.
#[derive(Debug)]
pub(super) struct SlottedLine(Slotted);

impl Threads {
    /// On half of the machine's cores: the archive and the other doors have threads of their own.
    pub(super) fn start() -> io::Result<Self> {
        let cores = available_parallelism().map_or(1, NonZeroUsize::get);
        let slotted = Slotted::default();
        let runtime = Builder::new_multi_thread()
            .worker_threads((cores / 2).max(1))
            .thread_name("relay-quic")
            .on_thread_unpark({
                let slotted = slotted.clone();
                move || slotted.rest()
            })
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
            slotted,
        })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(super) fn slotted(&self) -> Slotted {
        self.slotted.clone()
    }
}

impl Drop for Threads {
    /// Whoever drops it may be a task, which must not wait for threads.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Slotted {
    /// Counts a line until what is given back is dropped.
    pub(super) fn line(&self) -> SlottedLine {
        self.0.fetch_add(1, Ordering::Relaxed);
        SlottedLine(self.clone())
    }

    fn duration(&self) -> Duration {
        (REST_PER_LINE * self.0.load(Ordering::Relaxed)).min(REST_MAX)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the whole thread is to rest, not one task"
    )]
    fn rest(&self) {
        let rest = self.duration();
        if !rest.is_zero() {
            sleep(rest);
        }
    }
}

impl Drop for SlottedLine {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

const REST_PER_LINE: Duration = Duration::from_micros(20);
/// Of 200 lines. What comes in the meantime waits for this long, and where a timer has woken the
/// thread for twice as long.
const REST_MAX: Duration = Duration::from_millis(4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_grows_with_the_lines_that_there_are_up_to_its_limit() {
        let slotted = Slotted::default();
        assert!(slotted.duration().is_zero());
        let mut lines: Vec<SlottedLine> = (0..50).map(|_| slotted.line()).collect();
        assert_eq!(slotted.duration(), Duration::from_millis(1));
        lines.extend((0..950).map(|_| slotted.line()));
        assert_eq!(slotted.duration(), REST_MAX);
        lines.truncate(1);
        assert_eq!(slotted.duration(), REST_PER_LINE);
        lines.clear();
        assert!(slotted.duration().is_zero());
    }

    #[tokio::test]
    async fn a_task_may_drop_it() {
        let threads = Threads::start().unwrap();
        let ran = threads.handle().spawn(async { 7 }).await.unwrap();
        assert_eq!(ran, 7);
        drop(threads);
    }
}
