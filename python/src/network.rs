//! A loopback network with weather: datagrams between agents and a relay arrive late, or never.
//!
//! Delay is the same for all, so that nothing is overtaken: reordering is QUIC's to bear and is
//! tested elsewhere. What does not fit into a queue is dropped, as routers do it.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What happens to datagrams, both ways alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// Each takes so long.
    pub(crate) delay: Duration,
    /// Each is lost with this probability.
    pub(crate) loss: f64,
    /// The same losses again for the same order of datagrams.
    pub(crate) seed: u64,
}

/// A running network. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Network {
    addr: SocketAddr,
    _until_dropped: DropGuard,
}

impl Network {
    /// Between a relay at this machine's IPv6 address and whoever sends to the address that this one has.
    pub(crate) async fn start(relay: SocketAddr, weather: Weather) -> io::Result<Self> {
        let front = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let addr = front.local_addr()?;
        let stop = CancellationToken::new();
        let air = Air {
            weather,
            dice: Arc::new(Mutex::new(ChaCha8Rng::seed_from_u64(weather.seed))),
        };
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(carry(front, relay, air)),
        );
        Ok(Self {
            addr,
            _until_dropped: stop.drop_guard(),
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

#[derive(Clone)]
struct Air {
    weather: Weather,
    dice: Arc<Mutex<ChaCha8Rng>>,
}

impl Air {
    /// When a datagram arrives that leaves now; `None` when it never does.
    fn arrival(&self) -> Option<Instant> {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        let is_lost = dice.random_bool(self.weather.loss);
        (!is_lost).then(|| Instant::now() + self.weather.delay)
    }
}

type Flight = (Instant, Vec<u8>);

/// Each sender gets a socket of its own towards the relay, as behind a home router.
async fn carry(front: Arc<UdpSocket>, relay: SocketAddr, air: Air) {
    let mut agents: HashMap<SocketAddr, mpsc::Sender<Flight>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut datagram = vec![0; DATAGRAM_MAX];
    loop {
        // An error here tells of an earlier datagram that found nobody.
        let Ok((len, agent)) = front.recv_from(&mut datagram).await else {
            continue;
        };
        if !agents.contains_key(&agent) && agents.len() < AGENTS_MAX {
            let Ok(back) = connected(relay).await else {
                continue;
            };
            let (out, flights) = mpsc::channel(FLIGHTS_MAX);
            tasks.spawn(arrive(flights, Arc::clone(&back), None));
            tasks.spawn(answer(back, Arc::clone(&front), agent, air.clone()));
            agents.insert(agent, out);
        }
        if let Some(out) = agents.get(&agent)
            && let Some(due) = air.arrival()
        {
            let _ = out.try_send((due, datagram.iter().take(len).copied().collect()));
        }
    }
}

/// What the relay says to one agent.
async fn answer(back: Arc<UdpSocket>, front: Arc<UdpSocket>, agent: SocketAddr, air: Air) {
    let (out, flights) = mpsc::channel(FLIGHTS_MAX);
    let listen = async {
        let mut datagram = vec![0; DATAGRAM_MAX];
        loop {
            let Ok(len) = back.recv(&mut datagram).await else {
                continue;
            };
            if let Some(due) = air.arrival() {
                let _ = out.try_send((due, datagram.iter().take(len).copied().collect()));
            }
        }
    };
    tokio::select! {
        () = listen => {}
        () = arrive(flights, front, Some(agent)) => {}
    }
}

async fn arrive(
    mut flights: mpsc::Receiver<Flight>,
    socket: Arc<UdpSocket>,
    to: Option<SocketAddr>,
) {
    while let Some((due, datagram)) = flights.recv().await {
        sleep_until(due).await;
        // What cannot be delivered is lost.
        let _ = match to {
            Some(addr) => socket.send_to(&datagram, addr).await,
            None => socket.send(&datagram).await,
        };
    }
}

async fn connected(relay: SocketAddr) -> io::Result<Arc<UdpSocket>> {
    let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).await?;
    socket.connect(relay).await?;
    Ok(Arc::new(socket))
}

const AGENTS_MAX: usize = 1_024;
/// Datagrams on their way, for each agent and direction.
const FLIGHTS_MAX: usize = 4_096;
const DATAGRAM_MAX: usize = 65_536;
