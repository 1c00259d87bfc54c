//! What every archive must do, run on each of them: the same tests, so that the two cannot drift.

use skytale_wire::{
    Blob,
    envelope::{Envelope, Kind},
    frame::{decode, encode},
    id::{AgentId, ChannelId, Digest, Epoch, MessageId, Seq, Time},
};

use super::{
    Append, Archive, ArchiveError, ArchiveReader, KeyPackagesLeft, SealedGroupInfo, StoredChannel,
    StoredRecord, WelcomeRow, Write, Written,
};

mod usage;

/// Runs all rules, each on a store of its own. `fresh` makes an empty place and gives back how to
/// open it, now and again.
pub(super) fn run<A: Archive, O: Fn() -> Result<A, ArchiveError>>(mut fresh: impl FnMut() -> O) {
    what_was_written_is_read_back_and_survives_reopening(&fresh());
    a_batch_counts_whole_or_not_at_all(&fresh());
    a_head_moves_by_one_only(&fresh());
    reading_stops_at_its_limits(&fresh());
    an_earlier_request_is_found(&fresh());
    a_key_package_is_handed_out_once_and_the_last_resort_again_and_again(&fresh());
    key_packages_beyond_the_limit_or_the_age_are_gone(&fresh());
    pruning_keeps_the_log_hash_and_the_commits(&fresh());
    pruning_leaves_nothing_of_slim_and_an_empty_log_can_go(&fresh());
    a_welcome_waits_until_it_is_dropped(&fresh());
    the_newest_group_info_is_kept_until_its_epoch_ends(&fresh());
    many_appends_to_a_channel_may_share_a_batch_with_everything_else(&fresh());
    sequence_numbers_may_be_large(&fresh());
    usage::charges_add_up_until_they_are_reported(&fresh());
    usage::a_report_stands_until_it_is_dropped(&fresh());
    usage::what_does_not_fit_into_a_report_comes_with_the_next(&fresh());
    usage::a_batch_that_fails_charges_nobody(&fresh());
}

fn what_was_written_is_read_back_and_survives_reopening<A: Archive>(
    open: &impl Fn() -> Result<A, ArchiveError>,
) {
    let mut archive = open().unwrap();
    let first = message(ALPHA, 1, b"one");
    let second = Append {
        state: Some(b"after two".as_slice().into()),
        ..message(ALPHA, 2, b"two")
    };

    archive.write(&[channel(ALPHA), channel(BETA)]).unwrap();
    archive.write(&[Write::Append(first.clone())]).unwrap();
    archive.write(&[Write::Append(second.clone())]).unwrap();

    for reopened in [false, true] {
        if reopened {
            drop(archive);
            archive = open().unwrap();
        }
        let reader = archive.reader();
        assert_eq!(
            sorted(reader.channels().unwrap()),
            [
                StoredChannel {
                    channel: ALPHA,
                    state: b"after two".as_slice().into(),
                    head: Seq(2),
                    hash: second.hash,
                    pruned: Seq(0),
                },
                StoredChannel {
                    channel: BETA,
                    state: b"new".as_slice().into(),
                    head: Seq(0),
                    hash: Digest([0; 32]),
                    pruned: Seq(0),
                },
            ]
        );
        assert_eq!(
            all(&reader, ALPHA),
            [stored(&first), stored(&second)],
            "reopened: {reopened}"
        );
        assert_eq!(all(&reader, BETA), []);
        let hash = |seq| reader.hash_at(&ALPHA, Seq(seq)).unwrap();
        assert_eq!(hash(0), Some(Digest([0; 32])));
        assert_eq!(hash(1), Some(first.hash));
        assert_eq!(hash(2), Some(second.hash));
        assert_eq!(hash(3), None);
    }
}

fn a_batch_counts_whole_or_not_at_all<A: Archive>(open: &impl Fn() -> Result<A, ArchiveError>) {
    let mut archive = open().unwrap();
    archive.write(&[channel(ALPHA)]).unwrap();
    let gap = Write::Append(message(ALPHA, 3, b"three"));

    let refused = archive.write(&[
        channel(BETA),
        Write::Append(message(ALPHA, 1, b"one")),
        put(1, &[b"package"], None),
        gap,
    ]);

    assert!(refused.is_err());
    drop(archive);
    let mut archive = open().unwrap();
    assert_eq!(archive.reader().channels().unwrap().len(), 1);
    assert_eq!(all(&archive.reader(), ALPHA), []);
    assert_eq!(find(&archive.reader(), 1), None);
    assert_eq!(left(&archive.reader()).count, 0);
    archive
        .write(&[Write::Append(message(ALPHA, 1, b"one"))])
        .unwrap();
}

