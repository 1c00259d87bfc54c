//! What a cell costs beside the encryption of the same bytes, in one run.
//!
//! `cargo bench -p skytale-shape --bench fill`. The encryptions are the three that QUIC may choose,
//! as rustls has them from ring: assembler that uses whatever the CPU has for AES, so the hardest
//! there is to compare with. They are all that a cover cell goes through. A cell with frames has been
//! through MLS before, whose AES-GCM makes the same blocks with the same crate as the fill and
//! computes a checksum besides: a second encryption, which is not counted here. *Cover* is the dearest
//! cell, random from end to end; *half* and *full* carry frames. *Cover, `ChaCha8`* is the same from the
//! generator for CPUs without AES: with AES instructions, it costs about as much as the encryption.
//!
//! Only an optimized build says anything: ring is fast in any build, the generators are not, and
//! `ChaCha8Rng` takes four times as long at `opt-level = 1`. On a machine that does other things too,
//! compare the fastest samples.

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
use skytale_shape::pad::{Fill, Kind, payload_max, seal_exact};

fn fill(criterion: &mut Criterion) {
    for cell in [256, 1_056, 1_150] {
        let mut group = criterion.benchmark_group(format!("cell of {cell} bytes"));
        group.throughput(Throughput::Bytes(cell as u64));
        let payload = vec![0xA5; payload_max(cell)];
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut fill = Fill::new(ChaCha8Rng::seed_from_u64(2));
        let mut out = Vec::with_capacity(cell);
        for (name, kind, len) in [
            ("cover", Kind::Cover, 8),
            ("half", Kind::Stream, payload.len() / 2),
            ("full", Kind::Stream, payload.len()),
        ] {
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    out.clear();
                    seal_exact(kind, black_box(&payload[..len]), cell, &mut fill, &mut out)
                        .unwrap();
                    black_box(&out);
                });
            });
        }
        group.bench_function("cover, ChaCha8", |bencher| {
            bencher.iter(|| {
                out.clear();
                seal_exact(Kind::Cover, &payload[..8], cell, &mut rng, &mut out).unwrap();
                black_box(&out);
            });
        });

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
