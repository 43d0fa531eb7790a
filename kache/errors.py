"""Errors with the exact texts that clients match on.

The first word of a message is its code, as in Redis; the binary protocol derives its status from it
(`status_of`). Everything here is pure: it is shared by the router, the shards and the clients.
"""

from __future__ import annotations

__all__ = [
    "HASH_NOT_FLOAT",
    "HASH_NOT_INTEGER",
    "INVALID_CURSOR",
    "NOT_FLOAT",
    "NOT_INTEGER",
    "NO_SUCH_KEY",
    "OUT_OF_MEMORY",
    "OUT_OF_RANGE",
    "SYNTAX",
    "WRONG_TYPE",
    "CommandError",
    "KacheError",
    "status_of",
]


class KacheError(Exception):
    """Base of every error that Kache raises on purpose."""

    lasts = False
    """Whether it stays as it is until somebody does something about it: to try again is of no use."""


class CommandError(KacheError):
    """A command's error reply; `message` is the complete text, first word the code ("ERR …")."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def code(self) -> str:
        """The first word of the message, e.g. ``WRONGTYPE``."""
        return self.message.partition(" ")[0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CommandError) and other.message == self.message

    def __hash__(self) -> int:
        return hash(self.message)


WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
OUT_OF_MEMORY = "OOM command not allowed when used memory > 'maxmemory'."
SYNTAX = "ERR syntax error"
NOT_INTEGER = "ERR value is not an integer or out of range"
NOT_FLOAT = "ERR value is not a valid float"
HASH_NOT_INTEGER = "ERR hash value is not an integer"
HASH_NOT_FLOAT = "ERR hash value is not a float"
NO_SUCH_KEY = "ERR no such key"
OUT_OF_RANGE = "ERR index out of range"
INVALID_CURSOR = "ERR invalid cursor"

_STATUS_OF_CODE = {
    "WRONGTYPE": 5,
    "OOM": 6,
    "NOAUTH": 7,
    "WRONGPASS": 7,
    "NOPERM": 7,
    "CLUSTERDOWN": 8,
    "TRYAGAIN": 8,
    "LOADING": 8,
    "MISCONF": 8,
    "BUSY": 8,
    "TIMEOUT": 9,
    "UNCERTAIN": 9,
    "CROSSSLOT": 10,
}
_UNKNOWN_COMMAND = ("unknown command", "unknown subcommand", "wrong number of arguments")
_BAD_ARGUMENT = (
    "not an integer",
    "not a valid float",
    "not a float",
    "syntax error",
    "out of range",
    "invalid expire time",
)


def status_of(message: str) -> int:
    """The binary protocol's status (1, 3 to 10) of an error text."""
    code = message.partition(" ")[0]
    status = _STATUS_OF_CODE.get(code)
    if status is not None:
        return status
    lowered = message.lower()
    if any(text in lowered for text in _UNKNOWN_COMMAND):
        return 1
    if any(text in lowered for text in _BAD_ARGUMENT):
        return 4
    return 3
