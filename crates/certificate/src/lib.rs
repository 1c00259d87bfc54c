//! TLS for the door of a server: one certificate with its key, read again when the files change.
//!
//! A new pair that does not work changes nothing: a certificate is renewed in two steps, and who
//! looks in between sees two files that do not belong together.
//!
//! A crate of its own because the relay and the API server both have such a door, and neither may
//! lean on the other.

use std::{
    fmt,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    version::TLS13,
};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

/// A certificate and its key, as they were last found to work.
pub struct Certificates {
    door: &'static Door,
    cert: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
    seen: Mutex<Option<Stamp>>,
}

/// Which door it is for.
#[derive(Debug)]
pub struct Door {
    /// The setting that names the file of the chain; errors name it too.
    pub cert: &'static str,
    /// The setting that names the file of the private key.
    pub key: &'static str,
    /// The only protocol that is spoken inside, by its name in TLS.
    pub protocol: &'static [u8],
}

/// Why a certificate and a key cannot be used. It names the setting and no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPair {
    /// A file cannot be read.
    #[error("{0} cannot be read ({1})")]
    Unreadable(&'static str, io::ErrorKind),
    /// A file holds nothing of what it should.
    #[error("{0} holds no {1} in PEM")]
    Empty(&'static str, &'static str),
    /// The two do not fit each other, or are of a kind that is not supported.
    #[error("{0} and {1} do not belong together, or are of an unknown kind")]
    Mismatched(&'static str, &'static str),
}

/// What tells that a file is another than before.
type Stamp = [(i64, i64, u64, u64); 2];

impl Certificates {
    /// Reads both files, which takes a moment of the disk's.
    pub fn read(door: &'static Door, cert: PathBuf, key: PathBuf) -> Result<Self, BadPair> {
        // Looked at first: what changes while it is read is read once more.
        let seen = stamp(&cert, &key);
        let config = server_config(door, &cert, &key)?;
        Ok(Self {
            door,
            cert,
            key,
            current: RwLock::new(Arc::new(config)),
            seen: Mutex::new(seen),
        })
    }

    /// Shakes hands with the pair as it is now.
    pub fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current).into()
    }

    /// Looks for a change again and again.
    pub async fn watch(self: Arc<Self>, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            let this = Arc::clone(&self);
            // It panics nowhere, and if it did the pair would stay as it is.
            let _ = tokio::task::spawn_blocking(move || this.look_again()).await;
        }
    }

    /// Takes a changed pair if it works.
    pub fn look_again(&self) {
        let now = stamp(&self.cert, &self.key);
        let before = std::mem::replace(
            &mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner),
            now,
        );
        if now == before {
            return;
        }
        let door = self.door.cert;
        match server_config(self.door, &self.cert, &self.key) {
            Ok(config) => {
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                *current = Arc::new(config);
                info!(door, "a changed certificate is used from now on");
            }
            Err(bad) => warn!(door, %bad, "a changed certificate is of no use: the old one stays"),
        }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

/// TLS 1.3 alone: each client that is kept up has had it for years.
fn server_config(door: &Door, cert: &Path, key: &Path) -> Result<ServerConfig, BadPair> {
    let chain = read(door.cert, cert)?;
    let chain = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or(BadPair::Empty(door.cert, "certificate"))?;
    let key = zeroize::Zeroizing::new(read(door.key, key)?);
    let key =
        PrivateKeyDer::from_pem_slice(&key).map_err(|_| BadPair::Empty(door.key, "private key"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has suites of TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|_| BadPair::Mismatched(door.cert, door.key))?;
    config.alpn_protocols = vec![door.protocol.to_vec()];
    Ok(config)
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, BadPair> {
    fs::read(path).map_err(|error| BadPair::Unreadable(setting, error.kind()))
}

/// `None` while a file is missing.
fn stamp(cert: &Path, key: &Path) -> Option<Stamp> {
    let of = |path| {
        fs::metadata(path)
            .map(|it: Metadata| (it.mtime(), it.mtime_nsec(), it.len(), it.ino()))
            .ok()
    };
    Some([of(cert)?, of(key)?])
}
