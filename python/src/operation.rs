//! A call that may take time, with its two faces: awaited in an event loop, or waited for.
//!
//! Whoever awaits may be cancelled, and whoever waits may press Ctrl-C. What then becomes of the
//! work is said where it is made: waiting for something is given up; a change goes on to its end,
//! so that it is never half done, and its result is dropped. Nothing that could be lost travels in
//! a result: messages stay in [`crate::inbox`] until they are taken out in one step.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Mutex, PoisonError, mpsc as blocking},
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use futures_util::FutureExt as _;
use pyo3::{IntoPyObject, IntoPyObjectExt as _, intern, prelude::*, sync::PyOnceLock};
use skytale_sdk::Error;
use tokio::task::AbortHandle;

use crate::{errors, runtime};

/// A call that has not begun yet. It can be awaited, or waited for, once.
#[pyclass(frozen, module = "skytale._core")]
pub(crate) struct Operation {
    work: Mutex<Option<Work>>,
    kind: Kind,
}

/// What becomes of the work when nobody wants its result any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is given up, where it stands.
    Waiting,
    /// It goes on to its end.
    Change,
    /// The same; and calls that are begun in an order are handed over in it.
    InOrder,
}

type Work = Pin<Box<dyn Future<Output = Ended> + Send>>;
type Ended = Result<Outcome, Error>;
/// Makes the Python object, in the thread that wants it.
type Outcome = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

impl Operation {
    /// A call that answers with a value.
    pub(crate) fn new<T>(
        kind: Kind,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Self
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        let work = AssertUnwindSafe(work).catch_unwind().map(|ended| {
            let value = ended.unwrap_or_else(|_| Err(panicked()))?;
            let outcome: Outcome = Box::new(move |py| value.into_py_any(py));
            Ok(outcome)
        });
        Self {
            work: Mutex::new(Some(Box::pin(work))),
            kind,
        }
    }

    /// A call that answers with nothing.
    pub(crate) fn silent(
        kind: Kind,
        work: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) -> Self {
        // `()` would become an empty tuple.
        Self::new(kind, work.map(|ended| ended.map(|()| None::<bool>)))
    }

    fn begin(&self) -> Result<Work, Error> {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        work.take()
            .ok_or_else(|| Error::Misuse("this call was awaited before: make it again".into()))
    }

    /// Tries once in the caller's thread where order matters: two tasks of the runtime may
    /// overtake each other.
    fn first_step(&self, work: &mut Work, engine: &runtime::Engine) -> Option<Ended> {
        match self.kind {
            Kind::InOrder => {
                let _inside = engine.handle.enter();
                match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(ended) => Some(ended),
                    // The runtime polls it again, with a waker of its own.
                    Poll::Pending => None,
                }
            }
            Kind::Waiting | Kind::Change => None,
        }
    }

    fn future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let event_loop = RUNNING_LOOP
            .import(py, "asyncio", "get_running_loop")?
            .call0()?;
        let future = event_loop.call_method0(intern!(py, "create_future"))?;
        let engine = runtime::engine(py).map_err(|error| errors::raise(py, &error))?;
        let mut work = self.begin().map_err(|error| errors::raise(py, &error))?;
        if let Some(ended) = self.first_step(&mut work, &engine) {
            settle(py, &future, ended)?;
            return Ok(future);
        }
        let event_loop = event_loop.unbind();
        let waiting = future.clone().unbind();
        let completions = engine.completions;
        let task = engine.handle.spawn(async move {
            let ended = work.await;
            let completion = Completion {
                event_loop,
                settled: Settled {
                    future: waiting,
                    ended,
                },
            };
            // It fails when the interpreter is ending, and then nobody waits.
            let _ = completions.send(completion).await;
        });
        if self.kind == Kind::Waiting {
            let canceller = Canceller(task.abort_handle());
            future.call_method1(intern!(py, "add_done_callback"), (canceller,))?;
        }
        Ok(future)
    }
}

