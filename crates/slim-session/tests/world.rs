//! Parties among themselves, over a node that knows nothing of sessions: what each rule of the
//! dialogue means for those who take part. That stock clients agree is tested elsewhere, with
//! stock clients.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "each check looks for one kind of event"
)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing one is a failing test"
)]

use std::{cell::Cell, collections::BTreeSet, rc::Rc};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use skytale_slim::{Generation, MessageType, Name, Routed};
use skytale_slim_session::{
    Ended, Event, Invitations, Misuse, Output, Party, Reliability, Settings, SharedSecret,
};

use self::node::{ALICE, BOB, CAROL, Loss, World, clear, link, message_of};

#[path = "world/altered.rs"]
mod altered;
#[path = "world/cuts.rs"]
mod cuts;
#[path = "world/node.rs"]
mod node;

#[test]
fn two_speak_with_and_without_mls() {
    for settings in [Settings::default(), clear()] {
        let mut world = World::trio();
        let session = world.pair(settings);
        world.publish(ALICE, session, "hello bob").unwrap();
        world.publish(BOB, session, "hello alice").unwrap();
        world.until("both", |world| {
            world.heard(BOB) == ["hello bob"] && world.heard(ALICE) == ["hello alice"]
        });
        assert_eq!(world.joined(CAROL), 0);
    }
}

#[test]
fn a_group_speaks_and_everybody_hears_everybody() {
    for settings in [Settings::default(), clear()] {
        let mut world = World::trio();
        let session = world.group(settings);
        for (who, name) in [(ALICE, "a"), (BOB, "b"), (CAROL, "c")] {
            for round in 0..20 {
                world
                    .publish(who, session, &format!("{name}{round}"))
                    .unwrap();
            }
        }
        world.until("all", |world| {
            (0..3).all(|who| world.heard(who).len() == 40)
        });
        // In the order of each sender.
        for (who, other) in [(ALICE, "b"), (BOB, "c"), (CAROL, "a")] {
            let heard = world.heard(who);
            let heard: Vec<&String> = heard.iter().filter(|it| it.starts_with(other)).collect();
            let said: Vec<String> = (0..20).map(|round| format!("{other}{round}")).collect();
            assert_eq!(heard, said.iter().collect::<Vec<_>>());
        }
        world.until("all told", |world| {
            (0..3).all(|who| {
                let done = world.told[who].iter().filter(
                    |event| matches!(event, Event::Delivered { missing, .. } if missing.is_empty()),
                );
                done.count() == 20
            })
        });
    }
}

/// A node may change any byte of any message: nobody hears what was not said, and no forgery keeps
/// anybody from hearing what was.
#[test]
fn what_a_node_has_changed_is_not_believed() {
    let taken = Rc::new(Cell::new(0));
    for seed in 0..30 {
        let mut world = World::trio();
        let mut chance = ChaCha20Rng::seed_from_u64(seed);
        let counts = Rc::clone(&taken);
        world.forges = Box::new(move |routed| {
            let mut bytes = routed.original().to_vec();
            let at = chance.random_range(0..bytes.len());
            bytes[at] ^= 1 << chance.random_range(0..8);
            let forged = Routed::from_archive(Generation::Two, bytes.into()).ok()?;
            counts.set(counts.get() + 1);
            Some(forged)
        });
        let session = world.group(Settings::default());
        for who in [ALICE, BOB] {
            for round in 0..3 {
                world
                    .publish(who, session, &format!("{who} {round}"))
                    .unwrap();
            }
        }
        let said = |who: usize| (0..3).map(move |round| format!("{who} {round}"));
        let all: BTreeSet<String> = said(ALICE).chain(said(BOB)).collect();

        world.until("all", |world| {
            [(ALICE, 3), (BOB, 3), (CAROL, 6)]
                .into_iter()
                .all(|(who, count)| world.heard(who).len() >= count)
        });

        assert_eq!(world.heard(CAROL).into_iter().collect::<BTreeSet<_>>(), all);
        assert_eq!(world.heard(ALICE), said(BOB).collect::<Vec<_>>(), "{seed}");
        assert_eq!(world.heard(BOB), said(ALICE).collect::<Vec<_>>(), "{seed}");
    }
    assert!(taken.get() > 500, "most can be read: {}", taken.get());
}

