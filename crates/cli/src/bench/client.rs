//! Clients without a mind: they speak frames over QUIC with bodies made beforehand, so that what
//! is measured is the relay. And the bare echo, which is QUIC and nothing else.

use std::{net::SocketAddr, sync::Arc};

use ed25519_dalek::{Signer as _, SigningKey};
use iroh::{
    Endpoint, EndpointAddr, EndpointId,
    endpoint::{
        AckFrequencyConfig, Connection, QuicTransportConfig, RecvStream, SendStream, VarInt,
        presets,
    },
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use serde::{Deserialize, Serialize};
use skytale_relay::driver::Clock;
use skytale_sdk::RelayAddr;
use skytale_shape::{Bulk, Incoming, Outgoing, Shape, bucket::MAX_CELL};
use skytale_wire::{
    frame::{
        ALPN, Credential, FRAME_BYTES_MAX, Hello, Line, PROTOCOL, ToAgent, ToRelay, Traffic,
        decode, encode,
    },
    id::{AgentId, RelayKey, Signed, Time, TransportKey},
    statement,
    token::{AccountId, Claims, Grant, LIFETIME_MS_MAX, Scope, Signer, TokenId},
};
use tokio::{
    sync::Semaphore,
    time::{Duration, Instant, sleep_until},
};

use crate::exit::Failure;

/// Signs the tokens of a bench's relay, with a key made for one run.
pub(super) struct Issuer {
    signer: Signer,
    clock: Clock,
}

impl Issuer {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self {
            signer: Signer::from_seed(&random()?)
                .map_err(|error| Failure::failed(error.to_string()))?,
            clock: Clock::system(),
        })
    }

    /// The public half, as a JWKS.
    pub(super) fn keys(&self) -> String {
        self.signer.public_keys().to_json()
    }

    /// A token for one agent's line.
    fn token(&self, relay: RelayKey, agent: AgentId, transport_key: TransportKey) -> String {
        let now = Time(self.clock.now().0 / 1000 * 1000);
        self.signer.sign(&Claims {
            account: AccountId([1; 16]),
            grant: Grant::Agent {
                relay,
                agent,
                transport_key,
            },
            scopes: [Scope::Relay].into(),
            key: None,
            id: TokenId([2; 16]),
            issued: now,
            expires: now.plus(LIFETIME_MS_MAX),
        })
    }
}

/// One connection to a relay that has been let in.
pub(super) struct Client {
    pub(super) agent: AgentId,
    reader: Reader,
    writer: Writer,
    open: Open,
}

/// What keeps a connection open.
pub(super) struct Open {
    connection: Connection,
    endpoint: Endpoint,
}

impl Open {
    pub(super) async fn close(self) {
        self.connection.close(VarInt::from_u32(0), b"");
        self.endpoint.close().await;
    }
}

pub(super) struct Reader {
    recv: RecvStream,
    incoming: Incoming,
}

pub(super) struct Writer {
    send: SendStream,
    outgoing: Outgoing,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects under a new identity with a token. The line is padded: what is measured is the
    /// relay, not a schedule.
    pub(super) async fn connect(relay: &RelayAddr, issuer: &Issuer) -> Result<Self, Failure> {
        let signed = async |agent, transport| Ok(issuer.token(relay.key, agent, transport));
        Self::connect_wishing(relay, signed, None).await
    }

    /// The same with a token that `buy` gets for this agent and the key of this connection.
    pub(super) async fn connect_bought(
        relay: &RelayAddr,
        buy: impl AsyncFnOnce(AgentId, TransportKey) -> Result<String, Failure>,
    ) -> Result<Self, Failure> {
        Self::connect_wishing(relay, buy, None).await
    }

    /// The same, with a line of this shape both ways: whatever is read and written after this has
    /// it.
    pub(super) async fn connect_shaped(
        relay: &RelayAddr,
        issuer: &Issuer,
        shape: &Shape,
    ) -> Result<Self, Failure> {
        let signed = async |agent, transport| Ok(issuer.token(relay.key, agent, transport));
        let mut client = Self::connect_wishing(relay, signed, Some(shape)).await?;
        client.reader.incoming.expect_shape(shape);
        Ok(client)
    }

