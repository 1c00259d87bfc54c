//! Stock SLIM agents and the ports that they are pointed at.
//!
//! An agent here is the published Python package, of any version, in a process of its own: see
//! `tests/slim/agent.py` for what it understands. Its environment is made on first use, which needs
//! a network once, and stays in the user's cache directory.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::{self, Receiver},
};

use serde_json::{Value, json};

use crate::processes::{PATIENCE, Said, Speaker};

pub mod hop;
pub mod port;
pub mod wire;

/// What a session is, as the one who opens it chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mls {
    /// The agents encrypt among themselves.
    On,
    /// They do not.
    Off,
}

/// A session's number, which is the same for all who are in it.
pub type SessionId = u64;

/// A running stock agent. Killed when dropped.
#[derive(Debug)]
pub struct StockAgent {
    name: String,
    version: String,
    // Killed before its ears are gone.
    speaker: Speaker,
    ears: Receiver<Said<()>>,
    /// What came before it was asked for.
    kept: VecDeque<Value>,
    ready: Value,
}

impl StockAgent {
    /// Starts one of this version; it is connected and subscribed to its name when this returns.
    #[track_caller]
    pub fn start(version: &str, url: &str, name: &str) -> Self {
        Self::start_with(version, url, name, &[])
    }

    /// The same with what `tests/slim/agent.py` reads of its environment.
    #[track_caller]
    pub fn start_with(version: &str, url: &str, name: &str, with: &[(&str, &Path)]) -> Self {
        let mut command = Command::new(python(&format!("slim-{version}")));
        command
            .arg(scripts().join("agent.py"))
            .args([url, name])
            .envs(with.iter().copied())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let (mouth, ears) = mpsc::channel();
        let mut agent = Self {
            name: name.to_owned(),
            version: version.to_owned(),
            speaker: Speaker::start(command, (), &mouth),
            ears,
            kept: VecDeque::new(),
            ready: Value::Null,
        };
        agent.ready = agent.next("to be ready", |it| it.get("ready").is_some());
        agent
    }

    /// By which others invite it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether its sessions can be closed softly and rejoined.
    pub fn has_states(&self) -> bool {
        self.ready["states"] == true
    }

    /// Gives an order and does not wait for it.
    pub fn tell(&mut self, order: &Value) {
        self.speaker.tell(&order.to_string());
    }

    /// Waits for the answer to the oldest order that has none yet, which must be that it is done.
    #[track_caller]
    pub fn done(&mut self) -> Value {
        let answer = self.answer();
        assert!(answer.get("done").is_some(), "{}: {answer}", self.name);
        answer
    }

    /// The same, and it may say that it failed.
    #[track_caller]
    pub fn answer(&mut self) -> Value {
        self.next("an answer", |it| {
            it.get("done").is_some() || it.get("failed").is_some()
        })
    }