#[test]
fn under_mls_a_node_sees_no_word() {
    let mut world = World::trio();
    let session = world.group(Settings::default());
    world
        .publish(ALICE, session, "a word that is secret")
        .unwrap();
    assert!(!world.on_the_way.is_empty());
    for (_, routed) in &world.on_the_way {
        let bytes = routed.original();
        let needle = b"a word that is secret";
        assert!(!bytes.windows(needle.len()).any(|part| part == needle));
    }
}

#[test]
fn who_was_removed_hears_nothing_more() {
    for settings in [Settings::default(), clear()] {
        let mut world = World::trio();
        let session = world.group(settings);
        let carol = Name::parse("org/ns/carol").unwrap();
        world
            .act(ALICE, |party, now, chance, out| {
                party.remove(session, &carol, now, chance, out)
            })
            .unwrap();
        world.until("carol is out", |world| {
            world.ended(CAROL) == Some(Ended::Removed)
        });
        world.publish(ALICE, session, "to the rest").unwrap();
        world.until("bob hears", |world| world.heard(BOB) == ["to the rest"]);
        assert!(world.heard(CAROL).is_empty());
        assert_eq!(
            world.publish(CAROL, session, "still here"),
            Err(Misuse::NoSuchSession)
        );
        // And may come again.
        world.invite(session, CAROL);
        world.until("carol is back", |world| world.joined(CAROL) == 2);
        world.pass(3000);
        world.publish(CAROL, session, "again").unwrap();
        world.until("all hear carol", |world| {
            world.heard(ALICE) == ["again"] && world.heard(BOB).len() == 2
        });
    }
}

#[test]
fn who_leaves_is_out_and_the_rest_goes_on() {
    for settings in [Settings::default(), clear()] {
        let mut world = World::trio();
        let session = world.group(settings);
        world
            .act(BOB, |party, now, chance, out| {
                party.leave(session, now, chance, out)
            })
            .unwrap();
        world.until("bob is out", |world| {
            let carol_knows = world.was_told(CAROL, |event| matches!(event, Event::Removed { .. }));
            world.ended(BOB) == Some(Ended::Left) && carol_knows
        });
        world.publish(CAROL, session, "to alice").unwrap();
        world.until("alice hears", |world| world.heard(ALICE) == ["to alice"]);
        assert!(world.heard(BOB).is_empty());
    }
}

#[test]
fn the_moderator_closes_for_all() {
    let mut world = World::trio();
    let session = world.group(Settings::default());
    world
        .act(ALICE, |party, now, chance, out| {
            party.leave(session, now, chance, out)
        })
        .unwrap();
    world.until("closed", |world| {
        world.ended(ALICE) == Some(Ended::Left)
            && world.ended(BOB) == Some(Ended::Closed)
            && world.ended(CAROL) == Some(Ended::Closed)
    });
    // Nobody is subscribed to the group any more.
    for who in 0..3 {
        assert_eq!(world.table.subscriptions(link(who)).count(), 1);
    }
}

