//! The dashboard in a real browser: Chromium without a window, real servers, a real agent.
//!
//! What the browser saw is kept as pictures below the target folder, for whoever would like to look.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread::sleep,
    time::Duration,
};

use serde_json::{Value, json};
use skytale_tests::{
    here,
    processes::{Machine, PATIENCE, Said, Speaker, finish, program},
    slim::python,
};

const PASSWORD: &str = "correct horse battery staple";
const PATHS: [&str; 8] = [
    "/ui",
    "/ui/keys",
    "/ui/agents",
    "/ui/usage",
    "/ui/channels",
    "/ui/relays",
    "/ui/sign-up",
    "/ui/nowhere",
];

/// Signs in, makes a key, and ends with it what an agent has open; and no page asks for anything that
/// its policy forbids.
#[test]
fn a_key_that_is_revoked_in_the_browser_closes_a_live_stream() {
    let machine = Machine::new();
    let servers = machine.up(None);
    let url = servers.text("api").to_owned();
    let desk = Machine::new();
    let sign_up = format!("signup --api-url {url} --email alice@example.org --password-stdin");
    desk.say(&format!("{PASSWORD}\n"), &sign_up).ok();
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
    let home = tempfile::tempdir().unwrap();
    let mut browser = Browser::start(&url, home.path(), &pictures);

    // Alice signs in and makes a key.
    let credentials = json!({"do": "sign_in", "email": "alice@example.org", "password": PASSWORD});
    let first = browser.order(&credentials);
    assert_eq!(first["path"], "/ui", "{first}");
    let cookies = browser.order(&json!({"do": "cookies"}));
    let [cookie] = &cookies["kept"].as_array().unwrap()[..] else {
        panic!("{cookies}");
    };
    assert_eq!(cookie["httpOnly"], true, "{cookie}");
    assert_eq!(cookie["sameSite"], "Strict", "{cookie}");
    assert_eq!(cookie["path"], "/ui", "{cookie}");
    assert_eq!(cookies["seen"], "", "no script sees it");
    let made = browser.order(&json!({"do": "make_key", "name": "planner <b>key</b>"}));
    let key = made["key"].as_str().unwrap();
    assert!(key.starts_with("sk_live_"), "{made}");

    // An agent works with it, and another one with the key of the sign-up.
    let with_key = |arguments: &str, key: Option<&str>| {
        let words: Vec<&str> = arguments.split(' ').collect();
        let mut command = desk.command(program(), &words);
        if let Some(key) = key {
            command.env("SKYTALE_API_KEY", key);
        }
        command
    };
    let run = |arguments: &str, key: Option<&str>, stdin: &str| {
        finish(with_key(arguments, key), stdin).ok();
    };
    run("open acme/ops/plan --as planner", Some(key), "");
    for text in ["one", "two", "three"] {
        run("send acme/ops/plan --as planner", Some(key), text);
    }
    run("open acme/ops/other --as coder", None, "");
    let (mouth, ears) = mpsc::channel();
    let planner = with_key("watch --as planner --json", Some(key));
    let planner = Speaker::start(planner, "planner", &mouth);
    let coder = with_key("watch --as coder --json", None);
    let coder = Speaker::start(coder, "coder", &mouth);
    for _ in 0..2 {
        hears(&ears, "connected");
    }

    // The pages show it.
    let id = desk.id_of("planner");
    let agents = browser.order(&json!({"do": "look", "path": "/ui/agents"}));
    assert!(agents["text"].as_str().unwrap().contains(&id), "{agents}");
    let counted = until(|| {
        let usage = desk.run("usage --json").ok().json();
        let month = usage["months"][0].clone();
        (month["messages"].as_u64() >= Some(3)).then_some(month)
    });
    let usage = browser.order(&json!({"do": "look", "path": "/ui/usage"}));
    let text = usage["text"].as_str().unwrap();
    assert!(text.contains(counted["month"].as_str().unwrap()), "{text}");
    assert!(text.contains("Messages sent"), "{text}");
    let month = format!("/ui/usage/{}", counted["month"].as_str().unwrap());
    let by_key = browser.order(&json!({"do": "look", "path": month}));
    let key_id = key.split('_').nth(2).unwrap();
    let row = by_key["text"].as_str().unwrap().lines();
    let row = row
        .filter(|line| line.starts_with(key_id))
        .collect::<Vec<_>>();
    assert!(row.len() == 1 && row[0].contains(" 3 "), "{by_key}");

    // What the relay sees of the channel: three messages, the first commit, and none of the words.
    let channel = desk.run("channels --as planner --json").ok().json_lines();
    let channel = format!("/ui/channels/{}", channel[0]["channel"].as_str().unwrap());
    let records = browser.order(&json!({"do": "look", "path": channel}));
    let text = records["text"].as_str().unwrap();
    let rows = text.lines().filter(|line| line.contains(" message "));
    assert_eq!(rows.count(), 3, "{text}");
    assert!(!text.contains("acme"), "{text}");
    let relays = browser.order(&json!({"do": "look", "path": "/ui/relays"}));
    let text = relays["text"].as_str().unwrap();
    assert!(text.contains(env!("CARGO_PKG_VERSION")), "{text}");

    // What the browser saw, wide and narrow, light and dark.
    let paths: Vec<&str> = PATHS.into_iter().chain([&*month, &*channel]).collect();
    let toured = browser.order(&json!({"do": "tour", "paths": paths}));
    assert_eq!(toured["wide"], json!([]), "wider than its window");
    let count = toured["pictures"].as_array().unwrap().len();
    println!("{count} pictures in {}", pictures.display());
    let reached = browser.order(&json!({"do": "by_keyboard"}));
    for what in [
        "To the content",
        "Sign out",
        "Revoke",
        "name",
        "scope-relay",
        "days",
    ] {
        let all = reached["reached"].as_array().unwrap();
        assert!(all.iter().any(|it| it == what), "{what}: {reached}");
    }

    // The stream ends when the key does, and the other one goes on.
    assert!(
        ears.try_iter().all(|it| !is(&it, "disconnected")),
        "too early"
    );
    let revoked = browser.order(&json!({"do": "revoke", "name": "planner <b>key</b>"}));
    assert_eq!(revoked["path"], "/ui/keys");
    assert!(
        revoked["row"].as_str().unwrap().contains("revoked"),
        "{revoked}"
    );
    assert_eq!(hears(&ears, "disconnected"), "planner");
    run("send acme/ops/other --as coder", None, "still here");
    assert!(
        ears.try_iter()
            .all(|it| it.who != "coder" || !is(&it, "disconnected"))
    );
    planner.kill();
    coder.kill();

    let out = browser.order(&json!({"do": "sign_out"}));
    assert_eq!(
        (&out["path"], &out["after"]),
        (&json!("/ui/sign-in"), &json!("/ui/sign-in"))
    );
    // Nothing was forbidden on the way, and what is forbidden is seen.
    let violations = browser.order(&json!({"do": "count_violations"}));
    assert_eq!(violations["count"], 0, "{violations}");
    let violated = browser.order(&json!({"do": "violate"}));
    assert_eq!(violated["count"], 4, "{violated}");
    assert_ne!(violated["margin"], "40px", "the style did not take hold");
    assert_ne!(violated["title"], "it ran", "the script did not run");
    browser.end();
    servers.terminate();
}

