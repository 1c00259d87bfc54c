//! The holder of the vault's lock: what has come in is one step of the mind, in one transaction.
//!
//! | a step fails | then |
//! |---|---|
//! | with several inputs | roll back, open the mind again, end the lines, run its commands one by one |
//! | with one command | the same, and the command is answered with the failure |
//! | with one frame | the same; the relay delivers it again on the next line, after a pause |

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use rusqlite::Connection;
use skytale_agent::{Agent, Answer, Command, CommandId, Failure, Input, Outputs, hands, view};
use skytale_shape::Bulk;
use skytale_wire::{
    frame::{ToAgent, ToRelay},
    id::{RelayKey, Time, TransportKey},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    Ask, Body, STEP_INPUTS_MAX, WorkerView, begin,
    line::{BACKLOG_MAX, Line, room},
};
use crate::{
    clock,
    config::RelayAddr,
    error::Error,
    link::{LineEvent, LineNews, Link, LinkSetup, LinkState},
    slim::desk::Desk,
    standing::Standing,
    vault::{self, Held},
};

/// The holder of the lock: the mind, its connection and its links.
pub(super) struct Mind {
    conn: Connection,
    agent: Agent,
    label: String,
    setup: LinkSetup,
    home: Option<RelayAddr>,
    links: BTreeMap<RelayKey, Link>,
    /// Links that nobody wants any more and that are still writing.
    retiring: Vec<Link>,
    lines: BTreeMap<RelayKey, Line>,
    /// What this process's handles want of SLIM.
    desks: BTreeMap<RelayKey, Desk>,
    events: mpsc::Receiver<LineEvent>,
    /// What comes first in the next step: it began a connection in the middle of this one, or came
    /// together with what is being tried alone.
    held_back: Option<LineEvent>,
    hands_seen: Option<i64>,
    poll_hands_at: Time,
    /// When another process last had a command for us.
    hands_came: Time,
    checkpoint_due: bool,
    checkpoint_at: Time,
    /// So many of the next inputs get a step of their own, after one has failed.
    careful: usize,
}

/// One input, kept so that it can be run again by itself.
#[derive(Debug, Clone)]
enum Work {
    Command {
        id: CommandId,
        command: Command,
        /// Came through the vault.
        submitted: bool,
    },
    Up {
        relay: RelayKey,
        transport: TransportKey,
        token: Option<String>,
    },
    Frame {
        relay: RelayKey,
        frame: ToAgent,
    },
    Token {
        relay: RelayKey,
        token: String,
    },
    Down {
        relay: RelayKey,
    },
    Tick,
}

impl Work {
    fn input(self) -> Input {
        match self {
            Self::Command { id, command, .. } => Input::Command { id, command },
            Self::Up {
                relay,
                transport,
                token,
            } => Input::LinkUp {
                relay,
                transport,
                token,
            },
            Self::Frame { relay, frame } => Input::Frame { relay, frame },
            Self::Token { relay, token } => Input::Token { relay, token },
            Self::Down { relay } => Input::LinkDown { relay },
            Self::Tick => Input::Tick,
        }
    }
}

impl Mind {
    pub(super) fn open(body: &mut Body, held: &Held) -> Result<Self, Error> {
        let start = &body.start;
        start.vault.create_if_missing(held)?;
        let mut conn = start.vault.connect()?;
        Agent::migrate(&mut conn)?;
        let agent = open_agent(&mut conn, &start.label)?;
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        let setup = LinkSetup {
            me: agent.id(),
            account: start.account.clone(),
            timeouts: start.timeouts,
            traffic: start.traffic,
            events: tell,
            notices: start.notices.clone(),
            tally: Arc::clone(&start.tally),
            runtime: start.runtime.clone(),
        };
        let mut mind = Self {
            agent,
            label: start.label.clone(),
            setup,
            home: start.home.clone(),
            conn,
            links: BTreeMap::new(),
            retiring: Vec::new(),
            lines: BTreeMap::new(),
            desks: BTreeMap::new(),
            events,
            held_back: None,
            hands_seen: None,
            poll_hands_at: Time(0),
            hands_came: Time(0),
            // A mind that was killed may have left secrets in the log.
            checkpoint_due: true,
            checkpoint_at: Time(0),
            careful: 0,
        };
        mind.take_answers_of_our_predecessor(body)?;
        body.opened(mind.agent.id());
        tracing::debug!(agent = %mind.agent.id().short(), "holds the line");
        Ok(mind)
    }

