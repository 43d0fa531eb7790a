"""A conversation about functions, and what a real server answered: the vectors of tests/data/functions-redis-7.0.15.json.

    redis-server --port 7999 --save "" & python tests/oracle/function_vectors.py 7999 > tests/data/functions-redis-7.0.15.json

Each step is sent as it stands, to an empty server; payloads of DUMP are those that the real server gave.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from typing import Final

from kache.wire.codec import ReplyTooShort, decode_reply

__all__ = ["conversation", "steps"]

LIBRARY: Final = """#!lua name=shop
local count = 0
local function add(keys, args)
    count = count + 1
    return redis.call('incrby', keys[1], args[1])
end
redis.register_function('add', add)
redis.register_function{function_name='peek', callback=function(keys) return redis.call('get', keys[1]) end,
                        description='what there is', flags={'no-writes', 'allow-oom'}}
redis.register_function('calls', function() return count end)
"""

LOADED: Final = (
    "", "#!lua", "#!lua\nreturn 1", "return 1", "#!lua name=\nreturn 1", "#!lua name=a b\nreturn 1", "#!lua name=a name=b\nreturn 1",
    "#!js name=a\nreturn 1", "#!js name=b$\nreturn 1", "#!lua name='a'\nreturn 1", "#!lua name=a-b\nreturn 1", "#!lua nam=a\nreturn 1",
    "#! lua name=a\nreturn 1", "#!lua \"name=quoted\"\nredis.register_function('q', function() return 1 end)",
    "#!lua name=\"x\"\"y\"\nreturn 1", "#!LUA NAME=upper\nredis.register_function('u', function() return 1 end)",
    "#!lua name=a\nreturn 1", "#!lua name=a\nreturn (", "#!lua name=a\n\n\nerror('wrong')", "#!lua name=a\nerror({err='MY wrong'})",
    "#!lua name=a\nfoo = 1", "#!lua name=a\nreturn foo", "#!lua name=a\nredis.call('ping')", "#!lua name=a\nreturn redis.pcall('ping')",
    "#!lua name=a\nredis.setresp(3)", "#!lua name=a\nreturn math.random()", "#!lua name=a\nlocal a = nil; return a.b",
    "#!lua name=a\nredis.nosuch()", "#!lua name=a\nredis.register_function('x')", "#!lua name=a\nredis.register_function()",
    "#!lua name=a\nredis.register_function('x', 1)", "#!lua name=a\nredis.register_function(1, function() end)",
    "#!lua name=a\nredis.register_function({}, function() end)",
    "#!lua name=a\nredis.register_function('x', function() end, 3)", "#!lua name=a\nredis.register_function('x y', function() end)",
    "#!lua name=a\nredis.register_function('', function() end)",
    "#!lua name=a\nredis.register_function('x', function() end) redis.register_function('x', function() end)",
    "#!lua name=a\nredis.register_function{}", "#!lua name=a\nredis.register_function{function_name='x'}",
    "#!lua name=a\nredis.register_function{callback=function() end}",
    "#!lua name=a\nredis.register_function{function_name=1, callback=function() end}",
    "#!lua name=a\nredis.register_function{function_name='x', callback=1}",
    "#!lua name=a\nredis.register_function{function_name='x', callback=function() end, description=1}",
    "#!lua name=a\nredis.register_function{function_name='x', callback=function() end, flags=1}",
    "#!lua name=a\nredis.register_function{function_name='x', callback=function() end, flags={'nosuch'}}",
    "#!lua name=a\nredis.register_function{function_name='x', callback=function() end, flags={1}}",
    "#!lua name=a\nredis.register_function{function_name='x', callback=function() end, flags={{}}}",
    "#!lua name=a\nredis.register_function{function_name='x', callback=function() end, other=1}",
    "#!lua name=a\nredis.register_function{function_name='x', callback=function() end, [1]=1}",
    "#!lua name=a\nredis.register_function('add', function() end)",
    "#!lua name=a\nredis.log(redis.LOG_DEBUG, 'loaded') redis.register_function('logged', function() return 1 end)",
)  # fmt: skip
"""Texts of libraries, most of them wrong."""

BODIES: Final = (
    "return 1", "return {keys[1], args[1], #keys, #args}", "return KEYS[1]", "return redis.call('set', keys[1], args[1])",
    "return redis.call('nosuch')", "\n\nerror('wrong')", "error({err='MY wrong'})", "return redis.error_reply('MY fault')", "foo = 1",
    "return foo", "return redis.pcall('lpush', keys[1], 'x')", "redis.call('lpush', keys[1], 'x')", "return {ok='fine'}", "return nil",
    "return redis.register_function('z', function() end)", "redis.setresp(3) return redis.call('hgetall', 'h')",
    "return redis.call('eval', 'return 1', '0')", "return redis.call('fcall', 'add', '1', 'n', '1')", "return redis.sha1hex('x')",
    "return redis.call('function', 'list')", "return 3.99", "return {1, {err='inside'}}", "local a = nil; return a.b", "_G.x = 1",
    "return redis.acl_check_cmd('get', 'x')", "return redis.status_reply('yes')", "string.x = 1", "return cjson.encode(args)",
)  # fmt: skip
"""What functions do."""


def _load(code: str, *options: str) -> tuple[str, ...]:
    return ("FUNCTION", "LOAD", *options, code)


def steps(dumps: list[str]) -> Iterator[tuple[str, ...]]:
    """Commands, in order, each byte a character; `dumps` has the payloads that DUMP has given so far."""
    yield ("FLUSHALL",)
    yield ("FUNCTION", "FLUSH")
    yield ("FUNCTION", "STATS")
    yield ("FUNCTION", "LIST")
    yield ("FUNCTION", "DUMP")
    yield _load(LIBRARY)
    yield _load(LIBRARY)
    yield _load(LIBRARY, "REPLACE")
    yield _load(LIBRARY, "replac")
    yield ("FUNCTION", "LOAD")
    yield ("FUNCTION", "LOAD", "REPLACE")
    yield ("HSET", "h", "f", "v")
    for code in LOADED:
        yield _load(code, "REPLACE")
    yield _load("#!lua name=SHOP\nredis.register_function('Add', function() end)")
    yield _load("#!lua name=SHOP\nredis.register_function('added', function() end)")
    yield ("FUNCTION", "LIST", "LIBRARYNAME", "sh*", "WITHCODE")
    yield from (("FUNCTION", "DELETE", name) for name in ("quoted", "upper", "a", "A", "SHOP", "nosuch"))
    yield from _calls()
    yield from _bodies()
    yield from _stored(dumps)


def _calls() -> Iterator[tuple[str, ...]]:
    for words in (
        "add 1 n 5", "add 1 n 5", "calls 0", "peek 1 n", "nosuch 0", "add", "add 1", "add 2 n", "add x n", "add -1 n", "add 0 n", "ADD 1 n 5",
        "add 01 n 5", "add 1 n x",
    ):  # fmt: skip
        yield ("FCALL", *words.split())
    yield ("FCALL_RO", "peek", "1", "n")
    yield ("FCALL_RO", "add", "1", "n", "1")
    yield ("FCALL_RO", "nosuch", "0")
    yield _load(LIBRARY, "REPLACE")
    yield ("FCALL", "calls", "0")
    yield ("FLUSHALL",)
    yield ("FCALL", "peek", "1", "n")
    yield ("MULTI",)
    yield ("FCALL", "add", "1", "n", "5")
    yield ("FCALL", "peek", "1", "n")
    yield ("EXEC",)
    yield ("HSET", "h", "f", "v")


def _bodies() -> Iterator[tuple[str, ...]]:
    for flags in ("", "'no-writes'"):
        for body in BODIES:
            text = f"redis.register_function{{function_name='f', callback=function(keys, args) {body} end, flags={{{flags}}}}}"
            yield _load(f"#!lua name=body\n{text}", "REPLACE")
            yield ("FCALL", "f", "1", "k", "a", "b")
            yield ("FCALL_RO", "f", "1", "k", "a", "b")
            yield ("DEL", "k")
    yield ("FUNCTION", "DELETE", "body")


def _stored(dumps: list[str]) -> Iterator[tuple[str, ...]]:
    yield ("FUNCTION", "DUMP")
    yield _load(
        "#!lua name=second\nredis.register_function('two', function() return 2 end)\n" + "-- " + "padding " * 200
    )
    yield ("FUNCTION", "DUMP")
    yield ("FUNCTION", "DELETE", "second")
    yield ("FUNCTION", "RESTORE", dumps[1])
    yield ("FUNCTION", "RESTORE", dumps[1], "APPEND")
    yield ("FUNCTION", "RESTORE", dumps[2], "replace")
    yield ("FCALL", "two", "0")
    yield ("FUNCTION", "RESTORE", dumps[1], "FLUSH")
    yield ("FCALL", "two", "0")
    yield ("FUNCTION", "LIST", "WITHCODE")
    yield ("FUNCTION", "RESTORE", dumps[2], "FLUSH")
    yield ("FUNCTION", "LIST", "LIBRARYNAME", "SEC*")
    yield ("FUNCTION", "STATS")
    yield ("FUNCTION", "RESTORE", dumps[0])
    yield ("FUNCTION", "RESTORE", dumps[1], "other")
    yield ("FUNCTION", "RESTORE", dumps[1], "FLUSH", "x")
    yield ("FUNCTION", "RESTORE", dumps[1][:-1] + "x")
    yield ("FUNCTION", "RESTORE", "")
    yield ("FUNCTION", "RESTORE", "x" * 20)
    yield ("FUNCTION", "DELETE", "second")
    yield _load("#!lua name=other\nredis.register_function('two', function() return 3 end)")
    yield ("FUNCTION", "RESTORE", dumps[2], "REPLACE")
    yield ("FUNCTION", "DELETE", "shop")
    yield ("FUNCTION", "RESTORE", dumps[2])
    yield ("FCALL", "two", "0")
    yield ("FUNCTION", "RESTORE", dumps[0], "FLUSH")
    yield ("FUNCTION", "LIST")
    for words in (
        "LIST x", "LIST LIBRARYNAME", "LIST WITHCODE WITHCODE", "LIST LIBRARYNAME a LIBRARYNAME b", "FLUSH x", "FLUSH SYNC", "FLUSH ASYNC",
        "FLUSH SYNC x", "DELETE", "DELETE a b", "DUMP x", "STATS x", "KILL", "KILL x", "NOSUCH", "HELP", "HELP x", "RESTORE",
    ):  # fmt: skip
        yield ("FUNCTION", *words.split())
    yield ("SCRIPT", "KILL")
    yield ("COMMAND", "GETKEYS", "FCALL", "f", "2", "a", "b", "c")
    yield ("FUNCTION",)


def ask(sock: socket.socket, words: tuple[str, ...]) -> str:
    """The reply as it comes, each byte a character."""
    request = [word.encode("latin-1") for word in words]
    sock.sendall(b"*%d\r\n" % len(request) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in request))
    found = b""
    while True:
        data = sock.recv(1 << 16)
        if not data:
            raise ConnectionError("the server has closed the connection")
        found += data
        try:
            decode_reply(found)
        except ReplyTooShort:
            continue
        return found.decode("latin-1")


def conversation(port: int) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each step with its answer."""
    dumps: list[str] = []
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        for words in steps(dumps):
            answer = ask(sock, words)
            if words == ("FUNCTION", "DUMP"):
                dumps.append(answer.partition("\r\n")[2][:-2])
            yield words, answer


if __name__ == "__main__":
    json.dump([answer for _, answer in conversation(int(sys.argv[1]))], sys.stdout, indent=0)
    sys.stdout.write("\n")