#[pymethods]
impl Operation {
    /// Begins it in the running event loop.
    fn __await__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.future(py)?.call_method0(intern!(py, "__await__"))
    }

    /// Begins it and waits for its result, without holding up other threads.
    fn result(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let engine = runtime::engine(py).map_err(|error| errors::raise(py, &error))?;
        let mut work = self.begin().map_err(|error| errors::raise(py, &error))?;
        if let Some(ended) = self.first_step(&mut work, &engine) {
            return finish(py, ended);
        }
        let (tell, told) = blocking::sync_channel(1);
        let task = engine.handle.spawn(async move {
            // Whoever waited was interrupted.
            let _ = tell.send(work.await);
        });
        // A thread that waits here for ever must not keep the interpreter's end waiting too.
        drop(engine);
        let mut told = told;
        loop {
            let (back, answer) = py.detach(move || {
                let answer = told.recv_timeout(LOOK_FOR_SIGNALS);
                (told, answer)
            });
            told = back;
            match answer {
                Ok(ended) => return finish(py, ended),
                Err(blocking::RecvTimeoutError::Timeout) => {
                    if let Err(interrupt) = py.check_signals() {
                        if self.kind == Kind::Waiting {
                            task.abort();
                        }
                        return Err(interrupt);
                    }
                }
                // The interpreter is ending, so this is a daemon thread. It stops here, as any
                // such thread does that asks for the interpreter then.
                Err(blocking::RecvTimeoutError::Disconnected) => py.detach(|| {
                    loop {
                        thread::park();
                    }
                }),
            }
        }
    }
}

/// A result on its way to whoever awaits it.
pub(crate) struct Completion {
    event_loop: Py<PyAny>,
    settled: Settled,
}

struct Settled {
    future: Py<PyAny>,
    ended: Ended,
}

/// Hands results to their event loops: one call for all that stand together for the same one.
pub(crate) fn hand_over(py: Python<'_>, batch: Vec<Completion>) {
    let mut rest = batch.into_iter().peekable();
    while let Some(Completion {
        event_loop,
        settled,
    }) = rest.next()
    {
        let mut all = vec![settled];
        while let Some(next) = rest.next_if(|next| next.event_loop.is(&event_loop)) {
            all.push(next.settled);
        }
        let settling = Settling(Mutex::new(all));
        // It fails when the loop is closed, and then nobody waits.
        let _ = event_loop.call_method1(py, intern!(py, "call_soon_threadsafe"), (settling,));
    }
}

/// Runs in the event loop's own thread.
#[pyclass(frozen)]
struct Settling(Mutex<Vec<Settled>>);

#[pymethods]
impl Settling {
    fn __call__(&self, py: Python<'_>) {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for Settled { future, ended } in all {
            if let Err(error) = settle(py, future.bind(py), ended) {
                error.write_unraisable(py, Some(future.bind(py)));
            }
        }
    }
}

/// Gives up the work when its awaiter was cancelled.
#[pyclass(frozen)]
struct Canceller(AbortHandle);

#[pymethods]
impl Canceller {
    fn __call__(&self, future: &Bound<'_, PyAny>) -> PyResult<()> {
        let cancelled = future.call_method0(intern!(future.py(), "cancelled"))?;
        if cancelled.is_truthy()? {
            self.0.abort();
        }
        Ok(())
    }
}

/// Whoever was cancelled wants no result.
fn settle(py: Python<'_>, future: &Bound<'_, PyAny>, ended: Ended) -> PyResult<()> {
    if future.call_method0(intern!(py, "done"))?.is_truthy()? {
        return Ok(());
    }
    match finish(py, ended) {
        Ok(value) => future.call_method1(intern!(py, "set_result"), (value,))?,
        Err(error) => future.call_method1(intern!(py, "set_exception"), (error.into_value(py),))?,
    };
    Ok(())
}

fn finish(py: Python<'_>, ended: Ended) -> PyResult<Py<PyAny>> {
    match ended {
        Ok(outcome) => outcome(py),
        Err(error) => Err(errors::raise(py, &error)),
    }
}

fn panicked() -> Error {
    Error::Damaged(
        "something of skytale's broke off: please report this, with what stands above".into(),
    )
}

/// How long Ctrl-C may take to be heard.
const LOOK_FOR_SIGNALS: Duration = Duration::from_millis(100);
