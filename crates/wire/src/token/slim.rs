//! The claim `slim`: for which SLIM names a token is good, as text.
//!
//! Here it is only held to its form, which is that of `Pattern` in our SLIM crate; this crate
//! leans on nothing of ours. Which names a pattern covers, and which account may use which
//! organisation, is decided by the relay.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One pattern: `organisation/*`, `organisation/namespace/*`, or one name of three parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SlimPattern(String);

/// The patterns of one token: at least one, each of them once, and few enough for a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<SlimPattern>", into = "Vec<SlimPattern>")]
pub struct SlimPatterns(Vec<SlimPattern>);

impl SlimPatterns {
    /// Reads patterns as somebody wrote them.
    pub fn parse(texts: &[String]) -> Result<Self, BadPatterns> {
        // Counted first, so that a long list of long texts costs nothing.
        if texts.len() > SLIM_PATTERNS_MAX {
            return Err(BadPatterns::TooMany);
        }
        let patterns: Result<Vec<SlimPattern>, BadPatterns> =
            texts.iter().map(|text| text.parse()).collect();
        Self::try_from(patterns?)
    }

    /// One after the other, as they were given.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|pattern| pattern.0.as_str())
    }
}

impl TryFrom<Vec<SlimPattern>> for SlimPatterns {
    type Error = BadPatterns;

    fn try_from(patterns: Vec<SlimPattern>) -> Result<Self, BadPatterns> {
        if patterns.is_empty() {
            return Err(BadPatterns::None);
        }
        if patterns.len() > SLIM_PATTERNS_MAX {
            return Err(BadPatterns::TooMany);
        }
        let mut earlier = patterns.iter().enumerate();
        if earlier.any(|(place, pattern)| patterns.iter().take(place).any(|it| it == pattern)) {
            return Err(BadPatterns::Twice);
        }
        // As JSON, because that is what the token has room for: an odd character takes up to six
        // bytes there.
        let written = serde_json::to_string(&patterns).map_err(|_| BadPatterns::Form)?;
        if written.len() > SLIM_PATTERNS_BYTES_MAX {
            return Err(BadPatterns::TooLong);
        }
        Ok(Self(patterns))
    }
}

impl From<SlimPatterns> for Vec<SlimPattern> {
    fn from(patterns: SlimPatterns) -> Self {
        patterns.0
    }
}

impl FromStr for SlimPattern {
    type Err = BadPatterns;

    fn from_str(text: &str) -> Result<Self, BadPatterns> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for SlimPattern {
    type Error = BadPatterns;

    fn try_from(text: String) -> Result<Self, BadPatterns> {
        let (named, star) = match text.strip_suffix("/*") {
            Some(prefix) => (prefix, true),
            None => (text.as_str(), false),
        };
        let parts = named.split('/').count();
        let fits = if star {
            (1..=2).contains(&parts)
        } else {
            parts == 3
        };
        let is_part = |part: &str| !part.is_empty() && part.len() <= PART_BYTES_MAX && part != "*";
        if fits && named.split('/').all(is_part) {
            Ok(Self(text))
        } else {
            Err(BadPatterns::Form)
        }
    }
}

impl From<SlimPattern> for String {
    fn from(pattern: SlimPattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for SlimPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why these are no patterns for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPatterns {
    /// None at all.
    None,
    /// More than [`SLIM_PATTERNS_MAX`].
    TooMany,
    /// The same one again.
    Twice,
    /// Longer, all together, than a token has room for.
    TooLong,
    /// One of them is no pattern.
    Form,
}

impl BadPatterns {
    /// What to do about it, in words that repeat nothing of the patterns.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::None => "name at least one SLIM pattern, such as organisation/*",
            Self::TooMany => "a token takes 16 SLIM patterns at most: use wider ones",
            Self::Twice => "a SLIM pattern is there twice: name each of them once",
            Self::TooLong => "the SLIM patterns are too long for a token: use fewer, or wider ones",
            Self::Form => {
                "a SLIM pattern is organisation/*, organisation/namespace/* or organisation/namespace/name"
            }
        }
    }
}

impl fmt::Display for BadPatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.advice())
    }
}

