//! Keeps the descriptor of `proto/line` for Server Reflection. The messages are written by hand.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    // Asked when it runs: checkouts that share a target folder share this program too.
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets it")?);
    let proto = here.join("../../proto/line");
    println!("cargo:rerun-if-changed={}", proto.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let descriptors = protox::compile(["line.proto"], [&proto])?;
    fs::write(out.join("line.bin"), descriptors.encode_to_vec())?;
    Ok(())
}
