"""Programs that use our package, each in a process of its own, for figures.py.

usage: ends.py serve                the servers of `skytale.testing`
       ends.py send                 makes a channel, sends into it when told
       ends.py receive INVITE       joins, receives when told
       ends.py enter INVITE         joins and ends
       ends.py host                 has a first message ready for the scripts below

`measure.py` says how they are spoken to.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine

from measure import orders, own_mouth, receive_when_told, say, send_when_told

from skytale import Agent
from skytale.testing import mesh

KEPT = "bench/python/kept"

#: An agent that was here before: its message waits at the relay.
FIRST_OF_KNOWN = """
import asyncio, sys, time
from skytale import Agent
async def main():
    async with Agent("bench-known") as me:
        ops = await me.find(sys.argv[1])
        async for message in ops:
            await message.ack()
            print("FIRST", time.monotonic(), flush=True)
            break
asyncio.run(main())
"""

#: A new agent, which makes its keys, joins, and is greeted by who sees it come.
FIRST_OF_NEW = """
import asyncio, sys, time
from skytale import Agent
async def main():
    async with Agent(sys.argv[1]) as me:
        ops = await me.join(sys.argv[2])
        async for message in ops:
            await message.ack()
            print("FIRST", time.monotonic(), flush=True)
            break
asyncio.run(main())
"""


def serve() -> None:
    servers = mesh()
    with servers:
        say(ready=servers.environment())
        sys.stdin.read()


async def send() -> None:
    async with Agent("bench-live-sender") as me:
        line = await me.channel("bench/python/live")
        say(ready=await line.invite())
        await send_when_told(line.send)


async def receive(invite: str) -> None:
    async with Agent("bench-live-receiver") as me:
        line = await me.join(invite)
        messages = aiter(line)

        async def next_text() -> str:
            return (await anext(messages)).text

        say(ready=True)
        await receive_when_told(next_text)


async def enter(invite: str) -> None:
    async with Agent("bench-known") as me:
        await me.join(invite)
        say(ready=True)


async def host() -> None:
    async with Agent("bench-host") as me:
        kept = await me.channel(KEPT)
        say(ready=await kept.invite())
        async for order in orders():
            if "send" in order:
                await kept.send("hello")
                say(sent=True)
                continue
            # A channel for each, so that no group grows from one script to the next.
            meeting = await me.channel(f"bench/python/meeting-{order['meeting']}")
            events = meeting.events()
            say(invite=await meeting.invite())
            async for event in events:
                if event.kind == "joined":
                    break
            await meeting.send("hello")


Role = Callable[..., Coroutine[None, None, None]]

if __name__ == "__main__":
    own_mouth()
    role, *arguments = sys.argv[1:]
    if role == "serve":
        serve()
    else:
        roles: dict[str, Role] = {"send": send, "receive": receive, "enter": enter, "host": host}
        asyncio.run(roles[role](*arguments))
