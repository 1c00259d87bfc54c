//! What those who run servers use: certificates, health and metrics, settings, logs, units.

use std::{fs, net::TcpListener, path::Path, process::Command};

use serde_json::Value;

use super::people::{Machine, Server, get};

const FREE: &str = "--api-addr 127.0.0.1:0 --relay-addr 127.0.0.1:0 --health-addr 127.0.0.1:0 --grpc-addr 127.0.0.1:0";
const PASSWORD: &str = "correct horse battery staple";

fn deploy(file: &str) -> std::path::PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join("deploy").join(file)
}

/// A certificate for localhost as `cert.pem` and `key.pem`, which is its own authority.
fn certificate(dir: &Path) {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(dir.join("cert.pem"), pair.cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
}

/// Asks until the relay is ready, or has had ample time to become so.
fn is_ready(machine: &Machine, health: &str) -> bool {
    let health = health.trim_start_matches("http://");
    (0..3_000).any(|_| machine.run(&format!("health {health}")).code == 0)
}

#[test]
fn an_api_server_with_a_certificate_serves_agents_and_a_relay_that_know_its_authority() {
    let (servers, machine) = (Machine::new(), Machine::new());
    fs::create_dir_all(machine.data()).unwrap();
    certificate(&machine.data());
    let file = |name: &str| machine.data().join(name).display().to_string();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let url = format!("https://localhost:{port}");
    let relay = servers.serve(&format!(
        "relay --json --relay-addr 127.0.0.1:0 --health-addr 127.0.0.1:0 --grpc-addr off --api-url {url} --ca-file {cert}"
    ));
    let at = relay.text("relay");

    let api = servers.serve(&format!(
        "api --json --api-addr 127.0.0.1:{port} --tls-cert {cert} --tls-key {key} --relay {at}"
    ));

    assert!(api.text("api").starts_with("https://"));
    let sign_up = format!("signup --api-url {url} --email alice@example.org --password-stdin");
    let stranger = Machine::new();
    let untrusted = stranger.say(PASSWORD, &sign_up);
    assert_eq!(untrusted.code, 5, "without the authority: {untrusted:?}");
    let trusted = format!("{sign_up} --ca-file {cert}");
    machine.say(PASSWORD, &trusted).ok();
    assert!(is_ready(&machine, &relay.text("health")));
    machine.run("open acme/ops/plan --as planner").ok();
}

#[test]
fn an_api_server_that_others_reach_speaks_tls_or_has_a_proxy_that_does() {
    let machine = Machine::new();
    fs::create_dir_all(machine.data()).unwrap();
    certificate(&machine.data());
    let cert = machine.data().join("cert.pem").display().to_string();
    let key = machine.data().join("key.pem").display().to_string();
    let public = "api --json --api-addr 0.0.0.0:0";

    let bare = machine.run(public);
    assert_eq!(bare.code, 2, "{bare:?}");
    assert!(bare.stderr.contains("tls_cert") && bare.stderr.contains("behind_proxy"));
    let half = machine.run(&format!("{public} --tls-cert {cert}"));
    assert_eq!(half.code, 2, "{half:?}");
    assert!(half.stderr.contains("--tls-key"));
    let crossed = machine.run(&format!("{public} --tls-cert {key} --tls-key {cert}"));
    assert_eq!(crossed.code, 2, "{crossed:?}");
    assert!(
        crossed.stderr.contains("tls_cert holds no certificate"),
        "{crossed:?}"
    );
    machine
        .serve(&format!("{public} --tls-cert {cert} --tls-key {key}"))
        .terminate();
    machine
        .serve(&format!("{public} --behind-proxy"))
        .terminate();
    let up = machine.run("up --api-addr 0.0.0.0:0");
    assert_eq!(up.code, 2, "{up:?}");
    assert!(up.stderr.contains("skytale api"), "{up:?}");
}

#[test]
fn health_and_metrics_are_on_the_admin_address_alone_and_name_nobody() {
    let machine = Machine::new();
    let up = machine.serve(&format!("up --json --admin-addr 127.0.0.1:0 {FREE}"));
    let (api, admin) = (up.text("api"), up.text("admin"));
    machine.run("open acme/ops/plan --as planner").ok();
    let who = machine.run("whoami --json --as planner").ok().json();
    let keys = machine.run("keys list --json").ok().json();

    assert_eq!(get(&admin, "/livez"), (200, "alive\n".to_owned()));
    let (status, ready) = get(&admin, "/readyz");
    assert_eq!(status, 200, "{ready}");
    let parts: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!(parts["ready"], true);
    assert_eq!(get(&api, "/readyz").0, 200);
    assert_eq!(get(&api, "/metrics").0, 404);
    assert_eq!(get(&admin, "/v1/keys").0, 404);
    let (status, page) = get(&admin, "/metrics");
    assert_eq!(status, 200);
    let tokens = "skytale_api_requests_total{route=\"/v1/tokens\",method=\"POST\",status=\"200\"}";
    assert!(page.contains(tokens), "{page}");
    assert!(page.contains("route=\"/v1/keys\""), "{page}");
    let (_, of_relay) = get(&up.text("health"), "/metrics");
    for needle in [&who["id"], &who["account"], &keys["id"]] {
        let Some(needle) = needle.as_str() else {
            continue;
        };
        assert!(!page.contains(needle), "{needle}");
        assert!(!of_relay.contains(needle), "{needle}");
    }
    assert!(!page.contains("acme") && !of_relay.contains("acme"));
}

#[test]
fn health_is_asked_by_the_program_itself() {
    let machine = Machine::new();
    let up = machine.up();
    let health = up.text("health");
    let health = health.trim_start_matches("http://");

    let ready = machine.run(&format!("health {health} --json")).ok().json();
    assert_eq!(
        (&ready["ok"], &ready["parts"]["archive"]),
        (&true.into(), &true.into())
    );
    machine.run(&format!("health {health} --live")).ok();
    up.terminate();
    assert_eq!(machine.run(&format!("health {health}")).code, 5);

    // It trusts an issuer that nobody has heard.
    let relay = machine.serve(
        "relay --json --relay-addr 127.0.0.1:0 --health-addr 127.0.0.1:0 --grpc-addr off --api-url http://127.0.0.1:1",
    );
    let health = relay.text("health");
    let health = health.trim_start_matches("http://");
    let unready = machine.run(&format!("health {health} --json"));
    assert_eq!(unready.code, 1, "{unready:?}");
    assert_eq!(unready.json()["parts"]["issuers"], false);
    machine.run(&format!("health {health} --live")).ok();
}

#[test]
fn a_file_of_settings_goes_below_flags_and_is_shown_with_them() {
    let machine = Machine::new();
    fs::create_dir_all(machine.data()).unwrap();
    let file = machine.data().join("skytale.toml");
    let text = "[api]\naddr = \"127.0.0.1:0\"\nlive_keys_max = 2\n[relay]\nquic_addr = \"127.0.0.1:0\"\nhealth_addr = \"127.0.0.1:1\"\ngrpc_addr = \"off\"\nguests = false\n";
    fs::write(&file, text).unwrap();
    let with = |command: &str| format!("{command} --config {}", file.display());

    let up = machine.serve(&with("up --json --health-addr 127.0.0.1:0"));

    assert_eq!(up.json().get("slim"), None);
    machine.run("keys create ci").ok();
    assert_ne!(
        machine.run("keys create more").code,
        0,
        "the account has two"
    );
    machine.run("open acme/ops/plan --as planner").ok();
    let invite = machine.run("invite --as planner").ok();
    let guest = Machine::new().run(&format!("join {} --as coder", invite.line()));
    assert_eq!(guest.code, 4, "{guest:?}");
    let shown = machine.run(&with("config show --json")).ok().json_lines();
    let of = |name: &str| {
        let found = shown.iter().find(|it| it["name"] == name);
        let found = found.unwrap_or_else(|| panic!("{name}"));
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        (text("value"), text("origin"))
    };
    let origin = format!("file {}", file.display());
    assert_eq!(of("api.live_keys_max"), ("2".into(), origin.clone()));
    assert_eq!(of("relay.guests"), ("false".into(), origin));
    assert_eq!(of("relay.retention_days"), ("7".into(), "default".into()));
    up.terminate();

    fs::write(&file, "[relay]\nguest = false\n").unwrap();
    let refused = machine.run(&with(&format!("up {FREE}")));
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused.stderr.contains("did you mean guests?"),
        "{refused:?}"
    );
}

