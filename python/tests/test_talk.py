"""What agents can say and do to each other, over a real relay in this process."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone

import pytest
from stage import CHANNEL, PATIENCE, run, within

from skytale import Agent, Channel, Denied, Invite, Member, Message, Misuse, Timeout
from skytale.testing import mesh


async def together(alice: Agent, bob: Agent) -> tuple[Channel, Channel]:
    plan = await alice.channel(CHANNEL)
    return plan, await bob.join(await plan.invite())


def test_a_message_arrives_with_everything_that_is_known_of_it() -> None:
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan, work = await together(alice, bob)

            sent = await plan.send("Ready when you are.")
            message = await work.receive(timeout=30)

            assert message is not None
            assert (message.id, message.seq) == sent
            assert message.text == "Ready when you are."
            assert message.payload == b"Ready when you are."
            assert message.content_type == "text/plain"
            assert (message.sender, message.label) == (alice.id, "alice")
            assert message.channel is work and str(message.channel) == CHANNEL
            assert message.verified is True
            assert message.epoch >= 1
            assert message.reply_to is None
            assert abs(message.sent - datetime.now(timezone.utc)) < timedelta(minutes=1)
            assert "Ready" not in repr(message)

    run(story())


def test_bytes_content_types_and_replies() -> None:
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan, work = await together(alice, bob)
            first = await plan.send(b"\x00\xff")
            second = await plan.send('{"a": 1}', content_type="application/json", reply_to=first.id)

            raw = await work.receive(30)
            assert raw is not None
            assert (raw.payload, raw.content_type) == (b"\x00\xff", "application/octet-stream")
            with pytest.raises(Misuse, match="use its payload"):
                _ = raw.text
            answer = await work.receive(30)
            assert answer is not None
            assert (answer.id, answer.reply_to) == (second.id, first.id)
            assert answer.content_type == "application/json"

            await answer.reply("Got it.")
            got = await plan.receive(30)
            assert got is not None
            assert (got.text, got.reply_to, got.sender) == ("Got it.", second.id, bob.id)

    run(story())


def test_a_question_gets_its_answer_and_loops_leave_it_alone() -> None:
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan, work = await together(alice, bob)

            async def answer() -> None:
                async for message in work:
                    await work.send("noted")
                    await message.reply(f"answer to {message.text}")

            answering = asyncio.create_task(answer())
            reply = await plan.ask("Which port?", timeout=30)
            noted = await plan.receive(30)

            assert reply.text == "answer to Which port?"
            assert noted is not None and noted.text == "noted"
            assert await plan.receive(0) is None
            answering.cancel()

    run(story())


def test_a_question_without_an_answer_runs_out_of_time() -> None:
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan, _ = await together(alice, bob)

            with pytest.raises(Timeout) as caught:
                await plan.ask("Anybody?", timeout=0.2)

            assert caught.value.code == "timeout"
            assert isinstance(caught.value, TimeoutError)

    run(story())


def test_members_are_added_named_and_removed() -> None:
    async def story() -> None:
        async with mesh("alice", "bob", "carol") as (alice, bob, carol):
            plan, work = await together(alice, bob)
            await carol.online()
            await plan.add(carol.id)
            await carol.caught_up()
            [offer] = await carol.channels()
            # Its name is known when the group's state has been seen.
            assert (offer.name, offer.state) == (None, "offered")
            assert str(await carol.accept(offer.id)) == CHANNEL

            members = await plan.members()
            assert {member.agent for member in members} == {alice.id, bob.id, carol.id}
            assert [member.label for member in members if member.me] == ["alice"]
            assert all(isinstance(member, Member) for member in members)

            words = await plan.words()
            assert len(words) == 5
            await plan.remove([bob.id])
            with pytest.raises(Denied) as caught:
                while True:
                    await within(work.receive())
            assert caught.value.code == "channel_closed"
            assert {member.agent for member in await plan.members()} == {alice.id, carol.id}
            assert await plan.words() != words

    run(story())


def test_rotating_changes_the_words_and_leaving_ends_the_loop() -> None:
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan, work = await together(alice, bob)
            before = await plan.words()
            await plan.rotate()
            assert await plan.words() != before

            await work.leave()
            assert [message.text async for message in work] == []
            assert [view.state for view in await bob.channels()] == ["left"]

    run(story())


def test_events_tell_who_came_and_went() -> None:
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan = await alice.channel(CHANNEL)
            events = plan.events()
            await bob.join(await plan.invite())

            async def until(kind: str) -> str | None:
                async for event in events:
                    assert event.channel == plan.id
                    if event.kind == kind:
                        return event.agent
                raise AssertionError(f"the events ended before {kind}")

            assert await within(until("joined")) == bob.id
            await plan.remove(bob.id)
            assert await within(until("removed")) == bob.id

    run(story())


def test_an_invite_is_a_line_that_repr_hides() -> None:
    async def story() -> None:
        async with mesh("alice") as (alice,):
            plan = await alice.channel(CHANNEL)
            invite = await plan.invite(uses=3, ttl=60)
            assert isinstance(invite, Invite)
            assert str(invite).startswith("skt_inv_")
            assert str(invite) not in repr([invite])
            await plan.close_invites()

    run(story())


def test_a_channel_is_found_opened_again_and_not_made_twice() -> None:
    async def story() -> None:
        async with mesh("alice") as (alice,):
            assert await alice.find(CHANNEL) is None
            plan = await alice.channel(CHANNEL)
            assert await alice.channel(CHANNEL) is plan
            assert await alice.find(CHANNEL) is plan
            [view] = await alice.channels()
            assert (view.id, view.name, view.state) == (plan.id, CHANNEL, "active")
            assert (view.members, view.unread, view.admin) == (1, 0, True)

    run(story())


def test_history_is_empty_until_it_is_asked_for_and_then_holds_both_sides() -> None:
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan = await alice.channel(CHANNEL)
            here = await bob.join(await plan.invite())
            await plan.send("forgotten")
            forgotten = await told(here)
            await forgotten.ack()
            assert await here.history() == []

            again = await kept(bob, "7d")
            async with again:
                there = await again.find(CHANNEL)
                assert there is not None
                await plan.send("question")
                question = await told(there)
                await question.reply("answer")
                await question.ack()
                found = await there.history()
                assert [message.text for message in found] == ["question", "answer"]
                assert [message.sender for message in found] == [alice.id, again.id]
                assert found[1].reply_to == found[0].id
                [answer] = await there.history(after=found[0].seq)
                assert (answer.id, answer.epoch) == (found[1].id, found[0].epoch)

            # It holds until another time is given.
            async with await kept(again, None) as bob:
                there = await bob.find(CHANNEL)
                assert there is not None
                assert len(await there.history()) == 2
            async with await kept(bob, "none") as bob:
                there = await bob.find(CHANNEL)
                assert there is not None
                assert await there.history() == []

    run(story())


def test_a_long_history_comes_whole() -> None:
    async def story() -> None:
        async with mesh("alice") as (alice,), await kept(alice, "1h") as again:
            plan = await again.channel(CHANNEL)
            texts = [str(number) for number in range(600)]
            await asyncio.gather(*(plan.send(text) for text in texts))
            assert sorted(message.text for message in await plan.history()) == sorted(texts)

    run(story())


async def told(channel: Channel) -> Message:
    message = await channel.receive(PATIENCE)
    assert message is not None
    return message


async def kept(agent: Agent, history: str | None) -> Agent:
    """The same agent, not open, that keeps its messages for another time."""
    await agent.close()
    again = Agent(agent.name, history=history)
    again._settings = {**agent._settings, "history": again._settings["history"]}
    return again
