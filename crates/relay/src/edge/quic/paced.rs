//! Writes a line that has a schedule: whatever comes in between, cells leave when they are due.
//!
//! It has a task of its own, so that neither reading nor the checks of what was read can hold up a
//! slot; and it takes only as much ahead as the next slots carry, so that what waits stays in
//! [`Outbound`](crate::driver::Outbound), where it is bounded and the hub knows of it.

use std::{sync::Arc, time::Duration};

use iroh::endpoint::{Connection, SendStream};
use skytale_shape::{Bulk, Micros, Shape, Shaper, line::MAX_FRAME};
use skytale_wire::frame::{self, ToAgent};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::error;

use super::{LineLost, fresh_rng};
use crate::{driver::Link, hub::Lane};

/// The sending side of one line.
pub(super) struct Paced {
    link: Arc<Link>,
    connection: Connection,
    send: SendStream,
    shaper: Shaper,
    /// What the shaper counts its microseconds from. The runtime's clock, because its timers keep
    /// that one.
    began: Instant,
    cells: Vec<u8>,
    /// Pieces of streams that QUIC had sent before the last cell was written.
    written: u64,
}

impl Paced {
    pub(super) fn new(
        link: Arc<Link>,
        connection: Connection,
        send: SendStream,
        shape: Shape,
    ) -> Self {
        let (schedule, fill) = (fresh_rng(), fresh_rng());
        let mut shaper = Shaper::new(shape, schedule, fill, Micros::new(0));
        // Room for one frame of any size behind what may wait: it is asked for only when less than
        // [`Self::ahead`] does.
        shaper.hold_at_most(MAX_FRAME + 2 * AHEAD_UNSLOTTED);
        Self {
            link,
            connection,
            send,
            shaper,
            began: Instant::now(),
            cells: Vec::new(),
            written: 0,
        }
    }

    /// Ends when the last word has been written or the line is lost.
    pub(super) async fn run(mut self) {
        let mut frames = Vec::new();
        let mut closing = false;
        let mut owes_drained = false;
        loop {
            if closing && self.shaper.waiting() == 0 {
                if self.send.finish().is_ok() {
                    // The peer has it, or is gone: both end the connection.
                    let _ = self.send.stopped().await;
                }
                return;
            }
            let wake = self.shaper.next_wake();
            let wake = wake.map(|at| self.began + Duration::from_micros(at.get()));
            let wants = !closing && self.shaper.waiting() < self.ahead();
            tokio::select! {
                biased;
                () = async { sleep_until(wake.unwrap_or(self.began)).await }, if wake.is_some() => {
                    if self.write_due().await.is_err() {
                        return;
                    }
                }
                // Not part of the taking: a cell that is due must not make us forget it.
                told = self.link.drained(), if owes_drained => {
                    if told.is_err() {
                        return;
                    }
                    owes_drained = false;
                }
                taken = self.link.outbound().take(Lane::Live, &mut frames, 0), if wants => {
                    match taken {
                        crate::driver::Taken::Frames { drained } => owes_drained |= drained,
                        crate::driver::Taken::Closing(last) => {
                            frames.push(frame::encode(&ToAgent::Closing(last)).into());
                            closing = true;
                        }
                    }
                    for frame in frames.drain(..) {
                        if self.shaper.push(&frame, self.bulk(frame.len())).is_err() {
                            error!(len = frame.len(), "a frame that fits no line was made");
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Writes the cells that are due, each as a datagram of its own where they have one size: of two
    /// that come at once QUIC would make a full datagram and a shorter one.
    async fn write_due(&mut self) -> Result<(), LineLost> {
        let now = self.began.elapsed().as_micros();
        let now = Micros::new(u64::try_from(now).unwrap_or(u64::MAX));
        let passed = self.shaper.advance(now, &mut self.cells);
        self.link.tally().sent(&passed);
        if passed.real > 0 {
            self.link.outbound().note_progress();
        }
        let shape = self.shaper.shape();
        let at_once = !shape.mode().is_slotted() || passed.over > 0;
        let piece = if at_once {
            self.cells.len().max(1)
        } else {
            shape.cell()
        };
        for cell in self.cells.chunks(piece) {
            if piece == shape.cell() {
                self.until_sent(self.written).await;
                self.written = self.stream_frames();
            }
            self.send.write_all(cell).await.map_err(|_| LineLost)?;
        }
        self.cells.clear();
        self.cells.shrink_to(super::KEPT_BYTES);
        Ok(())
    }

    /// Until QUIC has sent what was written when it had sent so many pieces of streams; or not for
    /// much longer than that takes, where the network holds it up.
    async fn until_sent(&self, before: u64) {
        for _ in 0..APART_TRIES {
            if self.stream_frames() > before {
                return;
            }
            sleep(APART).await;
        }
    }

    fn stream_frames(&self) -> u64 {
        self.connection.stats().frame_tx.stream
    }

    /// What the agent, as the receiver, has allowed, and only for what would take long.
    fn bulk(&self, len: usize) -> Bulk {
        let shape = self.shaper.shape();
        if len > BULK_SLOTS * shape.cell() {
            shape.bulk()
        } else {
            Bulk::Wait
        }
    }

    /// So much waits for slots at most before more is taken: half a burst's worth.
    fn ahead(&self) -> usize {
        let shape = self.shaper.shape();
        if shape.mode().is_slotted() {
            shape.cell() * AHEAD_SLOTS
        } else {
            AHEAD_UNSLOTTED
        }
    }
}

/// A frame that needs more slots than this may leave at once, where that is allowed.
const BULK_SLOTS: usize = 16;
/// Slots that are provided for before they come.
const AHEAD_SLOTS: usize = 4;
const AHEAD_UNSLOTTED: usize = 64 * 1024;
/// How often it is looked whether QUIC has sent a cell before the next one is written, and how many
/// times.
const APART: Duration = Duration::from_millis(1);
const APART_TRIES: u32 = 20;
