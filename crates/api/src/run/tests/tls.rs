//! The door with a certificate, and the address for operators.

use std::{path::Path, sync::Arc};

use rcgen::{CertifiedKey, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;

fn pair() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

fn write(dir: &Path, pair: &CertifiedKey<KeyPair>) {
    std::fs::write(dir.join("cert.pem"), pair.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
}

fn with_tls(config: &mut Config, dir: &Path) {
    config.tls_cert = Some(dir.join("cert.pem"));
    config.tls_key = Some(dir.join("key.pem"));
}

/// A client that trusts this certificate and no other.
async fn trusting(
    addr: SocketAddr,
    pair: &CertifiedKey<KeyPair>,
    version: &'static SupportedProtocolVersion,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let pem = pair.cert.pem();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(addr).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

async fn livez(mut stream: TlsStream<TcpStream>) -> String {
    stream.write_all(LIVEZ).await.unwrap();
    let mut answer = Vec::new();
    // The server closes without a goodbye of TLS when it is told to close.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn with_a_certificate_only_tls_one_three_gets_in() {
    let files = tempfile::tempdir().unwrap();
    let own = pair();
    write(files.path(), &own);
    let server = Running::start(|config| with_tls(config, files.path())).await;

    let answer = livez(trusting(server.addr, &own, &TLS13).await.unwrap()).await;
    assert!(answer.ends_with("alive\n"), "{answer}");
    assert!(
        answer.contains("strict-transport-security: max-age="),
        "{answer}"
    );
    assert!(trusting(server.addr, &own, &TLS12).await.is_err());
    assert!(trusting(server.addr, &pair(), &TLS13).await.is_err());
    let plain = server.connect().await;
    let mut plain = plain;
    plain.write_all(LIVEZ).await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_cut_off() {
    let files = tempfile::tempdir().unwrap();
    write(files.path(), &pair());
    let server = Running::start(|config| {
        with_tls(config, files.path());
        config.head_ms_max = 50;
    })
    .await;

    assert_eq!(server.talk(b"\x16\x03\x01").await, "");
}

#[tokio::test]
async fn a_new_pair_is_taken_and_a_bad_one_changes_nothing() {
    let files = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    let dir = files.path();
    let (old, new) = (pair(), pair());
    write(dir, &old);
    let mut config = config(data.path());
    with_tls(&mut config, dir);
    let server = Server::bind_with(config, clock()).await.unwrap();
    let addr = server.addr();
    let Doorway::Tls(kept) = server.doorway.clone() else {
        panic!("it has a certificate");
    };
    let stop = CancellationToken::new();
    let served = tokio::spawn(server.serve(stop.clone()));
    let greet = async |pair| trusting(addr, pair, &TLS13).await;
    let open = greet(&old).await.unwrap();

    // The first of the two steps of a renewal.
    std::fs::write(dir.join("cert.pem"), new.cert.pem()).unwrap();
    kept.look_again();
    assert!(greet(&old).await.is_ok());
    write(dir, &new);
    kept.look_again();
    assert!(greet(&new).await.is_ok());
    assert!(greet(&old).await.is_err());
    std::fs::write(dir.join("key.pem"), "no key").unwrap();
    kept.look_again();
    assert!(greet(&new).await.is_ok());
    assert!(
        livez(open).await.ends_with("alive\n"),
        "it has stayed connected"
    );

    stop.cancel();
    served.await.unwrap();
}

#[tokio::test]
async fn a_pair_that_is_of_no_use_does_not_start() {
    let files = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    let start = async || {
        let mut config = config(data.path());
        with_tls(&mut config, files.path());
        let refused = Server::bind_with(config, clock()).await.unwrap_err();
        assert!(matches!(refused, Error::Certificate(_)), "{refused:?}");
        refused.to_string()
    };

    assert!(start().await.starts_with("tls_cert cannot be read"));
    write(files.path(), &pair());
    std::fs::write(
        files.path().join("key.pem"),
        pair().signing_key.serialize_pem(),
    )
    .unwrap();
    assert!(start().await.contains("do not belong together"));
}

#[tokio::test]
async fn the_admin_address_says_that_the_server_drains() {
    let data = tempfile::tempdir().unwrap();
    let mut config = config(data.path());
    config.admin_addr = Some("127.0.0.1:0".parse().unwrap());
    let server = Server::bind_with(config, clock()).await.unwrap();
    let (addr, admin) = (server.addr(), server.admin_addr().unwrap());
    let stop = CancellationToken::new();
    let served = tokio::spawn(server.serve(stop.clone()));
    let ready = async || {
        let mut stream = TcpStream::connect(admin).await.unwrap();
        let asking = b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(asking).await.unwrap();
        until_closed(&mut stream).await
    };
    assert!(ready().await.starts_with("HTTP/1.1 200"));

    // A request that has begun holds the server.
    let mut begun = TcpStream::connect(addr).await.unwrap();
    let half = b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{";
    begun.write_all(half).await.unwrap();
    let mut answers = TcpStream::connect(addr).await.unwrap();
    answers.write_all(LIVEZ).await.unwrap();
    until_closed(&mut answers).await;
    stop.cancel();
    // It has stopped accepting when a connection is refused.
    while TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }

    let drains = ready().await;
    assert!(drains.starts_with("HTTP/1.1 503"), "{drains}");
    assert!(drains.contains("\"draining\":true"), "{drains}");
    begun.write_all(b"}").await.unwrap();
    assert!(until_closed(&mut begun).await.starts_with("HTTP/1.1 4"));
    served.await.unwrap();
}
