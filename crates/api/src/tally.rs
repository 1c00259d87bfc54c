//! What the server has done, in numbers, and the text that they are read as.
//!
//! Routes are the patterns of the router and never paths, so that no number names an account or a key.
//! The text is Prometheus' own and written here: labels are words of ours, and a histogram that is
//! only counted up needs no library that would keep samples until somebody asks.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::http::{Method, StatusCode};

use crate::{held::relays_now, router::App};

/// Counted since the server was started.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    answered: Mutex<BTreeMap<Answered, u64>>,
    took: Mutex<BTreeMap<String, Took>>,
    connections: AtomicU64,
    handshakes_failed: AtomicU64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Answered {
    route: String,
    method: &'static str,
    status: u16,
}

/// How long requests to one route took.
#[derive(Debug, Clone, Default)]
struct Took {
    /// For each of [`WITHIN_MS`], how many took so long at most.
    within: [u64; WITHIN_MS.len()],
    count: u64,
    ms: u64,
}

impl Tally {
    /// A request was answered.
    pub(crate) fn answer(&self, route: &str, method: &Method, status: StatusCode, ms: u64) {
        let answered = Answered {
            route: route.to_owned(),
            method: known(method),
            status: status.as_u16(),
        };
        *held(&self.answered).entry(answered).or_default() += 1;
        let mut all = held(&self.took);
        let took = all.entry(route.to_owned()).or_default();
        took.count += 1;
        took.ms += ms;
        for (most, count) in WITHIN_MS.iter().zip(&mut took.within) {
            *count += u64::from(ms <= *most);
        }
    }

    /// A connection was accepted.
    pub(crate) fn accept(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// One ended before TLS was agreed on.
    pub(crate) fn fail_handshake(&self) {
        self.handshakes_failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// All numbers as Prometheus reads them.
pub(crate) async fn page(app: &App) -> String {
    let mut page = String::new();
    let tally = &app.tally;
    let busy = app.config.requests_max - app.places.available_permits();
    let store = app.store.ready().await.is_ok();
    let draining = app.draining.load(Ordering::Relaxed);
    let relays = relays_now(app).relays;
    let unwell = relays.iter().filter(|relay| !relay.healthy).count();
    for (name, about, value) in [
        (
            "skytale_api_store_ready",
            "Whether the database answers.",
            u64::from(store),
        ),
        (
            "skytale_api_draining",
            "Whether the server was told to stop.",
            u64::from(draining),
        ),
        (
            "skytale_api_requests_in_progress",
            "Requests that are worked on, those of waiting relays included.",
            busy as u64,
        ),
        (
            "skytale_api_hashes_waiting",
            "Passwords and unfamiliar keys that wait to be hashed, or are.",
            app.hasher.waiting() as u64,
        ),
        (
            "skytale_api_relays_unwell",
            "Relays of this server that were not heard of late, or are not ready by their own word.",
            unwell as u64,
        ),
    ] {
        head(&mut page, name, about, "gauge");
        line(&mut page, format_args!("{name} {value}"));
    }
    for (name, about, value) in [
        (
            "skytale_api_hashes_total",
            "Passwords and keys hashed with Argon2.",
            app.hasher.runs(),
        ),
        (
            "skytale_api_connections_total",
            "Connections accepted.",
            tally.connections.load(Ordering::Relaxed),
        ),
        (
            "skytale_api_handshakes_failed_total",
            "Connections that ended before TLS was agreed on.",
            tally.handshakes_failed.load(Ordering::Relaxed),
        ),
    ] {
        head(&mut page, name, about, "counter");
        line(&mut page, format_args!("{name} {value}"));
    }
    requests(&mut page, tally);
    page
}

fn requests(page: &mut String, tally: &Tally) {
    let name = "skytale_api_requests_total";
    head(page, name, "Requests answered.", "counter");
    let answered = held(&tally.answered).clone();
    for (it, count) in answered {
        let (route, method, status) = (it.route, it.method, it.status);
        let labels = format_args!("route=\"{route}\",method=\"{method}\",status=\"{status}\"");
        line(page, format_args!("{name}{{{labels}}} {count}"));
    }
    let name = "skytale_api_request_seconds";
    head(page, name, "How long requests took.", "histogram");
    let all = held(&tally.took).clone();
    for (route, took) in all {
        let mut bucket = |most: &str, count: u64| {
            let labels = format_args!("route=\"{route}\",le=\"{most}\"");
            line(page, format_args!("{name}_bucket{{{labels}}} {count}"));
        };
        for (most, count) in WITHIN_MS.iter().zip(took.within) {
            bucket(&seconds(*most), count);
        }
        bucket("+Inf", took.count);
        let sum = seconds(took.ms);
        line(page, format_args!("{name}_sum{{route=\"{route}\"}} {sum}"));
        let count = took.count;
        line(
            page,
            format_args!("{name}_count{{route=\"{route}\"}} {count}"),
        );
    }
}

fn head(page: &mut String, name: &str, about: &str, kind: &str) {
    line(page, format_args!("# HELP {name} {about}"));
    line(page, format_args!("# TYPE {name} {kind}"));
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(page, "{text}").expect("a string takes everything");
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1_000, ms % 1_000)
}

/// A method is a word of the caller's: those that no route takes are one.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

fn held<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From a familiar key's token to a relay's question that waits five seconds.
const WITHIN_MS: [u64; 9] = [1, 5, 10, 25, 100, 250, 1_000, 2_500, 10_000];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_counts_everything_that_was_quicker_too() {
        let tally = Tally::default();
        for ms in [1, 7, 7, 20_000] {
            tally.answer("/v1/keys", &Method::GET, StatusCode::OK, ms);
        }

        let mut page = String::new();
        requests(&mut page, &tally);

        for expected in [
            "skytale_api_requests_total{route=\"/v1/keys\",method=\"GET\",status=\"200\"} 4",
            "skytale_api_request_seconds_bucket{route=\"/v1/keys\",le=\"0.001\"} 1",
            "skytale_api_request_seconds_bucket{route=\"/v1/keys\",le=\"0.005\"} 1",
            "skytale_api_request_seconds_bucket{route=\"/v1/keys\",le=\"0.010\"} 3",
            "skytale_api_request_seconds_bucket{route=\"/v1/keys\",le=\"10.000\"} 3",
            "skytale_api_request_seconds_bucket{route=\"/v1/keys\",le=\"+Inf\"} 4",
            "skytale_api_request_seconds_sum{route=\"/v1/keys\"} 20.015",
            "skytale_api_request_seconds_count{route=\"/v1/keys\"} 4",
        ] {
            assert!(
                page.lines().any(|line| line == expected),
                "{expected}: {page}"
            );
        }
    }

    #[test]
    fn a_method_that_somebody_made_up_is_not_repeated() {
        let tally = Tally::default();
        let odd = Method::from_bytes(b"NEEDLE").unwrap();
        tally.answer("none", &odd, StatusCode::NOT_FOUND, 0);

        let mut page = String::new();
        requests(&mut page, &tally);

        assert!(
            page.contains("method=\"other\"") && !page.contains("NEEDLE"),
            "{page}"
        );
    }
}
