//! What becomes of a publication: ordered, stored, answered or just passed on.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use skytale_slim::{
    Address, MessageType, MlsMessage, Routed, Session, SessionKind, Undeliverable, answer_ping,
    verdict,
};
use skytale_wire::{
    frame::{Nack, SlimPublished, ToAgent},
    id::{AgentId, ChannelId, Digest, Epoch, MessageId, Seq, Time},
    refusal::Refusal,
};

use super::{
    Conn, Deed, Hub, OWN, Output, Parcel, Place, SlimDrop, Ticket, encoded,
    kept::source_of,
    log::{Entry, kind_of},
    log_of,
    order::{Judgement, Said},
};
use crate::hub::{
    Lane,
    ledger::{Known, Reply, RequestKey, nack},
};

/// Who is to hear what became of a publication: only native agents are told.
pub(super) type Asked = Option<MessageId>;

/// Why a publication is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotTaken {
    pub(super) drop: SlimDrop,
    pub(super) refusal: Refusal,
}

/// Where sessions of several send what is for all: a repeat goes to the one that lacks it, under
/// that one's own name, and is the same message all the same.
#[derive(Debug, Default)]
pub(super) struct Homes {
    homes: HashMap<(Address, u32), Home>,
    /// Oldest first.
    order: VecDeque<(Address, u32)>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Home {
    messages: Option<Address>,
    commits: Option<Address>,
}

impl Hub {
    #[expect(
        clippy::too_many_arguments,
        reason = "all of them belong to the one message"
    )]
    pub(super) fn slim_publish(
        &mut self,
        conn: Conn,
        message: &Routed,
        session: Session,
        earlier: Option<Seq>,
        asked: Asked,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let result = self.slim_try_publish(conn, message, session, earlier, asked, now, out);
        if let Err(not_taken) = result {
            self.slim_dropped(not_taken.drop, 1);
            if let Some(id) = asked {
                let frame = nack(id, None, not_taken.refusal);
                let said = send_to(conn, frame);
                self.slim_do(conn, None, Deed::Say(said), false, out);
            }
        }
    }

    /// Under which names a message may be stored already, the likeliest first; none for what is
    /// not stored.
    pub fn slim_keys(&self, message: &Routed) -> Vec<RequestKey> {
        let Some(session) = message.session() else {
            return Vec::new();
        };
        if !self.config.slim.archive || !is_kept(message, session) {
            return Vec::new();
        }
        let (source, id) = name_of(message, session);
        let destination = message.header().destination.address;
        let home = self.slim.homes.of(message, session);
        let home = home.filter(|home| *home != destination);
        [Some(destination), home]
            .into_iter()
            .flatten()
            .map(|at| (source, log_of(at), id))
            .collect()
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "all of them belong to the one message"
    )]
    fn slim_try_publish(
        &mut self,
        conn: Conn,
        message: &Routed,
        session: Session,
        earlier: Option<Seq>,
        asked: Asked,
        now: Time,
        out: &mut Vec<Output>,
    ) -> Result<(), NotTaken> {
        let header = message.header();
        let (source, destination) = (header.source.address, header.destination.address);
        if destination.components == *OWN {
            return self.slim_answer_ping(conn, message, asked, out);
        }
        let names = [destination.components, source.components];
        self.slim_allow(conn, &names, out)
            .map_err(|denied| NotTaken {
                drop: denied.drop(),
                refusal: denied.refusal(),
            })?;
        if session.message == MessageType::RtxRequest
            && self.slim_answer_rtx(conn, message, session, out)
        {
            self.slim_tell(conn, asked, None, None, out);
            return Ok(());
        }
        let onward = message.onward(conn.0).map_err(NotTaken::from)?;
        let parcel = Parcel {
            from: conn,
            generation: message.generation(),
            destination,
            fanout: header.fanout,
            onward: Arc::new(onward),
            original: message.original().clone(),
            place: Place::Nowhere,
            counts: is_kept(message, session),
        };
        if session.message == MessageType::Msg {
            return self.slim_message_said(message, session, parcel, earlier, asked, now, out);
        }
        if is_handshake(session.message)
            && let Some(Ok(mls)) = message.mls()
        {
            return self.slim_handshake(message, session, &mls, parcel, earlier, asked, now, out);
        }
        self.slim_pass_on(parcel, None, asked, None, out);
        Ok(())
    }

    /// What an application says.
    #[expect(
        clippy::too_many_arguments,
        reason = "all of them belong to the one message"
    )]
    fn slim_message_said(
        &mut self,
        message: &Routed,
        session: Session,
        parcel: Parcel,
        earlier: Option<Seq>,
        asked: Asked,
        now: Time,
        out: &mut Vec<Output>,
    ) -> Result<(), NotTaken> {
        if let Some((ticket, seq)) = self.slim_known(message, earlier) {
            self.counters.slim.repeated += 1;
            let parcel = parcel.again();
            self.slim_pass_on(parcel, ticket, asked, Some(seq), out);
            return Ok(());
        }
        self.slim_check_writable()?;
        let Some(log) = self.slim_log(parcel.destination, out) else {
            self.slim_unarchived();
            let bytes = parcel.original.len();
            self.meter.taken_unstored(parcel.from, bytes);
            self.slim_pass_on(parcel, None, asked, None, out);
            return Ok(());
        };
        self.slim.homes.note(message, session);
        let (source, id) = name_of(message, session);
        let entry = Entry {
            log,
            source,
            id,
            kind: kind_of(message, false),
            epoch: Epoch(0),
            verdict: None,
            reply: self.slim_promise(parcel.from, asked, log),
            parcel,
            moves_group: false,
        };
        self.slim_append(entry, now, out);
        Ok(())
    }

    /// What changes a group under MLS.
    #[expect(
        clippy::too_many_arguments,
        reason = "all of them belong to the one message"
    )]
    fn slim_handshake(
        &mut self,
        message: &Routed,
        session: Session,
        mls: &MlsMessage,
        parcel: Parcel,
        earlier: Option<Seq>,
        asked: Asked,
        now: Time,
        out: &mut Vec<Output>,
    ) -> Result<(), NotTaken> {
        let conn = parcel.from;
        let (source, id) = name_of(message, session);
        let said = Said {
            source,
            message: session.message_id,
        };
        let home = self.slim.homes.of(message, session);
        let at = home.unwrap_or(parcel.destination);
        let known = self.slim_known(message, earlier);
        let judgement = if known.is_some() {
            Judgement::Repeated
        } else {
            // Asked for before judging. What cannot be stored has not happened; and after a write
            // that failed, what is remembered of the order may not have happened either.
            self.slim_check_writable()?;
            self.slim.orders.judge(at, mls, said)
        };
        match judgement {
            Judgement::Unordered => self.slim_unordered(parcel, asked, out),
            Judgement::Repeated => {
                self.counters.slim.commits_repeated += 1;
                let (ticket, seq) = known.unzip();
                let ticket = ticket.flatten();
                let verdict = verdict_on(message, conn, true).filter(|_| asked.is_none());
                let parcel = parcel.again();
                self.slim_pass_on(parcel, ticket, asked, seq, out);
                if let Some(verdict) = verdict {
                    self.slim_do(conn, ticket, Deed::Say(verdict), true, out);
                }
            }
            Judgement::Stale(ticket) => {
                self.counters.slim.commits_stale += 1;
                if let Some(id) = asked {
                    let frame = ToAgent::Nack(Nack {
                        id,
                        channel: None,
                        refusal: Refusal::StaleEpoch,
                        epoch: None,
                        winner: None,
                    });
                    self.slim_say(conn, id, ticket, frame, out);
                } else if let Some(verdict) = verdict_on(message, conn, false) {
                    self.slim_do(conn, ticket, Deed::Say(verdict), true, out);
                }
            }
            Judgement::Accepted => {
                // A repeat to one member that was never seen going to all keeps its group's place,
                // and is stored where it was sent.
                let is_known = at == parcel.destination || self.slim.logs.contains_key(&log_of(at));
                let log = if is_known {
                    self.slim_log(parcel.destination, out)
                } else {
                    None
                };
                if log.is_none() && self.config.slim.archive {
                    self.slim_unarchived();
                    self.slim_unordered(parcel, asked, out);
                    return Ok(());
                }
                self.slim.homes.note(message, session);
                let account = self.slim.account_of(at);
                let rules = &self.config.slim;
                self.slim.orders.accept(at, mls, said, account, rules);
                self.counters.slim.commits_accepted += 1;
                let verdict = verdict_on(message, conn, true).filter(|_| asked.is_none());
                let Some(log) = log else {
                    self.slim_pass_on(parcel, None, asked, None, out);
                    if let Some(verdict) = verdict {
                        self.slim_do(conn, None, Deed::Say(verdict), false, out);
                    }
                    return Ok(());
                };
                let entry = Entry {
                    log,
                    source,
                    id,
                    kind: kind_of(message, true),
                    epoch: Epoch(mls.epoch),
                    verdict,
                    reply: self.slim_promise(conn, asked, log),
                    moves_group: at == parcel.destination,
                    parcel,
                };
                let ticket = self.slim_append(entry, now, out);
                self.slim.orders.written(at, mls, ticket);
            }
        }
        Ok(())
    }

    /// Passes a commit on whose order is not known: the relay says nothing of what becomes of it.
    fn slim_unordered(&mut self, parcel: Parcel, asked: Asked, out: &mut Vec<Output>) {
        self.counters.slim.commits_unordered += 1;
        self.slim_pass_on(parcel, None, asked, None, out);
    }

    /// Passes a message on behind what its sender has said before, and tells a native sender.
    fn slim_pass_on(
        &mut self,
        parcel: Parcel,
        ticket: Option<Ticket>,
        asked: Asked,
        seq: Option<Seq>,
        out: &mut Vec<Output>,
    ) {
        let conn = parcel.from;
        self.slim_do(conn, ticket, Deed::Relay(parcel), false, out);
        self.slim_tell(conn, asked, ticket, seq, out);
    }

    /// Tells a native sender that its message has been dealt with.
    fn slim_tell(
        &mut self,
        conn: Conn,
        asked: Asked,
        ticket: Option<Ticket>,
        seq: Option<Seq>,
        out: &mut Vec<Output>,
    ) {
        if let Some(id) = asked {
            let frame = ToAgent::SlimPublished(SlimPublished { id, seq });
            self.slim_say(conn, id, ticket, frame, out);
        }
    }

    /// Answers a native request once a write that it depends on is stored; if that fails, it is
    /// refused.
    fn slim_say(
        &mut self,
        conn: Conn,
        id: MessageId,
        ticket: Option<Ticket>,
        frame: ToAgent,
        out: &mut Vec<Output>,
    ) {
        let deed = Deed::Answer { conn, id, frame };
        self.slim_do(conn, ticket, deed, true, out);
    }

    /// The answer that a stored message will have.
    fn slim_promise(&self, conn: Conn, asked: Asked, log: ChannelId) -> Option<Reply> {
        let id = asked?;
        let head = self.slim.logs.get(&log).map_or(Seq(0), |log| log.head);
        let frame = ToAgent::SlimPublished(SlimPublished {
            id,
            seq: Some(head.next()),
        });
        Some(Reply {
            conn,
            id,
            channel: None,
            ordered: false,
            frame: Some(frame),
        })
    }

    /// Where a message was stored before, and the write that is still on its way.
    fn slim_known(&self, message: &Routed, earlier: Option<Seq>) -> Option<(Option<Ticket>, Seq)> {
        let keys = self.slim_keys(message);
        let known = keys.iter().find_map(|key| self.ledger.known(key));
        match known {
            Some(Known::Waiting(ticket, seq)) => Some((Some(ticket), seq)),
            Some(Known::Stored(seq)) => Some((None, seq)),
            None => earlier.map(|seq| (None, seq)),
        }
    }

    /// A Ping or Heartbeat to the relay's own name comes back; anything else to it is for nobody.
    fn slim_answer_ping(
        &mut self,
        conn: Conn,
        message: &Routed,
        asked: Asked,
        out: &mut Vec<Output>,
    ) -> Result<(), NotTaken> {
        let nobody = NotTaken {
            drop: SlimDrop::Nobody,
            refusal: Refusal::Malformed,
        };
        let pong = answer_ping(message).ok_or(nobody)?;
        let onward = pong.onward(conn.0).map_err(NotTaken::from)?;
        self.counters.slim.pings += 1;
        if self.slim.links.contains_key(&conn) {
            let said = Output::SlimDeliver {
                conns: vec![conn],
                onward: Arc::new(onward),
            };
            self.slim_do(conn, None, Deed::Say(said), false, out);
        } else {
            let parcel = Parcel {
                from: conn,
                generation: pong.generation(),
                destination: pong.header().destination.address,
                fanout: 1,
                onward: Arc::new(onward),
                original: pong.original().clone(),
                place: Place::Nowhere,
                counts: false,
            };
            self.slim_push(conn, &parcel, None, out);
        }
        self.slim_tell(conn, asked, None, None, out);
        Ok(())
    }

    /// Nothing is taken that would have to be stored and cannot be.
    fn slim_check_writable(&self) -> Result<(), NotTaken> {
        if !self.config.slim.archive {
            return Ok(());
        }
        self.check_writable().map_err(|refusal| NotTaken {
            drop: SlimDrop::Unstored,
            refusal,
        })
    }

    fn slim_unarchived(&mut self) {
        if self.config.slim.archive {
            self.counters.slim.unarchived += 1;
        }
    }
}

