//! What the client says, and that it has hung up: a tool that waits for a message must not keep a
//! server from ending whose client is gone.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::sync::CancellationToken;

/// A stream that cancels a token when it ends.
#[derive(Debug)]
pub(super) struct Ears<R> {
    from: R,
    ended: CancellationToken,
}

impl<R> Ears<R> {
    pub(super) const fn new(from: R, ended: CancellationToken) -> Self {
        Self { from, ended }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Ears<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.from).poll_read(context, into);
        match &polled {
            Poll::Ready(Ok(())) if into.filled().len() == before && into.remaining() > 0 => {
                self.ended.cancel();
            }
            Poll::Ready(Err(_)) => self.ended.cancel(),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn the_end_of_the_stream_is_told_and_nothing_else_is() {
        let ended = CancellationToken::new();
        let mut ears = Ears::new(b"said".as_slice(), ended.clone());

        let mut heard = [0; 4];
        ears.read_exact(&mut heard).await.unwrap();
        assert!(!ended.is_cancelled());
        assert_eq!(ears.read(&mut heard).await.unwrap(), 0);

        assert!(ended.is_cancelled());
    }
}
