//! Every limit that the relay holds its agents to, by name, and the token bucket that rates use.
//!
//! Pure: a bucket is told the time. What is counted against which limit, the hub and the edges
//! decide; the room a limit leaves for an attack is written down in `docs/security.md`.

use serde::{Deserialize, Serialize};
use skytale_wire::{
    frame::{BODY_BYTES_MAX, INVITES_MAX},
    id::Time,
};

/// What one agent, connection or channel may ask for. The defaults suit a relay that strangers
/// can reach; a benchmark raises them and prints what it raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one application message's sealed body.
    pub body_bytes_max: u32,
    /// Channels that one connection may be subscribed to at once.
    pub subscriptions_max: usize,
    /// Members of one channel.
    pub members_max: usize,
    /// Open invites of one channel.
    pub invites_max: usize,
    /// Channels that one account may have created.
    pub channels_per_account_max: u32,
    /// Single-use `KeyPackages` kept for one agent.
    pub key_packages_max: u32,
    /// Older `KeyPackages` are dropped instead of handed out: the age rule stands outside MLS,
    /// because lifetimes inside would fork groups.
    pub key_package_age_ms_max: u64,
    /// How long a guest's permit lasts.
    pub guest_permit_ms: u64,
    /// How far clocks may be apart before a permit counts as ended.
    pub leeway_ms: u64,
    /// A connection whose queue stays over its limit for so long is closed, to resume later.
    pub slow_reader_ms: u64,
    /// Records that wait for the disk at once, over all channels; beyond them publishing is
    /// refused, because a stuck disk must not fill the memory.
    pub unstored_max: usize,
    /// Any frames, by agent.
    pub frames: Rate,
    /// Application messages, by agent.
    pub publishes: Rate,
    /// Commits, by channel and member; joins by agent.
    pub commits: Rate,
    /// New channels, by agent.
    pub creates: Rate,
    /// Welcomes, by adder and recipient.
    pub welcomes: Rate,
    /// `KeyPackages` uploaded, by agent.
    pub uploads: Rate,
    /// `KeyPackages` taken, by who takes.
    pub claims: Rate,
    /// `KeyPackages` taken, by whose they are: nobody can drain somebody's store quickly.
    pub claims_of_target: Rate,
    /// Sealed `GroupInfos` asked for or uploaded, by agent.
    pub group_infos: Rate,
    /// How often members of a channel are asked to seal afresh.
    pub group_info_calls: Rate,
}

/// How many tokens a bucket holds and how quickly they come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many at once.
    pub burst: u32,
    /// How many come back in a minute.
    pub per_minute: u32,
}

/// One bucket of tokens, full at first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    /// What has been taken and not come back, in parts of a token. A fresh bucket owes nothing,
    /// so that it needs to know neither its rate nor the time.
    owed: u64,
    at: Time,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: u32::try_from(BODY_BYTES_MAX).expect("far below 4 GiB"),
            subscriptions_max: 256,
            members_max: 5000,
            invites_max: INVITES_MAX,
            channels_per_account_max: 10_000,
            key_packages_max: 200,
            key_package_age_ms_max: 30 * 24 * 3_600_000,
            guest_permit_ms: 3_600_000,
            leeway_ms: 5_000,
            slow_reader_ms: 30_000,
            unstored_max: 16_384,
            frames: Rate::per_second(1_000, 2_000),
            publishes: Rate::per_second(200, 400),
            commits: Rate::per_second(2, 8),
            creates: Rate::per_minute(30, 60),
            welcomes: Rate::per_minute(20, 20),
            uploads: Rate::per_minute(100, 300),
            claims: Rate::per_minute(60, 60),
            claims_of_target: Rate::per_minute(20, 20),
            group_infos: Rate::per_minute(60, 60),
            group_info_calls: Rate::per_minute(12, 3),
        }
    }
}

impl Rate {
    /// So many a second, and `burst` at once.
    pub const fn per_second(count: u32, burst: u32) -> Self {
        Self {
            burst,
            per_minute: count.saturating_mul(60),
        }
    }

    /// So many a minute, and `burst` at once.
    pub const fn per_minute(count: u32, burst: u32) -> Self {
        Self {
            burst,
            per_minute: count,
        }
    }
}

impl Bucket {
    /// Whether `cost` tokens are there.
    pub fn holds(&self, rate: Rate, cost: u32, now: Time) -> bool {
        self.owed_at(rate, now) + u64::from(cost) * TOKEN <= u64::from(rate.burst) * TOKEN
    }

    /// Takes `cost` tokens, or none when there are too few.
    #[must_use]
    pub fn take(&mut self, rate: Rate, cost: u32, now: Time) -> bool {
        let granted = self.holds(rate, cost, now);
        if granted {
            self.owed = self.owed_at(rate, now) + u64::from(cost) * TOKEN;
            // The clock is made monotonic by the driver; were it not, time given back must not
            // be given twice.
            self.at = self.at.max(now);
        }
        granted
    }

    /// Whether everything has come back, so that the bucket may be forgotten.
    pub fn is_full(&self, rate: Rate, now: Time) -> bool {
        self.owed_at(rate, now) == 0
    }

    fn owed_at(&self, rate: Rate, now: Time) -> u64 {
        let back = now
            .since(self.at)
            .saturating_mul(u64::from(rate.per_minute));
        self.owed.saturating_sub(back)
    }
}

/// Parts of a token: in one millisecond exactly `per_minute` parts come back.
const TOKEN: u64 = 60_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = Rate::per_second(2, 8);
        let mut bucket = Bucket::default();
        let start = Time(1_000_000);

        let at_once = (0..20).filter(|_| bucket.take(rate, 1, start)).count();
        assert_eq!(at_once, 8);
        assert!(!bucket.take(rate, 1, start.plus(499)));
        assert!(bucket.take(rate, 1, start.plus(500)));
        assert!(!bucket.take(rate, 1, start.plus(500)));
        assert!(!bucket.is_full(rate, start.plus(4_499)));
        assert!(bucket.is_full(rate, start.plus(4_500)));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let rate = Rate::per_minute(60, 1);
        let mut bucket = Bucket::default();

        assert!(bucket.take(rate, 1, Time(10_000)));
        assert!(!bucket.take(rate, 1, Time(5_000)));
        assert!(!bucket.take(rate, 1, Time(10_500)));
        assert!(bucket.take(rate, 1, Time(11_000)));
    }

    proptest! {
        #[test]
        fn no_pattern_of_asking_gets_more_than_burst_and_rate(
            waits in proptest::collection::vec(0u64..2_000, 1..200),
        ) {
            let rate = Rate::per_second(5, 10);
            let mut bucket = Bucket::default();
            let mut now = Time(77);
            let mut granted = 0;
            for wait in &waits {
                now = now.plus(*wait);
                granted += u64::from(bucket.take(rate, 1, now));
            }
            let elapsed: u64 = waits.iter().sum();
            prop_assert!(granted <= 10 + 5 * elapsed / 1_000 + 1, "{granted} in {elapsed} ms");
        }
    }
}
