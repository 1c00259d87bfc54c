"""However a program ends, it ends: no hang, no abort, no complaint but the program's own."""

from __future__ import annotations

import asyncio
import os
import signal
import textwrap

import pytest
from stage import CHANNEL, finish, program, run

from skytale import Agent
from skytale.testing import mesh

#: Begins most programs here: an agent that is open and a loop that waits.
OPEN = """\
    import asyncio, contextlib, sys
    from skytale import Agent, Denied
    from skytale.testing import mesh

    async def opened():
        agent = Agent("alice")
        await agent.open()
        return agent, await agent.channel("acme/ops/plan")
"""


@pytest.fixture(scope="module")
def servers():  # type: ignore[no-untyped-def]
    """Servers in this process, for programs in others."""
    running = mesh()
    with running:
        yield running.environment()


@pytest.mark.parametrize(
    ("how", "code", "complaint"),
    [
        pytest.param(
            """
            async def main():
                agent, plan = await opened()
                await plan.send("bye")
                print("left open")
            asyncio.run(main())
            """,
            0,
            "",
            id="an agent is left open",
        ),
        pytest.param(
            """
            async def main():
                global agent, plan
                agent, plan = await opened()
            asyncio.run(main())
            print("kept to the end of the interpreter")
            """,
            0,
            "",
            id="objects outlive the loop",
        ),
        pytest.param(
            """
            async def main():
                agent, plan = await opened()
                raise RuntimeError("of the program's own")
            asyncio.run(main())
            """,
            1,
            "of the program's own",
            id="an exception",
        ),
        pytest.param(
            """
            async def main():
                async with Agent("alice") as agent:
                    plan = await agent.channel("acme/ops/plan")
                    async def read():
                        # It ends with the agent: whoever waits beside has to expect that.
                        with contextlib.suppress(Denied):
                            await plan.receive()
                    waiting = asyncio.create_task(read())
                    await asyncio.sleep(0)
                    sys.exit(3)
            asyncio.run(main())
            """,
            3,
            "",
            id="sys.exit while something waits",
        ),
        pytest.param(
            """
            async def main():
                async with Agent("alice") as agent:
                    plan = await agent.channel("acme/ops/plan")
                    async def read():
                        async for message in plan:
                            pass
                    reading = asyncio.create_task(read())
                    await asyncio.sleep(0)
            asyncio.run(main())
            print("the loop's task was cancelled")
            """,
            0,
            "",
            id="a task that still loops",
        ),
        pytest.param(
            """
            import threading
            from skytale import sync
            agent = sync.Agent("alice").open()
            plan = agent.channel("acme/ops/plan")
            threading.Thread(target=plan.receive, daemon=True).start()
            print("a thread still waits")
            """,
            0,
            "",
            id="a daemon thread that blocks",
        ),
        pytest.param(
            """
            async def main():
                async with mesh("alice", "bob") as (alice, bob):
                    await alice.channel("acme/ops/plan")
                    sys.exit(4)
            asyncio.run(main())
            """,
            4,
            "",
            id="inside a mesh",
        ),
        pytest.param(
            """
            from skytale import sync
            servers = mesh("alice")
            alice, = servers.__enter__()
            print("a mesh is left running")
            """,
            0,
            "",
            id="a mesh that nobody stops",
        ),
    ],
)
def test_a_program_ends_well(servers: dict[str, str], how: str, code: int, complaint: str) -> None:
    ended, said, complained = finish(program(textwrap.dedent(OPEN) + textwrap.dedent(how), servers))
    assert ended == code, (said, complained)
    assert complaint in complained
    assert complaint or complained == "", complained
    for word in ("loop is closed", "never retrieved", "Fatal", "panicked"):
        assert word not in complained, complained


