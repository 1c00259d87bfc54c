//! The worker's side of SLIM for one relay: who is subscribed to what, and what waits for an answer.
//!
//! Nothing here touches the mind or its store: plain SLIM messages are not kept by an agent. What
//! must not be lost is in the relay's log, and a reader goes on from its cursor.

use std::{collections::BTreeMap, mem};

use rand::RngExt as _;
use skytale_slim::{Generation, Routed};
use skytale_wire::{
    Blob,
    frame::{
        SlimDeliver, SlimLog, SlimName, SlimPublish, SlimSubscribe, SlimSubscribed,
        SlimUnsubscribe, TakeSlimLogs, ToAgent, ToRelay,
    },
    id::{MessageId, Seq},
};
use tokio::sync::{mpsc, oneshot};

use crate::error::Error;

/// What handles ask.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "few of them live at once, and most are the large one"
)]
pub(crate) enum SlimAsk {
    Subscribe {
        name: SlimName,
        after: Option<Seq>,
        to: mpsc::Sender<Delivery>,
        answer: Option<Answer<Subscribed>>,
    },
    Unsubscribe {
        name: SlimName,
        /// Only if it still is who asked for it.
        to: mpsc::Sender<Delivery>,
    },
    Logs {
        of: TakeSlimLogs,
        answer: Answer<Vec<SlimLog>>,
    },
    Publish {
        message: Routed,
        /// Whoever does not wait for it does not want it said again either.
        answer: Option<Answer<Option<Seq>>>,
    },
}

impl SlimAsk {
    /// It cannot be done here.
    pub(crate) fn refuse(self, error: Error) {
        match self {
            Self::Subscribe {
                answer: Some(answer),
                ..
            } => drop(answer.send(Err(error))),
            Self::Subscribe { to, .. } => drop(to.try_send(Delivery::Ended(error))),
            Self::Publish {
                answer: Some(answer),
                ..
            } => drop(answer.send(Err(error))),
            Self::Logs { answer, .. } => drop(answer.send(Err(error))),
            Self::Publish { answer: None, .. } | Self::Unsubscribe { .. } => {}
        }
    }
}

/// Where an answer goes.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, Error>>;

/// A subscription stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subscribed {
    pub(crate) head: Seq,
    pub(crate) pruned: Seq,
}

/// For whoever reads a subscription.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all of them are the large one"
)]
pub(crate) enum Delivery {
    Message { seq: Option<Seq>, message: Routed },
    Ended(Error),
}

/// One relay's desk.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// `None` while the relay has not let us in.
    door: Option<Door>,
    names: BTreeMap<SlimName, Reader>,
    pending: BTreeMap<MessageId, Pending>,
}

#[derive(Debug, Clone, Copy)]
enum Door {
    /// Bytes that a message may have.
    Open(usize),
    /// The relay knows no SLIM.
    Shut,
}

#[derive(Debug)]
struct Reader {
    /// The request that is under way or was the last.
    request: MessageId,
    /// It has no answer yet. What comes before that for a reader of the log belongs to an older
    /// request, and comes again in its place.
    is_asking: bool,
    /// Where it is in the relay's log, when it follows it.
    cursor: Option<Seq>,
    to: mpsc::Sender<Delivery>,
    answer: Option<Answer<Subscribed>>,
    /// It was full: the relay was told to stop, and is asked again when there is room.
    stalled: bool,
}

#[derive(Debug)]
enum Pending {
    Publish(SlimPublish, Answer<Option<Seq>>),
    Logs(TakeSlimLogs, Answer<Vec<SlimLog>>),
}

impl Pending {
    /// To be said again under the same id: the relay recognises what it has dealt with.
    fn frame(&self) -> ToRelay {
        match self {
            Self::Publish(frame, _) => ToRelay::SlimPublish(frame.clone()),
            Self::Logs(frame, _) => ToRelay::TakeSlimLogs(frame.clone()),
        }
    }

    fn is_given_up(&self) -> bool {
        match self {
            Self::Publish(_, answer) => answer.is_closed(),
            Self::Logs(_, answer) => answer.is_closed(),
        }
    }

    fn refuse(self, error: Error) {
        match self {
            Self::Publish(_, answer) => drop(answer.send(Err(error))),
            Self::Logs(_, answer) => drop(answer.send(Err(error))),
        }
    }
}

