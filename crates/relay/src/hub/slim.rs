//! SLIM in the relay's mind: who is subscribed to which name, which commit comes first, what is
//! kept.
//!
//! Both doors lead here: streams of SLIM's own clients, and lines of native agents that ask for
//! SLIM names. A message is looked at and passed on as it came; nothing here can read what a
//! session with MLS says. Left out: links and their MACs, which are the edge's, and the session
//! dialogue, which is between the peers.
//!
//! | comes | is |
//! |---|---|
//! | Msg | stored with a place in the log of its destination, then relayed |
//! | a readable commit or proposal | ordered, stored, relayed, answered |
//! | `RTX_REQUEST` to somebody who is gone | answered with the stored original |
//! | Ping, Heartbeat to the relay's own name | answered with its like |
//! | anything else | relayed as it is |
//!
//! What comes over one connection goes on in the order in which it came: behind a message that is
//! not stored yet, all others wait.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use skytale_slim::{
    Address, Generation, Instance, LinkId, Name, Onward, Pattern, Routed, SubscriptionTable, Verb,
};
use skytale_wire::{
    frame::SlimName,
    id::{ChannelId, Digest, Seq, Time},
    refusal::Refusal,
};

use super::{Conn, Hub, Output, Payer, Ticket, Timer};

mod after;
mod kept;
mod log;
mod native;
mod order;
mod publish;
mod rights;
mod routes;
mod rtx;
mod shares;

pub(super) use after::{After, Deed};
pub(super) use kept::{StoredSlim, is_slim};
pub(super) use log::SlimAppended;
pub(crate) use native::slim_message_in;

use log::{Followers, Log};
use native::Native;
use order::Orders;
use publish::Homes;
use rights::Owner;
use shares::Shares;

/// What an operator sets of SLIM: the section `[relay.slim]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlimRules {
    /// Whether messages are stored before they go on. Without it nothing is kept, nobody reads
    /// later what was said before, and commits are ordered only while this process runs.
    pub archive: bool,
    /// Names that have a log, all together. Logs that hold nothing any more make room; beyond that,
    /// messages to further names go on without being stored, and commits without being ordered.
    pub logs_max: usize,
    /// The same for the organisations of one account.
    pub logs_per_account_max: usize,
    /// Organisations that one account may own.
    pub organisations_per_account_max: usize,
}

impl Default for SlimRules {
    fn default() -> Self {
        Self {
            archive: true,
            logs_max: 100_000,
            logs_per_account_max: 20_000,
            organisations_per_account_max: 64,
        }
    }
}

impl SlimRules {
    /// Names of one account that may have a log. Nobody's are bounded with all others only.
    fn logs_of_max(&self, account: Option<&str>) -> usize {
        match account {
            Some(_) => self.logs_per_account_max,
            None => self.logs_max,
        }
    }
}

/// A SLIM stream whose generation is known and whose token was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlimPresented {
    /// Which of SLIM's wires it speaks.
    pub generation: Generation,
    /// By what right it is here.
    pub owner: SlimRight,
}

/// By what right a SLIM stream is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlimRight {
    /// Without a token, on a relay that was told to allow this: every name, whosever it is.
    Open,
    /// A checked token of an account.
    Account {
        /// Whose.
        payer: Payer,
        /// The names that it may subscribe to, and send to and from.
        patterns: Vec<Pattern>,
        /// The token's end.
        expires: Time,
    },
}

/// All that the hub knows of SLIM.
#[derive(Debug, Default)]
pub(super) struct Slim {
    one: SubscriptionTable,
    two: SubscriptionTable,
    /// Native lines that follow the log of a name, whichever generation is said there.
    following: SubscriptionTable,
    links: BTreeMap<Conn, SlimPresented>,
    /// What native lines are subscribed to.
    natives: BTreeMap<Conn, Native>,
    followers: HashMap<ChannelId, Followers>,
    logs: HashMap<ChannelId, Log>,
    /// Those of which only the head is left, by when they became so.
    empty: Shares<ChannelId>,
    /// The logs that are not empty by their names, so that those of one name stand together.
    names: BTreeMap<Address, ChannelId>,
    /// How many logs each account has, empty ones as well; nobody's are those of open streams.
    logs_of: HashMap<Option<String>, usize>,
    orders: Orders,
    /// By the hash of an organisation.
    owners: HashMap<u64, Owner>,
    homes: Homes,
    /// The last write on its way that a connection has caused: what it says next goes on behind.
    last_writes: HashMap<Conn, Ticket>,
    /// Requests for repeats that the archive is asked about, by connection.
    asking: HashMap<Conn, usize>,
    /// Bytes of messages and answers that wait behind others.
    held_bytes: usize,
    /// Kept to reuse its memory.
    to: Vec<LinkId>,
}

