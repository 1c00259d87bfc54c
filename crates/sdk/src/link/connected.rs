//! A connection to a relay, by QUIC or by gRPC: what the two do in ways of their own.
//!
//! Over gRPC there is one stream, QUIC's own keep-alives and acknowledgements are missing, and nothing
//! moves along when the network changes. Whoever watches over the line has to know that; nobody else
//! does.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use iroh::endpoint::{
    Connection, ConnectionError, FrameStats, PathId, ReadError, RecvStream, SendStream, VarInt,
};
use skytale_tunnel::Inside;
use skytale_wire::refusal::{Refusal, Remedy};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    time::{sleep, timeout},
};

use super::{End, FLUSH_MAX, beat::turn};

/// What carries an agent's line to its relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// QUIC, over UDP.
    Quic,
    /// gRPC, over TCP: for networks that let no UDP through.
    Grpc,
}

impl Carrier {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "QUIC",
            Self::Grpc => "gRPC",
        }
    }
}

/// A connection whose other end has proved that it is the relay.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "an agent has one or two of them")]
pub(super) enum Connected {
    Quic(Connection),
    Grpc(Tunnel),
}

/// A line through gRPC.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// Until somebody speaks on it.
    inside: Mutex<Option<Inside>>,
    /// Bytes that have come and were the relay's own.
    heard: Arc<AtomicU64>,
    /// How long its handshake took: two round trips and some arithmetic.
    opened_in: Duration,
}

/// What has come on a connection, as far as it could be decrypted: nobody else can make it change.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    Quic(Box<FrameStats>),
    Grpc(u64),
}

/// Our side of one stream.
#[derive(Debug)]
pub(super) enum Mouth {
    Quic {
        stream: SendStream,
        connection: Connection,
        /// Pieces of streams that QUIC had sent before the last cell was written.
        written: u64,
    },
    Grpc(WriteHalf<Inside>),
}

/// The relay's side of one stream.
#[derive(Debug)]
pub(super) enum Ear {
    Quic(RecvStream),
    Grpc {
        half: ReadHalf<Inside>,
        heard: Arc<AtomicU64>,
    },
}

impl Tunnel {
    pub(super) fn new(inside: Inside, opened_in: Duration) -> Self {
        Self {
            inside: Mutex::new(Some(inside)),
            heard: Arc::default(),
            opened_in,
        }
    }
}

impl Connected {
    pub(super) fn carrier(&self) -> Carrier {
        match self {
            Self::Quic(_) => Carrier::Quic,
            Self::Grpc(_) => Carrier::Grpc,
        }
    }

    /// A stream more. `None` when the connection has broken, and over gRPC after the first.
    pub(super) async fn stream(&self) -> Option<(Mouth, Ear)> {
        match self {
            Self::Quic(connection) => {
                let (send, recv) = connection.open_bi().await.ok()?;
                let mouth = Mouth::Quic {
                    stream: send,
                    connection: connection.clone(),
                    written: 0,
                };
                Some((mouth, Ear::Quic(recv)))
            }
            Self::Grpc(tunnel) => {
                let mut inside = tunnel.inside.lock().unwrap_or_else(PoisonError::into_inner);
                let (read, write) = split(inside.take()?);
                let ear = Ear::Grpc {
                    half: read,
                    heard: Arc::clone(&tunnel.heard),
                };
                Some((Mouth::Grpc(write), ear))
            }
        }
    }

    pub(super) fn heard(&self) -> Heard {
        match self {
            Self::Quic(connection) => Heard::Quic(Box::new(connection.stats().frame_rx)),
            Self::Grpc(tunnel) => Heard::Grpc(tunnel.heard.load(Ordering::Relaxed)),
        }
    }

    /// Whether the carrier itself confirms what we have written and asks when nothing comes. Else only
    /// the relay's cells show that it lives.
    pub(super) fn answers_by_itself(&self) -> bool {
        match self {
            Self::Quic(_) => true,
            Self::Grpc(_) => false,
        }
    }

