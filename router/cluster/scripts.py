"""SCRIPT and FUNCTION in front of a Redis Cluster: every master is told, so that a script is known wherever its keys are.

EVAL, EVALSHA and FCALL themselves go to the node of their keys as they stand. What a master that is added later does not
know it answers with NOSCRIPT, which clients take for what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kache.replies import OK, Reply

from .asking import ask_all

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["SCRIPTS"]


def _told_to_all(*name: bytes) -> Callable[..., Any]:
    async def tell(router: Router, session: Session, *arguments: bytes) -> Reply:
        answers = await ask_all(router, session, *name, *arguments)
        return OK if answers[0] in (b"OK", "OK") else answers[0]

    return tell


async def exists(router: Router, session: Session, *digests: bytes) -> Reply:
    """Those that every master knows."""
    answers = await ask_all(router, session, b"SCRIPT", b"EXISTS", *digests)
    return [min(each) for each in zip(*answers, strict=True)]


_TO_ALL: Final = (
    "script|load", "script|flush", "script|kill", "script|show", "function|load", "function|delete", "function|flush",
    "function|kill", "function|restore", "function|list", "function|dump", "function|stats",
)  # fmt: skip

SCRIPTS: Final[dict[str, Callable[..., Any]]] = {
    key: _told_to_all(*[word.upper().encode() for word in key.split("|")]) for key in _TO_ALL
} | {"script|exists": exists}
"""By row, as the handlers in `commands`; a table without such a row has no use for its handler."""
