"""A question whose answer takes its time, and what the asker does meanwhile."""

import asyncio

from skytale import Agent, Channel


async def answer(desk: Channel, thinking: asyncio.Event) -> None:
    """Answers questions one after another. Each takes until `thinking` is over."""
    async for question in desk:
        await thinking.wait()
        await question.reply(f"I thought about {question.text!r}: 42.")


async def consult(asker: Channel, thinking: asyncio.Event) -> list[str]:
    said = []
    asking = asyncio.create_task(asker.ask("What is it all about?", timeout=300))
    for step in ("made tea", "read the news"):
        said.append(step)
        await asyncio.sleep(0)
    thinking.set()
    said.append((await asking).text)
    return said


async def talk(asker: Agent, thinker: Agent) -> list[str]:
    here = await asker.channel("acme/help/desk")
    there = await thinker.join(await here.invite())
    thinking = asyncio.Event()
    answering = asyncio.create_task(answer(there, thinking))
    try:
        return await consult(here, thinking)
    finally:
        answering.cancel()


async def main() -> None:
    async with Agent("asker") as asker, Agent("thinker") as thinker:
        print(*await talk(asker, thinker), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
