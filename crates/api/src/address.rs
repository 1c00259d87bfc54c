//! Where a request comes from: the socket's address, or what a proxy that is trusted says.
//!
//! `X-Forwarded-For` is a header like any other, and anybody can write it. Each proxy appends whom
//! it heard the request from, so the last entry is the word of whoever is at the socket, and only
//! that counts, if it is trusted; then the one before, if that names a trusted one; and so on.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};

/// Whom requests are counted by: an IPv4 address, or the /64 that an IPv6 address lies in, because
/// that is what one subscriber has and can change within at will.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Address(IpAddr);

/// A block of addresses, as `10.0.0.0/8`; or a single one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

/// The text is no block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an IP address, or a block of them like 10.0.0.0/8 or fd00::/8")]
pub struct BadCidr;

impl Address {
    /// That of whoever sent the request, `peer` being at the socket.
    pub(crate) fn of(peer: IpAddr, headers: &HeaderMap, trusted: &[Cidr]) -> Self {
        let is_trusted = |address: IpAddr| trusted.iter().any(|block| block.has(address));
        let mut sender = peer.to_canonical();
        // The last comes first. An address that is not trusted speaks for nobody but itself.
        for entry in forwarded(headers) {
            if !is_trusted(sender) {
                break;
            }
            let Some(address) = entry else { break };
            sender = address.to_canonical();
        }
        Self::from(sender)
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                IpAddr::V6((address.to_bits() & (u128::MAX << SUBSCRIBER_BITS)).into())
            }
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// Who has no socket, as in tests.
impl Default for Address {
    fn default() -> Self {
        Self(Ipv4Addr::UNSPECIFIED.into())
    }
}

/// Addresses of people do not belong in logs.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(…)")
    }
}

impl Address {
    /// For telling apart whose requests are meant.
    pub(crate) fn as_text(self) -> String {
        self.0.to_string()
    }
}

impl Cidr {
    /// Whether it lies in here. An IPv4 address inside an IPv6 one is an IPv4 address.
    pub fn has(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(block), IpAddr::V4(address)) => {
                let differ = block.to_bits() ^ address.to_bits();
                differ.checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(block), IpAddr::V6(address)) => {
                let differ = block.to_bits() ^ address.to_bits();
                differ.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = BadCidr;

    fn from_str(text: &str) -> Result<Self, BadCidr> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| BadCidr)?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            // Digits only: a sign would be taken too.
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().map_err(|_| BadCidr)?
            }
            Some(_) => return Err(BadCidr),
            None => whole,
        };
        (bits <= whole)
            .then_some(Self { address, bits })
            .ok_or(BadCidr)
    }
}

impl TryFrom<String> for Cidr {
    type Error = BadCidr;

    fn try_from(text: String) -> Result<Self, BadCidr> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(block: Cidr) -> Self {
        block.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// The entries of all such headers, the last one first; `None` for what is no address.
fn forwarded(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let lines: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
    lines
        .into_iter()
        .rev()
        .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
        .map(|entry| {
            let text = str::from_utf8(entry).ok()?.trim();
            // Some proxies write the port too.
            let with_port = || text.parse::<SocketAddr>().ok().map(|it| it.ip());
            text.parse::<IpAddr>().ok().or_else(with_port)
        })
        .take(PROXIES_MAX)
}

const FORWARDED_FOR: &str = "x-forwarded-for";
/// More in a row than anybody has.
const PROXIES_MAX: usize = 16;
const SUBSCRIBER_BITS: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(peer: &str, lines: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted: Vec<Cidr> = trusted.iter().map(|it| it.parse().unwrap()).collect();
        Address::of(peer.parse().unwrap(), &headers, &trusted).as_text()
    }

    #[test]
    fn only_a_trusted_proxy_speaks_for_others() {
        let lines = ["198.51.100.7"];
        assert_eq!(of("203.0.113.9", &lines, &[]), "203.0.113.9");
        assert_eq!(of("203.0.113.9", &lines, &["10.0.0.0/8"]), "203.0.113.9");
        assert_eq!(of("10.1.2.3", &lines, &["10.0.0.0/8"]), "198.51.100.7");
        assert_eq!(
            of("::ffff:10.1.2.3", &lines, &["10.0.0.0/8"]),
            "198.51.100.7"
        );
        assert_eq!(of("10.1.2.3", &[], &["10.0.0.0/8"]), "10.1.2.3");
    }

    #[test]
    fn what_was_there_before_the_first_trusted_word_is_not_believed() {
        let trusted = ["10.0.0.0/8", "192.0.2.1"];
        for lines in [
            &["1.1.1.1, 198.51.100.7"][..],
            &["1.1.1.1", "198.51.100.7"],
            &["1.1.1.1,  2.2.2.2", "198.51.100.7, 192.0.2.1"],
            &["198.51.100.7:4711"],
            &["nonsense, 198.51.100.7, 192.0.2.1, 10.9.9.9"],
        ] {
            assert_eq!(of("10.1.2.3", lines, &trusted), "198.51.100.7", "{lines:?}");
        }
        // Nonsense from a trusted proxy: then it is the proxy that counts.
        for line in ["unknown", "", "1.2.3.4.5", "198.51.100.7, _hidden"] {
            assert_eq!(of("10.1.2.3", &[line], &trusted), "10.1.2.3", "{line}");
        }
    }

    #[test]
    fn of_ipv6_the_subscriber_counts() {
        let one = of("2001:db8:1:2:3:4:5:6", &[], &[]);
        assert_eq!(one, of("2001:db8:1:2:ffff::1", &[], &[]));
        assert_ne!(one, of("2001:db8:1:3:3:4:5:6", &[], &[]));
        assert_eq!(of("::ffff:192.0.2.1", &[], &[]), "192.0.2.1");
        let forwarded = of("::1", &["[2001:db8:1:2::9]:80"], &["::1"]);
        assert_eq!(forwarded, one);
    }

    #[test]
    fn a_block_has_what_lies_in_it() {
        for (block, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.128/25", "192.0.2.255", "192.0.2.127"),
            ("0.0.0.0/0", "203.0.113.1", "::1"),
            ("fd00::/8", "fd12::1", "fe00::1"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
            ("::1", "::1", "::2"),
        ] {
            let block: Cidr = block.parse().unwrap();
            assert!(block.has(inside.parse().unwrap()), "{block}");
            assert!(!block.has(outside.parse().unwrap()), "{block}");
        }
        for bad in [
            "",
            "10",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "a/8",
            "1.1.1.1/8/8",
        ] {
            assert_eq!(bad.parse::<Cidr>(), Err(BadCidr), "{bad}");
        }
    }
}
