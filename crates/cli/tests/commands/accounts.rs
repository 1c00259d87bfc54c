//! An account's keys, agents, password and end; and the key that signs tokens.

use super::people::{Machine, Ran, finish};

/// Signed up at the machine's own servers, in a context of its own.
fn alice(machine: &Machine, api: &str) -> String {
    let credentials = format!("--api-url {api} --email alice@example.org --password-stdin");
    let signed_up = format!("signup --name Alice --context theirs {credentials}");
    machine.say("correct horse battery\n", &signed_up).ok();
    credentials
}

#[test]
fn a_key_is_made_for_one_thing_and_for_a_time() {
    let machine = Machine::new();
    let _up = machine.up();

    let wish = "keys create ci --scope relay --scope slim --expires 90d --json";
    let made = machine.run(wish).ok().json();

    assert_eq!(made["scopes"], serde_json::json!(["relay", "slim"]));
    assert!(made["expires_at"].is_string());
    let listed = machine.run("keys list").ok().stdout;
    assert!(listed.contains("relay slim") && listed.contains("relay slim account keys"));
    let with_it = |arguments: &str| {
        let mut command = machine.command(arguments);
        command.env("SKYTALE_API_KEY", made["key"].as_str().unwrap());
        finish(command, "")
    };
    with_it("open acme/ops/plan --as planner").ok();
    assert_eq!(with_it("usage").code, 4, "it may not read the account");
    for bad in ["admin", "relay,slim", ""] {
        let refused = machine.run(&format!("keys create x --scope {bad}"));
        assert_eq!(refused.code, 2, "{bad:?} {refused:?}");
    }
}

#[test]
fn a_context_changes_its_key_and_goes_on() {
    let machine = Machine::new();
    let _up = machine.up();
    let before = machine.run("keys list --json").ok().json_lines();

    let rotated = machine.run("keys rotate --json").ok().json();

    assert_eq!(rotated["old_key_id"], before[0]["id"]);
    assert!(rotated.get("key").is_none(), "it is saved and not printed");
    let after = machine.run("keys list --json").ok().json_lines();
    assert_eq!(after.len(), 2);
    assert!(after[0]["revoked_at"].is_string());
    assert_eq!(after[1]["id"], rotated["key_id"]);
    machine.run("open acme/ops/plan --as planner").ok();
    let other = machine.run("keys create ci --json").ok().json();
    let id = other["id"].as_str().unwrap();
    let new = machine.run(&format!("keys rotate {id} --overlap 1h")).ok();
    assert!(new.line().starts_with("sk_live_"), "{new:?}");
    let still = machine.run("keys list --json").ok().json_lines();
    assert!(still[2]["revoked_at"].is_null() && still[2]["expires_at"].is_string());
}

#[test]
fn an_agent_is_shut_out_and_let_in_again() {
    let machine = Machine::new();
    let up = machine.up();
    machine.two_agents();
    let coder = machine.run("whoami --as coder --json").ok().json();
    let id = coder["id"].as_str().unwrap();
    let listed = machine.run("agents list --json").ok().json_lines();
    assert_eq!(listed.len(), 2);

    machine.run(&format!("agents disable {id}")).ok();

    let refused = machine.say("hello\n", "send acme/ops/plan --as coder --timeout 20");
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("shut out"), "{refused:?}");
    machine
        .say("hello\n", "send acme/ops/plan --as planner")
        .ok();
    machine.run(&format!("agents enable {id}")).ok();
    // Tokens count whole seconds: one of the second in which it was shut out does not count.
    let back = || machine.say("back\n", "send acme/ops/plan --as coder --timeout 20");
    assert!((0..100).any(|_| back().code == 0), "{:?}", back());
    alice(&machine, &up.text("api"));
    let theirs = machine.run(&format!("agents disable {id} --context theirs"));
    assert_eq!(theirs.code, 3, "{theirs:?}");
}

