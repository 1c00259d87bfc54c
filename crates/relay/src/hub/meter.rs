//! What is used, by whom, and telling the API server.
//!
//! What depends on being stored is charged in the same write: a record, and who pays for it. Copies
//! that were handed out, time, and messages that nobody stores are counted in memory and written
//! every few seconds; of those a crash loses what was counted since, and doubles nothing.
//!
//! Guests pay nothing: what they do in a channel is its owner's, and for their time nobody pays.
//!
//! ```text
//! Idle ── CloseReport ──▶ Closing ── there is one ──▶ Sending ── taken ──▶ Dropping ──▶ Idle
//!                            └───── there is none ──▶ Idle
//! ```
//! When a write fails, it is Idle again: closing gives back the report that waits, if one does.

use std::collections::HashMap;

use skytale_wire::{
    id::Time,
    month::Month,
    token::{AccountId, KeyId},
};

use super::{Conn, Hub, Output, Payer, Timer, ledger::Effect};
use crate::archive::{
    Write, Written,
    usage::{Charge, Tab, Used},
};

/// Counts what is not yet written, and knows who pays for which line.
#[derive(Debug)]
pub(super) struct Meter {
    on: bool,
    now: Time,
    month: Month,
    /// From then on it is another one.
    month_ends: Time,
    lines: HashMap<Conn, Line>,
    /// What is not of a line that is open, or of another month.
    due: HashMap<Tab, Used>,
    /// The charges of the write that is on its way or has failed, under its number.
    written: Option<(u64, Vec<Charge>)>,
    /// The number of the last of these writes.
    last_number: u64,
    /// Whether they are on their way.
    writing: bool,
    reporting: Reporting,
    /// Whether the archive may have rows that are in no report.
    unreported: bool,
}

/// A connection, from the meter's side.
#[derive(Debug)]
struct Line {
    /// Nobody pays for guests.
    payer: Option<(AccountId, Option<KeyId>)>,
    /// Up to when its time is counted.
    since: Time,
    used: Used,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reporting {
    Idle,
    Closing,
    Sending(u64),
    Dropping,
}

/// Which of the meter's writes it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MeterWrite {
    Charge,
    Close,
    Drop,
}

impl Hub {
    /// Writes what was counted, and begins a report if none is on its way.
    pub(super) fn report_usage(&mut self, now: Time, out: &mut Vec<Output>) {
        if !self.meter.on {
            return;
        }
        self.meter.fold();
        if self.ledger.writable {
            if let Some(write) = self.meter.charge(now) {
                self.meter_write(write, MeterWrite::Charge, out);
            }
            if let Some(write) = self.meter.close(now) {
                self.meter_write(write, MeterWrite::Close, out);
            }
        }
    }

    /// The same, and again after a while.
    pub(super) fn meter_tick(&mut self, now: Time, out: &mut Vec<Output>) {
        self.report_usage(now, out);
        self.timers.insert((now.plus(REPORT_MS), Timer::Usage));
    }

    /// The API server has taken a report.
    pub(super) fn reported(&mut self, number: u64, out: &mut Vec<Output>) {
        if self.meter.reporting != Reporting::Sending(number) {
            return;
        }
        if self.ledger.writable {
            self.meter.reporting = Reporting::Dropping;
            self.meter_write(Write::DropReport { number }, MeterWrite::Drop, out);
        } else {
            // It stays, is sent once more, and counts once all the same.
            self.meter.write_failed();
        }
    }

    /// One of the meter's writes is durable.
    pub(super) fn meter_stored(
        &mut self,
        which: MeterWrite,
        written: Written,
        out: &mut Vec<Output>,
    ) {
        match (which, written) {
            (MeterWrite::Charge, _) => {
                self.meter.written = None;
                self.meter.writing = false;
            }
            (MeterWrite::Close, Written::Report(Some(report))) => {
                self.meter.reporting = Reporting::Sending(report.number);
                self.meter.unreported |= report.is_full;
                out.push(Output::Report(report));
            }
            (MeterWrite::Close | MeterWrite::Drop, _) => {
                self.meter.reporting = Reporting::Idle;
                // What did not fit into the last one follows at once.
                if which == MeterWrite::Drop && self.meter.unreported && self.ledger.writable {
                    let now = self.meter.now;
                    if let Some(write) = self.meter.close(now) {
                        self.meter_write(write, MeterWrite::Close, out);
                    }
                }
            }
        }
    }

    fn meter_write(&mut self, write: Write, which: MeterWrite, out: &mut Vec<Output>) {
        self.ledger.write(write, Effect::Metered(which), None, out);
    }
}

impl Meter {
    pub(super) fn new(on: bool) -> Self {
        Self {
            on,
            now: Time(0),
            month: Month::of(Time(0)),
            month_ends: Time(0),
            lines: HashMap::new(),
            due: HashMap::new(),
            written: None,
            last_number: 0,
            writing: false,
            reporting: Reporting::Idle,
            unreported: true,
        }
    }

