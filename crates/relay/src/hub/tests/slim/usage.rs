//! What SLIM's messages cost, and whom.

use skytale_slim::MessageType;
use skytale_wire::{http::UsageReport, token::AccountId};

use super::{BOTH, account, at, control, msg};
use crate::hub::{
    SlimRules,
    tests::house::{HOUR, House, START},
};

const HERS: AccountId = AccountId([1; 16]);

#[test]
fn messages_and_copies_count_and_control_messages_do_not() {
    for (generation, archive) in BOTH.into_iter().zip([true, false]) {
        let slim = SlimRules {
            archive,
            ..SlimRules::default()
        };
        let mut house = House::metering_slim(slim);
        house.wait(0);
        house.settle();
        let right = || account(&HERS.to_string(), &["org/*"], START.plus(HOUR));
        let alice = house.client_by(right(), generation, "org/ns/alice", 1);
        let bob = house.client_by(right(), generation, "org/ns/bob", 2);
        let nobody = at("org/ns/nobody", 9);
        let hello = msg(&alice, &bob.name, "hello", 1);
        let bytes = hello.original().len() as u64;

        house.says(&alice, hello.clone());
        house.settle();
        house.says(
            &alice,
            control(&alice, &bob.name, MessageType::GroupClose, 90),
        );
        let lost = msg(&alice, &nobody, "hello", 2);
        let more = lost.original().len() as u64;
        house.says(&alice, lost);
        house.settle();
        if archive {
            // A repeat is stored once, and its copy is one more.
            house.says(&alice, hello);
            house.settle();
        }

        house.wait(10_000);
        house.settle();
        let report = house.reports.pop_back().expect("something was used");
        let read: UsageReport = serde_json::from_slice(&report.body).unwrap();
        let entry = &read.entries[0];
        assert_eq!(entry.account_id, HERS);
        assert_eq!((entry.messages, entry.bytes), (2, bytes + more));
        assert_eq!(entry.delivered, if archive { 2 } else { 1 });
        assert_eq!(entry.connected_ms, 20_000, "two streams");
    }
}
