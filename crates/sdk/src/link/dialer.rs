//! Makes connections to a relay whose key is pinned.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use iroh::{
    Endpoint, EndpointAddr, PublicKey, SecretKey,
    endpoint::{
        AckFrequencyConfig, Connection, PortmapperConfig, QuicTransportConfig, VarInt, presets,
    },
};
use rand_chacha::ChaCha8Rng;
use skytale_tunnel::{Guest, Inside, Refused, keys::OwnKey};
use skytale_wire::{frame::ALPN, id::RelayKey};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    IDLE_MS_MAX, KEEP_ALIVE, LinkView, QUICK_TRIES,
    address::{Doors, GrpcDoor},
    connected::{Carrier, Connected, Tunnel},
    lock, pause,
};
use crate::{config::RelayAddr, error::Error};

/// Makes connections to the relay whose key is pinned.
pub(super) struct Dialer {
    relay: RelayKey,
    /// The transport key: fresh for each link, so two relays cannot tell by it that we are one.
    secret: SecretKey,
    guest: Guest,
    /// Whether the line is to have slots.
    slotted: bool,
    addresses: watch::Receiver<Vec<String>>,
    view: Arc<Mutex<LinkView>>,
    connect_max: Duration,
    bound: Option<Bound>,
    /// When QUIC is tried next, while gRPC carries the line, and the pause before that.
    return_at: Option<Instant>,
    return_pause: Duration,
    rng: ChaCha8Rng,
}

/// A socket, and which addresses it can reach.
struct Bound {
    endpoint: Endpoint,
    reach: Reach,
}

/// A client shows its interface's addresses to the relay, so it is bound no wider than needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reach {
    loopback_only: bool,
    four: bool,
    six: bool,
}

impl Dialer {
    pub(super) fn new(
        relay: RelayKey,
        secret: SecretKey,
        slotted: bool,
        addresses: watch::Receiver<Vec<String>>,
        view: Arc<Mutex<LinkView>>,
        connect_max: Duration,
        rng: ChaCha8Rng,
    ) -> Self {
        let own = OwnKey::from_seed(&secret.to_bytes());
        Self {
            relay,
            guest: Guest::new(relay, &own),
            secret,
            slotted,
            addresses,
            view,
            connect_max,
            bound: None,
            return_at: None,
            return_pause: RETURN_PAUSE_MIN,
            rng,
        }
    }

    /// Looks for the relay until it answers.
    pub(super) async fn find(&mut self) -> Connected {
        let mut tries = 0;
        loop {
            match Box::pin(self.dial(tries)).await {
                Ok(connected) => return connected,
                Err(error) => tracing::debug!(relay = %self.relay.short(), tries, %error, "silent"),
            }
            sleep(pause(tries, &mut self.rng)).await;
            tries += 1;
        }
    }

    /// One try. QUIC goes first; where it takes long, gRPC goes beside it, and whichever is up first is
    /// taken.
    pub(super) async fn dial(&mut self, tries: u32) -> Result<Connected, Error> {
        let doors = self.doors();
        let quic = self
            .dial_quic(&doors, dial_max(tries, self.connect_max))
            .await;
        let mut quic = pin!(quic?);
        let grpc = doors.iter().find_map(|door| door.grpc.clone());
        let Some(grpc) = grpc else {
            return quic.await.map(Connected::Quic);
        };
        let failed = tokio::select! {
            connected = &mut quic => match connected {
                Ok(connection) => return Ok(Connected::Quic(connection)),
                Err(error) => Some(error),
            },
            () = sleep(HEAD_START) => None,
        };
        let mut grpc = pin!(self.dial_grpc(grpc));
        if let Some(failed) = failed {
            return grpc.await.map(Connected::Grpc).map_err(|_| failed);
        }
        tokio::select! {
            connected = &mut quic => match connected {
                Ok(connection) => Ok(Connected::Quic(connection)),
                Err(error) => grpc.await.map(Connected::Grpc).map_err(|_| error),
            },
            connected = &mut grpc => match connected {
                Ok(tunnel) => Ok(Connected::Grpc(tunnel)),
                Err(why) => {
                    tracing::debug!(relay = %self.relay.short(), %why, "no gRPC either");
                    quic.await.map(Connected::Quic)
                }
            },
        }
    }

    /// Tries QUIC from time to time while gRPC carries the line, and ends when it is up. A network that
    /// lets no UDP through does so for long, so the pauses grow.
    pub(super) async fn return_to_quic(&mut self) -> Connected {
        loop {
            let pause = self.return_pause;
            let at = *self.return_at.get_or_insert_with(|| Instant::now() + pause);
            sleep_until(at).await;
            self.return_at = None;
            self.return_pause = (pause * 2).min(RETURN_PAUSE_MAX);
            let doors = self.doors();
            let tried = match self.dial_quic(&doors, DIAL_QUICK).await {
                Ok(dialling) => dialling.await,
                Err(error) => Err(error),
            };
            match tried {
                Ok(connection) => return Connected::Quic(connection),
                Err(error) => tracing::debug!(relay = %self.relay.short(), %error, "still no QUIC"),
            }
        }
    }

