//! The hub on its archive, run as the driver runs it: writes wait for a flush, reads see what is
//! durable, a crash loses what was not flushed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use skytale_relay::{
    archive::{Archive as _, ArchiveReader as _, Write, sqlite::SqliteArchive},
    hub::{Answer, Conn, Hub, HubConfig, Input, Output, Payer, Presented, Query, Right, Ticket},
    limits::{Limits, Rate},
};
use skytale_wire::{
    frame::{Credential, FRAME_BYTES_MAX, Hello, ToAgent, ToRelay, decode},
    id::{AgentId, ChannelId, Digest, MessageId, RelayKey, Time, TransportKey},
    refusal::Refusal,
    statement,
    token::AccountId,
};

use super::world::{Happening, World};

/// A relay.
pub(super) struct SimRelay {
    pub(super) key: RelayKey,
    hub: Option<Hub>,
    pub(super) archive: SqliteArchive,
    unflushed: VecDeque<(Ticket, Write)>,
    flushing: bool,
    pub(super) store_fails: bool,
    /// A write has failed, and heads have not been loaded again.
    broken: bool,
    /// Connections and the key that each was opened with.
    conns: BTreeMap<Conn, TransportKey>,
    greeted: BTreeMap<Conn, AgentId>,
    wake: Option<Time>,
    /// Which life it has: one more after each crash.
    pub(super) run: u64,
    /// Hashes of KeyPackages that were handed out, and how often.
    pub(super) handed_out: BTreeMap<Digest, u32>,
    /// Hashes of those that agents have declared to be their last resort.
    pub(super) last_resorts: BTreeSet<Digest>,
}

impl SimRelay {
    pub(super) fn new(rng: &mut ChaCha8Rng) -> Self {
        let mut key = [0; 32];
        rng.fill(&mut key);
        let archive = SqliteArchive::in_memory().unwrap();
        Self {
            key: RelayKey(key),
            hub: Some(
                Hub::new(config(RelayKey(key)), archive.reader().channels().unwrap()).unwrap(),
            ),
            archive,
            unflushed: VecDeque::new(),
            flushing: false,
            store_fails: false,
            broken: false,
            conns: BTreeMap::new(),
            greeted: BTreeMap::new(),
            wake: None,
            run: 0,
            handed_out: BTreeMap::new(),
            last_resorts: BTreeSet::new(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.hub.is_some()
    }

    pub(super) fn accept(&mut self, conn: Conn, transport: TransportKey) {
        self.conns.insert(conn, transport);
    }

    pub(super) fn forget(&mut self, conn: Conn) {
        self.conns.remove(&conn);
        self.greeted.remove(&conn);
    }
}

impl World {
    /// A frame has reached the relay: the edge's part, then the hub's.
    pub(super) fn relay_hears(&mut self, conn: Conn, frame: ToRelay) {
        if !self.relay.is_up() || !self.relay.conns.contains_key(&conn) {
            self.counters.count("fault: lost with its connection");
            return;
        }
        if let ToRelay::PutKeyPackages(upload) = &frame
            && let Some(package) = &upload.last_resort
        {
            self.relay.last_resorts.insert(Digest::of(&[package]));
        }
        if let ToRelay::Hello(hello) = &frame {
            return self.admit(conn, hello);
        }
        let Some(agent) = self.relay.greeted.get(&conn).copied() else {
            return;
        };
        if let ToRelay::Renew(renew) = &frame {
            let right = self.right(conn, &agent, &renew.credential, &renew.proof);
            return self.relay_thinks(Input::Renewed {
                conn,
                id: renew.id,
                right: right.ok_or(Refusal::IdentityUnproven),
            });
        }
        let earlier = request_key(&frame).and_then(|(channel, id)| {
            let reader = self.relay.archive.reader();
            reader.find(&channel, &agent, &id).unwrap()
        });
        self.relay_thinks(Input::Frame {
            conn,
            frame,
            earlier,
        });
    }

    fn admit(&mut self, conn: Conn, hello: &Hello) {
        let Some(right) = self.right(conn, &hello.agent, &hello.credential, &hello.proof) else {
            self.cut(conn);
            return;
        };
        self.relay.greeted.insert(conn, hello.agent);
        let presented = Presented {
            agent: hello.agent,
            transport: self.relay.conns[&conn],
            right,
        };
        self.relay_thinks(Input::Opened { conn, presented });
    }

    /// What the QUIC edge checks before the hub sees a connection. Tokens are words here; the
    /// identity proof is real.
    fn right(
        &mut self,
        conn: Conn,
        agent: &AgentId,
        credential: &Credential,
        proof: &skytale_wire::id::Signed,
    ) -> Option<Right> {
        let said = statement::identity(
            &self.relay.key,
            &self.relay.conns[&conn],
            &credential.hash(),
        );
        if !agent.signed(&said, proof) {
            return None;
        }
        Some(match credential {
            Credential::Token(account) => Right::Account {
                payer: Payer::account(account_of(account).to_string()),
                expires: self
                    .now
                    .plus(if self.faults.on && self.faults.short_tokens {
                        SHORT_TOKEN_MS
                    } else {
                        3_600_000
                    }),
            },
            Credential::Invite(proof) => Right::Invite(proof.clone()),
            Credential::Member => Right::Member,
        })
    }

    /// One input for the hub, and what it wants done.
    pub(super) fn relay_thinks(&mut self, input: Input) {
        let Some(hub) = &mut self.relay.hub else {
            return;
        };
        let mut out = Vec::new();
        hub.handle(input, self.now, &mut out);
        self.relay_does(out);
    }

    fn relay_does(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send { conn, lane, frame } => {
                    if let ToAgent::Nack(nack) = &frame {
                        self.counters
                            .count(format!("refusal: {}", nack.refusal.code()));
                        self.say_aloud(|| {
                            format!("relay refuses {:?} {}", nack.id, nack.refusal.code())
                        });
                    }
                    if let ToAgent::KeyPackage(package) = &frame {
                        let hash = Digest::of(&[&package.package]);
                        *self.relay.handed_out.entry(hash).or_default() += 1;
                        let which = if self.relay.last_resorts.contains(&hash) {
                            "last resort"
                        } else {
                            "single use"
                        };
                        self.counters.count(format!("key package: {which}"));
                    }
                    self.send_to_agent(conn, lane, frame);
                }
                Output::Deliver { conns, frame } => {
                    for conn in conns {
                        self.send_to_agent(
                            conn,
                            skytale_relay::hub::Lane::Live,
                            ToAgent::Deliver(frame.clone()),
                        );
                    }
                }
                Output::Store { ticket, write } => {
                    self.relay.unflushed.push_back((ticket, write));
                    if !self.relay.flushing {
                        self.relay.flushing = true;
                        let pause = self.rng.random_range(1..=6);
                        self.after(pause, Happening::Flush);
                    }
                }
                Output::Read { conn, query } => {
                    let answer = self.look_up(query);
                    let pause = self.rng.random_range(0..=3);
                    self.after(pause, Happening::Answered(conn, answer));
                }
                // Nobody in the simulation speaks SLIM.
                Output::SlimDeliver { .. } | Output::SlimAck { .. } => {}
                Output::Report(report) => self.reports(report, self.relay.run),
                Output::Close {
                    conn,
                    refusal,
                    resume,
                } => {
                    self.counters.count(format!("closed: {}", refusal.code()));
                    let closing = skytale_wire::frame::Closing { refusal, resume };
                    if let Some(index) = self.agent_of(conn) {
                        let relay = self.relay.key;
                        self.think(
                            index,
                            skytale_agent::Input::Frame {
                                relay,
                                frame: ToAgent::Closing(closing),
                            },
                        );
                    }
                    self.cut(conn);
                }
            }
        }
        if let Some(hub) = &self.relay.hub {
            let wake = hub.next_wake();
            if wake.is_some() && wake != self.relay.wake {
                self.relay.wake = wake;
                self.at(wake.unwrap_or_default(), Happening::RelayWake);
            }
        }
    }

