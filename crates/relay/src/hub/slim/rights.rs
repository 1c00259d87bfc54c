//! Who may use which name: what the token says, and whose the organisation is.
//!
//! The first account that uses an organisation owns it from then on. Names count by their hashes,
//! since texts route nothing.

use skytale_slim::{Address, Components};
use skytale_wire::refusal::Refusal;

use super::{
    Conn, Hub, Output, SlimDrop, SlimRight,
    kept::{KeptOrganisation, StoredSlim, organisation_row},
};
use crate::{archive::Write, hub::ledger::Effect};

/// Whose an organisation is.
#[derive(Debug)]
pub(super) struct Owner(pub(super) String);

/// Why somebody may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// The token does not name it, or there is none.
    NotCovered,
    /// Its organisation is another account's.
    OfAnother,
    /// The account has as many organisations as it may.
    Limit,
    /// It cannot be stored whose it is.
    Unstored,
}

impl Denied {
    pub(super) fn refusal(self) -> Refusal {
        match self {
            Self::NotCovered => Refusal::ScopeMissing,
            Self::OfAnother => Refusal::OrganisationTaken,
            Self::Limit => Refusal::LimitReached,
            Self::Unstored => Refusal::Unavailable,
        }
    }

    pub(super) fn drop(self) -> SlimDrop {
        match self {
            Self::NotCovered | Self::OfAnother | Self::Limit => SlimDrop::Denied,
            Self::Unstored => SlimDrop::Unstored,
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::NotCovered => "the token does not cover this name",
            Self::OfAnother => "this organisation belongs to another account",
            Self::Limit => "the account has too many organisations",
            Self::Unstored => "the relay cannot store anything at the moment",
        }
    }
}

impl super::Slim {
    /// Whose a name is; nobody's, as long as only open streams have used its organisation.
    pub(super) fn account_of(&self, name: Address) -> Option<String> {
        let owner = self.owners.get(&name.components.0[0]);
        owner.map(|Owner(account)| account.clone())
    }
}

impl Hub {
    /// Whether a connection may use these names; makes it the owner of organisations that have
    /// none.
    pub(super) fn slim_allow(
        &mut self,
        conn: Conn,
        names: &[Components],
        out: &mut Vec<Output>,
    ) -> Result<(), Denied> {
        let account = match self.slim.links.get(&conn).map(|link| &link.owner) {
            Some(SlimRight::Open) => return Ok(()),
            Some(SlimRight::Account {
                payer, patterns, ..
            }) => {
                let covered = |name: &Components| patterns.iter().any(|it| it.covers(*name));
                if !names.iter().all(covered) {
                    return Err(Denied::NotCovered);
                }
                &payer.account
            }
            None => {
                let permit = self.conns.get(&conn).map(|connection| &connection.permit);
                let account = permit.and_then(|permit| permit.account());
                account.ok_or(Denied::NotCovered)?
            }
        };
        let mut free = Vec::new();
        for Components([organisation, ..]) in names {
            match self.slim.owners.get(organisation) {
                Some(Owner(owner)) if owner == account => {}
                Some(_) => return Err(Denied::OfAnother),
                None if free.contains(organisation) => {}
                None => free.push(*organisation),
            }
        }
        if free.is_empty() {
            return Ok(());
        }
        let account = account.clone();
        let owned = self.slim.owners.values().filter(|it| it.0 == account);
        if owned.count() + free.len() > self.config.slim.organisations_per_account_max {
            return Err(Denied::Limit);
        }
        self.check_writable().map_err(|_| Denied::Unstored)?;
        for organisation in free {
            self.slim_own(conn, organisation, account.clone(), out);
        }
        Ok(())
    }

    fn slim_own(&mut self, conn: Conn, hash: u64, account: String, out: &mut Vec<Output>) {
        let kept = StoredSlim::Organisation(KeptOrganisation {
            hash,
            account: account.clone(),
        });
        let write = Write::Channel {
            channel: organisation_row(hash),
            state: kept.state(),
        };
        let ticket = self.ledger.write(write, Effect::Nothing, None, out);
        // What it was done for is answered behind it.
        self.slim.last_writes.insert(conn, ticket);
        self.slim.owners.insert(hash, Owner(account));
    }
}
