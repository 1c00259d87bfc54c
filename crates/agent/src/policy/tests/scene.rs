//! The channel in which hostile commits are tried: who is in it, how somebody writes a commit past
//! its mind, and what Bob makes of it.

use std::time::Duration;

use mls_rs::{
    CipherSuite, CipherSuiteProvider as _, Client, CryptoProvider as _,
    client_builder::{ClientBuilder, MlsConfig, PaddingMode},
    identity::{
        SigningIdentity,
        basic::{BasicCredential as ForeignCredential, BasicIdentityProvider},
    },
    mls_rules::{CommitOptions, DefaultMlsRules, EncryptionOptions},
};
use mls_rs_crypto_awslc::AwsLcCryptoProvider;
use openmls::{
    prelude::{
        BasicCredential, Capabilities, Ciphersuite, CredentialType, CredentialWithKey, Extension,
        ExtensionType, Extensions, GroupContext, GroupId, KeyPackage as MlsKeyPackage, LeafNode,
        LeafNodeIndex, LeafNodeParameters, Lifetime, MlsGroup, MlsMessageIn, NewSignerBundle,
        OpenMlsProvider as _, ProcessedMessageContent, Proposal, RequiredCapabilitiesExtension,
        UnknownExtension, tls_codec::Deserialize as _,
    },
    schedule::PreSharedKeyId,
};
use rusqlite::{Connection, Transaction};
use skytale_wire::{
    Blob,
    envelope::{Envelope, Kind, RosterChange},
    frame::{self, ToAgent, ToRelay},
    id::{AgentId, ChannelId, Digest, Generation, InviteId, MessageId, Seq, Time},
    invite::{Invite, InviteSeed},
    statement,
};

use super::super::{Bound, Deed, Leaf, Policy, PolicyInvite, join_change};
use crate::{
    Agent, Answer, Command, Event, Input, audit,
    identity::Identity,
    mls::{Group, Opened, OpenedGroupInfo, provider::Provider},
    stage::{RELAY, Stage, deliver, link_up, open_in, ready, view_in},
    store,
    view::{self, ChannelState},
};

/// Founder and admin.
pub(super) const ALICE: usize = 0;
/// Reads, and has no rights.
pub(super) const BOB: usize = 1;
/// Has no rights either.
pub(super) const MALLORY: usize = 2;
/// May invite and add.
pub(super) const IVY: usize = 3;
pub(super) const CAROL: usize = 4;
/// Came by an invite that has a use left.
pub(super) const ERIN: usize = 5;
/// Is not in the channel.
pub(super) const DAVE: usize = 6;

/// A channel in which everybody agrees, between two epochs.
pub(super) struct Scene {
    pub(super) stage: Stage,
    pub(super) channel: ChannelId,
    pub(super) policy: Policy,
    pub(super) leaves: Vec<Leaf>,
    /// Alice's invite, with one use left.
    pub(super) line: Invite,
}

