//! Finds out that a relay has forgotten a connection, without taking a bad line for a dead one.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{
    KEEP_ALIVE, LinkView,
    connected::{Carrier, Connected, Heard},
    dialer::Dialer,
    lock,
};
use crate::traffic::LineShapes;

/// What those who carry one connection's frames tell the one who watches over it, and the other
/// way round.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// We have written something, which QUIC at the relay confirms.
    wrote: AtomicBool,
    /// Frames go to and fro.
    used: AtomicBool,
    /// An answer is wanted, whatever it is.
    ask: Notify,
}

impl Pulse {
    pub(super) fn used(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self) {
        self.wrote.store(true, Ordering::Relaxed);
    }

    pub(super) async fn asked(&self) {
        self.ask.notified().await;
    }
}

/// Finds out that a relay has forgotten a connection.
pub(super) struct Watch<'a> {
    pub(super) connected: &'a Connected,
    pub(super) pulse: &'a Pulse,
    pub(super) view: &'a Mutex<LinkView>,
    pub(super) agreed: watch::Receiver<Option<LineShapes>>,
}

impl Watch<'_> {
    /// Ends with another connection to the relay, when this one has not been answered for too
    /// long, another is up, and this one is still silent. When it speaks, however late, it is kept,
    /// and is given more time from then on. A line over gRPC ends too when QUIC is up again.
    pub(super) async fn until_superseded(
        &self,
        dialer: &mut Dialer,
        patience: &mut Duration,
    ) -> Connected {
        loop {
            tokio::select! {
                () = self.until_owed(patience) => {}
                better = dialer.return_to_quic(), if self.connected.carrier() == Carrier::Grpc => {
                    return better;
                }
            }
            let before = self.heard();
            lock(self.view).trouble = Some("the relay has fallen silent".into());
            let fresh = tokio::select! {
                () = self.until_heard_since(&before) => None,
                fresh = dialer.find() => Some(fresh),
            };
            if let Some(fresh) = fresh {
                // The same way has carried an answer to and fro: ours has some such times to come.
                let silence = self.silence();
                if silence.is_none() {
                    self.pulse.ask.notify_one();
                }
                let chance = fresh.round_trip().unwrap_or(LAST_CHANCE_MAX);
                let chance = (chance * LAST_CHANCES).clamp(LAST_CHANCE_MIN, LAST_CHANCE_MAX);
                let chance = chance + silence.unwrap_or_default();
                if timeout(chance, self.until_heard_since(&before))
                    .await
                    .is_err()
                {
                    return fresh;
                }
                fresh.close();
            }
            lock(self.view).trouble = None;
            *patience = (*patience * 2).min(PATIENCE_MAX);
        }
    }

    /// Until the relay has owed us a sign of life for as long as our patience lasts. Who uses the
    /// line asks for one soon; who does not is content with QUIC's own.
    async fn until_owed(&self, patience: &mut Duration) {
        let mut heard = self.heard();
        let (mut quiet, mut unused, mut calm) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let mut owed = None;
        loop {
            let in_use = unused < IN_USE;
            let look = if in_use { LOOK } else { LOOK_UNUSED };
            sleep(look).await;
            unused = if self.pulse.used.swap(false, Ordering::Relaxed) {
                Duration::ZERO
            } else {
                unused.saturating_add(look)
            };
            calm += look;
            if calm >= FORGIVEN {
                calm = Duration::ZERO;
                *patience = (*patience / 2).max(PATIENCE_MIN);
            }
            let wrote = self.pulse.wrote.swap(false, Ordering::Relaxed);
            let now = self.heard();
            if now != heard {
                heard = now;
                quiet = Duration::ZERO;
                owed = None;
                continue;
            }
            quiet += look;
            if let Some(silence) = self.silence() {
                if quiet >= silence + *patience {
                    return;
                }
                continue;
            }
            match &mut owed {
                Some(since) => {
                    *since += look;
                    if *since >= *patience {
                        return;
                    }
                }
                None if wrote || quiet > KEEP_ALIVE => {
                    if !self.connected.answers_by_itself() {
                        self.pulse.ask.notify_one();
                    }
                    owed = Some(Duration::ZERO);
                }
                None if in_use && quiet >= ASK_AFTER => {
                    self.pulse.ask.notify_one();
                    owed = Some(Duration::ZERO);
                }
                None => {}
            }
        }
    }

    /// How long the relay may be silent on a line on which its cells come by a schedule. Where QUIC asks
    /// by itself when nothing comes, that is never much longer than its own pause.
    fn silence(&self) -> Option<Duration> {
        let shapes = *self.agreed.borrow();
        let silence = shapes?.to_agent.silence_max()?;
        Some(if self.connected.answers_by_itself() {
            silence.min(2 * KEEP_ALIVE)
        } else {
            silence
        })
    }

    async fn until_heard_since(&self, before: &Heard) {
        while self.heard() == *before {
            sleep(LOOK_CLOSELY).await;
        }
    }

    fn heard(&self) -> Heard {
        self.connected.heard()
    }
}

/// How long a line that is in use may be quiet before we ask.
const ASK_AFTER: Duration = Duration::from_millis(600);
/// A line has been in use when frames have gone to or fro within this time. Others are asked no
/// more often than QUIC does anyway: each question costs the relay as much as a message.
const IN_USE: Duration = Duration::from_secs(30);
/// How long an answer may take before another connection is tried beside this one; each false
/// alarm doubles it, and a while without any halves it.
pub(super) const PATIENCE_MIN: Duration = Duration::from_millis(700);
const PATIENCE_MAX: Duration = Duration::from_secs(15);
const FORGIVEN: Duration = Duration::from_mins(2);
/// How often we look whether anything has come: in general, for a line that is not in use, and when
/// it counts.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_UNUSED: Duration = Duration::from_millis(500);
const LOOK_CLOSELY: Duration = Duration::from_millis(20);
/// What a silent connection has left to answer in when another one is up, in round trips of that.
const LAST_CHANCES: u32 = 4;
const LAST_CHANCE_MIN: Duration = Duration::from_millis(100);
const LAST_CHANCE_MAX: Duration = Duration::from_secs(3);
