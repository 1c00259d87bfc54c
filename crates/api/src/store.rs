//! What the API server remembers, as the verbs it uses: one trait, so that an embedded database
//! and a served one can be exchanged, and one conformance suite that says what each verb means.
//!
//! Each verb is one transaction, durable when it answers.

use std::{fmt, pin::Pin};

use skytale_wire::{
    http::{Revocation, UsageEntry, Used},
    id::{AgentId, Digest, RelayKey, Time},
    month::Month,
    token::{AccountId, KeyId, Scopes},
};

use crate::{plans::Bounds, secret::Hashed};

#[cfg(test)]
mod conformance;
pub(crate) mod moving;
pub(crate) mod postgres;
pub(crate) mod sqlite;

/// What a verb returns: an answer to wait for.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// Durable memory of accounts, keys and usage.
pub(crate) trait Store: fmt::Debug + Send + Sync + 'static {
    /// Opens an account under an address, unless the address is taken. Either way one row is
    /// written, so that the time taken tells nothing.
    fn create_account(&self, account: NewAccount) -> Answer<'_, Created>;

    /// Opens an account together with its first key, or neither.
    fn create_account_with_key(&self, account: NewAccount, key: NewKey) -> Answer<'_, Created>;

    /// The account under an address, and what its password hashes to.
    fn login(&self, email: Email) -> Answer<'_, Option<(AccountId, Hashed)>>;

    /// The account with this id, unless it was deleted.
    fn account(&self, id: AccountId) -> Answer<'_, Option<AccountRow>>;

    /// Gives an account another password, and ends its sessions, if its password is still the one
    /// that was checked. False when it is not, or the account is gone.
    fn change_password(
        &self,
        account: AccountId,
        checked: Hashed,
        new: Hashed,
        now: Time,
    ) -> Answer<'_, bool>;

    /// Deletes an account, if its password is still the one that was checked: its keys are revoked,
    /// its agents forgotten, its address is free again, and its end is on the list of what was
    /// revoked. What it used stays, under its id.
    fn delete_account(&self, account: AccountId, checked: Hashed, now: Time) -> Answer<'_, bool>;

    /// Adds a key to an account, unless that has `live_max` keys that live.
    fn create_key(&self, key: NewKey, live_max: u32) -> Answer<'_, KeyCreated>;

    /// Adds a key in the place of one of the same account that lives, and lets that one end at
    /// `old_ends`, unless it ends earlier anyway. One that ends now is revoked.
    fn rotate_key(&self, old: KeyId, new: NewKey, old_ends: Time) -> Answer<'_, KeyRotated>;

    /// A key, and what it is checked against when it is presented.
    fn key(&self, id: KeyId) -> Answer<'_, Option<KeyCheck>>;

    /// An account's keys in the order they were made, those behind `after`, at most `limit`.
    /// An `after` that is not one of the account's keys finds nothing.
    fn keys(&self, account: AccountId, after: Option<KeyId>, limit: u32)
    -> Answer<'_, Vec<KeyRow>>;

    /// Revokes an account's key and puts it on the list of what was revoked; the first time counts.
    /// False when the account has no such key.
    fn revoke_key(&self, account: AccountId, id: KeyId, now: Time) -> Answer<'_, bool>;

    /// What was revoked, in the order in which it was, with its place: what stands behind `after`, or
    /// without one what is not older than `since`; at most `limit`. Nothing appears later behind a
    /// place that was answered. A place beyond all that are listed counts as none: the list may
    /// have come back from a backup.
    fn revocations(
        &self,
        after: Option<u64>,
        since: Time,
        limit: u32,
    ) -> Answer<'_, Vec<(u64, Revocation)>>;

    /// Counts one token bought with a key, perhaps for an agent, which is remembered; those that
    /// were not seen for [`AGENT_MS_KEPT`] are forgotten then, unless they are shut out. Nothing is
    /// counted when it is refused: this is the moment that decides whether a token may still be
    /// issued, also by what the account has used of the month.
    fn count_exchange(
        &self,
        id: KeyId,
        agent: Option<AgentId>,
        month: Month,
        bounds: Bounds,
        now: Time,
    ) -> Answer<'_, Exchange>;

    /// An account's agents by their ids, those behind `after`, at most `limit`.
    fn agents(
        &self,
        account: AccountId,
        after: Option<AgentId>,
        limit: u32,
    ) -> Answer<'_, Vec<AgentRow>>;

    /// Shuts an agent of an account out, and puts that on the list of what was revoked; the first
    /// time counts. False when no token was ever bought for it.
    fn disable_agent(&self, account: AccountId, agent: AgentId, now: Time) -> Answer<'_, bool>;

    /// Lets it in again. False when no token was ever bought for it.
    fn enable_agent(&self, account: AccountId, agent: AgentId) -> Answer<'_, bool>;

    /// What an account used, the newest month first.
    fn usage(&self, account: AccountId) -> Answer<'_, Vec<(Month, Used)>>;

    /// What an account used in a month with each of its keys, and what no key stands for; at most
    /// `limit` of them.
    fn usage_by_key(
        &self,
        account: AccountId,
        month: Month,
        limit: u32,
    ) -> Answer<'_, Vec<(Option<KeyId>, Used)>>;

    /// Adds what a relay reports, if the number is higher than that of its last report. Entries of
    /// accounts that were never here are left out; there is one for each account, key and month.
    fn take_report(
        &self,
        relay: RelayKey,
        number: u64,
        entries: Vec<UsageEntry>,
        now: Time,
    ) -> Answer<'_, ReportTaken>;

    /// Notes that a request is about to be answered, unless one with its mark was within
    /// [`ONCE_MS_KEPT`]. Of those that come at once, one is the first.
    fn claim(&self, claim: Claim) -> Answer<'_, Claimed>;

    /// Keeps what a request was answered whose mark was claimed.
    fn keep(&self, mark: Mark, kept: Kept) -> Answer<'_, ()>;

    /// Forgets a claim: the request changed nothing and may come again.
    fn release(&self, mark: Mark) -> Answer<'_, ()>;

    /// Answers when the store can be written to.
    fn ready(&self) -> Answer<'_, ()>;
}

