//! Refusals as pages: what went wrong, what to do, and the way back.

use axum::{
    http::{
        HeaderValue,
        header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse as _, Response},
};
use maud::html;
use skytale_wire::http::Code;

use super::frame::{Place, open_page};
use crate::problem::Refusal;

/// The refusal in words, for a request of this path.
pub(crate) fn told(response: Response, path: &str, request_id: &str) -> Response {
    let (mut parts, _) = response.into_parts();
    let refusal = Refusal::of(&mut parts);
    let back = Place::of(path);
    let page = open_page(
        title(refusal.code()),
        &html! {
            p.notice.bad { (sentence(refusal)) }
            @if let Some(seconds) = refusal.retry_after_s() {
                p { "Try again in " (super::words::span(seconds)) "." }
            }
            p { a href=(back.path()) { "Back to " (back.name()) } }
            p.quiet { "Request " code { (request_id) } ": whoever runs this server finds it in the log by that." }
        },
    );
    let body = page.into_response().into_body();
    parts.status = refusal.status();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    if let Some(seconds) = refusal.retry_after_s() {
        parts.headers.insert(RETRY_AFTER, seconds.into());
    }
    Response::from_parts(parts, body)
}

fn title(code: Code) -> &'static str {
    let own = TITLES.iter().find(|(its, _)| *its == code);
    own.map_or("That did not work", |own| own.1)
}

/// Its detail is written for programs as well; where that does not help in a browser, other words.
fn sentence(refusal: Refusal) -> String {
    let own = SENTENCES.iter().find(|(its, _)| *its == refusal.code());
    let said = own.map_or(refusal.detail(), |own| own.1);
    let mut letters = said.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    let mut said: String = first.into_iter().chain(letters).collect();
    if !said.ends_with('.') {
        said.push('.');
    }
    said
}

const TITLES: [(Code, &str); 7] = [
    (Code::NotFound, "There is nothing here"),
    (Code::TooManyRequests, "Too often"),
    (Code::Busy, "Not now"),
    (Code::Unavailable, "Not now"),
    (Code::RelaySilent, "The relay does not answer"),
    (Code::Timeout, "Not now"),
    (Code::Internal, "Something broke"),
];
const SENTENCES: [(Code, &str); 3] = [
    (
        Code::NotFound,
        "No page has this address, or what it is about is gone or belongs to another account.",
    ),
    (
        Code::MethodNotAllowed,
        "This address takes forms only: go back, and start from the page.",
    ),
    (
        Code::TooLarge,
        "That was too long: make it shorter, and send it again.",
    ),
];
