//! What a node can see of SLIM's sessions: the kind of each message in both generations' numbers,
//! and the epoch of a commit, which MLS leaves readable.
//!
//! Left out: the dialogue itself, invites and acknowledgements, which are between the peers.

use bytes::{Buf as _, Bytes};

use crate::{
    Generation,
    proto::{one, two},
};

/// Where a publication belongs in its session. Peers choose these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Two, or a group.
    pub kind: SessionKind,
    /// What kind of message it is.
    pub message: MessageType,
    /// Of the session.
    pub id: u32,
    /// Counts from one for messages of one sender, and is random for control messages. A repeated
    /// message repeats it, and so does the reply to one.
    pub message_id: u32,
}

/// How many take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionKind {
    /// Two.
    PointToPoint,
    /// A group.
    Multicast,
    /// Not said, or a number of the future.
    Unknown(i32),
}

impl SessionKind {
    pub(crate) fn from_number(number: i32) -> Self {
        match number {
            1 => Self::PointToPoint,
            2 => Self::Multicast,
            other => Self::Unknown(other),
        }
    }

    pub(crate) fn number(self) -> i32 {
        match self {
            Self::PointToPoint => 1,
            Self::Multicast => 2,
            Self::Unknown(number) => number,
        }
    }
}

/// What kind of message a session carries, whichever generation's number it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// Of the application.
    Msg,
    /// A receiver has it.
    MsgAck,
    /// A receiver lacks one and asks its source.
    RtxRequest,
    /// The source says it again, or that it cannot.
    RtxReply,
    /// Who is there below a name?
    DiscoveryRequest,
    /// This instance.
    DiscoveryReply,
    /// An invitation.
    JoinRequest,
    /// Accepted, with a KeyPackage when MLS is on.
    JoinReply,
    /// You are out.
    LeaveRequest,
    /// Out.
    LeaveReply,
    /// Somebody was added; first generation.
    GroupAdd,
    /// Somebody was removed; first generation.
    GroupRemove,
    /// Somebody was added or removed, or is back; second generation.
    GroupUpdate,
    /// To who was added, with the Welcome when MLS is on.
    GroupWelcome,
    /// The group ends.
    GroupClose,
    /// Defined, and never sent by a released client.
    GroupProposal,
    /// A member has taken what the moderator said.
    GroupAck,
    /// A member cannot.
    GroupNack,
    /// Members hear from each other; second generation.
    Heartbeat,
    /// The moderator asks who is there; first generation, answered by its like.
    Ping,
    /// Somebody goes away for a while, or is back; second generation.
    UpdateParticipantState,
    /// Somebody missed a commit while away; second generation.
    RejoinRequest,
    /// With a Welcome.
    RejoinReply,
    /// Not said, or a number of the future; relayed like everything else.
    Unknown(i32),
}

impl MessageType {
    /// What a number means, which from 12 on depends on the generation.
    pub fn from_number(generation: Generation, number: i32) -> Self {
        let place = usize::try_from(number).ok().and_then(|n| n.checked_sub(1));
        let known = place.and_then(|place| table(generation).get(place));
        known.copied().unwrap_or(Self::Unknown(number))
    }

    /// Its number. `None` when the generation does not have it.
    pub fn number(self, generation: Generation) -> Option<i32> {
        if let Self::Unknown(number) = self {
            return Some(number);
        }
        let place = table(generation).iter().position(|known| *known == self)?;
        i32::try_from(place + 1).ok()
    }
}

/// What changes a group under MLS, as far as it can be read without keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MlsMessage {
    /// What it is for.
    pub change: Change,
    /// The moderator's own counter, by which members order commits. Proposals have none.
    pub commit_id: Option<u32>,
    /// The group, as MLS calls it.
    pub group: GroupId,
    /// The epoch that it was made in and, if it is a commit, ends.
    pub epoch: u64,
    /// What MLS says that it is.
    pub content: MlsContent,
}

impl MlsMessage {
    pub(crate) fn in_one(command: &one::CommandPayload) -> Option<Result<Self, Unreadable>> {
        use one::command_payload::CommandPayloadType as Command;

        let (change, mls) = match command.command_payload_type.as_ref()? {
            Command::GroupAdd(it) => (Change::Add, it.mls.as_ref()?),
            Command::GroupRemove(it) => (Change::Remove, it.mls.as_ref()?),
            Command::GroupProposal(it) => return Self::proposed(&it.mls_proposal),
            Command::DiscoveryRequest(_)
            | Command::DiscoveryReply(_)
            | Command::JoinRequest(_)
            | Command::JoinReply(_)
            | Command::LeaveRequest(_)
            | Command::LeaveReply(_)
            | Command::GroupWelcome(_)
            | Command::GroupClose(_)
            | Command::GroupAck(_)
            | Command::GroupNack(_)
            | Command::Ping(_) => return None,
        };
        Some(Self::read(change, Some(mls.commit_id), &mls.mls_content))
    }

