"""What users may do by scripts: the check of each command inside of one, on the shard that runs it.

The router has checked the script itself. What it executes is checked by the same rights for the command, its keys and the
channel it publishes to; the texts are those of a real server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kache.commands import Row
from kache.commands.extract import count_is_usable, located, other_keys_of_sort
from kache.errors import CommandError

from .record import NOBODY, READ, UNRESTRICTED, WRITE
from .rights import User, Users

__all__ = ["DeniedError", "check_inner", "rights_of"]

TEXTS: Final = {
    "command": "ERR The user executing the script can't run this command or subcommand",
    "key": "ERR The user executing the script can't access at least one of the keys mentioned in the command arguments",
    "channel": "ERR The user executing the script can't publish to the channel mentioned in the command",
}
GONE: Final = "NOPERM the user executing the script is not known any more"


class DeniedError(CommandError):
    """What a script's user may not do, for ACL LOG: `reason` (a key of `TEXTS`), the command, key or channel, the user."""

    def __init__(self, reason: str, word: bytes, user: bytes) -> None:
        super().__init__(TEXTS[reason])
        self.reason, self.word, self.user = reason, word, user


def check_inner(users: Users, number: int, row: Row, args: tuple[bytes, ...]) -> None:
    """DeniedError or another CommandError unless the user of that number may execute this command of its script; `args` are
    those behind its name."""
    if number == UNRESTRICTED:
        return
    user = users.by_number.get(number) if number != NOBODY else None
    if user is None:
        raise CommandError(GONE)
    if user.unrestricted:
        return
    free = "no_auth" in row.flags
    channel = args[0] if row.name in ("publish", "spublish") else None
    wanted = _wanted(row, args)
    refused = user.refusal(-1 if free else row.id, args[0] if args else None, wanted, channel)
    if refused is not None:
        reason, place = refused
        word = (
            row.name.encode()
            if reason == "command" or (reason == "key" and not wanted)
            else (wanted[place][0] if reason == "key" and wanted else channel or b"")
        )
        raise DeniedError(reason, word, user.name)
    if row.name in ("sort", "sort_ro"):
        _check_sort(user, row, args)


def _check_sort(user: User, row: Row, args: tuple[bytes, ...]) -> None:
    """BY and GET read keys that the command does not name."""
    option = other_keys_of_sort(args)
    if option and not user.may_sort(row.id):
        raise CommandError(f"ERR {option} option of SORT denied due to insufficient ACL permissions.")


def _wanted(row: Row, args: tuple[bytes, ...]) -> list[tuple[bytes, int]] | None:
    """The keys and what is done with each; None when the command has some and none can be found."""
    if not row.keys:
        return []
    found = located(row, args)
    if not found and not ("no_mandatory_keys" in row.flags and count_is_usable(row, args)):
        return None
    chosen = _CHOICES.get(row.name)
    if chosen is not None:
        rights = chosen(args)
        return [(args[at], rights) for at, _ in found]
    return [(args[at], rights_of(flags)) for at, flags in found]


def rights_of(flags: Sequence[str]) -> int:
    """What a command does with a key of these flags, as rights; 0: it must only know it."""
    read = READ if "access" in flags else 0
    return read | (WRITE if {"update", "insert", "delete"} & set(flags) else 0)


def _set(args: Sequence[bytes]) -> int:
    """SET reads what it tells of the old value."""
    return READ | WRITE if {word.lower() for word in args[2:]} & {b"get", b"ifeq"} else WRITE


def _bitfield(args: Sequence[bytes]) -> int:
    """BITFIELD may only read."""
    place = 1
    while place < len(args):
        word = args[place].lower()
        if word == b"get" and place + 2 < len(args):
            place += 3
        elif word == b"overflow" and place + 1 < len(args):
            place += 2
        else:
            return READ | WRITE
    return READ


_CHOICES: Final = {"set": _set, "bitfield": _bitfield}
