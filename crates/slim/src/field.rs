//! Walks over the fields of a protobuf message and keeps their places, so that one field can be
//! replaced and every other byte stays, also of fields that nobody here knows.
//!
//! Left out: what the fields are. Groups, which proto3 does not have, are refused.

use std::ops::Range;

/// Bytes that no protobuf decoder would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

/// One field where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) number: u32,
    /// Key and value.
    pub(crate) whole: Range<usize>,
    /// What the field holds, when it is one that has a length.
    pub(crate) inside: Option<Range<usize>>,
}

/// The fields of one message, in the order in which they stand. Ends after the first error.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Fields<'a> {
    /// The fields of the message that `within` holds; places are counted from the start of `bytes`.
    pub(crate) fn new(bytes: &'a [u8], within: Range<usize>) -> Self {
        Self {
            bytes,
            at: within.start,
            end: within.end.min(bytes.len()),
        }
    }

    fn field(&mut self) -> Result<Field, Broken> {
        let start = self.at;
        let key = u32::try_from(self.varint()?).map_err(|_| Broken)?;
        let number = key >> 3;
        if number == 0 {
            return Err(Broken);
        }
        let mut inside = None;
        match key & 7 {
            VARINT => _ = self.varint()?,
            FIXED_64 => self.skip(8)?,
            FIXED_32 => self.skip(4)?,
            BYTES => {
                let len = usize::try_from(self.varint()?).map_err(|_| Broken)?;
                let from = self.at;
                self.skip(len)?;
                inside = Some(from..self.at);
            }
            _ => return Err(Broken),
        }
        Ok(Field {
            number,
            whole: start..self.at,
            inside,
        })
    }

    fn varint(&mut self) -> Result<u64, Broken> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self
                .bytes
                .get(self.at)
                .filter(|_| self.at < self.end)
                .ok_or(Broken)?;
            self.at += 1;
            if shift == 63 && byte > 1 {
                return Err(Broken);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Broken)
    }

    fn skip(&mut self, len: usize) -> Result<(), Broken> {
        if len > self.end - self.at {
            return Err(Broken);
        }
        self.at += len;
        Ok(())
    }
}

impl Iterator for Fields<'_> {
    type Item = Result<Field, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.end;
        }
        Some(field)
    }
}

/// A field that holds a number.
pub(crate) fn put_number(number: u32, value: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(number << 3 | VARINT), out);
    put_varint(value, out);
}

/// A field that holds bytes or a message.
pub(crate) fn put_bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
    put_length(number, value.len(), out);
    out.extend_from_slice(value);
}

/// The beginning of a field that holds `len` bytes.
pub(crate) fn put_length(number: u32, len: usize, out: &mut Vec<u8>) {
    put_varint(u64::from(number << 3 | BYTES), out);
    put_varint(len as u64, out);
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const BYTES: u32 = 2;
const FIXED_32: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(bytes: &[u8]) -> Result<Vec<Field>, Broken> {
        Fields::new(bytes, 0..bytes.len()).collect()
    }

    #[test]
    fn every_wire_type_has_its_place() {
        let bytes = [
            0x08, 0x96, 0x01, // 1: the number 150
            0x12, 0x02, b'h', b'i', // 2: two bytes
            0x1d, 1, 2, 3, 4, // 3: 32 bits
            0x21, 1, 2, 3, 4, 5, 6, 7, 8, // 4: 64 bits
        ];
        let fields = walk(&bytes).unwrap();
        let places: Vec<_> = fields.iter().map(|f| (f.number, f.whole.clone())).collect();
        assert_eq!(places, [(1, 0..3), (2, 3..7), (3, 7..12), (4, 12..21)]);
        assert_eq!(fields[1].inside, Some(5..7));
    }

    #[test]
    fn lies_are_refused() {
        for bytes in [
            &[0x00, 0x01][..], // field zero
            &[0x08],           // no value
            &[0x12, 0x05, 1],  // longer than what is there
            &[
                0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            ], // nearly 2^64
            &[0x0b, 0x0c],     // a group
            &[0x0e],           // no such wire type
            &[
                0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,
            ], // past 64 bits
            &[
                0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0,
            ],
        ] {
            assert_eq!(walk(bytes), Err(Broken), "{bytes:?}");
        }
    }

    /// Of two messages in a row, the first cannot reach into the second.
    #[test]
    fn a_field_ends_where_its_message_does() {
        let bytes = [0x12, 0x02, 1, 2];
        assert_eq!(Fields::new(&bytes, 0..3).next(), Some(Err(Broken)));
        let bytes = [0x08, 0x96, 0x01];
        assert_eq!(Fields::new(&bytes, 0..2).next(), Some(Err(Broken)));
    }

    #[test]
    fn what_is_put_is_walked() {
        let mut bytes = Vec::new();
        put_number(6, 300, &mut bytes);
        put_bytes(11, &[7; 200], &mut bytes);
        let fields = walk(&bytes).unwrap();
        assert_eq!(fields.len(), 2);
        assert_eq!(bytes[..3], [0x30, 0xac, 0x02]);
        assert_eq!(fields[1].inside, Some(6..206));
    }
}
