"""How much strangers can make a cluster log: HTTP requests, TLS hellos, half commands, refused connections, in a loop.

    python tests/soak/strangers.py [--seconds 60]

Exit status 1 when a kind adds a mebibyte or more to the log, or a traceback.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster import Cluster, Connection, until

BAR = 1024 * 1024


def opening(data: bytes) -> Callable[[Cluster], None]:
    """A client that sends these bytes and waits for the end."""

    def once(cluster: Cluster) -> None:
        with socket.create_connection(("127.0.0.1", cluster.port), 10) as sock:
            sock.sendall(data)
            try:
                while sock.recv(4096):
                    pass
            except ConnectionResetError:
                pass

    return once


def half_commands(cluster: Cluster) -> None:
    """Two hundred clients that begin a command and are reaped."""
    socks = [socket.create_connection(("127.0.0.1", cluster.port), 10) for _ in range(200)]
    for sock in socks:
        sock.sendall(b"*")
    for sock in socks:
        assert sock.recv(1) == b""
        sock.close()


def only_client(cluster: Cluster) -> Connection | None:
    """A connection that takes the last place, once the one before it is gone."""
    connection = cluster.connect()
    if connection.request("ping") == "PONG":
        return connection
    connection.close()
    return None


KINDS: dict[str, Callable[[Cluster], None]] = {
    "HTTP requests": opening(b"POST / HTTP/1.1\r\nHost: kache\r\n\r\n"),
    "TLS hellos": opening(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"),
    "half commands": half_commands,
    "refused connections": opening(b""),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    failed = False
    for kind, once in KINDS.items():
        with Cluster(1, preauth_timeout_ms=10) as cluster:
            holders = []
            if kind == "refused connections":
                assert cluster.request("config", "set", "maxclients", "1") == "OK"
                holders.append(until(lambda cluster=cluster: only_client(cluster), "the only client"))
            end, rounds = time.monotonic() + seconds, 0
            while time.monotonic() < end:
                once(cluster)
                rounds += 1
            log = cluster.log()
            for holder in holders:
                holder.close()
        bad = len(log) >= BAR or "Traceback" in log
        failed = failed or bad
        print(
            f"{kind}: {rounds} rounds in {seconds:g} s, {len(log)} bytes of log (bar {BAR}){' MISSED' if bad else ''}"
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
