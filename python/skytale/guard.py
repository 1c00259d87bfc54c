"""A bound for automatic replies, so that two agents do not thank each other for ever."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from skytale.errors import Misuse


class LoopGuard:
    """Lets so many replies to each peer pass within so many seconds.

    Only ``Message.reply`` is counted: what an agent says by itself, with ``Channel.send``, is not
    an answer to anybody. A reply beyond the bound is not sent: it raises ``Denied`` with the code
    ``replies_paused``, and the agent's events tell it once for each pause.
    """

    __slots__ = ("_clock", "_lock", "_passed", "_paused", "per", "replies")

    def __init__(
        self, replies: int = 120, per: float = 3600.0, *, clock: Callable[[], float] | None = None
    ) -> None:
        if replies < 1 or not per > 0:
            raise Misuse("a loop guard lets at least 1 reply pass in more than 0 seconds")
        self.replies = replies
        self.per = per
        self._clock = time.monotonic if clock is None else clock
        #: An agent may be used by several threads, which share its bound.
        self._lock = threading.Lock()
        self._passed: dict[str, deque[float]] = {}
        self._paused: set[str] = set()

    def admit(self, peer: str) -> float:
        """Counts a reply to this peer: 0 when it may be sent, else the seconds until one may."""
        with self._lock:
            now = self._clock()
            # Whoever was quiet longest stands first, and is forgotten first.
            passed = self._passed.pop(peer, deque())
            self._passed[peer] = passed
            if len(self._passed) > _PEERS_MAX:
                quiet = next(iter(self._passed))
                del self._passed[quiet]
                self._paused.discard(quiet)
            while passed and now - passed[0] >= self.per:
                passed.popleft()
            if len(passed) >= self.replies:
                return self.per - (now - passed[0])
            passed.append(now)
            self._paused.discard(peer)
            return 0.0

    def is_news(self, peer: str) -> bool:
        """Whether this pause was not told before."""
        with self._lock:
            if peer in self._paused:
                return False
            self._paused.add(peer)
            return True


#: A peer that was forgotten begins anew; this many take some megabytes.
_PEERS_MAX = 10_000
