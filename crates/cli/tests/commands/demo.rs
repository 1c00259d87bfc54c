//! `skytale demo` keeps its promises and leaves nothing behind.

use super::people::{Machine, finish};

#[test]
fn every_check_of_the_demo_passes() {
    let machine = Machine::new();
    let temporary = tempfile::tempdir().unwrap();
    let mut command = machine.command("demo --json");
    command.env("TMPDIR", temporary.path());
    // `kill` is found by way of the shell.
    command.env("PATH", std::env::var_os("PATH").unwrap());

    let ran = finish(command, "");

    let report = ran.json();
    let failed: Vec<_> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["ok"] != true)
        .collect();
    assert!(failed.is_empty(), "{failed:#?}\n{}", ran.stderr);
    assert_eq!((ran.code, report["ok"].as_bool()), (0, Some(true)));
    assert!(report["checks"].as_array().unwrap().len() >= 20);
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
    assert!(!machine.data().exists() && !machine.config().exists());
}
