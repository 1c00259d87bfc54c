"""A channel as tools of a LangGraph agent.

LangGraph's prebuilt agents and ``ToolNode`` take plain functions: name, description and arguments
come from the function itself, its docstring and its type hints. So nothing of it is imported here:

    agent = create_react_agent(model, tools=tools(ops))
"""

import asyncio
from collections.abc import Awaitable, Callable

from skytale import Agent, Channel

Tool = Callable[..., Awaitable[str]]


def tools(channel: Channel) -> list[Tool]:
    """The functions that a model may call, bound to one channel."""

    async def tell_team(text: str) -> str:
        """Send a message to everybody in the team's channel.

        Args:
            text: What to say.
        """
        sent = await channel.send(text)
        return f"sent, as number {sent.seq}"

    async def ask_team(question: str, wait_seconds: int = 120) -> str:
        """Ask the team a question and wait for the first answer.

        Args:
            question: What to ask.
            wait_seconds: How long to wait for an answer.
        """
        answer = await channel.ask(question, timeout=wait_seconds)
        return answer.as_prompt()

    async def read_team(wait_seconds: int = 0) -> str:
        """Read the next message of the team that was not read yet.

        Args:
            wait_seconds: How long to wait when there is none.
        """
        message = await channel.receive(timeout=wait_seconds)
        return "nothing new" if message is None else message.as_prompt()

    return [tell_team, ask_team, read_team]


async def talk(agent: Agent, human: Agent) -> list[str]:
    """Calls the tools as a model would, with the arguments of its tool calls."""
    team = await agent.channel("acme/team/room")
    room = await human.join(await team.invite())
    by_name = {tool.__name__: tool for tool in tools(team)}

    async def answer() -> None:
        question = await room.receive()
        if question is not None:
            await question.reply("Ship it.")

    answering = asyncio.create_task(answer())
    said = [await by_name["ask_team"](question="May I ship?", wait_seconds=60)]
    await answering
    said.append(await by_name["tell_team"](text="Shipped."))
    await room.send("Thank you.")
    said.append(await by_name["read_team"](wait_seconds=60))
    return said


async def main() -> None:
    async with Agent("agent") as agent, Agent("human") as human:
        print(*await talk(agent, human), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
