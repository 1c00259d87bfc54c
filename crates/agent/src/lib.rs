//! An agent's mind: MLS groups, commits, the talk with relays. Pure, but for the database that is
//! handed in.
//!
//! [`Agent::handle`] is the whole of it: inputs, a moment and an open transaction go in; frames,
//! answers and events come out, to be let go once the transaction is committed. Nothing here
//! knows a socket, a clock or a thread, so that a simulation can run thousands of minds. Reading
//! what a mind has stored needs no mind: see [`view`], [`inbox`] and [`hands`].

mod agent;
pub mod audit;
mod channel;
mod command;
mod content;
mod error;
mod event;
pub mod hands;
pub mod history;
mod identity;
pub mod inbox;
mod message;
#[doc(hidden)]
pub mod mls;
mod policy;
mod session;
#[cfg(test)]
mod stage;
mod store;
pub mod view;
mod words;

pub use agent::{Accept, Agent, AgentConfig, Input, Outputs, RelayWish};
pub use command::{Answer, Command, CommandId, Draft, Failure, TEXT};
pub use content::{SEALED_OVERHEAD, padded_len};
pub use error::Error;
pub use event::Event;
pub use message::Message;
pub use store::MIGRATIONS;
