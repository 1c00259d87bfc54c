//! How a connection begins: in clear, or with a handshake of TLS that may not take long.

use std::{sync::Arc, time::Duration};

use skytale_certificate::{BadPair, Certificates, Door};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::{config::Config, error::Error};

/// What stands at the door.
#[derive(Debug, Clone)]
pub(crate) enum Doorway {
    Plain,
    Tls(Arc<Certificates>),
}

/// A connection on which HTTP is spoken.
pub(crate) type Greeted = Either<TcpStream, TlsStream<TcpStream>>;

impl Doorway {
    /// Reads the files that the settings name.
    pub(crate) fn open(config: &Config) -> Result<Self, Error> {
        let pair = config.tls_cert.clone().zip(config.tls_key.clone());
        let Some((cert, key)) = pair else {
            return Ok(Self::Plain);
        };
        Ok(Self::Tls(Arc::new(Certificates::read(&DOOR, cert, key)?)))
    }

    pub(crate) const fn speaks_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Looks again and again whether the files have changed; without a certificate there is nothing
    /// to look for.
    pub(crate) async fn watch(self) {
        if let Self::Tls(certificates) = self {
            certificates.watch(LOOK).await;
        }
    }

    /// `None` when the other side does not speak TLS 1.3, or takes too long for it.
    pub(crate) async fn greet(&self, stream: TcpStream, within: Duration) -> Option<Greeted> {
        let Self::Tls(certificates) = self else {
            return Some(Either::Left(stream));
        };
        let shaken = certificates.acceptor().accept(stream);
        let shaken = tokio::time::timeout(within, shaken).await.ok()?;
        shaken.ok().map(Either::Right)
    }
}

impl From<BadPair> for Error {
    fn from(bad: BadPair) -> Self {
        Self::Certificate(bad)
    }
}

const DOOR: Door = Door {
    cert: "tls_cert",
    key: "tls_key",
    protocol: b"http/1.1",
};
/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);
