//! What every store must do, run on each of them.

use skytale_wire::{
    http::{Revocation, Revoked, UsageEntry, Used},
    id::{AgentId, Digest, RelayKey, Time},
    month::Month,
    token::{AccountId, KeyId, Scope, Scopes},
};

use super::{
    AGENT_MS_KEPT, Claim, Claimed, Created, Email, Exchange, Failure, Kept, KeyCreated, KeyRotated,
    NewAccount, NewKey, ONCE_MS_KEPT, ReportTaken, Store,
};
use crate::{plans::Bounds, secret::Hashed};

/// Runs the whole suite on an empty store.
pub(crate) async fn conformance(store: &dyn Store) -> Result<(), Failure> {
    store.ready().await?;
    an_address_belongs_to_the_first(store).await?;
    an_account_and_its_first_key_come_together(store).await?;
    keys_are_listed_in_order_by_pages(store).await?;
    the_limit_counts_only_living_keys(store).await?;
    a_key_belongs_to_its_account(store).await?;
    a_revoked_key_buys_nothing(store).await?;
    what_is_revoked_is_listed_once_and_in_order(store).await?;
    usage_is_counted_by_account_and_month(store).await?;
    a_report_counts_once(store).await?;
    reports_count_for_whom_they_name(store).await?;
    a_month_that_is_used_up_buys_nothing(store).await?;
    a_password_is_changed_by_whoever_knows_the_old_one(store).await?;
    a_key_does_what_it_was_made_for_until_it_ends(store).await?;
    a_rotated_key_leaves_its_place_to_another(store).await?;
    agents_are_remembered_and_can_be_shut_out(store).await?;
    those_who_buy_at_once_are_told_apart(store).await?;
    of_the_same_request_one_is_the_first(store).await?;
    a_claim_ends_by_an_answer_by_release_or_by_time(store).await?;
    a_deleted_account_leaves_its_number_and_nothing_else(store).await
}

async fn an_address_belongs_to_the_first(store: &dyn Store) -> Result<(), Failure> {
    assert_eq!(
        store.create_account(account(1, "alice@x")).await?,
        Created::Yes
    );
    assert_eq!(
        store.create_account(account(2, "ALICE@x")).await?,
        Created::Taken
    );

    let (id, hash) = store
        .login(email("alice@x"))
        .await?
        .expect("Alice is there");
    assert_eq!(id, who(1));
    assert_eq!(hash.as_str(), "hash of 1");
    assert!(store.login(email("bob@x")).await?.is_none());
    let row = store.account(who(1)).await?.expect("Alice is there");
    assert_eq!((row.email.as_str(), row.created), ("alice@x", Time(1)));
    assert!(
        store.account(who(2)).await?.is_none(),
        "the second was not opened"
    );
    Ok(())
}

async fn an_account_and_its_first_key_come_together(store: &dyn Store) -> Result<(), Failure> {
    let made = store
        .create_account_with_key(account(3, "carol@x"), key("carolkey", 3))
        .await?;
    assert_eq!(made, Created::Yes);
    assert_eq!(
        store
            .key(name("carolkey"))
            .await?
            .expect("it is there")
            .account,
        who(3)
    );

    let again = store
        .create_account_with_key(account(4, "carol@x"), key("fourthky", 4))
        .await?;
    assert_eq!(again, Created::Taken);
    assert!(
        store.key(name("fourthky")).await?.is_none(),
        "no key without its account"
    );
    Ok(())
}

async fn keys_are_listed_in_order_by_pages(store: &dyn Store) -> Result<(), Failure> {
    for id in ["zzzzzzzz", "aaaaaaaa", "mmmmmmmm"] {
        assert_eq!(store.create_key(key(id, 1), 100).await?, KeyCreated::Yes);
    }
    let ids = async |after: Option<&str>, limit| {
        let rows = store.keys(who(1), after.map(name), limit).await?;
        Ok(rows
            .iter()
            .map(|row| row.id.to_string())
            .collect::<Vec<_>>())
    };
    assert_eq!(ids(None, 10).await?, ["zzzzzzzz", "aaaaaaaa", "mmmmmmmm"]);
    assert_eq!(ids(None, 2).await?, ["zzzzzzzz", "aaaaaaaa"]);
    assert_eq!(ids(Some("aaaaaaaa"), 2).await?, ["mmmmmmmm"]);
    assert!(ids(Some("mmmmmmmm"), 2).await?.is_empty());
    assert!(
        ids(Some("carolkey"), 9).await?.is_empty(),
        "somebody else's key is no place"
    );
    let first = &store.keys(who(1), None, 1).await?[0];
    assert_eq!((first.name.as_str(), first.created), ("ci", Time(5)));
    assert_eq!((first.last_used, first.revoked), (None, None));
    Ok(())
}