fn a_head_moves_by_one_only<A: Archive>(open: &impl Fn() -> Result<A, ArchiveError>) {
    let mut archive = open().unwrap();
    archive.write(&[channel(ALPHA)]).unwrap();
    let mut append = |seq| archive.write(&[Write::Append(message(ALPHA, seq, b"x"))]);

    assert!(append(2).is_err());
    assert!(append(0).is_err());
    assert!(append(1).is_ok());
    assert!(append(1).is_err());
    assert!(append(2).is_ok());
    let unknown = Write::Append(message(BETA, 1, b"x"));
    assert!(archive.write(&[unknown]).is_err());
}

fn reading_stops_at_its_limits<A: Archive>(open: &impl Fn() -> Result<A, ArchiveError>) {
    let mut archive = open().unwrap();
    let appends: Vec<Append> = (1..=5).map(|seq| message(ALPHA, seq, &[7; 100])).collect();
    let mut batch = vec![channel(ALPHA), channel(BETA)];
    batch.extend(appends.iter().cloned().map(Write::Append));
    archive.write(&batch).unwrap();
    let reader = archive.reader();
    let seqs = |after, count_max, bytes_max| -> Vec<u64> {
        reader
            .records(&ALPHA, Seq(after), count_max, bytes_max)
            .unwrap()
            .iter()
            .map(|record| record.seq.0)
            .collect()
    };
    let size = appends[0].record.len();

    assert_eq!(seqs(0, 100, usize::MAX), [1, 2, 3, 4, 5]);
    assert_eq!(seqs(3, 100, usize::MAX), [4, 5]);
    assert!(seqs(5, 100, usize::MAX).is_empty());
    assert!(seqs(9, 100, usize::MAX).is_empty());
    assert_eq!(seqs(1, 2, usize::MAX), [2, 3]);
    assert_eq!(seqs(0, 100, size * 2), [1, 2]);
    assert_eq!(seqs(0, 100, size * 2 - 1), [1]);
    assert_eq!(seqs(0, 100, 0), [1], "the first always comes");
}

fn an_earlier_request_is_found<A: Archive>(open: &impl Fn() -> Result<A, ArchiveError>) {
    let mut archive = open().unwrap();
    archive
        .write(&[channel(ALPHA), Write::Append(message(ALPHA, 1, b"one"))])
        .unwrap();
    let reader = archive.reader();

    assert_eq!(find(&reader, 1), Some(Seq(1)));
    assert_eq!(find(&reader, 2), None);
    let of = |channel, agent| reader.find(&channel, &agent, &id(1)).unwrap();
    assert_eq!(of(BETA, ALICE), None);
    assert_eq!(of(ALPHA, BOB), None);
}

fn a_key_package_is_handed_out_once_and_the_last_resort_again_and_again<A: Archive>(
    open: &impl Fn() -> Result<A, ArchiveError>,
) {
    let mut archive = open().unwrap();
    assert_eq!(take(&mut archive, 0), None);

    let written = archive
        .write(&[put(1, &[b"one", b"two"], Some(b"last"))])
        .unwrap();

    assert_eq!(written, [Written::KeyPackages(2)]);
    assert_eq!(take(&mut archive, 0), Some(b"one".as_slice().into()));
    drop(archive);
    let mut archive = open().unwrap();
    assert_eq!(
        left(&archive.reader()),
        KeyPackagesLeft {
            count: 1,
            last_resort: true
        }
    );
    // Two takers in one batch: one gets it, the other the last resort.
    let taken = archive.write(&[taking(0), taking(0)]).unwrap();
    assert_eq!(
        taken,
        [
            Written::KeyPackage(Some(b"two".as_slice().into())),
            Written::KeyPackage(Some(b"last".as_slice().into()))
        ]
    );
    assert_eq!(take(&mut archive, 0), Some(b"last".as_slice().into()));
    // And what is put and taken in one batch does not stay.
    let both = archive
        .write(&[put(2, &[b"three"], Some(b"other")), taking(0)])
        .unwrap();
    assert_eq!(
        both,
        [
            Written::KeyPackages(1),
            Written::KeyPackage(Some(b"three".as_slice().into()))
        ]
    );
    assert_eq!(take(&mut archive, 0), Some(b"other".as_slice().into()));
}

