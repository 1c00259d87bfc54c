//! How ids look in JSON, for the description of the API (OpenAPI).

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{Object, ObjectBuilder, Schema, Type},
    },
};

use crate::{
    id::{AgentId, ChannelId, MessageId, RelayKey, TransportKey},
    month::Month,
    token::{AccountId, KeyId},
};

/// An id that is a text of a certain form. What it is for, and an example of it, are for readers.
macro_rules! text {
    ($name:ident, $pattern:literal, $what:literal, $example:literal) => {
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                form($pattern)
                    .description(Some($what))
                    .examples([$example])
                    .into()
            }
        }

        impl ToSchema for $name {}
    };
}

fn form(pattern: &str) -> ObjectBuilder {
    Object::builder()
        .schema_type(Type::String)
        .pattern(Some(pattern))
}

text!(
    AgentId,
    // The last of 52 letters carries one bit.
    "^agt_[a-z2-7]{51}[aq]$",
    "An agent, by its identity key.",
    "agt_a4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dq"
);
text!(
    TransportKey,
    "^[0-9a-f]{64}$",
    "The key of an agent's connection.",
    "0202020202020202020202020202020202020202020202020202020202020202"
);
text!(
    RelayKey,
    "^[0-9a-f]{64}$",
    "A relay, by the key that its connections must prove.",
    "0303030303030303030303030303030303030303030303030303030303030303"
);
text!(
    ChannelId,
    "^[0-9a-f]{64}$",
    "A channel, by the random name that it has at a relay.",
    "0404040404040404040404040404040404040404040404040404040404040404"
);
text!(
    MessageId,
    "^[0-9a-f]{32}$",
    "A record, by the random name that its sender gave it.",
    "05050505050505050505050505050505"
);
text!(
    AccountId,
    "^acc_[0-9a-f]{32}$",
    "An account.",
    "acc_01936f4e7a1c7c3e8f5a2b4d6e8f0a1c"
);
text!(
    KeyId,
    "^[0-9A-Za-z]{8}$",
    "The public part of an API key.",
    "8H2kQ0aZ"
);

text!(
    Month,
    "^[0-9]{4}-(0[1-9]|1[0-2])$",
    "A month of the calendar (UTC).",
    "2026-11"
);

#[cfg(test)]
mod tests {
    use super::*;

    /// Each pattern describes what the type shows: the examples read back as themselves.
    #[test]
    fn the_examples_are_ids() {
        fn example<T: PartialSchema + std::str::FromStr + ToString>() {
            let schema = serde_json::to_value(T::schema()).unwrap();
            let text = schema["examples"][0].as_str().unwrap();
            let read = text.parse::<T>().unwrap_or_else(|_| panic!("{text}"));
            assert_eq!(read.to_string(), text);
        }

        example::<AgentId>();
        example::<TransportKey>();
        example::<RelayKey>();
        example::<ChannelId>();
        example::<MessageId>();
        example::<AccountId>();
        example::<KeyId>();
        example::<Month>();
    }
}
