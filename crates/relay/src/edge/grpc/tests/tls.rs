//! The door with a certificate: on, off, changed while it is open.

use std::path::Path;

use rcgen::{CertifiedKey, KeyPair};
use tonic::transport::{Certificate, ClientTlsConfig};

use super::*;
use crate::run::RelayError;

fn pair() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

fn write(dir: &Path, pair: &CertifiedKey<KeyPair>) {
    std::fs::write(dir.join("cert.pem"), pair.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
}

fn with_tls(config: &mut RelayConfig, dir: &Path) {
    config.grpc_tls_cert = Some(dir.join("cert.pem"));
    config.grpc_tls_key = Some(dir.join("key.pem"));
}

/// A client that trusts this certificate and no other.
async fn trusting(
    addr: SocketAddr,
    pair: &CertifiedKey<KeyPair>,
) -> Result<Channel, tonic::transport::Error> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(pair.cert.pem()))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{addr}")).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await
}

#[tokio::test]
async fn with_a_certificate_only_tls_gets_in() {
    let certificates = tempfile::tempdir().unwrap();
    let own = pair();
    write(certificates.path(), &own);
    let house = House::with(|config| with_tls(config, certificates.path())).await;

    let channel = trusting(house.addr(), &own).await.unwrap();
    let mut alice = Client::dial(channel, Generation::Two, "org/ns/alice").await;
    assert_eq!(alice.subscribe("org/ns/other", 2).await, Ok(()));

    assert!(trusting(house.addr(), &pair()).await.is_err());
    let plain = format!("http://{}", house.addr());
    let plain = Endpoint::from_shared(plain).unwrap().connect_lazy();
    assert!(Stream::open_if_it_can(plain).await.is_err());
    house.relay.stop().await;
}

#[tokio::test]
async fn a_new_pair_is_taken_and_a_bad_one_changes_nothing() {
    let certificates = tempfile::tempdir().unwrap();
    let dir = certificates.path();
    let (old, new) = (pair(), pair());
    write(dir, &old);
    let bare = Bare::open(
        |config| with_tls(config, dir),
        |config| config.issuers.clone(),
        // By hand, so that it is known what has been seen.
        |times| times.certificates = Duration::from_hours(1),
    )
    .await;
    let addr = bare.edge.addr();
    let kept = bare.edge.edge.certificates.clone().unwrap();
    let channel = trusting(addr, &old).await.unwrap();
    let mut alice = Client::dial(channel, Generation::Two, "org/ns/alice").await;

    // The first of the two steps of a renewal.
    std::fs::write(dir.join("cert.pem"), new.cert.pem()).unwrap();
    kept.look_again();
    assert!(trusting(addr, &old).await.is_ok());
    assert!(trusting(addr, &new).await.is_err());

    write(dir, &new);
    kept.look_again();
    assert!(trusting(addr, &new).await.is_ok());
    assert!(trusting(addr, &old).await.is_err());

    std::fs::remove_file(dir.join("key.pem")).unwrap();
    kept.look_again();
    assert!(trusting(addr, &new).await.is_ok());
    assert_eq!(
        alice.subscribe("org/ns/other", 2).await,
        Ok(()),
        "it has stayed connected"
    );
    bare.stop().await;
}

#[tokio::test]
async fn a_changed_pair_is_noticed() {
    let certificates = tempfile::tempdir().unwrap();
    let dir = certificates.path();
    let new = pair();
    write(dir, &pair());
    let bare = Bare::open(
        |config| with_tls(config, dir),
        |config| config.issuers.clone(),
        |times| times.certificates = Duration::from_millis(20),
    )
    .await;

    write(dir, &new);

    let noticed = async {
        while trusting(bare.edge.addr(), &new).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, noticed).await.unwrap();
    bare.stop().await;
}

#[tokio::test]
async fn a_pair_that_is_of_no_use_does_not_start() {
    let certificates = tempfile::tempdir().unwrap();
    let dir = certificates.path();
    let start = async || {
        let (_data, mut config) = settings();
        with_tls(&mut config, dir);
        match Relay::start(config).await {
            Err(RelayError::Grpc(GrpcError::Tls(bad))) => bad,
            other => panic!("{other:?}"),
        }
    };

    assert_eq!(
        start().await,
        BadPair::Unreadable("grpc_tls_cert", io::ErrorKind::NotFound)
    );
    write(dir, &pair());
    std::fs::write(dir.join("key.pem"), "no key").unwrap();
    assert_eq!(start().await, BadPair::Empty("grpc_tls_key", "private key"));
    std::fs::write(dir.join("key.pem"), pair().signing_key.serialize_pem()).unwrap();
    assert_eq!(
        start().await,
        BadPair::Mismatched("grpc_tls_cert", "grpc_tls_key")
    );
}
