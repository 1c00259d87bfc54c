//! Frames: what an agent and a relay say to each other over one connection.
//!
//! A frame is a CBOR array `[kind, [map]]`; maps have integer keys, and unknown keys are skipped,
//! so that both sides can grow. Numbers 5, 6 and 15 of [`ToRelay`] are kept free for Restart,
//! Rejoin and Verdict. How frames are cut into cells on the line is `skytale-shape`'s business.

use minicbor::{Decode, Encode};

use crate::{
    Blob,
    envelope::Place,
    id::{AgentId, ChannelId, Digest, Epoch, InviteId, MessageId, Seq, Signed, SlimInstance, Time},
    refusal::Refusal,
    statement,
};

/// Version of this protocol, said in the first frame.
pub const PROTOCOL: u16 = 1;
/// ALPN of the native QUIC protocol.
pub const ALPN: &[u8] = b"skytale/1";
/// Bytes that an encoded frame may have. A commit with Welcomes for a thousand members fits.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that the application may put into one message.
pub const PAYLOAD_BYTES_MAX: usize = 262_144;
/// Bytes that the sealed body of one application message may have: the largest payload with its
/// headers, padded by Padmé and sealed.
pub const BODY_BYTES_MAX: usize = 320 * 1024;
/// Agents that one commit may add: adding is quadratic in MLS.
pub const ADDS_MAX: usize = 500;
/// Invites that may be open in a channel at once.
pub const INVITES_MAX: usize = 16;
/// KeyPackages that one upload may carry.
pub const KEY_PACKAGES_MAX: usize = 100;
/// Bytes of one KeyPackage.
pub const KEY_PACKAGE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a SLIM message that a native agent sends or gets: the rest of its frame fits beside
/// it. SLIM's own clients take larger ones from each other.
pub const SLIM_MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX - 1024;
/// Logs that one `SlimLogs` lists.
pub const SLIM_LOGS_MAX: usize = 1000;

