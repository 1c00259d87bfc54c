//! Which agent belongs to a directory: a coding agent that is started in the same place again is
//! the same agent again, without anybody having named it.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use crate::exit::Failure;

/// Where this process was started, without symbolic links.
pub(crate) fn here() -> Result<PathBuf, Failure> {
    std::env::current_dir()
        .and_then(|dir| dir.canonicalize())
        .map_err(|error| {
            Failure::usage(format!(
                "the working directory: {}. Name the agent with --as",
                error.kind()
            ))
        })
}

/// The name of the agent of a directory: what people know of it, and enough of a hash of the whole
/// path that two directories of one name are two agents.
pub(crate) fn agent_of(dir: &Path) -> String {
    let name = dir.file_name().map(|name| name.to_string_lossy());
    let hash = Sha256::digest(dir.as_os_str().as_bytes());
    let hash = HEXLOWER.encode(&hash[..HASH_BYTES]);
    format!("{}-{hash}", readable(&name.unwrap_or_default()))
}

/// The agent of this directory, or of the nearest one above it that has one: whoever has gone into
/// a subdirectory is still at home.
pub(crate) fn nearest(dir: &Path, there_are: &[String]) -> Option<String> {
    dir.ancestors()
        .map(agent_of)
        .find(|name| there_are.contains(name))
}

/// What of a name may stand in an agent's.
fn readable(name: &str) -> String {
    let mut kept = String::new();
    for c in name.chars().take(NAME_CHARS_MAX) {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            kept.push(c);
        } else if !kept.ends_with('-') {
            kept.push('-');
        }
    }
    let kept = kept.trim_matches(['-', '.']);
    if kept.is_empty() { NAMELESS } else { kept }.to_owned()
}

/// With the hash, less than the 64 characters that a name may have.
const NAME_CHARS_MAX: usize = 40;
/// Two directories of one name are one agent by a chance of one in a million million.
const HASH_BYTES: usize = 5;
/// For `/`, and where nothing of a name can be written in an agent's.
const NAMELESS: &str = "agent";

#[cfg(test)]
mod tests {
    use skytale_sdk::check_agent_name;

    use super::*;

    #[test]
    fn the_same_directory_is_the_same_agent_and_another_one_is_not() {
        let shop = Path::new("/srv/alice/shop");
        let other = Path::new("/srv/bob/shop");

        assert_eq!(agent_of(shop), agent_of(shop));
        assert_ne!(agent_of(shop), agent_of(other));
        assert!(agent_of(shop).starts_with("shop-"), "{}", agent_of(shop));
    }

    #[test]
    fn every_directory_gives_a_name_that_an_agent_may_have() {
        let long = "x".repeat(300);
        for dir in [
            "/", "/a b", "/ü", "/..x", "/---", "/日本", "/a/../b", "/.git", "/Web (2)", &long,
        ] {
            let name = agent_of(Path::new(dir));
            check_agent_name(&name).unwrap_or_else(|error| panic!("{dir}: {name}: {error}"));
        }
        assert!(agent_of(Path::new("/Web (2)")).starts_with("Web-2-"));
        assert!(agent_of(Path::new("/")).starts_with("agent-"));
    }

    #[test]
    fn a_subdirectory_is_at_home_with_the_nearest_agent_above() {
        let (outer, inner) = (Path::new("/srv/shop"), Path::new("/srv/shop/web"));
        let both = [agent_of(outer), agent_of(inner)];
        let below = Path::new("/srv/shop/web/src");

        assert_eq!(nearest(below, &both), Some(agent_of(inner)));
        assert_eq!(nearest(below, &both[..1]), Some(agent_of(outer)));
        assert_eq!(nearest(Path::new("/srv/other"), &both), None);
    }
}
