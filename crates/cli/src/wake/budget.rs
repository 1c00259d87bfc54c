//! How often messages may wake an agent, or keep it going: two agents that answer each other without
//! anybody watching would otherwise do so until somebody looks at the bill.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use skytale_sdk::replace_private;

use crate::exit::Failure;

/// A way to wake an agent. Each has a count of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// `hook`: it is kept from stopping.
    Hook,
    /// `watch --exec`: a command is run.
    Command,
    /// `mcp`: an idle client is told.
    Notice,
}

impl Way {
    const fn file(self) -> &'static str {
        match self {
            Self::Hook => "kept-going",
            Self::Command => "ran-commands",
            Self::Notice => "told-client",
        }
    }
}

/// The times of the last hour, in a file of the agent's directory: who starts a program again has no
/// more of them.
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
    pub(crate) fn open(agent_dir: &Path, way: Way, now: u64, per_hour: u32) -> Self {
        let path = agent_dir.join(way.file());
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

    /// Seconds until there is something left, and 0 when there is.
    pub(crate) fn wait_s(&self) -> u64 {
        let Some(times) = &self.times else {
            return HOUR_S;
        };
        let per_hour = usize::try_from(self.per_hour).unwrap_or(usize::MAX);
        match times.len().checked_sub(per_hour) {
            None => 0,
            // None in an hour has no first one that could leave it.
            Some(over) => times
                .get(over)
                .map_or(HOUR_S, |first| HOUR_S.saturating_sub(self.now - first)),
        }
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

const HOUR_S: u64 = 3_600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_holds_so_many_and_the_next_one_as_many_again() {
        let dir = tempfile::tempdir().unwrap();
        let at = |now| Budget::open(dir.path(), Way::Hook, now, 2);

        at(1_000).spend().unwrap();
        assert_eq!(at(1_001).wait_s(), 0);
        at(1_001).spend().unwrap();

        assert_eq!(at(1_002).wait_s(), HOUR_S - 2);
        assert_eq!(at(1_000 + HOUR_S - 1).wait_s(), 1);
        assert_eq!(at(1_000 + HOUR_S).wait_s(), 0);
        assert_eq!(at(500).wait_s(), 0, "the clock was set back");
        let less = Budget::open(dir.path(), Way::Hook, 1_002, 1);
        assert_eq!(less.wait_s(), HOUR_S - 1, "until one is left of two");
        let other = Budget::open(dir.path(), Way::Command, 1_002, 2);
        assert_eq!(other.wait_s(), 0, "each way counts for itself");
    }

    #[test]
    fn what_cannot_be_read_is_spent() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(Way::Hook.file())).unwrap();

        let budget = Budget::open(dir.path(), Way::Hook, 1_000, 2);
        assert_eq!(budget.wait_s(), HOUR_S);
    }

    #[test]
    fn none_an_hour_is_none() {
        let dir = tempfile::tempdir().unwrap();

        let budget = Budget::open(dir.path(), Way::Hook, 1_000, 0);
        assert_eq!(budget.wait_s(), HOUR_S);
    }
}
