//! The relay: routes ciphertext that it cannot read, orders commits, and forgets nothing that it
//! has acknowledged.
//!
//! [`hub`] decides and is pure; [`driver`] runs it; [`edge`] holds the doors; [`archive`] keeps.

pub mod archive;
pub mod auth;
pub mod backup;
pub mod config;
pub mod driver;
pub mod edge;
pub mod health;
mod held;
pub mod hub;
pub mod limits;
pub mod run;
