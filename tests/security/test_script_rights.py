"""What a user may not do by itself it may not do by a script either."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from cluster import Cluster, Connection

from kache.acl.inner import check_inner
from kache.acl.record import NOBODY, UNRESTRICTED
from kache.acl.rights import Users
from kache.commands import BY_KEY
from kache.errors import CommandError

pytestmark = pytest.mark.once

NO_COMMAND = "ERR The user executing the script can't run this command or subcommand"
NO_KEY = "ERR The user executing the script can't access at least one of the keys mentioned in the command arguments"
NO_CHANNEL = "ERR The user executing the script can't publish to the channel mentioned in the command"
GET = "return redis.call('get', ARGV[1])"
CALL = "return redis.call(unpack(ARGV))"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2) as running:
        yield running


@pytest.fixture
def admin(cluster: Cluster) -> Iterator[Connection]:
    with cluster.connect() as connection:
        connection.request("flushall")
        connection.request("acl", "deluser", "alice", "bob")
        yield connection


@pytest.fixture
def tags(cluster: Cluster) -> list[str]:
    """A hash tag of each shard."""
    return [each[0] for each in cluster.keys_by_shard()]


def user(cluster: Cluster, admin: Connection, *rules: str, name: str = "alice") -> Connection:
    assert admin.request("acl", "setuser", name, "reset", "on", ">pw", *rules) == "OK"
    connection = cluster.connect()
    assert connection.request("auth", name, "pw") == "OK"
    return connection


def refused(reply: object, text: str) -> bool:
    return isinstance(reply, CommandError) and reply.message.startswith(text)


def test_each_command_of_a_script_is_checked(cluster: Cluster, admin: Connection) -> None:
    admin.request("set", "b", "secret")
    rules = ("+eval", "+eval_ro", "+get", "+set", "+sort", "+publish", "+spublish", "~a*", "%R~r*", "&own")
    with user(cluster, admin, *rules) as alice:
        for command in ("eval", "eval_ro"):
            assert refused(alice.request(command, CALL, 0, "get", "b"), NO_KEY)
        assert refused(alice.request("eval", CALL, 0, "incr", "a"), NO_COMMAND)
        assert refused(alice.request("eval", CALL, 0, "set", "r", 1), NO_KEY)
        assert refused(alice.request("eval", CALL, 0, "publish", "c", "x"), NO_CHANNEL)
        assert refused(alice.request("eval", CALL, 0, "spublish", "c", "x"), NO_CHANNEL)
        assert refused(alice.request("eval", CALL, 0, "sort", "a", "by", "x*"), "ERR BY option of SORT denied")
        assert alice.request("eval", "return redis.pcall('get', 'b')", 0) == CommandError(NO_KEY)
        assert alice.request("eval", CALL, 0, "set", "a", "1") == "OK"
        assert alice.request("eval", CALL, 0, "get", "a") == b"1"
        assert alice.request("eval", CALL, 0, "get", "r") is None
        assert alice.request("eval", CALL, 0, "publish", "own", "x") == 0


def test_a_script_by_its_name_is_checked(cluster: Cluster, admin: Connection) -> None:
    admin.request("set", "b", "secret")
    sha = hashlib.sha1(GET.encode()).hexdigest()
    assert admin.request("script", "load", GET) == sha.encode()
    with user(cluster, admin, "+evalsha", "+evalsha_ro", "+get", "~a*") as alice:
        for command in ("evalsha", "evalsha_ro"):
            assert refused(alice.request(command, sha, 0, "b"), NO_KEY)
            assert alice.request(command, sha, 0, "a") is None
            assert admin.request(command, sha, 0, "b") == b"secret"


def test_keys_of_other_shards_are_checked(cluster: Cluster, admin: Connection, tags: list[str]) -> None:
    """Those that are lent, and those for which the script is run again."""
    for tag in tags:
        admin.request("mset", f"a{{{tag}}}", "1", f"b{{{tag}}}", "secret")
    both = "for _, k in ipairs(KEYS) do redis.call('incr', k) end return redis.call('get', ARGV[1])"
    with user(cluster, admin, "+eval", "+get", "+incr", "~a*") as alice:
        for here in tags:
            for there in tags:
                assert refused(alice.request("eval", GET, 1, f"a{{{here}}}", f"b{{{there}}}"), NO_KEY)
                assert alice.request("eval", GET, 1, f"a{{{here}}}", f"a{{{there}}}") == b"1"
        own = [f"a{{{tag}}}" for tag in tags]
        for tag in tags:
            assert refused(alice.request("eval", both, 2, *own, f"b{{{tag}}}"), NO_KEY)
        assert alice.request("eval", both, 2, *own, own[1]) == b"4"


def test_scripts_inside_of_transactions_are_checked(cluster: Cluster, admin: Connection, tags: list[str]) -> None:
    for tag in tags:
        admin.request("mset", f"a{{{tag}}}", "1", f"b{{{tag}}}", "secret")
    with user(cluster, admin, "+eval", "+get", "+incr", "+multi", "+exec", "~a*") as alice:
        for place in (tags[:1], tags):
            assert alice.request("multi") == "OK"
            for tag in place:
                alice.request("incr", f"a{{{tag}}}")
                assert alice.request("eval", GET, 1, f"a{{{tag}}}", f"b{{{tag}}}") == "QUEUED"
                assert alice.request("eval", GET, 1, f"a{{{tag}}}", f"a{{{tag}}}") == "QUEUED"
            replies = alice.request("exec")
            assert all(refused(reply, NO_KEY) for reply in replies[1::3])
            assert replies[0::3] == [int(reply) for reply in replies[2::3]]


def test_a_script_does_not_run_as_who_its_transaction_logs_in(cluster: Cluster, admin: Connection) -> None:
    admin.request("set", "b", "secret")
    user(cluster, admin, "+eval", "+get", "~a*").close()
    with cluster.connect() as one:
        one.request("multi")
        one.request("auth", "alice", "pw")
        one.request("eval", GET, 0, "b")
        replies = one.request("exec")
        assert replies[0] == "OK"
        assert refused(replies[1], "NOPERM a script cannot run as the user that its own transaction has logged in")


def test_a_pipeline_runs_scripts_in_whose_name_it_says(cluster: Cluster, admin: Connection) -> None:
    admin.request("mset", "a", "1", "b", "2")
    user(cluster, admin, "+eval", "+get", "~a", name="alice").close()
    user(cluster, admin, "+eval", "+get", "~b", name="bob").close()
    with cluster.connect() as one:
        ask = [("eval", GET, 0, "a"), ("eval", GET, 0, "b")]
        one.send(*ask, ("auth", "alice", "pw"), *ask, ("auth", "bob", "pw"), *ask, ("reset",), *ask)
        replies = one.read_many(11)
        assert replies[:2] == replies[9:] == [b"1", b"2"]
        assert replies[3] == b"1" and refused(replies[4], NO_KEY)
        assert refused(replies[6], NO_KEY) and replies[7] == b"2"


def test_a_script_that_is_run_again_stays_its_users(cluster: Cluster, admin: Connection, tags: list[str]) -> None:
    """It wants a key of another shard; meanwhile its connection has become somebody else's."""
    here, there = tags
    admin.request("mset", f"a{{{there}}}", "1", f"b{{{there}}}", "secret")
    user(cluster, admin, "+eval", "+get", "~a*").close()
    with cluster.connect() as one:
        for turn in range(20):
            text = f"local n = {turn} redis.call('get', ARGV[1]) return redis.call('get', ARGV[2])"
            script = ("eval", text, 1, f"a{{{here}}}", f"a{{{there}}}", f"b{{{there}}}")
            one.send(("auth", "alice", "pw"), script, ("reset",))
            assert refused(one.read_many(3)[1], NO_KEY)