/// A message on its way to those who are subscribed when it goes.
#[derive(Debug)]
pub(super) struct Parcel {
    from: Conn,
    generation: Generation,
    destination: Address,
    fanout: u32,
    onward: Arc<Onward>,
    original: Bytes,
    place: Place,
    /// Whether it is of a kind that is stored: only of those copies are counted.
    counts: bool,
}

/// Where a message stands in the log of its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is of a kind that is not stored, or has no log.
    Nowhere,
    /// Here.
    At(Seq),
    /// It was stored before, and this is a repeat.
    Before,
}

/// Why a message was not passed on. SLIM tells nobody either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SlimDrop {
    /// Nobody is subscribed.
    Nobody,
    /// The token does not cover its names, or they are another account's.
    Denied,
    /// It went over too many nodes.
    Expired,
    /// It is larger than those who would get it take.
    TooLarge,
    /// It could not be stored.
    Unstored,
    /// A native line had no room for it.
    NoRoom,
}

impl SlimDrop {
    /// A stable word for metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::TooLarge => "too_large",
            Self::Unstored => "unstored",
            Self::NoRoom => "no_room",
        }
    }
}

impl Hub {
    /// A SLIM stream begins.
    pub(super) fn slim_opened(
        &mut self,
        conn: Conn,
        presented: SlimPresented,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        if let SlimRight::Account { payer, expires, .. } = &presented.owner {
            if self.shut.covers(payer, None) {
                return out.push(Output::Close {
                    conn,
                    refusal: Refusal::Revoked,
                    resume: false,
                });
            }
            let due = expires.plus(self.config.limits.leeway_ms);
            if due <= now {
                return out.push(Output::Close {
                    conn,
                    refusal: Refusal::TokenExpired,
                    resume: true,
                });
            }
            self.timers.insert((due, Timer::Permit(conn)));
            self.meter.pays(conn, Some(payer));
        }
        self.slim.links.insert(conn, presented);
    }

    /// A message has come over a SLIM stream.
    pub(super) fn slim_message(
        &mut self,
        conn: Conn,
        message: &Routed,
        earlier: Option<Seq>,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        if self.slim_has_ended(conn, now) {
            return self.slim_close(conn, Refusal::TokenExpired, true, out);
        }
        if !self.slim.links.contains_key(&conn) {
            return; // It was closed while the message was on its way.
        }
        match message.verb() {
            Verb::Subscribe(id) => self.slim_subscribe(conn, message, id, out),
            Verb::Unsubscribe(id) => self.slim_unsubscribe(conn, message, id, out),
            Verb::Publish(session) => {
                self.slim_publish(conn, message, session, earlier, None, now, out);
            }
        }
    }

    /// A message could not be looked at.
    pub(super) fn slim_lost(&mut self) {
        self.slim_dropped(SlimDrop::Unstored, 1);
    }

    /// Forgets what a connection that is gone had of SLIM, native or not.
    pub(super) fn slim_forget(&mut self, conn: Conn) {
        self.meter.close_line(conn);
        self.slim.links.remove(&conn);
        self.slim.last_writes.remove(&conn);
        self.slim.asking.remove(&conn);
        for table in self.slim.tables() {
            table.drop_link(LinkId(conn.0));
        }
        self.slim_forget_native(conn);
    }

    /// Closes a stream whose token has ended.
    pub(super) fn slim_check_permit(&mut self, conn: Conn, now: Time, out: &mut Vec<Output>) {
        if self.slim_has_ended(conn, now) {
            self.slim_close(conn, Refusal::TokenExpired, true, out);
        }
    }

    /// Streams that came with a token, and who pays for each.
    pub(super) fn slim_payers(&self) -> impl Iterator<Item = (Conn, &Payer)> {
        self.slim
            .links
            .iter()
            .filter_map(|(conn, link)| match &link.owner {
                SlimRight::Open => None,
                SlimRight::Account { payer, .. } => Some((*conn, payer)),
            })
    }

