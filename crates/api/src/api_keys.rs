//! Making, listing, rotating and revoking API keys.

use std::str::FromStr;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Deserialize;
use skytale_wire::{
    http::{Key, Keys, MakeKey, NewKey as NewKeyBody, RotateKey},
    id::Time,
    token::{AccountId, KeyId, Scopes},
};

use crate::{
    accounts::is_name,
    body::Body,
    caller::{Caller, KeyMaker},
    clock::rfc3339,
    problem::Refusal,
    query::Query,
    router::App,
    secret::{ApiKey, Kind},
    store::{KeyCreated, KeyRotated, KeyRow, NewKey},
    visitor::Visitor,
};

/// `POST /v1/accounts/{id}/keys`: the same as [`create`], with the account spelt out. Somebody
/// else's account is not found rather than forbidden.
#[utoipa::path(
    post,
    path = "/v1/accounts/{id}/keys",
    operation_id = "create_key_for",
    tag = "API keys",
    summary = "Make a key, with the account spelt out",
    description = "",
    params(("id" = AccountId, Path)),
    request_body = MakeKey,
    security(("key" = ["keys"]), ("session" = [])),
    responses((status = 201, description = "The key, shown this once", body = NewKeyBody)),
)]
pub(crate) async fn create_for(
    State(app): State<App>,
    caller: Caller,
    visitor: Visitor,
    Path(id): Path<String>,
    Body(wish): Body<MakeKey>,
) -> Result<(StatusCode, Json<NewKeyBody>), Refusal> {
    let maker = caller.key_maker()?;
    if id.parse() != Ok(maker.account) {
        return Err(Refusal::NOT_FOUND);
    }
    let made = make(&app, &visitor, maker, wish).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

#[utoipa::path(
    post,
    path = "/v1/keys",
    operation_id = "create_key",
    tag = "API keys",
    summary = "Make a key",
    description = "A key makes no key that may do more than itself, or longer.",
    request_body = MakeKey,
    security(("key" = ["keys"]), ("session" = [])),
    responses((status = 201, description = "The key, shown this once", body = NewKeyBody)),
)]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    visitor: Visitor,
    Body(wish): Body<MakeKey>,
) -> Result<(StatusCode, Json<NewKeyBody>), Refusal> {
    let maker = caller.key_maker()?;
    let made = make(&app, &visitor, maker, wish).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// `POST /v1/keys/{id}/rotation`: the new key is as the old one, which goes on for a while or not.
#[utoipa::path(
    post,
    path = "/v1/keys/{id}/rotation",
    operation_id = "rotate_key",
    tag = "API keys",
    summary = "Rotate a key",
    description = "The old one goes on for `overlap_s` seconds; without them it is revoked.",
    params(("id" = KeyId, Path)),
    request_body = RotateKey,
    security(("key" = ["keys"]), ("session" = [])),
    responses((status = 201, description = "A key that may do the same, shown this once", body = NewKeyBody)),
)]
pub(crate) async fn rotate(
    State(app): State<App>,
    caller: Caller,
    visitor: Visitor,
    Path(id): Path<String>,
    Body(wish): Body<RotateKey>,
) -> Result<(StatusCode, Json<NewKeyBody>), Refusal> {
    let maker = caller.key_maker()?;
    let id: KeyId = id.parse().map_err(|_| Refusal::NOT_FOUND)?;
    if wish.overlap_s > OVERLAP_S_MAX {
        return Err(Refusal::bad_body("overlap_s must be at most 2592000"));
    }
    let now = app.clock.now();
    let old = app.store.key(id.clone()).await?;
    let old = old.filter(|old| old.account == maker.account);
    let old = old.ok_or(Refusal::NOT_FOUND)?.row;
    // A key that rotates itself hands on what it has, its time as well.
    let lifetime = old.expires.map(|end| end.since(old.created));
    let expires = lifetime.map(|ms| now.plus(ms));
    let is_itself = caller.is_key(&id);
    if !is_itself && !within(&maker, &old.scopes, expires) {
        return Err(Refusal::BEYOND_THE_KEY);
    }
    let (key, row) = new_key(&app, &visitor, &maker, old.name, old.scopes, expires).await?;
    let shown = new_shown(&key, &row);
    let old_ends = now.plus(wish.overlap_s * 1000);
    match app.store.rotate_key(id.clone(), row, old_ends).await? {
        KeyRotated::NoKey => return Err(Refusal::NOT_FOUND),
        KeyRotated::Yes => {}
        KeyRotated::YesAndRevoked => {
            app.revoked.notify_waiters();
            app.hasher.forget(&id).await;
        }
    }
    Ok((StatusCode::CREATED, Json(shown)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    #[serde(default = "Page::limit_default")]
    limit: u32,
    after: Option<String>,
}

impl Page {
    const fn limit_default() -> u32 {
        PAGE_DEFAULT
    }

    /// What stands behind this one, as much as nobody has said how much of.
    pub(crate) const fn behind(after: Option<String>) -> Self {
        Self {
            limit: PAGE_DEFAULT,
            after,
        }
    }

    /// Behind what, and how many.
    pub(crate) fn read<T: FromStr>(
        self,
        bad_after: &'static str,
    ) -> Result<(Option<T>, u32), Refusal> {
        if !(1..=PAGE_MAX).contains(&self.limit) {
            return Err(Refusal::bad_body("limit must be between 1 and 100"));
        }
        let after = self.after.map(|text| text.parse()).transpose();
        let after = after.map_err(|_| Refusal::bad_body(bad_after))?;
        Ok((after, self.limit))
    }
}

#[utoipa::path(
    get,
    path = "/v1/keys",
    operation_id = "list_keys",
    tag = "API keys",
    summary = "List the keys, oldest first",
    description = "",
    params(("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "50 when left out"), ("after" = Option<KeyId>, Query, description = "The `next` of the page before")),
    security(("key" = ["account"]), ("token" = ["account"]), ("session" = [])),
    responses((status = 200, description = "One page of them", body = Keys)),
)]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Json<Keys>, Refusal> {
    let account = caller.reader()?;
    page_of(&app, account, page).await.map(Json)
}

/// One page of an account's keys.
pub(crate) async fn page_of(app: &App, account: AccountId, page: Page) -> Result<Keys, Refusal> {
    let (after, limit) = page.read::<KeyId>("after must be a key's id")?;
    let rows = app.store.keys(account, after, limit).await?;
    let full = u32::try_from(rows.len()).is_ok_and(|count| count == limit);
    let next = rows.last().filter(|_| full).map(|row| row.id.to_string());
    let keys = rows.into_iter().map(shown).collect();
    Ok(Keys { keys, next })
}

#[utoipa::path(
    delete,
    path = "/v1/keys/{id}",
    operation_id = "revoke_key",
    tag = "API keys",
    summary = "Revoke a key",
    description = "",
    params(("id" = KeyId, Path)),
    security(("key" = ["keys"]), ("session" = [])),
    responses((status = 204, description = "Revoked: it buys nothing more, its tokens count no more, and relays close what they let in within seconds")),
)]
pub(crate) async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    let account = caller.warden()?;
    end(&app, account, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes a key of an account; relays hear of it at once.
pub(crate) async fn end(app: &App, account: AccountId, id: &str) -> Result<(), Refusal> {
    let id: KeyId = id.parse().map_err(|_| Refusal::NOT_FOUND)?;
    let now = app.clock.now();
    if !app.store.revoke_key(account, id.clone(), now).await? {
        return Err(Refusal::NOT_FOUND);
    }
    app.revoked.notify_waiters();
    app.hasher.forget(&id).await;
    Ok(())
}

/// Makes a key. What is returned is the only place where it is ever shown.
pub(crate) async fn make(
    app: &App,
    visitor: &Visitor,
    maker: KeyMaker,
    wish: MakeKey,
) -> Result<NewKeyBody, Refusal> {
    if !is_name(&wish.name) {
        return Err(Refusal::bad_body(
            "name must have 1 to 100 printable characters",
        ));
    }
    let scopes: Scopes = match wish.scopes {
        Some(scopes) if scopes.is_empty() => {
            return Err(Refusal::bad_body("scopes must name at least one"));
        }
        Some(scopes) => scopes.into_iter().collect(),
        None => maker.scopes.clone(),
    };
    if wish
        .expires_in_s
        .is_some_and(|s| !(1..=LIFE_S_MAX).contains(&s))
    {
        return Err(Refusal::bad_body(
            "expires_in_s must be between 1 and 315360000",
        ));
    }
    let now = app.clock.now();
    let expires = wish
        .expires_in_s
        .map(|s| now.plus(s * 1000))
        .or(maker.until);
    if !within(&maker, &scopes, expires) {
        return Err(Refusal::BEYOND_THE_KEY);
    }
    let (key, row) = new_key(app, visitor, &maker, wish.name, scopes, expires).await?;
    let shown = new_shown(&key, &row);
    match app.store.create_key(row, app.config.live_keys_max).await? {
        KeyCreated::TooMany => Err(Refusal::TOO_MANY_KEYS),
        KeyCreated::NoAccount => Err(Refusal::NOT_FOUND),
        KeyCreated::Yes => Ok(shown),
    }
}

fn within(maker: &KeyMaker, scopes: &Scopes, expires: Option<Time>) -> bool {
    let in_time = maker
        .until
        .is_none_or(|until| expires.is_some_and(|end| end <= until));
    scopes.is_within(&maker.scopes) && in_time
}

async fn new_key(
    app: &App,
    visitor: &Visitor,
    maker: &KeyMaker,
    name: String,
    scopes: Scopes,
    expires: Option<Time>,
) -> Result<(ApiKey, NewKey), Refusal> {
    app.limits
        .new_key(maker.account, visitor, app.clock.now())?;
    let key = ApiKey::generate(Kind::Live);
    let row = NewKey {
        id: key.id().clone(),
        account: maker.account,
        name,
        hash: app.hasher.hash_key(&key).await?,
        scopes,
        expires,
        now: app.clock.now(),
    };
    Ok((key, row))
}

fn new_shown(key: &ApiKey, row: &NewKey) -> NewKeyBody {
    NewKeyBody {
        id: row.id.to_string(),
        name: row.name.clone(),
        key: key.show(),
        created_at: rfc3339(row.now),
        scopes: row.scopes.iter().collect(),
        expires_at: row.expires.map(rfc3339),
    }
}

pub(crate) fn shown(row: KeyRow) -> Key {
    Key {
        id: row.id.to_string(),
        name: row.name,
        created_at: rfc3339(row.created),
        last_used_at: row.last_used.map(rfc3339),
        revoked_at: row.revoked.map(rfc3339),
        scopes: row.scopes.iter().collect(),
        expires_at: row.expires.map(rfc3339),
    }
}

/// Thirty days.
const OVERLAP_S_MAX: u64 = 30 * 24 * 3600;
/// Ten years.
const LIFE_S_MAX: u64 = 10 * 365 * 24 * 3600;
const PAGE_DEFAULT: u32 = 50;
const PAGE_MAX: u32 = 100;
