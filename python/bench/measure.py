"""What is measured of both packages in the same way: size, import, the first message, live rates.

It knows neither of them. What sends and receives are programs in processes of their own, which take
orders in lines of JSON and end when nobody can give them any more.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any

#: Where scripts run: elsewhere they might import what lies there, and not what is installed.
HERE = pathlib.Path(__file__).parent
#: Of a message's text. It is the message's number, so that none can be lost or doubled unseen.
TEXT_BYTES = 64
#: Messages at most before live rates are measured.
WARM_UP = 64
#: Ends what would never end: seconds until the last of many messages, or a script's first.
PATIENCE = 120.0


def installed(distribution: str) -> dict[str, Any]:
    """What lies on disk of a distribution and everything that it pulls in, byte code included."""
    missing, size, found = [distribution], 0, set()
    while missing:
        name = missing.pop()
        if name in found:
            continue
        found.add(name)
        known = importlib.metadata.distribution(name)
        files = [pathlib.Path(str(file.locate())) for file in known.files or ()]
        size += sum(file.stat().st_size for file in files if file.is_file())
        missing += [named(line) for line in known.requires or () if "extra ==" not in line]
    version = importlib.metadata.version(distribution)
    return {"version": version, "packages": len(found), "installed_mb": size / 1e6}


def named(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def import_time(module: str, runs: int) -> dict[str, float]:
    """The median of several, each in a fresh interpreter, less what the interpreter needs."""
    text = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", text]
    done = [
        subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=HERE)
        for _ in range(runs)
    ]
    return {"import_ms": statistics.median(float(one.stdout) for one in done) * 1e3}


def first_message(runs: int, script: Callable[[int], list[str]]) -> float:
    """Milliseconds from a script's start until it has its first message, the median of several.

    `script` has everything else wait for the script, and says what the interpreter runs; when the
    script has the message it prints `FIRST` and its monotonic clock, which all processes share.
    """
    took = []
    for number in range(runs):
        command = [sys.executable, *script(number)]
        begun = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=HERE)
        told = re.search(r"^FIRST (\S+)$", done.stdout, re.MULTILINE)
        if told is None:
            sys.exit(f"{sys.argv[0]}: a script had no message:\n{done.stderr[-TAIL:]}")
        took.append((float(told[1]) - begun) * 1e3)
    return statistics.median(took)


class Spent:
    """Time since it was made: on the clock, of all processors, and of the event loop's thread."""

    def __init__(self) -> None:
        self._begun = time.monotonic(), time.process_time(), time.thread_time()

    def so_far(self) -> dict[str, float]:
        wall, cpu, python = self._begun
        ended = time.monotonic()
        return {
            "begun": wall,
            "ended": ended,
            "wall": ended - wall,
            "cpu": time.process_time() - cpu,
            "python": time.thread_time() - python,
        }


# The side of whoever measures.


class Program:
    """A script in a process of its own. It ends when this does, having said `ready` before."""

    def __init__(self, *command: str, environment: Mapping[str, str] | None = None) -> None:
        # What it logs is wanted only when it fails.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **(environment or {})},
            text=True,
        )
        self._command = command
        self.ready: Any = self.hear()["ready"]

    def tell(self, **order: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            log = self._log.read()[-TAIL:].decode(errors="replace")
            sys.exit(f"{sys.argv[0]}: {' '.join(self._command[:2])} has ended:\n{log}")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def cpu(self) -> float | None:
        """Processor time that it has used; ``None`` where the system does not tell."""
        try:
            text = pathlib.Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return None
        # The command's name stands in brackets and may hold anything.
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._log.close()


def live(
    sender: Program, receiver: Program, server: Program | None, count: int
) -> dict[str, dict[str, Any]]:
    """Rates while one sends and the other receives: one message at a time, and 64 at once."""
    _live(sender, receiver, server, min(WARM_UP, count), WARM_UP)
    return {
        "live_one_by_one": _live(sender, receiver, server, max(count // 10, 1), 1),
        "live_64_at_once": _live(sender, receiver, server, count, 64),
    }


def _live(
    sender: Program, receiver: Program, server: Program | None, count: int, at_once: int
) -> dict[str, Any]:
    # A message that comes again from the round before is none of this one's.
    first = time.monotonic_ns()
    receiver.tell(receive=count, first=first)
    receiver.hear()
    before = None if server is None else server.cpu()
    sender.tell(send=count, first=first, at_once=at_once)
    sent, received = sender.hear(), receiver.hear()
    after = None if server is None else server.cpu()
    each = 1e6 / count
    figures = {
        "messages": count,
        "per_second": count / (max(sent["ended"], received["ended"]) - sent["begun"]),
        "sender_cpu_us": sent["cpu"] * each,
        "sender_python_us": sent["python"] * each,
        "receiver_cpu_us": received["cpu"] * each,
        "receiver_python_us": received["python"] * each,
        "unconfirmed": sent["unconfirmed"],
        "lost": received["lost"],
        "doubled": received["doubled"],
    }
    if before is not None and after is not None:
        figures["server_cpu_us"] = (after - before) * each
    return figures


# The side of a program.


def say(**line: object) -> None:
    print(json.dumps(line), file=_MOUTH, flush=True)


async def orders() -> AsyncIterator[dict[str, Any]]:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        yield json.loads(line)


async def send_when_told(send: Callable[[str], Awaitable[object]]) -> None:
    """`send` is done when the message is confirmed."""
    async for order in orders():
        first, unconfirmed = order["first"], 0
        numbers = iter(range(first, first + order["send"]))

        async def one_after_the_other(numbers: Any = numbers) -> None:
            nonlocal unconfirmed
            for number in numbers:
                try:
                    await send(f"{number:0{TEXT_BYTES}}")
                except Exception as error:
                    unconfirmed += 1
                    print(f"not confirmed: {error}", file=sys.stderr)

        spent = Spent()
        await asyncio.gather(*(one_after_the_other() for _ in range(order["at_once"])))
        say(**spent.so_far(), unconfirmed=unconfirmed)


async def receive_when_told(next_text: Callable[[], Awaitable[str]]) -> None:
    async for order in orders():
        first, seen = order["first"], bytearray(order["receive"])
        doubled = 0

        async def receive(first: int = first, seen: bytearray = seen) -> None:
            nonlocal doubled
            missing = len(seen)
            while missing:
                number = int(await next_text()) - first
                if 0 <= number < len(seen) and not seen[number]:
                    seen[number] = 1
                    missing -= 1
                else:
                    doubled += 1

        say(listening=True)
        spent = Spent()
        try:
            await asyncio.wait_for(receive(), PATIENCE)
        except asyncio.TimeoutError:
            print("not everything came", file=sys.stderr)
        say(**spent.so_far(), lost=seen.count(0), doubled=doubled)


def own_mouth() -> None:
    """What is said has stdout for itself from now on: what packages log there goes to stderr."""
    global _MOUTH
    _MOUTH = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)


_MOUTH = sys.stdout
#: Characters of a log that are shown when a program has failed.
TAIL = 4_000
