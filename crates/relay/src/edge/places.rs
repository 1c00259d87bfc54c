//! Places at a door: how many connections it holds, in all, from one address, and of those who have
//! not said who they are.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::RelayConfig;

/// Who holds a place at the door.
pub(super) struct Places {
    all: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    strangers_max: usize,
    per_ip: Arc<Mutex<HashMap<IpAddr, usize>>>,
    per_ip_max: usize,
}

/// One connection's places; they are free again when this is dropped.
pub(super) struct Place {
    _one_of_all: OwnedSemaphorePermit,
    stranger: Option<OwnedSemaphorePermit>,
    per_ip: Arc<Mutex<HashMap<IpAddr, usize>>>,
    ip: IpAddr,
}

impl Places {
    pub(super) fn new(config: &RelayConfig) -> Self {
        Self {
            all: Arc::new(Semaphore::new(config.connections_max)),
            strangers: Arc::new(Semaphore::new(config.strangers_max)),
            strangers_max: config.strangers_max,
            per_ip: Arc::default(),
            per_ip_max: config.connections_per_ip_max,
        }
    }

    /// Whether so many have not said who they are that addresses may be made up.
    pub(super) fn are_crowded(&self) -> bool {
        self.strangers.available_permits() < self.strangers_max / 2
    }

    /// A place for somebody from this address, while there is one.
    pub(super) fn take(&self, ip: IpAddr) -> Option<Place> {
        let one_of_all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let stranger = Arc::clone(&self.strangers).try_acquire_owned().ok()?;
        let ip = network(ip);
        let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let held = per_ip.entry(ip).or_default();
        if *held >= self.per_ip_max {
            return None;
        }
        *held += 1;
        Some(Place {
            _one_of_all: one_of_all,
            stranger: Some(stranger),
            per_ip: Arc::clone(&self.per_ip),
            ip,
        })
    }
}

impl Place {
    /// It has said who it is, and leaves its place among the strangers.
    pub(super) fn no_stranger_any_more(&mut self) {
        self.stranger = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = per_ip.get_mut(&self.ip) {
            *held -= 1;
            if *held == 0 {
                per_ip.remove(&self.ip);
            }
        }
    }
}

/// What counts as one address: who has an IPv6 network has all of its addresses.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let network_of = |ip: &str| network(ip.parse().unwrap());

        assert_eq!(
            network_of("2001:db8:1:2:3::4"),
            network_of("2001:db8:1:2:ffff::")
        );
        assert_ne!(network_of("2001:db8:1:2::"), network_of("2001:db8:1:3::"));
        assert_eq!(network_of("::ffff:192.0.2.1"), network_of("192.0.2.1"));
    }
}
