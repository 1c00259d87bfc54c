//! SLIM's data plane as bytes and values: both generations of its protobuf, names, links, and the
//! table that says who gets what.
//!
//! Pure: no socket, no clock, chance handed in. The relay's door for SLIM and an agent that takes
//! part in a SLIM session share this. Left out is what only one of them does: the gRPC stream is
//! the relay's, the session's dialogue and its MLS are the agent's.
//!
//! A stream begins with [`open`], which tells the generation and gives a [`Link`]. From then on
//! [`Link::read`] checks what comes in, [`Routed::onward`] prepares what goes on, and
//! [`Link::write`] signs it for one link. A message keeps the bytes it came with, because peers
//! sign them end to end: what goes on differs from them in the fields of the hop and nowhere else.

mod compose;
mod field;
mod generation;
mod link;
mod message;
mod name;
pub mod proto;
mod session;
mod table;

pub use compose::{Draft, Said, answer_ping, subscription_ack, verdict};
pub use generation::Generation;
pub use link::{Dial, Link, Offer, Opening, OtherGeneration, SPOKEN_ONE, SPOKEN_TWO, open};
pub use message::{
    CLIENT_BYTES_MAX, Header, Inbound, MESSAGE_BYTES_MAX, Onward, Refused, Routed, Undeliverable,
    Verb,
};
pub use name::{Address, BadName, Components, Instance, Name, Pattern};
pub use session::{
    Change, GroupId, MessageType, MlsContent, MlsMessage, Session, SessionKind, Unreadable,
};
pub use table::{
    Full, LinkId, SUBSCRIPTIONS_PER_LINK_MAX, SubscriptionId, SubscriptionTable, Unsubscribed,
};