fn key_packages_beyond_the_limit_or_the_age_are_gone<A: Archive>(
    open: &impl Fn() -> Result<A, ArchiveError>,
) {
    let mut archive = open().unwrap();
    archive
        .write(&[put(10, &[b"a", b"b"], Some(b"old last"))])
        .unwrap();
    let Write::PutKeyPackages {
        agent, packages, ..
    } = put(20, &[b"c", b"d"], None)
    else {
        unreachable!("put makes nothing else")
    };
    let written = archive
        .write(&[Write::PutKeyPackages {
            agent,
            packages,
            last_resort: None,
            at: Time(20),
            keep_max: 3,
        }])
        .unwrap();
    assert_eq!(written, [Written::KeyPackages(3)], "the oldest went");

    assert_eq!(take(&mut archive, 10), Some(b"b".as_slice().into()));
    archive.write(&[put(30, &[b"e"], None)]).unwrap();
    assert_eq!(take(&mut archive, 30), Some(b"e".as_slice().into()));
    assert_eq!(take(&mut archive, 0), None, "the aged ones are dropped");
    assert_eq!(left(&archive.reader()), KeyPackagesLeft::default());
}

fn pruning_keeps_the_log_hash_and_the_commits<A: Archive>(
    open: &impl Fn() -> Result<A, ArchiveError>,
) {
    let mut archive = open().unwrap();
    let first = message(ALPHA, 1, b"one");
    let commit = record(ALPHA, 2, Kind::Commit, b"commit");
    let third = message(ALPHA, 3, b"three");
    let fourth = message(ALPHA, 4, b"four");
    let prune = |up_to| Write::Prune {
        channel: ALPHA,
        up_to: Seq(up_to),
    };

    // The last append and the pruning share a batch.
    archive
        .write(&[
            channel(ALPHA),
            Write::Append(first.clone()),
            Write::Append(commit.clone()),
        ])
        .unwrap();
    archive
        .write(&[
            Write::Append(third.clone()),
            prune(3),
            Write::Append(fourth.clone()),
        ])
        .unwrap();
    archive.write(&[prune(2)]).unwrap();
    drop(archive);
    let mut archive = open().unwrap();

    let reader = archive.reader();
    let records = all(&reader, ALPHA);
    let read = |at: usize| -> Envelope { decode(&records[at].record, usize::MAX).unwrap() };
    for (at, before) in [(0, &first), (2, &third)] {
        let before: Envelope = decode(&before.record, usize::MAX).unwrap();
        assert_eq!(read(at), before.stub());
        assert_eq!(read(at).content_hash(), before.content_hash());
    }
    assert_eq!(records[1], stored(&commit));
    assert_eq!(records[3], stored(&fourth));
    assert_eq!(reader.hash_at(&ALPHA, Seq(1)).unwrap(), Some(first.hash));
    assert_eq!(find(&reader, 1), Some(Seq(1)), "a repeat is still known");
    assert_eq!(reader.channels().unwrap()[0].pruned, Seq(3), "never back");
    assert_eq!(reader.channels().unwrap()[0].head, Seq(4));

    archive.write(&[prune(99)]).unwrap();
    assert_eq!(archive.reader().channels().unwrap()[0].pruned, Seq(4));
}

fn pruning_leaves_nothing_of_slim_and_an_empty_log_can_go<A: Archive>(
    open: &impl Fn() -> Result<A, ArchiveError>,
) {
    let mut archive = open().unwrap();
    let kinds = [
        Kind::SlimMessageOne,
        Kind::SlimMessageTwo,
        Kind::SlimCommitOne,
        Kind::SlimCommitTwo,
    ];
    let mut batch = vec![channel(ALPHA), channel(BETA)];
    for (seq, kind) in (1..).zip(kinds) {
        batch.push(Write::Append(record(ALPHA, seq, kind, b"slim")));
        batch.push(Write::Append(record(BETA, seq, kind, b"slim")));
    }
    archive.write(&batch).unwrap();
    let prune = Write::Prune {
        channel: ALPHA,
        up_to: Seq(3),
    };
    archive.write(&[prune]).unwrap();
    let reader = archive.reader();
    let left: Vec<Seq> = all(&reader, ALPHA).iter().map(|it| it.seq).collect();
    assert_eq!(left, [Seq(4)]);
    let find = |seq| reader.find(&ALPHA, &ALICE, &id(seq)).unwrap();
    assert_eq!((find(3), find(4)), (None, Some(Seq(4))));
    drop(reader);

    // What comes after it in the same batch begins anew.
    let again = record(ALPHA, 1, Kind::SlimMessageTwo, b"again");
    archive
        .write(&[
            Write::Forget { channel: ALPHA },
            channel(ALPHA),
            Write::Append(again.clone()),
            Write::Forget { channel: BETA },
        ])
        .unwrap();
    drop(archive);
    let archive = open().unwrap();

    let reader = archive.reader();
    assert_eq!(all(&reader, ALPHA), [stored(&again)]);
    let channels = reader.channels().unwrap();
    let alpha = |row: &StoredChannel| (row.channel, row.head, row.pruned);
    let rows: Vec<_> = channels.iter().map(alpha).collect();
    assert_eq!(rows, [(ALPHA, Seq(1), Seq(0))]);
    assert_eq!(reader.find(&BETA, &ALICE, &id(4)).unwrap(), None);
}

