//! What runs the hub: one thread that owns it, one that writes the archive, two that read it.
//!
//! Here async ends. Edges enter through the [`Door`] and get a [`Link`]; everything in between is
//! bounded, and no thread ever waits for one that may wait for it: the hub's thread waits for
//! nobody, the others wait for the hub's. When the disk is behind, the hub's thread takes no more
//! frames; then the room at the door fills up, then the peers' flow control.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use skytale_wire::{
    frame::{self, Closing, Nack, ToAgent, ToRelay, Traffic},
    id::{AgentId, ChannelId, MessageId, Time},
    refusal::Refusal,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use tracing::{error, warn};

mod clock;
mod door;
mod outbound;
mod slim;
mod store;
mod tally;
#[cfg(test)]
mod tests;

pub use clock::Clock;
pub(crate) use door::Which;
pub use door::{Door, Link, Stopped};
pub use outbound::{BYTES_MAX, FULL_BYTES, Outbound, Taken};
pub use slim::{SlimLink, SlimOut, SlimTaken, queues::SLIM_QUEUE_BYTES_MAX};
pub use tally::{Tallied, Tally};

use crate::{
    archive::{Archive, ArchiveError, ArchiveReader, Write, usage::Report as UsageReport},
    hub::{Conn, Counters, Hub, HubConfig, Input, Lane, Output, Query, Ticket},
};
use door::Arrival;
use outbound::Pushed;
use slim::queues::SlimQueues;
use store::{Report, Store, weight};

/// The running hub. Stop it before it is dropped: what has been taken in is then finished.
#[derive(Debug)]
pub struct Driver {
    door: Door,
    usage: watch::Receiver<Option<UsageReport>>,
    threads: Vec<JoinHandle<()>>,
}

/// What a driver says about itself.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Whether the archive takes writes.
    pub writable: bool,
    /// Connections that are open.
    pub connections: usize,
    /// Channels that there are.
    pub channels: usize,
    /// SLIM streams that are open.
    pub slim_links: usize,
    /// SLIM names that have a log.
    pub slim_logs: usize,
    /// SLIM messages dropped for one stream, which did not take what it was sent.
    pub slim_overrun: u64,
    /// Writes that are not yet durable.
    pub unstored: usize,
    /// What the hub has counted.
    pub counters: Counters,
    /// What the lines have carried.
    pub tallied: Tallied,
}

/// Why a driver could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The archive could not be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The system gave no thread.
    #[error("no thread could be started: {0}")]
    Threads(std::io::ErrorKind),
}

impl Driver {
    /// Starts a hub over an archive. Must be called within a tokio runtime, whose timers the
    /// hub's thread uses.
    pub fn start<A: Archive + 'static>(
        config: HubConfig,
        archive: A,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let threads = |error: std::io::Error| StartError::Threads(error.kind());
        let reader = archive.reader();
        let hub = Hub::new(config, reader.channels()?)?;
        let (door, arrivals) = Door::new();
        let (report, reports) = mpsc::channel(REPORTS_MAX);
        let running = Running {
            hub,
            reader,
            clock,
            store: Store::start(archive, &report).map_err(threads)?,
            connected: HashMap::new(),
            slim: SlimQueues::new(),
            out: Vec::new(),
            outcomes: VecDeque::new(),
            to_write: VecDeque::new(),
            to_ask: VecDeque::new(),
            to_wake: Vec::new(),
            unstored: Unstored::default(),
            writable: true,
            tally: Arc::clone(door.shared_tally()),
            usage: watch::Sender::new(None),
        };
        let usage = running.usage.subscribe();
        // Only the threads hold a sender: the reports end with them.
        drop(report);
        let runtime = Handle::current();
        let thread = std::thread::Builder::new()
            .name("hub".into())
            .spawn(move || runtime.block_on(running.run(arrivals, reports)))
            .map_err(threads)?;
        Ok(Self {
            door,
            usage,
            threads: vec![thread],
        })
    }

    /// The way in for an edge.
    pub fn door(&self) -> Door {
        self.door.clone()
    }

    /// The report of usage that the API server has to be told, the last there was; told again, it
    /// is another one to wait for.
    pub(crate) fn usage(&self) -> watch::Receiver<Option<UsageReport>> {
        self.usage.clone()
    }

    /// Finishes what has come in, tells every connection to resume elsewhere or later, and ends
    /// the threads.
    pub async fn stop(self) {
        // Already stopped is stopped.
        let _ = self.door.stop().await;
        for thread in self.threads {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                error!("the hub's thread has panicked");
            }
        }
    }
}

