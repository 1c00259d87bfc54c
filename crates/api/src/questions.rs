//! What accounts want to know of relays, and how relays come for it.
//!
//! Nobody calls a relay. Each keeps a request open here, in which it says how it is; it is answered as
//! soon as an account asks something, and the next one brings what the relay says to that. All of it
//! is in memory: a question lives for some seconds, and what a relay said of itself it says again.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use axum::{Json, extract::State};
use skytale_wire::{
    http::{
        Ask, QUESTIONS_AT_ONCE, RelayAnswer, RelayCall, RelayHealth, RelayQuestion, RelayQuestions,
        Told,
    },
    id::{RelayKey, Time},
    token::AccountId,
};
use tokio::{
    sync::{Notify, futures::Notified, oneshot},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    problem::Refusal,
    relays::{Relay, Signed},
    router::App,
    secret::random,
};

/// What is asked of each relay at the moment, and what each last said of itself.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    desks: Mutex<HashMap<RelayKey, Desk>>,
    /// Rings when something is asked, and when the server is about to end.
    asked: Notify,
}

/// One relay's.
#[derive(Debug)]
struct Desk {
    heard: Heard,
    open: VecDeque<Open>,
}

/// A question that somebody waits for, as long as somebody does.
#[derive(Debug)]
struct Open {
    question: RelayQuestion,
    answer: oneshot::Sender<Told>,
}

/// What a relay said of itself, and when.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) at: Time,
    pub(crate) health: RelayHealth,
}

/// Why a relay says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// It was not heard of late, or not in time.
    Silent,
    /// The account waits for as many answers as it may.
    TooMany,
    /// All accounts together do.
    Full,
}

impl Heard {
    /// Whether the relay may still be there.
    pub(crate) fn counts(&self, now: Time) -> bool {
        now.since(self.at) <= HEARD_MS_MAX
    }
}

impl Questions {
    /// What this relay last said of itself.
    pub(crate) fn heard(&self, relay: &RelayKey) -> Option<Heard> {
        self.desks().get(relay).map(|desk| desk.heard.clone())
    }

    /// Asks a relay in the name of an account, and waits for what it says, not for long. Dropped, it is
    /// asked no more.
    pub(crate) async fn ask(
        &self,
        relay: RelayKey,
        account: AccountId,
        ask: Ask,
        now: Time,
        wait: Duration,
    ) -> Result<Told, NoAnswer> {
        let told = self.put(relay, account, ask, now)?;
        self.ring();
        match timeout(wait, told).await {
            Ok(Ok(told)) => Ok(told),
            Ok(Err(_)) | Err(_) => Err(NoAnswer::Silent),
        }
    }

    /// Lets every relay look for questions, and go on its way if the server ends.
    pub(crate) fn ring(&self) {
        self.asked.notify_waiters();
    }

    fn put(
        &self,
        relay: RelayKey,
        account: AccountId,
        ask: Ask,
        now: Time,
    ) -> Result<oneshot::Receiver<Told>, NoAnswer> {
        let mut desks = self.desks();
        let desk = desks.get_mut(&relay).ok_or(NoAnswer::Silent)?;
        if !desk.heard.counts(now) {
            return Err(NoAnswer::Silent);
        }
        desk.forget_the_abandoned();
        if desk.open.len() >= OPEN_MAX {
            return Err(NoAnswer::Full);
        }
        let open = desk.open.iter();
        if open
            .filter(|one| one.question.account_id == account)
            .count()
            >= OPEN_OF_ACCOUNT_MAX
        {
            return Err(NoAnswer::TooMany);
        }
        let (answer, told) = oneshot::channel();
        let question = RelayQuestion {
            // What a relay says to a question of before a restart must fit none of now.
            id: u64::from_le_bytes(*random()) >> 11,
            account_id: account,
            ask,
        };
        desk.open.push_back(Open { question, answer });
        Ok(told)
    }

