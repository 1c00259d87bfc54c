//! Channel names as people write them: `org/namespace/service`.
//!
//! On native channels a name never leaves the encrypted group; only its syntax is shared here.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// Bytes that a whole name may have.
pub const NAME_BYTES_MAX: usize = 256;

/// A valid channel name: three parts of `[A-Za-z0-9._-]+`, none of them `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelName(String);

impl ChannelName {
    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a channel name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadName {
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("a channel name has at most 256 bytes")]
    TooLong,
    /// Not exactly three parts.
    #[error("a channel name has three parts, like acme/ops/plan")]
    NotThreeParts,
    /// A part is empty, `.`, `..` or has a character outside `[A-Za-z0-9._-]`.
    #[error(
        "each part of a channel name is made of letters, digits, '.', '_' and '-', and is not '.' or '..'"
    )]
    BadPart,
}

impl FromStr for ChannelName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        if text.len() > NAME_BYTES_MAX {
            return Err(BadName::TooLong);
        }
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() != 3 {
            return Err(BadName::NotThreeParts);
        }
        let good = |part: &&str| {
            !part.is_empty()
                && !matches!(*part, "." | "..")
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        if parts.iter().all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadName::BadPart)
        }
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<C> Encode<C> for ChannelName {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for ChannelName {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        d.str()?.parse().map_err(decode::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_three_clean_parts() {
        let name = |text: &str| text.parse::<ChannelName>().map(|name| name.0);

        assert_eq!(
            name("acme/ops/plan-2_b.c"),
            Ok("acme/ops/plan-2_b.c".to_owned())
        );
        assert_eq!(name("acme/ops"), Err(BadName::NotThreeParts));
        assert_eq!(name("acme/ops/plan/x"), Err(BadName::NotThreeParts));
        assert_eq!(name("acme//plan"), Err(BadName::BadPart));
        assert_eq!(name("acme/../plan"), Err(BadName::BadPart));
        assert_eq!(name("acme/./plan"), Err(BadName::BadPart));
        assert_eq!(name("acme/ops/pl an"), Err(BadName::BadPart));
        assert_eq!(name("acme/ops/plän"), Err(BadName::BadPart));
        assert_eq!(
            name(&format!("a/b/{}", "c".repeat(252))).map(|n| n.len()),
            Ok(256)
        );
        assert_eq!(
            name(&format!("a/b/{}", "c".repeat(253))),
            Err(BadName::TooLong)
        );
    }
}