impl Desk {
    /// Takes what a handle asks; frames for the relay go to `out`.
    pub(crate) fn ask(&mut self, ask: SlimAsk, out: &mut Vec<ToRelay>) {
        if let Some(Door::Shut) = self.door {
            return ask.refuse(knows_no_slim());
        }
        match ask {
            SlimAsk::Subscribe {
                name,
                after,
                to,
                answer,
            } => {
                let taken = self
                    .names
                    .get(&name)
                    .is_some_and(|reader| !reader.to.is_closed());
                if taken {
                    let ask = SlimAsk::Subscribe {
                        name,
                        after,
                        to,
                        answer,
                    };
                    return ask.refuse(Error::misuse(
                        "this process is subscribed to that name already",
                    ));
                }
                let mut reader = Reader {
                    request: fresh_id(),
                    is_asking: true,
                    cursor: after,
                    to,
                    answer,
                    stalled: false,
                };
                if self.door.is_some() {
                    out.push(reader.request(name));
                }
                self.names.insert(name, reader);
            }
            SlimAsk::Unsubscribe { name, to } => {
                let is_his = |reader: &Reader| reader.to.same_channel(&to);
                if self.names.get(&name).is_some_and(is_his) {
                    self.names.remove(&name);
                    self.unsubscribe(name, out);
                }
            }
            SlimAsk::Logs { of, answer } => {
                if self.door.is_some() {
                    out.push(ToRelay::TakeSlimLogs(of.clone()));
                }
                self.wait_for(of.id, Pending::Logs(of, answer));
            }
            SlimAsk::Publish { message, answer } => self.publish(&message, answer, out),
        }
    }

    /// The relay has let us in, and says whether it knows SLIM. Everything is asked for again.
    pub(crate) fn opened(&mut self, bytes_max: Option<u32>, out: &mut Vec<ToRelay>) {
        let Some(bytes_max) = bytes_max else {
            self.door = Some(Door::Shut);
            for (_, reader) in mem::take(&mut self.names) {
                reader.end(knows_no_slim());
            }
            for (_, pending) in mem::take(&mut self.pending) {
                pending.refuse(knows_no_slim());
            }
            return;
        };
        self.door = Some(Door::Open(usize::try_from(bytes_max).unwrap_or(usize::MAX)));
        for (name, reader) in &mut self.names {
            reader.stalled = false;
            out.push(reader.request(*name));
        }
        out.extend(self.pending.values().map(Pending::frame));
    }

    /// The line is gone; what is asked meanwhile waits for the next one.
    pub(crate) fn lost(&mut self) {
        self.door = None;
    }

    /// Takes a frame if it is one of this desk's, else gives it back.
    pub(crate) fn heard(&mut self, frame: ToAgent, out: &mut Vec<ToRelay>) -> Option<ToAgent> {
        match frame {
            ToAgent::Ready(ready) => {
                self.opened(ready.slim_bytes_max, out);
                Some(ToAgent::Ready(ready))
            }
            ToAgent::SlimDeliver(deliver) => {
                self.deliver(deliver, out);
                None
            }
            ToAgent::SlimSubscribed(said) => {
                self.subscribed(&said);
                None
            }
            ToAgent::SlimPublished(said) => {
                if let Some(Pending::Publish(_, answer)) = self.pending.remove(&said.id) {
                    let _ = answer.send(Ok(said.seq));
                }
                None
            }
            ToAgent::SlimLogs(said) => {
                if let Some(Pending::Logs(_, answer)) = self.pending.remove(&said.id) {
                    let _ = answer.send(Ok(said.logs));
                }
                None
            }
            ToAgent::Nack(nack) => {
                let error = Error::Denied(nack.refusal);
                if let Some(pending) = self.pending.remove(&nack.id) {
                    pending.refuse(error);
                    return None;
                }
                let asked = self.names.iter().find(|(_, it)| it.request == nack.id);
                let Some(name) = asked.map(|(name, _)| *name) else {
                    return Some(ToAgent::Nack(nack));
                };
                if let Some(reader) = self.names.remove(&name) {
                    reader.end(error);
                }
                None
            }
            other @ (ToAgent::Created(_)
            | ToAgent::Published(_)
            | ToAgent::Ack(_)
            | ToAgent::Subscribed(_)
            | ToAgent::Deliver(_)
            | ToAgent::Pruned(_)
            | ToAgent::KeyPackagesKept(_)
            | ToAgent::KeyPackage(_)
            | ToAgent::Welcome(_)
            | ToAgent::GroupInfo(_)
            | ToAgent::GroupInfoWanted(_)
            | ToAgent::Renewed(_)
            | ToAgent::Pong(_)
            | ToAgent::Closing(_)) => Some(other),
        }
    }

