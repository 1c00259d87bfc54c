//! What all pages have in common: the head, the way to the other pages, the way out.

use axum::response::Html;
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;

use super::{form::proof, session::Owner};

/// Which part of a long list.
#[derive(Debug, Deserialize)]
pub(crate) struct Which {
    pub(crate) after: Option<String>,
}

/// The pages that the navigation leads to. One more of them is one more name here, a line in
/// [`super::all`] and a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Overview,
    Keys,
    Agents,
    Usage,
    Channels,
    Relays,
}

impl Place {
    const ALL: [Self; 6] = [
        Self::Overview,
        Self::Keys,
        Self::Agents,
        Self::Usage,
        Self::Channels,
        Self::Relays,
    ];

    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Overview => "/ui",
            Self::Keys => "/ui/keys",
            Self::Agents => "/ui/agents",
            Self::Usage => "/ui/usage",
            Self::Channels => "/ui/channels",
            Self::Relays => "/ui/relays",
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Keys => "API keys",
            Self::Agents => "Agents",
            Self::Usage => "Usage",
            Self::Channels => "Channels",
            Self::Relays => "Relays",
        }
    }

    /// Which of them a path belongs to.
    pub(crate) fn of(path: &str) -> Self {
        let mut all = Self::ALL.into_iter().rev();
        all.find(|place| path.starts_with(place.path()))
            .unwrap_or(Self::Overview)
    }
}

/// A page of an account.
pub(crate) fn page(owner: &Owner, here: Place, title: &str, content: &Markup) -> Html<String> {
    let top = html! {
        nav aria-label="Pages" {
            ul {
                @for place in Place::ALL {
                    li { a href=(place.path()) aria-current=[(place == here).then_some("page")] { (place.name()) } }
                }
            }
        }
        form.leave method="post" action="/ui/sign-out" {
            (proof(&owner.proof))
            span { (owner.row.email) }
            button type="submit" { "Sign out" }
        }
    };
    whole(title, &top, content)
}

/// A page for everybody.
pub(crate) fn open_page(title: &str, content: &Markup) -> Html<String> {
    whole(title, &html! {}, content)
}

/// A table that scrolls by itself where it is too wide, also by keyboard.
pub(crate) fn table(name: &str, table: &Markup) -> Markup {
    html! { div.wide role="region" aria-label=(name) tabindex="0" { (table) } }
}

fn whole(title: &str, top: &Markup, content: &Markup) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Skytale" }
                link rel="stylesheet" href="/ui/style.css";
                link rel="icon" href="/ui/icon.svg" type="image/svg+xml";
            }
            body {
                a.skip href="#content" { "To the content" }
                header {
                    a.brand href="/ui" { "Skytale" }
                    (top)
                }
                main #content {
                    h1 { (title) }
                    (content)
                }
                footer { "Times are UTC. A session ends a quarter of an hour after it began." }
            }
        }
    };
    Html(page.into_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_the_page_above_it() {
        assert_eq!(Place::of("/ui/keys/00000000/revoke"), Place::Keys);
        assert_eq!(Place::of("/ui/usage/2026-11"), Place::Usage);
        assert_eq!(Place::of("/ui/nowhere"), Place::Overview);
    }
}
