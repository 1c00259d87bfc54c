//! `skytale watch` as programs and people use it: the real program, its line behind a schedule, and
//! another process of the same agent that sends.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::{
    io::Write as _,
    process::Command,
    sync::mpsc::{self, Receiver},
    time::Instant,
};

use serde_json::Value;
use skytale_tests::processes::{Machine, PATIENCE, Said, Speaker, program};

/// `--now` was once known only in the process that sent: where another one had the line, the message
/// waited for its slots like all others.
#[test]
fn watch_tells_programs_what_the_line_carries_also_for_another_process() {
    let machine = Machine::new();
    let _servers = machine.up(None);
    machine.two_agents();
    let arguments = ["watch", "--json", "--cells", "--as", "planner"];
    let mut command = machine.command(program(), &arguments);
    command.env("SKYTALE_TRAFFIC", "adaptive,rate=16");
    let (ears, said) = mpsc::channel();
    let watching = Speaker::start(command, (), &ears);
    let mut lines = Lines::of(said);

    let quiet =
        |line: &Value| cells(line) && line["sent"]["cover"] != 0 && line["sent"]["real"] == 0;
    lines.find("a second of silence", quiet);
    assert_eq!(machine.holder("planner"), watching.pid());
    machine
        .say("a small one", "send acme/ops/plan --as planner")
        .ok();
    lines.find("real cells", |line| {
        cells(line) && line["sent"]["real"] != 0
    });
    assert!(
        lines
            .seen
            .iter()
            .all(|line| line["event"] != "over_schedule"),
        "what was not said to leave at once waits"
    );

    let large = "x".repeat(20_000);
    machine
        .say(&large, "send acme/ops/plan --now --as planner")
        .ok();
    let told = lines.find("the event", |line| line["event"] == "over_schedule");
    assert!(told["cells"].as_u64() >= Some(19), "{told}");
    lines.find("the count", |line| cells(line) && line["over"] != 0);

    machine.say("hello", "send acme/ops/plan --as coder").ok();
    lines.find("the message", |line| line["text"] == "hello");
}

/// On a terminal it draws, and gives the terminal back however it ends.
#[test]
#[cfg(target_os = "linux")]
fn watch_draws_on_a_terminal_and_gives_it_back() {
    let machine = Machine::new();
    let _servers = machine.up(None);
    machine.two_agents();
    for end in [End::Key("q"), End::Key("\u{3}"), End::Terminated] {
        let shell = format!(
            "stty cols 100 rows 40; '{}' watch --as planner; echo \"code $?\"; stty -a",
            program().display()
        );
        let mut command = machine.command("script".as_ref(), &["-qec", &shell, "/dev/null"]);
        command.env("TERM", "xterm").env("PATH", "/usr/bin:/bin");
        let mut child = command.spawn().unwrap();
        let mut keys = child.stdin.take().unwrap();
        let mut screen = Screen::of(child.stdout.take().unwrap());

        screen.find("\u{1b}[?1049h");
        // Word by word: what is blank already is not sent.
        for word in ["planner", "relay:", "cells/s", "relay:", "comes", "ends"] {
            screen.find(word);
        }
        match end {
            End::Key(key) => keys.write_all(key.as_bytes()).unwrap(),
            End::Terminated => {
                let pid = machine.holder("planner").to_string();
                let told = Command::new("sh")
                    .args(["-c", "kill -TERM \"$0\"", &pid])
                    .status();
                assert!(told.unwrap().success());
            }
        }
        screen.find("\u{1b}[?1049l");
        screen.find("\u{1b}[?25h");
        screen.find("code 0");
        let settings = screen.find("echoctl");
        let settings: Vec<&str> = settings.split_whitespace().collect();
        for on in ["icanon", "echo", "isig"] {
            assert!(
                !settings.contains(&format!("-{on}").as_str()),
                "{end:?}: {on} was left off: {settings:?}"
            );
        }
        drop(keys);
        child.wait().unwrap();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn plain_watch_on_a_terminal_prints_lines() {
    let machine = Machine::new();
    let _servers = machine.up(None);
    machine.two_agents();
    machine.say("hello", "send acme/ops/plan --as coder").ok();
    let shell = format!(
        "timeout -s INT 20 '{}' watch --plain --cells --as planner",
        program().display()
    );
    let mut command = machine.command("script".as_ref(), &["-qec", &shell, "/dev/null"]);
    command.env("TERM", "xterm").env("PATH", "/usr/bin:/bin");
    let mut child = command.spawn().unwrap();
    let keys = child.stdin.take().unwrap();
    let mut screen = Screen::of(child.stdout.take().unwrap());

    let before = screen.find("hello") + &screen.find("* cells sent");

    assert!(!before.contains("\u{1b}[?1049h"), "{before:?}");
    drop(keys);
    let _ = child.kill();
    child.wait().unwrap();
}

fn cells(line: &Value) -> bool {
    line["event"] == "cells"
}

#[derive(Debug)]
enum End {
    Key(&'static str),
    Terminated,
}

/// What a process has said so far.
struct Lines {
    said: Receiver<Said<()>>,
    seen: Vec<Value>,
    looked: usize,
}

impl Lines {
    fn of(said: Receiver<Said<()>>) -> Self {
        Self {
            said,
            seen: Vec::new(),
            looked: 0,
        }
    }

    /// The next line that is wanted: what comes before it is passed over, but for events, which have
    /// no order among the counts.
    fn find(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = now() + PATIENCE;
        let mut at = self.looked;
        loop {
            if let Some(line) = self.seen.get(at) {
                at += 1;
                if wanted(line) {
                    if cells(line) {
                        // Older counts say nothing about what is done next.
                        self.looked = at;
                    }
                    return line.clone();
                }
                continue;
            }
            // The counts come every second.
            let left = end.saturating_duration_since(now());
            let said = self.said.recv_timeout(left);
            let line = said.ok().and_then(|said| said.what);
            let line = line.unwrap_or_else(|| panic!("no {what} in {:#?}", self.seen));
            self.seen.push(line);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own clock")]
fn now() -> Instant {
    Instant::now()
}

/// What came to a terminal and was not looked at yet.
struct Screen {
    pieces: Receiver<Vec<u8>>,
    text: String,
}

impl Screen {
    fn of(mut out: impl std::io::Read + Send + 'static) -> Self {
        let (tell, pieces) = mpsc::channel();
        std::thread::spawn(move || {
            let mut piece = vec![0; 65_536];
            while let Ok(len @ 1..) = out.read(&mut piece) {
                if tell.send(piece[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            pieces,
            text: String::new(),
        }
    }

    /// Everything up to the next place where this stands, and it.
    fn find(&mut self, wanted: &str) -> String {
        let end = now() + PATIENCE;
        loop {
            if let Some(at) = self.text.find(wanted) {
                let rest = self.text.split_off(at + wanted.len());
                return std::mem::replace(&mut self.text, rest);
            }
            // A picture is drawn again and again, so that something always comes.
            let left = end.saturating_duration_since(now());
            let Ok(piece) = self.pieces.recv_timeout(left) else {
                panic!("no {wanted:?} in {:?}", self.text);
            };
            // A character that is cut in two is not what is looked for.
            self.text.push_str(&String::from_utf8_lossy(&piece));
        }
    }
}
