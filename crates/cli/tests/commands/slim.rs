//! `slim`: names and sessions of SLIM, between agents of ours and through the real servers.

use std::fs;

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::people::Machine;

#[test]
fn what_is_said_to_a_name_is_heard_and_stays_in_its_log() {
    let machine = Machine::new();
    let _up = machine.up();
    let bytes = [0, 159, 146, 150];
    let file = machine.config().join("bytes");
    fs::create_dir_all(machine.config()).unwrap();
    fs::write(&file, bytes).unwrap();

    let first = machine.say("on fire\n", "slim pub acme/ops/alerts --as planner --json");
    assert_eq!(first.ok().json()["seq"], 1);
    let mut watcher = machine.begin("slim sub acme/ops/alerts --as watcher --after 0 -n 3 --json");
    let mut heard = watcher.lines();
    let before = heard.next().unwrap();
    machine
        .run(&format!(
            "slim pub acme/ops/alerts --as planner --file {}",
            file.display()
        ))
        .ok();
    machine
        .say("out\n", "slim pub acme/ops/alerts --as planner")
        .ok();

    assert_eq!(
        (&before["seq"], &before["text"]),
        (&1.into(), &"on fire".into())
    );
    let binary = heard.next().unwrap();
    assert_eq!(binary["payload_base64"], BASE64.encode(&bytes));
    let last = heard.next().unwrap();
    assert_eq!((&last["seq"], &last["text"]), (&3.into(), &"out".into()));
    assert!(heard.next().is_none(), "it ends after three");
    let log = machine
        .run("slim log acme/ops/alerts --as planner --after 1 --json")
        .ok()
        .json_lines();
    assert_eq!(log, [binary, last]);
    let logs = machine
        .run("slim log acme/ops/alerts --as planner --list --json")
        .ok();
    assert_eq!(
        logs.json(),
        json!({"instance": null, "head": 3, "pruned": 0})
    );
    let elsewhere = machine.run("slim log acme/ops/other --as planner").ok();
    assert_eq!(elsewhere.stdout, "");
}

#[test]
fn two_agents_talk_in_a_session_with_mls() {
    let machine = Machine::new();
    let _up = machine.up();
    let with = circle(&machine);

    let mut coder = machine.begin(&format!(
        "slim join acme/ops/coder --as coder -n 2 --json {with}"
    ));
    coder.write("on it\n");
    let mut told = coder.lines();
    assert_eq!(told.next().unwrap()["event"], "waiting");
    let planner = machine
        .say(
            "plan\nand do\n",
            &format!("slim invite acme/ops/planner acme/ops/coder --as planner -n 1 --json {with}"),
        )
        .ok()
        .json_lines();

    let told: Vec<Value> = told.collect();
    assert_eq!(of(&told, "joined"), ["acme/ops/planner"]);
    assert_eq!(said(&told), ["plan", "and do"]);
    assert_eq!(of(&planner, "added"), ["acme/ops/coder"]);
    assert_eq!(said(&planner), ["on it"]);

    // What is said in a session goes to an instance, and the relay keeps it sealed.
    let logs = machine
        .run("slim log acme/ops/coder --as planner --list --json")
        .ok()
        .json_lines();
    let [log] = &logs[..] else { panic!("{logs:?}") };
    let instance = log["instance"].as_str().unwrap();
    let kept = machine
        .run(&format!(
            "slim log acme/ops/coder --as planner --instance {instance} --json"
        ))
        .ok();
    assert_eq!(kept.json_lines().last().unwrap()["seq"], log["head"]);
    assert!(!kept.stdout.contains("and do"));
}

#[test]
fn a_session_in_clear_is_followed_only_by_who_says_so() {
    let machine = Machine::new();
    let _up = machine.up();
    let with = circle(&machine);

    let mut careful = machine.begin(&format!(
        "slim join acme/ops/coder --as coder --json {with}"
    ));
    let mut told = careful.lines();
    assert_eq!(told.next().unwrap()["event"], "waiting");
    let refused = machine.run(&format!(
        "slim invite acme/ops/planner acme/ops/coder --as planner --clear {with}"
    ));
    assert_eq!(refused.code, 3, "{refused:?}");
    let heard = told.next().unwrap();
    assert_eq!(
        (&heard["event"], &heard["name"]),
        (&"uninvited".into(), &"acme/ops/planner".into())
    );
    drop(careful);

    let mut open = machine.begin(&format!(
        "slim join acme/ops/tester --as tester --clear -n 1 --json {with}"
    ));
    let mut told = open.lines();
    assert_eq!(told.next().unwrap()["event"], "waiting");
    machine
        .say(
            "hello\n",
            &format!("slim invite acme/ops/planner acme/ops/tester --as planner --clear {with}"),
        )
        .ok();
    assert_eq!(said(&told.collect::<Vec<_>>()), ["hello"]);
}

#[test]
fn a_session_needs_a_secret_and_somebody_to_answer() {
    let machine = Machine::new();
    let _up = machine.up();
    fs::create_dir_all(machine.config()).unwrap();
    let file = machine.config().join("circle.txt");
    fs::write(&file, "too short\n").unwrap();

    let none = machine.run("slim join acme/ops/coder --as coder");
    assert_eq!(none.code, 2, "{none:?}");
    assert!(none.stderr.contains("--secret-file"), "{none:?}");
    let short = machine.run(&format!(
        "slim join acme/ops/coder --as coder --secret-file {}",
        file.display()
    ));
    assert_eq!(short.code, 2, "{short:?}");
    let two = machine.run("slim invite acme/ops/a acme/ops/b acme/ops/c --as a");
    assert_eq!(two.code, 2, "{two:?}");
    assert!(two.stderr.contains("--group"), "{two:?}");

    fs::write(&file, "a secret of the circle that is long enough\n").unwrap();
    let nobody = machine.run(&format!(
        "slim invite acme/ops/a acme/ops/nobody --as a --secret-file {}",
        file.display()
    ));
    assert_eq!(nobody.code, 3, "{nobody:?}");
    assert!(nobody.stderr.contains("acme/ops/nobody"), "{nobody:?}");
}

/// The option that names a file with the secret of a circle.
fn circle(machine: &Machine) -> String {
    fs::create_dir_all(machine.config()).unwrap();
    let file = machine.config().join("circle.txt");
    fs::write(&file, "a secret of the circle that is long enough\n").unwrap();
    format!("--secret-file {}", file.display())
}

fn of(told: &[Value], event: &str) -> Vec<String> {
    let such = told.iter().filter(|it| it["event"] == event);
    such.map(|it| it["name"].as_str().unwrap().to_owned())
        .collect()
}

fn said(told: &[Value]) -> Vec<&str> {
    let received = told.iter().filter(|it| it["event"] == "received");
    received.map(|it| it["text"].as_str().unwrap()).collect()
}
