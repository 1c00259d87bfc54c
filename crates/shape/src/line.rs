//! One direction of a shaped line: frames in, cells out, and the reverse.
//!
//! A cell's payload is a run of frames, each behind its length (`u32`, big-endian). Frames that wait
//! together share cells: fewer, fuller packets are nearly all there is to gain in throughput.
//! Between two ends that pad to buckets, a frame never goes on in a second cell. Between two that
//! have agreed on one length for all cells, the same run of frames is one long stream that is cut
//! wherever a cell is full. Cover cells end here.
//!
//! [`Outgoing`] writes what waits when it is told to; [`crate::Shaper`] tells it when.

use std::fmt;
use std::ops::Range;

use rand_chacha::ChaCha8Rng;

use crate::bucket::{BUCKETS, padded_len};
use crate::counter::CoverCount;
use crate::error::{Breach, Error};
use crate::pad::{
    CellReader, Fill, HEADER_LEN, KEPT_LEN, Kind, MAX_PAYLOAD, cell_len, payload_max, seal_cell,
    seal_cover_bucket, seal_exact,
};
use crate::shape::Shape;

/// The longest frame a line carries: 1 MiB and room for what stands around it.
pub const MAX_FRAME: usize = MAX_PAYLOAD - PREFIX_LEN;

/// The most that waits in one direction. [`Outgoing::push`] answers `Full` beyond it; an empty line
/// takes any frame.
pub const MAX_WAITING: usize = 2 * 1_048_576;

/// The sending end: frames wait here until they are written out as cells.
pub struct Outgoing {
    /// Frames with their lengths, back to back: each cell's payload is a slice of this.
    waiting: Vec<u8>,
    /// How much of that has left already. Only a stream is ever cut inside a frame.
    left: usize,
    waiting_max: usize,
    /// The number of the next cover cell.
    covers: u64,
    fill: Fill,
}

impl Outgoing {
    /// A line whose masks and fill come from a [`Fill`] with this seed: a generator that a program
    /// seeds from the operating system, and that serves nothing else.
    pub fn new(fill_rng: ChaCha8Rng) -> Self {
        Self::holding(MAX_WAITING, fill_rng)
    }

    /// A line that is full when this many bytes wait.
    pub(crate) fn holding(waiting_max: usize, fill_rng: ChaCha8Rng) -> Self {
        Self {
            waiting: Vec::new(),
            left: 0,
            waiting_max,
            covers: 0,
            fill: Fill::new(fill_rng),
        }
    }

