//! What stolen vaults and removed members can read: nothing that they should not, each with a
//! control that proves that the attempt itself works.
//!
//! The thief has a copy of a data directory, the vault's key, and everything that the relay keeps.
//! What he can open is tried with [`skytale_agent::audit`], outside all rules of channels.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::collections::{BTreeSet, HashSet};

use rusqlite::Connection;
use skytale_agent::{
    Answer, Command, audit, inbox,
    view::{ChannelState, Closed},
};
use skytale_tests::sim::{Stage, script::CANARY};
use skytale_wire::{
    Blob,
    id::{ChannelId, Seq},
};

const ALICE: usize = 0;
const BOB: usize = 1;
const CAROL: usize = 2;

#[test]
fn a_later_state_opens_nothing_of_earlier_epochs() {
    let mut stage = Stage::new(2);
    let channel = stage.open_with_everybody();
    let begin = stage.view(BOB, channel).cursor;

    // Bob is away while Alice talks, so that his vault of this moment has read nothing of it.
    stage.goes_away(BOB);
    stage.says(ALICE, channel, 20);
    let before = stage.copy(BOB);
    stage.comes_back(BOB);
    for _ in 0..3 {
        rotate(&mut stage, ALICE, channel);
        stage.says(ALICE, channel, 5);
        stage.says(BOB, channel, 5);
    }
    let end_of_past = stage.view(BOB, channel).cursor;
    rotate(&mut stage, ALICE, channel);
    let (after, alice_after) = (stage.copy(BOB), stage.copy(ALICE));

    let log = stage.log(channel, begin);
    let past: Vec<_> = log
        .iter()
        .filter(|(seq, _)| *seq <= end_of_past)
        .cloned()
        .collect();
    let of_alice = 20 + 3 * 5;
    assert_eq!(
        messages_opened(&before, channel, &past),
        of_alice,
        "the state that was there before opens everything that Alice has said"
    );
    assert_eq!(opened(&after, channel, &past), 0);
    assert_eq!(opened(&alice_after, channel, &past), 0);

    // The copy itself is alive: what comes next it can open.
    stage.goes_away(BOB);
    stage.says(ALICE, channel, 4);
    let next = stage.log(channel, stage.view(BOB, channel).cursor);
    assert_eq!(messages_opened(&after, channel, &next), 4);
}

#[test]
fn what_was_read_cannot_be_opened_again_after_a_restart() {
    let mut stage = Stage::new(2);
    let channel = stage.open_with_everybody();
    let begin = stage.view(BOB, channel).cursor;

    stage.says(ALICE, channel, 10);
    stage.goes_away(BOB);
    stage.says(ALICE, channel, 5);
    stage.restarts(BOB);
    let copy = stage.copy(BOB);

    assert_eq!(
        stage.view(ALICE, channel).epoch,
        stage.view(BOB, channel).epoch,
        "all of it lies in one epoch"
    );
    let log = stage.log(channel, begin);
    let tried = audit::try_open(&copy, channel, &log).unwrap();
    let opened: Vec<bool> = tried.iter().map(|tried| tried.opened).collect();
    let expected: Vec<bool> = (0..15).map(|number| number >= 10).collect();
    assert_eq!(opened, expected, "the unread ones open, the read ones not");
}

#[test]
fn a_cloned_state_is_blind_after_its_owner_rotates() {
    let mut stage = Stage::new(3);
    let channel = stage.open_with_everybody();

    let begin = stage.view(BOB, channel).cursor;
    let clone = stage.copy(BOB);
    stage.says(ALICE, channel, 3);
    // Somebody else's new keys do not help: the clone follows them as Bob does.
    rotate(&mut stage, ALICE, channel);
    stage.says(ALICE, channel, 3);
    let before = stage.view(BOB, channel).cursor;
    rotate(&mut stage, BOB, channel);
    for _ in 0..5 {
        stage.says(ALICE, channel, 5);
        stage.says(BOB, channel, 5);
        stage.says(CAROL, channel, 5);
        rotate(&mut stage, CAROL, channel);
    }

    let log = stage.log(channel, begin);
    let tried = audit::try_open(&clone, channel, &log).unwrap();
    let (read, blind): (Vec<&audit::Tried>, Vec<&audit::Tried>) =
        tried.iter().partition(|tried| tried.seq <= before);
    assert!(
        read.iter().all(|tried| tried.opened),
        "until Bob rotates, the thief reads along: {read:?}"
    );
    assert_eq!(read.iter().filter(|tried| tried.is_message).count(), 6);
    assert_eq!(blind.iter().filter(|tried| tried.opened).count(), 0);
    assert_eq!(blind.iter().filter(|tried| tried.is_message).count(), 75);
}

