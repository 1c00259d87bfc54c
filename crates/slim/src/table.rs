//! Who is subscribed to what, and who gets a message.
//!
//! Pure, one for each generation, as no message goes from one to the other. Left out: whether
//! somebody may subscribe, and the sending.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map},
    ops::Bound,
};

use crate::{Address, Components, Instance};

/// Subscriptions that one link may hold. The next one is refused, and the others stay.
pub const SUBSCRIPTIONS_PER_LINK_MAX: usize = 4096;

/// What a node calls a link; also what it writes into `incoming_conn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What a client calls a subscription of its own. Several may be for one name, and the route
/// stays until the last is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u64);

impl SubscriptionId {
    /// Wants no answer. Clients subscribe so again after they have reconnected.
    pub const NONE: Self = Self(0);
}

/// Subscriptions of all links of one generation.
#[derive(Debug, Default)]
pub struct SubscriptionTable {
    prefixes: HashMap<Components, Prefix>,
    links: HashMap<LinkId, Held>,
}

impl SubscriptionTable {
    /// Applies a Subscribe. The same one again changes nothing.
    pub fn subscribe(
        &mut self,
        link: LinkId,
        address: Address,
        subscription: SubscriptionId,
    ) -> Result<(), Full> {
        let held = self.links.entry(link).or_default();
        let known = held.ids.get(&address);
        if known.is_some_and(|ids| ids.contains(&subscription)) {
            return Ok(());
        }
        if held.count >= SUBSCRIPTIONS_PER_LINK_MAX {
            return Err(Full);
        }
        held.count += 1;
        let is_new_route = known.is_none();
        held.ids.entry(address).or_default().insert(subscription);
        if is_new_route {
            let prefix = self.prefixes.entry(address.components).or_default();
            prefix.add(address.instance, link);
        }
        Ok(())
    }

    /// Applies an Unsubscribe.
    ///
    /// A client that reconnected has subscribed again without an id, and later unsubscribes with
    /// the id it had before: an unknown id therefore takes the subscription without one. No id at
    /// all takes every subscription to the name.
    pub fn unsubscribe(
        &mut self,
        link: LinkId,
        address: Address,
        subscription: SubscriptionId,
    ) -> Unsubscribed {
        let Some(held) = self.links.get_mut(&link) else {
            return Unsubscribed::Unknown;
        };
        let Some(ids) = held.ids.get_mut(&address) else {
            return Unsubscribed::Unknown;
        };
        let before = ids.len();
        if subscription == SubscriptionId::NONE {
            ids.clear();
        } else if !ids.remove(&subscription) && !ids.remove(&SubscriptionId::NONE) {
            return Unsubscribed::Unknown;
        }
        held.count -= before - ids.len();
        if !ids.is_empty() {
            return Unsubscribed::Kept;
        }
        held.ids.remove(&address);
        if held.ids.is_empty() {
            self.links.remove(&link);
        }
        self.remove_route(link, address);
        Unsubscribed::Removed
    }

    /// Forgets a link that is gone.
    pub fn drop_link(&mut self, link: LinkId) {
        let held = self.links.remove(&link).unwrap_or_default();
        for address in held.ids.into_keys() {
            self.remove_route(link, address);
        }
    }

    /// Puts those who get a message into `to`, which is emptied first: nobody twice, and never the
    /// link it came from. A fan-out of one, or none, means any one of them, in turn.
    pub fn route(&mut self, from: LinkId, destination: Address, fanout: u32, to: &mut Vec<LinkId>) {
        to.clear();
        let Some(prefix) = self.prefixes.get_mut(&destination.components) else {
            return;
        };
        let route = match destination.instance {
            Instance::Any => Some(&mut prefix.whole),
            Instance::Only(_) => prefix.instances.get_mut(&destination.instance),
        };
        let Some(route) = route else { return };
        if fanout > 1 {
            to.extend(route.links.keys().filter(|link| **link != from));
        } else {
            to.extend(route.next(from));
        }
    }

    /// Whether a link is subscribed to exactly that.
    pub fn is_subscribed(&self, link: LinkId, address: Address) -> bool {
        let held = self.links.get(&link);
        held.is_some_and(|held| held.ids.contains_key(&address))
    }

