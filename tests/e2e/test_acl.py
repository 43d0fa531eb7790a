"""Users and their rights on a running cluster: who may log in, what is refused and how, and what a change does to clients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from cluster import Cluster, Connection, until

from kache.client import Client
from kache.client.errors import KacheError
from kache.errors import CommandError

NO_KEY = CommandError("NOPERM this user has no permissions to access one of the keys used as arguments")
NO_CHANNEL = CommandError("NOPERM this user has no permissions to access one of the channels used as arguments")
WRONG = CommandError("WRONGPASS invalid username-password pair or user is disabled.")


def no_command(name: str) -> CommandError:
    return CommandError(f"NOPERM this user has no permissions to run the '{name}' command")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two shards, so that keys lie on both."""
    with Cluster(2) as running:
        yield running


@pytest.fixture
def admin(cluster: Cluster) -> Iterator[Connection]:
    """A connection of the default user; no other user is left behind."""
    with cluster.connect() as connection:
        yield connection
    with cluster.connect() as connection:
        names = [name for name in connection.request("acl", "users") if name != b"default"]
        if names:
            connection.request("acl", "deluser", *names)
        connection.request("acl", "log", "reset")
        connection.request("flushall")


def logged_in(cluster: Cluster, admin: Connection, *rules: str, name: str = "alice") -> Connection:
    """A connection of a user with these rules."""
    assert admin.request("acl", "setuser", name, "reset", "on", ">pw", *rules) == "OK"
    connection = cluster.connect()
    assert connection.request("auth", name, "pw") == "OK"
    return connection


# Logging in ---------------------------------------------------------------------------------------------------------


def test_a_new_user_is_off_and_has_no_password(cluster: Cluster, admin: Connection) -> None:
    assert admin.request("acl", "setuser", "bob") == "OK"
    with cluster.connect() as bob:
        assert bob.request("auth", "bob", "") == WRONG
        admin.request("acl", "setuser", "bob", "on")
        assert bob.request("auth", "bob", "") == WRONG
        admin.request("acl", "setuser", "bob", ">one", ">two")
        assert [bob.request("auth", "bob", word) for word in ("one", "two", "three")] == ["OK", "OK", WRONG]
        admin.request("acl", "setuser", "bob", "<one")
        assert [bob.request("auth", "bob", word) for word in ("one", "two")] == [WRONG, "OK"]
        admin.request("acl", "setuser", "bob", "nopass")
        assert bob.request("auth", "bob", "anything") == "OK"
        assert bob.request("acl", "whoami") == no_command("acl|whoami")
        admin.request("acl", "setuser", "bob", "+acl|whoami")
        assert bob.request("acl", "whoami") == b"bob"


def test_hello_logs_in_and_reset_logs_out(cluster: Cluster, admin: Connection) -> None:
    admin.request("acl", "setuser", "alice", "on", ">pw", "+acl|whoami")
    with cluster.connect() as alice:
        reply = alice.request("hello", "3", "auth", "alice", "pw")
        assert reply[b"proto"] == 3
        assert alice.request("acl", "whoami") == b"alice"
        assert alice.request("reset") == "RESET"
        assert alice.request("acl", "whoami") == b"default"
        assert alice.request("hello", "3", "auth", "alice", "wrong") == WRONG
        assert alice.request("acl", "whoami") == b"default"


def test_a_pipeline_acts_in_whose_name_it_says(cluster: Cluster, admin: Connection) -> None:
    admin.request("acl", "setuser", "alice", "on", ">pw", "+get", "~a*")
    admin.request("acl", "setuser", "bob", "on", ">pw", "+get", "~b*")
    with cluster.connect() as one:
        one.send(
            ("set", "a", 1), ("set", "b", 2), ("auth", "alice", "pw"), ("get", "a"), ("get", "b"), ("auth", "bob", "pw"),
            ("get", "a"), ("get", "b"), ("reset",), ("get", "a"),
        )  # fmt: skip
        assert one.read_many(10) == ["OK", "OK", "OK", b"1", NO_KEY, "OK", NO_KEY, b"2", "RESET", b"1"]


