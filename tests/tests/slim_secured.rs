//! Stock SLIM agents at a port as an operator would open it to others: TLS with a certificate of its
//! own, and tokens that `skytale token --slim --watch` keeps fresh.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
};

use serde_json::Value;
use skytale_tests::{
    processes::{Machine, PATIENCE, Said, Speaker, program},
    slim::{Mls, StockAgent, python, scripts},
};

#[test]
fn stock_agents_with_tokens_meet_behind_tls() {
    let operator = Operator::open();
    let person = Machine::new();
    let wish = format!(
        "signup --api-url {} --email alice@example.org --password-stdin",
        operator.api
    );
    person.say("correct horse battery staple\n", &wish).ok();
    let token = person.config().join("slim.token");
    let wish = format!("token --json --slim tok/team/* --watch {}", token.display());
    let (_keeper, _) = serve(&person, &wish);
    let with = [
        ("SKYTALE_SLIM_CA", operator.certificate.as_path()),
        ("SKYTALE_SLIM_TOKEN", token.as_path()),
    ];

    let names = ["tok/team/alice", "tok/team/bob"];
    let [mut alice, mut bob] =
        names.map(|name| StockAgent::start_with("3.3.8", &operator.slim, name, &with));
    let session = alice.open(bob.name(), Mls::On);
    assert_eq!(bob.invited(), session);
    alice.publish(session, &["with a token"]);
    bob.hears(session, &["with a token"]);
    bob.publish(session, &["and back"]);
    alice.hears(session, &["and back"]);

    // The token is for names of one team.
    let other = operator.refused("other/team/carol", &token);
    assert_eq!(other, "", "it is never ready");
}

/// API server and relay apart, as `skytale up` would let everybody in on loopback.
struct Operator {
    api: String,
    slim: String,
    certificate: PathBuf,
    // Killed before their directory is removed.
    _servers: [Speaker; 2],
    _machine: Machine,
}

impl Operator {
    fn open() -> Self {
        let machine = Machine::new();
        fs::create_dir_all(machine.config()).unwrap();
        let certificate = machine.config().join("cert.pem");
        let key = machine.config().join("key.pem");
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();

        // The two name each other, so one of them is started twice.
        let (first, said) = serve(&machine, "api --json --api-addr 127.0.0.1:0");
        let api = said["api"].as_str().unwrap().to_owned();
        first.kill();
        let wish = format!(
            "relay --json --api-url {api} --relay-addr 127.0.0.1:0 --health-addr 127.0.0.1:0 --grpc-addr 127.0.0.1:0 --grpc-tls-cert {} --grpc-tls-key {}",
            path(&certificate),
            path(&key)
        );
        let (relay, is) = serve(&machine, &wish);
        let wish = format!(
            "api --json --api-addr {} --relay {}",
            api.trim_start_matches("http://"),
            is["relay"].as_str().unwrap()
        );
        let (again, _) = serve(&machine, &wish);
        Self {
            api,
            slim: is["slim"].as_str().unwrap().to_owned(),
            certificate,
            _servers: [relay, again],
            _machine: machine,
        }
    }

    /// What a stock agent says that cannot get in with this token under this name.
    fn refused(&self, name: &str, token: &Path) -> String {
        let ran = Command::new(python("slim-3.3.8"))
            .arg(scripts().join("agent.py"))
            .args([self.slim.as_str(), name])
            .env("SKYTALE_SLIM_CA", &self.certificate)
            .env("SKYTALE_SLIM_TOKEN", token)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap();
        assert!(!ran.status.success());
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }
}

/// Starts what runs on, and gives the first line that it prints.
fn serve(machine: &Machine, wish: &str) -> (Speaker, Value) {
    let words: Vec<&str> = wish.split(' ').collect();
    let (mouth, ears) = mpsc::channel::<Said<()>>();
    let speaker = Speaker::start(machine.command(program(), &words), (), &mouth);
    let first = ears.recv_timeout(PATIENCE).ok().and_then(|it| it.what);
    let first = first.unwrap_or_else(|| panic!("it does not start: {wish}"));
    (speaker, first)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
