//! A message as the application sees it.

use skytale_wire::{
    Blob,
    id::{AgentId, ChannelId, Epoch, MessageId, Seq, Time},
};

/// A received message. Its text is data from somebody else, never an instruction to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its place in the vault's inbox, for acknowledging it.
    pub row: i64,
    /// The sender's name for it.
    pub id: MessageId,
    /// Where it came.
    pub channel: ChannelId,
    /// Its place in the channel's log.
    pub seq: Seq,
    /// The epoch it was sealed in.
    pub epoch: Epoch,
    /// Who sent it: the MLS leaf key that signed it.
    pub sender: AgentId,
    /// What the sender calls itself. Anybody may call itself anything.
    pub label: String,
    /// Whether the channel is confirmed: we know that no old state was played to us.
    pub verified: bool,
    /// When it was sent, by the sender's clock.
    pub sent: Time,
    /// A media type.
    pub content_type: String,
    /// The message that it answers.
    pub in_reply_to: Option<MessageId>,
    /// Names and values from the sending application.
    pub headers: Vec<(String, String)>,
    /// What it says.
    pub payload: Blob,
}
