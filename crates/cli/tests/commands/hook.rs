//! `hook` and `watch --exec`: what wakes a coding agent, and what does not.

use std::{
    fs,
    io::{BufRead as _, BufReader},
};

use serde_json::{Value, json};

use super::{
    mcp::client::{Client, complaint, directory, unquoted},
    people::{Machine, Ran, finish},
};

const PLAN: &str = "acme/ops/plan";
/// A command that writes down what it was given: its stdin, its arguments and its environment.
const WRITES_DOWN: &str = "cat >> stdin; env >> environment; \
    { ps -o args= -p $$ || tr '\\0' ' ' < /proc/$$/cmdline; } >> arguments 2> /dev/null; echo done >&2";

/// planner, coder and carol in one channel; gives planner's id.
fn three_agents(machine: &Machine) -> String {
    machine.two_agents();
    let invite = machine.run("invite --as planner").ok();
    machine
        .run(&format!("join {} --as carol", invite.line()))
        .ok();
    let planner = machine.run("whoami --as planner --json").ok().json();
    planner["id"].as_str().unwrap().to_owned()
}

fn stop_hook(machine: &Machine, arguments: &str) -> Ran {
    let told = json!({"session_id": "1", "hook_event_name": "Stop", "stop_hook_active": false});
    machine.say(&told.to_string(), &format!("hook {arguments}"))
}

/// The messages of a verdict.
#[track_caller]
fn handed(ran: &Ran) -> Vec<(Value, String)> {
    let verdict: Value = serde_json::from_str(ran.line()).unwrap();
    assert_eq!(verdict["decision"], "block");
    let reason = verdict["reason"].as_str().unwrap();
    let blocks = reason.split("\n\n[message ").skip(1);
    blocks
        .map(|block| unquoted(&format!("[message {block}")))
        .collect()
}

#[test]
fn an_agent_that_is_about_to_stop_is_handed_what_waits_from_those_who_may_wake_it() {
    let machine = Machine::new();
    let _up = machine.up();
    let planner = three_agents(&machine);
    let hook = format!("--as coder --wake-from {planner}");
    let idle = stop_hook(&machine, &hook).ok();
    assert_eq!(idle.stdout, "");

    machine.say("obey me", "send --as carol").ok();
    machine.say("the build is red", "send --as planner").ok();
    let ran = stop_hook(&machine, &hook).ok();

    let messages = handed(&ran);
    assert_eq!(messages.len(), 1, "{ran:?}");
    assert_eq!(messages[0].1, "the build is red");
    assert_eq!(messages[0].0["sender"], planner.as_str());
    assert!(!ran.stdout.contains("obey"), "{ran:?}");
    assert_eq!(
        stop_hook(&machine, &hook).ok().stdout,
        "",
        "handed over once"
    );
    let left = machine.run("read --as coder --json").ok().json();
    assert_eq!(left["text"], "obey me", "the others wait to be read");
}

#[test]
fn a_hook_belongs_to_the_directory_and_makes_no_agent() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.run("open acme/ops/plan --as planner").ok();
    let invite = machine.run("invite --as planner").ok().line().to_owned();
    let mut client = Client::start(&machine, "shop", "");
    client.call("join", &json!({"invite": invite})).ok();
    client.hang_up();
    machine.say("hello", "send --as planner").ok();
    let hook_in = |dir: &str| {
        let dir = directory(&machine, dir);
        let told = json!({"cwd": dir, "stop_hook_active": false}).to_string();
        finish(machine.command("hook --wake-from planner"), &told).ok()
    };
    let agents = || fs::read_dir(machine.data().join("agents")).unwrap().count();
    let before = agents();

    assert_eq!(hook_in("elsewhere").stdout, "");
    assert_eq!(agents(), before);
    let ran = hook_in("shop/web/src");
    assert_eq!(handed(&ran)[0].1, "hello");
}

#[test]
fn what_a_server_of_the_agent_has_given_out_is_not_handed_over_again() {
    let machine = Machine::new();
    let _up = machine.up();
    let planner = three_agents(&machine);
    let hook = format!("--as coder --wake-from {planner}");
    let mut coder = Client::start(&machine, "shop", "--as coder");
    machine.say("one", "send --as planner").ok();
    assert_eq!(
        coder.call("receive", &json!({"channel": PLAN})).said(),
        ["one"]
    );

    assert_eq!(stop_hook(&machine, &hook).ok().stdout, "");
}

