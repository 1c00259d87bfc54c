//! A backup's file: parts one after another, each with a checksum, and one over all of them at the end.
//!
//! ```text
//! "skytale backup 1\n"
//! a part:   length of its name (2 bytes), name,
//!           pieces: length (4 bytes, not zero), bytes; then four zero bytes,
//!           SHA-256 of all of that
//! the end:  two zero bytes, how many parts (4 bytes), SHA-256 of the parts' checksums
//! ```
//!
//! Numbers are big-endian. Parts are written as they come, so nothing must be known of their length
//! before; a file that was cut off lacks its end. The checksums find damage, not forgery: the file
//! holds secrets, and who can write it can do worse.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

/// One part that was written or read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: [u8; 32],
}

/// A file in the making.
pub(crate) struct Writer<W> {
    out: W,
    parts: Vec<Part>,
}

/// A part in the making.
pub(crate) struct PartWriter<'a, W> {
    file: &'a mut Writer<W>,
    name: String,
    hash: Sha256,
    piece: Vec<u8>,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    pub(crate) fn begin(mut out: W) -> io::Result<Self> {
        out.write_all(BEGINNING)?;
        Ok(Self {
            out,
            parts: Vec::new(),
        })
    }

    pub(crate) fn part(&mut self, name: &str) -> io::Result<PartWriter<'_, W>> {
        let length = u16::try_from(name.len()).map_err(|_| misshapen())?;
        let mut part = PartWriter {
            file: self,
            name: name.to_owned(),
            hash: Sha256::new(),
            piece: Vec::with_capacity(PIECE_BYTES),
            bytes: 0,
        };
        part.put(&length.to_be_bytes())?;
        part.put(name.as_bytes())?;
        Ok(part)
    }

    /// A part that is in memory already.
    pub(crate) fn whole(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut part = self.part(name)?;
        part.write_all(content)?;
        part.end()
    }

    pub(crate) fn end(mut self) -> io::Result<(W, Vec<Part>)> {
        let count = u32::try_from(self.parts.len()).map_err(|_| misshapen())?;
        self.out.write_all(&[0, 0])?;
        self.out.write_all(&count.to_be_bytes())?;
        self.out.write_all(&over_all(&self.parts))?;
        self.out.flush()?;
        Ok((self.out, self.parts))
    }
}

impl<W: Write> PartWriter<'_, W> {
    pub(crate) fn end(mut self) -> io::Result<()> {
        self.send()?;
        self.put(&[0; 4])?;
        let sha256: [u8; 32] = self.hash.finalize().into();
        self.file.out.write_all(&sha256)?;
        self.file.parts.push(Part {
            name: self.name,
            bytes: self.bytes,
            sha256,
        });
        Ok(())
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        if !piece.is_empty() {
            let length = u32::try_from(piece.len()).map_err(|_| misshapen())?;
            self.put(&length.to_be_bytes())?;
            self.put(&piece)?;
        }
        self.piece = piece;
        self.piece.clear();
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.file.out.write_all(bytes)
    }
}

impl<W: Write> Write for PartWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        self.bytes += taken as u64;
        if self.piece.len() == PIECE_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is read from its beginning to its end.
pub(crate) struct Reader<R> {
    from: R,
    parts: Vec<Part>,
}

/// A part that is being read. It counts only when it was read to its end: then its checksum was right.
pub(crate) struct PartReader<'a, R> {
    file: &'a mut Reader<R>,
    name: String,
    hash: Sha256,
    bytes: u64,
    /// What is left of the piece that is read.
    left: usize,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Refuses what is not a backup, or one of another form.
    pub(crate) fn begin(mut from: R) -> io::Result<Self> {
        let mut beginning = [0; BEGINNING.len()];
        exactly(&mut from, &mut beginning)?;
        if beginning != *BEGINNING {
            return Err(misshapen());
        }
        Ok(Self {
            from,
            parts: Vec::new(),
        })
    }

    /// The next part, or nothing when the file has ended as it should.
    pub(crate) fn next(&mut self) -> io::Result<Option<PartReader<'_, R>>> {
        let mut length = [0; 2];
        exactly(&mut self.from, &mut length)?;
        if length == [0; 2] {
            return self.end().map(|()| None);
        }
        let mut hash = Sha256::new();
        hash.update(length);
        let mut name = vec![0; usize::from(u16::from_be_bytes(length))];
        exactly(&mut self.from, &mut name)?;
        hash.update(&name);
        let name = String::from_utf8(name).map_err(|_| misshapen())?;
        Ok(Some(PartReader {
            file: self,
            name,
            hash,
            bytes: 0,
            left: 0,
            ended: false,
        }))
    }

    pub(crate) fn into_parts(self) -> Vec<Part> {
        self.parts
    }

    fn end(&mut self) -> io::Result<()> {
        let mut count = [0; 4];
        let mut sum = [0; 32];
        exactly(&mut self.from, &mut count)?;
        exactly(&mut self.from, &mut sum)?;
        let is_all = usize::try_from(u32::from_be_bytes(count)) == Ok(self.parts.len());
        let nothing_follows = self.from.read(&mut [0])? == 0;
        if is_all && sum == over_all(&self.parts) && nothing_follows {
            Ok(())
        } else {
            Err(misshapen())
        }
    }
}