async fn the_limit_counts_only_living_keys(store: &dyn Store) -> Result<(), Failure> {
    assert_eq!(
        store.create_key(key("toomany1", 1), 3).await?,
        KeyCreated::TooMany
    );
    assert!(store.revoke_key(who(1), name("mmmmmmmm"), Time(6)).await?);
    assert_eq!(
        store.create_key(key("fitsnow1", 1), 3).await?,
        KeyCreated::Yes
    );
    assert_eq!(
        store.create_key(key("nobodys1", 77), 3).await?,
        KeyCreated::NoAccount
    );
    Ok(())
}

async fn a_key_belongs_to_its_account(store: &dyn Store) -> Result<(), Failure> {
    assert!(!store.revoke_key(who(3), name("zzzzzzzz"), Time(6)).await?);
    assert!(!store.revoke_key(who(1), name("nonesuch"), Time(6)).await?);
    let check = store.key(name("zzzzzzzz")).await?.expect("it is there");
    assert!(check.row.lives(Time(7)));
    assert!(
        store
            .keys(who(3), None, 10)
            .await?
            .iter()
            .all(|row| row.id == name("carolkey"))
    );
    Ok(())
}

async fn a_revoked_key_buys_nothing(store: &dyn Store) -> Result<(), Failure> {
    assert_eq!(
        store
            .count_exchange(name("aaaaaaaa"), None, month(11), Bounds::NONE, Time(7))
            .await?,
        Exchange::Counted
    );
    assert!(store.revoke_key(who(1), name("aaaaaaaa"), Time(8)).await?);
    assert!(
        store.revoke_key(who(1), name("aaaaaaaa"), Time(9)).await?,
        "twice is once"
    );
    assert_eq!(
        store
            .count_exchange(name("aaaaaaaa"), None, month(11), Bounds::NONE, Time(10))
            .await?,
        Exchange::NoKey
    );
    assert_eq!(
        store
            .count_exchange(name("nonesuch"), None, month(11), Bounds::NONE, Time(10))
            .await?,
        Exchange::NoKey
    );

    let check = store
        .key(name("aaaaaaaa"))
        .await?
        .expect("it is listed still");
    assert!(!check.row.lives(Time(7)));
    let rows = store.keys(who(1), None, 10).await?;
    let row = rows
        .iter()
        .find(|row| row.id == name("aaaaaaaa"))
        .expect("listed");
    assert_eq!((row.last_used, row.revoked), (Some(Time(7)), Some(Time(8))));
    Ok(())
}