    async fn connect_wishing(
        relay: &RelayAddr,
        token: impl AsyncFnOnce(AgentId, TransportKey) -> Result<String, Failure>,
        shape: Option<&Shape>,
    ) -> Result<Self, Failure> {
        let endpoint = endpoint(shape.is_some_and(|it| it.mode().is_slotted())).await?;
        let addr: SocketAddr = relay.address.parse().map_err(failed)?;
        let id = EndpointId::from_bytes(&relay.key.0).map_err(failed)?;
        let addr = EndpointAddr::new(id).with_ip_addr(addr);
        let connection = endpoint.connect(addr, ALPN).await.map_err(failed)?;
        let (send, recv) = connection.open_bi().await.map_err(failed)?;

        let identity = SigningKey::from_bytes(&random()?);
        let agent = AgentId(identity.verifying_key().to_bytes());
        let transport = TransportKey(*endpoint.id().as_bytes());
        let credential = Credential::Token(token(agent, transport).await?);
        let said = statement::identity(&relay.key, &transport, &credential.hash());
        let mut client = Self {
            agent,
            reader: Reader {
                recv,
                incoming: Incoming::new(MAX_CELL),
            },
            writer: Writer::new(send)?,
            open: Open {
                connection,
                endpoint,
            },
        };
        let hello = Hello {
            version: PROTOCOL,
            agent,
            proof: Signed(identity.sign(&said).to_bytes()),
            credential,
            traffic: shape.map(both_ways),
        };
        client.writer.say([&ToRelay::Hello(hello)]).await?;
        let answer = client.reader.next().await?;
        let wished = shape.map(both_ways);
        if let ToAgent::Ready(ready) = &answer
            && (wished.is_none() || ready.traffic == wished)
        {
            Ok(client)
        } else {
            Err(unexpected(&answer))
        }
    }

    /// Opens the second stream as an agent does, for what is read from the archive.
    pub(super) async fn open_second(&self) -> Result<Writer, Failure> {
        let (send, _) = self.open.connection.open_bi().await.map_err(failed)?;
        Writer::new(send)
    }

    pub(super) async fn close(self) {
        self.open.close().await;
    }

    /// Its two directions, for tasks of their own, and what keeps it open.
    pub(super) fn split(self) -> (Reader, Writer, Open) {
        (self.reader, self.writer, self.open)
    }

    /// Says something and reads on until its answer has come.
    pub(super) async fn ask(
        &mut self,
        frame: &ToRelay,
        answers: impl Fn(&ToAgent) -> bool,
    ) -> Result<(), Failure> {
        self.writer.say([frame]).await?;
        loop {
            let said = self.reader.next().await?;
            if answers(&said) {
                return Ok(());
            }
            if let ToAgent::Nack(_) | ToAgent::Closing(_) = said {
                return Err(unexpected(&said));
            }
        }
    }
}

impl Reader {
    async fn next(&mut self) -> Result<ToAgent, Failure> {
        loop {
            if let Some(bytes) = self.incoming.next_frame().map_err(failed)? {
                return decode(bytes, FRAME_BYTES_MAX).map_err(failed);
            }
            self.more().await?;
        }
    }

    /// Reads until the relay says goodbye or is gone.
    pub(super) async fn end(&mut self) {
        while let Ok(said) = self.next().await {
            if matches!(said, ToAgent::Closing(_)) {
                return;
            }
        }
    }

    /// Gives every frame that has come to `each`, still encoded: to count a hundred thousand a
    /// second, only their kinds are looked at.
    pub(super) async fn next_encoded(
        &mut self,
        mut each: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.more().await?;
        while let Some(bytes) = self.incoming.next_frame().map_err(failed)? {
            each(bytes)?;
        }
        Ok(())
    }

    /// How many cells of cover have come.
    pub(super) fn covers(&self) -> u64 {
        self.incoming.cover().received()
    }

    async fn more(&mut self) -> Result<(), Failure> {
        let piece = self.recv.read_chunk(READ_BYTES).await.map_err(failed)?;
        let piece = piece.ok_or_else(|| Failure::failed("the relay has ended the stream"))?;
        self.incoming.receive(&piece).map_err(failed)
    }
}

impl Writer {
    fn new(send: SendStream) -> Result<Self, Failure> {
        Ok(Self {
            send,
            outgoing: Outgoing::new(ChaCha8Rng::from_seed(random()?)),
            buffer: Vec::new(),
        })
    }

    /// Writes cells that were made elsewhere.
    pub(super) async fn cells(&mut self, cells: &[u8]) -> Result<(), Failure> {
        self.send.write_all(cells).await.map_err(failed)
    }

    /// Writes frames together, as an agent does.
    pub(super) async fn say(
        &mut self,
        frames: impl IntoIterator<Item = &ToRelay>,
    ) -> Result<(), Failure> {
        for frame in frames {
            self.outgoing.push(&encode(frame)).map_err(failed)?;
        }
        self.outgoing.drain_into(&mut self.buffer);
        self.send.write_all(&self.buffer).await.map_err(failed)?;
        self.buffer.clear();
        Ok(())
    }
}

/// Where an echo listens.
#[derive(Serialize, Deserialize)]
pub(super) struct EchoAddr {
    id: [u8; 32],
    addr: SocketAddr,
}

pub(super) async fn echo_endpoint() -> Result<(Endpoint, EchoAddr), Failure> {
    let endpoint = endpoint(false).await?;
    let addr = endpoint.bound_sockets().first().copied();
    let addr = EchoAddr {
        id: *endpoint.id().as_bytes(),
        addr: addr.ok_or_else(|| Failure::failed("the echo has no address"))?,
    };
    Ok((endpoint, addr))
}

