//! `slim`: SLIM's names and sessions, for agents that talk with agents that know SLIM alone.
//!
//! What is said to a name comes and goes as it is; in a session it is sealed by MLS unless
//! `--clear` is given.

use std::{
    collections::BTreeSet,
    io::{self, BufRead as _, Read as _},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Subcommand};
use data_encoding::BASE64;
use serde_json::{Value, json};
use skytale_sdk::{
    Agent, Error, Seq,
    slim::{
        Ended, Event, Invitations, Message, Name, SessionId, Settings, SharedSecret, Slim,
        SlimMessage, SlimParty,
    },
};
use tokio::{
    signal,
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use zeroize::Zeroizing;

use crate::{
    args::Everywhere,
    context,
    exit::{Exit, Failure},
    output::{Output, harmless},
    secret,
};

/// What can be done in SLIM's world.
#[derive(Debug, Subcommand)]
pub(crate) enum Wish {
    /// Print what is said to a name, as it comes
    #[command(
        before_help = "Examples:\n  skytale slim sub acme/ops/alerts --as watcher --json\n  skytale slim sub acme/ops/alerts --after 0"
    )]
    Sub(Sub),
    /// Say what stands on stdin to a name
    #[command(
        before_help = "Examples:\n  echo \"on fire\" | skytale slim pub acme/ops/alerts --as watcher"
    )]
    Pub(Pub),
    /// Print what the relay has kept of what was said to a name
    #[command(
        before_help = "Examples:\n  skytale slim log acme/ops/alerts --as watcher --json\n  skytale slim log acme/ops/alerts --after 120"
    )]
    Log(Log),
    /// Be found at a name, and talk in the sessions that SLIM agents invite to
    #[command(
        before_help = "Examples:\n  skytale slim join acme/ops/planner --as planner --secret-file circle.txt"
    )]
    Join(Join),
    /// Begin a session with SLIM agents, and talk in it
    #[command(
        before_help = "Examples:\n  skytale slim invite acme/ops/planner acme/ops/coder --as planner --secret-file circle.txt\n  skytale slim invite acme/ops/planner acme/ops/coder acme/ops/tester --group acme/ops/plan"
    )]
    Invite(Invite),
}

/// `slim sub`.
#[derive(Debug, Args)]
pub(crate) struct Sub {
    /// ORGANISATION/NAMESPACE/NAME
    #[arg(value_parser = name)]
    name: Name,
    /// Begin behind this place of the relay's log of the name; 0 is the beginning
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// End after so many
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,
}

