//! Keeps the descriptor of `proto/line` for Server Reflection. The messages are written by hand.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const PROTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/line");

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO}");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let descriptors = protox::compile(["line.proto"], [PROTO])?;
    fs::write(out.join("line.bin"), descriptors.encode_to_vec())?;
    Ok(())
}
