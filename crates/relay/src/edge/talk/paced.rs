//! Writes a line that has a schedule: whatever comes in between, cells leave when they are due.
//!
//! It has a task of its own, so that neither reading nor the checks of what was read can hold up a
//! slot; and it takes only as much ahead as the next slots carry, so that what waits stays in
//! [`Outbound`](crate::driver::Outbound), where it is bounded and the hub knows of it.

use std::{sync::Arc, time::Duration};

use skytale_shape::{Bulk, Micros, Shape, Shaper};
use skytale_wire::frame::{self, ToAgent};
use tokio::time::{Instant, sleep_until};
use tracing::error;

use super::{LineLost, Mouth, fresh_rng};
use crate::{driver::Link, hub::Lane};

/// The sending side of one line.
pub(super) struct Paced<M> {
    link: Arc<Link>,
    mouth: M,
    shaper: Shaper,
    /// What the shaper counts its microseconds from. The runtime's clock, because its timers keep
    /// that one.
    began: Instant,
    cells: Vec<u8>,
}

impl<M: Mouth> Paced<M> {
    /// `began` is the same for all lines of a relay: see [`Self::wake`].
    pub(super) fn new(link: Arc<Link>, mouth: M, shape: Shape, began: Instant) -> Self {
        let (schedule, fill) = (fresh_rng(), fresh_rng());
        let mut shaper = Shaper::new(shape, schedule, fill, micros(began.elapsed()));
        shaper.hold_what_is_wanted();
        Self {
            link,
            mouth,
            shaper,
            began,
            cells: Vec::new(),
        }
    }

    /// Ends when the last word has been written or the line is lost.
    pub(super) async fn run(mut self) {
        let mut frames = Vec::new();
        let mut closing = false;
        let mut owes_drained = false;
        loop {
            if closing && self.shaper.waiting() == 0 {
                // The peer has it, or is gone: both end the connection.
                return self.mouth.finish().await;
            }
            let wake = self.wake();
            let wants = !closing && self.shaper.wants_more();
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

    /// When cells are due next, put off to the next beat: lines whose slots fall into one beat wake the
    /// machine once, and waking it costs more than a cell. Beats depend on the clock alone.
    fn wake(&self) -> Option<Instant> {
        let due = self.shaper.next_wake()?.get();
        let due = match self.shaper.shape().beat() {
            Some(beat) => due.next_multiple_of(micros(beat).get()),
            None => due,
        };
        Some(self.began + Duration::from_micros(due))
    }

    /// Writes the cells that are due, each by itself where they have one size: of two that come at
    /// once QUIC would make a full datagram and a shorter one.
    async fn write_due(&mut self) -> Result<(), LineLost> {
        let now = micros(self.began.elapsed());
        let passed = self.shaper.advance(now, &mut self.cells);
        self.link.tally().sent(&passed);
        if passed.real > 0 {
            self.link.outbound().note_progress();
        }
        match self.shaper.piece(&passed) {
            Some(piece) => {
                for cell in self.cells.chunks(piece) {
                    self.mouth.apart().await;
                    self.mouth.write(cell).await?;
                }
            }
            None => self.mouth.write(&self.cells).await?,
        }
        self.cells.clear();
        self.cells.shrink_to(super::KEPT_BYTES);
        Ok(())
    }

    /// What the agent, as the receiver, has allowed, and only for what would take long.
    fn bulk(&self, len: usize) -> Bulk {
        let shape = self.shaper.shape();
        if shape.is_bulk(len) {
            shape.bulk()
        } else {
            Bulk::Wait
        }
    }
}

fn micros(passed: Duration) -> Micros {
    Micros::new(u64::try_from(passed.as_micros()).unwrap_or(u64::MAX))
}
