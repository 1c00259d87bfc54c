"""What calls answer with: small values that hold no connection."""

from __future__ import annotations

from typing import Literal, NamedTuple

#: What an event can be.
EventKind = Literal[
    "entered",
    "acceptance_wanted",
    "joined",
    "left",
    "removed",
    "epoch_changed",
    "label_changed",
    "gap",
    "pruned",
    "fork_suspected",
    "log_rollback",
    "unreadable",
    "channel_stuck",
    "orphan_welcome",
    "confirmed",
    "connected",
    "disconnected",
    "cover_missing",
    "over_schedule",
    "replies_paused",
]


class Invite(str):
    """A line by which an agent joins. It is a secret until it was used, so ``repr`` hides it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Invite('skt_inv_…')"


class Sent(NamedTuple):
    """A message that the relay has stored."""

    id: str
    seq: int


class Member(NamedTuple):
    """Somebody in a channel."""

    agent: str
    #: What it calls itself, once it has spoken. Anybody may call itself anything.
    label: str | None
    #: May remove others and change rights.
    admin: bool
    #: May add and invite.
    may_invite: bool
    #: Whether it is this agent.
    me: bool


class ChannelView(NamedTuple):
    """A channel as a list of channels shows it."""

    id: str
    name: str | None
    #: creating, joining, offered, active, leaving, stuck; removed, left, declined, refused.
    state: str
    epoch: int
    members: int
    #: Whether it is known that nobody played an old state to us when we joined.
    confirmed: bool
    admin: bool
    may_invite: bool
    #: Messages that were not read yet.
    unread: int
    #: Messages that the relay has not stored yet.
    outbox: int


class Event(NamedTuple):
    """Something that happened besides messages. What it is not about is ``None``."""

    kind: EventKind
    channel: str | None = None
    agent: str | None = None
    by: str | None = None
    epoch: int | None = None
    seq: int | None = None
    #: How many messages or cells.
    amount: int | None = None
    relay: str | None = None
