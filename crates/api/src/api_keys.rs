//! Making, listing and revoking API keys.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::Deserialize;
use skytale_wire::{
    http::{Key, Keys, MakeKey, NewKey as NewKeyBody},
    token::AccountId,
};

use crate::{
    body::Body,
    caller::Caller,
    clock::rfc3339,
    problem::Refusal,
    router::App,
    secret::{ApiKey, KeyId, Kind},
    store::{KeyCreated, KeyRow, NewKey},
};

/// `POST /v1/accounts/{id}/keys`: the same as [`create`], with the account spelt out. Somebody
/// else's account is not found rather than forbidden.
pub(crate) async fn create_for(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Body(wish): Body<MakeKey>,
) -> Result<(StatusCode, Json<NewKeyBody>), Refusal> {
    let account = caller.key_maker()?;
    if id.parse() != Ok(account) {
        return Err(Refusal::NOT_FOUND);
    }
    make(&app, account, wish).await
}

pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(wish): Body<MakeKey>,
) -> Result<(StatusCode, Json<NewKeyBody>), Refusal> {
    let account = caller.key_maker()?;
    make(&app, account, wish).await
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
}

pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Json<Keys>, Refusal> {
    let account = caller.reader()?;
    if !(1..=PAGE_MAX).contains(&page.limit) {
        return Err(Refusal::bad_body("limit must be between 1 and 100"));
    }
    let after = page
        .after
        .map(|id| id.parse::<KeyId>())
        .transpose()
        .map_err(|_| Refusal::bad_body("after must be a key's id"))?;
    let rows = app.store.keys(account, after, page.limit).await?;
    let full = u32::try_from(rows.len()).is_ok_and(|count| count == page.limit);
    let next = rows.last().filter(|_| full).map(|row| row.id.to_string());
    let keys = rows.into_iter().map(shown).collect();
    Ok(Json(Keys { keys, next }))
}

pub(crate) async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    let account = caller.key_maker()?;
    let id: KeyId = id.parse().map_err(|_| Refusal::NOT_FOUND)?;
    let now = app.clock.now();
    if !app.store.revoke_key(account, id.clone(), now).await? {
        return Err(Refusal::NOT_FOUND);
    }
    app.revoked.notify_waiters();
    app.hasher.forget(&id).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn make(
    app: &App,
    account: AccountId,
    wish: MakeKey,
) -> Result<(StatusCode, Json<NewKeyBody>), Refusal> {
    let letters = wish.name.chars().count();
    if !(1..=NAME_CHARS_MAX).contains(&letters) || wish.name.chars().any(char::is_control) {
        return Err(Refusal::bad_body(
            "name must have 1 to 100 printable characters",
        ));
    }
    let key = ApiKey::generate(Kind::Live);
    let hash = app.hasher.hash_key(&key).await?;
    let now = app.clock.now();
    let row = NewKey {
        id: key.id().clone(),
        account,
        name: wish.name.clone(),
        hash,
        now,
    };
    match app.store.create_key(row, app.config.live_keys_max).await? {
        KeyCreated::TooMany => Err(Refusal::TOO_MANY_KEYS),
        KeyCreated::NoAccount => Err(Refusal::NOT_FOUND),
        KeyCreated::Yes => Ok((
            StatusCode::CREATED,
            Json(NewKeyBody {
                id: key.id().to_string(),
                name: wish.name,
                key: key.show(),
                created_at: rfc3339(now),
            }),
        )),
    }
}

fn shown(row: KeyRow) -> Key {
    Key {
        id: row.id.to_string(),
        name: row.name,
        created_at: rfc3339(row.created),
        last_used_at: row.last_used.map(rfc3339),
        revoked_at: row.revoked.map(rfc3339),
    }
}

const NAME_CHARS_MAX: usize = 100;
const PAGE_DEFAULT: u32 = 50;
const PAGE_MAX: u32 = 100;
