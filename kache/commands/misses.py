"""Which keys a command reads: keyspace notifications tell of those that are not there (``keymiss``).

Pure functions of the command's row, by what a real server does. A command that is refused for its options is taken to have
looked at its keys all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .extract import keys_with_flags
from .row import Row

__all__ = ["keys_read"]

_SILENT: Final = frozenset({
    "object|encoding", "object|freq", "object|idletime", "object|refcount", "memory|usage", "debug|object",
})  # fmt: skip
"""They read keys and do not want to be noticed."""

_READ_BEFORE_WRITTEN: Final = frozenset({"getdel", "getex", "getset", "hgetex", "pfmerge", "xack"})
"""They write keys whose value they have read first."""

_FIELD_WRITES: Final = frozenset((b"SET", b"INCRBY"))


def keys_read(row: Row, args: Sequence[bytes]) -> list[bytes]:
    """The keys that the command reads, in the order of its arguments, those that it names twice twice.

    `args` are the words behind the name of the command and the subcommand.
    """
    if "internal" in row.flags or row.route in ("script", "channel") or row.key in _SILENT:
        return []
    found = keys_with_flags(row, args)
    if not row.is_write or row.key in _READ_BEFORE_WRITTEN or _reads_too(row.key, args):
        return [key for key, _ in found]
    return [key for key, flags in found if "RO" in flags]


def _reads_too(name: str, args: Sequence[bytes]) -> bool:
    """Whether this command, by its options, reads the key that it may write."""
    if name == "set":
        return b"GET" in [word.upper() for word in args[2:]]
    return name == "bitfield" and not _FIELD_WRITES & {word.upper() for word in args[1:]}
