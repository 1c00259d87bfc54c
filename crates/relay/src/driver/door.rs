//! How an edge talks to the driver: it enters with a proven identity and gets a link.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use skytale_slim::Routed;
use skytale_wire::{
    frame::{Closing, ToRelay, Traffic},
    http::Revocation,
    id::{ChannelId, MessageId},
    refusal::Refusal,
    token::AccountId,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{
    Snapshot,
    outbound::{Outbound, Taken},
    slim::queues::SlimQueue,
    tally::Tally,
};
use crate::{
    edge::terms::Terms,
    hub::{Conn, Input, Lane, Owned, Presented, Right, SlimPresented},
};

/// The driver's entrance, for every edge alike.
#[derive(Clone)]
pub struct Door {
    arrivals: mpsc::Sender<Arrival>,
    next_conn: Arc<AtomicU64>,
    room: Arc<Semaphore>,
    tally: Arc<Tally>,
}

/// What comes in through the door.
pub(super) enum Arrival {
    Opened {
        conn: Conn,
        presented: Presented,
        outbound: Arc<Outbound>,
        /// What Ready says of how the line is shaped.
        traffic: Option<Traffic>,
    },
    /// A frame, with the room that it takes until it has been handled.
    Frame {
        conn: Conn,
        frame: ToRelay,
        room: OwnedSemaphorePermit,
    },
    SlimOpened {
        conn: Conn,
        presented: SlimPresented,
        queue: Arc<SlimQueue>,
    },
    /// A SLIM message, with the room that it takes until it has been handled.
    Slim {
        conn: Conn,
        message: Box<Routed>,
        room: OwnedSemaphorePermit,
    },
    Input(Input),
    Look(oneshot::Sender<Snapshot>),
    /// What an account pays for, for whoever asks in its name.
    Owned {
        account: AccountId,
        which: Which,
        answer: oneshot::Sender<Vec<Owned>>,
    },
    Stop,
}

/// Which channels of an account are meant.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    /// This one, if it is the account's.
    One(ChannelId),
    /// By their ids, those behind one, at most so many.
    Page(Option<ChannelId>, usize),
}

/// One connection, from the edge's side. Call [`Link::leave`] at its end.
#[derive(Debug)]
pub struct Link {
    conn: Conn,
    door: Door,
    outbound: Arc<Outbound>,
}

/// The driver has stopped: close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the relay has stopped")]
pub struct Stopped;

impl Door {
    pub(super) fn new() -> (Self, mpsc::Receiver<Arrival>) {
        let (arrivals, receiver) = mpsc::channel(ARRIVALS_MAX);
        let door = Self {
            arrivals,
            next_conn: Arc::new(AtomicU64::new(1)),
            room: Arc::new(Semaphore::new(ROOM_BYTES_MAX / ROOM_UNIT)),
            tally: Arc::default(),
        };
        (door, receiver)
    }

    /// Lets an agent in whose identity has been proved, on a line of these terms.
    pub async fn enter(&self, presented: Presented, terms: &Terms) -> Result<Link, Stopped> {
        let conn = self.next_conn();
        let outbound = Arc::new(Outbound::for_line(terms));
        self.send(Arrival::Opened {
            conn,
            presented,
            outbound: Arc::clone(&outbound),
            traffic: terms.answer,
        })
        .await?;
        Ok(Link {
            conn,
            door: self.clone(),
            outbound,
        })
    }

    /// Ends what was let in by whom an issuer has shut out, and lets nothing of it in any more.
    pub(crate) async fn revoke(&self, revocation: Revocation) -> Result<(), Stopped> {
        self.send(Arrival::Input(Input::Revoked(revocation))).await
    }

    /// The API server has taken a report of usage.
    pub(crate) async fn reported(&self, number: u64) -> Result<(), Stopped> {
        self.send(Arrival::Input(Input::Reported { number })).await
    }

    /// What the driver says about itself: that it answers at all is half of what readiness asks.
    pub async fn look(&self) -> Result<Snapshot, Stopped> {
        let (answer, looked) = oneshot::channel();
        self.send(Arrival::Look(answer)).await?;
        looked.await.map_err(|_| Stopped)
    }