impl Parcel {
    fn again(self) -> Self {
        Self {
            place: Place::Before,
            ..self
        }
    }
}

impl Homes {
    /// Where the session sends what is for all, as far as that was seen.
    fn of(&self, message: &Routed, session: Session) -> Option<Address> {
        let key = (message.header().source.address, session.id);
        let home = self.homes.get(&key)?;
        if is_handshake(session.message) {
            home.commits
        } else {
            home.messages
        }
    }

    /// Notes where it goes, if it goes to all.
    fn note(&mut self, message: &Routed, session: Session) {
        let header = message.header();
        if session.kind != SessionKind::Multicast || header.fanout <= 1 {
            return;
        }
        let key = (header.source.address, session.id);
        let order = &mut self.order;
        let home = self.homes.entry(key).or_insert_with(|| {
            order.push_back(key);
            Home::default()
        });
        let at = if is_handshake(session.message) {
            &mut home.commits
        } else {
            &mut home.messages
        };
        at.get_or_insert(header.destination.address);
        if self.homes.len() > HOMES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.homes.remove(&oldest);
        }
    }
}

impl From<Undeliverable> for NotTaken {
    fn from(why: Undeliverable) -> Self {
        match why {
            Undeliverable::Expired => Self {
                drop: SlimDrop::Expired,
                refusal: Refusal::Malformed,
            },
            Undeliverable::TooLarge => Self {
                drop: SlimDrop::TooLarge,
                refusal: Refusal::TooLarge,
            },
        }
    }
}

