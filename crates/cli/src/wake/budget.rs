//! How often messages may keep an agent going: two agents that answer each other without anybody
//! watching would otherwise do so until somebody looks at the bill.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use skytale_sdk::replace_private;

use crate::exit::Failure;

/// The times of the last hour, in a file of the agent's directory.
#[derive(Debug)]
pub(crate) struct Budget {
    path: PathBuf,
    now: u64,
    per_hour: u32,
    /// Seconds since 1970, oldest first; `None` where they cannot be read.
    times: Option<Vec<u64>>,
}

impl Budget {
    /// What is left at this time. A file that cannot be read counts as used up: the bound must hold
    /// most of all where something is wrong.
    pub(crate) fn open(agent_dir: &Path, now: u64, per_hour: u32) -> Self {
        let path = agent_dir.join(FILE);
        let times = match fs::read_to_string(&path) {
            Ok(text) => {
                let times = text.lines().map(|line| line.parse().unwrap_or(now));
                // A clock that was set back must not make an hour longer.
                let within = |time: &u64| *time <= now && now - time < HOUR_S;
                Some(times.filter(within).collect())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Vec::new()),
            Err(_) => None,
        };
        Self {
            path,
            now,
            per_hour,
            times,
        }
    }

    pub(crate) fn is_spent(&self) -> bool {
        let count = self.times.as_ref().map(Vec::len);
        count.is_none_or(|count| count >= usize::try_from(self.per_hour).unwrap_or(usize::MAX))
    }

    /// Once more.
    pub(crate) fn spend(&mut self) -> Result<(), Failure> {
        let times = self.times.get_or_insert_default();
        times.push(self.now);
        let lines: Vec<String> = times.iter().map(u64::to_string).collect();
        replace_private(&self.path, lines.join("\n").as_bytes())?;
        Ok(())
    }
}

const FILE: &str = "kept-going";
const HOUR_S: u64 = 3_600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_holds_so_many_and_the_next_one_as_many_again() {
        let dir = tempfile::tempdir().unwrap();
        let at = |now| Budget::open(dir.path(), now, 2);

        at(1_000).spend().unwrap();
        assert!(!at(1_001).is_spent());
        at(1_001).spend().unwrap();

        assert!(at(1_002).is_spent());
        assert!(at(1_000 + HOUR_S - 1).is_spent());
        assert!(!at(1_000 + HOUR_S).is_spent());
        assert!(!at(500).is_spent(), "the clock was set back");
    }

    #[test]
    fn what_cannot_be_read_is_spent() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(FILE)).unwrap();

        assert!(Budget::open(dir.path(), 1_000, 2).is_spent());
    }

    #[test]
    fn none_an_hour_is_none() {
        let dir = tempfile::tempdir().unwrap();

        assert!(Budget::open(dir.path(), 1_000, 0).is_spent());
    }
}
