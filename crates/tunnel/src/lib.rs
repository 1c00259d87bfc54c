//! The native line where UDP does not get through: a stream of bytes inside gRPC, in which both ends
//! prove their keys.
//!
//! ```text
//! cells ── TLS 1.3 ([`keys`]) ── pieces ([`piece`], [`pipe`]) ── gRPC, HTTP/2 ── TCP
//! ```
//!
//! The TLS inside is what protects the line: the relay shows the key that agents pin, the agent its
//! transport key, as raw public keys (RFC 7250). So the line is as good in plain HTTP/2, behind a proxy
//! that ends an outer TLS, and through a network that breaks one open. One write becomes one TLS
//! record, one piece and one frame of HTTP/2: what has one length goes in with one length and comes out
//! so on the wire.
//!
//! Left out: what a cell is, and when one leaves.

pub mod guest;
pub mod host;
pub mod keys;
pub mod piece;
mod pipe;

pub use guest::{Guest, Refused};
pub use host::Host;
pub use pipe::Pipe;

/// A `FileDescriptorSet` of the service, for Server Reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/line.bin"));

/// The service of [`piece::METHOD`].
pub const SERVICE: &str = "skytale.line.v1.Line";

/// The line inside, as this end reads and writes it.
pub type Inside = tokio_rustls::TlsStream<Pipe>;

#[cfg(test)]
mod tests;