/// From an agent to the relay.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[allow(
    missing_docs,
    reason = "each variant is documented on the struct that it carries"
)]
pub enum ToRelay {
    #[n(0)]
    Hello(#[n(0)] Hello),
    #[n(1)]
    Create(#[n(0)] Create),
    #[n(2)]
    Publish(#[n(0)] Publish),
    #[n(3)]
    Commit(#[n(0)] Commit),
    #[n(4)]
    Leave(#[n(0)] Leave),
    #[n(7)]
    Subscribe(#[n(0)] Subscribe),
    #[n(8)]
    PutKeyPackages(#[n(0)] PutKeyPackages),
    #[n(9)]
    TakeKeyPackage(#[n(0)] TakeKeyPackage),
    #[n(10)]
    TakeWelcome(#[n(0)] TakeWelcome),
    #[n(11)]
    Welcomed(#[n(0)] Welcomed),
    #[n(12)]
    TakeGroupInfo(#[n(0)] TakeGroupInfo),
    #[n(13)]
    WantGroupInfo(#[n(0)] WantGroupInfo),
    #[n(14)]
    SealGroupInfo(#[n(0)] SealGroupInfo),
    #[n(16)]
    Seen(#[n(0)] Seen),
    #[n(17)]
    Renew(#[n(0)] Renew),
    #[n(18)]
    Ping(#[n(0)] Ping),
    #[n(19)]
    SlimSubscribe(#[n(0)] SlimSubscribe),
    #[n(20)]
    SlimUnsubscribe(#[n(0)] SlimUnsubscribe),
    #[n(21)]
    SlimPublish(#[n(0)] SlimPublish),
    #[n(22)]
    TakeSlimLogs(#[n(0)] TakeSlimLogs),
}

/// From the relay to an agent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[allow(
    missing_docs,
    reason = "each variant is documented on the struct that it carries"
)]
pub enum ToAgent {
    #[n(0)]
    Ready(#[n(0)] Ready),
    #[n(1)]
    Created(#[n(0)] Created),
    #[n(2)]
    Published(#[n(0)] Published),
    #[n(3)]
    Ack(#[n(0)] Ack),
    #[n(4)]
    Nack(#[n(0)] Nack),
    #[n(5)]
    Subscribed(#[n(0)] Subscribed),
    #[n(6)]
    Deliver(#[n(0)] Deliver),
    #[n(7)]
    Pruned(#[n(0)] Pruned),
    #[n(8)]
    KeyPackagesKept(#[n(0)] KeyPackagesKept),
    #[n(9)]
    KeyPackage(#[n(0)] KeyPackage),
    #[n(10)]
    Welcome(#[n(0)] Welcome),
    #[n(11)]
    GroupInfo(#[n(0)] GroupInfo),
    #[n(12)]
    GroupInfoWanted(#[n(0)] GroupInfoWanted),
    #[n(13)]
    Renewed(#[n(0)] Renewed),
    #[n(14)]
    Pong(#[n(0)] Pong),
    #[n(15)]
    Closing(#[n(0)] Closing),
    #[n(16)]
    SlimSubscribed(#[n(0)] SlimSubscribed),
    #[n(17)]
    SlimPublished(#[n(0)] SlimPublished),
    #[n(18)]
    SlimDeliver(#[n(0)] SlimDeliver),
    #[n(19)]
    SlimLogs(#[n(0)] SlimLogs),
}

/// First frame of a connection. Anything else before it closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// [`PROTOCOL`] of the speaker.
    #[n(0)]
    pub version: u16,
    /// Who speaks.
    #[n(1)]
    pub agent: AgentId,
    /// What it may do here.
    #[n(2)]
    pub credential: Credential,
    /// By the identity key, over [`statement::identity`].
    #[n(3)]
    pub proof: Signed,
    /// How the line shall be shaped. Without a wish both directions stay padded, and whoever has
    /// one says nothing more until Ready has answered it.
    #[n(4)]
    pub traffic: Option<Traffic>,
}

/// How both directions of a connection are shaped, from the first cell after Hello and after Ready
/// on. Plain numbers, as they came: what they may be is `skytale-shape`'s business, and each end
/// checks them at its door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Traffic {
    /// From the agent to the relay.
    #[n(0)]
    pub to_relay: Line,
    /// From the relay to the agent.
    #[n(1)]
    pub to_agent: Line,
}

/// How one direction is shaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Line {
    /// 0 padded, 1 immediate, 2 adaptive, 3 constant: the higher, the stricter.
    #[n(0)]
    pub mode: u8,
    /// The mean rate, in thousandths of a slot a second.
    #[n(1)]
    pub millislots: u32,
    /// The length of every cell where there are slots, in bytes.
    #[n(2)]
    pub cell: u32,
    /// Slots that a silence may bank for a burst.
    #[n(3)]
    pub bank: u32,
    /// Whether a frame may leave beside the schedule.
    #[n(4)]
    pub bulk_now: bool,
}

/// What lets an agent in.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Credential {
    /// An account's token, bound to this connection's key.
    #[n(0)]
    Token(#[n(0)] String),
    /// A guest that holds an invite: the permit covers that channel only.
    #[n(1)]
    Invite(#[n(0)] GuestProof),
    /// A guest that joined before: the permit covers the channels whose roster names it.
    #[n(2)]
    Member,
}

impl Credential {
    /// The hash that the identity proof signs.
    pub fn hash(&self) -> Digest {
        match self {
            Self::Token(token) => statement::credential_hash(Some(token)),
            Self::Invite(_) | Self::Member => statement::credential_hash(None),
        }
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(…)",
            Self::Invite(_) => "Invite(…)",
            Self::Member => "Member",
        })
    }
}

/// Shows that a guest holds an invite line.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GuestProof {
    /// Where the invite leads.
    #[n(0)]
    pub channel: ChannelId,
    /// Which invite.
    #[n(1)]
    pub invite: InviteId,
    /// By the invite's signing key, over [`statement::guest`].
    #[n(2)]
    pub signature: Signed,
}

/// Answer to Hello: the connection is open.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ready {
    /// [`PROTOCOL`] of the relay.
    #[n(0)]
    pub version: u16,
    /// The relay's clock, for `doctor`.
    #[n(1)]
    pub now: Time,
    /// When the permit ends unless it is renewed.
    #[n(2)]
    pub expires: Time,
    /// Largest sealed body that it takes, in bytes.
    #[n(3)]
    pub body_bytes_max: u32,
    /// KeyPackages that it still holds for this agent, the last-resort one not counted.
    #[n(4)]
    pub key_packages: u32,
    /// Welcomes that wait in the mailbox.
    #[n(5)]
    pub welcomes: u32,
    /// Whether it holds a last-resort KeyPackage.
    #[n(6)]
    pub last_resort: bool,
    /// What holds for the line, when Hello had a wish: never less strict than that.
    #[n(7)]
    pub traffic: Option<Traffic>,
    /// Largest SLIM message that it takes from this agent, in bytes. Absent from a relay that knows
    /// no SLIM: such a one closes the connection at the first frame about it.
    #[n(8)]
    pub slim_bytes_max: Option<u32>,
}

/// Registers a channel with its creator as the only member and admin, at epoch 0.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Create {
    /// A fresh random id.
    #[n(0)]
    pub channel: ChannelId,
    /// Names this request.
    #[n(1)]
    pub id: MessageId,
}

/// The channel is registered, durably.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Created {
    /// Which.
    #[n(0)]
    pub channel: ChannelId,
    /// Which request.
    #[n(1)]
    pub id: MessageId,
}

/// An application message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Publish {
    /// Where.
    #[n(0)]
    pub channel: ChannelId,
    /// Names it; the same id again gets the same answer.
    #[n(1)]
    pub id: MessageId,
    /// The epoch it was sealed in; refused when another is current.
    #[n(2)]
    pub epoch: Epoch,
    /// An MLS PrivateMessage.
    #[n(3)]
    pub body: Blob,
    /// Whether the sender begins again here. After the relay has refused a message of a connection
    /// for the moment, it refuses the ones behind it too, until one says this: so what one
    /// sender says keeps its order.
    #[n(4)]
    pub resumes: bool,
}

/// The message is stored and has a place.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Published {
    /// Where.
    #[n(0)]
    pub channel: ChannelId,
    /// Which message.
    #[n(1)]
    pub id: MessageId,
    /// Its place.
    #[n(2)]
    pub seq: Seq,
}

/// A commit with everything that must happen in the same write.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Commit {
    /// Where.
    #[n(0)]
    pub channel: ChannelId,
    /// Names it.
    #[n(1)]
    pub id: MessageId,
    /// The epoch that it ends.
    #[n(2)]
    pub epoch: Epoch,
    /// The MLS message: a PrivateMessage, or a PublicMessage for an external commit.
    #[n(3)]
    pub body: Blob,
    /// The encoded [`crate::envelope::RosterChange`]; its exact bytes are stored and hashed.
    #[n(4)]
    pub change: Blob,
    /// For the agents that are added.
    #[n(5)]
    pub welcomes: Vec<WelcomeFor>,
    /// The next epoch's GroupInfo, sealed to each invite that is open afterwards.
    #[n(6)]
    pub sealed: Option<Sealed>,
    /// For an external commit: by which invite.
    #[n(7)]
    pub join: Option<JoinProof>,
}

/// One Welcome and whom it lets in.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct WelcomeFor {
    /// The agents that it is for.
    #[n(0)]
    pub agents: Vec<AgentId>,
    /// The MLS Welcome, with the ratchet tree.
    #[n(1)]
    pub body: Blob,
}

/// A GroupInfo encrypted once under a random key, which is sealed to each open invite.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Sealed {
    /// The encrypted GroupInfo.
    #[n(0)]
    pub ciphertext: Blob,
    /// The key, once for each invite.
    #[n(1)]
    pub keys: Vec<SealedKey>,
}

/// The GroupInfo's key for the holder of one invite.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SealedKey {
    /// For which invite.
    #[n(0)]
    pub invite: InviteId,
    /// HPKE output, encapsulated key first.
    #[n(1)]
    pub sealed: Blob,
}

/// Shows the relay that an external commit was made by the holder of an open invite.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct JoinProof {
    /// The MLS group id that is joined.
    #[n(0)]
    pub group: Digest,
    /// Hash of the GroupContext that the commit builds on.
    #[n(1)]
    pub context: Digest,
    /// By which invite.
    #[n(2)]
    pub invite: InviteId,
    /// By the invite's signing key, over [`statement::join`].
    #[n(3)]
    pub signature: Signed,
}

/// A commit or leave is stored at this place.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ack {
    /// Where.
    #[n(0)]
    pub channel: ChannelId,
    /// Which.
    #[n(1)]
    pub id: MessageId,
    /// Its place.
    #[n(2)]
    pub seq: Seq,
}

/// A request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Nack {
    /// Which request; all zero when the relay could not tell.
    #[n(0)]
    pub id: MessageId,
    /// Where, when it was about a channel.
    #[n(1)]
    pub channel: Option<ChannelId>,
    /// Why.
    #[n(2)]
    pub refusal: Refusal,
    /// The channel's current epoch, for members only.
    #[n(3)]
    pub epoch: Option<Epoch>,
    /// The commit that took the epoch, after [`Refusal::StaleEpoch`] of a commit.
    #[n(4)]
    pub winner: Option<Place>,
}

/// A member's departure, effective for the relay at once.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Leave {
    /// Where.
    #[n(0)]
    pub channel: ChannelId,
    /// Names it.
    #[n(1)]
    pub id: MessageId,
    /// What all members will read.
    #[n(2)]
    pub statement: statement::Leave,
    /// How far the agent has read. It says which stay is ended: a leave that was overtaken by a
    /// removal does not end the stay that began after it.
    #[n(3)]
    pub cursor: Seq,
}

/// Asks for everything after a cursor, and then for what comes live.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Subscribe {
    /// Where.
    #[n(0)]
    pub channel: ChannelId,
    /// Names this request.
    #[n(1)]
    pub id: MessageId,
    /// The last place that the agent has processed.
    #[n(2)]
    pub after: Seq,
}

/// Answer to Subscribe, before the first Deliver.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Subscribed {
    /// Where.
    #[n(0)]
    pub channel: ChannelId,
    /// Which request.
    #[n(1)]
    pub id: MessageId,
    /// The channel's epoch.
    #[n(2)]
    pub epoch: Epoch,
    /// The newest place that this agent may read. Below the agent's cursor, the log was rewound.
    #[n(3)]
    pub head: Seq,
    /// The log hash at `after`, when the relay still has it.
    #[n(4)]
    pub hash: Option<Digest>,
    /// Where the relay begins: beyond the cursor that was asked for when the agent has been
    /// removed and added again since.
    #[n(5)]
    pub after: Seq,
}

/// One record of the log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Deliver {
    /// Where.
    #[n(0)]
    pub channel: ChannelId,
    /// Its place.
    #[n(1)]
    pub seq: Seq,
    /// An encoded [`crate::envelope::Envelope`], the same bytes for every member.
    #[n(2)]
    pub record: Blob,
}

/// Application messages up to here are gone; stubs follow where the log hash needs them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Pruned {
    /// Where.
    #[n(0)]
    pub channel: ChannelId,
    /// The last place whose body retention has dropped.
    #[n(1)]
    pub up_to: Seq,
}

/// New KeyPackages for the relay to hand out, each once.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PutKeyPackages {
    /// Names this request.
    #[n(0)]
    pub id: MessageId,
    /// MLS KeyPackages.
    #[n(1)]
    pub packages: Vec<Blob>,
    /// Replaces the package that is handed out when the others are used up.
    #[n(2)]
    pub last_resort: Option<Blob>,
}

/// The upload is stored.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeyPackagesKept {
    /// Which request.
    #[n(0)]
    pub id: MessageId,
    /// How many there are now, the last-resort one not counted.
    #[n(1)]
    pub key_packages: u32,
}

/// Asks for one KeyPackage of somebody, for good.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TakeKeyPackage {
    /// Names this request.
    #[n(0)]
    pub id: MessageId,
    /// Whose.
    #[n(1)]
    pub agent: AgentId,
}

/// A KeyPackage, taken off the relay's store.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeyPackage {
    /// Which request.
    #[n(0)]
    pub id: MessageId,
    /// Whose, by the relay's word; the package's key must be this id.
    #[n(1)]
    pub agent: AgentId,
    /// The MLS KeyPackage.
    #[n(2)]
    pub package: Blob,
}

/// Asks for the Welcomes that wait.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TakeWelcome {}

/// A Welcome, kept by the relay until [`Welcomed`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    /// The commit's id, which names the Welcome too.
    #[n(0)]
    pub id: MessageId,
    /// Where it leads.
    #[n(1)]
    pub channel: ChannelId,
    /// The commit's place: the joiner reads from the next one on.
    #[n(2)]
    pub seq: Seq,
    /// The MLS Welcome.
    #[n(3)]
    pub body: Blob,
    /// Who added, by the relay's word; compared with the GroupInfo's signer.
    #[n(4)]
    pub by: AgentId,
    /// The log hash at `seq`, where the joiner's own hash begins.
    #[n(5)]
    pub hash: Digest,
}

/// The Welcome has been dealt with, durably.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Welcomed {
    /// Where it led.
    #[n(0)]
    pub channel: ChannelId,
    /// Which.
    #[n(1)]
    pub id: MessageId,
}

/// Asks for the sealed GroupInfo of an invite's channel.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TakeGroupInfo {
    /// Names this request.
    #[n(0)]
    pub id: MessageId,
    /// Where the invite leads.
    #[n(1)]
    pub channel: ChannelId,
    /// Which invite.
    #[n(2)]
    pub invite: InviteId,
}

/// The sealed GroupInfo and where its epoch begins.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GroupInfo {
    /// Which request.
    #[n(0)]
    pub id: MessageId,
    /// Where.
    #[n(1)]
    pub channel: ChannelId,
    /// The epoch that it describes.
    #[n(2)]
    pub epoch: Epoch,
    /// The encrypted GroupInfo.
    #[n(3)]
    pub ciphertext: Blob,
    /// Its key, sealed to this invite.
    #[n(4)]
    pub key: Blob,
}

/// The sealed GroupInfo could not be opened: asks online members to seal afresh.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct WantGroupInfo {
    /// Names this request.
    #[n(0)]
    pub id: MessageId,
    /// Where.
    #[n(1)]
    pub channel: ChannelId,
    /// For which invite.
    #[n(2)]
    pub invite: InviteId,
}

/// Passes a joiner's wish on to members that are online.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GroupInfoWanted {
    /// Where.
    #[n(0)]
    pub channel: ChannelId,
}

/// A member seals the current GroupInfo afresh.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SealGroupInfo {
    /// Names this request.
    #[n(0)]
    pub id: MessageId,
    /// Where.
    #[n(1)]
    pub channel: ChannelId,
    /// The epoch that it describes; ignored when it is not the current one.
    #[n(2)]
    pub epoch: Epoch,
    /// The sealed GroupInfo.
    #[n(3)]
    pub sealed: Sealed,
}

/// The agent's cursor, so that retention knows which commits everybody has passed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Seen {
    /// Where.
    #[n(0)]
    pub channel: ChannelId,
    /// The last place processed.
    #[n(1)]
    pub seq: Seq,
}

/// A new token on a living connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Renew {
    /// Names this request.
    #[n(0)]
    pub id: MessageId,
    /// What the agent may do from now on.
    #[n(1)]
    pub credential: Credential,
    /// By the identity key, over [`statement::identity`].
    #[n(2)]
    pub proof: Signed,
}

/// The permit now ends later.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Renewed {
    /// Which request.
    #[n(0)]
    pub id: MessageId,
    /// When the permit ends.
    #[n(1)]
    pub expires: Time,
}

/// Asks whether the relay is there.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ping {
    /// Names this request.
    #[n(0)]
    pub id: MessageId,
}

/// It is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Pong {
    /// Which request.
    #[n(0)]
    pub id: MessageId,
}

