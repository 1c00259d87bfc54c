//! What was used and by whom, until the API server has taken it.
//!
//! Charges add up in one row for each payer and month. A report takes rows out and stands, as the
//! very bytes that are sent, until it is known to have been taken: whatever dies in between, the
//! same report is sent again, and a charge is either in a row or in one report.

use std::collections::BTreeMap;

use bytes::Bytes;
use skytale_wire::{
    http::{USAGE_ENTRIES_MAX, UsageEntry, UsageReport},
    month::Month,
    token::{AccountId, KeyId},
};

use super::ArchiveError;

/// Who pays, and in which month.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tab {
    /// The account.
    pub account: AccountId,
    /// The key that the token was bought with, if there was one.
    pub key: Option<KeyId>,
    /// When it was used.
    pub month: Month,
}

/// How much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Messages taken.
    pub messages: u64,
    /// Sealed bytes taken.
    pub bytes: u64,
    /// Copies handed out.
    pub delivered: u64,
    /// Time of lines.
    pub connected_ms: u64,
}

/// What is added to a tab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Whose.
    pub tab: Tab,
    /// What.
    pub used: Used,
}

/// A report that waits to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which.
    pub number: u64,
    /// An [`UsageReport`] in JSON.
    pub body: Bytes,
    /// Whether there may be more rows than fitted in.
    pub is_full: bool,
}

impl Used {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.messages = self.messages.saturating_add(other.messages);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.delivered = self.delivered.saturating_add(other.delivered);
        self.connected_ms = self.connected_ms.saturating_add(other.connected_ms);
    }

    /// Whether there is nothing to add.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Charges of one batch, so that a row is touched once however many messages the batch has.
#[derive(Debug, Default)]
pub(super) struct Charges(BTreeMap<Tab, Used>);

impl Charges {
    pub(super) fn add(&mut self, charge: &Charge) {
        match self.0.get_mut(&charge.tab) {
            Some(used) => used.add(&charge.used),
            None => drop(self.0.insert(charge.tab.clone(), charge.used)),
        }
    }

    pub(super) fn take(&mut self) -> BTreeMap<Tab, Used> {
        std::mem::take(&mut self.0)
    }
}

/// The report of these rows.
pub(crate) fn report(number: u64, rows: Vec<(Tab, Used)>) -> Report {
    let is_full = rows.len() >= ROWS_MAX;
    let entries = rows.into_iter().map(|(tab, used)| UsageEntry {
        account_id: tab.account,
        key_id: tab.key,
        month: tab.month,
        messages: used.messages,
        bytes: used.bytes,
        delivered: used.delivered,
        connected_ms: used.connected_ms,
    });
    let report = UsageReport {
        number,
        entries: entries.collect(),
    };
    let mut body =
        serde_json::to_vec(&report).expect("its keys are texts and memory does not fail");
    // Else whoever sees how long the request is could count digits, and so what was just said.
    body.resize(body.len().next_multiple_of(BODY_UNIT), b' ');
    Report {
        number,
        body: body.into(),
        is_full,
    }
}

/// The number of the next report: behind all that this archive has given, and behind those of an
/// archive that was lost or is newer than this copy of it, which `wish`, the time, sees to.
pub(crate) fn next_number(last: u64, wish: u64) -> u64 {
    wish.max(last.saturating_add(1))
}

/// A report as it was stored.
pub(super) fn read_report(number: u64, body: Bytes) -> Result<Report, ArchiveError> {
    let damaged = || ArchiveError::Damaged("a report of usage cannot be read".into());
    let report: UsageReport = serde_json::from_slice(&body).map_err(|_| damaged())?;
    if report.number != number {
        return Err(damaged());
    }
    Ok(Report {
        number,
        body,
        is_full: report.entries.len() >= ROWS_MAX,
    })
}

/// A report's body is as long as this or a multiple of it: the end is blank, as JSON allows.
const BODY_UNIT: usize = 4_096;
/// Rows that one report takes out.
pub(crate) const ROWS_MAX: usize = USAGE_ENTRIES_MAX;
