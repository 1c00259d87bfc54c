//! Reads a request's query into the type that a handler asks for, or refuses.

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use crate::{problem::Refusal, router::App};

/// A query that is a `T`.
///
/// Not axum's own `Query`: when that refuses, it logs what was sent, at the most talkative level.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Refusal> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(said)| Self(said))
            .map_err(|_| Refusal::from_status(StatusCode::BAD_REQUEST))
    }
}