fn a_welcome_waits_until_it_is_dropped<A: Archive>(open: &impl Fn() -> Result<A, ArchiveError>) {
    let mut archive = open().unwrap();
    let adding = |channel, seq, agents: &[AgentId]| {
        Write::Append(Append {
            welcomes: agents
                .iter()
                .map(|agent| WelcomeRow {
                    agent: *agent,
                    channel,
                    id: id(seq),
                    frame: vec![u8::try_from(seq).unwrap(); 3].into(),
                })
                .collect(),
            ..record(channel, seq, Kind::Commit, b"commit")
        })
    };
    let drop_of = |channel, seq| Write::DropWelcome {
        agent: BOB,
        channel,
        id: id(seq),
    };
    archive
        .write(&[
            channel(ALPHA),
            channel(BETA),
            // The younger channel id comes first: the order is that of arrival.
            adding(BETA, 1, &[BOB, CAROL]),
        ])
        .unwrap();
    archive
        .write(&[adding(ALPHA, 1, &[CAROL]), adding(ALPHA, 2, &[BOB])])
        .unwrap();
    drop(archive);
    let mut archive = open().unwrap();
    archive.write(&[adding(BETA, 2, &[BOB])]).unwrap();

    let waiting = |archive: &A, max| -> Vec<u8> {
        let frames = archive.reader().welcomes(&BOB, max).unwrap();
        frames.iter().map(|frame| frame[0]).collect()
    };
    assert_eq!(waiting(&archive, 10), [1, 2, 2]);
    assert_eq!(waiting(&archive, 2), [1, 2]);
    assert_eq!(archive.reader().welcomes_waiting(&BOB, 10).unwrap(), 3);
    assert_eq!(archive.reader().welcomes_waiting(&BOB, 2).unwrap(), 2);

    archive
        .write(&[drop_of(BETA, 1), drop_of(BETA, 7), drop_of(BETA, 1)])
        .unwrap();
    assert_eq!(waiting(&archive, 10), [2, 2]);
    archive
        .write(&[adding(BETA, 3, &[BOB]), drop_of(BETA, 3), drop_of(BETA, 2)])
        .unwrap();
    assert_eq!(waiting(&archive, 10), [2]);
    let others = archive.reader().welcomes(&CAROL, 10).unwrap();
    assert_eq!(others.len(), 2, "only Bob's were dropped");
}

fn the_newest_group_info_is_kept_until_its_epoch_ends<A: Archive>(
    open: &impl Fn() -> Result<A, ArchiveError>,
) {
    let mut archive = open().unwrap();
    let sealed = |epoch, text: &'static [u8]| SealedGroupInfo {
        epoch: Epoch(epoch),
        sealed: text.into(),
    };
    let commit = |seq, sealed| {
        Write::Append(Append {
            sealed,
            ends_epoch: true,
            ..record(ALPHA, seq, Kind::Commit, b"commit")
        })
    };
    let afresh = |sealed| Write::GroupInfo {
        channel: ALPHA,
        sealed,
    };

    let mut after = |batch: &[Write]| {
        archive.write(batch).unwrap();
        archive.reader().group_info(&ALPHA).unwrap()
    };
    assert_eq!(after(&[channel(ALPHA)]), None);
    assert_eq!(
        after(&[commit(1, Some(sealed(1, b"one")))]),
        Some(sealed(1, b"one"))
    );
    assert_eq!(
        after(&[Write::Append(message(ALPHA, 2, b"x"))]),
        Some(sealed(1, b"one"))
    );
    assert_eq!(
        after(&[afresh(sealed(1, b"anew"))]),
        Some(sealed(1, b"anew"))
    );
    assert_eq!(after(&[commit(3, None)]), None);
    assert_eq!(
        after(&[commit(4, None), afresh(sealed(3, b"late"))]),
        Some(sealed(3, b"late"))
    );
    assert_eq!(after(&[afresh(sealed(3, b"x")), commit(5, None)]), None);
}

