//! A process that does not hold the vault's lock: it passes commands through the vault, and takes
//! the mind's place when that process ends.

use std::{collections::BTreeMap, time::Duration};

use rusqlite::Connection;
use skytale_agent::{Command, CommandId, hands, view};
use skytale_wire::id::Time;
use tokio::time::sleep;

use crate::{
    clock,
    error::Error,
    vault,
    worker::{Ask, Body, Ended, STEP_INPUTS_MAX, WorkerView, begin},
};

/// Until the lock is ours or the handles are gone.
pub(crate) async fn serve(body: &mut Body) -> Result<Ended, Error> {
    let mut conn = match meet_the_mind(body).await? {
        Met::Vault(conn) => conn,
        Met::Lock(held) => return Ok(Ended::Mind(held)),
    };
    let mut seen = vault::data_version(&conn)?;
    let mut try_lock_at = Time(0);
    loop {
        let pause = if body.waiting.is_empty() {
            IDLE_POLL
        } else {
            WAITING_POLL
        };
        let mut commands = Vec::new();
        let mut ended = None;
        tokio::select! {
            ask = body.asks.recv() => match ask {
                Some(ask) => ended = take(ask, body, &mut commands),
                None => ended = Some(Ended::Closed(None)),
            },
            () = body.stop.cancelled() => {
                // What was handed over before is still stored.
                while let Ok(ask) = body.asks.try_recv() {
                    ended = ended.or(take(ask, body, &mut commands));
                }
                ended = ended.or(Some(Ended::Closed(None)));
            }
            () = sleep(pause) => {}
        }
        while commands.len() < STEP_INPUTS_MAX
            && ended.is_none()
            && let Ok(ask) = body.asks.try_recv()
        {
            ended = take(ask, body, &mut commands);
        }
        if let Err(error) = submit(&mut conn, &commands) {
            // Nothing was handed over; those who asked may ask again.
            body.refuse(commands.iter().map(|(id, _)| *id), &error);
        }
        if let Some(ended) = ended {
            return Ok(ended);
        }

        let version = vault::data_version(&conn)?;
        if version != seen {
            match fetch_answers(&mut conn, body) {
                Ok(()) => seen = version,
                Err(error) => tracing::warn!(%error, "answers could not be fetched yet"),
            }
            body.tell_news();
        }
        let now = clock::now();
        if now >= try_lock_at {
            if let Some(held) = body.lock.try_hold()? {
                return Ok(Ended::Mind(held));
            }
            try_lock_at = now.plus(TRY_LOCK_MS);
        }
    }
}

enum Met {
    Vault(Connection),
    Lock(vault::Held),
}

/// Waits until the mind has made the vault and its identity. It may end while it does.
async fn meet_the_mind(body: &mut Body) -> Result<Met, Error> {
    let give_up = clock::now().plus(MEET_MS_MAX);
    loop {
        if let Some(held) = body.lock.try_hold()? {
            return Ok(Met::Lock(held));
        }
        if body.start.vault.exists() {
            match body.start.vault.connect() {
                Ok(conn) => {
                    // Before the first migration there is not even a table to ask.
                    if let Ok(Some(id)) = view::identity(&conn) {
                        body.opened(id);
                        return Ok(Met::Vault(conn));
                    }
                }
                Err(Error::Unreachable(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if clock::now() >= give_up {
            return Err(Error::unreachable(held_by(body.lock.holder())));
        }
        tokio::select! {
            () = body.stop.cancelled() => return Err(Error::closed()),
            () = sleep(WAITING_POLL) => {}
        }
    }
}

/// Takes what a handle asks; gives the end when it asks for that.
fn take(ask: Ask, body: &mut Body, commands: &mut Vec<(CommandId, Command)>) -> Option<Ended> {
    match ask {
        Ask::Do {
            id,
            command,
            answer,
        } => {
            body.waiting.insert(id, answer);
            commands.push((id, command));
            None
        }
        Ask::Home(home) => {
            // For the day when we are the mind.
            body.start.home = Some(home);
            None
        }
        Ask::Status(reply) => {
            let _ = reply.send(WorkerView {
                held_by: Some(body.lock.holder().unwrap_or_default()),
                links: Vec::new(),
                standings: BTreeMap::new(),
            });
            None
        }
        Ask::Slim(_, ask) => {
            ask.refuse(Error::Unreachable(slim_held_by(body.lock.holder())));
            None
        }
        // What was submitted stays in the vault, and the mind does it.
        Ask::Close(done) => Some(Ended::Closed(Some(done))),
    }
}

fn submit(conn: &mut Connection, commands: &[(CommandId, Command)]) -> Result<(), Error> {
    if commands.is_empty() {
        return Ok(());
    }
    let now = clock::now();
    let tx = begin(conn)?;
    for (id, command) in commands {
        hands::submit(&tx, *id, command, now)?;
    }
    tx.commit()?;
    Ok(())
}

fn fetch_answers(conn: &mut Connection, body: &mut Body) -> Result<(), Error> {
    // Those who have stopped waiting: their answers are forgotten after a day.
    body.waiting.retain(|_, replier| !replier.is_closed());
    if body.waiting.is_empty() {
        return Ok(());
    }
    let ids: Vec<CommandId> = body.waiting.keys().copied().collect();
    let mut answers = Vec::new();
    let tx = begin(conn)?;
    for id in ids {
        if let Some(answer) = hands::take_answer(&tx, id)? {
            answers.push((id, answer));
        }
    }
    tx.commit()?;
    for (id, answer) in answers {
        body.reply(id, answer);
    }
    Ok(())
}

/// The sentence that says who is in the way.
pub(crate) fn held_by(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!(
            "process {pid} holds this agent's line and does not take up commands: wait for it, or end it"
        ),
        None => "another process holds this agent's line and does not take up commands: wait for it, or end it".into(),
    }
}

/// SLIM's messages do not pass through the vault.
fn slim_held_by(pid: Option<u32>) -> String {
    let who = pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    );
    format!(
        "{who} holds this agent's line, and only that one speaks SLIM: end it, or use another agent"
    )
}

/// How often the vault is looked at while somebody waits for an answer.
const WAITING_POLL: Duration = Duration::from_millis(5);
/// How often it is looked at for messages and events.
const IDLE_POLL: Duration = Duration::from_millis(20);
/// How often the lock is tried.
const TRY_LOCK_MS: u64 = 50;
/// How long a mind may take to make a vault.
const MEET_MS_MAX: u64 = 10_000;