/// The last frame of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Closing {
    /// Why.
    #[n(0)]
    pub refusal: Refusal,
    /// Whether connecting again makes sense: cursors resume where they were.
    #[n(1)]
    pub resume: bool,
}

/// A name of SLIM, as SLIM routes by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(map)]
pub struct SlimName {
    /// Hashes of organisation, namespace and name.
    #[n(0)]
    pub components: [u64; 3],
    /// Which holder of it. Absent, it means any one as a destination, and as a subscription what
    /// is sent to any.
    #[n(1)]
    pub instance: Option<SlimInstance>,
}

/// Asks for what SLIM's clients of both generations send to a name.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SlimSubscribe {
    /// Names this request.
    #[n(0)]
    pub id: MessageId,
    /// To what.
    #[n(1)]
    pub name: SlimName,
    /// Reads the name's log from behind this place, and goes on with each record as it is stored.
    /// Absent, only what comes from now on is delivered, and nothing is repeated for a line that
    /// had no room for it.
    #[n(2)]
    pub after: Option<Seq>,
}

/// Answer to `SlimSubscribe`, before the first `SlimDeliver`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SlimSubscribed {
    /// Which request.
    #[n(0)]
    pub id: MessageId,
    /// The last place of the name's log; zero while it has none. Below the agent's cursor, the log
    /// was forgotten and begins anew.
    #[n(1)]
    pub head: Seq,
    /// Messages up to here are gone.
    #[n(2)]
    pub pruned: Seq,
}

