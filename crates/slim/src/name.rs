//! SLIM's names: three components and an instance, routed on as hashes.
//!
//! Left out: who is subscribed to them, which is [`crate::SubscriptionTable`]'s.

use std::{fmt, hash::Hasher as _};

use twox_hash::XxHash64;

use crate::proto::{one, two};

/// A name as it stands in a header. Only the [`Address`] routes; the text is what the sender
/// claims that was hashed, and may be missing or a lie.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    /// What is routed on.
    pub address: Address,
    /// Organisation, namespace, application or channel.
    pub text: Option<[String; 3]>,
}

impl Name {
    /// Reads `organisation/namespace/name`, which means any instance.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let parts: Vec<&str> = text.split('/').collect();
        let [organisation, namespace, name] = parts[..] else {
            return Err(BadName);
        };
        let parts = [organisation, namespace, name];
        if parts.iter().any(|part| !is_part(part)) {
            return Err(BadName);
        }
        Ok(Self {
            address: Address {
                components: Components::of(parts),
                instance: Instance::Any,
            },
            text: Some(parts.map(str::to_owned)),
        })
    }

    /// The same name at one instance.
    #[must_use]
    pub fn at(mut self, instance: Instance) -> Self {
        self.address.instance = instance;
        self
    }

    /// The text, if it is what the address was made from. Whoever decides by a text must ask for
    /// this one, or decide by [`Pattern::covers`].
    pub fn proven_text(&self) -> Option<[&str; 3]> {
        let parts = self.text.as_ref()?.each_ref().map(String::as_str);
        (Components::of(parts) == self.address.components).then_some(parts)
    }

    /// `None` without numbers to route on, or with a text beyond bounds.
    pub(crate) fn from_one(name: one::Name) -> Option<Self> {
        let encoded = name.name?;
        Some(Self {
            address: Address {
                components: Components([
                    encoded.component_0,
                    encoded.component_1,
                    encoded.component_2,
                ]),
                instance: match encoded.component_3 {
                    u64::MAX => Instance::Any,
                    id => Instance::Only(id.into()),
                },
            },
            text: match name.str_name {
                None => None,
                Some(text) => Some(bounded([
                    text.str_component_0,
                    text.str_component_1,
                    text.str_component_2,
                ])?),
            },
        })
    }

    /// `None` without numbers to route on, or with a text beyond bounds.
    pub fn from_two(name: two::Name) -> Option<Self> {
        let encoded = name.name?;
        let id = encoded.name_id.map_or(u128::MAX, |id| {
            u128::from(id.id_0) << 64 | u128::from(id.id_1)
        });
        Some(Self {
            address: Address {
                components: Components([
                    encoded.component_0,
                    encoded.component_1,
                    encoded.component_2,
                ]),
                instance: match id {
                    u128::MAX => Instance::Any,
                    id => Instance::Only(id),
                },
            },
            text: match name.str_name {
                None => None,
                Some(text) => Some(bounded([
                    text.str_component_0,
                    text.str_component_1,
                    text.str_component_2,
                ])?),
            },
        })
    }

    /// An instance that needs more than the 64 bits of the first generation loses its upper half,
    /// as no name of that generation has one.
    pub(crate) fn to_one(&self) -> one::Name {
        let [component_0, component_1, component_2] = self.address.components.0;
        one::Name {
            name: Some(one::EncodedName {
                component_0,
                component_1,
                component_2,
                component_3: match self.address.instance {
                    Instance::Any => u64::MAX,
                    Instance::Only(id) => low(id),
                },
            }),
            str_name: self
                .text
                .clone()
                .map(|[first, second, third]| one::StringName {
                    str_component_0: first,
                    str_component_1: second,
                    str_component_2: third,
                }),
        }
    }

    /// As it stands in a message of the second generation.
    pub fn to_two(&self) -> two::Name {
        let [component_0, component_1, component_2] = self.address.components.0;
        let id = match self.address.instance {
            Instance::Any => u128::MAX,
            Instance::Only(id) => id,
        };
        two::Name {
            name: Some(two::EncodedName {
                component_0,
                component_1,
                component_2,
                name_id: Some(two::NameId {
                    id_0: low(id >> 64),
                    id_1: low(id),
                }),
            }),
            str_name: self
                .text
                .clone()
                .map(|[first, second, third]| two::StringName {
                    str_component_0: first,
                    str_component_1: second,
                    str_component_2: third,
                }),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some([organisation, namespace, name]) => {
                write!(f, "{organisation}/{namespace}/{name}")
            }
            None => f.write_str("a name without text"),
        }
    }
}

/// What messages are routed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The prefix, which all instances of an application share, and both names of a group.
    pub components: Components,
    /// Which of them.
    pub instance: Instance,
}

/// Hashes of a name's three components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Components(pub [u64; 3]);

