//! How long the private halves of KeyPackages live, and how the public ones are uploaded.

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use rusqlite::Connection;
use skytale_wire::{
    frame::{KeyPackagesKept, ToAgent, ToRelay},
    id::{MessageId, RelayKey, Time},
};

use crate::{
    Agent, AgentConfig, Answer, Command, Event, Input,
    stage::{Mind, RELAY, Stage, link_up, ready},
    store::MIGRATIONS,
    view::ChannelState,
};

const ALICE: usize = 0;
const BOB: usize = 1;
const DAY_MS: u64 = 24 * 3_600_000;
/// Three to be used once, and the last resort.
const STOCK: u32 = 4;

/// Bob never adds up more than what is fresh and what may still be used: once they stayed for
/// ever, for whoever steals the vault.
#[test]
fn unused_private_halves_go_when_nobody_can_use_them_any_more() {
    let mut stage = Stage::new(2);
    assert_eq!(stage.minds[BOB].key_packages(), STOCK);
    let first = stage.relay.last_resorts[&stage.minds[BOB].id].clone();

    stage.passes(27 * DAY_MS);
    assert_eq!(stage.minds[BOB].key_packages(), STOCK, "still young");
    stage.passes(9 * DAY_MS);
    assert_eq!(
        stage.minds[BOB].key_packages(),
        2 * STOCK,
        "the relay has new ones, and somebody may be about to use an old one"
    );
    stage.passes(3 * DAY_MS);
    assert_eq!(stage.minds[BOB].key_packages(), STOCK);
    let bob = stage.minds[BOB].id;
    assert_ne!(stage.relay.last_resorts[&bob], first, "rotated");

    stage.passes(200 * DAY_MS);
    assert!(stage.minds[BOB].key_packages() <= 2 * STOCK);
    // What a relay drops by age is no loss: the newest ones let Bob in, the last resort too.
    for single in [true, false] {
        let packages = stage.relay.packages.get_mut(&bob).expect("uploaded");
        packages.drain(..packages.len() - usize::from(single));
        let channel = stage.open(ALICE);
        stage.adds(ALICE, channel, &[BOB]);
        assert_eq!(stage.view(BOB, channel).state, ChannelState::Active);
        leave_behind(&mut stage, channel);
    }
}

#[test]
fn a_welcome_that_waited_long_is_opened_before_its_key_package_goes() {
    let mut stage = Stage::new(2);
    stage.stops(BOB);
    stage.passes(20 * DAY_MS);
    let channel = stage.open(ALICE);
    stage.adds(ALICE, channel, &[BOB]);

    stage.passes(60 * DAY_MS);
    stage.starts(BOB);

    assert_eq!(stage.view(BOB, channel).state, ChannelState::Active);
    assert!(
        !stage.minds[BOB]
            .events
            .contains(&Event::OrphanWelcome { channel })
    );
    assert_eq!(stage.minds[BOB].key_packages(), STOCK, "only the new ones");
}

#[test]
fn a_used_key_package_is_forgotten_at_once() {
    let mut stage = Stage::new(2);
    let channel = stage.open(ALICE);

    stage.adds(ALICE, channel, &[BOB]);

    assert_eq!(stage.view(BOB, channel).state, ChannelState::Active);
    let known: u32 = stage.minds[BOB]
        .vault
        .query_row("SELECT count(*) FROM key_packages", [], |row| row.get(0))
        .expect("a vault");
    assert_eq!(known, stage.minds[BOB].key_packages());
}

/// The relay says how many it holds when a connection begins, and never again: who stayed connected
/// for long once ended at the last resort.
#[test]
fn who_stays_connected_brings_new_ones_for_those_that_were_used() {
    let mut stage = Stage::new(2);
    let bob = stage.minds[BOB].id;

    for _ in 0..7 {
        let channel = stage.open(ALICE);
        stage.adds(ALICE, channel, &[BOB]);
        assert_eq!(
            stage.records_by(channel, BOB),
            0,
            "by a last-resort one he rotates"
        );
        leave_behind(&mut stage, channel);
        assert!(!stage.relay.packages[&bob].is_empty());
    }
}

