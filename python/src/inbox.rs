//! Messages on their way to Python: fetched in batches, handed out one by one.
//!
//! Waiting only fills the store here; taking a message out is one step without a wait. So whoever is
//! cancelled while it waits has nothing in its hands that could be lost, and an event loop is woken
//! once for many messages.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pyo3::prelude::*;
use skytale_sdk::{self as sdk, Error, Messages};
use tokio::time::timeout;

use crate::{
    channel::seconds,
    errors,
    message::Message,
    native::Native,
    operation::{Kind, Operation},
};

/// What waits in a channel for this process. Each message is leased to it: what was not passed when
/// it ends, is shown again.
#[pyclass(frozen, module = "skytale._core")]
pub(crate) struct Inbox {
    inbox: Native<Arc<Shared>>,
}

struct Shared {
    messages: tokio::sync::Mutex<Messages>,
    ready: Mutex<VecDeque<sdk::Message>>,
    /// Dealt with, when there was no room to say so.
    passed: Mutex<VecDeque<sdk::Message>>,
}

impl Inbox {
    pub(crate) fn new(messages: Native<Messages>) -> Self {
        let (beside, messages) = messages.take_apart();
        Self {
            inbox: beside.beside(Arc::new(Shared {
                messages: tokio::sync::Mutex::new(messages),
                ready: Mutex::default(),
                passed: Mutex::default(),
            })),
        }
    }

    fn shared(&self, py: Python<'_>) -> PyResult<&Arc<Shared>> {
        self.inbox.get().map_err(|error| errors::raise(py, &error))
    }
}

#[pymethods]
impl Inbox {
    /// Waits for a message, at most so many seconds: "ready", "late" or "over".
    #[pyo3(signature = (limit=None))]
    fn arrival(&self, py: Python<'_>, limit: Option<f64>) -> PyResult<Operation> {
        let shared = Arc::clone(self.shared(py)?);
        Ok(Operation::new(Kind::Waiting, async move {
            let Some(limit) = limit else {
                return shared.fill().await;
            };
            timeout(seconds(limit)?, shared.fill())
                .await
                .unwrap_or(Ok("late"))
        }))
    }

    /// The next message that is here, which is then nobody else's.
    fn pop(&self, py: Python<'_>) -> PyResult<Option<Message>> {
        let message = lock(&self.shared(py)?.ready).pop_front();
        Ok(message.map(|message| Message::new(self.inbox.beside(message))))
    }

    /// This message has been dealt with. Stored a little later, together with others.
    fn done(&self, py: Python<'_>, message: &Message) -> PyResult<()> {
        let message = message.message(py)?;
        match message.try_pass() {
            // A closed agent shows the message again when it is opened the next time.
            Ok(true) | Err(Error::Misuse(_)) => {}
            Ok(false) => lock(&self.shared(py)?.passed).push_back(message.clone()),
            Err(error) => return Err(errors::raise(py, &error)),
        }
        Ok(())
    }
}

impl Shared {
    async fn fill(&self) -> Result<&'static str, Error> {
        self.say_what_passed().await;
        if self.has_some() {
            return Ok("ready");
        }
        let mut messages = self.messages.lock().await;
        // Whoever had the lock before may have left some.
        if self.has_some() {
            return Ok("ready");
        }
        // From the batch's arrival on nothing is awaited until it is in its place.
        Ok(match messages.next_batch().await? {
            Some(batch) => {
                lock(&self.ready).extend(batch);
                "ready"
            }
            None => "over",
        })
    }

    /// Cancelled in the middle, it says one of them twice, which is as good as once.
    async fn say_what_passed(&self) {
        loop {
            let Some(message) = lock(&self.passed).front().cloned() else {
                return;
            };
            if message.pass().await.is_err() {
                return;
            }
            let mut passed = lock(&self.passed);
            if passed
                .front()
                .is_some_and(|front| front.row() == message.row())
            {
                passed.pop_front();
            }
        }
    }

    fn has_some(&self) -> bool {
        !lock(&self.ready).is_empty()
    }
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
