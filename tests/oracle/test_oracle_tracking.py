"""CLIENT TRACKING, byte for byte beside a real Valkey: what is told to whom, in which mode, and what is refused."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from cluster import Cluster, encode

from .test_oracle_pubsub import DEADLINE, Player, compare, scene

PLAIN = """
a: CLIENT TRACKINGINFO
a: CLIENT GETREDIR
a: CLIENT TRACKING ON
a: CLIENT TRACKINGINFO
a: CLIENT GETREDIR
a: GET {t}1
b: SET {t}1 x
a:
b: SET {t}1 y
a:
a: MGET {t}1 {t}2 {t}3; HGETALL {t}h; LRANGE {t}l 0 -1
b: HSET {t}h f v
a:
b: DEL {t}1 {t}2
a:
b: RPUSH {t}l x
a:
a: GET {t}1; SET {t}1 own
a:
a: GET {t}1; STRLEN {t}1; EXISTS {t}9
b: INCRBYFLOAT {t}9 1.5
a:
b: EXPIRE {t}1 100
a:
a: GET {t}1
b: RENAME {t}1 {t}7
a:
a: GET {t}7
b: FLUSHALL
a:
a: GET {t}7
a: CLIENT TRACKING OFF
a: CLIENT TRACKINGINFO
b: SET {t}7 x
a:
a: MULTI; GET {t}8; EXEC
a: CLIENT TRACKING ON
a: MULTI; GET {t}8; EXEC
b: SET {t}8 x
a:
a: SET {t}5 x; GET {t}5
a: RESET
b: SET {t}5 y
a:
"""
OPT = """
a: CLIENT TRACKING ON OPTIN
a: GET {t}1
b: SET {t}1 1
a:
a: CLIENT CACHING YES; GET {t}1
b: SET {t}1 2
a:
a: CLIENT CACHING YES; CLIENT TRACKINGINFO; MULTI; GET {t}1; GET {t}2; EXEC; GET {t}3
b: SET {t}1 3
a:
b: SET {t}2 3
a:
b: SET {t}3 3
a:
a: CLIENT CACHING NO
a: CLIENT CACHING MAYBE
a: CLIENT TRACKING ON OPTOUT
a: CLIENT TRACKING OFF
a: CLIENT CACHING YES
a: CLIENT TRACKING ON OPTOUT
a: GET {t}1
b: SET {t}1 4
a:
a: CLIENT CACHING NO; GET {t}1
b: SET {t}1 5
a:
a: CLIENT CACHING YES
a: CLIENT TRACKING ON OPTIN OPTOUT
a: CLIENT TRACKING OFF
"""
LOOPS = """
a: CLIENT TRACKING ON NOLOOP
a: GET {t}1; SET {t}1 own
a:
a: GET {t}1
b: SET {t}1 other
a:
a: CLIENT TRACKING OFF
a: CLIENT TRACKING ON BCAST PREFIX {u} PREFIX {t}
a: CLIENT TRACKINGINFO
b: SET {t}1 x
a:
b: SET {v}1 x
a:
b: SET {u}1 x
a:
a: SET {u}2 own
a:
a: CLIENT TRACKING ON BCAST PREFIX {w}
a: CLIENT TRACKINGINFO
b: SET {w}1 x
a:
a: CLIENT TRACKING ON BCAST PREFIX {t}1
a: CLIENT TRACKING ON BCAST PREFIX ab PREFIX abc
a: CLIENT TRACKING ON
a: CLIENT TRACKING OFF
a: CLIENT TRACKING ON BCAST NOLOOP
a: SET {t}1 own
a:
b: SET {t}1 other
a:
b: FLUSHDB
a:
a: CLIENT TRACKING OFF
"""
WRONG = """
a: CLIENT TRACKING
a: CLIENT TRACKING MAYBE
a: CLIENT TRACKING ON WHAT
a: CLIENT TRACKING ON PREFIX x
a: CLIENT TRACKING ON BCAST OPTIN
a: CLIENT TRACKING ON REDIRECT 99999999
a: CLIENT TRACKING ON REDIRECT x
a: CLIENT TRACKING ON REDIRECT
a: CLIENT CACHING YES
a: CLIENT CACHING
a: CLIENT TRACKINGINFO
"""
SCENES = {"plain": PLAIN, "opt": OPT, "loops": LOOPS, "wrong": WRONG}


@pytest.fixture(scope="module", params=[(1, 1), (4, 2)], ids=["1-shard", "4-shards-2-routers"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    shards, routers = request.param
    with Cluster(shards, routers=routers) as cluster:
        yield cluster.port


@pytest.mark.parametrize("name", SCENES)
def test_scenes(port: int, valkey_port: int, name: str) -> None:
    ours, theirs = Player(port, 3), Player(valkey_port, 3)
    try:
        for player in (ours, theirs):
            player.play("b", [(b"FLUSHALL",)])
        compare(ours, theirs, scene(SCENES[name]))
    finally:
        ours.close()
        theirs.close()


class Redirected:
    """A connection of RESP2 whose news goes to another one, which listens."""

    def __init__(self, port: int) -> None:
        self.listener, self.reader, self.writer = (
            socket.create_connection(("127.0.0.1", port), DEADLINE) for _ in range(3)
        )
        self.number = int(self.ask(self.listener, "CLIENT", "ID")[1:])
        self.ask(self.listener, "SUBSCRIBE", "__redis__:invalidate", lines=6)
        assert self.ask(self.reader, "CLIENT", "TRACKING", "ON", "REDIRECT", str(self.number)) == b"+OK\r\n"

    def ask(self, connection: socket.socket, *words: str, lines: int = 1) -> bytes:
        connection.sendall(encode(words))
        return self.take(connection, lines)

    def take(self, connection: socket.socket, lines: int) -> bytes:
        data = b""
        while data.count(b"\r\n") < lines:
            data += connection.recv(65536)
        return data

    def close(self) -> None:
        for connection in (self.listener, self.reader, self.writer):
            connection.close()


def test_redirection_to_a_connection_of_resp2(port: int, valkey_port: int) -> None:
    found = []
    for each in (port, valkey_port):
        one = Redirected(each)
        told = []
        for number in range(6):  # whichever router each of them is on
            one.ask(one.reader, "SET", f"{{r}}{number}", "x")
            one.ask(one.reader, "GET", f"{{r}}{number}", lines=2)
            one.ask(one.writer, "SET", f"{{r}}{number}", "y")
            told.append(one.take(one.listener, 8))
        one.ask(one.writer, "FLUSHALL")
        told.append(one.take(one.listener, 6))
        found.append(told)
        one.close()
    assert found[0] == found[1]


def test_the_one_that_is_told_for_another_goes_away(port: int, valkey_port: int) -> None:
    """A client of RESP3 learns that; TRACKINGINFO says so, too."""
    for each in (port, valkey_port):
        player = Player(each, 3)
        listener = socket.create_connection(("127.0.0.1", each), DEADLINE)
        listener.sendall(encode(("CLIENT", "ID")))
        number = int(listener.recv(64)[1:])
        assert b"+OK" in player.play("a", [(b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", b"%d" % number)])
        listener.close()
        expected = b">2\r\n$21\r\ntracking-redir-broken\r\n:%d\r\n" % number
        deadline = time.monotonic() + DEADLINE
        data = b""
        while expected not in data and time.monotonic() < deadline:
            data += player.play("a", [(b"GET", b"k")])
            player.play("b", [(b"SET", b"k", b"x")])
            data += player.play("a", [])
        assert expected in data
        assert b"broken_redirect" in player.play("a", [(b"CLIENT", b"TRACKINGINFO")])
        player.close()


def test_what_expires_is_told(port: int, valkey_port: int) -> None:
    for each in (port, valkey_port):
        player = Player(each, 3)
        player.play("a", [(b"CLIENT", b"TRACKING", b"ON")])
        player.play("b", [(b"SET", b"short", b"x", b"PX", b"700")])
        player.play("a", [(b"GET", b"short")])
        data, deadline = b"", time.monotonic() + DEADLINE
        while b"invalidate" not in data and time.monotonic() < deadline:
            data += player.play("a", [])
        assert b">2\r\n$10\r\ninvalidate\r\n*1\r\n$5\r\nshort\r\n" in data
        player.close()
