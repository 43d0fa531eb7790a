"""What a load is and what came of it: the structs of `kache.load.generator`, and the requests each command is made of.

Pure. A request is described once, as arguments with places for digits, and encoded for either protocol as a template
that the compiled generator (`kache.load.driver`) only has to fill in. Adding a command is one entry in `REQUESTS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

import msgspec

from kache.errors import KacheError

__all__ = [
    "REQUESTS",
    "CommandResult",
    "Latency",
    "LoadError",
    "LoadResult",
    "LoadSpec",
    "UnreachableError",
    "check",
    "command_shares",
    "parse_distribution",
    "preload_command",
    "templates",
]

DIGITS: Final = 12  # of a key's number, so that a key has 16 bytes
VALUE_LIMIT: Final = 512 * 1024 * 1024
_EXPECT_OK, _EXPECT_INT, _EXPECT_VALUE, _EXPECT_VALUES, _EXPECT_ARRAY = range(5)


class LoadError(KacheError):
    """The load could not be run as asked: a wrong setting, or no server to run it against."""


class UnreachableError(LoadError):
    """No server accepts the connections."""


class LoadSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run of the load generator.

    ``commands``: names with optional weights (``"get"``, ``"get:9,set:1"``), ``"mix"`` (GET and SET by ``reads``) or
    ``"original"`` (the original Kache's six commands in equal parts). ``distribution``: ``"uniform"`` or ``"zipf:0.9"``.
    ``pipeline``: requests in flight on a connection. ``value_size`` in bytes. ``members``: of a collection in ZADD,
    ZRANGE and HSET. ``batch``: keys of MGET and MSET. ``rate``: requests per second in all, sent on a fixed schedule
    with latencies counted from it; None sends as fast as replies come. ``seconds`` is ignored with ``requests``.
    ``preload``: store every key first; None decides by whether the commands read. ``processes`` of the generator.
    """

    host: str = "127.0.0.1"
    port: int = 7379
    protocol: Literal["resp", "binary"] = "resp"
    password: str | None = None
    username: str | None = None
    db: int = 0
    commands: str = "mix"
    reads: float = 0.9
    connections: int = 50
    pipeline: int = 1
    value_size: int = 32
    keys: int = 100_000
    members: int = 100
    batch: int = 10
    distribution: str = "uniform"
    seed: int = 1
    warmup: float = 1.0
    seconds: float = 5.0
    requests: int | None = None
    rate: float | None = None
    preload: bool | None = None
    processes: int = 1
    timeout: float = 10.0
    portable: bool = False


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds from sending (with a rate: from when it was due) to the reply, from an HDR histogram."""

    count: int = 0
    mean: float = 0.0
    min: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    max: float = 0.0


class CommandResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one command of the load came to. `unexpected`: a reply of the wrong type; `mismatches`: a wrong value."""

    requests: int
    errors: int
    unexpected: int
    hits: int
    misses: int
    mismatches: int
    latency: Latency


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a run measured.

    ``requests`` were answered in ``seconds`` (the warm-up not counted): ``throughput`` per second. ``lost``: in flight
    when their connection broke. ``unanswered``: still in flight ``timeout`` after the end. ``generator_cpu``: share of a
    core that the busiest generator process used; above 0.9 it is ``generator_limited``. ``latest``: milliseconds by
    which the generator itself sent a request later than its schedule. ``notes``: what a reader of the figures has to
    know.
    """

    spec: LoadSpec
    seconds: float
    requests: int
    throughput: float
    errors: int
    unexpected: int
    hits: int
    misses: int
    mismatches: int
    lost: int
    disconnects: int
    unanswered: int
    error_texts: list[str]
    bytes_in: int
    bytes_out: int
    latency: Latency
    commands: dict[str, CommandResult]
    generator_cpu: float
    generator_cpu_seconds: float
    generator_limited: bool
    latest: float
    interrupted: bool = False
    notes: list[str]


# Requests --------------------------------------------------------------------------------------------------------


class Digits(NamedTuple):
    """A place in a request where decimal digits go."""

    source: int  # as in kache.load.driver: 0 key, 1 collection, 2 member, 3 random
    width: int
    key: int = 0


Piece = bytes | Digits
Word = list[Piece]


class Request(NamedTuple):
    """A command as arguments, the number of keys it draws, and the reply it expects in each protocol."""

    words: Callable[[LoadSpec], list[Word]]
    expects: int
    expects_binary: int | None = None
    reads: bool = False
    batch: bool = False


def _key(kind: bytes, key: int = 0) -> Word:
    return [b"kb:" + kind, Digits(0, DIGITS, key)]


def _group(kind: bytes) -> Word:
    return [b"kb:" + kind, Digits(1, DIGITS)]


_MEMBER: Word = [b"member:", Digits(2, 8)]
_SCORE: Word = [Digits(3, 6)]


def _value(spec: LoadSpec, key: int = 0) -> Word:
    """The key's digits and a filler, so that a reply can be checked against its request."""
    width = min(spec.value_size, DIGITS)
    return [Digits(0, width, key), b"x" * (spec.value_size - width)] if width else [b""]