    /// A relay has come, with what it says of itself and to what it was asked.
    fn come(&self, relay: RelayKey, call: RelayCall, now: Time) {
        let heard = Heard {
            at: now,
            health: call.health,
        };
        let mut desks = self.desks();
        let desk = desks.entry(relay).or_insert_with(|| Desk {
            heard: heard.clone(),
            open: VecDeque::new(),
        });
        desk.heard = heard;
        for RelayAnswer { id, told } in call.answers {
            let at = desk.open.iter().position(|open| open.question.id == id);
            // Who does not wait any more is told nothing.
            if let Some(open) = at.and_then(|at| desk.open.remove(at)) {
                let _ = open.answer.send(told);
            }
        }
    }

    /// What this relay is asked, the oldest first.
    fn asked(&self, relay: &RelayKey) -> Vec<RelayQuestion> {
        let mut desks = self.desks();
        let Some(desk) = desks.get_mut(relay) else {
            return Vec::new();
        };
        desk.forget_the_abandoned();
        let open = desk.open.iter().take(QUESTIONS_AT_ONCE);
        open.map(|open| open.question.clone()).collect()
    }

    /// Rings for whoever began to wait before something was asked.
    fn rung(&self) -> Notified<'_> {
        self.asked.notified()
    }

    fn desks(&self) -> MutexGuard<'_, HashMap<RelayKey, Desk>> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    fn forget_the_abandoned(&mut self) {
        self.open.retain(|open| !open.answer.is_closed());
    }
}

/// `POST /v1/relay-questions`: as `GET /v1/revocations`, the other way round.
#[utoipa::path(
    post,
    path = "/v1/relay-questions",
    operation_id = "take_questions",
    tag = "Relays",
    summary = "Say how the relay is, answer, and wait for questions",
    description = "Answers as soon as an account wants to know something of this relay, or empty after five seconds.",
    request_body = RelayCall,
    security(("relay" = [])),
    responses((status = 200, description = "What the relay is asked", body = RelayQuestions)),
)]
pub(crate) async fn take(
    State(app): State<App>,
    Signed(Relay(relay), call): Signed<RelayCall>,
) -> Result<Json<RelayQuestions>, Refusal> {
    let wait = Duration::from_millis(app.config.request_ms_max / 2).min(WAIT_MAX);
    let until = Instant::now() + wait;
    if !is_sound(&call) {
        return Err(OUT_OF_BOUNDS);
    }
    app.questions.come(relay, call, app.clock.now());
    loop {
        // Before the look: what comes in between rings too.
        let rung = app.questions.rung();
        let questions = app.questions.asked(&relay);
        let over = Instant::now() >= until || app.draining.load(Ordering::Relaxed);
        if over || !questions.is_empty() {
            return Ok(Json(RelayQuestions { questions }));
        }
        tokio::select! {
            () = rung => {}
            () = sleep_until(until) => {}
        }
    }
}

/// Accounts are shown what it says, so it is a word and no more.
fn is_sound(call: &RelayCall) -> bool {
    let version = call.health.version.as_bytes();
    let is_word = version.iter().all(u8::is_ascii_graphic);
    is_word
        && (1..=VERSION_BYTES_MAX).contains(&version.len())
        && call.answers.len() <= QUESTIONS_AT_ONCE
}

const OUT_OF_BOUNDS: Refusal =
    Refusal::bad_body("a relay gives two answers at most, and a version of up to 40 characters");
