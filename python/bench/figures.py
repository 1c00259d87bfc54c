"""Measures the installed package: size, import, the first message, and messages per second.

usage: figures.py [--messages N] [--traffic MODE] [--store DIR] [--runs N]

Prints one JSON object. Servers run in a process of their own, with the archive of
`skytale.testing`; they and the agents' vaults store below ``--store``. Every message is flushed by
the sender's vault and the relay before `send` returns, and by the reader's vault before it is
shown. No setting takes that away; in a directory that is memory a flush costs nothing, and nothing
survives the machine. If ``SKYTALE_API_URL`` is set, the servers that the environment names are used
instead, for which the rate limits of a relay hold.

`live_…` has a sender and a receiver at the same time, each a process of its own, and counts until
everything was both confirmed and received. The other rates are each measured beside nothing else:
`send_…` while the reader is away, `catch_up` from the relay to the vault, `receive_stored` from
there. CPU is that of the measured process, all its threads, and `python` the part of it that ran in
the event loop's thread.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ends import FIRST_OF_KNOWN, FIRST_OF_NEW, KEPT
from measure import TEXT_BYTES, Program, Spent, first_message, import_time, installed, live

from skytale import Agent

CHANNEL = "bench/python/line"
ENDS = os.fspath(pathlib.Path(__file__).with_name("ends.py"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--traffic", default="padded")
    temporary = tempfile.gettempdir()
    parser.add_argument("--store", type=os.path.abspath, default=temporary, metavar="DIR")
    parser.add_argument("--runs", type=int, default=15, help="of the import; of scripts half of it")
    wanted = parser.parse_args()
    figures: dict[str, Any] = {
        "python": sys.version.split()[0],
        **installed("skytale"),
        **import_time("skytale", wanted.runs),
        "traffic": wanted.traffic,
        "store": file_system(wanted.store),
        "flush_us": flush(wanted.store),
    }
    with servers(wanted.store) as server:
        os.environ["SKYTALE_TRAFFIC"] = wanted.traffic
        figures |= first_messages(wanted.runs // 2)
        figures |= live_rates(server, wanted.messages)
        figures |= asyncio.run(stored_rates(wanted.messages))
    print(json.dumps(figures, indent=2))


@contextmanager
def servers(store: str) -> Iterator[Program | None]:
    if "SKYTALE_API_URL" in os.environ:
        yield None
        return
    with Program(ENDS, "serve", environment={"TMPDIR": store}) as running:
        os.environ.update(running.ready)
        yield running


def first_messages(runs: int) -> dict[str, float]:
    with Program(ENDS, "host") as host:
        with Program(ENDS, "enter", host.ready):
            pass

        def known(_: int) -> list[str]:
            host.tell(send=1)
            host.hear()
            return ["-c", FIRST_OF_KNOWN, KEPT]

        def new(number: int) -> list[str]:
            # Another name each time the environment's own servers are measured.
            name = f"{time.time_ns()}-{number}"
            host.tell(meeting=name)
            return ["-c", FIRST_OF_NEW, f"bench-{name}", host.hear()["invite"]]

        return {
            "first_message_ms": first_message(runs, known),
            "first_meeting_ms": first_message(runs, new),
        }


def live_rates(server: Program | None, count: int) -> dict[str, Any]:
    with ExitStack() as running:
        sender = running.enter_context(Program(ENDS, "send"))
        receiver = running.enter_context(Program(ENDS, "receive", sender.ready))
        return live(sender, receiver, server, count)


async def stored_rates(count: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    few, at_once = max(count // 10, 1), min(count, 64)
    many = count // at_once * at_once
    async with Agent("bench-writer") as writer:
        here = await writer.channel(CHANNEL)
        async with Agent("bench-reader") as reader:
            await reader.join(await here.invite())
            await here.words()

        with measured(figures, "send_one_by_one", few):
            for _ in range(few):
                await here.send("x" * TEXT_BYTES)
        with measured(figures, "send_64_at_once", many):
            for _ in range(many // at_once):
                await asyncio.gather(*(here.send("x" * TEXT_BYTES) for _ in range(at_once)))
        stored = few + many

    async with Agent("bench-reader") as reader:
        there = await reader.find(CHANNEL)
        assert there is not None
        with measured(figures, "catch_up", stored):
            await there.caught_up()
        with measured(figures, "receive_stored", stored):
            for number in range(stored):
                message = await there.receive(60)
                if message is None:
                    figures["lost"] = stored - number
                    break
                assert len(message.text) == TEXT_BYTES
        # Asking for one more says that the last was read.
        assert await there.receive(0) is None
    return {"lost": 0, **figures}


@contextmanager
def measured(figures: dict[str, Any], name: str, count: int) -> Iterator[None]:
    spent = Spent()
    yield
    used, each = spent.so_far(), 1e6 / count
    figures[name] = {
        "messages": count,
        "per_second": count / used["wall"],
        "cpu_us": used["cpu"] * each,
        "python_us": used["python"] * each,
    }


def flush(store: str) -> float:
    """Microseconds until 1,024 bytes more of a file are on the disk, the median of a hundred."""
    took = []
    with tempfile.TemporaryFile(dir=store) as file:
        for _ in range(100):
            begun = time.perf_counter()
            file.write(bytes(1024))
            file.flush()
            getattr(os, "fdatasync", os.fsync)(file.fileno())
            took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1e6


def file_system(store: str) -> str:
    """What kind it is, where the system tells: on `tmpfs` nothing is durable."""
    try:
        lines = pathlib.Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return "unknown"
    real = pathlib.Path(store).resolve()
    mounts = [line.split()[1:3] for line in lines]
    within = [(place, kind) for place, kind in mounts if real.is_relative_to(place)]
    return max(within, key=lambda mount: len(mount[0]), default=("", "unknown"))[1]


if __name__ == "__main__":
    main()