impl std::error::Error for BadPatterns {}

/// Patterns in one token.
pub const SLIM_PATTERNS_MAX: usize = 16;
/// All patterns of a token as the JSON list that they are there.
pub const SLIM_PATTERNS_BYTES_MAX: usize = 2_048;
/// The text of one part; the same bound as for names on the line.
const PART_BYTES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str]) -> Result<SlimPatterns, BadPatterns> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        SlimPatterns::parse(&texts)
    }

    #[test]
    fn a_pattern_is_a_name_or_ends_in_a_star() {
        for good in ["org/*", "org/ns/*", "org/ns/app", "örg/a b/*c", "a/b/**"] {
            assert_eq!(good.parse::<SlimPattern>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "*",
            "/*",
            "*/*",
            "org",
            "org/",
            "org/ns",
            "org/ns/",
            "a/b/c/d",
            "a/b/c/*",
            "//*",
            "org//*",
            "org/*/app",
            "*/ns/app",
            "org/*/*",
            "/ns/app",
            "org/ns/app/",
        ] {
            assert_eq!(
                bad.parse::<SlimPattern>(),
                Err(BadPatterns::Form),
                "{bad:?}"
            );
        }
        let part = |length: usize| format!("{}/*", "a".repeat(length));
        assert!(part(PART_BYTES_MAX).parse::<SlimPattern>().is_ok());
        assert!(part(PART_BYTES_MAX + 1).parse::<SlimPattern>().is_err());
    }

    #[test]
    fn patterns_are_few_short_and_different() {
        assert_eq!(all(&[]), Err(BadPatterns::None));
        assert_eq!(all(&["a/*", "b/*", "a/*"]), Err(BadPatterns::Twice));
        assert_eq!(all(&["a/*", "b"]), Err(BadPatterns::Form));

        let numbered: Vec<String> = (0..=SLIM_PATTERNS_MAX).map(|n| format!("{n}/*")).collect();
        assert_eq!(SlimPatterns::parse(&numbered), Err(BadPatterns::TooMany));
        let fewer = SlimPatterns::parse(&numbered[1..]).unwrap();
        assert!(fewer.texts().eq(numbered[1..].iter().map(String::as_str)));

        // Two quotes and two brackets, a comma, and two times a slash and a star.
        let long = |length: usize| {
            let (first, second) = ("a".repeat(1024), "b".repeat(length));
            all(&[&format!("{first}/*"), &format!("{second}/*")]).map(|_| ())
        };
        assert_eq!(long(SLIM_PATTERNS_BYTES_MAX - 1024 - 11), Ok(()));
        let over = long(SLIM_PATTERNS_BYTES_MAX - 1024 - 10);
        assert_eq!(over, Err(BadPatterns::TooLong));
        // A control character takes six bytes in JSON.
        let odd = format!("{}/*", "\u{1}".repeat(400));
        assert_eq!(all(&[&odd]), Err(BadPatterns::TooLong));
    }

    #[test]
    fn json_is_held_to_the_same_rules() {
        let read = |text: &str| serde_json::from_str::<SlimPatterns>(text);

        let good = r#"["org/*","org/ns/app"]"#;
        assert_eq!(serde_json::to_string(&read(good).unwrap()).unwrap(), good);
        for bad in [
            "[]",
            r#"["org"]"#,
            r#"["a/*","a/*"]"#,
            r#""a/*""#,
            "[1]",
            "null",
            "{}",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_advice_names_the_real_limit() {
        assert!(
            BadPatterns::TooMany
                .advice()
                .contains(&SLIM_PATTERNS_MAX.to_string())
        );
    }
}
