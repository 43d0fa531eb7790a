"""SINTER, SUNION and SDIFF over several slots: each slot's part by its node, together here. Not atomic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kache.replies import Reply, SetReply
from kache.slots import slot_of_key

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["DIVIDED"]


async def _asked(router: Router, session: Session, command: bytes, keys: tuple[bytes, ...]) -> list[dict[bytes, None]]:
    """The elements that each slot's keys have by `command`, the slot of the first key first."""
    by_slot: dict[int, list[bytes]] = {}
    for key in keys:
        by_slot.setdefault(slot_of_key(key), []).append(key)
    asked = [router.remote.ask_slot(session, slot, [command, *own], True) for slot, own in by_slot.items()]
    answers: list[Any] = await asyncio.gather(*asked, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [dict.fromkeys(answer) for answer in answers]


async def sunion(router: Router, session: Session, *keys: bytes) -> Reply:
    """Every slot's union, in one."""
    found: dict[bytes, None] = {}
    for part in await _asked(router, session, b"SUNION", keys):
        found |= part
    return SetReply(found)


async def sinter(router: Router, session: Session, *keys: bytes) -> Reply:
    """What every slot's intersection has."""
    first, *others = await _asked(router, session, b"SINTER", keys)
    return SetReply(element for element in first if all(element in other for other in others))


async def sdiff(router: Router, session: Session, *keys: bytes) -> Reply:
    """The first slot's difference without the unions of the others."""
    home = slot_of_key(keys[0])
    near = tuple(key for key in keys if slot_of_key(key) == home)
    far = tuple(key for key in keys if slot_of_key(key) != home)
    first, others = await asyncio.gather(
        _asked(router, session, b"SDIFF", near), _asked(router, session, b"SUNION", far)
    )
    return SetReply(element for element in first[0] if not any(element in other for other in others))


DIVIDED: Final[dict[str, Callable[..., Any]]] = {"sunion": sunion, "sinter": sinter, "sdiff": sdiff}
"""By row; for keys of more than one slot."""
