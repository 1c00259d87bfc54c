//! What the others say, put in the order in which each of them said it.
//!
//! Left out: MLS, which opens a message before it comes here, and acknowledgements.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use skytale_slim::Address;

use crate::{Reliability, Time};

/// One session's streams, one for each member that speaks.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// A pair begins together. In a group, whoever was in before us has said things that we never
    /// get: his stream begins with what comes first.
    is_pair: bool,
    streams: BTreeMap<Address, Stream>,
}

/// What somebody said, as it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) payload_type: String,
    pub(crate) payload: Bytes,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// What can be handed to the application now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    Message(Message),
    /// One is missing here and will not come any more.
    Lost,
}

/// Which messages are to be asked for again, and what becomes ready because others are given up.
pub(crate) type Due = (BTreeSet<(Address, u32)>, Vec<(Address, Ready)>);

/// Messages that are missing: their source is asked for them.
pub(crate) type Missing = Vec<u32>;

#[derive(Debug)]
struct Stream {
    next: u32,
    held: BTreeMap<u32, Held>,
}

#[derive(Debug)]
enum Held {
    Message(Message),
    Lost,
    Asked { due: Time, left: u32 },
}

impl Incoming {
    pub(crate) fn new(is_pair: bool) -> Self {
        Self {
            is_pair,
            streams: BTreeMap::new(),
        }
    }

    /// Somebody has come in just now: what he says begins with the first.
    pub(crate) fn expect(&mut self, who: Address) {
        let stream = Stream {
            next: FIRST,
            held: BTreeMap::new(),
        };
        self.streams.insert(who, stream);
    }

    /// Takes a message. Those with ids beyond the order come as they come.
    pub(crate) fn take(
        &mut self,
        from: Address,
        id: u32,
        message: Message,
        now: Time,
        pace: Reliability,
    ) -> (Vec<Ready>, Missing) {
        if id >= ORDERED {
            return (vec![Ready::Message(message)], Vec::new());
        }
        let begins = if self.is_pair { FIRST } else { id };
        let stream = self.streams.entry(from).or_insert_with(|| Stream {
            next: begins,
            held: BTreeMap::new(),
        });
        let ahead = distance(stream.next, id);
        if ahead >= ORDERED / 2 {
            // It was handed on before.
            return (Vec::new(), Vec::new());
        }
        let mut ready = Vec::new();
        if ahead > AHEAD_MAX {
            // Its source no longer has what is between, so nobody waits for it.
            ready = stream.give_up_before(id);
        }
        let mut missing = Vec::new();
        for step in 0..distance(stream.next, id) {
            let absent = add(stream.next, step);
            stream.held.entry(absent).or_insert_with(|| {
                missing.push(absent);
                Held::Asked {
                    due: now.after(pace.interval_ms),
                    left: pace.retries_max,
                }
            });
        }
        if !matches!(stream.held.get(&id), Some(Held::Message(_))) {
            stream.held.insert(id, Held::Message(message));
        }
        stream.release(&mut ready);
        (ready, missing)
    }

    /// Its source says that it no longer has a message.
    pub(crate) fn lost(&mut self, from: Address, id: u32) -> Vec<Ready> {
        let mut ready = Vec::new();
        if let Some(stream) = self.streams.get_mut(&from)
            && let Some(held @ Held::Asked { .. }) = stream.held.get_mut(&id)
        {
            *held = Held::Lost;
            stream.release(&mut ready);
        }
        ready
    }

    /// Nothing more comes of him: what is held goes on, with its gaps. Who is only away is not
    /// ended, as his ids go on where they were.
    pub(crate) fn end(&mut self, who: Address) -> Vec<Ready> {
        let mut ready = Vec::new();
        if let Some(mut stream) = self.streams.remove(&who) {
            for held in stream.held.values_mut() {
                if matches!(held, Held::Asked { .. }) {
                    *held = Held::Lost;
                }
            }
            stream.release(&mut ready);
        }
        ready
    }

