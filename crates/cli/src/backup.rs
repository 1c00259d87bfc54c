//! `skytale backup` and `skytale restore`: what the servers of a data directory keep, in one file, made
//! while they run and put where none has run.
//!
//! Agents' vaults are not in it: an older copy of a vault would use keys again that were used.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use skytale_api::clock::{Clock, rfc3339};
use skytale_relay::archive::{
    Archive as _, ArchiveError,
    fjall::{self, CopyError, FjallArchive},
    sqlite::{self, SqliteArchive},
};
use skytale_sdk::Config;

use crate::{
    args::{self, Everywhere},
    context,
    exit::Failure,
    output::Output,
    servers::api_failed,
};
use file::{Part, PartReader, PartWriter, Reader, Writer};

mod file;

/// The first part: what this is.
#[derive(Debug, Deserialize, Serialize)]
struct About {
    program: String,
    made_at: String,
}

#[derive(Debug, Serialize)]
struct Done {
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
    made_at: String,
    parts: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    bytes: u64,
    sha256: String,
}

/// `skytale backup`.
pub(crate) fn backup(
    wish: &args::Backup,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let config = Config::load(context::flags_without_context(everywhere))?;
    let dir = config.data_dir.join("server");
    if !dir.is_dir() {
        return Err(Failure::not_found(
            "no server has run on this data directory: name another with --data-dir",
        ));
    }
    let taken = || {
        Failure::usage(
            "there is such a file already: choose another name, or replace it by --force",
        )
    };
    if wish.file.exists() && !wish.force {
        return Err(taken());
    }
    let aside = wish.file.with_added_extension("partial");
    let out = claimed(&aside)?;
    let made_at = rfc3339(Clock::system().now());
    let written = write(&out, &dir, &aside, &made_at, output).and_then(|parts| {
        out.sync_all().map_err(unwritten)?;
        Ok(parts)
    });
    let parts = written.inspect_err(|_| {
        // It would be of no use.
        let _ = fs::remove_file(&aside);
    })?;
    if wish.force {
        fs::rename(&aside, &wish.file).map_err(unwritten)?;
    } else {
        // Unlike a rename, a link never replaces what somebody has put there meanwhile.
        let linked = fs::hard_link(&aside, &wish.file);
        fs::remove_file(&aside).map_err(unwritten)?;
        linked.map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                taken()
            } else {
                unwritten(error)
            }
        })?;
    }
    sync_dir_of(&wish.file).map_err(unwritten)?;
    if !parts.iter().any(|part| part.name == DATABASE) {
        output.complain(
            "skytale: there is no SQLite database here, so no account is in this backup: if accounts are in Postgres, back that up by pg_dump",
        );
    }
    output.say("the file holds the keys of both servers: keep it as secret as those");
    told(None, made_at, &parts, output)
}

/// `skytale restore`.
pub(crate) fn restore(
    wish: &args::Restore,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let from = File::open(&wish.file)
        .map_err(|error| Failure::usage(format!("the backup cannot be read ({})", error.kind())))?;
    let from = BufReader::with_capacity(BUFFER_BYTES, from);
    if wish.check {
        let (about, parts) = read(from, output, &mut |part| {
            io::copy(part, &mut io::sink()).map(|_| ()).map_err(unread)
        })?;
        output.say("the backup is whole");
        return told(None, about.made_at, &parts, output);
    }
    let config = Config::load(context::flags_without_context(everywhere))?;
    let dir = config.data_dir.join("server");
    refuse_inhabited(&dir)?;
    private_dir(&config.data_dir)?;
    let turn = config.data_dir.join(TURN);
    let held = claimed(&turn)?;
    // What a restore has left that was killed: nobody else is at it.
    let aside = config.data_dir.join(ASIDE);
    removed(&aside)?;
    let made = private_dir(&aside).and_then(|()| read(from, output, &mut |part| put(part, &aside)));
    let done = made.and_then(|done| {
        sync_tree(&aside).map_err(unwritten)?;
        // Replaces an empty directory and no other: a server that has started meanwhile stays.
        fs::rename(&aside, &dir).map_err(|error| {
            if error.kind() == io::ErrorKind::DirectoryNotEmpty {
                inhabited()
            } else {
                unwritten(error)
            }
        })?;
        sync_dir_of(&dir).map_err(unwritten)?;
        Ok(done)
    });
    let cleared = removed(&aside);
    let _ = fs::remove_file(&turn);
    drop(held);
    let (about, parts) = done?;
    cleared?;
    output.say(RESTORED);
    told(Some(config.data_dir), about.made_at, &parts, output)
}

