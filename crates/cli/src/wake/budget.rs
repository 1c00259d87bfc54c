//! How often messages may wake an agent, or keep it going: two agents that answer each other without
//! anybody watching would otherwise do so until somebody looks at the bill.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
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
/// more of them, and all processes of an agent share them.
#[derive(Debug)]
pub(crate) struct Budget {
    path: PathBuf,
    per_hour: u32,
}

impl Budget {
    pub(crate) fn new(agent_dir: &Path, way: Way, per_hour: u32) -> Self {
        Self {
            path: agent_dir.join(way.file()),
            per_hour,
        }
    }

    /// Seconds until there is something left, and 0 when there is. What cannot be read is an error:
    /// the bound must hold most of all where something is wrong.
    pub(crate) fn wait_s(&self, now: u64) -> Result<u64, Failure> {
        Ok(self.wait_of(&self.times(now)?, now))
    }

    /// Counts once more and gives 0; or, when there is nothing left, the seconds until there is.
    pub(crate) fn spend(&self, now: u64) -> Result<u64, Failure> {
        let _turn = self.turn().map_err(|error| self.unusable(&error))?;
        let mut times = self.times(now)?;
        let wait_s = self.wait_of(&times, now);
        if wait_s == 0 {
            times.push(now);
            let lines: Vec<String> = times.iter().map(u64::to_string).collect();
            replace_private(&self.path, lines.join("\n").as_bytes())
                .map_err(|error| self.unusable(&error))?;
        }
        Ok(wait_s)
    }

    /// Seconds since 1970, oldest first.
    fn times(&self, now: u64) -> Result<Vec<u64>, Failure> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(self.unusable(&error)),
        };
        let times = text.lines().map(|line| line.parse().unwrap_or(now));
        // A clock that was set back must not make an hour longer.
        let within = |time: &u64| *time <= now && now - time < HOUR_S;
        Ok(times.filter(within).collect())
    }

    fn wait_of(&self, times: &[u64], now: u64) -> u64 {
        let per_hour = usize::try_from(self.per_hour).unwrap_or(usize::MAX);
        match times.len().checked_sub(per_hour) {
            None => 0,
            // None in an hour has no first one that could leave it.
            Some(over) => times
                .get(over)
                .map_or(HOUR_S, |first| HOUR_S.saturating_sub(now - first)),
        }
    }

    /// Until it is dropped, other processes wait.
    fn turn(&self) -> io::Result<fs::File> {
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path.with_added_extension("lock"))?;
        file.lock()?;
        Ok(file)
    }

    fn unusable(&self, error: &io::Error) -> Failure {
        Failure::failed(format!(
            "how often this agent was woken cannot be counted ({}): see to {}",
            error.kind(),
            self.path.display()
        ))
    }
}

const HOUR_S: u64 = 3_600;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn an_hour_holds_so_many_and_the_next_one_as_many_again() {
        let dir = tempfile::tempdir().unwrap();
        let budget = Budget::new(dir.path(), Way::Hook, 2);

        assert_eq!(budget.spend(1_000).unwrap(), 0);
        assert_eq!(budget.wait_s(1_001).unwrap(), 0);
        assert_eq!(budget.spend(1_001).unwrap(), 0);

        assert_eq!(budget.wait_s(1_002).unwrap(), HOUR_S - 2);
        assert_eq!(budget.spend(1_000 + HOUR_S - 1).unwrap(), 1);
        assert_eq!(budget.wait_s(1_000 + HOUR_S).unwrap(), 0);
        assert_eq!(budget.wait_s(500).unwrap(), 0, "the clock was set back");
        let less = Budget::new(dir.path(), Way::Hook, 1);
        let wait_s = less.wait_s(1_002).unwrap();
        assert_eq!(wait_s, HOUR_S - 1, "until one is left of two");
        let other = Budget::new(dir.path(), Way::Command, 2);
        assert_eq!(
            other.wait_s(1_002).unwrap(),
            0,
            "each way counts for itself"
        );
    }

    #[test]
    fn those_who_spend_at_once_do_not_spend_more() {
        let dir = tempfile::tempdir().unwrap();
        let spend = || {
            Budget::new(dir.path(), Way::Command, 5)
                .spend(1_000)
                .unwrap()
        };

        let waits: Vec<u64> = thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(spend)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });

        assert_eq!(waits.iter().filter(|wait_s| **wait_s == 0).count(), 5);
    }

    #[test]
    fn what_cannot_be_read_is_said_and_nothing_is_spent() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(Way::Hook.file())).unwrap();
        let budget = Budget::new(dir.path(), Way::Hook, 2);

        for refused in [budget.wait_s(1_000), budget.spend(1_000)] {
            assert!(refused.unwrap_err().to_string().contains("kept-going"));
        }
    }

    #[test]
    fn none_an_hour_is_none() {
        let dir = tempfile::tempdir().unwrap();

        let budget = Budget::new(dir.path(), Way::Hook, 0);
        assert_eq!(budget.spend(1_000).unwrap(), HOUR_S);
    }
}
