//! Secrets, addresses of accounts and what is said stay where they belong: the most talkative logs, the
//! errors, refusals, metrics and the relay's and API server's files are searched for them, in every form in which they could stand
//! there. What the logs do hold is searched for in the same way, as the control.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::mpsc::{self, Receiver},
};

use data_encoding::{BASE64, BASE64URL, HEXLOWER, HEXUPPER};
use rusqlite::Connection;
use serde_json::Value;
use skytale_tests::processes::{Machine, PATIENCE, Ran, Said, Speaker, finish, program};
use skytale_wire::id::AgentId;

/// What is said in the session; no other text has this in it.
const SAID: &str = "haystack-needle-Quahog-7741";
const PASSWORD: &str = "correct-horse-Quahog-9920";
const EMAIL: &str = "carol.quahog@example.org";
const ONCE: &str = "once-Quahog-5512";

#[test]
fn logs_errors_and_server_files_hold_no_secret_and_nothing_that_was_said() {
    let machine = Machine::logging("trace");
    let guest = Machine::logging("trace");
    let mut heard = Heard::default();
    let servers = machine.serve(
        "up --json --quiet --api-addr 127.0.0.1:0 --relay-addr 127.0.0.1:0 --health-addr 127.0.0.1:0 --grpc-addr 127.0.0.1:0 --admin-addr 127.0.0.1:0",
    );
    let api = servers.text("api").to_owned();
    let say = |machine: &Machine, stdin: &str, arguments: &str, heard: &mut Heard| {
        let ran = machine.say(stdin, arguments);
        heard.note(arguments, &ran);
        ran
    };

    // A session with everything that touches a secret.
    say(&machine, "", "open acme/ops/plan --as planner", &mut heard).ok();
    let invite = say(&machine, "", "invite --uses 2 --as planner", &mut heard).ok();
    let invite = invite.line().to_owned();
    say(&machine, &invite, "join - --as coder", &mut heard).ok();
    say(&guest, &invite, "join - --as guest", &mut heard).ok();
    say(&machine, SAID, "send --as planner", &mut heard).ok();
    say(&machine, "", "rotate --as planner", &mut heard).ok();
    say(&guest, SAID, "send --as guest", &mut heard).ok();
    say(&machine, "", "words --as coder", &mut heard).ok();
    say(&machine, "", "doctor --as planner", &mut heard);
    say(&machine, "", "config show", &mut heard).ok();
    say(&machine, "", "whoami --as planner", &mut heard).ok();
    let read = say(&machine, "", "read --json --as coder", &mut heard).ok();
    assert_eq!(read.json_lines().len(), 2, "{read:?}");
    let token = say(&machine, "", "token", &mut heard)
        .ok()
        .line()
        .to_owned();
    let made = say(&machine, "", "keys create ci", &mut heard).ok();
    let made = made.line().to_owned();
    let account = format!("--email {EMAIL} --api-url {api}");
    let sign_up = format!("signup --password-stdin {account}");
    say(&guest, PASSWORD, &sign_up, &mut heard).ok();
    let wrong = format!("login --password-stdin {account}");
    let wrong = say(&guest, "another-password", &wrong, &mut heard);
    assert_eq!(wrong.code, 4, "{wrong:?}");
    converse(&machine, &mut heard);

    // What fails, with secrets in its hands.
    let id = made.split('_').nth(2).unwrap();
    say(&machine, "", &format!("keys revoke {id}"), &mut heard).ok();
    let altered = format!("{invite}x");
    for (stdin, arguments) in [
        (invite.as_str(), "join - --as late"),
        (altered.as_str(), "join - --as late"),
        (SAID, "send acme/ops/none --as planner"),
        (SAID, "send --as nobody"),
        (
            SAID,
            "send --as planner --api-url http://127.0.0.1:1 --timeout 1",
        ),
    ] {
        let ran = say(&machine, stdin, arguments, &mut heard);
        assert_ne!(ran.code, 0, "{arguments}: {ran:?}");
    }
    for (name, value) in [
        ("SKYTALE_API_KEY", made.as_str()),
        ("SKYTALE_VAULT_KEY", SAID),
    ] {
        let mut command = machine.command(program(), &["whoami", "--as", "planner"]);
        command.env(name, value);
        let ran = finish(command, "");
        heard.note(name, &ran);
    }
    // Refusals of the API server, and what its operator and the relay's read of numbers.
    for bearer in [made.as_str(), token.as_str(), PASSWORD] {
        for (path, body) in [
            (
                "/v1/sessions",
                format!(r#"{{"email":"{EMAIL}","password":"{SAID}"}}"#),
            ),
            (
                "/v1/accounts",
                format!(r#"{{"email":"{PASSWORD}","password":"{made}"}}"#),
            ),
            ("/v1/accounts", format!(r#"{{"{EMAIL}":"{token}"}}"#)),
            (
                "/v1/tokens",
                format!(r#"{{"agent_id":"{token}","audience":"{made}"}}"#),
            ),
            (
                format!("/v1/keys/{made}/rotation").as_str(),
                "{}".to_owned(),
            ),
            (format!("/v1/keys?after={token}").as_str(), EMAIL.to_owned()),
            (format!("/{EMAIL}").as_str(), String::new()),
        ] {
            let answer = ask(&api, &format!("POST {path}"), bearer, &body);
            assert!(answer.starts_with("HTTP/1.1 4"), "{path}: {answer}");
            heard.add("a refusal", answer);
        }
    }
    for address in [servers.text("admin"), servers.text("health")] {
        for path in ["/livez", "/readyz", "/metrics"] {
            let answer = ask(address, &format!("GET {path}"), "", "");
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
            heard.add(path, answer);
        }
    }
    let other_key = "5a".repeat(32);
    let mut command = machine.command(program(), &["whoami", "--as", "planner"]);
    command.env("SKYTALE_VAULT_KEY", &other_key);
    let ran = finish(command, "");
    assert_ne!(ran.code, 0, "{ran:?}");
    heard.note("a wrong vault key", &ran);

    let mut secrets = vec![
        Needle::text("what was said", SAID),
        Needle::text("the password", PASSWORD),
        Needle::text("the invite", invite.strip_prefix("skt_inv_").unwrap()),
        Needle::bytes("the invite's seed", &seed_of(&invite)),
        Needle::text("a token", &token),
        Needle::text("a token's signature", token.rsplit_once('.').unwrap().1),
        Needle::text("an API key", secret_part(&made)),
        Needle::text("the other vault key", &other_key),
        Needle::text("an e-mail", EMAIL),
        Needle::text("an Idempotency-Key", ONCE),
    ];
    let mut keys = Vec::new();
    for (machine, names) in [(&machine, &["planner", "coder"][..]), (&guest, &["guest"])] {
        let key = fs::read_to_string(machine.config().join("vault.key")).unwrap();
        let raw = HEXLOWER.decode(key.trim().as_bytes()).unwrap();
        secrets.push(Needle::bytes("a vault's key", &raw));
        for name in names {
            let vault = machine.data().join("agents").join(name).join("vault.db");
            let (seed, label) = identity_of(&vault, key.trim());
            assert_eq!(label, *name, "the control: it is the right table");
            keys.push((*name, seed.clone()));
            secrets.push(Needle::bytes("an agent's key", &seed));
        }
    }
    let context = fs::read_to_string(machine.config().join("contexts/local.toml")).unwrap();
    let saved = context.lines().find(|line| line.starts_with("api_key"));
    let saved = saved.unwrap().split('"').nth(1).unwrap().to_owned();
    secrets.push(Needle::text("the saved API key", secret_part(&saved)));
    let signed_up = fs::read_dir(guest.config().join("contexts")).unwrap();
    let signed_up = signed_up.filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok());
    let signed_up: String = signed_up.collect();
    let (_, own) = signed_up.split_once("sk_live_").unwrap();
    let own = own.split('"').next().unwrap();
    secrets.push(Needle::text(
        "a key of who signed up",
        own.split_once('_').unwrap().1,
    ));
    let server = machine.data().join("server");
    let signing_key = fs::read_to_string(server.join("keys/signing.key")).unwrap();
    let signing_key = HEXLOWER.decode(signing_key.trim().as_bytes()).unwrap();
    secrets.push(Needle::bytes("the key that signs tokens", &signing_key));
    let relay_key = fs::read(server.join("relay").join("relay.key")).unwrap();
    secrets.push(Needle::bytes("the relay's key", &relay_key));
    let relay_id = servers.text("relay").split_once('@').unwrap().0.to_owned();
    heard.add("up", servers.terminate());

    // Logs and errors.
    for (name, talk) in &heard.talks {
        for needle in &secrets {
            needle.must_not_be_in(talk.as_bytes(), name);
        }
        assert!(
            !talk.contains("eyJ"),
            "{name} shows the beginning of a token"
        );
    }
    // The control: these logs are as talkative as can be, and hold what they may.
    let all: String = heard.talks.iter().map(|(_, talk)| talk.as_str()).collect();
    for part in [
        "skytale_sdk",
        "skytale_relay",
        "skytale_agent",
        "skytale_api",
    ] {
        println!("{part}: {} lines", all.matches(part).count());
    }
    for part in [
        "TRACE",
        "DEBUG",
        "skytale_sdk",
        "skytale_relay",
        "skytale_api",
    ] {
        assert!(all.contains(part), "the control: {part}");
    }
    let shown = Needle::text("the relay's short name", relay_id.split_at(8).0);
    assert!(shown.is_in(all.as_bytes()), "the control: it is logged");

    // What lies at the servers: nothing that was said, and no secret but their own.
    let planner: AgentId = machine.id_of("planner").parse().unwrap();
    let known = Needle::bytes("an agent's id", &planner.0);
    let (mut files, mut found, mut known_files) = (0, false, 0);
    visit(&server, &mut |path, bytes| {
        files += 1;
        found |= known.is_in(bytes);
        let name = path.display().to_string();
        for needle in &secrets {
            let own = match needle.what {
                "the relay's key" => path.ends_with("relay.key"),
                "the key that signs tokens" => path.ends_with("signing.key"),
                "an e-mail" => name.contains("api.db"),
                _ => false,
            };
            known_files += u32::from(own && needle.is_in(bytes));
            if !own {
                needle.must_not_be_in(bytes, &name);
            }
        }
    });
    assert!(
        files > 3 && found,
        "the control: the archive names its agents"
    );
    assert!(known_files >= 3, "the control: each lies where it belongs");
}

/// The whole answer to a request, as it comes; to one that has an `Idempotency-Key` as well.
fn ask(address: &str, target: &str, bearer: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let request = format!(
        "{target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {bearer}\r\n\
         idempotency-key: {ONCE}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Two actors of the same machine, whose logs are the SDK's and nobody else's.
fn converse(machine: &Machine, heard: &mut Heard) {
    let (mouth, ears) = mpsc::channel();
    let start = |name: &'static str| {
        let program = Path::new(env!("CARGO_BIN_EXE_actor"));
        let words = [name, "acme/ops/plan", SAID, "4", "10"];
        Speaker::start(machine.command(program, &words), name, &mouth)
    };
    let mut actors = [start("planner"), start("coder")];
    let mut missing = 20;
    while missing > 0 {
        missing -= u32::from(next(&ears).get("stored").is_some());
    }
    for actor in &mut actors {
        actor.tell("close");
    }
    for (number, actor) in actors.into_iter().enumerate() {
        let (code, talk) = actor.ended();
        assert_eq!(code, 0, "{talk}");
        heard.add(&format!("actor {number}"), talk);
    }
}

#[track_caller]
fn next(ears: &Receiver<Said<&'static str>>) -> Value {
    let said = ears.recv_timeout(PATIENCE).expect("it speaks in time");
    said.what.expect("it goes on")
}

#[test]
fn the_search_sees_every_form() {
    let needle = Needle::bytes("it", b"\x01\xFFsixteen bytes \xC8");
    let bytes = b"\x01\xFFsixteen bytes \xC8";
    for before in 0..3 {
        let inside = [&b"abc"[..before], bytes, b"xyz"].concat();
        for hidden in [
            inside.clone(),
            HEXLOWER.encode(&inside).into(),
            HEXUPPER.encode(&inside).into(),
            BASE64.encode(&inside).into(),
            BASE64URL.encode(&inside).into(),
            format!("{inside:?}").into(),
            format!("{inside:02x?}").into(),
            inside.escape_ascii().to_string().into(),
        ] {
            assert!(
                needle.is_in(&hidden),
                "{}",
                String::from_utf8_lossy(&hidden)
            );
        }
    }
    assert!(!needle.is_in(b"something else altogether"));
}

/// What the processes said beside their results.
#[derive(Default)]
struct Heard {
    talks: Vec<(String, String)>,
}

impl Heard {
    /// The log and the errors; results are for the caller, who asked for them. A failed command
    /// has no results.
    fn note(&mut self, what: &str, ran: &Ran) {
        self.add(what, ran.stderr.clone());
        if ran.code != 0 {
            self.add(what, ran.stdout.clone());
        }
    }

    fn add(&mut self, what: &str, talk: String) {
        self.talks.push((what.to_owned(), talk));
    }
}

/// A secret in all the forms in which it could be written down.
struct Needle {
    what: &'static str,
    forms: Vec<Vec<u8>>,
}

impl Needle {
    fn text(what: &'static str, text: &str) -> Self {
        Self::bytes(what, text.as_bytes())
    }

    fn bytes(what: &'static str, bytes: &[u8]) -> Self {
        assert!(bytes.len() >= 8, "too short to be told from chance: {what}");
        let list = |text: String| text.trim_matches(['[', ']']).as_bytes().to_vec();
        let mut forms = vec![
            bytes.to_vec(),
            HEXLOWER.encode(bytes).into(),
            HEXUPPER.encode(bytes).into(),
            list(format!("{bytes:?}")),
            list(format!("{bytes:02x?}")),
            bytes.escape_ascii().to_string().into(),
        ];
        // Base64 depends on where in a larger text it begins; its ends depend on the neighbours.
        for before in 0..3 {
            let shifted = [&[0; 3][..before], bytes].concat();
            for code in [BASE64, BASE64URL] {
                let text = code.encode(&shifted);
                let whole = shifted.len() / 3 * 4;
                let from = if before == 0 { 0 } else { 4 };
                forms.push(text.as_bytes()[from..whole].to_vec());
            }
        }
        Self { what, forms }
    }

    fn is_in(&self, haystack: &[u8]) -> bool {
        self.forms.iter().any(|form| contains(haystack, form))
    }

    #[track_caller]
    fn must_not_be_in(&self, haystack: &[u8], place: &str) {
        for form in &self.forms {
            if let Some(at) = position(haystack, form) {
                let around = &haystack[at.saturating_sub(200)..(at + 40).min(haystack.len())];
                let around = String::from_utf8_lossy(around);
                panic!("{} stands in {place}: …{around}…", self.what);
            }
        }
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    position(haystack, needle).is_some()
}

/// Logs have megabytes, so candidates are found by their first byte.
fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle[0];
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|byte| *byte == first) {
        let at = from + at;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// All files below a directory.
fn visit(dir: &Path, look: &mut impl FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, look);
        } else {
            look(&path, &fs::read(&path).unwrap());
        }
    }
}

/// The secret bytes of an invite line: the last value of its map, before the checksum.
fn seed_of(invite: &str) -> Vec<u8> {
    let body = invite.strip_prefix("skt_inv_").unwrap().as_bytes();
    let bytes = data_encoding::BASE64URL_NOPAD.decode(body).unwrap();
    let (content, _checksum) = bytes.split_at(bytes.len() - 4);
    let (head, seed) = content.split_at(content.len() - 16);
    // A byte string of sixteen bytes, under key 6.
    assert_eq!(head[head.len() - 2..], [0x06, 0x50]);
    seed.to_vec()
}

/// The part of `sk_test_id_SECRET` that nobody may see.
fn secret_part(key: &str) -> &str {
    key.splitn(4, '_').nth(3).unwrap()
}

/// The key by which an agent signs, and its name, out of its vault.
fn identity_of(vault: &Path, key: &str) -> (Vec<u8>, String) {
    let conn = Connection::open(vault).unwrap();
    conn.execute_batch(&format!("PRAGMA key = \"x'{key}'\""))
        .unwrap();
    conn.query_row("SELECT seed, label FROM identity", [], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
    .unwrap()
}