    /// Now and then a read fails, or the sealed state of a group is not there any more.
    fn look_up(&mut self, query: Query) -> Answer {
        let fails = self.faults.on && self.faults.store_fails && self.rng.random_bool(0.02);
        if fails {
            self.counters.count("fault: read fails");
            return Answer::Unreadable(query);
        }
        let lost = self.faults.on && self.faults.store_fails && self.rng.random_bool(0.1);
        if let (Query::GroupInfo { channel }, true) = (&query, lost) {
            self.counters.count("fault: group state lost");
            return Answer::GroupInfo {
                channel: *channel,
                sealed: None,
            };
        }
        let reader = self.relay.archive.reader();
        match query {
            Query::Greeting { agent } => Answer::Greeting {
                key_packages: reader.key_packages(&agent).unwrap(),
                welcomes: reader.welcomes_waiting(&agent, 100).unwrap(),
            },
            Query::Records {
                channel,
                after,
                count_max,
                bytes_max,
            } => Answer::Records {
                channel,
                after,
                records: reader
                    .records(&channel, after, count_max, bytes_max)
                    .unwrap(),
            },
            Query::HashAt { channel, seq } => Answer::HashAt {
                channel,
                seq,
                hash: reader.hash_at(&channel, seq).unwrap(),
            },
            Query::Welcomes { agent } => Answer::Welcomes(reader.welcomes(&agent, 100).unwrap()),
            Query::GroupInfo { channel } => Answer::GroupInfo {
                channel,
                sealed: reader.group_info(&channel).unwrap(),
            },
            Query::SlimRecords { .. } | Query::SlimRecord { .. } => {
                unreachable!("nobody in the simulation speaks SLIM")
            }
        }
    }