#[test]
fn a_removed_member_with_the_whole_log_reads_nothing_later() {
    let mut stage = Stage::new(3);
    let channel = stage.open_with_everybody();

    // Carol is away when it happens: her vault has never heard of her removal.
    let begin = stage.view(CAROL, channel).cursor;
    stage.goes_away(CAROL);
    stage.says(ALICE, channel, 1);
    let agents = vec![stage.id(CAROL)];
    let removed = stage.does(ALICE, Command::Remove { channel, agents });
    assert_eq!(removed, Answer::Done);
    let removal = stage.view(ALICE, channel).cursor;
    for _ in 0..10 {
        stage.says(ALICE, channel, 50);
        stage.says(BOB, channel, 50);
        rotate(&mut stage, BOB, channel);
    }
    let vault = stage.copy(CAROL);

    let log = stage.log(channel, begin);
    let tried = audit::try_open(&vault, channel, &log).unwrap();
    let messages = |later: bool| {
        tried
            .iter()
            .filter(move |tried| tried.is_message && (tried.seq > removal) == later)
    };
    assert_eq!(messages(false).count(), 1);
    assert!(
        messages(false).all(|tried| tried.opened),
        "what was sent before the removal opens"
    );
    assert_eq!(messages(true).count(), 1000);
    let later = tried.iter().filter(|tried| tried.seq > removal);
    assert_eq!(later.filter(|tried| tried.opened).count(), 0);

    // An honest relay gives her the record that removes her, and nothing after it.
    stage.comes_back(CAROL);
    let view = stage.view(CAROL, channel);
    assert_eq!(view.state, ChannelState::Closed(Closed::Removed));
    let inbox = inbox::look(stage.vault(CAROL), Some(channel), 0, 2000).unwrap();
    assert_eq!(inbox.len(), 1, "the one message from before");
    assert_eq!(opened(&stage.copy(CAROL), channel, &log), 0);
}

#[test]
fn secrets_of_an_ended_epoch_are_gone_from_the_file() {
    let mut stage = Stage::new(2);
    let channel = stage.open_with_everybody();
    stage.says(ALICE, channel, 3);
    stage.says(BOB, channel, 3);
    stage.checkpoint(BOB);
    let old = secret_pieces(stage.vault(BOB));
    let old: HashSet<Vec<u8>> = found(&stage.bytes(BOB), &old);
    assert!(old.len() > 25, "{} pieces of secrets are found", old.len());

    rotate(&mut stage, ALICE, channel);
    rotate(&mut stage, BOB, channel);

    let kept: HashSet<Vec<u8>> = every_piece(stage.vault(BOB));
    let deleted: HashSet<Vec<u8>> = old.difference(&kept).cloned().collect();
    assert!(deleted.len() > 20, "{} pieces were deleted", deleted.len());
    assert!(
        !found(&stage.bytes(BOB), &deleted).is_empty(),
        "without emptying the write-ahead log they would still be there"
    );
    stage.checkpoint(BOB);
    assert_eq!(found(&stage.bytes(BOB), &deleted).len(), 0);
}

#[test]
fn what_every_reader_has_taken_is_gone_from_the_file() {
    let mut stage = Stage::new(2);
    let channel = stage.open_with_everybody();
    let canary = HashSet::from([CANARY.as_bytes().to_vec()]);

    stage.says(ALICE, channel, 10);
    let view = inbox::look(stage.vault(BOB), Some(channel), 0, 100).unwrap();
    let rows: Vec<i64> = view.iter().map(|message| message.row).collect();
    assert_eq!(rows.len(), 10);
    stage.checkpoint(BOB);
    assert_eq!(found(&stage.bytes(BOB), &canary).len(), 1);
    inbox::acknowledge(stage.vault(BOB), inbox::DEFAULT_READER, &rows).unwrap();
    stage.checkpoint(BOB);
    assert_eq!(found(&stage.bytes(BOB), &canary).len(), 0);

    // The sender's outbox held the same words until the relay had stored them.
    stage.checkpoint(ALICE);
    assert_eq!(found(&stage.bytes(ALICE), &canary).len(), 0);
    stage.goes_away(ALICE);
    let draft = skytale_agent::Draft::text(CANARY);
    let id = skytale_wire::id::MessageId([7; 16]);
    stage.asks(ALICE, Command::Send { channel, id, draft });
    stage.rest();
    assert_eq!(found(&stage.bytes(ALICE), &canary).len(), 1);
}

