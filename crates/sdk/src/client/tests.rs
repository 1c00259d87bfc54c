use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::sleep;

use super::{inner::while_it_goes_on, *};
use crate::{config::Timeouts, vault::VaultKey};

/// A relay that is not there, and calls that do not wait for it.
fn offline(dir: &Path, name: &str) -> AgentBuilder {
    let relay = format!("{}@127.0.0.1:9", "01".repeat(32));
    Agent::builder(name)
        .data_dir(dir.join("data"))
        .config_dir(dir.join("config"))
        .vault_key(VaultKey::from_bytes([1; 32]))
        .relay(relay.parse().unwrap())
        .traffic(skytale_shape::Mode::Padded)
        .timeouts(Timeouts {
            change: Duration::from_millis(50),
            ..Timeouts::default()
        })
}

#[tokio::test]
async fn an_agent_is_the_same_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = offline(dir.path(), "alice").open().await.unwrap();
    let (id, vault) = (first.id(), first.data_dir().to_owned());
    first.close().await.unwrap();

    let again = offline(dir.path(), "alice").open().await.unwrap();
    let other = offline(dir.path(), "bob").open().await.unwrap();

    assert_eq!(again.id(), id);
    assert_ne!(other.id(), id);
    assert_eq!(vault, dir.path().join("data/agents/alice"));
    again.close().await.unwrap();
    other.close().await.unwrap();
}

/// What a line of 4 KB/s brought for longer than a fixed limit once ran into it.
#[tokio::test]
async fn a_wait_lasts_as_long_as_something_comes() {
    let patience = Duration::from_millis(2);
    // More whenever somebody looks.
    let come = AtomicU64::new(0);
    let look = || come.fetch_add(1, Ordering::Relaxed);
    let slow = async {
        while come.load(Ordering::Relaxed) < 10 {
            sleep(patience).await;
        }
    };

    assert_eq!(while_it_goes_on(slow, look, patience).await, Some(()));
    let nothing = std::future::pending::<()>();
    assert_eq!(while_it_goes_on(nothing, || 7, patience).await, None);
}

#[tokio::test]
async fn a_wrong_key_opens_nothing_and_makes_nothing_new() {
    let dir = tempfile::tempdir().unwrap();
    let alice = offline(dir.path(), "alice").open().await.unwrap();
    let id = alice.id();
    let wrong = || offline(dir.path(), "alice").vault_key(VaultKey::from_bytes([2; 32]));

    let beside = wrong().open().await.unwrap_err();
    alice.close().await.unwrap();
    let alone = wrong().open().await.unwrap_err();

    for error in [beside, alone] {
        assert_eq!(error.code(), "damaged");
        assert!(error.to_string().contains("wrong vault key"), "{error}");
    }
    let alice = offline(dir.path(), "alice").open().await.unwrap();
    assert_eq!(alice.id(), id);
    alice.close().await.unwrap();
}

#[tokio::test]
async fn what_a_timeout_leaves_behind_is_queued_in_the_vault() {
    let dir = tempfile::tempdir().unwrap();
    let alice = offline(dir.path(), "alice").open().await.unwrap();

    let error = alice.channel("acme/ops/plan").await.unwrap_err();

    assert!(
        matches!(error, Error::Timeout { queued: true, .. }),
        "{error:?}"
    );
    alice.close().await.unwrap();
    let alice = offline(dir.path(), "alice").open().await.unwrap();
    let views = alice.channels().await.unwrap();
    assert_eq!(views.len(), 1);
    assert_eq!(views[0].state, ChannelState::Creating);
    alice.close().await.unwrap();
}

#[tokio::test]
async fn a_second_handle_is_a_hand_until_the_first_one_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mind = offline(dir.path(), "alice").open().await.unwrap();
    let hand = offline(dir.path(), "alice").open().await.unwrap();
    assert_eq!(hand.id(), mind.id());
    assert_eq!(mind.status().await.unwrap().held_by, None);
    assert_eq!(
        hand.status().await.unwrap().held_by,
        Some(std::process::id())
    );

    // The hand's wish is the mind's now, and outlives it.
    hand.channel("acme/ops/plan").await.unwrap_err();
    mind.close().await.unwrap();

    let mut news = hand.inner.news();
    while hand.status().await.unwrap().held_by.is_some() {
        // Each look at the lock is another chance; the news only shorten the wait.
        let _ = timeout(Duration::from_millis(5), news.changed()).await;
    }
    // The mind may have ended before it took the wish up: then the next one finds it.
    let wished = async {
        while hand.channels().await.unwrap().is_empty() {
            let _ = timeout(Duration::from_millis(5), news.changed()).await;
        }
    };
    timeout(Duration::from_mins(1), wished).await.unwrap();
    hand.close().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_before_anything_happens() {
    let dir = tempfile::tempdir().unwrap();
    let alice = offline(dir.path(), "alice").open().await.unwrap();

    for (line, code) in [("hello", "misuse"), ("skt_inv_AAAA", "invite_altered")] {
        assert_eq!(alice.join(line).await.unwrap_err().code(), code, "{line}");
    }
    for name in ["acme/ops", "acme/../plan", "a b/c/d"] {
        assert_eq!(alice.channel(name).await.unwrap_err().code(), "misuse");
    }
    assert!(alice.find("acme/ops/plan").await.unwrap().is_none());
    assert_eq!(
        alice.accept("acme/ops/plan").await.unwrap_err().code(),
        "not_found"
    );
    assert!(alice.channels().await.unwrap().is_empty());
    alice.close().await.unwrap();
    assert!(Agent::open("../alice").await.is_err());
}

#[tokio::test]
async fn a_handle_from_before_a_fork_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut alice = offline(dir.path(), "alice").open().await.unwrap();
    Arc::get_mut(&mut alice.inner).unwrap().pid += 1;

    let error = alice.channels().await.unwrap_err();

    assert!(error.to_string().contains("fork"), "{error}");
    assert!(alice.channel("acme/ops/plan").await.is_err());
    assert!(alice.events().next().await.is_err());
    assert!(alice.status().await.is_err());
}

#[tokio::test]
async fn a_loop_over_events_ends_when_the_agent_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let alice = offline(dir.path(), "alice").open().await.unwrap();
    let mut events = alice.events();

    alice.close().await.unwrap();

    assert_eq!(events.next().await.unwrap(), None);
}
