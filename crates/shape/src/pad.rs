//! One cell: sealing it, opening it, and finding cells in a stream of bytes.
//!
//! ```text
//! 0        4          8      9
//! | random | length ^ | kind^| payload … | random fill … |
//! ```
//!
//! Length (big-endian) and kind are masked by XOR with the random bytes, so that no byte of a cell
//! is constant. That is hygiene, not secrecy: whoever sees the cell itself can undo it, and the
//! encryption of the connection is what keeps the network from seeing it. The cell's length is a
//! pure function of the payload's, [`cell_len`], or one that both ends have agreed on for all cells
//! of a direction; so a reader needs no other framing.

mod fill;

use std::fmt;
use std::ops::Range;

use rand::CryptoRng;

use crate::bucket::{MAX_CELL, padded_len};
use crate::error::{Breach, Error};

use fill::BLOCK;
pub use fill::Fill;

/// Random bytes, masked length, masked kind.
pub const HEADER_LEN: usize = 9;

/// The most that one cell carries.
pub const MAX_PAYLOAD: usize = MAX_CELL - HEADER_LEN;

/// What a cell is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It carries frames.
    Frame,
    /// It carries nothing but its number among the cover cells.
    Cover,
    /// It carries the next piece of a stream of frames, cut wherever the cell was full.
    Stream,
}

impl Kind {
    fn to_byte(self) -> u8 {
        match self {
            Self::Frame => 1,
            Self::Cover => 2,
            Self::Stream => 3,
        }
    }

    fn from_byte(byte: u8) -> Result<Self, Breach> {
        match byte {
            1 => Ok(Self::Frame),
            2 => Ok(Self::Cover),
            3 => Ok(Self::Stream),
            _ => Err(Breach::UnknownKind),
        }
    }
}

/// The length on the wire of a cell with a payload of `payload_len` bytes.
pub const fn cell_len(payload_len: usize) -> usize {
    padded_len(HEADER_LEN + payload_len)
}

/// Appends a cell to `out`. Refuses payloads over [`MAX_PAYLOAD`], leaving `out` as it was.
pub fn seal_cell(
    kind: Kind,
    payload: &[u8],
    rng: &mut impl CryptoRng,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    if payload.len() > MAX_PAYLOAD {
        return Err(Error::Misuse {
            len: payload.len(),
            max: MAX_PAYLOAD,
        });
    }
    seal(
        kind,
        payload.len(),
        payload,
        cell_len(payload.len()),
        rng,
        out,
    );
    Ok(())
}

/// Appends a cell of exactly `cell` bytes to `out`, whatever the payload's length. Refuses payloads
/// over [`payload_max`], and cells that would be no longer than their header, leaving `out` as it was.
pub fn seal_exact(
    kind: Kind,
    payload: &[u8],
    cell: usize,
    rng: &mut impl CryptoRng,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let max = payload_max(cell);
    if payload.len() > max || cell <= HEADER_LEN {
        return Err(Error::Misuse {
            len: payload.len(),
            max,
        });
    }
    seal(kind, payload.len(), payload, cell, rng, out);
    Ok(())
}

/// What a cell of an agreed length carries.
pub const fn payload_max(cell: usize) -> usize {
    let room = cell.saturating_sub(HEADER_LEN);
    if room < MAX_PAYLOAD {
        room
    } else {
        MAX_PAYLOAD
    }
}

/// Appends a cover cell that a reader of buckets takes for one of `bucket` bytes: its length follows
/// from its payload, so the payload is random to the cell's end.
pub(crate) fn seal_cover_bucket(
    counter: u64,
    bucket: usize,
    rng: &mut impl CryptoRng,
    out: &mut Vec<u8>,
) {
    seal(
        Kind::Cover,
        bucket - HEADER_LEN,
        &counter.to_be_bytes(),
        bucket,
        rng,
        out,
    );
}

