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
    slim::{
        Mls, StockAgent,
        port::{links, until_linked},
        python, scripts,
    },
};

#[test]
fn stock_agents_with_tokens_meet_behind_tls() {
    let operator = Operator::open();
    let person = Person::sign_up(&operator, "alice@example.org", "tok/team/*");

    let names = ["tok/team/alice", "tok/team/bob"];
    let [mut alice, mut bob] = names.map(|name| person.agent(&operator, name));
    let session = alice.open(bob.name(), Mls::On);
    assert_eq!(bob.invited(), session);
    alice.publish(session, &["with a token"]);
    bob.hears(session, &["with a token"]);
    bob.publish(session, &["and back"]);
    alice.hears(session, &["and back"]);

    // The token is for names of one team.
    let other = operator.refused("other/team/carol", &person.token);
    assert_eq!(other, "", "it is never ready");
}

#[test]
fn a_revoked_key_ends_its_stock_agents_streams_for_good_and_no_others() {
    let operator = Operator::open();
    let ends = Person::sign_up(&operator, "alice@example.org", "first/team/*");
    let stays = Person::sign_up(&operator, "bob@example.org", "second/team/*");
    let names = ["first/team/alice", "first/team/another"];
    let _ended = names.map(|name| ends.agent(&operator, name));
    let names = ["second/team/bob", "second/team/carol"];
    let [mut bob, mut carol] = names.map(|name| stays.agent(&operator, name));
    let session = bob.open(carol.name(), Mls::On);
    assert_eq!(carol.invited(), session);
    assert_eq!(operator.links(), 4);

    ends.machine.run("logout").ok();

    until_linked(&operator.health, 2);
    // The token that was bought with the key lives on, and opens nothing any more.
    let again = operator.refused("first/team/alice", &ends.token);
    assert_eq!(again, "", "it is never ready");
    assert_eq!(operator.links(), 2, "who was shut out has not come back");
    bob.publish(session, &["still here"]);
    carol.hears(session, &["still here"]);
}

/// Somebody with an account, and a file in which a token for SLIM is kept fresh.
struct Person {
    token: PathBuf,
    // Killed before its directory is removed.
    _keeper: Speaker,
    machine: Machine,
}

impl Person {
    fn sign_up(operator: &Operator, email: &str, names: &str) -> Self {
        let machine = Machine::new();
        let wish = format!(
            "signup --api-url {} --email {email} --password-stdin",
            operator.api
        );
        machine.say("correct horse battery staple\n", &wish).ok();
        let token = machine.config().join("slim.token");
        let wish = format!("token --json --slim {names} --watch {}", token.display());
        let (keeper, _) = serve(&machine, &wish);
        Self {
            token,
            _keeper: keeper,
            machine,
        }
    }

    fn agent(&self, operator: &Operator, name: &str) -> StockAgent {
        let with = [
            ("SKYTALE_SLIM_CA", operator.certificate.as_path()),
            ("SKYTALE_SLIM_TOKEN", self.token.as_path()),
        ];
        StockAgent::start_with("3.3.8", &operator.slim, name, &with)
    }
}

/// API server and relay apart, as `skytale up` would let everybody in on loopback.
struct Operator {
    api: String,
    slim: String,
    certificate: PathBuf,
    health: String,
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
            health: is["health"]
                .as_str()
                .and_then(|at| at.strip_prefix("http://"))
                .unwrap()
                .to_owned(),
            _servers: [relay, again],
            _machine: machine,
        }
    }

    /// How many SLIM streams the relay serves.
    fn links(&self) -> u64 {
        links(&self.health).unwrap()
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
