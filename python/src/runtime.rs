//! The one runtime of this process, the thread that hands results to event loops, and their end.
//!
//! | what happens | what becomes of the runtime |
//! |---|---|
//! | the interpreter ends | `atexit` calls [`shutdown`]: tasks are dropped, every thread is joined |
//! | `os._exit`, a kill | nothing: the vault can bear it |
//! | a fork | the child forgets the parent's, whose threads it does not have, and gets none of its own: a lock that one of those threads held is held there for ever |
//!
//! After [`shutdown`] no thread of ours is left that could ask for the interpreter while it is being
//! taken apart, which would abort the process.

use std::{
    convert::Infallible,
    mem,
    sync::{Mutex, MutexGuard, PoisonError, mpsc as blocking},
    thread::{self, JoinHandle},
    time::Duration,
};

use pyo3::prelude::*;
use skytale_sdk::Error;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::mpsc,
};

use crate::operation::{self, Completion};

/// What an operation needs to run.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) handle: Handle,
    pub(crate) completions: mpsc::Sender<Completion>,
}

/// The engine of this process, started by whoever needs it first.
pub(crate) fn engine(_attached: Python<'_>) -> Result<Engine, Error> {
    let pid = std::process::id();
    let mut state = state();
    match &*state {
        State::Running(running) if running.pid == pid => return Ok(running.engine.clone()),
        State::Ended(ended) if *ended == pid => {
            return Err(Error::Misuse(
                "the interpreter is ending: nothing of skytale works any more".into(),
            ));
        }
        State::Running(_) => return Err(forked()),
        State::Fresh | State::Ended(_) => {}
    }
    let running = Running::start(pid)?;
    let engine = running.engine.clone();
    *state = State::Running(running);
    Ok(engine)
}

/// What a forked process is told of everything that was there before.
pub(crate) fn forked() -> Error {
    Error::Misuse(
        "skytale was in use before this process was forked, and cannot be used in it: start processes with multiprocessing's \"spawn\", or fork before the first agent is opened"
            .into(),
    )
}

/// Ends everything that runs, at the interpreter's exit.
#[pyfunction]
pub(crate) fn shutdown(py: Python<'_>) {
    let pid = std::process::id();
    let before = mem::replace(&mut *state(), State::Ended(pid));
    match before {
        State::Running(running) if running.pid == pid => py.detach(|| running.end()),
        other @ (State::Fresh | State::Running(_) | State::Ended(_)) => mem::forget(other),
    }
}

enum State {
    Fresh,
    Running(Running),
    /// In the process of this number.
    Ended(u32),
}

struct Running {
    pid: u32,
    runtime: Runtime,
    engine: Engine,
    deliverer: JoinHandle<()>,
    /// Disconnected when the deliverer has ended: a thread cannot be joined for a limited time.
    delivered: blocking::Receiver<Infallible>,
}

impl Running {
    fn start(pid: u32) -> Result<Self, Error> {
        let no_room = |_| {
            Error::Unreachable(
                "this machine has no room for another thread: end something, or raise its limit"
                    .into(),
            )
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("skytale")
            .enable_all()
            .build()
            .map_err(no_room)?;
        let (completions, queue) = mpsc::channel(COMPLETIONS_MAX);
        let (tell, delivered) = blocking::channel();
        let deliverer = thread::Builder::new()
            .name("skytale-deliver".to_owned())
            .spawn(move || {
                let _until_the_end: blocking::Sender<Infallible> = tell;
                deliver(queue);
            })
            .map_err(no_room)?;
        Ok(Self {
            pid,
            engine: Engine {
                handle: runtime.handle().clone(),
                completions,
            },
            runtime,
            deliverer,
            delivered,
        })
    }

    /// Not for ever: a disk that hangs must not keep a program from ending.
    fn end(self) {
        drop(self.engine);
        self.runtime.shutdown_timeout(END_MAX);
        if self.delivered.recv_timeout(END_MAX) == Err(blocking::RecvTimeoutError::Disconnected) {
            // If it panicked, that was printed.
            let _ = self.deliverer.join();
        }
    }
}

/// Attaches once for as many results as there are. The interpreter's lock is waited for here, and
/// never on the runtime's workers.
fn deliver(mut queue: mpsc::Receiver<Completion>) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        if Python::try_attach(|py| operation::hand_over(py, batch)).is_none() {
            return;
        }
    }
}

/// Only threads that are attached to the interpreter take this lock, and a fork happens on one of
/// them: so a child never finds it held by a thread that it does not have.
fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

static STATE: Mutex<State> = Mutex::new(State::Fresh);

const WORKERS: usize = 2;
/// Results that wait for the interpreter; more make their operations wait.
const COMPLETIONS_MAX: usize = 1_024;
/// Results that are handed over at once.
const BATCH_MAX: usize = 256;
const END_MAX: Duration = Duration::from_secs(10);
