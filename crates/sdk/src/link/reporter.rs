//! Reads one connection and passes what the relay says to the worker.

use std::sync::{Arc, Mutex};

use skytale_agent::Event;
use skytale_shape::{Incoming, Shape, bucket::MAX_CELL};
use skytale_wire::{
    frame::{self, ToAgent},
    id::{MessageId, RelayKey},
};
use tokio::sync::{broadcast, mpsc, watch};

use super::{
    End, LineEvent, LineId, LineNews, LinkState, LinkView, connected::Ear, lock, vigil::Pulse,
};
use crate::traffic::{DirectionCounters, LineShapes, Tallies, Traffic};

/// Passes what one connection says to the worker.
pub(super) struct Reporter<'a> {
    pub(super) relay: RelayKey,
    pub(super) line: LineId,
    pub(super) events: mpsc::Sender<LineEvent>,
    pub(super) view: Arc<Mutex<LinkView>>,
    /// Names the Pings of the link itself; their Pongs are nobody else's business.
    pub(super) ping: MessageId,
    pub(super) pulse: &'a Pulse,
    pub(super) traffic: Traffic,
    /// Told of the first Ready.
    pub(super) agree: watch::Sender<Option<LineShapes>>,
    pub(super) tallies: &'a Tallies,
    pub(super) notices: &'a broadcast::Sender<Event>,
}

/// Which stream of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    First,
    Second,
}

/// The worker has ended.
pub(super) struct Gone;

impl Reporter<'_> {
    /// Waits while the worker is busy: the carrier's flow control then holds the relay back.
    pub(super) async fn tell(&self, what: LineNews) -> Result<(), Gone> {
        let event = LineEvent {
            relay: self.relay,
            line: self.line,
            what,
        };
        self.events.send(event).await.map_err(|_| Gone)
    }

    async fn hand_over(&self, together: &mut Vec<ToAgent>) -> Result<(), Gone> {
        if together.is_empty() {
            return Ok(());
        }
        let frames = std::mem::take(together);
        self.tell(LineNews::Frames(frames)).await
    }

    /// Reads one stream until it ends.
    pub(super) async fn read(&self, mut ear: Ear, lane: Lane) -> End {
        let mut incoming = Incoming::new(MAX_CELL);
        let mut heard = Heard::default();
        loop {
            let piece = match ear.piece().await {
                Ok(piece) => piece,
                Err(end) => return end,
            };
            if incoming.receive(&piece).is_err() {
                return misbehaved();
            }
            heard.bytes += piece.len() as u64;
            let mut together = Vec::new();
            let mut end = None;
            while end.is_none() {
                let frame = match incoming.next_frame() {
                    Ok(Some(bytes)) => frame::decode::<ToAgent>(bytes, frame::FRAME_BYTES_MAX),
                    Ok(None) => break,
                    Err(_) => {
                        end = Some(misbehaved());
                        break;
                    }
                };
                let Ok(frame) = frame else {
                    end = Some(misbehaved());
                    break;
                };
                match &frame {
                    ToAgent::Pong(pong) if pong.id == self.ping => continue,
                    ToAgent::Closing(closing) => {
                        let (refusal, resume) = (closing.refusal, closing.resume);
                        end = Some(End::Closed { refusal, resume });
                    }
                    ToAgent::Ready(ready) => {
                        if lane == Lane::First && self.agree.borrow().is_none() {
                            let shapes = match self.traffic.agree(ready.traffic) {
                                Ok(shapes) => shapes,
                                Err(why) => {
                                    end = Some(End::Lost(why.into()));
                                    break;
                                }
                            };
                            incoming.expect_shape(&shapes.to_agent);
                            heard = Heard::new(&shapes.to_agent);
                            self.tallies.agreed(&shapes);
                            lock(&self.view).shapes = Some(shapes);
                            self.agree.send_replace(Some(shapes));
                        }
                        let mut view = lock(&self.view);
                        view.state = LinkState::Ready;
                        view.trouble = None;
                    }
                    ToAgent::Created(_)
                    | ToAgent::Published(_)
                    | ToAgent::Ack(_)
                    | ToAgent::Nack(_)
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
                    | ToAgent::SlimSubscribed(_)
                    | ToAgent::SlimPublished(_)
                    | ToAgent::SlimDeliver(_)
                    | ToAgent::SlimLogs(_) => {}
                }
                self.pulse.used();
                together.push(frame);
                if together.len() == TOGETHER_MAX && self.hand_over(&mut together).await.is_err() {
                    return End::Done;
                }
            }
            if self.hand_over(&mut together).await.is_err() {
                return End::Done;
            }
            if let Some(end) = end {
                return end;
            }
            let missing = heard.count(&incoming, self.tallies);
            if missing > 0 {
                tracing::warn!(relay = %self.relay.short(), missing, "somebody takes cover out of the line");
                // Nobody may listen.
                let _ = self.notices.send(Event::CoverMissing {
                    relay: self.relay,
                    missing,
                });
            }
        }
    }
}

/// What of one stream has been counted.
#[derive(Debug, Default)]
struct Heard {
    /// Of all cells, where they have one.
    cell: Option<u64>,
    bytes: u64,
    counted: DirectionCounters,
    missing: u64,
}

impl Heard {
    fn new(shape: &Shape) -> Self {
        let cell = shape.mode().is_slotted().then(|| shape.cell() as u64);
        Self {
            cell,
            ..Self::default()
        }
    }

    /// Gives how many cells of cover are found missing.
    fn count(&mut self, incoming: &Incoming, tallies: &Tallies) -> u64 {
        let cover = incoming.cover();
        let cells = self.cell.map_or(0, |cell| self.bytes / cell);
        let cover_bytes = cover.received() * self.cell.unwrap_or(0);
        let now = DirectionCounters {
            real: cells.saturating_sub(cover.received()),
            cover: cover.received(),
            real_bytes: self.bytes.saturating_sub(cover_bytes),
            cover_bytes,
        };
        // A cell of which a part has come counts as real until the rest tells: it is taken back
        // from what is counted next.
        let before = self.counted;
        let more = DirectionCounters {
            real: now.real.saturating_sub(before.real),
            cover: now.cover - before.cover,
            real_bytes: now.real_bytes.saturating_sub(before.real_bytes),
            cover_bytes: now.cover_bytes - before.cover_bytes,
        };
        let missing = cover.missing() - self.missing;
        tallies.received(&more, missing);
        self.counted = DirectionCounters {
            real: now.real.max(before.real),
            real_bytes: now.real_bytes.max(before.real_bytes),
            ..now
        };
        self.missing = cover.missing();
        missing
    }
}

/// Frames that are handed over at once: a quarter of what a step of the mind takes.
const TOGETHER_MAX: usize = 64;

fn misbehaved() -> End {
    End::Lost("the relay sent something that cannot be read".into())
}
