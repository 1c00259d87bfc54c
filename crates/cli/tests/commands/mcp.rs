//! `mcp`, as clients meet it.

use std::fs;

use serde_json::{Value, json};

use super::people::Machine;
use client::{Client, hello};

pub(crate) mod client;

const PLAN: &str = "acme/ops/plan";

#[test]
fn the_tools_are_those_that_clients_were_told() {
    let machine = Machine::new();
    let mut client = Client::start(&machine, "shop", "");

    let tools = client.ask("tools/list", &json!({}))["result"]["tools"].clone();

    let known: Value = serde_json::from_str(include_str!("mcp/tools.json")).unwrap();
    let shown = serde_json::to_string_pretty(&tools).unwrap();
    assert_eq!(tools, known, "mcp/tools.json should be: {shown}");
    client.hang_up();
    assert!(
        !machine.data().exists(),
        "only a tool that is used makes an agent"
    );
}

#[test]
fn both_generations_of_the_protocol_are_spoken() {
    let machine = Machine::new();

    let mut older = Client::connect(&machine, "shop", "", &[]);
    let hello = older.ask("initialize", &hello("2025-11-25"))["result"].clone();
    assert_eq!(hello["protocolVersion"], "2025-11-25");
    assert_eq!(hello["serverInfo"]["name"], "skytale");
    assert_eq!(
        hello["capabilities"]["experimental"]["claude/channel"],
        json!({})
    );
    assert!(hello["instructions"].as_str().unwrap().contains("as data"));

    let mut newer = Client::connect(&machine, "shop", "", &[]);
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "a test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let found = newer.ask("server/discover", &json!({"_meta": meta}))["result"].clone();
    let versions = found["supportedVersions"].as_array().unwrap();
    for version in ["2025-11-25", "2026-07-28"] {
        assert!(versions.contains(&json!(version)), "{found}");
    }
    let call = json!({"_meta": meta, "name": "whoami", "arguments": {}});
    let answer = newer.ask("tools/call", &call)["result"].clone();
    assert_eq!(answer["resultType"], "complete", "{answer}");
    assert_eq!(
        answer["structuredContent"]["named_by"],
        "the working directory"
    );
    newer.hang_up();
}

#[test]
fn two_agents_talk_through_two_servers() {
    let machine = Machine::new();
    let _up = machine.up();
    let mut shop = Client::start(&machine, "shop", "");
    let mut lab = Client::start(&machine, "lab", "");

    let opened = shop.call("open", &json!({"channel": PLAN})).ok().clone();
    assert_eq!(
        (&opened["channel"], &opened["members"]),
        (&json!(PLAN), &json!(1))
    );
    let invite = shop.call("invite", &json!({"channel": PLAN})).ok().clone();
    let joined = lab
        .call("join", &json!({"invite": invite["invite"]}))
        .ok()
        .clone();
    assert_eq!(joined["members"], 2);
    let sent = lab.call("send", &json!({"channel": PLAN, "text": "ready\n[end"}));
    let sent = sent.ok().clone();
    assert_eq!(sent["stored"], true);

    let received = shop.call("receive", &json!({"channel": PLAN}));
    let (heading, text) = received.messages().remove(0);
    assert_eq!(text, "ready\n[end");
    let lab_is = lab.call("whoami", &json!({})).ok().clone();
    assert_eq!(heading["sender"], lab_is["id"]);
    assert_eq!(heading["label"], lab_is["agent"]);
    assert_eq!(heading["verified"], true);
    assert_eq!(
        (&heading["id"], &heading["seq"]),
        (&sent["id"], &sent["seq"])
    );
    assert_eq!(heading["channel"], PLAN);
    let reply = json!({"channel": PLAN, "text": "go", "reply_to": heading["id"]});
    shop.call("send", &reply).ok();
    let (heading, text) = lab
        .call("receive", &json!({"channel": PLAN}))
        .messages()
        .remove(0);
    assert_eq!(
        (text.as_str(), &heading["in_reply_to"]),
        ("go", &sent["id"])
    );

    let members = shop.call("members", &json!({"channel": PLAN})).ok().clone();
    assert_eq!(members["members"].as_array().unwrap().len(), 2);
    let remove = json!({"channel": PLAN, "agent": lab_is["id"]});
    shop.call("remove", &remove).ok();
    let listed = shop.call("channels", &json!({})).ok().clone();
    assert_eq!(listed["channels"][0]["members"], 1, "{listed}");
}

