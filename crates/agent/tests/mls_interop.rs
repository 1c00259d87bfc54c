//! Our provider and `OpenMLS` in one group with mls-rs, a library that shares no code with
//! them and does its arithmetic in AWS-LC. Each story is told twice: with the foreign
//! agent's commits in the clear (its default) and encrypted (ours).

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml lets tests unwrap, but not what they call"
)]

use mls_rs::{
    CipherSuite, CipherSuiteProvider as _, Client, CryptoProvider as _, ExtensionList, Group,
    MlsMessage,
    client_builder::{ClientBuilder, MlsConfig, PaddingMode},
    group::ReceivedMessage,
    identity::{
        SigningIdentity,
        basic::{BasicCredential as ForeignCredential, BasicIdentityProvider},
    },
    mls_rules::{CommitOptions, DefaultMlsRules, EncryptionOptions},
};
use mls_rs_crypto_awslc::AwsLcCryptoProvider;
use openmls::prelude::{tls_codec::Deserialize as _, *};
use openmls_basic_credential::SignatureKeyPair;
use rusqlite::Connection;
use skytale_agent::mls::provider::Provider;

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
const FOREIGN_SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;

#[test]
fn a_foreign_agent_joins_our_group_by_a_welcome() {
    for commits in [Commits::Clear, Commits::Encrypted] {
        let mut alice = Ours::named("Alice");
        let mut bob = foreign("Bob", commits);
        alice.creates();

        let (_, welcome) = alice.adds(&bob.key_package());
        bob.joins(&welcome);

        live_together(&mut alice, &mut bob);
    }
}

#[test]
fn our_agent_joins_a_foreign_group_by_a_welcome() {
    for commits in [Commits::Clear, Commits::Encrypted] {
        let mut alice = Ours::named("Alice");
        let mut bob = foreign("Bob", commits);
        bob.creates();

        let (_, welcome) = bob.adds(&alice.key_package());
        alice.joins(&welcome);

        live_together(&mut alice, &mut bob);
    }
}

#[test]
fn a_foreign_agent_joins_our_group_by_an_external_commit() {
    for commits in [Commits::Clear, Commits::Encrypted] {
        let mut alice = Ours::named("Alice");
        let mut bob = foreign("Bob", commits);
        alice.creates();

        let commit = bob.joins_from_outside(&alice.group_info());
        alice.reads(&commit);

        live_together(&mut alice, &mut bob);
    }
}

#[test]
fn our_agent_joins_a_foreign_group_by_an_external_commit() {
    for commits in [Commits::Clear, Commits::Encrypted] {
        let mut alice = Ours::named("Alice");
        let mut bob = foreign("Bob", commits);
        bob.creates();

        let commit = alice.joins_from_outside(&bob.group_info());
        bob.reads(&commit);

        live_together(&mut alice, &mut bob);
    }
}

/// What two members of two libraries do in one group: talk, renew their keys, add a
/// third of either library, remove them, return from outside.
fn live_together<C: MlsConfig>(alice: &mut Ours, bob: &mut Foreign<C>) {
    talk(alice, bob);
    for _ in 0..2 {
        bob.reads(&alice.updates());
        talk(alice, bob);
        alice.reads(&bob.updates());
        talk(alice, bob);
    }

    // Bob, foreign, adds one of ours, whom Alice removes.
    let mut carol = Ours::named("Carol");
    let (commit, welcome) = bob.adds(&carol.key_package());
    alice.reads(&commit);
    carol.joins(&welcome);
    assert_eq!(carol.epoch(), alice.epoch());
    let message = carol.says("Carol here");
    assert_eq!(alice.reads(&message), Some("Carol here".into()));
    assert_eq!(bob.reads(&message), Some("Carol here".into()));
    let commit = carol.updates();
    alice.reads(&commit);
    bob.reads(&commit);
    let commit = alice.removes("Carol");
    bob.reads(&commit);
    carol.reads(&commit);
    assert!(!carol.group(|_, _, group| group.is_active()));
    talk(alice, bob);

    // Alice, ours, adds a foreign one, whom Bob removes.
    let mut dave = foreign("Dave", Commits::Encrypted);
    let (commit, welcome) = alice.adds(&dave.key_package());
    bob.reads(&commit);
    dave.joins(&welcome);
    assert_eq!(dave.epoch(), alice.epoch());
    let message = dave.says("Dave here");
    assert_eq!(alice.reads(&message), Some("Dave here".into()));
    assert_eq!(bob.reads(&message), Some("Dave here".into()));
    alice.reads(&bob.removes("Dave"));
    talk(alice, bob);

    // Alice comes back from outside: her old leaf goes in the same commit.
    let commit = alice.joins_from_outside(&bob.group_info());
    bob.reads(&commit);
    talk(alice, bob);
    assert_eq!(alice.group(|_, _, group| group.members().count()), 2);
}

