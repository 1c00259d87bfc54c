//! Commits that must be refused, one a rule, each made by the MLS library in a real group; and
//! beside them those that differ only in being allowed.
//!
//! The author writes the commit past the mind, with the keys of its vault. Bob, who has no rights,
//! reads it twice: the rules say why, and his mind says `ChannelStuck`. What he keeps must be what
//! he had, and the commit of an honest member must still open. Nothing here lasts: each reading
//! happens in a transaction that is thrown away.

use std::time::Duration;

use mls_rs::{ExtensionList, MlsMessage, time::MlsTime};
use openmls::{
    prelude::{
        CredentialType, Extension, ExtensionType, Extensions, ExternalInitProposal, ExternalSender,
        KeyPackage as MlsKeyPackage, LeafNodeParameters, Lifetime, PreSharedKeyProposal, Proposal,
        RequiredCapabilitiesExtension, UnknownExtension,
    },
    schedule::PreSharedKeyId,
};
use skytale_wire::{
    Blob,
    envelope::{Envelope, Grant, Kind, RosterChange},
    frame::{self, ADDS_MAX, INVITES_MAX},
    id::{AgentId, ChannelId, Digest, Generation, InviteId, MessageId},
    invite::InviteSeed,
    statement,
};

use self::scene::{
    ALICE, ALLOWED, Altering, BOB, CAROL, DAVE, ERIN, Expected, FOREIGN_SUITE, ID, IVY, Join,
    MALLORY, PSK, Plot, Proof, Scene, Shape, change_hash, credential, foreign, invite_extension,
    learn, rules,
};
use super::{Bound, Committer, Deed, Leaf, Policy, PolicyInvite, join_change};
use crate::{Answer, Command, identity::Identity};

mod scene;

#[test]
fn commits_of_members_are_held_to_the_rules() {
    let mut scene = Scene::new();
    let plots = [
        proposals(),
        additions(&scene),
        removals(&scene),
        rights(&scene),
        invites(&scene),
        paths(&scene),
        extensions(&scene),
        headers(&scene),
    ];
    for (name, by, plot, expected) in plots.into_iter().flatten() {
        let commit = scene.forge(by, plot);
        scene.expect(name, &commit, expected);
    }
    scene.goes_on();
}

