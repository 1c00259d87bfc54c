//! A client made by hand, frame by frame and, where it misbehaves, byte by byte: the SDK would not
//! let it.

use std::{fmt, net::SocketAddr};

use ed25519_dalek::{Signer as _, SigningKey};
use iroh::{
    Endpoint, EndpointAddr, EndpointId,
    endpoint::{Connection, ConnectionError, RecvStream, SendStream, presets},
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use skytale_sdk::{Account, RelayAddr};
use skytale_shape::{Incoming, Outgoing, bucket::MAX_CELL};
use skytale_wire::{
    frame::{self, ALPN, Credential, Hello, PROTOCOL, ToAgent, ToRelay},
    id::{AgentId, Signed, TransportKey},
    refusal::Refusal,
    statement,
};
use tokio::time::timeout;

use super::PATIENCE;

/// A QUIC connection to a relay, and its first stream.
pub struct Stranger {
    relay: RelayAddr,
    identity: SigningKey,
    endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    outgoing: Outgoing,
    incoming: Incoming,
}

impl Stranger {
    /// Connects and opens a stream. Nothing is said yet.
    pub async fn connect(relay: &RelayAddr) -> Self {
        let endpoint = Endpoint::builder(presets::Minimal)
            .clear_ip_transports()
            .bind_addr("127.0.0.1:0")
            .unwrap()
            .bind()
            .await
            .unwrap();
        let address: SocketAddr = relay.address.parse().unwrap();
        let id = EndpointId::from_bytes(&relay.key.0).unwrap();
        let to = EndpointAddr::new(id).with_ip_addr(address);
        let connection = timeout(PATIENCE, endpoint.connect(to, ALPN)).await;
        let connection = connection.expect("the relay answers").unwrap();
        let (send, recv) = connection.open_bi().await.unwrap();
        Self {
            relay: relay.clone(),
            identity: SigningKey::from_bytes(&[4; 32]),
            endpoint,
            connection,
            send,
            recv,
            outgoing: Outgoing::new(ChaCha8Rng::seed_from_u64(1)),
            incoming: Incoming::new(MAX_CELL),
        }
    }

    /// Says Hello with a token that this account buys, and is let in.
    pub async fn get_ready(&mut self, account: &Account) {
        let agent = AgentId(self.identity.verifying_key().to_bytes());
        let transport = TransportKey(*self.endpoint.id().as_bytes());
        let bought = account.token(agent, transport, self.relay.key).await;
        let credential = Credential::Token(bought.unwrap().token.expose().to_owned());
        let statement = statement::identity(&self.relay.key, &transport, &credential.hash());
        let hello = ToRelay::Hello(Hello {
            version: PROTOCOL,
            agent,
            proof: Signed(self.identity.sign(&statement).to_bytes()),
            credential,
            traffic: None,
        });
        self.say(&hello).await;
        let ready = self.hear().await;
        assert!(matches!(ready, ToAgent::Ready(_)), "{ready:?}");
    }

    /// Sends a frame as an SDK would.
    pub async fn say(&mut self, frame: &ToRelay) {
        self.outgoing.push(&frame::encode(frame)).unwrap();
        let mut cells = Vec::new();
        self.outgoing.drain_into(&mut cells);
        self.send.write_all(&cells).await.unwrap();
    }

    /// Sends any bytes. The relay may close before it has read all of them.
    pub async fn throw(&mut self, bytes: &[u8]) {
        let _ = self.send.write_all(bytes).await;
    }

    /// Sends nothing more.
    pub fn hang_up(&mut self) {
        let _ = self.send.finish();
    }

    /// The next frame from the relay.
    pub async fn hear(&mut self) -> ToAgent {
        loop {
            if let Some(bytes) = self.incoming.next_frame().unwrap() {
                return frame::decode(bytes, usize::MAX).unwrap();
            }
            let piece = timeout(PATIENCE, self.recv.read_chunk(65_536)).await;
            let piece = piece.expect("a frame comes in time").unwrap().unwrap();
            self.incoming.receive(&piece).unwrap();
        }
    }

    /// Waits for the relay to close the connection, and gives the refusal that it names by number
    /// and by word; `None` when it closes without one.
    pub async fn closed(&self) -> Option<Refusal> {
        let closed = timeout(PATIENCE, self.connection.closed()).await;
        let closed = closed.expect("the relay closes");
        let ConnectionError::ApplicationClosed(closed) = closed else {
            panic!("closed without a word: {closed}")
        };
        let number = closed.error_code.into_inner();
        if number == 0 {
            return None;
        }
        let refusal = Refusal::from(u16::try_from(number).unwrap());
        assert_eq!(closed.reason, refusal.code().as_bytes());
        Some(refusal)
    }
}

impl fmt::Debug for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stranger").finish_non_exhaustive()
    }
}