@pytest.mark.parametrize("face", ["asynchronous", "blocking"])
def test_ctrl_c_ends_a_program_that_waits(servers: dict[str, str], face: str) -> None:
    text = {
        "asynchronous": """
            async def main():
                async with Agent("alice") as agent:
                    plan = await agent.channel("acme/ops/plan")
                    print("waiting", flush=True)
                    await plan.receive()
            asyncio.run(main())
        """,
        "blocking": """
            from skytale import sync
            with sync.Agent("alice") as agent:
                plan = agent.channel("acme/ops/plan")
                print("waiting", flush=True)
                plan.receive()
        """,
    }[face]
    # Whoever runs the tests in the background has them begun with Ctrl-C ignored.
    heard = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    started = program(heard + textwrap.dedent(OPEN) + textwrap.dedent(text), servers)
    assert started.stdout is not None
    assert started.stdout.readline() == "waiting\n"

    started.send_signal(signal.SIGINT)
    _, _, complained = finish(started)

    assert complained.rstrip().endswith("KeyboardInterrupt"), complained
    assert "never retrieved" not in complained
    # As the interpreter itself ends after Ctrl-C: by the signal.
    assert started.returncode in (-signal.SIGINT, 130)


def test_an_agent_lives_on_in_a_second_event_loop() -> None:
    running = mesh("alice", "bob")
    with running as (_, bob):
        work = bob.channel(CHANNEL)
        carol = Agent("carol")
        carol._settings = running._running.settings()  # type: ignore[union-attr]

        async def join(invite: str) -> None:
            await carol.open()
            await carol.join(invite)

        async def speak(text: str) -> None:
            plan = await carol.find(CHANNEL)
            assert plan is not None
            await plan.send(text)

        run(join(work.invite()))
        run(speak("from the second loop"))
        run(speak("from the third loop"))
        run(carol.close())

        texts = [message.text for _, message in zip(range(2), work, strict=False)]
        assert texts == ["from the second loop", "from the third loop"]


def test_a_result_for_a_loop_that_is_closed_goes_nowhere() -> None:
    running = mesh("alice")
    with running as (alice,):
        plan = alice.channel(CHANNEL)

        async def leave_it() -> None:
            asyncio.get_running_loop().create_task(_never(plan))
            await asyncio.sleep(0)

        for _ in range(20):
            asyncio.run(leave_it())
        assert plan.send("and it goes on").seq >= 1


