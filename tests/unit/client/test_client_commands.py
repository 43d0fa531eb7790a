"""The typed methods: what each sends, and that the asyncio list is the same list."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kache.client.async_commands import AsyncCommands
from kache.client.codec import Argument
from kache.client.commands import Commands


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
    (lambda c: c.incrbyfloat("k", 1), ["incrbyfloat", "k", 1.0], b"3.5", 3.5),
]


@pytest.mark.parametrize(("call", "arguments", "reply", "result"), CASES)
def test_arguments_and_result(call: Callable[[Sent], Any], arguments: list[Any], reply: Any, result: Any) -> None:
    client = Sent(reply)
    assert call(client) == result
    assert client.arguments == arguments


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf")])
def test_a_time_to_wait_is_a_number_of_seconds(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout is a number of seconds"):
        Sent(None).blpop("k", timeout=timeout)


def test_scan_iter_follows_the_cursor() -> None:
    client = Sent(None)
    pages: dict[Any, list[Any]] = {0: [b"9", [b"a", b"b"]], 9: [b"4", []], 4: [b"0", [b"c"]]}
    client._run = lambda arguments, convert: convert(pages[arguments[1]])  # type: ignore[method-assign]
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
