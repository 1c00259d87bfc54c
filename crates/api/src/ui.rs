//! The dashboard at `/ui`: an account by a browser, for people, as `/v1` is for programs.
//!
//! Pages are made here, whole, and hold no script and no style of their own; what they may load is
//! two files beside them. Whatever a page shows or changes, it asks of what the routes for programs
//! ask, so that limits and checks are the same ones.
//!
//! | file           | is                                                        |
//! |----------------|-----------------------------------------------------------|
//! | `ui/session`   | whose page it is: the cookie                              |
//! | `ui/form`      | what a page sends back, and that it was this page         |
//! | `ui/frame`     | what all pages have in common                             |
//! | `ui/trouble`   | refusals, as pages                                        |
//! | `ui/words`     | times and numbers as people read them                     |
//! | `ui/plot`      | bars                                                      |
//! | the others     | a page each                                               |

use axum::{
    Router,
    http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY},
    },
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};

use crate::{config::Config, router::App};

mod agents;
mod channels;
mod form;
mod frame;
mod keys;
mod overview;
mod plot;
mod relays;
mod session;
mod sign_in;
mod sign_up;
mod trouble;
mod usage;
mod words;

pub(crate) use trouble::told;

/// Every route of the dashboard; none when it is switched off.
pub(crate) fn routes(config: &Config) -> Router<App> {
    let mut router = Router::new();
    if config.ui {
        for (path, answers) in all() {
            router = router.route(path, answers);
        }
    }
    router
}

/// One line for each path.
pub(crate) fn all() -> Vec<(&'static str, MethodRouter<App>)> {
    vec![
        ("/ui", get(overview::show)),
        ("/ui/sign-in", get(sign_in::show).post(sign_in::begin)),
        ("/ui/sign-up", get(sign_up::show).post(sign_up::open)),
        ("/ui/sign-out", post(sign_in::end)),
        ("/ui/keys", get(keys::list).post(keys::make)),
        ("/ui/keys/{id}/revoke", get(keys::ask).post(keys::revoke)),
        ("/ui/agents", get(agents::list)),
        ("/ui/agents/{id}", post(agents::set)),
        ("/ui/usage", get(usage::months)),
        ("/ui/usage/{month}", get(usage::month)),
        ("/ui/channels", get(channels::list)),
        ("/ui/channels/{id}", get(channels::records)),
        ("/ui/relays", get(relays::list)),
        ("/ui/style.css", get(style)),
        ("/ui/icon.svg", get(icon)),
    ]
}

/// Whether a request for this path is a person's, who is to be answered by a page.
pub(crate) fn has(config: &Config, path: &str) -> bool {
    config.ui && (path == "/ui" || path.starts_with("/ui/"))
}

/// What holds for each answer of the dashboard, refusals too. So if markup ever came through that is
/// not ours, nothing in it would run, load, or send a form elsewhere.
pub(crate) fn guard(headers: &mut HeaderMap) {
    for (name, value) in [
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        // Not `no-referrer`: browsers then send `Origin: null` with our own forms.
        (REFERRER_POLICY, "same-origin"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("ui/style.css"))
}

async fn icon() -> Response {
    file("image/svg+xml", include_str!("ui/icon.svg"))
}

fn file(kind: &'static str, content: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        // Short, so that pages of a newer server are not shown in the looks of an older one for long.
        (
            CACHE_CONTROL,
            HeaderValue::from_static("public, max-age=300"),
        ),
    ];
    (headers, content).into_response()
}