def _ttl(spec: LoadSpec) -> Word:
    return [b"60000" if spec.protocol == "binary" else b"60"]


REQUESTS: Final[dict[str, Request]] = {
    "set": Request(lambda spec: [[b"SET"], _key(b"s"), _value(spec)], _EXPECT_OK),
    "get": Request(lambda spec: [[b"GET"], _key(b"s")], _EXPECT_VALUE, reads=True),
    "incr": Request(lambda spec: [[b"INCR"], _key(b"c")], _EXPECT_INT),
    "mget": Request(
        lambda spec: [[b"MGET"], *(_key(b"s", i) for i in range(spec.batch))], _EXPECT_VALUES, reads=True, batch=True
    ),
    "mset": Request(
        lambda spec: [[b"MSET"], *(word for i in range(spec.batch) for word in (_key(b"s", i), _value(spec, i)))],
        _EXPECT_OK,
        batch=True,
    ),
    "del": Request(lambda spec: [[b"DEL"], _key(b"s")], _EXPECT_INT),
    "expire": Request(lambda spec: [[b"EXPIRE"], _key(b"s"), _ttl(spec)], _EXPECT_INT, _EXPECT_OK),
    "zadd": Request(lambda spec: [[b"ZADD"], _group(b"z"), _SCORE, _MEMBER], _EXPECT_INT, _EXPECT_OK),
    "zrange": Request(lambda spec: [[b"ZRANGE"], _group(b"z"), [b"0"], [b"9"]], _EXPECT_ARRAY, reads=True),
    "zquery": Request(
        lambda spec: [[b"ZQUERY"], _group(b"z"), _SCORE, [b""], [b"0"], [b"10"]], _EXPECT_ARRAY, reads=True
    ),
    "hset": Request(lambda spec: [[b"HSET"], _group(b"h"), _MEMBER, _value(spec)], _EXPECT_INT),
    "lpush": Request(lambda spec: [[b"LPUSH"], _group(b"l"), _value(spec)], _EXPECT_INT),
}


def encode(words: list[Word], binary: bool) -> tuple[bytes, list[tuple[int, int, int, int]]]:
    """The template of a request and its patches (offset, source, width, key); all widths are fixed, so is its length."""
    out = bytearray()
    patches = []
    if binary:
        out += len(words).to_bytes(4, "little")
    else:
        out += b"*%d\r\n" % len(words)
    for word in words:
        size = sum(len(piece) if isinstance(piece, bytes) else piece.width for piece in word)
        out += size.to_bytes(4, "little") if binary else b"$%d\r\n" % size
        for piece in word:
            if isinstance(piece, bytes):
                out += piece
            else:
                # The frame's own length comes in front of it all.
                patches.append((len(out) + 4 * binary, piece.source, piece.width, piece.key))
                out += b"0" * piece.width
        if not binary:
            out += b"\r\n"
    return (len(out).to_bytes(4, "little") + out if binary else bytes(out)), patches