/// Whether a message is stored at all.
fn is_kept(message: &Routed, session: Session) -> bool {
    session.message == MessageType::Msg
        || (is_handshake(session.message) && matches!(message.mls(), Some(Ok(_))))
}

/// Whether a message of this type may hold a commit or proposal.
fn is_handshake(message: MessageType) -> bool {
    matches!(
        message,
        MessageType::GroupAdd
            | MessageType::GroupRemove
            | MessageType::GroupUpdate
            | MessageType::GroupProposal
    )
}

/// What makes a message the same one again: who says it, and its place in the session.
pub(super) fn name_of(message: &Routed, session: Session) -> (AgentId, MessageId) {
    let kind = session.message.number(message.generation());
    let generation = super::wire_generation(message.generation());
    named(
        generation,
        kind.unwrap_or_default(),
        message.header().source.address,
        session.id,
        session.message_id,
    )
}

/// The same from its parts.
pub(super) fn named(
    generation: u8,
    kind: i32,
    source: Address,
    session: u32,
    message: u32,
) -> (AgentId, MessageId) {
    let encoded = encoded(source);
    let id = Digest::of(&[
        b"skytale/1 slim id",
        &[generation],
        &kind.to_be_bytes(),
        &session.to_be_bytes(),
        &message.to_be_bytes(),
        &encoded,
    ]);
    (source_of(&encoded), MessageId(id.half()))
}

/// The relay's own word on a commit, for the link that it came over.
fn verdict_on(commit: &Routed, conn: Conn, accepted: bool) -> Option<Output> {
    let verdict = verdict(commit, accepted)?;
    let onward = verdict.onward(conn.0).ok()?;
    Some(Output::SlimDeliver {
        conns: vec![conn],
        onward: Arc::new(onward),
    })
}

fn send_to(conn: Conn, frame: ToAgent) -> Output {
    Output::Send {
        conn,
        lane: Lane::Live,
        frame,
    }
}

/// Sessions whose names are remembered. A repeat of an older one is stored once more, at the name
/// of the member that lacked it.
const HOMES_MAX: usize = 65_536;
