//! Whatever a peer sends, the receiving end takes it without panic, without holding more than it was
//! sent, and refuses it for good once it has refused it.

#![allow(
    clippy::unwrap_used,
    reason = "tests; the exemption for them does not reach their helpers"
)]

use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use skytale_shape::{
    Bulk, Error, Incoming, Micros, Mode, Shape, Shaper,
    bucket::MAX_CELL,
    pad::{Kind, seal_cell},
};

const CELL: usize = 1_056;

/// The end that receives a line of this mode.
fn receiver(mode: Mode) -> Incoming {
    let mut incoming = Incoming::new(MAX_CELL);
    incoming.expect_shape(&Shape::new(mode));
    incoming
}

/// Takes what has come: the frames, and the breach if there was one.
fn read(incoming: &mut Incoming) -> (Vec<Vec<u8>>, Option<Error>) {
    let mut frames = Vec::new();
    loop {
        match incoming.next_frame() {
            Ok(Some(frame)) => frames.push(frame.to_vec()),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

/// An honest line that says three things among cover.
fn honest(mode: Mode, seed: u64) -> Vec<u8> {
    let shape = Shape::new(mode);
    let rng = |seed| ChaCha8Rng::seed_from_u64(seed);
    let mut shaper = Shaper::new(shape, rng(seed), rng(!seed), Micros::new(0));
    let mut wire = Vec::new();
    for frame in [&b"one"[..], &[2; 3_000], b"three"] {
        shaper.push(frame, Bulk::Wait).unwrap();
    }
    for _ in 0..12 {
        let Some(at) = shaper.next_wake() else { break };
        shaper.advance(at, &mut wire);
    }
    wire
}

fn mode() -> impl Strategy<Value = Mode> {
    prop::sample::select(Mode::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// What is no line at all: random bytes in random pieces.
    #[test]
    fn garbage_is_refused_or_waited_for_and_never_believed_again(
        mode in mode(),
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3_000), 1..8),
    ) {
        let mut incoming = receiver(mode);
        let mut broken = None;
        for piece in pieces {
            if let Err(refused) = incoming.receive(&piece) {
                // What is broken is not read any more, and takes no more than a cell or two.
                prop_assert_eq!(refused, Error::Full);
                prop_assert!(broken.is_some());
            }
            let (_, now) = read(&mut incoming);
            prop_assert!(broken.is_none() || now == broken, "once refused, always refused");
            broken = now;
        }
    }

    /// An honest line in which a peer then changes a byte: what was whole before arrives as it was,
    /// and however the rest reads, it is no more than was sent.
    #[test]
    fn a_line_that_turns_bad_gives_what_came_before_it_as_it_was(
        mode in mode(),
        seed: u64,
        place in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
        cut in 1..2_000_usize,
    ) {
        let mut wire = honest(mode, seed);
        let at = place.index(wire.len());
        let mut incoming = receiver(mode);
        incoming.receive(&wire[..at]).unwrap();
        let (before, none) = read(&mut incoming);
        prop_assert_eq!(none, None);

        wire[at] ^= flip;
        let mut incoming = receiver(mode);
        let mut heard = Vec::new();
        for piece in wire.chunks(cut) {
            if incoming.receive(piece).is_err() {
                break;
            }
            heard.extend(read(&mut incoming).0);
        }

        prop_assert!(heard.starts_with(&before));
        prop_assert!(heard.iter().map(Vec::len).sum::<usize>() <= wire.len());
    }

    /// A peer that says cover and counts as it likes: only upwards is believed, and the sum of what
    /// came and what is missing is the last number.
    #[test]
    fn cover_that_counts_as_it_likes_is_believed_only_upwards(
        numbers in prop::collection::vec(any::<u64>(), 1..20),
        garbage in prop::collection::vec(any::<u8>(), 0..900),
    ) {
        let mut incoming = Incoming::new(MAX_CELL);
        let mut fill = ChaCha8Rng::seed_from_u64(1);
        let mut expected = 0_u64;
        for (number, believed) in numbers.into_iter().zip(1..) {
            let mut wire = Vec::new();
            let mut payload = number.to_be_bytes().to_vec();
            payload.extend(&garbage);
            seal_cell(Kind::Cover, &payload, &mut fill, &mut wire).unwrap();
            let good = number >= expected && number < u64::MAX;
            incoming.receive(&wire).unwrap();

            let (frames, broken) = read(&mut incoming);

            prop_assert!(frames.is_empty(), "what is called cover is never passed on");
            prop_assert_eq!(broken.is_none(), good);
            if !good {
                break;
            }
            expected = number + 1;
            let cover = incoming.cover();
            prop_assert_eq!(cover.received(), believed);
            prop_assert_eq!(cover.received() + cover.missing(), expected);
        }
    }
}

/// Half a cell, and then nothing: it waits, however often it is asked, and goes on where it was.
#[test]
fn a_stalled_peer_is_waited_for() {
    let wire = honest(Mode::Constant, 3);
    let mut incoming = receiver(Mode::Constant);
    incoming.receive(&wire[..CELL / 2]).unwrap();
    for _ in 0..1_000 {
        assert_eq!(read(&mut incoming), (Vec::new(), None));
    }

    incoming.receive(&wire[CELL / 2..]).unwrap();

    assert_eq!(read(&mut incoming).0.len(), 3);
}

/// Numbers of a peer at and beyond the ends of each range.
#[test]
fn rates_and_sizes_out_of_range_are_refused() {
    let good = (2, 4_000, 1_056, 8);
    for (mode, rate, cell, bank) in [
        (4, good.1, good.2, good.3),
        (good.0, 0, good.2, good.3),
        (good.0, 99, good.2, good.3),
        (good.0, 200_001, good.2, good.3),
        (good.0, good.1, 255, good.3),
        (good.0, good.1, 1_151, good.3),
        (good.0, good.1, u32::MAX, good.3),
        (good.0, good.1, good.2, 65),
        (good.0, good.1, good.2, u32::MAX),
    ] {
        assert!(Shape::from_numbers(mode, rate, cell, bank, Bulk::Wait).is_err());
    }
    assert!(Shape::from_numbers(good.0, good.1, good.2, good.3, Bulk::Wait).is_ok());
    assert!(Shape::from_numbers(3, good.1, good.2, good.3, Bulk::Now).is_err());
}
