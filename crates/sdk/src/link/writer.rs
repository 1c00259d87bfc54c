//! Writes what the worker hands over, in the shape that the relay and we have agreed on.

use std::sync::Arc;

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use skytale_agent::Event;
use skytale_shape::{Bulk, Micros, Mode, Shape, Shaper};
use skytale_wire::{
    frame::{self, Ping, ToRelay},
    id::{MessageId, RelayKey},
};
use tokio::sync::{broadcast, mpsc, watch};
use zeroize::Zeroizing;

use super::{
    Beats, End, Parcel,
    connected::{Connected, Mouth},
    paced::Paced,
    reporter::{Lane, Reporter},
    vigil::Pulse,
};
use crate::traffic::{LineShapes, Tallies, Traffic};

/// Writes what the worker hands over, and asks for an answer when one is wanted.
pub(super) struct Writer {
    pub(super) relay: RelayKey,
    pub(super) frames: mpsc::Receiver<Parcel>,
    pub(super) ping: MessageId,
    pub(super) pulse: Arc<Pulse>,
    pub(super) traffic: Traffic,
    pub(super) tallies: Tallies,
    pub(super) notices: broadcast::Sender<Event>,
    pub(super) beats: Beats,
    pub(super) agreed: watch::Receiver<Option<LineShapes>>,
}

impl Writer {
    /// Greets, waits for what holds for the line, and goes on in that shape.
    pub(super) async fn run(mut self, mut mouth: Mouth, mut rng: ChaCha8Rng) -> End {
        let mut shaper = padded(ChaCha8Rng::from_rng(&mut rng));
        let greeted = match self.frames.recv().await {
            Some((mut frame, _)) => {
                if let ToRelay::Hello(hello) = &mut frame {
                    hello.traffic = Some(self.traffic.wish());
                }
                self.write_padded(&mut mouth, &mut shaper, vec![(frame, Bulk::Wait)])
                    .await
            }
            None => return mouth.finish().await,
        };
        if let Err(end) = greeted {
            return end;
        }
        let mut early = Vec::new();
        let shapes = loop {
            tokio::select! {
                shapes = agreed_shapes(&mut self.agreed) => break shapes,
                // Nothing is said before Ready; but the worker may end the line.
                parcel = self.frames.recv(), if early.len() < FRAMES_AT_ONCE => match parcel {
                    Some(parcel) => early.push(parcel),
                    None => return mouth.finish().await,
                },
            }
        };
        if shapes.to_relay.mode() == Mode::Padded {
            self.run_padded(mouth, shaper, early).await
        } else {
            Paced::new(self, mouth, &shapes, rng).run(early).await
        }
    }

    /// Everything that waits goes into shared cells and one write. Ends well when the worker has
    /// dropped its side and the relay has everything.
    async fn run_padded(mut self, mut mouth: Mouth, mut shaper: Shaper, early: Vec<Parcel>) -> End {
        let mut batch = early;
        loop {
            if batch.is_empty() {
                tokio::select! {
                    count = self.frames.recv_many(&mut batch, FRAMES_AT_ONCE) => {
                        if count == 0 {
                            return mouth.finish().await;
                        }
                        self.pulse.used();
                    }
                    () = self.pulse.asked() => {
                        batch.push((ToRelay::Ping(Ping { id: self.ping }), Bulk::Wait));
                    }
                }
            }
            let batch = std::mem::take(&mut batch);
            if let Err(end) = self.write_padded(&mut mouth, &mut shaper, batch).await {
                return end;
            }
        }
    }

    async fn write_padded(
        &self,
        mouth: &mut Mouth,
        shaper: &mut Shaper,
        batch: Vec<Parcel>,
    ) -> Result<(), End> {
        let mut buffer = Vec::new();
        // A padded line has no use for the time.
        let drain = |shaper: &mut Shaper, buffer: &mut Vec<u8>| {
            let passed = shaper.advance(Micros::new(0), buffer);
            self.tallies.sent(&passed);
        };
        for (frame, _) in batch {
            // May hold a token.
            let bytes = Zeroizing::new(frame::encode(&frame));
            if shaper.push(&bytes, Bulk::Wait).is_err() {
                drain(shaper, &mut buffer);
                if shaper.push(&bytes, Bulk::Wait).is_err() {
                    tracing::error!(len = bytes.len(), "a frame that fits no cell was made");
                    return Err(End::Lost("a frame was too large for the line".into()));
                }
            }
            if shaper.waiting() >= WRITE_BYTES {
                drain(shaper, &mut buffer);
            }
            if buffer.len() >= WRITE_BYTES {
                mouth.write(&buffer).await?;
                buffer.clear();
            }
        }
        drain(shaper, &mut buffer);
        mouth.write(&buffer).await?;
        self.pulse.wrote();
        Ok(())
    }
}

/// Until Ready has said what holds for the line.
async fn agreed_shapes(agreed: &mut watch::Receiver<Option<LineShapes>>) -> LineShapes {
    let shapes = agreed.wait_for(Option::is_some).await;
    let shapes = shapes.ok().and_then(|shapes| *shapes);
    match shapes {
        Some(shapes) => shapes,
        // The connection is at its end, and with it whoever waits here.
        None => std::future::pending().await,
    }
}

/// How every line begins, and some go on.
fn padded(mut rng: ChaCha8Rng) -> Shaper {
    let schedule = ChaCha8Rng::from_rng(&mut rng);
    Shaper::new(Shape::new(Mode::Padded), schedule, rng, Micros::new(0))
}

/// Opens the lane for catching up once the relay has let us in, and reads it, unless the line has
/// slots or its carrier one stream only. Its end is not the connection's: then everything comes on the first lane.
pub(super) async fn second_lane(
    connected: &Connected,
    mut agreed: watch::Receiver<Option<LineShapes>>,
    reporter: &Reporter<'_>,
    rng: ChaCha8Rng,
) -> End {
    if agreed_shapes(&mut agreed).await.is_slotted() {
        return std::future::pending().await;
    }
    let Some((mut mouth, ear)) = connected.stream().await else {
        return std::future::pending().await;
    };
    let mut shaper = padded(rng);
    let mut buffer = Vec::new();
    let hello = frame::encode(&ToRelay::Ping(Ping { id: reporter.ping }));
    if shaper.push(&hello, Bulk::Wait).is_ok() {
        reporter
            .tallies
            .sent(&shaper.advance(Micros::new(0), &mut buffer));
    }
    if mouth.write(&buffer).await.is_err() {
        return std::future::pending().await;
    }
    match reporter.read(ear, Lane::Second).await {
        End::Lost(_) => std::future::pending().await,
        end @ (End::Done | End::Closed { .. } | End::Superseded(_)) => end,
    }
}

/// Frames that are gathered for one write.
const FRAMES_AT_ONCE: usize = 64;
/// About as much as is written at once.
pub(super) const WRITE_BYTES: usize = 64 * 1024;
