//! The two generations of SLIM's wire.

/// Which of SLIM's two wires a link speaks. They share the gRPC path and most messages, but no
/// session reaches across: their enums number the same words differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Generation {
    /// SLIM 1.0 to 1.4: 64-bit instances, no time to live, no MAC on the header.
    One,
    /// SLIM 2.0 to 3.4.
    Two,
}