    /// What a link is subscribed to.
    pub fn subscriptions(&self, link: LinkId) -> impl Iterator<Item = Address> {
        let held = self.links.get(&link).into_iter();
        held.flat_map(|held| held.ids.keys().copied())
    }

    /// Names below which somebody is subscribed, and links that hold a subscription; for a gauge.
    pub fn counts(&self) -> (usize, usize) {
        (self.prefixes.len(), self.links.len())
    }

    fn remove_route(&mut self, link: LinkId, address: Address) {
        if let hash_map::Entry::Occupied(mut prefix) = self.prefixes.entry(address.components) {
            prefix.get_mut().remove(address.instance, link);
            if prefix.get().instances.is_empty() {
                prefix.remove();
            }
        }
    }
}

/// What an Unsubscribe did. SLIM's node answers the last with an error and the others without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsubscribed {
    /// The link gets nothing more for the name.
    Removed,
    /// Another of its subscriptions keeps the route.
    Kept,
    /// There was nothing to remove.
    Unknown,
}

/// The link holds [`SUBSCRIPTIONS_PER_LINK_MAX`] already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many subscriptions on one connection")]
pub struct Full;

/// What one link is subscribed to.
#[derive(Debug, Default)]
struct Held {
    ids: HashMap<Address, BTreeSet<SubscriptionId>>,
    /// Ids in all of them.
    count: usize,
}

/// All that is subscribed to below three components.
#[derive(Debug, Default)]
struct Prefix {
    instances: HashMap<Instance, Route>,
    /// Their union, for messages to any instance.
    whole: Route,
}

impl Prefix {
    fn add(&mut self, instance: Instance, link: LinkId) {
        self.instances.entry(instance).or_default().add(link);
        self.whole.add(link);
    }

    fn remove(&mut self, instance: Instance, link: LinkId) {
        if let hash_map::Entry::Occupied(mut route) = self.instances.entry(instance) {
            route.get_mut().remove(link);
            if route.get().links.is_empty() {
                route.remove();
            }
        }
        self.whole.remove(link);
    }
}

/// Links that get what is for one name, and whose turn it is.
#[derive(Debug, Default)]
struct Route {
    /// How many instances of the name each of them holds; one, but for the union.
    links: BTreeMap<LinkId, usize>,
    served: Option<LinkId>,
}

impl Route {
    fn add(&mut self, link: LinkId) {
        *self.links.entry(link).or_default() += 1;
    }

    fn remove(&mut self, link: LinkId) {
        if let Some(count) = self.links.get_mut(&link) {
            *count -= 1;
            if *count == 0 {
                self.links.remove(&link);
            }
        }
    }