fn write(
    out: &File,
    dir: &Path,
    aside: &Path,
    made_at: &str,
    output: Output,
) -> Result<Vec<Part>, Failure> {
    let out = BufWriter::with_capacity(BUFFER_BYTES, out);
    let mut file = Writer::begin(out).map_err(unwritten)?;
    let about = About {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: made_at.to_owned(),
    };
    let about = serde_json::to_vec(&about).map_err(|_| Failure::failed("no JSON could be made"))?;
    file.whole(ABOUT, &about).map_err(unwritten)?;
    for key in skytale_api::backup::signing_keys(&dir.join("keys")).map_err(|e| api_failed(&e))? {
        let name = format!("keys/{}", key.name);
        file.whole(&name, &key.content).map_err(unwritten)?;
    }
    for name in [LOCAL_KEY, RELAY_KEY] {
        match fs::read(dir.join(name)).map(zeroize::Zeroizing::new) {
            Ok(content) => file.whole(name, &content).map_err(unwritten)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unread(error)),
        }
    }
    if dir.join(DATABASE).exists() {
        copied(&mut file, DATABASE, aside, output, |to| {
            let from = dir.join(DATABASE);
            skytale_api::backup::copy_database(&from, to).map_err(|error| api_failed(&error))
        })?;
    }
    let relay = dir.join("relay");
    if relay.join(fjall::DATABASE_DIR).exists() {
        archive(&mut file, &relay, output)?;
    }
    if relay.join(sqlite::DATABASE_FILE).exists() {
        copied(&mut file, ARCHIVE_FILE, aside, output, |to| {
            claimed(to)?;
            SqliteArchive::copy(&relay, to).map_err(|error| Failure::failed(error.to_string()))
        })?;
    }
    let (mut out, parts) = file.end().map_err(unwritten)?;
    out.flush().map_err(unwritten)?;
    Ok(parts)
}

/// A database that copies itself into a file, which then becomes a part.
fn copied<W: Write>(
    file: &mut Writer<W>,
    name: &str,
    aside: &Path,
    output: Output,
    copy: impl FnOnce(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let beside = aside.with_added_extension("copy");
    removed(&beside)?;
    let copied = copy(&beside).and_then(|()| {
        let mut from = File::open(&beside).map_err(unread)?;
        let mut part = Told::new(file.part(name).map_err(unwritten)?, name, output);
        io::copy(&mut from, &mut part).map_err(unwritten)?;
        part.part.end().map_err(unwritten)
    });
    removed(&beside)?;
    copied
}

/// The archive's rows: from the relay that runs here, else from the archive itself.
fn archive<W: Write>(file: &mut Writer<W>, relay: &Path, output: Output) -> Result<(), Failure> {
    let mut part = Told::new(
        file.part(ARCHIVE_ROWS).map_err(unwritten)?,
        "the archive",
        output,
    );
    if let Some(stream) = skytale_relay::backup::ask(relay).map_err(unread)? {
        let mut stream = BufReader::with_capacity(BUFFER_BYTES, stream);
        fjall::pass(&mut stream, &mut part).map_err(|error| {
            if let CopyError::Misshapen = error {
                Failure::failed(
                    "the relay has broken off: its log says why. Is it about to stop? Try again",
                )
            } else {
                uncopied(&error)
            }
        })?;
    } else {
        let archive = FjallArchive::open(relay).map_err(|error| {
            Failure::failed(if let ArchiveError::InUse = error {
                "a relay runs on this data directory and takes no questions: stop it first"
                    .to_owned()
            } else {
                error.to_string()
            })
        })?;
        let rows = archive.reader().export(&mut part, &|| true);
        rows.map_err(|error| uncopied(&error))?;
    }
    part.part.end().map_err(unwritten)
}

type Parts = (About, Vec<Part>);

/// Reads a file to its end; each part but the first goes to `put`.
fn read<R: io::Read>(
    from: R,
    output: Output,
    put: &mut dyn FnMut(&mut PartReader<'_, R>) -> Result<(), Failure>,
) -> Result<Parts, Failure> {
    let mut file = Reader::begin(from).map_err(unread)?;
    let mut about = None;
    while let Some(mut part) = file.next().map_err(unread)? {
        if part.name() == ABOUT {
            let text = part.whole(SMALL_BYTES_MAX).map_err(unread)?;
            about = Some(serde_json::from_slice(&text).map_err(|_| unread(DAMAGED.into()))?);
        } else if about.is_some() {
            output.say(&format!("reading {}", part.name()));
            put(&mut part)?;
            // Whoever has taken enough of it has still not seen the checksum.
            io::copy(&mut part, &mut io::sink()).map_err(unread)?;
        } else {
            return Err(unread(DAMAGED.into()));
        }
    }
    let about = about.ok_or_else(|| unread(DAMAGED.into()))?;
    Ok((about, file.into_parts()))
}

/// Puts a part in its place below `dir`. Names are known ones, so that none leads elsewhere.
fn put<R: io::Read>(part: &mut PartReader<'_, R>, dir: &Path) -> Result<(), Failure> {
    let name = part.name().to_owned();
    if name == ARCHIVE_ROWS {
        let relay = dir.join("relay");
        private_dir(&relay)?;
        let archive = FjallArchive::open(&relay);
        let mut archive = archive.map_err(|error| Failure::failed(error.to_string()))?;
        let rows = archive.import(part);
        return rows.map(|_| ()).map_err(|error| uncopied(&error));
    }
    if !FILES.contains(&name.as_str()) {
        return Err(Failure::failed(
            "the backup holds a part that this skytale does not know: restore it by a newer one",
        ));
    }
    let path = dir.join(&name);
    if let Some(above) = path.parent() {
        private_dir(above)?;
    }
    let mut to = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(unwritten)?;
    io::copy(part, &mut to).map_err(unread)?;
    to.sync_all().map_err(unwritten)
}

fn told(
    data_dir: Option<PathBuf>,
    made_at: String,
    parts: &[Part],
    output: Output,
) -> Result<(), Failure> {
    let row = |part: &Part| Row {
        name: part.name.clone(),
        bytes: part.bytes,
        sha256: HEXLOWER.encode(&part.sha256),
    };
    let done = Done {
        data_dir,
        made_at,
        parts: parts.iter().map(row).collect(),
    };
    output.result(&done, || {
        let mut shown = crate::output::table(["PART", "BYTES", "SHA-256"]);
        for part in &done.parts {
            let bytes = part.bytes.to_string();
            shown.add_row([part.name.clone(), bytes, part.sha256.clone()]);
        }
        format!("backup of {}\n{shown}", done.made_at)
    })
}

/// Says from time to time how far a long part has come.
struct Told<'a, W> {
    part: PartWriter<'a, W>,
    name: &'a str,
    output: Output,
    next: u64,
}

impl<'a, W: Write> Told<'a, W> {
    fn new(part: PartWriter<'a, W>, name: &'a str, output: Output) -> Self {
        output.say(&format!("copying {name}"));
        Self {
            part,
            name,
            output,
            next: TOLD_BYTES,
        }
    }
}

impl<W: Write> Write for Told<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.part.write(bytes)?;
        if self.part.bytes() >= self.next {
            let mebibytes = self.part.bytes() / (1024 * 1024);
            self.output
                .say(&format!("copying {}: {mebibytes} MiB", self.name));
            self.next += TOLD_BYTES;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An empty file of one's own: one that was left behind is used again, one that somebody is at is not.
fn claimed(path: &Path) -> Result<File, Failure> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(unwritten)?;
    file.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => {
            Failure::failed("another skytale is at this already: let it finish first")
        }
        fs::TryLockError::Error(error) => unwritten(error),
    })?;
    file.set_len(0).map_err(unwritten)?;
    Ok(file)
}