const VERSION_BYTES_MAX: usize = 40;
/// As for revocations.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// A relay comes again at once when it was answered, so one that was not heard for so long is gone.
const HEARD_MS_MAX: u64 = 12_000;
/// Questions that wait at one relay; whoever asks more is told to come back.
const OPEN_MAX: usize = 64;
/// The same of one account, so that none keeps others from asking.
const OPEN_OF_ACCOUNT_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use skytale_wire::id::ChannelId;

    use super::*;

    const RELAY: RelayKey = RelayKey([1; 32]);
    const ALICE: AccountId = AccountId([1; 16]);
    const NOW: Time = Time(1_790_000_000_000);
    const ASK: Ask = Ask::Records {
        channel: ChannelId([7; 32]),
        after: 0,
        limit: 10,
    };

    fn call(answers: Vec<RelayAnswer>) -> RelayCall {
        RelayCall {
            health: RelayHealth {
                version: "1.0".to_owned(),
                uptime_s: 1,
                ready: true,
                hub: true,
                archive: true,
                issuers: true,
                draining: false,
            },
            answers,
        }
    }

    fn with_relay() -> Questions {
        let questions = Questions::default();
        questions.come(RELAY, call(Vec::new()), NOW);
        questions
    }

    #[test]
    fn a_question_is_asked_until_it_is_answered_or_nobody_waits() {
        let questions = with_relay();
        let mut told = questions.put(RELAY, ALICE, ASK, NOW).unwrap();
        let dropped = questions.put(RELAY, ALICE, ASK, NOW).unwrap();

        let asked = questions.asked(&RELAY);
        assert_eq!(asked.len(), 2);
        assert_eq!(questions.asked(&RELAY), asked, "the answer may be lost");
        drop(dropped);
        assert_eq!(questions.asked(&RELAY), asked[..1]);

        let answer = |id| RelayAnswer {
            id,
            told: Told::Unknown,
        };
        questions.come(RelayKey([2; 32]), call(vec![answer(asked[0].id)]), NOW);
        assert!(told.try_recv().is_err(), "another relay was not asked");
        let both = vec![answer(asked[0].id), answer(asked[1].id)];
        questions.come(RELAY, call(both), NOW);
        assert_eq!(told.try_recv(), Ok(Told::Unknown));
        assert_eq!(questions.asked(&RELAY), []);
    }

    #[test]
    fn a_relay_that_was_not_heard_of_late_is_not_asked() {
        let questions = with_relay();
        let put = |relay, now| questions.put(relay, ALICE, ASK, now).map(|_| ());

        assert_eq!(put(RelayKey([2; 32]), NOW), Err(NoAnswer::Silent));
        assert_eq!(put(RELAY, NOW.plus(12_000)), Ok(()));
        assert_eq!(put(RELAY, NOW.plus(12_001)), Err(NoAnswer::Silent));
        questions.come(RELAY, call(Vec::new()), NOW.plus(12_001));
        assert_eq!(put(RELAY, NOW.plus(12_001)), Ok(()));
    }

    #[test]
    fn no_account_keeps_others_from_asking() {
        let questions = with_relay();
        let mut waiting = Vec::new();
        for n in 0..16 {
            let account = AccountId([n; 16]);
            for _ in 0..4 {
                waiting.push(questions.put(RELAY, account, ASK, NOW).unwrap());
            }
            if n < 15 {
                let fifth = questions.put(RELAY, account, ASK, NOW);
                assert_eq!(fifth.unwrap_err(), NoAnswer::TooMany);
            }
        }
        let bob = AccountId([99; 16]);

        let refused = questions.put(RELAY, bob, ASK, NOW);

        assert_eq!(refused.unwrap_err(), NoAnswer::Full);
        waiting.truncate(60);
        assert!(questions.put(RELAY, bob, ASK, NOW).is_ok());
    }

    #[test]
    fn what_is_no_word_is_not_taken_for_a_version() {
        let with = |version: &str| {
            let mut said = call(Vec::new());
            version.clone_into(&mut said.health.version);
            is_sound(&said)
        };
        assert!(with("1.0.0-beta+5"));
        for bad in ["", "1 0", "1\n", "ä", "\u{202e}1", &"1".repeat(41)] {
            assert!(!with(bad), "{bad:?}");
        }
    }
}
