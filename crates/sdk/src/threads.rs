//! The threads of an open agent, and who waits for their end.
//!
//! A thread that works in SQLCipher while the C library clears away what SQLCipher needs crashes
//! the process (tried: about one in twenty-five programs that returned from `main` without closing
//! their agent). So no thread of ours outlives the runtime that the agent was opened in:
//!
//! | what ends | who waits for the threads |
//! |---|---|
//! | the agent, by `close` | the caller, without blocking its thread |
//! | the last handle, outside any runtime | the drop |
//! | the last handle, inside a runtime | not the drop, which would hold up other tasks, but the runtime's end |
//! | the runtime, handles or not | its end |
//!
//! Left out: `std::process::exit`, and a runtime that is shut down in the background. Both mean
//! not to wait.

use std::{
    cell::Cell,
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, PoisonError, mpsc as blocking},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle as TaskHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// All threads of one agent. Dropping it tells them to end.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    /// Ends when they have ended.
    keeper: Mutex<Option<TaskHandle<()>>>,
}

struct Shared {
    /// After a fork the threads are the parent's.
    pid: u32,
    stop: CancellationToken,
    running: Mutex<Vec<Running>>,
    /// What each thread holds a clone of. `None` once no further one may start.
    alive: Mutex<Option<mpsc::Sender<Infallible>>>,
}

struct Running {
    thread: JoinHandle<()>,
    /// Disconnected at its end: a thread cannot be joined for a limited time.
    ended: blocking::Receiver<Infallible>,
}

impl Threads {
    /// None yet. The end of `runtime` will end them all and wait.
    pub(crate) fn new(runtime: &Handle) -> Self {
        let (alive, mut nobody) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            pid: std::process::id(),
            stop: CancellationToken::new(),
            running: Mutex::default(),
            alive: Mutex::new(Some(alive)),
        });
        let keeper = Keeper(Arc::clone(&shared));
        let keeper = runtime.spawn(async move {
            let _keeper = keeper;
            // Nothing ever comes but the end.
            let _ = nobody.recv().await;
        });
        Self {
            shared,
            keeper: Mutex::new(Some(keeper)),
        }
    }

    /// Cancelled when the threads shall end without waiting for anything.
    pub(crate) fn stop_token(&self) -> CancellationToken {
        self.shared.stop.clone()
    }

    pub(crate) fn spawn(
        &self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), Error> {
        let alive = lock(&self.shared.alive).clone().ok_or_else(Error::closed)?;
        let (tell, ended) = blocking::channel();
        // Held until it is listed: whoever joins must find it.
        let mut running = lock(&self.shared.running);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _until_the_end = (tell, alive);
                IS_OURS.set(true);
                body();
            })
            .map_err(|_| Error::unreachable("this machine has no room for another thread"))?;
        running.push(Running { thread, ended });
        Ok(())
    }

    /// Tells them to end and waits until they have.
    pub(crate) async fn end(&self) {
        self.shared.stop();
        let keeper = lock(&self.keeper).take();
        if let Some(keeper) = keeper {
            // It fails when the runtime has ended, and then so have they.
            let _ = timeout(END_MAX, keeper).await;
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop();
        if Handle::try_current().is_err() {
            self.shared.join();
        }
    }
}

/// Belongs to the runtime: dropped when the threads have ended, or when the runtime does.
struct Keeper(Arc<Shared>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.stop();
        self.0.join();
    }
}

impl Shared {
    fn stop(&self) {
        if std::process::id() != self.pid {
            return;
        }
        lock(&self.alive).take();
        self.stop.cancel();
    }

    /// Waits, but not for ever: a disk that hangs must not keep a program from ending. None of
    /// the threads waits for itself, nor for one that waits for it.
    fn join(&self) {
        if IS_OURS.get() || std::process::id() != self.pid {
            return;
        }
        let mut running = lock(&self.running);
        while let Some(Running { thread, ended }) = running.pop() {
            if ended.recv_timeout(END_MAX) == Err(blocking::RecvTimeoutError::Timeout) {
                tracing::warn!("a thread of the agent does not end; it is left behind");
                continue;
            }
            // What is left of it takes no time. If it panicked, that was printed.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads")
            .field("stopped", &self.shared.stop.is_cancelled())
            .finish_non_exhaustive()
    }
}

thread_local! {
    /// Whether this is a thread of an agent.
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread ends within milliseconds, unless its statement waits for another process's write.
const END_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    /// A thread that ends when it is told to, and then says so.
    fn one(threads: &Threads) -> Arc<AtomicBool> {
        let has_ended = Arc::new(AtomicBool::new(false));
        let (stop, ended) = (threads.stop_token(), Arc::clone(&has_ended));
        let body = move || {
            let runtime = Builder::new_current_thread().build().unwrap();
            runtime.block_on(stop.cancelled());
            ended.store(true, Ordering::SeqCst);
        };
        threads.spawn("one", body).unwrap();
        has_ended
    }

    fn runtimes() -> [Runtime; 2] {
        [
            Builder::new_current_thread().enable_all().build().unwrap(),
            Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
        ]
    }

    #[test]
    fn the_runtimes_end_waits_for_threads_whether_or_not_handles_are_left() {
        for left_over in [false, true] {
            for runtime in runtimes() {
                let threads = Threads::new(runtime.handle());
                let has_ended = one(&threads);
                let left = runtime.block_on(async { left_over.then_some(threads) });

                drop(runtime);

                assert!(has_ended.load(Ordering::SeqCst));
                let late = left.map(|threads| threads.spawn("late", || {}));
                assert!(late.is_none_or(|late| late.is_err()));
            }
        }
    }

    #[test]
    fn a_drop_outside_a_runtime_waits_and_an_end_does_not_block() {
        for runtime in runtimes() {
            let threads = Threads::new(runtime.handle());
            let has_ended = one(&threads);
            drop(threads);
            assert!(has_ended.load(Ordering::SeqCst));

            let threads = Threads::new(runtime.handle());
            let has_ended = one(&threads);
            runtime.block_on(threads.end());
            assert!(has_ended.load(Ordering::SeqCst));
        }
    }

    #[test]
    fn dropped_on_a_thread_of_its_own_it_does_not_wait_for_itself() {
        let [runtime, _] = runtimes();
        let threads = Arc::new(Threads::new(runtime.handle()));
        let (give, given) = blocking::channel::<Arc<Threads>>();
        let spawned = threads.spawn("own", move || drop(given.recv().unwrap()));
        spawned.unwrap();

        give.send(threads).unwrap();

        drop(runtime);
    }
}
