//! The instances that SLIM derives from identities, so that nobody can take another's name.

use twox_hash::XxHash3_128;

/// The instance of an application whose identity says `subject`.
pub(crate) fn app_id(subject: &str) -> u128 {
    let id = XxHash3_128::oneshot(subject.as_bytes());
    if is_reserved(id) {
        id % (u128::MAX - RESERVED)
    } else {
        id
    }
}

/// Both instances of the group `organisation/namespace/name` that `subject` moderates: the one
/// that data goes to, and the one for changes of the group.
pub fn channel_ids(subject: &str, [organisation, namespace, name]: [&str; 3]) -> (u128, u128) {
    let hash = |salt, purpose| {
        let text = format!("{subject}/{organisation}/{namespace}/{name}/{purpose}");
        let id = XxHash3_128::oneshot_with_seed(salt, text.as_bytes());
        if is_reserved(id) {
            id % (u128::MAX - RESERVED - 1) + 1
        } else {
            id
        }
    };
    let mut salt = 0;
    loop {
        let (data, control) = (hash(salt, "data"), hash(salt, "control"));
        // Equal ones would be a collision in 128 bits; SLIM tries on as well.
        if data != control || salt == SALT_MAX {
            return (data, control);
        }
        salt += 1;
    }
}

fn is_reserved(id: u128) -> bool {
    id >= u128::MAX - RESERVED
}

/// Instances at the upper end that SLIM keeps for itself; the last one means any.
const RESERVED: u128 = 50;
const SALT_MAX: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// A value that SLIM's own tests know: the instance of this did:key.
    #[test]
    fn an_instance_is_the_hash_of_its_identity() {
        let did = "did:key:z6Mkfvtar6ATQYC5jXqVLBjCH8R6AUAuKjta6LsFcG4gUND1";
        assert_eq!(app_id(did), 0x48b1_da60_0caa_b75f_a73e_4fe3_34bf_1482);
    }

    #[test]
    fn a_group_has_two_instances_and_they_are_its_moderators() {
        let (data, control) = channel_ids("alice", ["org", "ns", "chan"]);
        assert_ne!(data, control);
        assert_ne!(channel_ids("bob", ["org", "ns", "chan"]), (data, control));
        assert_ne!(
            channel_ids("alice", ["org", "ns", "other"]),
            (data, control)
        );
    }
}
