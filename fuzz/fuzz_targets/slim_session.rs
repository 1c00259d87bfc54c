//! Any bytes as a message to a party that waits for invitations, and to one that has just invited
//! somebody: nothing panics, and all that is answered can be sent.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use skytale_slim::{Generation, Name, Routed};
use skytale_slim_session::{Input, Output, Party, Settings, SharedSecret, Time};

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Routed::from_archive(Generation::Two, Bytes::copy_from_slice(bytes)) else {
        return;
    };
    let mut chance = ChaCha20Rng::seed_from_u64(1);
    let mut now = Time(1_800_000_000_000);
    let secret = || SharedSecret::new("a secret shared by all who are fuzzed here").expect("long");
    let name = |text| Name::parse(text).expect("a name");
    for invites in [false, true] {
        let mut party = Party::new(&name("org/ns/here"), secret(), &mut chance);
        let mut out = Vec::new();
        if invites {
            let settings = Settings::default();
            let other = name("org/ns/other");
            let _ = party.open(other, settings, now, &mut chance, &mut out);
        }
        for _ in 0..2 {
            party.handle(Input::Received(&message), now, &mut chance, &mut out);
        }
        if let Some(at) = party.wake_at() {
            now = at;
            party.handle(Input::Woken, now, &mut chance, &mut out);
        }
        for output in out {
            if let Output::Send(message) = output {
                assert!(message.onward(1).is_ok());
            }
        }
    }
});
