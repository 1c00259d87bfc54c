//! When keys are replaced without anybody asking for it, how often a joiner asks, and which messages
//! need not wait.

use skytale_wire::id::MessageId;

use crate::{Answer, Command, Draft, stage::Stage};

const ALICE: usize = 0;
const BOB: usize = 1;
const DAY_MS: u64 = 24 * 3_600_000;

/// Bob's program runs for a moment a day. What was drawn when it started was once lost when it
/// ended, so that it never came to anything.
#[test]
fn a_program_that_starts_once_a_day_replaces_its_keys_too() {
    let mut stage = Stage::new(2);
    let channel = stage.open(ALICE);
    stage.adds(ALICE, channel, &[BOB]);
    stage.stops(ALICE);
    assert_eq!(stage.records_by(channel, BOB), 0);
    assert_eq!(stage.view(BOB, channel).members, 2);

    let mut renewed = Vec::new();
    for _ in 0..8 {
        stage.stops(BOB);
        stage.passes(DAY_MS);
        stage.starts(BOB);
        renewed.push(stage.records_by(channel, BOB));
    }

    let longest = renewed.chunk_by(|a, b| a == b).map(<[usize]>::len).max();
    assert!(
        longest <= Some(2),
        "no later than the second day: {renewed:?}"
    );
    assert!(renewed[7] >= 4, "{renewed:?}");
}

#[test]
fn a_renewal_comes_between_half_a_day_and_a_day_and_a_half() {
    let mut stage = Stage::new(1);
    let channel = stage.open(ALICE);

    stage.passes(DAY_MS / 2 - 1);
    assert_eq!(stage.records_by(channel, ALICE), 0);
    stage.passes(DAY_MS + 1);
    let renewed = stage.records_by(channel, ALICE);
    assert!((1..=2).contains(&renewed), "{renewed}");
}

#[test]
fn a_clock_that_ran_ahead_does_not_put_a_renewal_off() {
    let mut stage = Stage::new(1);
    let begin = stage.now;
    stage.now = begin.plus(3_000 * DAY_MS);
    let channel = stage.open(ALICE);
    stage.stops(ALICE);

    stage.now = begin;
    stage.starts(ALICE);
    stage.passes(DAY_MS + DAY_MS / 2);

    assert!(stage.records_by(channel, ALICE) >= 1);
}

#[test]
fn a_commit_for_something_else_renews_as_well() {
    let mut stage = Stage::new(1);
    let channel = stage.open(ALICE);

    for _ in 0..12 {
        stage.passes(DAY_MS / 2 - 1);
        assert_eq!(stage.does(ALICE, Command::Rotate { channel }), Answer::Done);
    }

    assert_eq!(stage.records_by(channel, ALICE), 12, "no renewal besides");
}

#[test]
fn after_a_bulk_add_a_few_newcomers_make_commits_short_again() {
    let mut stage = Stage::new(100);
    let channel = stage.open(ALICE);
    let others: Vec<usize> = (1..100).collect();
    stage.adds(ALICE, channel, &others);
    rotate(&mut stage, channel);
    let bare = stage.newest_body(channel);

    stage.passes(DAY_MS / 48);
    let wave: Vec<usize> = others
        .iter()
        .copied()
        .filter(|other| stage.records_by(channel, *other) > 0)
        .collect();
    rotate(&mut stage, channel);
    let after = stage.newest_body(channel);

    assert!(
        (1..=10).contains(&wave.len()),
        "a few of a hundred: {wave:?}"
    );
    assert!(after * 2 < bare, "{bare} bytes have become {after}");
    let words = stage.minds[ALICE].words(channel);
    assert!(
        others
            .iter()
            .all(|other| stage.minds[*other].words(channel) == words)
    );
}

#[test]
fn who_comes_with_a_few_others_has_no_part_in_a_wave() {
    let mut stage = Stage::new(20);
    let channel = stage.open(ALICE);
    let others: Vec<usize> = (1..20).collect();
    stage.adds(ALICE, channel, &others);

    stage.passes(DAY_MS / 48);

    assert!(
        others
            .iter()
            .all(|other| stage.records_by(channel, *other) == 0)
    );
}

fn rotate(stage: &mut Stage, channel: skytale_wire::id::ChannelId) {
    let rotated = stage.does(ALICE, Command::Rotate { channel });
    assert_eq!(rotated, Answer::Done);
}

/// On a line of four slots a second each asking cost a member some seconds of its line, and the
/// asking went on every few seconds.
#[test]
fn who_waits_for_the_groups_state_asks_less_and_less_often() {
    let mut stage = Stage::new(2);
    let channel = stage.open(ALICE);
    let line = stage.invites(ALICE, channel, 1);
    let log = |stage: &mut Stage| stage.relay.logs.remove(&channel).unwrap();
    let mut kept = log(&mut stage);
    let sealed = kept.sealed.take();
    stage.relay.logs.insert(channel, kept);

    let joining = stage.begins(BOB, Command::Join { line });
    assert_eq!(stage.relay.wants, 1);
    stage.passes(10_000);
    assert!(stage.relay.wants >= 2, "soon at first");
    stage.passes(590_000);
    let wants = stage.relay.wants;
    assert!((8..30).contains(&wants), "{wants} times in ten minutes");

    // Somebody has sealed it at last.
    let mut kept = log(&mut stage);
    kept.sealed = sealed;
    stage.relay.logs.insert(channel, kept);
    stage.passes(64_000);
    assert_eq!(stage.answer(BOB, joining), Some(Answer::Channel(channel)));
}

/// It once was told to the body beside the command, and was lost where another process had the mind
/// or the mind began anew.
#[test]
fn a_message_that_need_not_wait_for_slots_says_so_also_after_a_restart() {
    let mut stage = Stage::new(1);
    let channel = stage.open(ALICE);
    let send = |number: u8, now: bool| Command::Send {
        channel,
        id: MessageId([number; 16]),
        draft: Draft {
            now,
            ..Draft::text("hello")
        },
    };
    let first = |stage: &Stage| stage.relay.published.clone();

    stage.begins(ALICE, send(1, true));
    stage.begins(ALICE, send(2, false));
    assert_eq!(
        first(&stage),
        [(MessageId([1; 16]), true), (MessageId([2; 16]), false)]
    );

    stage.relay.published.clear();
    stage.stops(ALICE);
    stage.starts(ALICE);
    assert_eq!(
        first(&stage),
        [(MessageId([1; 16]), true), (MessageId([2; 16]), false)]
    );
}