async fn what_is_revoked_is_listed_once_and_in_order(store: &dyn Store) -> Result<(), Failure> {
    // The key of the test before.
    let before = store.revocations(None, Time(0), 100).await?;
    assert_eq!(
        before.last().map(|(_, it)| it.clone()),
        Some(Revocation {
            revoked: Revoked::Key(name("aaaaaaaa")),
            at_ms: 8
        })
    );
    let place = before.last().expect("one was revoked").0;
    let hour = 3_600_000;
    for (id, at) in [("gone1key", 4 * hour), ("gone2key", 4 * hour + 1)] {
        store.create_key(key(id, 1), 100).await?;
        for again in 0..2 {
            assert!(store.revoke_key(who(1), name(id), Time(at + again)).await?);
        }
    }
    assert!(!store.revoke_key(who(3), name("gone1key"), Time(5)).await?);

    let all = store.revocations(Some(place), Time(0), 100).await?;
    let listed: Vec<_> = all.iter().map(|(_, it)| it.revoked.clone()).collect();
    assert_eq!(
        listed,
        [
            Revoked::Key(name("gone1key")),
            Revoked::Key(name("gone2key"))
        ]
    );
    let (first, second) = (all[0].0, all[1].0);
    assert!(place < first && first < second);
    assert_eq!(store.revocations(Some(place), Time(0), 1).await?, all[..1]);
    assert_eq!(
        store.revocations(Some(first), Time(0), 100).await?,
        all[1..]
    );
    assert!(
        store
            .revocations(Some(second), Time(0), 100)
            .await?
            .is_empty()
    );
    let since = Time(4 * hour + 1);
    let late = store.revocations(None, since, 100).await?;
    assert_eq!(late, all[1..]);
    let beyond = store.revocations(Some(second + 1), since, 100).await?;
    assert_eq!(beyond, late, "a place that this list has not reached");
    // Hours later, what no token can outlive is off the list, and places go on.
    let whole = store.revocations(None, Time(0), 100).await?;
    assert_eq!(whole, all);
    Ok(())
}

async fn usage_is_counted_by_account_and_month(store: &dyn Store) -> Result<(), Failure> {
    assert_eq!(
        store
            .count_exchange(name("zzzzzzzz"), None, month(11), Bounds::NONE, Time(11))
            .await?,
        Exchange::Counted
    );
    assert_eq!(
        store
            .count_exchange(name("zzzzzzzz"), None, month(12), Bounds::NONE, Time(12))
            .await?,
        Exchange::Counted
    );
    assert_eq!(
        store
            .count_exchange(name("carolkey"), None, month(12), Bounds::NONE, Time(12))
            .await?,
        Exchange::Counted
    );

    let months: Vec<_> = store
        .usage(who(1))
        .await?
        .into_iter()
        .map(|(month, used)| (month, used.token_exchanges, used.messages, used.bytes))
        .collect();
    assert_eq!(months, [(month(12), 1, 0, 0), (month(11), 2, 0, 0)]);
    assert_eq!(store.usage(who(3)).await?.len(), 1);
    assert!(store.usage(who(77)).await?.is_empty());
    Ok(())
}

async fn a_report_counts_once(store: &dyn Store) -> Result<(), Failure> {
    let (one, other) = (RelayKey([1; 32]), RelayKey([2; 32]));
    let report = |relay, number| {
        let entries = vec![entry(3, Some("carolkey"), month(10))];
        store.take_report(relay, number, entries, Time(13))
    };
    for (relay, number, taken) in [
        (one, 7, ReportTaken::Now),
        (one, 7, ReportTaken::Before),
        // Of before a relay's archive was put back, or a word that went astray.
        (one, 3, ReportTaken::Before),
        (other, 7, ReportTaken::Now),
        (one, 1_790_000_000_000, ReportTaken::Now),
        (one, 8, ReportTaken::Before),
    ] {
        assert_eq!(report(relay, number).await?, taken, "{number}");
    }

    let used = Used {
        token_exchanges: 0,
        messages: 3,
        bytes: 300,
        delivered: 9,
        connected_s: 4,
    };
    assert_eq!(store.usage(who(3)).await?[1], (month(10), used));
    Ok(())
}

async fn reports_count_for_whom_they_name(store: &dyn Store) -> Result<(), Failure> {
    let relay = RelayKey([3; 32]);
    let entries = vec![
        entry(1, None, month(12)),
        entry(1, Some("mmmmmmmm"), month(12)),
        entry(1, Some("zzzzzzzz"), month(12)),
        entry(3, Some("carolkey"), month(12)),
        // Nobody here has this number.
        entry(77, None, month(12)),
    ];
    let taken = store.take_report(relay, 1, entries, Time(13)).await?;
    assert_eq!(taken, ReportTaken::Now);

    let of_key = |token_exchanges| Used {
        token_exchanges,
        messages: 1,
        bytes: 100,
        delivered: 3,
        connected_s: 1,
    };
    let by_key = store.usage_by_key(who(1), month(12), 9).await?;
    assert_eq!(
        by_key,
        [
            (None, of_key(0)),
            (Some(name("mmmmmmmm")), of_key(0)),
            (Some(name("zzzzzzzz")), of_key(1)),
        ]
    );
    let first = store.usage_by_key(who(1), month(12), 1).await?;
    assert_eq!(first, by_key[..1]);
    let total = Used {
        messages: 3,
        bytes: 300,
        delivered: 9,
        // Together they were connected for 4.5 s.
        connected_s: 4,
        ..of_key(1)
    };
    let months = store.usage(who(1)).await?;
    assert_eq!(months[0], (month(12), total));
    assert_eq!(months[1].0, month(11));
    assert!(store.usage(who(77)).await?.is_empty());
    assert!(store.usage_by_key(who(1), month(1), 9).await?.is_empty());
    Ok(())
}

