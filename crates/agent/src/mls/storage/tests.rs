//! The store under real `OpenMLS` groups. Nobody here keeps a group in memory: each step
//! opens a transaction, loads the group, works, flushes, commits and forgets it.

use openmls::{
    ciphersuite::hash_ref::ProposalRef,
    prelude::{tls_codec::Deserialize as _, *},
};
use openmls_basic_credential::SignatureKeyPair;
use rusqlite::Transaction;

use super::*;
use crate::mls::provider::Provider;

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
const MIGRATION: &str = include_str!("../../migrations/0001_mls.sql");

#[test]
fn three_members_live_from_their_stores_alone() {
    let (mut alice, mut bob) = (Person::named("Alice"), Person::named("Bob"));
    let mut carol = Person::named("Carol");
    let id = alice.creates(b"reef");

    let welcome = alice.adds(&id, &mut bob, &mut []);
    bob.joins(&welcome);
    let welcome = alice.adds(&id, &mut carol, &mut [&mut bob]);
    carol.joins(&welcome);
    assert_same_epoch(&id, &mut [&mut alice, &mut bob, &mut carol]);

    for text in ["first", "second", "third"] {
        let message = carol.says(&id, text);
        assert_eq!(alice.reads(&id, &message), text);
        assert_eq!(bob.reads(&id, &message), text);
    }
    bob.updates(&id, &mut [&mut alice, &mut carol]);
    carol.updates(&id, &mut [&mut alice, &mut bob]);
    assert_same_epoch(&id, &mut [&mut alice, &mut bob, &mut carol]);

    alice.removes(&id, "Carol", &mut [&mut bob, &mut carol]);
    assert_same_epoch(&id, &mut [&mut alice, &mut bob]);
    assert!(!carol.group(&id, |_, _, group| group.is_active()));
    let message = bob.says(&id, "without Carol");
    assert_eq!(alice.reads(&id, &message), "without Carol");
    assert!(carol.tries_to_read(&id, &message).is_err());
}

#[test]
fn a_step_that_dies_leaves_the_group_as_it_was() {
    // Dying before the flush leaves nothing in the table; dying after it leaves all that
    // the rollback takes back. Both must look alike afterwards.
    for flushed_before_death in [false, true] {
        let (mut alice, mut bob, id) = alice_and_bob();
        let commit = alice.commits_update(&id);
        let before = bob.table();

        let transaction = bob.store.transaction().unwrap();
        let provider = Provider::new(&transaction);
        let mut group = load(&provider, &id);
        receive(&provider, &mut group, &commit).unwrap();
        if flushed_before_death {
            provider.flush().unwrap();
        }
        drop((group, provider));
        transaction.rollback().unwrap();

        assert_eq!(bob.table(), before);
        bob.reads_commit(&id, &commit);
        assert_same_epoch(&id, &mut [&mut alice, &mut bob]);
        let message = alice.says(&id, "still here");
        assert_eq!(bob.reads(&id, &message), "still here");
    }
}

#[test]
fn a_message_read_in_a_step_that_died_can_be_read_again() {
    let (mut alice, mut bob, id) = alice_and_bob();
    let message = alice.says(&id, "once more");

    let transaction = bob.store.transaction().unwrap();
    let provider = Provider::new(&transaction);
    let mut group = load(&provider, &id);
    receive(&provider, &mut group, &message).unwrap();
    provider.flush().unwrap();
    drop((group, provider));
    transaction.rollback().unwrap();

    assert_eq!(bob.reads(&id, &message), "once more");
    assert!(bob.tries_to_read(&id, &message).is_err(), "and only once");
}

#[test]
fn a_pending_commit_outlives_its_step_and_can_be_merged_or_cleared() {
    let (mut alice, mut bob, id) = alice_and_bob();

    alice.group(&id, |provider, signer, group| {
        let parameters = LeafNodeParameters::default();
        group.self_update(provider, signer, parameters).unwrap();
    });
    assert!(alice.group(&id, |_, _, group| group.pending_commit().is_some()));
    alice.group(&id, |provider, _, group| {
        group.clear_pending_commit(provider.storage()).unwrap();
    });
    assert!(alice.group(&id, |_, _, group| group.pending_commit().is_none()));

    let commit = alice.commits_update(&id);
    bob.reads_commit(&id, &commit);
    assert_same_epoch(&id, &mut [&mut alice, &mut bob]);
}

