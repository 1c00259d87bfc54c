//! A machine in a temporary directory, and servers that end with the test.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// A computer: one data directory and one configuration directory.
pub(crate) struct Machine {
    dir: TempDir,
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// The only line of stdout.
    #[track_caller]
    pub(crate) fn line(&self) -> &str {
        let line = self.stdout.strip_suffix('\n').unwrap_or_default();
        assert!(!line.is_empty() && !line.contains('\n'), "{self:?}");
        line
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.line()).unwrap()
    }

    pub(crate) fn json_lines(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Machine {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    /// The program with nothing of the test's own environment.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skytale"));
        command
            .args(arguments.split(' '))
            .env_clear()
            .env("SKYTALE_DATA_DIR", self.data())
            .env("SKYTALE_CONFIG_DIR", self.config())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &str) -> Ran {
        self.say("", arguments)
    }

    /// Runs with this on stdin.
    pub(crate) fn say(&self, stdin: &str, arguments: &str) -> Ran {
        finish(self.command(arguments), stdin)
    }

    /// `up` with free ports, waited for.
    pub(crate) fn up(&self) -> Server {
        self.serve(
            "up --json --api-addr 127.0.0.1:0 --relay-addr 127.0.0.1:0 --health-addr 127.0.0.1:0 --grpc-addr 127.0.0.1:0",
        )
    }

    /// Any command that serves and prints one JSON line when it is ready.
    #[track_caller]
    pub(crate) fn serve(&self, arguments: &str) -> Server {
        Server::start(self.command(arguments))
    }

    /// Starts a command and lets it run.
    pub(crate) fn begin(&self, arguments: &str) -> Running {
        Running(self.command(arguments).spawn().unwrap())
    }

    /// planner and coder in one channel of this machine.
    pub(crate) fn two_agents(&self) {
        self.run("open acme/ops/plan --as planner").ok();
        let invite = self.run("invite acme/ops/plan --as planner").ok();
        self.run(&format!("join {} --as coder", invite.line())).ok();
    }
}

pub(crate) fn finish(mut command: Command, stdin: &str) -> Ran {
    let mut child = command.spawn().unwrap();
    // A command that has ended without reading says why by its exit code.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let finished = child.wait_with_output().unwrap();
    Ran {
        code: finished.status.code().unwrap_or(-1),
        stdout: String::from_utf8(finished.stdout).unwrap(),
        stderr: String::from_utf8(finished.stderr).unwrap(),
    }
}

/// A running command. Dropped, it is killed.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn write(&mut self, text: &str) {
        self.0
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    /// The JSON lines that it prints, as they come.
    pub(crate) fn lines(&mut self) -> impl Iterator<Item = Value> + use<> {
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines();
        lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running server. Dropped, it is killed.
pub(crate) struct Server {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    line: String,
}

impl Server {
    #[track_caller]
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        if line.is_empty() {
            let ran = Self {
                child,
                stdout,
                line,
            }
            .ended();
            panic!("it did not start: {ran:?}");
        }
        Self {
            child,
            stdout,
            line,
        }
    }

    /// What it printed when it was ready.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.line).unwrap()
    }

    pub(crate) fn text(&self, field: &str) -> String {
        self.json()[field].as_str().unwrap().to_owned()
    }

    /// Ends it as an operator does, and gives what it printed after its first line.
    pub(crate) fn terminate(self) -> Ran {
        let pid = self.child.id().to_string();
        let told = Command::new("sh")
            .args(["-c", "kill -TERM \"$0\"", &pid])
            .status()
            .unwrap();
        assert!(told.success());
        self.ended()
    }

    /// As if the power had gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn ended(mut self) -> Ran {
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        let mut ran = Ran {
            code,
            stdout: String::new(),
            stderr: String::new(),
        };
        self.stdout.read_to_string(&mut ran.stdout).unwrap();
        if let Some(stderr) = self.child.stderr.as_mut() {
            stderr.read_to_string(&mut ran.stderr).unwrap();
        }
        ran
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The status and the body of a GET in clear, at a URL or an address.
pub(crate) fn get(at: &str, path: &str) -> (u16, String) {
    let addr = at.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(addr).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// Permission bits of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
