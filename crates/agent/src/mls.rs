//! The one place that names the MLS library: groups, commits, KeyPackages, in our own words.
//!
//! What RFC 9420 leaves to the application is settled here once: the suite, the extensions,
//! lifetimes without an end (age is judged outside MLS, where a clock that is wrong splits no
//! group), and the rule that credential, leaf key and agent id are the same 32 bytes.

use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, Credential, CredentialType, CredentialWithKey,
    Extension, ExtensionType, Extensions, GroupContext, GroupId, KeyPackage as MlsKeyPackage,
    KeyPackageIn, LeafNode, LeafNodeIndex, LeafNodeParameters, Lifetime, MlsGroup,
    MlsGroupCreateConfig, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut,
    OpenMlsCrypto as _, OpenMlsProvider as _, PURE_CIPHERTEXT_WIRE_FORMAT_POLICY,
    ProcessedMessageContent, ProcessedWelcome, ProposalType, ProtocolMessage, ProtocolVersion,
    RequiredCapabilitiesExtension, Sender, SenderRatchetConfiguration, StagedCommit, StagedWelcome,
    UnknownExtension,
    group_info::VerifiableGroupInfo,
    tls_codec::{Deserialize as _, Serialize as _, VLBytes},
};
use openmls_traits::{
    signatures::{Signer, SignerError},
    types::{HpkeCiphertext, SignatureScheme},
};
use skytale_wire::{
    frame,
    id::{AgentId, Digest, Epoch, InviteId},
};
use zeroize::Zeroizing;

use self::{
    provider::Provider,
    storage::{Storage, StorageError},
};
use crate::{
    Error,
    identity::Identity,
    policy::{Bound, Committer, Deed, Leaf, Policy},
};

pub mod provider;
pub mod storage;

/// The suite of every channel today. A value, not an assumption: a channel's suite is its group's.
pub(crate) const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
/// How far ahead in a sender's ratchet a receiver looks (RFC 9420, section 9.1). The outbox never
/// lets more messages be lost in a row.
pub(crate) const RATCHET_FORWARD_MAX: u32 = 1000;

/// GroupContext extension with the channel's [`Policy`], in the private-use range.
const POLICY_EXTENSION: u16 = 0xF1A0;
/// LeafNode extension that names the invite by which a member came.
const INVITE_EXTENSION: u16 = 0xF1A1;
/// Bytes that an encoded policy may have.
const POLICY_BYTES_MAX: usize = 256 * 1024;
/// Bytes that authenticated data may have: a removal of many that left carries their statements.
const BOUND_BYTES_MAX: usize = 64 * 1024;

/// A channel's MLS group, in memory. The store is always at the same point: after any error the
/// value is dropped and loaded again.
pub(crate) struct Group(MlsGroup);

/// A commit of ours, staged but not merged.
pub(crate) struct OwnCommit {
    pub(crate) body: Vec<u8>,
    pub(crate) welcome: Option<Vec<u8>>,
    /// Of the next epoch, with the tree, when it was asked for.
    pub(crate) group_info: Option<Vec<u8>>,
}

/// What a commit of ours shall do besides replacing our path.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) added: Vec<KeyPackage>,
    pub(crate) removed: Vec<AgentId>,
    pub(crate) policy: Option<Policy>,
}

/// A message from the log, opened.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the common one, and none is kept"
)]
pub(crate) enum Opened {
    Application {
        sender: AgentId,
        bound: Bound,
        plaintext: Zeroizing<Vec<u8>>,
    },
    Commit(Box<ForeignCommit>),
}

/// Somebody else's commit: verified by MLS, not yet judged by us.
pub(crate) struct ForeignCommit {
    staged: StagedCommit,
    pub(crate) deed: Deed,
    pub(crate) removes_us: bool,
}

/// A KeyPackage whose signature, suite and identity have been checked.
#[derive(Debug, Clone)]
pub(crate) struct KeyPackage(MlsKeyPackage);