    /// Tells the time, before anything is counted in a step.
    pub(super) fn look_at(&mut self, now: Time) {
        if now >= self.month_ends {
            // What was used until midnight is of the month that ends.
            self.now = self.now.max(self.month_ends);
            self.fold();
            self.month = Month::of(now);
            self.month_ends = self.month.next().begins();
            if self.month_ends <= now {
                self.month_ends = Time(u64::MAX); // The last month there is.
            }
        }
        self.now = now;
    }

    /// A connection begins, or somebody else pays for it from now on.
    pub(super) fn pays(&mut self, conn: Conn, payer: Option<&Payer>) {
        if !self.on {
            return;
        }
        self.close_line(conn);
        let line = Line {
            payer: payer.and_then(|payer| {
                let account = payer.account.parse().ok()?;
                Some((account, payer.key.clone()))
            }),
            since: self.now,
            used: Used::default(),
        };
        self.lines.insert(conn, line);
    }

    /// A connection is gone.
    pub(super) fn close_line(&mut self, conn: Conn) {
        if let Some(mut line) = self.lines.remove(&conn) {
            line.pass(self.now);
            if let Some(payer) = line.payer {
                self.owe(payer, &line.used);
            }
        }
    }

    /// Copies are handed to a connection, in a channel of this account.
    pub(super) fn handed(&mut self, conn: Conn, copies: u64, owner: Option<&str>) {
        let Some(line) = self.lines.get_mut(&conn) else {
            return;
        };
        if line.payer.is_some() {
            line.used.delivered += copies;
        } else if let Some(Ok(owner)) = owner.map(str::parse) {
            let used = Used {
                delivered: copies,
                ..Used::default()
            };
            self.owe((owner, None), &used);
        }
    }

    /// A message is taken that no write stands for.
    pub(super) fn taken_unstored(&mut self, conn: Conn, bytes: usize) {
        if let Some(line) = self.lines.get_mut(&conn) {
            line.used.messages += 1;
            line.used.bytes += bytes as u64;
        }
    }

    /// What a record costs, and whom: who sent it, or else whose the channel is. To be written with
    /// the record.
    pub(super) fn cost(
        &mut self,
        conn: Conn,
        owner: Option<&str>,
        messages: u64,
        bytes: usize,
    ) -> Option<Charge> {
        let line = self.lines.get(&conn)?;
        let (account, key) = match &line.payer {
            Some((account, key)) => (*account, key.clone()),
            None => (owner?.parse().ok()?, None),
        };
        self.unreported = true;
        Some(Charge {
            tab: Tab {
                account,
                key,
                month: self.month,
            },
            used: Used {
                messages,
                bytes: bytes as u64,
                ..Used::default()
            },
        })
    }

    /// Writes have failed, perhaps after they were written. They are said again, under the numbers
    /// that they have.
    pub(super) fn write_failed(&mut self) {
        self.writing = false;
        self.unreported = true;
        self.reporting = Reporting::Idle;
    }

    /// Takes down what the open lines have used so far.
    fn fold(&mut self) {
        let now = self.now;
        let mut owed = Vec::new();
        for line in self.lines.values_mut() {
            line.pass(now);
            let used = std::mem::take(&mut line.used);
            if let Some(payer) = &line.payer
                && !used.is_nothing()
            {
                owed.push((payer.clone(), used));
            }
        }
        for (payer, used) in owed {
            self.owe(payer, &used);
        }
    }

    fn owe(&mut self, (account, key): (AccountId, Option<KeyId>), used: &Used) {
        let tab = Tab {
            account,
            key,
            month: self.month,
        };
        self.due.entry(tab).or_default().add(used);
    }

    /// The write of what is owed. One that has failed comes first, as it was: it may have been
    /// written.
    fn charge(&mut self, now: Time) -> Option<Write> {
        if self.writing {
            return None;
        }
        if self.written.is_none() && !self.due.is_empty() {
            let due = std::mem::take(&mut self.due).into_iter();
            let mut charges: Vec<_> = due.map(|(tab, used)| Charge { tab, used }).collect();
            // The map's order differs from run to run.
            charges.sort_unstable_by(|a, b| a.tab.cmp(&b.tab));
            // Behind those of this run, and with the time of those before: an archive that is opened
            // again has seen another one last.
            self.last_number = now.0.max(self.last_number + 1);
            self.written = Some((self.last_number, charges));
        }
        let (number, charges) = self.written.clone()?;
        self.writing = true;
        self.unreported = true;
        Some(Write::Charge { number, charges })
    }

    fn close(&mut self, now: Time) -> Option<Write> {
        if self.reporting != Reporting::Idle || !self.unreported {
            return None;
        }
        self.reporting = Reporting::Closing;
        // Whatever is charged from here on is behind it.
        self.unreported = false;
        Some(Write::CloseReport { at_least: now.0 })
    }
}

impl Line {
    fn pass(&mut self, now: Time) {
        self.used.connected_ms += now.since(self.since);
        self.since = now;
    }
}

/// How often the API server is told: a month's last message is counted so many milliseconds after
/// it was said.
pub(super) const REPORT_MS: u64 = 10_000;
