//! Who is speaking, and by what right: the check of a Hello, and of the bearer of a SLIM stream.
//!
//! Two things must hold: the identity key has signed this connection and this credential, and the
//! credential is good. Tokens are checked here, against keys of issuers that the configuration
//! names; invites and memberships by the hub, which knows them. Whatever cannot be checked is
//! refused: without an issuer's keys nobody gets in with a token.
//!
//! Behind a SLIM token there is no identity and no key, because SLIM's clients prove none: whoever
//! presents it is let in. Therefore neither door takes the other's tokens.

use std::{
    fmt, fs,
    path::Path,
    sync::{Arc, PoisonError, RwLock, atomic::AtomicBool},
    time::Duration,
};

use reqwest::Certificate;
use skytale_slim::Pattern;
use skytale_wire::{
    frame::{Credential, Hello, PROTOCOL, Renew},
    id::{AgentId, Digest, RelayKey, Signed, Time, TransportKey},
    refusal::Refusal,
    statement,
    token::{Audience, Claims, Grant, Misuse, PublicKeys, Refused, Verifier},
};
use tokio::sync::Mutex;
use tracing::warn;

use crate::{
    config::Issuer,
    driver::Clock,
    hub::{Payer, Presented, Right, SlimRight},
};

/// Checks credentials for one relay.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Checks>);

#[derive(Debug)]
struct Checks {
    relay: RelayKey,
    clock: Clock,
    sources: Vec<Source>,
    /// Whether the API server has not taken the last report of usage.
    report_waits: AtomicBool,
}

/// Where an issuer's keys come from, and what is known of them.
#[derive(Debug)]
struct Source {
    relay: RelayKey,
    known: RwLock<Known>,
    remote: Option<Remote>,
}

#[derive(Debug, Default)]
struct Known {
    verifier: Option<Arc<Verifier>>,
    fetched: Time,
    /// When the issuer was last heard to say what it has revoked.
    heard: Time,
}

struct Remote {
    base: String,
    client: reqwest::Client,
    /// When keys were last asked for. Held while they are, so that one asks for all.
    tried: Mutex<Option<Time>>,
}

/// Why a gate could not be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// The keys that were handed in are of no use.
    #[error(transparent)]
    Keys(#[from] Misuse),
    /// The HTTP client could not be set up.
    #[error(
        "no HTTP client could be set up to fetch the token issuer's keys: does this machine have certificate authorities (package ca-certificates, or ca_file)?"
    )]
    Client,
    /// The file of certificate authorities is of no use.
    #[error("ca_file cannot be read, or holds no certificate in PEM")]
    Authorities,
}

impl Gate {
    /// A gate that trusts these issuers. Their keys are fetched when first needed, or by
    /// [`Self::refresh`].
    pub fn new(relay: RelayKey, issuers: &[Issuer], clock: Clock) -> Result<Self, GateError> {
        Self::trusting(relay, issuers, None, clock)
    }

