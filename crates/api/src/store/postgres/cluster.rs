//! A real Postgres server for tests, from the programs that are installed: in a directory of its
//! own, on loopback and a socket, without anything of the machine's own servers.
//!
//! It leans on nothing else in this crate, so that other tests take this very file.
//!
//! Whatever happens to the test, nothing stays: a guard process waits for the end of its stdin,
//! which the system closes when the test's process is gone, and then stops the server and removes
//! the directory.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// A running server. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    dir: PathBuf,
    programs: PathBuf,
    port: u16,
    guard: Child,
}

/// An empty database of its own.
#[derive(Debug)]
pub(crate) struct Database {
    /// By TCP, with the password.
    pub(crate) url: String,
    /// By the socket, without one.
    pub(crate) socket_url: String,
    pub(crate) name: String,
}

/// What stands in the URLs, and is asked for by TCP.
pub(crate) const PASSWORD: &str = "needle-in-a-url";

impl Cluster {
    /// The one that the tests of a process share; its guard ends it with the process.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// One that a test may stop.
    pub(crate) fn start() -> Self {
        let programs = programs();
        let dir = tempfile::Builder::new()
            .prefix("skytale-pg-")
            .tempdir()
            .unwrap()
            .keep();
        // Made by initdb's user, and only ever read by this one if it is root.
        own(&dir);
        let guard = guard(&dir);
        let mut cluster = Self {
            dir,
            programs,
            port: 0,
            guard,
        };
        cluster.make();
        // Between finding a port free and listening on it another program may take it.
        for _ in 0..PORTS_TRIED {
            cluster.port = free_port();
            if cluster.try_listen() {
                return cluster;
            }
        }
        panic!("Postgres does not start: {}", cluster.log());
    }

    /// A database that nobody else uses.
    pub(crate) fn database(&self) -> Database {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", MADE.fetch_add(1, Ordering::Relaxed));
        self.sql(
            "postgres",
            &format!("CREATE DATABASE {name} TEMPLATE template0"),
        );
        let (port, dir) = (
            self.port,
            self.dir.display().to_string().replace('/', "%2F"),
        );
        Database {
            url: format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/{name}"),
            socket_url: format!("postgres://{USER}@{dir}:{port}/{name}"),
            name,
        }
    }

    /// Runs SQL as the server's owner, and gives what it printed.
    pub(crate) fn ask(&self, database: &Database, sql: &str) -> String {
        self.sql(&database.name, sql)
    }

    /// Ends the server without letting it tidy up; its port and data stay.
    pub(crate) fn stop_hard(&self) {
        let stopped = self.pg_ctl(&["stop", "--mode=immediate", "--wait", "--timeout=60"]);
        assert!(stopped.status.success(), "{stopped:?} {}", self.log());
    }

    /// Starts it again where it was.
    pub(crate) fn start_again(&self) {
        assert!(self.try_listen(), "not started again: {}", self.log());
    }