    /// Gives an order that must succeed.
    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "orders are written in place")]
    pub fn order(&mut self, order: Value) -> Value {
        self.tell(&order);
        self.done()
    }

    /// Opens a session with one other.
    #[track_caller]
    pub fn open(&mut self, other: &str, mls: Mls) -> SessionId {
        let answer = self.order(json!({ "do": "open", "to": other, "mls": mls == Mls::On }));
        answer["session"].as_u64().unwrap()
    }

    /// Opens a group of this name and invites these into it.
    #[track_caller]
    pub fn open_group(&mut self, name: &str, mls: Mls, others: &[&str]) -> SessionId {
        let order = json!({ "do": "open", "to": name, "group": true, "mls": mls == Mls::On });
        let session = self.order(order)["session"].as_u64().unwrap();
        for other in others {
            self.invite(session, other);
        }
        session
    }

    /// Invites somebody and waits until that is over.
    #[track_caller]
    pub fn invite(&mut self, session: SessionId, other: &str) {
        self.order(json!({ "do": "invite", "session": session, "who": other }));
    }

    /// Says these and waits until each member has confirmed each.
    #[track_caller]
    pub fn publish<T: AsRef<str>>(&mut self, session: SessionId, texts: &[T]) {
        self.begin_publish(session, texts);
        self.done();
    }

    /// Begins to say these; [`Self::done`] waits for the end.
    pub fn begin_publish<T: AsRef<str>>(&mut self, session: SessionId, texts: &[T]) {
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        self.tell(&json!({ "do": "publish", "session": session, "texts": texts }));
    }

    /// Waits until somebody has invited it.
    #[track_caller]
    pub fn invited(&mut self) -> SessionId {
        let is_invitation = |it: &Value| it.get("session").is_some() && it.get("source").is_some();
        let told = self.next("an invitation", |it| {
            is_invitation(it) && it.get("got").is_none()
        });
        told["session"].as_u64().unwrap()
    }

    /// The next message in this session, whatever else has come.
    #[track_caller]
    pub fn hear(&mut self, session: SessionId) -> String {
        let got = self.next("a message", |it| {
            it.get("got").is_some() && it["session"] == session
        });
        got["got"].as_str().unwrap().to_owned()
    }

    /// The next messages in this session must be these, in this order.
    #[track_caller]
    pub fn hears<T: AsRef<str>>(&mut self, session: SessionId, texts: &[T]) {
        for text in texts {
            assert_eq!(self.hear(session), text.as_ref(), "{}", self.name);
        }
    }

    /// Waits for this message in this session; others may come before it.
    #[track_caller]
    pub fn hears_among_others(&mut self, session: SessionId, text: &str) {
        while self.hear(session) != text {}
    }

    /// Nothing has come of this session that was not asked for.
    #[track_caller]
    pub fn has_nothing_of(&mut self, session: SessionId) {
        self.kept
            .extend(self.ears.try_iter().filter_map(|it| it.what));
        let more = self.kept.iter().find(|it| it["session"] == session);
        assert_eq!(more, None, "{}", self.name);
    }

    /// Waits until this session is over for it.
    #[track_caller]
    pub fn ended(&mut self, session: SessionId) {
        self.next("the end of a session", |it| it["ended"] == session);
    }

    /// Who is in a session as this agent sees it, and whether each is there.
    #[track_caller]
    pub fn participants(&mut self, session: SessionId) -> Vec<(String, bool)> {
        let answer = self.order(json!({ "do": "participants", "session": session }));
        let all = answer["participants"].as_array().unwrap();
        all.iter()
            .map(|one| (one[0].as_str().unwrap().to_owned(), one[1] == true))
            .collect()
    }

    /// As a power cut would end it; gives what it had said by then and nobody has asked for.
    pub fn kill(self) -> Vec<Value> {
        self.speaker.kill();
        let rest = self.ears.into_iter().map_while(|it| it.what);
        self.kept.into_iter().chain(rest).collect()
    }

    /// The next thing that is wanted; everything else is kept for whoever wants that.
    #[track_caller]
    fn next(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.kept.iter().position(&wanted) {
            return self.kept.remove(at).expect("it was found there");
        }
        loop {
            let (name, version) = (&self.name, &self.version);
            let Ok(said) = self.ears.recv_timeout(PATIENCE) else {
                panic!(
                    "{name} ({version}) waits in vain for {what}; there is {:?}",
                    self.kept
                );
            };
            let Some(line) = said.what else {
                panic!("{name} ({version}) has ended and not had {what}");
            };
            if wanted(&line) {
                return line;
            }
            self.kept.push_back(line);
        }
    }
}

/// What the probes of `tests/slim/probes.py` find at a port.
#[track_caller]
pub fn probe(url: &str) -> Value {
    let probed = Command::new(python("probes"))
        .arg(scripts().join("probes.py"))
        .arg(url.trim_start_matches("http://"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&probed.stderr);
    assert!(probed.status.success(), "{said}");
    serde_json::from_slice(&probed.stdout).unwrap()
}

/// The interpreter of an environment of `tests/slim/requirements`, which is made if there is none.
#[track_caller]
pub fn python(environment: &str) -> PathBuf {
    let made = Command::new("python3")
        .arg(scripts().join("environment.py"))
        .arg(environment)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python3 is needed for tests with stock SLIM agents");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
    PathBuf::from(String::from_utf8(made.stdout).unwrap().trim())
}

/// Where the Python side of these tests lies.
pub fn scripts() -> PathBuf {
    crate::here().join("slim")
}