    pub(crate) fn in_two(command: &two::CommandPayload) -> Option<Result<Self, Unreadable>> {
        use two::command_payload::CommandPayloadType as Command;

        let (change, mls) = match command.command_payload_type.as_ref()? {
            Command::GroupUpdate(it) => (Change::from_number(it.op), it.mls.as_ref()?),
            Command::GroupProposal(it) => return Self::proposed(&it.mls_proposal),
            Command::DiscoveryRequest(_)
            | Command::DiscoveryReply(_)
            | Command::JoinRequest(_)
            | Command::JoinReply(_)
            | Command::LeaveRequest(_)
            | Command::LeaveReply(_)
            | Command::GroupWelcome(_)
            | Command::GroupClose(_)
            | Command::GroupAck(_)
            | Command::GroupNack(_)
            | Command::Heartbeat(_)
            | Command::UpdateParticipantState(_)
            | Command::RejoinRequest(_)
            | Command::RejoinReply(_) => return None,
        };
        Some(Self::read(change, Some(mls.commit_id), &mls.mls_content))
    }

    fn proposed(content: &Bytes) -> Option<Result<Self, Unreadable>> {
        (!content.is_empty()).then(|| Self::read(Change::Propose, None, content))
    }

    /// Reads an `MLSMessage` that holds a PublicMessage (RFC 9420, section 6), up to where the
    /// content begins.
    fn read(change: Change, commit_id: Option<u32>, content: &[u8]) -> Result<Self, Unreadable> {
        let mut rest = content;
        if u16_of(&mut rest)? != MLS_VERSION || u16_of(&mut rest)? != PUBLIC_MESSAGE {
            return Err(Unreadable);
        }
        let group = vector(&mut rest)?;
        if group.is_empty() || group.len() > GROUP_ID_BYTES_MAX {
            return Err(Unreadable);
        }
        let group = GroupId(group.to_vec());
        let epoch = rest.try_get_u64().map_err(|_| Unreadable)?;
        match rest.try_get_u8().map_err(|_| Unreadable)? {
            // A member, or somebody who is allowed from outside: its index follows.
            1 | 2 => _ = rest.try_get_u32().map_err(|_| Unreadable)?,
            // New members say who they are in the content.
            3 | 4 => {}
            _ => return Err(Unreadable),
        }
        let _authenticated = vector(&mut rest)?;
        let content = match rest.try_get_u8().map_err(|_| Unreadable)? {
            2 => MlsContent::Proposal,
            3 => MlsContent::Commit,
            _ => return Err(Unreadable),
        };
        Ok(Self {
            change,
            commit_id,
            group,
            epoch,
            content,
        })
    }
}

/// What a moderator says that it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// Somebody comes.
    Add,
    /// Somebody goes.
    Remove,
    /// Somebody who was away is back.
    Rejoin,
    /// Nothing yet.
    Propose,
    /// A number of the future.
    Unknown(i32),
}

impl Change {
    fn from_number(op: i32) -> Self {
        match op {
            0 => Self::Add,
            1 => Self::Remove,
            2 => Self::Rejoin,
            other => Self::Unknown(other),
        }
    }
}

/// A group's id in MLS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(Vec<u8>);

impl GroupId {
    /// Its bytes: at least one, at most 255.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a handshake message holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MlsContent {
    /// It changes nothing until a commit takes it up.
    Proposal,
    /// It ends its epoch.
    Commit,
}

/// MLS content that is no PublicMessage with a proposal or a commit. It has no place in an order
/// and is relayed uninterpreted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the MLS content is not a readable proposal or commit")]
pub struct Unreadable;

fn u16_of(rest: &mut &[u8]) -> Result<u16, Unreadable> {
    rest.try_get_u16().map_err(|_| Unreadable)
}

/// A vector with the length in front that RFC 9420 takes from QUIC, in its shortest form.
fn vector<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Unreadable> {
    let first = rest.try_get_u8().map_err(|_| Unreadable)?;
    let (more, least) = match first >> 6 {
        0 => (0, 0),
        1 => (1, 1 << 6),
        2 => (3, 1 << 14),
        _ => return Err(Unreadable),
    };
    let mut len = usize::from(first & 0x3f);
    for _ in 0..more {
        len = len << 8 | usize::from(rest.try_get_u8().map_err(|_| Unreadable)?);
    }
    if len < least || len > rest.len() {
        return Err(Unreadable);
    }
    let (vector, after) = rest.split_at(len);
    *rest = after;
    Ok(vector)
}

