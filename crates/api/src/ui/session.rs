//! Whose page it is: a session in a cookie.
//!
//! The cookie holds the token that `POST /v1/sessions` gives too, for a quarter of an hour, and no
//! other token counts here: none that was bought with an API key, and none for a relay. No relay takes
//! it either. Scripts cannot read it, and other sites' pages cannot make a browser send it.

use std::fmt;

use axum::{
    extract::FromRequestParts,
    http::{
        HeaderMap, HeaderValue,
        header::{COOKIE, SET_COOKIE},
        request::Parts,
    },
    response::{IntoResponse as _, Redirect, Response},
};
use skytale_wire::{id::Digest, token::AccountId};
use subtle::ConstantTimeEq as _;

use crate::{
    caller::Caller, config::Config, problem::Refusal, router::App, store::AccountRow,
    tokens::Issued, visitor::Visitor,
};

/// Somebody who has signed in with this browser.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) account: AccountId,
    pub(crate) row: AccountRow,
    /// What its keys are made as.
    pub(crate) caller: Caller,
    pub(crate) proof: Proof,
}

/// What each form of a session carries, to tell it from one on somebody else's page. Who sees it
/// learns nothing of the cookie.
pub(crate) struct Proof(String);

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(…)")
    }
}

impl Proof {
    fn of(token: &str) -> Self {
        Self(Digest::of(&[b"skytale dashboard form", token.as_bytes()]).to_string())
    }

    /// As it stands in a form.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Whether this came back.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }
}

impl FromRequestParts<App> for Owner {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let Some(token) = in_cookie(&parts.headers, &app.config) else {
            return Err(Redirect::to("/ui/sign-in").into_response());
        };
        let visitor = Visitor::of(parts);
        let found = match Caller::in_session(app, &visitor, token).await {
            Ok(caller) => caller.clone().owner().map(|owner| (caller, owner)),
            Err(refusal) => Err(refusal),
        };
        match found {
            Ok((caller, (account, row))) => Ok(Self {
                account,
                row,
                caller,
                proof: Proof::of(token),
            }),
            Err(refusal) if refusal == Refusal::UNAUTHENTICATED => {
                Err(ended(&app.config, "/ui/sign-in?note=ended"))
            }
            Err(refusal) => Err(refusal.into_response()),
        }
    }
}

/// Signed in: on with the first page.
pub(crate) fn begun(config: &Config, issued: &Issued, lifetime_ms: u64) -> Response {
    let cookie = cookie(config, issued.token.expose(), lifetime_ms / 1_000);
    with_cookie(Redirect::to("/ui"), &cookie)
}

/// Signed out: the browser forgets the session.
pub(crate) fn ended(config: &Config, to: &str) -> Response {
    with_cookie(Redirect::to(to), &cookie(config, "", 0))
}

fn with_cookie(redirect: Redirect, cookie: &str) -> Response {
    let mut response = redirect.into_response();
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(SET_COOKIE, value);
    }
    response
}

fn cookie(config: &Config, value: &str, age_s: u64) -> String {
    let secure = if is_secure(config) { "; Secure" } else { "" };
    let name = name(config);
    format!("{name}={value}; Path=/ui; Max-Age={age_s}; HttpOnly; SameSite=Strict{secure}")
}

/// The one cookie of that name. Two are two opinions: a page of a neighbouring host can add one.
fn in_cookie<'a>(headers: &'a HeaderMap, config: &Config) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter();
    let pairs = lines.filter_map(|line| line.to_str().ok());
    let pairs = pairs.flat_map(|line| line.split(';'));
    let pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
    let mut ours = pairs.filter(|(its, _)| *its == name(config));
    let (_, token) = ours.next()?;
    ours.next().is_none().then_some(token)
}

/// The prefix keeps pages that came in clear from setting it. `__Host-` would ask for the path `/`,
/// and so send the cookie to the routes for programs.
fn name(config: &Config) -> &'static str {
    if is_secure(config) {
        "__Secure-skytale"
    } else {
        "skytale"
    }
}

/// Whether browsers come by TLS.
fn is_secure(config: &Config) -> bool {
    config.tls_cert.is_some() || config.behind_proxy
}