def test_rights_that_are_taken_away_are_gone_from_scripts(cluster: Cluster, admin: Connection) -> None:
    with user(cluster, admin, "+@all", "~*", "&*") as alice:
        assert alice.request("eval", CALL, 0, "set", "b", "1") == "OK"
        assert admin.request("acl", "setuser", "alice", "resetkeys", "~a") == "OK"
        assert refused(alice.request("eval", CALL, 0, "get", "b"), NO_KEY)
        assert alice.request("eval", CALL, 0, "get", "a") is None
        assert admin.request("acl", "setuser", "alice", "-get") == "OK"
        assert refused(alice.request("eval", CALL, 0, "get", "a"), NO_COMMAND)
        assert admin.request("acl", "setuser", "alice", "+get", "~*") == "OK"
        assert alice.request("eval", CALL, 0, "get", "b") == b"1"


@pytest.mark.parametrize(
    "text",
    [
        "redis.call = function() return 'mine' end",
        "redis = {call = function() return 'mine' end}",
        "string.upper = function() return 'mine' end",
        "getmetatable('').__index = function() return function() return 'mine' end end",
        "rawset(string, 'upper', function() return 'mine' end)",
        "rawset(_G, 'redis', {call = function() return 'mine' end})",
        "setmetatable(_G, {__index = function() return 'mine' end})",
        "tostring = function() return 'mine' end",
        "KEYS = nil ARGV = nil unpack = function() return 'echo', 'mine' end",
    ],
)
def test_a_script_leaves_nothing_for_the_next_user(cluster: Cluster, admin: Connection, text: str) -> None:
    """What one user's script changes must not run with the rights of another."""
    victim = "return {redis.call(unpack(ARGV)), ('x'):upper(), tostring(1)}"
    with user(cluster, admin, "+eval", "~a*") as alice:
        alice.request("eval", text, 0)
    assert admin.request("eval", victim, 0, "echo", "right") == [b"right", b"X", b"1"]


