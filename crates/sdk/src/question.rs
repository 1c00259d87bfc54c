//! Questions that wait for an answer: a file for each, locked as long as somebody waits.
//!
//! A reader of the asker's name, in whichever process, sets the answer aside for as long as the
//! question is open. When it is closed, the answer was either taken before by the one who had
//! asked, or nobody waits any more and it is a message like any other.

use std::{
    fs,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use skytale_wire::id::MessageId;

use crate::{error::Error, shelf::held_file, vault::LockFile};

/// An open question. Closed when dropped: after its answer was marked as taken, or without one.
#[derive(Debug)]
pub(crate) struct Question {
    path: PathBuf,
    _held: LockFile,
}

impl Question {
    /// Opened before the message of this id leaves, so that no answer is faster.
    pub(crate) fn open(dir: &Path, id: &MessageId) -> Result<Self, Error> {
        let held = held_file(&questions(dir), &HEXLOWER.encode(&id.0))?;
        Ok(Self {
            path: path(dir, id),
            _held: held,
        })
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        // Unlocked right after, it counts as closed also where it could not be removed.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether somebody waits for the answer to the message of this id.
pub(crate) fn is_open(dir: &Path, id: &MessageId) -> bool {
    is_held(&path(dir, id))
}

/// Removes the files of askers that have died.
pub(crate) fn forget_dead(dir: &Path) {
    let Ok(entries) = fs::read_dir(questions(dir)) else {
        return;
    };
    for entry in entries.flatten() {
        let is_named = !entry.file_name().as_encoded_bytes().starts_with(b".");
        if is_named && !is_held(&entry.path()) {
            // Somebody else may have been quicker.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Looks without making the file. Nobody locks a file that has its name already, so trying the
/// lock is in nobody's way.
fn is_held(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else {
        return false;
    };
    matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock))
}

fn path(dir: &Path, id: &MessageId) -> PathBuf {
    questions(dir).join(HEXLOWER.encode(&id.0))
}

fn questions(dir: &Path) -> PathBuf {
    dir.join("questions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_open_until_it_is_dropped_or_its_asker_has_died() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let [answered, orphaned] = [[1; 16], [2; 16]].map(MessageId);
        assert!(!is_open(dir, &answered));

        let question = Question::open(dir, &answered).unwrap();
        assert!(is_open(dir, &answered));
        // What a killed process leaves: the file without the lock.
        fs::write(path(dir, &orphaned), "").unwrap();
        assert!(!is_open(dir, &orphaned));
        forget_dead(dir);
        assert!(is_open(dir, &answered));
        drop(question);

        assert!(!is_open(dir, &answered));
        assert_eq!(fs::read_dir(questions(dir)).unwrap().count(), 0);
    }
}
