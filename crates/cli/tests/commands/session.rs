//! The first five minutes, and what follows from them.

use std::collections::BTreeSet;

use super::people::Machine;

#[test]
fn five_commands_lead_from_nothing_to_the_first_message() {
    let machine = Machine::new();
    let _up = machine.up();

    let opened = machine.run("open acme/ops/plan --as planner").ok();
    assert!(
        opened
            .line()
            .starts_with("opened acme/ops/plan · 1 member · words: ")
    );
    let invite = machine.run("invite acme/ops/plan --as planner").ok();
    assert!(invite.line().starts_with("skt_inv_"));
    assert!(invite.stderr.contains("this machine only"), "{invite:?}");
    let joined = machine
        .run(&format!("join {} --as coder", invite.line()))
        .ok();
    let words = joined
        .line()
        .strip_prefix("joined acme/ops/plan · 2 members · words: ")
        .unwrap_or_else(|| panic!("{joined:?}"));
    assert_eq!(words.split(' ').count(), 5);
    machine.say("ready\n", "send acme/ops/plan --as coder").ok();
    let read = machine.run("read acme/ops/plan --as planner --json").ok();

    let message = read.json();
    let fields: BTreeSet<&str> = message
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let promised = [
        "id",
        "seq",
        "sender",
        "label",
        "verified",
        "epoch",
        "sent",
        "text",
        "channel",
        "content_type",
        "in_reply_to",
    ];
    assert_eq!(fields, BTreeSet::from(promised));
    assert_eq!(message["text"], "ready");
    assert_eq!(message["label"], "coder");
    assert_eq!(message["verified"], true);
    assert_eq!(message["content_type"], "text/plain");
    let coder = machine.run("whoami --as coder --json").ok().json();
    assert_eq!(message["sender"], coder["id"]);
    let compared = machine.run("words acme/ops/plan --as planner").ok();
    assert_eq!(compared.line(), words);
}

#[test]
fn a_second_machine_joins_by_the_invite_alone() {
    let (here, there) = (Machine::new(), Machine::new());
    let _up = here.up();
    here.run("open acme/ops/plan --as planner").ok();
    let invite = here.run("invite --as planner").ok();

    let joined = there
        .say(invite.line(), "join - --as coder --json")
        .ok()
        .json();

    assert_eq!(joined["members"], 2);
    assert!(!there.config().join("contexts").exists());
    there.say("hello", "send").ok();
    let read = here.run("read --json").ok().json();
    assert_eq!(read["text"], "hello");
    here.say("welcome", "send").ok();
    assert_eq!(there.run("read --json").ok().json()["text"], "welcome");
    let who = there.run("whoami --json").ok().json();
    assert!(who["account_id"].is_null());
    assert_eq!(who["agent"], "coder");
}

#[test]
fn a_message_is_read_once_and_a_broken_pipe_does_not_lose_it() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.two_agents();
    machine.say("only once", "send --as planner").ok();

    let mut command = machine.command("read --as coder");
    let mut broken = command.spawn().unwrap();
    drop(broken.stdout.take());
    assert!(!broken.wait().unwrap().success());

    let read = machine.run("read --as coder").ok();
    assert!(read.line().ends_with(": only once"), "{read:?}");
    let again = machine.run("read --as coder").ok();
    assert_eq!(again.stdout, "");
}

#[test]
fn the_agent_and_the_channel_may_be_left_out_only_when_there_is_no_choice() {
    let machine = Machine::new();
    let typo = machine.run("channels --as planer");
    assert_eq!(typo.code, 3, "{typo:?}");
    assert!(!machine.data().exists());
    let nobody = machine.run("channels");
    assert_eq!(nobody.code, 2);
    assert!(nobody.stderr.contains("--as"), "{nobody:?}");

    let _up = machine.up();
    machine.run("open acme/ops/plan --as planner").ok();
    machine.run("words").ok();
    machine.run("open acme/ops/other").ok();
    let which = machine.run("words");
    assert_eq!(which.code, 2);
    machine.run("whoami --as coder").ok();
    let who = machine.run("words acme/ops/plan");
    assert_eq!(who.code, 2);
    assert!(who.stderr.contains("coder, planner"), "{who:?}");
}

#[test]
fn following_prints_messages_as_they_come() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.two_agents();
    let mut following = machine.begin("read --follow --json --as coder");
    let mut lines = following.lines();
    let mut next = || lines.next().unwrap()["text"].clone();

    machine.say("one", "send --as planner").ok();
    assert_eq!(next(), "one");
    machine.say("two", "send --as planner").ok();
    assert_eq!(next(), "two");

    // Another process of the same agent works beside it.
    machine.say("three", "send --as coder").ok();
    assert_eq!(
        machine.run("read --as planner --json").ok().json()["text"],
        "three"
    );
}

#[test]
fn a_question_gets_its_answer() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.two_agents();
    let mut asking = machine.begin("ask --as planner --json --timeout 60");
    asking.write("Green?");

    let question = machine.run("read --as coder --json --wait 30").ok().json();
    assert_eq!(question["text"], "Green?");
    let id = question["id"].as_str().unwrap();
    machine.say("no", "send --as coder").ok();
    machine
        .say("Green.", &format!("send --as coder --reply-to {id}"))
        .ok();

    let answer = asking.lines().next().unwrap();
    assert_eq!(answer["text"], "Green.");
    assert_eq!(answer["in_reply_to"], id);
}

