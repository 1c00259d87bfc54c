//! Whose tokens count no more, though they have not ended.
//!
//! The hub remembers it as long as such a token could live, because the door may have let one in just
//! before it was told: whatever comes later is held against what is remembered here. A token that was
//! issued afterwards counts: an agent may have been let in again.

use std::collections::HashMap;

use skytale_wire::{
    http::{Revocation, Revoked},
    id::{AgentId, Time},
    refusal::Refusal,
    token::{KeyId, LIFETIME_MS_MAX},
};

use super::{Hub, Output};

/// What was shut out, and when, by the issuer's clock.
#[derive(Debug, Default)]
pub(super) struct Shut(HashMap<Revoked, Time>);

/// Who pays for a connection, as its token said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payer {
    /// The account.
    pub account: String,
    /// The key that the token was bought with.
    pub key: Option<KeyId>,
    /// When the token was issued.
    pub issued: Time,
}

impl Payer {
    /// An account, by whatever key and at any time.
    pub fn account(account: impl Into<String>) -> Self {
        Self {
            account: account.into(),
            key: None,
            issued: Time(0),
        }
    }
}

impl Shut {
    /// Whether a token of this payer counts no more. `agent` is whom it names, if it names one.
    pub(super) fn covers(&self, payer: &Payer, agent: Option<&AgentId>) -> bool {
        self.0
            .iter()
            .any(|(revoked, at)| concerns(revoked, *at, payer, agent))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn sweep(&mut self, now: Time) {
        self.0
            .retain(|_, at| now.since(*at) < LIFETIME_MS_MAX + APART_MS_MAX);
    }
}

impl Hub {
    /// Closes what such tokens have let in. Whoever comes back needs another one.
    pub(super) fn revoked(&mut self, revocation: Revocation, out: &mut Vec<Output>) {
        let Revocation { revoked, at_ms } = revocation;
        let at = Time(at_ms);
        let native = self.conns.iter().filter(|(_, connection)| {
            let payer = connection.permit.payer.as_ref();
            payer.is_some_and(|payer| concerns(&revoked, at, payer, Some(&connection.agent)))
        });
        let native: Vec<_> = native.map(|(conn, _)| *conn).collect();
        for conn in native {
            self.close(conn, Refusal::Revoked, false, out);
        }
        let slim = self.slim_payers();
        let slim = slim.filter(|(_, payer)| concerns(&revoked, at, payer, None));
        let slim: Vec<_> = slim.map(|(conn, _)| conn).collect();
        for conn in slim {
            self.slim_close(conn, Refusal::Revoked, false, out);
        }
        let latest = self.shut.0.entry(revoked).or_insert(at);
        *latest = at.max(*latest);
    }
}

fn concerns(revoked: &Revoked, at: Time, payer: &Payer, agent: Option<&AgentId>) -> bool {
    match revoked {
        Revoked::Key(key) => payer.key.as_ref() == Some(key),
        Revoked::Agent {
            account,
            agent: shut,
        } => payer.issued <= at && agent == Some(shut) && account.to_string() == payer.account,
        Revoked::Account(account) => account.to_string() == payer.account,
    }
}

/// How far an issuer's clock and the relay's may be apart.
const APART_MS_MAX: u64 = 60_000;
