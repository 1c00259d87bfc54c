//! What accounts may use in a month: plans are a table of the configuration, and whoever has none
//! of his own has the one that holds for all.
//!
//! A plan bounds what tokens are sold, not what is open: lines go on until their tokens end.

use serde::{Deserialize, Serialize};
use skytale_wire::{http, id::Time, month::Month, token::AccountId};

use crate::{clock::rfc3339, config::Config, error::Error, problem::Refusal};

/// What a plan allows in a month. What is not said is not bounded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// Messages that relays take from an account's agents.
    pub messages_max: Option<u64>,
    /// Sealed bytes that they take from them.
    pub bytes_max: Option<u64>,
}

impl Bounds {
    /// Nothing is bounded.
    pub(crate) const NONE: Self = Self {
        messages_max: None,
        bytes_max: None,
    };

    /// Whether so much is all that there is to use.
    pub(crate) fn are_reached(&self, messages: u64, bytes: u64) -> bool {
        self.messages_max.is_some_and(|most| messages >= most)
            || self.bytes_max.is_some_and(|most| bytes >= most)
    }
}

impl Config {
    /// The name of an account's plan, and what it allows.
    pub(crate) fn plan_of(&self, account: &AccountId) -> (&str, Bounds) {
        let name = self.account_plans.get(account).unwrap_or(&self.plan);
        let bounds = self.plans.get(name).copied().unwrap_or(Bounds::NONE);
        (name, bounds)
    }

    /// The same as it is answered.
    pub(crate) fn plan_shown(&self, account: &AccountId, now: Time) -> http::Plan {
        let (name, bounds) = self.plan_of(account);
        http::Plan {
            name: name.to_owned(),
            messages_max: bounds.messages_max,
            bytes_max: bounds.bytes_max,
            renews_at: rfc3339(Month::of(now).next().begins()),
        }
    }

    /// Finds plans that are named and not there.
    pub(crate) fn check_plans(&self) -> Result<(), Error> {
        let mut named = self.account_plans.values().chain([&self.plan]);
        if named.all(|name| name == UNLIMITED || self.plans.contains_key(name)) {
            Ok(())
        } else {
            Err(Error::Misuse(
                "plan and account_plans name a plan that is not in the table of plans",
            ))
        }
    }
}

/// The account's month is used up; the answer says for how long it still goes on.
pub(crate) fn exceeded(now: Time) -> Refusal {
    let left_ms = Month::of(now).next().begins().since(now);
    Refusal::QUOTA_EXCEEDED.retry_after(left_ms.div_ceil(1000))
}

/// The plan that bounds nothing and needs no entry.
const UNLIMITED: &str = "unlimited";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn an_account_has_its_own_plan_or_the_one_for_all() {
        let mut config = Config::new(Path::new("x"));
        let (alice, bob) = (AccountId([1; 16]), AccountId([2; 16]));
        assert_eq!(config.plan_of(&alice), ("unlimited", Bounds::NONE));
        let free = Bounds {
            messages_max: Some(10),
            bytes_max: None,
        };
        config.plans.insert("free".into(), free);
        config.plan = "free".into();
        config.account_plans.insert(bob, "unlimited".into());

        assert_eq!(config.plan_of(&alice), ("free", free));
        assert_eq!(config.plan_of(&bob), ("unlimited", Bounds::NONE));
        assert!(config.check().is_ok());
        config.account_plans.insert(alice, "fre".into());
        assert!(matches!(config.check(), Err(Error::Misuse(_))));
    }

    #[test]
    fn plans_are_read_as_they_are_written() {
        type Layer = <Config as confique::Config>::Layer;
        let read = |json: &str| serde_json::from_str::<Layer>(json);
        let account = AccountId([1; 16]);

        let layer = read(&format!(
            r#"{{"plan":"free","plans":{{"free":{{"messages_max":10}}}},"account_plans":{{"{account}":"unlimited"}}}}"#
        ))
        .unwrap();

        let free = layer.plans.unwrap()["free"];
        assert_eq!((free.messages_max, free.bytes_max), (Some(10), None));
        assert!(layer.account_plans.unwrap().contains_key(&account));
        assert!(read(r#"{"plans":{"free":{"message_max":10}}}"#).is_err());
    }

    #[test]
    fn a_bound_is_reached_when_nothing_is_left_of_it() {
        let bounds = Bounds {
            messages_max: Some(2),
            bytes_max: Some(100),
        };

        assert!(!bounds.are_reached(1, 99));
        assert!(bounds.are_reached(2, 0));
        assert!(bounds.are_reached(0, 100));
        assert!(!Bounds::NONE.are_reached(u64::MAX, u64::MAX));
    }
}
