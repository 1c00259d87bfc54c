//! `token --slim`, against a real API server: what it prints, and a file that is kept fresh.

use std::{
    fs,
    io::{BufRead as _, BufReader, Lines},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Command},
    sync::{Arc, Mutex},
};

use serde_json::Value;
use skytale_api::{Config, LocalAccount, Server};
use skytale_wire::{
    http::RelayAt,
    id::{RelayKey, Time},
    token::{Audience, Claims, Grant, PublicKeys, Verifier},
};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_util::sync::CancellationToken;

use super::people::{Machine, finish, mode};

const RELAY: RelayKey = RelayKey([3; 32]);

/// An API server whose tokens are short-lived, behind a line that can be cut. Its clock is real,
/// since the program's is.
struct Api {
    addr: SocketAddr,
    keys: PublicKeys,
    local: LocalAccount,
    line: Arc<Mutex<CancellationToken>>,
    _runtime: Runtime,
    _dir: TempDir,
}

impl Api {
    fn open(token_lifetime_s: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path());
        config.addr = "127.0.0.1:0".parse().unwrap();
        config.token_lifetime_s = token_lifetime_s;
        config.danger_argon2_memory_kib = 64;
        config.danger_argon2_passes = 1;
        config.relays = vec![RelayAt {
            key: RELAY,
            addresses: vec!["relay.example.org:4433".to_owned()],
        }];
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(Server::bind(config)).unwrap();
        let (keys, behind) = (server.public_keys(), server.addr());
        let local = runtime.block_on(server.bootstrap_local()).unwrap().unwrap();
        runtime.spawn(server.serve(CancellationToken::new()));
        let front = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = front.local_addr().unwrap();
        let line = Arc::new(Mutex::new(CancellationToken::new()));
        runtime.spawn(forward(front, behind, Arc::clone(&line)));
        Self {
            addr,
            keys,
            local,
            line,
            _runtime: runtime,
            _dir: dir,
        }
    }

    /// Nobody reaches it until [`Self::mend`].
    fn cut(&self) {
        self.line.lock().unwrap().cancel();
    }

    fn mend(&self) {
        *self.line.lock().unwrap() = CancellationToken::new();
    }

    fn command(&self, machine: &Machine, arguments: &str) -> Command {
        let mut command = machine.command(arguments);
        command.env("SKYTALE_API_URL", format!("http://{}", self.addr));
        command.env("SKYTALE_API_KEY", self.local.api_key.expose());
        command
    }

    /// The token as the relay reads it, if it is good at any time: how old it may be is no matter
    /// of these tests.
    fn read(&self, token: &str) -> Claims {
        let verifier = Verifier::new(Audience::Relay(RELAY), &self.keys).unwrap();
        let issued = Claims::danger_read_unverified(token).unwrap().issued;
        verifier.verify(token, issued).unwrap()
    }
}

async fn forward(front: TcpListener, behind: SocketAddr, line: Arc<Mutex<CancellationToken>>) {
    while let Ok((mut caller, _)) = front.accept().await {
        let open = line.lock().unwrap().clone();
        tokio::spawn(open.run_until_cancelled_owned(async move {
            let mut server = TcpStream::connect(behind).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut caller, &mut server).await;
        }));
    }
}

/// A running `token --watch`. Dropped, it is killed.
struct Keeper {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    complaints: Lines<BufReader<ChildStderr>>,
    file: PathBuf,
}

impl Keeper {
    fn start(api: &Api, machine: &Machine, file: &Path) -> Self {
        let arguments = format!("token --json --slim acme/* --watch {}", file.display());
        let mut child = api.command(machine, &arguments).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let complaints = BufReader::new(child.stderr.take().unwrap()).lines();
        Self {
            child,
            lines,
            complaints,
            file: file.to_owned(),
        }
    }

    /// The next token in the file, once the program says that it is there.
    fn next(&mut self) -> (String, Value) {
        let line = self.lines.next().unwrap().unwrap();
        assert!(!line.contains("eyJ"), "no token is printed: {line}");
        let token = fs::read_to_string(&self.file).unwrap();
        (token, serde_json::from_str(&line).unwrap())
    }

    fn complaint(&mut self) -> String {
        self.complaints.next().unwrap().unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let told = Command::new("sh")
            .args(["-c", "kill -\"$1\" \"$0\"", &pid, name])
            .status()
            .unwrap();
        assert!(told.success());
    }