#[test]
fn a_row_is_written_once_a_transaction() {
    let (mut alice, mut bob, id) = alice_and_bob();
    alice
        .store
        .execute_batch(
            "CREATE TEMP TABLE written (kind INTEGER, key BLOB);
             CREATE TEMP TRIGGER inserts AFTER INSERT ON mls_entities
             BEGIN INSERT INTO written VALUES (new.kind, new.key); END;
             CREATE TEMP TRIGGER updates AFTER UPDATE ON mls_entities
             BEGIN INSERT INTO written VALUES (new.kind, new.key); END;",
        )
        .unwrap();

    let messages = alice.group(&id, |provider, signer, group| {
        let mut say = |n: usize| {
            let message = group.create_message(provider, signer, n.to_string().as_bytes());
            message.unwrap().to_bytes().unwrap()
        };
        (0..64).map(&mut say).collect::<Vec<_>>()
    });

    let written: Vec<u8> = column(&alice.store, "SELECT kind FROM written");
    assert_eq!(written, [Kind::MessageSecrets as u8]);
    for (n, message) in messages.iter().enumerate() {
        assert_eq!(bob.reads(&id, message), n.to_string());
    }

    alice.store.execute_batch("DELETE FROM written").unwrap();
    let commits: Vec<_> = alice.step(|provider, signer| {
        let mut group = load(provider, &id);
        (0..3)
            .map(|_| {
                let parameters = LeafNodeParameters::default();
                let bundle = group.self_update(provider, signer, parameters).unwrap();
                group.merge_pending_commit(provider).unwrap();
                bundle.into_commit().to_bytes().unwrap()
            })
            .collect()
    });
    let repeats: Vec<i64> = column(
        &alice.store,
        "SELECT count(*) FROM written GROUP BY kind, key HAVING count(*) > 1",
    );
    assert!(repeats.is_empty(), "{repeats:?}");
    for commit in commits {
        bob.reads_commit(&id, &commit);
    }
    assert_same_epoch(&id, &mut [&mut alice, &mut bob]);
}

#[test]
fn one_overlay_serves_many_steps_of_many_groups() {
    let (mut alice, mut bob, reef) = alice_and_bob();
    let shoal = alice.creates(b"shoal");
    let welcome = alice.adds(&shoal, &mut bob, &mut []);
    bob.joins(&welcome);
    let commit = alice.commits_update(&reef);
    let messages = [alice.says(&reef, "reef"), alice.says(&shoal, "shoal")];

    let texts = bob.step(|provider, _| {
        receive(provider, &mut load(provider, &reef), &commit).unwrap();
        // Loaded anew inside the transaction: what was not flushed yet must be seen.
        let mut groups = [load(provider, &reef), load(provider, &shoal)];
        let both = groups.iter_mut().zip(&messages);
        both.map(|(group, message)| receive(provider, group, message).unwrap())
            .collect::<Vec<_>>()
    });

    assert_eq!(texts, [Some("reef".into()), Some("shoal".into())]);
    assert_same_epoch(&reef, &mut [&mut alice, &mut bob]);
}

#[test]
fn a_shadow_waits_beside_the_live_group_until_it_is_discarded() {
    let (mut alice, mut bob, id) = alice_and_bob();
    let before = bob.table();

    let _refused = bob.returns_by_external_commit(&alice.group_info(&id));
    let message = alice.says(&id, "nothing happened");
    assert_eq!(bob.reads(&id, &message), "nothing happened");
    bob.step(|provider, _| provider.storage().discard(&id).unwrap());

    let shadows = column::<i64>(&bob.store, "SELECT kind FROM mls_entities WHERE space = 2");
    assert!(shadows.is_empty());
    assert_eq!(bob.table().len(), before.len());
    assert!(bob.step(|provider, _| !provider.storage().promote(&id).unwrap()));
    bob.updates(&id, &mut [&mut alice]);
    assert_same_epoch(&id, &mut [&mut alice, &mut bob]);
}

