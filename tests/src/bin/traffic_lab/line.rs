//! The watcher of one line: passes datagrams on and notes them.
//!
//! A capture is a row of little-endian `u64`, one for each datagram: microseconds since the run
//! began in the upper 47 bits, then one bit that is set for those from the relay, then 16 bits with
//! the length of the UDP payload.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::{net::UdpSocket, sync::oneshot, task::JoinHandle};

use crate::Clock;

/// A proxy between one agent and the relay.
pub(crate) struct Line {
    pub(crate) addr: SocketAddr,
    enough: oneshot::Sender<()>,
    task: JoinHandle<Vec<u8>>,
}

impl Line {
    pub(crate) async fn before(relay: SocketAddr, clock: Clock) -> Self {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = front.local_addr().unwrap();
        let (enough, told) = oneshot::channel();
        let task = tokio::spawn(carry(front, relay, clock, told));
        Self { addr, enough, task }
    }

    /// The capture.
    pub(crate) async fn end(self) -> Vec<u8> {
        let _ = self.enough.send(());
        self.task.await.unwrap()
    }
}

async fn carry(
    front: UdpSocket,
    relay: SocketAddr,
    clock: Clock,
    mut enough: oneshot::Receiver<()>,
) -> Vec<u8> {
    let back = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
    let (mut out, mut home) = (vec![0; 65_536], vec![0; 65_536]);
    let mut client = None;
    let mut capture = Vec::new();
    let mut note = |from_relay: bool, len: usize| {
        let entry = clock.micros() << 17 | u64::from(from_relay) << 16 | len as u64;
        capture.extend_from_slice(&entry.to_le_bytes());
    };
    loop {
        // A datagram that the system does not take is one that was lost on the way.
        tokio::select! {
            Ok((len, from)) = front.recv_from(&mut out) => {
                client = Some(from);
                note(false, len);
                let _ = back.send_to(&out[..len], relay).await;
            }
            Ok((len, _)) = back.recv_from(&mut home) => {
                note(true, len);
                if let Some(client) = client {
                    let _ = front.send_to(&home[..len], client).await;
                }
            }
            _ = &mut enough => return capture,
        }
    }
}
