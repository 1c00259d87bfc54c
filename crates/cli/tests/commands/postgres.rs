//! API servers on a Postgres database: moving there, what is refused, and the password.

use super::{
    cluster::{Cluster, Database, PASSWORD},
    people::{Machine, Ran, Server, finish},
};

/// A command that is told of the database as an operator tells it: by a file.
fn told(machine: &Machine, database: &Database, arguments: &str) -> Ran {
    let file = machine.data().join("url");
    std::fs::create_dir_all(machine.data()).unwrap();
    std::fs::write(&file, &database.url).unwrap();
    let mut command = machine.command(arguments);
    command.env("SKYTALE_DATABASE_URL_FILE", file);
    finish(command, "")
}

/// `up` on the database, by the socket, which asks for no password.
fn up(machine: &Machine, database: &Database) -> Server {
    let url = &database.socket_url;
    machine.serve(&format!(
        "up --json --api-addr 127.0.0.1:0 --relay-addr 127.0.0.1:0 --health-addr 127.0.0.1:0 \
         --grpc-addr 127.0.0.1:0 --no-migrate --database-url {url}"
    ))
}

#[test]
fn a_server_moves_from_its_file_to_postgres_and_its_keys_go_on() {
    let machine = Machine::new();
    let database = Cluster::shared().database();
    let data = machine.data();
    let source = data.to_str().unwrap();
    let transfer = format!("migrate sqlite-to-postgres --json --from {source}");
    let before = machine.up();
    machine.run("keys create ci").ok();
    let keys = machine.run("keys list --json").ok().stdout;

    let early = told(&machine, &database, &transfer);
    assert_eq!(early.code, 2, "the file is in use, and there is no schema");
    let schema = told(&machine, &database, "migrate schema --json")
        .ok()
        .json();
    assert_eq!(
        (&schema["migrations_before"], &schema["migrations"]),
        (&0.into(), &5.into())
    );
    let running = told(&machine, &database, &transfer);
    assert_eq!(running.code, 2);
    assert!(
        running.stderr.contains("stop the API server"),
        "{running:?}"
    );
    before.terminate();
    let dry = told(&machine, &database, &format!("{transfer} --dry-run"))
        .ok()
        .json();
    assert_eq!(
        (&dry["source"]["keys"], &dry["target_after"]["keys"]),
        (&2.into(), &0.into())
    );
    let moved = told(&machine, &database, &transfer).ok();

    let counts = serde_json::json!({"accounts": 1, "keys": 2, "agents": 0, "usage": moved.json()["source"]["usage"]});
    assert_eq!(moved.json()["target_after"], counts);
    assert_eq!(moved.json()["signing_key"], "not moved");
    assert!(
        moved.stderr.contains("server/keys/signing.key"),
        "{moved:?}"
    );
    let again = told(&machine, &database, &transfer);
    assert_eq!(again.code, 2, "there is something now: {again:?}");
    let _after = up(&machine, &database);
    assert_eq!(machine.run("keys list --json").ok().stdout, keys);
}

#[test]
fn a_server_that_may_not_migrate_names_the_command_that_does() {
    let machine = Machine::new();
    let database = Cluster::shared().database();

    let refused = told(
        &machine,
        &database,
        "api --api-addr 127.0.0.1:0 --no-migrate",
    );

    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused.stderr.contains("`skytale migrate schema`"),
        "{refused:?}"
    );
    let alone = machine.run("api --api-addr 127.0.0.1:0 --no-migrate");
    assert_eq!(alone.code, 2, "a file needs no such flag: {alone:?}");
}

#[test]
fn a_password_is_reset_beside_servers_of_an_older_version_without_a_migration() {
    let machine = Machine::new();
    let database = Cluster::shared().database();
    let url = &database.socket_url;
    let mut reset = machine.command(&format!("api --database-url {url} reset-password"));
    reset.env("SKYTALE_NEW_PASSWORD", "staple battery");

    let refused = finish(reset, "");

    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused.stderr.contains("`skytale migrate schema`"),
        "{refused:?}"
    );
    let schema = told(&machine, &database, "migrate schema --json").ok();
    assert_eq!(schema.json()["migrations_before"], 0);
}

#[test]
fn a_database_on_another_machine_without_verified_tls_is_refused() {
    let machine = Machine::new();
    for weak in ["disable", "prefer", "require"] {
        let url = format!("postgres://alice@db.example.org/skytale?sslmode={weak}");

        let refused = machine.run(&format!("api --api-addr 127.0.0.1:0 --database-url {url}"));

        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains("remove sslmode"), "{refused:?}");
    }
}

#[test]
fn the_password_of_a_database_url_is_not_taken_as_a_flag_and_shown_nowhere() {
    let machine = Machine::new();
    let database = Cluster::shared().database();
    let url = &database.url;
    let wrong = Database {
        url: url.replace("alice", "mallory"),
        ..Cluster::shared().database()
    };

    let as_flag = machine.run(&format!("migrate schema --database-url {url}"));
    assert_eq!(as_flag.code, 2, "{}", as_flag.stdout);
    assert!(as_flag.stderr.contains("SKYTALE_DATABASE_URL_FILE"));
    let refused = told(&machine, &wrong, "migrate schema -vvv");
    assert_eq!(refused.code, 2, "{}", refused.stdout);
    let shown = told(&machine, &database, "config show").ok();
    assert!(shown.stdout.contains("SKYTALE_DATABASE_URL_FILE"));
    let mut spoken = vec![as_flag, refused, shown];
    for arguments in ["migrate schema -vvv", "config show --json"] {
        spoken.push(told(&machine, &database, arguments).ok());
    }

    for ran in spoken {
        assert!(!ran.stdout.contains(PASSWORD) && !ran.stderr.contains(PASSWORD));
    }
}
