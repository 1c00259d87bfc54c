"""Real agents on a relay inside this process, for tests that need no network and no set-up.

    async with mesh("alice", "bob", delay=0.02, loss=0.1) as (alice, bob):
        plan = await alice.channel("acme/ops/plan")
        await bob.join(await plan.invite())

``with`` instead of ``async with`` gives the agents of ``skytale.sync``. Encryption, ordering and
storage are the real ones; only the directory goes when the block ends. An agent may be closed and
opened again in between, as a program that restarts.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack
from types import TracebackType

from skytale import Agent, _arguments, _core, sync
from skytale._base import guard
from skytale.errors import Misuse, WrongType

__all__ = ["mesh"]


class mesh:
    """A relay, and an agent for each name, each known to nobody yet.

    Every datagram takes ``delay`` seconds each way, and is lost with the probability ``loss``; the
    same ``seed`` draws the same losses. Either needs IPv6 on loopback, which containers may lack.
    """

    def __init__(
        self,
        *names: str,
        delay: float = 0.0,
        loss: float = 0.0,
        seed: int = 1,
        replies_per_hour: int | None = 120,
    ) -> None:
        self._names = [_arguments.text("a name", name) for name in names]
        if len(set(names)) != len(names):
            raise Misuse("two agents of a mesh have the same name")
        if isinstance(loss, bool) or not isinstance(loss, (int, float)):
            raise WrongType("loss is a number from 0, and less than 1")
        self._weather = (
            _arguments.seconds("delay", delay),
            float(loss),
            _arguments.whole("seed", seed),
        )
        self._replies_per_hour = replies_per_hour
        guard(replies_per_hour)
        self._running: _core.Mesh | None = None
        self._agents: list[Agent] = []
        self._sync_agents: list[sync.Agent] = []

    async def __aenter__(self) -> tuple[Agent, ...]:
        self._running = await self._start()
        for name in self._names:
            agent = Agent(name, replies_per_hour=self._replies_per_hour)
            agent._settings = self._running.settings()
            self._agents.append(agent)
        try:
            # Unless somebody cancels, all have ended before one's failure is told: none is still
            # opening while servers end.
            opening = (agent.open() for agent in self._agents)
            for opened in await asyncio.gather(*opening, return_exceptions=True):
                if isinstance(opened, BaseException):
                    raise opened
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return tuple(self._agents)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Whatever becomes of one agent, the others are closed, and the servers do not stay.
        async with AsyncExitStack() as ending:
            if self._running is not None:
                ending.push_async_callback(self._running.stop)
            while self._agents:
                ending.push_async_callback(self._agents.pop(0).close)

    def __enter__(self) -> tuple[sync.Agent, ...]:
        self._running = self._start().result()
        for name in self._names:
            agent = sync.Agent(name, replies_per_hour=self._replies_per_hour)
            agent._settings = self._running.settings()
            self._sync_agents.append(agent)
        try:
            for agent in self._sync_agents:
                agent.open()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return tuple(self._sync_agents)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with ExitStack() as ending:
            if self._running is not None:
                ending.callback(lambda running: running.stop().result(), self._running)
            while self._sync_agents:
                ending.callback(self._sync_agents.pop(0).close)

    def environment(self) -> dict[str, str]:
        """The variables by which a program in another process finds these servers."""
        if self._running is None:
            raise Misuse("this mesh is not running: use it inside `with`")
        settings = self._running.settings()
        return {
            f"SKYTALE_{key.upper()}": str(value)
            for key, value in settings.items()
            if value is not None
        }

    def _start(self) -> _core.Operation[_core.Mesh]:
        if self._running is not None:
            raise Misuse("this mesh was entered before: make another one")
        return _core.Mesh.start(len(self._names), *self._weather)
