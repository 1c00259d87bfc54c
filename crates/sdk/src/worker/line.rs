//! The mind's end of a connection: what did not fit into its writer waits here.

use std::collections::{BTreeMap, VecDeque};

use skytale_wire::id::RelayKey;
use tokio::sync::mpsc;

use crate::{
    link::{FRAMES_MAX, LineId, Parcel},
    standing::Standing,
};

/// The connection that a link has at present.
pub(super) struct Line {
    pub(super) id: LineId,
    pub(super) standing: Standing,
    /// `None` once we have ended it.
    pub(super) frames: Option<mpsc::Sender<Parcel>>,
    /// What did not fit; while there is any, no commands are taken.
    pub(super) backlog: VecDeque<Parcel>,
}

impl Line {
    /// Hands over as much as the writer has room for.
    pub(super) fn flush(&mut self) {
        let Some(frames) = &self.frames else {
            self.backlog.clear();
            return;
        };
        while let Some(frame) = self.backlog.pop_front() {
            match frames.try_send(frame) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(frame)) => {
                    self.backlog.push_front(frame);
                    return;
                }
                // Its end is being reported.
                Err(mpsc::error::TrySendError::Closed(_)) => self.backlog.clear(),
            }
        }
    }
}

/// Until a writer that was full takes frames again.
pub(super) async fn room(lines: &mut BTreeMap<RelayKey, Line>) {
    let full = lines
        .values()
        .filter(|line| !line.backlog.is_empty())
        .filter_map(|line| line.frames.as_ref())
        .map(|frames| Box::pin(async move { drop(frames.reserve().await) }));
    let full: Vec<_> = full.collect();
    if full.is_empty() {
        return;
    }
    futures_util::future::select_all(full).await;
}

/// Frames for one relay that did not fit; beyond it the line is ended, and the mind says again on
/// the next one what matters.
pub(super) const BACKLOG_MAX: usize = 16 * FRAMES_MAX;