    /// A line has been opened: with QUIC, the next return begins with short pauses again.
    pub(super) fn note_carrier(&mut self, carrier: Carrier) {
        match carrier {
            Carrier::Quic => {
                self.return_pause = RETURN_PAUSE_MIN;
                self.return_at = None;
            }
            Carrier::Grpc => {}
        }
    }

    fn doors(&mut self) -> Vec<Doors> {
        let written = self.addresses.borrow_and_update().clone();
        lock(&self.view).address = written.first().cloned();
        let doors = written.iter().filter_map(|text| Doors::read(text));
        doors.take(ADDRESSES_MAX).collect()
    }

    /// A try by QUIC, whose time begins when it is polled first.
    async fn dial_quic(
        &mut self,
        doors: &[Doors],
        max: Duration,
    ) -> Result<impl Future<Output = Result<Connection, Error>> + use<>, Error> {
        let resolved = timeout(self.connect_max, resolve(doors)).await;
        let resolved = resolved.unwrap_or_default();
        if resolved.is_empty() {
            return Err(Error::unreachable(
                "the relay's address cannot be found: check the host name and the network",
            ));
        }
        let id = PublicKey::from_bytes(self.relay.as_bytes())
            .map_err(|_| Error::misuse("the relay's key is not a valid key"))?;
        let endpoint = self.bind(&resolved).await?;
        let target = resolved
            .iter()
            .fold(EndpointAddr::new(id), |target, address| {
                target.with_ip_addr(*address)
            });
        Ok(async move {
            match timeout(max, endpoint.connect(target, ALPN)).await {
                Ok(Ok(connection)) => Ok(connection),
                Ok(Err(error)) => Err(Error::unreachable(format!(
                    "the relay does not accept the connection ({error}): check its address and key"
                ))),
                Err(_) => Err(Error::unreachable(
                    "the relay does not answer: check its address, and that UDP or TCP gets through",
                )),
            }
        })
    }

    /// A try by gRPC.
    fn dial_grpc(&self, door: GrpcDoor) -> impl Future<Output = Result<Tunnel, Refused>> + use<> {
        let guest = self.guest.clone();
        async move {
            let began = Instant::now();
            match timeout(GRPC_MAX, open(guest, door)).await {
                Ok(opened) => Ok(Tunnel::new(opened?, began.elapsed())),
                Err(_) => Err(Refused::Unreachable("nothing answers in time".into())),
            }
        }
    }

    /// The socket, bound again only when another kind of address has to be reached.
    async fn bind(&mut self, targets: &[SocketAddr]) -> Result<Endpoint, Error> {
        let reach = Reach::of(targets);
        if let Some(bound) = &self.bound
            && bound.reach == reach
        {
            return Ok(bound.endpoint.clone());
        }
        self.hang_up().await;
        let no_socket = |_| Error::unreachable("no UDP socket can be opened on this machine");
        let mut builder = Endpoint::builder(presets::Minimal)
            .secret_key(self.secret.clone())
            .portmapper_config(PortmapperConfig::Disabled)
            .transport_config(transport(self.slotted))
            .clear_ip_transports();
        for address in reach.bind_addresses() {
            builder = builder
                .bind_addr(address)
                .map_err(|_| Error::unreachable("no UDP socket can be opened on this machine"))?;
        }
        let endpoint = builder.bind().await.map_err(no_socket)?;
        self.bound = Some(Bound {
            endpoint: endpoint.clone(),
            reach,
        });
        Ok(endpoint)
    }

    /// Tells the relay. One that does not answer is not waited for, but the endpoint still ends
    /// by itself: it holds the socket until it has.
    pub(super) async fn hang_up(&mut self) {
        if let Some(bound) = self.bound.take() {
            let closing = tokio::spawn(async move { bound.endpoint.close().await });
            // Whether it has ended by then or not, nobody depends on it.
            let _ = timeout(GOODBYE_MAX, closing).await;
        }
    }
}

/// Whether this relay could be reached by gRPC: opens a line there, has the relay prove its key, and
/// goes again.
pub async fn grpc_reaches(relay: &RelayAddr) -> Result<(), Error> {
    let doors = Doors::read(&relay.address);
    let door = doors.and_then(|doors| doors.grpc).ok_or_else(|| {
        Error::misuse("the relay's address says that it is to be reached by QUIC only")
    })?;
    let own = OwnKey::from_seed(&SecretKey::generate().to_bytes());
    let opening = timeout(GRPC_MAX, open(Guest::new(relay.key, &own), door)).await;
    match opening {
        Ok(Ok(_inside)) => Ok(()),
        Ok(Err(refused)) => Err(Error::unreachable(refused.to_string())),
        Err(_) => Err(Error::unreachable(
            "the relay's gRPC port does not answer in time",
        )),
    }
}

