//! What an account used.
//!
//! Token exchanges are counted in the same transaction that permits them. What relays count they
//! report, each report once: it is taken in the same transaction that remembers its number, and one
//! that comes again changes nothing.

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use skytale_wire::{
    http::{KeyUsage, MonthUsage, USAGE_ENTRIES_MAX, Usage, UsageEntry, UsageReport, Used},
    month::Month,
};

use crate::{
    caller::Caller,
    problem::Refusal,
    query::Query,
    relays::{Relay, Signed},
    router::App,
    store::ReportTaken,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    month: Option<Month>,
}

/// `GET /v1/usage`: every month by its totals, or one with all its keys.
#[utoipa::path(
    get,
    path = "/v1/usage",
    operation_id = "show_usage",
    tag = "Usage",
    summary = "What the account used, by months",
    description = "Every month by its totals, or one with each of its keys.",
    params(("month" = Option<Month>, Query, description = "This one only")),
    security(("key" = ["account"]), ("token" = ["account"]), ("session" = [])),
    responses((status = 200, description = "The newest month first", body = Usage)),
)]
pub(crate) async fn show(
    State(app): State<App>,
    caller: Caller,
    Query(which): Query<Which>,
) -> Result<Json<Usage>, Refusal> {
    let account_id = caller.reader()?;
    let totals = app.store.usage(account_id).await?;
    let months = match which.month {
        None => {
            let shown = totals.into_iter().map(|(month, used)| MonthUsage {
                month,
                used,
                keys: None,
            });
            shown.collect()
        }
        Some(month) => {
            let total = totals.into_iter().find(|(other, _)| *other == month);
            let keys = app.store.usage_by_key(account_id, month, KEYS_MAX).await?;
            let keys = keys
                .into_iter()
                .map(|(key_id, used)| KeyUsage { key_id, used });
            vec![MonthUsage {
                month,
                used: total.map_or_else(Used::default, |(_, used)| used),
                keys: Some(keys.collect()),
            }]
        }
    };
    Ok(Json(Usage {
        account_id,
        months,
        plan: app.config.plan_shown(&account_id, app.clock.now()),
    }))
}

/// `POST /v1/usage-reports`, for relays.
#[utoipa::path(
    post,
    path = "/v1/usage-reports",
    operation_id = "report_usage",
    tag = "Relays",
    summary = "Report what was used",
    description = "The same report may come again: it counts once.",
    request_body = UsageReport,
    security(("relay" = [])),
    responses((status = 204, description = "Taken, now or before")),
)]
pub(crate) async fn report(
    State(app): State<App>,
    Signed(Relay(relay), report): Signed<UsageReport>,
) -> Result<StatusCode, Refusal> {
    let number = report.number;
    let entries = checked(report)?;
    let taken = app
        .store
        .take_report(relay, number, entries, app.clock.now());
    if taken.await? == ReportTaken::Before {
        tracing::debug!(relay = %relay.short(), number, "a report of usage came again");
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The entries in the order in which every report touches rows, each tab once.
fn checked(report: UsageReport) -> Result<Vec<UsageEntry>, Refusal> {
    let within = |entry: &UsageEntry| {
        let numbers = [
            entry.messages,
            entry.bytes,
            entry.delivered,
            entry.connected_ms,
        ];
        numbers.iter().all(|number| *number <= NUMBER_MAX)
    };
    if report.number > NUMBER_MAX || report.entries.len() > USAGE_ENTRIES_MAX {
        return Err(OUT_OF_BOUNDS);
    }
    let mut entries = BTreeMap::new();
    for entry in report.entries {
        let tab = (entry.account_id, entry.month, entry.key_id.clone());
        if !within(&entry) || entries.insert(tab, entry).is_some() {
            return Err(OUT_OF_BOUNDS);
        }
    }
    Ok(entries.into_values().collect())
}

/// What JSON can say exactly everywhere. Databases add up a thousand of them.
const NUMBER_MAX: u64 = 1 << 53;
/// Keys that are shown of a month.
const KEYS_MAX: u32 = 1_000;
const OUT_OF_BOUNDS: Refusal = Refusal::bad_body(
    "a report has at most 200 entries, one for each account, key and month, and numbers up to 2^53",
);

#[cfg(test)]
mod tests {
    use skytale_wire::token::AccountId;

    use super::*;

    fn entry(account: u8, key: &str, bytes: u64) -> UsageEntry {
        UsageEntry {
            account_id: AccountId([account; 16]),
            key_id: key.parse().ok(),
            month: "2026-11".parse().unwrap(),
            messages: 1,
            bytes,
            delivered: 0,
            connected_ms: 0,
        }
    }

    #[test]
    fn entries_are_taken_in_one_order_and_each_tab_once() {
        let checked_of = |entries| checked(UsageReport { number: 1, entries });

        let (one, two) = (entry(1, "aaaaaaaa", 5), entry(1, "", 5));
        let three = entry(2, "", NUMBER_MAX);
        let sorted = checked_of(vec![three.clone(), one.clone(), two.clone()]).unwrap();
        assert_eq!(sorted, [two.clone(), one.clone(), three]);

        assert_eq!(checked_of(vec![one.clone(), two, one]), Err(OUT_OF_BOUNDS));
        assert_eq!(
            checked_of(vec![entry(1, "", NUMBER_MAX + 1)]),
            Err(OUT_OF_BOUNDS)
        );
        let many = vec![entry(1, "", 0); USAGE_ENTRIES_MAX + 1];
        assert_eq!(checked_of(many), Err(OUT_OF_BOUNDS));
    }
}
