//! One direction of a shaped line: frames in, cells out, and the reverse.
//!
//! A cell's payload is a run of frames, each behind its length (`u32`, big-endian). Frames that wait
//! together share cells: fewer, fuller packets are nearly all there is to gain in throughput.
//! A frame never goes on in a second cell. Cover cells end here.

use std::fmt;
use std::ops::Range;

use rand_chacha::ChaCha8Rng;

use crate::bucket::{BUCKETS, padded_len};
use crate::counter::CoverCount;
use crate::error::{Breach, Error};
use crate::pad::{CellReader, HEADER_LEN, KEPT_LEN, Kind, MAX_PAYLOAD, cell_len, seal_cell};

/// The longest frame a line carries: 1 MiB and room for what stands around it.
pub const MAX_FRAME: usize = MAX_PAYLOAD - PREFIX_LEN;

/// The most that waits in one direction. [`Outgoing::push`] answers `Full` beyond it; an empty line
/// takes any frame.
pub const MAX_WAITING: usize = 2 * 1_048_576;

/// The sending end: frames wait here until they are written out as cells.
pub struct Outgoing {
    /// Frames with their lengths, back to back: each cell's payload is a slice of this.
    waiting: Vec<u8>,
    rng: ChaCha8Rng,
}

impl Outgoing {
    /// A line whose masks and fill come from `rng`, which a program seeds from the operating
    /// system. `ChaCha8` because fill must not cost more than the encryption that follows.
    pub fn new(rng: ChaCha8Rng) -> Self {
        Self {
            waiting: Vec::new(),
            rng,
        }
    }

    /// Lets a frame wait for the next [`Self::drain_into`].
    pub fn push(&mut self, frame: &[u8]) -> Result<(), Error> {
        let misuse = Error::Misuse {
            len: frame.len(),
            max: MAX_FRAME,
        };
        if frame.len() > MAX_FRAME {
            return Err(misuse);
        }
        if self.waiting.len() + PREFIX_LEN + frame.len() > MAX_WAITING {
            return Err(Error::Full);
        }
        let len = u32::try_from(frame.len()).map_err(|_| misuse)?;
        self.waiting.extend_from_slice(&len.to_be_bytes());
        self.waiting.extend_from_slice(frame);
        Ok(())
    }

    /// How many bytes wait, before padding. A writer drains when this passes the size of the buffer
    /// it likes to write at once.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Appends all that waits to `out`, as cells, in the order it was pushed.
    pub fn drain_into(&mut self, out: &mut Vec<u8>) {
        let mut rest = &self.waiting[..];
        while !rest.is_empty() {
            let (payload, later) = rest.split_at(next_payload_len(rest));
            seal_cell(Kind::Frame, payload, &mut self.rng, out)
                .expect("push takes only frames that fit, and a run is cut to fit a cell");
            rest = later;
        }
        self.waiting.clear();
        self.waiting.shrink_to(KEPT_LEN);
    }
}

/// Frames may hold tokens, so only the amount is shown.
impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

/// The receiving end: turns pieces of the stream back into frames.
#[derive(Debug)]
pub struct Incoming {
    cells: CellReader,
    /// The frames of the current cell that were not yet taken, as a place in the reader's bytes.
    frames: Range<usize>,
    cover: CoverCount,
    breach: Option<Breach>,
}

impl Incoming {
    /// A line that refuses cells longer than `cell_max`. A sender fills cells of up to 32 KiB, so a
    /// smaller limit is only for the start of a conversation, when a single small frame is awaited.
    pub fn new(cell_max: usize) -> Self {
        Self {
            cells: CellReader::new(cell_max),
            frames: 0..0,
            cover: CoverCount::default(),
            breach: None,
        }
    }

    /// Changes the accepted size for all cells from the next one on, once the peer is known.
    pub fn accept_up_to(&mut self, cell_max: usize) {
        self.cells.accept_up_to(cell_max);
    }

