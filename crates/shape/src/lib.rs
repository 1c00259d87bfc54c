//! What a watcher of the line between an agent and its relay can see: how large cells are, and when
//! they leave.
//!
//! Frames go in at one end, cells travel, frames come out at the other. Cells with nothing in them,
//! cover, are counted where they arrive and go no further ([`mod@line`]). A [`Shape`] says how one
//! direction behaves, and a [`Shaper`] does it.
//!
//! # What each mode hides, and from whom
//!
//! From the *relay* no mode hides when and with whom an agent talks: it routes every frame. What is
//! said here is about those who see the connection from outside, which is encrypted.
//!
//! | mode | a watcher still learns | and does not learn |
//! |---|---|---|
//! | [`padded`](Mode::Padded) | when an agent is active, how much passes, and by comparing instants which two lines talk to each other | a frame's length, beyond its class: one of eight buckets, or a Padmé length above ([`bucket`]) |
//! | [`immediate`](Mode::Immediate) | nearly as much: real cells come on top of the cover, so in a simulation an attacker who is shown examples told active windows of 60 s from idle ones with an AUC of 0.995, and lines that belong together with 1.00 (a blind guess is 0.5) | for a lone small cell, whether it was one of the cover |
//! | [`adaptive`](Mode::Adaptive) | that the agent is connected, and its shape | when, whether, how much and with whom it talks: instants and sizes are the same, bit for bit, with and without traffic. A frame that leaves at once ([`Bulk::Now`]) is the exception, and is counted |
//! | [`constant`](Mode::Constant) | that the agent is connected, and its shape | the same, without exception |
//!
//! The last two hold only as long as cells are written when they are due: a program that is busy
//! with a message and therefore late shows that it is busy. Neither do they hide how long a
//! connection lives, so a program that connects only to say something shows that it did. And bytes
//! that a slot carries cost time: what is more than a slot carries waits.
//!
//! Cover cells are numbered. Gaps show that somebody between the two ends takes cells out; they
//! cannot show a relay that makes up its own.
//!
//! # No clock, no socket
//!
//! Bytes in, bytes out, `now` and chance handed in: hours of a line take a test a moment. The crate
//! knows nothing of what a frame means, so that shaping can never leak into the meaning of a message.
//!
//! ```
//! use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
//! use skytale_shape::{Bulk, Incoming, Micros, Preset, Shaper, bucket::MAX_CELL};
//!
//! // A program seeds the generators from the operating system; a test from numbers.
//! let (schedule, fill) = (ChaCha8Rng::seed_from_u64(1), ChaCha8Rng::seed_from_u64(2));
//! let shape = Preset::Standard.shape();
//! let mut shaper = Shaper::new(shape, schedule, fill, Micros::new(0));
//! let mut incoming = Incoming::new(MAX_CELL);
//! incoming.expect_shape(&shape);
//!
//! shaper.push(b"hello", Bulk::Wait)?;
//! shaper.push(b"again", Bulk::Wait)?;
//! let slot = shaper.next_wake().expect("this mode always has a next slot");
//! let mut wire = Vec::new();
//! let passed = shaper.advance(slot, &mut wire);
//! assert_eq!((passed.real, wire.len()), (1, 1_056), "both share the slot's cell");
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
mod schedule;
pub mod shape;
pub mod shaper;

pub use error::{Breach, Error};
pub use line::{Incoming, Outgoing};
pub use schedule::Micros;
pub use shape::{BadShape, Bulk, Mode, Preset, Shape};
pub use shaper::{Passed, Shaper};
