//! Backup and restore: with servers that run, messages that are said, and processes that are killed.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::people::{Machine, Ran, Server, mode};

/// Servers on `data` under the addresses that they had before: agents come to them there.
fn again(machine: &Machine, before: &Value, data: &Path) -> Server {
    let addr = |field: &str| {
        let text = before[field].as_str().unwrap();
        let text = text.rsplit_once('@').map_or(text, |(_, addr)| addr);
        text.trim_start_matches("http://").to_owned()
    };
    let arguments = format!(
        "up --json --api-addr {} --relay-addr {} --health-addr {} --grpc-addr {} --data-dir {}",
        addr("api"),
        addr("relay"),
        addr("health"),
        addr("slim"),
        data.display()
    );
    machine.serve(&arguments)
}

fn file(machine: &Machine) -> PathBuf {
    machine.data().join("skytale.backup")
}

fn backup(machine: &Machine, flags: &str) -> Ran {
    machine.run(&format!("backup {} --json{flags}", file(machine).display()))
}

fn restore(machine: &Machine, to: &Path, flags: &str) -> Ran {
    let from = file(machine);
    machine.run(&format!(
        "restore {} --json --data-dir {}{flags}",
        from.display(),
        to.display()
    ))
}

fn parts(ran: &Ran) -> Vec<(String, u64)> {
    let done = ran.json();
    let parts = done["parts"].as_array().unwrap();
    let part = |it: &Value| {
        (
            it["name"].as_str().unwrap().to_owned(),
            it["bytes"].as_u64().unwrap(),
        )
    };
    parts.iter().map(part).collect()
}