    /// We may have been a hand, whose answers the last mind has written before it ended.
    fn take_answers_of_our_predecessor(&mut self, body: &mut Body) -> Result<(), Error> {
        if body.waiting.is_empty() {
            return Ok(());
        }
        let ids: Vec<CommandId> = body.waiting.keys().copied().collect();
        let tx = begin(&mut self.conn)?;
        let mut answers = Vec::new();
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

    pub(super) async fn serve(
        &mut self,
        body: &mut Body,
    ) -> Result<Option<oneshot::Sender<()>>, Error> {
        let mut closing: Option<(Option<oneshot::Sender<()>>, Time)> = None;
        self.follow_wishes();
        self.do_what_was_handed_over(body).await?;
        loop {
            let mut work = self.wait_for_work(body, &mut closing).await;
            let now = clock::now();
            match self.commands_of_hands(now) {
                Ok(commands) => work.extend(commands),
                Err(error) => tracing::warn!(%error, "commands of other processes wait"),
            }
            if self.agent.wake().is_some_and(|at| at <= now) {
                work.push(Work::Tick);
            }
            if !work.is_empty() {
                self.run(work, now, body).await?;
                self.follow_wishes();
            }
            if let Err(error) = self.checkpoint_if_due(now) {
                tracing::warn!(%error, "the log could not be emptied yet");
            }
            if let Some((done, until)) = &mut closing
                && (now >= *until || self.has_nothing_to_flush()?)
            {
                return Ok(done.take());
            }
        }
    }

    /// We may have been a hand: what this process handed over before it became the mind goes before
    /// what is asked of it from now on.
    async fn do_what_was_handed_over(&mut self, body: &mut Body) -> Result<(), Error> {
        loop {
            let now = clock::now();
            let commands = self.commands_of_hands(now)?;
            if commands.is_empty() {
                return Ok(());
            }
            self.run(commands, now, body).await?;
            self.follow_wishes();
            // More may wait than one look finds.
            self.poll_hands_at = now;
        }
    }

    /// Everything that has come in, about a step's worth at most; nothing when it is merely time to
    /// look around.
    async fn wait_for_work(
        &mut self,
        body: &mut Body,
        closing: &mut Option<(Option<oneshot::Sender<()>>, Time)>,
    ) -> Vec<Work> {
        self.retiring.retain(|link| !link.has_ended());
        let limit = if self.careful > 0 { 1 } else { STEP_INPUTS_MAX };
        let mut work = Vec::new();
        while work.is_empty()
            && let Some(event) = self.held_back.take()
        {
            self.note(event, &mut work);
        }
        if work.is_empty() {
            let idle = self.idle_for(clock::now());
            let backed_up = self.lines.values().any(|line| !line.backlog.is_empty());
            let takes_asks = !backed_up && closing.is_none();
            tokio::select! {
                Some(event) = self.events.recv() => self.note(event, &mut work),
                ask = body.asks.recv(), if takes_asks => match ask {
                    Some(ask) => self.take(ask, body, closing, &mut work),
                    None => *closing = Some((None, clock::now())),
                },
                () = body.stop.cancelled() => self.stop(body, closing, &mut work),
                () = room(&mut self.lines), if backed_up => {}
                () = sleep(idle) => {}
            }
        }
        for relay in self.desks.keys().copied().collect::<Vec<_>>() {
            self.at_desk(relay, Desk::tend);
        }
        for line in self.lines.values_mut() {
            line.flush();
        }
        while work.len() < limit
            && self.held_back.is_none()
            && let Ok(event) = self.events.try_recv()
        {
            if matches!(event.what, LineNews::Up { .. }) && !work.is_empty() {
                // What earlier inputs say to the old connection must not reach the new one.
                self.held_back = Some(event);
            } else {
                self.note(event, &mut work);
            }
        }
        while work.len() < limit
            && closing.is_none()
            && self.lines.values().all(|line| line.backlog.is_empty())
            && let Ok(ask) = body.asks.try_recv()
        {
            self.take(ask, body, closing, &mut work);
        }
        work
    }

    /// It ends with this step; what was handed over before is still stored.
    fn stop(
        &mut self,
        body: &mut Body,
        closing: &mut Option<(Option<oneshot::Sender<()>>, Time)>,
        work: &mut Vec<Work>,
    ) {
        while let Ok(ask) = body.asks.try_recv() {
            self.take(ask, body, closing, work);
        }
        let done = closing.take().and_then(|(done, _)| done);
        *closing = Some((done, Time(0)));
    }

    fn take(
        &mut self,
        ask: Ask,
        body: &mut Body,
        closing: &mut Option<(Option<oneshot::Sender<()>>, Time)>,
        work: &mut Vec<Work>,
    ) {
        match ask {
            Ask::Do {
                id,
                command,
                answer,
            } => {
                self.knock_again(&command);
                body.waiting.insert(id, answer);
                work.push(Work::Command {
                    id,
                    command,
                    submitted: false,
                });
            }
            Ask::Home(home) => {
                self.home = Some(home);
                self.follow_wishes();
            }
            Ask::Status(reply) => {
                let links = self
                    .links
                    .iter()
                    .map(|(relay, link)| (*relay, link.view()))
                    .collect();
                let standings = self
                    .lines
                    .iter()
                    .map(|(relay, line)| (*relay, line.standing.clone()))
                    .collect();
                let _ = reply.send(WorkerView {
                    held_by: None,
                    links,
                    standings,
                });
            }
            Ask::Slim(relay, ask) => {
                self.desks.entry(relay).or_default();
                self.at_desk(relay, |desk, out| desk.ask(ask, out));
            }
            Ask::Close(done) => {
                let until = clock::now().plus(self.flush_ms_max());
                *closing = Some((Some(done), until));
            }
        }
    }

    /// Takes what a link reports. A connection that is not the present one has nothing to say.
    fn note(&mut self, event: LineEvent, work: &mut Vec<Work>) {
        let LineEvent { relay, line, what } = event;
        let present = self
            .lines
            .get(&relay)
            .is_some_and(|present| present.id == line);
        match what {
            LineNews::Up {
                transport,
                token,
                frames,
            } => {
                self.lines.insert(
                    relay,
                    Line {
                        id: line,
                        standing: Standing::default(),
                        frames: Some(frames),
                        backlog: VecDeque::new(),
                    },
                );
                // It hears the relay's Ready, whoever may want something of it later.
                self.desks.entry(relay).or_default().lost();
                work.push(Work::Up {
                    relay,
                    transport,
                    token: token.map(|token| token.expose().to_owned()),
                });
            }
            LineNews::Frames(mut frames) if present => {
                if self.careful > 0 && frames.len() > 1 {
                    // One that cannot be stored must not take along what came with it.
                    let what = LineNews::Frames(frames.split_off(1));
                    self.held_back = Some(LineEvent { relay, line, what });
                }
                for frame in frames {
                    let mut rest = Some(frame);
                    self.at_desk(relay, |desk, out| {
                        rest = rest.take().and_then(|frame| desk.heard(frame, out));
                    });
                    work.extend(rest.map(|frame| Work::Frame { relay, frame }));
                }
            }
            LineNews::Token(token) if present => work.push(Work::Token {
                relay,
                token: token.expose().to_owned(),
            }),
            LineNews::Down if present => {
                self.lines.remove(&relay);
                self.at_desk(relay, |desk, _| desk.lost());
                work.push(Work::Down { relay });
            }
            LineNews::Frames(_) | LineNews::Token(_) | LineNews::Down => {}
        }
    }

    /// Lets a relay's desk act, if there is one, and sends what it says.
    fn at_desk(&mut self, relay: RelayKey, act: impl FnOnce(&mut Desk, &mut Vec<ToRelay>)) {
        let Some(desk) = self.desks.get_mut(&relay) else {
            return;
        };
        let mut out = Vec::new();
        act(desk, &mut out);
        if let Some(line) = self.lines.get_mut(&relay) {
            let parcels = out.into_iter().map(|frame| (frame, Bulk::Wait));
            line.backlog.extend(parcels);
            line.flush();
        }
    }

    /// Commands that other processes have put into the vault.
    fn commands_of_hands(&mut self, now: Time) -> Result<Vec<Work>, Error> {
        if now < self.poll_hands_at {
            return Ok(Vec::new());
        }
        let recent = now.since(self.hands_came) < HANDS_RECENT_MS;
        let pause = if recent {
            HANDS_POLL_MS
        } else {
            HANDS_POLL_IDLE_MS
        };
        self.poll_hands_at = now.plus(pause);
        let version = vault::data_version(&self.conn)?;
        if self.hands_seen == Some(version) {
            return Ok(Vec::new());
        }
        let waiting = hands::waiting(&self.conn)?;
        // With none left there is nothing to look for until somebody writes again.
        self.hands_seen = waiting.is_empty().then_some(version);
        if !waiting.is_empty() {
            self.hands_came = now;
        }
        Ok(waiting
            .into_iter()
            .map(|(id, command)| {
                self.knock_again(&command);
                Work::Command {
                    id,
                    command,
                    submitted: true,
                }
            })
            .collect())
    }

    /// One transaction, or, when it fails, one for each command.
    async fn run(&mut self, work: Vec<Work>, now: Time, body: &mut Body) -> Result<(), Error> {
        self.careful = self.careful.saturating_sub(work.len());
        let error = match self.step(&work, now, body) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        tracing::warn!(inputs = work.len(), %error, "a step failed and was rolled back");
        let alone = work.len() == 1;
        self.begin_again(error, &body.stop).await?;
        for one in work {
            let Work::Command { id, submitted, .. } = &one else {
                continue;
            };
            let (id, submitted) = (*id, *submitted);
            let failed = if alone {
                true
            } else if let Err(error) = self.step(std::slice::from_ref(&one), now, body) {
                self.begin_again(error, &body.stop).await?;
                true
            } else {
                false
            };
            if failed {
                self.answer_failed(id, submitted, now, body)?;
            }
        }
        Ok(())
    }

    /// Handles `work` and commits; only then does anything leave.
    fn step(
        &mut self,
        work: &[Work],
        now: Time,
        body: &mut Body,
    ) -> Result<(), skytale_agent::Error> {
        let vault = Arc::clone(&body.start.vault);
        let turn = vault.turn();
        let tx = begin(&mut self.conn)?;
        for one in work {
            if let Work::Command {
                id,
                submitted: true,
                ..
            } = one
            {
                hands::taken(&tx, *id)?;
            }
        }
        let inputs = work.iter().cloned().map(Work::input).collect();
        let outputs = self.agent.handle(inputs, now, &tx)?;
        for (id, answer) in &outputs.answers {
            if hands::is_submitted(&tx, *id)? {
                hands::answer(&tx, *id, answer, now)?;
                if body.waiting.contains_key(id) {
                    // Ours, from when we were a hand: answered directly.
                    hands::take_answer(&tx, *id)?;
                }
            }
        }
        tx.commit()?;
        drop(turn);
        for one in work {
            if let Work::Frame { relay, frame } = one
                && let Some(line) = self.lines.get_mut(relay)
            {
                line.standing.heard(frame);
            }
        }
        self.let_out(outputs, body);
        Ok(())
    }

    fn let_out(&mut self, outputs: Outputs, body: &mut Body) {
        for (relay, frame) in outputs.frames {
            if let Some(line) = self.lines.get_mut(&relay) {
                line.standing.said(&frame);
                let at_once = matches!(
                    &frame,
                    ToRelay::Publish(publish) if outputs.at_once.contains(&publish.id)
                );
                let bulk = if at_once { Bulk::Now } else { Bulk::Wait };
                line.backlog.push_back((frame, bulk));
            }
        }
        for (relay, line) in &mut self.lines {
            line.flush();
            if outputs.close.contains(relay) || line.backlog.len() > BACKLOG_MAX {
                line.frames = None;
                line.backlog.clear();
            }
        }
        for (id, answer) in outputs.answers {
            body.reply(id, answer);
        }
        self.checkpoint_due |= outputs.epoch_ended;
        body.tell_news();
    }

    /// Memory is never ahead of disk: after an error the mind is loaded again. It then knows of
    /// no connection, so those end too and their links make new ones.
    async fn begin_again(
        &mut self,
        cause: skytale_agent::Error,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        self.lines.clear();
        for desk in self.desks.values_mut() {
            desk.lost();
        }
        self.held_back = None;
        self.careful = STEP_INPUTS_MAX;
        for _ in 0..REOPEN_TRIES {
            match open_agent(&mut self.conn, &self.label) {
                Ok(agent) => {
                    self.agent = agent;
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(%error, "the vault cannot be read again yet");
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = sleep(REOPEN_PAUSE) => {}
                    }
                }
            }
        }
        Err(cause.into())
    }