    /// Asks again for what was full and has room now, and lets go what nobody reads.
    pub(crate) fn tend(&mut self, out: &mut Vec<ToRelay>) {
        let closed: Vec<SlimName> = self
            .names
            .iter()
            .filter(|(_, reader)| reader.to.is_closed())
            .map(|(name, _)| *name)
            .collect();
        for name in closed {
            self.names.remove(&name);
            self.unsubscribe(name, out);
        }
        if !matches!(self.door, Some(Door::Open(_))) {
            return;
        }
        for (name, reader) in &mut self.names {
            let room = reader.to.capacity() >= reader.to.max_capacity() / 2;
            if reader.stalled && room {
                reader.stalled = false;
                out.push(reader.request(*name));
            }
        }
    }

    fn publish(
        &mut self,
        message: &Routed,
        answer: Option<Answer<Option<Seq>>>,
        out: &mut Vec<ToRelay>,
    ) {
        let max = match self.door {
            Some(Door::Open(max)) => max,
            Some(Door::Shut) | None => usize::MAX,
        };
        if message.original().len() > max {
            let error = Error::misuse(format!("a SLIM message has at most {max} bytes here"));
            if let Some(answer) = answer {
                let _ = answer.send(Err(error));
            }
            return;
        }
        let frame = SlimPublish {
            id: fresh_id(),
            generation: match message.generation() {
                Generation::One => 1,
                Generation::Two => 2,
            },
            message: Blob(message.original().clone()),
        };
        if self.door.is_some() {
            out.push(ToRelay::SlimPublish(frame.clone()));
        }
        if let Some(answer) = answer {
            self.wait_for(frame.id, Pending::Publish(frame, answer));
        }
    }

    fn wait_for(&mut self, id: MessageId, pending: Pending) {
        self.pending.retain(|_, pending| !pending.is_given_up());
        self.pending.insert(id, pending);
    }

    fn unsubscribe(&self, name: SlimName, out: &mut Vec<ToRelay>) {
        if let Some(Door::Open(_)) = self.door {
            out.push(ToRelay::SlimUnsubscribe(SlimUnsubscribe { name }));
        }
    }

    fn subscribed(&mut self, said: &SlimSubscribed) {
        let asked = self.names.values_mut().find(|it| it.request == said.id);
        let Some(reader) = asked else {
            return;
        };
        reader.is_asking = false;
        if let Some(answer) = reader.answer.take() {
            let SlimSubscribed { head, pruned, .. } = *said;
            let _ = answer.send(Ok(Subscribed { head, pruned }));
        }
    }

    fn deliver(&mut self, said: SlimDeliver, out: &mut Vec<ToRelay>) {
        let generation = match said.generation {
            1 => Generation::One,
            2 => Generation::Two,
            // Of a relay that is newer than this program.
            _ => return,
        };
        let Ok(message) = Routed::from_archive(generation, said.message.0) else {
            tracing::warn!("the relay delivered what is no SLIM message");
            return;
        };
        // What goes to any holder of a name comes to whoever holds it at an instance.
        let named = self.names.get_key_value(&said.name).or_else(|| {
            self.names.iter().find(|(name, _)| {
                said.name.instance.is_none() && name.components == said.name.components
            })
        });
        let Some(name) = named.map(|(name, _)| *name) else {
            return;
        };
        let Some(reader) = self.names.get_mut(&name) else {
            return;
        };
        if reader.stalled || reader.is_asking && reader.cursor.is_some() {
            return;
        }
        // A log that was begun anew has places that were there before.
        let seq = said.seq;
        let delivery = Delivery::Message { seq, message };
        match reader.to.try_send(delivery) {
            Ok(()) => {
                if let (Some(cursor), Some(seq)) = (&mut reader.cursor, seq) {
                    *cursor = seq;
                }
            }
            Err(mpsc::error::TrySendError::Full(_)) if reader.cursor.is_some() => {
                reader.stalled = true;
                self.unsubscribe(name, out);
            }
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::debug!("a SLIM message was lost: its reader is too slow");
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.names.remove(&name);
                self.unsubscribe(name, out);
            }
        }
    }
}

impl Reader {
    /// The frame that asks for it, under a new id: answers to an older one mean nothing any more.
    fn request(&mut self, name: SlimName) -> ToRelay {
        self.request = fresh_id();
        self.is_asking = true;
        ToRelay::SlimSubscribe(SlimSubscribe {
            id: self.request,
            name,
            after: self.cursor,
        })
    }

