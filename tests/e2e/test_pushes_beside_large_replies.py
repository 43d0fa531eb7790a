"""What is pushed while a large reply leaves as it comes stands behind it, never in the middle of it."""

from __future__ import annotations

from cluster import Cluster, Connection

SIZE = 24_000_000


def replies_and_messages(listener: Connection, replies: int, messages: int) -> tuple[list[object], list[bytes]]:
    """That many replies, and the messages of channel c that came among them."""
    found: list[object] = []
    heard: list[bytes] = []
    while len(found) < replies or len(heard) < messages:
        value = listener.read()
        if isinstance(value, list) and value[:2] == [b"message", b"c"]:
            heard.append(value[2])
        else:
            found.append(value)
    return found, heard


def test_messages_beside_values_of_many_pieces() -> None:
    with Cluster(2, routers=2) as cluster, cluster.connect() as listener, cluster.connect() as publisher:
        keys = [keys[0] for keys in cluster.keys_by_shard(1)]
        for key, letter in zip(keys, (b"x", b"y"), strict=True):
            assert publisher.request("set", key, letter * SIZE) == "OK"
        publisher.send(*(("sadd", "many", *(f"{part}:{number:0200}" for number in range(2000))) for part in range(20)))
        publisher.read_many(20)
        listener.request("hello", 3)
        assert listener.request("subscribe", "c")[0] == b"subscribe"
        sent = 0
        listener.send(("get", keys[0]), ("mget", *keys), ("sunion", "many", "nosuch"), ("get", keys[1]), ("ping",))
        for number in range(300):
            # Nothing is read yet: replies fill the sockets and wait, and messages meet them at every place.
            publisher.send(("publish", "c", number))
            sent += 1
            if number % 10 == 9:
                assert publisher.read_many(10) == [1] * 10
        found, heard = replies_and_messages(listener, 5, sent)
        assert found[0] == b"x" * SIZE and found[3] == b"y" * SIZE and found[4] == "PONG"
        assert found[1] == [b"x" * SIZE, b"y" * SIZE]
        assert isinstance(found[2], list) and len(found[2]) == 40_000
        assert heard == [b"%d" % number for number in range(sent)]
