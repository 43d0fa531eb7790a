"""When a shard counts as up: not before every router is connected to it.

A shard that says it is ready can be connected to. Each router does that at its own time, and refuses the shard's keys until
then: whoever reads that a shard is up, and asks a router, must not be told that it is down. So routers are told first, and
the shard is up once they have acknowledged it. Bookkeeping without I/O of its own, for the supervisor.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence

from kache.cluster.acknowledgements import Acknowledgements
from kache.cluster.children import Child
from kache.cluster.messages import Down, ShardState

__all__ = ["LINK_SECONDS", "Links"]

LINK_SECONDS = 5.0
"""How long a router is waited for, which takes a moment: one that hangs must not keep a shard from being up for the others."""

_log = logging.getLogger("kache")


class Links:
    """`send` sends one of the `children` a message; `up` gets each shard that counts as up from then on."""

    def __init__(
        self,
        children: Sequence[Child],
        acknowledgements: Acknowledgements,
        send: Callable[[Child, Down], None],
        up: Callable[[Child], None],
    ) -> None:
        self._children = children
        self._acknowledgements = acknowledgements
        self._send = send
        self._up = up

    def ready(self, shard: Child) -> None:
        """The shard can be connected to, and has what it kept on disk."""
        life = shard.pid, shard.restarts
        number = self._acknowledgements.next_id()
        routers = [
            child
            for child in self._children
            if child.role == "router"
            and child.conversation is not None
            and not (child.unresponsive or child.restarting)  # one that leaves connects to nothing
        ]
        for router in routers:
            self._send(router, ShardState(shard.index, "up", pid=shard.pid, id=number))

        def connected(late: Collection[str] = ()) -> None:
            if (shard.pid, shard.restarts) != life or shard.restarting:
                return
            if late:
                names = ", ".join(sorted(late))
                _log.warning("%s (pid %d) serves, but not yet behind %s", shard.name, shard.pid, names)
            self._up(shard)

        self._acknowledgements.begin(
            number,
            [router.name for router in routers],
            time.monotonic(),
            lambda _: connected(),
            seconds=LINK_SECONDS,
            late=connected,
        )
