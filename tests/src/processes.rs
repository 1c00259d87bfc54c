//! Real processes for tests: machines in temporary directories, the servers, commands and actors.
//!
//! Whatever was started is killed when its handle is dropped. Waiting is always for an event, and
//! [`PATIENCE`] only ends what would never end.

use std::{
    fmt,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        LazyLock,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

pub mod stranger;

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The program under test. Its crate has no library that would bring it here, so it is built;
/// unless `SKYTALE_PROGRAM` names one that is, such as a release.
pub fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        if let Some(named) = std::env::var_os("SKYTALE_PROGRAM") {
            return named.into();
        }
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "skytale-cli"])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(crate::here())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "the program is not built: {said}");
        String::from_utf8(built.stdout)
            .unwrap()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|it| it["target"]["name"] == "skytale" && it["executable"].is_string())
            .map(|it| PathBuf::from(it["executable"].as_str().unwrap()))
            .unwrap()
    });
    &PROGRAM
}

/// A computer: one data directory and one configuration directory.
#[derive(Debug)]
pub struct Machine {
    dir: TempDir,
    /// What its programs are to log.
    log: Option<&'static str>,
}

/// What a command left.
#[derive(Debug)]
pub struct Ran {
    /// The exit code, or -1 after a signal.
    pub code: i32,
    /// Its results.
    pub stdout: String,
    /// Its talk and its log.
    pub stderr: String,
}

impl Machine {
    /// A new one, which logs as programs do by themselves.
    #[expect(clippy::new_without_default, reason = "it makes directories")]
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            log: None,
        }
    }

    /// One whose programs log what this filter lets through.
    pub fn logging(filter: &'static str) -> Self {
        Self {
            log: Some(filter),
            ..Self::new()
        }
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The configuration directory.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    /// A program with nothing of the test's own environment.
    pub fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("SKYTALE_DATA_DIR", self.data())
            .env("SKYTALE_CONFIG_DIR", self.config())
            // These tests are about other things than what a line looks like.
            .env("SKYTALE_TRAFFIC", "padded")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(filter) = self.log {
            command.env("SKYTALE_LOG", filter);
        }
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &str) -> Ran {
        self.say("", arguments)
    }

    /// Runs a command with this on stdin.
    pub fn say(&self, stdin: &str, arguments: &str) -> Ran {
        let words: Vec<&str> = arguments.split(' ').collect();
        finish(self.command(program(), &words), stdin)
    }

    /// API server and relay, on free ports or on those that they had before.
    pub fn up(&self, again: Option<&Addresses>) -> Servers {
        let fresh = Addresses::default();
        let Addresses {
            api,
            relay,
            slim,
            health,
        } = again.unwrap_or(&fresh);
        let mut command = self.command(program(), &["up", "--json", "--quiet"]);
        command.args(["--api-addr", api, "--relay-addr", relay]);
        command.args(["--health-addr", health, "--grpc-addr", slim]);
        Self::started(command)
    }

    /// One server or both, with these arguments, among which is `--json`.
    pub fn serve(&self, arguments: &str) -> Servers {
        let words: Vec<&str> = arguments.split(' ').collect();
        Self::started(self.command(program(), &words))
    }

    fn started(command: Command) -> Servers {
        let (child, mut stdin) = Guarded::spawn(command);
        drop(stdin.take());
        let mut servers = Servers::new(child);
        let Ok(line) = servers.out.recv_timeout(PATIENCE) else {
            panic!("the servers did not start: {}", servers.kill());
        };
        servers.started = serde_json::from_str(&line).unwrap();
        servers
    }

    /// planner and coder in one channel of this machine.
    pub fn two_agents(&self) {
        self.run("open acme/ops/plan --as planner").ok();
        let invite = self.run("invite acme/ops/plan --as planner").ok();
        self.run(&format!("join {} --as coder", invite.line())).ok();
    }

    /// The id of an agent of this machine.
    pub fn id_of(&self, agent: &str) -> String {
        let who = self.run(&format!("whoami --json --as {agent}")).ok().json();
        who["id"].as_str().unwrap().to_owned()
    }

    /// Which process holds the line of an agent of this machine.
    pub fn holder(&self, agent: &str) -> u32 {
        let lock = self.data().join("agents").join(agent).join("vault.lock");
        std::fs::read_to_string(lock).unwrap().parse().unwrap()
    }
}

impl Ran {
    /// It must have succeeded.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "often only success counts")]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// The only line of stdout.
    #[track_caller]
    pub fn line(&self) -> &str {
        let line = self.stdout.strip_suffix('\n').unwrap_or_default();
        assert!(!line.is_empty() && !line.contains('\n'), "{self:?}");
        line
    }