/// A KeyPackage of ours.
#[derive(Debug)]
pub(crate) struct OwnKeyPackage {
    /// For others.
    pub(crate) bytes: Vec<u8>,
    /// Under which its private half is kept.
    pub(crate) name: Vec<u8>,
}

/// A Welcome that could be opened, not yet joined.
pub(crate) struct OpenedWelcome {
    staged: StagedWelcome,
    pub(crate) policy: Policy,
    /// Without the invites by which they came.
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) sender: AgentId,
    /// The KeyPackage that was used may have been handed to others as well.
    pub(crate) by_last_resort: bool,
    /// Under which name its private half was kept.
    pub(crate) key_package: Vec<u8>,
    /// How many came in by the same commit, ourselves among them.
    pub(crate) together: usize,
}

/// A GroupInfo from an invite, not yet joined.
pub(crate) struct OpenedGroupInfo {
    info: VerifiableGroupInfo,
}

/// An external commit of ours. The group lives in the shadow namespace until the relay has
/// ordered the commit.
pub(crate) struct ExternalJoin {
    pub(crate) group: Group,
    pub(crate) commit: OwnCommit,
}

/// Why bytes from outside could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MlsError {
    /// They are wrong: nothing of them was used.
    #[error("{0}")]
    Refused(String),
    /// The Welcome is for a KeyPackage that we do not have.
    #[error("no KeyPackage for this Welcome")]
    NoKeyPackage,
    /// The vault failed.
    #[error("{0}")]
    Storage(String),
}