fn talk<C: MlsConfig>(alice: &mut Ours, bob: &mut Foreign<C>) {
    assert_eq!(alice.epoch(), bob.epoch());
    for text in ["one", "two"] {
        let message = alice.says(text);
        assert_eq!(bob.reads(&message), Some(text.into()));
        let message = bob.says(text);
        assert_eq!(alice.reads(&message), Some(text.into()));
    }
}

/// An epoch's number and its authenticator: equal when two members agree on everything.
type Epoch = (u64, Vec<u8>);

/// One of ours: the group lives in the store alone, every step loads it.
struct Ours {
    name: &'static str,
    store: Connection,
    signer: SignatureKeyPair,
    group_id: Option<GroupId>,
}

impl Ours {
    fn named(name: &'static str) -> Self {
        let store = Connection::open_in_memory().unwrap();
        store
            .execute_batch(include_str!("../src/migrations/0001_mls.sql"))
            .unwrap();
        let signer = SignatureKeyPair::new(SUITE.signature_algorithm()).unwrap();
        Self {
            name,
            store,
            signer,
            group_id: None,
        }
    }

    fn credential(&self) -> CredentialWithKey {
        CredentialWithKey {
            credential: BasicCredential::new(self.name.into()).into(),
            signature_key: self.signer.public().into(),
        }
    }

