//! What can go wrong on a line, by what the caller can do about it.

use thiserror::Error;

/// Why a line did not take something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// Fix the caller: no cell can carry this.
    #[error("{len} bytes do not fit into one cell, which takes {max} at most")]
    Misuse {
        /// The length that was asked for.
        len: usize,
        /// The largest length that works.
        max: usize,
    },
    /// Nothing was taken. Empty the line first (`drain_into`, or `next_frame` until it gives
    /// `None`), or let its slots pass, then give the same bytes again.
    #[error("the line is full: take out what it holds first")]
    Full,
    /// Close the connection: the stream cannot be followed any further.
    #[error("the peer broke the line format: {0}")]
    PeerMisbehaved(#[from] Breach),
}

/// Which rule of the cell format a peer broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Breach {
    /// The cell announces more than this end accepts at this point of the conversation.
    #[error("a cell is larger than accepted")]
    CellTooLarge,
    /// A lone cell has another length than its payload asks for.
    #[error("a cell's length does not follow from its payload")]
    WrongLength,
    /// The kind byte is none that this version knows.
    #[error("a cell is of an unknown kind")]
    UnknownKind,
    /// A frame is said to go on behind the end of a cell of whole frames, or such a cell comes in
    /// the middle of a frame that is cut over several.
    #[error("a frame does not end where it must")]
    FrameCut,
    /// A frame that is cut over cells is said to be longer than this end accepts.
    #[error("a frame is larger than accepted")]
    FrameTooLarge,
    /// A cell that is not cover carries no frame.
    #[error("a cell carries nothing and is not cover")]
    Empty,
    /// A cover cell has no counter, or one that was passed before.
    #[error("a cover cell's counter is missing or went back")]
    CoverCounter,
}