    /// The same, where issuers may also have a certificate of an authority in this file.
    pub fn trusting(
        relay: RelayKey,
        issuers: &[Issuer],
        ca_file: Option<&Path>,
        clock: Clock,
    ) -> Result<Self, GateError> {
        let authorities = ca_file.map_or(Ok(Vec::new()), authorities)?;
        let sources = issuers
            .iter()
            .map(|issuer| Source::new(relay, issuer, &authorities, clock.now()))
            .collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Checks {
            relay,
            clock,
            sources,
            report_waits: AtomicBool::new(false),
        })))
    }

    /// Checks the first frame of the connection whose key is `transport`.
    pub async fn check(
        &self,
        transport: TransportKey,
        hello: &Hello,
    ) -> Result<Presented, Refusal> {
        if hello.version != PROTOCOL {
            return Err(Refusal::VersionUnsupported);
        }
        let right = self
            .check_right(transport, hello.agent, &hello.credential, &hello.proof)
            .await?;
        Ok(Presented {
            agent: hello.agent,
            transport,
            right,
        })
    }

    /// Checks a new credential of an agent that is in already.
    pub async fn check_renewal(
        &self,
        transport: TransportKey,
        agent: AgentId,
        renew: &Renew,
    ) -> Result<Right, Refusal> {
        self.check_right(transport, agent, &renew.credential, &renew.proof)
            .await
    }

    /// Checks the bearer of a SLIM stream.
    pub async fn check_slim(&self, jwt: &str) -> Result<SlimRight, Refusal> {
        let claims = self.verify(jwt).await?;
        let patterns = match &claims.grant {
            Grant::Slim { relay, patterns } if *relay == self.0.relay => patterns,
            Grant::Agent { .. } => return Err(Refusal::ScopeMissing),
            Grant::Slim { .. } | Grant::Account => return Err(Refusal::TokenForAnotherRelay),
        };
        let patterns: Result<_, _> = patterns.texts().map(Pattern::parse).collect();
        Ok(SlimRight::Account {
            payer: payer(&claims),
            patterns: patterns.map_err(|_| Refusal::TokenInvalid)?,
            expires: claims.expires,
        })
    }

    /// Fetches the keys of all issuers that have a URL. Call it from time to time, so that a
    /// retired key stops counting.
    pub async fn refresh(&self) {
        let now = self.0.clock.now();
        for source in &self.0.sources {
            source.fetch(now).await;
        }
    }

    /// As if all issuers had said just now what they have revoked.
    #[cfg(test)]
    pub(crate) fn hear_everybody(&self) {
        let now = self.0.clock.now();
        for source in &self.0.sources {
            source.hear(now);
        }
    }

    /// Whether each issuer's keys are at hand, and what it has revoked of late is known.
    pub fn is_ready(&self) -> bool {
        let now = self.0.clock.now();
        let mut sources = self.0.sources.iter();
        sources.all(|source| source.verifier(now).is_some())
    }

    async fn check_right(
        &self,
        transport: TransportKey,
        agent: AgentId,
        credential: &Credential,
        proof: &Signed,
    ) -> Result<Right, Refusal> {
        self.check_identity(transport, agent, &credential.hash(), proof)?;
        match credential {
            Credential::Token(token) => self.check_token(token, transport, agent).await,
            Credential::Invite(proof) => Ok(Right::Invite(proof.clone())),
            Credential::Member => Ok(Right::Member),
        }
    }

    fn check_identity(
        &self,
        transport: TransportKey,
        agent: AgentId,
        credential: &Digest,
        proof: &Signed,
    ) -> Result<(), Refusal> {
        let statement = statement::identity(&self.0.relay, &transport, credential);
        let signed = agent.signed(&statement, proof);
        signed.then_some(()).ok_or(Refusal::IdentityUnproven)
    }

    async fn check_token(
        &self,
        token: &str,
        transport: TransportKey,
        agent: AgentId,
    ) -> Result<Right, Refusal> {
        let claims = self.verify(token).await?;
        if let Grant::Slim { .. } = claims.grant {
            return Err(Refusal::ScopeMissing);
        }
        let granted = Grant::Agent {
            relay: self.0.relay,
            agent,
            transport_key: transport,
        };
        if claims.grant != granted {
            return Err(Refusal::TokenForAnotherKey);
        }
        Ok(Right::Account {
            payer: payer(&claims),
            expires: claims.expires,
        })
    }

    /// The issuer is the one whose key the token names. A key that nobody knows may be new: the
    /// issuers are asked, though not often.
    async fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        if let Verdict::Decided(decided) = self.verify_with_known(token) {
            return decided;
        }
        let now = self.0.clock.now();
        for source in &self.0.sources {
            source.fetch(now).await;
        }
        match self.verify_with_known(token) {
            Verdict::Decided(decided) => decided,
            Verdict::NobodyKnows(refusal) => Err(refusal),
        }
    }

    fn verify_with_known(&self, token: &str) -> Verdict {
        let now = self.0.clock.now();
        let mut refusal = Refusal::TokenInvalid;
        for source in &self.0.sources {
            match source.verifier(now).map(|it| it.verify(token, now)) {
                None => refusal = Refusal::IssuerUnreachable,
                Some(Err(Refused::UnknownKey)) => {}
                Some(decided) => return Verdict::Decided(decided.map_err(told)),
            }
        }
        Verdict::NobodyKnows(refusal)
    }
}

/// What can be said of a token with the keys at hand.
enum Verdict {
    Decided(Result<Claims, Refusal>),
    NobodyKnows(Refusal),
}

