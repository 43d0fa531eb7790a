"""Replies that nobody reads: of strangers, and of those who may do everything, on the plain port and on TLS.

CVE-2025-21605 (output buffers of clients that have not authenticated grew without limit), CVE-2025-46686;
https://nvd.nist.gov/vuln.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority import Authority, TlsCluster
from cluster import DEADLINE, encode, until

MIB = 1 << 20
BUDGET = 8 * MIB
SLACK = 40 * MIB
"""Of the process beyond the budget: buffers on their way, the heap's own."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsCluster]:
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    options: dict[str, object] = {
        "requirepass": "sesame",
        "maxmemory_clients": "8mb",
        "request_timeout_ms": 60_000,
        "tls_auth_clients": "no",
    }
    with TlsCluster(1, authority=authority, **options) as running:
        yield running


def resident(cluster: TlsCluster) -> int:
    pages = Path(f"/proc/{cluster.pid_of('router')}/statm").read_text().split()[1]
    return int(pages) * 4096


def connected(cluster: TlsCluster, sealed: bool) -> socket.socket:
    if sealed:
        return cluster.secure().socket
    return socket.create_connection(("127.0.0.1", cluster.port), DEADLINE)


def closed_beneath(sock: socket.socket, data: bytes) -> bool:
    """Sends without reading; whether the other side closes. How much the system's buffers take before that is seen is its own
    affair, and more than ten megabytes on some machines."""
    sock.settimeout(DEADLINE)
    end = time.monotonic() + DEADLINE
    with contextlib.suppress(TimeoutError, ssl.SSLWantWriteError):
        while time.monotonic() < end:
            try:
                sock.sendall(data)
            except (ConnectionError, ssl.SSLError):
                return True
    return False


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "tls"])
def test_a_stranger_is_closed_before_it_costs_anything(cluster: TlsCluster, sealed: bool) -> None:
    before = resident(cluster)
    command = encode(("get", "x" * 100))
    for _ in range(20):
        sock = connected(cluster, sealed)
        assert closed_beneath(sock, command * 500)
        sock.close()
    assert resident(cluster) - before < SLACK


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "tls"])
def test_who_does_not_read_stays_within_the_budget(cluster: TlsCluster, sealed: bool) -> None:
    with cluster.connect() as admin:
        admin.request("auth", "sesame")
        admin.request("set", "large", b"x" * MIB)
        before = resident(cluster)
        greedy = [connected(cluster, sealed) for _ in range(8)]
        for sock in greedy:
            sock.sendall(encode(("auth", "sesame")) + encode(("get", "large")) * 60)
        most = 0

        def quiet() -> bool:
            """What is served is served: the rest waits for somebody who reads."""
            nonlocal most
            most = max(most, resident(cluster))
            return b"x" * 10 in admin.request("getrange", "large", 0, 9)

        for _ in range(100):
            until(quiet, "others are served")
        assert most - before < BUDGET + SLACK
        for sock in greedy:
            sock.close()
