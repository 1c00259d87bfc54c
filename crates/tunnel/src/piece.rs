//! One message of the gRPC stream, as `proto/line/line.proto` describes it: some bytes in field 1.
//!
//! Written by hand, so that a piece is neither copied twice nor needs a generated type.

use bytes::{Buf, BufMut, Bytes};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// The one method.
pub const METHOD: &str = "/skytale.line.v1.Line/Open";

/// The longest message that is taken: a TLS record of the greatest length, and something over.
pub const MESSAGE_BYTES_MAX: usize = 20_000;

/// How many pieces may wait on their way into the connection: what is behind them waits at its writer.
pub const PIECES_WAITING_MAX: usize = 4;

/// Turns bytes into messages and back.
#[derive(Debug, Default, Clone, Copy)]
pub struct Pieces;

impl Codec for Pieces {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Pieces {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, piece: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        wrap(&piece, into);
        Ok(())
    }
}

impl Decoder for Pieces {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        match unwrap(from) {
            Some(piece) => Ok(Some(piece)),
            None => Err(Status::invalid_argument("this is no piece of a line")),
        }
    }
}

/// Appends the message that holds a piece.
pub fn wrap(piece: &[u8], into: &mut impl BufMut) {
    into.put_u8(FIELD);
    let mut left = piece.len();
    while left >= 0x80 {
        into.put_u8(u8::try_from(left & 0x7F).expect("seven bits") | 0x80);
        left >>= 7;
    }
    into.put_u8(u8::try_from(left).expect("less than 128"));
    into.put_slice(piece);
}

/// The piece of a message. Only what [`wrap`] writes is taken, and an empty message: proto3 leaves out an empty field. Nobody else
/// sends pieces.
pub fn unwrap(from: &mut impl Buf) -> Option<Bytes> {
    if !from.has_remaining() {
        return Some(Bytes::new());
    }
    if from.get_u8() != FIELD {
        return None;
    }
    let mut len = 0_usize;
    for shift in [0, 7, 14] {
        if !from.has_remaining() {
            return None;
        }
        let byte = from.get_u8();
        len |= usize::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return (len == from.remaining()).then(|| from.copy_to_bytes(len));
        }
    }
    None
}

/// Field 1, with a length before it.
const FIELD: u8 = 0x0A;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_piece_is_the_message_that_the_file_describes() {
        let mut short = Vec::new();
        wrap(b"abc", &mut short);
        assert_eq!(short, [0x0A, 3, b'a', b'b', b'c']);

        let mut record = Vec::new();
        wrap(&[7; 1_078], &mut record);
        assert_eq!(record[..4], [0x0A, 0xB6, 0x08, 7]);
        assert_eq!(record.len(), 1_081);
    }

    #[test]
    fn what_is_no_piece_is_refused() {
        for bad in [
            &[0x0A][..],
            &[0x12, 1, 0],
            &[0x0A, 2, 0],
            &[0x0A, 1, 0, 0],
            &[0x0A, 0x80, 0x80, 0x80, 0x00],
            &[0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        ] {
            assert_eq!(unwrap(&mut &*bad), None, "{bad:?}");
        }
        assert_eq!(unwrap(&mut &[][..]), Some(Bytes::new()));
    }

    proptest! {
        #[test]
        fn a_piece_comes_out_as_it_went_in(piece in prop::collection::vec(any::<u8>(), 0..17_000)) {
            let mut message = Vec::new();
            wrap(&piece, &mut message);
            prop_assert!(message.len() <= MESSAGE_BYTES_MAX);
            prop_assert_eq!(unwrap(&mut &*message), Some(piece.into()));
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(piece) = unwrap(&mut &*bytes) {
                prop_assert!(piece.len() <= bytes.len());
            }
        }
    }
}
