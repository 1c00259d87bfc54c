//! What accounts have of something that is bounded, in the order of age.
//!
//! Where room is needed the oldest goes, and of an account that has its share its own oldest, so
//! that nobody is pushed out by what somebody else does within his share.

use std::collections::{BTreeMap, BTreeSet};

/// Keys by account. Those of open streams are nobody's, and lie together.
#[derive(Debug)]
pub(super) struct Shares<K> {
    /// Ages before keys, so that the oldest comes first. No share is empty.
    of: BTreeMap<String, BTreeSet<(u64, K)>>,
}

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self {
            of: BTreeMap::new(),
        }
    }
}

impl<K: Copy + Ord> Shares<K> {
    pub(super) fn insert(&mut self, account: Option<&str>, age: u64, key: K) {
        let share = self.of.entry(named(account).to_owned()).or_default();
        share.insert((age, key));
    }

    /// Nothing happens where there is none.
    pub(super) fn remove(&mut self, account: Option<&str>, age: u64, key: K) {
        let account = named(account);
        if let Some(share) = self.of.get_mut(account) {
            share.remove(&(age, key));
            if share.is_empty() {
                self.of.remove(account);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.of.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.of.values().map(BTreeSet::len).sum()
    }

    pub(super) fn len_of(&self, account: Option<&str>) -> usize {
        self.of.get(named(account)).map_or(0, BTreeSet::len)
    }

    /// The oldest of an account that may go.
    pub(super) fn oldest_of(
        &self,
        account: Option<&str>,
        may_go: impl Fn(&K) -> bool,
    ) -> Option<K> {
        let share = self.of.get(named(account))?;
        let mut all = share.iter().map(|(_, key)| *key);
        all.find(|key| may_go(key))
    }

    /// The oldest of all that may go.
    pub(super) fn oldest(&self, may_go: impl Fn(&K) -> bool) -> Option<K> {
        let first = |share: &BTreeSet<(u64, K)>| share.iter().find(|it| may_go(&it.1)).copied();
        let oldest = self.of.values().filter_map(first).min();
        oldest.map(|(_, key)| key)
    }
}

/// No account has an empty name.
fn named(account: Option<&str>) -> &str {
    account.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_of_an_account_and_of_all() {
        let mut shares = Shares::default();
        for (account, age, key) in [
            (Some("alice"), 5, 'a'),
            (Some("alice"), 2, 'b'),
            (Some("bob"), 1, 'c'),
            (None, 3, 'd'),
        ] {
            shares.insert(account, age, key);
        }
        assert_eq!(shares.oldest_of(Some("alice"), |_| true), Some('b'));
        assert_eq!(shares.oldest_of(None, |_| true), Some('d'));
        assert_eq!(shares.oldest_of(Some("carol"), |_| true), None);
        assert_eq!(shares.oldest(|_| true), Some('c'));
        assert_eq!(shares.oldest(|key| *key > 'c'), Some('d'));

        shares.remove(Some("bob"), 1, 'c');
        assert_eq!(shares.oldest(|_| true), Some('b'));
        assert_eq!((shares.len(), shares.len_of(Some("alice"))), (3, 2));
        assert_eq!(shares.len_of(Some("bob")), 0);
    }
}
