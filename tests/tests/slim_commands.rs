//! `skytale slim …` among stock SLIM agents: a person's agent is invited by one, and invites others.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::{fs, sync::mpsc};

use serde_json::Value;
use skytale_tests::{
    processes::{Machine, PATIENCE, Said, Speaker, program},
    slim::{Mls, StockAgent, port::Port},
};

const VERSION: &str = "3.3.8";
const SECRET: &str = "what the agents of a test share among themselves";

#[test]
fn a_stock_agent_invites_the_command_line() {
    let port = Port::ours();
    let mut alice = StockAgent::start(VERSION, port.url(), "a/team/alice");
    let mut bob = Command::start(port.machine(), "join a/team/bob --as bob -n 2");
    bob.event("waiting");

    let session = alice.open("a/team/bob", Mls::On);
    alice.publish(session, &["one"]);
    let heard = bob.event("received");
    bob.tell("two");
    alice.hears(session, &["two"]);
    // Bob leaves with it, so nobody waits for more than that.
    alice.begin_publish(session, &["three"]);

    assert_eq!(heard["text"], "one");
    assert_eq!(heard["from"], "a/team/alice");
    assert_eq!(bob.event("received")["text"], "three");
    alice.ended(session);
    bob.ends_well();
}

#[test]
fn the_command_line_invites_stock_agents_to_a_group() {
    let port = Port::ours();
    let mut bob = StockAgent::start(VERSION, port.url(), "a/team/bob");
    let mut carol = StockAgent::start("2.0.0", port.url(), "a/team/carol");
    let wish = "invite a/team/alice a/team/bob a/team/carol --group a/team/plan --as alice -n 2";
    let mut alice = Command::start(port.machine(), wish);

    let session = bob.invited();
    assert_eq!(carol.invited(), session);
    alice.event("added");
    alice.event("added");
    alice.tell("to all");
    bob.hears(session, &["to all"]);
    carol.hears(session, &["to all"]);
    bob.publish(session, &["from bob"]);
    carol.hears(session, &["from bob"]);

    assert_eq!(alice.event("received")["text"], "from bob");
    // With this the moderator goes, and the group with her: Bob may not hear it.
    carol.begin_publish(session, &["from carol"]);
    assert_eq!(alice.event("received")["text"], "from carol");
    bob.ended(session);
    carol.ended(session);
    alice.ends_well();
}

/// A running `slim join` or `slim invite`.
struct Command {
    speaker: Speaker,
    ears: mpsc::Receiver<Said<()>>,
}

impl Command {
    fn start(machine: &Machine, wish: &str) -> Self {
        let file = machine.config().join("circle.txt");
        fs::create_dir_all(machine.config()).unwrap();
        fs::write(&file, SECRET).unwrap();
        let mut words = vec!["slim"];
        words.extend(wish.split(' '));
        words.extend(["--json", "--secret-file", file.to_str().unwrap()]);
        let (mouth, ears) = mpsc::channel();
        let command = machine.command(program(), &words);
        Self {
            speaker: Speaker::start(command, (), &mouth),
            ears,
        }
    }

    fn tell(&mut self, line: &str) {
        self.speaker.tell(line);
    }

    /// The next of this kind; others before it are passed over.
    #[track_caller]
    fn event(&mut self, kind: &str) -> Value {
        loop {
            let said = self.ears.recv_timeout(PATIENCE).unwrap().what;
            let said = said.unwrap_or_else(|| panic!("it has ended before {kind}"));
            if said["event"] == kind {
                return said;
            }
        }
    }

    #[track_caller]
    fn ends_well(self) {
        while self.ears.recv_timeout(PATIENCE).unwrap().what.is_some() {}
        let (code, log) = self.speaker.ended();
        assert_eq!(code, 0, "{log}");
    }
}
