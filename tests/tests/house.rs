//! Holds the tree to its plan: who may lean on whom, who may name the MLS library, what is never
//! edited, and whether the documents point at tests that exist.
//!
//! It reads manifests, sources and documents as text and runs nothing of ours but two functions
//! that must agree. The drawing of the same house stands in `ARCHITECTURE.md`.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Each crate and the crates of ours that it may depend on. A new row, or a new name in a row, is
/// a decision: half a page in `docs/decisions/`.
const HOUSE: &[(&str, &[&str])] = &[
    ("skytale-wire", &[]),
    ("skytale-shape", &[]),
    ("skytale-slim", &[]),
    ("skytale-slim-session", &["skytale-slim"]),
    ("skytale-tunnel", &["skytale-wire"]),
    ("skytale-certificate", &[]),
    ("skytale-agent", &["skytale-wire"]),
    (
        "skytale-relay",
        &[
            "skytale-wire",
            "skytale-shape",
            "skytale-slim",
            "skytale-tunnel",
            "skytale-certificate",
        ],
    ),
    ("skytale-api", &["skytale-wire", "skytale-certificate"]),
    (
        "skytale-sdk",
        &[
            "skytale-agent",
            "skytale-wire",
            "skytale-shape",
            "skytale-slim",
            "skytale-slim-session",
            "skytale-tunnel",
        ],
    ),
    (
        "skytale-cli",
        &[
            "skytale-sdk",
            "skytale-relay",
            "skytale-api",
            "skytale-wire",
            "skytale-shape",
            "skytale-slim",
        ],
    ),
    (
        "skytale-python",
        &[
            "skytale-sdk",
            "skytale-relay",
            "skytale-api",
            "skytale-wire",
        ],
    ),
];

/// Not published, and may lean on everything.
const TESTS: &str = "skytale-tests";

/// The crate that holds keys of channels.
const MIND: &str = "skytale-agent";

/// Who may name an MLS library: the mind, and SLIM's sessions, whose groups are others and whose
/// library is the same (decision 11).
const HOLDERS_OF_KEYS: &[&str] = &[MIND, "skytale-slim-session"];

/// Databases in the field were made by exactly these bytes.
const MIGRATIONS: &[(&str, &str)] = &[
    (
        "crates/agent/src/migrations/0001_mls.sql",
        "aadf38cfcf7fe53b33d3d24d2760585c0768182893306a1218855ece712b607d",
    ),
    (
        "crates/agent/src/migrations/0002_mind.sql",
        "d86a448abd5da003fb0d4e35c76c6c4641bf4818e21798370c214001af15ac4f",
    ),
    (
        "crates/agent/src/migrations/0003_key_packages.sql",
        "369d40ecfe9550fd9764fbaa5e8187ed4f3c5e97595a1fc70dba711fdd2522ed",
    ),
    (
        "crates/agent/src/migrations/0004_history.sql",
        "685a158c6f6c4ecc5a773af3cfba465028cc859bccba3238e3ecfb741cafd066",
    ),
    (
        "crates/api/src/migrations/0001_accounts.sql",
        "4e16c6179d20022c6489b6aeb33da05e7c4e5b152e546317679125eabb845f02",
    ),
    (
        "crates/api/src/migrations/0002_revocations.sql",
        "49521e0c2e685454aff2f874676dd267f5b846f62985e7936156c432108be61d",
    ),
    (
        "crates/api/src/migrations/0003_standing.sql",
        "9a85999b1582161dc56c1f1cb5b8394df9652b355d8d5b3246ad8156572ccb26",
    ),
    (
        "crates/api/src/migrations/0004_once.sql",
        "d0f9f06b5dccef6fe1fd6ebb14adcbcae5927b4717e9f35aadebadc89823b2aa",
    ),
    (
        "crates/api/src/migrations/0005_usage.sql",
        "b88a3a45e6ab67e1272067dd9006795ec9309cfea1349720d5afe3c16771415d",
    ),
    (
        "crates/api/src/migrations/postgres/0001_accounts.sql",
        "c4061a8fe647bdbab2e187e1b472d36d4251ae4f4bfdf8a735cd462294ae3e41",
    ),
    (
        "crates/api/src/migrations/postgres/0002_revocations.sql",
        "c9f6f353f63e3fba94d28bd2456aa1a68b98eeea57fca590d18ee76928492128",
    ),
    (
        "crates/api/src/migrations/postgres/0003_standing.sql",
        "ffdc2f3c4e842a582efd341a020b2de2f6485a16a968e70430cbf8e0c2e04e8b",
    ),
    (
        "crates/api/src/migrations/postgres/0004_once.sql",
        "887b10b54916b02779e98c3dd30547e29772c8ff9a9513e2c3c463a308f80f8c",
    ),
    (
        "crates/api/src/migrations/postgres/0005_usage.sql",
        "c2c02621c3f90c522d7ef143af396c152bbaf084b6dc4b01ea565897aae0db98",
    ),
    (
        "crates/relay/src/archive/migrations/0001_archive.sql",
        "a6f6d23a1d202018df3383bef0ed58928b83d9596cb493a3b574367c1c892b84",
    ),
    (
        "crates/relay/src/archive/migrations/0002_usage.sql",
        "b40d8709999f0aa2eb372b6f3f9238ad823692f613486b9056444815d92996f2",
    ),
];

