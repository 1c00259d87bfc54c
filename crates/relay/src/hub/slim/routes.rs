//! Subscriptions of SLIM's clients, and passing messages on.

use bytes::Bytes;
use skytale_slim::{LinkId, Routed, SubscriptionId, Unsubscribed, subscription_ack};

use super::{Conn, Deed, Hub, Output, Parcel, SlimDrop, rights::Denied};

impl Hub {
    pub(super) fn slim_subscribe(
        &mut self,
        conn: Conn,
        message: &Routed,
        id: SubscriptionId,
        out: &mut Vec<Output>,
    ) {
        let address = message.header().destination.address;
        let allowed = self.slim_allow(conn, &[address.components], out);
        let result = allowed.map_err(Denied::text).and_then(|()| {
            let table = self.slim.table(message.generation());
            let done = table.subscribe(LinkId(conn.0), address, id);
            done.map_err(|_| "too many subscriptions on one connection")
        });
        self.counters.slim.refused += u64::from(result.is_err());
        self.slim_answer_subscription(conn, id, result, out);
    }

    pub(super) fn slim_unsubscribe(
        &mut self,
        conn: Conn,
        message: &Routed,
        id: SubscriptionId,
        out: &mut Vec<Output>,
    ) {
        let address = message.header().destination.address;
        let table = self.slim.table(message.generation());
        // A client that comes back may end what it had before: nothing to remove is nothing wrong.
        let _: Unsubscribed = table.unsubscribe(LinkId(conn.0), address, id);
        self.slim_answer_subscription(conn, id, Ok(()), out);
    }

    /// Passes a message on to those who are subscribed now.
    pub(super) fn slim_relay(&mut self, parcel: &Parcel, out: &mut Vec<Output>) {
        let mut to = std::mem::take(&mut self.slim.to);
        self.slim.route(parcel, &mut to);
        let mut links = Vec::with_capacity(to.len());
        let mut any = false;
        for LinkId(number) in to.drain(..) {
            let conn = Conn(number);
            any = true;
            if self.slim.links.contains_key(&conn) {
                links.push(conn);
            } else {
                self.slim_to_native(conn, parcel, out);
            }
        }
        self.slim.to = to;
        if any {
            self.counters.slim.relayed += 1;
        } else {
            self.slim_dropped(SlimDrop::Nobody, 1);
        }
        if !links.is_empty() {
            self.counters.slim.delivered += links.len() as u64;
            if parcel.counts {
                for conn in &links {
                    self.meter.handed(*conn, 1, None);
                }
            }
            out.push(Output::SlimDeliver {
                conns: links,
                onward: std::sync::Arc::clone(&parcel.onward),
            });
        }
    }

    fn slim_answer_subscription(
        &mut self,
        conn: Conn,
        id: SubscriptionId,
        result: Result<(), &str>,
        out: &mut Vec<Output>,
    ) {
        let answer = |result| Some(Bytes::from(subscription_ack(id, result)?));
        let unstored = "the relay cannot store anything now";
        if let (Some(said), Some(unstored)) = (answer(result), answer(Err(unstored))) {
            let deed = Deed::Subscribed {
                conn,
                said,
                unstored,
            };
            // A refusal rests on nothing that is being stored.
            self.slim_do(conn, None, deed, result.is_ok(), out);
        }
    }
}

impl super::Slim {
    /// Who gets a message. Those who only follow a log take no turn from those who do the work.
    fn route(&mut self, parcel: &Parcel, to: &mut Vec<LinkId>) {
        let (from, destination) = (LinkId(parcel.from.0), parcel.destination);
        let table = self.table(parcel.generation);
        table.route(from, destination, parcel.fanout, to);
        if parcel.fanout > 1 || to.is_empty() {
            let mut followers = Vec::new();
            let following = &mut self.following;
            following.route(from, destination, parcel.fanout, &mut followers);
            // A line may take part as one instance of a name and follow another.
            followers.retain(|link| to.binary_search(link).is_err());
            to.append(&mut followers);
        }
    }
}
