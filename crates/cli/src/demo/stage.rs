//! The demo's processes: this very program, run as servers and as agents, each person with a data
//! directory of its own. No process outlives the stage.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::{Output as Finished, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};
use zeroize::Zeroizing;

use super::Step;

/// Somebody in the demo.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) name: &'static str,
    /// Shares the configuration directory that `up` wrote its context into.
    account: bool,
}

impl Person {
    pub(super) const fn with_account(name: &'static str) -> Self {
        Self {
            name,
            account: true,
        }
    }

    pub(super) const fn guest(name: &'static str) -> Self {
        Self {
            name,
            account: false,
        }
    }
}

/// Where the demo plays.
pub(super) struct Stage {
    exe: PathBuf,
    dir: PathBuf,
    servers: Option<Child>,
    /// The addresses of the first start, which a restart takes again.
    addresses: Option<[String; 3]>,
    ids: BTreeMap<&'static str, String>,
}

/// What a command left.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Ran {
    /// The last thing that it said, in short.
    pub(super) fn why(&self) -> &str {
        let last = self.stderr.trim().lines().last().unwrap_or_default();
        let said = last.strip_prefix("skytale: ").unwrap_or(last);
        // What comes after a colon explains; here there is room for the fact.
        said.split(": ").next().unwrap_or(said)
    }
}

impl Stage {
    pub(super) fn new(dir: PathBuf) -> Step<Self> {
        let exe = std::env::current_exe()
            .map_err(|error| format!("this program cannot find itself: {}", error.kind()))?;
        Ok(Self {
            exe,
            dir,
            servers: None,
            addresses: None,
            ids: BTreeMap::new(),
        })
    }

