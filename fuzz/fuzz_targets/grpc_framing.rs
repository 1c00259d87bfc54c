//! Any bytes as the body of a gRPC stream, in pieces whose lengths they say themselves: it ends, with
//! messages no longer than they may be.
#![no_main]

use std::convert::Infallible;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use skytale_relay::edge::grpc::framing::{Budget, Messages, Next};

const MAX: usize = 300;

fuzz_target!(|bytes: &[u8]| {
    let Some((cut, rest)) = bytes.split_first() else {
        return;
    };
    let pieces: Vec<_> = rest
        .chunks(usize::from(*cut).max(1))
        .map(|it| Ok::<_, Infallible>(http_body::Frame::data(Bytes::copy_from_slice(it))))
        .collect();
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(pieces));
    let mut messages = Messages::new(axum::body::Body::new(body), MAX, Budget::new());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut sum = 0;
        while let Ok(next) = messages.next().await {
            match next {
                Next::Message(message) => {
                    assert!(message.len() <= MAX);
                    sum += message.len();
                }
                Next::Oversized => {}
                Next::End => break,
            }
        }
        assert!(sum <= bytes.len());
    });
});