    /// The only line, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(self.line()).unwrap()
    }

    /// Each line as JSON.
    pub fn json_lines(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Runs a command to its end, which must come in time.
pub fn finish(command: Command, stdin: &str) -> Ran {
    let what = format!("{:?}", command.get_args().collect::<Vec<_>>());
    let (mut child, input) = Guarded::spawn(command);
    // A command that has ended without reading says why by its exit code.
    let _ = input.unwrap().write_all(stdin.as_bytes());
    let (stdout, stderr) = (child.all_of_stdout(), child.all_of_stderr());
    let Ok(stdout) = stdout.recv_timeout(PATIENCE) else {
        panic!("{what} does not end");
    };
    let status = child.wait();
    Ran {
        code: status.code().unwrap_or(-1),
        stdout,
        stderr: stderr.recv_timeout(PATIENCE).unwrap(),
    }
}

/// A process that does not outlive its handle.
#[derive(Debug)]
pub struct Guarded(Child);

impl Guarded {
    /// Starts it, and gives its stdin.
    pub fn spawn(mut command: Command) -> (Self, Option<ChildStdin>) {
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        (Self(child), stdin)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// As a power cut would end it.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        self.wait();
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        // The standard library knows no signal but the hardest.
        let told = Command::new("sh")
            .args(["-c", "kill -TERM \"$0\"", &self.pid().to_string()])
            .status();
        assert!(told.unwrap().success());
    }

    fn wait(&mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }

    fn all_of_stdout(&mut self) -> Receiver<String> {
        all_of(self.0.stdout.take().unwrap())
    }

    fn all_of_stderr(&mut self) -> Receiver<String> {
        all_of(self.0.stderr.take().unwrap())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads to the end on a thread of its own, so that no pipe fills up.
fn all_of(mut pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (done, all) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = done.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    all
}

/// Where servers listen.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "each is `ip:port` of what it is called")]
pub struct Addresses {
    pub api: String,
    pub relay: String,
    pub slim: String,
    pub health: String,
}

impl Default for Addresses {
    fn default() -> Self {
        let [api, relay, slim, health] = std::array::from_fn(|_| "127.0.0.1:0".to_owned());
        Self {
            api,
            relay,
            slim,
            health,
        }
    }
}

/// A running `skytale up`.
#[derive(Debug)]
pub struct Servers {
    child: Guarded,
    out: Receiver<String>,
    talk: Receiver<String>,
    started: Value,
}

impl Servers {
    fn new(mut child: Guarded) -> Self {
        let stdout = child.0.stdout.take().unwrap();
        let (line, out) = mpsc::channel();
        thread::spawn(move || {
            for one in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = line.send(one);
            }
        });
        Self {
            talk: child.all_of_stderr(),
            child,
            out,
            started: Value::Null,
        }
    }

    /// A field of the line that it printed when it was ready.
    #[track_caller]
    pub fn text(&self, field: &str) -> &str {
        self.started[field].as_str().unwrap()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.0.try_wait().unwrap().is_none()
    }

    /// Where it listens, for a restart in the same places.
    pub fn addresses(&self) -> Addresses {
        let plain = |field| self.text(field).trim_start_matches("http://").to_owned();
        Addresses {
            api: plain("api"),
            relay: plain("relay").split_once('@').unwrap().1.to_owned(),
            slim: plain("slim"),
            health: plain("health"),
        }
    }

    /// As a power cut would end it; gives its log.
    pub fn kill(mut self) -> String {
        self.child.kill();
        self.talk.recv_timeout(PATIENCE).unwrap_or_default()
    }

    /// As an operator would end it. It must have ended well and in time, and printed nothing more.
    #[track_caller]
    pub fn terminate(mut self) -> String {
        self.child.terminate();
        let ended = self.out.recv_timeout(STOP_MAX);
        assert_eq!(ended, Err(mpsc::RecvTimeoutError::Disconnected));
        let status = self.child.wait();
        let talk = self.talk.recv_timeout(PATIENCE).unwrap();
        assert!(status.success(), "{status}: {talk}");
        talk
    }
}

/// What an actor or a follower says, and which one it was.
#[derive(Debug)]
pub struct Said<W> {
    /// Who.
    pub who: W,
    /// `None` at the end of its stdout.
    pub what: Option<Value>,
}

/// A running process whose lines go into a channel that others share. See `bin/actor.rs`.
pub struct Speaker {
    child: Guarded,
    stdin: Option<ChildStdin>,
    talk: Receiver<String>,
}

impl Speaker {
    /// Starts it; each line that it prints must be JSON.
    pub fn start<W: Clone + Send + 'static>(
        command: Command,
        who: W,
        ears: &Sender<Said<W>>,
    ) -> Self {
        let (mut child, stdin) = Guarded::spawn(command);
        let stdout = child.0.stdout.take().unwrap();
        let ears = ears.clone();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let what = Some(serde_json::from_str(&line).unwrap());
                let said = Said {
                    who: who.clone(),
                    what,
                };
                if ears.send(said).is_err() {
                    return;
                }
            }
            let _ = ears.send(Said { who, what: None });
        });
        Self {
            talk: child.all_of_stderr(),
            child,
            stdin,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// A line for its stdin. One that has just ended by itself is found out by its exit code.
    pub fn tell(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(format!("{line}\n").as_bytes());
        }
    }

    /// Ends its stdin.
    pub fn hang_up(&mut self) {
        self.stdin = None;
    }

    /// What it wrote to stderr, once it has ended.
    pub fn log(&self) -> String {
        self.talk.recv_timeout(PATIENCE).unwrap_or_default()
    }

    /// As a power cut would end it.
    pub fn kill(mut self) {
        self.child.kill();
    }

    /// Waits for its end, which its stdout has announced; gives its exit code and its log.
    pub fn ended(mut self) -> (i32, String) {
        let status = self.child.wait();
        let talk = self.talk.recv_timeout(PATIENCE).unwrap_or_default();
        (status.code().unwrap_or(-1), talk)
    }
}

impl fmt::Debug for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Speaker")
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

/// What the servers promise, and a little for a busy machine.
const STOP_MAX: Duration = Duration::from_secs(11);