    /// The one after the one that was served last. Remembering that one, instead of a position,
    /// keeps the turn when links come and go.
    fn next(&mut self, from: LinkId) -> Option<LinkId> {
        let after = self.served.map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.links.range((after, Bound::Unbounded));
        let all = later.chain(self.links.iter());
        let next = all.map(|(link, _)| *link).find(|link| *link != from)?;
        self.served = Some(next);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Name;

    const ALICE: LinkId = LinkId(1);
    const BOB: LinkId = LinkId(2);
    const CAROL: LinkId = LinkId(3);
    const MANY: u32 = 256;

    fn at(id: u128) -> Address {
        let name = Name::parse("org/ns/app").unwrap();
        name.at(Instance::Only(id)).address
    }

    fn any() -> Address {
        Name::parse("org/ns/app").unwrap().address
    }

    fn table(of: &[(LinkId, Address)]) -> SubscriptionTable {
        let mut table = SubscriptionTable::default();
        for (link, address) in of {
            table.subscribe(*link, *address, SubscriptionId(1)).unwrap();
        }
        table
    }

    fn route(table: &mut SubscriptionTable, from: LinkId, to: Address, fanout: u32) -> Vec<LinkId> {
        let mut links = vec![from];
        table.route(from, to, fanout, &mut links);
        links
    }

    #[test]
    fn an_instance_gets_its_own_and_what_is_for_any() {
        let mut table = table(&[(ALICE, at(1)), (BOB, at(2))]);
        assert_eq!(route(&mut table, CAROL, at(2), MANY), [BOB]);
        assert_eq!(route(&mut table, CAROL, any(), MANY), [ALICE, BOB]);
        assert_eq!(route(&mut table, CAROL, at(3), MANY), []);
    }

    #[test]
    fn a_subscription_to_any_gets_nothing_that_names_one() {
        let mut table = table(&[(ALICE, any())]);
        assert_eq!(route(&mut table, BOB, at(1), MANY), []);
        assert_eq!(route(&mut table, BOB, any(), MANY), [ALICE]);
    }

    #[test]
    fn nothing_comes_back_and_nothing_comes_twice() {
        let mut table = table(&[(ALICE, at(1)), (ALICE, at(2)), (BOB, at(1))]);
        assert_eq!(route(&mut table, BOB, any(), MANY), [ALICE]);
        assert_eq!(route(&mut table, ALICE, at(1), 1), [BOB]);
        assert_eq!(route(&mut table, BOB, at(2), 1), [ALICE]);
        assert_eq!(route(&mut table, ALICE, at(2), 1), []);
    }

    #[test]
    fn anycast_takes_turns_while_links_come_and_go() {
        let mut table = table(&[(ALICE, at(1)), (BOB, at(2)), (CAROL, at(3))]);
        let from = LinkId(9);
        let turns: Vec<_> = (0..4)
            .flat_map(|_| route(&mut table, from, any(), 1))
            .collect();
        assert_eq!(turns, [ALICE, BOB, CAROL, ALICE]);
        table.drop_link(BOB);
        let turns: Vec<_> = (0..3)
            .flat_map(|_| route(&mut table, from, any(), 0))
            .collect();
        assert_eq!(turns, [CAROL, ALICE, CAROL]);
    }

    #[test]
    fn a_route_stays_until_its_last_subscription_goes() {
        let mut table = table(&[(ALICE, at(1))]);
        table.subscribe(ALICE, at(1), SubscriptionId(2)).unwrap();
        let unsubscribe =
            |table: &mut SubscriptionTable, id| table.unsubscribe(ALICE, at(1), SubscriptionId(id));
        assert_eq!(unsubscribe(&mut table, 7), Unsubscribed::Unknown);
        assert_eq!(unsubscribe(&mut table, 1), Unsubscribed::Kept);
        assert_eq!(route(&mut table, BOB, at(1), MANY), [ALICE]);
        assert_eq!(unsubscribe(&mut table, 2), Unsubscribed::Removed);
        assert_eq!(unsubscribe(&mut table, 2), Unsubscribed::Unknown);
        assert_eq!(route(&mut table, BOB, at(1), MANY), []);
        assert_eq!(table.counts(), (0, 0));
    }

    #[test]
    fn an_id_from_before_a_reconnect_ends_what_was_subscribed_again_without_one() {
        let mut table = SubscriptionTable::default();
        table.subscribe(ALICE, at(1), SubscriptionId::NONE).unwrap();
        let ended = table.unsubscribe(ALICE, at(1), SubscriptionId(77));
        assert_eq!(ended, Unsubscribed::Removed);
        assert_eq!(table.counts(), (0, 0));
    }

    #[test]
    fn a_link_holds_only_so_much_and_repeats_are_free() {
        let mut table = SubscriptionTable::default();
        for id in 0..SUBSCRIPTIONS_PER_LINK_MAX as u128 {
            table.subscribe(ALICE, at(id), SubscriptionId(1)).unwrap();
        }
        assert_eq!(table.subscribe(ALICE, at(0), SubscriptionId(2)), Err(Full));
        assert_eq!(table.subscribe(ALICE, at(0), SubscriptionId(1)), Ok(()));
        assert_eq!(table.subscribe(BOB, at(0), SubscriptionId(1)), Ok(()));
        table.unsubscribe(ALICE, at(5), SubscriptionId(1));
        assert_eq!(table.subscribe(ALICE, at(0), SubscriptionId(2)), Ok(()));
        table.drop_link(ALICE);
        table.drop_link(BOB);
        assert_eq!(table.counts(), (0, 0));
    }
}