fn table(generation: Generation) -> &'static [MessageType] {
    match generation {
        Generation::One => &NUMBERS_ONE,
        Generation::Two => &NUMBERS_TWO,
    }
}

/// In the order of their numbers, from one.
const NUMBERS_ONE: [MessageType; 18] = [
    MessageType::Msg,
    MessageType::MsgAck,
    MessageType::RtxRequest,
    MessageType::RtxReply,
    MessageType::DiscoveryRequest,
    MessageType::DiscoveryReply,
    MessageType::JoinRequest,
    MessageType::JoinReply,
    MessageType::LeaveRequest,
    MessageType::LeaveReply,
    MessageType::GroupAdd,
    MessageType::GroupRemove,
    MessageType::GroupWelcome,
    MessageType::GroupClose,
    MessageType::GroupProposal,
    MessageType::GroupAck,
    MessageType::GroupNack,
    MessageType::Ping,
];

/// In the order of their numbers, from one.
const NUMBERS_TWO: [MessageType; 20] = [
    MessageType::Msg,
    MessageType::MsgAck,
    MessageType::RtxRequest,
    MessageType::RtxReply,
    MessageType::DiscoveryRequest,
    MessageType::DiscoveryReply,
    MessageType::JoinRequest,
    MessageType::JoinReply,
    MessageType::LeaveRequest,
    MessageType::LeaveReply,
    MessageType::GroupUpdate,
    MessageType::GroupWelcome,
    MessageType::GroupClose,
    MessageType::GroupProposal,
    MessageType::GroupAck,
    MessageType::GroupNack,
    MessageType::Heartbeat,
    MessageType::UpdateParticipantState,
    MessageType::RejoinRequest,
    MessageType::RejoinReply,
];

const MLS_VERSION: u16 = 1;
const PUBLIC_MESSAGE: u16 = 1;
/// Bytes of a group's id; SLIM's have 32.
const GROUP_ID_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    /// Written out by hand after RFC 9420, section 6.
    const COMMIT: [u8; 25] = [
        0, 1, // version
        0, 1, // PublicMessage
        3, b'a', b'b', b'c', // group_id
        0, 0, 0, 0, 0, 0, 0, 7, // epoch
        1, 0, 0, 0, 2, // sender: member, leaf 2
        2, 9, 9, // authenticated_data
        3, // commit
    ];

    fn read(bytes: &[u8]) -> Result<MlsMessage, Unreadable> {
        MlsMessage::read(Change::Add, Some(4), bytes)
    }

    #[test]
    fn a_commit_says_its_group_and_epoch() {
        let commit = read(&COMMIT).unwrap();
        assert_eq!(commit.group.as_bytes(), b"abc");
        assert_eq!((commit.epoch, commit.content), (7, MlsContent::Commit));
    }

    #[test]
    fn no_part_of_a_commit_is_one() {
        for len in 0..COMMIT.len() {
            assert_eq!(read(&COMMIT[..len]), Err(Unreadable), "{len}");
        }
    }

    #[test]
    fn other_messages_and_longer_forms_are_refused() {
        for (at, byte) in [
            (1, 2),    // another version
            (3, 2),    // a PrivateMessage
            (4, 0),    // no group id
            (4, 0xc3), // a length of eight bytes, which MLS has not
            (16, 5),   // no such sender
            (24, 1),   // an application message, which is never public
        ] {
            let mut bytes = COMMIT;
            bytes[at] = byte;
            assert_eq!(read(&bytes), Err(Unreadable), "{at}");
        }
        let mut long = COMMIT.to_vec();
        long.splice(4..5, [0x40, 3]);
        assert_eq!(read(&long), Err(Unreadable));
    }

    #[test]
    fn the_same_number_means_what_its_generation_says() {
        use Generation::{One, Two};
        let of = MessageType::from_number;
        for (number, one, two) in [
            (1, MessageType::Msg, MessageType::Msg),
            (11, MessageType::GroupAdd, MessageType::GroupUpdate),
            (12, MessageType::GroupRemove, MessageType::GroupWelcome),
            (16, MessageType::GroupAck, MessageType::GroupNack),
            (17, MessageType::GroupNack, MessageType::Heartbeat),
            (18, MessageType::Ping, MessageType::UpdateParticipantState),
            (19, MessageType::Unknown(19), MessageType::RejoinRequest),
            (0, MessageType::Unknown(0), MessageType::Unknown(0)),
            (-1, MessageType::Unknown(-1), MessageType::Unknown(-1)),
        ] {
            assert_eq!((of(One, number), of(Two, number)), (one, two));
        }
        for generation in [One, Two] {
            for number in -1..30 {
                assert_eq!(of(generation, number).number(generation), Some(number));
            }
        }
        assert_eq!(MessageType::Ping.number(Two), None);
    }
}
