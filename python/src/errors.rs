//! Errors of the SDK as exceptions of `skytale.errors`, which are written in Python.

use pyo3::{prelude::*, sync::PyOnceLock, types::PyType};
use skytale_sdk::Error;

/// The exception that says the same. Its classes stand for what the caller can do; the word that
/// tells one refusal from another is its `code`.
pub(crate) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let queued = matches!(error, Error::Timeout { queued: true, .. });
    let made = class(py, error).and_then(|class| {
        class.call1((
            error.to_string(),
            error.code(),
            error.is_retryable(),
            queued,
        ))
    });
    made.map_or_else(|broken| broken, PyErr::from_value)
}

fn class<'py>(py: Python<'py>, error: &Error) -> PyResult<&'py Bound<'py, PyType>> {
    static MISUSE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static DENIED: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static UNREACHABLE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static PEER_MISBEHAVED: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static DAMAGED: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static TIMEOUT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let (known, name) = match error {
        Error::Misuse(_) | Error::NotFound(_) => (&MISUSE, "Misuse"),
        Error::Denied(_) | Error::Unauthorized(_) | Error::QuotaExceeded(_) => (&DENIED, "Denied"),
        Error::Unreachable(_) => (&UNREACHABLE, "Unreachable"),
        Error::PeerMisbehaved(_) => (&PEER_MISBEHAVED, "PeerMisbehaved"),
        Error::Timeout { .. } => (&TIMEOUT, "Timeout"),
        // What a newer SDK may add is treated as the worst.
        Error::Damaged(_) | _ => (&DAMAGED, "Damaged"),
    };
    known.import(py, "skytale.errors", name)
}