/// What the hub's thread owns.
struct Running<R> {
    hub: Hub,
    reader: R,
    clock: Clock,
    store: Store,
    connected: HashMap<Conn, Connected>,
    /// SLIM's streams, apart because what goes out over them is not made of frames.
    slim: SlimQueues,
    /// Kept to reuse its memory.
    out: Vec<Output>,
    /// What carrying out has led to, for the hub to hear next.
    outcomes: VecDeque<Input>,
    /// What the writer had no room for yet, and the readers.
    to_write: VecDeque<(Ticket, Write)>,
    to_ask: VecDeque<(Conn, Query)>,
    /// Connections that something was pushed for in this step.
    to_wake: Vec<Conn>,
    unstored: Unstored,
    /// Whether the archive takes writes: not after a failure, until the heads are loaded again.
    writable: bool,
    tally: Arc<Tally>,
    /// Who tells the API server looks here.
    usage: watch::Sender<Option<UsageReport>>,
}

/// A connection as the driver knows it.
struct Connected {
    agent: AgentId,
    outbound: Arc<Outbound>,
    /// Agreed at the door; Ready says it.
    traffic: Option<Traffic>,
}

/// Writes on their way, with the bytes that they hold in memory.
#[derive(Default)]
struct Unstored {
    weights: VecDeque<usize>,
    bytes: usize,
}