#[test]
fn what_was_backed_up_while_the_servers_ran_goes_on_elsewhere() {
    let machine = Machine::new();
    let up = machine.up();
    machine.two_agents();
    for text in ["one", "two", "three"] {
        machine.say(text, "send acme/ops/plan --as coder").ok();
    }
    machine.run("keys create ci").ok();
    let keys = machine.run("keys list --json").ok().json_lines();

    let made = backup(&machine, "").ok();

    let names: Vec<String> = parts(&made).into_iter().map(|(name, _)| name).collect();
    let expected = [
        "about",
        "keys/signing.key",
        "local-key",
        "relay/relay.key",
        "api.db",
        "relay/archive.rows",
    ];
    assert_eq!(names, expected);
    assert_eq!(mode(&file(&machine)), 0o600);
    let beside = fs::read_dir(machine.data())
        .unwrap()
        .map(|it| it.unwrap().file_name());
    let left: Vec<_> = beside
        .filter(|name| name.to_string_lossy().contains("partial"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // A signing key is in it, so it is not in what is printed.
    let secret = fs::read_to_string(machine.data().join("server/keys/signing.key")).unwrap();
    assert!(!made.stdout.contains(&secret) && !made.stderr.contains(&secret));

    let elsewhere = machine.data().join("elsewhere");
    let restored = restore(&machine, &elsewhere, "").ok();
    assert_eq!(parts(&restored), parts(&made));
    let before = up.json();
    // The old ones are gone for good.
    up.kill();
    fs::remove_dir_all(machine.data().join("server")).unwrap();
    let up = again(&machine, &before, &elsewhere);

    assert_eq!(up.json()["relay"], before["relay"]);
    assert_eq!(
        machine.run("keys list --json").ok().json_lines().len(),
        keys.len()
    );
    machine.say("four", "send acme/ops/plan --as coder").ok();
    let read = machine
        .run("read acme/ops/plan --as planner --json --wait 20 -n 4")
        .ok();
    let read = read.json_lines();
    let texts: Vec<_> = read.iter().map(|it| it["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["one", "two", "three", "four"]);
    let seqs: Vec<_> = read.iter().map(|it| it["seq"].as_u64().unwrap()).collect();
    assert!(seqs.windows(2).all(|two| two[0] + 1 == two[1]), "{seqs:?}");
}

#[test]
fn a_backup_of_stopped_servers_is_the_same_as_of_running_ones() {
    let machine = Machine::new();
    let up = machine.up();
    machine.two_agents();
    machine.say("one", "send acme/ops/plan --as coder").ok();
    let rows = |ran: &Ran| {
        parts(ran)
            .into_iter()
            .find(|(name, _)| name == "relay/archive.rows")
    };

    let running = backup(&machine, "").ok();
    up.kill();
    let stopped = backup(&machine, " --force").ok();

    assert_eq!(rows(&running), rows(&stopped));
    assert!(rows(&running).unwrap().1 > 1_000);
}

#[test]
fn nothing_is_overwritten_unless_it_was_asked_for() {
    let machine = Machine::new();
    let nothing = backup(&machine, "");
    assert_eq!(nothing.code, 3, "{nothing:?}");
    let up = machine.up();
    backup(&machine, "").ok();
    let first = fs::read(file(&machine)).unwrap();

    let again = backup(&machine, "");
    assert_eq!(again.code, 2, "{again:?}");
    assert!(again.stderr.contains("--force"), "{again:?}");
    assert_eq!(fs::read(file(&machine)).unwrap(), first);
    backup(&machine, " --force").ok();

    let in_use = restore(&machine, &machine.data(), "");
    assert_eq!(in_use.code, 2, "{in_use:?}");
    up.kill();
    let in_use = restore(&machine, &machine.data(), "");
    assert_eq!(in_use.code, 2, "not empty: {in_use:?}");
    machine
        .run(&format!("restore {} --check", file(&machine).display()))
        .ok();
}

#[test]
fn a_damaged_backup_changes_nothing() {
    let machine = Machine::new();
    let up = machine.up();
    backup(&machine, "").ok();
    up.kill();
    let whole = fs::read(file(&machine)).unwrap();
    let elsewhere = machine.data().join("elsewhere");

    for at in [0, 20, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(file(&machine), damaged).unwrap();
        let refused = restore(&machine, &elsewhere, "");
        assert_eq!(refused.code, 1, "{at}: {refused:?}");
        let checked = restore(&machine, &elsewhere, " --check");
        assert_eq!(checked.code, 1, "{at}: {checked:?}");
        let left = fs::read_dir(&elsewhere).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{at}");
    }
    fs::write(file(&machine), &whole[..whole.len() - 5]).unwrap();
    assert_eq!(restore(&machine, &elsewhere, "").code, 1);
    fs::write(file(&machine), whole).unwrap();
    restore(&machine, &elsewhere, "").ok();
}

#[test]
fn a_backup_and_a_restore_that_are_killed_are_done_again() {
    let machine = Machine::new();
    let up = machine.up();
    machine.two_agents();
    machine.say("one", "send acme/ops/plan --as coder").ok();

    // Each is killed as soon as it has said so many lines.
    for lines in 1..=2 {
        let begin = format!("backup {} --json", file(&machine).display());
        killed_after(&machine, &begin, lines);
        // Not there, or whole when it was too quick to be killed.
        if file(&machine).exists() {
            restore(&machine, &machine.data(), " --check").ok();
            fs::remove_file(file(&machine)).unwrap();
        }
    }
    let made = backup(&machine, "").ok();
    up.kill();

    let elsewhere = machine.data().join("elsewhere");
    for lines in 1..=5 {
        let begin = format!(
            "restore {} --json --data-dir {}",
            file(&machine).display(),
            elsewhere.display()
        );
        killed_after(&machine, &begin, lines);
        if elsewhere.join("server").exists() {
            assert!(lines == 5 && elsewhere.join("server/relay/archive.fjall").exists());
            fs::remove_dir_all(elsewhere.join("server")).unwrap();
        }
    }
    let restored = restore(&machine, &elsewhere, "").ok();
    assert_eq!(parts(&restored), parts(&made));
    let left: Vec<_> = fs::read_dir(&elsewhere)
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, ["server"]);
    assert_eq!(mode(&elsewhere.join("server")), 0o700);
    assert_eq!(mode(&elsewhere.join("server/api.db")), 0o600);
    assert_eq!(mode(&elsewhere.join("server/relay/relay.key")), 0o600);
}

fn killed_after(machine: &Machine, arguments: &str, lines: usize) {
    let mut child = machine.command(arguments).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    for _ in 0..lines {
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "it has ended already");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