#[test]
fn the_agent_is_the_directorys_and_the_same_after_a_restart() {
    let machine = Machine::new();
    let who = |dir: &str, arguments: &str| {
        let mut client = Client::start(&machine, dir, arguments);
        let who = client.call("whoami", &json!({})).ok().clone();
        client.hang_up();
        who
    };

    let (first, again) = (who("shop", ""), who("shop", ""));
    let other = who("elsewhere/shop", "");
    let named = who("shop", "--as planner");

    assert_eq!(
        (&first["agent"], &first["id"]),
        (&again["agent"], &again["id"])
    );
    assert!(
        first["agent"].as_str().unwrap().starts_with("shop-"),
        "{first}"
    );
    assert_ne!(first["agent"], other["agent"]);
    assert_eq!(
        (&named["agent"], &named["named_by"]),
        (&json!("planner"), &json!("--as"))
    );
    // The command line knows it by this name.
    let name = first["agent"].as_str().unwrap();
    let known = machine.run(&format!("whoami --as {name} --json")).ok();
    assert_eq!(known.json()["id"], first["id"]);
}

#[test]
fn a_receive_that_waits_ends_with_the_message() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.two_agents();
    let mut coder = Client::start(&machine, "shop", "--as coder");
    coder.call("channels", &json!({})).ok();

    // The patience of this test is shorter than that wait.
    let waiting = coder.begin_call("receive", &json!({"channel": PLAN, "wait_seconds": 50}));
    machine.say("now", "send --as planner").ok();

    assert_eq!(coder.answer_of(waiting).said(), ["now"]);
}

#[test]
fn a_message_is_read_when_more_is_asked_for_and_a_crash_shows_it_again() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.two_agents();
    machine.say("one", "send --as planner").ok();
    let receive = json!({"channel": PLAN, "wait_seconds": 0});
    let mut coder = Client::start(&machine, "shop", "--as coder");
    let before = coder.call("receive", &json!({"channel": PLAN})).messages();
    // Killed, as by a power cut.
    drop(coder);

    let mut coder = Client::start(&machine, "shop", "--as coder");
    let after = coder.call("receive", &json!({"channel": PLAN})).messages();
    assert_eq!(before, after);
    assert!(coder.call("receive", &receive).said().is_empty());
    drop(coder);

    let mut coder = Client::start(&machine, "shop", "--as coder");
    let none = coder.call("receive", &receive);
    assert!(none.texts()[0].contains("No new message"), "{none:?}");
}

#[test]
fn an_answer_that_was_given_up_comes_again() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.two_agents();
    let mut coder = Client::start(&machine, "shop", "--as coder");
    coder.call("channels", &json!({})).ok();
    let receive = json!({"channel": PLAN, "wait_seconds": 50});

    let vain = coder.begin_call("receive", &receive);
    coder.give_up(vain);
    machine.say("one", "send --as planner").ok();
    assert_eq!(coder.call("receive", &receive).said(), ["one"]);

    machine.say("two", "send --as planner").ok();
    let crossed = coder.begin_call("receive", &receive);
    assert_eq!(coder.answer_of(crossed).said(), ["two"]);
    // The client had lost its patience when the answer was on its way.
    coder.give_up(crossed);
    let again = json!({"channel": PLAN, "wait_seconds": 0});
    assert_eq!(coder.call("receive", &again).said(), ["two"]);
    assert!(coder.call("receive", &again).said().is_empty());
}

#[test]
fn what_does_not_fit_into_a_portion_comes_with_the_next() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.two_agents();
    for number in 0..3 {
        machine.say(&number.to_string(), "send --as planner").ok();
    }
    let mut coder = Client::start(&machine, "shop", "--as coder");

    let first = coder.call("receive", &json!({"channel": PLAN, "most": 2}));
    assert_eq!(first.said(), ["0", "1"]);
    assert!(first.texts()[0].contains("1 more wait"), "{first:?}");
    let second = coder.call("receive", &json!({"channel": PLAN, "most": 2}));
    assert_eq!(second.said(), ["2"]);
    // What was asked for last is not read yet.
    coder.hang_up();
    let left = machine.run("read --as coder --json").ok().json_lines();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["text"], "2");
}

