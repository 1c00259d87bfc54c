//! Any bytes as a message of either SLIM generation: nothing panics, and whatever is taken can be
//! taken again by whoever it is sent on to.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use skytale_slim::{Generation, Routed, answer_ping, verdict};

fuzz_target!(|bytes: &[u8]| {
    let bytes = Bytes::copy_from_slice(bytes);
    for generation in [Generation::One, Generation::Two] {
        let Ok(message) = Routed::from_archive(generation, bytes.clone()) else {
            continue;
        };
        let _ = (message.payload(), message.session(), message.mls());
        let _ = message.header().source.proven_text();
        for answer in [verdict(&message, true), answer_ping(&message)] {
            assert!(answer.is_none_or(|answer| answer.onward(0).is_ok()));
        }
        if let Ok(onward) = message.onward(1) {
            assert!(onward.len() <= bytes.len() + 64);
        }
    }
});
