//! A party to SLIM's sessions over an agent's line: the session machine of `skytale-slim-session`
//! with a task, a clock and the relay's deliveries.
//!
//! Nothing of a session is in the vault: it ends with the handle, and stock moderators take the
//! agent in again as they take in their own that were restarted.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use rand::rand_core::UnwrapErr;
use skytale_slim::Name;
use skytale_slim_session::{
    Event, Input, Invitations, Message, Misuse, Output, Party, SessionId, Settings, SharedSecret,
    Time,
};
use skytale_wire::id::RelayKey;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::sleep,
};

use super::{Delivery, SlimAsk, wire_name};
use crate::{client::Inner, clock, error::Error, worker::Ask};

/// An agent in sessions with stock SLIM agents. It answers whoever has its secret and invites it;
/// the sessions end when it is dropped, and others learn it by its silence. [`Self::leave`] says
/// goodbye.
#[derive(Debug)]
pub struct SlimParty {
    name: Name,
    orders: mpsc::Sender<Order>,
    events: mpsc::Receiver<Result<Event, Error>>,
    task: JoinHandle<()>,
}

/// Asked anew for every value: a fork would copy any other generator.
type Chance = UnwrapErr<rand::rngs::SysRng>;
type Order = Box<dyn FnOnce(&mut Party, Time, &mut Chance, &mut Vec<Output>) + Send>;

impl SlimParty {
    pub(crate) async fn start(
        inner: Arc<Inner>,
        relay: RelayKey,
        name: &Name,
        secret: SharedSecret,
        invitations: Invitations,
    ) -> Result<Self, Error> {
        let mut chance = UnwrapErr(rand::rngs::SysRng);
        let party = Party::new(name, secret, invitations, &mut chance);
        let name = party.name().clone();
        let (to, deliveries) = mpsc::channel(DELIVERIES_MAX);
        let (answer, answered) = oneshot::channel();
        let ask = SlimAsk::Subscribe {
            name: wire_name(name.address),
            after: None,
            to: to.clone(),
            answer: Some(answer),
        };
        inner.slim(relay, ask, answered).await?;
        let (orders, asked) = mpsc::channel(ORDERS_MAX);
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        let life = Life {
            inner,
            relay,
            party,
            chance,
            to,
            untold: VecDeque::new(),
        };
        let task = tokio::spawn(life.live(deliveries, asked, tell));
        Ok(Self {
            name,
            orders,
            events,
            task,
        })
    }

    /// The name at which stock agents find it, with the instance that its identity has.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What happens next in its sessions. `None` when the agent was closed.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        self.events.recv().await.transpose()
    }

    /// Begins a session with one other; [`Event::Added`] says that it stands.
    pub async fn open(&self, peer: &str, settings: Settings) -> Result<SessionId, Error> {
        let peer = parse(peer)?;
        self.order(move |party, now, chance, out| party.open(peer, settings, now, chance, out))
            .await
    }

    /// Makes a group with itself alone.
    pub async fn create(&self, name: &str, settings: Settings) -> Result<SessionId, Error> {
        let name = parse(name)?;
        self.order(move |party, now, chance, out| party.create(&name, settings, now, chance, out))
            .await
    }

    /// Invites somebody to a group of its own; [`Event::Added`] or [`Event::NotAdded`] follows.
    pub async fn invite(&self, session: SessionId, name: &str) -> Result<(), Error> {
        let name = parse(name)?;
        self.order(move |party, now, chance, out| party.invite(session, name, now, chance, out))
            .await
    }

    /// Takes somebody out of a group of its own; [`Event::Removed`] follows.
    pub async fn remove(&self, session: SessionId, name: &str) -> Result<(), Error> {
        let name = parse(name)?;
        self.order(move |party, now, chance, out| party.remove(session, &name, now, chance, out))
            .await
    }

    /// Says something to all who are in a session. [`Event::Delivered`] with the same number
    /// follows. [`Error::NotFound`] when the session is over; its [`Event::Ended`] may be unread.
    pub async fn publish(&self, session: SessionId, message: Message) -> Result<u32, Error> {
        self.order(move |party, now, chance, out| party.publish(session, message, now, chance, out))
            .await
    }

    /// Goes out of a session; one of its own ends for all. [`Event::Ended`] follows.
    pub async fn leave(&self, session: SessionId) -> Result<(), Error> {
        self.order(move |party, now, chance, out| party.leave(session, now, chance, out))
            .await
    }

    /// Goes away from a group for a while. [`Event::Paused`] follows.
    pub async fn pause(&self, session: SessionId) -> Result<(), Error> {
        self.order(move |party, now, chance, out| party.pause(session, now, chance, out))
            .await
    }

    /// Comes back. [`Event::Resumed`] or [`Event::NotResumed`] follows.
    pub async fn resume(&self, session: SessionId) -> Result<(), Error> {
        self.order(move |party, now, chance, out| party.resume(session, now, chance, out))
            .await
    }

    async fn order<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Party, Time, &mut Chance, &mut Vec<Output>) -> Result<T, Misuse>
        + Send
        + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let order: Order = Box::new(move |party, now, chance, out| {
            // Whoever asked may have stopped waiting.
            let _ = answer.send(act(party, now, chance, out));
        });
        let closed = |_| Error::closed();
        self.orders.send(order).await.map_err(|_| Error::closed())?;
        answered.await.map_err(closed)?.map_err(told)
    }
}