impl Source {
    fn new(
        relay: RelayKey,
        issuer: &Issuer,
        authorities: &[Certificate],
        now: Time,
    ) -> Result<Self, GateError> {
        let verifier = |keys| Verifier::new(Audience::Relay(relay), keys).map(Arc::new);
        let (known, remote) = match issuer {
            Issuer::Keys(keys) => (
                Known {
                    verifier: Some(verifier(keys)?),
                    fetched: Time(u64::MAX),
                    heard: Time(u64::MAX),
                },
                None,
            ),
            Issuer::Known { url, keys } => (
                Known {
                    verifier: Some(verifier(keys)?),
                    fetched: now,
                    heard: now,
                },
                Some(Remote::new(url, authorities)?),
            ),
            Issuer::Url(base) => (Known::default(), Some(Remote::new(base, authorities)?)),
        };
        Ok(Self {
            relay,
            known: RwLock::new(known),
            remote,
        })
    }

    /// The verifier, unless its keys have not been confirmed for so long that no token of them
    /// can still be in time, or nobody knows what was revoked of late.
    fn verifier(&self, now: Time) -> Option<Arc<Verifier>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let current =
            now.since(known.fetched) < KEYS_MS_MAX && now.since(known.heard) < SILENCE_MS_MAX;
        known.verifier.clone().filter(|_| current)
    }

    /// Asks the issuer for its keys, unless it was asked just now.
    async fn fetch(&self, now: Time) {
        let Some(remote) = &self.remote else {
            return;
        };
        let mut tried = remote.tried.lock().await;
        if tried.is_some_and(|tried| now.since(tried) < FETCH_MS_MIN) {
            return;
        }
        *tried = Some(now);
        let Some(verifier) = remote
            .keys()
            .await
            .and_then(|keys| Verifier::new(Audience::Relay(self.relay), &keys).ok())
        else {
            warn!("a token issuer's keys could not be fetched");
            return;
        };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.verifier = Some(Arc::new(verifier));
        known.fetched = now;
    }

    fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    /// All that the issuer had revoked by then has been passed on.
    fn hear(&self, now: Time) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.heard = now;
    }
}

impl Remote {
    fn new(base: &str, authorities: &[Certificate]) -> Result<Self, GateError> {
        // A binary that has chosen a provider keeps it.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        let builder = if base.starts_with("https:") {
            builder.tls_certs_merge(authorities.iter().cloned())
        } else {
            // Works on machines that have no certificates at all.
            builder.tls_certs_only([])
        };
        let client = builder.build().map_err(|_| GateError::Client)?;
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            client,
            tried: Mutex::new(None),
        })
    }

    async fn keys(&self) -> Option<PublicKeys> {
        let asking = self.client.get(format!("{}{JWKS_PATH}", self.base));
        let answer = asking.timeout(FETCH_TIMEOUT).send().await.ok()?;
        PublicKeys::from_json(&body(answer, JWKS_BYTES_MAX).await?).ok()
    }
}

/// The body of an answer that succeeded, up to a length.
async fn body(mut answer: reqwest::Response, bytes_max: usize) -> Option<Vec<u8>> {
    if !answer.status().is_success() {
        return None;
    }
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.ok()? {
        if body.len() + piece.len() > bytes_max {
            return None;
        }
        body.extend_from_slice(&piece);
    }
    Some(body)
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

fn authorities(file: &Path) -> Result<Vec<Certificate>, GateError> {
    let pem = fs::read(file).map_err(|_| GateError::Authorities)?;
    Certificate::from_pem_bundle(&pem)
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or(GateError::Authorities)
}

fn payer(claims: &Claims) -> Payer {
    Payer {
        account: claims.account.to_string(),
        key: claims.key.clone(),
        issued: claims.issued,
    }
}

/// What the peer is told. Damaged, forged and foreign tokens look alike: the way out is the same.
fn told(refused: Refused) -> Refusal {
    if refused == Refused::Expired {
        Refusal::TokenExpired
    } else if refused == Refused::Audience {
        Refusal::TokenForAnotherRelay
    } else {
        Refusal::TokenInvalid
    }
}

/// Where an API server publishes its keys.
const JWKS_PATH: &str = "/.well-known/jwks.json";
/// An issuer is asked at most so often, whatever tokens come.
const FETCH_MS_MIN: u64 = 10_000;
/// Keys that were not confirmed for so long count no more: a token lives an hour at most.
const KEYS_MS_MAX: u64 = 3_600_000;
/// An issuer that has said nothing of what it revoked for so long may have revoked anything.
const SILENCE_MS_MAX: u64 = 60_000;
/// Less than a connection may take to say Hello, so that it is told why it must wait.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
const JWKS_BYTES_MAX: usize = 65_536;

pub(crate) mod questions;
pub(crate) mod reports;
pub(crate) mod revocations;
#[cfg(test)]
mod tests;
