//! The API server's part in what the relay reports of usage: it takes each report once, requests
//! and answers get lost, and the relay sends again.

use rand::RngExt as _;
use skytale_relay::{
    archive::{
        Archive as _, Write, Written,
        usage::{Report, Used},
    },
    hub::Input,
};
use skytale_wire::http::UsageReport;

use super::{
    relay::SimRelay,
    world::{Happening, World},
};

/// Who takes reports.
#[derive(Debug, Default)]
pub(super) struct Taker {
    /// Numbers up to here count already.
    last: u64,
    counted: Used,
}

impl Taker {
    fn take(&mut self, report: &Report) {
        if report.number <= self.last {
            return;
        }
        self.last = report.number;
        let read: UsageReport = serde_json::from_slice(&report.body).unwrap();
        for entry in read.entries {
            self.counted.add(&Used {
                messages: entry.messages,
                bytes: entry.bytes,
                delivered: entry.delivered,
                connected_ms: entry.connected_ms,
            });
        }
    }

    /// All that was used, with what the relay still has.
    pub(super) fn settle(&mut self, relay: &mut SimRelay) -> Used {
        loop {
            let close = Write::CloseReport { at_least: 1 };
            let written = relay.archive.write(&[close]).unwrap();
            let [Written::Report(report)] = &written[..] else {
                panic!("{written:?}");
            };
            let Some(report) = report else {
                return self.counted;
            };
            self.take(report);
            let number = report.number;
            relay
                .archive
                .write(&[Write::DropReport { number }])
                .unwrap();
        }
    }
}

impl World {
    /// The relay has a report to send.
    pub(super) fn reports(&mut self, report: Report, run: u64) {
        let pause = self.rng.random_range(1..50);
        self.after(pause, Happening::Report(Box::new(report), run));
    }

    /// A report is on its way. `run` is the life of the relay that has sent it: with that, waiting
    /// for an answer has ended.
    pub(super) fn report_arrives(&mut self, report: &Report, run: u64) {
        let goes_wrong = self.faults.on && self.rng.random_bool(0.3);
        let arrives = !goes_wrong || self.rng.random_bool(0.5);
        if arrives {
            self.taker.take(report);
        }
        if run != self.relay.run || !self.relay.is_up() {
            self.counters
                .count("fault: relay gone before its report was answered");
        } else if goes_wrong {
            let what = if arrives { "answer" } else { "request" };
            self.counters
                .count(format!("fault: {what} of a report lost"));
            self.after(2_000, Happening::Report(Box::new(report.clone()), run));
        } else {
            self.counters.count("usage: reported");
            let number = report.number;
            self.relay_thinks(Input::Reported { number });
        }
    }
}
