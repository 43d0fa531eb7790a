"""What a command of a module can do: the context that its author gets, over `Program` (engine/programs.pxi).

Every command that it executes passes the same checks as a client's: its keys belong to this shard, it is none that makes
sense for clients or the whole cluster alone, a reader writes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from kache.errors import CommandError
from kache.module.declare import Caller
from kache.replies import NULL_ARRAY, BigNumber, DecimalDouble, Keyed, Missing, Pairs, Verbatim
from kache.slots import slot_of_key

from ..engine.engine import Context, KeyElsewhere, Program

if TYPE_CHECKING:
    from .watchdog import Watchdog

__all__ = ["Inside", "checked_reply"]

DEEPEST: Final = 32
"""Levels of a reply: one that contains itself has no end."""

_SCALARS: Final = frozenset((int, bytes, bool, type(None), float, str))
_NAMES: dict[str, bytes] = {}
"""Names of commands as authors write them; there are as many as their source has."""

Word = bytes | str | int | float


class Inside:
    """The context of one call (`kache.module.Context`); what is kept of it afterwards refuses."""

    __slots__ = ("_program", "_watchdog", "random")

    def __init__(self, program: Program, watchdog: Watchdog, chance: random.Random) -> None:
        self._program: Program | None = program
        self._watchdog = watchdog
        self.random = chance

    def end(self) -> None:
        """The call is over."""
        self._program = None

    def _alive(self) -> Program:
        if self._program is None:
            raise CommandError("ERR the command is over: its context must not be kept")
        return self._program

    # What it knows ----------------------------------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        return self._alive().context.shard.store.now_ms

    @property
    def db(self) -> int:
        return self._alive().context.keys.db

    @property
    def client(self) -> Caller:
        context: Context = self._alive().context
        return Caller(context.session, context.user)

    # What it does -----------------------------------------------------------------------------------------------

    def call_as_user(self, name: str, *args: Word) -> Any:
        program = self._alive()
        program.check = program.context.shard.scripts.check
        try:
            return self.call(name, *args)
        finally:
            program.check = None

    def call(self, name: str, *args: Word) -> Any:
        program = self._program
        if program is None:
            program = self._alive()
        word = _NAMES.get(name) or _name(name)
        for arg in args:
            if type(arg) is not bytes:
                args = tuple([each if type(each) is bytes else _word(each) for each in args])
                break
        reply = self._executed(program, word, args)
        return reply if type(reply) in _SCALARS else _plain(reply)

    def _executed(self, program: Program, word: bytes, args: tuple[Any, ...]) -> Any:
        try:
            reply = program.call(word, *args)
        except KeyElsewhere as elsewhere:
            raise _elsewhere(elsewhere, program) from None
        except CommandError as error:
            raise _reworded(error, word) from None
        if program.published:
            _, channel, _ = program.published.pop()
            raise CommandError(f"ERR the channel '{_shown(channel)}' belongs to another shard than the command's keys")
        if self._watchdog.due:
            self._watchdog.end_now()
        return reply

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._executed(self._alive(), b"GET", (key,))
        return value

    def set(self, key: bytes, value: Word, *, px: int | None = None, keep_ttl: bool = False) -> None:
        words: tuple[bytes, ...] = (key, value if type(value) is bytes else _word(value))
        if px is not None:
            words += (b"PX", _word(px))
        if keep_ttl:
            words += (b"KEEPTTL",)
        self._executed(self._alive(), b"SET", words)

    def delete(self, *keys: bytes) -> int:
        return int(self._executed(self._alive(), b"DEL", keys)) if keys else 0

    def exists(self, key: bytes) -> bool:
        return bool(self._executed(self._alive(), b"EXISTS", (key,)))

    def incr(self, key: bytes, by: int = 1) -> int:
        return int(self._executed(self._alive(), b"INCRBY", (key, _word(by))))

    def pttl(self, key: bytes) -> int | None:
        left = int(self._executed(self._alive(), b"PTTL", (key,)))
        return None if left == -1 else left

    def pexpire(self, key: bytes, milliseconds: int) -> bool:
        return bool(self._executed(self._alive(), b"PEXPIRE", (key, _word(milliseconds))))

    def hget(self, key: bytes, field: Word) -> bytes | None:
        value: bytes | None = self._executed(self._alive(), b"HGET", (key, _word(field)))
        return value

    def hset(self, key: bytes, values: dict[Word, Word]) -> int:
        words = [_word(word) for pair in values.items() for word in pair]
        return int(self._executed(self._alive(), b"HSET", (key, *words))) if words else 0

    def hgetall(self, key: bytes) -> dict[bytes, bytes]:
        return _mapping(self.call("HGETALL", key))

    def zadd(self, key: bytes, member: Word, score: float) -> bool:
        return bool(self._executed(self._alive(), b"ZADD", (key, _word(score), _word(member))))

    def zincrby(self, key: bytes, member: Word, by: float) -> float:
        return _number(self.call("ZINCRBY", key, by, member))

    def zscore(self, key: bytes, member: Word) -> float | None:
        score = self.call("ZSCORE", key, member)
        return None if score is None else _number(score)

    def zrange(self, key: bytes, start: int, stop: int, *, reverse: bool = False) -> list[tuple[bytes, float]]:
        found = self.call("ZREVRANGE" if reverse else "ZRANGE", key, start, stop, "WITHSCORES")
        return [(member, _number(score)) for member, score in found]


# Words --------------------------------------------------------------------------------------------------------------


def _name(name: str) -> bytes:
    if not isinstance(name, str):
        raise CommandError(f"ERR the name of a command is text, not {type(name).__name__}")
    if len(_NAMES) > 4096:  # names that are made while they run
        _NAMES.clear()
    return _NAMES.setdefault(name, name.encode())


def _word(value: Any) -> bytes:
    """An argument as a client would send it."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int):
        return b"%d" % value
    if isinstance(value, float):
        return repr(value).encode()
    raise CommandError(f"ERR an argument of a command is bytes, text or a number, not {type(value).__name__}")


