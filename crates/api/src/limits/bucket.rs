//! Buckets of tokens, one for each who asks: `quota` tokens fit, and as many flow back in a window.
//!
//! The memory is a table of fixed size, in which whoever asks has a place by a keyed hash. Two who
//! meet at one place share its bucket: that can only refuse too much, and never too little, and
//! nobody can look for such a place. So there is nothing to evict and nothing that grows, however
//! many addresses a flood comes from.

use std::{
    hash::{BuildHasher as _, Hash, RandomState},
    marker::PhantomData,
    sync::{Mutex, PoisonError},
};

use skytale_wire::id::Time;

/// How much is allowed to each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    name: &'static str,
    quota: u32,
    window_ms: u64,
}

/// What is left to somebody after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    policy: Policy,
    left: u64,
    full_after_ms: u64,
}

/// The bucket is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooOften {
    pub(super) standing: Standing,
    /// When a token will be there.
    pub(super) wait_ms: u64,
}

/// The buckets of one policy.
#[derive(Debug)]
pub(super) struct Buckets<K: ?Sized> {
    policy: Policy,
    table: Mutex<Table>,
    places: RandomState,
    of: PhantomData<fn(&K)>,
}

/// Two columns: as plain numbers they cost no memory before they are used.
#[derive(Debug)]
struct Table {
    /// What was taken and has not flowed back, where a token counts as many as the window has
    /// milliseconds: so each millisecond gives back a whole number.
    taken: Vec<u64>,
    /// When that was so, in milliseconds.
    at: Vec<u64>,
}

impl Policy {
    /// `quota` requests in a window.
    pub(super) const fn new(name: &'static str, quota: u32, window_ms: u64) -> Self {
        Self {
            name,
            quota,
            window_ms,
        }
    }

    fn whole(self) -> u64 {
        u64::from(self.quota) * self.window_ms
    }

    fn standing(self, taken: u64) -> Standing {
        Standing {
            policy: self,
            left: self.whole().saturating_sub(taken) / self.window_ms,
            full_after_ms: taken.div_ceil(u64::from(self.quota)),
        }
    }
}

impl Standing {
    /// As an item of `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
    pub(crate) fn policy_item(&self) -> String {
        let window_s = self.policy.window_ms / 1_000;
        format!(
            r#""{}";q={};w={window_s}"#,
            self.policy.name, self.policy.quota
        )
    }

    /// As an item of `RateLimit`: what is left, and when all of it is there again.
    pub(crate) fn item(&self) -> String {
        let full_after_s = self.full_after_ms.div_ceil(1_000);
        format!(r#""{}";r={};t={full_after_s}"#, self.policy.name, self.left)
    }

    pub(crate) fn is_of(&self, policy: Policy) -> bool {
        self.policy == policy
    }
}

impl<K: Hash + ?Sized> Buckets<K> {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            table: Mutex::new(Table {
                taken: vec![0; PLACES],
                at: vec![0; PLACES],
            }),
            places: RandomState::new(),
            of: PhantomData,
        }
    }

    pub(super) const fn policy(&self) -> Policy {
        self.policy
    }

    /// Takes a token, or says when there will be one.
    pub(super) fn take(&self, whose: &K, now: Time) -> Result<Standing, TooOften> {
        self.change(whose, now, |taken| {
            let after = *taken + self.policy.window_ms;
            let missing = after.saturating_sub(self.policy.whole());
            if missing == 0 {
                *taken = after;
                return Ok(self.policy.standing(after));
            }
            Err(TooOften {
                standing: self.policy.standing(*taken),
                wait_ms: missing.div_ceil(u64::from(self.policy.quota)),
            })
        })
    }

    /// Puts a token back that was taken.
    pub(super) fn give_back(&self, whose: &K, now: Time) {
        self.change(whose, now, |taken| {
            *taken = taken.saturating_sub(self.policy.window_ms);
        });
    }

    /// Brings a bucket up to date and works on it. A clock that jumps back gives nothing for the time
    /// that it lost, and goes on from where it stands then.
    fn change<T>(&self, whose: &K, now: Time, work: impl FnOnce(&mut u64) -> T) -> T {
        let hash = self.places.hash_one(whose);
        let place = usize::try_from(hash % PLACES as u64).expect("the table is small");
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.since(Time(table.at[place]));
        let back = passed.saturating_mul(u64::from(self.policy.quota));
        table.at[place] = now.0;
        let taken = &mut table.taken[place];
        *taken = taken.saturating_sub(back);
        work(taken)
    }
}