async fn a_month_that_is_used_up_buys_nothing(store: &dyn Store) -> Result<(), Failure> {
    let buys =
        |month, bounds| store.count_exchange(name("zzzzzzzz"), None, month, bounds, Time(14));
    let messages = |most| Bounds {
        messages_max: Some(most),
        bytes_max: None,
    };
    let bytes = |most| Bounds {
        messages_max: None,
        bytes_max: Some(most),
    };
    let before = store.usage(who(1)).await?;

    for bounds in [messages(3), messages(0), bytes(300)] {
        assert_eq!(buys(month(12), bounds).await?, Exchange::Exhausted);
    }
    assert_eq!(store.usage(who(1)).await?, before, "nothing was counted");
    for bounds in [messages(4), bytes(301), Bounds::NONE] {
        assert_eq!(buys(month(12), bounds).await?, Exchange::Counted);
    }
    assert_eq!(buys(month(9), messages(1)).await?, Exchange::Counted);
    Ok(())
}

async fn a_password_is_changed_by_whoever_knows_the_old_one(
    store: &dyn Store,
) -> Result<(), Failure> {
    store.create_account(account(20, "dave@x")).await?;
    let hash = |text: &str| Hashed::from_stored(text.to_owned());
    let change = |from, to| store.change_password(who(20), hash(from), hash(to), Time(99));

    assert!(!change("hash of 19", "another").await?);
    assert!(change("hash of 20", "new hash").await?);
    assert!(!change("hash of 20", "too late").await?);

    let row = store.account(who(20)).await?.expect("Dave is there");
    assert_eq!(row.password, hash("new hash"));
    assert_eq!(
        (row.name.as_str(), row.sessions_from),
        ("person 20", Time(99))
    );
    let nobody = store.change_password(who(77), hash("hash of 77"), hash("x"), Time(99));
    assert!(!nobody.await?);
    Ok(())
}

async fn a_key_does_what_it_was_made_for_until_it_ends(store: &dyn Store) -> Result<(), Failure> {
    let scopes: Scopes = [Scope::Relay].into();
    let wish = NewKey {
        scopes: scopes.clone(),
        expires: Some(Time(200)),
        ..key("brief1ky", 20)
    };
    assert_eq!(store.create_key(wish, 1).await?, KeyCreated::Yes);
    let check = store.key(name("brief1ky")).await?.expect("it is there");
    assert_eq!((check.account, &check.row.scopes), (who(20), &scopes));
    assert_eq!(
        (check.row.name.as_str(), check.row.created),
        ("ci", Time(5))
    );
    assert!(check.row.lives(Time(199)) && !check.row.lives(Time(200)));
    let listed = store.keys(who(20), None, 9).await?;
    assert_eq!(listed, [check.row]);

    let buys = |at| store.count_exchange(name("brief1ky"), None, month(11), Bounds::NONE, at);
    assert_eq!(buys(Time(199)).await?, Exchange::Counted);
    assert_eq!(buys(Time(200)).await?, Exchange::NoKey);
    let late = |id| NewKey {
        now: Time(200),
        ..key(id, 20)
    };
    assert_eq!(
        store.create_key(key("second20", 20), 1).await?,
        KeyCreated::TooMany
    );
    assert_eq!(
        store.create_key(late("second20"), 1).await?,
        KeyCreated::Yes,
        "one that is over does not count"
    );
    Ok(())
}

