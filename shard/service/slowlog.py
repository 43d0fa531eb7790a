"""Commands of a shard that took longer than a limit: each is told to the router that sent it.

The slow log itself is the routers' (`router/slowlog.py`): only they know who asked, and what a client's command was that
they divided over several shards. Of the parts of such a command (the internal dialect) only the time is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import msgspec

from kache.slow import SlowReport, cut

__all__ = ["SlowLog"]


class _Link(Protocol):
    def send_slow(self, session: int, report: bytes) -> None: ...


class SlowLog:
    """Where the execution point reports; what came over no link (tests, tools) is kept, newest first."""

    def __init__(self) -> None:
        self.kept: deque[SlowReport] = deque(maxlen=128)
        self._encoder = msgspec.msgpack.Encoder()

    def add(self, link: _Link | None, session: int, now_ms: int, took_us: int, words: Sequence[bytes]) -> None:
        """A command has taken `took_us` microseconds; `words` with its name."""
        report = SlowReport(now_ms, took_us, cut(words, len(words)))
        if link is None:
            self.kept.appendleft(report)
        else:
            link.send_slow(session, self._encoder.encode(report))
