//! Bytes that are carried but not looked into: sealed bodies, Welcomes, KeyPackages.

use std::{fmt, ops::Deref};

use bytes::Bytes;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// Opaque bytes, cheap to clone: a fan-out to a thousand members copies nothing.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Blob(pub Bytes);

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} B)", self.len())
    }
}

impl<C> Encode<C> for Blob {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes(self)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Blob {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        // `bytes` checks the announced length against what is there, so nothing is allocated
        // on a peer's word.
        d.bytes().map(Self::from)
    }
}
