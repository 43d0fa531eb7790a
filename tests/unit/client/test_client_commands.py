"""The typed methods: what each sends, and that the asyncio list is the same list."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kache.client.async_commands import AsyncCommands
from kache.client.codec import Argument
from kache.client.commands import Commands
from kache.client.stubs import recorded_stub

ROOT = Path(__file__).parent.parent.parent.parent


class Sent(Commands[bytes]):
    """Keeps the arguments and answers with a prepared reply."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply
        self.arguments: list[Argument] = []

    def _run(self, arguments: Sequence[Argument], convert: Callable[[Any], Any]) -> Any:
        self.arguments = list(arguments)
        return convert(self.reply)

    def _wait(self, arguments: Sequence[Argument], convert: Callable[[Any], Any], seconds: float) -> Any:
        assert seconds in arguments
        return self._run(arguments, convert)


class AsyncSent(AsyncCommands[bytes]):
    """The same for the asyncio list; its methods end before they would wait."""

    async def _run(self, arguments: Sequence[Argument], convert: Callable[[Any], Any]) -> Any:
        raise AssertionError("something was sent")

    def now(self) -> Any:
        """Its methods, called and awaited at once."""
        outer = self

        class Now:
            def __getattr__(self, name: str) -> Any:
                return lambda *given, **named: asyncio.run(getattr(outer, name)(*given, **named))

        return Now()


USE = """\
from datetime import timedelta
from kache import Client, ConnectError, KacheError, RequestTooLargeError

def use(cache: Client[bytes]) -> None:
    with cache.pipeline() as pipeline:
        reveal_type(pipeline.set("a", "b", ex=timedelta(seconds=5)).hset("h", "f", "v").zadd("z", {"m": 1.0}))
        pipeline.execute()
    reveal_type(cache.zadd("z", {"m": 1.0}))
    reveal_type(cache.zadd("z", 1.0, "m"))
    reveal_type(Client.from_url("kache://localhost", decode=True))
    cache.mget(["a", "b"])
    pipeline.nosuch("a")
    pipeline.set("a")
"""