impl From<MlsError> for Error {
    fn from(error: MlsError) -> Self {
        match error {
            MlsError::Refused(text) => Self::PeerMisbehaved(text),
            MlsError::NoKeyPackage => Self::PeerMisbehaved(MlsError::NoKeyPackage.to_string()),
            MlsError::Storage(text) => Self::Damaged(text),
        }
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// Anything the library says no to. Storage failures surface again when the overlay is flushed,
/// so that they need not be told apart here.
fn refused(error: impl std::fmt::Debug) -> MlsError {
    MlsError::Refused(format!("{error:?}"))
}

impl Group {
    /// A new group with us as its only member.
    pub(crate) fn create(
        provider: &Provider<'_>,
        identity: &Identity,
        policy: &Policy,
    ) -> Result<Self, MlsError> {
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(SUITE)
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .max_past_epochs(0)
            .sender_ratchet_configuration(ratchet())
            .capabilities(capabilities())
            .lifetime(for_ever())
            .with_group_context_extensions(context_extensions(policy)?)
            .build();
        let id = GroupId::from_slice(&policy.group().0);
        MlsGroup::new_with_group_id(provider, identity, &config, id, credential(identity))
            .map(Self)
            .map_err(refused)
    }

    /// The group as the store has it.
    pub(crate) fn load(provider: &Provider<'_>, group: &Digest) -> Result<Option<Self>, Error> {
        MlsGroup::load(provider.storage(), &GroupId::from_slice(&group.0))
            .map(|group| group.map(Self))
            .map_err(Error::from)
    }

    /// The shadow group of an external commit becomes the group.
    pub(crate) fn promote(provider: &Provider<'_>, group: &Digest) -> Result<(), Error> {
        if provider.storage().promote(&GroupId::from_slice(&group.0))? {
            Ok(())
        } else {
            Err(Error::Damaged(
                "the group that we joined is missing from the vault".into(),
            ))
        }
    }

    /// The external commit was refused: its shadow goes.
    pub(crate) fn discard(provider: &Provider<'_>, group: &Digest) -> Result<(), Error> {
        provider
            .storage()
            .discard(&GroupId::from_slice(&group.0))
            .map_err(Error::from)
    }

    /// Deletes every secret of a group.
    pub(crate) fn forget(provider: &Provider<'_>, group: &Digest) -> Result<(), Error> {
        provider
            .storage()
            .delete_group(&GroupId::from_slice(&group.0))
            .map_err(Error::from)
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.0.epoch().as_u64())
    }

    /// The channel's rules. They were checked when the epoch began, so they can be read.
    pub(crate) fn policy(&self) -> Result<Policy, MlsError> {
        policy_of(self.0.extensions())
    }

    /// All members in tree order.
    pub(crate) fn leaves(&self) -> Result<Vec<Leaf>, MlsError> {
        self.0
            .members()
            .map(|member| self.leaf_at(member.index))
            .collect()
    }

    fn leaf_at(&self, index: LeafNodeIndex) -> Result<Leaf, MlsError> {
        let node = self
            .0
            .public_group()
            .leaf(index)
            .ok_or_else(|| MlsError::Refused("a leaf is missing".into()))?;
        leaf_of(node)
    }

    /// What members compare by word: equal for all who agree on everything up to this epoch.
    pub(crate) fn authenticator(&self) -> Vec<u8> {
        self.0.epoch_authenticator().as_slice().to_vec()
    }

    /// Hash of the GroupContext, which a joiner's proof names.
    pub(crate) fn context_hash(&self) -> Result<Digest, MlsError> {
        context_hash(self.0.public_group().group_context())
    }

    /// Seals one application message. Uses up one generation of our ratchet.
    pub(crate) fn seal(
        &mut self,
        provider: &Provider<'_>,
        identity: &Identity,
        bound: &Bound,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, MlsError> {
        self.0.set_aad(frame::encode(bound));
        let message = self
            .0
            .create_message(provider, identity, plaintext)
            .map_err(refused)?;
        bytes_of(&message)
    }

    /// Opens a message of somebody else.
    pub(crate) fn open(
        &mut self,
        provider: &Provider<'_>,
        body: &[u8],
    ) -> Result<Opened, MlsError> {
        let message: ProtocolMessage = message_in(body)?
            .try_into_protocol_message()
            .map_err(refused)?;
        let processed = self.0.process_message(provider, message).map_err(refused)?;
        let bound: Bound = frame::decode(processed.aad(), BOUND_BYTES_MAX).map_err(refused)?;
        let sender = processed.sender().clone();
        let credential = processed.credential().clone();
        match processed.into_content() {
            ProcessedMessageContent::ApplicationMessage(message) => {
                let Sender::Member(index) = sender else {
                    return Err(MlsError::Refused("a message from outside the group".into()));
                };
                Ok(Opened::Application {
                    sender: self.leaf_at(index)?.agent,
                    bound,
                    plaintext: Zeroizing::new(message.into_bytes()),
                })
            }
            ProcessedMessageContent::StagedCommitMessage(staged) => {
                let by = match &sender {
                    Sender::Member(index) => Committer::Member(self.leaf_at(*index)?.agent),
                    Sender::NewMemberCommit => Committer::Joiner(agent_of(&credential)?),
                    Sender::External(_) | Sender::NewMemberProposal => {
                        return Err(MlsError::Refused("a commit from outside the group".into()));
                    }
                };
                let removes_us = staged.self_removed();
                let deed = self.deed(&staged, by, &sender, bound)?;
                Ok(Opened::Commit(Box::new(ForeignCommit {
                    staged: *staged,
                    deed,
                    removes_us,
                })))
            }
            ProcessedMessageContent::ProposalMessage(_)
            | ProcessedMessageContent::ExternalJoinProposalMessage(_) => {
                Err(MlsError::Refused("a proposal on its own".into()))
            }
            ProcessedMessageContent::OwnPrivateMessage
            | ProcessedMessageContent::OwnPendingCommit => Err(MlsError::Refused(
                "our own leaf, but not our message".into(),
            )),
        }
    }

    /// Translates a verified commit into what the policy judges.
    fn deed(
        &self,
        staged: &StagedCommit,
        by: Committer,
        committer: &Sender,
        bound: Bound,
    ) -> Result<Deed, MlsError> {
        // Every credential that the commit brings in must be its leaf's own key. `leaf_of` checks
        // each leaf that we look at; this catches any other place a credential can come from.
        for credential in staged.credentials_to_verify() {
            agent_of(credential)?;
        }
        let mut added = Vec::new();
        let mut removed = Vec::new();
        let mut forbidden = false;
        for queued in staged.queued_proposals() {
            let kind = queued.proposal().proposal_type();
            forbidden |= match by {
                Committer::Member(_) => !matches!(
                    kind,
                    ProposalType::Add | ProposalType::Remove | ProposalType::GroupContextExtensions
                ),
                Committer::Joiner(_) => kind != ProposalType::ExternalInit,
            };
            // A proposal of somebody else, by reference.
            forbidden |= queued.sender() != committer;
        }
        for add in staged.add_proposals() {
            let package = add.add_proposal().key_package();
            if !lasts_for_ever(package) {
                return Err(MlsError::Refused(
                    "it adds a KeyPackage with a lifetime".into(),
                ));
            }
            added.push(leaf_of(package.leaf_node())?);
        }
        for remove in staged.remove_proposals() {
            removed.push(self.leaf_at(remove.remove_proposal().removed())?.agent);
        }
        let path = staged.update_path_leaf_node().map(leaf_of).transpose()?;
        Ok(Deed {
            by,
            added,
            removed,
            after: policy_of(staged.group_context().extensions())?,
            path,
            forbidden,
            bound,
        })
    }

    /// Makes somebody else's commit effective: the epoch that ends cannot be read any more.
    pub(crate) fn merge(
        &mut self,
        provider: &Provider<'_>,
        commit: ForeignCommit,
    ) -> Result<(), MlsError> {
        self.0
            .merge_staged_commit(provider, commit.staged)
            .map_err(refused)
    }

    /// Stages a commit of ours, with a path always. It is stored, and survives a restart.
    pub(crate) fn stage(
        &mut self,
        provider: &Provider<'_>,
        identity: &Identity,
        bound: &Bound,
        change: Change,
        with_group_info: bool,
    ) -> Result<OwnCommit, MlsError> {
        let removed = change
            .removed
            .iter()
            .map(|agent| self.index_of(agent))
            .collect::<Result<Vec<_>, _>>()?;
        self.0.set_aad(frame::encode(bound));
        let mut builder = self
            .0
            .commit_builder()
            .consume_proposal_store(false)
            .force_self_update(true)
            .propose_adds(change.added.into_iter().map(|package| package.0))
            .propose_removals(removed);
        if let Some(policy) = &change.policy {
            builder = builder
                .propose_group_context_extensions(context_extensions(policy)?)
                .map_err(refused)?;
        }
        let bundle = builder
            .load_psks(provider.storage())
            .map_err(refused)?
            .use_ratchet_tree_extension(true)
            .create_group_info(with_group_info)
            .build(provider.rand(), provider.crypto(), identity, |_| true)
            .map_err(refused)?
            .stage_commit(provider)
            .map_err(refused)?;
        own_commit(bundle.into_messages())
    }

    /// The log has our commit: it takes effect.
    pub(crate) fn merge_own(&mut self, provider: &Provider<'_>) -> Result<(), MlsError> {
        self.0.merge_pending_commit(provider).map_err(refused)
    }

    /// Another commit came first, or ours was refused.
    pub(crate) fn discard_own(&mut self, provider: &Provider<'_>) -> Result<(), Error> {
        self.0
            .clear_pending_commit(provider.storage())
            .map_err(Error::from)
    }

    /// The present epoch's GroupInfo, with the tree.
    pub(crate) fn group_info(
        &self,
        provider: &Provider<'_>,
        identity: &Identity,
    ) -> Result<Vec<u8>, MlsError> {
        let info = self
            .0
            .export_group_info(provider.crypto(), identity, true)
            .map_err(refused)?;
        bytes_of(&info)
    }

    fn index_of(&self, agent: &AgentId) -> Result<LeafNodeIndex, MlsError> {
        self.0
            .members()
            .find(|member| member.signature_key == agent.0)
            .map(|member| member.index)
            .ok_or_else(|| MlsError::Refused("not a member".into()))
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Group(epoch {})", self.epoch())
    }
}

impl KeyPackage {
    /// Makes one and stores its private half.
    pub(crate) fn make(
        provider: &Provider<'_>,
        identity: &Identity,
        last_resort: bool,
    ) -> Result<OwnKeyPackage, MlsError> {
        let mut builder = MlsKeyPackage::builder()
            .key_package_lifetime(for_ever())
            .leaf_node_capabilities(capabilities());
        if last_resort {
            builder = builder.mark_as_last_resort();
        }
        let bundle = builder
            .build(SUITE, provider, identity, credential(identity))
            .map_err(refused)?;
        let package = bundle.into_key_package();
        Ok(OwnKeyPackage {
            name: name_of(provider, &package)?,
            bytes: bytes_of(&MlsMessageOut::from(package))?,
        })
    }

    /// Deletes the private half of one of ours: a Welcome for it cannot be opened any more.
    pub(crate) fn forget(provider: &Provider<'_>, name: &[u8]) {
        provider.storage().forget_key_package(name);
    }

    /// Reads one that a relay says is `agent`'s. The key in it must *be* that id.
    pub(crate) fn check(
        provider: &Provider<'_>,
        bytes: &[u8],
        agent: &AgentId,
    ) -> Result<Self, MlsError> {
        let MlsMessageBodyIn::KeyPackage(package) = message_in(bytes)?.extract() else {
            return Err(MlsError::Refused("not a KeyPackage".into()));
        };
        let package = KeyPackageIn::validate(package, provider.crypto(), ProtocolVersion::Mls10)
            .map_err(refused)?;
        let leaf = leaf_of(package.leaf_node())?;
        if leaf.agent != *agent {
            return Err(MlsError::Refused(
                "the KeyPackage is somebody else's".into(),
            ));
        }
        if package.ciphersuite() != SUITE || leaf.invite.is_some() || !lasts_for_ever(&package) {
            return Err(MlsError::Refused(
                "the KeyPackage is not for channels".into(),
            ));
        }
        // A receiver of an all-zero shared secret would notice only later; RFC 7748, section 6.1.
        if [package.hpke_init_key().as_slice(), &leaf.leaf_key]
            .iter()
            .any(|key| is_small_order(key))
        {
            return Err(MlsError::Refused(
                "the KeyPackage has a degenerate key".into(),
            ));
        }
        Ok(Self(package))
    }
}

impl OpenedWelcome {
    /// Opens a Welcome with one of our KeyPackages and checks every leaf of the tree. Opening uses
    /// up the KeyPackage's private half, unless it is the last-resort one.
    pub(crate) fn open(provider: &Provider<'_>, bytes: &[u8]) -> Result<Self, MlsError> {
        let MlsMessageBodyIn::Welcome(welcome) = message_in(bytes)?.extract() else {
            return Err(MlsError::Refused("not a Welcome".into()));
        };
        let together = welcome.secrets().len();
        let processed = ProcessedWelcome::new_from_welcome(provider, &join_config(), welcome)
            .map_err(|error| {
                if matches!(error, openmls::prelude::WelcomeError::NoMatchingKeyPackage) {
                    MlsError::NoKeyPackage
                } else {
                    refused(error)
                }
            })?;
        let package = processed.own_key_package().ok_or(MlsError::NoKeyPackage)?;
        let by_last_resort = package.last_resort();
        let key_package = name_of(provider, package)?;
        let staged = openmls::prelude::JoinBuilder::new(provider, processed)
            .skip_lifetime_validation()
            .replace_old_group()
            .build()
            .map_err(refused)?;
        let policy = policy_of(staged.group_context().extensions())?;
        let sender = leaf_of(staged.welcome_sender().map_err(refused)?)?.agent;
        let leaves = staged
            .members()
            .map(|member| member_leaf(&member))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            staged,
            policy,
            leaves,
            sender,
            by_last_resort,
            key_package,
            together,
        })
    }