/// `slim pub`.
#[derive(Debug, Args)]
pub(crate) struct Pub {
    /// ORGANISATION/NAMESPACE/NAME
    #[arg(value_parser = name)]
    name: Name,
    /// Say what is in this file, byte for byte
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// `slim log`.
#[derive(Debug, Args)]
pub(crate) struct Log {
    /// ORGANISATION/NAMESPACE/NAME
    #[arg(value_parser = name)]
    name: Name,
    /// Begin behind this place
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    after: u64,
    /// The instance of the name, as a number in hexadecimal: groups have two of their own
    #[arg(long, value_name = "HEX", value_parser = instance)]
    instance: Option<u128>,
    /// End after so many
    #[arg(short = 'n', long, value_name = "COUNT", conflicts_with = "list")]
    count: Option<u64>,
    /// Say which logs there are: of the bare name, and of its instances
    #[arg(long, conflicts_with_all = ["after", "instance"])]
    list: bool,
}

/// `slim join`.
#[derive(Debug, Args)]
pub(crate) struct Join {
    /// Our own name
    #[arg(value_parser = name)]
    name: Name,
    /// Follow invitations to sessions without MLS too: whoever relays those can read them
    #[arg(long)]
    clear: bool,
    #[command(flatten)]
    talk: Talk,
}

/// `slim invite`.
#[derive(Debug, Args)]
pub(crate) struct Invite {
    /// Our own name
    #[arg(value_parser = name)]
    name: Name,
    /// Who is invited; several need --group
    #[arg(required = true, value_parser = name)]
    others: Vec<Name>,
    /// Make a group of this name
    #[arg(long, value_name = "NAME", value_parser = name)]
    group: Option<Name>,
    /// Without MLS: whoever relays it can read it
    #[arg(long)]
    clear: bool,
    #[command(flatten)]
    talk: Talk,
}

/// What both sides of a session take.
#[derive(Debug, Args)]
pub(crate) struct Talk {
    /// File with the secret of the circle, at least 32 bytes [env: `SKYTALE_SLIM_SECRET`]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Leave after having heard so many messages
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,
}

/// `slim`.
pub(crate) async fn run(
    wish: Wish,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    match wish {
        Wish::Sub(wish) => {
            let working = context::as_agent_or_new(everywhere, async |agent| {
                tokio::select! {
                    done = subscribe(agent, &wish, output) => done,
                    _ = signal::ctrl_c() => Ok(()),
                }
            });
            working.await
        }
        Wish::Pub(wish) => {
            let payload = payload(&wish)?;
            let working = context::as_agent_or_new(everywhere, async |agent| {
                let slim = agent.slim(&wish.name.to_string()).await?;
                let seq = slim.publish(payload).await?.map(|seq| seq.0);
                output.result(&json!({ "seq": seq }), || match seq {
                    Some(seq) => format!("said · seq {seq}"),
                    None => "said · the relay keeps no log of it".to_owned(),
                })
            });
            working.await
        }
        Wish::Log(wish) => {
            let working =
                context::as_agent_or_new(everywhere, async |agent| log(agent, &wish, output).await);
            working.await
        }
        Wish::Join(wish) => {
            let secret = shared_secret(&wish.talk)?;
            let working = context::as_agent_or_new(everywhere, async |agent| {
                let name = wish.name.to_string();
                let party = agent
                    .slim_session(&name, secret, invitations(wish.clear))
                    .await?;
                let name = party.name().to_string();
                if output.is_json() {
                    // Whoever started us can now tell others to invite.
                    output.json_line(&json!({ "event": "waiting", "name": name }))?;
                } else {
                    output.say(&format!("{name} waits for invitations"));
                }
                converse(party, None, wish.talk.count, output).await
            });
            working.await
        }
        Wish::Invite(wish) => {
            if wish.group.is_none() && wish.others.len() > 1 {
                return Err(Failure::usage(
                    "a session of two has one other: name a group with --group",
                ));
            }
            let secret = shared_secret(&wish.talk)?;
            let working = context::as_agent_or_new(everywhere, async |agent| {
                let name = wish.name.to_string();
                let mut party = agent
                    .slim_session(&name, secret, invitations(wish.clear))
                    .await?;
                let session = begin(&mut party, &wish, output).await?;
                converse(party, Some(session), wish.talk.count, output).await
            });
            working.await
        }
    }
}

async fn subscribe(agent: &Agent, wish: &Sub, output: Output) -> Result<(), Failure> {
    let slim = agent.slim(&wish.name.to_string()).await?;
    let mut messages = slim.messages(wish.after.map(Seq)).await?;
    let mut left = wish.count;
    while left != Some(0) {
        let Some(message) = messages.next().await? else {
            break;
        };
        show(&message, output)?;
        left = left.map(|count| count - 1);
    }
    Ok(())
}

/// Up to where the log was when it was asked for.
async fn log(agent: &Agent, wish: &Log, output: Output) -> Result<(), Failure> {
    let mut slim = agent.slim(&wish.name.to_string()).await?;
    if wish.list {
        return list(&slim, output).await;
    }
    if let Some(instance) = wish.instance {
        slim = slim.at(instance);
    }
    let mut messages = slim.messages(Some(Seq(wish.after))).await?;
    let end = messages.head().0;
    let mut at = wish.after.max(messages.pruned().0);
    let mut left = wish.count;
    while at < end && left != Some(0) {
        // The last records may have been too large for a line; then nothing comes for them.
        let Ok(next) = timeout(LOG_QUIET, messages.next()).await else {
            break;
        };
        let Some(message) = next? else { break };
        at = message.seq().map_or(at, |seq| seq.0);
        show(&message, output)?;
        left = left.map(|count| count - 1);
    }
    Ok(())
}

async fn list(slim: &Slim, output: Output) -> Result<(), Failure> {
    for log in slim.logs().await? {
        let instance = log.instance.map(|it| format!("{:x}", it.number()));
        let (head, pruned) = (log.head.0, log.pruned.0);
        let line = json!({ "instance": instance, "head": head, "pruned": pruned });
        output.result(&line, || {
            let whose = match &instance {
                Some(instance) => format!("--instance {instance}"),
                None => "the bare name".to_owned(),
            };
            let gone = match pruned {
                0 => String::new(),
                pruned => format!(", up to {pruned} gone"),
            };
            format!("{whose}: up to seq {head}{gone}")
        })?;
    }
    Ok(())
}

fn invitations(clear: bool) -> Invitations {
    if clear {
        Invitations::All
    } else {
        Invitations::OnlyWithMls
    }
}

fn show(message: &SlimMessage, output: Output) -> Result<(), Failure> {
    let said = message.payload();
    let session = message.message().session();
    let mut line = json!({
        "seq": message.seq().map(|seq| seq.0),
        "source": message.source().to_string(),
        "kind": session.map(|session| format!("{:?}", session.message)),
        "bytes_base64": BASE64.encode(message.message().original()),
    });
    if let Some((payload_type, payload)) = said {
        line["type"] = json!(payload_type);
        put_payload(&mut line, payload);
    }
    output.result(&line, || {
        let seq = message
            .seq()
            .map_or("-".to_owned(), |seq| seq.0.to_string());
        let source = harmless(&message.source().to_string());
        let text = said.and_then(|(_, payload)| std::str::from_utf8(payload).ok());
        match text {
            Some(text) => format!("{seq} {source}: {}", harmless(text)),
            None => format!("{seq} {source}: (not text: see --json)"),
        }
    })
}

/// Opens the session and waits until all who were invited are in.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "everything is told; some of it matters here"
)]
async fn begin(party: &mut SlimParty, wish: &Invite, output: Output) -> Result<SessionId, Failure> {
    let settings = Settings {
        mls: !wish.clear,
        ..Settings::default()
    };
    let mut missing: BTreeSet<String> = wish.others.iter().map(Name::to_string).collect();
    let session = match (&wish.group, &wish.others[..]) {
        (Some(group), others) => {
            let session = party.create(&group.to_string(), settings).await?;
            for other in others {
                party.invite(session, &other.to_string()).await?;
            }
            session
        }
        (None, [other, ..]) => party.open(&other.to_string(), settings).await?,
        (None, []) => return Err(Failure::usage("nobody is invited")),
    };
    while !missing.is_empty() {
        let Some(event) = party.next().await? else {
            return Err(closed());
        };
        match &event {
            Event::Added { name, .. } => {
                missing.remove(&name.to_string());
            }
            Event::NotAdded { name, why, .. } => {
                return Err(Failure::new(
                    Exit::NotFound,
                    format!("{} is not in: {why}", harmless(&name.to_string())),
                ));
            }
            _ => {}
        }
        tell(&event, output)?;
    }
    Ok(session)
}