    /// Whose messages were heard.
    pub(crate) fn speakers(&self) -> Vec<Address> {
        self.streams.keys().copied().collect()
    }

    /// What has become due by now.
    pub(crate) fn due(&mut self, now: Time, pace: Reliability) -> Due {
        let mut again = BTreeSet::new();
        let mut ready = Vec::new();
        for (from, stream) in &mut self.streams {
            for (id, held) in &mut stream.held {
                let Held::Asked { due, left } = held else {
                    continue;
                };
                if *due > now {
                    continue;
                }
                if *left == 0 {
                    *held = Held::Lost;
                } else {
                    *left -= 1;
                    *due = now.after(pace.interval_ms);
                    again.insert((*from, *id));
                }
            }
            let mut released = Vec::new();
            stream.release(&mut released);
            ready.extend(released.into_iter().map(|it| (*from, it)));
        }
        (again, ready)
    }

    pub(crate) fn wake_at(&self) -> Option<Time> {
        let held = self.streams.values().flat_map(|it| it.held.values());
        held.filter_map(|held| match held {
            Held::Asked { due, .. } => Some(*due),
            Held::Message(_) | Held::Lost => None,
        })
        .min()
    }
}

impl Stream {
    fn release(&mut self, ready: &mut Vec<Ready>) {
        loop {
            match self.held.remove(&self.next) {
                Some(Held::Message(message)) => ready.push(Ready::Message(message)),
                Some(Held::Lost) => ready.push(Ready::Lost),
                Some(asked @ Held::Asked { .. }) => {
                    self.held.insert(self.next, asked);
                    return;
                }
                None => return,
            }
            self.next = add(self.next, 1);
        }
    }

    /// Everything that is held goes on; one loss stands for all that is missing.
    fn give_up_before(&mut self, id: u32) -> Vec<Ready> {
        let mut held: Vec<(u32, Held)> = std::mem::take(&mut self.held).into_iter().collect();
        held.sort_by_key(|(id, _)| distance(self.next, *id));
        let mut ready = vec![Ready::Lost];
        for (_, held) in held {
            if let Held::Message(message) = held {
                ready.push(Ready::Message(message));
            }
        }
        self.next = id;
        ready
    }
}

fn distance(from: u32, to: u32) -> u32 {
    to.wrapping_sub(from) % ORDERED
}

fn add(id: u32, more: u32) -> u32 {
    id.wrapping_add(more) % ORDERED
}

/// Ids below this one are in order and begin again after it; those from here on are random.
const ORDERED: u32 = 1 << 31;
/// Of a member's first message.
const FIRST: u32 = 1;
/// Messages that a source can still say again; SLIM's keep as many.
const AHEAD_MAX: u32 = 512;

#[cfg(test)]
mod tests {
    use skytale_slim::{Instance, Name};

    use super::*;

    const PACE: Reliability = Reliability {
        interval_ms: 1000,
        retries_max: 2,
    };

    fn bob() -> Address {
        let name = Name::parse("org/ns/bob").unwrap();
        name.at(Instance::Only(1)).address
    }

    fn message(id: u32) -> Message {
        Message {
            payload_type: "msg".into(),
            payload: Bytes::copy_from_slice(&id.to_be_bytes()),
            metadata: BTreeMap::new(),
        }
    }

    fn take(incoming: &mut Incoming, id: u32) -> (Vec<Ready>, Missing) {
        incoming.take(bob(), id, message(id), Time(0), PACE)
    }

    fn those(ids: &[u32]) -> Vec<Ready> {
        ids.iter().map(|id| Ready::Message(message(*id))).collect()
    }