def templates(spec: LoadSpec, shares: dict[str, float]) -> list[tuple[bytes, list[Any], int, int, float]]:
    """The operations as `kache.load.driver.Generator` takes them, in the order of `shares`."""
    operations = []
    total, until = sum(shares.values()), 0.0
    binary = spec.protocol == "binary"
    for name, share in shares.items():
        request = REQUESTS[name]
        until += share / total
        template, patches = encode(request.words(spec), binary)
        expects = request.expects_binary if binary and request.expects_binary is not None else request.expects
        operations.append((template, patches, spec.batch if request.batch else 1, expects, until))
    return operations


def command_shares(spec: LoadSpec) -> dict[str, float]:
    """The commands of a load and how often each is sent. Raises `LoadError` naming what is wrong."""
    if spec.commands == "mix":
        shares = {"get": spec.reads, "set": 1.0 - spec.reads}
    elif spec.commands == "original":
        shares = dict.fromkeys(("set", "get", "del", "expire", "zadd", "zquery"), 1.0)
    else:
        shares = {}
        for part in spec.commands.lower().split(","):
            name, colon, weight = part.strip().partition(":")
            if name not in REQUESTS:
                known = ", ".join([*REQUESTS, "mix", "original"])
                raise LoadError(f"no load for the command {name!r}; there are {known}")
            try:
                shares[name] = float(weight) if colon else 1.0
            except ValueError:
                raise LoadError(f"the weight of {name!r} is not a number: {weight!r}") from None
    shares = {name: share for name, share in shares.items() if share > 0}
    if not shares:
        raise LoadError("all weights are 0: nothing would be sent")
    return shares


def parse_distribution(text: str) -> float:
    """Zipf's exponent, or 0 for uniform."""
    if text == "uniform":
        return 0.0
    name, colon, exponent = text.partition(":")
    try:
        value = float(exponent) if colon else 0.99
    except ValueError:
        value = -1.0
    if name != "zipf" or not 0 < value <= 10:
        raise LoadError(f"a distribution is uniform or zipf:EXPONENT with an exponent up to 10, not {text!r}")
    return value


def preload_command(spec: LoadSpec, shares: dict[str, float]) -> dict[str, int]:
    """What to send before the load so that its reads find something: command -> how many requests."""
    reading = {name for name in shares if REQUESTS[name].reads}
    wanted = bool(reading) if spec.preload is None else spec.preload
    commands = {}
    if wanted and (reading & {"get", "mget"} or not reading):
        commands["set"] = spec.keys
    if wanted and reading & {"zrange", "zquery"}:
        commands["zadd"] = spec.keys
    return commands


def check(spec: LoadSpec) -> None:
    """Raises `LoadError` for a spec that cannot be run, in one sentence that names the setting."""
    positive = ("connections", "pipeline", "keys", "members", "batch", "processes")
    for name in positive:
        if getattr(spec, name) < 1:
            raise LoadError(f"{name} must be at least 1, not {getattr(spec, name)}")
    if spec.keys >= 2**32:
        raise LoadError("keys must be below 4,294,967,296")
    if not 0 <= spec.value_size <= VALUE_LIMIT:
        raise LoadError(f"value_size must be from 0 to {VALUE_LIMIT}, not {spec.value_size}")
    if not 0 <= spec.reads <= 1:
        raise LoadError(f"reads must be from 0 to 1, not {spec.reads}")
    if spec.rate is not None and spec.rate <= 0:
        raise LoadError(f"rate must be above 0, not {spec.rate}")
    if spec.requests is not None and spec.requests < 1:
        raise LoadError(f"requests must be at least 1, not {spec.requests}")
    if spec.requests is None and spec.seconds <= 0:
        raise LoadError(f"seconds must be above 0, not {spec.seconds}")
    if not 0 < spec.timeout <= 1_000_000:
        raise LoadError(f"timeout must be above 0 and up to 1000000 seconds, not {spec.timeout}")
    if spec.processes > spec.connections:
        raise LoadError(f"{spec.processes} processes cannot share {spec.connections} connections")
    parse_distribution(spec.distribution)
    command_shares(spec)
