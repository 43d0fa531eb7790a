"""Questions to every master of a Redis Cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kache.errors import CommandError

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["ask_all"]


async def ask_all(router: Router, session: Session, *words: bytes) -> list[Any]:
    """The replies of all masters. Raises CommandError: the first error, once all have answered."""
    director = router.remote.director
    lanes = [await director.lane(number, session) for number in director.masters()]
    if not lanes:
        raise CommandError("CLUSTERDOWN no node owns a slot; nothing was executed")
    asked = [router.remote.ask_node(lane, list(words)) for lane in lanes]
    replies, failure = [], None
    for question in asked:
        try:
            replies.append(await question)
        except CommandError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return replies
