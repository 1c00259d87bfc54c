//! How many connections each address has, so that one that opens as many as it can leaves room for
//! the others.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    address::{Address, Cidr},
    config::Config,
};

/// Counts those that are open.
#[derive(Debug)]
pub(crate) struct Crowd {
    /// No more entries than there are connections.
    here: Arc<Counts>,
    each_max: usize,
    /// These bring connections of many.
    proxies: Vec<Cidr>,
}

/// A connection's place. Another may have it when this is dropped.
#[derive(Debug)]
pub(crate) struct Place(Option<(Address, Arc<Counts>)>);

type Counts = Mutex<HashMap<Address, usize>>;

impl Crowd {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            here: Arc::default(),
            each_max: config.connections_per_address_max,
            proxies: config.trusted_proxies.clone(),
        }
    }

    /// A place, if the address has not as many as it may.
    pub(crate) fn enter(&self, from: IpAddr) -> Option<Place> {
        if self.proxies.iter().any(|block| block.has(from)) {
            return Some(Place(None));
        }
        let address = Address::from(from);
        let mut here = lock(&self.here);
        let count = here.entry(address).or_default();
        if *count >= self.each_max {
            return None;
        }
        *count += 1;
        Some(Place(Some((address, Arc::clone(&self.here)))))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((address, here)) = self.0.take() else {
            return;
        };
        let mut here = lock(&here);
        if let Some(count) = here.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                here.remove(&address);
            }
        }
    }
}

fn lock(here: &Counts) -> MutexGuard<'_, HashMap<Address, usize>> {
    here.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_a_trusted_proxy_as_many_as_it_likes() {
        let mut config = Config::new(Path::new("x"));
        config.connections_per_address_max = 2;
        config.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        let crowd = Crowd::new(&config);
        let enter = |from: &str| crowd.enter(from.parse().unwrap());

        let first = enter("2001:db8::1");
        let second = enter("2001:db8::2");
        assert!(first.is_some() && second.is_some());
        assert!(enter("2001:db8::3").is_none(), "one /64, one address");
        let other = enter("192.0.2.1");
        assert!(other.is_some());
        let proxied: Vec<_> = (0..9).map(|_| enter("10.1.1.1")).collect();
        assert!(proxied.iter().all(Option::is_some));

        drop(first);
        assert!(enter("2001:db8::3").is_some());
        drop((second, other));
        assert!(lock(&crowd.here).is_empty(), "and it forgets who has gone");
    }
}
