//! MLS as SLIM's sessions use it, and the one place here that names the MLS library.
//!
//! The suite is P-256 (0x0002). A leaf's credential is a token of its application
//! ([`crate::identity`]), whose claim names the leaf's key; that, and not the credential's text,
//! says who a member is. Commits travel in clear, made by the moderator alone, and bring or take
//! members and nothing else.

use std::{collections::HashMap, fmt, mem, sync::PoisonError};

use bytes::Bytes;
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, Credential, CredentialType, CredentialWithKey,
    GroupId, JoinBuilder, KeyPackage, KeyPackageIn, LeafNode, LeafNodeIndex, Lifetime,
    MIXED_PLAINTEXT_WIRE_FORMAT_POLICY, MlsGroup, MlsGroupCreateConfig, MlsGroupJoinConfig,
    MlsMessageBodyIn, MlsMessageIn, MlsMessageOut, OpenMlsProvider, ProcessedMessageContent,
    ProcessedWelcome, ProposalType, ProtocolMessage, ProtocolVersion, Sender,
    SenderRatchetConfiguration, StagedCommit,
    tls_codec::{Deserialize as _, Serialize as _},
};
use openmls_rust_crypto::{MemoryStorage, RustCrypto};
use openmls_traits::random::OpenMlsRand;
use rand::CryptoRng;
use zeroize::Zeroize as _;

use crate::{
    Time,
    identity::{Age, Claim, Identity},
};

/// One session's group and its keys. All of it is wiped when dropped.
pub(crate) struct Mls {
    tools: Tools,
    group: Option<MlsGroup>,
}

/// What the moderator sends when the members change.
pub(crate) struct Change {
    /// To those who are in already.
    pub(crate) commit: Bytes,
    /// To who came in; empty when somebody went.
    pub(crate) welcome: Bytes,
}

/// What somebody said, opened.
pub(crate) struct Opened {
    pub(crate) sender: Claim,
    pub(crate) plaintext: Bytes,
}

/// It is wrong, not for us, or of an epoch that is not here; says which. Nothing of it was used.
#[derive(Debug, thiserror::Error)]
#[error("MLS refuses it: {0}")]
pub(crate) struct Refused(String);

impl Mls {
    pub(crate) fn new() -> Self {
        Self {
            tools: Tools::default(),
            group: None,
        }
    }

    /// `None` until the group is made or joined.
    pub(crate) fn epoch(&self) -> Option<u64> {
        self.group.as_ref().map(|group| group.epoch().as_u64())
    }

    /// A KeyPackage for whoever invites us. Its private half stays here.
    pub(crate) fn key_package(
        &self,
        identity: &Identity,
        now: Time,
        chance: &mut dyn CryptoRng,
    ) -> Result<Bytes, Refused> {
        let bundle = KeyPackage::builder()
            .key_package_lifetime(lifetime())
            .leaf_node_capabilities(capabilities())
            .build(
                SUITE,
                &self.tools,
                identity.key(),
                credential(identity, now, chance),
            )
            .map_err(refused)?;
        bytes_of(&MlsMessageOut::from(bundle.into_key_package()))
    }

