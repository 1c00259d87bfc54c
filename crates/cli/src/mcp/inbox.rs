//! What `receive` reads from: the messages of one channel, handed out in portions.
//!
//! A portion counts as read when the next one is asked for, and not before: if this process dies in
//! between, or the client gives up a call whose answer it has not seen, the same messages come again
//! with the same ids.

use std::{collections::VecDeque, time::Duration};

use futures_util::future::try_join_all;
use rmcp::model::RequestId;
use skytale_sdk::{Channel, Message, Messages};
use tokio::time::timeout;

use crate::exit::Failure;

/// One channel's.
pub(super) struct Inbox {
    messages: Messages,
    /// The last portion, and the call that it answered.
    shown: Vec<Message>,
    shown_to: Option<RequestId>,
    /// Fetched, and not part of a portion yet.
    kept: VecDeque<Message>,
}

/// What a call gets.
pub(super) enum Portion {
    Messages(Vec<Message>),
    /// Nothing came in time.
    Nothing,
    /// The agent is no longer in the channel, and nothing is left.
    Over,
}

impl Inbox {
    pub(super) fn of(channel: &Channel) -> Self {
        Self {
            messages: channel.messages(),
            shown: Vec::new(),
            shown_to: None,
            kept: VecDeque::new(),
        }
    }

    /// The next portion, of `most` messages at most. `unseen` says of a call whether its answer was
    /// given up. May be cancelled.
    pub(super) async fn next(
        &mut self,
        call: &RequestId,
        most: usize,
        limit: Duration,
        unseen: impl Fn(&RequestId) -> bool,
    ) -> Result<Portion, Failure> {
        if self.shown_to.as_ref().is_some_and(unseen) {
            self.shown_to = Some(call.clone());
            return Ok(Portion::Messages(self.shown.clone()));
        }
        try_join_all(self.shown.iter().map(Message::ack)).await?;
        self.shown.clear();
        self.shown_to = None;

        if self.kept.is_empty() {
            // Nothing is lost when the time is up in the middle.
            match timeout(limit, self.messages.next_batch()).await {
                Ok(batch) => match batch? {
                    Some(batch) => self.kept.extend(batch),
                    None => return Ok(Portion::Over),
                },
                Err(_) => return Ok(Portion::Nothing),
            }
        }
        let lengths = self.kept.iter().map(|message| message.payload().len());
        let count = fitting(lengths, most);
        self.shown.extend(self.kept.drain(..count));
        self.shown_to = Some(call.clone());
        Ok(Portion::Messages(self.shown.clone()))
    }
}

/// How many of these go into one portion: one in any case, however long it is.
fn fitting(lengths: impl Iterator<Item = usize>, most: usize) -> usize {
    let mut bytes: usize = 0;
    let fits = lengths
        .enumerate()
        .take(most.max(1))
        .take_while(|(place, len)| {
            bytes = bytes.saturating_add(*len);
            *place == 0 || bytes <= PORTION_BYTES_MAX
        });
    fits.count()
}

/// What messages of one portion may say together. Clients cut off answers that are longer than some
/// ten thousand words; what does not fit comes with the next call.
const PORTION_BYTES_MAX: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portion_has_an_end_but_is_never_empty() {
        assert_eq!(fitting([10; 5].into_iter(), 3), 3);
        assert_eq!(fitting([10; 2].into_iter(), 3), 2);
        assert_eq!(fitting([PORTION_BYTES_MAX + 1, 1].into_iter(), 3), 1);
        assert_eq!(fitting([PORTION_BYTES_MAX, 1, 1].into_iter(), 3), 1);
        assert_eq!(fitting([10; 5].into_iter(), 0), 1);
    }
}
