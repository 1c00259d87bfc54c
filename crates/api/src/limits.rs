//! How often something may be asked: by address, by e-mail, by API key, by account.
//!
//! | policy           | counts                                                | for each |
//! |------------------|-------------------------------------------------------|----------|
//! | `unproven`       | sign-ups, sign-ins, and what came without a good key  | address  |
//! | `wrong-password` | passwords that were wrong                             | e-mail   |
//! | `key`            | requests with an API key                              | key      |
//! | `account`        | requests with a key or token                          | account  |
//! | `new-keys`       | keys made or rotated                                  | account  |
//! | `idempotent`     | requests with an `Idempotency-Key`                    | account or address |
//!
//! Each is a bucket of tokens (`limits/bucket.rs`). They live in this process only: after a restart
//! all are full, and several servers count apart.
//!
//! Whoever is known pays by key and account and never by address, so that somebody who floods from
//! behind the same router shuts nobody out who has a key that this server has seen of late.

use std::fmt;

use skytale_wire::{
    id::Time,
    token::{AccountId, KeyId},
};

use crate::{address::Address, config::Config, problem::Refusal, store::Email, visitor::Visitor};

mod bucket;

use bucket::{Buckets, TooOften};
pub(crate) use bucket::{Policy, Standing};

/// All limits of a server.
pub(crate) struct Limits {
    unproven: Limit<Address>,
    wrong_passwords: Limit<str>,
    keys: Limit<KeyId>,
    accounts: Limit<AccountId>,
    new_keys: Limit<AccountId>,
    idempotent: Limit<[u8; 32]>,
}

struct Limit<K: ?Sized> {
    buckets: Buckets<K>,
    /// What to do about it.
    advice: &'static str,
}

/// A try with a password, counted as wrong until it was right.
#[derive(Debug)]
#[must_use]
pub(crate) struct Guess<'a> {
    limits: &'a Limits,
    email: &'a str,
    now: Time,
}

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            unproven: Limit::new(
                Policy::new("unproven", config.unproven_per_minute_max, MINUTE_MS),
                "too many requests without a good key came from this address: wait, and check the key or password",
            ),
            wrong_passwords: Limit::new(
                Policy::new(
                    "wrong-password",
                    config.wrong_passwords_per_hour_max,
                    60 * MINUTE_MS,
                ),
                "too many wrong passwords for this e-mail: wait; API keys go on working",
            ),
            keys: Limit::new(
                Policy::new("key", config.key_requests_per_second_max, 1_000),
                "too many requests with this API key: slow down, or spread them over keys",
            ),
            accounts: Limit::new(
                Policy::new("account", config.account_requests_per_second_max, 1_000),
                "too many requests of this account: slow down",
            ),
            new_keys: Limit::new(
                Policy::new("new-keys", config.new_keys_per_minute_max, MINUTE_MS),
                "too many keys made in a short time: use those that there are",
            ),
            idempotent: Limit::new(
                Policy::new("idempotent", IDEMPOTENT_PER_DAY_MAX, 24 * 60 * MINUTE_MS),
                "too many requests with an Idempotency-Key in a day: leave the header out, or wait",
            ),
        }
    }

    /// Counts a request that proves nothing yet.
    pub(crate) fn unproven(&self, visitor: &Visitor, now: Time) -> Result<(), Refusal> {
        self.unproven.take(&visitor.address(), visitor, now)
    }

    /// Takes that back: the request has proved who sends it.
    pub(crate) fn proven(&self, visitor: &Visitor, now: Time) {
        self.unproven.buckets.give_back(&visitor.address(), now);
        visitor.forget(self.unproven.buckets.policy());
    }

    /// Counts a try with a password, for an address that has an account as for one that has none.
    pub(crate) fn guess<'a>(
        &'a self,
        email: &'a Email,
        visitor: &Visitor,
        now: Time,
    ) -> Result<Guess<'a>, Refusal> {
        self.guess_for(email.as_str(), visitor, now)
    }

    /// The same for the e-mail as an account has it.
    pub(crate) fn guess_for<'a>(
        &'a self,
        email: &'a str,
        visitor: &Visitor,
        now: Time,
    ) -> Result<Guess<'a>, Refusal> {
        let limit = &self.wrong_passwords;
        // Not told unless it refuses: how often others were wrong is nobody's business.
        match limit.buckets.take(email, now) {
            Ok(_) => Ok(Guess {
                limits: self,
                email,
                now,
            }),
            Err(too_often) => Err(limit.refuse(too_often, visitor)),
        }
    }

    /// Counts a request with a good key.
    pub(crate) fn key(&self, key: &KeyId, visitor: &Visitor, now: Time) -> Result<(), Refusal> {
        self.keys.take(key, visitor, now)
    }

    /// Counts a request of a known account.
    pub(crate) fn account(
        &self,
        account: AccountId,
        visitor: &Visitor,
        now: Time,
    ) -> Result<(), Refusal> {
        self.accounts.take(&account, visitor, now)
    }

    /// Counts a key that is about to be made.
    pub(crate) fn new_key(
        &self,
        account: AccountId,
        visitor: &Visitor,
        now: Time,
    ) -> Result<(), Refusal> {
        self.new_keys.take(&account, visitor, now)
    }

    /// Counts a request that is to be remembered for a day, by whose it is.
    pub(crate) fn idempotent(
        &self,
        whose: &[u8; 32],
        visitor: &Visitor,
        now: Time,
    ) -> Result<(), Refusal> {
        self.idempotent.take(whose, visitor, now)
    }
}

impl Guess<'_> {
    /// It was right, or was not looked at: it does not count.
    pub(crate) fn was_not_wrong(self) {
        self.limits
            .wrong_passwords
            .buckets
            .give_back(self.email, self.now);
    }
}

impl<K: std::hash::Hash + ?Sized> Limit<K> {
    fn new(policy: Policy, advice: &'static str) -> Self {
        Self {
            buckets: Buckets::new(policy),
            advice,
        }
    }

    /// Takes one, and notes for the answer what is left.
    fn take(&self, whose: &K, visitor: &Visitor, now: Time) -> Result<(), Refusal> {
        match self.buckets.take(whose, now) {
            Ok(standing) => {
                visitor.note(standing);
                Ok(())
            }
            Err(too_often) => Err(self.refuse(too_often, visitor)),
        }
    }

    fn refuse(&self, too_often: TooOften, visitor: &Visitor) -> Refusal {
        visitor.note(too_often.standing);
        Refusal::too_often(self.advice, too_often.wait_ms.div_ceil(1_000))
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").finish_non_exhaustive()
    }
}

const MINUTE_MS: u64 = 60_000;
/// Each of them is a row for a day.
const IDEMPOTENT_PER_DAY_MAX: u32 = 10_000;
