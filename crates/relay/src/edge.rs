//! The relay's doors to the outside. Each proves who comes in, turns its own bytes into frames
//! and enters through [`crate::driver::Door`]; the hub cannot tell them apart.

pub mod grpc;
mod places;
pub mod quic;
mod talk;
pub mod terms;
