//! An agent of ours in SLIM's world: the session machine over a plain SLIM link, with the clock of
//! this test and a thread of its own.

use std::{
    collections::VecDeque,
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use rand::rand_core::UnwrapErr;
use skytale_slim::{Inbound, Name};
use skytale_slim_session::{
    Ended, Event, Input, Invitations, Message, Misuse, Output, Party, SessionId, Settings,
    SharedSecret, Time,
};
use skytale_tests::{
    processes::PATIENCE,
    slim::wire::{Wire, chance},
};
use tokio::sync::mpsc;

/// What stock agents of the tests share: the same text as in `tests/slim/agent.py`.
const SECRET: &str = "what the agents of a test share among themselves";

type Chance = UnwrapErr<rand::rngs::SysRng>;
type Order = Box<dyn FnOnce(&mut Party, Time, &mut Chance, &mut Vec<Output>) + Send>;

/// A running agent. Its link ends when it is dropped, and its thread with it.
pub(crate) struct OurAgent {
    name: String,
    orders: Option<mpsc::UnboundedSender<Order>>,
    events: Receiver<Event>,
    kept: VecDeque<Event>,
    thread: Option<JoinHandle<()>>,
}

impl OurAgent {
    /// Connects, and is subscribed to its name when this returns.
    #[track_caller]
    pub(crate) fn start(url: &str, name: &str) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (mouth, events) = channel();
        let (ready, is_ready) = channel();
        let (url, own) = (url.to_owned(), name.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(live(&url, &own, inbox, &mouth, &ready));
        });
        is_ready.recv_timeout(PATIENCE).unwrap();
        Self {
            name: name.to_owned(),
            orders: Some(orders),
            events,
            kept: VecDeque::new(),
            thread: Some(thread),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    #[track_caller]
    pub(crate) fn open(&mut self, other: &str, settings: Settings) -> SessionId {
        let other = Name::parse(other).unwrap();
        let session = self.act(move |party, now, chance, out| {
            party.open(other, settings, now, chance, out).unwrap()
        });
        self.told(
            "that the other is in",
            |event| matches!(event, Event::Added { session: it, .. } if *it == session),
        );
        session
    }

    #[track_caller]
    pub(crate) fn create(&mut self, name: &str, settings: Settings) -> SessionId {
        let name = Name::parse(name).unwrap();
        self.act(move |party, now, chance, out| {
            party.create(&name, settings, now, chance, out).unwrap()
        })
    }

    #[track_caller]
    pub(crate) fn invite(&mut self, session: SessionId, other: &str) {
        let name = Name::parse(other).unwrap();
        self.act(move |party, now, chance, out| {
            party.invite(session, name, now, chance, out).unwrap();
        });
        let text = other.to_owned();
        self.told("that one is in", |event| match event {
            Event::Added { session: it, name } => *it == session && name.to_string() == text,
            Event::NotAdded { why, .. } => panic!("{text} is not in: {why}"),
            _ => false,
        });
    }

    #[track_caller]
    pub(crate) fn remove(&mut self, session: SessionId, other: &str) {
        let name = Name::parse(other).unwrap();
        self.act(move |party, now, chance, out| {
            party.remove(session, &name, now, chance, out).unwrap();
        });
        self.told(
            "that one is out",
            |event| matches!(event, Event::Removed { session: it, .. } if *it == session),
        );
    }

    /// Says these and waits until all have each.
    #[track_caller]
    pub(crate) fn publish<T: AsRef<str>>(&mut self, session: SessionId, texts: &[T]) {
        let mut last = 0;
        for text in texts {
            let message = Message::new(text.as_ref().to_owned());
            last = self.act(move |party, now, chance, out| {
                party.publish(session, message, now, chance, out).unwrap()
            });
        }
        self.told("that all have it", |event| match event {
            Event::Delivered {
                message, missing, ..
            } if *message == last => {
                assert!(missing.is_empty(), "{missing:?} did not answer");
                true
            }
            _ => false,
        });
    }

    /// The same, and whether it may be said is to be seen.
    #[track_caller]
    pub(crate) fn try_publish(&mut self, session: SessionId, text: &str) -> Result<u32, Misuse> {
        let message = Message::new(text.to_owned());
        self.act(move |party, now, chance, out| party.publish(session, message, now, chance, out))
    }

    #[track_caller]
    pub(crate) fn leave(&mut self, session: SessionId) {
        self.act(move |party, now, chance, out| party.leave(session, now, chance, out).unwrap());
    }

    #[track_caller]
    pub(crate) fn pause(&mut self, session: SessionId) {
        self.act(move |party, now, chance, out| party.pause(session, now, chance, out).unwrap());
        self.told("that we are away", |event| {
            matches!(event, Event::Paused { .. })
        });
    }

    #[track_caller]
    pub(crate) fn resume(&mut self, session: SessionId) {
        self.act(move |party, now, chance, out| party.resume(session, now, chance, out).unwrap());
        self.told("that we are back", |event| {
            matches!(event, Event::Resumed { .. })
        });
    }

    /// Waits until somebody has invited it.
    #[track_caller]
    pub(crate) fn invited(&mut self) -> SessionId {
        match self.told("an invitation", |event| {
            matches!(event, Event::Joined { .. })
        }) {
            Event::Joined { session, .. } => session,
            other => unreachable!("{other:?}"),
        }
    }

    /// The next messages in this session must be these, in this order.
    #[track_caller]
    pub(crate) fn hears<T: AsRef<str>>(&mut self, session: SessionId, texts: &[T]) {
        for text in texts {
            assert_eq!(self.hear(session), text.as_ref(), "{}", self.name);
        }
    }

    #[track_caller]
    pub(crate) fn hear(&mut self, session: SessionId) -> String {
        match self.told(
            "a message",
            |event| matches!(event, Event::Received(it) if it.session == session),
        ) {
            Event::Received(it) => String::from_utf8(it.payload.to_vec()).unwrap(),
            other => unreachable!("{other:?}"),
        }
    }

    /// Waits until a session is over.
    #[track_caller]
    pub(crate) fn ended(&mut self, session: SessionId) -> Ended {
        match self.told(
            "the end",
            |event| matches!(event, Event::Ended { session: it, .. } if *it == session),
        ) {
            Event::Ended { why, .. } => why,
            other => unreachable!("{other:?}"),
        }
    }

    /// The next event that is wanted; others are kept.
    #[track_caller]
    pub(crate) fn told(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        if let Some(at) = self.kept.iter().position(&mut wanted) {
            return self.kept.remove(at).unwrap();
        }
        loop {
            let Ok(event) = self.events.recv_timeout(PATIENCE) else {
                panic!(
                    "{} waits in vain for {what}; there is {:?}",
                    self.name, self.kept
                );
            };
            if wanted(&event) {
                return event;
            }
            self.kept.push_back(event);
        }
    }

    #[track_caller]
    fn act<T: Send + 'static>(
        &mut self,
        act: impl FnOnce(&mut Party, Time, &mut Chance, &mut Vec<Output>) -> T + Send + 'static,
    ) -> T {
        let (answer, answered) = channel();
        let order: Order = Box::new(move |party, now, chance, out| {
            let _ = answer.send(act(party, now, chance, out));
        });
        assert!(self.orders.as_ref().unwrap().send(order).is_ok());
        answered.recv_timeout(PATIENCE).unwrap()
    }
}

