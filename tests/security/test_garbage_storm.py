"""Connections that send what is no request, one behind the other: the others are served meanwhile, and no log grows.

CVE-2025-48367 (protocol errors of strangers kept a server from its clients); https://nvd.nist.gov/vuln. The long form is
tests/soak/strangers.py.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from cluster import DEADLINE, Cluster

GARBAGE = (
    b"*1\r\n$x\r\n",
    b"\xff\xfe\xfd\xfc",
    b"POST / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"*3\r\n:1\r\n",
)
SECONDS = 2.0


@pytest.mark.parametrize("password", ["", "sesame"])
def test_others_are_served_meanwhile(password: str) -> None:
    options = {"requirepass": password} if password else {}
    with Cluster(1, **options) as cluster:
        over = threading.Event()
        done = [0] * 3

        def throw(which: int) -> None:
            while not over.is_set():
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection(("127.0.0.1", cluster.port), DEADLINE) as sock,
                ):
                    sock.sendall(GARBAGE[done[which] % len(GARBAGE)])
                    sock.recv(1000)
                done[which] += 1

        with cluster.connect() as victim:
            if password:
                victim.request("auth", password)
            threads = [threading.Thread(target=throw, args=(which,)) for which in range(len(done))]
            for thread in threads:
                thread.start()
            pings, began = 0, time.monotonic()
            try:
                while time.monotonic() - began < SECONDS:
                    assert victim.request("ping") == "PONG"
                    pings += 1
            finally:
                over.set()
                for thread in threads:
                    thread.join()
        # Starved, it would wait for as long as somebody throws.
        assert sum(done) > 20 and pings > 20, (pings, done)
        assert len(cluster.log()) < 100_000
        assert "Traceback" not in cluster.log()