    /// The group id that the Welcome leads to.
    pub(crate) fn group_id(&self) -> Vec<u8> {
        self.staged.group_context().group_id().as_slice().to_vec()
    }

    /// Becomes a member.
    pub(crate) fn join(self, provider: &Provider<'_>) -> Result<Group, MlsError> {
        self.staged.into_group(provider).map(Group).map_err(refused)
    }
}

impl OpenedGroupInfo {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, MlsError> {
        let MlsMessageBodyIn::GroupInfo(info) = message_in(bytes)?.extract() else {
            return Err(MlsError::Refused("not a GroupInfo".into()));
        };
        Ok(Self { info })
    }

    /// What the GroupInfo says of itself. Its signature is checked when the commit is built.
    pub(crate) fn policy(&self) -> Result<Policy, MlsError> {
        policy_of(self.info.group_context().extensions())
    }

    pub(crate) fn group_id(&self) -> Vec<u8> {
        self.info.group_context().group_id().as_slice().to_vec()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.info.group_context().epoch().as_u64())
    }

    pub(crate) fn context_hash(&self) -> Result<Digest, MlsError> {
        context_hash(self.info.group_context())
    }

    /// Builds the external commit in the shadow of `provider`.
    pub(crate) fn join(
        self,
        provider: &Provider<'_>,
        identity: &Identity,
        invite: &InviteId,
        bound: &Bound,
        with_group_info: bool,
    ) -> Result<ExternalJoin, MlsError> {
        let leaf = LeafNodeParameters::builder()
            .with_capabilities(capabilities())
            .with_extensions(
                Extensions::single(Extension::Unknown(
                    INVITE_EXTENSION,
                    UnknownExtension(invite.0.to_vec()),
                ))
                .map_err(refused)?,
            )
            .build();
        let (group, bundle) = MlsGroup::external_commit_builder()
            .skip_lifetime_validation()
            .with_config(join_config())
            .with_aad(frame::encode(bound))
            .build_group(provider, self.info, credential(identity))
            .map_err(refused)?
            .leaf_node_parameters(leaf)
            .load_psks(provider.storage())
            .map_err(refused)?
            .use_ratchet_tree_extension(true)
            .create_group_info(with_group_info)
            .build(provider.rand(), provider.crypto(), identity, |_| true)
            .map_err(refused)?
            .finalize(provider)
            .map_err(refused)?;
        Ok(ExternalJoin {
            group: Group(group),
            commit: own_commit(bundle.into_messages())?,
        })
    }
}

