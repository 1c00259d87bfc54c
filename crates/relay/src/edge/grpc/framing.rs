//! gRPC's framing of messages in an HTTP/2 body: five bytes, then the message.
//!
//! Written here because the usual decoder ends a stream at a message over its limit, and the client
//! then sends it again on the next one, for ever. This one skips it. It also hands out bytes as they
//! are, since a message that goes on must be the same bytes.

use std::{pin::Pin, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tonic::Status;

/// Reads the messages of a body, whatever pieces they come in.
#[derive(Debug)]
pub struct Messages {
    body: Body,
    /// What has come and is not read.
    piece: Bytes,
    state: Reading,
    budget: Arc<Budget>,
    message_max: usize,
}

#[derive(Debug)]
enum Reading {
    /// So much of the next message's head.
    Head {
        bytes: [u8; HEAD_BYTES],
        have: usize,
    },
    /// A message whose beginning has come; a large one with what lets it be held.
    Message {
        need: usize,
        have: BytesMut,
        hold: Option<Hold>,
    },
    /// So much of a message that nobody wants.
    Skip { left: usize },
}

/// The right to hold the beginning of a large message, for a while.
#[derive(Debug)]
struct Hold {
    room: OwnedSemaphorePermit,
    until: Pin<Box<Sleep>>,
}

/// What a body holds next.
#[derive(Debug)]
pub enum Next {
    /// A message.
    Message(Bytes),
    /// A message was too large, at all or for the moment; it is passed over.
    Oversized,
    /// The peer has nothing more to say, or has gone.
    End,
}

/// Room for the beginnings of large messages, of all streams together. Where it is used up a message
/// is passed over: waiting for it could wait for ever, as each waiter holds a part of it.
#[derive(Debug)]
pub struct Budget(Arc<Semaphore>);

impl Budget {
    /// Room for 256 MiB.
    pub fn new() -> Arc<Self> {
        Self::of(BUDGET_BYTES)
    }

    fn of(bytes: usize) -> Arc<Self> {
        Arc::new(Self(Arc::new(Semaphore::new(bytes / BUDGET_UNIT))))
    }

    fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(BUDGET_UNIT)).ok()?;
        Arc::clone(&self.0).try_acquire_many_owned(units).ok()
    }
}

impl Messages {
    /// Reads messages of at most so many bytes.
    pub fn new(body: Body, message_max: usize, budget: Arc<Budget>) -> Self {
        Self {
            body,
            piece: Bytes::new(),
            state: Reading::head(),
            budget,
            message_max,
        }
    }

    /// The next message. Nothing is lost when it is asked and not waited for.
    pub async fn next(&mut self) -> Result<Next, Status> {
        loop {
            if let Some(next) = self.advance()? {
                return Ok(next);
            }
            let frame = tokio::select! {
                frame = self.body.frame() => frame,
                // Whoever sends so slowly only wants to be held; the client may dial again.
                () = self.state.overdue() => None,
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.piece = data;
                    }
                }
                // A reset is an end too: nobody is there to be told of it.
                Some(Err(_)) | None => return Ok(Next::End),
            }
        }
    }

    /// Takes what the piece at hand gives; `None` when more is needed.
    fn advance(&mut self) -> Result<Option<Next>, Status> {
        loop {
            match &mut self.state {
                Reading::Head { bytes, have } => {
                    let take = self.piece.len().min(HEAD_BYTES - *have);
                    bytes[*have..*have + take].copy_from_slice(&self.piece.split_to(take));
                    *have += take;
                    if *have < HEAD_BYTES {
                        return Ok(None);
                    }
                    let need = length(*bytes)?;
                    if need > self.message_max {
                        self.state = Reading::Skip { left: need };
                        return Ok(Some(Next::Oversized));
                    }
                    if need <= self.piece.len() {
                        self.state = Reading::head();
                        return Ok(Some(Next::Message(self.cut(need))));
                    }
                    self.state = Reading::Message {
                        need,
                        have: BytesMut::new(),
                        hold: None,
                    };
                }
                Reading::Message { need, have, hold } => {
                    let take = self.piece.len().min(*need - have.len());
                    // It grows as it comes: a length alone holds nothing.
                    have.extend_from_slice(&self.piece.split_to(take));
                    if have.len() == *need {
                        let whole = std::mem::take(have).freeze();
                        self.state = Reading::head();
                        return Ok(Some(Next::Message(whole)));
                    }
                    if have.len() <= FREE_BYTES {
                        return Ok(None);
                    }
                    // For what came now, or for all of it when it has just become large.
                    let more = if hold.is_some() { take } else { have.len() };
                    if Hold::extend(hold, self.budget.take(more), *need) {
                        return Ok(None);
                    }
                    let left = *need - have.len();
                    self.state = Reading::Skip { left };
                    return Ok(Some(Next::Oversized));
                }
                Reading::Skip { left } => {
                    let take = self.piece.len().min(*left);
                    let _ = self.piece.split_to(take);
                    *left -= take;
                    if *left > 0 {
                        return Ok(None);
                    }
                    self.state = Reading::head();
                }
            }
        }
    }

    /// A message out of the piece. A small one is copied, so that it does not hold on to all that
    /// came with it.
    fn cut(&mut self, len: usize) -> Bytes {
        let alone = len * 2 >= self.piece.len();
        let message = self.piece.split_to(len);
        if alone {
            message
        } else {
            Bytes::copy_from_slice(&message)
        }
    }
}