impl<R: ArchiveReader> Running<R> {
    async fn run(
        mut self,
        mut arrivals: mpsc::Receiver<Arrival>,
        mut reports: mpsc::Receiver<Report>,
    ) {
        let mut arrived = Vec::with_capacity(ARRIVALS_AT_ONCE);
        let mut next_sweep = self.clock.now();
        loop {
            let now = self.clock.now();
            if now >= next_sweep {
                self.sweep();
                next_sweep = now.plus(SWEEP_MS);
            }
            let wake = self.hub.next_wake().unwrap_or(next_sweep).min(next_sweep);
            // At least a millisecond: a timer that does not move must not eat the core.
            let pause = Duration::from_millis(wake.since(now).max(1));
            tokio::select! {
                biased;
                Some(report) = reports.recv() => {
                    self.report(report);
                    while let Ok(report) = reports.try_recv() {
                        self.report(report);
                    }
                }
                count = arrivals.recv_many(&mut arrived, ARRIVALS_AT_ONCE), if self.has_room() => {
                    let mut stop = count == 0;
                    for arrival in arrived.drain(..) {
                        stop |= self.arrive(arrival);
                    }
                    if stop {
                        break;
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
            let now = self.clock.now();
            if self.hub.next_wake().is_some_and(|wake| wake <= now) {
                self.handle(Input::Tick, now);
            }
            self.hand_on();
        }
        self.finish(arrivals, reports).await;
    }

    /// Takes what had come in before the stop, waits until it is stored, and says goodbye.
    async fn finish(
        mut self,
        mut arrivals: mpsc::Receiver<Arrival>,
        mut reports: mpsc::Receiver<Report>,
    ) {
        arrivals.close();
        while let Ok(arrival) = arrivals.try_recv() {
            self.arrive(arrival);
        }
        let now = self.clock.now();
        self.handle(Input::Ending, now);
        self.hand_on();
        let deadline = self.clock.now().plus(FINISH_MS_MAX);
        while !self.unstored.is_empty() && self.writable {
            let left = Duration::from_millis(deadline.since(self.clock.now()));
            match tokio::time::timeout(left, reports.recv()).await {
                Ok(Some(report)) => self.report(report),
                Ok(None) => break,
                Err(_) => {
                    warn!("stopped before the archive had taken everything");
                    break;
                }
            }
            self.hand_on();
        }
        for connected in self.connected.values() {
            connected.outbound.close(&Closing {
                refusal: Refusal::ShuttingDown,
                resume: true,
            });
        }
        self.slim.close_all(Refusal::ShuttingDown);
        // A thread that waits to report is let go before it is joined.
        drop(reports);
        for thread in self.store.stop() {
            if thread.join().is_err() {
                error!("a thread of the archive has panicked");
            }
        }
    }

    /// True when it asks to stop.
    fn arrive(&mut self, arrival: Arrival) -> bool {
        let now = self.clock.now();
        match arrival {
            Arrival::Opened {
                conn,
                presented,
                outbound,
                traffic,
            } => {
                let connected = Connected {
                    agent: presented.agent,
                    outbound,
                    traffic,
                };
                self.connected.insert(conn, connected);
                self.handle(Input::Opened { conn, presented }, now);
            }
            Arrival::Frame { conn, frame, room } => {
                self.frame(conn, frame, now);
                drop(room);
            }
            Arrival::SlimOpened {
                conn,
                presented,
                queue,
            } => self.slim_opened(conn, presented, queue),
            Arrival::Slim {
                conn,
                message,
                room,
            } => {
                self.slim_message(conn, message);
                drop(room);
            }
            Arrival::Input(input) => {
                if let Input::Gone { conn } = input {
                    self.connected.remove(&conn);
                    self.slim.remove(conn);
                }
                // A word of room that has crossed the queue's being full again would, if believed,
                // make live a connection whose queue does not report that a second time.
                let out_of_date = matches!(input, Input::Drained { conn } if self.is_full(conn));
                if !out_of_date {
                    self.handle(input, now);
                }
            }
            Arrival::Look(answer) => {
                // Who asked may have stopped waiting.
                let _ = answer.send(self.snapshot());
            }
            Arrival::Owned {
                account,
                which,
                answer,
            } => {
                let account = account.to_string();
                let owned = match which {
                    Which::One(id) => self.hub.channel_of(&account, &id).into_iter().collect(),
                    Which::Page(after, count_max) => {
                        self.hub.channels_of(&account, after, count_max)
                    }
                };
                let _ = answer.send(owned);
            }
            Arrival::Stop => return true,
        }
        false
    }

    /// A repeated request gets the answer that it got, whatever has changed since. The look-up
    /// happens here and not earlier: what is not found now and has been stored is known to the
    /// hub as on its way.
    fn frame(&mut self, conn: Conn, frame: ToRelay, now: Time) {
        let Some(connected) = self.connected.get(&conn) else {
            return;
        };
        let found = if let ToRelay::SlimPublish(publish) = &frame {
            let found = self.slim_earlier_of(publish);
            found.map_err(|error| (None, publish.id, error))
        } else if let Some((channel, id)) = named(&frame) {
            let found = self.reader.find(&channel, &connected.agent, &id);
            found.map_err(|error| (Some(channel), id, error))
        } else {
            Ok(None)
        };
        let earlier = match found {
            Ok(earlier) => earlier,
            // Without knowing whether it is a repeat, it could be stored twice.
            Err((channel, id, error)) => {
                warn!(%error, "the archive could not be asked for repeats");
                return self.refuse_unasked(conn, channel, id, now);
            }
        };
        self.handle(
            Input::Frame {
                conn,
                frame,
                earlier,
            },
            now,
        );
    }

    fn refuse_unasked(&mut self, conn: Conn, channel: Option<ChannelId>, id: MessageId, now: Time) {
        let frame = ToAgent::Nack(Nack {
            id,
            channel,
            refusal: Refusal::Unavailable,
            epoch: None,
            winner: None,
        });
        self.push(conn, Lane::Live, frame::encode(&frame).into());
        self.carry_all_out(Vec::new(), now);
    }

    fn report(&mut self, report: Report) {
        let now = self.clock.now();
        match report {
            Report::Stored(stored) => {
                for (ticket, written) in stored {
                    self.unstored.one_less();
                    self.handle(Input::Stored { ticket, written }, now);
                }
            }
            Report::Failed(ticket) => {
                self.writable = false;
                self.unstored = Unstored::default();
                self.to_write.clear();
                self.handle(Input::Failed { ticket }, now);
            }
            Report::Works if !self.writable => self.reload(now),
            Report::Works => {}
            Report::Answered(conn, answer) => self.handle(Input::Answered { conn, answer }, now),
        }
    }

    /// After a failure: what the archive holds now is what counts. The hub refuses to write until
    /// this has succeeded; the writer asks again until it has.
    fn reload(&mut self, now: Time) {
        let channels = match self.reader.channels() {
            Ok(channels) => channels,
            Err(error) => {
                warn!(%error, "the heads could not be loaded: it is tried again");
                return;
            }
        };
        // Before the hub writes again, and only when nothing is left that could fail for a while:
        // the writer asks no more after this.
        if !self.store.resume() {
            return;
        }
        let mut out = std::mem::take(&mut self.out);
        match self.hub.reload(channels, now, &mut out) {
            Ok(()) => self.writable = true,
            Err(error) => error!(%error, "the heads cannot be read: publishing stays off"),
        }
        self.carry_all_out(out, now);
    }

    fn handle(&mut self, input: Input, now: Time) {
        let mut out = std::mem::take(&mut self.out);
        self.hub.handle(input, now, &mut out);
        self.carry_all_out(out, now);
    }

    /// Does what the hub wants done. What comes of it is told to the hub afterwards, so that
    /// writes are handed on in the order of their tickets.
    fn carry_all_out(&mut self, mut out: Vec<Output>, now: Time) {
        loop {
            for output in out.drain(..) {
                self.carry_out(output);
            }
            for conn in self.to_wake.drain(..) {
                if let Some(connected) = self.connected.get(&conn) {
                    connected.outbound.wake();
                }
            }
            let Some(input) = self.outcomes.pop_front() else {
                break;
            };
            self.hub.handle(input, now, &mut out);
        }
        self.out = out;
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send {
                conn,
                lane,
                mut frame,
            } => {
                if let ToAgent::Ready(ready) = &mut frame {
                    let connected = self.connected.get(&conn);
                    ready.traffic = connected.and_then(|connected| connected.traffic);
                }
                let bytes = frame::encode(&frame).into();
                self.push(conn, lane, bytes);
            }
            Output::Deliver { conns, frame } => {
                let bytes: Bytes = frame::encode(&ToAgent::Deliver(frame)).into();
                for conn in conns {
                    self.push(conn, Lane::Live, bytes.clone());
                }
            }
            Output::Store { ticket, write } => {
                if self.writable {
                    self.unstored.one_more(weight(&write));
                    self.to_write.push_back((ticket, write));
                } else {
                    // The hub writes nothing then; were it to, waiting would be for ever.
                    self.outcomes.push_back(Input::Failed { ticket });
                }
            }
            Output::Read { conn, query } => self.to_ask.push_back((conn, query)),
            Output::Report(report) => drop(self.usage.send_replace(Some(report))),
            Output::SlimDeliver { conns, onward } => self.slim.deliver(&conns, &onward),
            Output::SlimAck { conn, bytes } => self.slim.answer(conn, SlimOut::Ack(bytes)),
            Output::Close {
                conn,
                refusal,
                resume,
            } => {
                self.slim.close(conn, refusal);
                if let Some(connected) = self.connected.get(&conn) {
                    connected.outbound.close(&Closing { refusal, resume });
                }
            }
        }
    }

    fn push(&mut self, conn: Conn, lane: Lane, bytes: Bytes) {
        let Some(connected) = self.connected.get(&conn) else {
            return;
        };
        if self.to_wake.last() != Some(&conn) {
            self.to_wake.push(conn);
        }
        match connected.outbound.push(lane, bytes) {
            Pushed::Fits => {}
            Pushed::Full => self.outcomes.push_back(Input::Full { conn }),
            Pushed::Overflows => {
                connected.outbound.close(&Closing {
                    refusal: Refusal::SlowReader,
                    resume: true,
                });
                self.outcomes.push_back(Input::Gone { conn });
            }
        }
    }

    fn is_full(&self, conn: Conn) -> bool {
        self.connected
            .get(&conn)
            .is_some_and(|connected| connected.outbound.is_full())
    }

    /// Gives the threads what they have room for.
    fn hand_on(&mut self) {
        while let Some((ticket, write)) = self.to_write.pop_front() {
            if let Some(back) = self.store.write(ticket, write) {
                self.to_write.push_front(back);
                break;
            }
        }
        while let Some((conn, query)) = self.to_ask.pop_front() {
            if !self.connected.contains_key(&conn) && !self.slim.contains(conn) {
                continue;
            }
            if let Some(back) = self.store.ask(conn, query) {
                self.to_ask.push_front(back);
                break;
            }
        }
    }

    /// Forgets connections whose edge was cancelled before it could say so, and tells the hub of
    /// those that are slow because their line is: they are still full, and they get on.
    fn sweep(&mut self) {
        let now = self.clock.now();
        let getting_on: Vec<Conn> = self
            .connected
            .iter()
            .filter(|(_, connected)| connected.outbound.got_on() && connected.outbound.is_full())
            .map(|(conn, _)| *conn)
            .collect();
        for conn in getting_on {
            self.handle(Input::Full { conn }, now);
        }
        let gone: Vec<Conn> = self
            .connected
            .iter()
            .filter(|(_, connected)| connected.outbound.is_abandoned())
            .map(|(conn, _)| *conn)
            .collect();
        for conn in gone {
            self.connected.remove(&conn);
            self.handle(Input::Gone { conn }, now);
        }
        self.slim_sweep();
    }

    fn has_room(&self) -> bool {
        self.unstored.weights.len() < UNSTORED_MAX
            && self.unstored.bytes + self.hub.slim_held_bytes() < UNSTORED_BYTES_MAX
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            writable: self.writable,
            connections: self.hub.connections(),
            channels: self.hub.channels(),
            slim_links: self.hub.slim_links(),
            slim_logs: self.hub.slim_logs(),
            slim_overrun: self.slim.overrun(),
            unstored: self.unstored.weights.len(),
            counters: self.hub.counters().clone(),
            tallied: self.tally.look(),
        }
    }
}

impl Unstored {
    fn one_more(&mut self, weight: usize) {
        self.weights.push_back(weight);
        self.bytes += weight;
    }

