"""SCRIPT and FUNCTION in front of a Redis Cluster: every master is told, so that a script is known wherever its keys are.

EVAL, EVALSHA and FCALL themselves go to the node of their keys as they stand. A master that has come since, or has lost its
scripts, answers EVALSHA with NOSCRIPT: it is told what this router has seen, and the command is sent again, unless its client
has sent others on that slot behind it. What this router has not seen stays an error, which clients take for what it is.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from kache.replies import OK, Reply
from kache.wire.codec import decode_reply

from ..peers import answers, ask
from .asking import ask_all

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["SCRIPTS", "Sources", "told_by"]

MOST_SOURCES: Final = 1000
MOST_SOURCE_BYTES: Final = 8 << 20
"""Of scripts that a router remembers; those that were used longest ago are forgotten."""


class Sources:
    """The scripts that clients of this router have loaded or executed, by their digests."""

    def __init__(self) -> None:
        self._by_digest: OrderedDict[bytes, bytes] = OrderedDict()
        self._digests: dict[bytes, bytes] = {}
        self._bytes = 0

    def saw(self, source: bytes) -> None:
        """Somebody uses it."""
        digest = self._digests.get(source)
        if digest is None:
            digest = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
            self._digests[source] = digest
            self._by_digest[digest] = source
            self._bytes += len(source)
            while len(self._by_digest) > MOST_SOURCES or self._bytes > MOST_SOURCE_BYTES:
                _, oldest = self._by_digest.popitem(last=False)
                del self._digests[oldest]
                self._bytes -= len(oldest)
        else:
            self._by_digest.move_to_end(digest)

    def source_of(self, digest: bytes) -> bytes | None:
        """The script of a digest in small letters; None: it was not seen here."""
        return self._by_digest.get(digest)

    def forget(self) -> None:
        """SCRIPT FLUSH: no script is known any longer."""
        self._by_digest.clear()
        self._digests.clear()
        self._bytes = 0


def told_by(frame: bytes, sources: Sources) -> bytes | None:
    """The source of the script that a command in RESP names by its digest; None for any other command."""
    words, _ = decode_reply(frame)
    if not isinstance(words, list) or len(words) < 2 or words[0].lower() not in (b"evalsha", b"evalsha_ro"):
        return None
    return sources.source_of(words[1].lower())


def _told_to_all(*name: bytes) -> Callable[..., Any]:
    async def tell(router: Router, session: Session, *arguments: bytes) -> Reply:
        answers = await ask_all(router, session, *name, *arguments)
        return OK if answers[0] in (b"OK", "OK") else answers[0]

    return tell


async def load(router: Router, session: Session, source: bytes) -> Reply:
    """Every master knows it from here on; those that come later will be told."""
    digests = await ask_all(router, session, b"SCRIPT", b"LOAD", source)
    router.remote.director.sources.saw(source)
    return digests[0]


@answers("scripts_flushed")
def _flushed(router: Router, words: Sequence[bytes]) -> bytes:
    router.remote.director.sources.forget()
    return b""


async def flush(router: Router, session: Session, *how: bytes) -> Reply:
    """No master, and no router, knows any script behind this."""
    await ask_all(router, session, b"SCRIPT", b"FLUSH", *how)
    router.remote.director.sources.forget()
    await ask(router, "scripts_flushed")
    return OK


async def exists(router: Router, session: Session, *digests: bytes) -> Reply:
    """Those that every master knows."""
    answers = await ask_all(router, session, b"SCRIPT", b"EXISTS", *digests)
    return [min(each) for each in zip(*answers, strict=True)]


_TO_ALL: Final = (
    "script|kill", "script|show", "function|load", "function|delete", "function|flush",
    "function|kill", "function|restore", "function|list", "function|dump", "function|stats",
)  # fmt: skip

SCRIPTS: Final[dict[str, Callable[..., Any]]] = {
    key: _told_to_all(*[word.upper().encode() for word in key.split("|")]) for key in _TO_ALL
} | {"script|load": load, "script|flush": flush, "script|exists": exists}
"""By row, as the handlers in `commands`; a table without such a row has no use for its handler."""
