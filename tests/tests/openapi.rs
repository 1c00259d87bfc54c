//! The description of the API server, and the server itself, in the hands of a program that makes up
//! requests from it: schemathesis, from the package index.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::process::Command;

use serde_json::Value;
use skytale_tests::{processes::Machine, slim::python};

/// Requests as described and requests that are wrong in one place, by a key that may do everything:
/// no answer may be a 500, none may have a status, a type or a body that is not described, and what is
/// wrong must be refused.
#[test]
fn requests_made_up_from_the_description_are_answered_as_described() {
    let machine = Machine::new();
    let up = machine.up(None);
    let made = machine.run("keys create probe --json");
    let key: Value = made.json();
    let key = key["key"].as_str().unwrap();

    let ran = Command::new(python("schemathesis"))
        .args(["-m", "schemathesis.cli", "run"])
        .arg(format!("{}/openapi.json", up.text("api")))
        .args(["--header", &format!("Authorization: Bearer {key}")])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", "30", "--no-color"])
        .arg("--generation-deterministic")
        .args([
            "--exclude-checks",
            "positive_data_acceptance,missing_required_header,ignored_auth",
        ])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(machine.data())
        .output()
        .unwrap();

    let said = String::from_utf8_lossy(&ran.stdout);
    let why = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}{why}");
    assert!(!said.contains("No tests were run"), "{said}");
}
