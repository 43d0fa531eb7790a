"""SCAN in front of a Redis Cluster: slot after slot, each asked of the node that owns it at that moment.

A node's own cursor means nothing on its replica, nor on the node that its slots move to. So a cursor here names a slot
(``slot << 39``, less than 2^53 as those of shards; 0 is the beginning and the end), and the keys of a slot come together:
what failed over or moved meanwhile is found where it is. A slot under migration is asked at the node that it leaves, and
then at the one it goes to; a node says which these are behind the keys that it names, on the same connection, so no key
passes between the two questions. The keys of one slot are one answer, however many: a hash tag can make that large.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from kache.backend.conversation import command
from kache.backend.topology import migrations
from kache.errors import INVALID_CURSOR, SYNTAX, CommandError
from kache.glob import compile_glob
from kache.replies import Reply, Verbatim
from kache.slots import SLOT_COUNT

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["SLOT_SHIFT", "scan"]

SLOT_SHIFT: Final = 39
FIRST_AT_ONCE: Final = 32
MOST_AT_ONCE: Final = 1024
"""Slots whose keys are counted together, in one transaction of each node; four times as many while little is found."""
MOST_SLOTS: Final = 4096
"""Slots that one call looks at: it must not take as long as it likes."""
EVERYTHING: Final = b"2147483647"
PAUSE_SECONDS: Final = 0.1


async def scan(router: Router, session: Session, cursor: bytes, *options: bytes) -> Reply:
    """One step; [next cursor, keys]."""
    if not cursor.isdigit() or int(cursor) >= 2**64:
        raise CommandError(INVALID_CURSOR)
    slot = int(cursor) >> SLOT_SHIFT
    count, matches, kind = _options(options)
    found: list[bytes] = []
    seen = 0
    last = min(slot + MOST_SLOTS, SLOT_COUNT)
    at_once = FIRST_AT_ONCE
    while slot < last and seen < count:
        end = min(slot + at_once, last)
        at_once = min(4 * at_once, MOST_AT_ONCE)
        sizes = await _patiently(router, _counts(router, session, slot, end))
        chosen = []
        while slot < end and seen < count:
            if sizes[slot] != 0:
                chosen.append(slot)
                seen += max(sizes[slot], 1)
            slot += 1
        for one in chosen:
            keys = await _patiently(router, _keys(router, session, one, kind))
            found += [key for key in keys if matches(key)]
    following = slot << SLOT_SHIFT if slot < SLOT_COUNT else 0
    return [b"%d" % following, found]


def _options(words: Sequence[bytes]) -> tuple[int, Callable[[bytes], bool], bytes]:
    count, kind = 10, b""
    matches: Callable[[bytes], bool] = lambda key: True  # noqa: E731  # unless a pattern says which
    if len(words) % 2:
        raise CommandError(SYNTAX)
    for name, value in zip(words[::2], words[1::2], strict=True):
        if name.upper() == b"COUNT":
            if not value.lstrip(b"-").isdigit() or len(value) > 19:
                raise CommandError("ERR value is not an integer or out of range")
            count = int(value)
            if count < 1:
                raise CommandError(SYNTAX)
        elif name.upper() == b"MATCH":
            matches = compile_glob(value)
        elif name.upper() == b"TYPE":
            kind = value.lower()
        else:
            raise CommandError(SYNTAX)
    return count, matches, kind


async def _patiently(router: Router, ask: Callable[[], Any]) -> Any:
    """The answer, from whichever node has the slot by then: reading is tried again until `backend-wait-ms` is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + router.config.backend_wait_ms / 1000
    while True:
        try:
            return await ask()
        except CommandError:
            if loop.time() >= deadline:
                raise
        router.remote.director.lost_map()
        await asyncio.sleep(PAUSE_SECONDS)


def _owner(router: Router, slot: int) -> int:
    number = router.remote.director.map[slot]
    if number is None:
        raise CommandError(f"CLUSTERDOWN slot {slot} has no reachable owner; nothing was executed")
    return number


def _counts(router: Router, session: Session, first: int, end: int) -> Callable[[], Any]:
    """How many keys each slot has at its owner; -1 where the slot is leaving it, or has left."""

    async def ask() -> dict[int, int]:
        by_node: dict[int, list[int]] = {}
        for slot in range(first, end):
            by_node.setdefault(_owner(router, slot), []).append(slot)
        sizes: dict[int, int] = {}
        for slots in by_node.values():
            frames = [command("CLUSTER", "COUNTKEYSINSLOT", str(slot)) for slot in slots]
            # Whichever node answers says of which slots it can.
            *counts, nodes = await router.remote.ask_block(session, slots[0], [*frames, command("CLUSTER", "NODES")])
            own, leaving = migrations(_text(nodes))
            for slot, size in zip(slots, counts, strict=True):
                sizes[slot] = size if slot in own and slot not in leaving else -1
        return sizes

    return ask


def _keys(router: Router, session: Session, slot: int, kind: bytes) -> Callable[[], Any]:
    """All keys of a slot, of one type if so."""

    async def ask() -> list[bytes]:
        director = router.remote.director
        lane = await director.lane(_owner(router, slot), session)
        words = [b"CLUSTER", b"GETKEYSINSLOT", b"%d" % slot, EVERYTHING]
        asked = router.remote.ask_node(lane, words)
        map_of_it = router.remote.ask_node(lane, [b"CLUSTER", b"NODES"])
        keys = dict.fromkeys(await asked)
        own, leaving = migrations(_text(await map_of_it))
        if slot not in own:
            raise CommandError(f"TRYAGAIN slot {slot} has moved; nothing was executed")
        lanes = [lane]
        if slot in leaving:
            target = await director.lane(director.number_of(leaving[slot]), session)
            keys |= dict.fromkeys(await router.remote.ask_node(target, words))
            lanes.append(target)
        return await _of_type(router, lanes, list(keys), kind) if kind else list(keys)

    return ask


async def _of_type(router: Router, lanes: Sequence[Any], keys: list[bytes], kind: bytes) -> list[bytes]:
    types: dict[bytes, bytes] = {}
    for lane in lanes:
        if lane is not lanes[0]:
            # Where the slot is not its own yet, each question needs leave.
            pairs = [
                (router.remote.ask_node(lane, [b"ASKING"]), router.remote.ask_node(lane, [b"TYPE", key]))
                for key in keys
            ]
            asked = [question for _, question in pairs]
            await _all([leave for leave, _ in pairs])
        else:
            asked = [router.remote.ask_node(lane, [b"TYPE", key]) for key in keys]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for key, answer in zip(keys, answers, strict=True):
            if isinstance(answer, CommandError) and answer.code not in ("ASK", "MOVED", "TRYAGAIN"):
                raise answer
            if isinstance(answer, str | bytes):
                text = answer.encode() if isinstance(answer, str) else answer
                if text != b"none":
                    types[key] = text
    return [key for key in keys if types.get(key) == kind]


def _text(reply: Any) -> bytes:
    """What is text for people in RESP3 is a string in RESP2."""
    return bytes(reply.text if isinstance(reply, Verbatim) else reply)


async def _all(asked: Sequence[Any]) -> list[Any]:
    """All answers; the first error is raised once all are here."""
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return list(answers)
