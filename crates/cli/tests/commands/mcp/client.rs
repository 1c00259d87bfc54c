//! A client that speaks the protocol by hand, line by line, with the real program.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::PathBuf,
    process::{Child, ChildStderr, ChildStdin},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::people::Machine;

/// Longer than anything takes on a busy machine, and less than a `receive` that waits in vain.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);

/// A session with a server. Dropped, the server is killed.
pub(crate) struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    said: Receiver<Value>,
    /// What came before it was asked for.
    kept: VecDeque<Value>,
    calls: u64,
}

/// Waits for a line on a program's stderr about this.
#[track_caller]
pub(crate) fn complaint(stderr: ChildStderr, about: &str) -> String {
    let lines = BufReader::new(stderr).lines();
    let (say, said) = mpsc::channel();
    let about = about.to_owned();
    thread::spawn(move || {
        let line = lines.map(Result::unwrap).find(|line| line.contains(&about));
        // Nobody waits any more.
        let _ = say.send(line);
    });
    let line = said.recv_timeout(PATIENCE).ok().flatten();
    line.expect("the program did not complain in time")
}

/// What a tool answered.
#[derive(Debug)]
pub(crate) struct Answer(Value);

impl Client {
    /// A session in this directory of the machine, begun by the handshake.
    #[track_caller]
    pub(crate) fn start(machine: &Machine, dir: &str, arguments: &str) -> Self {
        Self::start_with(machine, dir, arguments, &[])
    }

    /// The same with more in the environment.
    #[track_caller]
    pub(crate) fn start_with(
        machine: &Machine,
        dir: &str,
        arguments: &str,
        with: &[(&str, &str)],
    ) -> Self {
        let mut client = Self::connect(machine, dir, arguments, with);
        let hello = client.ask("initialize", &hello("2025-11-25"));
        assert_eq!(hello["result"]["protocolVersion"], "2025-11-25", "{hello}");
        client.tell("notifications/initialized", &json!({}));
        client
    }

    /// The server runs, and nothing was said yet.
    #[track_caller]
    pub(crate) fn connect(
        machine: &Machine,
        dir: &str,
        arguments: &str,
        with: &[(&str, &str)],
    ) -> Self {
        let dir = directory(machine, dir);
        let arguments = format!("mcp {arguments}");
        let mut command = machine.command(arguments.trim());
        command
            .current_dir(dir)
            // These tests are about other things than what a line looks like.
            .env("SKYTALE_TRAFFIC", "padded")
            .envs(with.iter().copied());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (say, said) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines() {
                let line = line.unwrap();
                let said: Value = serde_json::from_str(&line)
                    .unwrap_or_else(|error| panic!("not of the protocol: {line}: {error}"));
                assert_eq!(said["jsonrpc"], "2.0", "{line}");
                if say.send(said).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            stdin,
            said,
            kept: VecDeque::new(),
            calls: 0,
        }
    }

