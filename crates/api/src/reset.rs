//! An account's new password from who holds the database: for somebody who forgot the old one, and
//! for the account that `skytale up` made, which has none.

use skytale_wire::{http::Secret, token::AccountId};

use crate::{
    accounts::{PASSWORD_RULE, is_password},
    clock::Clock,
    config::Config,
    error::Error,
    run::open_store,
    secret::Hasher,
    store::Email,
};

/// Gives the account under an address, or without one the local account, another password, and ends
/// its sessions. Servers on the same database may run. Keys stay as they are, and so does a Postgres
/// database's schema: the servers may be of an older version.
pub async fn reset_password(
    config: &Config,
    email: Option<&str>,
    password: &Secret,
    clock: &Clock,
) -> Result<AccountId, Error> {
    if !is_password(password) {
        return Err(Error::Misuse(PASSWORD_RULE));
    }
    let email = match email {
        Some(email) => Email::of_account(email).ok_or(NOBODY)?,
        None => Email::local(),
    };
    let as_it_is = Config {
        database_migrate: false,
        ..config.clone()
    };
    let store = open_store(&as_it_is, clock).await?;
    let (account, old) = store.login(email).await?.ok_or(NOBODY)?;
    let busy = |_| {
        Error::Unreachable(
            "the password cannot be hashed",
            std::io::ErrorKind::Other.into(),
        )
    };
    let new = Hasher::new(config)?
        .hash_password(password)
        .await
        .map_err(busy)?;
    if !store
        .change_password(account, old, new, clock.now())
        .await?
    {
        return Err(Error::Misuse(
            "the password was changed by somebody else in this moment: try again",
        ));
    }
    Ok(account)
}

const NOBODY: Error = Error::Misuse("no account has this address: nothing was changed");
