//! The types that the build generates from `proto/slim`, one module a generation.
//!
//! Left out: any meaning. What comes from outside goes through [`crate::Link::read`], which holds
//! it to bounds that protobuf does not know.

/// SLIM 1.0 to 1.4.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::large_enum_variant,
    reason = "generated; the comments stand in proto/slim"
)]
pub mod one {
    include!(concat!(env!("OUT_DIR"), "/slim_1x/dataplane.proto.v1.rs"));
}

/// SLIM 2.0 to 3.4.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::large_enum_variant,
    reason = "generated; the comments stand in proto/slim"
)]
pub mod two {
    include!(concat!(env!("OUT_DIR"), "/slim_2x/dataplane.proto.v1.rs"));
}

/// A `FileDescriptorSet` of the second generation, for Server Reflection. The first has the same
/// symbols with other numbers, so a server can offer one of them only.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/slim_2x.bin"));

/// The same of the first generation.
pub const DESCRIPTORS_ONE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/slim_1x.bin"));

/// The gRPC method that all generations use.
pub const OPEN_CHANNEL: &str = "/dataplane.proto.v1.DataPlaneService/OpenChannel";