impl<R: Read> PartReader<'_, R> {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// All of a part that is small.
    pub(crate) fn whole(&mut self, bytes_max: u64) -> io::Result<zeroize::Zeroizing<Vec<u8>>> {
        let mut content = zeroize::Zeroizing::new(Vec::new());
        self.take(bytes_max).read_to_end(&mut content)?;
        if self.read(&mut [0])? != 0 {
            return Err(misshapen());
        }
        Ok(content)
    }

    fn begin_piece(&mut self) -> io::Result<()> {
        let mut length = [0; 4];
        exactly(&mut self.file.from, &mut length)?;
        self.hash.update(length);
        self.left = usize::try_from(u32::from_be_bytes(length)).map_err(|_| misshapen())?;
        if self.left > PIECE_BYTES {
            return Err(misshapen());
        }
        if self.left == 0 {
            let mut sum = [0; 32];
            exactly(&mut self.file.from, &mut sum)?;
            let sha256: [u8; 32] = self.hash.clone().finalize().into();
            if sum != sha256 {
                return Err(misshapen());
            }
            self.ended = true;
            self.file.parts.push(Part {
                name: self.name.clone(),
                bytes: self.bytes,
                sha256,
            });
        }
        Ok(())
    }
}

impl<R: Read> Read for PartReader<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        if self.left == 0 && !self.ended {
            self.begin_piece()?;
        }
        if self.ended {
            return Ok(0);
        }
        let wanted = into.len().min(self.left);
        exactly(&mut self.file.from, &mut into[..wanted])?;
        self.hash.update(&into[..wanted]);
        self.left -= wanted;
        self.bytes += wanted as u64;
        Ok(wanted)
    }
}

fn over_all(parts: &[Part]) -> [u8; 32] {
    let mut all = Sha256::new();
    for part in parts {
        all.update(part.sha256);
    }
    all.finalize().into()
}

fn exactly(from: &mut impl Read, into: &mut [u8]) -> io::Result<()> {
    from.read_exact(into).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            misshapen()
        } else {
            error
        }
    })
}

/// What a file is that was damaged or cut off, or never was a backup.
fn misshapen() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

const BEGINNING: &[u8; 17] = b"skytale backup 1\n";
const PIECE_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn written(parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut file = Writer::begin(Vec::new()).unwrap();
        for (name, content) in parts {
            file.whole(name, content).unwrap();
        }
        file.end().unwrap().0
    }

    fn read(file: &[u8]) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut reader = Reader::begin(file)?;
        let mut parts = Vec::new();
        while let Some(mut part) = reader.next()? {
            let mut content = Vec::new();
            part.read_to_end(&mut content)?;
            parts.push((part.name().to_owned(), content));
        }
        Ok(parts)
    }

    #[test]
    fn what_was_written_reads_back() {
        let long = vec![7; 2 * PIECE_BYTES + 5];
        let parts = [("one", &b"1"[..]), ("none", b""), ("long", &long)];

        let back = read(&written(&parts)).unwrap();

        let back: Vec<_> = back
            .iter()
            .map(|(name, content)| (name.as_str(), content.as_slice()))
            .collect();
        assert_eq!(back, parts);
    }

    #[test]
    fn the_form_is_this_one() {
        let file = written(&[("a", b"xy")]);

        let mut part = vec![0, 1, b'a', 0, 0, 0, 2, b'x', b'y', 0, 0, 0, 0];
        let sum = Sha256::digest(&part);
        part.extend_from_slice(&sum);
        let expected = [
            &b"skytale backup 1\n"[..],
            &part,
            &[0, 0, 0, 0, 0, 1],
            Sha256::digest(sum).as_slice(),
        ]
        .concat();
        assert_eq!(file, expected);
    }

    #[test]
    fn a_file_that_was_cut_off_changed_anywhere_or_made_longer_is_refused() {
        let file = written(&[("one", b"content"), ("two", b"more")]);
        assert!(read(&file).is_ok());

        for at in 0..file.len() {
            assert!(read(&file[..at]).is_err(), "cut off at {at}");
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(read(&changed).is_err(), "changed at {at}");
        }
        assert!(read(&[&file[..], b"x"].concat()).is_err());
    }
}
