//! Secrets: not on command lines, not in help, not in logs, not readable by others.

use super::people::{Machine, finish, mode};

#[test]
fn keys_are_saved_for_their_owner_only() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.run("open acme/ops/plan --as planner").ok();

    assert_eq!(mode(&machine.config().join("contexts/local.toml")), 0o600);
    assert_eq!(mode(&machine.config().join("vault.key")), 0o600);
    assert_eq!(mode(&machine.data().join("server")), 0o700);
    assert_eq!(mode(&machine.data().join("agents/planner")), 0o700);
    assert_eq!(mode(&machine.data().join("agents/planner/vault.db")), 0o600);
}

#[test]
fn neither_settings_nor_the_most_talkative_log_show_a_key_or_a_message() {
    let machine = Machine::new();
    let _up = machine.up();
    machine.two_agents();
    let context = std::fs::read_to_string(machine.config().join("contexts/local.toml")).unwrap();
    let key = context
        .lines()
        .find_map(|line| line.strip_prefix("api_key = "))
        .unwrap()
        .trim_matches('"')
        .to_owned();
    let vault_key = std::fs::read_to_string(machine.config().join("vault.key")).unwrap();

    for arguments in [
        "config show",
        "config show --json",
        "context ls",
        "doctor --as planner -vvv",
        "send --as planner -vvv",
        "read --as coder -vvv --json -n 1",
        "whoami --as planner -vvv",
    ] {
        let ran = machine.say("a needle in the haystack", arguments);
        let said = if arguments.starts_with("read") {
            ran.stderr.clone()
        } else {
            format!("{}{}", ran.stdout, ran.stderr)
        };
        assert!(!said.contains(&key), "{arguments}");
        assert!(!said.contains(vault_key.trim()), "{arguments}");
        assert!(!said.contains("needle"), "{arguments}");
        assert!(!said.contains("eyJ"), "a token: {arguments}");
    }
}

#[test]
fn a_key_in_a_file_works_and_one_in_both_places_is_refused() {
    let machine = Machine::new();
    let up = machine.up();
    let other = Machine::new();
    let key = machine.run("keys create ci").ok().line().to_owned();
    let file = machine.config().join("key");
    std::fs::write(&file, format!("{key}\n")).unwrap();
    let usage = format!("usage --json --api-url {}", up.text("api"));

    let mut command = other.command(&usage);
    command.env("SKYTALE_API_KEY_FILE", &file);
    finish(command, "").ok();

    let mut command = other.command(&usage);
    command.env("SKYTALE_API_KEY_FILE", &file);
    command.env("SKYTALE_API_KEY", &key);
    assert_eq!(finish(command, "").code, 2);

    let id = key.split('_').nth(2).unwrap();
    machine.run(&format!("keys revoke {id}")).ok();
    let mut command = other.command(&usage);
    command.env("SKYTALE_API_KEY_FILE", &file);
    assert_eq!(finish(command, "").code, 4);
}