    pub(crate) fn hold_at_most(&mut self, waiting_max: usize) {
        self.waiting_max = waiting_max;
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
        if self.room().is_none_or(|room| frame.len() > room) {
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
        self.waiting.len() - self.left
    }

    /// The longest frame that [`Self::push`] takes now, if any. An empty line takes any.
    pub(crate) fn room(&self) -> Option<usize> {
        if self.waiting() == 0 {
            return Some(MAX_FRAME);
        }
        self.waiting_max
            .checked_sub(self.waiting() + PREFIX_LEN)
            .map(|room| room.min(MAX_FRAME))
    }

    /// Appends all that waits to `out`, as cells, in the order it was pushed.
    pub fn drain_into(&mut self, out: &mut Vec<u8>) {
        self.drain_counting(out);
    }

    /// Drains, and says how many cells that made.
    pub(crate) fn drain_counting(&mut self, out: &mut Vec<u8>) -> u64 {
        let mut cells = 0;
        let mut rest = &self.waiting[self.left..];
        while !rest.is_empty() {
            let (payload, later) = rest.split_at(next_payload_len(rest));
            seal_cell(Kind::Frame, payload, &mut self.fill, out)
                .expect("push takes only frames that fit, and a run is cut to fit a cell");
            cells += 1;
            rest = later;
        }
        self.left = self.waiting.len();
        self.forget_what_left();
        cells
    }

    /// Appends one cell of exactly `cell` bytes with as much of what waits as goes in. Gives the
    /// bytes that left, or `None` when nothing waits: then nothing is appended.
    pub(crate) fn stream_cell(&mut self, cell: usize, out: &mut Vec<u8>) -> Option<usize> {
        let len = self.waiting().min(payload_max(cell));
        if len == 0 {
            return None;
        }
        let payload = &self.waiting[self.left..self.left + len];
        seal_exact(Kind::Stream, payload, cell, &mut self.fill, out)
            .expect("the payload was cut to fit");
        self.left += len;
        self.forget_what_left();
        Some(len)
    }

    /// Appends one cover cell of exactly `cell` bytes.
    pub(crate) fn cover_cell(&mut self, cell: usize, out: &mut Vec<u8>) {
        let number = self.next_cover();
        seal_exact(
            Kind::Cover,
            &number.to_be_bytes(),
            cell,
            &mut self.fill,
            out,
        )
        .expect("a number fits every cell");
    }

    /// Appends one cover cell that looks like a cell of this bucket.
    pub(crate) fn cover_bucket(&mut self, bucket: usize, out: &mut Vec<u8>) {
        let number = self.next_cover();
        seal_cover_bucket(number, bucket, &mut self.fill, out);
    }

    fn next_cover(&mut self) -> u64 {
        let number = self.covers;
        self.covers += 1;
        number
    }

    /// Moves what waits to the front when at least as much has left, so that moving costs no more
    /// than leaving did; gives memory back when the line is quiet.
    fn forget_what_left(&mut self) {
        if self.left >= self.waiting() {
            self.waiting.drain(..self.left);
            self.left = 0;
            if self.waiting.len() <= KEPT_LEN {
                self.waiting.shrink_to(KEPT_LEN);
            }
        }
    }
}

/// Frames may hold tokens, so only the amount is shown.
impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

/// The receiving end: turns pieces of the stream back into frames.
///
/// Its memory is what has arrived and was not yet taken: less than one cell and the last piece, and
/// of a frame that is cut over cells the part that is there. What a peer announces makes it grow by
/// nothing.
pub struct Incoming {
    cells: CellReader,
    /// The frames of the current cell that were not yet taken, as a place in the reader's bytes.
    frames: Range<usize>,
    /// What stream cells brought, from `taken` on not yet taken.
    stream: Vec<u8>,
    taken: usize,
    frame_max: usize,
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
            stream: Vec::new(),
            taken: 0,
            frame_max: frame_max(cell_max),
            cover: CoverCount::default(),
            breach: None,
        }
    }

    /// Changes the accepted size for all cells from the next one on, once the peer is known.
    pub fn accept_up_to(&mut self, cell_max: usize) {
        self.cells.accept_up_to(cell_max);
        self.frame_max = frame_max(cell_max);
    }

    /// From the next cell on the peer keeps to this shape: where it has slots, all cells have its
    /// length and no other is taken. The longest frame stays what it was.
    pub fn expect_shape(&mut self, shape: &Shape) {
        if shape.mode().is_slotted() {
            self.cells.accept_exactly(shape.cell());
        }
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
        Ok(frame.map(|frame| match frame {
            Place::Cell(place) => &self.cells.bytes()[place],
            Place::Stream(place) => &self.stream[place],
        }))
    }

    /// What has arrived of the peer's cover, and how much of it is missing.
    pub fn cover(&self) -> CoverCount {
        self.cover
    }

    fn find_frame(&mut self) -> Result<Option<Place>, Breach> {
        loop {
            if !self.frames.is_empty() {
                return self.frame_of_cell().map(|place| Some(Place::Cell(place)));
            }
            if let Some(place) = self.frame_of_stream()? {
                return Ok(Some(Place::Stream(place)));
            }
            self.forget_taken();
            let Some((kind, payload)) = self.cells.take()? else {
                return Ok(None);
            };
            let bytes = &self.cells.bytes()[payload.clone()];
            match kind {
                Kind::Cover => self.cover.note(bytes)?,
                Kind::Frame | Kind::Stream if bytes.is_empty() => return Err(Breach::Empty),
                Kind::Frame if !self.stream.is_empty() => return Err(Breach::FrameCut),
                Kind::Frame => self.frames = payload,
                Kind::Stream => self.stream.extend_from_slice(bytes),
            }
        }
    }

    fn frame_of_cell(&mut self) -> Result<Range<usize>, Breach> {
        let frames = &self.cells.bytes()[self.frames.clone()];
        let end = frame_end(frames)
            .filter(|end| *end <= frames.len())
            .ok_or(Breach::FrameCut)?;
        let frame = self.frames.start + PREFIX_LEN..self.frames.start + end;
        self.frames.start = frame.end;
        Ok(frame)
    }

    /// The next frame of the stream, if all of it has arrived.
    fn frame_of_stream(&mut self) -> Result<Option<Range<usize>>, Breach> {
        let rest = &self.stream[self.taken..];
        if rest.len() < PREFIX_LEN {
            return Ok(None);
        }
        let end = frame_end(rest)
            .filter(|end| *end <= PREFIX_LEN + self.frame_max)
            .ok_or(Breach::FrameTooLarge)?;
        if end > rest.len() {
            return Ok(None);
        }
        let frame = self.taken + PREFIX_LEN..self.taken + end;
        self.taken = frame.end;
        Ok(Some(frame))
    }

    fn forget_taken(&mut self) {
        self.stream.drain(..self.taken);
        self.taken = 0;
        if self.stream.len() <= KEPT_LEN {
            self.stream.shrink_to(KEPT_LEN);
        }
    }
}