    /// A group with us alone, which we moderate.
    pub(crate) fn create(
        &mut self,
        identity: &Identity,
        now: Time,
        chance: &mut dyn CryptoRng,
    ) -> Result<(), Refused> {
        let mut id = [0; GROUP_ID_BYTES];
        chance.fill_bytes(&mut id);
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(SUITE)
            .wire_format_policy(MIXED_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .max_past_epochs(PAST_EPOCHS_MAX)
            .sender_ratchet_configuration(ratchet())
            .capabilities(capabilities())
            .lifetime(lifetime())
            .build();
        let group = MlsGroup::new_with_group_id(
            &self.tools,
            identity.key(),
            &config,
            GroupId::from_slice(&id),
            credential(identity, now, chance),
        );
        self.group = Some(group.map_err(refused)?);
        Ok(())
    }

    /// Joins by the Welcome that answers a KeyPackage of ours. Who is in already was let in by the
    /// moderator, so the age of their tokens does not count; that they are of our circle does.
    ///
    /// One that is refused leaves all as it was. The library takes the KeyPackage's private half
    /// out before it opens anything, so a node could else use it up by a Welcome that it changed.
    pub(crate) fn join(&mut self, welcome: &[u8], identity: &Identity) -> Result<(), Refused> {
        let before = self.tools.keep();
        match self.join_anew(welcome, identity) {
            Ok(group) => {
                wipe(before);
                self.group = Some(group);
                Ok(())
            }
            Err(error) => {
                self.tools.put_back(before);
                Err(error)
            }
        }
    }

    fn join_anew(&self, welcome: &[u8], identity: &Identity) -> Result<MlsGroup, Refused> {
        let MlsMessageBodyIn::Welcome(welcome) = message_in(welcome)?.extract() else {
            return Err(Refused("not a Welcome".into()));
        };
        let processed = ProcessedWelcome::new_from_welcome(&self.tools, &join_config(), welcome)
            .map_err(refused)?;
        let staged = JoinBuilder::new(&self.tools, processed)
            .skip_lifetime_validation()
            .replace_old_group()
            .build()
            .map_err(refused)?;
        let context = staged.group_context();
        if context.ciphersuite() != SUITE || context.extensions().iter().next().is_some() {
            return Err(Refused("the group is not one of SLIM's".into()));
        }
        for member in staged.members() {
            claim_of(
                identity,
                &member.credential,
                &member.signature_key,
                Age::Any,
            )?;
        }
        staged.into_group(&self.tools).map_err(refused)
    }

    /// Whether a KeyPackage is of the one who brings it.
    pub(crate) fn check_owner(
        &self,
        key_package: &[u8],
        owner: &Claim,
        identity: &Identity,
        now: Time,
    ) -> Result<(), Refused> {
        let package = self.package_in(key_package)?;
        let claim = leaf_claim(identity, package.leaf_node(), Age::Fresh(now))?;
        if claim != *owner {
            return Err(Refused("the KeyPackage is somebody else's".into()));
        }
        Ok(())
    }

    /// Takes somebody in. The commit is effective at once, as nobody else commits.
    pub(crate) fn add(
        &mut self,
        key_package: &[u8],
        identity: &Identity,
    ) -> Result<Change, Refused> {
        let package = self.package_in(key_package)?;
        self.commit(vec![package], Vec::new(), identity)
    }

    /// Takes somebody out.
    pub(crate) fn remove(
        &mut self,
        instance: u128,
        identity: &Identity,
    ) -> Result<Change, Refused> {
        let leaf = self.leaf_of(instance, identity)?;
        self.commit(Vec::new(), vec![leaf], identity)
    }

    /// Takes somebody out and in again, who has lost an epoch.
    pub(crate) fn replace(
        &mut self,
        instance: u128,
        key_package: &[u8],
        identity: &Identity,
    ) -> Result<Change, Refused> {
        let leaf = self.leaf_of(instance, identity)?;
        let package = self.package_in(key_package)?;
        self.commit(vec![package], vec![leaf], identity)
    }

    /// Takes over the moderator's commit. It may take us out.
    pub(crate) fn follow(
        &mut self,
        commit: &[u8],
        moderator: u128,
        identity: &Identity,
        now: Time,
    ) -> Result<(), Refused> {
        let message = protocol_message(commit)?;
        // What an application said would be opened here too, and its key be gone.
        if !matches!(message, ProtocolMessage::PublicMessage(_)) {
            return Err(Refused("a commit that is not in clear".into()));
        }
        let group = self.group.as_mut().ok_or_else(no_group)?;
        let processed = group
            .process_message(&self.tools, message)
            .map_err(refused)?;
        let Sender::Member(by) = *processed.sender() else {
            return Err(Refused("a commit from outside the group".into()));
        };
        if token_claim(identity, processed.credential(), Age::Any)?.instance != moderator {
            return Err(Refused("a commit that is not the moderator's".into()));
        }
        let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else {
            return Err(Refused("not a commit".into()));
        };
        check_commit(&staged, by, identity, now)?;
        group
            .merge_staged_commit(&self.tools, *staged)
            .map_err(refused)
    }

    /// Seals what the application says. `None` once we were taken out.
    pub(crate) fn seal(
        &mut self,
        identity: &Identity,
        covered: &[u8],
        plaintext: &[u8],
    ) -> Option<Bytes> {
        let group = self.group.as_mut()?;
        group.set_aad(covered.to_vec());
        let message = group.create_message(&self.tools, identity.key(), plaintext);
        bytes_of(&message.ok()?).ok()
    }

    /// Opens what somebody said, if it was said under this header.
    pub(crate) fn open(
        &mut self,
        sealed: &[u8],
        covered: &[u8],
        identity: &Identity,
    ) -> Result<Opened, Refused> {
        let message = protocol_message(sealed)?;
        // Before it is opened: the key opens one message, and whoever puts another header before this
        // one would else take that key from us, and with it the message as it was said.
        if !matches!(&message, ProtocolMessage::PrivateMessage(it) if it.aad() == covered) {
            return Err(Refused("a header that MLS does not bind".into()));
        }
        let group = self.group.as_mut().ok_or_else(no_group)?;
        let processed = group
            .process_message(&self.tools, message)
            .map_err(refused)?;
        if !matches!(processed.sender(), Sender::Member(_)) {
            return Err(Refused("said from outside the group".into()));
        }
        // The leaf's of the epoch that it was said in. Every leaf was checked when it came in.
        let sender = token_claim(identity, processed.credential(), Age::Any)?;
        let ProcessedMessageContent::ApplicationMessage(said) = processed.into_content() else {
            return Err(Refused("not what an application says".into()));
        };
        Ok(Opened {
            sender,
            plaintext: said.into_bytes().into(),
        })
    }

    fn package_in(&self, bytes: &[u8]) -> Result<KeyPackage, Refused> {
        let MlsMessageBodyIn::KeyPackage(package) = message_in(bytes)?.extract() else {
            return Err(Refused("not a KeyPackage".into()));
        };
        let package = KeyPackageIn::validate(package, &self.tools.crypto, ProtocolVersion::Mls10)
            .map_err(refused)?;
        if package.ciphersuite() != SUITE {
            return Err(Refused("a KeyPackage of another suite".into()));
        }
        Ok(package)
    }

    fn leaf_of(&self, instance: u128, identity: &Identity) -> Result<LeafNodeIndex, Refused> {
        let group = self.group.as_ref().ok_or_else(no_group)?;
        group
            .members()
            .find(|member| {
                token_claim(identity, &member.credential, Age::Any)
                    .is_ok_and(|claim| claim.instance == instance)
            })
            .map(|member| member.index)
            .ok_or_else(|| Refused("not a member".into()))
    }

    fn commit(
        &mut self,
        added: Vec<KeyPackage>,
        removed: Vec<LeafNodeIndex>,
        identity: &Identity,
    ) -> Result<Change, Refused> {
        let group = self.group.as_mut().ok_or_else(no_group)?;
        group.set_aad(Vec::new());
        let bundle = group
            .commit_builder()
            .consume_proposal_store(false)
            .force_self_update(true)
            .propose_adds(added)
            .propose_removals(removed)
            .load_psks(self.tools.storage())
            .map_err(refused)?
            .use_ratchet_tree_extension(true)
            .build(&self.tools, &self.tools.crypto, identity.key(), |_| true)
            .map_err(refused)?
            .stage_commit(&self.tools)
            .map_err(refused)?;
        let (commit, welcome, _) = bundle.into_messages();
        let change = Change {
            commit: bytes_of(&commit)?,
            welcome: welcome
                .as_ref()
                .map(bytes_of)
                .transpose()?
                .unwrap_or_default(),
        };
        group.merge_pending_commit(&self.tools).map_err(refused)?;
        Ok(change)
    }
}

impl fmt::Debug for Mls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mls(epoch {:?})", self.epoch())
    }
}

