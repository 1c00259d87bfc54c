//! `skytale demo`: the whole of it, tried on this machine, in a directory of its own.
//!
//! A relay and three agents, each command a process of its own with its own data directory, talk
//! over real QUIC; processes are killed in the middle. At the end, what the agents read is laid
//! beside what the relay has stored, and every promise that was looked at is listed. This file
//! tells the story; how its processes are run is in `demo/stage.rs`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;
use skytale_sdk::{VaultKey, audit};
use skytale_wire::id::Seq;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args,
    dump::{self, Stored},
    exit::Failure,
    output::Output,
};

use self::{
    hidden::Hidden,
    stage::{Person, Stage},
};

mod hidden;
mod stage;

/// What was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
}

/// A message of the story.
#[derive(Debug, Serialize)]
struct Told {
    seq: u64,
    by: &'static str,
    text: &'static str,
    read_by: Vec<&'static str>,
}

/// A record as the relay has it.
#[derive(Debug, Serialize)]
struct Kept {
    seq: u64,
    kind: &'static str,
    epoch: u64,
    agent: String,
    bytes: usize,
    ends: String,
}

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
    messages: Vec<Told>,
    relay: Vec<Kept>,
    /// What a line with a schedule carried; missing where the story ended before.
    #[serde(skip_serializing_if = "Option::is_none")]
    hidden: Option<Hidden>,
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<PathBuf>,
}

/// A step that could not be done ends the story; the sentence says which and why.
type Step<T> = Result<T, String>;