async fn a_rotated_key_leaves_its_place_to_another(store: &dyn Store) -> Result<(), Failure> {
    let new = |id| NewKey {
        now: Time(300),
        ..key(id, 20)
    };
    let place = store.revocations(None, Time(0), 100).await?;
    let place = place.last().map(|(place, _)| *place);
    let slowly = store.rotate_key(name("second20"), new("third120"), Time(400));
    assert_eq!(slowly.await?, KeyRotated::Yes);
    let again = store.rotate_key(name("second20"), new("third220"), Time(900));
    assert_eq!(again.await?, KeyRotated::Yes);
    let old = store.key(name("second20")).await?.expect("it is there");
    assert_eq!(
        (old.row.expires, old.row.revoked),
        (Some(Time(400)), None),
        "the earlier end holds"
    );
    assert_eq!(store.revocations(place, Time(0), 9).await?, []);

    let at_once = store.rotate_key(name("third120"), new("fourth20"), Time(300));
    assert_eq!(at_once.await?, KeyRotated::YesAndRevoked);
    let old = store.key(name("third120")).await?.expect("it is there");
    assert_eq!(old.row.revoked, Some(Time(300)));
    let news = store.revocations(place, Time(0), 9).await?;
    let news: Vec<_> = news.into_iter().map(|(_, it)| it.revoked).collect();
    assert_eq!(news, [Revoked::Key(name("third120"))]);

    for dead in ["third120", "brief1ky", "zzzzzzzz", "nonesuch"] {
        let refused = store.rotate_key(name(dead), new("never120"), Time(900));
        assert_eq!(refused.await?, KeyRotated::NoKey, "{dead}");
    }
    assert!(store.key(name("never120")).await?.is_none());
    Ok(())
}

async fn agents_are_remembered_and_can_be_shut_out(store: &dyn Store) -> Result<(), Failure> {
    let (first, second) = (AgentId([1; 32]), AgentId([2; 32]));
    let buys = |agent, at| {
        store.count_exchange(name("fourth20"), Some(agent), month(11), Bounds::NONE, at)
    };
    assert_eq!(buys(second, Time(310)).await?, Exchange::Counted);
    assert_eq!(buys(first, Time(311)).await?, Exchange::Counted);
    assert_eq!(buys(second, Time(312)).await?, Exchange::Counted);

    let ids = async |after, limit| {
        let rows = store.agents(who(20), after, limit).await?;
        Ok(rows.into_iter().map(|row| row.id).collect::<Vec<_>>())
    };
    assert_eq!(ids(None, 9).await?, [first, second]);
    assert_eq!(ids(None, 1).await?, [first]);
    assert_eq!(ids(Some(first), 9).await?, [second]);
    assert_eq!(store.agents(who(1), None, 9).await?, []);

    let place = store.revocations(None, Time(0), 100).await?;
    let place = place.last().map(|(place, _)| *place);
    assert!(!store.disable_agent(who(1), second, Time(320)).await?);
    assert!(store.disable_agent(who(20), second, Time(321)).await?);
    assert!(store.disable_agent(who(20), second, Time(322)).await?);
    let news = store.revocations(place, Time(0), 9).await?;
    let news: Vec<_> = news.into_iter().map(|(_, it)| it.revoked).collect();
    let out = Revoked::Agent {
        account: who(20),
        agent: second,
    };
    assert_eq!(news, [out], "once");
    let before = store.usage(who(20)).await?;
    assert_eq!(buys(second, Time(330)).await?, Exchange::AgentDisabled);
    assert_eq!(store.usage(who(20)).await?, before, "nothing was counted");
    assert_eq!(buys(first, Time(331)).await?, Exchange::Counted);
    let row = &store.agents(who(20), Some(first), 1).await?[0];
    let (first_seen, last_seen) = (row.first, row.last);
    assert_eq!((first_seen, last_seen), (Time(310), Time(312)));
    assert_eq!(row.disabled, Some(Time(321)));

    assert!(!store.enable_agent(who(1), second).await?);
    assert!(store.enable_agent(who(20), second).await?);
    assert_eq!(buys(second, Time(340)).await?, Exchange::Counted);

    // A quarter of a year later.
    assert!(store.disable_agent(who(20), second, Time(350)).await?);
    let late = Time(400 + AGENT_MS_KEPT);
    assert_eq!(buys(AgentId([3; 32]), late).await?, Exchange::Counted);
    assert_eq!(
        ids(None, 9).await?,
        [second, AgentId([3; 32])],
        "what is shut out stays so"
    );
    Ok(())
}

