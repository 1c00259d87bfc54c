//! `skytale mcp` with the protocol's published Python package, in both its generations.
//!
//! The environments come from `tests/slim/environment.py`; what the client does stands in
//! `tests/mcp/client.py`.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::{fs, process::Command};

use serde_json::Value;
use skytale_tests::{
    processes::{Machine, program},
    slim::python,
};

#[test]
fn the_first_generation_of_the_python_package_talks_through_our_servers() {
    meets("mcp-1.30.0", "2025-11-25");
}

#[test]
fn the_second_generation_of_the_python_package_talks_through_our_servers() {
    meets("mcp-2.3.0", "2025-11-25");
    meets("mcp-2.3.0", "2026-07-28");
}

/// Two agents of this package talk by this version of the protocol.
#[track_caller]
fn meets(package: &str, version: &str) {
    let machine = Machine::new();
    let _up = machine.up(None);
    let (shop, lab) = (machine.data().join("shop"), machine.data().join("lab"));
    for dir in [&shop, &lab] {
        fs::create_dir(dir).unwrap();
    }
    let script = skytale_tests::here().join("mcp/client.py");

    let ran = Command::new(python(package))
        .arg(script)
        .args([version.as_ref(), program().as_os_str()])
        .args([&shop, &lab])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SKYTALE_DATA_DIR", machine.data())
        .env("SKYTALE_CONFIG_DIR", machine.config())
        // This test is about other things than what a line looks like.
        .env("SKYTALE_TRAFFIC", "padded")
        .output()
        .unwrap();

    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    let found: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(found["protocol"], version);
    assert_eq!(found["tools"].as_array().unwrap().len(), 9, "{found}");
    assert_eq!(found["members"], 2);
    assert_eq!(found["heading"]["channel"], "acme/ops/plan", "{found}");
    assert_eq!(found["heading"]["verified"], true);
    let received = found["received"].as_str().unwrap();
    assert!(received.contains("\nGrüße\nfrom the lab\n"), "{received}");
    let wrong = found["wrong"].as_str().unwrap();
    assert!(wrong.starts_with("not_found: "), "{wrong}");
}