#[test]
fn a_password_is_changed_and_an_account_deleted_by_whoever_knows_it() {
    let machine = Machine::new();
    let up = machine.up();
    let credentials = alice(&machine, &up.text("api"));
    let with_new = |arguments: &str, old: &str, new: &str| -> Ran {
        let mut command = machine.command(&format!("{arguments} {credentials}"));
        command.env("SKYTALE_NEW_PASSWORD", new);
        finish(command, old)
    };

    let wrong = with_new("account password", "a guess of it\n", "staple battery\n");
    assert_eq!(wrong.code, 4, "{wrong:?}");
    with_new(
        "account password",
        "correct horse battery\n",
        "staple battery",
    )
    .ok();
    let old = machine.say(
        "correct horse battery\n",
        &format!("login --context again {credentials}"),
    );
    assert_eq!(old.code, 4, "{old:?}");
    machine.run("whoami --context theirs --json").ok();

    let unasked = machine.say("staple battery\n", &format!("account delete {credentials}"));
    assert_eq!(unasked.code, 2, "{unasked:?}");
    assert!(unasked.stderr.contains("--yes"), "{unasked:?}");
    machine
        .say(
            "staple battery\n",
            &format!("account delete --yes {credentials}"),
        )
        .ok();

    let gone = machine.run("usage --context theirs");
    assert_eq!(gone.code, 4, "{gone:?}");
}

#[test]
fn who_holds_the_database_gives_an_account_another_password() {
    let machine = Machine::new();
    let reset = |whose: &str, new: &str| {
        let mut command = machine.command(format!("api reset-password {whose}").trim_end());
        command.env("SKYTALE_NEW_PASSWORD", new);
        finish(command, "")
    };
    let nothing = reset("", "staple battery");
    assert_eq!(nothing.code, 3, "{nothing:?}");
    assert!(nothing.stderr.contains("--data-dir"), "{nothing:?}");
    let up = machine.up();
    let api = up.text("api");
    let credentials = alice(&machine, &api);
    let sign_in = |who: &str, password: &str| {
        let login = format!("login --api-url {api} --context again --email {who} --password-stdin");
        machine.say(password, &login)
    };
    // Nothing is what its hash is of.
    for guess in ["\n", "local\n"] {
        let refused = sign_in("local", guess);
        assert_ne!(refused.code, 0, "{refused:?}");
    }

    reset("", "staple battery").ok();
    reset("alice@example.org", "another battery").ok();

    sign_in("local", "staple battery\n").ok();
    let who = machine.run("whoami --context again --json").ok().json();
    assert_eq!(who["email"], "local");
    machine.run("open acme/ops/plan --as planner").ok();
    sign_in("alice@example.org", "another battery\n").ok();
    let old = machine.say(
        "correct horse battery\n",
        &format!("login --context third {credentials}"),
    );
    assert_eq!(old.code, 4, "{old:?}");
    for (whose, new) in [("bob@example.org", "staple battery"), ("", "short")] {
        let refused = reset(whose, new);
        assert_eq!(refused.code, 2, "{refused:?}");
    }
}

#[test]
fn the_signing_key_is_rotated_beside_a_server_that_runs() {
    let machine = Machine::new();
    let nothing = machine.run("api rotate-signing-key");
    assert_eq!(nothing.code, 2, "{nothing:?}");
    assert!(nothing.stderr.contains("--data-dir"), "{nothing:?}");
    let up = machine.up();
    machine.run("open acme/ops/plan --as planner").ok();

    let rotated = machine.run("api rotate-signing-key --json").ok().json();
    let twice = machine.run("api rotate-signing-key");

    assert_eq!(twice.code, 2, "{twice:?}");
    assert!(rotated["kid"].is_string() && rotated["old_counts_until"].is_string());
    let stolen = machine
        .run("api rotate-signing-key --at-once --json")
        .ok()
        .json();
    assert_ne!(stolen["kid"], rotated["kid"]);
    up.terminate();
    let _again = machine.up();
    machine.run("open acme/ops/plan --as planner").ok();
}