    #[test]
    fn a_gap_is_asked_for_and_what_is_behind_it_waits() {
        let mut incoming = Incoming::new(true);
        assert_eq!(take(&mut incoming, 1), (those(&[1]), vec![]));
        assert_eq!(take(&mut incoming, 4), (vec![], vec![2, 3]));
        assert_eq!(take(&mut incoming, 3), (vec![], vec![]));
        assert_eq!(take(&mut incoming, 3), (vec![], vec![]));
        assert_eq!(take(&mut incoming, 2), (those(&[2, 3, 4]), vec![]));
        assert_eq!(take(&mut incoming, 2), (vec![], vec![]));
    }

    #[test]
    fn a_stream_that_was_joined_late_begins_where_it_is() {
        let mut incoming = Incoming::new(false);
        assert_eq!(take(&mut incoming, 7), (those(&[7]), vec![]));
        assert_eq!(take(&mut incoming, 6), (vec![], vec![]));
        assert_eq!(take(&mut incoming, 8), (those(&[8]), vec![]));
    }

    #[test]
    fn of_who_comes_after_us_the_first_message_is_not_lost() {
        let mut incoming = Incoming::new(false);
        incoming.expect(bob());
        assert_eq!(take(&mut incoming, 2), (vec![], vec![1]));
        assert_eq!(take(&mut incoming, 1).0, those(&[1, 2]));
    }

    #[test]
    fn the_ids_begin_again() {
        let mut incoming = Incoming::new(false);
        let last = ORDERED - 1;
        assert_eq!(take(&mut incoming, last - 1).0, those(&[last - 1]));
        assert_eq!(take(&mut incoming, 0), (vec![], vec![last]));
        assert_eq!(take(&mut incoming, last).0, those(&[last, 0]));
    }

    #[test]
    fn what_does_not_come_is_lost_and_the_rest_goes_on() {
        let mut incoming = Incoming::new(true);
        take(&mut incoming, 3);
        for round in 1..=2 {
            let (again, ready) = incoming.due(Time(round * 1000), PACE);
            assert_eq!((again.len(), ready.len()), (2, 0));
        }
        let (again, ready) = incoming.due(Time(3000), PACE);
        let ready: Vec<Ready> = ready.into_iter().map(|(_, ready)| ready).collect();
        assert!(again.is_empty());
        let [Ready::Lost, Ready::Lost, Ready::Message(third)] = &ready[..] else {
            panic!("{ready:?}")
        };
        assert_eq!(*third, message(3));
    }

    #[test]
    fn its_source_may_say_that_it_is_lost() {
        let mut incoming = Incoming::new(true);
        take(&mut incoming, 2);
        assert_eq!(incoming.lost(bob(), 2), vec![]);
        let ready = incoming.lost(bob(), 1);
        assert_eq!(ready[0], Ready::Lost);
        assert_eq!(ready[1..], those(&[2]));
    }

    #[test]
    fn at_the_end_what_is_held_goes_on_with_its_gaps() {
        let mut incoming = Incoming::new(true);
        take(&mut incoming, 1);
        take(&mut incoming, 3);
        take(&mut incoming, 5);
        let ready = incoming.end(bob());
        assert_eq!(ready[0], Ready::Lost);
        assert_eq!(ready[1..2], those(&[3]));
        assert_eq!(ready[2], Ready::Lost);
        assert_eq!(ready[3..], those(&[5]));
        assert_eq!(incoming.end(bob()), vec![]);
        assert!(incoming.wake_at().is_none());
    }

    /// A member could otherwise make us hold two thousand million places.
    #[test]
    fn a_leap_costs_nothing() {
        let mut incoming = Incoming::new(true);
        take(&mut incoming, 1);
        take(&mut incoming, 3);
        let (ready, missing) = take(&mut incoming, 1_000_000);
        assert!(missing.is_empty());
        assert_eq!(ready[0], Ready::Lost);
        assert_eq!(ready[1..], those(&[3, 1_000_000]));
        assert_eq!(take(&mut incoming, 1_000_001).0, those(&[1_000_001]));
    }
}