def test_the_default_user_can_be_off(admin: Connection, cluster: Cluster) -> None:
    admin.request("acl", "setuser", "alice", "on", ">pw", "+@all", "~*", "&*")
    try:
        assert admin.request("acl", "setuser", "default", "off") == "OK"
        # Who is connected stays.
        assert admin.request("ping") == "PONG"
        with cluster.connect() as stranger:
            assert stranger.request("ping") == CommandError("NOAUTH Authentication required.")
            assert stranger.request("hello", 3, "auth", "alice", "pw")[b"proto"] == 3
            assert stranger.request("ping") == "PONG"
    finally:
        admin.request("acl", "setuser", "default", "on")


def test_requirepass_is_the_password_of_the_default_user(cluster: Cluster, admin: Connection) -> None:
    try:
        assert admin.request("config", "set", "requirepass", "secret") == "OK"
        assert b"nopass" not in admin.request("acl", "list")[0]
        with cluster.connect() as stranger:
            assert stranger.request("get", "a") == CommandError("NOAUTH Authentication required.")
            assert stranger.request("auth", "secret") == "OK"
        admin.request("acl", "setuser", "default", ">another")
        with cluster.connect() as stranger:
            assert stranger.request("auth", "another") == "OK"
    finally:
        assert admin.request("config", "set", "requirepass", "") == "OK"
    assert admin.request("acl", "list")[0] == b"user default on nopass ~* &* +@all"


# What is refused ------------------------------------------------------------------------------------------------------


def test_commands_keys_and_channels(cluster: Cluster, admin: Connection) -> None:
    admin.request("mset", "a1", 1, "b1", 2)
    with logged_in(cluster, admin, "+@all", "-@dangerous", "~a*", "&news") as alice:
        assert alice.request("get", "a1") == b"1"
        assert alice.request("get", "b1") == NO_KEY
        assert alice.request("mget", "a1", "b1") == NO_KEY
        assert alice.request("del", "a1", "b1") == NO_KEY
        assert alice.request("keys", "*") == no_command("keys")
        assert alice.request("config", "get", "port") == no_command("config|get")
        assert alice.request("publish", "news", "x") == 0
        assert alice.request("publish", "other", "x") == NO_CHANNEL
        assert alice.request("nosuch") == CommandError("ERR unknown command 'nosuch', with args beginning with: ")
        assert alice.request("get") == CommandError("ERR wrong number of arguments for 'get' command")
    assert admin.request("mget", "a1", "b1") == [b"1", b"2"]


def test_reading_and_writing_are_two_rights(cluster: Cluster, admin: Connection) -> None:
    admin.request("set", "r1", "x")
    with logged_in(cluster, admin, "+@all", "%R~r*", "%W~w*", "~both") as alice:
        assert alice.request("get", "r1") == b"x"
        assert alice.request("set", "r1", 1) == NO_KEY
        assert alice.request("set", "w1", 1) == "OK"
        assert alice.request("set", "w1", 1, "get") == NO_KEY
        assert alice.request("get", "w1") == NO_KEY
        assert alice.request("copy", "r1", "w2") == 1
        assert alice.request("copy", "w1", "both") == NO_KEY
        assert [alice.request("exists", key) for key in ("r1", "w1", "x")] == [1, 1, NO_KEY]
        assert alice.request("bitfield", "r1", "get", "u4", "0") == [7]
        assert alice.request("bitfield", "r1", "set", "u4", "0", "1") == NO_KEY
        assert alice.request("sunionstore", "w3", "r2") == 0
        assert alice.request("sunionstore", "r3", "r2") == NO_KEY
        assert alice.request("sort", "r9", "store", "w4") == 0
        assert alice.request("sort", "r9", "store", "w4", "store", "r4") == NO_KEY
        assert alice.request("sort", "r9", "by", "x*") == CommandError(
            "ERR BY option of SORT denied due to insufficient ACL permissions."
        )
        assert alice.request("zunionstore", "w5", "2", "r5", "w5") == NO_KEY
        assert alice.request("zunionstore", "w5", "1", "r5") == 0
        assert alice.request("zunion", "x", "r5") == NO_KEY