    fn end(self, error: Error) {
        match self.answer {
            Some(answer) => drop(answer.send(Err(error))),
            None => drop(self.to.try_send(Delivery::Ended(error))),
        }
    }
}

fn knows_no_slim() -> Error {
    Error::misuse("this relay does not serve SLIM")
}

fn fresh_id() -> MessageId {
    MessageId(rand::rng().random())
}

#[cfg(test)]
mod tests {
    use skytale_slim::{Draft, Header, Instance, MessageType, Name, Said, Session, SessionKind};
    use skytale_wire::{
        frame::{Nack, SlimPublished},
        refusal::Refusal,
    };

    use super::*;
    use crate::slim::wire_name;

    fn message(number: u32) -> Routed {
        let name = Name::parse("org/ns/name").unwrap();
        let draft = Draft {
            header: Header {
                source: name.clone().at(Instance::Only(9)),
                destination: name,
                identity: String::new(),
                fanout: 256,
            },
            session: Session {
                kind: SessionKind::Unknown(0),
                message: MessageType::Msg,
                id: 1,
                message_id: number,
            },
            said: Said::Application {
                payload_type: "msg".into(),
                blob: bytes::Bytes::from_static(b"hello"),
            },
            metadata: BTreeMap::new(),
        };
        draft.routed(Generation::Two).unwrap()
    }

    fn name() -> SlimName {
        wire_name(Name::parse("org/ns/name").unwrap().address)
    }

    fn deliver(number: u32) -> ToAgent {
        ToAgent::SlimDeliver(SlimDeliver {
            name: name(),
            seq: Some(Seq(number.into())),
            generation: 2,
            message: Blob(message(number).original().clone()),
        })
    }

    fn reader(
        desk: &mut Desk,
        after: Option<Seq>,
        room: usize,
    ) -> (mpsc::Receiver<Delivery>, Vec<ToRelay>) {
        let (to, deliveries) = mpsc::channel(room);
        let mut out = Vec::new();
        let ask = SlimAsk::Subscribe {
            name: name(),
            after,
            to,
            answer: None,
        };
        desk.ask(ask, &mut out);
        (deliveries, out)
    }

    /// The relay's answer to the newest request among these.
    fn subscribed(out: &[ToRelay]) -> ToAgent {
        let asked = out.iter().rev().find_map(|frame| {
            if let ToRelay::SlimSubscribe(asked) = frame {
                Some(asked.id)
            } else {
                None
            }
        });
        ToAgent::SlimSubscribed(SlimSubscribed {
            id: asked.unwrap(),
            head: Seq(9),
            pruned: Seq(0),
        })
    }

    fn places(deliveries: &mut mpsc::Receiver<Delivery>) -> Vec<u64> {
        let mut places = Vec::new();
        while let Ok(delivery) = deliveries.try_recv() {
            match delivery {
                Delivery::Message { seq, .. } => places.push(seq.unwrap().0),
                Delivery::Ended(error) => panic!("{error}"),
            }
        }
        places
    }

    fn asked_after(out: &[ToRelay]) -> Vec<Option<Seq>> {
        let mut asked = Vec::new();
        for frame in out {
            if let ToRelay::SlimSubscribe(it) = frame {
                asked.push(it.after);
            }
        }
        asked
    }

    #[test]
    fn what_is_asked_before_the_line_is_up_is_said_when_it_is() {
        let mut desk = Desk::default();
        let (_deliveries, out) = reader(&mut desk, None, 8);
        assert!(out.is_empty());
        let mut out = Vec::new();
        desk.opened(Some(1000), &mut out);
        assert_eq!(asked_after(&out), [None]);
    }

    #[test]
    fn a_reader_goes_on_from_its_cursor_on_the_next_line() {
        let mut desk = Desk::default();
        let mut out = Vec::new();
        desk.opened(Some(1000), &mut out);
        let (mut deliveries, out) = reader(&mut desk, Some(Seq(0)), 8);
        assert_eq!(asked_after(&out), [Some(Seq(0))]);
        desk.heard(subscribed(&out), &mut Vec::new());
        let mut out = Vec::new();
        for number in 1..=3 {
            assert!(desk.heard(deliver(number), &mut out).is_none());
        }
        assert_eq!(places(&mut deliveries), [1, 2, 3]);
        desk.lost();
        desk.opened(Some(1000), &mut out);
        assert_eq!(asked_after(&out), [Some(Seq(3))]);
    }