/// Sends back what comes, on one stream of one connection.
pub(super) async fn echo(endpoint: &Endpoint) -> Result<(), Failure> {
    let knock = endpoint.accept().await;
    let knock = knock.ok_or_else(|| Failure::failed("the echo has no endpoint"))?;
    let connection = knock.await.map_err(failed)?;
    let (mut send, mut recv) = connection.accept_bi().await.map_err(failed)?;
    // The one who measures ends it in the middle of a cell.
    while let Ok(Some(piece)) = recv.read_chunk(READ_BYTES).await {
        if send.write_all(&piece).await.is_err() {
            break;
        }
    }
    endpoint.close().await;
    Ok(())
}

/// Cells a second that come back, with so many on their way at once.
pub(super) async fn echo_rate(
    to: &EchoAddr,
    seconds: u64,
    at_once: usize,
    bytes: usize,
) -> Result<f64, Failure> {
    let endpoint = endpoint(false).await?;
    let id = EndpointId::from_bytes(&to.id).map_err(failed)?;
    let addr = EndpointAddr::new(id).with_ip_addr(to.addr);
    let connection = endpoint.connect(addr, ECHO_ALPN).await.map_err(failed)?;
    let (mut send, mut recv) = connection.open_bi().await.map_err(failed)?;
    let room = Arc::new(Semaphore::new(at_once));
    let free = Arc::clone(&room);
    let writing = tokio::spawn(async move {
        let together = vec![0x5a; bytes * TOGETHER];
        loop {
            let count = take(&free, TOGETHER).await;
            let cells = together.get(..bytes * count).unwrap_or_default();
            if send.write_all(cells).await.is_err() {
                return;
            }
        }
    });
    let begun = Instant::now();
    let end = sleep_until(begun + Duration::from_secs(seconds));
    tokio::pin!(end);
    let mut back = 0;
    let mut cells = 0;
    loop {
        tokio::select! {
            () = &mut end => break,
            piece = recv.read_chunk(READ_BYTES) => {
                let piece = piece.map_err(failed)?;
                back += piece.ok_or_else(|| Failure::failed("the echo has ended"))?.len();
                let whole = back / bytes;
                room.add_permits(whole - cells);
                cells = whole;
            }
        }
    }
    let took = begun.elapsed();
    writing.abort();
    let open = Open {
        connection,
        endpoint,
    };
    open.close().await;
    let cells = u64::try_from(cells).map_err(failed)?;
    Ok(super::number(cells) / took.as_secs_f64())
}

/// Waits for room for one, and takes room for up to `most`.
pub(super) async fn take(room: &Semaphore, most: usize) -> usize {
    let Ok(first) = room.acquire().await else {
        return std::future::pending().await;
    };
    first.forget();
    let mut taken = 1;
    while taken < most
        && let Ok(next) = room.try_acquire()
    {
        next.forget();
        taken += 1;
    }
    taken
}

/// A client's endpoint with the relay's transport settings.
async fn endpoint(slotted: bool) -> Result<Endpoint, Failure> {
    // As the SDK does it.
    let mut at_once = AckFrequencyConfig::default();
    at_once.ack_eliciting_threshold(VarInt::from_u32(0));
    let transport = QuicTransportConfig::builder()
        .ack_frequency_config(slotted.then_some(at_once))
        .receive_window(VarInt::from_u32(4 * 1024 * 1024))
        .stream_receive_window(VarInt::from_u32(512 * 1024))
        .send_window(1024 * 1024)
        .allow_spin(false)
        .initial_mtu(1200)
        .mtu_discovery_config(None)
        .build();
    Endpoint::builder(presets::Minimal)
        .alpns(vec![ECHO_ALPN.to_vec()])
        .transport_config(transport)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .map_err(failed)?
        .bind()
        .await
        .map_err(failed)
}

pub(super) fn random() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

pub(super) fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}

/// A shape as a Hello wishes for it.
fn both_ways(shape: &Shape) -> Traffic {
    let line = Line {
        mode: shape.mode().number(),
        millislots: shape.millislots(),
        cell: u32::try_from(shape.cell()).expect("a cell of one size has 1,150 bytes at most"),
        bank: shape.bank(),
        bulk_now: shape.bulk() == Bulk::Now,
    };
    Traffic {
        to_relay: line,
        to_agent: line,
    }
}

fn unexpected(frame: &ToAgent) -> Failure {
    Failure::failed(format!("the relay says {frame:?}"))
}

const ECHO_ALPN: &[u8] = b"skytale-bench/echo";
const READ_BYTES: usize = 64 * 1024;
/// Cells or frames that are written at once.
pub(super) const TOGETHER: usize = 64;