/// Prints what is said and says what stands on stdin, until one of both ends.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "everything is told; some of it matters here"
)]
async fn converse(
    mut party: SlimParty,
    mut session: Option<SessionId>,
    count: Option<u64>,
    output: Output,
) -> Result<(), Failure> {
    let is_ours = session.is_some();
    let mut lines = lines_of_stdin();
    let mut typed_out = false;
    // The session has ended, and the event that says so is on its way.
    let mut is_over = false;
    let mut unheard = BTreeSet::new();
    let mut left = count;
    loop {
        let said_all = typed_out && unheard.is_empty() && is_ours && count.is_none();
        if left == Some(0) && unheard.is_empty() || said_all {
            return goodbye(party, session, output).await;
        }
        let may_type = session.is_some() && !typed_out && !is_over;
        tokio::select! {
            event = party.next() => {
                let Some(event) = event? else { return Err(closed()) };
                tell(&event, output)?;
                match event {
                    Event::Joined { session: joined, .. } => session = Some(joined),
                    Event::Received(_) => left = left.map(|left| left.saturating_sub(1)),
                    Event::Delivered { message, .. } => {
                        unheard.remove(&message);
                    }
                    Event::Ended { session: ended, why } if session == Some(ended) => {
                        if is_ours || count.is_some() {
                            return end_of(why);
                        }
                        session = None;
                        is_over = false;
                    }
                    _ => {}
                }
            }
            line = lines.recv(), if may_type => match (line, session) {
                (Some(line), Some(session)) => {
                    match party.publish(session, Message::new(line.clone())).await {
                        Ok(said) => {
                            unheard.insert(said);
                        }
                        Err(Error::NotFound(_)) => {
                            is_over = true;
                            tell_unsaid(session, &line, output)?;
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                _ => typed_out = true,
            },
            _ = signal::ctrl_c() => return goodbye(party, session, output).await,
        }
    }
}

/// Leaves, and waits a moment for the others to have heard it.
async fn goodbye(
    mut party: SlimParty,
    session: Option<SessionId>,
    output: Output,
) -> Result<(), Failure> {
    let Some(session) = session else {
        return Ok(());
    };
    match party.leave(session).await {
        // The other one may have been quicker: the event that says so comes next.
        Ok(()) | Err(Error::NotFound(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let until = Instant::now() + GOODBYE_MAX;
    while let Ok(event) = timeout_at(until, party.next()).await {
        let Some(event) = event? else { break };
        tell(&event, output)?;
        if matches!(event, Event::Ended { session: ended, .. } if ended == session) {
            break;
        }
    }
    Ok(())
}

fn end_of(why: Ended) -> Result<(), Failure> {
    match why {
        Ended::Left | Ended::Closed | Ended::PeerLeft => Ok(()),
        Ended::Removed => Err(Failure::new(Exit::Denied, "the moderator has removed us")),
        Ended::Unanswered => Err(Failure::new(Exit::NotFound, "nobody answered")),
    }
}

/// Events as lines. With `--json` each, else what was said on stdout and the rest on stderr.
fn tell(event: &Event, output: Output) -> Result<(), Failure> {
    let name = |name: &Name| harmless(&name.to_string());
    if let Event::Received(it) = event {
        let mut line = json!({
            "event": "received",
            "session": it.session.0,
            "from": it.from.to_string(),
            "type": it.payload_type,
        });
        put_payload(&mut line, &it.payload);
        return output.result(&line, || match std::str::from_utf8(&it.payload) {
            Ok(text) => format!("{}: {}", name(&it.from), harmless(text)),
            Err(_) => format!("{}: (not text: see --json)", name(&it.from)),
        });
    }
    let (word, session, who, said) = match event {
        Event::Joined {
            session,
            moderator,
            mls,
            ..
        } => {
            let how = if *mls { "sealed by MLS" } else { "in clear" };
            let said = format!("{} has invited us, {how}", name(moderator));
            ("joined", session, Some(moderator), said)
        }
        Event::Uninvited { session, moderator } => {
            let who = name(moderator);
            let said = format!("{who} has invited us to a session in clear; --clear follows such");
            ("uninvited", session, Some(moderator), said)
        }
        Event::Added { session, name: who } => {
            ("added", session, Some(who), format!("{} is in", name(who)))
        }
        Event::NotAdded {
            session,
            name: who,
            why,
        } => {
            let said = format!("{} is not in: {why}", name(who));
            ("not_added", session, Some(who), said)
        }
        Event::Removed { session, name: who } => (
            "removed",
            session,
            Some(who),
            format!("{} is out", name(who)),
        ),
        Event::Away { session, name: who } => {
            ("away", session, Some(who), format!("{} is away", name(who)))
        }
        Event::Back { session, name: who } => {
            ("back", session, Some(who), format!("{} is back", name(who)))
        }
        Event::Lost { session, from } => {
            let said = format!("something of {} was lost", name(from));
            ("lost", session, Some(from), said)
        }
        Event::Delivered {
            session, missing, ..
        } if missing.is_empty() => ("delivered", session, None, String::new()),
        Event::Delivered {
            session, missing, ..
        } => {
            let said = format!("{} of the others did not confirm it", missing.len());
            ("not_delivered", session, missing.first(), said)
        }
        Event::Paused { session } => ("paused", session, None, "away".to_owned()),
        Event::Resumed { session } => ("resumed", session, None, "back".to_owned()),
        Event::NotResumed { session } => ("not_resumed", session, None, "still away".to_owned()),
        Event::Ended { session, why } => ("ended", session, None, format!("over: {why:?}")),
        Event::Received(_) => return Ok(()),
    };
    if output.is_json() {
        output.json_line(&json!({
            "event": word,
            "session": session.0,
            "name": who.map(Name::to_string),
        }))
    } else {
        if !said.is_empty() {
            output.say(&said);
        }
        Ok(())
    }
}

/// What was typed too late is not kept: the next session may be with others.
fn tell_unsaid(session: SessionId, line: &str, output: Output) -> Result<(), Failure> {
    if output.is_json() {
        output.json_line(&json!({ "event": "unsaid", "session": session.0, "text": line }))
    } else {
        output.say(&format!("over before it was said: {}", harmless(line)));
        Ok(())
    }
}

fn put_payload(line: &mut Value, payload: &[u8]) {
    match std::str::from_utf8(payload) {
        Ok(text) => line["text"] = json!(text),
        Err(_) => line["payload_base64"] = json!(BASE64.encode(payload)),
    }
}

/// Lines as they are typed, from a thread of their own: stdin cannot be waited for otherwise.
fn lines_of_stdin() -> mpsc::Receiver<String> {
    let (tell, lines) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if tell.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn payload(wish: &Pub) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    if let Some(path) = &wish.file {
        let file = std::fs::File::open(path)
            .map_err(|error| Failure::usage(format!("the message's file: {}", error.kind())))?;
        file.take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    } else {
        let stdin = io::stdin().lock();
        stdin.take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        // `echo` ends with a line break that nobody meant to say.
        if std::str::from_utf8(&bytes).is_ok() && bytes.ends_with(b"\n") {
            bytes.pop();
        }
    }
    if bytes.len() as u64 > PAYLOAD_BYTES_MAX {
        return Err(Failure::new(
            Exit::Policy,
            format!("the message is over the limit of {PAYLOAD_BYTES_MAX} bytes: nothing was said"),
        ));
    }
    Ok(bytes)
}

fn shared_secret(talk: &Talk) -> Result<SharedSecret, Failure> {
    let text = match &talk.secret_file {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::usage(format!("the secret's file: {}", error.kind())))?;
            let text = Zeroizing::new(text);
            Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
        }
        None => secret::from_environment("SKYTALE_SLIM_SECRET")?.ok_or_else(|| {
            Failure::usage("no secret: name a file by --secret-file, or set SKYTALE_SLIM_SECRET")
        })?,
    };
    SharedSecret::new(&text).map_err(|error| Failure::usage(error.to_string()))
}

fn closed() -> Failure {
    Failure::new(
        Exit::Unreachable,
        "another process has taken over this agent's line",
    )
}

fn name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|error| error.to_string())
}

fn instance(text: &str) -> Result<u128, String> {
    u128::from_str_radix(text, 16).map_err(|_| "expected up to 32 hexadecimal digits".to_owned())
}

/// What fits into one frame of an agent's line, with the message around it.
const PAYLOAD_BYTES_MAX: u64 = 1024 * 1024 - 16 * 1024;
/// Lines that were typed and not yet said.
const LINES_MAX: usize = 64;
/// Without a record for so long, the rest of a log cannot be had.
const LOG_QUIET: Duration = Duration::from_secs(2);
/// How long a goodbye waits for the others.
const GOODBYE_MAX: Duration = Duration::from_secs(5);