/// Without an outer TLS first: it protects nothing that is not protected inside.
async fn open(guest: Guest, door: GrpcDoor) -> Result<Inside, Refused> {
    let plain = match door.tls {
        Some(tls) => return guest.open(&door.address, tls).await,
        None => guest.open(&door.address, false).await,
    };
    match plain {
        Ok(inside) => Ok(inside),
        Err(Refused::NotTheRelay) => Err(Refused::NotTheRelay),
        Err(refused) => guest.open(&door.address, true).await.map_err(|_| refused),
    }
}

impl Reach {
    fn of(targets: &[SocketAddr]) -> Self {
        Self {
            loopback_only: targets.iter().all(|target| target.ip().is_loopback()),
            four: targets.iter().any(SocketAddr::is_ipv4),
            six: targets.iter().any(SocketAddr::is_ipv6),
        }
    }

    fn bind_addresses(self) -> Vec<SocketAddr> {
        use std::net::{Ipv4Addr, Ipv6Addr};
        let (four, six) = if self.loopback_only {
            (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST)
        } else {
            (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED)
        };
        let four = self.four.then(|| SocketAddr::from((four, 0)));
        let six = self.six.then(|| SocketAddr::from((six, 0)));
        four.into_iter().chain(six).collect()
    }
}

/// QUIC as the traffic design wants it: one datagram size, no round-trip bit for watchers, and
/// buffers that bound what a hostile relay can make us hold.
fn transport(slotted: bool) -> QuicTransportConfig {
    QuicTransportConfig::builder()
        .ack_frequency_config(slotted.then(at_once))
        .initial_mtu(1200)
        .mtu_discovery_config(None)
        .allow_spin(false)
        // Long, because a line that is merely bad must live; `Watch` is for those that are dead.
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_MS_MAX).into()))
        .keep_alive_interval(KEEP_ALIVE)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        // The relay opens no streams and sends no datagrams.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .build()
}

/// The relay is to acknowledge each packet as it comes. Cells are too far apart for one
/// acknowledgement to serve two, so waiting for the second would only wake the relay once more.
fn at_once() -> AckFrequencyConfig {
    let mut config = AckFrequencyConfig::default();
    config.ack_eliciting_threshold(VarInt::from_u32(0));
    config
}

/// Everything that these host names stand for. Those that cannot be resolved are left out.
async fn resolve(doors: &[Doors]) -> Vec<SocketAddr> {
    let mut resolved = Vec::new();
    for door in doors {
        if let Ok(found) = tokio::net::lookup_host(door.quic.as_str()).await {
            for socket in found {
                if !resolved.contains(&socket) {
                    resolved.push(socket);
                }
            }
        }
    }
    resolved.truncate(ADDRESSES_MAX);
    resolved
}

/// How long a try may take. QUIC asks at once, after one second, after three: what is begun while
/// the relay is away must not go on for long, or its return would be noticed late.
fn dial_max(tries: u32, connect_max: Duration) -> Duration {
    if tries < QUICK_TRIES {
        connect_max.min(DIAL_QUICK)
    } else {
        connect_max
    }
}

const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Addresses that are tried at once.
const ADDRESSES_MAX: usize = 16;
const DIAL_QUICK: Duration = Duration::from_secs(2);
/// How long QUIC has the way for itself, and what gRPC then has: together the 3 s within which a line
/// is there although no UDP gets through.
const HEAD_START: Duration = Duration::from_millis(1_500);
const GRPC_MAX: Duration = Duration::from_millis(1_500);
/// Before QUIC is tried again while gRPC carries the line: at first soon, because the relay may just
/// have come back.
const RETURN_PAUSE_MIN: Duration = Duration::from_secs(10);
const RETURN_PAUSE_MAX: Duration = Duration::from_mins(10);
/// How long an endpoint may take to see its connections go.
const GOODBYE_MAX: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_relay_on_this_machine_is_reached_from_loopback_only() {
        let local = Reach::of(&addresses(&["127.0.0.1:4433"]));
        let both = Reach::of(&addresses(&["127.0.0.1:4433", "[2001:db8::1]:4433"]));

        assert_eq!(local.bind_addresses(), addresses(&["127.0.0.1:0"]));
        assert_eq!(both.bind_addresses(), addresses(&["0.0.0.0:0", "[::]:0"]));
    }

    #[tokio::test]
    async fn names_that_cannot_be_resolved_are_left_out() {
        let doors = ["127.0.0.1:1", "no-such-host.invalid:1"].map(|it| Doors::read(it).unwrap());
        let found = resolve(&doors).await;

        assert_eq!(found, addresses(&["127.0.0.1:1"]));
    }
}