/// A store may count them together: each is told its own all the same.
async fn those_who_buy_at_once_are_told_apart(store: &dyn Store) -> Result<(), Failure> {
    let at = Time(450 + AGENT_MS_KEPT);
    let nothing = Bounds {
        messages_max: Some(0),
        bytes_max: None,
    };
    let told = |n: u8| match n {
        2 => Exchange::AgentDisabled,
        _ if n.is_multiple_of(5) => Exchange::Exhausted,
        _ => Exchange::Counted,
    };
    let asked: Vec<_> = (0..200)
        .map(|n| {
            let bounds = if n % 5 == 0 { nothing } else { Bounds::NONE };
            let (agent, month) = (AgentId([n; 32]), month(n % 2 + 8));
            store.count_exchange(name("fourth20"), Some(agent), month, bounds, at)
        })
        .collect();
    for (n, answer) in (0..).zip(asked) {
        assert_eq!(answer.await?, told(n), "{n}");
    }

    let used = store.usage(who(20)).await?;
    let tokens = |of| {
        let row = used.iter().find(|(month, _)| *month == of);
        row.map(|(_, used)| used.token_exchanges)
    };
    // Every second one of 200, without every fifth, and the one that is shut out.
    assert_eq!((tokens(month(8)), tokens(month(9))), (Some(79), Some(80)));
    let agents = store.agents(who(20), None, 200).await?;
    assert_eq!(agents.len(), 160, "who got no token is not remembered");
    let row = store.key(name("fourth20")).await?.expect("it is there").row;
    assert_eq!(row.last_used, Some(at));
    Ok(())
}

async fn a_deleted_account_leaves_its_number_and_nothing_else(
    store: &dyn Store,
) -> Result<(), Failure> {
    let hash = |text: &str| Hashed::from_stored(text.to_owned());
    let place = store.revocations(None, Time(0), 100).await?;
    let place = place.last().map(|(place, _)| *place);
    let late = Time(500 + AGENT_MS_KEPT);
    assert!(!store.delete_account(who(20), hash("a guess"), late).await?);
    assert!(store.account(who(20)).await?.is_some());
    let used = store.usage(who(20)).await?;

    assert!(
        store
            .delete_account(who(20), hash("new hash"), late)
            .await?
    );

    assert!(
        !store
            .delete_account(who(20), hash("new hash"), late)
            .await?
    );
    assert!(!store.delete_account(who(20), hash(""), late).await?);
    assert!(
        !store
            .change_password(who(20), hash(""), hash("x"), late)
            .await?
    );
    assert!(store.account(who(20)).await?.is_none());
    assert!(store.login(email("dave@x")).await?.is_none());
    let news = store.revocations(place, Time(0), 9).await?;
    let news: Vec<_> = news.into_iter().map(|(_, it)| it.revoked).collect();
    assert_eq!(news, [Revoked::Account(who(20))]);
    let keys = store.keys(who(20), None, 100).await?;
    assert!(
        keys.iter()
            .all(|key| key.revoked.is_some() && key.name.is_empty())
    );
    let check = store.key(name("fourth20")).await?.expect("a tombstone");
    assert_eq!(check.hash, hash(""));
    let bought = store.count_exchange(name("fourth20"), None, month(11), Bounds::NONE, late);
    assert_eq!(bought.await?, Exchange::NoKey);
    assert_eq!(
        store.create_key(key("toolate1", 20), 100).await?,
        KeyCreated::NoAccount
    );
    assert_eq!(store.agents(who(20), None, 9).await?, []);
    assert_eq!(store.usage(who(20)).await?, used, "the books stay");
    let again = store.create_account(account(21, "dave@x")).await?;
    assert_eq!(again, Created::Yes, "the address is free again");
    Ok(())
}