#[test]
fn the_sample_settings_start_every_server() {
    let machine = Machine::new();
    let sample = deploy("skytale.toml");
    let with = |command: &str| format!("{command} --json --config {}", sample.display());

    machine.serve(&format!("{} {FREE}", with("up"))).terminate();
    let api = machine.serve(&format!("{} --api-addr 127.0.0.1:0", with("api")));
    let relay = machine.serve(&format!(
        "{} --api-url {} --relay-addr 127.0.0.1:0 --health-addr 127.0.0.1:0 --grpc-addr off",
        with("relay"),
        api.text("api")
    ));
    relay.terminate();
    api.terminate();
}

#[test]
fn logs_as_json_are_lines_of_json_and_hold_no_secret() {
    let machine = Machine::new();
    fs::create_dir_all(machine.data()).unwrap();
    let log = machine.data().join("log");
    let mut command = machine.command(&format!("up --json --log-json -vvv {FREE}"));
    command.stderr(fs::File::create(&log).unwrap());
    let up = Server::start(command);
    let url = up.text("api");
    let elsewhere = Machine::new();
    let sign_up = format!("signup --api-url {url} --email alice@example.org --password-stdin");
    elsewhere.say(PASSWORD, &sign_up).ok();
    let wrong = format!("login --api-url {url} --email alice@example.org --password-stdin");
    assert_eq!(elsewhere.say("a wrong password", &wrong).code, 4);
    let token = elsewhere.run("token").ok();
    machine.two_agents();
    machine
        .say("the needle in it", "send acme/ops/plan --as coder")
        .ok();
    machine.run("read acme/ops/plan --as planner").ok();
    let context = |machine: &Machine, name: &str| {
        let file = machine.config().join("contexts").join(name);
        let text = fs::read_to_string(file).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("api_key"))
            .unwrap();
        line.split('"').nth(1).unwrap().to_owned()
    };
    let own = context(&machine, "local.toml");
    assert!(own.starts_with("sk_test_"));
    assert_eq!(up.terminate().code, 0);

    let text = fs::read_to_string(&log).unwrap();
    assert!(text.lines().count() > 20, "{text}");
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        for field in ["timestamp", "level", "target"] {
            assert!(event[field].is_string(), "{line}");
        }
    }
    let levels = ["INFO", "DEBUG"].map(|level| format!("\"level\":\"{level}\""));
    assert!(levels.iter().all(|level| text.contains(level)));
    assert!(
        text.contains("stopping: what has begun"),
        "talk is in it too"
    );
    for needle in [
        PASSWORD,
        "a wrong password",
        "the needle",
        "alice@example.org",
        &own,
        token.line(),
    ] {
        assert!(!text.contains(needle), "{needle}");
    }
}

