//! Every byte format that two of Skytale's programs must agree on.
//!
//! Pure: no clock, no chance, no network. Relay, agents, API server and command line share this
//! and nothing else. What stays between agents, sealed inside MLS, is not here but in
//! `skytale-agent`; SLIM's protobuf is not here either.

pub mod blob;
pub mod envelope;
pub mod frame;
pub mod http;
pub mod id;
pub mod invite;
pub mod month;
pub mod name;
pub mod refusal;
mod schema;
pub mod statement;
pub mod token;

pub use blob::Blob;
