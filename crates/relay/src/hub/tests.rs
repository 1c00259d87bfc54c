//! The hub's rules, by what they are about, and the property that random histories keep its
//! invariants.

mod connections;
mod failures;
mod histories;
mod house;
mod invites;
mod limits;
mod mailbox;
mod owned;
mod reading;
mod retention;
mod revoked;
mod roster;
mod sequencing;
mod slim;
mod usage;
