//! tmp
mod account;
mod clock;
mod config;
mod error;
mod link;
mod vault;
pub use error::Error;
