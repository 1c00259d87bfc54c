//! Whose tokens count no more, though they have not ended.
//!
//! The hub remembers it as long as such a token could live, because the door may have let one in just
//! before it was told: whatever comes later is held against what is remembered here.

use std::collections::HashMap;

use skytale_wire::{
    http::Revoked,
    id::{AgentId, Time},
    refusal::Refusal,
    token::{KeyId, LEEWAY_MS, LIFETIME_MS_MAX},
};

use super::{Hub, Output};

/// What was shut out, until when it has to be remembered.
#[derive(Debug, Default)]
pub(super) struct Shut(HashMap<Revoked, Time>);

/// Who pays for a connection, as its token said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payer {
    /// The account.
    pub account: String,
    /// The key that the token was bought with.
    pub key: Option<KeyId>,
}

impl Payer {
    /// An account, by whatever key.
    pub fn account(account: impl Into<String>) -> Self {
        Self {
            account: account.into(),
            key: None,
        }
    }
}

impl Shut {
    /// Whether a token of this payer counts no more. `agent` is whom it names, if it names one.
    pub(super) fn covers(&self, payer: &Payer, agent: Option<&AgentId>) -> bool {
        self.0.keys().any(|revoked| concerns(revoked, payer, agent))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn sweep(&mut self, now: Time) {
        self.0.retain(|_, until| *until > now);
    }
}

impl Hub {
    /// Closes what such tokens have let in. Whoever comes back needs another one.
    pub(super) fn revoked(&mut self, revoked: Revoked, now: Time, out: &mut Vec<Output>) {
        let native = self.conns.iter().filter(|(_, connection)| {
            let payer = connection.permit.payer.as_ref();
            payer.is_some_and(|payer| concerns(&revoked, payer, Some(&connection.agent)))
        });
        let native: Vec<_> = native.map(|(conn, _)| *conn).collect();
        for conn in native {
            self.close(conn, Refusal::Revoked, false, out);
        }
        let slim = self.slim_payers();
        let slim = slim.filter(|(_, payer)| concerns(&revoked, payer, None));
        let slim: Vec<_> = slim.map(|(conn, _)| conn).collect();
        for conn in slim {
            self.slim_close(conn, Refusal::Revoked, false, out);
        }
        let until = now.plus(LIFETIME_MS_MAX + 2 * LEEWAY_MS);
        self.shut.0.insert(revoked, until);
    }
}

fn concerns(revoked: &Revoked, payer: &Payer, agent: Option<&AgentId>) -> bool {
    match revoked {
        Revoked::Key(key) => payer.key.as_ref() == Some(key),
        Revoked::Agent {
            account,
            agent: shut,
        } => agent == Some(shut) && account.to_string() == payer.account,
        Revoked::Account(account) => account.to_string() == payer.account,
    }
}
