//! Hearing from token issuers what they have revoked, and passing it on to the hub.
//!
//! One question is always open at each issuer, which answers as soon as something is revoked, or after
//! some seconds with nothing. What it says reaches the hub before the gate counts the issuer as heard:
//! so a token that is let in afterwards is held against it. After an error the whole last hour is asked
//! for again, because the issuer may have been set up anew meanwhile.

use std::time::Duration;

use iroh::SecretKey;
use skytale_wire::http::{RelaySignature, Revocations};
use tracing::{info, warn};

use super::{Gate, Remote, Source, body, reports::signature};
use crate::driver::Door;

/// Follows every issuer that has a URL, until the driver has stopped.
pub(crate) async fn follow(gate: Gate, secret: SecretKey, door: Door) {
    let all = gate.0.sources.iter().filter_map(|source| {
        let remote = source.remote.as_ref()?;
        Some(follow_one(&gate, source, remote, &secret, &door))
    });
    futures_util::future::join_all(all).await;
}

async fn follow_one(
    gate: &Gate,
    source: &Source,
    remote: &Remote,
    secret: &SecretKey,
    door: &Door,
) {
    let mut after = None;
    let mut is_lost = false;
    loop {
        let asked = gate.0.clock.now();
        let target = match after {
            Some(place) => format!("{PATH}?after={place}"),
            None => PATH.to_owned(),
        };
        let Some(said) = ask(
            remote,
            &target,
            signature(secret, &format!("GET {target}"), asked, b""),
        )
        .await
        else {
            if !std::mem::replace(&mut is_lost, true) {
                warn!(
                    "a token issuer does not say what it has revoked: after a minute without it its tokens let nobody in. Is it up, of this version, and was it started with this relay's key?"
                );
            }
            after = None;
            tokio::time::sleep(RETRY).await;
            continue;
        };
        if std::mem::take(&mut is_lost) {
            info!("the token issuer says again what it has revoked");
        }
        for revocation in said.revoked {
            if door.revoke(revocation).await.is_err() {
                return;
            }
        }
        after = Some(said.next);
        source.hear(asked);
    }
}

async fn ask(remote: &Remote, target: &str, signature: RelaySignature) -> Option<Revocations> {
    let answer = remote
        .client
        .get(format!("{}{target}", remote.base))
        .header("authorization", signature.to_string())
        .timeout(ANSWER_TIMEOUT)
        .send()
        .await
        .ok()?;
    serde_json::from_slice(&body(answer, BYTES_MAX).await?).ok()
}

const PATH: &str = "/v1/revocations";
/// The issuer answers after half of what it lets a request take, which is 5 s by default.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_secs(1);
/// A thousand entries, and room.
const BYTES_MAX: usize = 262_144;
