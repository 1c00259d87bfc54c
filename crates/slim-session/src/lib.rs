//! A party to SLIM's sessions: how an agent of ours is invited by, and invites, applications that
//! know SLIM and nothing of Skytale. Point-to-point and groups, with MLS and without.
//!
//! Pure: time and chance are handed in, messages go in and come out, and nothing is stored. A
//! session lives as long as its [`Party`]: SLIM's own applications forget theirs in the same way,
//! and their peers take them in again. What MLS draws comes from the operating system, asked anew
//! for every value, so that a forked process repeats nothing.
//!
//! Left out: links and their MACs, which are `skytale-slim`'s and the line's; sessions of the
//! first generation, whose layer is another one; identities other than a shared secret.
//!
//! This is one of two crates that name an MLS library. Neither relay nor API server is built from
//! it (`docs/decisions/0011-slim-sessions-have-their-own-mls.md`).

mod asks;
mod draft;
mod group;
mod heard;
mod id;
mod identity;
mod incoming;
mod outgoing;
mod party;
mod pulse;
mod seen;
mod session;
mod signers;
mod words;

pub use id::channel_ids;
pub use identity::{BadSecret, SharedSecret};
pub use party::Party;
pub use words::{
    Ended, Event, Input, Invitations, Message, Misuse, Output, Received, Reliability, SessionId,
    Settings, Time,
};
