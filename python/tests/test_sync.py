"""The blocking twin does the same, lets other threads run, and lacks nothing of the other."""

from __future__ import annotations

import inspect
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

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


def test_what_a_thread_still_works_on_is_not_settled_by_another() -> None:
    with mesh("alice", "bob") as (alice, bob):
        plan = alice.channel(CHANNEL)
        work = bob.join(plan.invite())
        for number in range(3):
            plan.send(str(number))
        took, crashed = threading.Event(), threading.Event()
        taken: list[tuple[str, str]] = []

        def works_long() -> None:
            message = work.receive(30)
            assert message is not None
            taken.append((message.text, message.id))
            took.set()
            crashed.wait(60)

        working = threading.Thread(target=works_long)
        working.start()
        assert took.wait(30)
        assert [work.receive(30) is None, work.receive(30) is None] == [False, False]
        bob.close()
        bob.open()
        again = bob.find(CHANNEL)
        assert again is not None
        shown = [again.receive(2), again.receive(2)]
        crashed.set()
        working.join()

        found = [(message.text, message.id) for message in shown if message is not None]
        assert found[0] == taken[0]
        assert [text for text, _ in found] == ["0", "2"]


def test_threads_that_read_one_channel_settle_everything_once() -> None:
    with mesh("alice", "bob") as (alice, bob):
        plan = alice.channel(CHANNEL)
        work = bob.join(plan.invite())
        for number in range(200):
            plan.send(str(number))
        work.caught_up()
        got: list[str] = []

        def read() -> None:
            while (message := work.receive(1)) is not None:
                got.append(message.text)

        at_once(8, read)

        assert sorted(got, key=int) == [str(number) for number in range(200)]
        assert work.receive(0) is None
        assert not work._left


def test_threads_get_one_handle_for_one_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    make = sync.Channel.__init__

    def slowly(*what: Any) -> None:
        time.sleep(0.001)
        make(*what)

    monkeypatch.setattr(sync.Channel, "__init__", slowly)
    with mesh("alice") as (alice,):
        alice.channel(CHANNEL)
        for _ in range(5):
            alice._channels.clear()
            handles: list[sync.Channel | None] = []
            at_once(8, lambda to=handles: to.append(alice.find(CHANNEL)))  # type: ignore[misc]
            assert len(handles) == 8
            assert len(set(map(id, handles))) == 1 and handles[0] is not None


def test_threads_may_open_and_close_one_agent_at_once() -> None:
    with mesh("alice") as (alice,):
        for _ in range(5):
            at_once(8, alice.close)
            at_once(8, alice.open)
            assert alice.channel(CHANNEL).send("hello").seq >= 1


def at_once(count: int, call: Callable[[], object]) -> None:
    """Calls it in so many threads, and raises what it raised in one of them."""
    ready = threading.Barrier(count)

    def begin(_: int) -> None:
        ready.wait()
        call()

    usual = sys.getswitchinterval()
    # They take turns as often as they can.
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(count) as threads:
            list(threads.map(begin, range(count)))
    finally:
        sys.setswitchinterval(usual)


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
