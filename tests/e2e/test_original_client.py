"""The original C++ client against a router: its sequence as one pipeline, then every row of its nine commands.

All frames are built by hand; what comes back is compared byte for byte.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import psutil
import pytest
from cluster import Cluster
from frames import (
    AUTH,
    BAD_ARG,
    BAD_TYPE,
    NIL,
    NO_KEY,
    OK,
    OK_NIL,
    RES_ERR,
    RES_NX,
    UNKNOWN_CMD,
    BinaryConnection,
    double,
    error,
    integer,
    pairs,
    request,
    response,
    text,
)

CLOSE_SECONDS = 20.0
"""A refused connection closes at once; this is room for a busy machine."""

WRONG_TYPE = response(error(b"WRONGTYPE Operation against a key holding the wrong kind of value"), BAD_TYPE)
NOT_FLOAT = response(error(b"ERR value is not a valid float"), BAD_ARG)
NOT_INTEGER = response(error(b"ERR value is not an integer or out of range"), BAD_ARG)

Step = tuple[bytes, bytes]


def step(line: bytes, answer: bytes) -> Step:
    """A request, written as words, and the exact response."""
    return request(*line.split(b" ")), answer


# set ×3, get, expire 5000, persist, del, zadd ×5, zscore, zrem, zquery ×2: what the original client sends.
ORIGINAL = [
    step(b"set name kache", OK_NIL),
    step(b"set city vienna", OK_NIL),
    step(b"set lang c++", OK_NIL),
    step(b"get name", response(text(b"kache"))),
    step(b"expire city 5000", OK_NIL),
    step(b"persist city", OK_NIL),
    step(b"del lang", response(integer(1))),
    step(b"zadd board 10.5 ada", OK_NIL),
    step(b"zadd board 20 bob", OK_NIL),
    step(b"zadd board 20 cyd", OK_NIL),
    step(b"zadd board 30 dan", OK_NIL),
    step(b"zadd board 40 eve", OK_NIL),
    step(b"zscore board ada", response(double(10.5))),
    step(b"zrem board dan", response(integer(1))),
    (
        request(b"zquery", b"board", b"0", b"", b"0", b"10"),
        response(pairs((b"ada", 10.5), (b"bob", 20), (b"cyd", 20), (b"eve", 40))),
    ),
    step(b"zquery board 20 bob 1 2", response(pairs((b"cyd", 20), (b"eve", 40)))),
]

ROWS: dict[str, list[Step]] = {
    "set": [
        step(b"set k one", OK_NIL),
        step(b"SET k two", OK_NIL),
        step(b"get k", response(text(b"two"))),
        (request(b"set", b"\x00\xff bin", b""), OK_NIL),
        (request(b"get", b"\x00\xff bin"), response(text(b""))),
        step(b"expire k 60000", OK_NIL),
        step(b"set k three", OK_NIL),
        step(b"pttl k", response(integer(-1))),
        step(b"zadd z 1 a", OK_NIL),
        step(b"set z text", OK_NIL),
        step(b"get z", response(text(b"text"))),
        step(b"set z other nx", NO_KEY),
        step(b"set z other get", response(text(b"text"))),
        step(b"set z other wrong", response(error(b"ERR syntax error"), BAD_ARG)),
    ],
    "get": [
        step(b"get k", NO_KEY),
        step(b"set k v", OK_NIL),
        step(b"get k", response(text(b"v"))),
        step(b"zadd z 1 a", OK_NIL),
        step(b"get z", WRONG_TYPE),
    ],
    "del": [
        step(b"del k", response(integer(0), RES_NX)),
        step(b"del k l m", response(integer(0), RES_NX)),
        *[step(b"set %c 1" % letter, OK_NIL) for letter in b"abcdefgh"],
        step(b"del a", response(integer(1))),
        step(b"del a b c d none e b", response(integer(4))),
        step(b"zadd z 1 a", OK_NIL),
        step(b"del z f g h", response(integer(4))),
    ],
    "expire": [
        step(b"expire k 1000", NO_KEY),
        step(b"set k v", OK_NIL),
        step(b"expire k 100000", OK_NIL),
        step(b"ttl k", response(integer(100))),
        step(b"expire k soon", NOT_INTEGER),
        step(b"expire k 1.5", NOT_INTEGER),
        step(b"expire k 9223372036854775807", response(error(b"ERR invalid expire time in 'expire' command"), BAD_ARG)),
        step(b"expire k 0", OK_NIL),
        step(b"get k", NO_KEY),
        step(b"set k v", OK_NIL),
        step(b"expire k -5", OK_NIL),
        step(b"expire k -5", NO_KEY),
        step(b"set k v", OK_NIL),
        step(b"expire k 5000 xx", response(integer(0))),
        step(b"expire k 5000 nx", response(integer(1))),
    ],
    "persist": [
        step(b"persist k", NO_KEY),
        step(b"set k v", OK_NIL),
        step(b"persist k", OK_NIL),
        step(b"expire k 5000", OK_NIL),
        step(b"persist k", OK_NIL),
        step(b"ttl k", response(integer(-1))),
    ],
    "zadd": [
        step(b"zadd z 1 a", OK_NIL),
        step(b"zadd z 1 a", OK_NIL),
        step(b"zadd z -inf b", OK_NIL),
        step(b"zscore z b", response(double(float("-inf")))),
        step(b"zadd z one a", NOT_FLOAT),
        step(b"zadd z nan a", NOT_FLOAT),
        step(b"zscore z a", response(double(1))),
        step(b"set k v", OK_NIL),
        step(b"zadd k 1 a", WRONG_TYPE),
        step(b"zadd z 1 a 2 c 3 d", response(integer(2))),
        step(b"zadd z ch 7 a", response(integer(1))),
        step(b"zadd z incr 0.5 a", response(double(7.5))),
    ],
    "zrem": [
        step(b"zrem z a", NO_KEY),
        step(b"zadd z 1 a", OK_NIL),
        step(b"zrem z b", NO_KEY),
        step(b"zrem z a", response(integer(1))),
        step(b"exists z", response(integer(0))),
        step(b"set k v", OK_NIL),
        step(b"zrem k a", WRONG_TYPE),
    ],
    "zscore": [
        step(b"zscore z a", NO_KEY),
        step(b"zadd z 0.1 a", OK_NIL),
        step(b"zscore z a", response(double(0.1))),
        step(b"zscore z b", NO_KEY),
        step(b"set k v", OK_NIL),
        step(b"zscore k a", WRONG_TYPE),
    ],
    "zquery": [
        step(b"zquery z 1 a 0 10", NO_KEY),
        step(b"set k v", OK_NIL),
        step(b"zquery k 1 a 0 10", WRONG_TYPE),
        *[step(b"zadd z %d %s" % (score, name), OK_NIL) for score, name in ((1, b"a"), (2, b"b"), (2, b"\xff"), (3, b"c"))],
        step(b"zquery z 2 b 0 10", response(pairs((b"b", 2), (b"\xff", 2), (b"c", 3)))),
        step(b"zquery z 2 b 0 3", response(pairs((b"b", 2), (b"\xff", 2), (b"c", 3)))),
        step(b"zquery z 2 bb 0 1", response(pairs((b"\xff", 2)))),
        step(b"zquery z 2 b -1 2", response(pairs((b"a", 1), (b"b", 2)))),
        step(b"zquery z 2 b -2 2", response(pairs())),
        step(b"zquery z 2 b 2 10", response(pairs((b"c", 3)))),
        step(b"zquery z 2 b 3 10", response(pairs())),
        step(b"zquery z 9 z -1 10", response(pairs((b"c", 3)))),
        step(b"zquery z 1 a 0 0", response(pairs())),
        step(b"zquery z 1 a 0 -1", response(pairs())),
        step(b"zquery z -inf a 0 1", response(pairs((b"a", 1)))),
        step(b"zquery z one a 0 10", NOT_FLOAT),
        step(b"zquery z nan a 0 10", NOT_FLOAT),
        step(b"zquery z 1 a none 10", NOT_INTEGER),
        step(b"zquery z 1 a 0 none", NOT_INTEGER),
    ],
}  # fmt: skip


@pytest.fixture
def connection(cluster: Cluster) -> Iterator[BinaryConnection]:
    cluster.request("flushall")
    with BinaryConnection(cluster.port) as opened:
        yield opened


def exchange(connection: BinaryConnection, steps: list[Step]) -> None:
    """Send all requests at once; the responses must be these bytes and no more."""
    connection.send(b"".join(sent for sent, _ in steps) + request(b"echo", b"end"))
    for sent, wanted in steps:
        assert connection.read(len(wanted)) == wanted, sent
    assert connection.read(len(response(text(b"end")))) == response(text(b"end"))


def test_the_sequence_of_the_original_client(connection: BinaryConnection) -> None:
    connection.send(b"".join(sent for sent, _ in ORIGINAL))
    wanted = b"".join(answer for _, answer in ORIGINAL)
    assert connection.read(len(wanted)) == wanted


@pytest.mark.parametrize("command", ROWS)
def test_a_row_of_the_protocol_in_one_pipeline(connection: BinaryConnection, command: str) -> None:
    exchange(connection, ROWS[command])


@pytest.mark.parametrize("command", ROWS)
def test_a_row_of_the_protocol_one_by_one(connection: BinaryConnection, command: str) -> None:
    for sent, wanted in ROWS[command]:
        connection.send(sent)
        assert connection.read(len(wanted)) == wanted, sent


def test_expire_counts_milliseconds(connection: BinaryConnection) -> None:
    exchange(connection, [step(b"set k v", OK_NIL), step(b"expire k 40", OK_NIL)])
    deadline = time.monotonic() + 5
    while connection.call(b"get", b"k").status != RES_NX:
        assert time.monotonic() < deadline


def test_names_are_case_insensitive_and_arguments_counted(connection: BinaryConnection) -> None:
    exchange(
        connection,
        [
            step(b"SeT k v", OK_NIL),
            step(b"GET k", response(text(b"v"))),
            step(b"get", response(error(b"ERR wrong number of arguments for 'get' command"), UNKNOWN_CMD)),
            step(b"get a b", response(error(b"ERR wrong number of arguments for 'get' command"), UNKNOWN_CMD)),
            step(b"zquery z 1 a 0", response(error(b"ERR wrong number of arguments for 'zquery' command"), UNKNOWN_CMD)),
            step(
                b"nonsense a b",
                response(error(b"ERR unknown command 'nonsense', with args beginning with: 'a' 'b' "), UNKNOWN_CMD),
            ),
            (request(b""), response(error(b"ERR unknown command '', with args beginning with: "), UNKNOWN_CMD)),
        ],
    )  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"hello 3",
        b"reset",
        b"client reply off",
        b"monitor",
        b"subscribe a",
        b"psubscribe a",
        b"ssubscribe a",
        b"unsubscribe",
        b"punsubscribe",
        b"sunsubscribe",
    ],
)
def test_commands_about_resp_do_not_exist(connection: BinaryConnection, line: bytes) -> None:
    frame = connection.call(*line.split(b" "))
    assert frame.status == UNKNOWN_CMD and frame.message.startswith("ERR unknown "), frame
    assert connection.call(b"echo", b"on") == (OK, text(b"on"))


def test_other_commands_exist_under_their_resp_names(connection: BinaryConnection) -> None:
    exchange(
        connection,
        [
            step(b"ping", response(text(b"PONG"))),
            step(b"mset a 1 b 2 c 3", OK_NIL),
            step(b"mget a none c", response(b"\x05\x03\x00\x00\x00" + text(b"1") + NIL + text(b"3"))),
            step(b"incr a", response(integer(2))),
            step(b"incrbyfloat a 0.5", response(text(b"2.5"))),
            step(b"type a", response(text(b"string"))),
            step(b"rename a d", OK_NIL),
            step(b"hset h f v", response(integer(1))),
            step(b"hgetall h", response(b"\x05\x02\x00\x00\x00" + text(b"f") + text(b"v"))),
            step(b"lpop none", NO_KEY),
            step(b"smembers none", response(b"\x05\x00\x00\x00\x00")),
            step(b"rename none x", response(error(b"ERR no such key"), RES_ERR)),
        ],
    )


def test_select_works(connection: BinaryConnection, cluster: Cluster) -> None:
    exchange(
        connection,
        [
            step(b"set k zero", OK_NIL),
            step(b"select 3", OK_NIL),
            step(b"get k", NO_KEY),
            step(b"set k three", OK_NIL),
            step(b"select 0", OK_NIL),
            step(b"get k", response(text(b"zero"))),
            step(b"select 16", response(error(b"ERR DB index is out of range"), BAD_ARG)),
            step(b"select x", NOT_INTEGER),
            step(b"get k", response(text(b"zero"))),
        ],
    )
    with cluster.connect() as other:
        assert other.request("select", 3) == "OK" and other.request("get", "k") == b"three"


def test_keys_on_different_shards(cluster: Cluster, connection: BinaryConnection) -> None:
    """MSETNX is all or nothing, wherever the keys are."""
    keys = [keys[0].encode() for keys in cluster.keys_by_shard()]
    words = [word for key in keys for word in (key, b"v")]
    assert connection.call(b"msetnx", *words) == (OK, integer(1))
    assert connection.call(b"msetnx", *words, b"another", b"v") == (OK, integer(0))
    assert connection.call(b"exists", b"another") == (OK, integer(0))


def test_quit_answers_and_closes(connection: BinaryConnection) -> None:
    connection.send(request(b"set", b"k", b"v") + request(b"quit") + request(b"set", b"k", b"late"))
    assert connection.read(1000) == OK_NIL + OK_NIL
    with BinaryConnection(connection.socket.getpeername()[1]) as other:
        assert other.call(b"get", b"k") == (OK, text(b"v"))


FRAME_LIMIT = 64 * 1024 * 1024


@pytest.mark.parametrize("before", [0, 1, 20])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(struct.pack("<I", FRAME_LIMIT + 1), id="length-over-the-limit"),
        pytest.param(struct.pack("<II", 0, 1), id="length-0"),
        pytest.param(struct.pack("<I", 3) + b"abc", id="length-without-nstr"),
        pytest.param(struct.pack("<II", 4, 0), id="no-string"),
        pytest.param(struct.pack("<II", 4, 1), id="string-missing"),
        pytest.param(struct.pack("<II", 8, 1 << 31) + b"abcd", id="nstr-2^31"),
        pytest.param(struct.pack("<II", FRAME_LIMIT, FRAME_LIMIT // 4), id="nstr-that-cannot-fit"),
        pytest.param(struct.pack("<III", 12, 1, 5) + b"abcd", id="string-past-the-end"),
        pytest.param(struct.pack("<III", 12, 1, 0xFFFFFFFF) + b"abcd", id="string-ffffffff"),
        pytest.param(struct.pack("<III", 12, 1, 3) + b"abcd", id="bytes-left-over"),
    ],
)
def test_a_broken_frame_is_answered_and_ends_the_connection(
    connection: BinaryConnection, data: bytes, before: int
) -> None:
    """Whatever came before it is answered first; nothing behind it is executed."""
    break_with(connection, data, before)


@pytest.mark.parametrize("length", [0x09000000, 0xFFFFFFFF])
@pytest.mark.parametrize("before", [1, 20])
def test_so_does_a_length_that_no_first_request_may_have(
    connection: BinaryConnection, length: int, before: int
) -> None:
    """As the first bytes of a connection these would not be a binary request."""
    break_with(connection, struct.pack("<I", length), before)


def break_with(connection: BinaryConnection, data: bytes, before: int) -> None:
    """Send broken bytes behind `before` good requests, and a good one behind them."""
    connection.send(request(b"set", b"k", b"v") * before + data + request(b"set", b"k", b"late"))
    for _ in range(before):
        assert connection.frame() == (OK, NIL)
    started = time.monotonic()
    frame = connection.frame()
    assert frame.status == RES_ERR and frame.message.startswith("ERR "), frame
    assert connection.read(1) == b""
    assert time.monotonic() - started < CLOSE_SECONDS
    with BinaryConnection(connection.socket.getpeername()[1]) as other:
        assert other.call(b"get", b"k") == ((OK, text(b"v")) if before else (RES_NX, NIL))


def test_memory_is_not_reserved_on_the_word_of_a_length(cluster: Cluster, connection: BinaryConnection) -> None:
    """A hundred connections that announce 64 MiB each and send nothing must not cost the router that memory."""
    router = cluster.pid_of("router")
    before = resident_bytes(router)
    others = [BinaryConnection(cluster.port) for _ in range(100)]
    try:
        for other in others:
            other.send(struct.pack("<III", FRAME_LIMIT, 2, 10) + b"x" * 10 + struct.pack("<I", FRAME_LIMIT - 30))
        assert connection.call(b"echo", b"here") == (OK, text(b"here"))
        assert resident_bytes(router) - before < FRAME_LIMIT
    finally:
        for other in others:
            other.socket.close()


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(psutil.Process(pid).memory_info().rss)


def test_authentication() -> None:
    no_auth = response(error(b"NOAUTH Authentication required."), AUTH)
    wrong = response(error(b"WRONGPASS invalid username-password pair or user is disabled."), AUTH)
    with Cluster(2, requirepass="secret") as cluster:
        with BinaryConnection(cluster.port) as connection:
            exchange(
                connection,
                [
                    step(b"get k", no_auth),
                    step(b"set k v", no_auth),
                    step(b"auth wrong", wrong),
                    step(b"auth nobody secret", wrong),
                    step(b"auth default secret", OK_NIL),
                    step(b"set k v", OK_NIL),
                    step(b"get k", response(text(b"v"))),
                ],
            )
        with BinaryConnection(cluster.port) as connection:
            exchange(connection, [step(b"auth secret", OK_NIL), step(b"get k", response(text(b"v")))])
