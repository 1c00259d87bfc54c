//! Unmodified SLIM agents of five versions at our port: pairs and groups, with MLS and without, what
//! becomes of them when the relay is restarted, and what the archive has afterwards.
//!
//! They are the published Python packages: the first run needs python3 and a network, see
//! `tests/slim/environment.py`. `SKYTALE_LONG=1` adds the two versions in the middle,
//! `SKYTALE_SLIM_NODE=stock` holds the scenarios of one generation against SLIM's own node.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64;
use serde_json::{Value, json};
use skytale_tests::slim::{Mls, SessionId, StockAgent, hop::Hop, port::Port, probe};

/// By these a text is found in a record.
const BEGIN: &str = "<<";
const END: &str = ">>";

#[test]
fn agents_of_3_3_8_meet_in_pairs_and_groups() {
    meet("3.3.8");
}

#[test]
fn agents_of_2_2_0_meet_in_pairs_and_groups() {
    if is_long() {
        meet("2.2.0");
    }
}

#[test]
fn agents_of_2_0_0_meet_in_pairs_and_groups() {
    meet("2.0.0");
}

#[test]
fn agents_of_1_4_1_meet_in_pairs_and_groups() {
    meet("1.4.1");
}

#[test]
fn agents_of_1_2_0_meet_in_pairs_and_groups() {
    if is_long() {
        meet("1.2.0");
    }
}

/// Alice, Bob and Carol of one version, in all that they can do together.
fn meet(version: &str) {
    let port = Port::open_for(version);
    let names = ["a/team/alice", "a/team/bob", "a/team/carol"];
    let [mut alice, mut bob, mut carol] =
        names.map(|name| StockAgent::start(version, port.url(), name));
    for mls in [Mls::Off, Mls::On] {
        a_pair_talks_both_ways(&mut alice, &mut bob, mls);
        a_group_comes_and_goes(&mut alice, &mut bob, &mut carol, mls);
        if alice.has_states() {
            one_goes_offline_and_comes_back(&mut alice, &mut bob, &mut carol, mls);
        }
    }
}

/// Nothing lost, nothing twice, all in order, while both speak at once.
fn a_pair_talks_both_ways(alice: &mut StockAgent, bob: &mut StockAgent, mls: Mls) {
    let session = alice.open(bob.name(), mls);
    assert_eq!(bob.invited(), session);
    let from_alice = numbered("from alice", 200);
    let from_bob = numbered("from bob", 200);

    alice.begin_publish(session, &from_alice);
    bob.begin_publish(session, &from_bob);

    alice.hears(session, &from_bob);
    bob.hears(session, &from_alice);
    alice.done();
    bob.done();
    alice.order(json!({ "do": "close", "session": session }));
    bob.ended(session);
}

/// Invite, talk, remove, talk, close.
fn a_group_comes_and_goes(
    alice: &mut StockAgent,
    bob: &mut StockAgent,
    carol: &mut StockAgent,
    mls: Mls,
) {
    let session = alice.open_group("a/team/plan", mls, &[bob.name(), carol.name()]);
    assert_eq!([bob.invited(), carol.invited()], [session; 2]);

    alice.publish(session, &["all of us"]);
    bob.hears(session, &["all of us"]);
    carol.hears(session, &["all of us"]);
    carol.publish(session, &["from carol"]);
    alice.hears(session, &["from carol"]);
    bob.hears(session, &["from carol"]);

    alice.order(json!({ "do": "remove", "session": session, "who": carol.name() }));
    carol.ended(session);
    alice.publish(session, &["without carol"]);
    bob.hears(session, &["without carol"]);
    bob.publish(session, &["the two of us"]);
    alice.hears(session, &["the two of us"]);
    carol.has_nothing_of(session);

    alice.order(json!({ "do": "close", "session": session }));
    bob.ended(session);
}

/// Carol closes softly, is missed by the others, and rejoins.
fn one_goes_offline_and_comes_back(
    alice: &mut StockAgent,
    bob: &mut StockAgent,
    carol: &mut StockAgent,
    mls: Mls,
) {
    let session = alice.open_group("a/team/away", mls, &[bob.name(), carol.name()]);
    assert_eq!([bob.invited(), carol.invited()], [session; 2]);
    let with_carol = |there| {
        [
            ("a/team/alice", true),
            ("a/team/bob", true),
            ("a/team/carol", there),
        ]
        .map(|(name, there)| (name.to_owned(), there))
    };

    carol.order(json!({ "do": "soft_close", "session": session }));
    assert_eq!(alice.participants(session), with_carol(false));
    alice.publish(session, &["while she is away"]);
    bob.hears(session, &["while she is away"]);

    carol.order(json!({ "do": "rejoin", "session": session }));
    assert_eq!(alice.participants(session), with_carol(true));
    alice.publish(session, &["she is back"]);
    bob.hears(session, &["she is back"]);
    carol.hears_among_others(session, "she is back");
    alice.order(json!({ "do": "close", "session": session }));
    bob.ended(session);
    carol.ended(session);
}

