"""Scripts on one shard: EVAL and its kin, what they see, and what ends them.

The texts of errors and the shapes of replies are those of redis-server 7.0.15, asked for the same scripts.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from kache.errors import CommandError
from kache.shard.shard import Shard
from kache.wire.codec import decode_reply

NOW = 1_700_000_000_000
BINARY, INTERNAL, RESP2, RESP3 = range(4)


class Client:
    """Asks one shard."""

    def __init__(self, **options: Any) -> None:
        self.shard = Shard(now_ms=NOW, **options)

    def raw(self, *words: bytes, dialect: int = RESP2) -> bytes:
        return self.shard.execute(list(words), dialect)

    def ask(self, *words: bytes, dialect: int = RESP2) -> Any:
        value = decode_reply(self.raw(*words, dialect=dialect))[0]
        if isinstance(value, CommandError):
            raise value
        return value

    def run(self, text: str, *keys: bytes, args: tuple[bytes, ...] = (), dialect: int = RESP2) -> Any:
        return self.ask(b"EVAL", text.encode(), b"%d" % len(keys), *keys, *args, dialect=dialect)

    def become(self, user: int) -> None:
        """Everything is asked in the name of the user of that number."""

        def handler(ctx: Any, _key: bytes) -> int:
            ctx.user_number = user
            return 0

        self.shard.replace_handler("ttl", handler)
        self.ask(b"TTL", b"x")


@pytest.fixture(scope="module")
def client() -> Client:
    return Client()


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("return 1", b":1\r\n"),
        ("return 3.99", b":3\r\n"),
        ("return -3.99", b":-3\r\n"),
        ("return -0.5", b":0\r\n"),
        ("return 2^63", b":-9223372036854775808\r\n"),
        ("return 'x'", b"$1\r\nx\r\n"),
        ("return true", b":1\r\n"),
        ("return false", b"$-1\r\n"),
        ("return nil", b"$-1\r\n"),
        ("", b"$-1\r\n"),
        (
            "return {1,2,{3,'x',nil,4},false,true,1.9}",
            b"*6\r\n:1\r\n:2\r\n*2\r\n:3\r\n$1\r\nx\r\n$-1\r\n:1\r\n:1\r\n",
        ),
        ("return {ok='fi\\r\\nne'}", b"+fi  ne\r\n"),
        ("return {err='MY b\\r\\nad'}", b"-MY b  ad\r\n"),
        ("return {1,{err='MY bad'},{ok='x'}}", b"*3\r\n:1\r\n-MY bad\r\n+x\r\n"),
        ("return redis.status_reply('x')", b"+x\r\n"),
        ("return redis.error_reply('x')", b"-ERR x\r\n"),
        ("return redis.error_reply('-X y')", b"-X y\r\n"),
        ("return {double=3.5}", b"$3\r\n3.5\r\n"),
        ("return {map={a=1}}", b"*2\r\n$1\r\na\r\n:1\r\n"),
        ("return {big_number='12'}", b"$2\r\n12\r\n"),
        ("return KEYS[1]..ARGV[1]..#KEYS..#ARGV", b"$4\r\nka11\r\n"),
        ("return redis.sha1hex('')", b"$40\r\nda39a3ee5e6b4b0d3255bfef95601890afd80709\r\n"),
        ("return tostring(10/2)..tostring(2^53)..tostring(1e15)", b"$24\r\n59.007199254741e+151e+15\r\n"),
        ("return string.format('%d %5.1f', 3.7, 1.25)", b"$7\r\n3   1.2\r\n"),
        ("return {table.getn({1,2}), table.maxn({[3]=1}), unpack({7,8})}", b"*4\r\n:2\r\n:3\r\n:7\r\n:8\r\n"),
        ("return {pcall(error, {err='MY x'})}", b"*2\r\n$-1\r\n$4\r\nMY x\r\n"),
        ("return type(redis.pcall('nosuch'))", b"$5\r\ntable\r\n"),
        (
            "return {pcall(redis.call, 'nosuch')}",
            b"*2\r\n$-1\r\n$44\r\nERR Unknown Redis command called from script\r\n",
        ),
        ("return redis.pcall('nosuch')", b"-ERR Unknown Redis command called from script\r\n"),
        ("return loadstring('return 5')()", b":5\r\n"),
        ("return coroutine.wrap(function() return 5 end)()", b":5\r\n"),
        ("return #redis.call('time')", b":2\r\n"),
        ("return redis.call('ping')", b"+PONG\r\n"),
        ("return redis.call('echo', 'a')", b"$1\r\na\r\n"),
    ],
)
def test_what_scripts_return(client: Client, text: str, reply: bytes) -> None:
    assert client.raw(b"EVAL", text.encode(), b"1", b"k", b"a") == reply


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("return nil", b"_\r\n"),
        ("return {double=3.5}", b",3.5\r\n"),
        ("return {map={a=1}}", b"%1\r\n$1\r\na\r\n:1\r\n"),
        ("return {set={a=true}}", b"~1\r\n$1\r\na\r\n"),
        ("return {big_number='12'}", b"(12\r\n"),
        ("return {verbatim_string={format='txt',string='x'}}", b"=5\r\ntxt:x\r\n"),
        ("return true", b":1\r\n"),
        ("redis.setresp(3) return true", b"#t\r\n"),
        ("redis.setresp(3) return false", b"#f\r\n"),
        ("redis.setresp(3) return redis.call('hgetall', KEYS[1])", b"%1\r\n$1\r\nf\r\n$1\r\nv\r\n"),
        ("return redis.call('hgetall', KEYS[1])", b"*2\r\n$1\r\nf\r\n$1\r\nv\r\n"),
        ("redis.setresp(3) return redis.call('zscore', 'z', 'm')", b",1.5\r\n"),
        ("return redis.call('zscore', 'z', 'm')", b"$3\r\n1.5\r\n"),
    ],
)
def test_what_they_return_in_resp3(client: Client, text: str, reply: bytes) -> None:
    client.ask(b"HSET", b"k", b"f", b"v")
    client.ask(b"ZADD", b"z", b"1.5", b"m")
    assert client.raw(b"EVAL", text.encode(), b"1", b"k", dialect=RESP3) == reply


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("foo = 1", "ERR user_script:1: Attempt to modify a readonly table"),
        ("return foo", "ERR user_script:1: Script attempted to access nonexistent global variable 'foo'"),
        ("\nerror('x')", "ERR user_script:2: x"),
        ("error({err='MY x'})", "MY x"),
        ("local a = nil; return a.b", "ERR user_script:1: attempt to index local 'a' (a nil value)"),
        ("return redis.call()", "ERR Please specify at least one argument for this redis lib call"),
        ("redis.call({})", "ERR Lua redis lib command arguments must be strings or integers"),
        ("redis.call('set','a','b','c','d','e',{})", "ERR Lua redis lib command arguments must be strings or integers"),
        ("redis.call('get')", "ERR Wrong number of args calling Redis command from script"),
        ("redis.call('eval','return 1',0)", "ERR This Redis command is not allowed from script"),
        ("redis.call('lpush','string','x')", "WRONGTYPE Operation against a key holding the wrong kind of value"),
        ("redis.setresp(4)", "ERR RESP version must be 2 or 3."),
        ("redis.log('x')", "ERR redis.log() requires two arguments or more."),
        ("redis.log(9,'x')", "ERR Invalid debug level."),
        ("redis.sha1hex()", "ERR wrong number of arguments"),
        (
            "#!lua flags=no-writes\nredis.call('set','a','b')",
            "ERR Write commands are not allowed from read-only scripts.",
        ),
    ],
)
def test_what_goes_wrong_is_said_with_its_place(client: Client, text: str, error: str) -> None:
    client.ask(b"SET", b"string", b"x")
    sha = hashlib.sha1(text.encode()).hexdigest()
    line = 2 if "\n" in text else 1
    with pytest.raises(CommandError) as refused:
        client.run(text)
    assert refused.value.message == f"{error} script: {sha}, on @user_script:{line}."


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            (b"EVAL", b"return x y", b"0"),
            "ERR Error compiling script (new function): user_script:1: <eof> expected near 'y'",
        ),
        ((b"EVAL", b"return 1", b"x"), "ERR value is not an integer or out of range"),
        ((b"EVAL", b"return 1", b"-1"), "ERR Number of keys can't be negative"),
        ((b"EVAL", b"return 1", b"3", b"a"), "ERR Number of keys can't be greater than number of args"),
        ((b"EVAL", b"#!lua name=x\nreturn 1", b"0"), "ERR Unknown lua shebang option: name=x"),
        ((b"EVAL", b"#!foo\nreturn 1", b"0"), "ERR Unexpected engine in script shebang: #!foo"),
        ((b"EVAL", b"#!lua flags=bogus\nreturn 1", b"0"), "ERR Unexpected flag in script shebang: bogus"),
        ((b"EVALSHA", b"abc", b"0"), "NOSCRIPT No matching script. Please use EVAL."),
        ((b"EVALSHA", b"f" * 40, b"0"), "NOSCRIPT No matching script. Please use EVAL."),
    ],
)
def test_what_is_refused(client: Client, words: tuple[bytes, ...], error: str) -> None:
    with pytest.raises(CommandError) as refused:
        client.ask(*words)
    assert refused.value.message == error


def test_scripts_are_known_by_their_digest() -> None:
    client = Client()
    text = b"return redis.call('incr', KEYS[1])"
    sha = hashlib.sha1(text).hexdigest().encode()
    assert client.ask(b"_script_exists", sha, dialect=INTERNAL) == [0]
    assert client.ask(b"EVAL", text, b"1", b"a") == 1
    assert client.ask(b"EVALSHA", sha.upper(), b"1", b"a") == 2
    assert client.ask(b"_script_show", sha, dialect=INTERNAL) == text
    client.shard.scripts.flush()
    with pytest.raises(CommandError, match="NOSCRIPT"):
        client.ask(b"EVALSHA", sha, b"1", b"a")
    assert client.shard.scripts.load(text) == sha
    assert client.ask(b"EVALSHA", sha, b"1", b"a") == 3
    assert client.ask(b"_script_exists", sha, b"x", dialect=INTERNAL) == [1, 0]


def test_what_is_only_evaluated_goes_when_there_is_much_of_it() -> None:
    client = Client()
    kept = client.shard.scripts.load(b"return 'kept'")
    first = hashlib.sha1(b"return 0").hexdigest().encode()
    for number in range(501):
        client.run(f"return {number}")
    assert client.ask(b"_script_exists", kept, first, dialect=INTERNAL) == [1, 0]
    assert client.ask(b"EVALSHA", kept, b"0") == b"kept"


def test_the_reading_forms_do_not_write(client: Client) -> None:
    assert client.ask(b"EVAL_RO", b"return redis.call('exists', 'none')", b"0") == 0
    with pytest.raises(CommandError, match="Write commands are not allowed from read-only scripts"):
        client.ask(b"EVAL_RO", b"return redis.call('set', KEYS[1], 'x')", b"1", b"a")
    sha = client.shard.scripts.load(b"return redis.call('del', KEYS[1])")
    with pytest.raises(CommandError, match="Write commands are not allowed from read-only scripts"):
        client.ask(b"EVALSHA_RO", sha, b"1", b"a")


def test_arguments_are_written_as_a_real_server_does(client: Client) -> None:
    client.run("redis.call('rpush', KEYS[1], 1, 1.5, 2^53, 1e20, -3, 0.1)", b"numbers")
    assert client.ask(b"LRANGE", b"numbers", b"0", b"-1") == [
        b"1", b"1.5", b"9007199254740992", b"1e+20", b"-3", b"0.10000000000000001",
    ]  # fmt: skip


def test_any_number_of_arguments_and_replies(client: Client) -> None:
    text = "redis.call('del', KEYS[1]) redis.call('rpush', KEYS[1], unpack(ARGV)) return redis.call('lrange', KEYS[1], 0, -1)"
    for count in (1, 24, 25, 200, 201, 5000):
        args = tuple(b"%d" % number for number in range(count))
        assert client.run(text, b"many", args=args) == list(args)


def test_the_time_stands_still(client: Client) -> None:
    text = "local a = redis.call('time') for i = 1, 1e6 do end local b = redis.call('time') return a[1]..a[2] == b[1]..b[2]"
    assert client.run(text) == 1


def test_another_database_until_the_end(client: Client) -> None:
    client.run("redis.call('select', 5) redis.call('set', KEYS[1], 'there')", b"place")
    assert client.ask(b"EXISTS", b"place") == 0
    assert decode_reply(client.shard.execute([b"GET", b"place"], RESP2, 5))[0] == b"there"


def test_a_failure_keeps_what_was_changed(client: Client) -> None:
    with pytest.raises(CommandError, match="WRONGTYPE"):
        client.run("redis.call('set', KEYS[1], 'x') redis.call('lpush', KEYS[1], 'y')", b"half")
    assert client.ask(b"GET", b"half") == b"x"


def test_every_dialect_is_answered(client: Client) -> None:
    text = b"return {1, 'a', {ok='fine'}}"
    assert client.ask(b"EVAL", text, b"0", dialect=INTERNAL) == [1, b"a", "fine"]
    assert client.raw(b"EVAL", text, b"0", dialect=BINARY)[4:5] == b"\0"


def test_redis_refuses_what_is_only_for_libraries(client: Client) -> None:
    with pytest.raises(CommandError, match="attempt to call"):
        client.run("redis.register_function('f', function() end)")


def test_rights_are_asked_for() -> None:
    client = Client()

    def check(_user: str, row: Any, _args: tuple[bytes, ...]) -> None:
        if row.name == "set":
            raise CommandError("NOPERM this user has no permissions to run the 'set' command")

    client.shard.scripts.check = check
    client.become(7)
    assert client.run("return {redis.acl_check_cmd('get', 'a'), redis.acl_check_cmd('set', 'a', 'b')}") == [1, None]
    with pytest.raises(CommandError, match="NOPERM"):
        client.run("return redis.call('set', 'a', 'b')")
    with pytest.raises(CommandError, match="Invalid command passed to"):
        client.run("return redis.acl_check_cmd('nosuch')")
