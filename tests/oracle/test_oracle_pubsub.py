"""Publish and subscribe, byte for byte beside a real Valkey: what each connection gets after each command, in both protocols.

A scene is a list of (connection, commands). After each line the real server's bytes on that connection are taken up to the
answer of a PING sent behind it; ours must be the same, as soon as they are there. An empty line only looks at what has
come meanwhile. With several shards and routers, messages travel from process to process.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from cluster import Cluster, encode

DEADLINE = 60.0

Step = tuple[str, list[tuple[bytes, ...]]]
"""A connection, and the commands that are sent on it together."""

LISTENING = """
a: SUBSCRIBE c1 c2 c1
a: PSUBSCRIBE c* x?
a: SSUBSCRIBE c1 s2
b: PUBLISH c1 hello
a:
b: PUBLISH xy there
a:
b: SPUBLISH c1 m
a:
b: PUBLISH none x
b: PUBSUB NUMSUB c1 c2 none c1
b: PUBSUB NUMSUB
b: PUBSUB NUMPAT
b: PUBSUB SHARDNUMSUB c1 c2
b: PUBSUB CHANNELS c1*
b: PUBSUB SHARDCHANNELS s*
b: PUBSUB CHANNELS a b
b: PUBSUB NOSUCH
b: SUBSCRIBE
b: PUBLISH c1
a: PING hi
a: GET x
a: CONFIG GET nosuch
a: NOSUCH
a: UNSUBSCRIBE c1 c9
b: PUBLISH c1 again
a:
a: PUNSUBSCRIBE c* none
a: PUNSUBSCRIBE
a: PUNSUBSCRIBE
a: SUNSUBSCRIBE s2
a: SUNSUBSCRIBE
a: UNSUBSCRIBE c2
a: UNSUBSCRIBE
a: GET x
"""
IN_TRANSACTIONS = """
a: MULTI; SUBSCRIBE m1 m2; PING; EXEC
b: PUBLISH m2 x
a:
a: UNSUBSCRIBE m1
a: UNSUBSCRIBE
b: MULTI; PUBLISH m1 1; SPUBLISH m1 1; SET k v; PUBLISH m2 1; EXEC
a: MULTI; SUBSCRIBE m3; GET k; EXEC
a: RESET
a: MULTI; SET k 1; UNSUBSCRIBE none; PUBSUB NUMSUB m1; EXEC
"""
LEAVING = """
a: SUBSCRIBE c1
a: PSUBSCRIBE c*
a: RESET
b: PUBLISH c1 nobody
b: PUBSUB NUMPAT
a: GET x
c: SUBSCRIBE d1
c: QUIT
"""


class Player:
    """One server's connections."""

    def __init__(self, port: int, protocol: int) -> None:
        self.port, self.protocol = port, protocol
        self.connections: dict[str, socket.socket] = {}
        self.sentinels = 0

    def connection(self, name: str) -> socket.socket:
        if name not in self.connections:
            made = self.connections[name] = socket.create_connection(("127.0.0.1", self.port), DEADLINE)
            made.sendall(encode(("HELLO", self.protocol)))
            data = made.recv(65536)
            while b"modules" not in data:
                data += made.recv(65536)
            self.play(name, [])
        return self.connections[name]

    def play(self, name: str, commands: list[tuple[bytes, ...]]) -> bytes:
        """What comes until a PING behind the command is answered, or the connection ends; the answer of the PING left out."""
        made = self.connection(name)
        self.sentinels += 1
        mark = b"sentinel-%d-%d" % (self.protocol, self.sentinels)
        made.sendall(b"".join(map(encode, commands)) + encode(("PING", mark)))
        data = b""
        while mark not in data:
            try:
                more = made.recv(65536)
            except ConnectionResetError:
                more = b""
            if not more:
                return data + b"<end>"
            data += more
        return data

    def close(self) -> None:
        for each in self.connections.values():
            each.close()


def scene(text: str) -> list[Step]:
    found: list[Step] = []
    for line in text.strip().splitlines():
        name, _, command = line.partition(":")
        found.append((name, [tuple(each.encode().split()) for each in command.split(";") if each.split()]))
    return found


def compare(ours: Player, theirs: Player, steps: list[Step]) -> None:
    for name, commands in steps:
        expected = theirs.play(name, commands)
        found = ours.play(name, commands)
        deadline = time.monotonic() + DEADLINE
        while not commands and without_pings(found) != without_pings(expected) and time.monotonic() < deadline:
            # What was published on another connection may still be on its way.
            found += ours.play(name, [])
        assert without_pings(found) == without_pings(expected), (ours.protocol, name, commands)


def without_pings(data: bytes) -> bytes:
    """What came, without the answers of the PINGs that were only asked to know when all had come."""
    at = data.find(b"sentinel-")
    while at >= 0:
        end = data.index(b"\r\n", at) + 2
        # "$n\r\n" stands before it, and before that, for one that listens in RESP2, "*2\r\n$4\r\npong\r\n".
        start = data.rfind(b"$", 0, at)
        if data[:start].endswith(b"*2\r\n$4\r\npong\r\n"):
            start -= len(b"*2\r\n$4\r\npong\r\n")
        data = data[:start] + data[end:]
        at = data.find(b"sentinel-")
    return data


@pytest.fixture(scope="module", params=[(1, 1), (4, 2)], ids=["1-shard", "4-shards-2-routers"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    shards, routers = request.param
    with Cluster(shards, routers=routers) as cluster:
        yield cluster.port


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("text", [LISTENING, IN_TRANSACTIONS, LEAVING], ids=["listening", "transactions", "leaving"])
def test_scenes(port: int, valkey_port: int, text: str, protocol: int) -> None:
    ours, theirs = Player(port, protocol), Player(valkey_port, protocol)
    try:
        compare(ours, theirs, scene(text))
    finally:
        ours.close()
        theirs.close()


@pytest.mark.parametrize("protocol", [2, 3])
def test_names_and_messages_of_any_bytes(port: int, valkey_port: int, protocol: int) -> None:
    names = [b"", b" ", b"\r\n", b"a*b", bytes(range(256)), b"{tag}x", b"n" * 70_000]
    ours, theirs = Player(port, protocol), Player(valkey_port, protocol)
    try:
        for name in names:
            steps: list[Step] = [
                ("a", [(b"SUBSCRIBE", name)]),
                ("a", [(b"PSUBSCRIBE", name[:200])]),
                ("b", [(b"PUBLISH", name, name[::-1])]),
                ("a", []),
            ]
            compare(ours, theirs, steps)
    finally:
        ours.close()
        theirs.close()


def test_replies_that_are_turned_off_keep_no_message_back(port: int, valkey_port: int) -> None:
    ours, theirs = Player(port, 3), Player(valkey_port, 3)
    try:
        for player in (ours, theirs):
            player.connection("a").sendall(encode(("CLIENT", "REPLY", "OFF")) + encode(("SUBSCRIBE", "quiet")))
            data = b""
            while data.count(b"\r\n") < 6:
                data += player.connections["a"].recv(65536)
            assert data == b">3\r\n$9\r\nsubscribe\r\n$5\r\nquiet\r\n:1\r\n"
        steps: list[Step] = [("b", [(b"PUBLISH", b"quiet", b"x")])]
        compare(ours, theirs, steps)
        for player in (ours, theirs):
            data = b""
            while data.count(b"\r\n") < 7:
                data += player.connections["a"].recv(65536)
            assert data == b">3\r\n$7\r\nmessage\r\n$5\r\nquiet\r\n$1\r\nx\r\n"
    finally:
        ours.close()
        theirs.close()
