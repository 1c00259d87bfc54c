//! A link's own side: connects, talks, pauses and connects again.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use skytale_agent::Event;
use skytale_wire::{
    http::Secret,
    id::{MessageId, RelayKey, TransportKey},
    refusal::{Refusal, Remedy},
};
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    Beats, End, FLUSH_MAX, FRAMES_MAX, LineEvent, LineId, LineNews, LinkState, LinkView,
    connected::Connected,
    dialer::Dialer,
    lock, pause,
    purse::Purse,
    reporter::{Lane, Reporter},
    vigil::{Pulse, Watch},
    writer::{Writer, second_lane},
};
use crate::{
    error::Error,
    traffic::{Tallies, Traffic},
};

/// A link's own side.
pub(super) struct Runner {
    pub(super) relay: RelayKey,
    pub(super) transport: TransportKey,
    pub(super) traffic: Traffic,
    pub(super) tallies: Tallies,
    pub(super) notices: broadcast::Sender<Event>,
    pub(super) beats: Beats,
    pub(super) events: mpsc::Sender<LineEvent>,
    pub(super) addresses: watch::Receiver<Vec<String>>,
    pub(super) view: Arc<Mutex<LinkView>>,
    pub(super) purse: Purse,
    pub(super) dialer: Dialer,
    /// How long we wait for an answer before we look whether the relay still knows us.
    pub(super) patience: Duration,
    pub(super) rng: ChaCha8Rng,
}