/// A commit brings and takes members, by value, and leaves its maker who it was.
fn check_commit(
    staged: &StagedCommit,
    by: LeafNodeIndex,
    identity: &Identity,
    now: Time,
) -> Result<(), Refused> {
    for queued in staged.queued_proposals() {
        let known = matches!(
            queued.proposal().proposal_type(),
            ProposalType::Add | ProposalType::Remove
        );
        if !known || *queued.sender() != Sender::Member(by) {
            return Err(Refused("a commit with more than members".into()));
        }
    }
    for add in staged.add_proposals() {
        let leaf = add.add_proposal().key_package().leaf_node();
        leaf_claim(identity, leaf, Age::Fresh(now))?;
    }
    if let Some(leaf) = staged.update_path_leaf_node() {
        leaf_claim(identity, leaf, Age::Any)?;
    }
    Ok(())
}

fn leaf_claim(identity: &Identity, leaf: &LeafNode, age: Age) -> Result<Claim, Refused> {
    claim_of(
        identity,
        leaf.credential(),
        leaf.signature_key().as_slice(),
        age,
    )
}

/// A credential authenticates nothing by itself: its token must name the key it stands beside.
fn claim_of(
    identity: &Identity,
    credential: &Credential,
    key: &[u8],
    age: Age,
) -> Result<Claim, Refused> {
    let claim = token_claim(identity, credential, age)?;
    if claim.key != key {
        return Err(Refused(
            "a token that names another key than its leaf".into(),
        ));
    }
    Ok(claim)
}

