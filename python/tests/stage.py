"""What all tests share: an event loop with an end, and programs in processes of their own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

#: Generous: it only ends what would never end.
PATIENCE = 60.0
CHANNEL = "acme/ops/plan"


def run(story: Coroutine[Any, Any, T]) -> T:
    """Runs a test's story in an event loop of its own."""
    return asyncio.run(within(story))


async def within(story: Coroutine[Any, Any, T]) -> T:
    return await asyncio.wait_for(story, PATIENCE)


def program(text: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts a Python program of its own. What it says is read by `finish`."""
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", textwrap.dedent(text)],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(started: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, output, and what it complained of."""
    try:
        said, complained = started.communicate(timeout=PATIENCE)
    finally:
        started.kill()
    return started.returncode, said, complained
