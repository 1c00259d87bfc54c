//! Signing up and in, reading one's own account, changing its password, ending it.
//!
//! Neither call tells whether an address has an account: the same status, the same body, one
//! Argon2 run and (for sign-up) one durable write either way. Without confirming addresses by
//! e-mail, somebody who signs up *and then* signs in still learns it from the second call.

use std::ops::RangeInclusive;

use axum::{Json, extract::State, http::StatusCode};
use skytale_wire::{
    http::{
        Account, ChangePassword, DeleteAccount, Problem, Secret, Session, SignIn, SignUp, SignedUp,
    },
    token::{AccountId, Grant, Scope},
};

use crate::{
    body::Body,
    caller::Caller,
    clock::rfc3339,
    problem::Refusal,
    router::App,
    store::{AccountRow, Email, NewAccount},
    tokens::{self, Issued},
    visitor::{Newcomer, Visitor},
};

#[utoipa::path(
    post,
    path = "/v1/accounts",
    operation_id = "sign_up",
    tag = "Accounts",
    summary = "Sign up",
    description = "Says the same whether or not the address has an account already: signing in is how its owner finds out.",
    request_body = SignUp,
    security(()),
    responses((status = 202, description = "Well formed, whether or not the address was free", body = SignedUp)),
)]
pub(crate) async fn sign_up(
    State(app): State<App>,
    _: Newcomer,
    Body(wish): Body<SignUp>,
) -> Result<(StatusCode, Json<SignedUp>), Refusal> {
    open(&app, wish).await?;
    let next = "/v1/sessions".to_owned();
    Ok((StatusCode::ACCEPTED, Json(SignedUp { next })))
}

/// Opens an account, unless the address has one: that is for the next sign-in to find out.
pub(crate) async fn open(app: &App, wish: SignUp) -> Result<(), Refusal> {
    let email = Email::parse(&wish.email).ok_or(Refusal::bad_body(
        "email must be an address like name@example.org, in ASCII",
    ))?;
    check_password_length(&wish.password)?;
    let name = wish.name.unwrap_or_default();
    if !is_name(&name) && !name.is_empty() {
        return Err(Refusal::bad_body(
            "name must have at most 100 printable characters",
        ));
    }
    let password = app.hasher.hash_password(&wish.password).await?;
    let now = app.clock.now();
    let id = AccountId(app.uuid());
    let account = NewAccount {
        id,
        email,
        name,
        password,
        now,
    };
    app.store.create_account(account).await?;
    Ok(())
}

#[utoipa::path(
    post,
    path = "/v1/sessions",
    operation_id = "sign_in",
    tag = "Accounts",
    summary = "Sign in",
    description = "",
    request_body = SignIn,
    security(()),
    responses(
        (status = 201, description = "A quarter of an hour in which the account is open to its owner", body = Session),
        (status = 401, description = "This e-mail and password do not belong together", content_type = "application/problem+json", body = Problem),
    ),
)]
pub(crate) async fn sign_in(
    State(app): State<App>,
    Newcomer(visitor): Newcomer,
    Body(wish): Body<SignIn>,
) -> Result<(StatusCode, Json<Session>), Refusal> {
    let (account_id, issued) = begin_session(&app, &visitor, &wish).await?;
    let session = Session {
        account_id,
        token: issued.token,
        expires_at: rfc3339(issued.expires),
    };
    Ok((StatusCode::CREATED, Json(session)))
}

/// The token of a session, for who knows the password. Whoever does not learns nothing else, time
/// included.
pub(crate) async fn begin_session(
    app: &App,
    visitor: &Visitor,
    wish: &SignIn,
) -> Result<(AccountId, Issued), Refusal> {
    if wish.password.expose().len() > PASSWORD_BYTES_MAX {
        return Err(Refusal::WRONG_PASSWORD);
    }
    let email = Email::of_account(&wish.email);
    let guess = match &email {
        Some(email) => Some(app.limits.guess(email, visitor, app.clock.now())?),
        None => None,
    };
    let stored = match &email {
        Some(email) => app.store.login(email.clone()).await?,
        None => None,
    };
    let hash = stored.as_ref().map(|(_, hash)| hash);
    let checked = app.hasher.check_password(&wish.password, hash).await;
    if let (Ok(true) | Err(_), Some(guess)) = (checked, guess) {
        guess.was_not_wrong();
    }
    let (Some((account, _)), true) = (stored, checked?) else {
        return Err(Refusal::WRONG_PASSWORD);
    };
    let scopes = [Scope::Account, Scope::Keys].into();
    let issued = tokens::issue(app, account, None, Grant::Account, scopes, SESSION_MS);
    Ok((account, issued))
}