/// A member that went offline in one epoch comes back in another: it is told so, and joins anew by
/// the moderator's Welcome.
#[test]
fn a_member_that_missed_an_epoch_rejoins() {
    let port = Port::open();
    let mut alice = StockAgent::start("3.3.8", port.url(), "b/team/alice");
    let mut bob = StockAgent::start("3.3.8", port.url(), "b/team/bob");
    let mut carol = StockAgent::start("3.3.8", port.url(), "b/team/carol");
    let session = alice.open_group("b/team/plan", Mls::On, &[bob.name()]);
    assert_eq!(bob.invited(), session);

    bob.order(json!({ "do": "soft_close", "session": session }));
    alice.invite(session, carol.name());
    assert_eq!(carol.invited(), session);
    bob.order(json!({ "do": "rejoin", "session": session }));

    alice.publish(session, &["in a new epoch"]);
    bob.hears_among_others(session, "in a new epoch");
    carol.hears(session, &["in a new epoch"]);
}

#[test]
fn five_members_of_each_generation_meet_on_one_port_at_once() {
    let port = Port::ours();
    let mut groups =
        ["3.3.8", "1.4.1"].map(|version| Group::begin(version, port.url(), Mls::On, "g", 5));
    let texts = numbered("round", 20);

    // Both at once: each group has begun before the other is waited for.
    for group in &mut groups {
        let session = group.session;
        group.members[0].begin_publish(session, &texts);
    }
    for group in &mut groups {
        group.members[0].done();
        for member in &mut group.members[1..] {
            member.hears(group.session, &texts);
        }
    }
    for group in &mut groups {
        let session = group.session;
        let last = group.members.last_mut().unwrap();
        last.publish(session, &["from the last"]);
        for member in &mut group.members[..4] {
            member.hears(session, &["from the last"]);
        }
    }
}

#[test]
fn no_agent_is_lost_by_ten_restarts() {
    let mut port = Port::ours();
    let mut group = Group::begin("3.3.8", port.url(), Mls::On, "r", 3);

    for restart in 0..10 {
        let speaker = restart % 3;
        let texts = numbered(&format!("round {restart}"), 100);
        group.members[speaker].begin_publish(group.session, &texts);
        let listener = (speaker + 1) % 3;
        group.members[listener].hears(group.session, &texts[..1]);

        port.restart();

        // Confirmed by all members, so none is lost, and nothing that was acknowledged is.
        group.members[speaker].done();
        group.members[listener].hears(group.session, &texts[1..]);
        group.members[(speaker + 2) % 3].hears(group.session, &texts);
        port.until_connected(3);
    }
    // Also what only the moderator can do.
    let mut dave = StockAgent::start("3.3.8", port.url(), "r/team/dave");
    group.members[0].invite(group.session, dave.name());
    assert_eq!(dave.invited(), group.session);
    group.members[1].publish(group.session, &["welcome"]);
    dave.hears(group.session, &["welcome"]);
}

#[test]
fn agents_of_the_first_generation_outlive_restarts_too() {
    let mut port = Port::ours();
    let mut group = Group::begin("1.4.1", port.url(), Mls::On, "r", 3);

    for restart in 0..3 {
        let texts = numbered(&format!("round {restart}"), 100);
        group.members[0].begin_publish(group.session, &texts);
        group.members[1].hears(group.session, &texts[..1]);

        port.restart();

        group.members[0].done();
        group.members[1].hears(group.session, &texts[1..]);
        group.members[2].hears(group.session, &texts);
        port.until_connected(3);
    }
}

/// Whatever a member had in its hands was stored before, though the relay died with no warning.
/// Agents that give up then, as SLIM's do, are started anew.
#[test]
fn after_a_crash_the_archive_has_all_that_anybody_heard() {
    let mut port = Port::ours();
    let mut heard = BTreeSet::new();

    for crash in 0..3 {
        let mut group = Group::begin("3.3.8", port.url(), Mls::Off, &format!("c{crash}"), 3);
        let texts = numbered(&format!("crash {crash}"), 300);
        group.members[0].begin_publish(group.session, &texts);
        group.members[1].hears(group.session, &texts[..20]);
        heard.extend(texts[..20].iter().cloned());

        // They are gone before the relay is back: what was on its way when it died may come as an
        // answer to a request for a repeat then, and those are not stored.
        let members = group.members;
        port.crash(|| {
            for member in members {
                let texts = member.kill().into_iter().filter_map(|it| {
                    let text = it.get("got")?.as_str()?;
                    Some(text.to_owned())
                });
                heard.extend(texts);
            }
        });
    }

    let logs = Logs::of(&port.archived());
    assert!(heard.len() >= 60);
    let missing: Vec<_> = heard.difference(&logs.texts).collect();
    assert!(missing.is_empty(), "heard and not stored: {missing:?}");
}