fn many_appends_to_a_channel_may_share_a_batch_with_everything_else<A: Archive>(
    open: &impl Fn() -> Result<A, ArchiveError>,
) {
    let mut archive = open().unwrap();
    let mut batch = vec![channel(ALPHA), channel(BETA)];
    for seq in 1..=100 {
        batch.push(Write::Append(message(ALPHA, seq, b"alpha")));
        batch.push(Write::Append(message(BETA, seq, b"beta")));
        batch.push(put(seq, &[b"package"], None));
    }

    let written = archive.write(&batch).unwrap();

    assert_eq!(written.len(), batch.len(), "one answer for each");
    assert_eq!(written.last(), Some(&Written::KeyPackages(100)));
    drop(archive);
    let reader = open().unwrap().reader();
    for channel in [ALPHA, BETA] {
        assert_eq!(all(&reader, channel).len(), 100);
    }
    assert!(
        reader
            .channels()
            .unwrap()
            .iter()
            .all(|it| it.head == Seq(100))
    );
}

fn sequence_numbers_may_be_large<A: Archive>(open: &impl Fn() -> Result<A, ArchiveError>) {
    let archive = open().unwrap();
    let reader = archive.reader();

    // Such a cursor comes from an agent that makes it up, or from another relay's log.
    let absurd = Seq(u64::MAX);
    let records = reader.records(&ALPHA, absurd, 10, 10).unwrap_or_default();
    assert_eq!(records, []);
    let hash = reader.hash_at(&ALPHA, absurd).unwrap_or_default();
    assert_eq!(hash, None);
}

fn channel(channel: ChannelId) -> Write {
    Write::Channel {
        channel,
        state: b"new".as_slice().into(),
    }
}

fn message(channel: ChannelId, seq: u64, body: &[u8]) -> Append {
    record(channel, seq, Kind::Application, body)
}

fn record(channel: ChannelId, seq: u64, kind: Kind, body: &[u8]) -> Append {
    let envelope = Envelope {
        kind,
        epoch: Epoch(1),
        agent: ALICE,
        id: id(seq),
        body: body.into(),
        change: None,
        pruned: None,
        received: Time(1),
    };
    Append {
        channel,
        seq: Seq(seq),
        record: encode(&envelope).into(),
        hash: Digest::of(&[&channel.0, &seq.to_be_bytes()]),
        agent: ALICE,
        id: id(seq),
        state: None,
        welcomes: Vec::new(),
        sealed: None,
        ends_epoch: false,
        charge: None,
    }
}

fn stored(append: &Append) -> StoredRecord {
    StoredRecord {
        seq: append.seq,
        record: append.record.clone(),
    }
}

fn id(number: u64) -> MessageId {
    MessageId(u128::from(number).to_be_bytes())
}

fn put(at: u64, packages: &[&[u8]], last_resort: Option<&[u8]>) -> Write {
    Write::PutKeyPackages {
        agent: BOB,
        packages: packages.iter().map(|bytes| Blob::from(*bytes)).collect(),
        last_resort: last_resort.map(Blob::from),
        at: Time(at),
        keep_max: 200,
    }
}

fn taking(not_before: u64) -> Write {
    Write::TakeKeyPackage {
        agent: BOB,
        not_before: Time(not_before),
    }
}

fn take(archive: &mut impl Archive, not_before: u64) -> Option<Blob> {
    let written = archive.write(&[taking(not_before)]).unwrap();
    let [Written::KeyPackage(package)] = &written[..] else {
        panic!("{written:?}")
    };
    package.clone()
}

fn left(reader: &impl ArchiveReader) -> KeyPackagesLeft {
    reader.key_packages(&BOB).unwrap()
}

fn find(reader: &impl ArchiveReader, number: u64) -> Option<Seq> {
    reader.find(&ALPHA, &ALICE, &id(number)).unwrap()
}

fn all(reader: &impl ArchiveReader, channel: ChannelId) -> Vec<StoredRecord> {
    reader
        .records(&channel, Seq(0), usize::MAX, usize::MAX)
        .unwrap()
}

fn sorted(mut channels: Vec<StoredChannel>) -> Vec<StoredChannel> {
    channels.sort_by_key(|channel| channel.channel);
    channels
}

const ALPHA: ChannelId = ChannelId([1; 32]);
const BETA: ChannelId = ChannelId([2; 32]);
const ALICE: AgentId = AgentId([11; 32]);
const BOB: AgentId = AgentId([12; 32]);
const CAROL: AgentId = AgentId([13; 32]);