impl Components {
    /// Hashes as SLIM does. The hash keeps nobody from finding two texts with one value: what must
    /// belong to one account belongs to it by the hash.
    pub fn of(parts: [&str; 3]) -> Self {
        Self(parts.map(hash))
    }
}

/// One holder of a name, or whichever there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Instance {
    /// As a destination: whoever is subscribed below the prefix. As a subscription it is an
    /// instance of its own, which gets nothing that names another.
    Any,
    /// That one, and below 2^128 - 1, which means [`Instance::Any`].
    Only(u128),
}

/// What a token allows: `org/*`, `org/ns/*`, or one name.
///
/// It compares hashes, not texts, because messages are routed by hashes: a text in a header can
/// say what it likes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Vec<u64>);

impl Pattern {
    /// Reads a pattern. A star stands alone and at the end; `*` by itself is not a pattern, since
    /// it would be every organisation's.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let mut parts: Vec<&str> = text.split('/').collect();
        let open = parts.last() == Some(&"*");
        if open {
            parts.pop();
        }
        let fits = if open {
            (1..=2).contains(&parts.len())
        } else {
            parts.len() == 3
        };
        if !fits || parts.iter().any(|part| !is_part(part)) {
            return Err(BadName);
        }
        Ok(Self(parts.into_iter().map(hash).collect()))
    }

    /// Whether a name with these components, at any instance, is one of those meant.
    pub fn covers(&self, components: Components) -> bool {
        components.0.starts_with(&self.0)
    }
}

/// That is no `organisation/namespace/name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a SLIM name has three parts, as in organisation/namespace/name; a pattern may end in /*")]
pub struct BadName;

/// Rust's hash of a `str` feeds one 0xFF after the bytes, and SLIM took that for its wire.
fn hash(part: &str) -> u64 {
    let mut hasher = XxHash64::with_seed(0);
    hasher.write(part.as_bytes());
    hasher.write_u8(0xff);
    hasher.finish()
}

fn is_part(part: &str) -> bool {
    !part.is_empty() && part.len() <= PART_BYTES_MAX && part != "*"
}

/// What came from outside may be odd, as long as it is short: it routes nothing.
fn bounded(parts: [String; 3]) -> Option<[String; 3]> {
    let short = parts.iter().all(|part| part.len() <= PART_BYTES_MAX);
    short.then_some(parts)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is what is asked for"
)]
fn low(id: u128) -> u64 {
    id as u64
}

/// Bytes of one component's text. SLIM knows no bound; a longer name is an attack on memory.
const PART_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_three_parts() {
        assert!(Name::parse("org/ns/app").is_ok());
        for bad in [
            "",
            "org",
            "org/ns",
            "org//app",
            "org/ns/app/1",
            "org/ns/*",
            "/ns/app",
        ] {
            assert_eq!(Name::parse(bad), Err(BadName), "{bad}");
        }
        assert_eq!(
            Name::parse(&format!("a/b/{}", "c".repeat(1025))),
            Err(BadName)
        );
    }

    #[test]
    fn a_pattern_covers_what_is_below_it() {
        let name = |text: &str| Name::parse(text).unwrap().address.components;
        let whole = Pattern::parse("org/*").unwrap();
        assert!(whole.covers(name("org/ns/app")));
        assert!(!whole.covers(name("organisation/ns/app")));
        let space = Pattern::parse("org/ns/*").unwrap();
        assert!(space.covers(name("org/ns/app")) && !space.covers(name("org/other/app")));
        let one = Pattern::parse("org/ns/app").unwrap();
        assert!(one.covers(name("org/ns/app")) && !one.covers(name("org/ns/apps")));
        for bad in ["*", "*/ns/app", "org/*/app", "org", "org/ns", "a/b/c/*", ""] {
            assert_eq!(Pattern::parse(bad), Err(BadName), "{bad}");
        }
    }

    #[test]
    fn a_text_that_does_not_fit_its_hashes_proves_nothing() {
        let mut name = Name::parse("org/ns/app").unwrap();
        assert_eq!(name.proven_text(), Some(["org", "ns", "app"]));
        name.text = Name::parse("bank/ns/app").unwrap().text;
        assert_eq!(name.proven_text(), None);
    }

    #[test]
    fn null_is_all_ones_or_nothing() {
        let any = Name::parse("org/ns/app").unwrap();
        let mut two = any.to_two();
        assert_eq!(Name::from_two(two.clone()), Some(any.clone()));
        two.name.as_mut().unwrap().name_id = None;
        assert_eq!(Name::from_two(two), Some(any.clone()));
        assert_eq!(any.to_one().name.unwrap().component_3, u64::MAX);

        let seventh = any.at(Instance::Only(7 << 64 | 9));
        let encoded = seventh.to_two().name.unwrap().name_id.unwrap();
        assert_eq!((encoded.id_0, encoded.id_1), (7, 9));
    }
}
