"""HELLO and RESET in front of a Redis Cluster: a client that changes its dialect changes its connections to the nodes, so
all that it asked before is answered first, or what comes behind could overtake it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kache.replies import Reply

from ..registry import LOCALS

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["DIALECTS", "SETTLED"]


def hello(router: Router, session: Session, *words: bytes) -> Reply:
    """As ever, but not before its time."""
    return LOCALS["hello"](router, session, *words)


def reset(router: Router, session: Session, *words: bytes) -> Reply:
    """As ever, but not before its time."""
    return LOCALS["reset"](router, session, *words)


DIALECTS: Final[dict[str, Callable[..., Any]]] = {"hello": hello, "reset": reset}
"""By row, as the handlers in `commands`."""

SETTLED: Final = frozenset(DIALECTS.values())
"""Handlers that wait until all that their client asked before is answered."""