def test_selectors_are_tried_in_turn_and_not_added_together(cluster: Cluster, admin: Connection) -> None:
    with logged_in(cluster, admin, "+@read", "%R~r*", "(+set ~w*)", "(+get ~g*)") as alice:
        assert alice.request("set", "w1", 1) == "OK"
        assert alice.request("get", "g1") is None
        assert alice.request("mget", "r1", "g1") == NO_KEY
        assert alice.request("set", "r1", 1) == NO_KEY
        assert alice.request("del", "w1") == no_command("del")


def test_subcommands_and_first_arguments(cluster: Cluster, admin: Connection) -> None:
    with logged_in(cluster, admin, "+client", "-client|kill", "+config|get", "+select|3", "+select|5") as alice:
        assert alice.request("client", "id") > 0
        assert alice.request("client", "kill", "1.1.1.1:1") == no_command("client|kill")
        assert alice.request("config", "get", "port")
        assert alice.request("config", "set", "timeout", "0") == no_command("config|set")
        assert [alice.request("select", number) for number in (3, 4, 5)] == ["OK", no_command("select"), "OK"]


def test_the_binary_protocol_is_checked_by_the_same_rules(cluster: Cluster, admin: Connection) -> None:
    logged_in(cluster, admin, "+@all", "-del", "~a*").close()
    with Client(port=cluster.port, username="alice", password="pw") as alice:
        alice.set("a", b"1")
        assert alice.get("a") == b"1"
        for refused in (lambda: alice.get("b"), lambda: alice.delete("a"), lambda: alice.mget("a", "b")):
            with pytest.raises(KacheError, match="NOPERM"):
                refused()


def test_large_values_of_a_user_with_a_pattern(cluster: Cluster, admin: Connection) -> None:
    large = b"x" * 3_000_000
    with logged_in(cluster, admin, "+@all", "~a*") as alice:
        assert alice.request("set", "a", large) == "OK"
        assert alice.request("set", "b", large) == NO_KEY
        assert alice.request("get", "a") == large
    assert admin.request("exists", "b") == 0


def test_replies_that_are_off_stay_off(cluster: Cluster, admin: Connection) -> None:
    with logged_in(cluster, admin, "+@all", "~a*") as alice:
        alice.send(("client", "reply", "off"), ("get", "b"), ("client", "reply", "on"), ("client", "reply", "skip"),
                   ("get", "b"), ("get", "b"))  # fmt: skip
        assert alice.read_many(2) == ["OK", NO_KEY]


# Transactions ---------------------------------------------------------------------------------------------------------


def test_a_refusal_aborts_a_transaction(cluster: Cluster, admin: Connection) -> None:
    with logged_in(cluster, admin, "+@all", "~a*") as alice:
        alice.send(("multi",), ("set", "a", 1), ("set", "b", 1), ("exec",))
        assert alice.read_many(4) == [
            "OK", "QUEUED", NO_KEY, CommandError("EXECABORT Transaction discarded because of previous errors."),
        ]  # fmt: skip
    assert admin.request("exists", "a") == 0


CHANGED = (
    "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. "
    "This command is no longer allowed for the following reason: "
)


@pytest.mark.parametrize(
    ("queued", "replies"),
    [
        ([("set", "a", 1), ("get", "b"), ("incr", "a")], ["OK", "key", 2]),
        ([("get", "b"), ("set", "b", 1)], ["key", "key"]),
        ([("set", "a{x}", 1), ("set", "a{y}", 1), ("mget", "a{x}", "b")], ["OK", "OK", "key"]),
        ([("ping",), ("echo", "x")], ["PONG", "command"]),
        ([("set", "a", 1), ("copy", "a", "b"), ("echo", "x"), ("copy", "a", "a{z}"), ("get", "a")],
         ["OK", "key", "command", 1, b"1"]),
        ([("publish", "c", "x"), ("client", "getname")], ["channel", None]),
    ],
)  # fmt: skip
def test_rights_are_checked_again_at_exec(
    cluster: Cluster, admin: Connection, queued: list[tuple[Any, ...]], replies: list[Any]
) -> None:
    reasons = {
        "key": CommandError(CHANGED + "no permission to touch the specified keys"),
        "command": CommandError(CHANGED + "no permission to execute the command or subcommand"),
        "channel": CommandError(
            CHANGED + "no permission to access one of the channels used as arguments to the command"
        ),
    }
    with logged_in(cluster, admin, "+@all", "~*", "&*") as alice:
        alice.send(("multi",), *queued)
        assert alice.read_many(1 + len(queued)) == ["OK", *["QUEUED"] * len(queued)]
        admin.request("acl", "setuser", "alice", "resetkeys", "~a*", "resetchannels", "-echo")
        expected = [reasons.get(reply, reply) if isinstance(reply, str) else reply for reply in replies]
        assert alice.request("exec") == expected
    assert admin.request("exists", "b") == 0