    /// Everything that waits becomes durable in one go, or nothing of it.
    pub(super) fn flush(&mut self) {
        self.relay.flushing = false;
        if !self.relay.is_up() || self.relay.unflushed.is_empty() {
            return;
        }
        let (tickets, writes): (Vec<Ticket>, Vec<Write>) = self.relay.unflushed.drain(..).unzip();
        if self.relay.store_fails || self.relay.broken {
            // A write whose sync failed may have reached the disk all the same.
            if !self.relay.broken && self.rng.random_bool(0.3) {
                self.counters.count("fault: store fails after writing");
                self.relay.archive.write(&writes).unwrap();
            }
            self.relay.store_fails = false;
            self.relay_thinks(Input::Failed { ticket: tickets[0] });
            if !self.relay.broken {
                self.relay.broken = true;
                let pause = self.rng.random_range(1..150);
                self.after(pause, Happening::Reload);
            }
            return;
        }
        let crash = self.faults.on && self.faults.relay_crashes && self.rng.random_bool(0.006);
        if crash && self.rng.random_bool(0.5) {
            self.counters.count("fault: relay crash before the sync");
            return self.crash_relay();
        }
        let written = self.relay.archive.write(&writes).unwrap();
        if crash {
            self.counters.count("fault: relay crash after the sync");
            return self.crash_relay();
        }
        for (ticket, written) in tickets.into_iter().zip(written) {
            self.relay_thinks(Input::Stored { ticket, written });
        }
    }

    /// The store works again: the hub goes back to what it holds.
    pub(super) fn reload(&mut self) {
        if !self.relay.is_up() || !std::mem::take(&mut self.relay.broken) {
            return;
        }
        self.relay.unflushed.clear();
        let channels = self.relay.archive.reader().channels().unwrap();
        let mut out = Vec::new();
        if let Some(hub) = &mut self.relay.hub {
            hub.reload(channels, self.now, &mut out).unwrap();
        }
        self.relay_does(out);
    }

    /// The relay notices that nobody is at the other end of a connection any more.
    pub(super) fn relay_misses(&mut self, conn: Conn) {
        if self.relay.conns.contains_key(&conn) {
            self.relay.forget(conn);
            self.relay_thinks(Input::Gone { conn });
        }
    }

    pub(super) fn crash_relay(&mut self) {
        if !self.relay.is_up() {
            return;
        }
        self.counters.count("fault: relay crash");
        self.relay.hub = None;
        self.relay.broken = false;
        self.relay.unflushed.clear();
        self.relay.flushing = false;
        self.relay.wake = None;
        for conn in self.relay.conns.keys().copied().collect::<Vec<_>>() {
            self.cut(conn);
        }
        let pause = self.rng.random_range(10..800);
        self.after(pause, Happening::RelayUp);
    }

    pub(super) fn relay_up(&mut self) {
        if self.relay.is_up() {
            return;
        }
        let channels = self.relay.archive.reader().channels().unwrap();
        self.relay.hub = Some(Hub::new(config(self.relay.key), channels).unwrap());
        self.relay.run += 1;
    }
}

/// The account that a token, which is a word here, stands for.
fn account_of(token: &str) -> AccountId {
    AccountId(Digest::of(&[token.as_bytes()]).half())
}

/// What the driver looks up before the hub sees a frame.
fn request_key(frame: &ToRelay) -> Option<(ChannelId, MessageId)> {
    if let ToRelay::Publish(publish) = frame {
        Some((publish.channel, publish.id))
    } else if let ToRelay::Commit(commit) = frame {
        Some((commit.channel, commit.id))
    } else if let ToRelay::Leave(leave) = frame {
        Some((leave.channel, leave.id))
    } else {
        None
    }
}

/// The limits of a real relay would make people wait; everything else is the default.
fn config(relay: RelayKey) -> HubConfig {
    let free = Rate::per_second(10_000, 10_000);
    HubConfig {
        limits: Limits {
            publishes: Rate::per_second(200, 30),
            commits: Rate::per_second(4, 12),
            welcomes: free,
            claims: free,
            claims_of_target: free,
            uploads: free,
            group_infos: free,
            slow_reader_ms: 3_000,
            ..Limits::default()
        },
        guests: true,
        relay,
        retention_ms: 7 * 24 * 3_600_000,
        slim: skytale_relay::hub::SlimRules::default(),
        meters: true,
    }
}

/// Reads a stored envelope.
pub(super) fn envelope(record: &[u8]) -> skytale_wire::envelope::Envelope {
    decode(record, FRAME_BYTES_MAX).unwrap()
}

/// A token's life where tokens are short: with the relay's leeway most schedules see them end.
const SHORT_TOKEN_MS: u64 = 3_000;
/// When the worker brings a new one.
pub(super) const RENEW_MS: u64 = 2_500;
