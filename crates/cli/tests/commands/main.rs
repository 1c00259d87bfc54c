//! The real program, run as people and scripts run it: real processes, sockets and vaults.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod accounts;
mod backup;
#[allow(dead_code, reason = "other tests need more of it")]
#[path = "../../../api/src/store/postgres/cluster.rs"]
mod cluster;
mod demo;
mod exit_codes;
mod hook;
mod mcp;
mod operators;
mod people;
mod postgres;
mod secrets;
mod servers;
mod session;
mod slim;
mod token;