/// A cell whose payload is said to have `payload_len` bytes: those given, then random ones up to the
/// cell's end.
fn seal(
    kind: Kind,
    payload_len: usize,
    given: &[u8],
    cell: usize,
    rng: &mut impl CryptoRng,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    out.resize(start + cell, 0);
    let cell = &mut out[start..];
    let fill_len = cell.len() - HEADER_LEN - given.len();
    // One draw for mask and fill, and of whole blocks where there is room: what ends inside a block
    // costs a block encrypted by itself. The draw begins before the fill, with the mask, and what is
    // known is written over it.
    let drawn = (fill_len + MASK_LEN).next_multiple_of(BLOCK);
    let from = cell.len().saturating_sub(drawn);
    rng.fill_bytes(&mut cell[from..]);
    let mask = *cell[from..]
        .first_chunk()
        .expect("the header before the fill is longer than the mask");
    let (header, rest) = cell.split_at_mut(HEADER_LEN);
    header.copy_from_slice(&encode_header(kind, payload_len, mask));
    rest[..given.len()].copy_from_slice(given);
}

/// Opens a cell that is known to stand alone, as in a datagram.
pub fn open_cell(cell: &[u8]) -> Result<(Kind, &[u8]), Error> {
    let header = cell.first_chunk().ok_or(Breach::WrongLength)?;
    let header = Header::decode(*header, CellLen::UpTo(MAX_CELL))?;
    if cell.len() != header.cell_len {
        return Err(Breach::WrongLength.into());
    }
    Ok((header.kind, &cell[header.payload()]))
}

/// Finds the cells in a stream that arrives in pieces.
///
/// Its memory is what was received and not yet taken: less than one cell of the accepted size and
/// the last piece. What a peer announces makes it grow by nothing.
pub struct CellReader {
    buffer: Vec<u8>,
    /// Where the first cell not yet taken begins.
    start: usize,
    accepted: CellLen,
}

impl CellReader {
    /// A reader that refuses cells longer than `cell_max`, by their header.
    pub fn new(cell_max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            accepted: CellLen::UpTo(cell_max.min(MAX_CELL)),
        }
    }

    /// Changes the accepted size for all cells from the next one on.
    pub fn accept_up_to(&mut self, cell_max: usize) {
        self.accepted = CellLen::UpTo(cell_max.min(MAX_CELL));
    }

    /// From the next one on, all cells have this length, and one that announces more than fits is
    /// refused by its header. A cell of another length is found out where it ends and the next one
    /// should begin: what stands there passes for a header with a chance of one in some 300 million.
    pub fn accept_exactly(&mut self, cell: usize) {
        self.accepted = CellLen::Exactly(cell.clamp(HEADER_LEN + 1, MAX_CELL));
    }

    /// Takes the next piece of the stream. `Full` when a whole cell is waiting to be taken.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.buffer.len() - self.start >= self.accepted.max() {
            return Err(Error::Full);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next complete cell, or `None` when more of the stream is needed. An error is final: the
    /// reader stays where it is.
    pub fn next_cell(&mut self) -> Result<Option<(Kind, &[u8])>, Error> {
        Ok(self
            .take()?
            .map(|(kind, payload)| (kind, &self.buffer[payload])))
    }

    /// Like [`Self::next_cell`], but says where in [`Self::bytes`] the payload lies. The place holds
    /// until a call gives `None`.
    pub(crate) fn take(&mut self) -> Result<Option<(Kind, Range<usize>)>, Breach> {
        let rest = &self.buffer[self.start..];
        if let Some(header) = rest.first_chunk() {
            let header = Header::decode(*header, self.accepted)?;
            if rest.len() >= header.cell_len {
                let payload = header.payload();
                let payload = self.start + payload.start..self.start + payload.end;
                self.start += header.cell_len;
                return Ok(Some((header.kind, payload)));
            }
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.len() <= KEPT_LEN {
            self.buffer.shrink_to(KEPT_LEN);
        }
        Ok(None)
    }

    /// What is buffered, for use with [`Self::take`].
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }
}

