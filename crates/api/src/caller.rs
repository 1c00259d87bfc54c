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
    visitor::Visitor,
};

/// A caller whose key or token was checked in this request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    account: AccountId,
    proof: Proof,
}

#[derive(Debug, Clone)]
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
    /// Somebody who has signed in, by the token of the session, and counted as all callers are. What was
    /// bought with a key opens nothing here.
    pub(crate) async fn in_session(
        app: &App,
        visitor: &Visitor,
        token: &str,
    ) -> Result<Self, Refusal> {
        let of_session = |caller: Self| match caller.proof {
            Proof::Session(..) => Ok(caller),
            Proof::Key(_) | Proof::Token(_) => Err(Refusal::UNAUTHENTICATED),
        };
        let checked = by_token(app, token).await.and_then(of_session);
        let caller = counted(app, visitor, checked)?;
        app.limits
            .account(caller.account, visitor, app.clock.now())?;
        Ok(caller)
    }

    /// Whose account it is, whatever the caller may do with it.
    pub(crate) const fn account(&self) -> AccountId {
        self.account
    }

    /// By what it calls, where two requests of an account must be told apart by what they may do.
    pub(crate) fn credential(&self) -> String {
        match &self.proof {
            Proof::Key(key) => format!("key {}", key.id),
            Proof::Token(scopes) => format!("token {scopes}"),
            Proof::Session(..) => "session".to_owned(),
        }
    }

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
        // Who has passed the door for repeated requests was checked and counted there.
        if let Some(checked) = parts.extensions.remove::<Self>() {
            return Ok(checked);
        }
        let visitor = Visitor::of(parts);
        let caller = match bearer(parts) {
            Some(key) if key.starts_with("sk_") => by_key(app, &visitor, key).await?,
            Some(token) => counted(app, &visitor, by_token(app, token).await)?,
            None => counted(app, &visitor, Err(Refusal::UNAUTHENTICATED))?,
        };
        let now = app.clock.now();
        if let Proof::Key(key) = &caller.proof {
            app.limits.key(&key.id, &visitor, now)?;
        }
        app.limits.account(caller.account, &visitor, now)?;
        Ok(caller)
    }
}

/// A key that does not exist and one with a wrong secret are told apart by nothing, time included.
///
/// What is not familiar is counted before it costs anything, and not any more once it has proved to
/// be good. So a flood of wrong keys from an address ends at a look into a table, and familiar keys
/// from the same address go on.
async fn by_key(app: &App, visitor: &Visitor, text: &str) -> Result<Caller, Refusal> {
    let Ok(key) = ApiKey::parse(text) else {
        return counted(app, visitor, Err(Refusal::UNAUTHENTICATED));
    };
    let mut is_counted = !app.hasher.knows(key.id());
    if is_counted {
        app.limits.unproven(visitor, app.clock.now())?;
    }
    let checked = look_up(app, visitor, &key, &mut is_counted).await;
    let is_wrong = checked.as_ref().err() == Some(&Refusal::UNAUTHENTICATED);
    match (is_wrong, is_counted) {
        // A familiar key that is over.
        (true, false) => counted(app, visitor, checked),
        // Good; or not looked at, because the server is busy or its database away.
        (false, true) => {
            app.limits.proven(visitor, app.clock.now());
            checked
        }
        (true, true) | (false, false) => checked,
    }
}

async fn look_up(
    app: &App,
    visitor: &Visitor,
    key: &ApiKey,
    is_counted: &mut bool,
) -> Result<Caller, Refusal> {
    let stored = app.store.key(key.id().clone()).await?;
    let hash = stored.as_ref().map(|stored| &stored.hash);
    let is_familiar = match hash {
        Some(hash) => app.hasher.remembers(key, hash).await,
        None => false,
    };
    if !is_familiar && !*is_counted {
        app.limits.unproven(visitor, app.clock.now())?;
        *is_counted = true;
    }
    let good = is_familiar || app.hasher.check_key(key, hash).await?;
    match stored {
        Some(stored) if good && stored.row.lives(app.clock.now()) => Ok(Caller {
            account: stored.account,
            proof: Proof::Key(stored.row),
        }),
        Some(_) | None => Err(Refusal::UNAUTHENTICATED),
    }
}

/// Counts what proves nothing, and tells whoever does it too often so.
fn counted(
    app: &App,
    visitor: &Visitor,
    checked: Result<Caller, Refusal>,
) -> Result<Caller, Refusal> {
    if checked.as_ref().err() == Some(&Refusal::UNAUTHENTICATED) {
        app.limits.unproven(visitor, app.clock.now())?;
    }
    checked
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