#[test]
fn crates_lean_only_on_the_floors_below() {
    let mut seen = BTreeSet::from([TESTS]);
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        if name == TESTS {
            continue;
        }
        let Some((known, allowed)) = HOUSE.iter().find(|(known, _)| *known == name) else {
            panic!("{name} has no place in the house: add it to the plan or remove it");
        };
        seen.insert(known);
        for (used, kind) in dependencies(package) {
            let ours = used.starts_with("skytale-");
            assert!(
                !ours || kind == "dev" || allowed.contains(&used),
                "{name} must not depend on {used}"
            );
        }
    }
    let planned: BTreeSet<&str> = HOUSE.iter().map(|(name, _)| *name).chain([TESTS]).collect();
    assert_eq!(seen, planned, "the plan names crates that are not there");
}

#[test]
fn only_who_holds_keys_names_an_mls_library() {
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        for (used, _) in dependencies(package) {
            assert!(
                HOLDERS_OF_KEYS.contains(&name) || !is_mls(used),
                "{name} names {used}: MLS belongs to {HOLDERS_OF_KEYS:?}"
            );
        }
    }
    for holder in HOLDERS_OF_KEYS {
        let holder = packages().iter().find(|package| package["name"] == *holder);
        assert!(
            dependencies(holder.unwrap()).any(|(used, _)| is_mls(used)),
            "this test no longer recognises the MLS library"
        );
    }
}

/// That the relay cannot decrypt is to be seen in what it is built from, not only in what it does.
#[test]
fn no_mls_library_is_built_into_relay_or_api_server() {
    for name in ["skytale-relay", "skytale-api"] {
        let tree = built_from(name);
        let mls: Vec<&str> = tree.lines().filter(|line| is_mls(line)).collect();
        assert!(mls.is_empty(), "{name} is built from {mls:?}");
        for holder in HOLDERS_OF_KEYS {
            assert!(!tree.contains(holder), "{name} is built from {holder}");
        }
    }
    assert!(
        built_from(MIND).lines().any(is_mls),
        "this test no longer recognises the MLS library"
    );
}

/// A26 of docs/attacks.md: what cannot call anybody cannot be made to call somebody's URL.
#[test]
fn the_api_server_is_built_without_an_http_client() {
    let has_client = |name: &str| {
        let tree = built_from(name);
        let mut clients = HTTP_CLIENTS.iter().map(|client| format!("\n{client} v"));
        clients.any(|client| tree.contains(&client))
    };
    assert!(!has_client("skytale-api"));
    assert!(
        has_client("skytale-relay"),
        "this test no longer recognises an HTTP client"
    );
}

