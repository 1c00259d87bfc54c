//! What a watcher of the line between an agent and its relay can see: the sizes of cells.
//!
//! Frames go in at one end, cells travel, frames come out at the other. A cell's length on the
//! wire is one of eight buckets, or a Padmé length above the largest of them ([`bucket`]), so a
//! watcher learns the class of a length and not the length. Cells with nothing in them, cover,
//! are counted where they arrive and go no further ([`mod@line`]).
//!
//! This is the `padded` mode: a cell leaves as soon as its frames are there. It says nothing
//! about *when* an agent is active, which two lines talk to each other, or how much passes in
//! all; only a schedule that does not depend on the traffic could hide that. And the relay always
//! knows which cells carry frames, since it routes them.
//!
//! The crate is pure: bytes in, bytes out, no clock, no socket, chance handed in. It knows nothing
//! of what a frame means, so that shaping can never leak into the meaning of a message.
//!
//! ```
//! use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
//! use skytale_shape::{Incoming, Outgoing, bucket::MAX_CELL};
//!
//! // A program seeds the generator from the operating system; a test from a number.
//! let mut outgoing = Outgoing::new(ChaCha8Rng::seed_from_u64(1));
//! let mut incoming = Incoming::new(MAX_CELL);
//!
//! outgoing.push(b"hello")?;
//! outgoing.push(b"again")?;
//! let mut wire = Vec::new();
//! outgoing.drain_into(&mut wire);
//! assert_eq!(wire.len(), 256, "both fit the smallest cell");
//!
//! incoming.receive(&wire)?;
//! assert_eq!(incoming.next_frame()?, Some(&b"hello"[..]));
//! assert_eq!(incoming.next_frame()?, Some(&b"again"[..]));
//! assert_eq!(incoming.next_frame()?, None);
//! # Ok::<(), skytale_shape::Error>(())
//! ```

pub mod bucket;
pub mod counter;
mod error;
pub mod line;
pub mod pad;

pub use error::{Breach, Error};
pub use line::{Incoming, Outgoing};