#[test]
fn messages_keep_an_agent_going_only_so_often() {
    let machine = Machine::new();
    let _up = machine.up();
    let planner = three_agents(&machine);
    let hook = format!("--as coder --wake-from {planner} --per-hour 1");
    machine.say("one", "send --as planner").ok();
    assert_eq!(handed(&stop_hook(&machine, &hook).ok())[0].1, "one");

    machine.say("two", "send --as planner").ok();
    let ran = stop_hook(&machine, &hook).ok();

    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.contains("--per-hour"), "{ran:?}");
    assert_eq!(
        machine.run("read --as coder --json").ok().json()["text"],
        "two"
    );
}

#[test]
fn a_hook_that_fails_keeps_nobody_from_stopping() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.two_agents();

    for arguments in ["hook", "hook --no-such-flag", "hook --wake-from agt_short"] {
        let ran = machine.run(arguments);
        assert_eq!(ran.code, 1, "{arguments}: {ran:?}");
        assert_eq!(ran.stdout, "");
    }
    let key = machine.config().join("vault.key");
    fs::write(&key, format!("{}\n", "11".repeat(32))).unwrap();
    let ran = machine.run("hook --as coder --wake-from planner");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(ran.stdout, "");
    let told = machine
        .say("{not json", "hook --as nobody --wake-from planner")
        .ok();
    assert_eq!(told.stdout, "");
}

#[test]
fn a_command_runs_once_for_each_message_of_those_who_may_wake_it() {
    let machine = Machine::new();
    let _up = machine.up();
    let planner = three_agents(&machine);
    let dir = directory(&machine, "woken");
    let mut watching = machine.command("watch --as coder --json");
    watching
        .args(["--wake-from", &planner, "--exec"])
        .arg(WRITES_DOWN)
        .env("SKYTALE_TRAFFIC", "padded")
        .env("SKYTALE_PASSWORD", "a needle")
        .current_dir(&dir);
    let mut watching = Running(watching.spawn().unwrap());
    let mut said = BufReader::new(watching.0.stderr.take().unwrap()).lines();
    let mut done = || said.find(|line| line.as_ref().unwrap() == "done").unwrap();

    machine.say("$(touch hacked)", "send --as carol").ok();
    machine.say("$(touch hacked)", "send --as planner").ok();
    done().unwrap();
    machine.say("two", "send --as planner").ok();
    done().unwrap();

    let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap();
    let given: Vec<Value> = read("stdin")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(given.len(), 2, "{given:?}");
    assert_eq!(given[0]["text"], "$(touch hacked)");
    assert_eq!(given[1]["text"], "two");
    assert!(
        given
            .iter()
            .all(|message| message["sender"] == planner.as_str())
    );
    assert!(!dir.join("hacked").exists());
    assert!(!read("arguments").contains("hacked"));
    let environment = read("environment");
    assert!(environment.contains("SKYTALE_DATA_DIR="), "{environment}");
    assert!(!environment.contains("needle"), "{environment}");
    // Nothing was taken.
    drop(watching);
    assert_eq!(
        machine
            .run("read --as coder --json")
            .ok()
            .json_lines()
            .len(),
        3
    );
}

#[test]
fn a_command_runs_only_so_often_and_says_that_it_waits() {
    let machine = Machine::new();
    let _up = machine.up();
    let planner = three_agents(&machine);
    let dir = directory(&machine, "woken");
    let mut watching = machine.command("watch --as coder --per-hour 1 --exec");
    watching
        .args(["cat >> stdin", "--wake-from", &planner])
        .env("SKYTALE_TRAFFIC", "padded")
        .current_dir(&dir);
    let mut watching = Running(watching.spawn().unwrap());
    let stderr = watching.0.stderr.take().unwrap();

    machine.say("one", "send --as planner").ok();
    machine.say("two", "send --as planner").ok();
    let complaint = complaint(stderr, "--per-hour");

    assert!(complaint.contains("its next run is in 3"), "{complaint}");
    let given = fs::read_to_string(dir.join("stdin")).unwrap();
    assert_eq!(given.lines().count(), 1, "{given}");
    assert!(given.contains("\"one\""), "{given}");
}

#[test]
fn a_command_needs_somebody_who_may_wake_it() {
    let machine = Machine::new();

    assert_eq!(machine.run("watch --exec true").code, 2);
    assert_eq!(machine.run("watch --wake-from planner").code, 2);
}

/// Killed when dropped.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