/// An account to be opened.
#[derive(Debug)]
pub(crate) struct NewAccount {
    pub(crate) id: AccountId,
    pub(crate) email: Email,
    /// May be empty.
    pub(crate) name: String,
    pub(crate) password: Hashed,
    pub(crate) now: Time,
}

/// A key to be added.
#[derive(Debug)]
pub(crate) struct NewKey {
    pub(crate) id: KeyId,
    pub(crate) account: AccountId,
    pub(crate) name: String,
    pub(crate) hash: Hashed,
    pub(crate) scopes: Scopes,
    pub(crate) expires: Option<Time>,
    pub(crate) now: Time,
}

/// Whether an address was free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Created {
    Yes,
    Taken,
}

/// Whether a key was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyCreated {
    Yes,
    TooMany,
    NoAccount,
}

/// Whether a key was put in another one's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyRotated {
    Yes,
    /// And the old one ended with it.
    YesAndRevoked,
    /// The account has no such key that lives.
    NoKey,
}

/// Whether a token may be issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exchange {
    Counted,
    /// The key is revoked, over, or gone.
    NoKey,
    AgentDisabled,
    /// The account has used up what it may in this month.
    Exhausted,
}

/// Whether a report was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportTaken {
    Now,
    /// Nothing was changed.
    Before,
}

/// An account as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccountRow {
    pub(crate) email: String,
    pub(crate) name: String,
    pub(crate) created: Time,
    /// Sessions that began before count no more.
    pub(crate) sessions_from: Time,
    pub(crate) password: Hashed,
}

/// What decides about a presented key.
#[derive(Debug)]
pub(crate) struct KeyCheck {
    pub(crate) account: AccountId,
    pub(crate) hash: Hashed,
    pub(crate) row: KeyRow,
}

/// A key as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRow {
    pub(crate) id: KeyId,
    pub(crate) name: String,
    pub(crate) scopes: Scopes,
    pub(crate) created: Time,
    pub(crate) last_used: Option<Time>,
    pub(crate) revoked: Option<Time>,
    pub(crate) expires: Option<Time>,
}

impl KeyRow {
    /// Whether it can be used.
    pub(crate) fn lives(&self, now: Time) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|end| now < end)
    }
}

