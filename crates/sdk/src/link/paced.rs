//! Writes a line that has a schedule: whatever comes in between, cells leave when they are due.
//!
//! It takes only as much ahead as the next slots carry, so that what waits stays with the worker,
//! which then takes no more commands.

use std::time::Duration;

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use skytale_agent::Event;
use skytale_shape::{Bulk, Micros, Shaper};
use skytale_wire::frame::{self, Ping, ToRelay};
use tokio::time::{Instant, sleep_until};
use zeroize::Zeroizing;

use super::{
    End, Parcel,
    beat::{Held, turn},
    connected::Mouth,
    writer::{WRITE_BYTES, Writer},
};
use crate::traffic::LineShapes;

/// The sending side of one line.
pub(super) struct Paced {
    writer: Writer,
    mouth: Mouth,
    shaper: Shaper,
    /// What the shaper counts its microseconds from. The runtime's clock, because its timers keep
    /// that one.
    began: Instant,
    cells: Vec<u8>,
    /// While it lives, its thread wakes on beats only.
    _beats: Option<Held>,
}

impl Paced {
    pub(super) fn new(
        writer: Writer,
        mouth: Mouth,
        shapes: &LineShapes,
        mut rng: ChaCha8Rng,
    ) -> Self {
        let schedule = ChaCha8Rng::from_rng(&mut rng);
        let mut shaper = Shaper::new(shapes.to_relay, schedule, rng, Micros::new(0));
        shaper.hold_what_is_wanted();
        let beats = shapes.to_relay.beat();
        let beats = beats.map(|period| writer.beats.hold(period));
        Self {
            writer,
            mouth,
            shaper,
            began: Instant::now(),
            cells: Vec::new(),
            _beats: beats,
        }
    }

    /// Ends well when the worker has dropped its side and the relay has everything. `early` came
    /// before the line had its shape.
    pub(super) async fn run(mut self, early: Vec<Parcel>) -> End {
        let mut closing = false;
        for parcel in early {
            if let Err(end) = self.push(&parcel) {
                return end;
            }
        }
        loop {
            if closing && self.shaper.waiting() == 0 {
                return self.mouth.finish().await;
            }
            let wake = self.shaper.next_wake();
            let wake = wake.map(|at| self.began + Duration::from_micros(at.get()));
            let wants = !closing && self.shaper.wants_more();
            tokio::select! {
                biased;
                () = sleep_until(wake.unwrap_or(self.began)), if wake.is_some() => {
                    if let Err(end) = self.write_due().await {
                        return end;
                    }
                }
                parcel = self.writer.frames.recv(), if wants => match parcel {
                    Some(parcel) => {
                        self.writer.pulse.used();
                        if let Err(end) = self.push(&parcel) {
                            return end;
                        }
                    }
                    None => closing = true,
                },
                // Asked only where the relay's own cells do not show that it lives.
                () = self.writer.pulse.asked(), if wants => {
                    let ping = ToRelay::Ping(Ping { id: self.writer.ping });
                    if let Err(end) = self.push(&(ping, Bulk::Wait)) {
                        return end;
                    }
                }
            }
        }
    }

    fn push(&mut self, (frame, bulk): &Parcel) -> Result<(), End> {
        // May hold a token.
        let bytes = Zeroizing::new(frame::encode(frame));
        let wished = self.writer.traffic.shape().bulk();
        let large = self.shaper.shape().is_bulk(bytes.len());
        let at_once = *bulk == Bulk::Now || (wished == Bulk::Now && large);
        let bulk = if at_once { Bulk::Now } else { Bulk::Wait };
        self.shaper.push(&bytes, bulk).map_err(|_| {
            tracing::error!(len = bytes.len(), "a frame that fits no line was made");
            End::Lost("a frame was too large for the line".into())
        })
    }

    /// Writes the cells that are due, each by itself where they have one size: of two that come at
    /// once QUIC would make a full datagram and a shorter one.
    async fn write_due(&mut self) -> Result<(), End> {
        // What has come is acknowledged first. Otherwise cell and acknowledgement leave in one datagram
        // or in two, by which of them came first and by what else has woken the thread before.
        for _ in 0..TURNS_OF_OTHERS {
            turn().await;
        }
        let now = self.began.elapsed().as_micros();
        let now = Micros::new(u64::try_from(now).unwrap_or(u64::MAX));
        let passed = self.shaper.advance(now, &mut self.cells);
        self.writer.tallies.sent(&passed);
        if passed.over > 0 {
            // Nobody may listen.
            let _ = self.writer.notices.send(Event::OverSchedule {
                relay: self.writer.relay,
                cells: passed.over,
            });
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
        if !self.cells.is_empty() {
            self.writer.pulse.wrote();
        }
        self.cells.clear();
        self.cells.shrink_to(WRITE_BYTES);
        Ok(())
    }
}

/// Turns that the other tasks of the thread need until a datagram that waits in the socket has been
/// read, handed to its connection and acknowledged; and some to spare.
const TURNS_OF_OTHERS: u32 = 8;
