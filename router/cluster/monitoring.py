"""MONITOR in front of a Redis Cluster: what clients of this router do, for those who watch at the others.

There is no shard to bring the lines into one order for all: each router tells its own clients at once, and the others through
the supervisor, in pieces, each router's lines in their order. Nothing is told while nobody watches there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kache.errors import CommandError

from ..peers import answers, ask

if TYPE_CHECKING:
    from ..mux.multiplexer import Router
    from .director import Director

__all__ = ["Lines"]

PIECE_BYTES: Final = 32 * 1024
MOST_BYTES: Final = 8 << 20
"""Of lines that the other routers have not taken: a router must not grow with what somebody else watches."""


class Lines:
    """The lines of one router that the others have yet to be told."""

    def __init__(self, director: Director) -> None:
        self._director = director
        self._lines: list[bytes] = []
        self._bytes = 0
        self._telling = False

    def tell(self, line: bytes) -> None:
        """A line for who watches elsewhere."""
        if self._bytes > MOST_BYTES:
            self._director.say("MONITOR at other routers misses commands of this one: there are too many")
            return
        self._lines.append(line)
        self._bytes += len(line)
        if not self._telling:
            self._telling = True
            self._director.spawn(self._tell())

    async def _tell(self) -> None:
        try:
            while self._lines:
                piece = self._piece()
                self._bytes -= len(piece)
                await ask(self._director.router, "monitored", piece)
        except CommandError:
            # The supervisor is gone, and this router is about to be.
            self._lines.clear()
            self._bytes = 0
        finally:
            self._telling = False

    def _piece(self) -> bytes:
        size = count = 0
        for line in self._lines:
            if count and size + len(line) > PIECE_BYTES:
                break
            size += len(line)
            count += 1
        piece = b"".join(self._lines[:count])
        del self._lines[:count]
        return piece


@answers("monitored")
def _monitored(router: Router, words: Sequence[bytes]) -> bytes:
    for line in words[0].splitlines(keepends=True):
        router.monitored(line)
    return b""