#[test]
fn key_packages_from_before_ages_were_kept_go_too() {
    let mut vault = Connection::open_in_memory().expect("a database");
    for (_, sql) in &MIGRATIONS[..2] {
        vault.execute_batch(sql).expect("an old vault");
    }
    vault
        .pragma_update(None, "user_version", 2)
        .expect("an old vault");
    vault
        .execute(
            "INSERT INTO mls_entities (group_id, space, kind, key, value)
             VALUES (x'', 0, 34, x'01', x'02')",
            [],
        )
        .expect("an old vault");
    Agent::migrate(&mut vault).expect("an old vault");

    let mut stage = Stage::new(1);
    stage.minds.push(Mind::over(vault));
    stage.starts(BOB);
    assert_eq!(stage.minds[BOB].key_packages(), STOCK + 1);
    stage.passes(38 * DAY_MS);

    let old: u32 = stage.minds[BOB]
        .vault
        .query_row(
            "SELECT count(*) FROM mls_entities WHERE space = 0 AND kind = 34 AND key = x'01'",
            [],
            |row| row.get(0),
        )
        .expect("a vault");
    assert_eq!(old, 0);
}

/// Bob has no channel any more, so that the next one is a first one again.
fn leave_behind(stage: &mut Stage, channel: skytale_wire::id::ChannelId) {
    let agents = vec![stage.minds[BOB].id];
    let removed = stage.does(ALICE, Command::Remove { channel, agents });
    assert_eq!(removed, Answer::Done);
}

/// Thirty of them once took ten seconds of a line with four slots a second, and the first request of a
/// new agent waited behind them.
#[test]
fn key_packages_are_uploaded_a_few_at_a_time_and_others_speak_in_between() {
    let mut vault = Connection::open_in_memory().expect("a database");
    Agent::migrate(&mut vault).expect("a new vault");
    let tx = vault.transaction().expect("a vault");
    let config = AgentConfig {
        key_packages: 12,
        ..AgentConfig::default()
    };
    let rng = ChaCha8Rng::seed_from_u64(1);
    let mut alice = Agent::open_with(&tx, "alice", config, rng).expect("a new vault");
    let now = Time(1_800_000_000_000);
    let mut says = |inputs| alice.handle(inputs, now, &tx).expect("a vault").frames;
    let hears = |frame| Input::Frame {
        relay: RELAY,
        frame,
    };
    let upload = |frames: &[(RelayKey, ToRelay)]| {
        let uploads: Vec<_> = frames
            .iter()
            .filter_map(|(_, frame)| {
                if let ToRelay::PutKeyPackages(put) = frame {
                    Some(put)
                } else {
                    None
                }
            })
            .map(|put| (put.id, put.packages.len(), put.last_resort.is_some()))
            .collect();
        assert!(uploads.len() <= 1);
        uploads.first().copied()
    };
    let kept = |id, key_packages| {
        hears(ToAgent::KeyPackagesKept(KeyPackagesKept {
            id,
            key_packages,
        }))
    };

    says(vec![link_up()]);
    let first = says(vec![hears(ready(now, 0, 0, false))]);
    let (id, count, last_resort) = upload(&first).expect("an upload");
    assert_eq!((count, last_resort), (5, true));

    let asked = says(vec![Input::Command {
        id: MessageId([1; 16]),
        command: Command::Open {
            name: "acme/ops/plan".parse().expect("a name"),
            relay: RELAY,
            addresses: Vec::new(),
        },
    }]);
    assert!(matches!(&asked[..], [(_, ToRelay::Create(_))]), "{asked:?}");

    let (id, count, last_resort) = upload(&says(vec![kept(id, 5)])).expect("the next");
    assert_eq!((count, last_resort), (5, false));
    // A relay that keeps fewer than it was given gets no more for that.
    let (id, count, _) = upload(&says(vec![kept(id, 6)])).expect("the rest");
    assert_eq!(count, 2);
    assert_eq!(upload(&says(vec![kept(id, 12)])), None);
}