COMMANDS = [
    ("get", "a"), ("get", "b"), ("getdel", "r"), ("set", "a", "1"), ("set", "w", "1"), ("set", "w", "1", "get"), ("set", "r", "1"),
    ("exists", "w"), ("exists", "b"), ("mget", "a", "b"), ("mget", "a", "r"), ("mset", "a", "1", "w", "2"), ("mset", "w", "1", "r", "2"),
    ("sinterstore", "w", "r", "a"), ("sinterstore", "r", "w", "a"), ("zunion", "2", "a", "r"), ("zunion", "2", "a", "w"),
    ("zunion", "x", "a"), ("bitfield", "r", "get", "u8", "0"), ("bitfield", "r", "set", "u8", "0", "1"), ("sort", "r", "store", "w"),
    ("sort", "r", "store", "b"), ("xread", "streams", "r", "0"), ("xread", "streams", "w", "0"), ("copy", "r", "w"), ("copy", "w", "r"),
    ("object", "encoding", "r"), ("object", "encoding", "b"), ("ping",), ("time",), ("echo", "x"), ("publish", "own", "x"),
    ("publish", "c", "x"), ("lmpop", "1", "a", "left"), ("lmpop", "1", "r", "left"), ("georadius", "r", "1", "1", "1", "m", "store", "w"),
    ("georadius", "r", "1", "1", "1", "m", "store", "b"), ("type", "r"), ("hset", "a", "f", "v"), ("rename", "a", "w"),
]  # fmt: skip


@pytest.mark.parametrize(
    "rules",
    [
        ("+@all", "-mset", "~a*", "%R~r*", "%W~w*", "&own"),
        ("+@read", "~*"),
        ("+eval", "+set", "~w*", "(+get %R~r*)", "(+mget +@write ~a* %R~r*)", "&*"),
        ("+@all", "resetkeys", "resetchannels"),
    ],
)
def test_scripts_are_checked_as_clients_are(cluster: Cluster, admin: Connection, rules: tuple[str, ...]) -> None:
    """Inside of scripts and outside of them the answer is the same."""
    text = "return redis.acl_check_cmd(unpack(ARGV)) and 1 or 0"
    differ = []
    with user(cluster, admin, "+eval", *rules) as alice:
        for words in COMMANDS:
            outside = admin.request("acl", "dryrun", "alice", *words) == "OK"
            inside = alice.request("eval", text, 0, *words)
            if inside != int(outside):
                differ.append((words, outside, inside))
    assert differ == []


def test_nobody_and_unknown_users_may_do_nothing() -> None:
    users = Users()
    row = BY_KEY["get"]
    check_inner(users, UNRESTRICTED, row, (b"a",))
    for number in (NOBODY, 99):
        with pytest.raises(CommandError, match="NOPERM the user executing the script is not known any more"):
            check_inner(users, number, row, (b"a",))