CASES: list[tuple[Callable[[Sent], Any], list[Any], Any, Any]] = [
    (lambda c: c.ping(), ["ping"], b"PONG", True),
    (lambda c: c.set("k", "v"), ["set", "k", "v"], True, True),
    (lambda c: c.set("k", "v", ex=1.5, nx=True), ["set", "k", "v", "px", 1500, "nx"], None, False),
    (lambda c: c.set("k", "v", px=7, xx=True), ["set", "k", "v", "px", 7, "xx"], True, True),
    (lambda c: c.set("k", "v", keep_ttl=True), ["set", "k", "v", "keepttl"], True, True),
    (lambda c: c.get("k"), ["get", "k"], None, None),
    (lambda c: c.delete("a", "b"), ["del", "a", "b"], 2, 2),
    (lambda c: c.expire("k", 5), ["expire", "k", 5000], True, True),
    (lambda c: c.pexpire("k", 5), ["expire", "k", 5], None, False),
    (lambda c: c.persist("k"), ["persist", "k"], None, False),
    (lambda c: c.zadd("z", 1, "m"), ["zadd", "z", 1.0, "m"], True, True),
    (lambda c: c.zadd_many("z", {"m": 1}), ["zadd", "z", 1.0, "m", 1.0, "m"], 1, 1),
    (lambda c: c.zadd_many("z", {"m": 1, "n": 2}, gt=True), ["zadd", "z", "gt", 1.0, "m", 2.0, "n"], 0, 0),
    (lambda c: c.zrem("z", "m"), ["zrem", "z", "m"], None, 0),
    (lambda c: c.zscore("z", "m"), ["zscore", "z", "m"], 2.5, 2.5),
    (lambda c: c.zquery("z", 1, "m", -1, 2), ["zquery", "z", 1.0, "m", -1, 2], [b"m", 1.0], [(b"m", 1.0)]),
    (lambda c: c.zquery("z"), ["zquery", "z", float("-inf"), b"", 0, 10], None, []),
    (lambda c: c.zrange("z", 0, 3, reverse=True), ["zrange", "z", 0, 3, "rev"], [b"m"], [b"m"]),
    (lambda c: c.mset({"a": 1, "b": 2}), ["mset", "a", 1, "b", 2], True, True),
    (lambda c: c.mget("a", "b"), ["mget", "a", "b"], [b"1", None], [b"1", None]),
    (lambda c: c.setex("k", 2, "v"), ["psetex", "k", 2000, "v"], True, True),
    (lambda c: c.scan(0, "a*", 10), ["scan", 0, "match", "a*", "count", 10], [b"0", [b"a"]], (0, [b"a"])),
    (lambda c: c.hgetall("h"), ["hgetall", "h"], [b"f", b"v"], {b"f": b"v"}),
    (lambda c: c.type("k"), ["type", "k"], b"zset", "zset"),
    (lambda c: c.smembers("s"), ["smembers", "s"], [b"a"], {b"a"}),
    (lambda c: c.set("k", "v", ex=timedelta(minutes=1)), ["set", "k", "v", "px", 60_000], True, True),
    (lambda c: c.set("k", "v", px=timedelta(seconds=1.5)), ["set", "k", "v", "px", 1500], True, True),
    (lambda c: c.setex("k", timedelta(seconds=2), "v"), ["psetex", "k", 2000, "v"], True, True),
    (lambda c: c.expire("k", timedelta(hours=1)), ["expire", "k", 3_600_000], True, True),
    (lambda c: c.pexpire("k", timedelta(seconds=1)), ["expire", "k", 1000], True, True),
    (lambda c: c.mget(["a", "b"]), ["mget", "a", "b"], [b"1", None], [b"1", None]),
    (lambda c: c.mget(key for key in "ab"), ["mget", "a", "b"], [b"1", None], [b"1", None]),
    (lambda c: c.mget(b"ab"), ["mget", b"ab"], [b"1"], [b"1"]),
    (lambda c: c.hmget("h", ["f", "g"]), ["hmget", "h", "f", "g"], [b"1", None], [b"1", None]),
    (lambda c: c.hset("h", "f", "v"), ["hset", "h", "f", "v"], 1, 1),
    (lambda c: c.hset("h", {"f": "v"}), ["hset", "h", "f", "v"], 1, 1),
    (lambda c: c.hset("h", mapping={"f": "v"}), ["hset", "h", "f", "v"], 1, 1),
    (lambda c: c.hset("h", "a", 1, mapping={"f": "v"}), ["hset", "h", "a", 1, "f", "v"], 2, 2),
    (lambda c: c.zadd("z", {"m": 1, "n": 2}), ["zadd", "z", 1.0, "m", 2.0, "n"], 2, 2),
    (lambda c: c.zadd("z", {"m": 1}), ["zadd", "z", 1.0, "m", 1.0, "m"], 1, 1),
    (lambda c: c.incr("k"), ["incr", "k"], 1, 1),
    (lambda c: c.incr("k", 2), ["incrby", "k", 2], 3, 3),
    (lambda c: c.decr("k", 2), ["decrby", "k", 2], 1, 1),
    (lambda c: c.blpop("a", "b"), ["blpop", "a", "b", 0], [b"a", b"x"], (b"a", b"x")),
    (lambda c: c.brpop("a", timeout=1.5), ["brpop", "a", 1.5], None, None),
    (lambda c: c.blmove("a", "b", timeout=2), ["blmove", "a", "b", "left", "right", 2], b"x", b"x"),
    (lambda c: c.blmove("a", "b", "right", "left"), ["blmove", "a", "b", "right", "left", 0], None, None),
    (
        lambda c: c.blmpop("a", "b", side="right", count=3, timeout=1),
        ["blmpop", 1, 2, "a", "b", "right", "count", 3],
        [b"a", [b"x", b"y"]],
        (b"a", [b"x", b"y"]),
    ),
    (lambda c: c.bzpopmin("a", timeout=1), ["bzpopmin", "a", 1], [b"a", b"m", 1.5], (b"a", b"m", 1.5)),
    (lambda c: c.bzpopmax("a", "b"), ["bzpopmax", "a", "b", 0], None, None),
    (
        lambda c: c.bzmpop("a", side="max", timeout=1),
        ["bzmpop", 1, 1, "a", "max", "count", 1],
        [b"a", [[b"m", 1.5]]],
        (b"a", [(b"m", 1.5)]),
    ),
    (lambda c: c.publish("c", b"m"), ["publish", "c", b"m"], 2, 2),
    (lambda c: c.spublish("c", 1), ["spublish", "c", 1], 0, 0),
    (lambda c: c.incrbyfloat("k", 1), ["incrbyfloat", "k", 1.0], b"3.5", 3.5),
]