/// Ends a subscription to a SLIM name. Has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SlimUnsubscribe {
    /// To what.
    #[n(0)]
    pub name: SlimName,
}

/// A SLIM message of an agent, whole: its header says where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SlimPublish {
    /// Names this request.
    #[n(0)]
    pub id: MessageId,
    /// Which of SLIM's wires it is written in: 1 or 2.
    #[n(1)]
    pub generation: u8,
    /// SLIM's protobuf of a publication. It needs no MAC.
    #[n(2)]
    pub message: Blob,
}

/// The relay has dealt with a `SlimPublish`: whoever was subscribed gets it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SlimPublished {
    /// Which request.
    #[n(0)]
    pub id: MessageId,
    /// Its place in the log of its destination. Absent when it is of a kind that is not stored, or
    /// the relay keeps no log of that name.
    #[n(1)]
    pub seq: Option<Seq>,
}

/// A SLIM message for an agent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SlimDeliver {
    /// Where it was sent.
    #[n(0)]
    pub name: SlimName,
    /// Its place in the log of that name, if it has one. Places between that are missing were
    /// larger than a frame.
    #[n(1)]
    pub seq: Option<Seq>,
    /// Which of SLIM's wires it is written in: 1 or 2.
    #[n(2)]
    pub generation: u8,
    /// The bytes as they came from the sender.
    #[n(3)]
    pub message: Blob,
}

