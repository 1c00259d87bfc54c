//! The RFC 9420 passive-client vectors of suite 1, run through our storage provider: a
//! client that joins by a Welcome, follows every commit, and must know each epoch's
//! authenticator. The group is loaded from the store before every epoch. There are 8 clients
//! that only join, 13 that follow 2 commits each, and 1 that follows 200.
//!
//! The vectors are not part of the project. They are read from `SKYTALE_MLS_VECTORS`, or
//! from `../shared/vectors/mls` beside the project; without a folder the tests say that
//! they were skipped.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml lets tests unwrap, but not what they call"
)]

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use openmls::{
    prelude::{tls_codec::Deserialize as _, *},
    schedule::PreSharedKeyId,
};
use openmls_traits::storage::{CURRENT_VERSION, Entity, StorageProvider as _, traits};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use skytale_agent::mls::provider::Provider;

#[test]
fn eight_clients_join_by_their_welcome() {
    assert_ran("passive-client-welcome.suite1.json", 8, 0);
}

#[test]
fn thirteen_clients_follow_a_commit_of_every_sort() {
    assert_ran("passive-client-handling-commit.suite1.json", 13, 26);
}

#[test]
fn one_client_follows_two_hundred_epochs() {
    assert_ran("passive-client-random.suite1.json", 1, 200);
}

/// Runs a file's vectors and counts them: a file that lost some must not pass.
fn assert_ran(file: &str, clients: usize, epochs: usize) {
    let Some(folder) = folder() else {
        // Not `println!`: the test runner would swallow it, and a skipped test looks green.
        let note = format!("SKIPPED {file}: SKYTALE_MLS_VECTORS names no folder of vectors\n");
        io::stderr().write_all(note.as_bytes()).unwrap();
        return;
    };
    let text = fs::read(folder.join(file)).expect("the folder of vectors holds this file");
    let vectors: Vec<Vector> = serde_json::from_slice(&text).unwrap();
    let ran: Vec<usize> = vectors.iter().map(follow).collect();
    assert_eq!((ran.len(), ran.iter().sum()), (clients, epochs));
}

/// A folder that was named must be there; the usual one need not.
#[expect(
    clippy::disallowed_methods,
    reason = "a test's configuration is its environment"
)]
fn folder() -> Option<PathBuf> {
    if let Ok(named) = std::env::var("SKYTALE_MLS_VECTORS") {
        return Some(named.into());
    }
    // Asked when it runs: checkouts that share a target folder share this program too.
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let usual = Path::new(&here).join("../../../shared/vectors/mls");
    usual.exists().then_some(usual)
}

/// Plays one vector and says through how many epochs it went.
fn follow(vector: &Vector) -> usize {
    assert_eq!(vector.cipher_suite, 1);
    let mut store = Connection::open_in_memory().unwrap();
    store
        .execute_batch(include_str!("../src/migrations/0001_mls.sql"))
        .unwrap();

    let group_id = step(&mut store, |provider| {
        take_keys(provider, vector);
        join(provider, vector)
    });
    for epoch in &vector.epochs {
        step(&mut store, |provider| {
            let mut group = MlsGroup::load(provider.storage(), &group_id)
                .unwrap()
                .unwrap();
            for message in epoch.proposals.iter().chain([&epoch.commit]) {
                receive(provider, &mut group, message);
            }
            assert_eq!(
                group.epoch_authenticator().as_slice(),
                epoch.authenticator.0
            );
        });
    }
    vector.epochs.len()
}

