"""What can go wrong, by what you can do about it.

Every text names the next step and holds no key, token, invite or id: it may go into logs.
``code`` is a stable word for programs; ``retryable`` says whether the same call can succeed later
without anything being changed.
"""

from __future__ import annotations


class SkytaleError(Exception):
    """The base of all errors of this package."""

    code: str
    retryable: bool
    #: Whether what was asked for is kept in the vault, and goes on with the next connection.
    queued: bool

    def __init__(
        self, text: str, code: str | None = None, retryable: bool = False, queued: bool = False
    ) -> None:
        super().__init__(text)
        self.code = _CODES.get(type(self), "failed") if code is None else code
        self.retryable = retryable
        self.queued = queued

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[type[SkytaleError], tuple[str, str, bool, bool]]:
        return type(self), (str(self), self.code, self.retryable, self.queued)


class Misuse(SkytaleError, ValueError):
    """The call cannot be right, or names what is not there: change it."""


class WrongType(Misuse, TypeError):
    """An argument has a type that this call does not take."""


class Denied(SkytaleError, PermissionError):
    """The relay, the API server, the channel's policy or a guard said no: get permission."""


class Unreachable(SkytaleError, ConnectionError):
    """A server does not answer: try again, or start it."""


class PeerMisbehaved(SkytaleError):
    """A relay or peer broke the protocol. What it sent was not used."""


class Damaged(SkytaleError):
    """The vault could not be opened, read or written. Nothing in it was changed."""


class Timeout(SkytaleError, TimeoutError):
    """No answer came in time. When ``queued`` is true, nothing is lost."""


_CODES: dict[type[SkytaleError], str] = {
    Misuse: "misuse",
    WrongType: "misuse",
    Denied: "denied",
    Unreachable: "unreachable",
    PeerMisbehaved: "peer_misbehaved",
    Damaged: "damaged",
    Timeout: "timeout",
}
