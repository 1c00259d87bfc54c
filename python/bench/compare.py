"""Both packages beside each other, round by round in one run, as one table or as JSON.

usage: compare.py --ours PYTHON --slim PYTHON [--wheel FILE …] [--quick] [--json]

Runs figures.py and slim.py, each in the environment where its package is installed, one after the
other; who was first in one round is last in the next. Figures are medians of the rounds. Fails when
a message was lost or not confirmed, or a figure is missing; a figure that is worse than wanted is
told and fails nothing. `scripts/python-figures` gives it what it takes.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from typing import Any, Literal

HERE = pathlib.Path(__file__).parent
#: Seconds that a rival may take for a round: then it hangs.
ROUND_MAX = 1_800


def main() -> None:
    wanted = arguments()
    # What others do here, before we begin: figures of a busy machine do not count.
    load = os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory(dir=wanted.disk) as disk,
        tempfile.TemporaryDirectory(dir=wanted.memory) as memory,
    ):
        rivals = invited(wanted, disk, memory)
        measure(rivals)
    lines, wrong = [line(row, rivals) for row in ROWS], complaints(rivals)
    report = {
        "quick": wanted.quick,
        "cores": os.cpu_count(),
        "load_before": round(load, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "rivals": {
            rival.name: {
                "how": rival.how,
                "rounds": [{**rival.wheels, **one} for one in rival.rounds],
            }
            for rival in rivals
        },
        "figures": lines,
        "wrong": wrong,
    }
    if wanted.json:
        print(json.dumps(report, indent=2))
    else:
        show(report, rivals)
    for complaint in wrong:
        say(complaint)
    sys.exit(1 if wrong else 0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", required=True, metavar="PYTHON", help="where skytale is")
    parser.add_argument("--slim", required=True, metavar="PYTHON", help="where slim-bindings is")
    parser.add_argument("--wheel", metavar="FILE", help="ours, to tell its size")
    parser.add_argument("--program-wheel", metavar="FILE")
    parser.add_argument("--slim-wheel", metavar="FILE")
    parser.add_argument("--disk", default=tempfile.gettempdir(), metavar="DIR")
    parser.add_argument("--memory", default="/dev/shm", metavar="DIR", help="on a tmpfs")
    parser.add_argument("--messages", type=int, metavar="N")
    parser.add_argument("--rounds", type=int, metavar="N")
    parser.add_argument("--quick", action="store_true", help="shows that everything runs")
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    if not os.path.isdir(wanted.memory):
        parser.error(f"there is no {wanted.memory}: name a directory in memory with --memory")
    wanted.messages = wanted.messages or (200 if wanted.quick else 10_000)
    wanted.rounds = wanted.rounds or (1 if wanted.quick else 3)
    # A schedule carries a few messages a second, however fast the programs are.
    wanted.messages_by_default = 4 if wanted.quick else 24
    wanted.runs = 3 if wanted.quick else 15
    return wanted


def megabytes(file: str | None) -> float | None:
    return None if file is None else os.stat(file).st_size / 1e6


# The rivals, and how they take turns.

DISK, MEMORY, DEFAULT, SLIM = "on disk", "in memory", "by default", "slim-bindings"


@dataclass
class Rival:
    name: str
    #: Traffic mode and durability, for people.
    how: str
    command: list[str]
    rounds_wanted: int
    wheels: dict[str, float | None] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def figure(self, key: str) -> float | None:
        """The median of the rounds; ``None`` if a round has none."""
        found = [self.wheels.get(key, one.get(key)) for one in self.rounds]
        there = [one for one in found if isinstance(one, (int, float))]
        return statistics.median(there) if len(there) == self.rounds_wanted else None


def invited(wanted: argparse.Namespace, disk: str, memory: str) -> list[Rival]:
    def ours(messages: int, traffic: str, store: str) -> list[str]:
        named = {"messages": messages, "traffic": traffic, "store": store, "runs": wanted.runs}
        return [wanted.ours, os.fspath(HERE / "figures.py"), *options(named)]

    def theirs() -> list[str]:
        named = {"messages": wanted.messages, "runs": wanted.runs}
        return [wanted.slim, os.fspath(HERE / "slim.py"), *options(named)]

    return [
        Rival(
            DISK,
            "skytale, padded lines; relay and vaults flush to disk",
            ours(wanted.messages, "padded", disk),
            wanted.rounds,
            {
                "wheel_mb": megabytes(wanted.wheel),
                "program_wheel_mb": megabytes(wanted.program_wheel),
            },
        ),
        Rival(
            MEMORY,
            "skytale, padded lines; relay and vaults flush to memory, which keeps nothing either",
            ours(wanted.messages, "padded", memory),
            wanted.rounds,
        ),
        Rival(
            SLIM,
            "its own node, two agents with MLS, lines not padded; nobody stores anything",
            theirs(),
            wanted.rounds,
            {"wheel_mb": megabytes(wanted.slim_wheel)},
        ),
        Rival(
            DEFAULT,
            "skytale, adaptive lines, whose schedule sets the pace; flushes to disk; one round",
            ours(wanted.messages_by_default, "adaptive", disk),
            1,
        ),
    ]


def options(named: dict[str, Any]) -> list[str]:
    return [text for name, value in named.items() for text in (f"--{name}", str(value))]


def measure(rivals: list[Rival]) -> None:
    for number in range(max(rival.rounds_wanted for rival in rivals)):
        turn = [rival for rival in rivals if number < rival.rounds_wanted]
        for rival in turn if number % 2 == 0 else reversed(turn):
            say(f"round {number + 1}, {rival.name}")
            rival.rounds.append(one_round(rival))


def one_round(rival: Rival) -> dict[str, Any]:
    """What it printed, flat. Nothing if it failed, having said why."""
    # A group of its own, so that nothing of it is left when it hangs or we are interrupted.
    process = subprocess.Popen(
        rival.command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=ROUND_MAX)
    except subprocess.TimeoutExpired:
        say(f"{rival.name} did not end")
        return {}
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return flat(json.loads(said)) if process.returncode == 0 else {}


def flat(figures: dict[str, Any]) -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    found: dict[str, Any] = {}
    for key, value in figures.items():
        if isinstance(value, dict):
            found |= {f"{key}.{below}": one for below, one in value.items()}
        else:
            found[key] = value
    return found


# The table.

Better = Literal["less", "more"]


@dataclass(frozen=True)
class Row:
    key: str
    label: str
    unit: str
    #: Who must have it; for others it may not exist.
    owed: tuple[str, ...]
    #: Than slim-bindings; ``None`` where there is nothing to compare.
    better: Better | None = None
    #: How many times better it should be, and of which rival.
    wanted: tuple[str, float] | None = None
    #: What it should not exceed on disk and in memory.
    most: float | None = None


ALL, OURS = (DISK, MEMORY, SLIM, DEFAULT), (DISK, MEMORY, DEFAULT)
#: These fail the run where they are not 0.
LOSSES = ("lost", "unconfirmed")
#: File systems.
IN_MEMORY = ("tmpfs", "ramfs")
ROWS = (
    Row("wheel_mb", "wheel", "MB", (DISK, SLIM), "less", most=8),
    Row("program_wheel_mb", "wheel of the program", "MB", (DISK,)),
    Row("installed_mb", "installed, with all it pulls in", "MB", ALL, "less", (DISK, 5)),
    Row("packages", "packages that are", "", ALL),
    Row("import_ms", "import", "ms", ALL, "less", (DISK, 5)),
    Row("first_message_ms", "script start to first message, known agent", "ms", OURS),
    Row("first_meeting_ms", "script start to first message, new session", "ms", ALL, "less"),
    *(
        row
        for live, how in (("live_one_by_one", "one by one"), ("live_64_at_once", "64 at once"))
        for row in (
            Row(f"{live}.per_second", f"live, {how}", "1/s", ALL, "more", (MEMORY, 1)),
            Row(f"{live}.sender_cpu_us", "  CPU a message: sender", "µs", ALL, "less"),
            Row(f"{live}.sender_python_us", "    in Python's thread", "µs", ALL, "less"),
            Row(f"{live}.receiver_cpu_us", "  CPU a message: receiver", "µs", ALL, "less"),
            Row(f"{live}.receiver_python_us", "    in Python's thread", "µs", ALL, "less"),
            # Not every system tells it.
            Row(f"{live}.server_cpu_us", "  CPU a message: relay or node", "µs", (), "less"),
            Row(f"{live}.unconfirmed", "  not confirmed", "", ALL),
            Row(f"{live}.lost", "  lost", "", ALL),
            Row(f"{live}.doubled", "  received twice", "", ALL),
        )
    ),
    *(
        row
        for stored, what in (
            ("send_one_by_one", "send, reader away, one by one"),
            ("send_64_at_once", "send, reader away, 64 at once"),
            ("catch_up", "catch up: relay to vault"),
            ("receive_stored", "receive what is in the vault"),
        )
        for row in (
            Row(f"{stored}.per_second", what, "1/s", OURS),
            Row(f"{stored}.cpu_us", "  CPU a message", "µs", OURS),
            Row(
                f"{stored}.python_us",
                "    in Python's thread",
                "µs",
                OURS,
                most=20 if stored == "receive_stored" else None,
            ),
        )
    ),
    Row("lost", "  lost", "", OURS),
    Row("flush_us", "bare flush of 1,024 B, same directory", "µs", OURS),
)


def line(row: Row, rivals: list[Rival]) -> dict[str, Any]:
    """A row's figures, how many times better than slim-bindings they are, and what is wanted."""
    figures = {rival.name: rival.figure(row.key) for rival in rivals}
    theirs = figures[SLIM]
    times = {
        name: round(theirs / ours if row.better == "less" else ours / theirs, 2)
        for name, ours in figures.items()
        if row.better and name != SLIM and ours and theirs
    }
    found: dict[str, Any] = {"key": row.key, "label": row.label.strip(), "unit": row.unit}
    found |= {"figures": figures, "times_better": times}
    if row.wanted is not None:
        of, least = row.wanted
        found |= {"wanted": f"{least} times, {of}", "met": times.get(of, 0) >= least}
    if row.most is not None:
        ours = [figures[name] for name in row.owed if name in (DISK, MEMORY)]
        is_met = all(0 < (figure or 0) <= row.most for figure in ours)
        found |= {"wanted": f"{row.most:g} {row.unit} at most", "met": is_met}
    return found


