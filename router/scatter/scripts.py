"""A script, a function or a command of a module whose keys live on several shards: one runs it, the others' keys at hand.

    lock all slots of the keys ── read the values of others ── _script_run at home, with these beside its own keys
                                                                   │ again: it wants more keys. Once more, with them locked
                                                                   ▼
                           put back what it has changed, each at its owner ── commit ── unlock ── publish

What it has changed at home and elsewhere is one transaction (transaction.py): others see all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from kache.commands import BY_KEY, Row, keys_of
from kache.errors import CommandError
from kache.replies import Reply

from ..registry import BORROWERS, move
from .planner import home_of_script
from .transaction import Transaction, answers, raw_slots

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["run_script"]

MOST_ROUNDS: Final = 8
"""A script may ask so often for more keys: each time it names those it would touch next."""
_ELEMENTS: Final = b"1000000000"
CHANNEL: Final = 0
ELSEWHERE: Final = "ERR Script attempted to access key '{}' of another shard; declare it in KEYS"


async def run_script(
    router: Router, session: Session, row: Row, args: tuple[bytes, ...], wants: Iterable[bytes], db: int
) -> Reply:
    """The reply of a script. `wants`: the number of its user, as its run said (another may have logged in since), and keys
    that it wants beside those it declares.
    """
    user, *more = wants
    keys = list(dict.fromkeys([*keys_of(row, args), *more]))
    for _ in range(MOST_ROUNDS):
        found = await _round(router, session, user, row, args, keys, db)
        if not isinstance(found, _More):
            return found
        keys += [key for key in found.keys if key not in keys]
    raise CommandError("ERR the script touches too many keys that it does not declare in KEYS")


class _More:
    """It wants these, too."""

    def __init__(self, keys: list[bytes]) -> None:
        self.keys = keys


async def _round(
    router: Router, session: Session, user: bytes, row: Row, args: tuple[bytes, ...], keys: list[bytes], db: int
) -> Reply | _More:
    declared = keys_of(row, args)
    at_home = router.shard_of(declared[0]) if declared else home_of_script(row, args, router)
    foreign = [key for key in keys if router.shard_of(key) != at_home]
    writes = "readonly" not in row.flags
    joins = session.led is not None
    transaction = Transaction(router, session, keys, writes=writes)
    transaction.places.setdefault(at_home, raw_slots(()))
    async with transaction as held:
        lent = await _borrow(router, session, held, foreign, db)
        words = [user, row.key.encode(), b"%d" % len(foreign), *lent, *args]
        unsafe, held.unsafe = held.unsafe, "it is not known whether the script has run"
        try:
            reply = await router.call(at_home, "_script_run", words, db=db, session=session)
        except CommandError as error:
            if error.code not in ("TIMEOUT", "UNCERTAIN"):
                held.unsafe = unsafe
            raise
        if reply[0] == b"again":
            held.unsafe = unsafe
            if joins:
                # What the transaction around it has locked was settled before.
                raise CommandError(ELSEWHERE.format(reply[1][0].decode("utf-8", "backslashreplace")))
            return _More(reply[1])
        held.unsafe = "the script has run" if writes else unsafe
        for key, image in reply[2]:
            if image is None:
                await held.perform(key, "the script has run", "_remove", key, b"del", db=db)
            else:
                await held.perform(key, "the script has run", "_put", key, image, b"restore", db=db)
        await held.finished()
    for what, channel, message in reply[3]:
        name = "publish" if what == CHANNEL else "spublish"
        await router.call(router.shard_of(channel), name, [channel, message], session=session)
    if reply[0] == b"failed":
        raise CommandError(reply[1].decode("utf-8", "surrogateescape"))
    return reply[1]


async def _borrow(router: Router, session: Session, held: Transaction, foreign: list[bytes], db: int) -> list[bytes]:
    """[key, image, …] of keys of other shards; an empty image stands for none."""
    limit = router.config.script_borrow_bytes
    part = [b"0", b"%d" % limit, _ELEMENTS]
    asked = [held.ask(key, "_read_part", key, *part, db=db) for key in foreign]
    found: list[bytes] = []
    total = 0
    for key, value in zip(foreign, await answers(asked), strict=True):
        image = b"" if value is None else value[1]
        total += len(image)
        if total > limit or (value is not None and value[0] != b"0"):
            raise CommandError(
                f"ERR the keys of other shards that the script uses are larger than script-borrow-bytes ({limit})"
            )
        found += [key, image]
    return found


def _led(row: Row) -> Callable[..., Awaitable[Any]]:
    async def run(router: Router, session: Session, *args: bytes) -> Reply:
        return await run_script(router, session, row, args, [b"%d" % session.rights.number], session.db)

    return run


BORROWERS.append(_led)
for _name in ("eval", "eval_ro", "evalsha", "evalsha_ro", "fcall", "fcall_ro"):
    move(_name)(_led(BY_KEY[_name]))
