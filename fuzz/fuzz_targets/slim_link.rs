//! Any bytes as the first message of a SLIM stream, and as the answer to ours; then as what comes
//! over a link that stands.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use skytale_slim::{Dial, Opening, open};

fuzz_target!(|bytes: &[u8]| {
    let bytes = Bytes::copy_from_slice(bytes);
    let mut chance = ChaCha20Rng::seed_from_u64(1);
    match open(bytes.clone()) {
        Ok(Opening::Offer(offer)) => {
            if let Ok((reply, link)) = offer.answer("node", &mut chance) {
                let _ = link.read(reply.into());
            }
        }
        Ok(Opening::Plain(link)) => _ = link.read(bytes.clone()),
        Err(_) => {}
    }
    let (_, dial) = Dial::begin("link", "node", false, &mut chance);
    let _ = dial.finish(bytes);
});
