//! A node that knows nothing of sessions, some parties on it, and a clock that moves when nothing
//! else does.

use std::collections::VecDeque;

use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use skytale_slim::{Address, LinkId, MessageType, Name, Routed, SubscriptionId, SubscriptionTable};
use skytale_slim_session::{
    Ended, Event, Input, Invitations, Message, Misuse, Output, Party, SessionId, Settings,
    SharedSecret, Time,
};

pub(crate) const SECRET: &str = "a secret shared by all who are tested here";
pub(crate) const ALICE: usize = 0;
pub(crate) const BOB: usize = 1;
pub(crate) const CAROL: usize = 2;

/// Whether a message is lost on its way to somebody.
pub(crate) type Loss = Box<dyn FnMut(usize, &Routed) -> bool>;

/// What else arrives, before a message.
pub(crate) type Forgery = Box<dyn FnMut(&Routed) -> Option<Routed>>;

/// A node, some parties on it, and a clock that moves when nothing else does.
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) chance: ChaCha20Rng,
    pub(crate) parties: Vec<Party>,
    pub(crate) table: SubscriptionTable,
    pub(crate) told: Vec<Vec<Event>>,
    pub(crate) on_the_way: VecDeque<(usize, Routed)>,
    pub(crate) loses: Loss,
    pub(crate) forges: Forgery,
}

impl World {
    pub(crate) fn new(names: &[&str]) -> Self {
        Self::following(Invitations::All, names)
    }

    pub(crate) fn following(invitations: Invitations, names: &[&str]) -> Self {
        let mut chance = ChaCha20Rng::seed_from_u64(5);
        let mut table = SubscriptionTable::default();
        let parties: Vec<Party> = names
            .iter()
            .map(|name| {
                let name = Name::parse(&format!("org/ns/{name}")).unwrap();
                let secret = SharedSecret::new(SECRET).unwrap();
                Party::new(&name, secret, invitations, &mut chance)
            })
            .collect();
        for (number, party) in parties.iter().enumerate() {
            let address = party.name().address;
            table
                .subscribe(link(number), address, SubscriptionId(1))
                .unwrap();
        }
        Self {
            now: Time(1_800_000_000_000),
            chance,
            told: parties.iter().map(|_| Vec::new()).collect(),
            parties,
            table,
            on_the_way: VecDeque::new(),
            loses: Box::new(|_, _| false),
            forges: Box::new(|_| None),
        }
    }

    pub(crate) fn trio() -> Self {
        Self::new(&["alice", "bob", "carol"])
    }

    pub(crate) fn address(&self, who: usize) -> Address {
        self.parties[who].name().address
    }

    /// Somebody does something.
    pub(crate) fn act<T>(
        &mut self,
        who: usize,
        act: impl FnOnce(&mut Party, Time, &mut ChaCha20Rng, &mut Vec<Output>) -> T,
    ) -> T {
        let mut out = Vec::new();
        let result = act(&mut self.parties[who], self.now, &mut self.chance, &mut out);
        for output in out {
            match output {
                Output::Subscribe(name) => {
                    let address = name.address;
                    self.table
                        .subscribe(link(who), address, SubscriptionId(1))
                        .unwrap();
                }
                Output::Unsubscribe(name) => {
                    self.table
                        .unsubscribe(link(who), name.address, SubscriptionId(1));
                }
                Output::Send(routed) => {
                    let mut to = Vec::new();
                    let header = routed.header();
                    let (destination, fanout) = (header.destination.address, header.fanout);
                    self.table.route(link(who), destination, fanout, &mut to);
                    for other in to {
                        let other = usize::try_from(other.0).unwrap();
                        if let Some(forged) = (self.forges)(&routed) {
                            self.on_the_way.push_back((other, forged));
                        }
                        if !(self.loses)(other, &routed) {
                            self.on_the_way.push_back((other, routed.clone()));
                        }
                    }
                }
                Output::Tell(event) => self.told[who].push(event),
            }
        }
        result
    }

