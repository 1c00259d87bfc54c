//! Skytale's API server: accounts, API keys, tokens, usage.
//!
//! It decides who may use a relay and who pays for it, and nothing else: it never sees a message,
//! a channel or an identity key, and cannot stand in for an agent. A library; the command line
//! runs it, in the same process as a relay or apart.
//!
//! [`Server::bind`] opens everything and says which address it got, [`Server::serve`] runs until
//! it is told to stop. Begin reading at `router.rs`: every route is on that page.

mod accounts;
mod address;
mod admin;
mod agents;
mod api_keys;
pub mod backup;
mod body;
mod caller;
pub mod clock;
pub mod config;
mod crowd;
mod database_url;
mod error;
mod hash_threads;
mod held;
mod limits;
pub mod migrate;
mod once;
mod openapi;
mod patience;
mod plans;
mod problem;
mod query;
mod questions;
mod relays;
mod reset;
mod router;
mod run;
mod secret;
mod signing;
mod store;
mod tally;
mod tls;
mod tokens;
mod ui;
mod usage;
mod visitor;

pub use address::{BadCidr, Cidr};
pub use config::Config;
pub use database_url::DatabaseUrl;
pub use error::Error;
pub use openapi::text as openapi;
pub use plans::Bounds;
pub use reset::reset_password;
pub use run::{LocalAccount, Server};
pub use signing::{Pace, Rotated, rotate as rotate_signing_key};
pub use store::LOCAL_ACCOUNT;
