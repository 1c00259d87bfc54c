//! The TLS inside: both ends show an Ed25519 key and nothing else, as over QUIC.
//!
//! No certificate, no name, no resumption: there is nothing to look up and nothing that could be
//! replayed.

use std::{fmt, sync::Arc};

use ed25519_dalek::{Signer as _, SigningKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, ServerConfig, SignatureAlgorithm, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime, alg_id},
    server::{
        AlwaysResolvesServerRawPublicKeys,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{self, CertifiedKey, public_key_to_spki},
    version::TLS13,
};
use skytale_wire::{
    frame::ALPN,
    id::{RelayKey, TransportKey},
};

/// An end's own key. The dalek key inside is wiped when it goes.
pub struct OwnKey(Arc<SigningKey>);

impl OwnKey {
    /// From the bytes that the same key has for QUIC.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Arc::new(SigningKey::from_bytes(seed)))
    }

    /// What the other end sees of it.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    fn certified(&self) -> Arc<CertifiedKey> {
        let shown = CertificateDer::from(spki(&self.public()).to_vec());
        let key = Arc::new(Signing(Arc::clone(&self.0)));
        Arc::new(CertifiedKey::new(vec![shown], key))
    }
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnKey").finish_non_exhaustive()
    }
}

/// An agent's end: it talks to the relay of this key and to nobody else.
pub(crate) fn client(relay: RelayKey, own: &OwnKey) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned(relay)))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
            own.certified(),
        )));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config
}

/// A relay's end: anybody who proves a key may come in, and the Hello decides.
pub(crate) fn server(own: &OwnKey) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has suites of TLS 1.3")
        .with_client_cert_verifier(Arc::new(AnyKey))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(
            own.certified(),
        )));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Tickets are for resuming, and would be pieces that no cell has asked for.
    config.send_tls13_tickets = 0;
    config
}

/// The key that the other end has proved.
pub(crate) fn proved(shown: Option<&[CertificateDer<'_>]>) -> Option<TransportKey> {
    let [shown] = shown? else { return None };
    key_in(shown).map(TransportKey)
}

/// Accepts the one key, whoever shows it: that it is the shower's own is proved by its signature.
#[derive(Debug)]
struct Pinned(RelayKey);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if more.is_empty() && key_in(shown) == Some(self.0.0) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _shown: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct AnyKey;

impl ClientCertVerifier for AnyKey {
    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if more.is_empty() && key_in(shown).is_some() {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(CertificateError::BadEncoding.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _shown: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// What rustls signs with.
struct Signing(Arc<SigningKey>);

impl sign::SigningKey for Signing {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn sign::Signer>> {
        let known = offered.contains(&SignatureScheme::ED25519);
        known.then(|| Box::new(Self(Arc::clone(&self.0))) as Box<dyn sign::Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(spki(&self.0.verifying_key().to_bytes()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl sign::Signer for Signing {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign(message).to_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signing").finish_non_exhaustive()
    }
}

fn verify(
    message: &[u8],
    shown: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let shown = SubjectPublicKeyInfoDer::from(shown.as_ref());
    let algorithms = &provider().signature_verification_algorithms;
    verify_tls13_signature_with_raw_key(message, &shown, signed, algorithms)
}

/// The Ed25519 key in what the other end shows: the constant beginning and 32 bytes.
fn key_in(shown: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let key: [u8; 32] = *shown.last_chunk()?;
    (shown.as_ref() == spki(&key).as_ref()).then_some(key)
}

fn spki(key: &[u8; 32]) -> SubjectPublicKeyInfoDer<'static> {
    public_key_to_spki(&alg_id::ED25519, key)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