#[test]
fn the_units_are_what_systemd_understands() {
    let Ok(found) = Command::new("systemd-analyze").arg("--version").output() else {
        // Nothing here could judge them; where there is systemd they are judged.
        return;
    };
    assert!(found.status.success());
    let dir = tempfile::tempdir().unwrap();
    for name in ["skytale-api.service", "skytale-relay.service"] {
        let unit = fs::read_to_string(deploy("systemd").join(name)).unwrap();
        // The program and the user of a machine that has them installed.
        let unit = unit
            .replace("/usr/local/bin/skytale", env!("CARGO_BIN_EXE_skytale"))
            .replace("=skytale\n", "=root\n");
        let file = dir.path().join(name);
        fs::write(&file, unit).unwrap();
        let judged = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&judged.stderr);
        let ours: Vec<&str> = said.lines().filter(|line| line.contains(name)).collect();
        assert!(ours.is_empty() && judged.status.success(), "{said}");
    }
}

#[test]
fn a_dashboard_is_served_unless_it_is_switched_off() {
    let machines = [Machine::new(), Machine::new(), Machine::new()];
    let shown = machines[0].serve(&format!("up --json {FREE}"));
    let hidden = machines[1].serve(&format!("up --json --no-ui {FREE}"));
    let alone = machines[2].serve("api --json --no-ui --api-addr 127.0.0.1:0");

    let (status, page) = get(&shown.text("api"), "/ui/sign-in");
    assert!(status == 200 && page.contains("<h1>Sign in</h1>"), "{page}");
    for server in [&hidden, &alone] {
        assert_eq!(get(&server.text("api"), "/ui/sign-in").0, 404);
    }
}