fn refuse_inhabited(dir: &Path) -> Result<(), Failure> {
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(inhabited()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unread(error)),
    }
}

fn inhabited() -> Failure {
    Failure::usage(
        "servers have run on this data directory: stop them and move its `server` away, or name another directory with --data-dir",
    )
}

fn removed(path: &Path) -> Result<(), Failure> {
    let gone = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match gone {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unwritten(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn private_dir(dir: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(unwritten)
}

/// Files are synced when they are written: here the directories, that they are in them.
fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}

fn sync_dir_of(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn unwritten(error: io::Error) -> Failure {
    let kind = error.kind();
    Failure::failed(format!(
        "it cannot be written ({kind}): is there space, and may you write there?"
    ))
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn unread(error: io::Error) -> Failure {
    Failure::failed(if error.kind() == DAMAGED {
        "this is no backup, or a damaged one: take another copy of it".to_owned()
    } else {
        format!("it cannot be read ({})", error.kind())
    })
}

fn uncopied(error: &CopyError) -> Failure {
    Failure::failed(format!("the archive cannot be copied: {error}"))
}

const DAMAGED: io::ErrorKind = io::ErrorKind::InvalidData;
const ABOUT: &str = "about";
const DATABASE: &str = "api.db";
const LOCAL_KEY: &str = "local-key";
const RELAY_KEY: &str = "relay/relay.key";
const ARCHIVE_ROWS: &str = "relay/archive.rows";
const ARCHIVE_FILE: &str = "relay/archive.db";
/// Parts that are files as they lie there.
const FILES: [&str; 7] = [
    DATABASE,
    "keys/signing.key",
    "keys/signing.next",
    "keys/signing.retired",
    LOCAL_KEY,
    RELAY_KEY,
    ARCHIVE_FILE,
];
/// Where a restore builds up what becomes `server` when it is whole.
const ASIDE: &str = "server.restoring";
const TURN: &str = "server.restoring.turn";
const BUFFER_BYTES: usize = 256 * 1024;
const TOLD_BYTES: u64 = 64 * 1024 * 1024;
const SMALL_BYTES_MAX: u64 = 65_536;
const RESTORED: &str = "restored. Start the servers where agents look for them: the relay under its old address, or \
    with invites and contexts that name the new one. Agents that have seen more of a channel than \
    this backup has take nothing more from it (LogRollback)";

#[cfg(test)]
mod tests {
    use skytale_relay::run::KEY_FILE;

    use super::*;

    #[test]
    fn the_relays_key_has_its_name_in_one_place() {
        assert_eq!(RELAY_KEY, format!("relay/{KEY_FILE}"));
        assert_eq!(ARCHIVE_FILE, format!("relay/{}", sqlite::DATABASE_FILE));
    }
}