    /// Takes the next piece of the stream. Call [`Self::next_frame`] until it gives `None` after
    /// each piece; `Full` says that this was forgotten.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.cells.receive(bytes)
    }

    /// The next frame, or `None` when more of the stream is needed. An error is final and is given
    /// again on every later call.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, Error> {
        if let Some(breach) = self.breach {
            return Err(breach.into());
        }
        let frame = self
            .find_frame()
            .inspect_err(|breach| self.breach = Some(*breach))?;
        Ok(frame.map(|frame| &self.cells.bytes()[frame]))
    }

    /// What has arrived of the peer's cover, and how much of it is missing.
    pub fn cover(&self) -> CoverCount {
        self.cover
    }

    fn find_frame(&mut self) -> Result<Option<Range<usize>>, Breach> {
        while self.frames.is_empty() {
            let Some((kind, payload)) = self.cells.take()? else {
                return Ok(None);
            };
            match kind {
                Kind::Cover => self.cover.note(&self.cells.bytes()[payload])?,
                Kind::Frame if payload.is_empty() => return Err(Breach::Empty),
                Kind::Frame => self.frames = payload,
            }
        }
        let frames = &self.cells.bytes()[self.frames.clone()];
        let end = frame_end(frames)
            .filter(|end| *end <= frames.len())
            .ok_or(Breach::FrameCut)?;
        let frame = self.frames.start + PREFIX_LEN..self.frames.start + end;
        self.frames.start = frame.end;
        Ok(Some(frame))
    }
}

/// How much of what waits goes into the next cell: whole frames, at least one.
///
/// Buckets double, so putting all into one cell could waste half of it. A shared cell is therefore
/// seven eighths full or no larger than its first frame needs by itself; otherwise half the size is
/// tried. So sharing costs at most a seventh more than a cell for each frame would, and mostly
/// saves.
fn next_payload_len(waiting: &[u8]) -> usize {
    let first = frame_end(waiting).expect("push writes whole frames");
    let mut run = waiting.len();
    loop {
        let room = roomy_cell(HEADER_LEN + run).max(cell_len(first)) - HEADER_LEN;
        if run <= room {
            return run;
        }
        run = whole_frames(waiting, room);
    }
}

/// The cell that these bytes fill well enough, or else a smaller one.
fn roomy_cell(len: usize) -> usize {
    if len >= LARGEST_SHARED {
        return LARGEST_SHARED;
    }
    let cell = padded_len(len);
    if len * 8 > cell * 7 { cell } else { cell / 2 }
}

/// Where the last frame ends that still lies within `room`.
fn whole_frames(frames: &[u8], room: usize) -> usize {
    let mut end = 0;
    while let Some(frame) = frame_end(&frames[end..])
        && end + frame <= room
    {
        end += frame;
    }
    end
}

/// Where the first of these frames ends by its own account, which a peer may have made up.
fn frame_end(frames: &[u8]) -> Option<usize> {
    let len = u32::from_be_bytes(*frames.first_chunk()?);
    usize::try_from(len).ok()?.checked_add(PREFIX_LEN)
}

/// The length before each frame.
const PREFIX_LEN: usize = 4;