    /// Starts API server and relay: on free ports at first, later on the same ones.
    pub(super) async fn start_servers(&mut self) -> Step<()> {
        let [api, relay, health] = self
            .addresses
            .clone()
            .unwrap_or_else(|| std::array::from_fn(|_| "127.0.0.1:0".to_owned()));
        let data = self.dir.join("servers");
        let mut command = self.command(&data, &self.account_config());
        command.args(["up", "--json", "--quiet"]);
        command.args(["--api-addr", &api, "--relay-addr", &relay]);
        command.args(["--health-addr", &health, "--grpc-addr", "127.0.0.1:0"]);
        let mut child = command
            .spawn()
            .map_err(|error| format!("the servers do not start: {}", error.kind()))?;
        let stdout = child.stdout.take().ok_or("the servers have no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(COMMAND_MAX, lines.next_line()).await;
        let Ok(Ok(Some(line))) = line else {
            return Err(format!("the servers did not start: {}", said(child).await));
        };
        let line = parse(&line)?;
        let address = |value: &Value| {
            let text = value.as_str().unwrap_or_default();
            let text = text.rsplit_once('@').map_or(text, |(_, address)| address);
            text.trim_start_matches("http://").to_owned()
        };
        let addresses = ["api", "relay", "health"].map(|part| address(&line[part]));
        self.addresses = Some(addresses);
        self.servers = Some(child);
        Ok(())
    }

    /// As a power cut would end them.
    pub(super) async fn kill_servers(&mut self) {
        if let Some(mut servers) = self.servers.take() {
            // It has ended by itself already, which the next check will notice.
            let _ = servers.kill().await;
        }
    }

    /// As an operator would end them; says whether they ended well.
    pub(super) async fn stop_servers(&mut self) -> Step<bool> {
        let Some(mut servers) = self.servers.take() else {
            return Ok(false);
        };
        let pid = servers.id().ok_or("the servers have ended by themselves")?;
        // The standard library knows no signal but the hardest.
        let asked = Command::new("sh")
            .args(["-c", "kill -TERM \"$0\"", &pid.to_string()])
            .status()
            .await;
        if !asked.is_ok_and(|status| status.success()) {
            let _ = servers.kill().await;
            return Err("the servers could not be told to stop".to_owned());
        }
        let Ok(ended) = timeout(STOP_MAX, servers.wait()).await else {
            let _ = servers.kill().await;
            return Ok(false);
        };
        Ok(ended.is_ok_and(|status| status.success()))
    }

    /// Nothing of the demo runs after this.
    pub(super) async fn end(&mut self) {
        self.kill_servers().await;
    }

    /// Runs a command to its end; it must succeed.
    pub(super) async fn run(
        &mut self,
        who: &Person,
        arguments: &[&str],
        stdin: Option<&str>,
    ) -> Step<Ran> {
        let ran = self.try_run(who, arguments, stdin).await?;
        if ran.code != 0 {
            let what = arguments.first().copied().unwrap_or_default();
            return Err(format!(
                "{}'s `skytale {what}` exited {}: {}",
                who.name,
                ran.code,
                ran.stderr.trim()
            ));
        }
        if let Ok(value) = parse(&ran.stdout)
            && let Some(id) = value["id"].as_str().filter(|id| id.starts_with("agt_"))
        {
            self.ids.insert(who.name, id.to_owned());
        }
        Ok(ran)
    }

    /// Runs a command to its end, whatever that is.
    pub(super) async fn try_run(
        &self,
        who: &Person,
        arguments: &[&str],
        stdin: Option<&str>,
    ) -> Step<Ran> {
        let running = self.begin(who, arguments, stdin.unwrap_or_default())?;
        let Finished {
            status,
            stdout,
            stderr,
        } = running.wait().await?;
        Ok(Ran {
            code: status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }

    /// Starts a command and lets it run.
    pub(super) fn begin(&self, who: &Person, arguments: &[&str], stdin: &str) -> Step<Running> {
        let config = if who.account {
            self.account_config()
        } else {
            self.dir.join(who.name).join("config")
        };
        let mut command = self.command(&self.data_of(who), &config);
        command.args(arguments).args(["--as", who.name]);
        let mut child = command
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|error| format!("a command does not start: {}", error.kind()))?;
        let mut input = child.stdin.take().ok_or("a command has no stdin")?;
        let text = stdin.as_bytes().to_vec();
        tokio::spawn(async move {
            // A command that does not read has ended; its exit code says why.
            let _ = input.write_all(&text).await;
        });
        let what = arguments.first().copied().unwrap_or_default();
        Ok(Running {
            what: format!("{}'s `skytale {what}`", who.name),
            child,
            lines: None,
        })
    }

    /// This program with nothing of our environment but the way to its directories.
    fn command(&self, data: &Path, config: &Path) -> Command {
        let mut command = Command::new(&self.exe);
        command
            .env_clear()
            .env("SKYTALE_DATA_DIR", data)
            .env("SKYTALE_CONFIG_DIR", config)
            // Shown in a minute, and on this machine alone.
            .env("SKYTALE_TRAFFIC", "padded")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// A copy of all that a person's agent has.
    pub(super) fn copy_of(&self, who: &Person) -> Step<PathBuf> {
        let failed = |error: io::Error| format!("the vault is not copied: {}", error.kind());
        let copy = self.dir.join("copy").join(who.name);
        fs::create_dir_all(&copy).map_err(failed)?;
        let from = self.data_of(who).join("agents").join(who.name);
        for entry in fs::read_dir(from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_file() {
                fs::copy(entry.path(), copy.join(entry.file_name())).map_err(failed)?;
            }
        }
        Ok(copy)
    }

    /// What opens a guest's vault.
    pub(super) fn vault_key(&self, who: &Person) -> Step<Zeroizing<String>> {
        let file = self.dir.join(who.name).join("config").join("vault.key");
        fs::read_to_string(file)
            .map(Zeroizing::new)
            .map_err(|error| format!("{} has no vault key: {}", who.name, error.kind()))
    }

    /// The id that a person's last `whoami` printed.
    pub(super) fn id_noted(&self, who: &Person) -> Option<String> {
        self.ids.get(who.name).cloned()
    }

    pub(super) fn server_dir(&self) -> PathBuf {
        self.dir.join("servers").join("server")
    }

    pub(super) fn relay_dir(&self) -> PathBuf {
        self.server_dir().join("relay")
    }

    fn data_of(&self, who: &Person) -> PathBuf {
        self.dir.join(who.name).join("data")
    }

    fn account_config(&self) -> PathBuf {
        self.dir.join("config")
    }
}

/// A command that has been started. Dropped, it is killed.
pub(super) struct Running {
    what: String,
    child: Child,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Running {
    /// The next line that it prints.
    pub(super) async fn line(&mut self) -> Step<String> {
        if self.lines.is_none() {
            let stdout = self.child.stdout.take().ok_or("a command has no stdout")?;
            self.lines = Some(BufReader::new(stdout).lines());
        }
        let lines = self.lines.as_mut().ok_or("a command has no stdout")?;
        match timeout(COMMAND_MAX, lines.next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(Ok(None) | Err(_)) | Err(_) => Err(format!("{} printed nothing", self.what)),
        }
    }

    /// Without a warning.
    pub(super) async fn kill(mut self) {
        let _ = self.child.kill().await;
    }

    /// Its stdout, once it has ended well.
    pub(super) async fn finish(self) -> Step<String> {
        let what = self.what.clone();
        let finished = self.wait().await?;
        if finished.status.success() {
            return Ok(String::from_utf8_lossy(&finished.stdout).into_owned());
        }
        let why = String::from_utf8_lossy(&finished.stderr);
        Err(format!("{what} failed: {}", why.trim()))
    }

    async fn wait(self) -> Step<Finished> {
        match timeout(COMMAND_MAX, self.child.wait_with_output()).await {
            Ok(Ok(finished)) => Ok(finished),
            Ok(Err(error)) => Err(format!("{}: {}", self.what, error.kind())),
            Err(_) => Err(format!("{} did not end", self.what)),
        }
    }
}

/// Removes the demo's directory. A process that was killed a moment ago may still have been
/// writing into it, so this is tried more than once.
pub(super) async fn remove(dir: TempDir) -> io::Result<()> {
    let path = dir.keep();
    let mut tries = 0;
    loop {
        match fs::remove_dir_all(&path) {
            Err(error) if tries == REMOVE_TRIES => return Err(error),
            Err(_) => tokio::time::sleep(REMOVE_PAUSE).await,
            Ok(()) => return Ok(()),
        }
        tries += 1;
    }
}

/// The one JSON value that a command printed.
pub(super) fn json(ran: &(impl AsRef<str> + ?Sized)) -> Step<Value> {
    parse(ran.as_ref())
}

/// The JSON lines that a command printed.
pub(super) fn json_lines(stdout: &str) -> Step<Vec<Value>> {
    stdout.lines().map(parse).collect()
}

impl AsRef<str> for Ran {
    fn as_ref(&self) -> &str {
        &self.stdout
    }
}

fn parse(text: &str) -> Step<Value> {
    serde_json::from_str(text.trim()).map_err(|_| "a command printed no JSON".to_owned())
}

/// Why a server ended.
async fn said(mut child: Child) -> String {
    let _ = child.kill().await;
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = stderr.read_to_string(&mut text).await;
    }
    text.trim().to_owned()
}

/// A command that takes longer has hung.
const COMMAND_MAX: Duration = Duration::from_secs(40);
const REMOVE_TRIES: u32 = 20;
const REMOVE_PAUSE: Duration = Duration::from_millis(50);
/// How long the servers may take to end: what they promise, and a little.
const STOP_MAX: Duration = Duration::from_secs(11);