/// Asks which holders of a SLIM name have a log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TakeSlimLogs {
    /// Names this request.
    #[n(0)]
    pub id: MessageId,
    /// Hashes of organisation, namespace and name.
    #[n(1)]
    pub components: [u64; 3],
    /// Begins behind this one; absent, at the first.
    #[n(2)]
    pub after: Option<SlimInstance>,
}

/// Logs of a SLIM name, in the order of their instances: at most [`SLIM_LOGS_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SlimLogs {
    /// Which request.
    #[n(0)]
    pub id: MessageId,
    /// The logs. As many as there may be says that more may follow.
    #[n(1)]
    pub logs: Vec<SlimLog>,
}

/// The log of one holder of a SLIM name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SlimLog {
    /// Which; absent for what was sent to any.
    #[n(0)]
    pub instance: Option<SlimInstance>,
    /// Its last place.
    #[n(1)]
    pub head: Seq,
    /// Messages up to here are gone.
    #[n(2)]
    pub pruned: Seq,
}

/// What came from a peer is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Longer than the limit for its kind; nothing was decoded.
    #[error("{len} bytes where at most {max} are allowed")]
    TooLarge {
        /// What came.
        len: usize,
        /// What may come.
        max: usize,
    },
    /// Not the CBOR that it should be.
    #[error("not a valid encoding: {0}")]
    Encoding(String),
    /// Complete, but more bytes follow.
    #[error("{0} bytes after the end")]
    Trailing(usize),
}

/// Encodes anything of this crate. Cannot fail: the buffer grows.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory cannot fail")
}

/// Decodes a whole value of at most `max` bytes, refusing bytes after its end.
///
/// What is allocated grows with the size of `bytes`, never with a number that stands inside: a
/// list of empty items takes the most, about thirty bytes for each byte that came.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8], max: usize) -> Result<T, Malformed> {
    if bytes.len() > max {
        return Err(Malformed::TooLarge {
            len: bytes.len(),
            max,
        });
    }
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder
        .decode()
        .map_err(|error| Malformed::Encoding(error.to_string()))?;
    match bytes.len() - decoder.position() {
        0 => Ok(value),
        trailing => Err(Malformed::Trailing(trailing)),
    }
}