    /// About as long as an answer takes.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        match self {
            Self::Quic(connection) => connection.rtt(PathId::ZERO),
            Self::Grpc(tunnel) => Some(tunnel.opened_in),
        }
    }

    /// Says goodbye. Over gRPC the end of both halves does.
    pub(super) fn close(&self) {
        match self {
            Self::Quic(connection) => connection.close(VarInt::from_u32(0), b""),
            Self::Grpc(_) => {}
        }
    }
}

impl Mouth {
    /// Hands all of it over. Where cells have one size, one write is one cell.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        match self {
            Self::Quic { stream, .. } => stream.write_all(bytes).await.map_err(|it| broke(&it)),
            Self::Grpc(half) => {
                half.write_all(bytes).await.map_err(|it| broke(&it))?;
                half.flush().await.map_err(|it| broke(&it))
            }
        }
    }

    /// Until QUIC has sent what was written last, so that what is written next is a datagram of its
    /// own; or not for much longer than that takes, where the network holds it up. Over gRPC each write
    /// is a message of its own anyway.
    pub(super) async fn apart(&mut self) {
        match self {
            Self::Quic {
                connection,
                written,
                ..
            } => {
                let sent = || connection.stats().frame_tx.stream;
                for tries in 0..APART_TRIES {
                    if sent() > *written {
                        break;
                    }
                    if tries < APART_TURNS {
                        turn().await;
                    } else {
                        sleep(APART).await;
                    }
                }
                *written = sent();
            }
            Self::Grpc(_) => {}
        }
    }

    /// Tells the relay that nothing more comes, and waits a moment for it to have everything.
    pub(super) async fn finish(&mut self) -> End {
        match self {
            Self::Quic { stream, .. } => {
                if stream.finish().is_ok() {
                    let _ = timeout(FLUSH_MAX, stream.stopped()).await;
                }
            }
            Self::Grpc(half) => {
                if timeout(FLUSH_MAX, half.shutdown()).await.is_ok() {
                    // The relay ends its side when it has read ours to the end, and that ends us.
                    sleep(FLUSH_MAX).await;
                }
            }
        }
        End::Done
    }
}

impl Ear {
    /// The next bytes; an error says how the line has ended.
    pub(super) async fn piece(&mut self) -> Result<Bytes, End> {
        match self {
            Self::Quic(stream) => match stream.read_chunk(READ_BYTES).await {
                Ok(Some(piece)) => Ok(piece),
                Ok(None) => Err(ended()),
                Err(error) => Err(why_lost(&error)),
            },
            Self::Grpc { half, heard } => {
                let mut piece = BytesMut::with_capacity(PIECE_BYTES);
                let len = half.read_buf(&mut piece).await.map_err(|it| broke(&it))?;
                if len == 0 {
                    return Err(ended());
                }
                heard.fetch_add(len as u64, Ordering::Relaxed);
                Ok(piece.freeze())
            }
        }
    }
}

fn ended() -> End {
    End::Lost("the relay ended the line".into())
}

fn broke(error: &impl std::fmt::Display) -> End {
    End::Lost(format!("the line broke: {error}"))
}

fn why_lost(error: &ReadError) -> End {
    if let ReadError::ConnectionLost(ConnectionError::ApplicationClosed(close)) = error
        && let Ok(number) = u16::try_from(close.error_code.into_inner())
        && number != 0
    {
        // A relay that could not say its last word on the stream says it with the close code.
        let refusal = Refusal::from(number);
        return End::Closed {
            refusal,
            resume: refusal.remedy() == Remedy::Retry,
        };
    }
    broke(error)
}

/// About as much as is read at once.
const READ_BYTES: usize = 64 * 1024;
/// The same where a buffer stands ready while nothing comes.
const PIECE_BYTES: usize = 4 * 1024;
/// How often it is looked whether QUIC has sent a cell before the next one is written: first as often as
/// the other tasks of the thread have had a turn, since QUIC's is among them, and then by the clock.
const APART_TRIES: u32 = 20;
const APART_TURNS: u32 = 8;
const APART: Duration = Duration::from_millis(1);
