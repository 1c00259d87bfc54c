//! Where a relay is, as people and invites write it: `host:port` for QUIC, and where its gRPC is when
//! that is not the same host's usual port.
//!
//! ```text
//! relay.example.org:4433                                    gRPC at relay.example.org:5000
//! relay.example.org:4433?grpc=relay.example.org:5500        gRPC there
//! relay.example.org:4433?grpc=https://gw.example.org:443    gRPC there, inside an outer TLS
//! relay.example.org:4433?grpc=off                           QUIC or nothing
//! ```

/// Both doors of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Doors {
    /// `host:port`.
    pub(crate) quic: String,
    /// `None` where only QUIC is to be used.
    pub(crate) grpc: Option<GrpcDoor>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GrpcDoor {
    /// `host:port`.
    pub(crate) address: String,
    /// Whether it speaks TLS outside too; where nobody has said so, both are tried.
    pub(crate) tls: Option<bool>,
}

impl Doors {
    /// `None` for what names no host and port.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (quic, grpc) = match text.split_once(GRPC_MARK) {
            Some((quic, grpc)) => (quic, Some(grpc)),
            None => (text, None),
        };
        let host = host_of(quic)?;
        let grpc = match grpc {
            None => Some(GrpcDoor {
                address: format!("{host}:{GRPC_PORT}"),
                tls: None,
            }),
            Some("off") => None,
            Some(door) => {
                let (address, tls) = if let Some(address) = door.strip_prefix("https://") {
                    (address, Some(true))
                } else if let Some(address) = door.strip_prefix("http://") {
                    (address, Some(false))
                } else {
                    (door, None)
                };
                host_of(address)?;
                Some(GrpcDoor {
                    address: address.to_owned(),
                    tls,
                })
            }
        };
        Some(Self {
            quic: quic.to_owned(),
            grpc,
        })
    }
}

/// The host of `host:port`, with the brackets of an IPv6 address.
fn host_of(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plain = !host.contains([':', '[', ']', '@', '/', '?']);
    let spaced = host.chars().any(char::is_whitespace);
    let good = !host.is_empty() && !spaced && (bracketed || plain) && port.parse::<u16>().is_ok();
    good.then_some(host)
}

const GRPC_MARK: &str = "?grpc=";
/// The port for gRPC at the relay's host that agents look for where its address names none.
pub const GRPC_PORT: u16 = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_both_doors() {
        let grpc = |text: &str| {
            let door = Doors::read(text).unwrap().grpc?;
            Some((door.address, door.tls))
        };
        let either = |address: &str| Some((address.to_owned(), None));

        assert_eq!(grpc("relay:4433"), either("relay:5000"));
        assert_eq!(grpc("[::1]:4433"), either("[::1]:5000"));
        assert_eq!(grpc("relay:4433?grpc=gw:80"), either("gw:80"));
        assert_eq!(
            grpc("relay:4433?grpc=http://gw:80"),
            Some(("gw:80".to_owned(), Some(false)))
        );
        assert_eq!(
            grpc("relay:4433?grpc=https://gw:443"),
            Some(("gw:443".to_owned(), Some(true)))
        );
        assert_eq!(grpc("relay:4433?grpc=off"), None);
        assert_eq!(
            Doors::read("relay:4433?grpc=gw:80").unwrap().quic,
            "relay:4433"
        );
    }

    #[test]
    fn what_names_no_host_and_port_is_refused() {
        for bad in [
            "",
            "relay",
            ":4433",
            "relay:70000",
            "::1:4433",
            "a b:1",
            "relay:1?grpc=",
            "relay:1?grpc=gw",
            "relay:1?grpc=ftp://gw:1",
            "relay:1?grpc=https://gw:1/path",
            "relay:1?other=gw:1",
        ] {
            assert_eq!(Doors::read(bad), None, "{bad}");
        }
    }
}
