"""Requests of nothing between others, in every order and cut at every place: nothing of one request stays for the next.

A peer has kept the arguments of a request behind an empty one. Here the parser resumes partial frames, so whatever stands
between them, and wherever the stream is cut, the replies must be the same.
"""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Iterator

import pytest
from cluster import DEADLINE, Cluster, encode

NOTHING = (b"*0\r\n", b"*-1\r\n", b"\r\n", b"\n", b"   \r\n", b"*0\r\n*0\r\n")
COMMANDS = (
    encode(("set", "k", "v" * 30)),
    encode(("get", "k")),
    b"GET k\r\n",
    encode(("mget", *["k"] * 5)),
    encode(("echo", "")),
    encode(("echo", "x" * 20_000)),
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2) as running:
        yield running
        assert "Traceback" not in running.log()


def answers(port: int, data: bytes, sizes: list[int]) -> bytes:
    """What comes back for `data`, sent in pieces of these sizes and then the rest."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        at = 0
        for size in [*sizes, len(data)]:
            sock.sendall(data[at : at + size])
            at += size
        sock.shutdown(socket.SHUT_WR)
        while part := sock.recv(1 << 16):
            received += part
    return received


def test_every_order_is_answered_as_without_them(cluster: Cluster) -> None:
    expected = answers(cluster.port, COMMANDS[0] + COMMANDS[1] + COMMANDS[3], [])
    for nothing in itertools.product(NOTHING, repeat=3):
        data = nothing[0] + COMMANDS[0] + nothing[1] + COMMANDS[1] + nothing[2] + COMMANDS[3]
        assert answers(cluster.port, data, []) == expected, nothing


def test_cut_at_every_byte(cluster: Cluster) -> None:
    data = NOTHING[0] + COMMANDS[0] + NOTHING[1] + NOTHING[2] + COMMANDS[2] + NOTHING[3] + COMMANDS[3] + NOTHING[0]
    expected = answers(cluster.port, data, [])
    for cut in range(1, len(data)):
        assert answers(cluster.port, data, [cut]) == expected, cut
    assert answers(cluster.port, data, [1] * len(data)) == expected


def test_random_orders_and_cuts(cluster: Cluster) -> None:
    dice = random.Random(9)
    for _ in range(150):
        pieces = [dice.choice(COMMANDS + NOTHING) for _ in range(dice.randint(2, 12))]
        data = b"".join(pieces)
        expected = answers(cluster.port, b"".join(piece for piece in pieces if piece in COMMANDS), [])
        sizes = [dice.choice((1, 2, 3, 7, 50, 16_384)) for _ in range(30)]
        assert answers(cluster.port, data, sizes) == expected, (pieces, sizes)