    /// Which of these channels the account pays for: the hub decides.
    pub(crate) async fn owned(
        &self,
        account: AccountId,
        which: Which,
    ) -> Result<Vec<Owned>, Stopped> {
        let (answer, told) = oneshot::channel();
        let asked = Arrival::Owned {
            account,
            which,
            answer,
        };
        self.send(asked).await?;
        told.await.map_err(|_| Stopped)
    }

    /// What all lines have carried.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn shared_tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    pub(super) async fn stop(&self) -> Result<(), Stopped> {
        self.send(Arrival::Stop).await
    }

    pub(super) fn next_conn(&self) -> Conn {
        Conn(self.next_conn.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits until what has come over all lines leaves room for so many bytes.
    pub(super) async fn room_for(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Stopped> {
        let units = u32::try_from(
            bytes
                .div_ceil(ROOM_UNIT)
                .clamp(1, ROOM_BYTES_MAX / ROOM_UNIT),
        )
        .expect("the room has far less than 2^32 units");
        Arc::clone(&self.room)
            .acquire_many_owned(units)
            .await
            .map_err(|_| Stopped)
    }

    pub(super) async fn send(&self, arrival: Arrival) -> Result<(), Stopped> {
        self.arrivals.send(arrival).await.map_err(|_| Stopped)
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl Link {
    /// Hands a frame in, of so many bytes on the line. Waits while the driver has enough to do,
    /// so that the peer's flow control is what fills up.
    pub async fn frame(&self, frame: ToRelay, bytes: usize) -> Result<(), Stopped> {
        let room = self.door.room_for(bytes).await?;
        self.door
            .send(Arrival::Frame {
                conn: self.conn,
                frame,
                room,
            })
            .await
    }

    /// Hands in the result of a renewal.
    pub async fn renewed(
        &self,
        id: MessageId,
        right: Result<Right, Refusal>,
    ) -> Result<(), Stopped> {
        let conn = self.conn;
        self.door
            .send(Arrival::Input(Input::Renewed { conn, id, right }))
            .await
    }

    /// Waits for frames to write, and tells the driver when there is room again.
    pub async fn take(
        &self,
        lane: Lane,
        frames: &mut Vec<bytes::Bytes>,
        bytes_max: usize,
    ) -> Result<Option<Closing>, Stopped> {
        match self.outbound.take(lane, frames, bytes_max).await {
            Taken::Closing(closing) => Ok(Some(closing)),
            Taken::Frames { drained } => {
                if drained {
                    self.drained().await?;
                }
                Ok(None)
            }
        }
    }

    /// Says that there is room again. The queue may have filled up once more until the driver
    /// hears of it.
    pub(crate) async fn drained(&self) -> Result<(), Stopped> {
        let conn = self.conn;
        self.door
            .send(Arrival::Input(Input::Drained { conn }))
            .await
    }

    /// What all lines have carried.
    pub fn tally(&self) -> &Tally {
        self.door.tally()
    }

    /// What waits to be written.
    pub fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// Ends the connection from the edge's side: the peer is told why.
    pub fn close(&self, refusal: Refusal, resume: bool) {
        self.outbound.close(&Closing { refusal, resume });
    }

    /// The connection is gone; what it has sent before counts.
    pub async fn leave(self) {
        let conn = self.conn;
        // A driver that has stopped has forgotten it already.
        let _ = self.door.send(Arrival::Input(Input::Gone { conn })).await;
    }
}

impl Drop for Link {
    /// For an edge that was cancelled: the driver finds it when it next sweeps.
    fn drop(&mut self) {
        self.outbound.abandon();
    }
}

/// Frames and events that may wait for the driver; beyond it the edges wait.
const ARRIVALS_MAX: usize = 1_024;
/// Bytes of frames that may wait for the driver; beyond it the edges wait, in order.
const ROOM_BYTES_MAX: usize = 32 * 1024 * 1024;
const ROOM_UNIT: usize = 1_024;