    fn answer_failed(
        &mut self,
        id: CommandId,
        submitted: bool,
        now: Time,
        body: &mut Body,
    ) -> Result<(), Error> {
        let answer = Answer::Failed(Failure::Damaged(
            "the vault could not store what this command needs; it was undone".into(),
        ));
        if submitted {
            let tx = begin(&mut self.conn)?;
            // It leaves the table in any case: what was told as failed must not be done later.
            hands::answer(&tx, id, &answer, now)?;
            if body.waiting.contains_key(&id) {
                hands::take_answer(&tx, id)?;
            }
            tx.commit()?;
        }
        body.reply(id, answer);
        Ok(())
    }

    /// Has a link to each relay that the mind wants and to our home, and no other.
    fn follow_wishes(&mut self) {
        let mut wanted: BTreeMap<RelayKey, Vec<String>> = self
            .agent
            .relays()
            .into_iter()
            .map(|wish| (wish.key, wish.addresses))
            .collect();
        if let Some(home) = &self.home {
            if self.setup.account.is_some() {
                wanted.entry(home.key).or_default();
            }
            // What the context says goes before what an invite said long ago.
            if let Some(addresses) = wanted.get_mut(&home.key) {
                addresses.retain(|address| *address != home.address);
                addresses.insert(0, home.address.clone());
            }
        }
        let unwanted: Vec<RelayKey> = self
            .links
            .keys()
            .filter(|relay| !wanted.contains_key(relay))
            .copied()
            .collect();
        for relay in unwanted {
            self.retire(relay);
        }
        for (relay, addresses) in wanted {
            if let Some(link) = self.links.get(&relay) {
                link.look_at(addresses);
            } else {
                let link = Link::start(&self.setup, relay, addresses);
                self.links.insert(relay, link);
            }
        }
    }

