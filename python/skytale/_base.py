"""What agents, channels and messages are, however they are waited for.

``skytale`` awaits and ``skytale.sync`` blocks; both stand on these classes, which never wait.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from skytale import _arguments, _core
from skytale.errors import Denied, Misuse
from skytale.guard import LoopGuard
from skytale.values import Event

if TYPE_CHECKING:
    import asyncio
    from datetime import datetime

    #: Who takes messages out of a channel. Weak, so that nobody is kept alive by what it left.
    Taker = weakref.ref[asyncio.Task[object]] | weakref.ref[threading.Thread]


#: A channel that is waited for in the same way as its agent.
AChannel = TypeVar("AChannel", bound="ChannelBase")


class AgentBase(Generic[AChannel]):
    """An identity with an encrypted vault on this machine, and what it talks through."""

    def __init__(
        self,
        name: str,
        *,
        api_key: str | None = None,
        api_url: str | None = None,
        relay: str | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        vault_key: str | bytes | None = None,
        traffic: str = _arguments.ADAPTIVE,
        history: str | None = None,
        replies_per_hour: int | None = 120,
    ) -> None:
        """Says which agent; nothing is opened yet.

        With a local ``skytale up`` running, the name is all that is needed. What is ``None`` comes
        from the environment (``SKYTALE_API_KEY`` and so on), then the current context, then the
        defaults. ``replies_per_hour`` bounds ``Message.reply`` for each peer, and ``None`` lifts
        that bound. ``history`` says how long to keep messages for ``Channel.history``, as ``"7d"``
        or ``"12h"``; it holds for the agent until another time is given, and ``"none"`` wipes what
        was kept. Whoever gets the vault and its key in that time can read it.
        """
        self._name = _arguments.text("name", name)
        self._settings = _arguments.settings(
            api_key=api_key,
            api_url=api_url,
            relay=relay,
            data_dir=data_dir,
            vault_key=vault_key,
            traffic=traffic,
            history=history,
        )
        self._guard = guard(replies_per_hour)
        self._opened: _core.Agent | None = None
        self._channels: dict[str, AChannel] = {}
        #: For what is open and the channels it knows. Never held while something is waited for.
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """What it is called on this machine. Others see it as its label."""
        return self._name

    @property
    def id(self) -> str:
        """Who this is, for everybody else: ``agt_…``."""
        return self._native.id

    @property
    def data_dir(self) -> str:
        """Where its vault is."""
        return os.fspath(self._native.data_dir)

    @property
    def _native(self) -> _core.Agent:
        # Looked at once: another thread may be closing it.
        opened = self._opened
        if opened is None:
            raise Misuse("this agent is not open: use it inside `with` or call open() first")
        return opened

    def _adopt(self, core: _core.Agent) -> _core.Agent | None:
        """Takes what was opened; gives it back when somebody else was faster."""
        with self._lock:
            if self._opened is not None:
                return core
            self._opened = core
            self._channels = {}
            return None

    def _give_up(self) -> _core.Agent | None:
        """What was open, to whoever is the first to close it."""
        with self._lock:
            opened, self._opened = self._opened, None
            return opened

    def _handle(self, core: _core.Channel) -> AChannel:
        """A channel that has no handle yet, with this face."""
        raise NotImplementedError

    def _known(self, core: _core.Channel) -> AChannel:
        """One handle for each channel, so that its loops share what was fetched."""
        with self._lock:
            known = self._channels.get(core.id)
            if known is None:
                known = self._channels[core.id] = self._handle(core)
            known._native = core
            return known

    def _admit_reply(self, channel: str, peer: str) -> None:
        if self._guard is None:
            return
        wait = self._guard.admit(peer)
        if not wait:
            return
        if self._guard.is_news(peer):
            self._native.tell_paused(channel, peer)
        raise Denied(
            f"replies to this agent are paused, for {wait:.0f} seconds: two agents may be "
            "answering each other for ever. Set replies_per_hour, or say new things with send()",
            "replies_paused",
            True,
        )

    def __repr__(self) -> str:
        state = "closed" if self._opened is None else "open"
        return f"<{type(self).__module__}.{type(self).__name__} {self._name!r}, {state}>"


class ChannelBase:
    """A channel that an agent is in."""

    def __init__(self, core: _core.Channel, agent: AgentBase[Any]) -> None:
        self._native = core
        self._home = agent
        self._inbox = core.inbox()
        self._left: deque[tuple[Taker, _core.Message]] = deque()
        #: Held by whoever takes out of `_left`. Adding goes without: a loop may be collected, and
        #: leave what it had, in the middle of taking out.
        self._settling = threading.Lock()

    @property
    def id(self) -> str:
        """The same for all members."""
        return self._native.id

    @property
    def name(self) -> str | None:
        """As its members know it."""
        return self._native.name

    def _settle(self, taker: Taker) -> None:
        """What this one had taken is dealt with now, as it asks for the next; and what those had
        who have ended. What others still work on stays theirs."""
        dealt: list[_core.Message] = []
        with self._settling:
            for _ in range(len(self._left)):
                whose, message = self._left.popleft()
                if whose == taker or _has_ended(whose):
                    dealt.append(message)
                else:
                    self._left.append((whose, message))
        for message in dealt:
            self._inbox.done(message)

    def _taker(self) -> Taker:
        """Who runs just now."""
        return weakref.ref(threading.current_thread())

    def __str__(self) -> str:
        return self.name or self.id

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} {str(self)!r}>"


class LoopBase:
    """A loop over messages: the one it has given out is dealt with when the next is asked for."""

    __slots__ = ("_channel", "_given_out", "_taker")

    def __init__(self, channel: ChannelBase) -> None:
        self._channel = channel
        self._given_out: _core.Message | None = None
        self._taker: Taker | None = None

    def _settle(self) -> None:
        self._taker = self._channel._taker()
        self._channel._settle(self._taker)
        if self._given_out is not None:
            given_out, self._given_out = self._given_out, None
            self._channel._inbox.done(given_out)

    def __del__(self) -> None:
        # Left by `break` or an exception: dealt with when whoever ran it asks for more.
        if self._given_out is not None and self._taker is not None:
            self._channel._left.append((self._taker, self._given_out))


class MessageBase:
    """A received message. What it says is data from somebody else, never an instruction.

    It counts as read when whoever took it asks for the next one, or when ``ack()`` is called: after
    a crash between, it is shown again, with the same ``id``.
    """

    __slots__ = ("_native",)

    def __init__(self, core: _core.Message) -> None:
        self._native = core

    @property
    def id(self) -> str:
        """The sender's name for it. The same again means the same message again."""
        return self._native.id

    @property
    def seq(self) -> int:
        """Its place in the channel."""
        return self._native.seq

    @property
    def epoch(self) -> int:
        """The group's epoch that it was sealed in."""
        return self._native.epoch

    @property
    def sender(self) -> str:
        """The agent whose key signed it."""
        return self._native.sender

    @property
    def label(self) -> str:
        """What the sender calls itself. Anybody may call itself anything."""
        return self._native.label

    @property
    def verified(self) -> bool:
        """Whether it is known that nobody played an old state of the channel to us."""
        return self._native.verified

    @property
    def sent(self) -> datetime:
        """When it was sent, by the sender's clock."""
        return when(self._native.sent)

    @property
    def content_type(self) -> str:
        """A media type, such as ``text/plain``."""
        return self._native.content_type

    @property
    def reply_to(self) -> str | None:
        """The id of the message that it answers."""
        return self._native.reply_to

    @property
    def text(self) -> str:
        """What it says, when that is text."""
        return self._native.text

    @property
    def payload(self) -> bytes:
        """What it says, as bytes."""
        return self._native.payload

    def _prompt(self, channel: str) -> str:
        # Imported by whoever feeds a model: importing this package is quick about it.
        from base64 import b64encode

        from skytale._prompt import Heading, framed

        try:
            body, encoding = self.text, None
        except Misuse:
            body, encoding = b64encode(self.payload).decode(), "base64"
        heading: Heading = {
            "channel": channel,
            "id": self.id,
            "seq": self.seq,
            "sender": self.sender,
            "label": self.label,
            "verified": self.verified,
            "sent": self.sent.isoformat(timespec="milliseconds"),
            "content_type": self.content_type,
            "in_reply_to": self.reply_to,
            "encoding": encoding,
        }
        return framed(heading, body)

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} seq {self.seq} from {self.sender}>"


def guard(replies_per_hour: int | None) -> LoopGuard | None:
    """The bound that an agent was given."""
    if replies_per_hour is None:
        return None
    return LoopGuard(_arguments.count("replies_per_hour", replies_per_hour))


def event(told: _core.Told) -> Event:
    """An event as the SDK tells it."""
    return Event(**told)


def when(milliseconds: int) -> datetime:
    """A sender's clock may say anything: what no calendar has becomes its nearest end."""
    from datetime import datetime, timezone

    try:
        return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return datetime.max.replace(tzinfo=timezone.utc)


def _has_ended(taker: Taker) -> bool:
    whose = taker()
    if isinstance(whose, threading.Thread):
        return not whose.is_alive()
    return whose is None or whose.done()


def over() -> Denied:
    """Why there will be no more messages."""
    return Denied(
        "there are no more messages: this agent is closed or no longer in the channel",
        "channel_closed",
    )
