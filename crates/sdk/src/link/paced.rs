//! Writes a line that has a schedule: whatever comes in between, cells leave when they are due.
//!
//! It takes only as much ahead as the next slots carry, so that what waits stays with the worker,
//! which then takes no more commands.

use std::time::Duration;

use iroh::endpoint::{Connection, SendStream};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use skytale_agent::Event;
use skytale_shape::{Bulk, Micros, Shaper, line::MAX_FRAME};
use skytale_wire::frame::{self, Ping, ToRelay};
use tokio::time::{Instant, sleep, sleep_until};
use zeroize::Zeroizing;

use super::{End, Parcel, Writer, finish};
use crate::traffic::LineShapes;

/// The sending side of one line.
pub(super) struct Paced {
    writer: Writer,
    connection: Connection,
    stream: SendStream,
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
        writer: Writer,
        connection: Connection,
        stream: SendStream,
        shapes: &LineShapes,
        mut rng: ChaCha8Rng,
    ) -> Self {
        let schedule = ChaCha8Rng::from_rng(&mut rng);
        let mut shaper = Shaper::new(shapes.to_relay, schedule, rng, Micros::new(0));
        // Room for one frame of any size behind what may wait: it is asked for only when less than
        // [`Self::ahead`] does.
        shaper.hold_at_most(MAX_FRAME + 2 * AHEAD_UNSLOTTED);
        Self {
            writer,
            connection,
            stream,
            shaper,
            began: Instant::now(),
            cells: Vec::new(),
            written: 0,
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
                return finish(&mut self.stream).await;
            }
            let wake = self.shaper.next_wake();
            let wake = wake.map(|at| self.began + Duration::from_micros(at.get()));
            let wants = !closing && self.shaper.waiting() < self.ahead();
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
        let cell = self.shaper.shape().cell();
        let wished = self.writer.traffic.shape().bulk();
        let at_once =
            *bulk == Bulk::Now || (wished == Bulk::Now && bytes.len() > BULK_SLOTS * cell);
        let bulk = if at_once { Bulk::Now } else { Bulk::Wait };
        self.shaper.push(&bytes, bulk).map_err(|_| {
            tracing::error!(len = bytes.len(), "a frame that fits no line was made");
            End::Lost("a frame was too large for the line".into())
        })
    }

    /// Writes the cells that are due, each as a datagram of its own where they have one size: of two
    /// that come at once QUIC would make a full datagram and a shorter one.
    async fn write_due(&mut self) -> Result<(), End> {
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
            let written = self.stream.write_all(cell).await;
            written.map_err(|error| End::Lost(format!("the line broke: {error}")))?;
        }
        if !self.cells.is_empty() {
            self.writer.pulse.wrote();
        }
        self.cells.clear();
        self.cells.shrink_to(super::WRITE_BYTES);
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

/// A frame that needs more slots than this may leave at once, where that is wished for.
const BULK_SLOTS: usize = 16;
/// Slots that are provided for before they come.
const AHEAD_SLOTS: usize = 4;
const AHEAD_UNSLOTTED: usize = super::WRITE_BYTES;
/// How often it is looked whether QUIC has sent a cell before the next one is written, and how many
/// times.
const APART: Duration = Duration::from_millis(1);
const APART_TRIES: u32 = 20;
