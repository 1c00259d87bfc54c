//! Who is calling: the holder of an API key, or of a token for the account.
//!
//! | may                               | API key with scope           | session | account token |
//! |-----------------------------------|------------------------------|---------|---------------|
//! | buy a token                       | `relay`, `slim` or `account` | no      | no            |
//! | make and revoke keys, shut out    | `keys`                       | yes     | no            |
//! | read account, keys, agents, usage | `account`                    | yes     | yes           |
//! | change the password, delete       | never                        | yes     | no            |
//!
//! A token counts no longer than what it was bought with: the account, the key, the password.

use axum::{
    extract::FromRequestParts,
    http::{header::AUTHORIZATION, request::Parts},
};
use skytale_wire::{
    id::Time,
    token::{AccountId, Claims, KeyId, Scope, Scopes},
};

use crate::{
    problem::Refusal,
    router::App,
    secret::ApiKey,
    store::{AccountRow, KeyRow},
};

/// A caller whose key or token was checked in this request.
#[derive(Debug)]
pub(crate) struct Caller {
    account: AccountId,
    proof: Proof,
}

#[derive(Debug)]
enum Proof {
    Key(KeyRow),
    Token(Scopes),
    Session(Scopes, AccountRow),
}

/// Who makes a key, and what that bounds.
#[derive(Debug)]
pub(crate) struct KeyMaker {
    pub(crate) account: AccountId,
    /// What a new key may do at most.
    pub(crate) scopes: Scopes,
    /// When it must have ended.
    pub(crate) until: Option<Time>,
}

impl Caller {
    /// The account, for reading.
    pub(crate) fn reader(&self) -> Result<AccountId, Refusal> {
        self.with_scope(Scope::Account)
    }

    /// The account, for revoking keys and shutting out agents.
    pub(crate) fn warden(&self) -> Result<AccountId, Refusal> {
        self.with_scope(Scope::Keys)
    }

    /// The account, for making keys: none that may do more than the one that makes it, or longer.
    pub(crate) fn key_maker(&self) -> Result<KeyMaker, Refusal> {
        let account = self.with_scope(Scope::Keys)?;
        let (scopes, until) = match &self.proof {
            Proof::Key(key) => (key.scopes.clone(), key.expires),
            Proof::Token(_) | Proof::Session(..) => (Scopes::all(), None),
        };
        Ok(KeyMaker {
            account,
            scopes,
            until,
        })
    }

    /// The account and the key that pays: for buying tokens with this scope.
    pub(crate) fn key_holder(self, scope: Scope) -> Result<(AccountId, KeyRow), Refusal> {
        let account = self.account;
        match self.proof {
            Proof::Key(key) if key.scopes.has(scope) => Ok((account, key)),
            Proof::Key(_) => Err(Refusal::SCOPE_NEEDED),
            Proof::Token(_) | Proof::Session(..) => Err(Refusal::KEY_NEEDED),
        }
    }

    /// Whether it is the holder of this key that calls.
    pub(crate) fn is_key(&self, id: &KeyId) -> bool {
        matches!(&self.proof, Proof::Key(key) if key.id == *id)
    }

    /// The account, for its owner: somebody who has just signed in.
    pub(crate) fn owner(self) -> Result<(AccountId, AccountRow), Refusal> {
        match self.proof {
            Proof::Session(_, row) => Ok((self.account, row)),
            Proof::Key(_) | Proof::Token(_) => Err(Refusal::SESSION_NEEDED),
        }
    }

    fn with_scope(&self, scope: Scope) -> Result<AccountId, Refusal> {
        let scopes = match &self.proof {
            Proof::Key(key) => &key.scopes,
            Proof::Token(scopes) | Proof::Session(scopes, _) => scopes,
        };
        let permitted = scopes.has(scope);
        permitted
            .then_some(self.account)
            .ok_or(Refusal::SCOPE_NEEDED)
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let bearer = bearer(parts).ok_or(Refusal::UNAUTHENTICATED)?;
        if bearer.starts_with("sk_") {
            by_key(app, bearer).await
        } else {
            by_token(app, bearer).await
        }
    }
}

/// A key that does not exist and one with a wrong secret are told apart by nothing, time included.
async fn by_key(app: &App, text: &str) -> Result<Caller, Refusal> {
    let key = ApiKey::parse(text).map_err(|_| Refusal::UNAUTHENTICATED)?;
    let stored = app.store.key(key.id().clone()).await?;
    let hash = stored.as_ref().map(|stored| &stored.hash);
    let good = app.hasher.check_key(&key, hash).await?;
    match stored {
        Some(stored) if good && stored.row.lives(app.clock.now()) => Ok(Caller {
            account: stored.account,
            proof: Proof::Key(stored.row),
        }),
        Some(_) | None => Err(Refusal::UNAUTHENTICATED),
    }
}

async fn by_token(app: &App, text: &str) -> Result<Caller, Refusal> {
    let now = app.clock.now();
    let claims = app.keys.verify(text, now).map_err(|reason| {
        tracing::debug!(%reason, "token refused");
        Refusal::UNAUTHENTICATED
    })?;
    let row = app.store.account(claims.account).await?;
    let row = row.ok_or(Refusal::UNAUTHENTICATED)?;
    let account = claims.account;
    let proof = match claims {
        Claims {
            key: Some(key),
            scopes,
            ..
        } => {
            let bought_with = app.store.key(key).await?;
            let lives = bought_with.is_some_and(|key| key.row.lives(now));
            lives.then_some(Proof::Token(scopes))
        }
        Claims {
            key: None,
            scopes,
            issued,
            ..
        } => {
            // Tokens count whole seconds.
            let counts = issued.seconds() >= row.sessions_from.seconds();
            counts.then_some(Proof::Session(scopes, row))
        }
    };
    let proof = proof.ok_or(Refusal::UNAUTHENTICATED)?;
    Ok(Caller { account, proof })
}

fn bearer(parts: &Parts) -> Option<&str> {
    let (scheme, credentials) = authorization(parts)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(credentials)
}

/// The one `Authorization` header. Two such headers are two opinions: refused.
pub(crate) fn authorization(parts: &Parts) -> Option<&str> {
    let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
    let only = headers.next()?;
    if headers.next().is_some() {
        return None;
    }
    only.to_str().ok()
}
