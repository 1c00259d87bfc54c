//! `KeyPackages`: taken in in batches, handed out one by one and each once.

use skytale_wire::{
    frame::{
        KEY_PACKAGE_BYTES_MAX, KEY_PACKAGES_MAX, KeyPackage, KeyPackagesKept, PutKeyPackages,
        TakeKeyPackage, ToAgent,
    },
    id::{AgentId, Time},
    refusal::Refusal,
};

use super::{
    Asking, Hub, Output,
    ledger::{Effect, Reply, nack},
    send,
};
use crate::archive::{Write, Written};

impl Hub {
    pub(super) fn put_key_packages(
        &mut self,
        who: Asking,
        frame: PutKeyPackages,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        if let Err(refusal) = self.check_put(who, &frame, now) {
            return send(who.conn, nack(frame.id, None, refusal), out);
        }
        let write = Write::PutKeyPackages {
            agent: who.agent,
            packages: frame.packages,
            last_resort: frame.last_resort,
            at: now,
            keep_max: self.config.limits.key_packages_max,
        };
        let reply = Reply {
            conn: who.conn,
            id: frame.id,
            channel: None,
            ordered: false,
            frame: None,
        };
        self.ledger
            .write(write, Effect::KeyPackagesPut, Some(reply), out);
    }

    pub(super) fn take_key_package(
        &mut self,
        who: Asking,
        frame: &TakeKeyPackage,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        if let Err(refusal) = self.check_take(who, frame.agent, now) {
            return send(who.conn, nack(frame.id, None, refusal), out);
        }
        let age_max = self.config.limits.key_package_age_ms_max;
        let write = Write::TakeKeyPackage {
            agent: frame.agent,
            not_before: Time(now.0.saturating_sub(age_max)),
        };
        let effect = Effect::KeyPackageTaken { agent: frame.agent };
        let reply = Reply {
            conn: who.conn,
            id: frame.id,
            channel: None,
            ordered: false,
            frame: None,
        };
        self.ledger.write(write, effect, Some(reply), out);
    }

    pub(super) fn key_packages_put(
        &self,
        reply: Option<&Reply>,
        written: &Written,
        out: &mut Vec<Output>,
    ) {
        let count = match written {
            Written::KeyPackages(count) => *count,
            Written::Done | Written::KeyPackage(_) | Written::Report(_) => 0,
        };
        if let Some(&Reply { conn, id, .. }) = reply
            && self.conns.contains_key(&conn)
        {
            let kept = KeyPackagesKept {
                id,
                key_packages: count,
            };
            send(conn, ToAgent::KeyPackagesKept(kept), out);
        }
    }

    pub(super) fn key_package_taken(
        &self,
        reply: Option<&Reply>,
        agent: AgentId,
        written: Written,
        out: &mut Vec<Output>,
    ) {
        let Some(&Reply { conn, id, .. }) = reply else {
            return;
        };
        if !self.conns.contains_key(&conn) {
            return; // Taken for nobody: handing it out again might use it twice.
        }
        let frame = match written {
            Written::KeyPackage(Some(package)) => {
                ToAgent::KeyPackage(KeyPackage { id, agent, package })
            }
            Written::KeyPackage(None)
            | Written::Done
            | Written::KeyPackages(_)
            | Written::Report(_) => nack(id, None, Refusal::KeyPackagesExhausted),
        };
        send(conn, frame, out);
    }

    fn check_put(&mut self, who: Asking, frame: &PutKeyPackages, now: Time) -> Result<(), Refusal> {
        let all = || frame.packages.iter().chain(&frame.last_resort);
        if all().next().is_none() || all().any(|package| package.is_empty()) {
            return Err(Refusal::Malformed);
        }
        if frame.packages.len() > KEY_PACKAGES_MAX {
            return Err(Refusal::KeyPackageLimit);
        }
        if all().any(|package| package.len() > KEY_PACKAGE_BYTES_MAX) {
            return Err(Refusal::TooLarge);
        }
        self.check_writable()?;
        let rate = self.config.limits.uploads;
        let cost = u32::try_from(all().count()).unwrap_or(u32::MAX);
        let granted = self.rates.of(who.agent).uploads.take(rate, cost, now);
        granted.then_some(()).ok_or(Refusal::RateLimited)
    }

    /// Who has neither an account nor somebody to add gets none: packages are few, and each one
    /// taken in vain is lost to those who need it.
    fn check_take(&mut self, who: Asking, target: AgentId, now: Time) -> Result<(), Refusal> {
        let account = self
            .conns
            .get(&who.conn)
            .is_some_and(|connection| connection.permit.payer.is_some());
        if !account && !self.may_invite_somewhere(who) {
            return Err(Refusal::MayNotInvite);
        }
        self.check_writable()?;
        let limits = &self.config.limits;
        if !self
            .rates
            .of(target)
            .claimed
            .holds(limits.claims_of_target, 1, now)
            || !self.rates.of(who.agent).claims.take(limits.claims, 1, now)
        {
            return Err(Refusal::RateLimited);
        }
        let taken = self
            .rates
            .of(target)
            .claimed
            .take(limits.claims_of_target, 1, now);
        debug_assert!(taken, "the bucket was asked before");
        Ok(())
    }

    fn may_invite_somewhere(&self, who: Asking) -> bool {
        let Some(channels) = self.memberships.get(&who.agent) else {
            return false;
        };
        channels.iter().any(|id| {
            let channel = self.channel_of_member(who, id);
            let member = channel.map(|channel| channel.kept.roster.member(&who.agent));
            matches!(member, Ok(Some(member)) if member.may_invite)
        })
    }
}