    /// Starts it again with this certificate and its key.
    pub(crate) fn speak_tls(&self, certificate: &str, key: &str) {
        self.stop_hard();
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let file = self.data().join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            own(&file);
        }
        self.start_again();
    }

    /// Stops every process of the server where it is, without ending it.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    fn make(&self) {
        let password = self.dir.join("password");
        fs::write(&password, PASSWORD).unwrap();
        own(&password);
        let made = output(
            self.as_owner("initdb")
                .arg("--pgdata")
                .arg(self.data())
                .args(["--username", USER, "--encoding=UTF8", "--locale=C"])
                .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
                .arg("--pwfile")
                .arg(password)
                .arg("--no-sync"),
        );
        assert!(made.status.success(), "initdb: {made:?}");
    }

    fn try_listen(&self) -> bool {
        let tls = self.data().join("server.crt").exists();
        let settings = format!(
            "ssl = {tls}\nlisten_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\n\
             max_connections = 60\nlogging_collector = off\n",
            self.port,
            self.dir.display()
        );
        fs::write(self.data().join("postgresql.auto.conf"), settings).unwrap();
        let log = self.dir.join("log");
        let started = self.pg_ctl(&[
            "start",
            "--wait",
            "--timeout=60",
            "--silent",
            "--log",
            log.to_str().unwrap(),
        ]);
        started.status.success()
    }

    fn pg_ctl(&self, arguments: &[&str]) -> Output {
        output(
            self.as_owner("pg_ctl")
                .arg("--pgdata")
                .arg(self.data())
                .args(arguments),
        )
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        let ran = output(
            Command::new(self.programs.join("psql"))
                .args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet"])
                .args(["--set", "ON_ERROR_STOP=1", "--username", USER])
                .args(["--port", &self.port.to_string(), "--dbname", database])
                .arg("--host")
                .arg(&self.dir)
                .args(["--command", sql]),
        );
        assert!(ran.status.success(), "{sql}: {ran:?}");
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    }

    /// First the one that makes new processes, then those there are.
    fn signal(&self, name: &str) {
        let sent = output(
            Command::new("sh")
                .args(["-c", SIGNAL, "sh", name])
                .arg(self.data().join("postmaster.pid")),
        );
        assert!(sent.status.success(), "{sent:?}");
    }

    /// Postgres does not run as root, so then another user runs it.
    fn as_owner(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = match owner() {
            None => Command::new(program),
            Some(owner) => {
                let mut command = Command::new("runuser");
                command.args(["-u", owner, "--"]).arg(program);
                command
            }
        };
        command.current_dir(&self.dir);
        command
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Where the server's programs lie: Debian keeps them out of `PATH`.
fn programs() -> PathBuf {
    let asked = Command::new("pg_config").arg("--bindir").output();
    let configured = asked.ok().map(|said| {
        let path = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        PathBuf::from(path)
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut newest: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    newest.sort();
    configured
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(newest.into_iter().rev().map(|(_, dir)| dir))
        // A link in PATH does not lead to the files beside the program.
        .filter_map(|dir| fs::canonicalize(dir.join("initdb")).ok())
        .filter_map(|program| program.parent().map(Path::to_owned))
        .find(|dir| NEEDED.iter().all(|program| dir.join(program).is_file()))
        .unwrap_or_else(|| {
            panic!(
                "these tests start a Postgres server of their own, and its programs ({NEEDED:?}) \
                 are not installed: install them (Debian: postgresql, Fedora: postgresql-server \
                 and postgresql)"
            )
        })
}

/// Who runs the server when the tests run as root.
fn owner() -> Option<&'static str> {
    static OWNER: OnceLock<Option<&'static str>> = OnceLock::new();
    *OWNER.get_or_init(|| {
        let id = |arguments: &[&str]| {
            let said = Command::new("id").args(arguments).output().ok()?;
            let said = said.status.success().then_some(said.stdout)?;
            String::from_utf8(said).ok()
        };
        let is_root = id(&["-u"]).is_some_and(|id| id.trim() == "0");
        let known = |name: &&str| id(&["-u", name]).is_some();
        is_root.then(|| {
            ["postgres", "nobody"]
                .into_iter()
                .find(known)
                .expect("there is a user postgres or nobody")
        })
    })
}

fn own(path: &Path) {
    if let Some(owner) = owner() {
        let given = output(Command::new("chown").arg(owner).arg(path));
        assert!(given.status.success(), "{given:?}");
    }
}

/// Its own process group, so that what ends the tests by a signal does not end it too.
fn guard(dir: &Path) -> Child {
    Command::new("sh")
        .args(["-c", GUARD, "sh"])
        .arg(dir)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn output(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .env_remove("PGOPTIONS")
        .output()
        .unwrap()
}

/// Below the ports that systems hand out by themselves, so that nobody takes it by chance while the
/// server is stopped.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 15_000 + (std::process::id().wrapping_mul(7) + step) % 15_000;
        let port = u16::try_from(port).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

const USER: &str = "alice";
const NEEDED: [&str; 4] = ["initdb", "pg_ctl", "postgres", "psql"];
const PORTS_TRIED: usize = 5;

/// The postmaster's number stands in the first line of its file; its children are asked for after it
/// was stopped, when there can be no new ones.
const SIGNAL: &str = r#"
main=$(head -n 1 "$2") || exit 1
kill -s "$1" "$main" || exit 1
for child in $(ps -A -o pid= -o ppid= | awk -v main="$main" '$2 == main { print $1 }'); do
    kill -s "$1" "$child" 2>/dev/null
done
exit 0
"#;

/// Waits for the end of stdin, then stops the server (QUIT: at once) and removes its directory.
const GUARD: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
main=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
family() {
    ps -A -o pid= -o ppid= | awk -v main="$main" '$1 == main || $2 == main { print $1 }'
}
if [ -n "$main" ]; then
    kill -s CONT $(family)
    kill -s QUIT "$main"
    waited=0
    while kill -0 "$main" 2>/dev/null && [ $waited -lt 100 ]; do
        sleep 0.1
        waited=$((waited + 1))
    done
    kill -0 "$main" 2>/dev/null && kill -s KILL $(family)
fi
rm -rf "$1"
"#;