/// An agent as it is listed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AgentRow {
    pub(crate) id: AgentId,
    pub(crate) first: Time,
    pub(crate) last: Time,
    pub(crate) disabled: Option<Time>,
}

/// By what a request is known that must take effect once: a hash of whose it is and of its
/// `Idempotency-Key`.
pub(crate) type Mark = Digest;

/// A request that must take effect once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    pub(crate) mark: Mark,
    /// A hash of what is asked for.
    pub(crate) request: Digest,
    pub(crate) now: Time,
    /// What was claimed before and is not finished will not be finished any more.
    pub(crate) given_up: Time,
}

/// Whether a request is the first with its mark.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claimed {
    First,
    /// The same request was answered so.
    Done(Kept),
    /// The same request is being answered.
    UnderWay,
    /// The same request was cut off: it may have taken effect.
    CutOff,
    /// Another request had this mark.
    OtherRequest,
}

/// An answer that can be given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) status: u16,
    /// `None` when it held a secret.
    pub(crate) body: Option<String>,
}

/// What stands in the way of a claim.
#[derive(Debug)]
struct Earlier {
    request: [u8; 32],
    at: Time,
    status: Option<u16>,
    body: Option<String>,
}

impl Earlier {
    fn seen_by(self, claim: &Claim) -> Claimed {
        let body = self.body;
        match self.status {
            _ if self.request != claim.request.0 => Claimed::OtherRequest,
            Some(status) => Claimed::Done(Kept { status, body }),
            None if self.at < claim.given_up => Claimed::CutOff,
            None => Claimed::UnderWay,
        }
    }
}

/// An e-mail address in the one spelling that is compared and stored.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Email(String);

impl Email {
    /// Takes `local@domain` of printable ASCII, in lower case. Letters that only look like others
    /// are not told apart by people, so there are none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (local, domain) = text.split_once('@')?;
        let fits = text.len() <= EMAIL_BYTES_MAX
            && text.bytes().all(|byte| byte.is_ascii_graphic())
            && !local.is_empty()
            && !domain.is_empty()
            && !domain.contains('@');
        fits.then(|| Self(text.to_ascii_lowercase()))
    }

    /// The address of the account that `skytale up` makes. It has no `@`, so nobody can sign up
    /// with it.
    pub(crate) fn local() -> Self {
        Self(LOCAL_ACCOUNT.to_owned())
    }

    /// Whom somebody says to be who signs in: an address, or the local account.
    pub(crate) fn of_account(text: &str) -> Option<Self> {
        if text == LOCAL_ACCOUNT {
            return Some(Self::local());
        }
        Self::parse(text)
    }

    /// What stands in the place of a deleted account's address. It has no `@` either.
    pub(crate) fn tombstone(account: AccountId) -> Self {
        Self(format!("deleted:{account}"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(…)")
    }
}

/// Why a verb has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Busy, full, or not reachable: later it may work. Nothing was changed, as far as can be
    /// known: a served database may have made a change and been cut off before it said so.
    Unavailable,
    /// What is stored makes no sense.
    Damaged,
}

/// How long an agent is remembered for which no tokens are bought.
const AGENT_MS_KEPT: u64 = 90 * 24 * 3_600_000;
/// How long what was revoked stays on the list: twice as long as a token lives.
const REVOCATIONS_MS_KEPT: u64 = 2 * 3_600_000;
/// How long it is remembered what was asked with an `Idempotency-Key`.
const ONCE_MS_KEPT: u64 = 24 * 3_600_000;
/// What stands where others have an address, for the account that `skytale up` makes.
pub const LOCAL_ACCOUNT: &str = "local";
/// RFC 5321 allows no longer path.
const EMAIL_BYTES_MAX: usize = 254;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_without_case() {
        assert_eq!(
            Email::parse("Alice@Example.ORG"),
            Email::parse("alice@example.org")
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "@",
            "alice",
            "alice@",
            "@example.org",
            "a@b@c",
            "local",
            "a b@c",
            "a\0@b",
            "аlice@example.org",
            "a@b\n",
        ] {
            assert_eq!(Email::parse(text), None, "{text:?}");
        }
        assert_eq!(Email::parse(&format!("{}@b", "a".repeat(253))), None);
    }
}
