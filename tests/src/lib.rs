//! What the tests of the whole system share. Not published; may lean on everything.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

pub mod processes;
pub mod sim;
pub mod slim;