/// A32 of docs/attacks.md: an `==` that ends at the first byte that differs says how much was right. What
/// holds a secret has none, or one of `subtle`.
#[test]
fn secrets_are_not_compared_byte_by_byte() {
    for (file, name) in SECRETS {
        let text = read(file);
        let at = [" {", "(", ";"]
            .iter()
            .find_map(|after| text.find(&format!("struct {name}{after}")))
            .unwrap_or_else(|| panic!("{name} is not in {file}"));
        let (before, _) = text.split_at(at);
        let attributes = before.rsplit("\n\n").next().unwrap_or_default();
        assert!(!attributes.contains("PartialEq"), "{name} derives ==");
        if let Some((_, own)) = text.split_once(&format!("impl PartialEq for {name} ")) {
            let body = own.split("\n}\n").next().unwrap_or_default();
            assert!(body.contains(".ct_eq("), "{name} has an == of its own");
        }
    }
    for file in tree().iter().filter(|file| is(file, &["rs"])) {
        for (number, line) in numbered(&read(file)) {
            let found = [".expose() ==", ".expose() !=", "== secret", "== password"]
                .iter()
                .any(|form| line.contains(form));
            let is_here = file == "tests/tests/house.rs";
            assert!(is_here || !found, "{file}:{number}: {line}");
        }
    }
}

#[test]
fn no_crate_is_a_drawer_for_odds_and_ends() {
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let room = name.strip_prefix("skytale-").unwrap_or(name);
        assert!(
            !["common", "utils", "util", "core", "types", "helpers"].contains(&room),
            "{name} does not say what it is for"
        );
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for package in packages() {
        let manifest = fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        let lints = manifest.split("[lints]").nth(1).unwrap_or_default();
        assert!(
            lints.trim_start().starts_with("workspace = true"),
            "{} has lints of its own",
            package["name"]
        );
    }
    let workspace = read("Cargo.toml");
    for lint in ["unsafe_code = \"forbid\"", "unwrap_used = \"warn\""] {
        assert!(workspace.contains(lint), "the workspace lost {lint}");
    }
}

/// The compiler forbids it where the lints are taken; this also sees build scripts and fuzz targets.
#[test]
fn there_is_no_unsafe_code_of_ours() {
    let forms = ["{", "fn ", "impl ", "extern ", "trait "].map(|after| format!("{UNSAFE} {after}"));
    for file in tree().iter().filter(|file| is(file, &["rs"])) {
        for (number, line) in numbered(&read(file)) {
            let code = line.split("//").next().unwrap_or_default();
            let found = forms.iter().any(|form| code.contains(form.as_str()))
                || code.contains(&format!("#[{UNSAFE}("))
                || code.contains(&format!("({UNSAFE}_code"));
            assert!(!found, "{file}:{number}: {line}");
        }
    }
}

#[test]
fn a_migration_is_never_edited_and_none_is_forgotten() {
    let found: Vec<(String, String)> = tree()
        .iter()
        .filter(|file| is(file, &["sql"]))
        .map(|file| (file.clone(), sha256(&fs::read(root().join(file)).unwrap())))
        .collect();
    let listed: Vec<(String, String)> = MIGRATIONS
        .iter()
        .map(|(file, hash)| ((*file).to_owned(), (*hash).to_owned()))
        .collect();
    assert_eq!(
        found, listed,
        "a released migration stays as it is: write the next one and list its hash here"
    );
    let mind: Vec<String> = skytale_agent::MIGRATIONS
        .iter()
        .map(|(name, sql)| format!("{name} {}", sha256(sql.as_bytes())))
        .collect();
    let on_disk: Vec<String> = MIGRATIONS
        .iter()
        .filter_map(|(file, hash)| {
            let name = file.strip_prefix("crates/agent/src/migrations/")?;
            Some(format!("{name} {hash}"))
        })
        .collect();
    assert_eq!(mind, on_disk, "the mind does not apply every migration");
}

/// `agent` may not lean on `shape` and repeats its rule. If the two drifted apart, each message
/// would travel in a cell of twice the size and tell its class twice.
#[test]
fn plaintext_is_padded_to_what_is_left_of_a_cell() {
    use skytale_shape::bucket;

    assert_eq!(skytale_agent::SEALED_OVERHEAD, bucket::SEALED_OVERHEAD_MAX);
    for len in 0..=300_000 {
        assert_eq!(
            skytale_agent::padded_len(len),
            bucket::plaintext_len(len),
            "{len}"
        );
    }
}