    /// Writes are stored in the order in which they were handed on.
    fn one_less(&mut self) {
        self.bytes -= self.weights.pop_front().unwrap_or(0);
    }

    fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }
}

/// Under which name a request's answer is kept.
fn named(frame: &ToRelay) -> Option<(ChannelId, MessageId)> {
    match frame {
        ToRelay::Publish(publish) => Some((publish.channel, publish.id)),
        ToRelay::Commit(commit) => Some((commit.channel, commit.id)),
        ToRelay::Leave(leave) => Some((leave.channel, leave.id)),
        ToRelay::Hello(_)
        | ToRelay::Create(_)
        | ToRelay::Subscribe(_)
        | ToRelay::PutKeyPackages(_)
        | ToRelay::TakeKeyPackage(_)
        | ToRelay::TakeWelcome(_)
        | ToRelay::Welcomed(_)
        | ToRelay::TakeGroupInfo(_)
        | ToRelay::WantGroupInfo(_)
        | ToRelay::SealGroupInfo(_)
        | ToRelay::Seen(_)
        | ToRelay::Renew(_)
        | ToRelay::Ping(_)
        | ToRelay::SlimSubscribe(_)
        | ToRelay::SlimUnsubscribe(_)
        | ToRelay::TakeSlimLogs(_)
        // Stored under names of SLIM's own.
        | ToRelay::SlimPublish(_) => None,
    }
}

/// Arrivals that are handled before the threads are given their work.
const ARRIVALS_AT_ONCE: usize = 256;
/// Writes not yet durable, beyond which no frames are taken.
const UNSTORED_MAX: usize = 4_096;
const UNSTORED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Reports that may wait; the threads wait beyond it.
const REPORTS_MAX: usize = 256;
/// How often connections are looked through for those that were abandoned.
const SWEEP_MS: u64 = 1_000;
/// How long a stopping driver waits for the archive.
const FINISH_MS_MAX: u64 = 5_000;
