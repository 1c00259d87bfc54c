"""Stock SLIM agents that answer, and one that asks and floods them, for the bench.

usage: clients.py URL answer NAME
       clients.py URL ask NAME OTHER...

All print {"ready": …} first. The last has opened a session with the others by then, with MLS, a group
where they are several, and takes orders on stdin: {"ask": COUNT, "bytes": N} is answered by how long
each round trip took, until all have answered, and {"flood": SECONDS, "bytes": N, "at_once": N} by how
many messages all others have confirmed.
"""

import asyncio
import collections
import datetime
import json
import os
import sys
import time

import slim_bindings as slim

# The package logs to stdout: what is said here has that pipe for itself, and the log goes to stderr.
mouth = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

SECRET = "what the two agents of a bench share"
# Its answer has the same length; everything else is only counted. An answer is no question: in a
# group those who answer hear each other.
QUESTION, ANSWER = b"?", b"!"


def name(last):
    return slim.Name("bench", "stock", last)


def say(line):
    print(json.dumps(line), file=mouth, flush=True)


async def answer(app):
    say({"ready": slim.get_version()})
    while True:
        session = await app.listen_for_session_async(None)
        asyncio.create_task(serve(session))


async def serve(session):
    while True:
        payload = (await session.get_message_async(None)).payload
        if payload.startswith(QUESTION):
            await session.publish_async(ANSWER + payload[1:], None, None)


async def ask(app, connection, here, others):
    pair = len(others) == 1
    config = slim.SessionConfig(
        session_type=slim.SessionType.POINT_TO_POINT if pair else slim.SessionType.GROUP,
        max_retries=10,
        interval=datetime.timedelta(seconds=1),
        metadata={},
        mls_settings=slim.MlsSettings(
            header_integrity_validation_percent=100, max_seen_control_message_ids_size=None
        ),
    )
    for other in others:
        await app.set_route_async(name(other), connection)
    with_whom = name(others[0] if pair else here + "-group")
    session = await app.create_session_and_wait_async(config, with_whom)
    if not pair:
        for other in others:
            await session.invite_and_wait_async(name(other))
    say({"ready": slim.get_version()})
    while line := await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        if "ask" in order:
            say(await round_trips(session, len(others), order["ask"], order["bytes"]))
        else:
            say(await flood(session, order["flood"], order["bytes"], order["at_once"]))


async def round_trips(session, answers, count, size):
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        await session.publish_async(QUESTION.ljust(size, b"x"), None, None)
        for _ in range(answers):
            await session.get_message_async(None)
        took.append(time.perf_counter() - begun)
    return {"micros": [one * 1e6 for one in took]}


async def flood(session, seconds, size, at_once):
    payload, waiting, confirmed = b"x" * size, collections.deque(), 0
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        if len(waiting) == at_once:
            await waiting.popleft().wait_async()
            confirmed += 1
        waiting.append(await session.publish_async(payload, None, None))
    for handle in waiting:
        await handle.wait_async()
    return {"messages": confirmed + len(waiting), "seconds": time.perf_counter() - begun}


async def main(url, role, here, *others):
    slim.initialize_with_defaults()
    service = slim.get_global_service()
    app = service.create_app_with_secret(name(here), SECRET)
    connection = await service.connect_async(slim.new_insecure_client_config(url))
    await app.subscribe_async(app.name(), connection)
    if role == "answer":
        asyncio.create_task(answer(app))
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    else:
        await ask(app, connection, here, others)


asyncio.run(main(*sys.argv[1:]))