    fn step<T>(&mut self, work: impl FnOnce(&Provider<'_>, &SignatureKeyPair) -> T) -> T {
        let transaction = self.store.transaction().unwrap();
        let provider = Provider::new(&transaction);
        let result = work(&provider, &self.signer);
        provider.flush().unwrap();
        drop(provider);
        transaction.commit().unwrap();
        result
    }

    fn group<T>(
        &mut self,
        work: impl FnOnce(&Provider<'_>, &SignatureKeyPair, &mut MlsGroup) -> T,
    ) -> T {
        let id = self.group_id.clone().expect("a member");
        self.step(|provider, signer| {
            let mut group = MlsGroup::load(provider.storage(), &id).unwrap().unwrap();
            work(provider, signer, &mut group)
        })
    }

    fn creates(&mut self) {
        let credential = self.credential();
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(SUITE)
            .use_ratchet_tree_extension(true)
            .wire_format_policy(MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .build();
        let create = |provider: &Provider<'_>, signer: &SignatureKeyPair| {
            MlsGroup::new(provider, signer, &config, credential)
                .unwrap()
                .group_id()
                .clone()
        };
        self.group_id = Some(self.step(create));
    }

    fn key_package(&mut self) -> Vec<u8> {
        let credential = self.credential();
        self.step(|provider, signer| {
            let bundle = KeyPackage::builder().build(SUITE, provider, signer, credential);
            let message = MlsMessageOut::from(bundle.unwrap().into_key_package());
            message.to_bytes().unwrap()
        })
    }

    fn joins(&mut self, welcome: &[u8]) {
        let MlsMessageBodyIn::Welcome(welcome) = parse(welcome).extract() else {
            panic!("not a Welcome");
        };
        let join = |provider: &Provider<'_>, _: &SignatureKeyPair| {
            let group = StagedWelcome::build_from_welcome(provider, &join_config(), welcome)
                .unwrap()
                .skip_lifetime_validation()
                .build()
                .unwrap()
                .into_group(provider)
                .unwrap();
            group.group_id().clone()
        };
        self.group_id = Some(self.step(join));
    }

    /// Builds the commit in the shadow and promotes it, as a join that was accepted.
    fn joins_from_outside(&mut self, group_info: &[u8]) -> Vec<u8> {
        let MlsMessageBodyIn::GroupInfo(group_info) = parse(group_info).extract() else {
            panic!("not a GroupInfo");
        };
        let credential = self.credential();
        let (group_id, commit) = self.step(|provider, signer| {
            let shadow = provider.shadow();
            let (group, bundle) = MlsGroup::external_commit_builder()
                .with_config(join_config())
                .skip_lifetime_validation()
                .build_group(&shadow, group_info, credential)
                .unwrap()
                .load_psks(shadow.storage())
                .unwrap()
                .build(shadow.rand(), shadow.crypto(), signer, |_| true)
                .unwrap()
                .finalize(&shadow)
                .unwrap();
            assert!(provider.storage().promote(group.group_id()).unwrap());
            (
                group.group_id().clone(),
                bundle.into_commit().to_bytes().unwrap(),
            )
        });
        self.group_id = Some(group_id);
        commit
    }

    fn group_info(&mut self) -> Vec<u8> {
        self.group(|provider, signer, group| {
            let group_info = group.export_group_info(provider.crypto(), signer, true);
            group_info.unwrap().to_bytes().unwrap()
        })
    }

    /// The commit and the Welcome.
    fn adds(&mut self, key_package: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let MlsMessageBodyIn::KeyPackage(key_package) = parse(key_package).extract() else {
            panic!("not a KeyPackage");
        };
        self.group(|provider, signer, group| {
            let key_package = key_package.validate(provider.crypto(), ProtocolVersion::Mls10);
            let key_packages = [key_package.unwrap()];
            let (commit, welcome, _) = group.add_members(provider, signer, &key_packages).unwrap();
            group.merge_pending_commit(provider).unwrap();
            (commit.to_bytes().unwrap(), welcome.to_bytes().unwrap())
        })
    }

    fn removes(&mut self, name: &str) -> Vec<u8> {
        self.group(|provider, signer, group| {
            let credential: Credential = BasicCredential::new(name.into()).into();
            let leaf = group.member_leaf_index(&credential).unwrap();
            let (commit, _, _) = group.remove_members(provider, signer, &[leaf]).unwrap();
            group.merge_pending_commit(provider).unwrap();
            commit.to_bytes().unwrap()
        })
    }

    fn updates(&mut self) -> Vec<u8> {
        self.group(|provider, signer, group| {
            let parameters = LeafNodeParameters::default();
            let bundle = group.self_update(provider, signer, parameters).unwrap();
            group.merge_pending_commit(provider).unwrap();
            bundle.into_commit().to_bytes().unwrap()
        })
    }

    fn says(&mut self, text: &str) -> Vec<u8> {
        self.group(|provider, signer, group| {
            let message = group.create_message(provider, signer, text.as_bytes());
            message.unwrap().to_bytes().unwrap()
        })
    }

    /// The text of a message; nothing for a commit, which is merged.
    fn reads(&mut self, message: &[u8]) -> Option<String> {
        let message = parse(message).try_into_protocol_message().unwrap();
        self.group(|provider, _, group| {
            match group
                .process_message(provider, message)
                .unwrap()
                .into_content()
            {
                ProcessedMessageContent::ApplicationMessage(message) => {
                    Some(String::from_utf8(message.into_bytes()).unwrap())
                }
                ProcessedMessageContent::StagedCommitMessage(commit) => {
                    group.merge_staged_commit(provider, *commit).unwrap();
                    None
                }
                ProcessedMessageContent::ProposalMessage(_)
                | ProcessedMessageContent::ExternalJoinProposalMessage(_)
                | ProcessedMessageContent::OwnPendingCommit
                | ProcessedMessageContent::OwnPrivateMessage => panic!("nobody here sends this"),
            }
        })
    }

    fn epoch(&mut self) -> Epoch {
        self.group(|_, _, group| {
            (
                group.epoch().as_u64(),
                group.epoch_authenticator().as_slice().to_vec(),
            )
        })
    }
}

fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .use_ratchet_tree_extension(true)
        .wire_format_policy(MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY)
        .build()
}

fn parse(message: &[u8]) -> MlsMessageIn {
    MlsMessageIn::tls_deserialize_exact(message).unwrap()
}

/// How the foreign agent sends its commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commits {
    Clear,
    Encrypted,
}

/// One of theirs, with the same verbs.
struct Foreign<C: MlsConfig> {
    client: Client<C>,
    group: Option<Group<C>>,
}