fn token_claim(identity: &Identity, credential: &Credential, age: Age) -> Result<Claim, Refused> {
    if credential.credential_type() != CredentialType::Basic {
        return Err(Refused("a credential of another kind".into()));
    }
    let token = std::str::from_utf8(credential.serialized_content()).map_err(refused)?;
    identity.check(token, age).map_err(refused)
}

fn credential(identity: &Identity, now: Time, chance: &mut dyn CryptoRng) -> CredentialWithKey {
    CredentialWithKey {
        credential: BasicCredential::new(identity.token(now, chance).into_bytes()).into(),
        signature_key: identity.key().public().to_vec().into(),
    }
}

fn capabilities() -> Capabilities {
    Capabilities::new(
        None,
        Some(&[SUITE]),
        Some(&[]),
        None,
        Some(&[CredentialType::Basic]),
    )
}

fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(MIXED_PLAINTEXT_WIRE_FORMAT_POLICY)
        .use_ratchet_tree_extension(true)
        .max_past_epochs(PAST_EPOCHS_MAX)
        .sender_ratchet_configuration(ratchet())
        .build()
}

fn ratchet() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(OUT_OF_ORDER_MAX, FORWARD_MAX)
}

/// For ever: how old somebody may be who comes in says the token in his credential. The library
/// holds lifetimes against the machine's clock, which is not the one that is handed in.
fn lifetime() -> Lifetime {
    Lifetime::init(0, u64::MAX)
}

fn message_in(bytes: &[u8]) -> Result<MlsMessageIn, Refused> {
    MlsMessageIn::tls_deserialize_exact(bytes).map_err(refused)
}

fn protocol_message(bytes: &[u8]) -> Result<ProtocolMessage, Refused> {
    message_in(bytes)?
        .try_into_protocol_message()
        .map_err(refused)
}

fn bytes_of(message: &MlsMessageOut) -> Result<Bytes, Refused> {
    let bytes = message.tls_serialize_detached().map_err(refused)?;
    Ok(bytes.into())
}

fn no_group() -> Refused {
    Refused("there is no group yet".into())
}

fn refused(error: impl fmt::Debug) -> Refused {
    Refused(format!("{error:?}"))
}

/// What the library works with: arithmetic, chance from the system, and memory.
#[derive(Default)]
struct Tools {
    /// The generator inside is never drawn from: a fork would copy it.
    crypto: RustCrypto,
    storage: MemoryStorage,
}

impl Tools {
    fn keep(&self) -> Values {
        let values = self.storage.values.read();
        values.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put_back(&mut self, before: Values) {
        let values = self.storage.values.get_mut();
        let values = values.unwrap_or_else(PoisonError::into_inner);
        wipe(mem::replace(values, before));
    }
}

impl OpenMlsProvider for Tools {
    type CryptoProvider = RustCrypto;
    type RandProvider = Self;
    type StorageProvider = MemoryStorage;

    fn storage(&self) -> &MemoryStorage {
        &self.storage
    }

    fn crypto(&self) -> &RustCrypto {
        &self.crypto
    }

    fn rand(&self) -> &Self {
        self
    }
}

impl OpenMlsRand for Tools {
    type Error = getrandom::Error;

    fn random_array<const N: usize>(&self) -> Result<[u8; N], Self::Error> {
        let mut bytes = [0; N];
        getrandom::fill(&mut bytes)?;
        Ok(bytes)
    }

    fn random_vec(&self, len: usize) -> Result<Vec<u8>, Self::Error> {
        let mut bytes = vec![0; len];
        getrandom::fill(&mut bytes)?;
        Ok(bytes)
    }
}

impl Drop for Tools {
    /// What is replaced while the session lives is wiped by the program's allocator, or not at
    /// all: the library's store overwrites by insertion.
    fn drop(&mut self) {
        self.put_back(Values::new());
    }
}

/// What the library's store holds.
type Values = HashMap<Vec<u8>, Vec<u8>>;

fn wipe(values: Values) {
    for (_, mut value) in values {
        value.zeroize();
    }
}

/// SLIM's own choice, since browsers have this curve.
const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMP256_AES128GCM_SHA256_P256;
const GROUP_ID_BYTES: usize = 32;
/// Epochs whose messages can still be opened: senders go on in the old one until they have the
/// commit. SLIM's members keep as many.
const PAST_EPOCHS_MAX: usize = 3;
/// A message that is sent again is sealed anew, so losses leave holes in a sender's ratchet, and
/// what was held up comes after what was sealed later.
const OUT_OF_ORDER_MAX: u32 = 256;
const FORWARD_MAX: u32 = 1000;
