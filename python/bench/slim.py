"""Measures slim-bindings as figures.py measures our package; runs where slim-bindings is installed.

usage: slim.py [--messages N] [--runs N]

Prints one JSON object. SLIM's own node runs in a process of its own, and so does each of the two
agents, in a point-to-point session with MLS, which retries after one second, ten times. A message
is confirmed when the other agent's library has it. Neither node nor agents store anything.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import socket
import sys
from contextlib import ExitStack
from typing import Any

from measure import Program, first_message, import_time, installed, live
from slim_ends import FIRST, SECRET

ENDS = os.fspath(pathlib.Path(__file__).with_name("slim_ends.py"))
NODE = pathlib.Path(__file__).parents[2] / "crates/cli/src/bench/slim/node.py"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=15, help="of the import; of scripts half of it")
    wanted = parser.parse_args()
    figures: dict[str, Any] = {
        "python": sys.version.split()[0],
        **installed("slim-bindings"),
        **import_time("slim_bindings", wanted.runs),
    }
    address = free_address()
    with Program(os.fspath(NODE), address) as node:
        url = f"http://{address}"
        figures["first_meeting_ms"] = first_meeting(url, wanted.runs // 2)
        figures |= live_rates(url, node, wanted.messages)
    print(json.dumps(figures, indent=2))


def first_meeting(url: str, runs: int) -> float:
    with Program(ENDS, url, "host", "host"):
        return first_message(
            runs, lambda number: ["-c", FIRST, url, f"guest-{number}", "host", SECRET]
        )


def live_rates(url: str, node: Program, count: int) -> dict[str, Any]:
    with ExitStack() as running:
        receiver = running.enter_context(Program(ENDS, url, "receive", "receiver"))
        sender = running.enter_context(Program(ENDS, url, "send", "sender", "receiver"))
        return live(sender, receiver, node, count)


def free_address() -> str:
    """Nobody else takes it within the moment; the node cannot be asked for its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host, port = probe.getsockname()
    return f"{host}:{port}"


if __name__ == "__main__":
    main()