    /// Open streams of SLIM's clients.
    pub fn slim_links(&self) -> usize {
        self.slim.links.len()
    }

    /// Names that have a log with something in it.
    pub fn slim_logs(&self) -> usize {
        self.slim.logs.len() - self.slim.empty.len()
    }

    /// Bytes of what waits behind a write, messages and answers: the driver takes nothing more in while
    /// they are many.
    pub fn slim_held_bytes(&self) -> usize {
        self.slim.held_bytes
    }

    pub(super) fn slim_close(
        &mut self,
        conn: Conn,
        refusal: Refusal,
        resume: bool,
        out: &mut Vec<Output>,
    ) {
        if self.slim.links.contains_key(&conn) {
            self.slim_forget(conn);
            out.push(Output::Close {
                conn,
                refusal,
                resume,
            });
        }
    }

    fn slim_has_ended(&self, conn: Conn, now: Time) -> bool {
        let presented = self.slim.links.get(&conn);
        presented.is_some_and(|presented| match &presented.owner {
            SlimRight::Open => false,
            SlimRight::Account { expires, .. } => now >= expires.plus(self.config.limits.leeway_ms),
        })
    }

    fn slim_dropped(&mut self, why: SlimDrop, count: u64) {
        *self.counters.slim.dropped.entry(why).or_default() += count;
    }
}

impl Slim {
    /// Whether anything is remembered of a connection.
    #[cfg(test)]
    pub(super) fn remembers(&self, conn: Conn) -> bool {
        let link = LinkId(conn.0);
        self.links.contains_key(&conn)
            || self.natives.contains_key(&conn)
            || self.followers.values().any(|them| them.contains(&conn))
            || self.last_writes.contains_key(&conn)
            || self.asking.contains_key(&conn)
            || self.one.subscriptions(link).next().is_some()
            || self.two.subscriptions(link).next().is_some()
            || self.following.subscriptions(link).next().is_some()
    }

    /// Names whose groups are remembered.
    #[cfg(test)]
    pub(super) fn ordered(&self) -> usize {
        self.orders.names()
    }

    /// Wherever a link may be.
    fn tables(&mut self) -> [&mut SubscriptionTable; 3] {
        [&mut self.one, &mut self.two, &mut self.following]
    }

    fn table(&mut self, generation: Generation) -> &mut SubscriptionTable {
        match generation {
            Generation::One => &mut self.one,
            Generation::Two => &mut self.two,
        }
    }
}

/// The log of a name.
pub(super) fn log_of(address: Address) -> ChannelId {
    ChannelId(Digest::of(&[b"skytale/1 slim log", &encoded(address)]).0)
}

/// An address in as many bytes as any other.
fn encoded(address: Address) -> [u8; 41] {
    let mut encoded = [0; 41];
    for (at, component) in address.components.0.iter().enumerate() {
        encoded[at * 8..][..8].copy_from_slice(&component.to_be_bytes());
    }
    if let Instance::Only(id) = address.instance {
        encoded[24] = 1;
        encoded[25..].copy_from_slice(&id.to_be_bytes());
    }
    encoded
}

/// What routes, as frames and stored states say it.
fn wire_name(address: Address) -> SlimName {
    SlimName {
        components: address.components.0,
        instance: match address.instance {
            Instance::Any => None,
            Instance::Only(id) => Some(id.into()),
        },
    }
}

/// `None` for a number that SLIM keeps for any instance.
fn address(name: &SlimName) -> Option<Address> {
    let instance = match name.instance.map(|id| id.number()) {
        None => Instance::Any,
        Some(u128::MAX) => return None,
        Some(id) => Instance::Only(id),
    };
    Some(Address {
        components: skytale_slim::Components(name.components),
        instance,
    })
}

fn wire_generation(generation: Generation) -> u8 {
    match generation {
        Generation::One => 1,
        Generation::Two => 2,
    }
}

fn generation_of(number: u8) -> Option<Generation> {
    match number {
        1 => Some(Generation::One),
        2 => Some(Generation::Two),
        _ => None,
    }
}

/// The relay's own name: what is sent to it is for the relay itself.
pub const RELAY_NAME: &str = "skytale/relay/relay";

static OWN: LazyLock<skytale_slim::Components> = LazyLock::new(|| {
    let name = Name::parse(RELAY_NAME).expect("it has three parts");
    name.address.components
});
