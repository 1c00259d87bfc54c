//! Any bytes as a message of the stream that carries our line: a piece comes out or a refusal, and
//! never more than went in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skytale_tunnel::piece;

fuzz_target!(|bytes: &[u8]| {
    let mut left = bytes;
    if let Some(piece) = piece::unwrap(&mut left) {
        assert!(piece.len() <= bytes.len());
        let mut again = Vec::new();
        piece::wrap(&piece, &mut again);
        assert_eq!(piece::unwrap(&mut &*again), Some(piece));
    }
});