#[test]
fn another_process_of_the_agent_may_hold_the_line() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.two_agents();
    let mut first = Client::start(&machine, "shop", "--as coder");
    first.call("channels", &json!({})).ok();
    let mut second = Client::start(&machine, "shop", "--as coder");

    let who = second.call("whoami", &json!({})).ok().clone();
    assert_eq!(who["line"], "held by another process of this agent");
    second
        .call("send", &json!({"channel": PLAN, "text": "hello"}))
        .ok();
    assert_eq!(
        machine.run("read --as planner --json").ok().json()["text"],
        "hello"
    );
    machine.say("back", "send --as planner").ok();
    assert_eq!(
        second.call("receive", &json!({"channel": PLAN})).said(),
        ["back"]
    );
}

#[test]
fn a_mistake_is_answered_by_a_sentence_that_names_the_next_step() {
    let machine = Machine::new();
    let up = machine.up();
    machine.two_agents();
    let invite = machine.run("invite --as planner").ok().line().to_owned();
    machine.run(&format!("join {invite} --as carol")).ok();
    let mut coder = Client::start(&machine, "shop", "--as coder");

    for (tool, arguments, code, hint) in [
        ("open", json!({}), "misuse", "`channel`"),
        ("open", json!({"channel": "plan"}), "misuse", "three parts"),
        (
            "open",
            json!({"channel": PLAN, "wait": 1}),
            "misuse",
            "`wait`",
        ),
        (
            "send",
            json!({"channel": "acme/ops/other", "text": "x"}),
            "not_found",
            "channels",
        ),
        (
            "send",
            json!({"channel": PLAN, "text": "x", "reply_to": "1"}),
            "misuse",
            "reply_to",
        ),
        (
            "send",
            json!({"channel": PLAN, "text": "x".repeat(262_145)}),
            "misuse",
            "262144",
        ),
        (
            "receive",
            json!({"channel": PLAN, "wait_seconds": "5"}),
            "misuse",
            "receive",
        ),
        ("join", json!({"invite": "hello"}), "misuse", ""),
        (
            "remove",
            json!({"channel": PLAN, "agent": "coder"}),
            "misuse",
            "members",
        ),
        (
            "invite",
            json!({"channel": PLAN, "uses": 0}),
            "misuse",
            "at least one",
        ),
    ] {
        let said = coder.call(tool, &arguments).wrong();
        assert!(said.starts_with(&format!("{code}: ")), "{tool}: {said}");
        assert!(said.contains(hint), "{tool}: {said}");
    }
    let mut late = Client::start(&machine, "shop", "--as late");
    let said = late.call("join", &json!({"invite": invite})).wrong();
    assert!(said.starts_with("invite_used: "), "{said}");
    late.hang_up();
    // There is no tool to answer for itself.
    let unknown = coder.ask("tools/call", &json!({"name": "leave", "arguments": {}}));
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");

    assert_eq!(up.terminate().code, 0);
    let mut dana = Client::start(&machine, "shop", "--as dana");
    let said = dana
        .call("open", &json!({"channel": "acme/ops/new"}))
        .wrong();
    assert!(said.contains("`skytale up`"), "{said}");
    dana.call("whoami", &json!({})).ok();
}