impl Reading {
    fn head() -> Self {
        Self::Head {
            bytes: [0; HEAD_BYTES],
            have: 0,
        }
    }

    /// When a large message should long have come. Never, while there is none.
    async fn overdue(&mut self) {
        match self {
            Self::Message {
                hold: Some(hold), ..
            } => hold.until.as_mut().await,
            Self::Head { .. } | Self::Message { .. } | Self::Skip { .. } => {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Hold {
    /// Adds room to what is held of a message of `need` bytes. False when there is none.
    fn extend(hold: &mut Option<Self>, room: Option<OwnedSemaphorePermit>, need: usize) -> bool {
        match (hold, room) {
            (Some(hold), Some(room)) => hold.room.merge(room),
            (hold @ None, Some(room)) => {
                let seconds = u64::try_from(need / SLOWEST_BYTES_PER_SECOND).unwrap_or(0);
                let within = HOLD_MIN + Duration::from_secs(seconds);
                *hold = Some(Self {
                    room,
                    until: Box::pin(sleep(within)),
                });
            }
            (_, None) => return false,
        }
        true
    }
}

/// Puts one message behind what there is. `write` gives back whether it wrote one.
pub(super) fn put_message<E>(
    buffer: &mut BytesMut,
    write: impl FnOnce(&mut BytesMut) -> Result<(), E>,
) -> Result<(), E> {
    let start = buffer.len();
    buffer.put_bytes(0, HEAD_BYTES);
    if let Err(error) = write(buffer) {
        buffer.truncate(start);
        return Err(error);
    }
    let len = buffer.len() - start - HEAD_BYTES;
    let len = u32::try_from(len).expect("no message of ours comes near 4 GiB");
    buffer[start + 1..start + HEAD_BYTES].copy_from_slice(&len.to_be_bytes());
    Ok(())
}

/// The length that a head tells.
fn length(head: [u8; HEAD_BYTES]) -> Result<usize, Status> {
    let [compressed, length @ ..] = head;
    match compressed {
        0 => {
            Ok(usize::try_from(u32::from_be_bytes(length)).expect("pointers have 32 bits or more"))
        }
        1 => Err(Status::unimplemented("messages are not taken compressed")),
        _ => Err(Status::internal("this is not gRPC's framing")),
    }
}

const HEAD_BYTES: usize = 5;
/// Beginnings of so much take no part in the budget: each stream may hold one of them.
const FREE_BYTES: usize = 64 * 1024;
const BUDGET_BYTES: usize = 256 * 1024 * 1024;
const BUDGET_UNIT: usize = 1_024;
/// How slowly a large message may come, and what it is given besides.
const SLOWEST_BYTES_PER_SECOND: usize = 32 * 1024;
const HOLD_MIN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream::{self, StreamExt as _};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use proptest::prelude::*;

    use super::*;

    /// A body that comes in these pieces.
    fn body(pieces: Vec<Bytes>) -> Body {
        let frames = pieces
            .into_iter()
            .map(|it| Ok::<_, Infallible>(Frame::data(it)));
        Body::new(StreamBody::new(stream::iter(frames)))
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut buffer = BytesMut::new();
        put_message(&mut buffer, |out| {
            out.extend_from_slice(message);
            Ok::<_, Infallible>(())
        })
        .unwrap();
        buffer.to_vec()
    }

    async fn read_all(mut messages: Messages) -> Vec<Option<Bytes>> {
        let mut all = Vec::new();
        loop {
            match messages.next().await.unwrap() {
                Next::Message(message) => all.push(Some(message)),
                Next::Oversized => all.push(None),
                Next::End => return all,
            }
        }
    }

    #[test]
    fn a_message_has_the_head_that_grpc_says() {
        assert_eq!(framed(b"abc"), [0, 0, 0, 0, 3, b'a', b'b', b'c']);
        let mut buffer = BytesMut::from(&b"before"[..]);
        assert_eq!(put_message(&mut buffer, |_| Err(7)), Err(7));
        assert_eq!(buffer, b"before"[..]);
    }

    #[tokio::test]
    async fn a_compressed_or_nonsensical_head_ends_the_stream_with_a_reason() {
        for (flag, code) in [(1, tonic::Code::Unimplemented), (2, tonic::Code::Internal)] {
            let pieces = vec![vec![flag, 0, 0, 0, 0].into()];
            let mut messages = Messages::new(body(pieces), 10, Budget::new());
            assert_eq!(messages.next().await.unwrap_err().code(), code);
        }
    }

    /// A stream that has sent so much of a message of `len` bytes, and then no more for now.
    async fn begun(len: u32, sent: usize, budget: &Arc<Budget>) -> (Messages, Option<Next>) {
        let mut bytes = vec![0];
        bytes.extend(len.to_be_bytes());
        bytes.resize(HEAD_BYTES + sent, 7);
        let piece = Ok::<_, Infallible>(Frame::data(Bytes::from(bytes)));
        let waits = stream::iter([piece]).chain(stream::pending());
        let body = Body::new(StreamBody::new(waits));
        let mut messages = Messages::new(body, usize::MAX, Arc::clone(budget));
        let next = match futures_util::poll!(Box::pin(messages.next())) {
            std::task::Poll::Ready(next) => Some(next.unwrap()),
            std::task::Poll::Pending => None,
        };
        (messages, next)
    }

    #[tokio::test]
    async fn beginnings_of_large_messages_share_a_budget_and_a_length_alone_costs_nothing() {
        let budget = Budget::of(300 * 1024);
        let (_lengths, next) = begun(u32::MAX, 10, &budget).await;
        assert!(next.is_none());
        let (held, next) = begun(1_000_000, 200 * 1024, &budget).await;
        assert!(next.is_none());

        let (_over, next) = begun(1_000_000, 200 * 1024, &budget).await;
        assert!(matches!(next, Some(Next::Oversized)), "{next:?}");
        let (_small, next) = begun(1_000_000, FREE_BYTES, &budget).await;
        assert!(next.is_none(), "each stream may hold a little");

        drop(held);
        let (_again, next) = begun(1_000_000, 200 * 1024, &budget).await;
        assert!(next.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_message_that_does_not_come_ends_its_stream() {
        let budget = Budget::new();
        let (mut messages, next) = begun(1_000_000, 100 * 1024, &budget).await;
        assert!(next.is_none());

        assert!(matches!(messages.next().await, Ok(Next::End)));
    }

    proptest! {
        #[test]
        fn messages_are_read_whatever_pieces_they_come_in(
            lens in proptest::collection::vec(0_usize..300, 0..12),
            cuts in proptest::collection::vec(1_usize..200, 1..40),
        ) {
            const MAX: usize = 200;
            let messages: Vec<Vec<u8>> = lens
                .iter()
                .enumerate()
                .map(|(at, len)| vec![u8::try_from(at).unwrap(); *len])
                .collect();
            let mut rest: Bytes = messages.iter().flat_map(|it| framed(it)).collect();
            let mut pieces = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                pieces.push(rest.split_to((*cut).min(rest.len())));
            }

            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let read = runtime.block_on(read_all(Messages::new(body(pieces), MAX, Budget::new())));

            let expected: Vec<Option<Bytes>> = messages
                .into_iter()
                .map(|it| (it.len() <= MAX).then(|| it.into()))
                .collect();
            prop_assert_eq!(read, expected);
        }
    }
}
