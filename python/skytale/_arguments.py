"""Checks of what callers pass, before anything is stored or sent."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypedDict

from skytale.errors import Misuse, WrongType

TEXT = "text/plain"
BYTES = "application/octet-stream"


class Otherwise(str):
    """A default: environment and context go before it, but not before the same from a caller."""

    __slots__ = ()


#: What lines look like when nobody says otherwise.
ADAPTIVE = Otherwise("adaptive")


class Settings(TypedDict):
    """What `_core.Agent.open` takes; what is ``None`` comes from environment, context, default."""

    api_key: str | None
    api_url: str | None
    relay: str | None
    data_dir: str | None
    config_dir: str | None
    context: str | None
    vault_key: str | None
    traffic: str | None
    history: float | None


def settings(
    *,
    api_key: str | None,
    api_url: str | None,
    relay: str | None,
    data_dir: str | os.PathLike[str] | None,
    vault_key: str | bytes | None,
    traffic: str,
    history: str | None,
) -> Settings:
    return {
        "api_key": optional_text("api_key", api_key),
        "api_url": optional_text("api_url", api_url),
        "relay": optional_text("relay", relay),
        "data_dir": None if data_dir is None else _path(data_dir),
        "config_dir": None,
        "context": None,
        "vault_key": None if vault_key is None else _vault_key(vault_key),
        "traffic": None if isinstance(traffic, Otherwise) else text("traffic", traffic),
        "history": None if history is None else _span("history", history),
    }


def text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise WrongType(f"{name} is a str, not {_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Misuse(f"{name} has characters that UTF-8 cannot write: replace them") from None
    return value


def optional_text(name: str, value: object) -> str | None:
    return None if value is None else text(name, value)


def payload(what: object, content_type: object) -> tuple[bytes, str]:
    """What is sent, and as what: text and bytes are told apart by their Python types."""
    kind = optional_text("content_type", content_type)
    if isinstance(what, str):
        return text("a message", what).encode(), TEXT if kind is None else kind
    if isinstance(what, (bytes, bytearray, memoryview)):
        return bytes(what), BYTES if kind is None else kind
    raise WrongType(
        f"a message is str or bytes, not {_kind(what)}: json.dumps() makes text of most things"
    )


def seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WrongType(f"{name} is a number of seconds, not {_kind(value)}")
    if not 0 <= value <= _SECONDS_MAX:
        raise Misuse(f"{name} is from 0 to {_SECONDS_MAX} seconds")
    return float(value)


def optional_seconds(name: str, value: object) -> float | None:
    return None if value is None else seconds(name, value)


def count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise WrongType(f"{name} is an int, not {_kind(value)}")
    if not 1 <= value <= _COUNT_MAX:
        raise Misuse(f"{name} is from 1 to {_COUNT_MAX}")
    return value


def flag(name: str, value: object) -> bool:
    # Not by truth: "no" is true, and would give a right that was refused.
    if not isinstance(value, bool):
        raise WrongType(f"{name} is True or False, not {_kind(value)}")
    return value


def agents(value: object) -> list[str]:
    """One agent's id, or several."""
    if isinstance(value, str):
        return [text("an agent's id", value)]
    if not isinstance(value, Iterable):
        raise WrongType(f"agents are named by their ids, not by {_kind(value)}")
    named = [text("an agent's id", one) for one in value]
    if not named:
        raise Misuse("no agent is named")
    return named


def whole(name: str, value: object) -> int:
    """A whole number: a place in a channel's log, or what chance begins with."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise WrongType(f"{name} is an int, not {_kind(value)}")
    if not 0 <= value <= _WHOLE_MAX:
        raise Misuse(f"{name} is from 0 to {_WHOLE_MAX}")
    return value


def _span(name: str, value: object) -> float:
    """Seconds, from a number with its unit."""
    written = text(name, value).strip().lower()
    if written == "none":
        return 0.0
    number, unit = written[:-1], _UNITS.get(written[-1:])
    if unit is None or not (number.isascii() and number.isdigit()):
        raise Misuse(
            f"{name} is a whole number and s, m, h or d, as '7d', or 'none', not {value!r}"
        )
    return seconds(name, int(number) * unit)


def _path(value: object) -> str:
    try:
        return os.fsdecode(os.fspath(value))  # type: ignore[call-overload]
    except TypeError:
        raise WrongType(f"data_dir is a path, not {_kind(value)}") from None


def _vault_key(value: object) -> str:
    """Raw bytes, or hexadecimal digits."""
    return value.hex() if isinstance(value, bytes) else text("vault_key", value)


def _kind(value: object) -> str:
    return type(value).__name__


_SECONDS_MAX = 10 * 365 * 24 * 3600
_COUNT_MAX = 1_000_000
_WHOLE_MAX = 2**63 - 1
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
