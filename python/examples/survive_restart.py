"""A worker that may die at any moment, and goes on where it stopped.

What was dealt with is acknowledged; what was not, the next start is shown again, with the same id.
Doing a thing twice must therefore do no harm: this worker remembers the ids of what it has done.
"""

import asyncio

from skytale import Agent, Channel


async def work(channel: Channel, done: dict[str, str], breaks_at: str | None = None) -> None:
    """Does tasks until "stop", or until it breaks in the middle of one."""
    async for task in channel:
        if task.text == "stop":
            await task.ack()
            return
        done.setdefault(task.id, task.text)
        if task.text == breaks_at:
            raise RuntimeError("the power failed")
        await task.ack()


async def talk(boss: Agent, worker: Agent) -> list[str]:
    orders = await boss.channel("acme/factory/floor")
    floor = await worker.join(await orders.invite())
    for task in ("cut", "drill", "paint", "stop"):
        await orders.send(task)

    done: dict[str, str] = {}
    try:
        await work(floor, done, breaks_at="drill")
    except RuntimeError:
        await worker.close()

    await worker.open()
    again = await worker.find("acme/factory/floor")
    assert again is not None
    await work(again, done)
    return list(done.values())


async def main() -> None:
    async with Agent("boss") as boss, Agent("worker") as worker:
        print(*await talk(boss, worker), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
