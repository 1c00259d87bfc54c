//! What Python holds of the SDK, and what becomes of it in a forked process.

use std::mem;

use skytale_sdk::Error;
use tokio::runtime::Handle;

use crate::runtime::forked;

/// Something of the SDK that belongs to the process in which it was made. In another one, after a
/// fork, it can neither be used nor let go of: its threads, locks and ratchets are the parent's.
#[derive(Debug)]
pub(crate) struct Native<T> {
    pid: u32,
    /// Inside the runtime, dropping an agent does not wait for its threads: the runtime's end does.
    runtime: Handle,
    held: Option<T>,
}

impl<T> Native<T> {
    /// Made inside the runtime: in an operation.
    pub(crate) fn new(held: T) -> Self {
        Self {
            pid: std::process::id(),
            runtime: Handle::current(),
            held: Some(held),
        }
    }

    /// Something made of this, beside it.
    pub(crate) fn beside<U>(&self, held: U) -> Native<U> {
        Native {
            pid: self.pid,
            runtime: self.runtime.clone(),
            held: Some(held),
        }
    }

    /// Made of `held`, and beside nothing: what is left lets more be made beside it.
    pub(crate) fn take_apart(mut self) -> (Native<()>, T) {
        let held = self.held.take().expect("only the drop empties it");
        (self.beside(()), held)
    }

    pub(crate) fn get(&self) -> Result<&T, Error> {
        self.held
            .as_ref()
            .filter(|_| self.pid == std::process::id())
            .ok_or_else(forked)
    }
}

impl<T> Drop for Native<T> {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            let _inside = self.runtime.enter();
            self.held.take();
        } else {
            mem::forget(self.held.take());
        }
    }
}
