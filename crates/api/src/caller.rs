//! Who is calling: the holder of an API key, or of a token for the account.
//!
//! | may                    | API key | session token | account token |
//! |------------------------|---------|---------------|---------------|
//! | buy a token            | yes     | no            | no            |
//! | make and revoke keys   | yes     | yes           | no            |
//! | read account and usage | yes     | yes           | yes           |

use axum::{
    extract::FromRequestParts,
    http::{header::AUTHORIZATION, request::Parts},
};
use skytale_wire::token::{AccountId, Scope, Scopes};

use crate::{
    problem::Refusal,
    router::App,
    secret::{ApiKey, KeyId},
};

/// A caller whose key or token was checked in this request.
#[derive(Debug)]
pub(crate) struct Caller {
    account: AccountId,
    proof: Proof,
}

#[derive(Debug)]
enum Proof {
    Key(KeyId),
    Token(Scopes),
}

impl Caller {
    /// The account, for reading.
    pub(crate) fn reader(&self) -> Result<AccountId, Refusal> {
        self.with_scope(Scope::Account)
    }

    /// The account, for making and revoking keys.
    pub(crate) fn key_maker(&self) -> Result<AccountId, Refusal> {
        self.with_scope(Scope::Keys)
    }

    /// The account and the key that pays: for buying tokens.
    pub(crate) fn key_holder(self) -> Result<(AccountId, KeyId), Refusal> {
        match self.proof {
            Proof::Key(id) => Ok((self.account, id)),
            Proof::Token(_) => Err(Refusal::KEY_NEEDED),
        }
    }

    fn with_scope(&self, scope: Scope) -> Result<AccountId, Refusal> {
        match &self.proof {
            Proof::Token(scopes) if !scopes.has(scope) => Err(Refusal::SCOPE_NEEDED),
            Proof::Key(_) | Proof::Token(_) => Ok(self.account),
        }
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let bearer = bearer(parts).ok_or(Refusal::UNAUTHENTICATED)?;
        if bearer.starts_with("sk_") {
            by_key(app, bearer).await
        } else {
            by_token(app, bearer)
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
        Some(stored) if good && !stored.revoked => Ok(Caller {
            account: stored.account,
            proof: Proof::Key(key.id().clone()),
        }),
        Some(_) | None => Err(Refusal::UNAUTHENTICATED),
    }
}

fn by_token(app: &App, text: &str) -> Result<Caller, Refusal> {
    let claims = app
        .verifier
        .verify(text, app.clock.now())
        .map_err(|reason| {
            tracing::debug!(%reason, "token refused");
            Refusal::UNAUTHENTICATED
        })?;
    Ok(Caller {
        account: claims.account,
        proof: Proof::Token(claims.scopes),
    })
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
