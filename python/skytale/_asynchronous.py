"""Agents, channels and messages for asyncio."""

from __future__ import annotations

import time
import weakref
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, cast

from skytale import _arguments, _core
from skytale._base import AgentBase, ChannelBase, LoopBase, MessageBase, event, over
from skytale.values import ChannelView, Event, Invite, Member, Sent

if TYPE_CHECKING:
    from skytale._base import Taker


class Agent(AgentBase["Channel"]):
    """One agent: an identity, its vault, and its lines to relays.

    >>> async with Agent("planner") as me:
    ...     ops = await me.channel("acme/ops/plan")

    It works in every event loop of the process, and in one after another. Cancelling a call that
    waits loses nothing; a call that changes something goes on to its end all the same.
    """

    async def open(self) -> Agent:
        """Opens it, making it on first use. No network is needed: it connects by itself."""
        if self._opened is None:
            surplus = self._adopt(await _core.Agent.open(self._name, self._settings))
            if surplus is not None:
                await surplus.close()
        return self

    async def close(self) -> None:
        """Lets leave what can leave within two seconds, and closes the vault."""
        opened = self._give_up()
        if opened is not None:
            await opened.close()

    async def __aenter__(self) -> Agent:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def channel(self, name: str) -> Channel:
        """Creates a channel, or opens the one of this name that the agent is in."""
        return self._known(await self._native.channel(_arguments.text("a channel's name", name)))

    async def find(self, name: str) -> Channel | None:
        """The channel of this name, if the agent is in it. Nothing is created."""
        found = await self._native.find(_arguments.text("a channel's name", name))
        return None if found is None else self._known(found)

    async def join(self, invite: str) -> Channel:
        """Joins by an invite line. The one who made it need not be online."""
        return self._known(await self._native.join(_arguments.text("an invite", invite)))

    async def accept(self, channel: str) -> Channel:
        """Enters a channel that an unknown agent has added us to, by its name or id."""
        return self._known(await self._native.accept(_arguments.text("a channel's name", channel)))

    async def decline(self, channel: str) -> None:
        """Refuses such a channel for good."""
        await self._native.decline(_arguments.text("a channel's name", channel))

    async def channels(self) -> list[ChannelView]:
        """All channels, also those that are offered or closed."""
        return [ChannelView(*view) for view in await self._native.channels()]

    async def online(self) -> None:
        """Waits until relays have let it in, and others can add it also while it is away."""
        await self._native.online()

    async def caught_up(self) -> None:
        """Waits until everything that waited at relays is in the vault."""
        await self._native.caught_up()

    def events(self) -> AsyncIterator[Event]:
        """What happens besides messages, from the moment the agent was opened.

        What happens to lines and to replies is not kept: connected, disconnected, cover_missing,
        over_schedule and replies_paused come only from the moment this is called.
        """
        return _Events(self._native.events(), None)

    def _handle(self, core: _core.Channel) -> Channel:
        return Channel(core, self)