def test_a_queued_auth_decides_on_what_is_behind_it(cluster: Cluster, admin: Connection) -> None:
    admin.request("acl", "setuser", "bob", "on", ">pw", "+@all", "~b*")
    with logged_in(cluster, admin, "+@all", "~*") as alice:
        alice.send(("multi",), ("set", "x", 1), ("auth", "bob", "pw"), ("set", "y", 1), ("set", "b", 1), ("exec",))
        replies = alice.read_many(6)
        assert replies[-1] == ["OK", "OK", CommandError(CHANGED + "no permission to touch the specified keys"), "OK"]
    assert [admin.request("exists", key) for key in ("x", "y", "b")] == [1, 0, 1]


# Listening ------------------------------------------------------------------------------------------------------------


def test_channels_and_patterns(cluster: Cluster, admin: Connection) -> None:
    with logged_in(cluster, admin, "+@all", "&news*", "&exact") as alice:
        assert alice.request("subscribe", "news1", "other") == NO_CHANNEL
        assert alice.request("psubscribe", "news1*") == NO_CHANNEL
        assert alice.request("ssubscribe", "other") == NO_CHANNEL
        assert alice.request("spublish", "other", "x") == NO_CHANNEL
        alice.send(("psubscribe", "news*"), ("subscribe", "news1", "exact"))
        assert [reply[:2] for reply in alice.read_many(3)] == [
            [b"psubscribe", b"news*"], [b"subscribe", b"news1"], [b"subscribe", b"exact"],
        ]  # fmt: skip
        # Leaving needs no right.
        alice.send(("unsubscribe", "other"))
        assert alice.read()[0] == b"unsubscribe"


@pytest.mark.parametrize(
    ("listens", "rules", "closed"),
    [
        (("subscribe", "a"), ["resetchannels", "&b"], True),
        (("psubscribe", "a*"), ["resetchannels", "&a"], True),
        (("ssubscribe", "a"), ["resetchannels"], True),
        (("subscribe", "a"), ["resetchannels", "&a*"], False),
        (("subscribe", "a"), ["resetchannels", "(&a)"], False),
        (("subscribe", "a"), ["-@all"], False),
        (("monitor",), ["-monitor"], True),
    ],
)
def test_who_loses_a_channel_is_closed(
    cluster: Cluster, admin: Connection, listens: tuple[str, ...], rules: list[str], closed: bool
) -> None:
    with logged_in(cluster, admin, "+@all", "~*", "&*") as alice:
        alice.request(*listens)
        assert admin.request("acl", "setuser", "alice", *rules) == "OK"
        left = [one for one in admin.request("client", "list").splitlines() if b"user=alice" in one]
        assert len(left) == (0 if closed else 1)


# Changes --------------------------------------------------------------------------------------------------------------


def test_a_deleted_user_is_gone_and_so_are_its_clients(cluster: Cluster, admin: Connection) -> None:
    with logged_in(cluster, admin, "+@all", "~*") as alice:
        assert admin.request("acl", "deluser", "alice", "nobody") == 1
        with pytest.raises(ConnectionError):
            alice.request("get", "a")
    assert admin.request("acl", "users") == [b"default"]
    assert admin.request("acl", "deluser", "default") == CommandError("ERR The 'default' user cannot be removed")


def test_who_deletes_itself_is_answered_before_it_is_closed(cluster: Cluster, admin: Connection) -> None:
    with logged_in(cluster, admin, "+@all") as alice:
        alice.send(("acl", "deluser", "alice"), ("ping",))
        assert alice.read() == 1
        with pytest.raises(ConnectionError):
            alice.read()


