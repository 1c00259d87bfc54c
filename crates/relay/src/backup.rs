//! How a backup gets the archive while the relay runs.
//!
//! One process has the archive open, so another one asks it: by a socket in the data directory, which
//! only the owner of that directory can reach. Whoever connects is given the archive's rows as they
//! are at that moment, and nothing is read from them. Not over HTTP: the health address is reached by
//! everybody on the machine.

use std::{
    fs,
    io::{self, BufWriter},
    os::unix::{
        fs::PermissionsExt as _,
        net::{SocketAddr, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{net::UnixListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::archive::fjall::{CopyError, FjallReader};

/// The socket, while the relay runs.
#[derive(Debug)]
pub(crate) struct BackupDoor {
    path: PathBuf,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl BackupDoor {
    /// Listens in `dir`, whose archive this process holds: so what another one has left there is
    /// dead. A relay whose directory has too long a name for a socket runs without.
    pub(crate) fn open(dir: &Path, archive: FjallReader) -> Option<Self> {
        let path = dir.join(SOCKET);
        let listener = match listen(&path) {
            Ok(listener) => listener,
            Err(error) => {
                warn!(
                    kind = ?error.kind(),
                    "no backup can be made while this relay runs: is the data directory's name longer than some 90 bytes?"
                );
                return None;
            }
        };
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, archive, stop.clone()));
        Some(Self {
            path,
            stop,
            serving,
        })
    }

    /// Ends what is being copied, and takes the socket away.
    pub(crate) async fn close(mut self) {
        self.stop.cancel();
        // It has no reason to panic, and nothing of it is needed afterwards.
        let _ = (&mut self.serving).await;
    }
}

impl Drop for BackupDoor {
    fn drop(&mut self) {
        self.stop.cancel();
        // A socket that stays refuses whoever connects: as good as none.
        let _ = fs::remove_file(&self.path);
    }
}

/// Asks the relay that runs on `dir` for its archive's rows. `None` when none runs there.
pub fn ask(dir: &Path) -> io::Result<Option<UnixStream>> {
    let socket = dir.join(SOCKET);
    if SocketAddr::from_pathname(&socket).is_err() {
        return Ok(None);
    }
    match UnixStream::connect(&socket) {
        Ok(stream) => {
            stream.set_read_timeout(Some(SILENCE_MAX))?;
            Ok(Some(stream))
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    // The directory keeps others out already, unless somebody has opened it.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// One copy at a time: a second one waits in the system's queue.
async fn serve(listener: UnixListener, archive: FjallReader, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok(stream) = accepted.and_then(|(stream, _)| stream.into_std()) else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (archive, stop) = (archive.clone(), stop.clone());
        let copying = tokio::task::spawn_blocking(move || copy(&archive, &stream, &stop));
        match copying.await {
            Ok(Ok(rows)) => info!(rows, "the archive was copied for a backup"),
            Ok(Err(error)) => warn!(%error, "a backup of the archive was broken off"),
            // It panicked, which was logged.
            Err(_) => {}
        }
    }
}

fn copy(
    archive: &FjallReader,
    stream: &UnixStream,
    stop: &CancellationToken,
) -> Result<u64, CopyError> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, stream);
    archive.export(&mut out, &|| !stop.is_cancelled())
}

const SOCKET: &str = "backup.sock";
/// Whoever takes nothing, or says nothing, for so long has gone. While a copy is made an archive
/// whose disk has failed is not opened again.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const BUFFER_BYTES: usize = 256 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{
        Archive as _,
        fjall::{FjallArchive, pass},
    };

    async fn asked(dir: &Path) -> Option<u64> {
        let dir = dir.to_owned();
        let asking = tokio::task::spawn_blocking(move || {
            let mut stream = ask(&dir).unwrap()?;
            Some(pass(&mut stream, &mut io::sink()).unwrap())
        });
        asking.await.unwrap()
    }

    #[tokio::test]
    async fn a_relay_hands_its_rows_to_its_owner_again_and_again_until_it_stops() {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = FjallArchive::open(dir.path()).unwrap();
        archive.write(&[]).unwrap();
        // What a relay that was killed has left.
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        assert_eq!(asked(dir.path()).await, None);

        let door = BackupDoor::open(dir.path(), archive.reader()).unwrap();

        let mode = fs::metadata(dir.path().join(SOCKET))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        for _ in 0..2 {
            assert_eq!(
                asked(dir.path()).await,
                Some(1),
                "the row that an empty batch writes"
            );
        }
        door.close().await;
        assert_eq!(asked(dir.path()).await, None);
        assert!(!dir.path().join(SOCKET).exists());
    }

    #[tokio::test]
    async fn a_directory_with_too_long_a_name_has_no_socket_and_a_relay_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(120));
        fs::create_dir(&long).unwrap();
        let archive = FjallArchive::open(&long).unwrap();

        assert!(BackupDoor::open(&long, archive.reader()).is_none());

        assert!(ask(&long).unwrap().is_none());
    }
}
