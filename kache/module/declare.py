"""What an author writes: the decorator, and the type of what a command is given. Nothing here runs a command."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec

__all__ = ["DECLARED", "Caller", "Context", "Declaration", "command"]

DECLARED = "__kache_commands__"
"""The global of a module in which its declarations are noted: two functions of one name are two commands."""

_F = TypeVar("_F", bound=Callable[..., Any])


class Caller(msgspec.Struct, frozen=True):
    """Who has sent the command."""

    id: int
    """The number of its connection, as CLIENT ID answers it; 0: nobody, as in a test of the shard."""
    user: str


class Context(Protocol):
    """What a command is given before its arguments. It ends with the call: kept for later, it refuses."""

    @property
    def now_ms(self) -> int:
        """Unix milliseconds, the same for the whole of a command."""

    @property
    def random(self) -> random.Random:
        """Chance of this shard's own, seeded by the system."""

    @property
    def db(self) -> int:
        """The database that the command works on."""

    @property
    def client(self) -> Caller:
        """Who has sent it."""

    def call(self, name: str, *args: bytes | str | int | float) -> Any:
        """Execute a command on keys of this shard, and return its reply.

        Numbers and text become bytes. The reply: None, int, float, bytes, str for a simple string ("OK"), list, dict for a
        map; pairs of member and score are a list of tuples. Raises CommandError (kache.errors) where a client would see
        an error reply, and for what cannot be called from inside.
        """

    def call_as_user(self, name: str, *args: bytes | str | int | float) -> Any:
        """The same as the user who has sent the command: CommandError for what that one may not execute, and an entry in
        ACL LOG. (`call` is trusted with everything.)"""

    def get(self, key: bytes) -> bytes | None:
        """GET."""

    def set(
        self, key: bytes, value: bytes | str | int | float, *, px: int | None = None, keep_ttl: bool = False
    ) -> None:
        """SET, for so many milliseconds, with the deadline that it has, or without one."""

    def delete(self, *keys: bytes) -> int:
        """DEL: how many there were."""

    def exists(self, key: bytes) -> bool:
        """EXISTS."""

    def incr(self, key: bytes, by: int = 1) -> int:
        """INCRBY: the new value."""

    def pttl(self, key: bytes) -> int | None:
        """Milliseconds that a key has left; None without a deadline, -2 without the key."""

    def pexpire(self, key: bytes, milliseconds: int) -> bool:
        """PEXPIRE: whether the key is there."""

    def hget(self, key: bytes, field: bytes | str) -> bytes | None:
        """HGET."""

    def hset(self, key: bytes, values: dict[bytes | str, bytes | str | int | float]) -> int:
        """HSET: how many fields are new."""

    def hgetall(self, key: bytes) -> dict[bytes, bytes]:
        """HGETALL."""

    def zadd(self, key: bytes, member: bytes | str, score: float) -> bool:
        """ZADD: whether the member is new."""

    def zincrby(self, key: bytes, member: bytes | str, by: float) -> float:
        """ZINCRBY: the new score."""

    def zscore(self, key: bytes, member: bytes | str) -> float | None:
        """ZSCORE."""

    def zrange(self, key: bytes, start: int, stop: int, *, reverse: bool = False) -> list[tuple[bytes, float]]:
        """ZRANGE … WITHSCORES, or from the highest on: members with their scores, by rank."""


class Declaration(msgspec.Struct, frozen=True):
    """One command as its author has declared it; `kache.module.rows` says what is wrong with it."""

    function: Callable[..., Any]
    name: str
    keys: int | str
    flags: str
    since: str
    summary: str
    syntax: str
    complexity: str
    categories: str
    cross_shard: bool = False


def command(
    name: str,
    *,
    keys: int | str = 1,
    flags: str = "write",
    since: str = "1.0.0",
    summary: str = "",
    syntax: str = "",
    complexity: str = "O(1)",
    categories: str = "",
    cross_shard: bool = False,
) -> Callable[[_F], _F]:
    """Make a function ``f(ctx, *arguments)`` the command `name`; the function itself stays as it is.

    `keys` says where its keys are: how many of its first arguments (``1``), a range (``"1..-1"``: all of
    them), or as many as an argument says that stands before them (``"#1"``). All of them must be on one shard, unless
    `cross_shard` lets it have keys of others: these are locked meanwhile, and their values travel to the shard that executes it.
    `flags` are ``write`` or ``readonly``, and any of ``denyoom fast admin loading skip_slowlog``; a command that says
    ``readonly`` cannot write. How many arguments it takes follows from the function; its summary is the first line of the
    docstring. `syntax` (``"key limit [window]"``) is made from the names of the arguments. `categories` are those of ACL
    rules, beside @write or @read and @fast or @slow.
    """

    def declare(function: _F) -> _F:
        declared = Declaration(function, name, keys, flags, since, summary, syntax, complexity, categories, cross_shard)
        function.__globals__.setdefault(DECLARED, []).append(declared)
        return function

    return declare
