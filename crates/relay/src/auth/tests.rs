//! Hellos that are good, and each way in which they are not.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{Router, http::StatusCode, routing::get};
use ed25519_dalek::{Signer as _, SigningKey};
use skytale_wire::{
    frame::GuestProof,
    id::{ChannelId, InviteId, MessageId},
    token::{AccountId, LIFETIME_MS_MAX, Scope, Signer, SlimPattern, SlimPatterns, TokenId},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;

const RELAY: RelayKey = RelayKey([3; 32]);
const TRANSPORT: TransportKey = TransportKey([5; 32]);

fn identity() -> SigningKey {
    SigningKey::from_bytes(&[4; 32])
}

fn agent() -> AgentId {
    AgentId(identity().verifying_key().to_bytes())
}

fn issuer() -> Signer {
    Signer::from_seed(&[9; 32]).unwrap()
}

fn gate() -> Gate {
    let issuers = [Issuer::Keys(issuer().public_keys())];
    Gate::new(RELAY, &issuers, Clock::system()).unwrap()
}

#[test]
fn a_file_of_authorities_that_holds_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("authority.pem");
    let issuers = [Issuer::Url("https://api.example.org".into())];
    let gate = || Gate::trusting(RELAY, &issuers, Some(&file), Clock::system()).map(|_| ());

    assert_eq!(gate(), Err(GateError::Authorities));
    fs::write(&file, "nothing in PEM").unwrap();
    assert_eq!(gate(), Err(GateError::Authorities));
    let own = rcgen::generate_simple_self_signed(["api.example.org".to_owned()]).unwrap();
    fs::write(&file, own.cert.pem()).unwrap();
    assert_eq!(gate(), Ok(()));
}

fn claims(now: Time) -> Claims {
    let now = Time(now.0 / 1000 * 1000);
    Claims {
        account: AccountId([1; 16]),
        grant: Grant::Agent {
            relay: RELAY,
            agent: agent(),
            transport_key: TRANSPORT,
        },
        scopes: [Scope::Relay].into(),
        key: None,
        id: TokenId([2; 16]),
        issued: now,
        expires: now.plus(LIFETIME_MS_MAX),
    }
}

fn slim_claims(now: Time) -> Claims {
    let patterns = ["acme/*", "org/ns/planner"].map(str::to_owned);
    Claims {
        grant: Grant::Slim {
            relay: RELAY,
            patterns: SlimPatterns::parse(&patterns).unwrap(),
        },
        scopes: [Scope::Slim].into(),
        ..claims(now)
    }
}

fn hello(credential: Credential) -> Hello {
    let statement = statement::identity(&RELAY, &TRANSPORT, &credential.hash());
    Hello {
        version: PROTOCOL,
        agent: agent(),
        proof: Signed(identity().sign(&statement).to_bytes()),
        credential,
        traffic: None,
    }
}

fn with_token(claims: &Claims) -> Hello {
    hello(Credential::Token(issuer().sign(claims)))
}

/// An API server as far as the relay knows it: one document, and how often it was asked for.
struct Jwks {
    url: String,
    asked: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl Jwks {
    async fn publish(keys: Option<PublicKeys>) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&asked);
        let answer = async move || {
            counting.fetch_add(1, Ordering::SeqCst);
            keys.map(|keys| keys.to_json())
                .ok_or(StatusCode::SERVICE_UNAVAILABLE)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().route(JWKS_PATH, get(answer));
        let stop = CancellationToken::new();
        let serving = async move { axum::serve(listener, routes).await };
        tokio::spawn(stop.clone().run_until_cancelled_owned(serving));
        Self {
            url,
            asked,
            _stop: stop.drop_guard(),
        }
    }

