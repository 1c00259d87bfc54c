//! Signing up, signing in, and reading one's own account.
//!
//! Neither call tells whether an address has an account: the same status, the same body, one
//! Argon2 run and (for sign-up) one durable write either way. Without confirming addresses by
//! e-mail, somebody who signs up *and then* signs in still learns it from the second call.

use axum::{Json, extract::State, http::StatusCode};
use skytale_wire::{
    http::{Account, Secret, Session, SignIn, SignUp, SignedUp},
    token::{AccountId, Grant, Scope},
};

use crate::{
    body::Body,
    caller::Caller,
    clock::rfc3339,
    problem::Refusal,
    router::App,
    store::{Email, NewAccount},
    tokens,
};

pub(crate) async fn sign_up(
    State(app): State<App>,
    Body(wish): Body<SignUp>,
) -> Result<(StatusCode, Json<SignedUp>), Refusal> {
    let email = Email::parse(&wish.email).ok_or(Refusal::bad_body(
        "email must be an address like name@example.org, in ASCII",
    ))?;
    check_password_length(&wish.password)?;
    let password = app.hasher.hash_password(&wish.password).await?;
    let now = app.clock.now();
    let id = AccountId(app.uuid());
    let account = NewAccount {
        id,
        email,
        password,
        now,
    };
    // Whether the address was taken is for the next sign-in to find out.
    app.store.create_account(account).await?;
    let next = "/v1/sessions".to_owned();
    Ok((StatusCode::ACCEPTED, Json(SignedUp { next })))
}

pub(crate) async fn sign_in(
    State(app): State<App>,
    Body(wish): Body<SignIn>,
) -> Result<(StatusCode, Json<Session>), Refusal> {
    if wish.password.expose().len() > PASSWORD_BYTES_MAX {
        return Err(Refusal::WRONG_PASSWORD);
    }
    let stored = match Email::parse(&wish.email) {
        Some(email) => app.store.login(email).await?,
        None => None,
    };
    let hash = stored.as_ref().map(|(_, hash)| hash);
    let good = app.hasher.check_password(&wish.password, hash).await?;
    let (Some((account, _)), true) = (stored, good) else {
        return Err(Refusal::WRONG_PASSWORD);
    };
    let scopes = [Scope::Account, Scope::Keys].into();
    let issued = tokens::issue(&app, account, None, Grant::Account, scopes, SESSION_MS);
    let session = Session {
        account_id: account,
        token: issued.token,
        expires_at: rfc3339(issued.expires),
    };
    Ok((StatusCode::CREATED, Json(session)))
}

pub(crate) async fn me(State(app): State<App>, caller: Caller) -> Result<Json<Account>, Refusal> {
    let id = caller.reader()?;
    let row = app.store.account(id).await?.ok_or(Refusal::NOT_FOUND)?;
    Ok(Json(Account {
        id,
        email: row.email,
        created_at: rfc3339(row.created),
    }))
}

fn check_password_length(password: &Secret) -> Result<(), Refusal> {
    if (PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX).contains(&password.expose().len()) {
        Ok(())
    } else {
        Err(Refusal::bad_body("password must have 10 to 1024 bytes"))
    }
}

const PASSWORD_BYTES_MIN: usize = 10;
/// Bounds what hashing costs.
const PASSWORD_BYTES_MAX: usize = 1_024;
const SESSION_MS: u64 = 15 * 60_000;
