"""Speaks with `skytale mcp` as the published Python package of the protocol does.

usage: client.py VERSION PROGRAM SHOP LAB        VERSION is that of the protocol, SHOP and LAB are
                                                 directories, each of which gets an agent

Two agents meet in a channel and talk through two servers. Prints what was found as one line of JSON;
what goes wrong is an exception. The environment tells the servers where their data is.
"""

import asyncio
import contextlib
import importlib.metadata
import json
import os
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

CHANNEL = "acme/ops/plan"
LEGACY = "2025-11-25"


async def main(version, program, shop_dir, lab_dir):
    async with contextlib.AsyncExitStack() as stack:

        async def enter(directory):
            server = StdioServerParameters(
                command=program,
                args=["mcp"],
                cwd=directory,
                env={name: value for name, value in os.environ.items() if name.startswith("SKYTALE_")},
            )
            return await stack.enter_async_context(session(version, server))

        shop, shop_version = await enter(shop_dir)
        lab, _ = await enter(lab_dir)
        tools = sorted(tool.name for tool in (await shop.list_tools()).tools)

        await done(shop, "open", channel=CHANNEL)
        invite = await done(shop, "invite", channel=CHANNEL)
        await done(lab, "join", invite=invite["invite"])
        # A call that waits ends with the message, well before its time is up.
        waiting = asyncio.ensure_future(call(shop, "receive", channel=CHANNEL, wait_seconds=50))
        await done(lab, "send", channel=CHANNEL, text="Grüße\nfrom the lab")
        received = texts(await asyncio.wait_for(waiting, 45))
        wrong = await call(lab, "send", channel="acme/ops/other", text="lost")
        members = await done(lab, "members", channel=CHANNEL)
        return {
            "package": importlib.metadata.version("mcp"),
            "protocol": shop_version,
            "tools": tools,
            "members": len(members["members"]),
            "heading": json.loads(received[1].splitlines()[1]),
            "received": received[1],
            "wrong": is_error(wrong) and texts(wrong)[0],
        }


@contextlib.asynccontextmanager
async def session(version, server):
    """A session of this generation, and the version that both sides agreed on."""
    if version == LEGACY:
        async with stdio_client(server) as (read, write), ClientSession(read, write) as begun:
            hello = await begun.initialize()
            yield begun, attribute(hello, "protocol_version", "protocolVersion")
        return
    from mcp import Client

    async with Client(server, mode=version) as begun:
        yield begun, begun.protocol_version


async def call(session, tool, **arguments):
    return await session.call_tool(tool, arguments)


async def done(session, tool, **arguments):
    """What a call gave that went well."""
    result = await call(session, tool, **arguments)
    if is_error(result):
        raise AssertionError(f"{tool}: {texts(result)}")
    return attribute(result, "structured_content", "structuredContent")


def is_error(result):
    return bool(attribute(result, "is_error", "isError"))


def texts(result):
    return [block.text for block in result.content]


def attribute(thing, *names):
    """The two generations of the package spell some names differently."""
    for name in names:
        if hasattr(thing, name):
            return getattr(thing, name)
    raise AttributeError(f"{type(thing).__name__} has none of {names}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