async fn of_the_same_request_one_is_the_first(store: &dyn Store) -> Result<(), Failure> {
    let same = claim(1, 1, Time(1_000));
    assert_eq!(store.claim(same).await?, Claimed::First);
    assert_eq!(store.claim(same).await?, Claimed::UnderWay);
    let other = claim(1, 2, Time(1_000));
    assert_eq!(store.claim(other).await?, Claimed::OtherRequest);
    assert_eq!(
        store.claim(claim(2, 2, Time(1_000))).await?,
        Claimed::First,
        "another mark"
    );

    let late = claim(1, 1, Time(60_001));
    assert_eq!(store.claim(late).await?, Claimed::CutOff, "it died");
    let kept = Kept {
        status: 202,
        body: Some("{\"said\": \"ü\"}".to_owned()),
    };
    store.keep(mark(1), kept.clone()).await?;
    assert_eq!(store.claim(same).await?, Claimed::Done(kept.clone()));
    assert_eq!(store.claim(late).await?, Claimed::Done(kept));
    assert_eq!(store.claim(other).await?, Claimed::OtherRequest);
    let secret = Kept {
        status: 201,
        body: None,
    };
    store.keep(mark(2), secret.clone()).await?;
    assert_eq!(
        store.claim(claim(2, 2, Time(1_001))).await?,
        Claimed::Done(secret)
    );
    Ok(())
}

async fn a_claim_ends_by_an_answer_by_release_or_by_time(store: &dyn Store) -> Result<(), Failure> {
    let third = claim(3, 1, Time(2_000));
    assert_eq!(store.claim(third).await?, Claimed::First);
    store.release(mark(3)).await?;
    assert_eq!(store.claim(third).await?, Claimed::First, "as if new");
    store.release(mark(1)).await?;
    let answered = claim(1, 1, Time(2_000));
    assert!(
        matches!(store.claim(answered).await?, Claimed::Done(_)),
        "what was answered is not released"
    );
    store.release(mark(9)).await?;

    let day_later = |at, n| claim(n, 7, Time(at + ONCE_MS_KEPT));
    assert_eq!(
        store.claim(day_later(1_000, 1)).await?,
        Claimed::OtherRequest
    );
    assert_eq!(store.claim(day_later(1_001, 1)).await?, Claimed::First);
    assert_eq!(store.claim(day_later(1_001, 2)).await?, Claimed::First);
    assert_eq!(
        store.claim(day_later(1_001, 3)).await?,
        Claimed::OtherRequest,
        "it came later"
    );
    Ok(())
}

fn mark(n: u8) -> Digest {
    Digest([n; 32])
}

fn claim(n: u8, request: u8, now: Time) -> Claim {
    Claim {
        mark: mark(n),
        request: Digest([request; 32]),
        now,
        given_up: Time(now.0.saturating_sub(30_000)),
    }
}

fn who(n: u8) -> AccountId {
    AccountId([n; 16])
}

fn email(text: &str) -> Email {
    Email::parse(text).expect("a test's address")
}

fn name(id: &str) -> KeyId {
    id.parse().expect("a test's key id")
}

fn month(n: u8) -> Month {
    format!("2026-{n:02}").parse().expect("a test's month")
}

fn entry(account: u8, key: Option<&str>, month: Month) -> UsageEntry {
    UsageEntry {
        account_id: who(account),
        key_id: key.map(name),
        month,
        messages: 1,
        bytes: 100,
        delivered: 3,
        connected_ms: 1_500,
    }
}

fn account(n: u8, address: &str) -> NewAccount {
    NewAccount {
        id: who(n),
        email: email(address),
        name: format!("person {n}"),
        password: Hashed::from_stored(format!("hash of {n}")),
        now: Time(u64::from(n)),
    }
}

fn key(id: &str, account: u8) -> NewKey {
    NewKey {
        id: name(id),
        account: who(account),
        name: "ci".to_owned(),
        hash: Hashed::from_stored("hash of a key".to_owned()),
        scopes: Scopes::all(),
        expires: None,
        now: Time(5),
    }
}