/// Frames are gathered into cells up to this size; only a single large frame makes a larger one.
const LARGEST_SHARED: usize = BUCKETS[BUCKETS.len() - 1];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::MAX_CELL;
    use proptest::prelude::*;
    use rand::SeedableRng;

    fn outgoing(seed: u64) -> Outgoing {
        Outgoing::new(ChaCha8Rng::seed_from_u64(seed))
    }

    fn seal(kind: Kind, payload: &[u8], wire: &mut Vec<u8>) {
        seal_cell(kind, payload, &mut ChaCha8Rng::seed_from_u64(7), wire).unwrap();
    }

    fn cells_of(frames: &[usize]) -> Vec<usize> {
        let mut line = outgoing(1);
        for len in frames {
            line.push(&vec![0xEE; *len]).unwrap();
        }
        let mut wire = Vec::new();
        line.drain_into(&mut wire);
        cell_lens(&wire)
    }

    fn cell_lens(wire: &[u8]) -> Vec<usize> {
        let mut reader = CellReader::new(MAX_CELL);
        reader.receive(wire).unwrap();
        let mut lens = Vec::new();
        while let Some((_, payload)) = reader.next_cell().unwrap() {
            lens.push(cell_len(payload.len()));
        }
        assert_eq!(
            lens.iter().sum::<usize>(),
            wire.len(),
            "cells and nothing else are on the wire"
        );
        lens
    }

    #[test]
    fn frames_that_wait_together_share_cells() {
        assert_eq!(cells_of(&[]), []);
        assert_eq!(cells_of(&[0]), [256]);
        assert_eq!(cells_of(&[243]), [256]);
        assert_eq!(cells_of(&[244]), [512]);
        assert_eq!(cells_of(&[50, 50, 50]), [256]);
        // Worked by hand: 30 × 604 bytes fill a cell of 16 KiB and one of 2 KiB.
        assert_eq!(cells_of(&[600; 30]), [16_384, 2_048]);
        assert_eq!(cells_of(&[600; 108]), [32_768, 32_768]);
        // The small frame travels in the room that the first leaves anyway.
        assert_eq!(cells_of(&[550, 50]), [1_024]);
        // A full cell of 1 KiB and one of 256 bytes do not become one of 2 KiB.
        assert_eq!(cells_of(&[1_011, 243, 4_083]), [1_024, 256, 4_096]);
    }

    #[test]
    fn a_large_frame_has_one_cell_and_order_is_kept_around_it() {
        assert_eq!(cells_of(&[100, 1_048_576, 100]), [256, 1_081_344]);
        assert_eq!(cells_of(&[MAX_FRAME]), [MAX_CELL]);
    }

    #[test]
    fn what_cannot_be_sent_is_refused_and_leaves_the_line_as_it_was() {
        let mut line = outgoing(2);
        let largest = vec![1; MAX_FRAME];

        let too_long = vec![1; MAX_FRAME + 1];
        assert_eq!(
            line.push(&too_long),
            Err(Error::Misuse {
                len: MAX_FRAME + 1,
                max: MAX_FRAME
            })
        );
        line.push(&largest).unwrap();
        assert_eq!(line.push(&largest), Err(Error::Full));
        assert_eq!(line.waiting(), PREFIX_LEN + MAX_FRAME);

        let mut wire = Vec::new();
        line.drain_into(&mut wire);
        assert_eq!((wire.len(), line.waiting()), (MAX_CELL, 0));
        assert!(
            line.waiting.capacity() <= KEPT_LEN,
            "a quiet line gives its memory back"
        );
        line.push(&largest).unwrap();
    }

    #[test]
    fn cover_is_counted_and_never_passed_on() {
        let mut wire = Vec::new();
        seal(Kind::Cover, &0_u64.to_be_bytes(), &mut wire);
        seal(Kind::Frame, &[0, 0, 0, 2, b'h', b'i'], &mut wire);
        let mut with_fill = 3_u64.to_be_bytes().to_vec();
        with_fill.extend([0xCC; 900]);
        seal(Kind::Cover, &with_fill, &mut wire);

        let mut line = Incoming::new(MAX_CELL);
        line.receive(&wire).unwrap();

        assert_eq!(line.next_frame(), Ok(Some(&b"hi"[..])));
        assert_eq!(line.next_frame(), Ok(None));
        assert_eq!((line.cover().received(), line.cover().missing()), (2, 2));
    }

    #[test]
    fn a_broken_cell_ends_the_line_for_good() {
        for (kind, payload, breach) in [
            (Kind::Frame, &b""[..], Breach::Empty),
            (Kind::Frame, &[0, 0, 0], Breach::FrameCut),
            (Kind::Frame, &[0, 0, 0, 2, b'h'], Breach::FrameCut),
            (
                Kind::Frame,
                &[0xFF, 0xFF, 0xFF, 0xFF, b'h'],
                Breach::FrameCut,
            ),
            (Kind::Cover, &[1, 2, 3], Breach::CoverCounter),
        ] {
            let mut wire = Vec::new();
            seal(Kind::Frame, &[0, 0, 0, 1, b'a'], &mut wire);
            seal(kind, payload, &mut wire);
            seal(Kind::Frame, &[0, 0, 0, 1, b'b'], &mut wire);
            let mut line = Incoming::new(MAX_CELL);

            line.receive(&wire).unwrap();

            assert_eq!(line.next_frame(), Ok(Some(&b"a"[..])));
            for _ in 0..3 {
                assert_eq!(line.next_frame(), Err(breach.into()));
            }
        }
    }

    #[test]
    fn a_stranger_is_held_to_small_cells_until_accepted() {
        let mut wire = Vec::new();
        let mut sender = outgoing(3);
        sender.push(&vec![1; 20_000]).unwrap();
        sender.drain_into(&mut wire);

        let mut stranger = Incoming::new(16_384);
        stranger.receive(&wire[..HEADER_LEN]).unwrap();
        assert_eq!(stranger.next_frame(), Err(Breach::CellTooLarge.into()));

        let mut known = Incoming::new(16_384);
        known.accept_up_to(MAX_CELL);
        known.receive(&wire).unwrap();
        assert_eq!(known.next_frame().unwrap().unwrap(), vec![1; 20_000]);
    }

    #[test]
    fn nothing_of_a_frame_shows_in_debug_output() {
        let mut sender = outgoing(4);
        sender.push(b"{{{{{{{{").unwrap();
        let mut receiver = Incoming::new(MAX_CELL);
        receiver.receive(b"{{{{{{{{").unwrap();

        let shown = format!("{sender:?} {receiver:?}");

        assert!(!shown.contains("123") && !shown.contains("{{"), "{shown}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn frames_arrive_whole_and_in_order_however_the_stream_is_cut(
            lens in prop::collection::vec(prop_oneof![8 => 0_usize..1_500, 2 => 0_usize..40_000, 1 => 30_000_usize..120_000], 0..40),
            drain_every in 1_usize..12,
            piece in 1_usize..70_000,
            seed: u64,
        ) {
            let frames: Vec<Vec<u8>> = lens.iter().zip(0_u8..).map(|(len, tag)| vec![tag; *len]).collect();
            let mut sender = outgoing(seed);
            let mut wire = Vec::new();
            for batch in frames.chunks(drain_every) {
                for frame in batch {
                    sender.push(frame).unwrap();
                }
                sender.drain_into(&mut wire);
            }

            for len in cell_lens(&wire) {
                prop_assert!(BUCKETS.contains(&len) || (len > 32_768 && padded_len(len) == len), "{}", len);
            }
            let mut receiver = Incoming::new(MAX_CELL);
            let mut arrived = Vec::new();
            for piece in wire.chunks(piece) {
                receiver.receive(piece).unwrap();
                while let Some(frame) = receiver.next_frame().unwrap() {
                    arrived.push(frame.to_vec());
                }
            }
            prop_assert_eq!(arrived, frames);
        }

            #[test]
        fn sharing_costs_at_most_a_seventh_more(lens in prop::collection::vec(0_usize..5_000, 1..60)) {
            let shared: usize = cells_of(&lens).iter().sum();
            let apart: usize = lens.iter().map(|len| cell_len(PREFIX_LEN + len)).sum();
            prop_assert!(shared * 7 <= apart * 8, "{} against {}", shared, apart);
        }

        #[test]
        fn payloads_from_outside_never_panic(payload: Vec<u8>, cover: bool) {
            let mut wire = Vec::new();
            seal(if cover { Kind::Cover } else { Kind::Frame }, &payload, &mut wire);
            let mut line = Incoming::new(MAX_CELL);
            line.receive(&wire).unwrap();
            while let Ok(Some(frame)) = line.next_frame() {
                prop_assert!(frame.len() <= payload.len());
            }
        }
    }
}
