//! `watch --exec`: a command for each message that may wake the agent.
//!
//! The message comes as JSON on the command's stdin. Nothing of it is in the command line, where a
//! shell would read it and every process of the machine could.

use std::{ffi::OsStr, io, process::Stdio, time::Duration};

use skytale_sdk::{Agent, Message};
use tokio::{io::AsyncWriteExt as _, process::Command, time::sleep};

use crate::{
    exit::Failure,
    messages::Shown,
    output::Output,
    wake::{self, Budget, Gate, Way},
};

/// What is run, and for whose messages.
#[derive(Debug)]
pub(super) struct Errand {
    command: String,
    gate: Gate,
    per_hour: u32,
}

/// When a message had its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    AtOnce,
    /// Much may have happened since.
    Waited,
}

impl Errand {
    pub(super) const fn new(command: String, gate: Gate, per_hour: u32) -> Self {
        Self {
            command,
            gate,
            per_hour,
        }
    }

    /// Runs the command for this message and waits for its end, if the message may wake the agent.
    /// It waits also until the hour allows another one, so that no message goes without its command.
    /// Cancelled, the command is killed.
    pub(super) async fn run(
        &mut self,
        agent: &Agent,
        message: &Message,
        output: Output,
    ) -> Result<(), Failure> {
        if !self.gate.lets_through(message).await? {
            return Ok(());
        }
        if self.take_turn(agent, output).await? == Turn::Waited
            && !self.gate.lets_through(message).await?
        {
            // Whoever sent it is no member any more.
            return Ok(());
        }
        let mut json = serde_json::to_vec(&Shown::of(message))
            .map_err(|_| Failure::failed("no JSON could be made"))?;
        json.push(b'\n');

        let mut command = Command::new("sh");
        command
            .args(["-c", &self.command])
            .stdin(Stdio::piped())
            // Our own lines go to stdout, and programs read them.
            .stdout(io::stderr())
            .kill_on_drop(true);
        let names = std::env::vars_os().map(|(name, _)| name);
        for secret in names.filter(|name| is_secret(name)) {
            command.env_remove(secret);
        }
        let mut child = command
            .spawn()
            .map_err(|error| Failure::failed(format!("sh does not start: {}", error.kind())))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not want to know more may close its stdin.
            let _ = stdin.write_all(&json).await;
        }
        let status = child.wait().await?;
        if !status.success() {
            output.complain(&format!(
                "skytale: the command for message {} ended with {status}",
                message.id()
            ));
        }
        Ok(())
    }

    /// Counts once more, as soon as the hour allows it.
    async fn take_turn(&self, agent: &Agent, output: Output) -> Result<Turn, Failure> {
        let budget = Budget::new(agent.data_dir(), Way::Command, self.per_hour);
        let mut turn = Turn::AtOnce;
        loop {
            let wait_s = budget.spend(wake::now())?;
            if wait_s == 0 {
                return Ok(turn);
            }
            if turn == Turn::AtOnce {
                turn = Turn::Waited;
                output.complain(&format!(
                    "skytale: the command was run as often as an hour allows (--per-hour); its next run is in {wait_s} seconds"
                ));
            }
            sleep(Duration::from_secs(wait_s).min(LOOK_AGAIN)).await;
        }
    }
}

/// Whether a variable of ours holds a secret itself. One that names a file does not, and with it the
/// command can be this agent too.
fn is_secret(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| {
        name.starts_with("SKYTALE_")
            && !name.ends_with("_FILE")
            && SECRETS.iter().any(|word| name.contains(word))
    })
}

/// The clock may be set meanwhile, and a machine may sleep.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

const SECRETS: [&str; 6] = [
    "KEY",
    "PASSWORD",
    "PASSPHRASE",
    "SECRET",
    "TOKEN",
    "DATABASE_URL",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_from_what_a_command_may_know() {
        for secret in [
            "SKYTALE_API_KEY",
            "SKYTALE_VAULT_KEY",
            "SKYTALE_PASSWORD",
            "SKYTALE_SLIM_SECRET",
            "SKYTALE_DATABASE_URL",
        ] {
            assert!(is_secret(OsStr::new(secret)), "{secret}");
        }
        for harmless in [
            "SKYTALE_VAULT_KEY_FILE",
            "SKYTALE_DATABASE_URL_FILE",
            "SKYTALE_DATA_DIR",
            "PATH",
            "MY_KEY",
        ] {
            assert!(!is_secret(OsStr::new(harmless)), "{harmless}");
        }
    }
}
