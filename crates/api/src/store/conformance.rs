//! What every store must do, run on each of them.

use skytale_wire::{http::Revoked, id::Time, token::AccountId};

use super::{Created, Email, Failure, KeyCreated, NewAccount, NewKey, Store};
use crate::secret::{Hashed, KeyId};

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
    usage_is_counted_by_account_and_month(store).await
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
    assert!(
        !store
            .key(name("zzzzzzzz"))
            .await?
            .expect("it is there")
            .revoked
    );
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
    assert!(
        store
            .count_exchange(name("aaaaaaaa"), month(11), Time(7))
            .await?
    );
    assert!(store.revoke_key(who(1), name("aaaaaaaa"), Time(8)).await?);
    assert!(
        store.revoke_key(who(1), name("aaaaaaaa"), Time(9)).await?,
        "twice is once"
    );
    assert!(
        !store
            .count_exchange(name("aaaaaaaa"), month(11), Time(10))
            .await?
    );
    assert!(
        !store
            .count_exchange(name("nonesuch"), month(11), Time(10))
            .await?
    );

    assert!(
        store
            .key(name("aaaaaaaa"))
            .await?
            .expect("it is listed still")
            .revoked
    );
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
        before.last().map(|(_, it)| it),
        Some(&Revoked::Key(name("aaaaaaaa")))
    );
    let (place, _) = *before.last().expect("one was revoked");
    let hour = 3_600_000;
    for (id, at) in [("gone1key", 4 * hour), ("gone2key", 4 * hour + 1)] {
        store.create_key(key(id, 1), 100).await?;
        for again in 0..2 {
            assert!(store.revoke_key(who(1), name(id), Time(at + again)).await?);
        }
    }
    assert!(!store.revoke_key(who(3), name("gone1key"), Time(5)).await?);

    let all = store.revocations(Some(place), Time(0), 100).await?;
    let listed: Vec<_> = all.iter().map(|(_, revoked)| revoked.clone()).collect();
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
    assert!(
        store
            .count_exchange(name("zzzzzzzz"), month(11), Time(11))
            .await?
    );
    assert!(
        store
            .count_exchange(name("zzzzzzzz"), month(12), Time(12))
            .await?
    );
    assert!(
        store
            .count_exchange(name("carolkey"), month(12), Time(12))
            .await?
    );

    let months: Vec<_> = store
        .usage(who(1))
        .await?
        .into_iter()
        .map(|row| (row.month, row.token_exchanges, row.messages, row.bytes))
        .collect();
    assert_eq!(months, [(month(12), 1, 0, 0), (month(11), 2, 0, 0)]);
    assert_eq!(store.usage(who(3)).await?.len(), 1);
    assert!(store.usage(who(77)).await?.is_empty());
    Ok(())
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

fn month(n: u8) -> String {
    format!("2026-{n:02}")
}

fn account(n: u8, address: &str) -> NewAccount {
    NewAccount {
        id: who(n),
        email: email(address),
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
        now: Time(5),
    }
}