async def _never(plan: object) -> None:
    await plan._inbox.arrival()  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_after_a_fork_the_child_is_told_so(servers: dict[str, str]) -> None:
    text = """
        import os
        from skytale import Misuse, sync
        agent = sync.Agent("alice").open()
        plan = agent.channel("acme/ops/plan")
        plan.send("kept")
        kept = None
        def says(call):
            try:
                call()
            except Misuse as error:
                assert "before this process was forked" in str(error), error
            else:
                raise AssertionError(call)
        child = os.fork()
        if child == 0:
            calls = [lambda: agent.id, agent.channels, agent.events, lambda: plan.send("twice"),
                     lambda: plan.receive(1), plan.members, lambda: plan.id, agent.close]
            for call in calls:
                says(call)
            says(sync.Agent("child").open)
            print("the child is well", flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        assert plan.send("the parent goes on").seq > 1
        agent.close()
        print("the parent is well")
    """
    # Newer interpreters warn of every fork beside threads, which is what is tried here.
    text = "import warnings\nwarnings.simplefilter('ignore')\n" + textwrap.dedent(text)
    ended, said, complained = finish(program(text, servers))
    assert (ended, complained) == (0, "")
    assert said == "the child is well\nthe parent is well\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_after_a_fork_the_child_is_told_so_when_it_awaits(servers: dict[str, str]) -> None:
    text = """
        import asyncio, os
        from skytale import Agent, Misuse
        from skytale.testing import mesh
        async def prepare():
            agent = await Agent("alice").open()
            plan = await agent.channel("acme/ops/plan")
            async with Agent("bob") as bob:
                await (await bob.join(await plan.invite())).send("hello")
            return agent, plan, await plan.receive(30)
        async def says(call):
            try:
                await call()
            except Misuse as error:
                assert "before this process was forked" in str(error), error
            else:
                raise AssertionError(call)
        async def text():
            return message.text
        async def in_the_child():
            calls = [agent.channels, lambda: plan.send("twice"), lambda: plan.receive(1),
                     plan.members, lambda: message.reply("twice"), message.ack, text, agent.close,
                     lambda: anext(agent_events)]
            for call in calls:
                await says(call)
        agent, plan, message = asyncio.run(prepare())
        agent_events = aiter(agent.events())
        child = os.fork()
        if child == 0:
            asyncio.run(in_the_child())
            print("the child is well", flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        async def in_the_parent():
            assert message.text == "hello"
            assert (await message.reply("the parent goes on")).seq > 1
            await agent.close()
        asyncio.run(in_the_parent())
        print("the parent is well")
    """
    text = "import warnings\nwarnings.simplefilter('ignore')\n" + textwrap.dedent(text)
    ended, said, complained = finish(program(text, servers))
    assert (ended, complained) == (0, "")
    assert said == "the child is well\nthe parent is well\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_comes_to_its_end_whatever_the_parent_was_doing(
    servers: dict[str, str],
) -> None:
    # At its end SQLCipher clears away, and would wait for a lock that a thread of the parent held
    # when it forked. So the parent's are kept busy, and there are many children.
    text = """
        import os, sys, threading
        from skytale import sync
        CHILDREN = 60
        agent = sync.Agent("alice").open()
        plan = agent.channel("acme/ops/plan")
        over = threading.Event()
        sent = []
        def talk():
            while not over.is_set():
                sent.append(plan.send("busy").seq)
                agent.channels()
        talking = [threading.Thread(target=talk) for _ in range(3)]
        for one in talking:
            one.start()
        for n in range(CHILDREN):
            child = os.fork()
            if child == 0:
                sys.exit(0)
            _, status = os.waitpid(child, 0)
            assert status == 0, status
        over.set()
        for one in talking:
            one.join()
        assert len(sent) == len(set(sent)) > 0
        agent.close()
        print("all have ended")
    """
    text = "import warnings\nwarnings.simplefilter('ignore')\n" + textwrap.dedent(text)
    ended, said, complained = finish(program(text, servers))
    assert (ended, complained) == (0, "")
    assert said == "all have ended\n"


def test_importing_starts_nothing_and_is_quick_about_it() -> None:
    text = """
        import sys, threading
        import skytale
        assert threading.active_count() == 1
        assert "asyncio" not in sys.modules, "asyncio is imported by whoever needs it"
        tasks = len(__import__("os").listdir("/proc/self/task")) if sys.platform == "linux" else 1
        assert tasks == 1, tasks
    """
    ended, _, complained = finish(program(text))
    assert (ended, complained) == (0, ""), complained


def test_what_was_taken_when_the_process_was_killed_is_shown_again() -> None:
    reader = """
        import os, signal, sys
        from skytale.sync import Agent

        with Agent("bob") as bob:
            invite, count = sys.stdin.readline().split()
            work = bob.find("acme/ops/plan") or bob.join(invite)
            print("in", flush=True)
            for left in reversed(range(int(count))):
                message = work.receive(60)
                print(message.id, message.text, flush=True)
                if left:
                    message.ack()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    running = mesh("alice")
    with running as (alice,):
        plan = alice.channel(CHANNEL)
        invite = plan.invite(uses=1)
        taken: list[list[tuple[str, ...]]] = []
        for count in (1, 2, 2):
            started = program(reader, running.environment())
            assert started.stdin is not None and started.stdout is not None
            started.stdin.write(f"{invite} {count}\n")
            started.stdin.flush()
            assert started.stdout.readline() == "in\n"
            if not taken:
                for text in ("one", "two", "three"):
                    plan.send(text)
            code, said, complained = finish(started)
            assert code == -signal.SIGKILL, complained
            taken.append([tuple(line.split()) for line in said.splitlines()])
    ids, texts = zip(*(shown for some in taken for shown in some), strict=True)
    assert texts == ("one", "one", "two", "two", "three")
    assert ids[0] == ids[1] and ids[2] == ids[3] and len(set(ids)) == 3
