//! The table of `--help`: each exit code, reached by a command that deserves it.

use super::people::{Machine, finish};

#[test]
fn the_command_line_itself_is_wrong() {
    let machine = Machine::new();
    for wrong in [
        "open",
        "open acme/../plan --as planner",
        "open just-one-part --as planner",
        "open acme/ops/plan --as ../planner",
        "send --as planner --timeout -1",
        "read --nonsense",
        "add acme/ops/plan --as planner",
        "keys revoke",
        "seen acme/ops/plan",
        "join nonsense --as coder",
        "usage",
        "send hook --nonsense",
    ] {
        let ran = machine.run(wrong);
        assert_eq!(ran.code, 2, "{wrong}: {ran:?}");
        assert_eq!(ran.stdout, "", "{wrong}");
        assert!(!ran.stderr.is_empty(), "{wrong}");
    }
    let long = format!("open a/b/{} --as planner", "c".repeat(256));
    assert_eq!(machine.run(&long).code, 2);
}

#[test]
fn what_is_not_there_is_not_found() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.run("open acme/ops/plan --as planner").ok();

    for missing in [
        "read acme/ops/other",
        "words acme/ops/other",
        "accept",
        "context use nowhere",
        "keys revoke 00000000",
        "channels --context nowhere",
        "seen 0000000000000000000000000000000000000000000000000000000000000000",
    ] {
        let ran = machine.run(missing);
        assert_eq!(ran.code, 3, "{missing}: {ran:?}");
    }
}

#[test]
fn an_invite_says_whether_it_was_used_or_altered() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.run("open acme/ops/plan --as planner").ok();
    let invite = machine.run("invite --as planner").ok();
    let line = invite.line();

    let altered = line.get(..line.len() - 4).unwrap();
    let cut = machine.run(&format!("join {altered} --as coder --json"));
    assert!(matches!(cut.code, 2 | 4), "{cut:?}");
    machine.run(&format!("join {line} --as coder")).ok();

    let used = machine.run(&format!("join {line} --as carol --json"));
    assert_eq!(used.code, 4, "{used:?}");
    let error: serde_json::Value =
        serde_json::from_str(used.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "invite_used");
    assert_eq!(error["error"]["exit"], 4);
}

#[test]
fn servers_that_are_away_are_unreachable() {
    let machine = Machine::new();
    let mut command = machine.command("usage --api-url http://127.0.0.1:1");
    command.env("SKYTALE_API_KEY", "sk_test_nobody");

    let ran = finish(command, "");

    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(!ran.stderr.contains("sk_test"), "{ran:?}");
}

#[test]
fn policy_and_limits_have_their_own_code() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.two_agents();
    let planner = machine.run("whoami --as planner --json").ok().json();

    let mutiny = machine.run(&format!(
        "remove {} --as coder",
        planner["id"].as_str().unwrap()
    ));
    assert_eq!(mutiny.code, 6, "{mutiny:?}");

    let long = machine.say(&"x".repeat(262_145), "send --as coder");
    assert_eq!(long.code, 6, "{long:?}");
    assert!(long.stderr.contains("262144"), "{long:?}");
}

#[test]
fn waiting_for_nothing_ends_with_the_code_of_timeouts() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.two_agents();

    let ran = machine.say("anybody?", "ask --as planner --timeout 1");

    assert_eq!(ran.code, 124, "{ran:?}");
}

#[test]
fn a_damaged_vault_is_left_alone() {
    let machine = Machine::new();
    machine.run("whoami --as planner").ok();
    let vault = machine.data().join("agents/planner/vault.db");
    std::fs::write(&vault, [0x5A; 9000]).unwrap();

    let ran = machine.run("channels");

    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(std::fs::read(&vault).unwrap(), [0x5A; 9000]);
}