#[test]
fn a_promoted_shadow_takes_the_place_of_the_live_group() {
    let (mut alice, mut bob, id) = alice_and_bob();
    // Bob misses an epoch, so that his live group is of no use any more.
    alice.commits_update(&id);

    let commit = bob.returns_by_external_commit(&alice.group_info(&id));
    alice.reads_commit(&id, &commit);
    assert!(bob.step(|provider, _| provider.storage().promote(&id).unwrap()));

    assert_same_epoch(&id, &mut [&mut alice, &mut bob]);
    let spaces: Vec<u8> = column(
        &bob.store,
        "SELECT DISTINCT space FROM mls_entities WHERE group_id <> x''",
    );
    assert_eq!(spaces, [Space::Live as u8]);
    let key_pairs = |person: &Person| -> Vec<i64> {
        let sql = "SELECT count(*) FROM mls_entities WHERE kind = 13";
        column(&person.store, sql)
    };
    assert_eq!(key_pairs(&bob), [1], "the missed epoch's keys are gone");
    let message = bob.says(&id, "back again");
    assert_eq!(alice.reads(&id, &message), "back again");
    bob.updates(&id, &mut [&mut alice]);
    alice.updates(&id, &mut [&mut bob]);
    assert_same_epoch(&id, &mut [&mut alice, &mut bob]);
}

#[test]
fn a_shadow_is_promoted_out_of_the_same_transaction_too() {
    let (mut alice, mut bob, id) = alice_and_bob();
    alice.commits_update(&id);
    let group_info = alice.group_info(&id);

    let credential = bob.credential();
    let commit = bob.step(|provider, signer| {
        let commit = external_commit(&provider.shadow(), signer, credential, &group_info);
        assert!(provider.storage().promote(&id).unwrap());
        commit
    });

    alice.reads_commit(&id, &commit);
    assert_same_epoch(&id, &mut [&mut alice, &mut bob]);
}

#[test]
fn the_secrets_of_an_epoch_that_is_over_are_in_no_row() {
    let (mut alice, mut bob, id) = alice_and_bob();
    alice.says(&id, "so that a ratchet has moved");
    let secret_kinds = [
        Kind::MessageSecrets,
        Kind::EpochSecrets,
        Kind::EpochKeyPairs,
    ];
    let of_secret_kind = |row: &&Row| secret_kinds.iter().any(|kind| row.1 == *kind as u8);
    let over: Vec<_> = alice
        .table()
        .iter()
        .filter(of_secret_kind)
        .flat_map(byte_strings)
        .collect();
    assert!(
        over.len() > 10,
        "the search must have something to look for"
    );

    alice.updates(&id, &mut [&mut bob]);

    // Resumption PSKs stay on purpose: they prove a membership that was, and open nothing.
    let may_keep_secrets = |row: &&Row| row.1 != Kind::ResumptionPsks as u8;
    let table = alice.table();
    let kept: Vec<_> = table
        .iter()
        .filter(may_keep_secrets)
        .flat_map(byte_strings)
        .collect();
    assert!(kept.len() > 10);
    let survivors = over.iter().filter(|secret| kept.contains(secret));
    assert_eq!(survivors.count(), 0);
}

#[test]
fn a_used_key_package_leaves_no_private_key() {
    let (mut alice, mut bob) = (Person::named("Alice"), Person::named("Bob"));
    let id = alice.creates(b"reef");
    let welcome = alice.adds(&id, &mut bob, &mut []);
    let sql = "SELECT kind FROM mls_entities WHERE space = 0 ORDER BY kind";
    assert_eq!(column::<u8>(&bob.store, sql), [Kind::KeyPackage as u8]);

    bob.joins(&welcome);

    assert!(column::<u8>(&bob.store, sql).is_empty());
}

#[test]
fn a_deleted_group_leaves_no_row_and_its_neighbour_every_one() {
    let (mut alice, mut bob, reef) = alice_and_bob();
    let shoal = alice.creates(b"shoal");
    alice.commits_update(&reef);
    bob.returns_by_external_commit(&alice.group_info(&reef));
    bob.key_package();
    let alone = alice
        .table()
        .into_iter()
        .filter(|row| row.0 == b"shoal")
        .count();

    alice.step(|provider, _| provider.storage().delete_group(&reef).unwrap());
    bob.step(|provider, _| provider.storage().delete_group(&reef).unwrap());

    assert_eq!(alice.table().len(), alone);
    assert!(alice.group(&shoal, |_, _, group| group.is_active()));
    let left: Vec<u8> = column(&bob.store, "SELECT DISTINCT space FROM mls_entities");
    assert_eq!(
        left,
        [Space::Agent as u8],
        "the KeyPackage that nobody has used"
    );
}

