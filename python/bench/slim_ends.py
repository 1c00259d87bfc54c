"""Programs that use slim-bindings with MLS, each in a process of its own, for slim.py.

usage: slim_ends.py URL send NAME OTHER     opens a session, sends into it when told
       slim_ends.py URL receive NAME        waits for a session, receives when told
       slim_ends.py URL host NAME           greets whoever opens a session

`measure.py` says how they are spoken to.
"""

from __future__ import annotations

import asyncio
import datetime
import sys
from collections.abc import Callable, Coroutine

import slim_bindings as slim  # type: ignore[import-not-found]
from measure import orders, own_mouth, receive_when_told, say, send_when_told

#: It keeps no session beyond the process, and nothing waits for who is away: a script opens one to
#: an agent that is there, which says something as soon as it is in. Whole, as a user would write
#: it: what it imports counts.
FIRST = """
import asyncio, datetime, sys, time
import slim_bindings as slim
async def main():
    slim.initialize_with_defaults()
    service = slim.get_global_service()
    app = service.create_app_with_secret(slim.Name("bench", "python", sys.argv[2]), sys.argv[4])
    connection = await service.connect_async(slim.new_insecure_client_config(sys.argv[1]))
    await app.subscribe_async(app.name(), connection)
    other = slim.Name("bench", "python", sys.argv[3])
    await app.set_route_async(other, connection)
    config = slim.SessionConfig(
        session_type=slim.SessionType.POINT_TO_POINT,
        max_retries=10,
        interval=datetime.timedelta(seconds=1),
        metadata={},
        mls_settings=slim.MlsSettings(
            header_integrity_validation_percent=100, max_seen_control_message_ids_size=None
        ),
    )
    session = await app.create_session_and_wait_async(config, other)
    await session.get_message_async(None)
    print("FIRST", time.monotonic(), flush=True)
asyncio.run(main())
"""
SECRET = "what the agents of a bench share among themselves"


async def send(url: str, name: str, other: str) -> None:
    app, connection = await agent(url, name)
    await app.set_route_async(named(other), connection)
    config = slim.SessionConfig(
        session_type=slim.SessionType.POINT_TO_POINT,
        max_retries=10,
        interval=datetime.timedelta(seconds=1),
        metadata={},
        mls_settings=slim.MlsSettings(
            header_integrity_validation_percent=100, max_seen_control_message_ids_size=None
        ),
    )
    session = await app.create_session_and_wait_async(config, named(other))
    say(ready=slim.get_version())

    async def confirmed(text: str) -> None:
        await session.publish_and_wait_async(text.encode(), None, None)

    await send_when_told(confirmed)


async def receive(url: str, name: str) -> None:
    app, _ = await agent(url, name)
    coming = asyncio.ensure_future(app.listen_for_session_async(None))
    say(ready=slim.get_version())
    session = await coming

    async def next_text() -> str:
        text: str = (await session.get_message_async(None)).payload.decode()
        return text

    await receive_when_told(next_text)


async def host(url: str, name: str) -> None:
    app, _ = await agent(url, name)
    greeting = asyncio.create_task(greet(app))
    say(ready=slim.get_version())
    # Until there is nobody to take orders from.
    async for _ in orders():
        pass
    greeting.cancel()


async def greet(app: slim.App) -> None:
    sessions = []
    while True:
        # Held: a session that nothing refers to ends.
        sessions.append(await app.listen_for_session_async(None))
        await sessions[-1].publish_async(b"hello", None, None)


async def agent(url: str, name: str) -> tuple[slim.App, int]:
    slim.initialize_with_defaults()
    service = slim.get_global_service()
    app = service.create_app_with_secret(named(name), SECRET)
    connection = await service.connect_async(slim.new_insecure_client_config(url))
    await app.subscribe_async(app.name(), connection)
    return app, connection


def named(last: str) -> slim.Name:
    return slim.Name("bench", "python", last)


Role = Callable[..., Coroutine[None, None, None]]

if __name__ == "__main__":
    own_mouth()
    url, role, *arguments = sys.argv[1:]
    roles: dict[str, Role] = {"send": send, "receive": receive, "host": host}
    asyncio.run(roles[role](url, *arguments))
