"""Lengths that are only declared cost nothing: neither those of strangers nor those of clients who may do everything.

CVE-2021-32675 (memory was taken for what a request said would follow); https://nvd.nist.gov/vuln. Our own clients face such
a server in test_hostile_server.py.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import DEADLINE, Cluster, encode

CONNECTIONS = 40
MOST = 32 << 20

STRANGERS = {
    "many words": b"*1000000000\r\n$4\r\nauth\r\n",
    "a long word": b"*2\r\n$4\r\nauth\r\n$536870912\r\n",
    "beyond 64 bits": b"*99999999999999999999\r\n",
    "a negative word": b"*1\r\n$-5\r\n",
    "binary": b"\xff\xff\xff\x08\x01\x00\x00\x00",
}
KNOWN = {
    "many words": b"*1000000\r\n$3\r\ndel\r\n",
    "a long word": b"*3\r\n$3\r\nset\r\n$1\r\nk\r\n$536870912\r\nabc",
    "a long key": b"*2\r\n$3\r\nget\r\n$500000000\r\nabc",
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(1, requirepass="sesame") as running:
        yield running


def resident(cluster: Cluster) -> int:
    found = 0
    for role in ("router", "shard"):
        found += int(Path(f"/proc/{cluster.pid_of(role)}/statm").read_text().split()[1]) * 4096
    return found


def hold(cluster: Cluster, data: bytes) -> list[socket.socket]:
    """So many connections that have sent this; the last reply of each that is not closed has come."""
    found = []
    for _ in range(CONNECTIONS):
        sock = socket.create_connection(("127.0.0.1", cluster.port), DEADLINE)
        sock.sendall(data)
        found.append(sock)
    return found


def is_closed(sock: socket.socket) -> bool:
    """Whether the server ends it, whatever it says before."""
    with contextlib.suppress(ConnectionError):
        while sock.recv(4096):
            pass
    return True


@pytest.mark.parametrize("name", STRANGERS)
def test_of_strangers(cluster: Cluster, name: str) -> None:
    before = resident(cluster)
    found = hold(cluster, STRANGERS[name])
    assert all(map(is_closed, found))
    assert resident(cluster) - before < MOST
    for sock in found:
        sock.close()


@pytest.mark.parametrize("name", KNOWN)
def test_of_clients(cluster: Cluster, name: str) -> None:
    before = resident(cluster)
    found = hold(cluster, encode(("auth", "sesame")) + KNOWN[name])
    for sock in found:
        assert sock.recv(5) == b"+OK\r\n"
    with cluster.connect() as other:
        assert other.request("auth", "sesame") == "OK"
        assert other.request("ping") == "PONG"
    assert resident(cluster) - before < MOST
    for sock in found:
        sock.close()