    pub(crate) fn deliver_all(&mut self) {
        while let Some((to, routed)) = self.on_the_way.pop_front() {
            self.act(to, |party, now, chance, out| {
                party.handle(Input::Received(&routed), now, chance, out);
            });
        }
    }

    /// Lets the world go on until something is true.
    pub(crate) fn until(&mut self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        for _ in 0..10_000 {
            self.deliver_all();
            if is(self) {
                return;
            }
            self.tick();
        }
        panic!("never {what}: {:#?}", self.told);
    }

    pub(crate) fn tick(&mut self) {
        let at = self.parties.iter().filter_map(Party::wake_at).min();
        self.now = at.unwrap().max(self.now);
        for who in 0..self.parties.len() {
            self.act(who, |party, now, chance, out| {
                party.handle(Input::Woken, now, chance, out);
            });
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = Time(self.now.0 + ms);
        loop {
            self.deliver_all();
            let at = self.parties.iter().filter_map(Party::wake_at).min();
            if at.is_none_or(|at| at > end) {
                self.now = end;
                return;
            }
            self.tick();
        }
    }

    pub(crate) fn publish(
        &mut self,
        who: usize,
        session: SessionId,
        text: &str,
    ) -> Result<u32, Misuse> {
        let message = Message::new(text.to_owned());
        self.act(who, |party, now, chance, out| {
            party.publish(session, message, now, chance, out)
        })
    }

    /// What somebody was told by others, as text, in the order in which it came.
    pub(crate) fn heard(&self, who: usize) -> Vec<String> {
        let received = self.told[who].iter().filter_map(|event| match event {
            Event::Received(it) => Some(String::from_utf8(it.payload.to_vec()).unwrap()),
            _ => None,
        });
        received.collect()
    }

    pub(crate) fn was_told(&self, who: usize, what: impl Fn(&Event) -> bool) -> bool {
        self.told[who].iter().any(what)
    }

    pub(crate) fn joined(&self, who: usize) -> usize {
        let joined = self.told[who].iter();
        joined
            .filter(|event| matches!(event, Event::Joined { .. }))
            .count()
    }

    pub(crate) fn ended(&self, who: usize) -> Option<Ended> {
        self.told[who].iter().find_map(|event| match event {
            Event::Ended { why, .. } => Some(*why),
            _ => None,
        })
    }

    /// Alice's pair with Bob.
    pub(crate) fn pair(&mut self, settings: Settings) -> SessionId {
        let bob = Name::parse("org/ns/bob").unwrap();
        let session = self
            .act(ALICE, |party, now, chance, out| {
                party.open(bob, settings, now, chance, out)
            })
            .unwrap();
        self.until("a pair", |world| world.added(ALICE) == 1);
        session
    }

    /// Alice's group with all the others.
    pub(crate) fn group(&mut self, settings: Settings) -> SessionId {
        let name = Name::parse("org/ns/chan").unwrap();
        let session = self
            .act(ALICE, |party, now, chance, out| {
                party.create(&name, settings, now, chance, out)
            })
            .unwrap();
        for who in 1..self.parties.len() {
            self.invite(session, who);
        }
        let all = self.parties.len() - 1;
        self.until("a group", |world| world.added(ALICE) == all);
        session
    }

    pub(crate) fn invite(&mut self, session: SessionId, who: usize) {
        let [.., name] = self.parties[who].name().text.clone().unwrap();
        let name = Name::parse(&format!("org/ns/{name}")).unwrap();
        self.act(ALICE, |party, now, chance, out| {
            party.invite(session, name, now, chance, out)
        })
        .unwrap();
    }

    pub(crate) fn added(&self, who: usize) -> usize {
        let added = self.told[who].iter();
        added
            .filter(|event| matches!(event, Event::Added { .. }))
            .count()
    }
}

pub(crate) fn link(who: usize) -> LinkId {
    LinkId(u64::try_from(who).unwrap())
}

pub(crate) fn clear() -> Settings {
    Settings {
        mls: false,
        ..Settings::default()
    }
}

pub(crate) fn message_of(routed: &Routed) -> MessageType {
    routed.session().unwrap().message
}
