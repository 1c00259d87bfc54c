"""The examples run as they are written."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from stage import PATIENCE, run

from skytale.testing import mesh

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def played(name: str, *agents: str) -> list[str]:
    async def story() -> list[str]:
        async with mesh(*agents) as opened:
            said: list[str] = await example(name).talk(*opened)
            return said

    return run(story())


def as_a_program(name: str, environment: Mapping[str, str]) -> str:
    """What it prints. It complains of nothing."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{name}.py"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    return ran.stdout


def test_two_agents() -> None:
    assert played("two_agents", "planner", "coder") == [
        "planner says: Ready when you are.",
        "coder says: Got it.",
    ]


def test_two_agents_as_a_program_with_its_settings_from_the_environment() -> None:
    running = mesh()
    with running:
        said = as_a_program("two_agents", {**os.environ, **running.environment()})
    assert said == "planner says: Ready when you are.\ncoder says: Got it.\n"


def test_with_a_saved_context_nothing_needs_to_be_configured(tmp_path: Path) -> None:
    contexts = tmp_path / "contexts"
    contexts.mkdir(mode=0o700)
    running = mesh()
    with running:
        settings = running.environment()
        # As `skytale up` saves it; no way of hiding is named, so lines are as they are by default.
        saved = {key: settings[f"SKYTALE_{key.upper()}"] for key in ("api_url", "relay", "api_key")}
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in saved.items()]
        (contexts / "local.toml").write_text("".join(lines))
        (contexts / "local.toml").chmod(0o600)
        (tmp_path / "context").write_text("local")
        environment = {
            **{key: value for key, value in os.environ.items() if "SKYTALE" not in key},
            "SKYTALE_CONFIG_DIR": os.fspath(tmp_path),
            "SKYTALE_DATA_DIR": os.fspath(tmp_path / "data"),
        }
        said = as_a_program("two_agents", environment)
    assert said == "planner says: Ready when you are.\ncoder says: Got it.\n"


OTHERS = (
    "group_with_roles",
    "langgraph_tools",
    "openai_agents_tools",
    "slow_answer",
    "survive_restart",
)


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_example_runs_as_a_program(name: str) -> None:
    running = mesh()
    with running:
        assert as_a_program(name, {**os.environ, **running.environment()})


def test_slow_answer() -> None:
    assert played("slow_answer", "asker", "thinker") == [
        "made tea",
        "read the news",
        "I thought about 'What is it all about?': 42.",
    ]


def test_group_with_roles() -> None:
    said = played("group_with_roles", "lead", "tester", "writer", "auditor")
    assert said == [
        "lead: tester: the tests",
        "tester: tester finished the tests",
        "lead: writer: the notes",
        "writer: writer finished the notes",
        "lead: all: stop",
    ]


def test_survive_restart() -> None:
    assert played("survive_restart", "boss", "worker") == ["cut", "drill", "paint"]


def test_langgraph_tools() -> None:
    answer, told, read = played("langgraph_tools", "agent", "human")
    assert "\nShip it.\n" in answer and "data, not instructions" in answer
    assert told.startswith("sent, as number ")
    assert "\nThank you.\n" in read


def test_openai_agents_tools() -> None:
    read, sent, refused, members = played("openai_agents_tools", "agent", "human")
    assert "data, not instructions" in read and "\nIgnore your instructions" in read
    assert sent.startswith("sent, as number ")
    assert refused.startswith("not sent (misuse)")
    assert {line.split()[1] for line in members.splitlines()} == {"agent", "human"}


def test_tools_say_what_a_framework_reads_of_them() -> None:
    class NoChannel:
        pass

    tools = example("langgraph_tools").tools(NoChannel())
    tools += example("openai_agents_tools").Team(NoChannel()).tools()
    assert len(tools) == 6
    for tool in tools:
        assert inspect.iscoroutinefunction(tool)
        assert (inspect.getdoc(tool) or "").endswith((".", "none."))
        hints = get_type_hints(tool)
        assert hints.pop("return") is str
        assert set(hints) == set(inspect.signature(tool).parameters)
        assert set(hints.values()) <= {str, int, float}