/// What a commit shall come to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    /// Everybody merges it.
    Merged,
    /// The policy refuses it with these words.
    Rule(&'static str),
    /// It is refused while it is opened, with these words among others.
    Library(&'static str),
    /// It obeys the rules, but is not what it says.
    Header,
}

pub(super) const ALLOWED: Expected = Expected::Merged;

/// A commit that somebody writes past its mind; by default a path and what honesty demands.
#[derive(Default)]
pub(super) struct Plot {
    pub(super) adds: Vec<MlsKeyPackage>,
    pub(super) removes: Vec<AgentId>,
    pub(super) left: Vec<statement::Leave>,
    pub(super) more: Vec<Proposal>,
    /// Somebody else's proposal, for the removals.
    pub(super) by_reference: Option<Vec<u8>>,
    pub(super) after: Option<Policy>,
    /// Instead of `after`.
    pub(super) context: Option<Extensions<GroupContext>>,
    pub(super) leaf: Option<LeafNodeParameters>,
    pub(super) new_key: Option<(AgentId, Identity)>,
    pub(super) is_pathless: bool,
    pub(super) declares: Option<RosterChange>,
    pub(super) bound: Option<fn(&mut Bound)>,
    pub(super) header: Option<Altering>,
}

/// What the relay does to a header.
pub(super) type Altering = Box<dyn Fn(&mut Envelope)>;

/// What is odd about Dave's KeyPackage.
#[derive(Default)]
pub(super) struct Shape {
    pub(super) invite: Option<InviteId>,
    pub(super) credential: Option<AgentId>,
    pub(super) credential_bytes: Option<Vec<u8>>,
    pub(super) lifetime: Option<Lifetime>,
}

/// A join that somebody writes past its mind.
pub(super) struct Join {
    pub(super) by: InviteId,
    /// What the joiner's leaf names.
    pub(super) leaf: InviteId,
    pub(super) proof: Proof,
    pub(super) declares: Option<RosterChange>,
}

pub(super) enum Proof {
    Right,
    None,
    Of(AgentId),
    At(Digest),
    By(InviteSeed),
}

impl Join {
    pub(super) fn by(invite: InviteId) -> Self {
        Self {
            by: invite,
            leaf: invite,
            proof: Proof::Right,
            declares: None,
        }
    }
}

pub(super) fn rules(after: Policy) -> Plot {
    Plot {
        after: Some(after),
        ..Plot::default()
    }
}

impl Scene {
    pub(super) fn new() -> Self {
        let mut stage = Stage::new(7);
        let channel = stage.open(ALICE);
        stage.adds(ALICE, channel, &[BOB, MALLORY, IVY, CAROL]);
        let agent = stage.minds[IVY].id;
        let grant = Command::Grant {
            channel,
            agent,
            admin: false,
            may_invite: true,
        };
        assert_eq!(stage.does(ALICE, grant), Answer::Done);
        let line = stage.invites(ALICE, channel, 2);
        let join = Command::Join { line: line.clone() };
        assert_eq!(stage.does(ERIN, join), Answer::Channel(channel));
        let line: Invite = line.parse().expect("a line");
        let mut scene = Self {
            policy: policy_of(&stage, channel).0,
            leaves: Vec::new(),
            stage,
            channel,
            line,
        };
        scene.look_again();
        for who in [ALICE, MALLORY, BOB] {
            scene.with_group(who, |provider, _, _| {
                let psk = PreSharedKeyId::external(PSK.to_vec(), vec![0; 32]);
                psk.store(provider, &[6; 32]).expect("a vault");
                provider.flush().expect("a vault");
            });
        }
        scene
    }

    /// After the channel has gone on.
    pub(super) fn look_again(&mut self) {
        (self.policy, self.leaves) = policy_of(&self.stage, self.channel);
    }

    pub(super) fn id(&self, who: usize) -> AgentId {
        self.stage.minds[who].id
    }

    pub(super) fn invite(&self) -> InviteId {
        self.line.seed.id()
    }

    pub(super) fn identity(&self, who: usize) -> Identity {
        let identity = store::identity(&self.stage.minds[who].vault).expect("a vault");
        identity.expect("an identity")
    }

    /// Does something with a group as its owner's vault has it; what is not flushed does not last.
    pub(super) fn with_group<T>(
        &mut self,
        who: usize,
        then: impl FnOnce(&Provider<'_>, &Identity, &mut MlsGroup) -> T,
    ) -> T {
        let identity = self.identity(who);
        let group = self.policy.group();
        let provider = Provider::new(&self.stage.minds[who].vault);
        let group = MlsGroup::load(provider.storage(), &GroupId::from_slice(&group.0));
        let mut group = group.expect("a vault").expect("a member");
        then(&provider, &identity, &mut group)
    }

    pub(super) fn leaf_index(&self, who: usize) -> LeafNodeIndex {
        let id = self.id(who);
        let place = self.leaves.iter().position(|leaf| leaf.agent == id);
        // Nobody has gone yet, so that there is no hole in the tree.
        LeafNodeIndex::new(u32::try_from(place.expect("a member")).expect("a few"))
    }

    /// Says that `of`'s stay is over, signed by `signer`.
    pub(super) fn leave(&self, signer: usize, of: usize) -> statement::Leave {
        let id = self.id(of);
        let leaf = self.leaves.iter().find(|leaf| leaf.agent == id);
        let leaf_key = leaf.expect("a member").leaf_key.clone();
        let said = statement::leave(&self.policy.group(), &leaf_key);
        statement::Leave {
            generation: self.policy.generation,
            leaf_key: leaf_key.into(),
            signature: self.identity(signer).sign(&said),
        }
    }

    pub(super) fn invite_by(&self, who: usize, number: u8, uses: u32) -> PolicyInvite {
        let seed = InviteSeed::new([number; 16]);
        let (signing, hpke) = (seed.signing_half(), Digest([number; 32]));
        let expires = self.line.expires;
        let said = statement::invite(&self.policy.group(), &signing, &hpke, uses, expires);
        PolicyInvite {
            signing,
            hpke,
            uses,
            expires,
            inviter: self.id(who),
            signature: self.identity(who).sign(&said),
        }
    }

    pub(super) fn key_package(&self, shape: Shape) -> MlsKeyPackage {
        let dave = self.identity(DAVE);
        let named = shape.credential.unwrap_or(dave.id());
        let bytes = shape.credential_bytes.unwrap_or(named.0.to_vec());
        let credential = CredentialWithKey {
            credential: BasicCredential::new(bytes).into(),
            signature_key: dave.id().0.to_vec().into(),
        };
        let provider = Provider::new(&self.stage.minds[DAVE].vault);
        let lifetime = shape.lifetime.unwrap_or(Lifetime::init(0, u64::MAX));
        let bundle = MlsKeyPackage::builder()
            .key_package_lifetime(lifetime)
            .leaf_node_capabilities(capabilities())
            .leaf_node_extensions(shape.invite.map_or(Extensions::empty(), invite_extension))
            .build(SUITE, &provider, &dave, credential);
        bundle.expect("a KeyPackage").into_key_package()
    }

    /// Writes a commit with what the author's vault holds. The vault does not learn of it.
    pub(super) fn forge(&self, by: usize, plot: Plot) -> Envelope {
        let identity = self.identity(by);
        let vault = &self.stage.minds[by].vault;
        let provider = Provider::new(vault);
        let group_id = GroupId::from_slice(&self.policy.group().0);
        let group = MlsGroup::load(provider.storage(), &group_id);
        let mut group = group.expect("a vault").expect("a member");

        let now = self.stage.now;
        let honest = self
            .policy
            .clone()
            .tidied(&self.leaves, &identity.id(), now);
        let after = plot.after.unwrap_or(honest.without(&plot.removes));
        let added: Vec<Leaf> = plot
            .adds
            .iter()
            .map(|package| Leaf {
                agent: AgentId::from_slice(package.leaf_node().signature_key().as_slice())
                    .expect("a key"),
                leaf_key: Vec::new(),
                invite: None,
            })
            .collect();
        let change = plot
            .declares
            .unwrap_or_else(|| self.policy.change(&after, &added, &plot.removes));
        let change = frame::encode(&change);
        let mut bound = Bound {
            change: Some(change_hash(&change)),
            left: plot.left,
            ..Bound::new(self.channel, ID, Kind::Commit)
        };
        if let Some(alter) = plot.bound {
            alter(&mut bound);
        }
        if let Some(proposal) = &plot.by_reference {
            learn(&provider, &mut group, proposal);
        }
        let written_here = plot.by_reference.is_none();
        let removes = plot.removes.iter().filter(|_| written_here).map(|agent| {
            let place = self.leaves.iter().position(|leaf| leaf.agent == *agent);
            LeafNodeIndex::new(u32::try_from(place.expect("a member")).expect("a few"))
        });
        let context = plot
            .context
            .or_else(|| (after != self.policy).then(|| context_of(&after)));

        group.set_aad(frame::encode(&bound));
        let mut builder = group
            .commit_builder()
            .consume_proposal_store(plot.by_reference.is_some())
            .force_self_update(!plot.is_pathless)
            .propose_adds(plot.adds)
            .propose_removals(removes)
            .add_proposals(plot.more);
        if let Some(context) = context {
            let proposed = builder.propose_group_context_extensions(context);
            builder = proposed.expect("a proposal");
        }
        if let Some(leaf) = plot.leaf {
            builder = builder.leaf_node_parameters(leaf);
        }
        let builder = builder.load_psks(provider.storage()).expect("known keys");
        let (rand, crypto) = (provider.rand(), provider.crypto());
        let built = match &plot.new_key {
            None => builder.build(rand, crypto, &identity, |_| true),
            Some((named, signer)) => {
                let bundle = NewSignerBundle {
                    signer,
                    credential_with_key: credential(*named, signer.id()),
                };
                builder.build_with_new_signer(rand, crypto, &identity, bundle, |_| true)
            }
        };
        let staged = built.expect("the author's own library lets it pass");
        let bundle = staged.stage_commit(&provider).expect("a vault");
        let body = bundle.into_commit().to_bytes().expect("a commit");
        let mut envelope = self.envelope(identity.id(), body, change);
        if let Some(alter) = plot.header {
            alter(&mut envelope);
        }
        envelope
    }

    /// Writes an external commit.
    pub(super) fn join(&self, joiner: &Identity, join: Join) -> Envelope {
        let mut vault = Connection::open_in_memory().expect("a database");
        Agent::migrate(&mut vault).expect("a new vault");
        let provider = Provider::new(&vault);
        let (seed, of, at) = match join.proof {
            Proof::Right | Proof::None => (self.line.seed.clone(), joiner.id(), self.context()),
            Proof::Of(agent) => (self.line.seed.clone(), agent, self.context()),
            Proof::At(context) => (self.line.seed.clone(), joiner.id(), context),
            Proof::By(ref seed) => (seed.clone(), joiner.id(), self.context()),
        };
        let said = statement::join(&self.policy.group(), &at, &join.by, &of);
        let shown = !matches!(join.proof, Proof::None);
        let change = join.declares.unwrap_or(join_change(joiner.id()));
        let change = frame::encode(&change);
        let bound = Bound {
            change: Some(change_hash(&change)),
            join: shown.then(|| seed.sign(&said)),
            ..Bound::new(self.channel, ID, Kind::Join)
        };
        let info = OpenedGroupInfo::read(&self.group_info()).expect("a GroupInfo");
        let joined = info.join(&provider.shadow(), joiner, &join.leaf, &bound, false);
        let body = joined.expect("a commit").commit.body;
        Envelope {
            kind: Kind::Join,
            ..self.envelope(joiner.id(), body, change)
        }
    }

    pub(super) fn group(&self, provider: &Provider<'_>) -> Group {
        let group = Group::load(provider, &self.policy.group());
        group.expect("a vault").expect("a member")
    }

    pub(super) fn group_info(&self) -> Vec<u8> {
        let provider = Provider::new(&self.stage.minds[ALICE].vault);
        let info = (self.group(&provider)).group_info(&provider, &self.identity(ALICE));
        info.expect("a GroupInfo")
    }

    pub(super) fn context(&self) -> Digest {
        let provider = Provider::new(&self.stage.minds[ALICE].vault);
        self.group(&provider).context_hash().expect("a group")
    }

    /// A record as a relay writes it that believes everything.
    pub(super) fn envelope(&self, by: AgentId, body: Vec<u8>, change: Vec<u8>) -> Envelope {
        Envelope {
            kind: Kind::Commit,
            epoch: self.stage.view(BOB, self.channel).epoch,
            agent: by,
            id: ID,
            body: body.into(),
            change: Some(change.into()),
            pruned: None,
            received: self.stage.now,
        }
    }

    /// What Bob takes the commit for.
    pub(super) fn deed(&self, commit: &Envelope) -> Deed {
        let provider = Provider::new(&self.stage.minds[BOB].vault);
        match self.group(&provider).open(&provider, &commit.body) {
            Ok(Opened::Commit(commit)) => commit.deed,
            Ok(Opened::Application { .. }) | Err(_) => panic!("an honest commit opens"),
        }
    }

    /// What the rules say of a commit, without the relay's part.
    pub(super) fn verdict(&self, vault: &Connection, commit: &Envelope) -> Result<(), Refused> {
        let provider = Provider::new(vault);
        let mut group = self.group(&provider);
        let (leaves, context) = (group.leaves(), group.context_hash());
        let (leaves, context) = (leaves.expect("a group"), context.expect("a group"));
        let opened = group
            .open(&provider, &commit.body)
            .map_err(|error| Refused::ByLibrary(error.to_string()))?;
        let Opened::Commit(commit) = opened else {
            return Err(Refused::ByLibrary("not a commit".into()));
        };
        let verdict = self.policy.judge(&leaves, &context, &commit.deed);
        verdict.map(|_| ()).map_err(Refused::ByRule)
    }

    /// Lets Bob read a commit, and looks at what becomes of him.
    pub(super) fn expect(&mut self, name: &str, commit: &Envelope, expected: Expected) {
        // By somebody else, whose ratchet the refused commit has not used.
        let other = if commit.agent == self.id(ALICE) {
            IVY
        } else {
            ALICE
        };
        let honest = self.forge(other, Plot::default());
        let (now, channel) = (self.stage.now, self.channel);
        let before = self.stage.view(BOB, channel);
        let words = self.stage.minds[BOB].words(channel);
        let verdict = self.verdict(&self.stage.minds[BOB].vault, commit);
        let said = match (&verdict, expected) {
            (Ok(()), Expected::Merged | Expected::Header) => true,
            (Err(Refused::ByRule(why)), Expected::Rule(expected)) => *why == expected,
            (Err(Refused::ByLibrary(why)), Expected::Library(expected)) => why.contains(expected),
            (Ok(()) | Err(_), _) => false,
        };
        assert!(said, "{name}: expected {expected:?}, not {verdict:?}");

        let tx = self.stage.minds[BOB].vault.transaction().expect("a vault");
        let kept = group_rows(&tx);
        let record: Blob = frame::encode(commit).into();
        let seq = before.cursor.next();
        let events = reads(&tx, channel, before.cursor, record, now);
        let stuck = Event::ChannelStuck {
            channel,
            by: commit.agent,
            seq,
        };
        let after = view_in(&tx, channel);
        if matches!(expected, Expected::Merged) {
            assert!(!events.contains(&stuck), "{name}");
            assert_eq!(after.state, ChannelState::Active, "{name}");
            assert_eq!(after.epoch, before.epoch.next(), "{name}");
        } else {
            assert!(events.contains(&stuck), "{name}: {events:?}");
            assert_eq!(after.state, ChannelState::Stuck, "{name}");
            assert_eq!(after.epoch, before.epoch, "{name}");
            assert_eq!(group_rows(&tx), kept, "{name}");
            let now_words = view::words(&tx, channel).expect("a vault");
            assert_eq!(now_words, Some(words), "{name}");
            let record: Blob = frame::encode(&honest).into();
            let tried = audit::try_open(&tx, channel, &[(seq, record)]).expect("a vault");
            assert!(tried[0].opened, "{name}: an honest commit still opens");
        }
    }

    /// Nothing of it has harmed anybody: the channel goes on, and all agree.
    pub(super) fn goes_on(mut self) {
        let channel = self.channel;
        for who in [ALICE, MALLORY, BOB, ERIN] {
            let rotated = self.stage.does(who, Command::Rotate { channel });
            assert_eq!(rotated, Answer::Done);
        }
        let words = self.stage.minds[ALICE].words(channel);
        for who in [BOB, MALLORY, IVY, CAROL, ERIN] {
            assert_eq!(self.stage.minds[who].words(channel), words);
        }
    }
}

/// Why a commit is refused.
#[derive(Debug)]
pub(super) enum Refused {
    ByRule(&'static str),
    ByLibrary(String),
}

pub(super) fn policy_of(stage: &Stage, channel: ChannelId) -> (Policy, Vec<Leaf>) {
    let provider = Provider::new(&stage.minds[BOB].vault);
    let group = Group::load(&provider, &channel.group_id(Generation(0)));
    let group = group.expect("a vault").expect("a member");
    (
        group.policy().expect("a channel"),
        group.leaves().expect("a group"),
    )
}

/// A mind over this transaction finds its relay and is shown one more record.
pub(super) fn reads(
    tx: &Transaction<'_>,
    channel: ChannelId,
    cursor: Seq,
    record: Blob,
    now: Time,
) -> Vec<Event> {
    let mut mind = open_in(tx, 1);
    let mut hears = |input: Input| mind.handle(vec![input], now, tx).expect("a sound vault");
    let frame = |frame: ToAgent| Input::Frame {
        relay: RELAY,
        frame,
    };
    hears(link_up());
    let out = hears(frame(ready(now, 3, 0, true)));
    let subscribed = out.frames.iter().find_map(|(_, frame)| {
        let ToRelay::Subscribe(subscribe) = frame else {
            return None;
        };
        Some(subscribe.id)
    });
    hears(frame(ToAgent::Subscribed(frame::Subscribed {
        channel,
        id: subscribed.expect("a member subscribes"),
        epoch: view_in(tx, channel).epoch,
        head: cursor,
        hash: None,
        after: cursor,
    })));
    hears(frame(deliver(channel, cursor.next(), record))).events
}

/// The group's rows, but for the ratchets of messages: a place in them that was used stays used.
pub(super) fn group_rows(tx: &Connection) -> Vec<(i64, Vec<u8>, Vec<u8>)> {
    let rows = "SELECT kind, key, value FROM mls_entities WHERE space > 0 AND kind <> 9
                ORDER BY group_id, space, kind, key";
    let mut query = tx.prepare(rows).expect("a vault");
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let rows: Result<Vec<_>, _> = rows.expect("a vault").collect();
    rows.expect("a vault")
}

/// Keeps somebody's proposal, as our own code never does.
pub(super) fn learn(provider: &Provider<'_>, group: &mut MlsGroup, proposal: &[u8]) {
    let message = MlsMessageIn::tls_deserialize_exact(proposal).expect("a message");
    let message = message.try_into_protocol_message().expect("a message");
    let processed = group
        .process_message(provider, message)
        .expect("a proposal");
    let ProcessedMessageContent::ProposalMessage(proposal) = processed.into_content() else {
        panic!("a proposal");
    };
    group
        .store_pending_proposal(provider.storage(), *proposal)
        .expect("a vault");
}

pub(super) fn credential(named: AgentId, key: AgentId) -> CredentialWithKey {
    CredentialWithKey {
        credential: BasicCredential::new(named.0.to_vec()).into(),
        signature_key: key.0.to_vec().into(),
    }
}

pub(super) fn capabilities() -> Capabilities {
    let [policy, invite] = [0xF1A0, 0xF1A1].map(ExtensionType::Unknown);
    Capabilities::new(
        None,
        Some(&[SUITE]),
        Some(&[ExtensionType::LastResort, policy, invite]),
        None,
        Some(&[CredentialType::Basic]),
    )
}

pub(super) fn context_of(policy: &Policy) -> Extensions<GroupContext> {
    let ours = [0xF1A0, 0xF1A1].map(ExtensionType::Unknown);
    let required = RequiredCapabilitiesExtension::new(&ours, &[], &[CredentialType::Basic]);
    let extensions = vec![
        Extension::RequiredCapabilities(required),
        Extension::Unknown(0xF1A0, UnknownExtension(frame::encode(policy))),
    ];
    Extensions::from_vec(extensions).expect("valid in a context")
}

pub(super) fn invite_extension(invite: InviteId) -> Extensions<LeafNode> {
    let extension = Extension::Unknown(0xF1A1, UnknownExtension(invite.0.to_vec()));
    Extensions::single(extension).expect("valid in a leaf")
}

/// As `docs/wire.md` has it.
pub(super) fn change_hash(declared: &[u8]) -> Digest {
    Digest::of(&[b"skytale/1 roster change", declared])
}

/// Somebody whose library is another one; as whom it comes, when not as itself, and how long its
/// KeyPackages shall last.
pub(super) fn foreign(
    named: Option<AgentId>,
    lifetime: Duration,
) -> (Client<impl MlsConfig>, AgentId) {
    let crypto = AwsLcCryptoProvider::new();
    let suite = crypto
        .cipher_suite_provider(FOREIGN_SUITE)
        .expect("suite 1");
    let (secret, public) = suite.signature_key_generate().expect("a key");
    let id = AgentId::from_slice(&public).expect("an Ed25519 key");
    let credential = ForeignCredential::new(named.unwrap_or(id).0.to_vec());
    let identity = SigningIdentity::new(credential.into_credential(), public);
    let rules = DefaultMlsRules::new()
        .with_commit_options(CommitOptions::new().with_ratchet_tree_extension(true))
        .with_encryption_options(EncryptionOptions::new(true, PaddingMode::None));
    let client = ClientBuilder::new()
        .identity_provider(BasicIdentityProvider)
        .crypto_provider(crypto)
        .mls_rules(rules)
        .extension_types([0xF1A0.into(), 0xF1A1.into()])
        .key_package_lifetime(lifetime)
        .signing_identity(identity, secret, FOREIGN_SUITE)
        .build();
    (client, id)
}

pub(super) const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
pub(super) const FOREIGN_SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;
pub(super) const ID: MessageId = MessageId([9; 16]);
pub(super) const PSK: &[u8] = b"a pre-shared key";