#[test]
fn no_answer_and_no_log_holds_a_secret() {
    let machine = Machine::new();
    let _up = machine.up();
    let context = fs::read_to_string(machine.config().join("contexts/local.toml")).unwrap();
    let api_key = context
        .lines()
        .find_map(|line| line.strip_prefix("api_key = "))
        .unwrap()
        .trim_matches('"');
    let filter = "info,rmcp=trace,skytale=trace,skytale_sdk=trace,skytale_agent=trace";
    let loud = [("SKYTALE_LOG", filter)];
    let mut shop = Client::start_with(&machine, "shop", "", &loud);
    let mut lab = Client::start_with(&machine, "lab", "", &loud);

    let mut answers = vec![shop.call("open", &json!({"channel": PLAN})).texts()];
    let invite = shop.call("invite", &json!({"channel": PLAN})).ok()["invite"].clone();
    let invite = invite.as_str().unwrap();
    for (tool, arguments) in [
        ("join", json!({"invite": invite})),
        ("join", json!({"invite": format!("{invite}x")})),
        ("send", json!({"channel": PLAN, "text": "a needle"})),
    ] {
        answers.push(lab.call(tool, &arguments).texts());
    }
    for (tool, arguments) in [
        ("whoami", json!({})),
        ("channels", json!({})),
        ("members", json!({"channel": PLAN})),
    ] {
        answers.push(shop.call(tool, &arguments).texts());
    }
    assert_eq!(
        shop.call("receive", &json!({"channel": PLAN})).said(),
        ["a needle"]
    );

    let vault_key = fs::read_to_string(machine.config().join("vault.key")).unwrap();
    let logs = [shop.hang_up(), lab.hang_up()].concat();
    let everything = format!("{}{logs}", answers.concat().concat());
    for secret in [api_key, vault_key.trim(), "skt_inv_", "eyJ", "needle"] {
        assert!(!everything.contains(secret), "{secret}");
    }
    assert!(
        !logs.is_empty(),
        "nothing was logged that could have been wrong"
    );
}

#[test]
fn an_idle_client_is_told_of_messages_of_those_who_may_wake_it() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.two_agents();
    let invite = machine.run("invite --as planner").ok();
    machine
        .run(&format!("join {} --as carol", invite.line()))
        .ok();
    let planner = machine.run("whoami --as planner --json").ok().json()["id"].clone();
    let planner = planner.as_str().unwrap();
    let mut coder = Client::start(
        &machine,
        "shop",
        &format!("--as coder --wake-from {planner}"),
    );
    let mut shut = Client::start(&machine, "shop", "--as carol");
    shut.call("channels", &json!({})).ok();

    machine.say("obey me", "send --as carol").ok();
    machine.say("the build is red", "send --as planner").ok();

    let notice = coder.told("notifications/claude/channel");
    assert_eq!(notice["meta"]["sender"], planner);
    assert_eq!(notice["meta"]["label"], "planner");
    assert_eq!(notice["meta"]["count"], "1", "{notice}");
    assert_eq!(notice["meta"]["channel"], PLAN);
    let shown = notice.to_string();
    assert!(
        !shown.contains("obey") && !shown.contains("build"),
        "{shown}"
    );
    let received = coder.call("receive", &json!({"channel": PLAN}));
    assert_eq!(received.said(), ["obey me", "the build is red"]);
    // What came with a call is told by no notice, nor does anybody hear who has named nobody.
    machine.say("and green", "send --as planner").ok();
    assert_eq!(
        coder.told("notifications/claude/channel")["meta"]["seq"],
        coder.call("receive", &json!({"channel": PLAN})).messages()[0].0["seq"]
            .as_u64()
            .unwrap()
            .to_string()
    );
    assert_eq!(coder.unasked(), Vec::<Value>::new());
    shut.call("receive", &json!({"channel": PLAN})).said();
    assert_eq!(shut.unasked(), Vec::<Value>::new());
}

#[test]
fn an_idle_client_is_told_only_so_often() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.two_agents();
    let arguments = "--as coder --wake-from planner --per-hour 1";
    let mut coder = Client::start(&machine, "shop", arguments);
    machine.say("one", "send --as planner").ok();
    coder.told("notifications/claude/channel");
    machine.say("two", "send --as planner").ok();

    let complaint = coder.complaint("--per-hour");

    assert!(complaint.contains("wait_s=3"), "{complaint}");
    assert_eq!(coder.unasked(), Vec::<Value>::new());
    // Starting it again gives no more of them, and what waits is there to be read.
    drop(coder);
    let mut coder = Client::start(&machine, "shop", arguments);
    coder.complaint("--per-hour");
    let received = coder.call("receive", &json!({"channel": PLAN}));
    assert_eq!(received.said(), ["one", "two"]);
    assert_eq!(coder.unasked(), Vec::<Value>::new());
}
