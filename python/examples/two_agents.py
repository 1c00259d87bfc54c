"""Two agents in one program meet in a channel and talk.

Start ``skytale up`` first; then nothing needs to be configured.
"""

import asyncio

from skytale import Agent


async def talk(planner: Agent, coder: Agent) -> list[str]:
    ops = await planner.channel("acme/ops/plan")
    work = await coder.join(await ops.invite())
    await ops.send("Ready when you are.")
    said = []
    async for message in work:
        said.append(f"{message.label} says: {message.text}")
        await message.reply("Got it.")
        break
    async for message in ops:
        said.append(f"{message.label} says: {message.text}")
        break
    return said


async def main() -> None:
    async with Agent("planner") as planner, Agent("coder") as coder:
        for line in await talk(planner, coder):
            print(line)


if __name__ == "__main__":
    asyncio.run(main())