/// The first of each kind is lost, to each receiver: timers and answers said again repair all.
#[test]
fn what_is_lost_once_is_said_again() {
    let lossy = || -> Loss {
        let mut lost = BTreeSet::new();
        Box::new(move |to, routed| lost.insert(format!("{to} {:?}", message_of(routed))))
    };
    let mut world = World::trio();
    world.loses = lossy();
    let session = world.group(Settings::default());
    // Whoever came late does not know with what the others began.
    world.loses = Box::new(|_, _| false);
    world.publish(ALICE, session, "begin").unwrap();
    world.until("begun", |world| {
        world.heard(BOB).len() == 1 && world.heard(CAROL).len() == 1
    });
    world.loses = lossy();
    for round in 0..5 {
        world.publish(ALICE, session, &format!("a{round}")).unwrap();
        world.publish(CAROL, session, &format!("c{round}")).unwrap();
    }
    world.until("all", |world| {
        world.heard(BOB).len() == 11
            && world.heard(CAROL).len() == 6
            && world.heard(ALICE).len() == 5
    });
    let all = |name: &str| {
        (0..5)
            .map(|round| format!("{name}{round}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(world.heard(CAROL)[1..], all("a"));
    assert_eq!(world.heard(ALICE), all("c"));
}

#[test]
fn nobody_answers_nobody_is_in() {
    let mut world = World::new(&["alice"]);
    let bob = Name::parse("org/ns/bob").unwrap();
    world
        .act(ALICE, |party, now, chance, out| {
            party.open(bob, Settings::default(), now, chance, out)
        })
        .unwrap();
    world.until("given up", |world| {
        world.ended(ALICE) == Some(Ended::Unanswered)
    });
    assert!(matches!(world.told[ALICE][0], Event::NotAdded { .. }));
}

/// An invitation that nobody takes does not hold up those behind it.
#[test]
fn one_who_is_not_there_does_not_hold_up_the_others() {
    let mut world = World::new(&["alice", "bob"]);
    let name = Name::parse("org/ns/chan").unwrap();
    let session = world
        .act(ALICE, |party, now, chance, out| {
            party.create(&name, Settings::default(), now, chance, out)
        })
        .unwrap();
    let nobody = Name::parse("org/ns/nobody").unwrap();
    world
        .act(ALICE, |party, now, chance, out| {
            party.invite(session, nobody, now, chance, out)
        })
        .unwrap();
    world.invite(session, BOB);
    world.until("bob is in", |world| world.joined(BOB) == 1);
}

#[test]
fn who_pauses_hears_nothing_and_comes_back_in_the_same_epoch() {
    let mut world = World::trio();
    let session = world.group(Settings::default());
    world
        .act(CAROL, |party, now, chance, out| {
            party.pause(session, now, chance, out)
        })
        .unwrap();
    world.until("away", |world| {
        world.was_told(CAROL, |event| matches!(event, Event::Paused { .. }))
    });
    world.publish(ALICE, session, "while away").unwrap();
    world.until("bob hears", |world| world.heard(BOB) == ["while away"]);
    world
        .act(CAROL, |party, now, chance, out| {
            party.resume(session, now, chance, out)
        })
        .unwrap();
    world.until("back", |world| {
        world.was_told(CAROL, |event| matches!(event, Event::Resumed { .. }))
    });
    world.publish(BOB, session, "welcome back").unwrap();
    world.until("carol hears", |world| {
        world.heard(CAROL) == ["welcome back"]
    });
}

#[test]
fn who_missed_a_commit_while_away_is_taken_in_again() {
    let mut world = World::new(&["alice", "bob", "carol", "dave"]);
    let session = world.group(Settings::default());
    world
        .act(CAROL, |party, now, chance, out| {
            party.pause(session, now, chance, out)
        })
        .unwrap();
    world.pass(2000);
    let dave = Name::parse("org/ns/dave").unwrap();
    world
        .act(ALICE, |party, now, chance, out| {
            party.remove(session, &dave, now, chance, out)
        })
        .unwrap();
    world.until("dave is out", |world| {
        world.ended(3) == Some(Ended::Removed)
    });
    world
        .act(CAROL, |party, now, chance, out| {
            party.resume(session, now, chance, out)
        })
        .unwrap();
    world.until("back", |world| {
        world.was_told(CAROL, |event| matches!(event, Event::Resumed { .. }))
    });
    world.pass(2000);
    world.publish(CAROL, session, "here again").unwrap();
    world.publish(BOB, session, "welcome back").unwrap();
    world.until("all hear", |world| {
        world.heard(CAROL) == ["welcome back"]
            && world.heard(ALICE).len() == 2
            && world.heard(BOB) == ["here again"]
    });
}

#[test]
fn who_is_cut_off_is_away_and_back_when_heard_again() {
    let mut world = World::trio();
    let session = world.group(Settings::default());
    let carol = world.address(CAROL);
    world.loses =
        Box::new(move |to, routed| to == CAROL || routed.header().source.address == carol);
    world.until("away", |world| {
        world.was_told(ALICE, |event| matches!(event, Event::Away { .. }))
    });
    world.loses = Box::new(|_, _| false);
    world.until("back", |world| {
        world.was_told(ALICE, |event| matches!(event, Event::Back { .. }))
    });
    world.pass(30_000);
    world.publish(ALICE, session, "there you are").unwrap();
    world.until("carol hears", |world| {
        world.heard(CAROL) == ["there you are"]
    });
}

#[test]
fn a_message_that_comes_twice_is_heard_once() {
    let mut world = World::trio();
    let session = world.group(Settings::default());
    world.publish(ALICE, session, "once").unwrap();
    let again: Vec<_> = world.on_the_way.iter().cloned().collect();
    world.on_the_way.extend(again);
    world.pass(5000);
    assert_eq!(world.heard(BOB), ["once"]);
    assert_eq!(world.heard(CAROL), ["once"]);
}

/// Any byte of any message, turned over, changes nothing but by the message being lost.
#[test]
fn a_message_that_was_touched_is_no_message() {
    let mut world = World::trio();
    let session = world.group(Settings::default());
    world.publish(ALICE, session, "as it was said").unwrap();
    let (_, routed) = world.on_the_way.front().cloned().unwrap();
    world.on_the_way.clear();
    let bytes = routed.original().to_vec();
    for at in (0..bytes.len()).step_by(7) {
        let mut touched = bytes.clone();
        touched[at] ^= 0x20;
        let Ok(touched) = Routed::from_archive(Generation::Two, touched.into()) else {
            continue;
        };
        world.on_the_way.push_back((BOB, touched));
        world.deliver_all();
        let heard = world.heard(BOB);
        assert!(
            heard.is_empty() || heard == ["as it was said"],
            "{at}: {heard:?}"
        );
    }
}

#[test]
fn another_circle_gets_no_answer() {
    let mut world = World::trio();
    let name = Name::parse("org/ns/mallory").unwrap();
    let secret = SharedSecret::new("another secret that has 32 bytes too").unwrap();
    let mut mallory = Party::new(&name, secret, Invitations::All, &mut world.chance);
    let mut out = Vec::new();
    let bob = Name::parse("org/ns/bob").unwrap();
    mallory
        .open(bob, clear(), world.now, &mut world.chance, &mut out)
        .unwrap();
    for output in out {
        if let Output::Send(routed) = output {
            world.on_the_way.push_back((BOB, routed));
        }
    }
    world.deliver_all();
    assert!(world.on_the_way.is_empty() && world.told[BOB].is_empty());
}

#[test]
fn a_queue_that_nobody_acknowledges_ends() {
    let mut world = World::trio();
    let session = world.pair(Settings {
        reliability: Some(Reliability {
            interval_ms: 1000,
            retries_max: 10,
        }),
        ..Settings::default()
    });
    world.loses = Box::new(|_, _| true);
    for _ in 0..512 {
        world.publish(ALICE, session, "into the void").unwrap();
    }
    assert_eq!(world.publish(ALICE, session, "one more"), Err(Misuse::Full));
}

/// Somebody who has the secret could otherwise fill us with sessions that never begin.
#[test]
fn an_invitation_that_nothing_comes_of_ends() {
    let mut world = World::trio();
    world.loses = Box::new(|_, routed| message_of(routed) == MessageType::GroupWelcome);
    let bob = Name::parse("org/ns/bob").unwrap();
    world
        .act(ALICE, |party, now, chance, out| {
            party.open(bob, Settings::default(), now, chance, out)
        })
        .unwrap();
    assert!(world.parties[BOB].wake_at().is_none());
    world.until("given up", |world| {
        world.ended(ALICE) == Some(Ended::Unanswered)
    });
    world.pass(120_000);
    assert!(world.parties[BOB].wake_at().is_none());
    assert!(world.told[BOB].is_empty());
}
