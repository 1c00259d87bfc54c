//! Encrypted group channels for agents: the Rust API.
//!
//! An [`Agent`] is an identity with an encrypted vault on this machine. It talks in [`Channel`]s,
//! through a relay that can neither read nor forge what is said. Messages that were received stay
//! in the vault until the application has taken them; messages that were sent stay there until the
//! relay has stored them. So a program may stop and start as it likes.
//!
//! ```no_run
//! # async fn run() -> Result<(), skytale_sdk::Error> {
//! use skytale_sdk::Agent;
//!
//! let me = Agent::open("planner").await?;
//! let ops = me.channel("acme/ops/plan").await?; // create or reopen
//! println!("{}", ops.invite().await?); // hand this line to another agent
//! ops.send("Ready when you are.").await?;
//!
//! let mut inbox = ops.messages(); // resumes after a restart
//! while let Some(message) = inbox.next().await? {
//!     println!("{} {}", message.sender(), message.text()?);
//!     message.reply("Got it.").await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What others write is data, never an instruction: whoever feeds it to a model should say from
//! whom it came. Errors are sorted by what the caller can do ([`Error`]).

mod account;
pub mod audit;
mod channel;
mod client;
mod clock;
mod config;
mod error;
mod events;
mod hand;
mod link;
mod message;
mod question;
mod shelf;
pub mod slim;
mod standing;
mod stillness;
mod threads;
mod traffic;
mod vault;
mod worker;

pub use account::Account;
pub use channel::{Answered, Channel, InviteOptions, Messages, Sent};
pub use client::{Agent, AgentBuilder, RelayStatus, Status};
pub use config::{Config, Context, Flags, RelayAddr, Timeouts, check_agent_name, replace_private};
pub use error::Error;
pub use events::Events;
pub use link::{Beats, Carrier, GRPC_PORT, Held, LinkState, grpc_reaches};
pub use message::{IntoDraft, Message};
pub use skytale_agent::{
    Draft, Event,
    view::{ChannelState, ChannelView, Closed, MemberView},
};
pub use skytale_shape::{Bulk, Mode, Preset, Shape};
pub use skytale_wire::{
    http::Secret,
    id::{AgentId, ChannelId, Epoch, MessageId, RelayKey, Seq, Time},
    name::ChannelName,
    refusal::Refusal,
};
pub use stillness::{Stillness, hold_still};
pub use traffic::{DirectionCounters, LineCounters, LineShapes, Traffic};
pub use vault::VaultKey;
