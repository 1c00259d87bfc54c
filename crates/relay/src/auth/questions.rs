//! Answering what accounts want to know of this relay, without being called by anybody.
//!
//! A request is always open at the API server, which holds it until somebody asks something. It says
//! how the relay is and brings the answers to what was asked before. Nothing is kept: an answer that
//! did not arrive is asked for again, as long as somebody waits for it.

use std::time::Duration;

use iroh::SecretKey;
use skytale_wire::{
    http::{
        Ask, HELD_MAX, QUESTIONS_AT_ONCE, RelayAnswer, RelayCall, RelayHealth, RelayQuestion,
        RelayQuestions, Told,
    },
    id::{Seq, Time},
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{Remote, body, reports::signature};
use crate::{
    driver::{Door, Which},
    health::Watched,
    held::Pages,
};

/// What answers. Stop it before the archive is opened anew: it reads there.
#[derive(Debug)]
pub(crate) struct Answers(JoinHandle<()>);

impl Answers {
    /// Answers what the one API server asks, if there is one. A relay with several token issuers
    /// answers none: whose accounts are whose, it could not tell. Without pages it says how it is, and
    /// knows of nothing.
    pub(crate) fn start(watched: Watched, secret: SecretKey, pages: Option<Pages>) -> Self {
        let answering = Answering {
            watched,
            secret,
            pages,
        };
        Self(tokio::spawn(answering.go_on()))
    }

    /// Ends it. Whoever waits for an answer is told that there is none.
    pub(crate) async fn stop(mut self) {
        self.0.abort();
        // It has been told to end, and did.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Answering {
    watched: Watched,
    secret: SecretKey,
    pages: Option<Pages>,
}

impl Answering {
    async fn go_on(self) {
        let gate = self.watched.gate.clone();
        let Some(asker) = gate.taker() else {
            return;
        };
        let began = gate.0.clock.now();
        let mut answers = Vec::new();
        let mut is_lost = false;
        // From when on something may be read again.
        let mut rested = began;
        loop {
            let call = RelayCall {
                health: self.health(began).await,
                answers: std::mem::take(&mut answers),
            };
            let Some(asked) = say(asker, &self.secret, gate.0.clock.now(), &call).await else {
                if !std::mem::replace(&mut is_lost, true) {
                    warn!(
                        "the API server does not take what this relay says of itself: nobody can look at what it holds. Is it up, of this version, and was it started with this relay's key?"
                    );
                }
                sleep(RETRY).await;
                continue;
            };
            if std::mem::take(&mut is_lost) {
                info!("the API server takes again what this relay says of itself");
            }
            if asked.questions.is_empty() {
                // An API server that is about to end answers at once.
                sleep(Duration::from_millis(REST_MS_MIN)).await;
                continue;
            }
            sleep(Duration::from_millis(rested.since(gate.0.clock.now()))).await;
            let from = gate.0.clock.now();
            for question in asked.questions.into_iter().take(QUESTIONS_AT_ONCE) {
                answers.push(RelayAnswer {
                    id: question.id,
                    told: self.told(&question).await,
                });
            }
            let until = gate.0.clock.now();
            rested = until.plus(rest_ms(until.since(from)));
        }
    }

    async fn health(&self, began: Time) -> RelayHealth {
        let parts = self.watched.readiness().await;
        RelayHealth {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.watched.gate.0.clock.now().since(began) / 1_000,
            ready: parts.ready,
            hub: parts.hub,
            archive: parts.archive,
            issuers: parts.issuers,
            draining: parts.draining,
        }
    }

    async fn told(&self, question: &RelayQuestion) -> Told {
        let Some(pages) = &self.pages else {
            return nothing(&question.ask);
        };
        let looking = look(&self.watched.door, pages, question);
        timeout(LOOK_MAX, looking).await.unwrap_or(Told::Unreadable)
    }
}

/// As if the account had no channel here.
const fn nothing(ask: &Ask) -> Told {
    match ask {
        Ask::Channels { .. } => Told::Channels {
            channels: Vec::new(),
        },
        Ask::Records { .. } => Told::Unknown,
    }
}

/// The hub says what the account may see; what stands there is read where it holds up nobody.
async fn look(door: &Door, pages: &Pages, question: &RelayQuestion) -> Told {
    let which = match question.ask {
        Ask::Channels { after, limit } => Which::Page(after, limit.min(HELD_MAX) as usize),
        Ask::Records { channel, .. } => Which::One(channel),
    };
    let Ok(owned) = door.owned(question.account_id, which).await else {
        return Told::Unreadable; // The relay ends.
    };
    let (ask, pages) = (question.ask, pages.clone());
    let reading = tokio::task::spawn_blocking(move || match (ask, owned.first()) {
        (Ask::Channels { .. }, _) => pages.channels(&owned),
        (Ask::Records { after, limit, .. }, Some(one)) => pages.records(one, Seq(after), limit),
        (Ask::Records { .. }, None) => Ok(Told::Unknown),
    });
    match reading.await {
        Ok(Ok(told)) => told,
        Ok(Err(error)) => {
            warn!(%error, "the archive could not be read for an account that asked");
            Told::Unreadable
        }
        // It panicked and has said so, or the program ends.
        Err(_) => Told::Unreadable,
    }
}

async fn say(
    asker: &Remote,
    secret: &SecretKey,
    now: Time,
    call: &RelayCall,
) -> Option<RelayQuestions> {
    let said = serde_json::to_vec(call).expect("a call is plain values");
    let signed = signature(secret, &format!("POST {PATH}"), now, &said);
    let answer = asker
        .client
        .post(format!("{}{PATH}", asker.base))
        .header("authorization", signed.to_string())
        .header("content-type", "application/json")
        .body(said)
        .timeout(ANSWER_TIMEOUT)
        .send()
        .await
        .ok()?;
    serde_json::from_slice(&body(answer, BYTES_MAX).await?).ok()
}

/// However fast accounts ask, most of the time nothing is read for them. It never rests for so long
/// that they would not be answered in time.
fn rest_ms(took_ms: u64) -> u64 {
    took_ms.saturating_mul(3).clamp(REST_MS_MIN, REST_MS_MAX)
}

const PATH: &str = "/v1/relay-questions";
/// The API server answers after half of what it lets a request take, which is 5 s by default.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);
const RETRY: Duration = Duration::from_secs(1);
const REST_MS_MIN: u64 = 50;
const REST_MS_MAX: u64 = 1_000;
/// Whoever asked waits four seconds.
const LOOK_MAX: Duration = Duration::from_secs(3);
/// Two questions, and room.
const BYTES_MAX: usize = 16_384;

#[cfg(test)]
mod tests;