#[test]
fn nothing_in_the_tree_depends_on_one_machine() {
    let needles = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
        concat!("crates", ".io"),
        concat!("pypi", ".org"),
        concat!("npmjs", ".com"),
        concat!("docker", ".io"),
        concat!("..", "/shared"),
    ];
    // A person's home in a test of the environment is nobody's machine.
    let alice = concat!("/ho", "me/alice");
    // The RFC's vectors are too large for the tree: where they usually lie, and what their
    // absence means, stands in that test.
    let vectors = "crates/agent/tests/mls_vectors.rs";
    for file in tree() {
        if file == "Cargo.lock" || !is(file, TEXTS) && has_extension(file) {
            continue;
        }
        for (number, line) in numbered(&read(file)) {
            let line = line.replace(alice, "");
            for needle in needles {
                let excused = file == vectors && needle.contains("shared");
                assert!(
                    excused || !line.contains(needle),
                    "{file}:{number} names {needle}"
                );
            }
        }
    }
}

/// A document that names a test promises that it is there.
#[test]
fn documents_point_at_tests_that_exist() {
    for file in tree().iter().filter(|file| is(file, &["md"])) {
        for (number, line) in numbered(&read(file)) {
            for held in holders(&line) {
                assert!(exists(&held), "{file}:{number}: `{held}` is not there");
            }
        }
    }
}

/// What the README shows compiles, because it is taken from what compiles.
#[test]
fn the_readme_shows_lines_of_the_example() {
    let readme = read("README.md");
    let example = read("crates/sdk/examples/two_agents.rs");
    let shown = readme.split("```rust\n").nth(1).unwrap_or_default();
    let shown = shown.split("```").next().unwrap_or_default();
    let lines: Vec<&str> = shown.lines().map(str::trim).collect();
    assert!(lines.len() >= 10, "the README has lost its example");
    for line in lines {
        assert!(
            example.lines().any(|known| known.trim() == line),
            "not in the example: {line}"
        );
    }
}

/// Each attack of the list is in it once, and says by which test it is held or that it is by none.
#[test]
fn every_attack_names_what_holds_it() {
    let text = read("docs/attacks.md");
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("| A"))
        .collect();
    let names: Vec<&str> = rows
        .iter()
        .filter_map(|row| row.split('|').nth(1).map(str::trim))
        .collect();
    let all: Vec<String> = (1..=34).map(|number| format!("A{number}")).collect();
    assert_eq!(names, all);
    for row in rows {
        let cells: Vec<&str> = row.split('|').collect();
        assert_eq!(cells.len(), 6, "{row}");
        let is_held = !holders(cells[3]).is_empty();
        assert!(is_held || cells[3].trim() == "nothing", "{row}");
        assert!(is_held || !cells[4].trim().is_empty(), "why not? {row}");
    }
}

#[test]
fn every_invariant_and_every_claim_names_what_holds_it() {
    for (file, heading, least) in [
        ("ARCHITECTURE.md", "## Invariants", 10),
        ("docs/security.md", "## Claims", 10),
    ] {
        let text = read(file);
        let section = text
            .split(&format!("{heading}\n"))
            .nth(1)
            .unwrap_or_else(|| panic!("{file} has no section {heading:?}"));
        let section = section.split("\n## ").next().unwrap_or_default();
        let rows: Vec<&str> = section
            .lines()
            .filter(|line| line.starts_with("| **"))
            .collect();
        assert!(rows.len() >= least, "{file} has lost its rows");
        for row in rows {
            assert!(!holders(row).is_empty(), "{file}: nothing holds {row}");
        }
    }
}

// ----- what the tests above ask --------------------------------------------------------------

/// The packages of this workspace, as cargo sees them.
fn packages() -> &'static [Value] {
    static PACKAGES: LazyLock<Vec<Value>> = LazyLock::new(|| {
        let text = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
        let metadata: Value = serde_json::from_str(&text).unwrap();
        metadata["packages"].as_array().unwrap().clone()
    });
    &PACKAGES
}

/// Names and kinds (`normal`, `dev`, `build`) of what a package declares.
fn dependencies(package: &Value) -> impl Iterator<Item = (&str, &str)> {
    let all = package["dependencies"].as_array().unwrap();
    all.iter().map(|dependency| {
        let kind = dependency["kind"].as_str().unwrap_or("normal");
        (dependency["name"].as_str().unwrap(), kind)
    })
}