def test_a_user_made_again_is_another_one(cluster: Cluster, admin: Connection) -> None:
    with logged_in(cluster, admin, "+@all", "~*") as alice:
        admin.request("acl", "deluser", "alice")
        admin.request("acl", "setuser", "alice", "on", ">pw", "+@all", "~*")
        with pytest.raises(ConnectionError):
            alice.request("ping")


def test_off_leaves_who_is_connected(cluster: Cluster, admin: Connection) -> None:
    with logged_in(cluster, admin, "+ping") as alice:
        admin.request("acl", "setuser", "alice", "off")
        assert alice.request("ping") == "PONG"
        assert alice.request("auth", "alice", "pw") == WRONG


@pytest.mark.parametrize("keys", [["a"], ["a{x}", "a{y}", "a{z}"]], ids=["one shard", "several"])
def test_a_command_that_waits_is_refused_when_its_right_is_taken_away(
    cluster: Cluster, admin: Connection, keys: list[str]
) -> None:
    with logged_in(cluster, admin, "+@all", "~a*") as alice:
        alice.send(("blpop", *keys, "0"))
        until(lambda: b"blocked_clients:1\r" in admin.request("info", "clients"), "that it waits")
        admin.request("acl", "setuser", "alice", "+ping", "~more")
        assert b"blocked_clients:1\r" in admin.request("info", "clients"), "it may still wait"
        admin.request("acl", "setuser", "alice", "resetkeys")
        assert alice.read() == NO_KEY
        assert admin.request("rpush", keys[0], "x") == 1
        assert admin.request("llen", keys[0]) == 1


def test_setuser_is_all_or_nothing(admin: Connection) -> None:
    assert admin.request("acl", "setuser", "bob", "on", "+get", "~x") == "OK"
    before = admin.request("acl", "list")
    assert admin.request("acl", "setuser", "bob", "off", "+set", "nonsense") == CommandError(
        "ERR Error in ACL SETUSER modifier 'nonsense': Syntax error"
    )
    assert admin.request("acl", "setuser", "new", "+nosuch") == CommandError(
        "ERR Error in ACL SETUSER modifier '+nosuch': Unknown command or category name in ACL"
    )
    assert admin.request("acl", "setuser", "a b", "on") == CommandError(
        "ERR Usernames can't contain spaces or null characters"
    )
    assert admin.request("acl", "setuser", "bob", "(+get") == CommandError(
        "ERR Unmatched parenthesis in acl selector starting at '(+get'."
    )
    assert admin.request("acl", "list") == before


# Questions ------------------------------------------------------------------------------------------------------------


def test_what_is_told_of_a_user(admin: Connection) -> None:
    admin.request("acl", "setuser", "bob", "on", ">pw", "+get", "%R~a*", "&c", "(+set ~b)")
    admin.request("hello", 3)
    assert admin.request("acl", "getuser", "bob") == {
        b"flags": [b"on"],
        b"passwords": [b"30c952fab122c3f9759f02a6d95c3758b246b4fee239957b2d4fee46e26170c4"],
        b"commands": b"-@all +get",
        b"keys": b"%R~a*",
        b"channels": b"&c",
        b"selectors": [{b"commands": b"-@all +set", b"keys": b"~b", b"channels": b""}],
    }
    assert admin.request("acl", "getuser", "nobody") is None
    assert admin.request("acl", "list")[0] == (
        b"user bob on #30c952fab122c3f9759f02a6d95c3758b246b4fee239957b2d4fee46e26170c4 %R~a* resetchannels &c -@all +get "
        b"(~b resetchannels -@all +set)"
    )


def test_categories(admin: Connection) -> None:
    assert b"dangerous" in admin.request("acl", "cat")
    assert b"config|set" in admin.request("acl", "cat", "DANGEROUS")
    assert b"get" not in admin.request("acl", "cat", "dangerous")
    assert admin.request("acl", "cat", "nosuch") == CommandError("ERR Unknown category 'nosuch'")


