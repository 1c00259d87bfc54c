//! Both ends in one process, with the messages of the stream in between to look at.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use rustls::pki_types::ServerName;
use skytale_wire::id::{RelayKey, TransportKey};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, TlsStream};

use crate::{
    Host, Inside, Pipe,
    keys::{OwnKey, client},
};

const RELAY: [u8; 32] = [1; 32];
const AGENT: [u8; 32] = [2; 32];

/// What each end has of a stream of messages.
struct Ends {
    agent: Pipe,
    relay: (mpsc::Receiver<Bytes>, mpsc::Sender<Bytes>),
}

fn ends() -> Ends {
    let (to_relay, from_agent) = mpsc::channel(100);
    let (to_agent, from_relay) = mpsc::channel(100);
    Ends {
        agent: Pipe::new(messages(from_relay), to_relay, ()),
        relay: (from_agent, to_agent),
    }
}

fn messages(
    incoming: mpsc::Receiver<Bytes>,
) -> impl futures_util::Stream<Item = Result<Bytes, tonic::Status>> + Send {
    stream::unfold(incoming, |mut incoming| async move {
        incoming.recv().await.map(|piece| (Ok(piece), incoming))
    })
}

async fn dial(pipe: Pipe, relay: RelayKey) -> io::Result<Inside> {
    let own = OwnKey::from_seed(&AGENT);
    let name = ServerName::try_from("relay").unwrap();
    let connector = TlsConnector::from(Arc::new(client(relay, &own)));
    connector.connect(name, pipe).await.map(TlsStream::from)
}

fn accept(
    (incoming, outgoing): (mpsc::Receiver<Bytes>, mpsc::Sender<Bytes>),
) -> JoinHandle<io::Result<(TransportKey, Inside)>> {
    let host = Host::new(&OwnKey::from_seed(&RELAY));
    tokio::spawn(async move { host.accept(messages(incoming), outgoing).await })
}

fn relay_key() -> RelayKey {
    RelayKey(OwnKey::from_seed(&RELAY).public())
}

#[tokio::test]
async fn both_ends_prove_their_keys_and_are_understood() {
    let ends = ends();
    let accepting = accept(ends.relay);

    let mut agent = dial(ends.agent, relay_key()).await.unwrap();
    let (proved, mut relay) = accepting.await.unwrap().unwrap();

    assert_eq!(proved.0, OwnKey::from_seed(&AGENT).public());
    agent.write_all(b"hello").await.unwrap();
    agent.flush().await.unwrap();
    let mut heard = [0; 5];
    relay.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    relay.write_all(b"there").await.unwrap();
    relay.shutdown().await.unwrap();
    let mut rest = Vec::new();
    agent.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"there");
}

#[tokio::test]
async fn another_key_than_the_pinned_one_is_not_talked_to() {
    let ends = ends();
    let accepting = accept(ends.relay);

    let dialled = dial(ends.agent, RelayKey([9; 32])).await;

    assert_eq!(dialled.err().unwrap().kind(), io::ErrorKind::InvalidData);
    assert!(accepting.await.unwrap().is_err());
}

#[tokio::test]
async fn who_proves_no_key_is_not_let_in() {
    let ends = ends();
    let accepting = accept(ends.relay);
    let own = OwnKey::from_seed(&AGENT);
    let mut keyless = client(relay_key(), &own);
    keyless.client_auth_cert_resolver = Arc::new(Keyless);
    let name = ServerName::try_from("relay").unwrap();
    let dialled = TlsConnector::from(Arc::new(keyless)).connect(name, ends.agent);

    let (dialled, accepted) = tokio::join!(dialled, accepting);

    // With TLS 1.3 the agent may believe that it is in, until it reads.
    if let Ok(mut agent) = dialled {
        assert!(agent.read_u8().await.is_err());
    }
    assert!(accepted.unwrap().is_err());
}

/// What one length goes in with, it comes out with: nothing is merged, cut, or added.
#[tokio::test]
async fn one_write_is_one_message_of_one_length() {
    let (to_relay, mut seen) = mpsc::channel(100);
    let (passed, from_agent) = mpsc::channel(100);
    let (to_agent, from_relay) = mpsc::channel(100);
    let lengths = tokio::spawn(async move {
        let mut lengths = Vec::new();
        while let Some(piece) = seen.recv().await {
            let piece: Bytes = piece;
            lengths.push(piece.len());
            if passed.send(piece).await.is_err() {
                break;
            }
        }
        lengths
    });
    let accepting = accept((from_agent, to_agent));
    let pipe = Pipe::new(messages(from_relay), to_relay, ());
    let mut agent = dial(pipe, relay_key()).await.unwrap();
    let (_, mut relay) = accepting.await.unwrap().unwrap();

    let mut cell = vec![0; 1_056];
    for _ in 0..20 {
        agent.write_all(&cell).await.unwrap();
        agent.flush().await.unwrap();
        relay.read_exact(&mut cell).await.unwrap();
    }
    drop((agent, relay));

    let lengths = lengths.await.unwrap();
    let cells = lengths.iter().filter(|len| **len == 1_056 + 22).count();
    assert_eq!(cells, 20, "{lengths:?}");
    // A handshake has a few messages before.
    assert!(lengths.len() <= 20 + 5, "{lengths:?}");
}

/// Knows raw keys, and shows none.
#[derive(Debug)]
struct Keyless;

impl rustls::client::ResolvesClientCert for Keyless {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        false
    }
}