fn foreign(name: &str, commits: Commits) -> Foreign<impl MlsConfig> {
    let crypto = AwsLcCryptoProvider::new();
    let suite = crypto.cipher_suite_provider(FOREIGN_SUITE).unwrap();
    let (secret, public) = suite.signature_key_generate().unwrap();
    let credential = ForeignCredential::new(name.as_bytes().to_vec());
    let identity = SigningIdentity::new(credential.into_credential(), public);
    let encrypted = commits == Commits::Encrypted;
    let rules = DefaultMlsRules::new()
        .with_commit_options(CommitOptions::new().with_ratchet_tree_extension(true))
        .with_encryption_options(EncryptionOptions::new(encrypted, PaddingMode::None));
    let client = ClientBuilder::new()
        .identity_provider(BasicIdentityProvider)
        .crypto_provider(crypto)
        .mls_rules(rules)
        .signing_identity(identity, secret, FOREIGN_SUITE)
        .build();
    Foreign {
        client,
        group: None,
    }
}

impl<C: MlsConfig> Foreign<C> {
    fn group(&mut self) -> &mut Group<C> {
        self.group.as_mut().expect("a member")
    }

    fn creates(&mut self) {
        let none = ExtensionList::new;
        self.group = Some(self.client.create_group(none(), none(), None).unwrap());
    }

    fn key_package(&mut self) -> Vec<u8> {
        let none = ExtensionList::new;
        let message = self
            .client
            .generate_key_package_message(none(), none(), None);
        message.unwrap().to_bytes().unwrap()
    }

    fn joins(&mut self, welcome: &[u8]) {
        let welcome = MlsMessage::from_bytes(welcome).unwrap();
        self.group = Some(self.client.join_group(None, &welcome, None).unwrap().0);
    }

    fn joins_from_outside(&mut self, group_info: &[u8]) -> Vec<u8> {
        let group_info = MlsMessage::from_bytes(group_info).unwrap();
        let (group, commit) = self.client.commit_external(group_info).unwrap();
        self.group = Some(group);
        commit.to_bytes().unwrap()
    }

    fn group_info(&mut self) -> Vec<u8> {
        let group_info = self.group().group_info_message_allowing_ext_commit(true);
        group_info.unwrap().to_bytes().unwrap()
    }

    /// The commit and the Welcome.
    fn adds(&mut self, key_package: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let key_package = MlsMessage::from_bytes(key_package).unwrap();
        let commit = self
            .group()
            .commit_builder()
            .add_member(key_package)
            .unwrap();
        let output = commit.build().unwrap();
        self.group().apply_pending_commit().unwrap();
        let welcome = output.welcome_messages().first().expect("one was added");
        (
            output.commit_message().to_bytes().unwrap(),
            welcome.to_bytes().unwrap(),
        )
    }

    fn removes(&mut self, name: &str) -> Vec<u8> {
        let member = self.group().member_with_identity(name.as_bytes()).unwrap();
        let commit = self
            .group()
            .commit_builder()
            .remove_member(member.index)
            .unwrap();
        let output = commit.build().unwrap();
        self.group().apply_pending_commit().unwrap();
        output.commit_message().to_bytes().unwrap()
    }

    fn updates(&mut self) -> Vec<u8> {
        let output = self.group().commit(Vec::new()).unwrap();
        self.group().apply_pending_commit().unwrap();
        output.commit_message().to_bytes().unwrap()
    }

    fn says(&mut self, text: &str) -> Vec<u8> {
        let message = self
            .group()
            .encrypt_application_message(text.as_bytes(), Vec::new());
        message.unwrap().to_bytes().unwrap()
    }

    /// The text of a message; nothing for a commit, which is applied.
    fn reads(&mut self, message: &[u8]) -> Option<String> {
        let message = MlsMessage::from_bytes(message).unwrap();
        match self.group().process_incoming_message(message).unwrap() {
            ReceivedMessage::ApplicationMessage(message) => {
                Some(String::from_utf8(message.data().to_vec()).unwrap())
            }
            ReceivedMessage::Commit(_) => None,
            ReceivedMessage::Proposal(_)
            | ReceivedMessage::GroupInfo(_)
            | ReceivedMessage::Welcome
            | ReceivedMessage::KeyPackage(_) => panic!("nobody here sends this"),
        }
    }

    fn epoch(&mut self) -> Epoch {
        let authenticator = self.group().epoch_authenticator().unwrap();
        (
            self.group().current_epoch(),
            authenticator.as_bytes().to_vec(),
        )
    }
}