/// Everything that goes into a crate's library on this platform, one package a line.
fn built_from(name: &str) -> String {
    cargo(&[
        "tree",
        "--offline",
        "--package",
        name,
        "--edges",
        "normal,build",
        "--prefix",
        "none",
    ])
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn is_mls(name: &str) -> bool {
    name.starts_with("openmls") || name.starts_with("mls-rs") || name.starts_with("mls_rs")
}

/// Every file of the project, from the root, sorted; nothing that a build or git has made.
fn tree() -> &'static [String] {
    static TREE: LazyLock<Vec<String>> = LazyLock::new(|| {
        let mut files = Vec::new();
        let mut rooms = vec![root()];
        while let Some(room) = rooms.pop() {
            for entry in fs::read_dir(room).unwrap() {
                let entry = entry.unwrap();
                let kind = entry.file_type().unwrap();
                let name = entry.file_name().into_string().unwrap();
                if kind.is_dir() && !["target", ".git"].contains(&name.as_str()) {
                    rooms.push(entry.path());
                } else if kind.is_file() && name != ".git" {
                    let path = entry.path();
                    let path = path.strip_prefix(root()).unwrap();
                    files.push(path.to_str().unwrap().to_owned());
                }
            }
        }
        files.sort();
        files
    });
    &TREE
}

fn root() -> PathBuf {
    let here = skytale_tests::here();
    here.parent().unwrap().to_owned()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn is(file: &str, extensions: &[&str]) -> bool {
    let extension = Path::new(file).extension().unwrap_or_default();
    extensions.iter().any(|known| extension == *known)
}

fn has_extension(file: &str) -> bool {
    Path::new(file).extension().is_some()
}

/// Crates by which a program calls others over HTTP.
const HTTP_CLIENTS: &[&str] = &["reqwest", "ureq", "isahc", "attohttpc", "curl", "awc"];

/// Where secrets of the API server are held, and tokens are signed.
const SECRETS: &[(&str, &str)] = &[
    ("crates/wire/src/http.rs", "Secret"),
    ("crates/wire/src/token.rs", "Signer"),
    ("crates/api/src/secret.rs", "ApiKey"),
    ("crates/api/src/secret.rs", "Hashed"),
    ("crates/api/src/secret.rs", "Hasher"),
    ("crates/api/src/once.rs", "Secrets"),
    ("crates/api/src/once.rs", "Secret"),
    ("crates/api/src/signing.rs", "Ring"),
    ("crates/api/src/database_url.rs", "DatabaseUrl"),
    ("crates/api/src/database_url.rs", "Parts"),
];

/// Written so that this file does not find itself.
const UNSAFE: &str = concat!("un", "safe");

/// Files whose lines are read, besides those without an extension: scripts, mostly.
const TEXTS: &[&str] = &[
    "rs", "md", "toml", "sql", "sh", "py", "yml", "yaml", "patch",
];

fn numbered(text: &str) -> Vec<(usize, String)> {
    (1..).zip(text.lines().map(str::to_owned)).collect()
}

/// What stands in backticks and has the form `path::name`: a test, or a line in a settings file.
fn holders(line: &str) -> Vec<String> {
    line.split('`')
        .skip(1)
        .step_by(2)
        .filter(|span| {
            let path = span.split("::").next().unwrap_or_default();
            span.contains("::") && is(path, &["rs", "toml"])
        })
        .map(str::to_owned)
        .collect()
}

/// A test by that name, or a check that something calls; in a settings file, that text.
fn exists(held: &str) -> bool {
    let (path, name) = held.split_once("::").unwrap();
    let Ok(text) = fs::read_to_string(root().join(path)) else {
        return false;
    };
    if !is(path, &["rs"]) {
        return text.contains(name);
    }
    let defined = ["(", "<"].map(|after| format!("fn {name}{after}"));
    let Some(at) = defined.iter().find_map(|form| text.find(form.as_str())) else {
        return false;
    };
    // Attributes stand directly above.
    let (before, after) = text.split_at(at);
    let attributes = before.rsplit("\n\n").next().unwrap_or_default();
    let is_test = attributes.contains("#[test]") || attributes.contains("#[tokio::test");
    let call = format!("{name}(");
    let is_called = before.contains(&call) || after.matches(&call).count() > 1;
    is_test || is_called
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}
