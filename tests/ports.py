"""Ports for servers of a test that must be told their port before they have it.

Not the system's choice for port 0: between its answer and the server's start whoever asks next, another test beside this
one, may be given the same. These lie below the ports that the system gives away by itself, and are claimed in a way that
every process of the machine sees and that ends with the process (a socket in Linux's abstract name space; elsewhere a test
beside this one may still be faster).
"""

from __future__ import annotations

import os
import socket
import sys

__all__ = ["free_port", "free_ports"]

LOWEST, HIGHEST = 12_000, 32_000
"""Linux gives away 32768 to 60999; the bus of a Redis Cluster's node has the port 10,000 above, if nobody says another."""

_claims: list[socket.socket] = []
_next = LOWEST + os.getpid() * 101 % (HIGHEST - LOWEST)


def free_port() -> int:
    """A port that nobody listens on, and that no other test gets before this process ends."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many of them."""
    global _next
    found: list[int] = []
    for _ in range(HIGHEST - LOWEST):
        port = _next
        _next = port + 1 if port + 1 < HIGHEST else LOWEST
        if _claimed(port) and _bindable(port):
            found.append(port)
            if len(found) == count:
                return found
    raise OSError("no port is free")


def _claimed(port: int) -> bool:
    if not sys.platform.startswith("linux"):
        return True
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0kache-tests-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True


def _bindable(port: int) -> bool:
    """On every address: some servers of tests listen on all of them."""
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