    /// The link writes what is in it and ends.
    fn retire(&mut self, relay: RelayKey) {
        if let Some(link) = self.links.remove(&relay) {
            link.retire();
            self.retiring.push(link);
        }
        if let Some(line) = self.lines.get_mut(&relay) {
            line.frames = None;
            line.backlog.clear();
        }
    }

    /// A relay that has refused us is asked again when the application wants something that may
    /// change its mind.
    fn knock_again(&mut self, command: &Command) {
        match command {
            Command::Open { .. } | Command::Join { .. } | Command::Accept { .. } => {}
            Command::Invite { .. }
            | Command::Send { .. }
            | Command::Add { .. }
            | Command::Remove { .. }
            | Command::Leave { .. }
            | Command::Rotate { .. }
            | Command::Grant { .. }
            | Command::CloseInvites { .. }
            | Command::Decline { .. } => return,
        }
        let refused: Vec<RelayKey> = self
            .links
            .iter()
            .filter(|(_, link)| matches!(link.view().state, LinkState::Refused(_)))
            .map(|(relay, _)| *relay)
            .collect();
        for relay in refused {
            // The wishes, followed after the next step, bring a new link.
            self.retire(relay);
        }
    }

    fn checkpoint_if_due(&mut self, now: Time) -> Result<(), Error> {
        if self.checkpoint_due && now >= self.checkpoint_at {
            self.checkpoint_at = now.plus(CHECKPOINT_EVERY_MS);
            self.checkpoint_due = !vault::checkpoint(&self.conn)?;
        }
        Ok(())
    }

