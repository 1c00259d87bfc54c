//! Generates the types of both generations from `proto/slim`, without protoc and into the build's
//! own folder, and keeps the descriptors of both for Server Reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    // Asked when it runs: checkouts that share a target folder share this program too.
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets it")?);
    let proto = here.join("../../proto/slim");
    println!("cargo:rerun-if-changed={}", proto.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    // Both files declare the same package, so each is compiled alone.
    for generation in ["slim_1x", "slim_2x"] {
        let descriptors = protox::compile([format!("{generation}.proto")], [&proto])?;
        fs::write(
            out.join(format!("{generation}.bin")),
            descriptors.encode_to_vec(),
        )?;
        let room = out.join(generation);
        fs::create_dir_all(&room)?;
        prost_build::Config::new()
            // Payloads share the buffer they came in.
            .bytes(["."])
            // Two messages that differ in the order of metadata only are the same bytes.
            .btree_map(["."])
            .out_dir(room)
            .compile_fds(descriptors)?;
    }
    Ok(())
}