@pytest.mark.parametrize(("call", "arguments", "reply", "result"), CASES)
def test_arguments_and_result(call: Callable[[Sent], Any], arguments: list[Any], reply: Any, result: Any) -> None:
    client = Sent(reply)
    assert call(client) == result
    assert client.arguments == arguments


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda c: c.delete(), "delete needs at least one key"),
        (lambda c: c.unlink(), "unlink needs at least one key"),
        (lambda c: c.exists(), "exists needs at least one key"),
        (lambda c: c.touch(), "touch needs at least one key"),
        (lambda c: c.mget(), "mget needs at least one key"),
        (lambda c: c.mget([]), "mget needs at least one key"),
        (lambda c: c.mset({}), "mset needs at least one key"),
        (lambda c: c.hset("k", {}), "hset needs at least one field"),
        (lambda c: c.hset("k", mapping={}), "hset needs at least one field"),
        (lambda c: c.hset("k"), "hset needs at least one field"),
        (lambda c: c.hmget("k"), "hmget needs at least one field"),
        (lambda c: c.hdel("k"), "hdel needs at least one field"),
        (lambda c: c.lpush("k"), "lpush needs at least one value"),
        (lambda c: c.rpush("k"), "rpush needs at least one value"),
        (lambda c: c.sadd("k"), "sadd needs at least one member"),
        (lambda c: c.srem("k"), "srem needs at least one member"),
        (lambda c: c.zrem("k"), "zrem needs at least one member"),
        (lambda c: c.zadd("k", {}), "zadd needs at least one member"),
        (lambda c: c.zadd_many("k", {}), "zadd needs at least one member"),
        (lambda c: c.set("k", "v", ex=1, px=1), "a TTL is given as ex or as px, not as both"),
    ],
)
def test_what_could_only_be_refused_is_not_sent(call: Callable[[Any], Any], said: str) -> None:
    client = Sent(None)
    with pytest.raises(ValueError, match=said):
        call(client)
    with pytest.raises(ValueError, match=said):
        call(AsyncSent().now())
    assert client.arguments == []


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.hset("k", "f"),
        lambda c: c.hset("k", {"f": 1}, "v"),
        lambda c: c.zadd("k", 1),
        lambda c: c.zadd("k", {"m": 1}, "n"),
    ],
)
def test_what_is_half_said_is_a_type_error(call: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="takes a"):
        call(Sent(None))


def test_the_types_of_pipelines_are_those_of_the_client() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--stdin-filename=recorded.pyi", "-"],
        input=recorded_stub(), capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert made.stdout == (ROOT / "kache/client/recorded.pyi").read_text(), "run python -m kache.client.stubs"


def test_type_checkers_know_pipelines(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(USE)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "use.py"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "MYPYPATH": str(ROOT)},
    )  # fmt: skip
    notes = re.findall(r"^use\.py:(\d+): (?:error|note): (.*?)(?:  \[|$)", done.stdout, re.MULTILINE)
    assert [text for _, text in notes] == [
        'Revealed type is "kache.client.pipeline.Pipeline[bytes]"',
        'Revealed type is "int"',
        'Revealed type is "bool"',
        'Revealed type is "kache.client.blocking.Client[str]"',
        '"Pipeline[bytes]" has no attribute "nosuch"',
        'Missing positional argument "value" in call to "set" of "RecordedCommands"',
    ], done.stdout + done.stderr


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf")])
def test_a_time_to_wait_is_a_number_of_seconds(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout is a number of seconds"):
        Sent(None).blpop("k", timeout=timeout)


def test_scan_iter_follows_the_cursor() -> None:
    client = Sent(None)
    pages: dict[Any, list[Any]] = {0: [b"9", [b"a", b"b"]], 9: [b"4", []], 4: [b"0", [b"c"]]}
    client._run = lambda arguments, convert: convert(pages[arguments[1]])  # type: ignore[method-assign]  # the network
    assert list(client.scan_iter()) == [b"a", b"b", b"c"]


def methods(of: type[Any]) -> dict[str, Any]:
    return {name: value for name, value in vars(of).items() if inspect.isfunction(value)}


def test_the_asyncio_list_is_the_same() -> None:
    blocking, awaited = methods(Commands), methods(AsyncCommands)
    assert list(blocking) == list(awaited)
    for name, method in blocking.items():
        twin = awaited[name]
        assert inspect.iscoroutinefunction(twin) or inspect.isasyncgenfunction(twin), name
        expected = str(inspect.signature(method)).replace("-> 'Iterator", "-> 'AsyncIterator")
        assert str(inspect.signature(twin)) == expected
        assert twin.__doc__ == method.__doc__
        if name != "scan_iter":
            body = inspect.getsource(twin).replace("async def", "def").replace("await ", "")
            assert re.sub(r"\s", "", body) == re.sub(r"\s", "", inspect.getsource(method))
