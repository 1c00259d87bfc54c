"""Nothing is lost and nothing is shown twice, whatever happens to whoever reads."""

from __future__ import annotations

import asyncio
import random

from stage import CHANNEL, run

from skytale import Agent, Channel, Message
from skytale.testing import mesh


async def together(alice: Agent, bob: Agent) -> tuple[Channel, Channel]:
    plan = await alice.channel(CHANNEL)
    return plan, await bob.join(await plan.invite())


async def flood(channel: Channel, count: int) -> None:
    for start in range(0, count, 100):
        numbers = range(start, min(start + 100, count))
        await asyncio.gather(*(channel.send(str(number)) for number in numbers))


async def texts(channel: Channel, count: int) -> list[str]:
    got: list[str] = []
    async for message in channel:
        got.append(message.text)
        if len(got) == count:
            break
    return got


def test_calls_that_are_begun_in_an_order_arrive_in_it() -> None:
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan, work = await together(alice, bob)
            await flood(plan, 500)
            assert await texts(work, 500) == [str(number) for number in range(500)]

    run(story())


def test_a_message_is_read_when_the_next_is_asked_for() -> None:
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan, work = await together(alice, bob)
            await flood(plan, 5)
            assert await texts(work, 3) == ["0", "1", "2"]

            # The third was given out, and nobody has asked for a fourth.
            await bob.close()
            await bob.open()
            again = await bob.find(CHANNEL)
            assert again is not None
            assert await texts(again, 3) == ["2", "3", "4"]
            assert await again.receive(0) is None
            await bob.close()
            await bob.open()
            again = await bob.find(CHANNEL)
            assert again is not None
            assert await again.receive(1.5) is None

    run(story())


def test_ack_says_at_once_that_a_message_was_read() -> None:
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan, work = await together(alice, bob)
            await flood(plan, 2)
            first = await work.receive(30)
            assert first is not None
            await first.ack()
            await bob.close()
            await bob.open()
            again = await bob.find(CHANNEL)
            assert again is not None
            assert await texts(again, 1) == ["1"]

    run(story())


def test_a_loop_goes_on_where_another_was_left() -> None:
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan, work = await together(alice, bob)
            await flood(plan, 6)
            assert await texts(work, 2) == ["0", "1"]
            third = await work.receive(30)
            assert third is not None and third.text == "2"
            assert await texts(work, 3) == ["3", "4", "5"]

    run(story())


def test_what_a_task_still_works_on_is_not_settled_by_another() -> None:
    # Whoever asked for more settled what anybody had taken: a crash lost what others worked on.
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan, work = await together(alice, bob)
            await flood(plan, 5)
            taken: dict[str, str] = {}
            took, crashed = asyncio.Event(), asyncio.Event()

            async def works_long() -> None:
                message = await work.receive(30)
                assert message is not None
                taken[message.text] = message.id
                took.set()
                await crashed.wait()

            async def loops_and_works_long() -> None:
                async for message in work:
                    taken[message.text] = message.id
                    break
                await crashed.wait()

            async def goes_on() -> None:
                await took.wait()
                for _ in range(3):
                    assert await work.receive(30) is not None

            working = asyncio.gather(works_long(), loops_and_works_long())
            await goes_on()
            await bob.close()
            await bob.open()
            again = await bob.find(CHANNEL)
            assert again is not None
            shown = [await again.receive(2) for _ in range(3)]
            crashed.set()
            await working

            found = {message.text: message.id for message in shown if message is not None}
            # The last of those that the other had taken was not followed by a question for more.
            assert list(found) == ["0", "1", "4"]
            assert taken.items() <= found.items()

    run(story())


def test_what_a_task_had_taken_when_it_ended_is_settled_by_the_next() -> None:
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan, work = await together(alice, bob)
            await flood(plan, 3)
            for _ in range(3):
                # Each in a task of its own, as asyncio.wait_for does it before Python 3.12.
                assert await asyncio.create_task(work.receive(30)) is not None
            assert await work.receive(0) is None
            assert not work._left
            await bob.close()
            await bob.open()
            again = await bob.find(CHANNEL)
            assert again is not None
            assert await again.receive(1.5) is None

    run(story())


def test_a_cancelled_receive_loses_nothing() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)

    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan, work = await together(alice, bob)
            sending = asyncio.create_task(flood(plan, 300))
            got: list[int] = []
            while len(got) < 300:
                receiving = asyncio.create_task(work.receive(30))
                for _ in range(dice.randrange(4)):
                    await asyncio.sleep(0)
                if dice.random() < 0.5:
                    receiving.cancel()
                try:
                    message = await receiving
                except asyncio.CancelledError:
                    continue
                assert message is not None
                got.append(int(message.text))
            await sending
            assert got == list(range(300))

    run(story())


def test_a_cancelled_call_in_a_loop_loses_nothing() -> None:
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan, work = await together(alice, bob)
            loop = aiter(work)
            waiting = asyncio.ensure_future(anext(loop))
            await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await flood(plan, 3)
            assert [(await anext(loop)).text for _ in range(3)] == ["0", "1", "2"]

    run(story())


def test_a_send_that_was_begun_goes_on_when_it_is_cancelled() -> None:
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan, work = await together(alice, bob)
            sending = asyncio.create_task(plan.send("so be it"))
            await asyncio.sleep(0)
            sending.cancel()
            message = await work.receive(30)
            assert message is not None and message.text == "so be it"

    run(story())


def test_loops_share_messages_out_among_each_other() -> None:
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan, work = await together(alice, bob)
            got: list[str] = []

            async def worker() -> None:
                async for message in work:
                    got.append(message.text)
                    is_last = len(got) == 200
                    await asyncio.sleep(0)
                    if is_last:
                        await work.leave()

            workers = [asyncio.create_task(worker()) for _ in range(3)]
            await flood(plan, 200)
            await asyncio.gather(*workers)
            assert sorted(map(int, got)) == list(range(200))

    run(story())


def test_a_waiting_loop_ends_when_the_agent_is_closed() -> None:
    async def story() -> None:
        async with mesh("alice") as (alice,):
            plan = await alice.channel(CHANNEL)
            reading = asyncio.create_task(texts(plan, 1))
            await asyncio.sleep(0.01)
            await alice.close()
            assert await reading == []

    run(story())


def test_a_reply_is_not_lost_with_the_ask_that_was_cancelled_for_it() -> None:
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan, work = await together(alice, bob)
            for number in range(40):
                asking = asyncio.create_task(plan.ask(str(number), timeout=60))
                question = await work.receive(60)
                assert question is not None
                replying = asyncio.create_task(question.reply(f"re {number}"))
                # From before the reply is on its way until after it has arrived.
                await asyncio.sleep(number / 2000)
                asking.cancel()
                try:
                    answer: Message | None = await asking
                except asyncio.CancelledError:
                    answer = await plan.receive(60)
                assert answer is not None and answer.text == f"re {number}"
                await replying

    run(story())