/// Frames may hold tokens, so only the amount is shown.
impl fmt::Debug for CellReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CellReader")
            .field("buffered", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

/// Which lengths a reader takes.
#[derive(Debug, Clone, Copy)]
enum CellLen {
    /// Buckets up to this.
    UpTo(usize),
    /// This and no other.
    Exactly(usize),
}

impl CellLen {
    fn max(self) -> usize {
        match self {
            Self::UpTo(max) | Self::Exactly(max) => max,
        }
    }

    /// How long the cell is whose header says that its payload has `payload_len` bytes.
    fn of(self, payload_len: usize) -> Option<usize> {
        // Before any arithmetic on the length, which a 32-bit `usize` might not hold.
        if payload_len > MAX_PAYLOAD {
            return None;
        }
        match self {
            Self::UpTo(max) => Some(cell_len(payload_len)).filter(|len| *len <= max),
            Self::Exactly(cell) => (payload_len <= payload_max(cell)).then_some(cell),
        }
    }
}

/// What the first bytes of a cell say.
struct Header {
    kind: Kind,
    payload_len: usize,
    cell_len: usize,
}

impl Header {
    fn decode(header: [u8; HEADER_LEN], accepted: CellLen) -> Result<Self, Breach> {
        let [m0, m1, m2, m3, l0, l1, l2, l3, kind] = header;
        let payload_len = u32::from_be_bytes([l0 ^ m0, l1 ^ m1, l2 ^ m2, l3 ^ m3]) as usize;
        let cell_len = accepted.of(payload_len).ok_or(Breach::CellTooLarge)?;
        Ok(Self {
            kind: Kind::from_byte(kind ^ m0)?,
            payload_len,
            cell_len,
        })
    }

    fn payload(&self) -> Range<usize> {
        HEADER_LEN..HEADER_LEN + self.payload_len
    }
}

fn encode_header(kind: Kind, payload_len: usize, mask: [u8; MASK_LEN]) -> [u8; HEADER_LEN] {
    let len =
        u32::try_from(payload_len).expect("a payload is at most MAX_PAYLOAD, far below 4 GiB");
    let masked_len = len ^ u32::from_be_bytes(mask);
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&mask);
    header[4..8].copy_from_slice(&masked_len.to_be_bytes());
    header[8] = kind.to_byte() ^ mask[0];
    header
}

/// The random bytes at a cell's beginning.
const MASK_LEN: usize = 4;