#[test]
fn a_group_whose_id_is_empty_does_not_own_the_agents_keys() {
    let mut alice = Person::named("Alice");
    alice.key_package();
    let keys = alice.table();
    let id = alice.creates(b"");

    alice.step(|provider, _| provider.storage().delete_group(&id).unwrap());

    assert_eq!(alice.table(), keys);
}

#[test]
fn proposals_and_own_leaves_wait_in_the_store_for_the_commit() {
    let (mut alice, mut bob, id) = alice_and_bob();
    let mut carol = Person::named("Carol");
    let welcome = alice.adds(&id, &mut carol, &mut [&mut bob]);
    carol.joins(&welcome);

    // Two people propose; each proposal reaches everybody.
    let from_bob = bob.proposes_update(&id);
    let from_carol = carol.proposes_update(&id);
    bob.reads_proposal(&id, &from_carol);
    carol.reads_proposal(&id, &from_bob);
    alice.reads_proposal(&id, &from_bob);
    alice.reads_proposal(&id, &from_carol);
    alice.step(|provider, _| {
        let before = queue(provider, &id);
        let leaf = |member| Sender::Member(LeafNodeIndex::new(member));
        let senders: Vec<_> = before
            .iter()
            .map(|(_, proposal)| proposal.sender().clone())
            .collect();
        assert_eq!(senders, [leaf(1), leaf(2)], "in the order of arrival");
        let (reference, from_bob) = &before[0];
        provider
            .storage()
            .queue_proposal(&id, reference, from_bob)
            .unwrap();
        let after = queue(provider, &id);
        assert_eq!(after.len(), 2, "a proposal that comes twice waits once");
        let references: Vec<ProposalRef> = provider.storage().queued_proposal_refs(&id).unwrap();
        assert!(
            references
                .iter()
                .eq(after.iter().map(|(reference, _)| reference))
        );
    });
    let leaves = "SELECT kind FROM mls_entities WHERE kind = 2";
    assert_eq!(column::<u8>(&bob.store, leaves), [2]);

    let commit = alice.commits(&id, |provider, signer, group| {
        group
            .commit_to_pending_proposals(provider, signer)
            .unwrap()
            .0
    });
    bob.reads_commit(&id, &commit);
    carol.reads_commit(&id, &commit);

    assert_same_epoch(&id, &mut [&mut alice, &mut bob, &mut carol]);
    let waiting = "SELECT kind FROM mls_entities WHERE kind IN (2, 3)";
    for person in [&alice, &bob, &carol] {
        assert!(column::<u8>(&person.store, waiting).is_empty());
    }
    let message = carol.says(&id, "renewed");
    assert_eq!(bob.reads(&id, &message), "renewed");
}

#[test]
fn a_withdrawn_proposal_waits_no_longer() {
    let (_alice, mut bob, id) = alice_and_bob();
    bob.proposes_update(&id);
    bob.group(&id, |provider, _, group| {
        let (reference, _) = queue(provider, &id).remove(0);
        group
            .remove_pending_proposal(provider.storage(), &reference)
            .unwrap();
    });
    assert!(bob.group(&id, |_, _, group| !group.has_pending_proposals()));
}

#[test]
fn a_damaged_row_is_an_error_and_names_its_kind() {
    let (mut alice, _bob, id) = alice_and_bob();
    alice
        .store
        .execute_batch("UPDATE mls_entities SET value = x'c1' WHERE kind = 12")
        .unwrap();

    let error = alice.step(|provider, _| {
        MlsGroup::load(provider.storage(), &id).expect_err("0xc1 is nothing in MessagePack")
    });

    assert!(matches!(error, StorageError::Damaged { kind: 12 }));
}

#[test]
fn bytes_are_written_as_bytes_and_read_in_both_ways() {
    let keys: Vec<Vec<u8>> = vec![vec![200; 32], Vec::new(), vec![1]];

    let written = encode(&keys).unwrap();
    assert!(written.len() < 32 + 1 + 10, "{} bytes", written.len());
    assert_eq!(decode::<Vec<Vec<u8>>>(1, &written).unwrap(), keys);

    // As vaults hold it that were written before.
    let earlier = rmp_serde::to_vec_named(&keys).unwrap();
    assert_ne!(*written, earlier);
    assert_eq!(decode::<Vec<Vec<u8>>>(1, &earlier).unwrap(), keys);
}