/// Plays it.
pub(crate) async fn run(wish: &args::Demo, output: Output) -> Result<(), Failure> {
    let dir = tempfile::Builder::new().prefix("skytale-demo-").tempdir()?;
    let mut story = Story {
        stage: Stage::new(dir.path().to_owned()).map_err(Failure::failed)?,
        output,
        checks: Vec::new(),
        told: Vec::new(),
        kept: Vec::new(),
        hidden: None,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let played = tokio::select! {
        played = tokio::time::timeout(DEMO_MAX, story.play()) => {
            played.unwrap_or_else(|_| Err(format!("not finished in {} s", DEMO_MAX.as_secs())))
        }
        _ = terminate.recv() => Err("interrupted".to_owned()),
        _ = interrupt.recv() => Err("interrupted".to_owned()),
    };
    story.stage.end().await;
    if let Err(why) = played {
        story.check("the demo ran to its end", false, why);
    }
    let directory = if wish.keep {
        Some(dir.keep())
    } else {
        stage::remove(dir).await?;
        None
    };
    let report = Report {
        ok: story.checks.iter().all(|check| check.ok),
        checks: story.checks,
        messages: story.told,
        relay: story.kept,
        hidden: story.hidden,
        directory,
    };
    output.result(&report, || described(&report, output))?;
    if report.ok {
        Ok(())
    } else {
        Err(Failure::failed("a check failed: see the list"))
    }
}

struct Story {
    stage: Stage,
    output: Output,
    checks: Vec<Check>,
    told: Vec<Told>,
    kept: Vec<Kept>,
    hidden: Option<Hidden>,
}

impl Story {
    async fn play(&mut self) -> Step<()> {
        self.say("starting API server and relay");
        self.stage.start_servers().await?;
        let reviewer = self.id_of(&REVIEWER).await?;
        self.meet().await?;
        self.talk().await?;
        self.kill_an_agent().await?;
        self.kill_the_relay().await?;
        self.rotate().await?;
        self.add_one_who_is_away(&reviewer).await?;
        let (control, copy) = self.before_the_removal().await?;
        self.remove().await?;
        self.hide().await?;

        self.say("stopping the servers and opening the relay's archive");
        let ended = self.stage.stop_servers().await?;
        self.check(
            "the servers end in good order",
            ended,
            "after SIGTERM, within ten seconds".to_owned(),
        );
        let relay_dir = self.stage.relay_dir();
        let stored = tokio::task::spawn_blocking(move || dump::records(&relay_dir))
            .await
            .map_err(|_| "reading the archive was interrupted".to_owned())?
            .map_err(|failure| failure.to_string())?;
        self.give_the_archive_to_the_removed(&copy, control, &stored)?;
        self.search_the_relays_files(&stored)?;
        self.kept = stored.iter().map(kept).collect();
        Ok(())
    }

    /// Two agents come together; one of them has no account, only the invite.
    async fn meet(&mut self) -> Step<()> {
        self.say("planner opens a channel and invites coder, who has no account");
        self.ran(&PLANNER, &["open", CHANNEL]).await?;
        let invite = self.stage.run(&PLANNER, &["invite", CHANNEL], None).await?;
        let line = invite.stdout.trim();
        self.check(
            "an invite is one line and nothing else",
            line.starts_with("skt_inv_") && !line.contains('\n'),
            format!("{} characters", line.len()),
        );
        let line = line.to_owned();
        let joined = self.ran(&CODER, &["join", &line]).await?;
        let words = self.ran(&PLANNER, &["words", CHANNEL]).await?;
        self.check(
            "an agent without an account joins by the invite alone",
            joined["members"] == 2,
            format!("{} members", joined["members"]),
        );
        self.check(
            "both see the same words",
            joined["words"] == words["words"] && joined["words"].is_string(),
            text(&joined["words"]),
        );
        let again = self
            .stage
            .try_run(&OUTSIDER, &["join", &line], None)
            .await?;
        self.check(
            "the invite works once",
            again.code == 4,
            format!("a second use exits {}: {}", again.code, again.why()),
        );
        Ok(())
    }

    async fn talk(&mut self) -> Step<()> {
        self.say("they talk, in both directions");
        self.tell(&CODER, "ready").await?;
        let read = self.read(&PLANNER, &["--wait", "20"]).await?;
        let coder = self.id_of(&CODER).await?;
        let first = read.first().cloned().unwrap_or_default();
        self.check(
            "a message arrives with its sender's proven id",
            first["text"] == "ready" && first["sender"] == coder.as_str(),
            format!(
                "{}… calls itself {}",
                short(&first["sender"]),
                text(&first["label"])
            ),
        );
        self.tell(
            &PLANNER,
            "Please build the release branch and run all tests.",
        )
        .await?;
        let read = self.read(&CODER, &["--wait", "20"]).await?;
        self.check(
            "the other way too",
            texts(&read) == ["Please build the release branch and run all tests."],
            format!("{} message", read.len()),
        );

        let question = "Is the build green?";
        let answer = "Green, 312 tests.";
        let asking = self.stage.begin(
            &PLANNER,
            &["ask", CHANNEL, "--json", "--timeout", "30"],
            question,
        )?;
        let asked = self.read(&CODER, &["--wait", "20"]).await?;
        let id = asked
            .first()
            .map(|message| text(&message["id"]))
            .unwrap_or_default();
        let seq = asked.first().and_then(|message| message["seq"].as_u64());
        self.told.push(Told {
            seq: seq.unwrap_or_default(),
            by: PLANNER.name,
            text: question,
            read_by: vec![CODER.name],
        });
        let sent = self
            .stage
            .run(
                &CODER,
                &["send", CHANNEL, "--reply-to", &id, "--json"],
                Some(answer),
            )
            .await?;
        let reply = stage::json_lines(&asking.finish().await?)?;
        let reply = reply.first().cloned().unwrap_or_default();
        self.told.push(Told {
            seq: stage::json(&sent)?["seq"].as_u64().unwrap_or_default(),
            by: CODER.name,
            text: answer,
            read_by: vec![PLANNER.name],
        });
        self.check(
            "a question finds its answer",
            reply["text"] == answer && reply["in_reply_to"] == id.as_str(),
            text(&reply["text"]),
        );
        // The answer was looked at, not taken: planner's inbox still has it.
        self.read(&PLANNER, &[]).await?;
        Ok(())
    }

    async fn kill_an_agent(&mut self) -> Step<()> {
        self.say("coder is killed while it reads, and comes back");
        let mut reading = self
            .stage
            .begin(&CODER, &["read", CHANNEL, "--follow", "--json"], "")?;
        self.tell(&PLANNER, "First of two.").await?;
        let first = reading.line().await?;
        reading.kill().await;
        self.tell(&PLANNER, "Second of two.").await?;
        let read = self.read(&CODER, &["--wait", "20"]).await?;
        // Killed between writing and acknowledging, it is shown the first one again: never less.
        let first = text(&stage::json(&first)?["text"]);
        let mut seen = BTreeSet::from([first]);
        seen.extend(read.iter().map(|message| text(&message["text"])));
        self.check(
            "a killed agent loses nothing",
            seen == BTreeSet::from(["First of two.".to_owned(), "Second of two.".to_owned()]),
            format!("{} different messages read, before and after", seen.len()),
        );
        self.read_by(CODER.name, &["First of two.", "Second of two."]);
        Ok(())
    }

    async fn kill_the_relay(&mut self) -> Step<()> {
        self.say("the relay is killed, planner sends all the same, the relay comes back");
        self.tell(&PLANNER, "Stored before the relay is killed.")
            .await?;
        self.stage.kill_servers().await;
        let queued = "Sent while the relay is down.";
        let sent = self
            .stage
            .try_run(&PLANNER, &["send", CHANNEL, "--timeout", "1"], Some(queued))
            .await?;
        self.check(
            "a send without a relay is queued, and says so",
            sent.code == 5 && sent.stderr.contains("queued"),
            format!("exits {}: {}", sent.code, sent.why()),
        );
        self.stage.start_servers().await?;
        self.told.push(Told {
            seq: 0,
            by: PLANNER.name,
            text: queued,
            read_by: Vec::new(),
        });
        self.tell(&PLANNER, "Sent after it came back.").await?;
        let expected = [
            "Stored before the relay is killed.",
            queued,
            "Sent after it came back.",
        ];
        let mut read = self.read(&CODER, &["--wait", "20"]).await?;
        if read.len() < expected.len() {
            read.extend(self.read(&CODER, &["--wait", "5"]).await?);
        }
        for message in &read {
            if message["text"] == queued
                && let Some(told) = self.told.iter_mut().find(|told| told.text == queued)
            {
                told.seq = message["seq"].as_u64().unwrap_or_default();
            }
        }
        self.check(
            "a killed relay loses nothing, and order is kept",
            texts(&read) == expected,
            format!("{} of {} messages, in order", read.len(), expected.len()),
        );
        Ok(())
    }

    async fn rotate(&mut self) -> Step<()> {
        self.say("planner rotates its keys");
        let before = self.ran(&CODER, &["words", CHANNEL]).await?;
        let after = self.ran(&PLANNER, &["rotate", CHANNEL]).await?;
        let other = self.ran(&CODER, &["words", CHANNEL]).await?;
        self.check(
            "after a rotation all have new keys, and the same ones",
            after["words"] == other["words"]
                && after["words"] != before["words"]
                && after["epoch"].as_u64() > before["epoch"].as_u64(),
            format!("epoch {} → {}", before["epoch"], after["epoch"]),
        );
        Ok(())
    }

    async fn add_one_who_is_away(&mut self, reviewer: &str) -> Step<()> {
        self.say("planner adds reviewer, who is offline and comes later");
        self.ran(&PLANNER, &["add", CHANNEL, reviewer]).await?;
        self.tell(&PLANNER, "Welcome, reviewer.").await?;
        let joined = self.ran(&REVIEWER, &["accept"]).await?;
        let read = self.read(&REVIEWER, &["--wait", "20"]).await?;
        self.check(
            "an agent added while offline comes in later",
            joined["members"] == 3 && texts(&read) == ["Welcome, reviewer."],
            format!(
                "{} members; it read {}",
                joined["members"],
                texts(&read).join(" ")
            ),
        );
        self.check(
            "it reads nothing from before it was added",
            read.len() == 1,
            format!(
                "{} message read, {} were sent before",
                read.len(),
                self.told.len() - 1
            ),
        );
        self.read(&CODER, &["--wait", "20"]).await?;
        Ok(())
    }

    /// One message that coder could read and does not, and a copy of all that coder has.
    async fn before_the_removal(&mut self) -> Step<(Seq, PathBuf)> {
        self.say("coder's vault is copied: this is what an attacker who removed nothing has");
        let control = self.tell(&PLANNER, "Coder could still read this.").await?;
        self.read(&REVIEWER, &["--wait", "20"]).await?;
        let copy = self.stage.copy_of(&CODER)?;
        Ok((control, copy))
    }

    async fn remove(&mut self) -> Step<()> {
        self.say("planner removes coder; the others go on talking");
        // Not asked again: no process of coder's may run between the copy and the removal.
        let coder = self
            .stage
            .id_noted(&CODER)
            .ok_or("coder's id was not noted")?;
        self.ran(&PLANNER, &["remove", CHANNEL, &coder]).await?;
        self.tell(&PLANNER, "Now we are among ourselves.").await?;
        let read = self.read(&REVIEWER, &["--wait", "20"]).await?;
        self.tell(&REVIEWER, "Good. The plan has changed.").await?;
        let back = self.read(&PLANNER, &["--wait", "20"]).await?;
        self.check(
            "those who stay go on",
            texts(&read) == ["Now we are among ourselves."]
                && texts(&back) == ["Good. The plan has changed."],
            "read in both directions".to_owned(),
        );
        let removed = self
            .stage
            .try_run(&CODER, &["read", CHANNEL, "--json", "--timeout", "5"], None)
            .await?;
        let leaked = LATER.iter().any(|text| removed.stdout.contains(text));
        self.check(
            "the relay gives the removed agent nothing that came later",
            !leaked,
            format!("its read exits {}", removed.code),
        );
        Ok(())
    }

    /// The relay might not keep its word: then the keys must not open anything.
    fn give_the_archive_to_the_removed(
        &mut self,
        copy: &Path,
        control: Seq,
        stored: &[Stored],
    ) -> Step<()> {
        let key = self.stage.vault_key(&CODER)?;
        let key = VaultKey::from_hex(&key).map_err(|error| error.to_string())?;
        let opened = opened_by(copy, key, stored);
        let why = opened.as_ref().err().cloned();
        let found = |otherwise: String| why.clone().unwrap_or(otherwise);
        let (known, opened) = (opened.is_ok(), opened.unwrap_or_default());
        self.check(
            "control: given the archive, its vault opens the message it had not read",
            opened.contains(&control.0),
            found(format!("seq {control}")),
        );
        let later: Vec<u64> = self
            .told
            .iter()
            .filter(|told| LATER.contains(&told.text))
            .map(|told| told.seq)
            .collect();
        let count = later.iter().filter(|seq| opened.contains(seq)).count();
        let all_later = later.len() == LATER.len() && later.iter().all(|seq| *seq > control.0);
        self.check(
            "given the archive, its vault opens nothing sent after its removal",
            known && count == 0 && all_later,
            found(format!("{count} of {} opened", later.len())),
        );
        Ok(())
    }

    fn search_the_relays_files(&mut self, stored: &[Stored]) -> Step<()> {
        let server_dir = self.stage.server_dir();
        let mut needles: Vec<&str> = self.told.iter().map(|told| told.text).collect();
        needles.extend([CHANNEL, CODER.name, REVIEWER.name]);
        let mut files = 0;
        let mut found: Vec<&str> = Vec::new();
        for file in files_below(&server_dir)? {
            files += 1;
            let bytes = fs::read(&file).map_err(|error| error.kind().to_string())?;
            found.extend(needles.iter().filter(|needle| contains(&bytes, needle)));
        }
        for record in stored {
            found.extend(
                needles
                    .iter()
                    .filter(|needle| contains(&record.record, needle)),
            );
        }
        self.check(
            "no plaintext, name or label in any file of the servers",
            found.is_empty() && files > 0,
            format!(
                "{} texts looked for in {files} files, {} found",
                needles.len(),
                found.len()
            ),
        );
        let told: BTreeSet<u64> = self.told.iter().map(|told| told.seq).collect();
        let messages: Vec<&Stored> = stored
            .iter()
            .filter(|stored| stored.kind() == "application")
            .collect();
        let sizes: BTreeSet<usize> = messages
            .iter()
            .map(|stored| stored.envelope.body.len())
            .collect();
        let lengths: BTreeSet<usize> = self.told.iter().map(|told| told.text.len()).collect();
        self.check(
            "messages of different lengths look alike",
            sizes.len() == 1 && lengths.len() > 1,
            format!("{} lengths became {} size", lengths.len(), sizes.len()),
        );
        let stored: BTreeSet<u64> = messages.iter().map(|stored| stored.seq.0).collect();
        self.check(
            "every message was stored once",
            stored == told && messages.len() == self.told.len(),
            format!("{} sent, {} stored", self.told.len(), messages.len()),
        );
        Ok(())
    }

    /// Sends a text and notes it.
    async fn tell(&mut self, who: &Person, said: &'static str) -> Step<Seq> {
        let sent = self
            .stage
            .run(who, &["send", CHANNEL, "--json"], Some(said))
            .await?;
        let seq = stage::json(&sent)?["seq"]
            .as_u64()
            .ok_or_else(|| format!("{}'s message got no place", who.name))?;
        self.told.push(Told {
            seq,
            by: who.name,
            text: said,
            read_by: Vec::new(),
        });
        Ok(Seq(seq))
    }

    /// Reads what waits and notes who has read it.
    async fn read(&mut self, who: &Person, more: &[&str]) -> Step<Vec<Value>> {
        let arguments: Vec<&str> = ["read", CHANNEL, "--json"]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        let read = stage::json_lines(&self.stage.run(who, &arguments, None).await?.stdout)?;
        let seen: Vec<String> = read.iter().map(|message| text(&message["text"])).collect();
        let seen: Vec<&str> = seen.iter().map(String::as_str).collect();
        self.read_by(who.name, &seen);
        Ok(read)
    }

    fn read_by(&mut self, name: &'static str, texts: &[&str]) {
        for told in &mut self.told {
            if texts.contains(&told.text) && !told.read_by.contains(&name) {
                told.read_by.push(name);
            }
        }
    }

    /// Runs a command that must succeed, and gives its JSON.
    async fn ran(&mut self, who: &Person, arguments: &[&str]) -> Step<Value> {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let ran = self.stage.run(who, &arguments, None).await?;
        stage::json(&ran)
    }

    async fn id_of(&mut self, who: &Person) -> Step<String> {
        let id = text(&self.ran(who, &["whoami"]).await?["id"]);
        if id.starts_with("agt_") {
            Ok(id)
        } else {
            Err(format!("{} has no id", who.name))
        }
    }

    fn say(&self, text: &str) {
        self.output.say(&format!("· {text}"));
    }

    fn check(&mut self, name: &'static str, ok: bool, detail: String) {
        let mark = if ok { "✓" } else { "✗" };
        self.output.say(&format!("  {mark} {name}"));
        self.checks.push(Check { name, ok, detail });
    }
}

/// The places of the records that coder's vault can open when it is given all of them.
fn opened_by(copy: &Path, key: VaultKey, stored: &[Stored]) -> Step<BTreeSet<u64>> {
    let records: Vec<_> = stored
        .iter()
        .map(|stored| (stored.seq, stored.record.clone()))
        .collect();
    let tried = audit::try_open(copy, key, &records)
        .map_err(|error| format!("the archive could not be tried: {error}"))?;
    let opened = tried.into_iter().filter(|tried| tried.opened);
    Ok(opened.map(|tried| tried.seq.0).collect())
}

fn kept(stored: &Stored) -> Kept {
    Kept {
        seq: stored.seq.0,
        kind: stored.kind(),
        epoch: stored.envelope.epoch.0,
        agent: stored.envelope.agent.short(),
        bytes: stored.envelope.body.len(),
        ends: stored.ends(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Enough of an id to recognise it.
fn short(value: &Value) -> String {
    text(value).chars().take(12).collect()
}

fn texts(messages: &[Value]) -> Vec<String> {
    messages
        .iter()
        .map(|message| text(&message["text"]))
        .collect()
}

fn contains(bytes: &[u8], needle: &str) -> bool {
    bytes
        .windows(needle.len())
        .any(|window| window == needle.as_bytes())
}

/// All files below a directory.
fn files_below(dir: &Path) -> Step<Vec<PathBuf>> {
    let failed = |error: std::io::Error| error.kind().to_string();
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                files.push(path);
            }
        }
    }
    Ok(files)
}

/// The two tables.
fn described(report: &Report, output: Output) -> String {
    let mut beside = Table::new();
    beside
        .load_style(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["SEQ", "WHAT AGENTS READ", "BY", "WHAT THE RELAY HAS STORED"]);
    for kept in &report.relay {
        let told = report.messages.iter().find(|told| told.seq == kept.seq);
        let stored = format!(
            "{:<11} epoch {}  agent {}  {:>5} B  …{}",
            kept.kind, kept.epoch, kept.agent, kept.bytes, kept.ends
        );
        beside.add_row([
            kept.seq.to_string(),
            told.map_or_else(String::new, |told| format!("{}: {}", told.by, told.text)),
            told.map_or_else(String::new, |told| told.read_by.join(" ")),
            stored,
        ]);
    }
    let mut checks = Table::new();
    checks
        .load_style(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["", "CHECKED", "FOUND"]);
    for check in &report.checks {
        let mark = if check.ok {
            output.green("✓")
        } else {
            output.red("✗")
        };
        checks.add_row([mark, check.name.to_owned(), check.detail.clone()]);
    }
    let failed = report.checks.iter().filter(|check| !check.ok).count();
    let verdict = match failed {
        0 => format!("all {} checks passed", report.checks.len()),
        failed => format!("{failed} of {} checks failed", report.checks.len()),
    };
    let hidden =
        (report.hidden.as_ref()).map_or_else(String::new, |hidden| format!("{}\n", hidden.plain()));
    let left = report
        .directory
        .as_ref()
        .map_or_else(String::new, |dir| format!("\nkept in {}", dir.display()));
    format!("{beside}\n\n{checks}\n{hidden}{verdict}{left}")
}

const CHANNEL: &str = "acme/ops/plan";
/// Has the account, and opens the channel.
const PLANNER: Person = Person::with_account("planner");
/// A guest: its own configuration directory, in which there is nothing.
const CODER: Person = Person::guest("coder");
/// Has been online once, and is away when it is added.
const REVIEWER: Person = Person::with_account("reviewer");
/// Tries an invite that somebody else has used.
const OUTSIDER: Person = Person::guest("outsider");
/// What was said after the removal.
const LATER: [&str; 2] = ["Now we are among ourselves.", "Good. The plan has changed."];
/// A demo that takes longer has hung.
const DEMO_MAX: Duration = Duration::from_mins(2);