/// A session may end while its event is still on the way to the application, so to name one that is
/// over is no mistake.
fn told(misuse: Misuse) -> Error {
    let text = misuse.to_string();
    if matches!(misuse, Misuse::NoSuchSession | Misuse::NoSuchMember) {
        Error::NotFound(text)
    } else {
        Error::misuse(text)
    }
}

impl Drop for SlimParty {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the task owns.
struct Life {
    inner: Arc<Inner>,
    relay: RelayKey,
    party: Party,
    chance: Chance,
    /// Given to the worker with each name.
    to: mpsc::Sender<Delivery>,
    /// Events that the application has not had room for.
    untold: VecDeque<Event>,
}

impl Life {
    async fn live(
        mut self,
        mut deliveries: mpsc::Receiver<Delivery>,
        mut orders: mpsc::Receiver<Order>,
        tell: mpsc::Sender<Result<Event, Error>>,
    ) {
        loop {
            let mut out = Vec::new();
            let due = self.party.wake_at();
            let pause = due.map_or(IDLE_MAX, |at| {
                Duration::from_millis(at.0.saturating_sub(now().0)).min(IDLE_MAX)
            });
            // Whoever does not read events hears nothing new; stock agents say it again.
            let listens = self.untold.len() < UNTOLD_MAX;
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => order(&mut self.party, now(), &mut self.chance, &mut out),
                    None => return,
                },
                came = deliveries.recv(), if listens => match came {
                    Some(Delivery::Message { message, .. }) => {
                        let input = Input::Received(&message);
                        self.party.handle(input, now(), &mut self.chance, &mut out);
                    }
                    Some(Delivery::Ended(error)) => {
                        let _ = tell.send(Err(error)).await;
                        return;
                    }
                    None => return,
                },
                room = tell.reserve(), if !self.untold.is_empty() => {
                    let (Ok(room), Some(event)) = (room, self.untold.pop_front()) else {
                        return;
                    };
                    room.send(Ok(event));
                }
                () = sleep(pause) => {
                    self.party.handle(Input::Woken, now(), &mut self.chance, &mut out);
                }
            }
            for output in out {
                if self.carry_out(output).await.is_err() {
                    return;
                }
            }
        }
    }

    /// In order, and each waits for room: what is said goes behind what was subscribed to before.
    async fn carry_out(&mut self, output: Output) -> Result<(), Error> {
        let ask = match output {
            Output::Tell(event) => {
                self.untold.push_back(event);
                return Ok(());
            }
            Output::Send(message) => SlimAsk::Publish {
                message,
                answer: None,
            },
            Output::Subscribe(name) => SlimAsk::Subscribe {
                name: wire_name(name.address),
                after: None,
                to: self.to.clone(),
                answer: None,
            },
            Output::Unsubscribe(name) => SlimAsk::Unsubscribe {
                name: wire_name(name.address),
                to: self.to.clone(),
            },
        };
        let ask = Ask::Slim(self.relay, ask);
        let asks = self.inner.asks();
        asks.send(ask).await.map_err(|_| Error::closed())
    }
}

fn now() -> Time {
    Time(clock::now().0)
}

fn parse(name: &str) -> Result<Name, Error> {
    Name::parse(name).map_err(|error| Error::misuse(error.to_string()))
}

/// Orders that wait; more make their callers wait.
const ORDERS_MAX: usize = 64;
/// Messages between worker and party. What does not fit is lost and said again by its sender.
const DELIVERIES_MAX: usize = 1024;
/// Events between party and application.
const EVENTS_MAX: usize = 64;
/// Events that the application has not taken up; beyond it the party does not listen.
const UNTOLD_MAX: usize = 1024;
/// Without anything due the party looks around as often as this.
const IDLE_MAX: Duration = Duration::from_hours(1);
