"""A group in which each has a role: a lead hands out work, two workers do it, an auditor reads.

The lead alone may remove and invite. Work is addressed by a header line in the text: everybody in a
channel reads everything.
"""

import asyncio

from skytale import Agent, Channel

CHANNEL = "acme/build/night"


async def work(role: str, channel: Channel) -> None:
    """Does what is addressed to this role, and ends on "stop"."""
    async for message in channel:
        to, _, task = message.text.partition(": ")
        if to == "all" and task == "stop":
            return
        if to == role:
            await message.reply(f"{role} finished {task}")


async def audit(channel: Channel) -> list[str]:
    read = []
    async for message in channel:
        read.append(f"{message.label}: {message.text}")
        if message.text == "all: stop":
            return read
    return read


async def talk(lead: Agent, tester: Agent, writer: Agent, auditor: Agent) -> list[str]:
    group = await lead.channel(CHANNEL)
    invite = await group.invite(uses=3)
    joined = [await agent.join(invite) for agent in (tester, writer, auditor)]
    for agent in (tester, writer, auditor):
        await group.grant(agent.id, admin=False, may_invite=False)
    tasks = [
        asyncio.create_task(work("tester", joined[0])),
        asyncio.create_task(work("writer", joined[1])),
    ]
    auditing = asyncio.create_task(audit(joined[2]))
    for order in ("tester: the tests", "writer: the notes"):
        await group.ask(order, timeout=60)
    await group.send("all: stop")
    await asyncio.gather(*tasks)
    return await auditing


async def main() -> None:
    names = ("lead", "tester", "writer", "auditor")
    agents = [await Agent(name).open() for name in names]
    try:
        print(*await talk(*agents), sep="\n")
    finally:
        for agent in agents:
            await agent.close()


if __name__ == "__main__":
    asyncio.run(main())