type Plots = Vec<(&'static str, usize, Plot, Expected)>;

fn proposals() -> Plots {
    let proposing = |proposal| Plot {
        more: vec![proposal],
        ..Plot::default()
    };
    let psk = || PreSharedKeyProposal::new(PreSharedKeyId::external(PSK.to_vec(), vec![0; 32]));
    vec![
        ("a path and nothing else", MALLORY, Plot::default(), ALLOWED),
        (
            "a pre-shared key that all have",
            MALLORY,
            proposing(Proposal::PreSharedKey(Box::new(psk()))),
            Expected::Rule("it carries a proposal that channels do not allow"),
        ),
        (
            "the same by an admin",
            ALICE,
            proposing(Proposal::PreSharedKey(Box::new(psk()))),
            Expected::Rule("it carries a proposal that channels do not allow"),
        ),
        (
            "an external init by a member",
            MALLORY,
            proposing(Proposal::ExternalInit(Box::new(
                ExternalInitProposal::from(vec![9; 32]),
            ))),
            Expected::Library("ExternalInitProposalInRegularCommit"),
        ),
    ]
}

fn additions(scene: &Scene) -> Plots {
    let adding = |package: MlsKeyPackage| Plot {
        adds: vec![package],
        ..Plot::default()
    };
    let dave = |shape: Shape| adding(scene.key_package(shape));
    vec![
        ("an inviter adds", IVY, dave(Shape::default()), ALLOWED),
        (
            "somebody who may not adds",
            MALLORY,
            dave(Shape::default()),
            Expected::Rule("its author may not add"),
        ),
        (
            "without a path",
            IVY,
            Plot {
                is_pathless: true,
                ..dave(Shape::default())
            },
            Expected::Rule("it has no path"),
        ),
        (
            "somebody who claims to come by an invite",
            IVY,
            dave(Shape {
                invite: Some(scene.invite()),
                ..Shape::default()
            }),
            Expected::Rule("it adds a leaf that no Add may carry"),
        ),
        (
            "a leaf with somebody else's credential",
            IVY,
            dave(Shape {
                credential: Some(scene.id(ALICE)),
                ..Shape::default()
            }),
            Expected::Library("a credential is not its leaf's key"),
        ),
        (
            "a credential that is no id",
            IVY,
            dave(Shape {
                credential_bytes: Some(b"dave@example.org".to_vec()),
                ..Shape::default()
            }),
            Expected::Library("BadId"),
        ),
        (
            // Who reads it after an hour would refuse what others have merged.
            "a KeyPackage that ends in an hour",
            IVY,
            dave(Shape {
                lifetime: Some(Lifetime::new(3_600)),
                ..Shape::default()
            }),
            Expected::Library("it adds a KeyPackage with a lifetime"),
        ),
        (
            "a KeyPackage that ends in a thousand years",
            IVY,
            dave(Shape {
                lifetime: Some(Lifetime::new(1_000 * 365 * 24 * 3_600)),
                ..Shape::default()
            }),
            Expected::Library("it adds a KeyPackage with a lifetime"),
        ),
    ]
}

fn removals(scene: &Scene) -> Plots {
    let removing = || Plot {
        removes: vec![scene.id(CAROL)],
        ..Plot::default()
    };
    let with = |left: statement::Leave| Plot {
        left: vec![left],
        ..removing()
    };
    vec![
        ("an admin removes", ALICE, removing(), ALLOWED),
        (
            "somebody who may not removes",
            MALLORY,
            removing(),
            Expected::Rule("its author may not remove"),
        ),
        (
            "an inviter removes",
            IVY,
            removing(),
            Expected::Rule("its author may not remove"),
        ),
        (
            "an admin is removed by a member",
            MALLORY,
            Plot {
                removes: vec![scene.id(ALICE)],
                ..Plot::default()
            },
            Expected::Rule("its author may not remove"),
        ),
        (
            "anybody removes who has left",
            MALLORY,
            with(scene.leave(CAROL, CAROL)),
            ALLOWED,
        ),
        (
            "with a statement that the author has signed",
            MALLORY,
            with(scene.leave(MALLORY, CAROL)),
            Expected::Rule("its author may not remove"),
        ),
        (
            "with the statement of somebody else",
            MALLORY,
            with(scene.leave(ERIN, ERIN)),
            Expected::Rule("its author may not remove"),
        ),
        (
            "with a statement about another stay",
            MALLORY,
            with(scene.leave(CAROL, ERIN)),
            Expected::Rule("its author may not remove"),
        ),
        (
            "and keeps invites",
            ALICE,
            Plot {
                after: Some(scene.policy.clone()),
                ..removing()
            },
            Expected::Rule("it removes somebody and keeps invites open"),
        ),
    ]
}

fn rights(scene: &Scene) -> Plots {
    let [alice, mallory, ivy, dave] = [ALICE, MALLORY, IVY, DAVE].map(|who| scene.id(who));
    let grants = |agent| scene.policy.clone().granting(agent, true, true);
    let mut unsorted = grants(mallory);
    unsorted.admins.reverse();
    let mut twice = scene.policy.clone();
    twice.admins.push(alice);
    let mut renamed = scene.policy.clone();
    renamed.name = "acme/ops/other".parse().expect("a name");
    let moved = Policy {
        channel: ChannelId([1; 32]),
        ..scene.policy.clone()
    };
    let restarted = Policy {
        generation: Generation(1),
        ..scene.policy.clone()
    };
    let place = Expected::Rule("it changes the channel's name or place");
    let strangers = Expected::Rule("it gives rights to a stranger");
    let order = Expected::Rule("its lists of rights are not sorted");
    let refused = Expected::Rule("its author may not change rights");
    vec![
        ("an admin grants", ALICE, rules(grants(mallory)), ALLOWED),
        (
            "a member makes itself an admin",
            MALLORY,
            rules(grants(mallory)),
            refused,
        ),
        (
            "an inviter makes itself an admin",
            IVY,
            rules(grants(ivy)),
            refused,
        ),
        (
            "a member takes an admin's rights",
            MALLORY,
            rules(scene.policy.clone().granting(alice, false, false)),
            refused,
        ),
        (
            "an inviter adds an admin",
            IVY,
            Plot {
                adds: vec![scene.key_package(Shape::default())],
                after: Some(grants(dave)),
                ..Plot::default()
            },
            refused,
        ),
        (
            "an admin adds an admin",
            ALICE,
            Plot {
                adds: vec![scene.key_package(Shape::default())],
                after: Some(grants(dave)),
                ..Plot::default()
            },
            ALLOWED,
        ),
        (
            "rights for a stranger",
            ALICE,
            rules(grants(dave)),
            strangers,
        ),
        ("rights out of order", ALICE, rules(unsorted), order),
        ("rights said twice", ALICE, rules(twice), order),
        ("another name", ALICE, rules(renamed), place),
        ("another channel", ALICE, rules(moved), place),
        ("another generation", ALICE, rules(restarted), place),
    ]
}

fn invites(scene: &Scene) -> Plots {
    let opening = |invite: PolicyInvite| {
        let mut after = scene.policy.clone();
        after.invites.push(invite);
        rules(after)
    };
    let mut altered = scene.policy.clone();
    altered.invites[0].uses += 1;
    let mut listed_twice = scene.policy.clone();
    listed_twice.invites.push(listed_twice.invites[0].clone());
    let mut many = scene.policy.clone();
    let rest = INVITES_MAX + 1 - many.invites.len();
    let numbers = 1..=u8::try_from(rest).expect("a few");
    many.invites
        .extend(numbers.map(|number| scene.invite_by(IVY, number, 1)));
    let mut most = many.clone();
    most.invites.pop();
    let mut closed = scene.policy.clone();
    closed.invites.clear();
    let mut in_her_name = scene.invite_by(IVY, 1, 1);
    in_her_name.inviter = scene.id(ALICE);
    let mut unsigned = scene.invite_by(IVY, 1, 1);
    unsigned.uses = 2;
    let refused = Expected::Rule("it opens an invite that its author may not make");
    vec![
        (
            "an inviter opens one",
            IVY,
            opening(scene.invite_by(IVY, 1, 1)),
            ALLOWED,
        ),
        (
            "a member opens one",
            MALLORY,
            opening(scene.invite_by(MALLORY, 1, 1)),
            refused,
        ),
        (
            "a member brings an inviter's into the record",
            MALLORY,
            opening(scene.invite_by(IVY, 1, 1)),
            refused,
        ),
        (
            "one in somebody else's name",
            IVY,
            opening(in_her_name),
            refused,
        ),
        (
            "one for other uses than signed",
            IVY,
            opening(unsigned),
            refused,
        ),
        (
            "one without a use",
            IVY,
            opening(scene.invite_by(IVY, 1, 0)),
            refused,
        ),
        (
            "one altered",
            IVY,
            rules(altered),
            Expected::Rule("it alters an invite"),
        ),
        (
            "one twice",
            IVY,
            rules(listed_twice),
            Expected::Rule("it lists an invite twice"),
        ),
        (
            "one too many",
            IVY,
            rules(many),
            Expected::Rule("it opens too many invites"),
        ),
        ("as many as there may be", IVY, rules(most), ALLOWED),
        // Members judge without a clock: see decision 4.
        ("anybody closes one", MALLORY, rules(closed), ALLOWED),
    ]
}

fn paths(scene: &Scene) -> Plots {
    let other = Identity::generate();
    let rekeyed = |credential: AgentId, key: Identity| Plot {
        new_key: Some((credential, key)),
        ..Plot::default()
    };
    let own_credential = scene.id(MALLORY);
    let leaf = |extensions| Plot {
        leaf: Some(
            LeafNodeParameters::builder()
                .with_extensions(extensions)
                .build(),
        ),
        ..Plot::default()
    };
    let changed = Expected::Rule("its author changed the invite that it came by");
    vec![
        (
            "who came by an invite renews its keys",
            ERIN,
            Plot::default(),
            ALLOWED,
        ),
        (
            "its leaf forgets the invite",
            ERIN,
            leaf(Extensions::empty()),
            changed,
        ),
        (
            "a leaf names an invite that it did not come by",
            MALLORY,
            leaf(invite_extension(scene.invite())),
            changed,
        ),
        (
            "another identity takes the leaf",
            MALLORY,
            rekeyed(other.id(), other),
            Expected::Rule("its path installs somebody else's key"),
        ),
        (
            "the same identity with another key",
            MALLORY,
            rekeyed(own_credential, Identity::generate()),
            Expected::Library("a credential is not its leaf's key"),
        ),
        (
            "an admin's name on a member's leaf",
            MALLORY,
            Plot {
                leaf: Some(
                    LeafNodeParameters::builder()
                        .with_credential_with_key(credential(scene.id(ALICE), own_credential))
                        .build(),
                ),
                ..Plot::default()
            },
            Expected::Library("a credential is not its leaf's key"),
        ),
    ]
}

fn extensions(scene: &Scene) -> Plots {
    let required = |more: &[ExtensionType]| {
        let ours = [
            ExtensionType::Unknown(0xF1A0),
            ExtensionType::Unknown(0xF1A1),
        ];
        let all = [&ours[..], more].concat();
        let basic = [CredentialType::Basic];
        Extension::RequiredCapabilities(RequiredCapabilitiesExtension::new(&all, &[], &basic))
    };
    let record = |bytes| Extension::Unknown(0xF1A0, UnknownExtension(bytes));
    let same = || record(frame::encode(&scene.policy));
    let context = |extensions: Vec<Extension>| Plot {
        context: Some(Extensions::from_vec(extensions).expect("valid in a context")),
        ..Plot::default()
    };
    let outsider = credential(scene.id(DAVE), scene.id(DAVE));
    let senders = || {
        let sender =
            ExternalSender::new(outsider.signature_key.clone(), outsider.credential.clone());
        Extension::ExternalSenders(vec![sender])
    };
    let foreign = Expected::Library("the group has rules that channels do not have");
    vec![
        (
            "the same once more",
            MALLORY,
            context(vec![required(&[]), same()]),
            ALLOWED,
        ),
        (
            "no record",
            ALICE,
            context(vec![required(&[])]),
            Expected::Library("the group is not a channel"),
        ),
        (
            "a record that is none",
            ALICE,
            context(vec![required(&[]), record(vec![0xFF])]),
            Expected::Library("Encoding"),
        ),
        (
            "somebody outside may propose",
            MALLORY,
            context(vec![required(&[]), same(), senders()]),
            foreign,
        ),
        (
            "the same by an admin",
            ALICE,
            context(vec![required(&[]), same(), senders()]),
            foreign,
        ),
        (
            "members need more than they have to",
            MALLORY,
            context(vec![required(&[ExtensionType::LastResort]), same()]),
            foreign,
        ),
    ]
}

fn headers(scene: &Scene) -> Plots {
    let [carol, dave] = [CAROL, DAVE].map(|who| scene.id(who));
    let adding = || Plot {
        adds: vec![scene.key_package(Shape::default())],
        ..Plot::default()
    };
    let grant = |admin| Grant {
        agent: dave,
        admin,
        may_invite: false,
    };
    let declaring = |change| Plot {
        declares: Some(change),
        ..adding()
    };
    let bound = |alter: fn(&mut Bound)| Plot {
        bound: Some(alter),
        ..Plot::default()
    };
    let header = |alter: Altering| Plot {
        header: Some(alter),
        ..Plot::default()
    };
    vec![
        (
            "it declares what it does",
            IVY,
            declaring(RosterChange {
                added: vec![grant(false)],
                ..RosterChange::default()
            }),
            ALLOWED,
        ),
        (
            "it declares nothing",
            IVY,
            declaring(RosterChange::default()),
            Expected::Header,
        ),
        (
            "it declares rights that it does not give",
            IVY,
            declaring(RosterChange {
                added: vec![grant(true)],
                ..RosterChange::default()
            }),
            Expected::Header,
        ),
        (
            "it declares a removal that it does not do",
            ALICE,
            Plot {
                declares: Some(RosterChange {
                    removed: vec![carol],
                    ..RosterChange::default()
                }),
                ..Plot::default()
            },
            Expected::Header,
        ),
        (
            "its declaration is not bound",
            MALLORY,
            bound(|bound| bound.change = None),
            Expected::Header,
        ),
        (
            "another declaration is bound",
            MALLORY,
            bound(|bound| bound.change = Some(Digest([0; 32]))),
            Expected::Header,
        ),
        (
            "it is bound to another channel",
            MALLORY,
            bound(|bound| bound.channel = ChannelId([1; 32])),
            Expected::Header,
        ),
        (
            "it is bound to another id",
            MALLORY,
            bound(|bound| bound.id = MessageId([0; 16])),
            Expected::Header,
        ),
        (
            "it is bound as a message",
            MALLORY,
            bound(|bound| bound.kind = Kind::Application as u8),
            Expected::Header,
        ),
        (
            "the relay names another author",
            MALLORY,
            header(Box::new(move |envelope| envelope.agent = carol)),
            Expected::Header,
        ),
        (
            "the relay calls it a join",
            MALLORY,
            header(Box::new(|envelope| envelope.kind = Kind::Join)),
            Expected::Header,
        ),
        (
            "the relay declares something else",
            MALLORY,
            header(Box::new(move |envelope| {
                let change = RosterChange {
                    removed: vec![carol],
                    ..RosterChange::default()
                };
                envelope.change = Some(frame::encode(&change).into());
            })),
            Expected::Header,
        ),
    ]
}

/// The next commit of a member must drop an invite that is used up: nobody else counts.
#[test]
fn an_invite_that_is_used_up_lets_nobody_in_and_goes() {
    let mut scene = Scene::new();
    let used_up = scene.line.seed.id();
    let line = scene.line.to_string();
    assert!(matches!(
        scene.stage.does(DAVE, Command::Join { line }),
        Answer::Channel(_)
    ));
    scene.look_again();

    let keeping = rules(scene.policy.clone());
    let tidying = Plot::default();
    let late = scene.join(&Identity::generate(), Join::by(used_up));
    for (name, commit, expected) in [
        (
            "kept",
            scene.forge(MALLORY, keeping),
            Expected::Rule("it keeps an invite that is used up"),
        ),
        ("dropped", scene.forge(MALLORY, tidying), ALLOWED),
        ("used", late, Expected::Rule("the invite is used up")),
    ] {
        scene.expect(name, &commit, expected);
    }
    scene.goes_on();
}

#[test]
fn joins_from_outside_do_nothing_but_join() {
    let mut scene = Scene::new();
    let invite = scene.invite();
    let joiner = Identity::generate();
    let admin = RosterChange {
        added: vec![Grant {
            agent: joiner.id(),
            admin: true,
            may_invite: false,
        }],
        ..RosterChange::default()
    };
    let mallory = scene.identity(MALLORY);
    let joins = [
        ("by the line", Join::by(invite), ALLOWED),
        (
            "by an invite that is not open",
            Join {
                leaf: InviteId::of(&[3; 32]),
                ..Join::by(invite)
            },
            Expected::Rule("the joiner names no open invite"),
        ),
        (
            "without a proof",
            Join {
                proof: Proof::None,
                ..Join::by(invite)
            },
            Expected::Rule("the joiner shows no proof"),
        ),
        (
            "with a proof for somebody else",
            Join {
                proof: Proof::Of(scene.id(DAVE)),
                ..Join::by(invite)
            },
            Expected::Rule("the joiner's proof is wrong"),
        ),
        (
            "with a proof of another time",
            Join {
                proof: Proof::At(Digest([5; 32])),
                ..Join::by(invite)
            },
            Expected::Rule("the joiner's proof is wrong"),
        ),
        (
            "with a proof by another line",
            Join {
                proof: Proof::By(InviteSeed::new([8; 16])),
                ..Join::by(invite)
            },
            Expected::Rule("the joiner's proof is wrong"),
        ),
        (
            "as an admin",
            Join {
                declares: Some(admin),
                ..Join::by(invite)
            },
            Expected::Header,
        ),
    ];
    for (name, join, expected) in joins {
        let commit = scene.join(&joiner, join);
        scene.expect(name, &commit, expected);
    }
    // OpenMLS adds a removal of the old leaf by itself when a member comes in once more.
    let again = scene.join(&mallory, Join::by(invite));
    scene.expect(
        "a member once more",
        &again,
        Expected::Rule("it carries a proposal that channels do not allow"),
    );
    scene.goes_on();
}

/// MLS lets whoever comes in remove one member, if the application takes it for the same one. This
/// library asks only whether the names are the same.
#[test]
fn nobody_comes_in_over_somebody_else() {
    let mut scene = Scene::new();
    let invite = scene.invite();
    let nameless = Expected::Rule("the joiner names no open invite");
    let imposter = Expected::Library("a credential is not its leaf's key");
    for (named, over, expected) in [
        (Some(invite), None, ALLOWED),
        (None, None, nameless),
        (Some(invite), Some(CAROL), imposter),
        (Some(invite), Some(ALICE), imposter),
    ] {
        let hour = Duration::from_hours(1);
        let (client, id) = foreign(over.map(|who| scene.id(who)), hour);
        let context = scene.context();
        let said = statement::join(&scene.policy.group(), &context, &invite, &id);
        let change = frame::encode(&join_change(id));
        let bound = Bound {
            change: Some(change_hash(&change)),
            join: Some(scene.line.seed.sign(&said)),
            ..Bound::new(scene.channel, ID, Kind::Join)
        };
        let mut leaf = ExtensionList::new();
        if let Some(named) = named {
            leaf.set(mls_rs::Extension::new(0xF1A1.into(), named.0.to_vec()));
        }
        let mut builder = client
            .external_commit_builder()
            .expect("a client with a key")
            .with_authenticated_data(frame::encode(&bound))
            .with_leaf_node_extensions(leaf);
        if let Some(removed) = over {
            builder = builder.with_removal(scene.leaf_index(removed).u32());
        }
        let info = MlsMessage::from_bytes(&scene.group_info()).expect("a GroupInfo");
        let (_, commit) = builder.build(info).expect("a commit");
        let commit = Envelope {
            kind: Kind::Join,
            ..scene.envelope(id, commit.to_bytes().expect("a commit"), change)
        };
        scene.expect("a foreign joiner", &commit, expected);
    }
    scene.goes_on();
}

/// A member whose library is another one: OpenMLS drops a `ReInit` from its own commits.
#[test]
fn nobody_ends_the_group() {
    let mut scene = Scene::new();
    let (client, id) = foreign(None, Duration::from_secs(u64::MAX));
    let package = client
        .generate_key_package_message(
            ExtensionList::new(),
            ExtensionList::new(),
            Some(MlsTime::from(0)),
        )
        .expect("a KeyPackage");
    let package = package.to_bytes().expect("a KeyPackage");
    scene
        .stage
        .relay
        .packages
        .insert(id, [Blob(package.into())].into());
    let add = Command::Add {
        channel: scene.channel,
        agents: vec![id],
    };
    assert_eq!(scene.stage.does(ALICE, add), Answer::Done);
    scene.look_again();
    let welcome = scene.stage.relay.mailboxes[&id][0].body.clone();
    let welcome = MlsMessage::from_bytes(&welcome).expect("a Welcome");
    let (group, _) = client.join_group(None, &welcome, None).expect("a member");

    let change = frame::encode(&RosterChange::default());
    let bound = Bound {
        change: Some(change_hash(&change)),
        ..Bound::new(scene.channel, ID, Kind::Commit)
    };
    for (ends, expected) in [
        (false, ALLOWED),
        (
            true,
            Expected::Rule("it carries a proposal that channels do not allow"),
        ),
    ] {
        let mut group = group.clone();
        let mut builder = group
            .commit_builder()
            .authenticated_data(frame::encode(&bound));
        if ends {
            let version = mls_rs::ProtocolVersion::MLS_10;
            builder = builder
                .reinit(None, version, FOREIGN_SUITE, ExtensionList::new())
                .expect("a proposal");
        }
        let commit = builder.build().expect("a commit");
        let commit = commit.commit_message().to_bytes().expect("a commit");
        let commit = scene.envelope(id, commit, change.clone());
        scene.expect("by a foreign member", &commit, expected);
    }
    scene.goes_on();
}

/// What one member proposes and another commits: the committer cannot be held to what it did not
/// write.
#[test]
fn nobody_commits_what_somebody_else_proposed() {
    let mut scene = Scene::new();
    let carol = scene.leaf_index(CAROL);
    let proposal = scene.with_group(MALLORY, |provider, identity, group| {
        let proposed = group.propose_remove_member(provider, identity, carol);
        let (message, _) = proposed.expect("a proposal");
        message.to_bytes().expect("a proposal")
    });
    let knowing = Plot {
        removes: vec![scene.id(CAROL)],
        by_reference: Some(proposal.clone()),
        ..Plot::default()
    };
    // Alice is an admin and might remove Carol herself.
    let commit = scene.forge(ALICE, knowing);

    scene.expect(
        "a proposal that Bob has not seen",
        &commit,
        Expected::Library("MissingProposal"),
    );
    scene.with_group(BOB, |provider, _, group| {
        learn(provider, group, &proposal);
        provider.flush().expect("a vault");
    });
    scene.expect(
        "a proposal that Bob has",
        &commit,
        Expected::Rule("it carries a proposal that channels do not allow"),
    );

    let mut lone = commit;
    lone.body = proposal.into();
    scene.expect(
        "a proposal in the place of a commit",
        &lone,
        Expected::Library(""),
    );
}

/// What the library refuses before we are asked, so that no group can be brought to it: the rules
/// do not rest on that.
#[test]
fn the_rules_stand_without_the_library_too() {
    let scene = Scene::new();
    let honest = scene.deed(&scene.forge(ALICE, Plot::default()));
    let leaf = |who: usize| scene.leaves.iter().find(|leaf| leaf.agent == scene.id(who));
    let alice = leaf(ALICE).expect("a member").clone();
    let bob = leaf(BOB).expect("a member").clone();
    let erin = leaf(ERIN).expect("a member").clone();
    let stranger = |number: u64| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Leaf {
            agent: AgentId(id),
            leaf_key: Vec::new(),
            invite: None,
        }
    };
    let by_joiner = Deed {
        by: Committer::Joiner(erin.agent),
        path: Some(erin.clone()),
        ..honest.clone()
    };
    let cases: Vec<(Deed, Result<(), &str>)> = vec![
        (honest.clone(), Ok(())),
        (
            Deed {
                by: Committer::Member(stranger(1).agent),
                ..honest.clone()
            },
            Err("its author is not a member"),
        ),
        (
            Deed {
                added: vec![bob.clone()],
                ..honest.clone()
            },
            Err("it adds a member again"),
        ),
        (
            Deed {
                added: vec![stranger(1), stranger(1)],
                ..honest.clone()
            },
            Err("it adds a leaf that no Add may carry"),
        ),
        (
            Deed {
                added: (0..ADDS_MAX as u64).map(stranger).collect(),
                ..honest.clone()
            },
            Ok(()),
        ),
        (
            Deed {
                added: (0..=ADDS_MAX as u64).map(stranger).collect(),
                ..honest.clone()
            },
            Err("it adds too many at once"),
        ),
        (
            Deed {
                removed: vec![stranger(1).agent],
                ..honest.clone()
            },
            Err("it removes a stranger"),
        ),
        (
            Deed {
                removed: vec![alice.agent],
                ..honest.clone()
            },
            Err("its author removes itself"),
        ),
        (by_joiner.clone(), Err("the joiner is a member already")),
        (
            Deed {
                removed: vec![bob.agent],
                ..by_joiner.clone()
            },
            Err("a join does nothing but join"),
        ),
        (
            Deed {
                added: vec![stranger(1)],
                ..by_joiner.clone()
            },
            Err("a join does nothing but join"),
        ),
        (
            Deed {
                after: scene.policy.clone().granting(erin.agent, true, true),
                ..by_joiner
            },
            Err("a join does nothing but join"),
        ),
    ];
    for (deed, expected) in cases {
        let verdict = scene.policy.judge(&scene.leaves, &Digest([0; 32]), &deed);
        assert_eq!(verdict.map(|_| ()), expected, "{deed:?}");
    }
}