class Channel(ChannelBase):
    """A channel that an agent is in. ``async for`` over it gives messages, and goes on where it
    stopped, also after a restart.

    Several loops over one channel share its messages out among each other.
    """

    _home: Agent

    def _taker(self) -> Taker:
        # Imported by whoever has an event loop: importing this package is quick about it.
        from asyncio import current_task

        task = current_task()
        return super()._taker() if task is None else weakref.ref(task)

    async def invite(self, uses: int = 1, ttl: float = 3600) -> Invite:
        """Makes a line by which so many agents may join within so many seconds."""
        uses, ttl = _arguments.count("uses", uses), _arguments.seconds("ttl", ttl)
        return Invite(await self._native.invite(uses, ttl))

    async def close_invites(self) -> None:
        """Closes every open invite."""
        await self._native.close_invites()

    async def send(
        self,
        what: str | bytes,
        *,
        content_type: str | None = None,
        reply_to: MessageBase | str | None = None,
    ) -> Sent:
        """Sends a message; done when the relay has stored it.

        After a ``Timeout`` it is still in the vault and leaves with the next connection: sending it
        again would send it twice.
        """
        payload, kind = _arguments.payload(what, content_type)
        question = reply_to.id if isinstance(reply_to, MessageBase) else reply_to
        question = _arguments.optional_text("reply_to", question)
        return Sent(*await self._native.send(payload, kind, question))

    async def ask(
        self, what: str | bytes, *, content_type: str | None = None, timeout: float = 120
    ) -> Message:
        """Sends a message and waits for the first reply to it, which loops leave alone.

        Agents take minutes, not milliseconds. When the time is up, the reply is a message like any
        other.
        """
        payload, kind = _arguments.payload(what, content_type)
        limit = _arguments.seconds("timeout", timeout)
        return Message(await self._native.ask(payload, kind, limit), self)

    async def receive(self, timeout: float | None = None) -> Message | None:
        """The next message, or ``None`` when none came in so many seconds.

        It counts as read when the same task asks for the next one, or ``Message.ack`` is called.
        Tasks may share a channel's messages out: none settles what another still works on. What
        a task had when it ended is settled by whoever asks next.
        For a limit in time, give it here: before Python 3.12, ``asyncio.wait_for`` makes a task
        of its own, which has ended when the message is worked on.
        """
        limit = _arguments.optional_seconds("timeout", timeout)
        deadline = None if limit is None else time.monotonic() + limit
        taker = self._taker()
        self._settle(taker)
        while (core := self._inbox.pop()) is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            state = await self._inbox.arrival(left)
            if state == "late":
                return None
            if state == "over":
                raise over()
        self._left.append((taker, core))
        return Message(core, self)

    def __aiter__(self) -> AsyncIterator[Message]:
        return _Loop(self)

    async def history(self, after: int = 0) -> list[Message]:
        """Messages after this place that the agent keeps, its own among them, whether read or not.

        It keeps those that came since it was first opened with ``history=``.
        """
        place = _arguments.whole("after", after)
        found: list[Message] = []
        while some := await self._native.history(place):
            found += [Message(core, self) for core in some]
            place = some[-1].seq
        return found

    async def members(self) -> list[Member]:
        """Everybody in the channel."""
        return [Member(*member) for member in await self._native.members()]

    async def add(self, agents: str | Iterable[str]) -> None:
        """Adds agents, by their ids. They need not be online."""
        await self._native.add(_arguments.agents(agents))

    async def remove(self, agents: str | Iterable[str]) -> None:
        """Removes agents: they cannot read what is sent from now on."""
        await self._native.remove(_arguments.agents(agents))

    async def grant(self, agent: str, *, admin: bool, may_invite: bool) -> None:
        """Says what a member may do: remove and grant, or add and invite."""
        agent = _arguments.text("an agent's id", agent)
        admin = _arguments.flag("admin", admin)
        may_invite = _arguments.flag("may_invite", may_invite)
        await self._native.grant(agent, admin, may_invite)

    async def leave(self) -> None:
        """Leaves the channel."""
        await self._native.leave()

    async def rotate(self) -> None:
        """Replaces our own keys in the group: whoever had copied them is shut out."""
        await self._native.rotate()

    async def words(self) -> tuple[str, ...]:
        """Five words that are the same for all members, if nobody stands between them."""
        return tuple(await self._native.words())

    async def caught_up(self) -> None:
        """Waits until everything of this channel that waited at the relay is in the vault."""
        await self._native.caught_up()

    def events(self) -> AsyncIterator[Event]:
        """What happens in this channel besides messages."""
        return _Events(self._home._native.events(), self.id)


class Message(MessageBase):
    __slots__ = ("_channel",)

    def __init__(self, core: _core.Message, channel: Channel) -> None:
        super().__init__(core)
        self._channel = channel

    @property
    def channel(self) -> Channel:
        """Where it came."""
        return self._channel

    async def reply(self, what: str | bytes, *, content_type: str | None = None) -> Sent:
        """Answers it, in its channel. Bounded for each peer: see ``Agent(replies_per_hour=…)``."""
        payload, kind = _arguments.payload(what, content_type)
        self._channel._home._admit_reply(self._channel.id, self.sender)
        return Sent(*await self._native.reply(payload, kind))

    async def ack(self) -> None:
        """It has been dealt with, durably: it is not shown again."""
        await self._native.ack()

    def as_prompt(self) -> str:
        """What it says, framed for a model: labelled with its sender, and marked as data."""
        return self._prompt(str(self._channel))


Message.__doc__ = MessageBase.__doc__


class _Loop(LoopBase):
    __slots__ = ()

    def __aiter__(self) -> _Loop:
        return self

    async def __anext__(self) -> Message:
        channel = cast(Channel, self._channel)
        self._settle()
        while (core := channel._inbox.pop()) is None:
            if await channel._inbox.arrival() == "over":
                raise StopAsyncIteration
        self._given_out = core
        return Message(core, channel)


class _Events:
    __slots__ = ("_channel", "_events")

    def __init__(self, events: _core.Events, channel: str | None) -> None:
        self._events = events
        self._channel = channel

    def __aiter__(self) -> _Events:
        return self

    async def __anext__(self) -> Event:
        while True:
            told = self._events.pop()
            if told is None:
                if not await self._events.arrival():
                    raise StopAsyncIteration
            elif self._channel is None or told["channel"] == self._channel:
                return event(told)