def complaints(rivals: list[Rival]) -> list[str]:
    wrong = []
    for row in ROWS:
        for rival in rivals:
            figure = rival.figure(row.key)
            if figure is None and rival.name in row.owed:
                wrong.append(f"missing: {row.key} of {rival.name}")
    for rival in rivals:
        for number, one in enumerate(rival.rounds, 1):
            for key, value in one.items():
                if key.rpartition(".")[2] in LOSSES and value:
                    wrong.append(f"{rival.name}, round {number}: {key} is {value}")
            if rival.name == DISK and one.get("store") in IN_MEMORY:
                wrong.append(f"{rival.name}: --disk is in memory")
    return wrong


def show(report: dict[str, Any], rivals: list[Rival]) -> None:
    machine = f"{report['system']}, {report['cores']} cores, load {report['load_before']} before"
    print(f"{machine}; medians of the rounds\n")
    for rival in rivals:
        one = rival.rounds[0]
        known = f"{one.get('version')}, Python {one.get('python')}, rounds: {len(rival.rounds)}"
        print(f"{rival.name:14}{rival.how} ({known}{stored_on(one)})")
    print(
        "\nConfirmed is: by the relay of skytale; by the other agent's library of slim-bindings.\n"
    )
    heads = [rival.name for rival in rivals]
    print(" " * LABEL + "".join(f"{head:>14}" for head in heads) + "  times better (disk, memory)")
    for row, found in zip(ROWS, report["figures"], strict=True):
        figures = "".join(f"{written(found['figures'][head]):>14}" for head in heads)
        unit = f", {row.unit}" if row.unit else ""
        print(f"{row.label + unit:{LABEL}}{figures}  {verdict(found)}".rstrip())
    if report["quick"]:
        print("\nQuick: this shows that everything runs, and no figure of it counts.")


def stored_on(one: dict[str, Any]) -> str:
    return f", {one['traffic']}, on {one['store']}" if "store" in one else ""


def written(figure: float | None) -> str:
    if figure is None:
        return "-"
    return f"{figure:,.0f}" if figure >= 1_000 or figure == int(figure) else f"{figure:,.1f}"


def verdict(found: dict[str, Any]) -> str:
    times = [found["times_better"].get(name) for name in (DISK, MEMORY)]
    told = " / ".join(f"{one:.2f}" for one in times if one is not None)
    if "wanted" not in found:
        return told
    return f"{told}  wanted: {found['wanted']}: {'yes' if found['met'] else 'NO'}".strip()


def say(text: str) -> None:
    print(f"compare.py: {text}", file=sys.stderr, flush=True)


LABEL = 48

if __name__ == "__main__":
    main()
