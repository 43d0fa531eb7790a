"""The other routers of the cluster: what a client asks of one of them concerns the clients of all.

A router asks through the supervisor; each of the others answers with a function that is registered here under the name
of the question. With one router nothing is asked. Whoever does not answer in time is missing, and what there is counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kache.cluster.control import ControlError
from kache.errors import CommandError

if TYPE_CHECKING:
    from .mux.multiplexer import Router

__all__ = ["alone", "answer", "answers", "ask", "router_of"]

Answerer = Callable[["Router", Sequence[bytes]], bytes]

ANSWERS: dict[str, Answerer] = {}
"""Name of a question → ``f(router, words) -> bytes``; it is asked only what the asking router found right itself."""

SESSION_BITS = 48
"""Of a session's id; above them is the index of its router."""


def answers(what: str) -> Callable[[Answerer], Answerer]:
    """Answers the question `what` of another router."""

    def add(function: Answerer) -> Answerer:
        ANSWERS[what] = function
        return function

    return add


def answer(router: Router, what: str, words: Sequence[bytes]) -> bytes:
    """This router's answer to the question of another one."""
    return ANSWERS[what](router, words)


def alone(router: Router) -> bool:
    """Whether there is nobody to ask."""
    return router.config.routers == 1


def router_of(session_id: int) -> int:
    """The index of the router that gave a session its id."""
    return session_id >> SESSION_BITS


async def ask(router: Router, what: str, *words: bytes) -> dict[int, bytes]:
    """The answers of the other routers, by their index."""
    if alone(router):
        return {}
    try:
        return await router.control.ask(what, words)
    except ControlError as error:
        raise CommandError(f"ERR the other routers cannot be asked: {error}") from None
