//! The skytale binary.
fn main() {}
