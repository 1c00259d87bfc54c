//! Before and after a fork.
//!
//! | hook of the interpreter | does |
//! |---|---|
//! | before | lets the agents' threads come to rest, on the thread that forks |
//! | after, in the parent | lets them go on |
//! | after, in the child | lets go of what the same thread held; there are no others |

use std::cell::RefCell;

use pyo3::prelude::*;
use skytale_sdk::Stillness;

/// Lets the agents' threads come to rest, and keeps them so until [`go_on`].
/// None of those threads ever waits for the interpreter, so it may wait for them.
#[pyfunction]
pub(crate) fn hold_still() {
    HELD.set(skytale_sdk::hold_still());
}

/// The fork is over.
#[pyfunction]
pub(crate) fn go_on() {
    HELD.take();
}

thread_local! {
    static HELD: RefCell<Option<Stillness>> = const { RefCell::new(None) };
}