#[test]
fn each_name_has_a_log_with_places_in_order() {
    let port = Port::ours();
    let texts = numbered("said", 30);
    for version in ["3.3.8", "1.4.1"] {
        let mut group = Group::begin(version, port.url(), Mls::Off, "l", 3);
        group.members[0].publish(group.session, &texts);
        for member in &mut group.members[1..] {
            member.hears(group.session, &texts);
        }
    }

    let logs = Logs::of(&port.archived());

    // Of each generation one log has it all, in the order in which it was said.
    let with_all = logs.by_name.values().filter(|log| **log == texts);
    assert_eq!(with_all.count(), 2, "{:?}", logs.by_name);
}

/// What a relay has stored of agents that do not encrypt.
#[derive(Default)]
struct Logs {
    /// The texts in the log of each name.
    by_name: BTreeMap<String, Vec<String>>,
    texts: BTreeSet<String>,
}

impl Logs {
    /// Reads them from records, each of which must be at the place after the one before.
    fn of(records: &[Value]) -> Self {
        let mut logs = Self::default();
        let mut places = BTreeMap::<&str, u64>::new();
        for record in records {
            let name = record["channel"].as_str().unwrap();
            let place = places.entry(name).or_default();
            *place += 1;
            assert_eq!(record["seq"], *place, "{record}");
            let body = BASE64.decode(record["body"].as_str().unwrap().as_bytes());
            let body = String::from_utf8_lossy(&body.unwrap()).into_owned();
            let Some(text) = text_in(&body) else {
                continue;
            };
            let text = format!("{BEGIN}{text}{END}");
            logs.texts.insert(text.clone());
            let log = logs.by_name.entry(name.to_owned()).or_default();
            assert!(!log.contains(&text), "{text} is stored twice");
            log.push(text);
        }
        logs
    }
}

/// What stands between the marks. By chance they stand among the bytes before it too, once in some
/// hundred messages.
fn text_in(body: &str) -> Option<&str> {
    let is_ours = |text: &&str| {
        text.chars()
            .all(|it| it.is_ascii_alphanumeric() || it == ' ')
    };
    let after = body.split(BEGIN).skip(1);
    let texts = after.filter_map(|it| it.trim_start_matches('<').split_once(END));
    texts.map(|(text, _)| text).find(is_ours)
}

/// Bob lacks a message whose sender is gone before he can ask for it: the relay gives it to him again.
#[test]
fn what_was_lost_on_the_way_comes_from_the_archive_when_its_sender_is_gone() {
    for group in [false, true] {
        let port = Port::ours();
        let hop = Hop::start(port.url(), 2);
        let mut alice = StockAgent::start("3.3.8", port.url(), "h/team/alice");
        let mut bob = StockAgent::start("3.3.8", hop.url(), "h/team/bob");
        let session = if group {
            alice.open_group("h/team/plan", Mls::On, &[bob.name()])
        } else {
            alice.open(bob.name(), Mls::On)
        };
        assert_eq!(bob.invited(), session);

        alice.begin_publish(session, &["one", "two", "three"]);
        hop.has_lost_one();
        alice.kill();
        hop.go_on();

        bob.hears(session, &["one", "two", "three"]);
    }
}

#[test]
fn probes_find_a_healthy_port_and_what_it_serves() {
    let port = Port::ours();
    let serving = json!({
        "": "SERVING",
        "dataplane.proto.v1.DataPlaneService": "SERVING",
        "no.such.Service": "NOT_FOUND",
    });

    // Health is looked at now and then, so it is said a moment after the port is open.
    let mut found = probe(port.url());
    for _ in 0..30 {
        if found["health"] == serving {
            break;
        }
        found = probe(port.url());
    }

    assert_eq!(found["health"], serving);
    assert_eq!(found["watched"], "SERVING");
    for version in ["v1", "v1alpha"] {
        let found = &found["reflection"][version];
        assert_eq!(found["methods"], json!(["DataPlaneService/OpenChannel"]));
        let services = found["services"].as_array().unwrap();
        for service in [
            "dataplane.proto.v1.DataPlaneService",
            "grpc.health.v1.Health",
        ] {
            assert!(services.contains(&json!(service)), "{found}");
        }
    }
}

/// A group whose first member moderates it.
struct Group {
    session: SessionId,
    members: Vec<StockAgent>,
}

impl Group {
    /// Of agents of this version, in an organisation of their own.
    fn begin(version: &str, url: &str, mls: Mls, which: &str, size: usize) -> Self {
        let organisation = format!("{which}-{}", version.replace('.', "-"));
        let name = |at: usize| format!("{organisation}/team/member-{at}");
        let mut members: Vec<StockAgent> = (0..size)
            .map(|at| StockAgent::start(version, url, &name(at)))
            .collect();
        let others: Vec<String> = (1..size).map(name).collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        let group = format!("{organisation}/team/plan");
        let session = members[0].open_group(&group, mls, &others);
        for member in &mut members[1..] {
            assert_eq!(member.invited(), session);
        }
        Self { session, members }
    }
}

fn numbered(what: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|at| format!("{BEGIN}{what} {at}{END}"))
        .collect()
}

fn is_long() -> bool {
    std::env::var_os("SKYTALE_LONG").is_some_and(|it| it == "1")
}
