//! What a cell costs beside the encryption of the same bytes, in one run.
//!
//! `cargo bench -p skytale-shape --bench fill`. The encryptions are the three that QUIC may choose,
//! as rustls has them from ring: assembler that uses whatever the CPU has for AES, so the hardest
//! there is to compare with. Every frame goes through a second encryption in MLS, which is not counted
//! here. *Cover* is the dearest cell, random from end to end; *half* and *full* carry frames.
//!
//! Only an optimized build says anything: ring is fast in any build, the generator is not.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench has nobody to report an error to, and criterion's macros document nothing"
)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rustls::{
    Side,
    crypto::ring::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    },
    quic::{Keys, Version},
};
use skytale_shape::pad::{Kind, payload_max, seal_exact};

fn fill(criterion: &mut Criterion) {
    for cell in [256, 1_056, 1_150] {
        let mut group = criterion.benchmark_group(format!("cell of {cell} bytes"));
        group.throughput(Throughput::Bytes(cell as u64));
        let payload = vec![0xA5; payload_max(cell)];
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut out = Vec::with_capacity(cell);
        for (name, kind, len) in [
            ("cover", Kind::Cover, 8),
            ("half", Kind::Stream, payload.len() / 2),
            ("full", Kind::Stream, payload.len()),
        ] {
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    out.clear();
                    seal_exact(kind, black_box(&payload[..len]), cell, &mut rng, &mut out).unwrap();
                    black_box(&out);
                });
            });
        }

        // A short header: flags, an identifier of 8 bytes, a packet number of 4.
        let header = [0x43; 13];
        let mut packet = vec![0xA5; cell];
        for suite in [
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ] {
            let name = format!("{:?}", suite.suite());
            let suite = suite.tls13().unwrap();
            let quic = suite.quic.unwrap();
            let keys = Keys::initial(Version::V1, suite, quic, b"whatever", Side::Client);
            let mut number = 0;
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    number += 1;
                    let tag = keys
                        .local
                        .packet
                        .encrypt_in_place(number, &header, black_box(&mut packet))
                        .unwrap();
                    black_box(tag);
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, fill);
criterion_main!(benches);
