use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::{
    identity::{Age, SharedSecret},
    session::moderator::Moderator,
};

const NOW: Time = Time(1_800_000_000_000);

/// What somebody says to a group without MLS, as it is heard.
fn said(
    by: &Identity,
    to: &Name,
    message: MessageType,
    command: Command,
    chance: &mut ChaCha20Rng,
) -> (Heard, Claim) {
    let draft = Draft {
        destination: to.clone(),
        to_all: false,
        kind: two::SessionType::Multicast.into(),
        message,
        session: 1,
        id: 7,
        failed: false,
        said: Said::Command(command),
        metadata: BTreeMap::new(),
    };
    let heard = Heard::read(&draft.write(by, None, NOW, chance).unwrap()).unwrap();
    let claim = by.check(&heard.identity, Age::Fresh(NOW)).unwrap();
    (heard, claim)
}

/// Ids of a thousand strangers who have the secret once filled the memory for ids, after which
/// nobody new was heard.
#[test]
fn strangers_do_not_crowd_out_members() {
    let mut chance = ChaCha20Rng::seed_from_u64(3);
    let secret = || SharedSecret::new("a secret of more than thirty-two bytes").unwrap();
    let mut identity = |name: &str| {
        let name = Name::parse(&format!("org/ns/{name}")).unwrap();
        Identity::new(&name, secret(), &mut chance)
    };
    let (alice, bob, mallory) = (identity("alice"), identity("bob"), identity("mallory"));
    let names = (alice.name().clone(), alice.name().clone());
    let mut body = Body::new(SessionId(1), true, names, false, None, NOW);
    body.enter(Member {
        name: bob.name().clone(),
        settings: BOTH_WAYS,
        online: true,
    });
    let mut session = Session::moderated(body, Moderator::new(BTreeMap::new()));
    let beat = Command::Heartbeat(two::HeartbeatPayload { epoch: 0 });
    let (strange, claim) = said(
        &mallory,
        alice.name(),
        MessageType::Heartbeat,
        beat,
        &mut chance,
    );
    let goes = Command::UpdateParticipantState(two::UpdateParticipantStatePayload {
        participant: Some(bob.name().to_two()),
        new_state: two::ParticipantState::Offline.into(),
        epoch: 0,
    });
    let message = MessageType::UpdateParticipantState;
    let (going, bobs_claim) = said(&bob, alice.name(), message, goes, &mut chance);
    let mut out = Vec::new();
    let mut step = Step {
        identity: &alice,
        now: NOW,
        chance: &mut chance,
        out: &mut out,
        reply: None,
    };

    for stranger in 0..2000 {
        let mut heard = strange.clone();
        heard.source.address.instance = Instance::Only(stranger);
        session.heard(heard, &claim, &mut step);
    }
    session.heard(going, &bobs_claim, &mut step);

    let mut told = out.iter();
    assert!(told.any(|output| matches!(output, Output::Tell(Event::Away { .. }))));
}
