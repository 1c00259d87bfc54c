//! Whoever sends a request, before it is known who that is: an address, and what is left to it of
//! the limits that the request met.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderMap, HeaderValue, request::Parts},
};

use crate::{
    address::{Address, Cidr},
    limits::{Policy, Standing},
    problem::Refusal,
    router::App,
};

/// Comes in with each request, and is asked on the way out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Visitor(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    address: Address,
    standings: Mutex<Vec<Standing>>,
}

/// The other end of the socket: put beside each request by who accepted it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// A visitor whom nobody knows yet, counted: for routes that are open to everybody.
#[derive(Debug, Clone)]
pub(crate) struct Newcomer(pub(crate) Visitor);

impl Visitor {
    /// Says who sends it, and puts that beside the request.
    pub(crate) fn enter(request: &mut Request, trusted: &[Cidr]) -> Self {
        let address = match request.extensions().get::<Peer>() {
            Some(peer) => Address::of(peer.0, request.headers(), trusted),
            None => Address::default(),
        };
        let standings = Mutex::default();
        let visitor = Self(Arc::new(Seen { address, standings }));
        request.extensions_mut().insert(visitor.clone());
        visitor
    }

    pub(crate) fn of(parts: &Parts) -> Self {
        parts.extensions.get::<Self>().cloned().unwrap_or_default()
    }

    pub(crate) fn address(&self) -> Address {
        self.0.address
    }

    /// Something was counted; this is left.
    pub(crate) fn note(&self, standing: Standing) {
        self.standings(|all| all.push(standing));
    }

    /// It was not counted after all.
    pub(crate) fn forget(&self, policy: Policy) {
        self.standings(|all| all.retain(|it| !it.is_of(policy)));
    }

    /// Tells what is left (draft-ietf-httpapi-ratelimit-headers). An answer to which no limit applied
    /// says nothing.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let list = |item: fn(&Standing) -> String| {
            let items: Vec<String> = self.standings(|all| all.iter().map(item).collect());
            HeaderValue::from_str(&items.join(", ")).ok()
        };
        for (name, value) in [
            ("ratelimit-policy", list(Standing::policy_item)),
            ("ratelimit", list(Standing::item)),
        ] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                headers.insert(name, value);
            }
        }
    }

    fn standings<T>(&self, work: impl FnOnce(&mut Vec<Standing>) -> T) -> T {
        let all = self.0.standings.lock();
        work(&mut all.unwrap_or_else(PoisonError::into_inner))
    }
}

impl FromRequestParts<App> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

impl FromRequestParts<App> for Newcomer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        // Who has passed the door for repeated requests was counted there.
        if let Some(counted) = parts.extensions.remove::<Self>() {
            return Ok(counted);
        }
        let visitor = Visitor::of(parts);
        app.limits.unproven(&visitor, app.clock.now())?;
        Ok(Self(visitor))
    }
}
