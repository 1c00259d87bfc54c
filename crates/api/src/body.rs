//! Reads a request's JSON body into the type a handler asks for, or refuses.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::{problem::Refusal, router::App};

/// A body of `application/json` that is a `T` and nothing else.
///
/// Not axum's own `Json`: that one answers with serde's words, which repeat what was sent.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<Self, Response> {
        if !is_json(&request) {
            return Err(Refusal::WRONG_MEDIA_TYPE.into_response());
        }
        let bytes = Bytes::from_request(request, app)
            .await
            .map_err(axum::response::IntoResponse::into_response)?;
        read(&bytes).map(Self).map_err(Refusal::into_response)
    }
}

/// What a body of JSON says.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    // serde would take a list of the fields' values in order for the object.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(MISSHAPEN);
    }
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        Category::Data => MISSHAPEN,
        Category::Syntax | Category::Eof | Category::Io => Refusal::BAD_JSON,
    })
}

/// `application/json`, with or without parameters, in any case.
fn is_json(request: &Request) -> bool {
    request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

const MISSHAPEN: Refusal =
    Refusal::bad_body("a field is missing, unknown, doubled, or not of the form this route takes");
