"""What is installed: type checkers can use it, and what it says of itself is true."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import get_args

from skytale.values import EventKind


def test_type_checkers_are_told_that_the_package_is_typed() -> None:
    assert files("skytale").joinpath("py.typed").is_file()
    assert files("skytale").joinpath("_core.pyi").is_file()


def test_the_kinds_of_events_are_those_that_are_made() -> None:
    # Read, as most of them cannot be brought about here.
    source = (Path(__file__).parents[1] / "src" / "events.rs").read_text()
    made = re.findall(r'(?:kind: |(?:of|about|by_whom|at)\()"([a-z_]+)"', source)
    assert sorted(made) == sorted(get_args(EventKind))
