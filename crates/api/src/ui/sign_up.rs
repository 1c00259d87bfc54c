//! Signing up. As with `POST /v1/accounts` nobody learns here whether an address has an account.

use axum::{
    extract::State,
    response::{Html, Redirect},
};
use maud::html;
use serde::Deserialize;
use skytale_wire::http::{Secret, SignUp};

use super::{form::Form, frame::open_page};
use crate::{accounts, problem::Refusal, router::App, visitor::Newcomer};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    email: String,
    name: String,
    password: Secret,
}

pub(crate) async fn show() -> Html<String> {
    open_page(
        "Sign up",
        &html! {
            form.card method="post" action="/ui/sign-up" {
                label for="email" { "E-mail" }
                input #email type="email" name="email" required autocomplete="username" maxlength="254";
                label for="name" { "Name " span.quiet { "(may be left out)" } }
                input #name type="text" name="name" autocomplete="name" maxlength="100";
                label for="password" { "Password " span.quiet { "(10 characters or more)" } }
                input #password type="password" name="password" required autocomplete="new-password" minlength="10" maxlength="1024";
                button.main type="submit" { "Sign up" }
            }
            p { "There is an account already? " a href="/ui/sign-in" { "Sign in" } }
        },
    )
}

pub(crate) async fn open(
    State(app): State<App>,
    _: Newcomer,
    Form(wish): Form<Wish>,
) -> Result<Redirect, Refusal> {
    let Wish {
        email,
        name,
        password,
    } = wish;
    let wish = SignUp {
        email,
        password,
        name: Some(name),
    };
    accounts::open(&app, wish).await?;
    Ok(Redirect::to("/ui/sign-in?note=signed-up"))
}