def test_genpass(admin: Connection) -> None:
    assert re.fullmatch(rb"[0-9a-f]{64}", admin.request("acl", "genpass"))
    assert len(admin.request("acl", "genpass", "5")) == 2
    assert admin.request("acl", "genpass") != admin.request("acl", "genpass")
    for bits in ("0", "-1", "4097"):
        assert "a positive number up to 4096" in admin.request("acl", "genpass", bits).message


def test_dryrun(admin: Connection) -> None:
    admin.request("acl", "setuser", "bob", "+get", "+publish", "~a*")
    assert admin.request("acl", "dryrun", "bob", "get", "a") == "OK"
    assert admin.request("acl", "dryrun", "bob", "get", "b") == b"This user has no permissions to access the 'b' key"
    assert (
        admin.request("acl", "dryrun", "bob", "set", "a", "1")
        == b"This user has no permissions to run the 'set' command"
    )
    assert admin.request("acl", "dryrun", "bob", "publish", "c", "1") == (
        b"This user has no permissions to access the 'c' channel"
    )
    assert admin.request("acl", "dryrun", "nobody", "get", "a") == CommandError("ERR User 'nobody' not found")
    assert admin.request("acl", "dryrun", "bob", "nosuch") == CommandError("ERR Command 'nosuch' not found")
    assert admin.request("acl", "dryrun", "bob", "get") == CommandError(
        "ERR wrong number of arguments for 'get' command"
    )


# What was refused -----------------------------------------------------------------------------------------------------


def test_the_log_groups_what_is_alike_and_forgets_on_request(cluster: Cluster, admin: Connection) -> None:
    admin.request("acl", "log", "reset")
    admin.request("hello", 3)
    with logged_in(cluster, admin, "+get", "+multi", "+publish", "~a*") as alice:
        for _ in range(3):
            alice.request("get", "x" * 1000)
        alice.request("set", "a", 1)
        alice.request("publish", "c", "x")
        alice.request("multi")
        alice.request("get", "y")
        alice.request("reset")
        alice.request("auth", "a" * 1000, "wrong")
    log = admin.request("acl", "log")
    assert [(e[b"count"], e[b"reason"], e[b"context"], e[b"object"], e[b"username"]) for e in log] == [
        (1, b"auth", b"toplevel", b"AUTH", b"a" * 128),
        (1, b"key", b"multi", b"y", b"alice"),
        (1, b"channel", b"toplevel", b"c", b"alice"),
        (1, b"command", b"toplevel", b"set", b"alice"),
        (3, b"key", b"toplevel", b"x" * 128, b"alice"),
    ]
    assert b"user=default" in log[0][b"client-info"] and b"user=alice" in log[1][b"client-info"]
    assert len(admin.request("acl", "log", 2)) == 2
    assert admin.request("acl", "log", "reset") == "OK"
    assert admin.request("acl", "log") == []
    assert admin.request("acl", "log", "x") == CommandError("ERR value is not an integer or out of range")


def test_passwords_are_not_told(cluster: Cluster, admin: Connection) -> None:
    admin.request("config", "set", "slowlog-log-slower-than", "0")
    with cluster.connect() as watcher:
        watcher.request("monitor")
        admin.request("acl", "setuser", "bob", ">hunter2")
        admin.request("set", "seen", 1)
        lines = [watcher.read()]
        while b"seen" not in lines[-1].encode():
            lines.append(watcher.read())
    admin.request("config", "set", "slowlog-log-slower-than", "10000")
    assert not any("hunter2" in line for line in lines)
    assert "hunter2" not in str(admin.request("slowlog", "get", "-1"))
    assert "hunter2" not in cluster.log()


def test_guesses_are_slowed_down_and_a_right_password_is_not(admin: Connection, cluster: Cluster) -> None:
    admin.request("acl", "setuser", "bob", "on", ">pw", "+ping")
    guessers = [cluster.connect() for _ in range(4)]
    for guesser in guessers:
        guesser.send(*[("auth", "bob", "no")] * 4)
    with cluster.connect() as honest:
        assert honest.request("auth", "bob", "pw") == "OK"
        assert honest.request("ping") == "PONG"
    for guesser in guessers:
        assert guesser.read_many(4) == [WRONG] * 4
        guesser.close()
