//! `up`, and the two servers apart.

use std::{collections::BTreeSet, net::TcpListener};

use super::people::{Machine, finish};

#[test]
fn up_prints_one_line_when_everything_is_ready_and_ends_when_told() {
    let machine = Machine::new();
    let up = machine.up();

    let line = up.json();
    let fields: BTreeSet<&str> = line
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let promised = [
        "api",
        "context",
        "data_dir",
        "health",
        "pid",
        "relay",
        "slim",
        "slim_open",
    ];
    assert_eq!(fields, BTreeSet::from(promised));
    let slim = line["slim"].as_str().unwrap();
    assert!(slim.starts_with("http://127.0.0.1:") && !slim.ends_with(":0"));
    assert_eq!(line["slim_open"], true);
    let (key, address) = line["relay"].as_str().unwrap().split_once('@').unwrap();
    assert_eq!(key.len(), 64);
    assert!(address.starts_with("127.0.0.1:") && !address.ends_with(":0"));
    machine.run("open acme/ops/plan --as planner").ok();
    let doctor = machine.run("doctor --json").ok().json();
    assert_eq!(doctor["ok"], true, "{doctor}");

    let ended = up.terminate();
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""), "{ended:?}");
    let doctor = machine.run("doctor --json --timeout 1");
    assert_eq!(doctor.code, 1);
    let red: Vec<_> = doctor.json()["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["ok"] == false)
        .cloned()
        .collect();
    assert!(!red.is_empty());
    for check in red {
        assert!(
            check["repair"].as_str().unwrap().contains("skytale "),
            "{check}"
        );
    }
}

#[test]
fn a_second_start_keeps_the_key_and_writes_the_new_addresses() {
    let machine = Machine::new();
    let context = || std::fs::read_to_string(machine.config().join("contexts/local.toml")).unwrap();
    let line = |name: &str| {
        context()
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .to_owned()
    };
    let first = machine.up();
    let (key, api) = (line("api_key"), first.text("api"));
    first.terminate();

    let second = machine.up();

    assert_eq!(line("api_key"), key);
    assert!(line("api_url").contains(&second.text("api")));
    assert_ne!(second.text("api"), api);
    machine.run("keys list").ok();
}

#[test]
fn a_context_of_another_data_directory_gets_a_key_that_works() {
    let machine = Machine::new();
    machine.up().terminate();
    let elsewhere = machine.data().join("elsewhere");
    let arguments = format!(
        "up --json --data-dir {} --api-addr 127.0.0.1:0 --relay-addr 127.0.0.1:0 --health-addr 127.0.0.1:0 --grpc-addr 127.0.0.1:0",
        elsewhere.display()
    );

    let _up = machine.serve(&arguments);

    machine.run("keys list").ok();
}

#[test]
fn a_taken_port_is_named_with_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = taken.local_addr().unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = socket.local_addr().unwrap();
    let free = "127.0.0.1:0";
    let flags = ["--api-addr", "--relay-addr", "--health-addr", "--grpc-addr"];
    for flag in flags {
        let mut arguments = "up".to_owned();
        let mut port = 0;
        for each in flags {
            let addr = match each {
                _ if each != flag => free.parse().unwrap(),
                "--relay-addr" => udp,
                _ => tcp,
            };
            port = port.max(addr.port());
            arguments = format!("{arguments} {each} {addr}");
        }
        let machine = Machine::new();
        let ran = machine.run(&arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
        assert!(ran.stderr.contains(flag), "{ran:?}");
        assert!(ran.stderr.contains(&format!("port {port}")), "{ran:?}");
    }
}

