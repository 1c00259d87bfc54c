//! What stock agents are pointed at: our servers, or SLIM's own node, so that a scenario can be held
//! against both. `SKYTALE_SLIM_NODE=stock` chooses the node.

use std::{
    net::TcpListener,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    metrics::metric,
    processes::{Machine, PATIENCE, Servers, Speaker},
    slim::python,
};

/// A port that speaks SLIM. Whatever is behind it is killed when this is dropped.
#[derive(Debug)]
pub struct Port {
    behind: Behind,
    url: String,
}

#[derive(Debug)]
enum Behind {
    // Killed before its directory is removed.
    Ours(Option<Servers>, Machine),
    Node(#[expect(dead_code, reason = "it is held")] Speaker),
}

impl Port {
    /// Ours, unless the environment asks for SLIM's own node; then one that agents of this version
    /// can talk to.
    pub fn open_for(version: &str) -> Self {
        match std::env::var_os("SKYTALE_SLIM_NODE") {
            Some(asked) if asked == "stock" => Self::node(if version.starts_with("1.") {
                "1.4.1"
            } else {
                "3.3.8"
            }),
            _ => Self::ours(),
        }
    }

    /// The same for the newest agents.
    pub fn open() -> Self {
        Self::open_for("3.3.8")
    }

    /// API server and relay, on free ports.
    pub fn ours() -> Self {
        let machine = Machine::new();
        let servers = machine.up(None);
        Self {
            url: servers.text("slim").to_owned(),
            behind: Behind::Ours(Some(servers), machine),
        }
    }

    /// SLIM's own node, as the package of this version brings it.
    pub fn node(version: &str) -> Self {
        // Its port cannot be asked for afterwards; nobody else takes this one within the moment.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let address = free.unwrap().to_string();
        let script = crate::here().join(NODE);
        let mut command = Command::new(python(&format!("slim-{version}")));
        command
            .arg(script)
            .arg(&address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (mouth, ears) = mpsc::channel();
        let node = Speaker::start(command, (), &mouth);
        let first = ears.recv_timeout(PATIENCE).ok().and_then(|it| it.what);
        assert!(first.is_some(), "SLIM's node does not start");
        Self {
            url: format!("http://{address}"),
            behind: Behind::Node(node),
        }
    }

    /// What agents are given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The computer that our servers run on.
    #[track_caller]
    pub fn machine(&self) -> &Machine {
        match &self.behind {
            Behind::Ours(_, machine) => machine,
            Behind::Node(_) => panic!("SLIM's own node has none"),
        }
    }

    /// Ends our servers by SIGTERM and reads what the relay has stored, a row for each record.
    #[track_caller]
    pub fn archived(mut self) -> Vec<Value> {
        let Behind::Ours(servers, machine) = &mut self.behind else {
            panic!("SLIM's own node stores nothing");
        };
        servers.take().expect("they run").terminate();
        machine.run("relay-dump --json").ok().json_lines()
    }

    /// Ends our servers by SIGTERM and starts them again in the same places; gives their log.
    #[track_caller]
    pub fn restart(&mut self) -> String {
        self.again(Servers::terminate)
    }

    /// Waits until so many agents are connected. What SLIM's clients say while they are not, they
    /// lose and call confirmed.
    #[track_caller]
    pub fn until_connected(&self, agents: u64) {
        let Behind::Ours(Some(servers), _) = &self.behind else {
            panic!("only our relay counts");
        };
        until_linked(&servers.addresses().health, agents);
    }

    /// As [`Self::restart`], by SIGKILL, with something to be done while nothing runs.
    #[track_caller]
    pub fn crash(&mut self, meanwhile: impl FnOnce()) -> String {
        self.again(|servers| {
            let log = servers.kill();
            meanwhile();
            log
        })
    }

    #[track_caller]
    fn again(&mut self, end: impl FnOnce(Servers) -> String) -> String {
        let Behind::Ours(servers, machine) = &mut self.behind else {
            panic!("only our servers are restarted");
        };
        let old = servers.take().expect("they run");
        let places = old.addresses();
        let log = end(old);
        *servers = Some(machine.up(Some(&places)));
        log
    }
}

/// From this package's directory. The bench compares with the same.
const NODE: &str = "../crates/cli/src/bench/slim/node.py";

/// Waits until a relay serves so many SLIM streams.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "it waits for other processes")]
pub fn until_linked(health: &str, agents: u64) {
    let begun = Instant::now();
    while links(health) != Some(agents) {
        assert!(begun.elapsed() < PATIENCE, "{agents} agents are connected");
        thread::sleep(Duration::from_millis(20));
    }
}

/// How many SLIM streams a relay serves, as its operator reads it.
pub fn links(health: &str) -> Option<u64> {
    metric(health, "skytale_relay_slim_links")
}
