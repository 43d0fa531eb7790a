"""The binary protocol end to end, byte for byte, built by hand from its specification."""

from __future__ import annotations

import socket
import struct

import pytest
from cluster import DEADLINE, Cluster

OK_NIL = struct.pack("<IIB", 5, 0, 0)
NO_KEY = struct.pack("<IIB", 5, 2, 0)


def request(*strings: bytes) -> bytes:
    body = struct.pack("<I", len(strings)) + b"".join(struct.pack("<I", len(s)) + s for s in strings)
    return struct.pack("<I", len(body)) + body


def text(value: bytes) -> bytes:
    return struct.pack("<BI", 2, len(value)) + value


def double(value: float) -> bytes:
    return struct.pack("<Bd", 4, value)


def response(value: bytes, status: int = 0) -> bytes:
    return struct.pack("<II", 4 + len(value), status) + value


def integer(value: int) -> bytes:
    return struct.pack("<Bq", 3, value)


def pairs(*members: tuple[bytes, float]) -> bytes:
    return struct.pack("<BI", 5, 2 * len(members)) + b"".join(text(m) + double(s) for m, s in members)


SEQUENCE = [
    (request(b"set", b"k1", b"v1"), OK_NIL),
    (request(b"set", b"k2", b"v2"), OK_NIL),
    (request(b"set", b"k3", b"\x00\xffv3"), OK_NIL),
    (request(b"get", b"k3"), response(text(b"\x00\xffv3"))),
    (request(b"expire", b"k1", b"5000"), OK_NIL),
    (request(b"persist", b"k1"), OK_NIL),
    (request(b"del", b"k2"), response(integer(1))),
    (request(b"zadd", b"board", b"1", b"ada"), OK_NIL),
    (request(b"zadd", b"board", b"2.5", b"bob"), OK_NIL),
    (request(b"zadd", b"board", b"2.5", b"cyd"), OK_NIL),
    (request(b"zadd", b"board", b"3", b"dan"), OK_NIL),
    (request(b"zadd", b"board", b"4", b"eve"), OK_NIL),
    (request(b"zscore", b"board", b"bob"), response(double(2.5))),
    (request(b"zrem", b"board", b"dan"), response(integer(1))),
    (
        request(b"zquery", b"board", b"2.5", b"", b"0", b"10"),
        response(pairs((b"bob", 2.5), (b"cyd", 2.5), (b"eve", 4.0))),
    ),
    (request(b"zquery", b"board", b"2.5", b"cyd", b"-1", b"2"), response(pairs((b"bob", 2.5), (b"cyd", 2.5)))),
]
MORE = [
    (request(b"get", b"k2"), NO_KEY),
    (request(b"del", b"k2"), response(integer(0), 2)),
    (request(b"expire", b"k2", b"10"), NO_KEY),
    (request(b"persist", b"k2"), NO_KEY),
    (request(b"zrem", b"board", b"dan"), NO_KEY),
    (request(b"zscore", b"board", b"dan"), NO_KEY),
    (request(b"zscore", b"none", b"x"), NO_KEY),
    (request(b"zquery", b"none", b"1", b"", b"0", b"10"), NO_KEY),
    (request(b"zquery", b"board", b"1", b"", b"99", b"10"), response(pairs())),
    (request(b"zquery", b"board", b"1", b"", b"0", b"0"), response(pairs())),
    (request(b"GET", b"k1"), response(text(b"v1"))),
    (request(b"dbsize"), response(integer(3))),
]


def read_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            break
        data += part
    return data


def exchange(cluster: Cluster, steps: list[tuple[bytes, bytes]], chunk: int | None = None) -> None:
    sent = b"".join(step for step, _ in steps)
    wanted = b"".join(answer for _, answer in steps)
    with socket.create_connection(("127.0.0.1", cluster.port), DEADLINE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(sent), chunk or len(sent)):
            sock.sendall(sent[start : start + (chunk or len(sent))])
        assert read_exactly(sock, len(wanted)) == wanted


@pytest.mark.parametrize("chunk", [None, 1, 7], ids=["at-once", "byte-wise", "by-seven"])
def test_the_original_clients_sequence(cluster: Cluster, chunk: int | None) -> None:
    cluster.request("flushall")
    exchange(cluster, SEQUENCE + MORE, chunk)


def test_errors_carry_their_status(cluster: Cluster) -> None:
    cluster.request("flushall")
    cases = [
        (request(b"nonsense", b"a"), 1),
        (request(b"get"), 1),
        (request(b"subscribe", b"a"), 1),
        (request(b"set", b"text", b"x"), 0),
        (request(b"zadd", b"board", b"nan", b"x"), 4),
        (request(b"zadd", b"board", b"one", b"x"), 4),
        (request(b"zadd", b"text", b"1", b"x"), 5),
        (request(b"expire", b"text", b"soon"), 4),
    ]
    with socket.create_connection(("127.0.0.1", cluster.port), DEADLINE) as sock:
        sock.sendall(b"".join(step for step, _ in cases))
        for step, status in cases:
            length, got = struct.unpack("<II", read_exactly(sock, 8))
            body = read_exactly(sock, length - 4)
            assert got == status, (step, body)
            assert body[0] == (1 if status else 0)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<II", 0x08000000 - 1, 1),
        struct.pack("<I", 64 * 1024 * 1024 + 1) + b"xxxx",
        struct.pack("<II", 4, 0),
        struct.pack("<II", 4, 1 << 31),
        struct.pack("<III", 8, 1, 100),
        struct.pack("<III", 12, 1, 2) + b"abcd",
    ],
)
def test_a_broken_frame_is_answered_and_the_connection_closed(cluster: Cluster, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", cluster.port), DEADLINE) as sock:
        sock.sendall(data)
        length, status = struct.unpack("<II", read_exactly(sock, 8))
        assert status == 3
        assert read_exactly(sock, length - 4)[0] == 1
        assert sock.recv(1) == b""


@pytest.mark.parametrize(
    "data", [b"*3000000000\r\n", b"*1\r\n$2000000000\r\n", b"*1\r\n$-10\r\n", b"*1\r\n$blabla\r\n", b"\xff\xff\xff\xff"]
)
def test_broken_text_is_answered_and_the_connection_closed(cluster: Cluster, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", cluster.port), DEADLINE) as sock:
        sock.sendall(data)
        assert sock.makefile("rb").read().startswith(b"-ERR")


def test_http_is_closed_and_nothing_executed(cluster: Cluster) -> None:
    cluster.request("flushall")
    with socket.create_connection(("127.0.0.1", cluster.port), DEADLINE) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET hacked yes\r\n")
        sock.makefile("rb").read()
    assert cluster.request("get", "hacked") is None
