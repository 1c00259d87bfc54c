//! What `OpenMLS` is given to work with: our storage, arithmetic, and chance that comes
//! from the operating system and from nowhere else.
//!
//! A generator kept in the process is copied by `fork()`: parent and child then draw the
//! same keys, and neither can tell. The library's usual provider holds such a generator.
//! It would serve two callers, and both are cut off here: [`Rand`] asks the system for
//! every byte, and [`Crypto`] makes signature keys with a generator seeded for that one
//! key. HPKE needs nothing from us: `hpke-rs` builds a fresh generator, seeded by the
//! system, for each operation. Nothing else in an [`OpenMlsCrypto`] draws at all.
//!
//! What a fork does copy is the groups themselves. Two processes that go on with one
//! group's ratchet reuse its keys, whatever the generator; against that stands the lock
//! of the store, not this file.

use std::fmt;

use openmls::prelude::tls_codec::SecretVLBytes;
use openmls_rust_crypto::RustCrypto;
use openmls_traits::{
    OpenMlsProvider,
    crypto::OpenMlsCrypto,
    random::OpenMlsRand,
    types::{
        AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeCiphertext, HpkeConfig,
        HpkeKeyPair, KemOutput, SignatureScheme,
    },
};
use rusqlite::Connection;

use super::storage::{Storage, StorageError};

/// Everything `OpenMLS` needs for the steps of one transaction. Cheap to make.
#[derive(Debug)]
pub struct Provider<'tx> {
    crypto: Crypto,
    rand: Rand,
    storage: Storage<'tx>,
}

impl<'tx> Provider<'tx> {
    /// A provider over the caller's open transaction. Its writes wait in the storage's
    /// overlay until [`Storage::flush`].
    pub fn new(connection: &'tx Connection) -> Self {
        Self::over(Storage::new(connection))
    }

    /// The same provider with groups in the shadow namespace: see [`Storage::shadow`].
    #[must_use]
    pub fn shadow(&self) -> Self {
        Self::over(self.storage.shadow())
    }

    /// Writes what the steps have changed; nothing of theirs lasts without it.
    pub fn flush(&self) -> Result<(), StorageError> {
        self.storage.flush().map(|_rows| ())
    }

    fn over(storage: Storage<'tx>) -> Self {
        Self {
            crypto: Crypto::default(),
            rand: Rand,
            storage,
        }
    }
}

impl<'tx> OpenMlsProvider for Provider<'tx> {
    type CryptoProvider = Crypto;
    type RandProvider = Rand;
    type StorageProvider = Storage<'tx>;

    fn storage(&self) -> &Self::StorageProvider {
        &self.storage
    }

    fn crypto(&self) -> &Self::CryptoProvider {
        &self.crypto
    }

    fn rand(&self) -> &Self::RandProvider {
        &self.rand
    }
}

/// The operating system's generator, asked anew for every value.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rand;

impl OpenMlsRand for Rand {
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

/// `RustCrypto`'s arithmetic without its generator.
#[derive(Default)]
pub struct Crypto {
    /// The generator inside is seeded once and never drawn from: see [`Crypto`]'s
    /// `signature_key_gen`. It must not be handed out as an `OpenMlsRand`.
    arithmetic: RustCrypto,
}

impl fmt::Debug for Crypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crypto").finish_non_exhaustive()
    }
}

impl OpenMlsCrypto for Crypto {
    fn signature_key_gen(&self, alg: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        // The one operation that draws from the generator of the instance: it gets an
        // instance of its own, whose seed is the system's and as old as this line.
        RustCrypto::default().signature_key_gen(alg)
    }

    fn supports(&self, ciphersuite: Ciphersuite) -> Result<(), CryptoError> {
        self.arithmetic.supports(ciphersuite)
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        self.arithmetic.supported_ciphersuites()
    }

    fn hkdf_extract(
        &self,
        hash_type: HashType,
        salt: &[u8],
        ikm: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        self.arithmetic.hkdf_extract(hash_type, salt, ikm)
    }

    fn hmac(
        &self,
        hash_type: HashType,
        key: &[u8],
        message: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        self.arithmetic.hmac(hash_type, key, message)
    }

    fn hkdf_expand(
        &self,
        hash_type: HashType,
        prk: &[u8],
        info: &[u8],
        okm_len: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        self.arithmetic.hkdf_expand(hash_type, prk, info, okm_len)
    }

    fn hash(&self, hash_type: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.arithmetic.hash(hash_type, data)
    }

    fn aead_encrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.arithmetic.aead_encrypt(alg, key, data, nonce, aad)
    }

    fn aead_decrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        ct_tag: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.arithmetic.aead_decrypt(alg, key, ct_tag, nonce, aad)
    }

    fn verify_signature(
        &self,
        alg: SignatureScheme,
        data: &[u8],
        pk: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        self.arithmetic.verify_signature(alg, data, pk, signature)
    }

    fn sign(&self, alg: SignatureScheme, data: &[u8], key: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.arithmetic.sign(alg, data, key)
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        aad: &[u8],
        ptxt: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        self.arithmetic.hpke_seal(config, pk_r, info, aad, ptxt)
    }

    fn hpke_open(
        &self,
        config: HpkeConfig,
        input: &HpkeCiphertext,
        sk_r: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.arithmetic.hpke_open(config, input, sk_r, info, aad)
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        self.arithmetic.hpke_setup_sender_and_export(
            config,
            pk_r,
            info,
            exporter_context,
            exporter_length,
        )
    }

    fn hpke_setup_receiver_and_export(
        &self,
        config: HpkeConfig,
        enc: &[u8],
        sk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        self.arithmetic.hpke_setup_receiver_and_export(
            config,
            enc,
            sk_r,
            info,
            exporter_context,
            exporter_length,
        )
    }

    fn derive_hpke_keypair(
        &self,
        config: HpkeConfig,
        ikm: &[u8],
    ) -> Result<HpkeKeyPair, CryptoError> {
        self.arithmetic.derive_hpke_keypair(config, ikm)
    }
}