    /// How it ended, and what else it said.
    fn ended(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        let rest: Vec<String> = self.complaints.by_ref().map(Result::unwrap).collect();
        (code, rest.join("\n"))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn patterns(claims: &Claims) -> Vec<&str> {
    let Grant::Slim { relay, patterns } = &claims.grant else {
        panic!("not a token for SLIM: {claims:?}");
    };
    assert_eq!(*relay, RELAY);
    patterns.texts().collect()
}

#[test]
fn a_slim_token_is_printed_for_the_names_that_were_given() {
    let (api, machine) = (Api::open(3_600), Machine::new());
    let wish = "token --slim acme/* --slim org/ns/planner";

    let plain = finish(api.command(&machine, wish), "").ok();
    let json = finish(api.command(&machine, &format!("{wish} --json")), "").ok();

    for token in [plain.line(), json.json()["token"].as_str().unwrap()] {
        let claims = api.read(token);
        assert_eq!(patterns(&claims), ["acme/*", "org/ns/planner"]);
        assert_eq!(claims.account, api.local.account);
        assert_eq!(claims.expires.since(claims.issued), 3_600_000);
    }
    assert_eq!(json.json()["expires_in_s"], 3_600);
}

#[test]
fn the_token_is_for_the_contexts_relay() {
    let machine = Machine::new();
    let up = machine.up();

    let token = machine.run("token --slim acme/*").ok().line().to_owned();

    let Grant::Slim { relay, .. } = Claims::danger_read_unverified(&token).unwrap().grant else {
        panic!("not a token for SLIM");
    };
    assert!(up.text("relay").starts_with(&relay.to_string()));
    let elsewhere = format!(
        "token --slim acme/* --relay {}@127.0.0.1:1",
        "08".repeat(32)
    );
    assert_eq!(machine.run(&elsewhere).code, 2);
}

#[test]
fn names_that_are_no_patterns_are_usage_errors() {
    let (api, machine) = (Api::open(3_600), Machine::new());
    let many = (0..17).map(|n| format!(" --slim {n}/*"));
    let many = many.collect::<Vec<_>>().concat();

    for arguments in [
        "token --slim *".to_owned(),
        "token --slim acme".to_owned(),
        "token --slim acme/* --slim acme/*".to_owned(),
        format!("token{many}"),
        "token --watch file".to_owned(),
        format!("token --slim acme/* --watch {}", a_directory().display()),
    ] {
        let ran = finish(api.command(&machine, &arguments), "");
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
    }
}

/// What no token can be written to.
fn a_directory() -> PathBuf {
    std::env::temp_dir()
}

#[test]
fn a_watched_file_stays_fresh_through_an_outage_and_outlives_the_program() {
    let (api, machine) = (Api::open(2), Machine::new());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("slim.token");

    let mut keeper = Keeper::start(&api, &machine, &file);
    let (mut token, said) = keeper.next();
    assert_eq!(
        (said["expires_in_s"].as_u64(), said["renewal_in_s"].as_u64()),
        (Some(2), Some(1))
    );
    let mut latest = Time(0);
    for _ in 0..2 {
        let (next, _) = keeper.next();
        assert_ne!(next, token);
        token = next;
        let claims = api.read(&token);
        assert_eq!(patterns(&claims), ["acme/*"]);
        assert!(claims.expires > latest);
        latest = claims.expires;
        assert_eq!(mode(&file), 0o600);
    }

    api.cut();
    let complaint = keeper.complaint();
    assert!(complaint.contains("could not be renewed") && complaint.contains("in 1 s"));
    assert!(keeper.complaint().contains("in 2 s"));
    assert_eq!(fs::read_to_string(&file).unwrap(), token);
    api.mend();
    let (next, _) = keeper.next();
    assert!(api.read(&next).expires > latest);

    keeper.signal("TERM");
    let (code, _) = keeper.ended();
    assert_eq!(code, Some(0));
    api.read(&fs::read_to_string(&file).unwrap());
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 1, "nothing else is left");

    let mut again = Keeper::start(&api, &machine, &file);
    again.next();
    again.signal("INT");
    assert_eq!(again.ended().0, Some(0));
}

#[test]
fn a_revoked_key_ends_the_program_and_says_so() {
    let (api, machine) = (Api::open(2), Machine::new());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("slim.token");
    let mut keeper = Keeper::start(&api, &machine, &file);
    keeper.next();

    let id = api.local.api_key.expose().split('_').nth(2).unwrap();
    finish(api.command(&machine, &format!("keys revoke {id}")), "").ok();

    let (code, said) = keeper.ended();
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("unauthorized"), "{said}");
    assert!(file.exists());
}

#[test]
fn a_server_that_is_not_there_is_told_at_once() {
    let (api, machine) = (Api::open(2), Machine::new());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("slim.token");
    api.cut();

    let keeper = Keeper::start(&api, &machine, &file);

    assert_eq!(keeper.ended().0, Some(5));
    assert!(!file.exists());
}
