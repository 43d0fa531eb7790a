"""A shard counts as up once all routers are connected to it, whatever becomes of them and of it meanwhile."""

from __future__ import annotations

import socket
from math import inf

import pytest

from kache.cluster.acknowledgements import Acknowledgements
from kache.cluster.children import Child
from kache.cluster.control import Conversation
from kache.cluster.links import Links
from kache.cluster.messages import Down, ShardState


class Supervised:
    """A shard and two routers, as the supervisor has them."""

    def __init__(self) -> None:
        self.shard = Child("shard", 0, "", pid=7, restarts=1)
        self.routers = [Child("router", index, "", pid=8 + index, state="up") for index in range(2)]
        self.ends = [socket.socketpair() for _ in self.routers]
        for router, (end, _) in zip(self.routers, self.ends, strict=True):
            router.conversation = Conversation(end)
        self.acknowledgements = Acknowledgements()
        self.told: list[tuple[str, Down]] = []
        self.up: list[Child] = []
        self.links = Links([self.shard, *self.routers], self.acknowledgements, self._send, self.up.append)

    def _send(self, child: Child, message: Down) -> None:
        self.told.append((child.name, message))

    def connected(self, router: int) -> None:
        message = next(m for name, m in reversed(self.told) if name == f"router {router}")
        assert isinstance(message, ShardState)
        self.acknowledgements.acknowledged(message.id, f"router {router}")


@pytest.fixture
def supervised() -> Supervised:
    return Supervised()


def test_once_all_are_connected(supervised: Supervised) -> None:
    supervised.links.ready(supervised.shard)
    assert [(name, m.state, m.pid) for name, m in supervised.told if isinstance(m, ShardState)] == [
        ("router 0", "up", 7),
        ("router 1", "up", 7),
    ]
    supervised.connected(1)
    assert not supervised.up
    supervised.connected(0)
    assert supervised.up == [supervised.shard]


def test_at_once_when_nobody_has_to(supervised: Supervised) -> None:
    supervised.routers[0].unresponsive = True
    supervised.routers[1].restarting = True
    supervised.links.ready(supervised.shard)
    assert supervised.up == [supervised.shard]
    assert not supervised.told


def test_a_router_that_ends_is_not_waited_for(supervised: Supervised) -> None:
    supervised.links.ready(supervised.shard)
    supervised.connected(0)
    supervised.acknowledgements.gone("router 1")
    assert supervised.up == [supervised.shard]


def test_a_router_that_hangs_is_not_waited_for_long(supervised: Supervised, caplog: pytest.LogCaptureFixture) -> None:
    supervised.links.ready(supervised.shard)
    supervised.connected(0)
    supervised.acknowledgements.expire(inf)
    assert supervised.up == [supervised.shard]
    assert "shard 0 (pid 7) serves, but not yet behind router 1" in caplog.text


@pytest.mark.parametrize("what", ["ended", "another life", "restarting"])
def test_one_that_is_gone_meanwhile_is_not_up(supervised: Supervised, what: str) -> None:
    supervised.links.ready(supervised.shard)
    if what == "ended":
        supervised.shard.pid = 0
    elif what == "another life":
        supervised.shard.starts()
    else:
        supervised.shard.restarting = True
    supervised.connected(0)
    supervised.connected(1)
    assert not supervised.up
