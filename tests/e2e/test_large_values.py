"""Values of some 10 to some 100 KiB: written from where they were received, whatever the sockets take at a time."""

from __future__ import annotations

import random
import threading
from typing import Any

from cluster import Cluster, encode

SEED = 7
NOISE = random.Random(0).randbytes(1 << 20)


def pipeline(dice: random.Random) -> tuple[list[tuple[Any, ...]], list[Any]]:
    """Writes with the large argument first, in the middle and last, small ones between, reads; and their replies."""
    asked: list[tuple[Any, ...]] = []
    replies: list[Any] = []
    for number in range(60):
        size = dice.choice((16_300, 16_400, 40_000, 65_536, 131_072, 200_000, 700_000))
        at = dice.randrange(len(NOISE) - size)
        large, small = NOISE[at : at + size], NOISE[at : at + 10]
        key = f"k{dice.randrange(8)}"
        asked += [
            ("SET", key, large, "EX", 100),
            ("HSET", f"h{number}", "first", small, "second", large, "third", small),
            ("GET", key),
            ("HMGET", f"h{number}", "first", "second", "third"),
            ("APPEND", key, small),
            ("GETRANGE", key, 0, 5),
            ("LPUSH", f"l{number}", large, small),
            ("LRANGE", f"l{number}", 0, -1),
        ]
        replies += ["OK", 3, large, [small, large, small], size + 10, large[:6], 2, [small, large]]
    return asked, replies


def test_large_arguments_and_replies_keep_their_places() -> None:
    """Nobody reads for a while, so that the sockets on the way are full in the middle of frames."""
    asked, expected = pipeline(random.Random(SEED))
    dice = random.Random(SEED)
    data = b"".join(map(encode, asked))
    with Cluster(2, routers=1) as cluster, cluster.connect() as connection:

        def send() -> None:
            at = 0
            while at < len(data):
                size = dice.choice((1, 5000, 70_000, 400_000))
                connection.socket.sendall(data[at : at + size])
                at += size

        sender = threading.Thread(target=send)
        sender.start()
        sender.join(0.5)
        replies = connection.read_many(len(expected))
        sender.join()
        assert [reply == wanted for reply, wanted in zip(replies, expected, strict=True)] == [True] * len(expected)
        with cluster.connect() as other:
            assert other.request("GET", "k0") is not None


def test_more_clients_send_half_a_large_frame_than_there_are_buffers_for() -> None:
    value = NOISE[:100_000]
    with Cluster(1) as cluster:
        clients = [cluster.connect() for _ in range(60)]
        for number, client in enumerate(clients):
            client.socket.sendall(encode(("SET", f"k{number}", value))[: 20_000 + 1000 * number])
        with cluster.connect() as other:
            assert other.request("PING") == "PONG"
            for number, client in enumerate(clients[:50]):
                client.socket.sendall(encode(("SET", f"k{number}", value))[20_000 + 1000 * number :])
            assert [client.read() for client in clients[:50]] == ["OK"] * 50
            for client in clients:
                client.close()
            assert [other.request("GET", f"k{number}") == value for number in range(60)] == [True] * 50 + [False] * 10