#[test]
fn who_comes_by_a_last_resort_package_replaces_its_key_at_once() {
    let mut stage = Stage::new(2);

    // Bob's vault has given the relay three packages and a last resort, and cannot bring more.
    stage.goes_away(BOB);
    let mut channels = Vec::new();
    for number in 0..4 {
        channels.push(stage.open_and_add(number, ALICE, &[BOB]));
    }
    let last_resorts = stage.count("key package: last resort");
    assert_eq!(
        (stage.count("key package: single use"), last_resorts),
        (3, 1)
    );
    stage.comes_back(BOB);

    let epochs: Vec<u64> = channels
        .iter()
        .map(|channel| stage.view(BOB, *channel).epoch.0)
        .collect();
    assert_eq!(
        epochs,
        [1, 1, 1, 2],
        "only there has Bob committed by himself"
    );
}

fn rotate(stage: &mut Stage, agent: usize, channel: ChannelId) {
    assert_eq!(stage.does(agent, Command::Rotate { channel }), Answer::Done);
}

fn opened(vault: &Connection, channel: ChannelId, records: &[(Seq, Blob)]) -> usize {
    let tried = audit::try_open(vault, channel, records).unwrap();
    tried.iter().filter(|tried| tried.opened).count()
}

fn messages_opened(vault: &Connection, channel: ChannelId, records: &[(Seq, Blob)]) -> usize {
    let tried = audit::try_open(vault, channel, records).unwrap();
    tried
        .iter()
        .filter(|tried| tried.is_message && tried.opened)
        .count()
}

/// Pieces of the rows that hold a group's secrets: message and epoch secrets, key pairs of the
/// epoch and of our leaves.
fn secret_pieces(vault: &Connection) -> HashSet<Vec<u8>> {
    let mut query = vault
        .prepare("SELECT value FROM mls_entities WHERE kind IN (9, 10, 12, 13, 33)")
        .unwrap();
    let values = query.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    values
        .flat_map(|value| {
            let value = value.unwrap();
            let pieces: Vec<Vec<u8>> = value
                .chunks_exact(PIECE_BYTES)
                .map(<[u8]>::to_vec)
                .collect();
            pieces
        })
        .filter(|piece| is_random(piece))
        .collect()
}

/// Every piece of every row that there is now, wherever it begins.
fn every_piece(vault: &Connection) -> HashSet<Vec<u8>> {
    let mut query = vault.prepare("SELECT value FROM mls_entities").unwrap();
    let values = query.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    values
        .flat_map(|value| {
            let value = value.unwrap();
            let pieces: Vec<Vec<u8>> = value.windows(PIECE_BYTES).map(<[u8]>::to_vec).collect();
            pieces
        })
        .collect()
}

/// Names of fields and empty lists are no secrets.
fn is_random(piece: &[u8]) -> bool {
    let different: BTreeSet<u8> = piece.iter().copied().collect();
    let text = piece
        .iter()
        .filter(|byte| byte.is_ascii_lowercase() || **byte == b'_');
    different.len() > PIECE_BYTES / 2 && text.count() < PIECE_BYTES / 3
}

fn found(bytes: &[u8], pieces: &HashSet<Vec<u8>>) -> HashSet<Vec<u8>> {
    let lengths: BTreeSet<usize> = pieces.iter().map(Vec::len).collect();
    lengths
        .into_iter()
        .flat_map(|length| bytes.windows(length))
        .filter(|window| pieces.contains(*window))
        .map(<[u8]>::to_vec)
        .collect()
}

/// Long enough that no piece occurs twice by chance.
const PIECE_BYTES: usize = 16;