#[test]
fn an_encoding_is_the_same_whatever_the_growth_of_its_buffer() {
    let value: Vec<u32> = (0..20_000).collect();
    let encoded = encode(&value).unwrap();
    assert_eq!(encoded.as_slice(), rmp_serde::to_vec_named(&value).unwrap());
}

// People and what they do.

struct Person {
    store: Connection,
    signer: SignatureKeyPair,
    name: &'static str,
}

impl Person {
    fn named(name: &'static str) -> Self {
        let store = Connection::open_in_memory().unwrap();
        store.execute_batch(MIGRATION).unwrap();
        let signer = SignatureKeyPair::new(SUITE.signature_algorithm()).unwrap();
        Self {
            store,
            signer,
            name,
        }
    }

    fn credential(&self) -> CredentialWithKey {
        CredentialWithKey {
            credential: BasicCredential::new(self.name.into()).into(),
            signature_key: self.signer.public().into(),
        }
    }

    fn step<T>(&mut self, work: impl FnOnce(&Provider<'_>, &SignatureKeyPair) -> T) -> T {
        let transaction: Transaction<'_> = self.store.transaction().unwrap();
        let provider = Provider::new(&transaction);
        let result = work(&provider, &self.signer);
        provider.flush().unwrap();
        drop(provider);
        transaction.commit().unwrap();
        result
    }

    fn group<T>(
        &mut self,
        id: &GroupId,
        work: impl FnOnce(&Provider<'_>, &SignatureKeyPair, &mut MlsGroup) -> T,
    ) -> T {
        self.step(|provider, signer| work(provider, signer, &mut load(provider, id)))
    }

    fn creates(&mut self, id: &[u8]) -> GroupId {
        let credential = self.credential();
        let id = GroupId::from_slice(id);
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(SUITE)
            .use_ratchet_tree_extension(true)
            .lifetime(Lifetime::init(0, u64::MAX))
            .build();
        self.step(|provider, signer| {
            MlsGroup::new_with_group_id(provider, signer, &config, id.clone(), credential).unwrap();
        });
        id
    }

    fn key_package(&mut self) -> KeyPackage {
        let credential = self.credential();
        self.step(|provider, signer| {
            let bundle = KeyPackage::builder()
                .key_package_lifetime(Lifetime::init(0, u64::MAX))
                .build(SUITE, provider, signer, credential)
                .unwrap();
            bundle.into_key_package()
        })
    }

    /// Commits, merges at once, and gives the commit for the others.
    fn commits(
        &mut self,
        id: &GroupId,
        stage: impl FnOnce(&Provider<'_>, &SignatureKeyPair, &mut MlsGroup) -> MlsMessageOut,
    ) -> Vec<u8> {
        self.group(id, |provider, signer, group| {
            let commit = stage(provider, signer, group).to_bytes().unwrap();
            group.merge_pending_commit(provider).unwrap();
            commit
        })
    }

    /// Adds one who is not there, and gives the Welcome for the newcomer.
    fn adds(&mut self, id: &GroupId, newcomer: &mut Self, others: &mut [&mut Self]) -> Vec<u8> {
        let key_package = newcomer.key_package();
        let mut welcome = Vec::new();
        let commit = self.commits(id, |provider, signer, group| {
            let added = group.add_members(provider, signer, &[key_package]).unwrap();
            welcome = added.1.to_bytes().unwrap();
            added.0
        });
        everybody_reads(id, &commit, others);
        welcome
    }

    fn joins(&mut self, welcome: &[u8]) {
        let MlsMessageBodyIn::Welcome(welcome) = parse(welcome).extract() else {
            panic!("not a Welcome");
        };
        self.step(|provider, _| {
            StagedWelcome::build_from_welcome(provider, &MlsGroupJoinConfig::default(), welcome)
                .unwrap()
                .skip_lifetime_validation()
                .build()
                .unwrap()
                .into_group(provider)
                .unwrap();
        });
    }

    fn commits_update(&mut self, id: &GroupId) -> Vec<u8> {
        self.commits(id, |provider, signer, group| {
            let parameters = LeafNodeParameters::default();
            let bundle = group.self_update(provider, signer, parameters);
            bundle.unwrap().into_commit()
        })
    }

    fn updates(&mut self, id: &GroupId, others: &mut [&mut Self]) {
        let commit = self.commits_update(id);
        everybody_reads(id, &commit, others);
    }

    fn removes(&mut self, id: &GroupId, name: &str, others: &mut [&mut Self]) {
        let commit = self.commits(id, |provider, signer, group| {
            let credential: Credential = BasicCredential::new(name.into()).into();
            let leaf = group.member_leaf_index(&credential).unwrap();
            group.remove_members(provider, signer, &[leaf]).unwrap().0
        });
        everybody_reads(id, &commit, others);
    }

    fn proposes_update(&mut self, id: &GroupId) -> Vec<u8> {
        self.group(id, |provider, signer, group| {
            let parameters = LeafNodeParameters::default();
            let proposal = group.propose_self_update(provider, signer, parameters);
            proposal.unwrap().0.to_bytes().unwrap()
        })
    }

    fn group_info(&mut self, id: &GroupId) -> Vec<u8> {
        self.group(id, |provider, signer, group| {
            let group_info = group.export_group_info(provider.crypto(), signer, true);
            group_info.unwrap().to_bytes().unwrap()
        })
    }

    /// Builds the commit in the shadow; the live group is not touched.
    fn returns_by_external_commit(&mut self, group_info: &[u8]) -> Vec<u8> {
        let credential = self.credential();
        self.step(|provider, signer| {
            external_commit(&provider.shadow(), signer, credential, group_info)
        })
    }

    fn says(&mut self, id: &GroupId, text: &str) -> Vec<u8> {
        self.group(id, |provider, signer, group| {
            let message = group.create_message(provider, signer, text.as_bytes());
            message.unwrap().to_bytes().unwrap()
        })
    }

    fn reads(&mut self, id: &GroupId, message: &[u8]) -> String {
        self.tries_to_read(id, message)
            .unwrap()
            .expect("a message with text")
    }

    fn tries_to_read(&mut self, id: &GroupId, message: &[u8]) -> Received {
        self.group(id, |provider, _, group| receive(provider, group, message))
    }

    fn reads_commit(&mut self, id: &GroupId, commit: &[u8]) {
        assert_eq!(self.tries_to_read(id, commit).unwrap(), None);
    }

    fn reads_proposal(&mut self, id: &GroupId, proposal: &[u8]) {
        assert_eq!(self.tries_to_read(id, proposal).unwrap(), None);
    }

    fn epoch(&mut self, id: &GroupId) -> (u64, Vec<u8>) {
        self.group(id, |_, _, group| {
            (
                group.epoch().as_u64(),
                group.epoch_authenticator().as_slice().to_vec(),
            )
        })
    }

    fn table(&self) -> Vec<Row> {
        let sql = "SELECT group_id, kind, key, value FROM mls_entities";
        let mut statement = self.store.prepare(sql).unwrap();
        let rows = statement.query_map((), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }
}

/// Group id, kind, key, value.
type Row = (Vec<u8>, u8, Vec<u8>, Vec<u8>);

/// The text of an application message; nothing for a commit (merged) or a proposal (kept).
type Received = Result<Option<String>, ProcessMessageError<StorageError>>;

fn alice_and_bob() -> (Person, Person, GroupId) {
    let (mut alice, mut bob) = (Person::named("Alice"), Person::named("Bob"));
    let id = alice.creates(b"reef");
    let welcome = alice.adds(&id, &mut bob, &mut []);
    bob.joins(&welcome);
    (alice, bob, id)
}

fn load(provider: &Provider<'_>, id: &GroupId) -> MlsGroup {
    MlsGroup::load(provider.storage(), id)
        .unwrap()
        .expect("a group in the store")
}

fn queue(provider: &Provider<'_>, id: &GroupId) -> Vec<(ProposalRef, QueuedProposal)> {
    provider.storage().queued_proposals(id).unwrap()
}

fn parse(message: &[u8]) -> MlsMessageIn {
    MlsMessageIn::tls_deserialize_exact(message).unwrap()
}

fn receive(provider: &Provider<'_>, group: &mut MlsGroup, message: &[u8]) -> Received {
    let message = parse(message).try_into_protocol_message().unwrap();
    match group.process_message(provider, message)?.into_content() {
        ProcessedMessageContent::ApplicationMessage(message) => {
            return Ok(Some(String::from_utf8(message.into_bytes()).unwrap()));
        }
        ProcessedMessageContent::ProposalMessage(proposal) => {
            group
                .store_pending_proposal(provider.storage(), *proposal)
                .unwrap();
        }
        ProcessedMessageContent::StagedCommitMessage(commit) => {
            group.merge_staged_commit(provider, *commit).unwrap();
        }
        ProcessedMessageContent::ExternalJoinProposalMessage(_)
        | ProcessedMessageContent::OwnPendingCommit
        | ProcessedMessageContent::OwnPrivateMessage => panic!("nobody here sends this"),
    }
    Ok(None)
}

fn external_commit(
    provider: &Provider<'_>,
    signer: &SignatureKeyPair,
    credential: CredentialWithKey,
    group_info: &[u8],
) -> Vec<u8> {
    let MlsMessageBodyIn::GroupInfo(group_info) = parse(group_info).extract() else {
        panic!("not a GroupInfo");
    };
    let (_group, bundle) = MlsGroup::external_commit_builder()
        .skip_lifetime_validation()
        .build_group(provider, group_info, credential)
        .unwrap()
        .load_psks(provider.storage())
        .unwrap()
        .build(provider.rand(), provider.crypto(), signer, |_| true)
        .unwrap()
        .finalize(provider)
        .unwrap();
    bundle.into_commit().to_bytes().unwrap()
}

fn everybody_reads(id: &GroupId, commit: &[u8], people: &mut [&mut Person]) {
    for person in people {
        person.reads_commit(id, commit);
    }
}

fn assert_same_epoch(id: &GroupId, people: &mut [&mut Person]) {
    let epochs: Vec<_> = people.iter_mut().map(|person| person.epoch(id)).collect();
    assert!(
        epochs.windows(2).all(|pair| pair[0] == pair[1]),
        "{epochs:?}"
    );
}

fn column<T: rusqlite::types::FromSql>(store: &Connection, sql: &str) -> Vec<T> {
    let mut statement = store.prepare(sql).unwrap();
    let values = statement.query_map((), |row| row.get(0)).unwrap();
    values.map(Result::unwrap).collect()
}

/// Every string of 16 bytes and more in a row's value, found without knowing its type:
/// `OpenMLS` writes bytes both as `MessagePack`'s `bin` and as arrays of small integers.
fn byte_strings(row: &Row) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    rmp_serde::from_slice::<Anything>(&row.3)
        .unwrap()
        .collect(&mut found);
    found.retain(|bytes| bytes.len() >= 16);
    found
}

enum Anything {
    Integer(u64),
    Bytes(Vec<u8>),
    Sequence(Vec<Self>),
    Other,
}

impl Anything {
    fn collect(self, found: &mut Vec<Vec<u8>>) {
        match self {
            Self::Bytes(bytes) => found.push(bytes),
            Self::Sequence(items) => {
                let small = |item: &Self| match item {
                    Self::Integer(number) => u8::try_from(*number).ok(),
                    Self::Bytes(_) | Self::Sequence(_) | Self::Other => None,
                };
                match items.iter().map(small).collect() {
                    Some(bytes) => found.push(bytes),
                    None => items.into_iter().for_each(|item| item.collect(found)),
                }
            }
            Self::Integer(_) | Self::Other => {}
        }
    }
}

impl<'de> serde::Deserialize<'de> for Anything {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnythingVisitor)
    }
}

struct AnythingVisitor;

impl<'de> serde::de::Visitor<'de> for AnythingVisitor {
    type Value = Anything;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any MessagePack")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Anything, E> {
        Ok(Anything::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Anything, E> {
        Ok(Anything::Other)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Anything, E> {
        Ok(Anything::Integer(number))
    }

    fn visit_str<E>(self, _: &str) -> Result<Anything, E> {
        Ok(Anything::Other)
    }

    fn visit_unit<E>(self) -> Result<Anything, E> {
        Ok(Anything::Other)
    }

    fn visit_none<E>(self) -> Result<Anything, E> {
        Ok(Anything::Other)
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Anything, E> {
        Ok(Anything::Bytes(bytes.to_vec()))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Anything, A::Error> {
        let mut found = Vec::new();
        while let Some(item) = items.next_element()? {
            found.push(item);
        }
        Ok(Anything::Sequence(found))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut entries: A) -> Result<Anything, A::Error> {
        // Something else first, or a map of numbers would look like bytes.
        let mut found = vec![Anything::Other];
        while let Some((key, value)) = entries.next_entry()? {
            found.extend([key, value]);
        }
        Ok(Anything::Sequence(found))
    }
}