    fn idle_for(&self, now: Time) -> Duration {
        let mut until = self.poll_hands_at;
        if let Some(wake) = self.agent.wake() {
            until = until.min(wake);
        }
        Duration::from_millis(until.since(now).clamp(1, HANDS_POLL_IDLE_MS))
    }

    fn has_nothing_to_flush(&self) -> Result<bool, Error> {
        if !self.links.values().any(Link::is_ready) {
            return Ok(true);
        }
        let written = self.lines.values().all(|line| line.backlog.is_empty());
        Ok(written
            && view::outbox_len(&self.conn, None)? == 0
            && view::commits_wanted(&self.conn)? == 0)
    }

    /// A slot each way may be as far off as the schedule's longest silence.
    fn flush_ms_max(&self) -> u64 {
        let silence = self.setup.traffic.shape().silence_max().unwrap_or_default();
        let both = u64::try_from(2 * silence.as_millis()).unwrap_or(u64::MAX);
        FLUSH_MS_MAX + both.min(FLUSH_SLOTS_MS_MAX)
    }

    pub(super) async fn close(mut self, stop: &CancellationToken) {
        // Without their senders the writers finish what they have.
        self.lines.clear();
        for link in self.links.values() {
            link.retire();
        }
        let mut events = self.events;
        let all_ended = async {
            for link in self.links.into_values().chain(self.retiring) {
                link.ended().await;
            }
        };
        // What they still report must not be what they wait for.
        let nothing_more = async { while events.recv().await.is_some() {} };
        tokio::select! {
            () = all_ended => {}
            () = nothing_more => {}
            // Their thread gives them a moment more.
            () = stop.cancelled() => {}
        }
        // Readers of this process are closed by now; those of others may keep the log from being
        // emptied, and the next mind tries again.
        if let Err(error) = vault::checkpoint(&self.conn) {
            tracing::warn!(%error, "the log was not emptied");
        }
    }
}

fn open_agent(conn: &mut Connection, label: &str) -> Result<Agent, Error> {
    let tx = begin(conn)?;
    let agent = Agent::open(&tx, label)?;
    tx.commit()?;
    Ok(agent)
}

/// Reports of links that wait, each with frames of one piece; more make QUIC hold the relays back.
const EVENTS_MAX: usize = 1024;
/// How often the mind looks for commands of other processes.
const HANDS_POLL_MS: u64 = 20;
/// And how often when none has come for a while: a mind of which nobody wants anything should cost
/// nothing.
const HANDS_POLL_IDLE_MS: u64 = 100;
const HANDS_RECENT_MS: u64 = 5_000;
/// How often the log is emptied at most.
const CHECKPOINT_EVERY_MS: u64 = 100;
/// How long a close waits for what a connected relay has not confirmed.
const FLUSH_MS_MAX: u64 = 2_000;
/// How much longer, where cells leave by a schedule.
const FLUSH_SLOTS_MS_MAX: u64 = 20_000;
const REOPEN_TRIES: u32 = 50;
const REOPEN_PAUSE: Duration = Duration::from_millis(200);