impl Runner {
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let mut tries = 0;
        let mut refusals = 0;
        let mut dialled = None;
        loop {
            let end = tokio::select! {
                () = cancel.cancelled() => break,
                connected = self.connect(tries, dialled.take()) => match connected {
                    Ok((connection, token)) => {
                        // As large as all that happens on a connection.
                        Box::pin(self.converse(connection, token, &cancel)).await
                    }
                    Err(error) => Err(error),
                },
            };
            let was_ready = lock(&self.view).state == LinkState::Ready;
            // A line that we end ourselves may be ended again for the same reason, so it does not
            // shorten the pause.
            if was_ready && !matches!(end, Ok(End::Done)) {
                (tries, refusals) = (0, 0);
            }
            if let Err(Error::Unauthorized(text)) = &end {
                lock(&self.view).unauthorized = Some(text.clone());
            }
            let trouble = match end {
                Ok(End::Done) => None,
                Ok(End::Lost(why)) => Some(why),
                Ok(End::Superseded(connection)) => {
                    tracing::debug!(relay = %self.relay.short(), carrier = connection.carrier().name(), "another line takes over");
                    dialled = Some(*connection);
                    continue;
                }
                Ok(End::Closed { refusal, resume }) => {
                    refusals += 1;
                    if !self.may_return(refusal, resume, refusals) {
                        tracing::warn!(relay = %self.relay.short(), code = refusal.code(), "the relay does not want this agent back");
                        self.show(LinkState::Refused(refusal), Some(refusal.to_string()));
                        cancel.cancelled().await;
                        break;
                    }
                    Some(refusal.to_string())
                }
                Err(error) => Some(error.to_string()),
            };
            tracing::debug!(relay = %self.relay.short(), tries, trouble, "line ended");
            self.show(LinkState::Connecting, trouble);
            let pause = pause(tries, &mut self.rng);
            tries += 1;
            tokio::select! {
                () = cancel.cancelled() => break,
                () = sleep(pause) => {}
                changed = self.addresses.changed() => if changed.is_err() { break },
            }
        }
        self.dialer.hang_up().await;
    }

    /// Whether to knock again after this word. The relay refuses a Hello always with "do not
    /// resume", so what the refusal means decides too.
    fn may_return(&mut self, refusal: Refusal, resume: bool, refusals: u32) -> bool {
        if matches!(
            refusal,
            Refusal::TokenInvalid | Refusal::TokenExpired | Refusal::TokenForAnotherKey
        ) {
            self.purse.held = None;
            return self.purse.account.is_some() && refusals < REFUSALS_MAX;
        }
        // Whoever replaced us would be replaced by us, and so on.
        resume || (refusal.remedy() == Remedy::Retry && refusal != Refusal::Replaced)
    }

    /// A connection, or the one that is there already, and the token to show on it.
    async fn connect(
        &mut self,
        tries: u32,
        dialled: Option<Connected>,
    ) -> Result<(Connected, Option<Secret>), Error> {
        let token = self.purse.token().await?;
        // Not only seen by the dialer: what is new after this ends the pause.
        self.addresses.mark_unchanged();
        let connection = match dialled {
            Some(connection) => connection,
            None => Box::pin(self.dialer.dial(tries)).await?,
        };
        Ok((connection, token))
    }

    /// The whole life of a connection.
    async fn converse(
        &mut self,
        connected: Connected,
        token: Option<Secret>,
        cancel: &CancellationToken,
    ) -> Result<End, Error> {
        let Some((mouth, ear)) = connected.stream().await else {
            return Ok(End::Lost("the connection broke at once".into()));
        };
        let line = LineId::fresh();
        let (frames, from_worker) = mpsc::channel(FRAMES_MAX);
        let up = LineNews::Up {
            transport: self.transport,
            token,
            frames,
        };
        self.show(LinkState::Greeting, None);
        self.dialer.note_carrier(connected.carrier());
        lock(&self.view).carrier = Some(connected.carrier());
        let pulse = Arc::new(Pulse::default());
        let (agree, agreed) = watch::channel(None);
        let ping = MessageId(self.rng.random());
        let reporter = Reporter {
            relay: self.relay,
            line,
            events: self.events.clone(),
            view: Arc::clone(&self.view),
            ping,
            pulse: &pulse,
            traffic: self.traffic,
            agree,
            tallies: &self.tallies,
            notices: &self.notices,
        };
        if reporter.tell(up).await.is_err() {
            return Ok(End::Done);
        }
        let writer = Writer {
            relay: self.relay,
            frames: from_worker,
            ping,
            pulse: Arc::clone(&pulse),
            traffic: self.traffic,
            tallies: self.tallies.clone(),
            notices: self.notices.clone(),
            beats: self.beats.clone(),
            agreed: agreed.clone(),
        };
        let rng = ChaCha8Rng::from_rng(&mut self.rng);
        let lane_rng = ChaCha8Rng::from_rng(&mut self.rng);
        // A task of its own, so that nothing that is read can hold up a slot. The set ends it.
        let mut writing = JoinSet::new();
        writing.spawn(writer.run(mouth, rng));
        let watch = Watch {
            connected: &connected,
            pulse: &pulse,
            view: &self.view,
            agreed: agreed.clone(),
        };
        let end = tokio::select! {
            Some(end) = writing.join_next() => {
                end.unwrap_or_else(|_| End::Lost("the line's writer has ended".into()))
            }
            end = reporter.read(ear, Lane::First) => end,
            end = second_lane(&connected, agreed, &reporter, lane_rng) => end,
            end = self.purse.renew(&reporter) => end,
            fresh = watch.until_superseded(&mut self.dialer, &mut self.patience) => {
                End::Superseded(Box::new(fresh))
            }
            () = after(cancel) => End::Done,
        };
        drop(writing);
        connected.close();
        // The worker must hear of the end before it hears of the next beginning.
        let _ = reporter.tell(LineNews::Down).await;
        Ok(end)
    }

    fn show(&self, state: LinkState, trouble: Option<String>) {
        let mut view = lock(&self.view);
        view.state = state;
        if state != LinkState::Connecting {
            view.unauthorized = None;
        }
        view.shapes = None;
        view.carrier = None;
        if state != LinkState::Greeting {
            view.trouble = trouble;
        }
    }
}

/// Gives the writer time to finish after the link was retired.
async fn after(cancel: &CancellationToken) {
    cancel.cancelled().await;
    sleep(FLUSH_MAX).await;
}

/// Tokens in a row that a relay may refuse before we stop buying new ones.
const REFUSALS_MAX: u32 = 3;