/// Frames may hold tokens, so only amounts are shown.
impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("cells", &self.cells)
            .field("stream", &(self.stream.len() - self.taken))
            .field("cover", &self.cover)
            .field("breach", &self.breach)
            .finish_non_exhaustive()
    }
}

/// Where a frame lies.
enum Place {
    Cell(Range<usize>),
    Stream(Range<usize>),
}

/// A frame that is cut over cells may be as long as one that fits the largest accepted cell.
fn frame_max(cell_max: usize) -> usize {
    cell_max
        .saturating_sub(HEADER_LEN + PREFIX_LEN)
        .min(MAX_FRAME)
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
pub(crate) const PREFIX_LEN: usize = 4;

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
    fn a_stream_of_frames_is_cut_wherever_a_cell_is_full() {
        let mut line = outgoing(5);
        let mut wire = Vec::new();
        line.push(&[1; 20]).unwrap();
        line.push(&[2; 300]).unwrap();

        let mut left = Vec::new();
        while let Some(len) = line.stream_cell(256, &mut wire) {
            left.push(len);
        }
        assert_eq!(left, [247, 81], "two prefixes and 320 bytes");
        assert_eq!(line.waiting(), 0);
        line.cover_cell(256, &mut wire);
        assert_eq!(wire.len(), 3 * 256);

        let mut receiver = Incoming::new(MAX_CELL);
        receiver.cells.accept_exactly(256);
        receiver.receive(&wire).unwrap();
        assert_eq!(receiver.next_frame(), Ok(Some(&[1; 20][..])));
        assert_eq!(receiver.next_frame(), Ok(Some(&[2; 300][..])));
        assert_eq!(receiver.next_frame(), Ok(None));
        assert_eq!(receiver.cover().received(), 1);
    }

    #[test]
    fn a_stream_that_breaks_the_rules_ends_the_line_for_good() {
        let begun = [0, 0, 0, 9, b'h'];
        for (kind, payload, breach) in [
            (Kind::Stream, &b""[..], Breach::Empty),
            (Kind::Frame, &[0, 0, 0, 1, b'a'], Breach::FrameCut),
            (Kind::Cover, &[1, 2, 3], Breach::CoverCounter),
            // With the frame's last 8 bytes, and then one that is far too long.
            (
                Kind::Stream,
                &[1, 1, 1, 1, 1, 1, 1, 1, 0xFF, 0xFF, 0xFF, 0xFF],
                Breach::FrameTooLarge,
            ),
        ] {
            let mut wire = Vec::new();
            seal(Kind::Stream, &begun, &mut wire);
            seal(kind, payload, &mut wire);
            let mut line = Incoming::new(MAX_CELL);
            line.receive(&wire).unwrap();

            let mut first = line.next_frame();
            if let Ok(Some(frame)) = first {
                assert_eq!(frame, [b'h', 1, 1, 1, 1, 1, 1, 1, 1]);
                first = line.next_frame();
            }
            assert_eq!(first, Err(breach.into()));
            assert_eq!(line.next_frame(), Err(breach.into()));
        }
    }

    #[test]
    fn a_stranger_announces_no_longer_frame_in_many_cells_than_in_one() {
        for (len, allowed) in [(8_192 - 13, true), (8_192 - 12, false)] {
            let mut sender = outgoing(6);
            sender.push(&vec![1; len]).unwrap();
            let mut wire = Vec::new();
            while sender.stream_cell(1_024, &mut wire).is_some() {}

            let mut stranger = Incoming::new(8_192);
            stranger.cells.accept_exactly(1_024);
            let mut arrived = Ok(false);
            for piece in wire.chunks(1_024) {
                stranger.receive(piece).unwrap();
                arrived = stranger.next_frame().map(|frame| frame.is_some());
                if arrived.is_err() {
                    break;
                }
            }
            let expected = if allowed {
                Ok(true)
            } else {
                Err(Breach::FrameTooLarge.into())
            };
            assert_eq!(arrived, expected, "{len}");
        }
    }

    #[test]
    fn a_long_frame_takes_memory_only_as_it_arrives_and_gives_it_back() {
        let mut sender = outgoing(7);
        sender.push(&vec![1; MAX_FRAME]).unwrap();
        let mut line = Incoming::new(MAX_CELL);
        line.cells.accept_exactly(1_056);
        let mut cell = Vec::new();
        let mut arrived = 0;

        let mut frames = 0;
        while sender.stream_cell(1_056, &mut cell).is_some() {
            arrived += cell.len();
            line.receive(&cell).unwrap();
            cell.clear();
            while line.next_frame().unwrap().is_some() {
                frames += 1;
            }
            assert!(line.stream.capacity() <= 2 * arrived.max(KEPT_LEN));
        }

        assert_eq!(frames, 1);
        assert!(line.stream.capacity() <= KEPT_LEN);
        assert!(sender.waiting.capacity() <= KEPT_LEN);
    }

    #[test]
    fn nothing_of_a_frame_shows_in_debug_output() {
        let mut sender = outgoing(4);
        sender.push(b"{{{{{{{{").unwrap();
        let mut receiver = Incoming::new(MAX_CELL);
        receiver.receive(b"{{{{{{{{").unwrap();
        receiver.stream.extend_from_slice(b"{{{{{{{{");

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
        fn payloads_from_outside_never_panic(
            cells in prop::collection::vec(
                // Lengths are small more often than chance would have it, so that frames end.
                (0..3_u8, prop::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..60)),
                0..12,
            ),
            exact in prop_oneof![Just(None), (64_usize..1_200).prop_map(Some)],
            garbage: Vec<u8>,
            garbage_from in 0_usize..4_000,
        ) {
            let mut rng = ChaCha8Rng::seed_from_u64(9);
            let mut wire = Vec::new();
            for (kind, payload) in &cells {
                let kind = [Kind::Frame, Kind::Cover, Kind::Stream][usize::from(*kind)];
                match exact {
                    None => seal_cell(kind, payload, &mut rng, &mut wire).unwrap(),
                    Some(cell) => {
                        // Too long for a small cell: skipped.
                        let _ = seal_exact(kind, payload, cell, &mut rng, &mut wire);
                    }
                }
            }
            for (place, byte) in wire.iter_mut().skip(garbage_from).zip(&garbage) {
                *place ^= byte;
            }
            let mut line = Incoming::new(MAX_CELL);
            if let Some(cell) = exact {
                line.cells.accept_exactly(cell);
            }
            let mut frames = 0;
            for piece in wire.chunks(700) {
                if line.receive(piece).is_err() {
                    break;
                }
                while let Ok(Some(frame)) = line.next_frame() {
                    frames += PREFIX_LEN + frame.len();
                }
            }
            prop_assert!(frames <= wire.len());
            prop_assert!(line.stream.capacity() <= 2 * wire.len().max(KEPT_LEN));
        }
    }
}
