"""Runs the same commands on Kache and on Valkey and reports the first reply that differs.

`Oracle` holds one connection of each protocol version to both servers. `Oracle.check(commands)` clears both,
runs the list, and raises AssertionError with a readable transcript when a reply differs. Strategies produce
such lists; `strategies_*.py` hold them by type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from .compare import agree
from .wire import Arg, Connection, RawReply

Command = tuple[Arg, ...]
"""One command with its arguments, e.g. ``("SET", "k", b"v", "EX", 10)``."""

_TRANSCRIPT_LIMIT = 400


class Target(Protocol):
    """What can run commands and return their raw replies."""

    def run(self, commands: Sequence[Sequence[Arg]]) -> list[RawReply]:
        """Run the commands in order; one raw reply each."""

    def close(self) -> None:
        """Let go of what the target holds."""


class Oracle:
    """A server under test beside the real one, on both protocol versions."""

    def __init__(self, open_ours: Callable[[int], Target], valkey_port: int) -> None:
        """`open_ours(protocol)` gives the target under test; `valkey_port` is a real server's."""
        self._ours = {protocol: open_ours(protocol) for protocol in (2, 3)}
        self._theirs = {protocol: Connection(valkey_port, protocol) for protocol in (2, 3)}
        self.commands_run = 0

    def check(self, commands: Sequence[Sequence[Arg]], protocol: int) -> None:
        """Run `commands` on both servers from an empty state; AssertionError at the first difference.

        After the commands every key that is left is compared by type too, through `state_commands`.
        """
        cleared: list[Sequence[Arg]] = [("SELECT", 0), ("FLUSHALL",)]
        script = [*cleared, *commands]
        ours, theirs = self._ours[protocol].run(script), self._theirs[protocol].run(script)
        self.commands_run += len(commands)
        compare_transcripts(script, ours, theirs)
        keys = sorted(item.text for item in self._theirs[protocol].run([("KEYS", "*")])[0].items)
        reads = [command for key in keys for command in state_commands(key, self._type_of(key, protocol))]
        compare_transcripts(
            [*script, *reads],
            [*ours, *self._ours[protocol].run(reads)],
            [*theirs, *self._theirs[protocol].run(reads)],
        )

    def both(self, commands: Sequence[Sequence[Arg]], protocol: int = 2) -> list[tuple[RawReply, RawReply]]:
        """Run commands on both without clearing or comparing: (ours, theirs) of each, for tests with own rules."""
        return list(zip(self._ours[protocol].run(commands), self._theirs[protocol].run(commands), strict=True))

    def ours(self, commands: Sequence[Sequence[Arg]], protocol: int = 2) -> list[RawReply]:
        """Run commands on the server under test alone (cursors belong to one server)."""
        return self._ours[protocol].run(commands)

    def theirs(self, commands: Sequence[Sequence[Arg]], protocol: int = 2) -> list[RawReply]:
        """Run commands on the real server alone (its settings)."""
        return self._theirs[protocol].run(commands)

    def close(self) -> None:
        """Close all connections."""
        for target in (*self._ours.values(), *self._theirs.values()):
            target.close()

    def _type_of(self, key: bytes, protocol: int) -> bytes:
        return self._theirs[protocol].run([("TYPE", key)])[0].text


def state_commands(key: bytes, type_name: bytes) -> list[Command]:
    """Commands that read everything of a key: what two servers must agree on after a sequence."""
    whole: dict[bytes, list[Command]] = {
        b"string": [("GET", key)],
        b"list": [("LRANGE", key, 0, -1)],
        b"hash": [("HGETALL", key)],
        b"set": [("SMEMBERS", key)],
        b"zset": [("ZRANGE", key, 0, -1, "WITHSCORES")],
        b"stream": [("XINFO", "STREAM", key, "FULL", "COUNT", 0)],
    }
    return [("TYPE", key), ("PTTL", key), *whole.get(type_name, [])]


def compare_transcripts(script: Sequence[Sequence[Arg]], ours: list[RawReply], theirs: list[RawReply]) -> None:
    """AssertionError with the commands up to the first reply that differs, and both replies."""
    __tracebackhide__ = True
    for index, (command, mine, other) in enumerate(zip(script, ours, theirs, strict=True)):
        if not agree(command, mine, other):
            lines = [f"{command_text(step)}\n      -> {shorten(ours[i].raw)}" for i, step in enumerate(script[:index])]
            lines.append(f"{command_text(command)}\n   kache {shorten(mine.raw)}\n  valkey {shorten(other.raw)}")
            raise AssertionError("replies differ:\n" + "\n".join(lines))


def command_text(command: Sequence[Arg]) -> str:
    """A command as one would read it."""
    return " ".join(repr(arg) if isinstance(arg, bytes) else str(arg) for arg in command)


def shorten(raw: bytes) -> str:
    """A reply short enough to read."""
    return repr(raw if len(raw) <= _TRANSCRIPT_LIMIT else raw[:_TRANSCRIPT_LIMIT] + b"...")