/// Buffers of a quiet line shrink to this: a relay holds two of them for each connection.
pub(crate) const KEPT_LEN: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn sealed(kind: Kind, payload: &[u8], seed: u64) -> Vec<u8> {
        let mut cell = Vec::new();
        seal_cell(
            kind,
            payload,
            &mut ChaCha8Rng::seed_from_u64(seed),
            &mut cell,
        )
        .unwrap();
        cell
    }

    #[test]
    fn a_cell_is_laid_out_as_documented() {
        let mut cell = vec![0x5A; 256];
        cell[..14].copy_from_slice(&[
            0xA1, 0xA2, 0xA3, 0xA4, // random
            0xA1, 0xA2, 0xA3, 0xA1, // length 5, masked
            0xA0, // kind 1 = frame, masked with the first random byte
            b'h', b'e', b'l', b'l', b'o', // payload; the rest is fill
        ]);
        assert_eq!(open_cell(&cell), Ok((Kind::Frame, &b"hello"[..])));

        cell[8] = 0xA3;
        assert_eq!(open_cell(&cell), Ok((Kind::Cover, &b"hello"[..])));
        cell[8] = 0xA2;
        assert_eq!(open_cell(&cell), Ok((Kind::Stream, &b"hello"[..])));
        for kind in [0xA5, 0xA1, 0x5E] {
            cell[8] = kind;
            assert_eq!(open_cell(&cell), Err(Breach::UnknownKind.into()));
        }
    }

    #[test]
    fn only_a_payload_that_fits_the_largest_cell_is_sealed() {
        let payload = vec![7; MAX_PAYLOAD + 1];
        let mut out = b"before".to_vec();
        let mut rng = ChaCha8Rng::seed_from_u64(1);

        let refused = seal_cell(Kind::Frame, &payload, &mut rng, &mut out);
        assert_eq!(
            refused,
            Err(Error::Misuse {
                len: MAX_PAYLOAD + 1,
                max: MAX_PAYLOAD
            })
        );
        assert_eq!(out, b"before");

        let largest = sealed(Kind::Frame, &payload[1..], 1);
        assert_eq!(largest.len(), MAX_CELL);
        assert_eq!(open_cell(&largest), Ok((Kind::Frame, &payload[1..])));
    }

    #[test]
    fn a_lone_cell_of_another_length_is_refused() {
        let mut cell = sealed(Kind::Frame, b"hello", 2);
        for len in 0..cell.len() {
            assert_eq!(
                open_cell(&cell[..len]),
                Err(Breach::WrongLength.into()),
                "{len}"
            );
        }
        cell.push(0);
        assert_eq!(open_cell(&cell), Err(Breach::WrongLength.into()));
    }

    #[test]
    fn an_announced_length_over_the_limit_is_refused_by_the_header_alone() {
        for announced in [16_384 - HEADER_LEN + 1, MAX_PAYLOAD + 1, u32::MAX as usize] {
            let mut reader = CellReader::new(16_384);
            let header = encode_header(Kind::Frame, announced, [9, 8, 7, 6]);

            reader.receive(&header).unwrap();

            for _ in 0..2 {
                assert_eq!(reader.next_cell(), Err(Breach::CellTooLarge.into()));
            }
            assert!(
                reader.buffer.capacity() < 64,
                "nothing was allocated for it"
            );
        }
    }

    #[test]
    fn where_one_length_is_agreed_all_cells_have_it() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let mut stream = Vec::new();
        for len in [0, 1, 100, 291] {
            seal_exact(Kind::Stream, &vec![5; len], 300, &mut rng, &mut stream).unwrap();
        }
        assert_eq!(
            seal_exact(Kind::Stream, &[5; 292], 300, &mut rng, &mut stream),
            Err(Error::Misuse { len: 292, max: 291 })
        );
        for too_short in 0..=HEADER_LEN {
            assert_eq!(
                seal_exact(Kind::Stream, &[], too_short, &mut rng, &mut stream),
                Err(Error::Misuse { len: 0, max: 0 })
            );
        }
        assert_eq!(stream.len(), 1_200);

        let mut reader = CellReader::new(256);
        reader.accept_exactly(300);
        reader.receive(&stream).unwrap();
        for len in [0, 1, 100, 291] {
            assert_eq!(
                reader.next_cell(),
                Ok(Some((Kind::Stream, &vec![5; len][..])))
            );
        }
        assert_eq!(reader.next_cell(), Ok(None));

        reader
            .receive(&encode_header(Kind::Cover, 292, [1, 2, 3, 4]))
            .unwrap();
        assert_eq!(reader.next_cell(), Err(Breach::CellTooLarge.into()));
    }

    #[test]
    fn a_cell_of_another_length_than_agreed_is_found_out_at_the_next() {
        let mut reader = CellReader::new(MAX_CELL);
        reader.accept_exactly(1_056);
        // The bucket is 256 bytes; what follows is another cell's fill by then.
        let wire: Vec<u8> = (0..6)
            .flat_map(|seed| sealed(Kind::Frame, b"hi", seed))
            .collect();
        reader.receive(&wire).unwrap();
        assert_eq!(reader.next_cell(), Ok(Some((Kind::Frame, &b"hi"[..]))));
        assert_eq!(reader.next_cell(), Err(Breach::CellTooLarge.into()));
    }

    #[test]
    fn cover_of_any_bucket_reads_as_cover() {
        for bucket in crate::bucket::BUCKETS {
            let mut cell = Vec::new();
            seal_cover_bucket(0x0102, bucket, &mut ChaCha8Rng::seed_from_u64(8), &mut cell);

            assert_eq!(cell.len(), bucket);
            let (kind, payload) = open_cell(&cell).unwrap();
            assert_eq!(
                (kind, &payload[..8]),
                (Kind::Cover, &[0, 0, 0, 0, 0, 0, 1, 2][..])
            );
        }
    }

    #[test]
    fn a_reader_holds_no_more_than_a_cell_and_a_piece_and_gives_memory_back() {
        let cell = sealed(Kind::Frame, &vec![1; 100_000], 3);
        let mut reader = CellReader::new(cell.len());

        reader.receive(&cell).unwrap();
        assert_eq!(reader.receive(b"x"), Err(Error::Full));
        assert!(reader.next_cell().unwrap().is_some());
        assert!(reader.next_cell().unwrap().is_none());

        assert!(reader.buffer.capacity() <= KEPT_LEN);
        reader.receive(b"x").unwrap();
    }

    #[test]
    fn a_stream_may_be_cut_anywhere() {
        let mut stream = sealed(Kind::Frame, &[3; 300], 4);
        stream.extend(sealed(Kind::Cover, &[4; 8], 5));
        for at in 0..=stream.len() {
            let mut reader = CellReader::new(MAX_CELL);
            let mut cells = Vec::new();
            for piece in [&stream[..at], &stream[at..]] {
                reader.receive(piece).unwrap();
                while let Some((kind, payload)) = reader.next_cell().unwrap() {
                    cells.push((kind, payload.to_vec()));
                }
            }
            assert_eq!(
                cells,
                [(Kind::Frame, vec![3; 300]), (Kind::Cover, vec![4; 8])],
                "cut at {at}"
            );
        }
    }

    /// Each place in the header and in the fill is tested apart, on 65,536 cells of one seed with
    /// the same payload. With 255 degrees of freedom a fair generator passes 400 with a chance of
    /// about 2e-8 a place, so less than 1e-6 for all 25 over the choice of seeds.
    #[test]
    fn no_place_in_header_or_fill_is_told_from_chance() {
        const CELLS: usize = 65_536;
        let mut rng = ChaCha8Rng::seed_from_u64(0x5EED);
        let places: Vec<usize> = (0..HEADER_LEN).chain(240..256).collect();
        let mut counts = vec![[0_u32; 256]; places.len()];
        let mut payload_counts = [0_u32; 256];
        let mut cell = Vec::new();
        for _ in 0..CELLS {
            cell.clear();
            seal_cell(Kind::Frame, b"the same each time", &mut rng, &mut cell).unwrap();
            for (counts, place) in counts.iter_mut().zip(&places) {
                counts[usize::from(cell[*place])] += 1;
            }
            payload_counts[usize::from(cell[HEADER_LEN])] += 1;
        }
        for (counts, place) in counts.iter().zip(&places) {
            assert!(
                chi_square(counts) < 400.0,
                "place {place}: {}",
                chi_square(counts)
            );
        }
        assert!(
            chi_square(&payload_counts) > 1e6,
            "the control: a constant byte is seen"
        );
    }

    fn chi_square(counts: &[u32; 256]) -> f64 {
        let expected = f64::from(counts.iter().sum::<u32>()) / 256.0;
        counts
            .iter()
            .map(|count| (f64::from(*count) - expected).powi(2) / expected)
            .sum()
    }

    proptest! {
        #[test]
        fn opening_gives_what_was_sealed(len in 0_usize..80_000, cover: bool, seed: u64) {
            let kind = if cover { Kind::Cover } else { Kind::Frame };
            let payload: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();

            let cell = sealed(kind, &payload, seed);

            prop_assert_eq!(cell.len(), padded_len(len + HEADER_LEN));
            prop_assert_eq!(open_cell(&cell), Ok((kind, &payload[..])));
        }

        #[test]
        fn bytes_from_outside_never_panic(bytes: Vec<u8>, cell_max in 0_usize..2_000) {
            let _ = open_cell(&bytes);
            let mut reader = CellReader::new(cell_max);
            let _ = reader.receive(&bytes);
            while let Ok(Some(_)) = reader.next_cell() {}
        }
    }
}
