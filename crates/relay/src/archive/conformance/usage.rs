//! What every archive must do with charges and reports.

use skytale_wire::{
    http::{USAGE_ENTRIES_MAX, UsageEntry, UsageReport},
    token::AccountId,
};

use super::{ALPHA, Append, Archive, ArchiveError, Write, Written, channel, message};
use crate::archive::usage::{Charge, Report, Tab, Used};

pub(super) fn charges_add_up_until_they_are_reported<A: Archive>(
    open: &impl Fn() -> Result<A, ArchiveError>,
) {
    let mut archive = open().unwrap();
    let paid = |seq| {
        Write::Append(Append {
            charge: Some(charge(1, "aaaaaaaa", 100)),
            ..message(ALPHA, seq, b"x")
        })
    };
    let guests = vec![charge(2, "", 7), charge(1, "aaaaaaaa", 10)];
    let charged = Write::Charge {
        number: 5,
        charges: guests,
    };
    assert_eq!(close(&mut archive, 1), None);

    archive
        .write(&[channel(ALPHA), paid(1), paid(2), charged.clone()])
        .unwrap();
    archive.write(&[paid(3)]).unwrap();
    drop(archive);
    let mut archive = open().unwrap();
    // Written again, because nobody heard that it was written.
    archive.write(&[charged]).unwrap();

    let report = close(&mut archive, 1_000).unwrap();
    assert_eq!((report.number, report.is_full), (1_000, false));
    assert_eq!(
        entries(&report),
        [entry(1, "aaaaaaaa", 4, 310), entry(2, "", 1, 7)]
    );
}

pub(super) fn a_report_stands_until_it_is_dropped<A: Archive>(
    open: &impl Fn() -> Result<A, ArchiveError>,
) {
    let mut archive = open().unwrap();
    let charged = |number| Write::Charge {
        number,
        charges: vec![charge(1, "", number)],
    };
    archive.write(&[charged(1)]).unwrap();
    let first = close(&mut archive, 1_000).unwrap();

    archive.write(&[charged(2)]).unwrap();
    for reopened in [false, true] {
        if reopened {
            drop(archive);
            archive = open().unwrap();
        }
        assert_eq!(close(&mut archive, 2_000).as_ref(), Some(&first));
        let another = Write::DropReport { number: 999 };
        archive.write(&[another]).unwrap();
    }
    let dropped = Write::DropReport { number: 1_000 };
    archive.write(&[dropped.clone(), dropped]).unwrap();
    drop(archive);
    let mut archive = open().unwrap();

    // The clock was set back meanwhile: numbers go on all the same.
    let second = close(&mut archive, 1).unwrap();
    assert_eq!(second.number, 1_001);
    assert_eq!(entries(&second), [entry(1, "", 1, 2)]);
    let number = second.number;
    archive.write(&[Write::DropReport { number }]).unwrap();
    assert_eq!(close(&mut archive, 3_000), None);
}

pub(super) fn what_does_not_fit_into_a_report_comes_with_the_next<A: Archive>(
    open: &impl Fn() -> Result<A, ArchiveError>,
) {
    let mut archive = open().unwrap();
    let keys = 0..=USAGE_ENTRIES_MAX;
    let charges = keys.map(|n| charge(1, &format!("key{n:05}"), 1)).collect();
    let charged = Write::Charge { number: 1, charges };

    let written = archive
        .write(&[charged, Write::CloseReport { at_least: 1 }])
        .unwrap();
    let Written::Report(Some(first)) = &written[1] else {
        panic!("{written:?}");
    };
    archive.write(&[Write::DropReport { number: 1 }]).unwrap();
    let second = close(&mut archive, 2).unwrap();

    assert_eq!(
        (first.is_full, entries(first).len()),
        (true, USAGE_ENTRIES_MAX)
    );
    assert_eq!((second.is_full, entries(&second).len()), (false, 1));
    assert!(first.body.len() < 65_536, "{}", first.body.len());
    assert_eq!(second.body.len(), 4_096, "its length says little");
}

pub(super) fn a_batch_that_fails_charges_nobody<A: Archive>(
    open: &impl Fn() -> Result<A, ArchiveError>,
) {
    let mut archive = open().unwrap();
    let gap = Append {
        charge: Some(charge(1, "", 1)),
        ..message(ALPHA, 2, b"x")
    };
    let charged = Write::Charge {
        number: 1,
        charges: vec![charge(1, "", 1)],
    };

    let failed = archive.write(&[channel(ALPHA), charged.clone(), Write::Append(gap)]);
    assert!(failed.is_err());
    drop(archive);
    let mut archive = open().unwrap();
    assert_eq!(close(&mut archive, 1), None);

    archive.write(&[charged]).unwrap();
    let report = close(&mut archive, 1).unwrap();
    assert_eq!(entries(&report), [entry(1, "", 1, 1)]);
}

fn close(archive: &mut impl Archive, at_least: u64) -> Option<Report> {
    let written = archive.write(&[Write::CloseReport { at_least }]).unwrap();
    let [Written::Report(report)] = &written[..] else {
        panic!("{written:?}");
    };
    report.clone()
}

fn entries(report: &Report) -> Vec<UsageEntry> {
    let read: UsageReport = serde_json::from_slice(&report.body).unwrap();
    assert_eq!(read.number, report.number);
    read.entries
}

fn charge(account: u8, key: &str, bytes: u64) -> Charge {
    Charge {
        tab: Tab {
            account: AccountId([account; 16]),
            key: key.parse().ok(),
            month: "2026-11".parse().unwrap(),
        },
        used: Used {
            messages: 1,
            bytes,
            delivered: 2,
            connected_ms: 3,
        },
    }
}

fn entry(account: u8, key: &str, charges: u64, bytes: u64) -> UsageEntry {
    UsageEntry {
        account_id: AccountId([account; 16]),
        key_id: key.parse().ok(),
        month: "2026-11".parse().unwrap(),
        messages: charges,
        bytes,
        delivered: 2 * charges,
        connected_ms: 3 * charges,
    }
}