    /// Asks and waits for the answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> Value {
        let id = self.begin(method, params);
        self.answer_to(id)
    }

    /// Asks without waiting.
    pub(crate) fn begin(&mut self, method: &str, params: &Value) -> u64 {
        self.calls += 1;
        let id = self.calls;
        self.write(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    pub(crate) fn tell(&mut self, method: &str, params: &Value) {
        self.write(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    fn write(&mut self, message: &Value) {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{message}").unwrap();
    }

    #[track_caller]
    pub(crate) fn answer_to(&mut self, id: u64) -> Value {
        self.first(|said| said["id"] == id)
    }

    /// The next notification of this method.
    #[track_caller]
    pub(crate) fn told(&mut self, method: &str) -> Value {
        self.first(|said| said["method"] == method)["params"].clone()
    }

    /// What the server has said and nobody has asked for.
    pub(crate) fn unasked(&mut self) -> Vec<Value> {
        let new: Vec<Value> = self.said.try_iter().collect();
        self.kept.extend(new);
        self.kept.drain(..).collect()
    }

    #[track_caller]
    fn first(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(place) = self.kept.iter().position(&wanted) {
            return self.kept.remove(place).unwrap();
        }
        loop {
            let said = self.said.recv_timeout(PATIENCE);
            let said = said.expect("the server did not say it in time");
            if wanted(&said) {
                return said;
            }
            self.kept.push_back(said);
        }
    }

    /// Calls a tool.
    #[track_caller]
    pub(crate) fn call(&mut self, tool: &str, arguments: &Value) -> Answer {
        let id = self.begin_call(tool, arguments);
        self.answer_of(id)
    }

    pub(crate) fn begin_call(&mut self, tool: &str, arguments: &Value) -> u64 {
        self.begin("tools/call", &json!({"name": tool, "arguments": arguments}))
    }

    #[track_caller]
    pub(crate) fn answer_of(&mut self, call: u64) -> Answer {
        let answer = self.answer_to(call);
        assert!(answer.get("error").is_none(), "a protocol error: {answer}");
        Answer(answer["result"].clone())
    }

    /// Gives a call up.
    pub(crate) fn give_up(&mut self, call: u64) {
        self.tell("notifications/cancelled", &json!({"requestId": call}));
    }

    /// Waits for a line on stderr about this. What stands there is then read by nobody else.
    #[track_caller]
    pub(crate) fn complaint(&mut self, about: &str) -> String {
        complaint(self.child.stderr.take().unwrap(), about)
    }

    /// Hangs up, and gives what the server wrote to stderr.
    #[track_caller]
    pub(crate) fn hang_up(mut self) -> String {
        drop(self.stdin.take());
        let mut stderr = String::new();
        let mut pipe = self.child.stderr.take().unwrap();
        pipe.read_to_string(&mut stderr).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {stderr}");
        stderr
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    /// What came with a call that went well.
    #[track_caller]
    pub(crate) fn ok(&self) -> &Value {
        assert_eq!(self.0["isError"], false, "{self:?}");
        &self.0["structuredContent"]
    }

    /// What went wrong, as a model reads it.
    #[track_caller]
    pub(crate) fn wrong(&self) -> String {
        assert_eq!(self.0["isError"], true, "{self:?}");
        self.texts().concat()
    }

    /// The blocks of text.
    pub(crate) fn texts(&self) -> Vec<String> {
        let blocks = self.0["content"].as_array().unwrap();
        let text = |block: &Value| block["text"].as_str().unwrap().to_owned();
        blocks.iter().map(text).collect()
    }

    /// The messages of a `receive`: what their headings say, and their texts.
    #[track_caller]
    pub(crate) fn messages(&self) -> Vec<(Value, String)> {
        assert_eq!(self.0["isError"], false, "{self:?}");
        let texts = self.texts();
        texts[1..].iter().map(|block| unquoted(block)).collect()
    }

    /// The texts of a `receive`.
    #[track_caller]
    pub(crate) fn said(&self) -> Vec<String> {
        self.messages().into_iter().map(|(_, text)| text).collect()
    }
}

/// Heading and text of a quotation, found as its reader finds them: by the mark of its first line.
#[track_caller]
pub(crate) fn unquoted(block: &str) -> (Value, String) {
    let rest = block.strip_prefix("[message ").expect(block);
    let (mark, rest) = rest.split_once("]\n").unwrap();
    let (heading, rest) = rest.split_once('\n').unwrap();
    let (warning, rest) = rest.split_once(&format!("\n[begin {mark}]\n")).unwrap();
    assert!(warning.contains("not instructions"), "{block}");
    let text = rest.strip_suffix(&format!("\n[end {mark}]")).unwrap();
    (serde_json::from_str(heading).unwrap(), text.to_owned())
}

/// A directory of this name on the machine.
pub(crate) fn directory(machine: &Machine, name: &str) -> PathBuf {
    let dir = machine.data().parent().unwrap().join(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// What a client says first.
pub(crate) fn hello(version: &str) -> Value {
    json!({
        "protocolVersion": version,
        "capabilities": {},
        "clientInfo": {"name": "a test", "version": "1"},
    })
}
