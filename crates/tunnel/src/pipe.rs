//! Messages of a gRPC stream as one stream of bytes.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use futures_util::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tokio_util::sync::PollSender;
use tonic::Status;

/// Both directions of one gRPC stream. One write is one message.
pub struct Pipe {
    incoming: Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>,
    /// What of the last message has not been read yet.
    rest: Bytes,
    outgoing: PollSender<Bytes>,
    /// Whatever must live as long as the stream does.
    _keeps: Box<dyn Send + Sync>,
}

impl Pipe {
    /// Over messages that come, and a way for those that go.
    pub fn new(
        incoming: impl Stream<Item = Result<Bytes, Status>> + Send + 'static,
        outgoing: mpsc::Sender<Bytes>,
        keeps: impl Send + Sync + 'static,
    ) -> Self {
        Self {
            incoming: Box::pin(incoming),
            rest: Bytes::new(),
            outgoing: PollSender::new(outgoing),
            _keeps: Box::new(keeps),
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.incoming.as_mut().poll_next(context)) {
                Some(Ok(piece)) => self.rest = piece,
                Some(Err(status)) => return Poll::Ready(Err(broken(status.code().description()))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let len = self.rest.len().min(into.remaining());
        into.put_slice(&self.rest[..len]);
        self.rest.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let ended = |_| broken("the stream has ended");
        ready!(self.outgoing.poll_reserve(context)).map_err(ended)?;
        let len = bytes.len().min(PIECE_BYTES_MAX);
        let piece = Bytes::copy_from_slice(&bytes[..len]);
        self.outgoing.send_item(piece).map_err(ended)?;
        Poll::Ready(Ok(len))
    }

    /// Each message leaves by itself as soon as the connection takes it.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.close();
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").finish_non_exhaustive()
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, why.to_owned())
}

/// A TLS record of the greatest length fits; longer writes are cut.
const PIECE_BYTES_MAX: usize = 16_384 + 256 + 5;
