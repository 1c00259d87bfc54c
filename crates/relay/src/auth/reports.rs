//! Telling the API server what was used.
//!
//! The hub says what, once it is stored as a report; here it is sent, again and again until the
//! API server has taken it, and then the hub hears of it. What is sent twice counts once there.

use std::{sync::atomic::Ordering, time::Duration};

use iroh::SecretKey;
use skytale_wire::{
    http::RelaySignature,
    id::{Digest, RelayKey, Signed, Time},
    statement,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Gate, Remote, Source};
use crate::{archive::usage::Report, driver::Door};

/// What sends reports. Stop it after the driver, so that its last one goes out too.
#[derive(Debug)]
pub(crate) struct Reports {
    stop: CancellationToken,
    sending: JoinHandle<()>,
}

impl Reports {
    /// Sends what the driver reports. Nothing is ever reported by one that does not meter.
    pub(crate) fn start(
        gate: Gate,
        secret: SecretKey,
        door: Door,
        reports: watch::Receiver<Option<Report>>,
    ) -> Self {
        let stop = CancellationToken::new();
        let sending = tokio::spawn(send_all(gate, secret, door, reports, stop.clone()));
        Self { stop, sending }
    }

    /// Sends the last report, if that can be done at once. Else it is sent after the next start.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        // What is cut off in the middle is sent again after the next start.
        let _ = timeout(LAST_MAX, &mut self.sending).await;
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

impl Gate {
    /// Whether reports of usage have somebody who takes them: the one token issuer that has a URL.
    /// Of several none could be told what is not its own.
    pub(crate) fn has_taker(&self) -> bool {
        self.taker().is_some()
    }

    /// Whether the last report was not taken and is sent again; nothing when nobody is told of usage.
    pub(crate) fn report_waits(&self) -> Option<bool> {
        self.taker()?;
        Some(self.0.report_waits.load(Ordering::Relaxed))
    }

    pub(super) fn taker(&self) -> Option<&Remote> {
        let mut remotes = self.0.sources.iter().filter_map(Source::remote);
        remotes.next().filter(|_| remotes.next().is_none())
    }
}

async fn send_all(
    gate: Gate,
    secret: SecretKey,
    door: Door,
    mut reports: watch::Receiver<Option<Report>>,
    stop: CancellationToken,
) {
    let Some(taker) = gate.taker() else {
        return;
    };
    let mut taken = None;
    loop {
        let report = reports.borrow_and_update().clone();
        if let Some(report) = report {
            let last = stop.is_cancelled();
            // The hub asks again when it could not keep in mind that one was taken.
            if taken != Some(report.number) {
                if !send(taker, &secret, gate.0.clock.now(), &report).await {
                    if !gate.0.report_waits.swap(true, Ordering::Relaxed) {
                        warn!(
                            "the API server does not take a report of usage: it is kept and sent again. Is it up, of this version, and was it started with this relay's key?"
                        );
                    }
                    if last {
                        return;
                    }
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = tokio::time::sleep(RETRY) => {}
                    }
                    continue;
                }
                taken = Some(report.number);
                if gate.0.report_waits.swap(false, Ordering::Relaxed) {
                    info!("the API server takes reports of usage again");
                }
            }
            // A driver that has ended finds the report when it starts again, and it is sent again.
            let _ = door.reported(report.number).await;
        }
        tokio::select! {
            biased;
            // What the driver said before it ended is seen before its end is.
            changed = reports.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

async fn send(taker: &Remote, secret: &SecretKey, now: Time, report: &Report) -> bool {
    let target = format!("POST {PATH}");
    let sent = taker
        .client
        .post(format!("{}{PATH}", taker.base))
        .header(
            "authorization",
            signature(secret, &target, now, &report.body).to_string(),
        )
        .header("content-type", "application/json")
        .body(report.body.clone())
        .timeout(ANSWER_TIMEOUT)
        .send()
        .await;
    sent.is_ok_and(|answer| answer.status().is_success())
}

/// The relay's signature over a request: method, path and query, and the body.
pub(super) fn signature(
    secret: &SecretKey,
    target: &str,
    time: Time,
    body: &[u8],
) -> RelaySignature {
    let relay = RelayKey(*secret.public().as_bytes());
    let said = statement::relay_request(&relay, target, time, &Digest::of(&[body]));
    RelaySignature {
        relay,
        time,
        signature: Signed(secret.sign(&said).to_bytes()),
    }
}

const PATH: &str = "/v1/usage-reports";
/// The API server gives a request 10 s by default.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);
const RETRY: Duration = Duration::from_secs(2);
/// A relay that ends waits no longer for its last report to be taken.
const LAST_MAX: Duration = Duration::from_secs(2);