impl Drop for OurAgent {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

async fn live(
    url: &str,
    name: &str,
    mut orders: mpsc::UnboundedReceiver<Order>,
    events: &Sender<Event>,
    ready: &Sender<()>,
) {
    let mut chance = chance();
    let link_id = format!("ours-{name}");
    let mut wire = Wire::connect(url, &link_id).await;
    let name = Name::parse(name).unwrap();
    let secret = SharedSecret::new(SECRET).unwrap();
    let mut party = Party::new(&name, secret, Invitations::All, &mut chance);
    let own = party.name().clone();
    let mut numbers = 1..;
    let mut out = vec![Output::Subscribe(own)];
    let mut is_ready = false;
    loop {
        for output in out.drain(..) {
            let routed = match output {
                Output::Send(routed) => routed,
                Output::Subscribe(name) | Output::Unsubscribe(name) if name.text.is_none() => {
                    unreachable!("names here have texts")
                }
                Output::Subscribe(name) => {
                    let number = numbers.next().unwrap();
                    party.subscription(&name, number, true, now(), &mut chance)
                }
                Output::Unsubscribe(name) => {
                    // By the name alone, as it was the only one.
                    party.subscription(&name, 0, false, now(), &mut chance)
                }
                Output::Tell(event) => {
                    let _ = events.send(event);
                    continue;
                }
            };
            let mut bytes = Vec::new();
            wire.link
                .write(&routed.onward(0).unwrap(), &mut bytes)
                .unwrap();
            wire.out.send(Bytes::from(bytes)).await.unwrap();
        }
        let due = party.wake_at().map(|at| at.0.saturating_sub(now().0));
        let sleep = tokio::time::sleep(Duration::from_millis(due.unwrap_or(3_600_000)));
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => order(&mut party, now(), &mut chance, &mut out),
                None => return,
            },
            came = wire.inbound.message() => {
                let bytes = came.unwrap().expect("the node stays");
                match wire.link.read(bytes).unwrap() {
                    Inbound::Routed(routed) => {
                        party.handle(Input::Received(&routed), now(), &mut chance, &mut out);
                    }
                    Inbound::SubscriptionAck { result, .. } => {
                        result.unwrap();
                        if !std::mem::replace(&mut is_ready, true) {
                            ready.send(()).unwrap();
                        }
                    }
                    Inbound::Link(_) => {}
                }
            }
            () = sleep => party.handle(Input::Woken, now(), &mut chance, &mut out),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the clock of this test program")]
fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Time(u64::try_from(since.as_millis()).unwrap())
}