    /// Whose issuer has said just now what it has revoked.
    fn gate(&self) -> Gate {
        let issuers = [Issuer::Url(self.url.clone())];
        let gate = Gate::new(RELAY, &issuers, Clock::system()).unwrap();
        gate.0.sources[0].hear(gate.0.clock.now());
        gate
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_good_token_gives_the_account_and_its_end() {
    let gate = gate();
    let claims = claims(gate.0.clock.now());

    let presented = gate.check(TRANSPORT, &with_token(&claims)).await;

    assert_eq!(
        presented,
        Ok(Presented {
            agent: agent(),
            transport: TRANSPORT,
            right: Right::Account {
                payer: payer(&claims),
                expires: claims.expires,
            },
        })
    );
}

#[tokio::test]
async fn each_wrong_token_is_refused_with_its_reason() {
    let gate = gate();
    let good = claims(gate.0.clock.now());
    let granting = |relay, agent, transport_key| Claims {
        grant: Grant::Agent {
            relay,
            agent,
            transport_key,
        },
        ..good.clone()
    };
    let expired = Claims {
        issued: Time(good.issued.0 - 2 * LIFETIME_MS_MAX),
        expires: Time(good.expires.0 - 2 * LIFETIME_MS_MAX),
        ..good.clone()
    };
    let early = Claims {
        issued: good.issued.plus(60_000),
        expires: good.expires.plus(60_000),
        ..good.clone()
    };
    let for_api = Claims {
        grant: Grant::Account,
        scopes: [Scope::Account].into(),
        ..good.clone()
    };
    for (claims, refusal) in [
        (
            granting(RelayKey([8; 32]), agent(), TRANSPORT),
            Refusal::TokenForAnotherRelay,
        ),
        (for_api, Refusal::TokenForAnotherRelay),
        (
            granting(RELAY, agent(), TransportKey([8; 32])),
            Refusal::TokenForAnotherKey,
        ),
        (
            granting(RELAY, AgentId([8; 32]), TRANSPORT),
            Refusal::TokenForAnotherKey,
        ),
        (expired, Refusal::TokenExpired),
        (early, Refusal::TokenInvalid),
    ] {
        let checked = gate.check(TRANSPORT, &with_token(&claims)).await;
        assert_eq!(checked, Err(refusal), "{claims:?}");
    }
    let foreign = Signer::from_seed(&[7; 32]).unwrap().sign(&good);
    for token in [foreign, String::new(), "a.b.c".into(), "x".repeat(100_000)] {
        let checked = gate
            .check(TRANSPORT, &hello(Credential::Token(token)))
            .await;
        assert_eq!(checked, Err(Refusal::TokenInvalid));
    }
}

/// A9: the issuer's clock and this one. Some seconds stop nobody; minutes do where the token is early,
/// and take their part of the hour where it is late.
#[tokio::test]
async fn an_issuers_clock_may_be_apart_by_seconds() {
    let gate = gate();
    let now = gate.0.clock.now();
    let (hour, minute) = (LIFETIME_MS_MAX, 60_000);
    for (issued, let_in) in [
        (now.plus(5 * minute), Err(Refusal::TokenInvalid)),
        (now.plus(30_000), Err(Refusal::TokenInvalid)),
        (now.plus(4_000), Ok(())),
        (Time(now.0 - 5 * minute), Ok(())),
        // Five seconds are allowed, and the test may take some of them.
        (Time(now.0 - hour - 1_000), Ok(())),
        (Time(now.0 - hour - 10_000), Err(Refusal::TokenExpired)),
        (Time(now.0 - hour - 5 * minute), Err(Refusal::TokenExpired)),
    ] {
        let claims = claims(issued);
        let native = gate.check(TRANSPORT, &with_token(&claims)).await;
        if let Ok(presented) = &native {
            let Right::Account { expires, .. } = &presented.right else {
                panic!("{native:?}");
            };
            assert_eq!(*expires, claims.expires, "and it ends when it says");
        }
        assert_eq!(native.map(|_| ()), let_in, "{issued:?} at {now:?}");
        let slim = gate.check_slim(&issuer().sign(&slim_claims(issued))).await;
        assert_eq!(slim.map(|_| ()), let_in, "{issued:?} at {now:?}");
    }
}

#[tokio::test]
async fn nobody_speaks_for_another_identity() {
    let gate = gate();
    let good = with_token(&claims(gate.0.clock.now()));
    let mut forged = good.clone();
    forged.proof.0[7] ^= 1;
    let mut other = good.clone();
    other.agent = AgentId([8; 32]);
    let mut swapped = good.clone();
    swapped.credential = Credential::Member;

    for hello in [forged, other, swapped] {
        let checked = gate.check(TRANSPORT, &hello).await;
        assert_eq!(checked, Err(Refusal::IdentityUnproven));
    }
    let elsewhere = gate.check(TransportKey([6; 32]), &good).await;
    assert_eq!(elsewhere, Err(Refusal::IdentityUnproven));
    let newer = Hello {
        version: PROTOCOL + 1,
        ..good
    };
    let checked = gate.check(TRANSPORT, &newer).await;
    assert_eq!(checked, Err(Refusal::VersionUnsupported));
}

#[tokio::test]
async fn guests_prove_their_identity_and_the_hub_decides() {
    let gate = gate();
    let proof = GuestProof {
        channel: ChannelId([1; 32]),
        invite: InviteId([2; 16]),
        signature: Signed([3; 64]),
    };
    let invited = hello(Credential::Invite(proof.clone()));
    let member = hello(Credential::Member);

    let right = |presented: Result<Presented, Refusal>| presented.map(|it| it.right);
    assert_eq!(
        right(gate.check(TRANSPORT, &invited).await),
        Ok(Right::Invite(proof))
    );
    assert_eq!(
        right(gate.check(TRANSPORT, &member).await),
        Ok(Right::Member)
    );
}

#[tokio::test]
async fn a_renewal_is_checked_like_a_hello() {
    let gate = gate();
    let claims = claims(gate.0.clock.now());
    let Hello {
        credential, proof, ..
    } = with_token(&claims);
    let renew = Renew {
        id: MessageId([1; 16]),
        credential,
        proof,
    };

    assert!(gate.check_renewal(TRANSPORT, agent(), &renew).await.is_ok());
    let other = gate
        .check_renewal(TRANSPORT, AgentId([8; 32]), &renew)
        .await;
    assert_eq!(other, Err(Refusal::IdentityUnproven));
}

#[tokio::test]
async fn keys_are_fetched_once_for_many_and_again_seldom() {
    let jwks = Jwks::publish(Some(issuer().public_keys())).await;
    let gate = jwks.gate();
    let claims = claims(gate.0.clock.now());
    assert!(!gate.is_ready());

    for _ in 0..5 {
        assert!(gate.check(TRANSPORT, &with_token(&claims)).await.is_ok());
    }
    assert!(gate.is_ready());
    let unknown = Signer::from_seed(&[7; 32]).unwrap().sign(&claims);
    for _ in 0..5 {
        let hello = hello(Credential::Token(unknown.clone()));
        let checked = gate.check(TRANSPORT, &hello).await;
        assert_eq!(checked, Err(Refusal::TokenInvalid));
    }

    assert_eq!(jwks.asked(), 1);
}

#[tokio::test]
async fn without_the_issuer_nobody_gets_in_and_old_keys_end() {
    let down = Jwks::publish(None).await;
    let gate = down.gate();
    let good = with_token(&claims(gate.0.clock.now()));
    for _ in 0..3 {
        let checked = gate.check(TRANSPORT, &good).await;
        assert_eq!(checked, Err(Refusal::IssuerUnreachable));
    }
    assert_eq!(down.asked(), 1);

    let up = Jwks::publish(Some(issuer().public_keys())).await;
    let gate = up.gate();
    gate.refresh().await;
    let source = &gate.0.sources[0];
    let now = gate.0.clock.now();
    assert!(source.verifier(now).is_some());
    source.hear(now.plus(2 * KEYS_MS_MAX));
    assert!(source.verifier(now.plus(2 * KEYS_MS_MAX)).is_none());
}

/// What it has revoked meanwhile nobody knows.
#[tokio::test]
async fn an_issuer_that_is_silent_for_a_minute_lets_nobody_in() {
    let jwks = Jwks::publish(Some(issuer().public_keys())).await;
    let gate = jwks.gate();
    let now = gate.0.clock.now();
    let good = with_token(&claims(now));
    assert!(gate.check(TRANSPORT, &good).await.is_ok());
    let source = &gate.0.sources[0];

    assert!(source.verifier(now.plus(SILENCE_MS_MAX - 1)).is_some());
    assert!(source.verifier(now.plus(SILENCE_MS_MAX)).is_none());
    source.hear(Time(0));

    let checked = gate.check(TRANSPORT, &good).await;
    assert_eq!(checked, Err(Refusal::IssuerUnreachable));
    assert!(!gate.is_ready());
    source.hear(now);
    assert!(gate.check(TRANSPORT, &good).await.is_ok());
}

#[tokio::test]
async fn a_slim_token_gives_the_account_its_names_and_its_end() {
    let gate = gate();
    let claims = slim_claims(gate.0.clock.now());

    let right = gate.check_slim(&issuer().sign(&claims)).await;

    let patterns = ["acme/*", "org/ns/planner"].map(|text| Pattern::parse(text).unwrap());
    assert_eq!(
        right,
        Ok(SlimRight::Account {
            payer: payer(&claims),
            patterns: patterns.into(),
            expires: claims.expires,
        })
    );
}

/// Each door takes only its own kind: a SLIM token has no key that Hello could prove, and a native
/// token is not a bearer token.
#[tokio::test]
async fn neither_door_takes_the_others_tokens() {
    let gate = gate();
    let now = gate.0.clock.now();

    let native = gate.check_slim(&issuer().sign(&claims(now))).await;
    assert_eq!(native, Err(Refusal::ScopeMissing));

    let slim = with_token(&slim_claims(now));
    let hello = gate.check(TRANSPORT, &slim).await;
    assert_eq!(hello, Err(Refusal::ScopeMissing));
    let renew = Renew {
        id: MessageId([1; 16]),
        credential: slim.credential,
        proof: slim.proof,
    };
    let renewed = gate.check_renewal(TRANSPORT, agent(), &renew).await;
    assert_eq!(renewed, Err(Refusal::ScopeMissing));
}

#[tokio::test]
async fn each_wrong_slim_token_is_refused_with_its_reason() {
    let gate = gate();
    let good = slim_claims(gate.0.clock.now());
    let elsewhere = Claims {
        grant: Grant::Slim {
            relay: RelayKey([8; 32]),
            patterns: SlimPatterns::parse(&["acme/*".to_owned()]).unwrap(),
        },
        ..good.clone()
    };
    let for_api = Claims {
        grant: Grant::Account,
        scopes: [Scope::Account].into(),
        ..good.clone()
    };
    let expired = Claims {
        issued: Time(good.issued.0 - 2 * LIFETIME_MS_MAX),
        expires: Time(good.expires.0 - 2 * LIFETIME_MS_MAX),
        ..good.clone()
    };
    for (claims, refusal) in [
        (elsewhere, Refusal::TokenForAnotherRelay),
        (for_api, Refusal::TokenForAnotherRelay),
        (expired, Refusal::TokenExpired),
    ] {
        let checked = gate.check_slim(&issuer().sign(&claims)).await;
        assert_eq!(checked, Err(refusal), "{claims:?}");
    }
    let token = issuer().sign(&good);
    let foreign = Signer::from_seed(&[7; 32]).unwrap().sign(&good);
    for token in [
        foreign,
        String::new(),
        format!("{token}\n"),
        format!("Bearer {token}"),
        "x".repeat(100_000),
    ] {
        let checked = gate.check_slim(&token).await;
        assert_eq!(checked, Err(Refusal::TokenInvalid));
    }

    let down = Jwks::publish(None).await;
    let checked = down.gate().check_slim(&token).await;
    assert_eq!(checked, Err(Refusal::IssuerUnreachable));
}

/// The API server signs what the wire format takes, and the relay reads it with SLIM's own rules:
/// were they different, a token could be sold that opens nothing.
#[test]
fn both_readers_of_a_pattern_take_the_same_texts() {
    let same = |text: &str| {
        let signed = text.parse::<SlimPattern>().is_ok();
        assert_eq!(signed, Pattern::parse(text).is_ok(), "{text:?}");
        signed
    };
    let mut texts = vec![String::new()];
    let mut good = 0;
    for _ in 0..8 {
        texts = texts
            .iter()
            .flat_map(|text| ['a', '/', '*'].map(|next| format!("{text}{next}")))
            .collect();
        good += texts.iter().filter(|text| same(text)).count();
    }
    assert!(good > 100, "{good}");
    for length in 1_020..1_030 {
        let part = "ä".repeat(length / 2) + &"a".repeat(length % 2);
        for text in [
            format!("{part}/*"),
            format!("a/{part}/*"),
            format!("a/b/{part}"),
        ] {
            same(&text);
        }
    }
}