# What is told of it ----------------------------------------------------------------------------------------------------


def counted(admin: Connection) -> dict[str, int]:
    """How often something was refused, of INFO."""
    lines = admin.request("info", "stats").decode().splitlines()
    found = dict(line.split(":") for line in lines if line.startswith("acl_access_denied_"))
    return {name.removeprefix("acl_access_denied_"): int(value) for name, value in found.items()}


def test_refusals_inside_of_scripts_are_told_and_counted(cluster: Cluster, admin: Connection, tags: list[str]) -> None:
    """In ACL LOG with the context lua, as Redis has them; what acl_check_cmd asks is none."""
    admin.request("acl", "log", "reset")
    before = counted(admin)
    both = [f"{{{tag}}}own" for tag in tags]
    with user(cluster, admin, "+eval", "+get", "+publish", *(f"~{{{tag}}}own" for tag in tags), "&own") as alice:
        for _ in range(2):
            assert refused(alice.request("eval", GET, 0, f"{{{tags[0]}}}other"), NO_KEY)
        assert refused(alice.request("eval", "return redis.pcall('set', KEYS[1], 1)", 2, *both), NO_COMMAND)
        assert refused(alice.request("eval", CALL, 2, *both, "publish", "foreign", "x"), NO_CHANNEL)
        assert alice.request("eval", "return redis.acl_check_cmd('get', ARGV[1]) and 1 or 0", 0, "other") == 0
    entries = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in admin.request("acl", "log")]
    found = {(entry[b"reason"], entry[b"object"], entry[b"count"]) for entry in entries}
    assert found == {
        (b"key", f"{{{tags[0]}}}other".encode(), 2), (b"command", b"set", 1), (b"channel", b"foreign", 1)
    }  # fmt: skip
    assert {entry[b"context"] for entry in entries} == {b"lua"}
    assert {entry[b"username"] for entry in entries} == {b"alice"}
    assert all(b" user=alice " in entry[b"client-info"] for entry in entries)
    after = counted(admin)
    assert {name: after[name] - before[name] for name in after} == {"auth": 0, "cmd": 1, "key": 2, "channel": 1}


# Commands in Python ----------------------------------------------------------------------------------------------------

MODULE = '''from kache.module import Context, command


@command("who.reads", flags="readonly")
def who_reads(ctx: Context, key: bytes, other: bytes, how: bytes) -> list[bytes | str | None]:
    """Who asks, and what is in another key."""
    call = ctx.call_as_user if how == b"as" else ctx.call
    return [ctx.client.user.encode(), call("get", other)]
'''


def test_commands_in_python_know_who_asks_and_may_ask_as_who(cluster: Cluster, admin: Connection) -> None:
    path = cluster.directory / "who.py"
    path.write_text(MODULE)
    cluster.kache("module", "load", path)
    admin.request("set", "{t}secret", "x")
    admin.request("acl", "log", "reset")
    try:
        assert admin.request("who.reads", "{t}a", "{t}secret", "call") == [b"default", b"x"]
        assert admin.request("who.reads", "{t}a", "{t}secret", "as") == [b"default", b"x"]
        with (
            user(cluster, admin, "+who.reads", "+get", "+multi", "+exec", "~{t}a") as alice,
            user(cluster, admin, "allcommands", "allkeys", "allchannels", name="bob") as bob,
        ):
            assert alice.request("who.reads", "{t}a", "{t}secret", "call") == [b"alice", b"x"]
            assert refused(alice.request("who.reads", "{t}a", "{t}secret", "as"), NO_KEY)
            assert alice.request("who.reads", "{t}a", "{t}a", "as") == [b"alice", None]
            assert bob.request("who.reads", "{t}a", "{t}secret", "as") == [b"bob", b"x"]
            alice.send(("multi",), ("who.reads", "{t}a", "{t}a", "as"), ("exec",))
            assert alice.read_many(3)[2] == [[b"alice", None]]
        (entry,) = admin.request("acl", "log")
        assert entry[5] == b"lua" and entry[7] == b"{t}secret" and entry[9] == b"alice"
    finally:
        cluster.kache("module", "unload", "who")