struct Browser {
    // Told to end before its ears are gone.
    speaker: Speaker,
    ears: Receiver<Said<()>>,
    is_gone: bool,
}

impl Browser {
    fn start(url: &str, home: &Path, pictures: &Path) -> Self {
        let profile = home.join("profile");
        let mut command = Command::new(python("dashboard"));
        command
            .arg(here().join("dashboard/browse.py"))
            .args([url.as_ref(), profile.as_os_str(), pictures.as_os_str()])
            // Whatever a browser leaves in a home, it leaves in one that goes with the test.
            .env("HOME", home)
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_CACHE_HOME")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (mouth, ears) = mpsc::channel();
        let speaker = Speaker::start(command, (), &mouth);
        let browser = Self {
            speaker,
            ears,
            is_gone: false,
        };
        browser.answer();
        browser
    }

    #[track_caller]
    fn order(&mut self, order: &Value) -> Value {
        self.speaker.tell(&order.to_string());
        self.answer()
    }

    #[track_caller]
    fn answer(&self) -> Value {
        let said = self.ears.recv_timeout(PATIENCE).unwrap();
        match said.what {
            Some(answer) if answer.get("done").is_some() => answer["done"].clone(),
            Some(failed) => panic!("the browser: {failed}"),
            None => panic!("the browser has ended: {}", self.speaker.log()),
        }
    }

    /// It goes by itself when nobody has orders for it any more, and takes along what it has started.
    fn end(mut self) {
        self.leave();
        assert!(self.is_gone, "the browser does not end");
    }

    fn leave(&mut self) {
        self.speaker.hang_up();
        while let Ok(said) = self.ears.recv_timeout(PATIENCE) {
            self.is_gone |= said.what.is_none();
        }
    }
}

impl Drop for Browser {
    /// Also when the test has failed: a driver whose master was killed would stay.
    fn drop(&mut self) {
        if !self.is_gone {
            self.leave();
        }
    }
}

/// Who says first that this happened.
#[track_caller]
fn hears(ears: &Receiver<Said<&'static str>>, event: &str) -> &'static str {
    loop {
        let said = ears.recv_timeout(PATIENCE).unwrap();
        assert!(said.what.is_some(), "{} has ended", said.who);
        if is(&said, event) {
            return said.who;
        }
    }
}

fn is(said: &Said<&'static str>, event: &str) -> bool {
    said.what
        .as_ref()
        .is_some_and(|what| what["event"] == event)
}

/// Asks again and again. What relays count is reported some seconds later.
#[expect(
    clippy::disallowed_methods,
    reason = "another process is waited for, and nobody calls"
)]
#[track_caller]
fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        if let Some(found) = found() {
            return found;
        }
        sleep(PAUSE);
    }
    panic!("it does not come");
}

const PAUSE: Duration = Duration::from_millis(250);
