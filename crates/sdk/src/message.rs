//! A received message, and what can be made into one to send.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use skytale_agent::{Draft, TEXT};
use skytale_wire::{
    frame::PAYLOAD_BYTES_MAX,
    id::{AgentId, Epoch, MessageId, Seq, Time},
};

use crate::{
    channel::{Channel, Sent},
    error::Error,
};

/// A received message. What it says is data from somebody else, never an instruction to us.
#[derive(Clone)]
pub struct Message {
    inner: skytale_agent::Message,
    channel: Channel,
    reader: String,
    /// Shared with the loop that gave it out, so that it is not marked twice.
    taken: Arc<AtomicBool>,
}

impl Message {
    pub(crate) fn new(inner: skytale_agent::Message, channel: Channel, reader: String) -> Self {
        Self {
            inner,
            channel,
            reader,
            taken: Arc::new(AtomicBool::new(false)),
        }
    }

    /// One that was marked as taken for this reader.
    pub(crate) fn taken(inner: skytale_agent::Message, channel: Channel, reader: String) -> Self {
        let message = Self::new(inner, channel, reader);
        message.taken.store(true, Ordering::Relaxed);
        message
    }

    /// Who sent it: the key that signed it.
    pub fn sender(&self) -> AgentId {
        self.inner.sender
    }

    /// What the sender calls itself. Anybody may call itself anything.
    pub fn label(&self) -> &str {
        &self.inner.label
    }

    /// What it says, when that is text.
    pub fn text(&self) -> Result<&str, Error> {
        std::str::from_utf8(&self.inner.payload).map_err(|_| {
            Error::misuse(format!(
                "this message is not text but {:?}: use its payload",
                self.inner.content_type
            ))
        })
    }

    /// What it says, as bytes.
    pub fn payload(&self) -> &[u8] {
        &self.inner.payload
    }

    /// The sender's name for it. The same again means the same message again.
    pub fn id(&self) -> MessageId {
        self.inner.id
    }

    /// Its place in the channel.
    pub fn seq(&self) -> Seq {
        self.inner.seq
    }

    /// The epoch it was sealed in.
    pub fn epoch(&self) -> Epoch {
        self.inner.epoch
    }

    /// Where it came.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether the channel is confirmed: we know that no old state was played to us when we
    /// joined.
    pub fn verified(&self) -> bool {
        self.inner.verified
    }

    /// When it was sent, by the sender's clock.
    pub fn sent(&self) -> Time {
        self.inner.sent
    }

    /// A media type, such as `text/plain`.
    pub fn content_type(&self) -> &str {
        &self.inner.content_type
    }

    /// The message that it answers.
    pub fn in_reply_to(&self) -> Option<MessageId> {
        self.inner.in_reply_to
    }

    /// Names and values from the sending application.
    pub fn headers(&self) -> &[(String, String)] {
        &self.inner.headers
    }

    /// Its place in this vault, for [`Channel::look`].
    pub fn row(&self) -> i64 {
        self.inner.row
    }

    /// Answers it, in its channel.
    pub async fn reply(&self, what: impl IntoDraft) -> Result<Sent, Error> {
        let mut draft = what.into_draft();
        draft.in_reply_to = Some(self.inner.id);
        self.channel.send(draft).await
    }

    /// It has been dealt with, durably: this reader is not shown it again. Asking for the next
    /// message says the same a little later.
    pub async fn ack(&self) -> Result<(), Error> {
        if self.is_taken() {
            return Ok(());
        }
        let inner = self.channel.inner();
        inner.check_process()?;
        let stored = inner
            .shelf()?
            .room()
            .await?
            .acknowledge_now(self.reader.clone(), self.inner.row);
        stored.await.map_err(|_| Error::closed())??;
        self.taken.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// It has been dealt with, as asking a loop for the next message says it: stored within
    /// milliseconds, together with others.
    pub async fn pass(&self) -> Result<(), Error> {
        let inner = self.channel.inner();
        inner.check_process()?;
        let shelf = inner.shelf()?;
        let room = shelf.room().await?;
        if !self.is_taken() {
            room.acknowledge(self.reader.clone(), self.inner.row);
        }
        Ok(())
    }

    /// The same without waiting. False when there is no room for it at the moment, and nothing was
    /// said.
    pub fn try_pass(&self) -> Result<bool, Error> {
        let inner = self.channel.inner();
        inner.check_process()?;
        let shelf = inner.shelf()?;
        let Some(room) = shelf.try_room()? else {
            return Ok(false);
        };
        if !self.is_taken() {
            room.acknowledge(self.reader.clone(), self.inner.row);
        }
        Ok(true)
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed)
    }

    pub(crate) fn reader(&self) -> &str {
        &self.reader
    }
}

/// What it says is not shown.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.inner.id)
            .field("seq", &self.inner.seq)
            .field("sender", &self.inner.sender)
            .finish_non_exhaustive()
    }
}

/// What can be sent: text, bytes, or a [`Draft`] with content type, reply-to and headers.
pub trait IntoDraft {
    /// The message to be.
    fn into_draft(self) -> Draft;
}

impl IntoDraft for Draft {
    fn into_draft(self) -> Draft {
        self
    }
}

impl IntoDraft for &str {
    fn into_draft(self) -> Draft {
        Draft::text(self)
    }
}

impl IntoDraft for &String {
    fn into_draft(self) -> Draft {
        Draft::text(self)
    }
}

impl IntoDraft for String {
    fn into_draft(self) -> Draft {
        Draft {
            content_type: TEXT.to_owned(),
            payload: self.into_bytes().into(),
            ..Draft::default()
        }
    }
}

impl IntoDraft for Vec<u8> {
    fn into_draft(self) -> Draft {
        Draft {
            content_type: BYTES.to_owned(),
            payload: self.into(),
            ..Draft::default()
        }
    }
}

impl IntoDraft for &[u8] {
    fn into_draft(self) -> Draft {
        self.to_vec().into_draft()
    }
}

/// Refuses what no relay would take, before anything is stored or sent.
pub(crate) fn check_size(draft: &Draft) -> Result<(), Error> {
    let len = draft.payload.len();
    if len > PAYLOAD_BYTES_MAX {
        return Err(Error::misuse(format!(
            "this message has {len} bytes, and a message may have {PAYLOAD_BYTES_MAX}: split it, or send where it can be fetched"
        )));
    }
    Ok(())
}

const BYTES: &str = "application/octet-stream";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_become_drafts_of_their_kind() {
        assert_eq!("hi".into_draft(), String::from("hi").into_draft());
        assert_eq!("hi".into_draft().content_type, "text/plain");
        let bytes = vec![0, 159].into_draft();
        assert_eq!(bytes.content_type, "application/octet-stream");
        assert_eq!(&bytes.payload[..], [0, 159]);
    }

    #[test]
    fn a_message_over_the_limit_is_refused_and_the_limit_said() {
        check_size(&vec![0; PAYLOAD_BYTES_MAX].into_draft()).unwrap();

        let error = check_size(&vec![0; PAYLOAD_BYTES_MAX + 1].into_draft()).unwrap_err();

        assert!(error.to_string().contains("262144"), "{error}");
    }
}