#[test]
fn a_relay_for_slim_says_how_open_it_is() {
    let machine = Machine::new();
    let everywhere =
        "up --json --api-addr 127.0.0.1:0 --relay-addr 127.0.0.1:0 --health-addr 127.0.0.1:0";

    let up = machine.serve(&format!("{everywhere} --grpc-addr 0.0.0.0:0"));
    assert_eq!(up.json()["slim_open"], false, "others reach it");
    up.terminate();

    let up = machine.serve(&format!("{everywhere} --grpc-addr off"));
    assert_eq!(up.json().get("slim"), None);
    assert_eq!(up.json()["slim_open"], false);
    up.terminate();

    let alone = machine.run(&format!(
        "{everywhere} --grpc-addr off --grpc-tls-cert cert.pem"
    ));
    assert_eq!(alone.code, 2, "{alone:?}");
    assert!(alone.stderr.contains("--grpc-tls-key"), "{alone:?}");
}

#[test]
fn an_advertised_address_stands_in_the_invite() {
    let machine = Machine::new();
    let up = machine.serve(
        "up --json --api-addr 127.0.0.1:0 --relay-addr 127.0.0.1:0 --health-addr 127.0.0.1:0 --grpc-addr 127.0.0.1:0 --public-addr relay.example.org:4433",
    );
    machine.run("open acme/ops/plan --as planner").ok();

    let invite = machine.run("invite --as planner").ok();

    let invite_line: skytale_wire::invite::Invite = invite.line().parse().unwrap();
    let grpc = up.text("slim").rsplit_once(':').unwrap().1.to_owned();
    let both = format!("relay.example.org:4433?grpc=relay.example.org:{grpc}");
    assert_eq!(invite_line.addresses, [both]);
    assert!(!invite.stderr.contains("this machine only"), "{invite:?}");
}

#[test]
fn a_guest_is_turned_away_where_there_are_none() {
    let (here, there) = (Machine::new(), Machine::new());
    let _up = here.serve(
        "up --json --no-guests --api-addr 127.0.0.1:0 --relay-addr 127.0.0.1:0 --health-addr 127.0.0.1:0 --grpc-addr 127.0.0.1:0",
    );
    here.run("open acme/ops/plan --as planner").ok();
    let invite = here.run("invite --as planner").ok();

    let refused = there.run(&format!("join {} --as coder", invite.line()));

    assert_eq!(refused.code, 4, "{refused:?}");
}

#[test]
fn the_two_servers_apart_serve_an_account_from_sign_up_to_log_out() {
    let (servers, machine) = (Machine::new(), Machine::new());
    let first = servers.serve("api --json --api-addr 127.0.0.1:0");
    let api = first.text("api");
    first.terminate();
    let relay = servers.serve(&format!(
        "relay --json --api-url {api} --relay-addr 127.0.0.1:0 --health-addr 127.0.0.1:0 --grpc-addr 127.0.0.1:0"
    ));
    let addr = api.trim_start_matches("http://");
    let _api = servers.serve(&format!(
        "api --json --api-addr {addr} --relay {}",
        relay.text("relay")
    ));

    let credentials = format!("--api-url {api} --email alice@example.org --password-stdin --json");
    let password = "correct horse battery staple\n";
    let signed = machine
        .say(password, &format!("signup {credentials}"))
        .ok()
        .json();
    assert_eq!(signed["relay"], relay.text("relay").as_str());
    machine.run("open acme/ops/plan --as planner").ok();
    let token = machine.run("token").ok();
    assert_eq!(token.line().split('.').count(), 3);
    let usage = machine.run("usage --json").ok().json();
    assert!(
        usage["months"][0]["token_exchanges"].as_u64().unwrap() >= 2,
        "{usage}"
    );

    let wrong = machine.say("another password\n", &format!("login {credentials}"));
    assert_eq!(wrong.code, 4, "{wrong:?}");
    let taken = machine.say("another password\n", &format!("signup {credentials}"));
    assert_eq!(taken.code, 4, "{taken:?}");
    let mut command = machine.command(&format!("login --api-url {api} --email alice@example.org"));
    command.env("SKYTALE_PASSWORD", password.trim());
    finish(command, "").ok();
    assert_eq!(machine.run("keys list --json").ok().json_lines().len(), 2);

    machine.run("logout").ok();
    assert_eq!(machine.run("logout").code, 3);
    assert_eq!(machine.run("keys list").code, 2);
    assert_eq!(relay.terminate().code, 0);
}