fn step<T>(store: &mut Connection, work: impl FnOnce(&Provider<'_>) -> T) -> T {
    let transaction = store.transaction().unwrap();
    let provider = Provider::new(&transaction);
    let result = work(&provider);
    provider.flush().unwrap();
    drop(provider);
    transaction.commit().unwrap();
    result
}

/// Puts into the store what the client had before its Welcome came.
fn take_keys(provider: &Provider<'_>, vector: &Vector) {
    for psk in &vector.external_psks {
        let id = PreSharedKeyId::external(psk.psk_id.0.clone(), Vec::new());
        id.store(provider, &psk.psk.0).unwrap();
    }
    let MlsMessageBodyIn::KeyPackage(key_package) = vector.key_package.parse().extract() else {
        panic!("not a KeyPackage");
    };
    let key_package = key_package.into_unchecked();
    let reference = key_package.hash_ref(provider.crypto()).unwrap();
    let bundle = GivenKeyPackage {
        key_package,
        private_init_key: vector.init_priv.0.clone().into(),
        private_encryption_key: GivenKey {
            key: vector.encryption_priv.0.clone().into(),
        },
    };
    provider
        .storage()
        .write_key_package(&reference, &bundle)
        .unwrap();
}

fn join(provider: &Provider<'_>, vector: &Vector) -> GroupId {
    let config = MlsGroupJoinConfig::builder()
        .wire_format_policy(MIXED_PLAINTEXT_WIRE_FORMAT_POLICY)
        .number_of_resumption_psks(64)
        .build();
    let MlsMessageBodyIn::Welcome(welcome) = vector.welcome.parse().extract() else {
        panic!("not a Welcome");
    };
    let mut joining = StagedWelcome::build_from_welcome(provider, &config, welcome)
        .unwrap()
        .skip_lifetime_validation();
    if let Some(tree) = &vector.ratchet_tree {
        joining = joining.with_ratchet_tree(RatchetTreeIn::tls_deserialize_exact(&tree.0).unwrap());
    }
    let group = joining.build().unwrap().into_group(provider).unwrap();
    assert_eq!(
        group.epoch_authenticator().as_slice(),
        vector.initial_epoch_authenticator.0
    );
    group.group_id().clone()
}

fn receive(provider: &Provider<'_>, group: &mut MlsGroup, message: &Hex) {
    let message = message.parse().try_into_protocol_message().unwrap();
    match group
        .process_message(provider, message)
        .unwrap()
        .into_content()
    {
        ProcessedMessageContent::ProposalMessage(proposal) => {
            group
                .store_pending_proposal(provider.storage(), *proposal)
                .unwrap();
        }
        ProcessedMessageContent::StagedCommitMessage(commit) => {
            group.merge_staged_commit(provider, *commit).unwrap();
        }
        ProcessedMessageContent::ApplicationMessage(_)
        | ProcessedMessageContent::ExternalJoinProposalMessage(_)
        | ProcessedMessageContent::OwnPendingCommit
        | ProcessedMessageContent::OwnPrivateMessage => panic!("no vector holds this"),
    }
}

/// `OpenMLS` makes its `KeyPackageBundle` only together with new keys; the vectors bring
/// theirs. This has the same fields, and the store cannot tell them apart.
#[derive(Serialize, Deserialize)]
struct GivenKeyPackage {
    key_package: KeyPackage,
    private_init_key: HpkePrivateKey,
    private_encryption_key: GivenKey,
}

#[derive(Serialize, Deserialize)]
struct GivenKey {
    key: HpkePrivateKey,
}

impl Entity<CURRENT_VERSION> for GivenKeyPackage {}
impl traits::KeyPackage<CURRENT_VERSION> for GivenKeyPackage {}

#[derive(Deserialize)]
struct Vector {
    cipher_suite: u16,
    external_psks: Vec<Psk>,
    key_package: Hex,
    encryption_priv: Hex,
    init_priv: Hex,
    welcome: Hex,
    ratchet_tree: Option<Hex>,
    initial_epoch_authenticator: Hex,
    epochs: Vec<Epoch>,
}

#[derive(Deserialize)]
struct Psk {
    psk_id: Hex,
    psk: Hex,
}

#[derive(Deserialize)]
struct Epoch {
    proposals: Vec<Hex>,
    commit: Hex,
    #[serde(rename = "epoch_authenticator")]
    authenticator: Hex,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Hex(Vec<u8>);

impl Hex {
    fn parse(&self) -> MlsMessageIn {
        MlsMessageIn::tls_deserialize_exact(&self.0).unwrap()
    }
}

impl TryFrom<String> for Hex {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digit = |c: char| c.to_digit(16).and_then(|value| u8::try_from(value).ok());
        let digits: Option<Vec<u8>> = text.chars().map(digit).collect();
        let digits = digits.ok_or("not hexadecimal")?;
        let (pairs, []) = digits.as_chunks() else {
            return Err("half a byte at the end");
        };
        Ok(Self(
            pairs.iter().map(|[high, low]| high << 4 | low).collect(),
        ))
    }
}
