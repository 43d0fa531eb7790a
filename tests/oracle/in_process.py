"""One shard in this process behind the harness's interface, without sockets and without a router.

Commands pass the shard's one execution point, as in a cluster. The few that a router answers or rewrites
(SELECT, SCAN, RANDOMKEY) are done here in the plainest way; probes of a router's own errors need a cluster.
"""

from __future__ import annotations

from collections.abc import Sequence

from kache.errors import CommandError
from kache.shard.commands.arguments import database_index
from kache.shard.shard import Shard
from kache.slots import SLOT_COUNT

from .wire import Arg, RawReply, parse, to_bytes

_INNER_NAMES = {b"scan": b"_scan", b"randomkey": b"_random_key"}


def _inner(name: bytes, argv: list[bytes]) -> list[bytes]:
    """A command as the router asks it: SCAN goes up to the last slot."""
    inner = [_INNER_NAMES.get(name, argv[0]), *argv[1:]]
    if name == b"scan" and len(argv) > 1:
        inner[2:2] = [b"%d" % (SLOT_COUNT - 1)]
    return inner


class ShardTarget:
    """A fresh shard with the wall clock's time."""

    def __init__(self, protocol: int) -> None:
        self._shard = Shard()
        self._protocol = protocol
        self._db = 0

    def run(self, commands: Sequence[Sequence[Arg]]) -> list[RawReply]:
        """Execute the commands in order; after each script the store's invariants are asserted."""
        replies = [self._run([to_bytes(arg) for arg in command]) for command in commands]
        self._shard.store.check()
        return replies

    def close(self) -> None:
        """Nothing is held: the shard goes with its last reference."""

    def _run(self, argv: list[bytes]) -> RawReply:
        name = argv[0].lower()
        if name == b"select" and len(argv) == 2:
            raw = self._select(argv[1])
        else:
            raw = self._shard.execute(_inner(name, argv), self._protocol, self._db)
            if name == b"scan" and raw.startswith(b"*3\r\n"):
                # What is left of COUNT is the router's business.
                raw = b"*2" + raw[2 : raw.rindex(b":")]
        parsed = parse(raw)
        if parsed is None or parsed[1] != len(raw):
            raise AssertionError(f"not one whole reply: {raw!r}")
        return parsed[0]

    def _select(self, index: bytes) -> bytes:
        try:
            self._db = database_index(index)
        except CommandError as error:
            return b"-%s\r\n" % error.message.encode()
        return b"+OK\r\n"