def _shown(word: bytes) -> str:
    return word.decode("utf-8", "backslashreplace")


def _elsewhere(error: KeyElsewhere, program: Program) -> CommandError:
    key = error.keys[0]
    owned = program.context.shard.owned
    if owned is None or owned[slot_of_key(key)]:
        return CommandError(f"TRYAGAIN a transaction holds the key '{_shown(key)}', which is none of the command's own")
    return CommandError(f"CROSSSLOT the key '{_shown(key)}' is on another shard than the command's own keys")


def _reworded(error: CommandError, word: bytes) -> CommandError:
    """The same about a command in Python: what is said of scripts there names no command."""
    if error.message == "ERR Unknown Redis command called from script":
        return CommandError(f"ERR unknown command '{_shown(word)}'")
    if error.message == "ERR Wrong number of args calling Redis command from script":
        return CommandError(f"ERR wrong number of arguments for '{_shown(word).lower()}' command")
    if error.message == "ERR This Redis command is not allowed from script":
        return CommandError(f"ERR '{_shown(word).lower()}' cannot be executed from inside a command")
    if error.message.startswith("ERR Write commands are not allowed"):
        return CommandError(f"ERR '{_shown(word).lower()}' writes, and the command says readonly")
    return error


# Replies ------------------------------------------------------------------------------------------------------------


def _plain(reply: Any) -> Any:
    """A reply without the classes that only matter on the wire."""
    if type(reply) in _SCALARS:
        return reply
    if reply is NULL_ARRAY:
        return None
    if isinstance(reply, Pairs):
        return [(_plain(member), _plain(score)) for member, score in reply.pairs]
    if isinstance(reply, Keyed):
        return {_plain(key): _plain(value) for key, value in reply.pairs}
    if isinstance(reply, dict):
        return {_plain(key): _plain(value) for key, value in reply.items()}
    if isinstance(reply, list | tuple):
        return [_plain(each) for each in reply]
    if isinstance(reply, Missing):
        return _plain(reply.value)
    if isinstance(reply, DecimalDouble):
        return reply.value
    if isinstance(reply, Verbatim):
        return reply.text
    if isinstance(reply, BigNumber):
        return int(reply.digits)
    return reply


def _mapping(reply: Any) -> dict[bytes, bytes]:
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


def _number(value: Any) -> float:
    return float(value)


def checked_reply(reply: Any, depth: int = 0) -> Any:
    """What an author returns, if it can be a reply. CommandError for what never ends; the encoder refuses the rest."""
    if type(reply) in _SCALARS:
        return reply
    if depth == DEEPEST:
        raise CommandError(f"ERR the reply has more than {DEEPEST} levels")
    parts: Iterable[Any] = ()
    if isinstance(reply, dict):
        parts = [part for pair in reply.items() for part in pair]
    elif isinstance(reply, list | tuple):
        parts = reply
    for part in parts:
        if type(part) not in _SCALARS:
            checked_reply(part, depth + 1)
    return reply