    /// The relay's log is the queue: nothing is lost and nothing grows here.
    #[test]
    fn a_slow_reader_loses_nothing_when_it_follows_the_log() {
        let mut desk = Desk::default();
        let mut out = Vec::new();
        desk.opened(Some(1000), &mut out);
        let (mut deliveries, asked) = reader(&mut desk, Some(Seq(0)), 2);
        desk.heard(subscribed(&asked), &mut out);
        for number in 1..=5 {
            desk.heard(deliver(number), &mut out);
        }
        let stops = out.iter();
        let stops = stops.filter(|frame| matches!(frame, ToRelay::SlimUnsubscribe(_)));
        assert_eq!(stops.count(), 1);
        let mut out = Vec::new();
        desk.tend(&mut out);
        assert!(out.is_empty());
        assert_eq!(places(&mut deliveries), [1, 2]);
        desk.tend(&mut out);
        assert_eq!(asked_after(&out), [Some(Seq(2))]);
    }

    /// What was on its way when a reader stopped may come when it has begun to read again: taken, it
    /// would be out of order, and its place would make the cursor leap.
    #[test]
    fn what_an_older_request_brings_is_not_taken() {
        let mut desk = Desk::default();
        let mut out = Vec::new();
        desk.opened(Some(1000), &mut out);
        let (mut deliveries, asked) = reader(&mut desk, Some(Seq(0)), 2);
        desk.heard(subscribed(&asked), &mut out);
        for number in 1..=3 {
            desk.heard(deliver(number), &mut out);
        }
        assert_eq!(places(&mut deliveries), [1, 2]);
        desk.tend(&mut out);
        assert_eq!(asked_after(&out), [Some(Seq(2))]);

        desk.heard(deliver(6), &mut out);
        desk.lost();
        desk.opened(Some(1000), &mut out);
        assert_eq!(asked_after(&out), [Some(Seq(2)); 2], "no leap");
        desk.heard(subscribed(&out), &mut Vec::new());
        desk.heard(deliver(3), &mut out);
        assert_eq!(places(&mut deliveries), [3]);
    }

    #[test]
    fn a_relay_without_slim_is_said_to_be_one() {
        let mut desk = Desk::default();
        let (mut deliveries, _) = reader(&mut desk, None, 8);
        desk.opened(None, &mut Vec::new());
        assert!(matches!(
            deliveries.try_recv(),
            Ok(Delivery::Ended(Error::Misuse(_)))
        ));
        let (mut deliveries, out) = reader(&mut desk, None, 8);
        assert!(out.is_empty());
        assert!(matches!(deliveries.try_recv(), Ok(Delivery::Ended(_))));
    }

    #[test]
    fn a_publication_is_said_again_under_the_same_id_until_it_is_answered() {
        let mut desk = Desk::default();
        let mut out = Vec::new();
        desk.opened(Some(1000), &mut out);
        let (answer, mut answered) = oneshot::channel();
        let ask = SlimAsk::Publish {
            message: message(1),
            answer: Some(answer),
        };
        desk.ask(ask, &mut out);
        desk.lost();
        desk.opened(Some(1000), &mut out);
        let [ToRelay::SlimPublish(first), ToRelay::SlimPublish(again)] = &out[..] else {
            panic!("{out:?}")
        };
        assert_eq!(first, again);
        let published = ToAgent::SlimPublished(SlimPublished {
            id: first.id,
            seq: Some(Seq(7)),
        });
        assert!(desk.heard(published, &mut Vec::new()).is_none());
        assert_eq!(answered.try_recv().unwrap().unwrap(), Some(Seq(7)));
    }

    #[test]
    fn a_nack_of_the_minds_is_the_minds() {
        let mut desk = Desk::default();
        let mut out = Vec::new();
        desk.opened(Some(1000), &mut out);
        let nack = |id| {
            ToAgent::Nack(Nack {
                id,
                channel: None,
                refusal: Refusal::Malformed,
                epoch: None,
                winner: None,
            })
        };
        let theirs = MessageId([7; 16]);
        assert!(desk.heard(nack(theirs), &mut out).is_some());
        let (mut deliveries, out) = reader(&mut desk, None, 8);
        let [ToRelay::SlimSubscribe(asked)] = &out[..] else {
            panic!("{out:?}")
        };
        assert!(desk.heard(nack(asked.id), &mut Vec::new()).is_none());
        assert!(matches!(
            deliveries.try_recv(),
            Ok(Delivery::Ended(Error::Denied(Refusal::Malformed)))
        ));
    }
}