#[test]
fn what_is_not_text_arrives_whole() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.two_agents();
    let bytes = [0, 159, 146, 150, 10];
    let file = machine.data().join("payload");
    std::fs::write(&file, bytes).unwrap();

    let send = format!("send --as planner --file {}", file.display());
    machine.run(&send).ok();

    let read = machine.run("read --as coder --json").ok().json();
    assert_eq!(read["payload_base64"], "AJ+Slgo=");
    assert_eq!(read["content_type"], "application/octet-stream");
    assert!(read.get("text").is_none());
}

#[test]
fn an_agent_can_be_added_removed_and_can_leave() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.two_agents();
    let id = |name: &str| {
        let who = machine
            .run(&format!("whoami --as {name} --json"))
            .ok()
            .json();
        who["id"].as_str().unwrap().to_owned()
    };
    let carol = id("carol");

    machine
        .run(&format!("add acme/ops/plan {carol} --as planner"))
        .ok();
    let offered = machine.run("channels --as carol --json").ok().json();
    assert_eq!(offered["state"], "offered");
    assert_eq!(offered["by"], id("planner").as_str());
    let joined = machine.run("accept --as carol").ok();
    assert!(
        joined
            .line()
            .starts_with("joined acme/ops/plan · 3 members")
    );

    machine
        .run(&format!("remove {} --as planner", id("coder")))
        .ok();
    machine.say("without coder", "send --as planner").ok();
    assert_eq!(
        machine.run("read --as carol --json").ok().json()["text"],
        "without coder"
    );
    let members = machine.run("members --as carol --json").ok().json_lines();
    assert_eq!(members.len(), 2);
    let coder = machine.run("read acme/ops/plan --as coder --json");
    assert!(!coder.stdout.contains("without coder"));

    machine.run("leave acme/ops/plan --as carol").ok();
    machine.run("rotate acme/ops/plan --as planner").ok();
    assert_eq!(
        machine
            .run("members --as planner --json")
            .ok()
            .json_lines()
            .len(),
        1
    );
}

#[test]
fn a_send_without_a_relay_leaves_with_the_next_command() {
    let machine = Machine::new();
    let up = machine.up();
    machine.two_agents();
    let (api, relay) = (up.text("api"), up.text("relay"));
    assert_eq!(up.terminate().code, 0);

    let queued = machine.say("later", "send --as planner --timeout 1");
    assert_eq!(queued.code, 5, "{queued:?}");
    assert!(
        queued
            .stderr
            .contains("queued, leaves with the next command")
    );

    let api = api.trim_start_matches("http://");
    let relay = relay.split_once('@').unwrap().1;
    let _up = machine.serve(&format!(
        "up --json --api-addr {api} --relay-addr {relay} --health-addr 127.0.0.1:0 --grpc-addr 127.0.0.1:0"
    ));
    machine.say("now", "send --as planner").ok();
    let read = machine.run("read --as coder --json").ok().json_lines();
    let texts: Vec<&str> = read
        .iter()
        .map(|message| message["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["later", "now"]);
}

#[test]
fn watching_takes_nothing() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.two_agents();
    let mut watching = machine.begin("watch --as coder --json");
    let mut lines = watching.lines();

    machine.say("look", "send --as planner").ok();

    let seen = lines.find(|line| line.get("text").is_some()).unwrap();
    assert_eq!(seen["text"], "look");
    drop(watching);
    assert_eq!(
        machine.run("read --as coder --json").ok().json()["text"],
        "look"
    );
}

#[test]
fn what_was_read_is_kept_only_when_somebody_asked_for_it() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.run("open acme/ops/plan --as planner").ok();
    let invite = machine.run("invite acme/ops/plan --as planner").ok();
    machine
        .run(&format!("join {} --as coder", invite.line()))
        .ok();
    machine.say("before\n", "send --as coder").ok();
    machine.run("read --as planner").ok();
    let empty = machine.run("history --as planner").ok();
    assert_eq!(empty.stdout, "");
    assert!(empty.stderr.contains("--keep"), "{empty:?}");

    let kept = machine.run("history --keep 7d --as planner").ok();
    assert!(kept.stderr.contains("kept for 7d"), "{kept:?}");
    machine.say("question\n", "send --as coder").ok();
    let question = machine.run("read --json --as planner").ok().json();
    machine.say("answer\n", "send --as planner").ok();

    let history = machine.run("history --json --as planner").ok().json_lines();
    assert_eq!(history[0], question);
    assert_eq!(history[1]["text"], "answer");
    assert_eq!(history[1]["label"], "planner");
    assert_eq!(history.len(), 2);
    let seq = &question["seq"];
    let later = machine
        .run(&format!("history --after {seq} --json --as planner"))
        .ok();
    assert_eq!(later.json_lines(), history[1..]);

    machine.run("history --keep none --as planner").ok();
    assert_eq!(machine.run("history --as planner").ok().stdout, "");
    let refused = machine.run("history --keep soon --as planner");
    assert_eq!(refused.code, 2, "{refused:?}");
}