/// HPKE to an invite's key (RFC 9180, base mode). `purpose` separates uses of one key.
pub(crate) fn hpke_seal(
    provider: &Provider<'_>,
    to: &Digest,
    purpose: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, MlsError> {
    let sealed = provider
        .crypto()
        .hpke_seal(SUITE.hpke_config(), &to.0, purpose, &[], plaintext)
        .map_err(refused)?;
    let mut bytes = sealed.kem_output.as_slice().to_vec();
    bytes.extend_from_slice(sealed.ciphertext.as_slice());
    Ok(bytes)
}

/// The other direction of [`hpke_seal`].
pub(crate) fn hpke_open(
    provider: &Provider<'_>,
    key: &[u8; 32],
    purpose: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, MlsError> {
    let (kem_output, ciphertext) = sealed
        .split_at_checked(32)
        .ok_or_else(|| MlsError::Refused("too short".into()))?;
    let input = HpkeCiphertext {
        kem_output: kem_output.to_vec().into(),
        ciphertext: ciphertext.to_vec().into(),
    };
    provider
        .crypto()
        .hpke_open(SUITE.hpke_config(), &input, key, purpose, &[])
        .map(Zeroizing::new)
        .map_err(refused)
}

/// The key pair that an invite's seed stands for.
pub(crate) fn hpke_pair(
    provider: &Provider<'_>,
    seed: &[u8; 32],
) -> Result<(Zeroizing<[u8; 32]>, Digest), MlsError> {
    let pair = provider
        .crypto()
        .derive_hpke_keypair(SUITE.hpke_config(), seed)
        .map_err(refused)?;
    let public = Digest::from_slice(&pair.public).map_err(refused)?;
    let mut private = Zeroizing::new([0; 32]);
    let bytes: &[u8] = &pair.private;
    if bytes.len() != private.len() {
        return Err(MlsError::Refused("an X25519 key has 32 bytes".into()));
    }
    private.copy_from_slice(bytes);
    Ok((private, public))
}

/// AEAD under a random key, for the GroupInfo that is sealed once for several invites.
pub(crate) fn aead_seal(
    provider: &Provider<'_>,
    key: &[u8; 16],
    plaintext: &[u8],
) -> Result<Vec<u8>, MlsError> {
    // The key is fresh for each call and used once, so the nonce may be constant.
    provider
        .crypto()
        .aead_encrypt(SUITE.aead_algorithm(), key, plaintext, &[0; 12], &[])
        .map_err(refused)
}

/// The other direction of [`aead_seal`].
pub(crate) fn aead_open(
    provider: &Provider<'_>,
    key: &[u8],
    ciphertext: &[u8],
) -> Result<Vec<u8>, MlsError> {
    provider
        .crypto()
        .aead_decrypt(SUITE.aead_algorithm(), key, ciphertext, &[0; 12], &[])
        .map_err(refused)
}

impl Signer for Identity {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(Self::sign(self, payload).0.to_vec())
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

fn own_commit(
    (commit, welcome, group_info): (MlsMessageOut, Option<MlsMessageOut>, Option<MlsMessageOut>),
) -> Result<OwnCommit, MlsError> {
    Ok(OwnCommit {
        body: bytes_of(&commit)?,
        welcome: welcome.as_ref().map(bytes_of).transpose()?,
        group_info: group_info.as_ref().map(bytes_of).transpose()?,
    })
}

/// Where the private half of a KeyPackage of ours is found.
fn name_of(provider: &Provider<'_>, package: &MlsKeyPackage) -> Result<Vec<u8>, MlsError> {
    let reference = package.hash_ref(provider.crypto()).map_err(refused)?;
    Storage::name_of_key_package(&reference).map_err(refused)
}

fn credential(identity: &Identity) -> CredentialWithKey {
    let id = identity.id();
    CredentialWithKey {
        credential: BasicCredential::new(id.0.to_vec()).into(),
        signature_key: id.0.to_vec().into(),
    }
}

/// A basic credential authenticates nothing by itself: what it says must be the key it stands
/// beside.
fn leaf_of(node: &LeafNode) -> Result<Leaf, MlsError> {
    let agent = agent_of(node.credential())?;
    if node.signature_key().as_slice() != agent.0 {
        return Err(MlsError::Refused(
            "a credential is not its leaf's key".into(),
        ));
    }
    let invite = node
        .extensions()
        .unknown(INVITE_EXTENSION)
        .map(|extension| InviteId::from_slice(&extension.0).map_err(refused))
        .transpose()?;
    let encoded = node
        .encryption_key()
        .tls_serialize_detached()
        .map_err(refused)?;
    let leaf_key = VLBytes::tls_deserialize_exact(&encoded).map_err(refused)?;
    Ok(Leaf {
        agent,
        leaf_key: leaf_key.as_slice().to_vec(),
        invite,
    })
}

fn member_leaf(member: &openmls::prelude::Member) -> Result<Leaf, MlsError> {
    let agent = agent_of(&member.credential)?;
    if member.signature_key != agent.0 {
        return Err(MlsError::Refused(
            "a credential is not its leaf's key".into(),
        ));
    }
    Ok(Leaf {
        agent,
        leaf_key: member.encryption_key.clone(),
        invite: None,
    })
}

fn agent_of(credential: &Credential) -> Result<AgentId, MlsError> {
    if credential.credential_type() != CredentialType::Basic {
        return Err(MlsError::Refused("a credential of another kind".into()));
    }
    AgentId::from_slice(credential.serialized_content()).map_err(refused)
}

/// The rules of a group that has nothing but what a channel has. With `ExternalSenders` somebody
/// outside could propose, and with other required capabilities nobody could come in any more.
fn policy_of(extensions: &Extensions<GroupContext>) -> Result<Policy, MlsError> {
    let known = extensions.iter().all(|extension| {
        [
            ExtensionType::RequiredCapabilities,
            ExtensionType::Unknown(POLICY_EXTENSION),
        ]
        .contains(&extension.extension_type())
    });
    if !known || extensions.required_capabilities() != Some(&required_capabilities()) {
        return Err(MlsError::Refused(
            "the group has rules that channels do not have".into(),
        ));
    }
    let extension = extensions
        .unknown(POLICY_EXTENSION)
        .ok_or_else(|| MlsError::Refused("the group is not a channel".into()))?;
    frame::decode(&extension.0, POLICY_BYTES_MAX).map_err(refused)
}

fn context_extensions(policy: &Policy) -> Result<Extensions<GroupContext>, MlsError> {
    Extensions::from_vec(vec![
        Extension::RequiredCapabilities(required_capabilities()),
        Extension::Unknown(POLICY_EXTENSION, UnknownExtension(frame::encode(policy))),
    ])
    .map_err(refused)
}

fn required_capabilities() -> RequiredCapabilitiesExtension {
    RequiredCapabilitiesExtension::new(&OUR_EXTENSIONS, &[], &[CredentialType::Basic])
}

fn context_hash(context: &GroupContext) -> Result<Digest, MlsError> {
    let bytes = context.tls_serialize_detached().map_err(refused)?;
    Ok(Digest::of(&[b"skytale/1 context", &bytes]))
}

const OUR_EXTENSIONS: [ExtensionType; 2] = [
    ExtensionType::Unknown(POLICY_EXTENSION),
    ExtensionType::Unknown(INVITE_EXTENSION),
];

fn capabilities() -> Capabilities {
    // Last-resort must be listed by hand, or members split over who accepts such a KeyPackage.
    let [policy, invite] = OUR_EXTENSIONS;
    Capabilities::new(
        None,
        Some(&[SUITE]),
        Some(&[ExtensionType::LastResort, policy, invite]),
        None,
        Some(&[CredentialType::Basic]),
    )
}

fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
        .use_ratchet_tree_extension(true)
        .max_past_epochs(0)
        .sender_ratchet_configuration(ratchet())
        .build()
}

fn ratchet() -> SenderRatchetConfiguration {
    // The relay orders messages, so nothing of one sender overtakes another of it.
    SenderRatchetConfiguration::new(0, RATCHET_FORWARD_MAX)
}

fn for_ever() -> Lifetime {
    Lifetime::init(0, u64::MAX)
}

/// The library compares a lifetime with the clock whenever it reads an Add. With any other lifetime
/// members would come to different verdicts, each by its own clock and by when it reads.
fn lasts_for_ever(package: &MlsKeyPackage) -> bool {
    *package.life_time() == for_ever()
}

fn message_in(bytes: &[u8]) -> Result<MlsMessageIn, MlsError> {
    MlsMessageIn::tls_deserialize_exact(bytes).map_err(refused)
}

fn bytes_of(message: &MlsMessageOut) -> Result<Vec<u8>, MlsError> {
    message.to_bytes().map_err(refused)
}

/// Whether every multiple of this X25519 point by a clamped scalar is zero.
fn is_small_order(key: &[u8]) -> bool {
    const ORDER_EIGHT: [[u8; 32]; 2] = [
        [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f,
            0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16,
            0x5f, 0x49, 0xb8, 0x00,
        ],
        [
            0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83,
            0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd,
            0xd0, 0x9f, 0x11, 0x57,
        ],
    ];
    let Ok(mut key) = <[u8; 32]>::try_from(key) else {
        return true;
    };
    key[31] &= 0x7f;
    let near =
        |low: u8| key[0] == low && key[1..31].iter().all(|byte| *byte == 0xff) && key[31] == 0x7f;
    let tiny = key[1..].iter().all(|byte| *byte == 0) && key[0] <= 1;
    tiny || near(0xec) || near(0xed) || near(0xee) || ORDER_EIGHT.contains(&key)
}
