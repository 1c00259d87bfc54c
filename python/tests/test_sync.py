"""The blocking twin does the same, lets other threads run, and lacks nothing of the other."""

from __future__ import annotations

import inspect
import threading
import time

import pytest
from stage import CHANNEL

import skytale
from skytale import Misuse, sync
from skytale.testing import mesh


def test_two_agents_talk() -> None:
    with mesh("alice", "bob") as (alice, bob):
        plan = alice.channel(CHANNEL)
        work = bob.join(plan.invite())
        for number in range(100):
            plan.send(str(number))
        texts = [message.text for _, message in zip(range(100), work, strict=False)]
        assert texts == [str(number) for number in range(100)]
        assert work.receive(0) is None
        assert {member.agent for member in work.members()} == {alice.id, bob.id}
        assert plan.words() == work.words()
        assert next(event.kind for event in bob.events() if event.kind == "entered") == "entered"


def test_a_question_gets_its_answer_from_another_thread() -> None:
    with mesh("alice", "bob") as (alice, bob):
        plan = alice.channel(CHANNEL)
        work = bob.join(plan.invite())

        def answer() -> None:
            message = work.receive(30)
            assert message is not None
            message.reply(message.text.upper())

        answering = threading.Thread(target=answer)
        answering.start()
        assert plan.ask("hello", timeout=30).text == "HELLO"
        answering.join()


def test_other_threads_run_while_one_waits() -> None:
    with mesh("alice") as (alice,):
        plan = alice.channel(CHANNEL)
        waiting = threading.Thread(target=plan.receive, args=(1,))
        waiting.start()
        steps = 0
        while waiting.is_alive():
            time.sleep(0.001)
            steps += 1
        assert steps > 100


def test_a_failed_block_closes_the_agent() -> None:
    with mesh("alice") as (alice,):
        with pytest.raises(RuntimeError), alice:
            raise RuntimeError
        with pytest.raises(Misuse, match="not open"):
            alice.channels()


@pytest.mark.parametrize("name", ["Agent", "Channel", "Message"])
def test_both_faces_have_the_same_calls(name: str) -> None:
    def calls(kind: type) -> dict[str, list[str]]:
        return {
            call: [str(one) for one in inspect.signature(value).parameters.values()]
            for call, value in inspect.getmembers(kind, inspect.isfunction)
            if not call.startswith("_")
        }

    assert calls(getattr(skytale, name)) == calls(getattr(sync, name))