#[utoipa::path(
    get,
    path = "/v1/accounts/me",
    operation_id = "show_account",
    tag = "Accounts",
    summary = "Show the account",
    description = "",
    security(("key" = ["account"]), ("token" = ["account"]), ("session" = [])),
    responses((status = 200, description = "The account", body = Account)),
)]
pub(crate) async fn me(State(app): State<App>, caller: Caller) -> Result<Json<Account>, Refusal> {
    let id = caller.reader()?;
    let row = app.store.account(id).await?.ok_or(Refusal::NOT_FOUND)?;
    Ok(Json(Account {
        id,
        email: row.email,
        name: row.name,
        created_at: rfc3339(row.created),
    }))
}

/// `PUT /v1/accounts/me/password`. All sessions end, this one too: whoever knew the old password may
/// have opened one.
#[utoipa::path(
    put,
    path = "/v1/accounts/me/password",
    operation_id = "change_password",
    tag = "Accounts",
    summary = "Change the password",
    description = "Ends all sessions of the account, this one too.",
    request_body = ChangePassword,
    security(("session" = [])),
    responses((status = 204, description = "Changed")),
)]
pub(crate) async fn change_password(
    State(app): State<App>,
    caller: Caller,
    visitor: Visitor,
    Body(wish): Body<ChangePassword>,
) -> Result<StatusCode, Refusal> {
    let (id, row) = caller.owner()?;
    check_password_length(&wish.new_password)?;
    check_password(&app, &visitor, &wish.password, &row).await?;
    let new = app.hasher.hash_password(&wish.new_password).await?;
    let now = app.clock.now();
    let changed = app
        .store
        .change_password(id, row.password, new, now)
        .await?;
    // Somebody else was quicker.
    changed
        .then_some(StatusCode::NO_CONTENT)
        .ok_or(Refusal::WRONG_PASSWORD)
}

/// `POST /v1/accounts/me/deletion`. Tokens end as soon as relays have heard of it.
#[utoipa::path(
    post,
    path = "/v1/accounts/me/deletion",
    operation_id = "delete_account",
    tag = "Accounts",
    summary = "Delete the account",
    description = "There is no way back. What it used stays counted.",
    request_body = DeleteAccount,
    security(("session" = [])),
    responses((status = 204, description = "Deleted: its keys and tokens count no more, and relays close its connections within seconds")),
)]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    visitor: Visitor,
    Body(wish): Body<DeleteAccount>,
) -> Result<StatusCode, Refusal> {
    let (id, row) = caller.owner()?;
    check_password(&app, &visitor, &wish.password, &row).await?;
    let now = app.clock.now();
    if !app.store.delete_account(id, row.password, now).await? {
        return Err(Refusal::WRONG_PASSWORD);
    }
    app.revoked.notify_waiters();
    Ok(StatusCode::NO_CONTENT)
}

/// In a session too, guesses are counted: it may be a stolen one.
async fn check_password(
    app: &App,
    visitor: &Visitor,
    password: &Secret,
    row: &AccountRow,
) -> Result<(), Refusal> {
    if password.expose().len() > PASSWORD_BYTES_MAX {
        return Err(Refusal::WRONG_PASSWORD);
    }
    let guess = app.limits.guess_for(&row.email, visitor, app.clock.now())?;
    let checked = app
        .hasher
        .check_password(password, Some(&row.password))
        .await;
    if let Ok(true) | Err(_) = checked {
        guess.was_not_wrong();
    }
    checked?.then_some(()).ok_or(Refusal::WRONG_PASSWORD)
}

/// What people call something: 1 to 100 characters, none of which steers a terminal or turns round
/// how the others are read.
pub(crate) fn is_name(text: &str) -> bool {
    let steers = |it: char| it.is_control() || INVISIBLE.iter().any(|range| range.contains(&it));
    (1..=NAME_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(steers)
}

fn check_password_length(password: &Secret) -> Result<(), Refusal> {
    is_password(password)
        .then_some(())
        .ok_or(Refusal::bad_body(PASSWORD_RULE))
}

/// Whether an account may have this password.
pub(crate) fn is_password(password: &Secret) -> bool {
    (PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX).contains(&password.expose().len())
}

pub(crate) const PASSWORD_RULE: &str = "password must have 10 to 1024 bytes";

const NAME_CHARS_MAX: usize = 100;
/// Marks, embeddings, overrides and isolates of direction, breaks of lines, and what is nothing but
/// space that nobody sees. Joiners are not among them: scripts and emoji need those.
const INVISIBLE: &[RangeInclusive<char>] = &[
    '\u{061c}'..='\u{061c}',
    '\u{200b}'..='\u{200b}',
    '\u{200e}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{2069}',
    '\u{feff}'..='\u{feff}',
];
const PASSWORD_BYTES_MIN: usize = 10;
/// Bounds what hashing costs.
const PASSWORD_BYTES_MAX: usize = 1_024;
/// How long somebody who has signed in needs no password.
pub(crate) const SESSION_MS: u64 = 15 * 60_000;
