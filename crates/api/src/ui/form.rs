//! What a page sends back: read, and refused when it was another site's page that sent it.
//!
//! Three things stand against a forged form: the cookie is not sent with it (`SameSite`), the browser
//! says where it comes from, and it lacks the session's proof. The first two hold before anybody has
//! signed in, so nobody is signed in to somebody else's account by a page of theirs.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts as _, Request},
    http::{
        HeaderMap, HeaderName,
        header::{CONTENT_TYPE, HOST, ORIGIN},
    },
    response::{IntoResponse as _, Response},
};
use maud::{Markup, html};
use serde::de::DeserializeOwned;

use super::session::{Owner, Proof};
use crate::{problem::Refusal, router::App};

/// A form of a page for everybody.
#[derive(Debug)]
pub(crate) struct Form<T>(pub(crate) T);

/// A form of a page for who has signed in: what it asks for, and who does.
#[derive(Debug)]
pub(crate) struct Asked<T>(pub(crate) Owner, pub(crate) T);

/// The first field of each form of a session.
pub(crate) fn proof(proof: &Proof) -> Markup {
    html! { input type="hidden" name="proof" value=(proof.text()); }
}

impl<T: DeserializeOwned> FromRequest<App> for Form<T> {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<Self, Response> {
        let body = body(request, app).await?;
        read(&body).map(Self).map_err(Refusal::into_response)
    }
}

impl<T: DeserializeOwned> FromRequest<App> for Asked<T> {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<Self, Response> {
        let (mut parts, rest) = request.into_parts();
        let owner = Owner::from_request_parts(&mut parts, app).await?;
        let body = body(Request::from_parts(parts, rest), app).await?;
        let (proof, asked) = body.split_once('&').unwrap_or((body.as_str(), ""));
        let proof = proof.strip_prefix("proof=").unwrap_or_default();
        if !owner.proof.is(proof) {
            return Err(Refusal::FORGED_FORM.into_response());
        }
        let asked = read(asked).map_err(Refusal::into_response)?;
        Ok(Self(owner, asked))
    }
}

/// The body of a form that one of our own pages has sent.
async fn body(request: Request, app: &App) -> Result<String, Response> {
    if !is_from_our_page(request.headers()) {
        return Err(Refusal::FORGED_FORM.into_response());
    }
    let kind = request.headers().get(CONTENT_TYPE);
    if kind.is_none_or(|kind| kind != "application/x-www-form-urlencoded") {
        return Err(NO_FORM.into_response());
    }
    let bytes = Bytes::from_request(request, app)
        .await
        .map_err(axum::response::IntoResponse::into_response)?;
    String::from_utf8(bytes.into()).map_err(|_| NO_FORM.into_response())
}

fn read<T: DeserializeOwned>(body: &str) -> Result<T, Refusal> {
    serde_urlencoded::from_str(body).map_err(|_| NO_FORM)
}

/// What the browser says of the page: by `Sec-Fetch-Site`, or, where that is not sent (in clear beyond
/// this machine, or by an old browser), by `Origin`. No page can set either. Whoever sends neither is
/// no browser.
fn is_from_our_page(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    let origin = text(ORIGIN).and_then(|origin| origin.split_once("://"));
    origin.is_some_and(|(_, host)| Some(host) == text(HOST))
}

const NO_FORM: Refusal =
    Refusal::bad_body("this is no form of this page: open the page again, and send it from there");

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_our_own_pages_send_forms() {
        let sent = |headers: &[(&'static str, &'static str)]| {
            let mut all = HeaderMap::new();
            all.insert(HOST, HeaderValue::from_static("api.example.org:7700"));
            for (name, value) in headers {
                all.insert(*name, HeaderValue::from_static(value));
            }
            is_from_our_page(&all)
        };
        let ours = ("origin", "https://api.example.org:7700");

        assert!(sent(&[("sec-fetch-site", "same-origin")]));
        assert!(sent(&[ours]));
        // A proxy that names itself as the host, before a browser that says the better of the two.
        assert!(sent(&[
            ("sec-fetch-site", "same-origin"),
            ("origin", "https://outside.example.org"),
        ]));
        assert!(!sent(&[]), "a browser sends one of them");
        for site in ["cross-site", "same-site", "none", ""] {
            assert!(!sent(&[("sec-fetch-site", site), ours]), "{site}");
        }
        for origin in [
            "null",
            "",
            "https://evil.example.org",
            "https://api.example.org",
            "https://api.example.org:7700.evil.example.org",
        ] {
            assert!(!sent(&[("origin", origin)]), "{origin}");
        }
    }
}
