//! What the tests of the whole system share. Not published; may lean on everything.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::path::PathBuf;

/// This package's folder. Asked when it runs: checkouts that share a target folder share programs.
pub fn here() -> PathBuf {
    let named = std::env::var_os("CARGO_MANIFEST_DIR");
    named.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

pub mod metrics;
pub mod processes;
pub mod sim;
pub mod slim;
