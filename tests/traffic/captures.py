"""Runs of `traffic_lab` as they lie on disk, and windows cut out of them.

What an attacker may use (`Line.times`, `sizes`, `down`) and what only the judge knows (workloads,
tables, who received what and when) come from different files and stay apart here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

UDP_AND_IP = 28  # bytes of IPv4 and UDP headers around each datagram
GAP_MAX = 2.0


@dataclass
class Line:
    """One agent's line over one run; seconds from the moment when work began."""

    run: str
    number: int
    workload: str
    table: int
    times: np.ndarray
    sizes: np.ndarray
    down: np.ndarray  # True for datagrams from the relay
    events: np.ndarray  # when a message was sent or received by the application
    bands: list[list[int]]

    @property
    def key(self) -> tuple[str, int]:
        return self.run, self.number


@dataclass
class Run:
    name: str
    mode: str
    seconds: float
    lines: list[Line]
    received: list[list[int]]  # [from, sent_us, received_us, bytes, file, left, to]
    manifest: dict = field(repr=False)


@dataclass
class Window:
    line: Line
    start: float
    seconds: float

    def cut(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times from the window's start, sizes, directions."""
        first, last = np.searchsorted(
            self.line.times, [self.start, self.start + self.seconds]
        )
        part = slice(first, last)
        return self.line.times[part] - self.start, self.line.sizes[part], self.line.down[part]

    def is_active(self) -> bool:
        events = self.line.events
        first, last = np.searchsorted(events, [self.start, self.start + self.seconds])
        return bool(last > first)


def load(directory: Path) -> list[Run]:
    """All runs below a directory that came to their end."""
    return [_load_run(path) for path in sorted(directory.glob("*/manifest.json"))]


def starts(seconds: float, length: float, rng: np.random.Generator) -> Iterator[float]:
    """Where windows of one length begin: in order, with a gap of up to two seconds before each.

    Without the gaps all windows of a line would lie in the same way on the grid of its slots; then a
    classifier learns lines by heart and their windows are no more than one observation.
    """
    start = rng.uniform(0, GAP_MAX)
    while start + length <= seconds:
        yield start
        start += length + rng.uniform(0, GAP_MAX)


def windows(run: Run, length: float, rng: np.random.Generator) -> Iterator[Window]:
    """Windows of all lines, each line with beginnings of its own.

    A window of a working line in which nothing was sent or received is left out: it is an idle one
    with a wrong label.
    """
    for line in run.lines:
        for start in starts(run.seconds, length, rng):
            window = Window(line, start, length)
            if line.workload == "idle" or window.is_active():
                yield window


def _load_run(path: Path) -> Run:
    manifest = json.loads(path.read_text())
    begin, end = manifest["begin_us"], manifest["end_us"]
    received = [
        [*message, line["line"]] for line in manifest["lines"] for message in line["received"]
    ]
    events: dict[int, list[int]] = {line["line"]: [] for line in manifest["lines"]}
    for sender, sent, got, _bytes, _file, _left, to in received:
        events[sender].append(sent)
        events[to].append(got)
    lines = []
    for line in manifest["lines"]:
        raw = np.fromfile(path.parent / line["capture"], dtype="<u8")
        lines.append(
            Line(
                run=path.parent.name,
                number=line["line"],
                workload=line["workload"],
                table=line["table"],
                times=((raw >> np.uint64(17)).astype(np.int64) - begin) / 1e6,
                sizes=(raw & np.uint64(0xFFFF)).astype(np.int64),
                down=(raw >> np.uint64(16) & np.uint64(1)).astype(bool),
                events=(np.sort(np.array(events[line["line"]], dtype=np.int64)) - begin) / 1e6,
                bands=line["bands"],
            )
        )
    return Run(
        name=path.parent.name,
        mode=manifest["mode"],
        seconds=(end - begin) / 1e6,
        lines=lines,
        received=received,
        manifest=manifest,
    )
