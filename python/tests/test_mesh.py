"""The mesh that users test their agents on: quick to start, slow and lossy when asked to be."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from stage import CHANNEL, finish, program, run

from skytale import Agent, Misuse, WrongType, sync
from skytale.testing import mesh


def test_delay_is_felt_both_ways() -> None:
    async def story() -> None:
        async with mesh("alice", "bob", delay=0.1) as (alice, bob):
            plan = await alice.channel(CHANNEL)
            work = await bob.join(await plan.invite())
            begun = time.monotonic()
            await plan.send("hello")
            stored = time.monotonic() - begun
            message = await work.receive(30)
            assert message is not None
            assert stored >= 0.2
            assert time.monotonic() - begun >= 0.2

    run(story())


def test_what_is_lost_is_said_again() -> None:
    async def story() -> None:
        async with mesh("alice", "bob", loss=0.2, seed=7) as (alice, bob):
            plan = await alice.channel(CHANNEL)
            work = await bob.join(await plan.invite())
            for number in range(20):
                await plan.send(str(number))
            texts = []
            async for message in work:
                texts.append(message.text)
                if len(texts) == 20:
                    break
            assert texts == [str(number) for number in range(20)]

    run(story())


def test_a_program_elsewhere_finds_the_mesh_by_its_environment() -> None:
    running = mesh("alice")
    with running as (alice,):
        plan = alice.channel(CHANNEL)
        text = """
            from skytale.sync import Agent
            with Agent("bob") as me:
                me.join(input()).send("hello")
        """
        started = program(text, running.environment())
        assert started.stdin is not None
        started.stdin.write(plan.invite() + "\n")
        started.stdin.flush()
        message = plan.receive(30)
        assert finish(started) == (0, "", "")
        assert message is not None and (message.text, message.label) == ("hello", "bob")


def test_nothing_is_left_behind(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    text = """
        import os, tempfile
        from skytale.testing import mesh
        with mesh("alice") as (alice,):
            alice.channel("acme/ops/plan")
            assert os.listdir(os.environ["TMPDIR"])
        assert os.listdir(os.environ["TMPDIR"]) == []
        left = mesh("alice")
        left.__enter__()
    """
    assert finish(program(text)) == (0, "", "")
    import os

    assert os.listdir(str(tmp_path)) == []


def test_a_mesh_that_cannot_be_meant() -> None:
    with pytest.raises(Misuse, match="same name"):
        mesh("alice", "alice")
    with pytest.raises(Misuse, match="probability"), mesh("alice", loss=1.0):
        pass
    with pytest.raises(Misuse), mesh("../alice"):
        pass
    with pytest.raises(WrongType, match="seed is an int, not str"):
        mesh("alice", seed="x")  # type: ignore[arg-type]
    with pytest.raises(WrongType, match="seed is an int, not bool"):
        mesh("alice", seed=True)
    for seed in (-1, 2**64):
        with pytest.raises(Misuse, match="seed is from 0"):
            mesh("alice", seed=seed)
    with pytest.raises(Misuse, match="not running"):
        mesh("alice").environment()
    once = mesh("alice")
    with once as (alice,):
        assert isinstance(alice, sync.Agent)
    with pytest.raises(Misuse, match="before"), once:
        pass


def test_where_one_agent_cannot_be_opened_the_others_are_waited_for_and_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[Agent] = []

    class Slow(Agent):
        async def open(self) -> Agent:
            if self.name != "bob":
                raise OSError("no room")
            await asyncio.sleep(0.05)
            opened.append(await super().open())
            return self

    async def story() -> None:
        monkeypatch.setattr("skytale.testing.Agent", Slow)
        running = mesh("alice", "bob")
        with pytest.raises(OSError, match="no room"):
            await running.__aenter__()
        (bob,) = opened
        with pytest.raises(Misuse, match="not open"):
            await bob.channels()
        await stopped(running)

    run(story())


@pytest.mark.parametrize("trouble", [OSError("no room"), asyncio.CancelledError()])
def test_an_agent_that_does_not_close_leaves_no_server_running(
    monkeypatch: pytest.MonkeyPatch, trouble: BaseException
) -> None:
    async def story() -> None:
        running = mesh("alice", "bob")

        async def fail() -> None:
            raise trouble

        with pytest.raises(type(trouble)):
            async with running as (alice, bob):
                monkeypatch.setattr(bob, "close", fail)
        await stopped(running)
        with pytest.raises(Misuse, match="not open"):
            await alice.channels()

    run(story())


def test_an_agent_that_does_not_close_leaves_no_server_running_for_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = mesh("alice", "bob")

    def fail() -> None:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"), running as (alice, bob):
        monkeypatch.setattr(bob, "close", fail)
    run(stopped(running))
    with pytest.raises(Misuse, match="not open"):
        alice.channels()


async def stopped(running: Any) -> None:
    """Nobody answers any more where its API server was."""
    host, port = running._running.settings()["api_url"].removeprefix("http://").split(":")
    with pytest.raises(ConnectionError):
        await asyncio.open_connection(host, int(port))
