//! The TCP side of the door: an address that is held before it listens, a listener that closes
//! without resetting anybody, and connections on which neither side waits for nothing.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

/// An address that is held, and to which nobody can connect yet.
#[derive(Debug)]
pub(super) struct Claimed(Socket);

impl Claimed {
    pub(super) fn take(addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        // Connections of the relay that was here before may still be fading.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        Ok(Self(socket))
    }

    pub(super) fn addr(&self) -> io::Result<SocketAddr> {
        self.0
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// From now on clients can connect. The port is free again when both the listener and this are
    /// dropped.
    pub(super) fn listen(&self) -> io::Result<TcpListener> {
        self.0.listen(BACKLOG)?;
        TcpListener::from_std(self.0.try_clone()?.into())
    }
}

/// Lets nobody begin to connect any more, while those who have begun can still be accepted: a
/// listener that is closed resets them. Newcomers get no answer, and a refusal when they ask again
/// and the listener is gone.
///
/// Where the system has no such filter the little that is lost is a reset in a moment that few hit.
pub(super) fn turn_newcomers_away(listener: &TcpListener) {
    #[cfg(target_os = "linux")]
    {
        let _ = SockRef::from(listener).attach_filter(&NO_SYN);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = listener;
}

/// A connection without Nagle's algorithm and without delayed acknowledgements.
///
/// SLIM's clients leave Nagle on: their small writes wait until ours are acknowledged, so it is the
/// server's acknowledgement that must not wait. Linux forgets the wish whenever it likes, so it is
/// said again after each read.
#[derive(Debug)]
pub(super) struct Prompt(TcpStream);

impl Prompt {
    pub(super) fn new(stream: TcpStream) -> Self {
        // Either fails only for a connection that has gone, which reading will show.
        let _ = stream.set_nodelay(true);
        acknowledge_at_once(&stream);
        Self(stream)
    }
}

impl AsyncRead for Prompt {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        acknowledge_at_once(&self.0);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn acknowledge_at_once(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    {
        let _ = SockRef::from(stream).set_tcp_quickack(true);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = stream;
}

/// Connections that the system holds until they are accepted.
const BACKLOG: i32 = 1_024;

/// A classic packet filter. It is shown each segment from its TCP header on, and drops those that
/// open a connection: SYN without ACK.
#[cfg(target_os = "linux")]
const NO_SYN: [socket2::SockFilter; 5] = {
    use socket2::SockFilter;
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const SYN_AND_ACK: u32 = 0x12;
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
        SockFilter::new(AND, 0, 0, SYN_AND_ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{io::AsyncReadExt as _, io::AsyncWriteExt as _, time::timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn an_address_is_held_before_anybody_can_connect() {
        let claimed = Claimed::take("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = claimed.addr().unwrap();

        let early = TcpStream::connect(addr).await.unwrap_err();
        assert_eq!(early.kind(), io::ErrorKind::ConnectionRefused);

        let _listener = claimed.listen().unwrap();
        assert!(TcpStream::connect(addr).await.is_ok());
        let taken = Claimed::take(addr).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }

    /// A reset would make SLIM's clients give up for good; after a refusal they dial again.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_has_connected_is_served_and_who_comes_later_is_refused_and_not_reset() {
        let claimed = Claimed::take("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = claimed.addr().unwrap();
        let listener = claimed.listen().unwrap();
        let mut early = TcpStream::connect(addr).await.unwrap();

        turn_newcomers_away(&listener);
        let late = tokio::spawn(TcpStream::connect(addr));
        while !late.is_finished() && !has_begun(addr) {
            tokio::task::yield_now().await;
        }

        let (accepted, _) = listener.accept().await.unwrap();
        let mut accepted = Prompt::new(accepted);
        early.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        accepted.read_exact(&mut heard).await.unwrap();
        drop((listener, claimed));
        let late = timeout(PATIENCE, late).await.unwrap().unwrap();
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    /// Whether somebody of this machine has sent a SYN there and has no answer.
    #[cfg(target_os = "linux")]
    fn has_begun(addr: SocketAddr) -> bool {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let port = format!(":{:04X} 02 ", addr.port());
        table.lines().any(|line| line.contains(&port))
    }
}
