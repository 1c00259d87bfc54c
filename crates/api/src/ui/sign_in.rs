//! Signing in and out.

use axum::{
    extract::State,
    http::StatusCode,
    response::{Html, IntoResponse as _, Response},
};
use maud::html;
use serde::Deserialize;
use skytale_wire::http::{Code, SignIn};

use super::{
    form::{Asked, Form},
    frame::open_page,
    session,
};
use crate::{
    accounts::{SESSION_MS, begin_session},
    problem::Refusal,
    query::Query,
    router::App,
    visitor::Newcomer,
};

#[derive(Debug, Deserialize)]
pub(crate) struct Shown {
    /// Why somebody is here.
    #[serde(default)]
    note: String,
}

/// A form without fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

pub(crate) async fn show(Query(shown): Query<Shown>) -> Html<String> {
    // One of these sentences and nothing that stands in the address.
    let note = match shown.note.as_str() {
        "ended" => "The session has ended. Sign in again.",
        "signed-out" => "Signed out.",
        "signed-up" => {
            "If this address had no account, it has one now: sign in. If it had one, its password is the one from before."
        }
        _ => "",
    };
    asking(note, "")
}

/// By the same way as `POST /v1/sessions`: the same limits, the same hash, the same time.
pub(crate) async fn begin(
    State(app): State<App>,
    Newcomer(visitor): Newcomer,
    Form(wish): Form<SignIn>,
) -> Result<Response, Refusal> {
    match begin_session(&app, &visitor, &wish).await {
        Ok((_, issued)) => Ok(session::begun(&app.config, &issued, SESSION_MS)),
        Err(refusal) if refusal.code() == Code::WrongPassword => {
            let again = asking(
                "This e-mail and password do not belong together.",
                &wish.email,
            );
            Ok((StatusCode::FORBIDDEN, again).into_response())
        }
        Err(refusal) => Err(refusal),
    }
}

pub(crate) async fn end(State(app): State<App>, Asked(_, Nothing {}): Asked<Nothing>) -> Response {
    session::ended(&app.config, "/ui/sign-in?note=signed-out")
}

fn asking(note: &str, email: &str) -> Html<String> {
    open_page(
        "Sign in",
        &html! {
            @if !note.is_empty() { p.notice role="status" { (note) } }
            form.card method="post" action="/ui/sign-in" {
                label for="email" { "E-mail" }
                // Not of type "email": the account that `skytale up` makes is called "local".
                input #email type="text" inputmode="email" name="email" value=(email) required autocomplete="username" maxlength="254";
                label for="password" { "Password" }
                input #password type="password" name="password" required autocomplete="current-password" maxlength="1024";
                button.main type="submit" { "Sign in" }
            }
            p { "No account yet? " a href="/ui/sign-up" { "Sign up" } }
        },
    )
}
