//! What relays ask, and that nobody else is answered.

use std::time::Duration;

use ed25519_dalek::{Signer as _, SigningKey};
use skytale_wire::{
    http::{RelaySignature, Revocation, Revocations, Revoked},
    id::{Digest, RelayKey, Signed},
    statement,
    token::KeyId,
};
use tokio::time::timeout;

use super::*;

fn secret() -> SigningKey {
    SigningKey::from_bytes(&[6; 32])
}

fn key_of(secret: &SigningKey) -> RelayKey {
    RelayKey(secret.verifying_key().to_bytes())
}

async fn house() -> House {
    House::open_with(|config| {
        config.relays.push(RelayAt {
            key: key_of(&secret()),
            addresses: vec!["other.example.org:4433".into()],
        });
    })
    .await
}

fn signed(secret: &SigningKey, target: &str, time: Time) -> String {
    let relay = key_of(secret);
    let said = statement::relay_request(&relay, target, time, &Digest::of(&[b""]));
    let signature = RelaySignature {
        relay,
        time,
        signature: Signed(secret.sign(&said).to_bytes()),
    };
    signature.to_string()
}

impl House {
    async fn ask(&self, path: &str, authorization: &str) -> Answer {
        let request = Request::builder()
            .uri(path)
            .header("authorization", authorization)
            .body(Body::empty())
            .unwrap();
        self.send(request).await
    }

    /// Asks until something was revoked.
    async fn hears(&self, path: &str) -> Revocations {
        loop {
            let said = self.revocations(path).await;
            if !said.revoked.is_empty() {
                return said;
            }
        }
    }

    async fn revocations(&self, path: &str) -> Revocations {
        let signature = signed(&secret(), &format!("GET {path}"), NOW);
        self.ask(path, &signature).await.read()
    }
}

fn key_id(id: &str) -> KeyId {
    id.parse().unwrap()
}

#[tokio::test]
async fn only_relays_of_this_server_are_answered() {
    let house = house().await;
    let alice = house.person("alice").await;
    let path = "/v1/revocations";
    let target = "GET /v1/revocations";
    let stranger = SigningKey::from_bytes(&[7; 32]);
    let good = signed(&secret(), target, NOW);
    for bad in [
        String::new(),
        format!("Bearer {}", alice.key()),
        signed(&stranger, target, NOW),
        signed(&secret(), "GET /v1/revocations?after=1", NOW),
        signed(&secret(), "POST /v1/revocations", NOW),
        signed(&secret(), target, Time(NOW.0 - 61_000)),
        signed(&secret(), target, NOW.plus(61_000)),
        good.replace("Relay", "Bearer"),
        good.replace(
            &key_of(&secret()).to_string(),
            &key_of(&stranger).to_string(),
        ),
        format!("{good}:"),
        good.chars().take(good.len() - 1).collect(),
    ] {
        let answer = house.ask(path, &bad).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{bad}");
    }
    for time in [NOW, Time(NOW.0 - 59_000), NOW.plus(59_000)] {
        let answer = house.ask(path, &signed(&secret(), target, time)).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_relay_hears_of_a_revoked_key_while_it_waits() {
    let house = house().await;
    let alice = house.person("alice").await;
    let first = house.revocations("/v1/revocations").await;
    assert_eq!(first.revoked, []);
    let path = format!("/v1/revocations?after={}", first.next);
    let (said, revoked) =
        tokio::join!(timeout(Duration::from_mins(1), house.hears(&path)), async {
            // The question waits by now: it is polled first.
            tokio::task::yield_now().await;
            let key = format!("/v1/keys/{}", alice.key.id);
            let revoking = house.call(Method::DELETE, &key, alice.session(), Value::Null);
            revoking.await.status
        });

    assert_eq!(revoked, StatusCode::NO_CONTENT);
    let said = said.unwrap();
    let revocation = Revocation {
        revoked: Revoked::Key(key_id(&alice.key.id)),
        at_ms: NOW.0,
    };
    assert_eq!(said.revoked, [revocation]);
    assert!(said.next > first.next);
    // Who asks for everything gets it as long as a token could live.
    assert_eq!(house.revocations("/v1/revocations").await, said);
    house.now.fetch_add(3_700_000, Ordering::Relaxed);
    let signature = signed(&secret(), "GET /v1/revocations", NOW.plus(3_700_000));
    let late: Revocations = house.ask("/v1/revocations", &signature).await.read();
    assert_eq!(late.revoked, []);
}
