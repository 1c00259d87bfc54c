//! What was used: a year in bars, every month in a table, and each key of one month.

use axum::{
    extract::{Path, State},
    response::Html,
};
use maud::{Markup, html};
use skytale_wire::{http::Used, month::Month};

use super::{
    frame::{Place, page, table},
    overview::left_of,
    plot::bars,
    session::Owner,
    words::{bytes, count, span},
};
use crate::{problem::Refusal, router::App};

pub(crate) async fn months(State(app): State<App>, owner: Owner) -> Result<Html<String>, Refusal> {
    let now = app.clock.now();
    let totals = app.store.usage(owner.account).await?;
    let plan = app.config.plan_shown(&owner.account, now);
    let shown = year(&totals, Month::of(now));
    let this_month = shown.first().map_or_else(Used::default, |(_, used)| *used);
    let rows = totals.iter().map(|(month, used)| {
        let link = html! { a href={ "/ui/usage/" (month.to_string()) } { (month.to_string()) } };
        (link, used)
    });
    let content = html! {
        (left_of(&plan, &this_month))
        div.plots {
            @for measure in &MEASURES {
                @let each = shown.iter().map(|(month, used)| (*month, (measure.of)(used)));
                @let each: Vec<_> = each.collect();
                section {
                    h2 { (measure.name) }
                    (bars(measure.id, measure.name, measure.shown, &each))
                }
            }
        }
        h2 { "All months" }
        @if totals.is_empty() {
            p { "Nothing was counted yet." }
        } @else {
            (table("Usage by months", &numbers("Month", rows)))
        }
        p.quiet { "What relays count is here some seconds after it happened. Each month leads to its keys." }
    };
    Ok(page(&owner, Place::Usage, "Usage", &content))
}

pub(crate) async fn month(
    State(app): State<App>,
    owner: Owner,
    Path(month): Path<String>,
) -> Result<Html<String>, Refusal> {
    let month: Month = month.parse().map_err(|_| Refusal::NOT_FOUND)?;
    let keys = app
        .store
        .usage_by_key(owner.account, month, KEYS_MAX)
        .await?;
    let rows = keys.iter().map(|(key, used)| {
        let whose = if let Some(key) = key {
            html! { code { (key.to_string()) } }
        } else {
            html! { "no key: guests" }
        };
        (whose, used)
    });
    let title = format!("Usage in {month}");
    let content = html! {
        @if keys.is_empty() {
            p { "Nothing was counted in this month." }
        } @else {
            (table("Usage by keys", &numbers("Key", rows)))
        }
        p { a href=(Place::Usage.path()) { "All months" } }
    };
    Ok(page(&owner, Place::Usage, &title, &content))
}

/// The last months up to this one, as far back as something was counted, the newest first; and those
/// without anything too.
fn year(totals: &[(Month, Used)], this: Month) -> Vec<(Month, Used)> {
    let first = totals.iter().map(|(month, _)| *month).min().unwrap_or(this);
    let back = |months| Month::from_number(this.number().checked_sub(months)?);
    let months = (0..MONTHS_SHOWN).filter_map(back);
    let months = months.take_while(|month| *month >= first || *month == this);
    let used = |month: Month| totals.iter().find(|(other, _)| *other == month);
    months
        .map(|month| (month, used(month).map_or_else(Used::default, |it| it.1)))
        .collect()
}

fn numbers<'a>(of: &str, rows: impl Iterator<Item = (Markup, &'a Used)>) -> Markup {
    html! {
        table.numbers {
            thead {
                tr {
                    th scope="col" { (of) }
                    @for measure in &MEASURES { th scope="col" { (measure.name) } }
                }
            }
            tbody {
                @for (whose, used) in rows {
                    tr {
                        th scope="row" { (whose) }
                        @for measure in &MEASURES { td { ((measure.shown)((measure.of)(used))) } }
                    }
                }
            }
        }
    }
}

struct Measure {
    id: &'static str,
    name: &'static str,
    of: fn(&Used) -> u64,
    shown: fn(u64) -> String,
}

const MEASURES: [Measure; 5] = [
    Measure {
        id: "messages",
        name: "Messages sent",
        of: |used| used.messages,
        shown: count,
    },
    Measure {
        id: "bytes",
        name: "Bytes sent, sealed",
        of: |used| used.bytes,
        shown: bytes,
    },
    Measure {
        id: "delivered",
        name: "Copies delivered",
        of: |used| used.delivered,
        shown: count,
    },
    Measure {
        id: "tokens",
        name: "Tokens bought",
        of: |used| used.token_exchanges,
        shown: count,
    },
    Measure {
        id: "connected",
        name: "Time connected",
        of: |used| used.connected_s,
        shown: span,
    },
];
const MONTHS_SHOWN: u32 = 12;
/// Keys that are shown of a month, as by the route for programs.
const KEYS_MAX: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn month(text: &str) -> Month {
        text.parse().unwrap()
    }

    #[test]
    fn a_year_goes_back_as_far_as_something_was_counted() {
        let used = Used {
            messages: 7,
            ..Used::default()
        };
        let shown = |totals: &[&str]| -> Vec<(String, u64)> {
            let totals: Vec<_> = totals.iter().map(|it| (month(it), used)).collect();
            let year = year(&totals, month("2026-02"));
            let text = |(month, used): (Month, Used)| (month.to_string(), used.messages);
            year.into_iter().map(text).collect()
        };
        let row = |text: &str, messages| (text.to_owned(), messages);

        assert_eq!(shown(&[]), [row("2026-02", 0)]);
        assert_eq!(
            shown(&["2025-12"]),
            [row("2026-02", 0), row("2026-01", 0), row("2025-12", 7)]
        );
        let long = shown(&["2026-02", "2020-01"]);
        assert_eq!(long.len(), 12);
        assert_eq!(long[11], row("2025-03", 0));
        // A clock that was set back.
        assert_eq!(shown(&["2026-04"]), [row("2026-02", 0)]);
    }
}