/// A mebibyte for each policy.
const PLACES: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_790_000_000_000);

    fn buckets(quota: u32, window_ms: u64) -> Buckets<u32> {
        Buckets::new(Policy::new("test", quota, window_ms))
    }

    fn passed(buckets: &Buckets<u32>, whose: u32, times: u32, now: Time) -> usize {
        let tries = (0..times).filter(|_| buckets.take(&whose, now).is_ok());
        tries.count()
    }

    #[test]
    fn as_many_pass_as_may_and_as_many_come_back_in_a_window() {
        for (quota, window_ms) in [(1, 1_000), (7, 1_000), (120, 60_000), (5_000, 1_000)] {
            let buckets = buckets(quota, window_ms);
            let all = usize::try_from(quota).unwrap();

            assert_eq!(passed(&buckets, 1, 2 * quota, NOW), all);
            let half = NOW.plus(window_ms / 2);
            assert_eq!(passed(&buckets, 1, quota, half), all / 2);
            let later = NOW.plus(9 * window_ms);
            assert_eq!(passed(&buckets, 1, 2 * quota, later), all, "and no more");
        }
    }

    #[test]
    fn whoever_waits_as_long_as_was_said_passes_and_not_a_millisecond_sooner() {
        for (quota, window_ms) in [(3, 1_000), (120, 60_000), (100, 3_600_000)] {
            let buckets = buckets(quota, window_ms);
            passed(&buckets, 1, quota, NOW);

            let wait_ms = buckets.take(&1, NOW).unwrap_err().wait_ms;

            assert!(buckets.take(&1, NOW.plus(wait_ms - 1)).is_err());
            assert!(buckets.take(&1, NOW.plus(wait_ms)).is_ok());
        }
    }

    #[test]
    fn nobody_pays_for_another_and_what_is_given_back_is_there_again() {
        let buckets = buckets(2, 60_000);
        assert_eq!(passed(&buckets, 1, 9, NOW), 2);

        // Two of two would meet at a place once in 65,536 runs; of three, one at least does not.
        let others = (2..5).filter(|who| passed(&buckets, *who, 9, NOW) == 2);
        assert!(others.count() >= 2);
        buckets.give_back(&1, NOW);
        assert_eq!(passed(&buckets, 1, 9, NOW), 1);
        buckets.give_back(&9, NOW);
        assert_eq!(passed(&buckets, 9, 9, NOW), 2, "never more than fit");
    }

    #[test]
    fn a_clock_that_jumps_back_neither_fills_nor_stops_a_bucket() {
        let buckets = buckets(2, 1_000);
        passed(&buckets, 1, 2, NOW);

        let before = Time(NOW.0 - 3_600_000);

        assert_eq!(passed(&buckets, 1, 2, before), 0);
        assert_eq!(passed(&buckets, 1, 2, before.plus(1_000)), 2);
    }

    #[test]
    fn a_flood_of_names_takes_no_more_memory_than_there_is() {
        let buckets = buckets(1, 60_000);
        for who in 0..300_000 {
            let _ = buckets.take(&who, NOW);
        }

        let table = buckets.table.lock().unwrap();
        assert_eq!(
            (table.taken.capacity(), table.at.capacity()),
            (PLACES, PLACES)
        );
        let used = table.taken.iter().filter(|taken| **taken > 0).count();
        assert!(used > PLACES * 9 / 10, "and all of it is used: {used}");
    }

    #[test]
    fn what_is_left_is_told_as_the_draft_has_it() {
        let buckets = buckets(120, 60_000);

        let first = buckets.take(&1, NOW).unwrap();
        passed(&buckets, 1, 118, NOW);
        let last = buckets.take(&1, NOW).unwrap();

        assert_eq!(first.policy_item(), r#""test";q=120;w=60"#);
        assert_eq!(first.item(), r#""test";r=119;t=1"#);
        assert_eq!(last.item(), r#""test";r=0;t=60"#);
    }
}
