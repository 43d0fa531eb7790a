"""MONITOR over all routers: every command of every client as a line, without passwords."""

from __future__ import annotations

import re
import select
import time
from collections.abc import Iterator

import pytest
from cluster import Cluster, Connection, until

LINE = re.compile(r'\d+\.\d{6} \[(\d+) ([^\]]+)\]((?: "(?:[^"\\]|\\.)*")+)')


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2, routers=2) as running:
        yield running


def shown(connection: Connection) -> tuple[str, str]:
    """Database and words of the next line."""
    match = LINE.fullmatch(connection.read())
    assert match is not None
    return match[1], match[3].strip()


def shown_until(monitor: Connection, last: str) -> list[tuple[str, str]]:
    found = []
    while not found or last not in found[-1][1]:
        found.append(shown(monitor))
    return found


@pytest.mark.parametrize("protocol", [2, 3])
def test_commands_of_all_routers(cluster: Cluster, protocol: int) -> None:
    with cluster.connect() as monitor:
        monitor.request("HELLO", protocol)
        assert monitor.request("MONITOR") == "OK"
        clients: list[Connection] = []
        routers: set[int] = set()
        while len(routers) < 2 or len(clients) < 4:
            assert len(clients) < 100, "all connections go to one router"
            clients.append(cluster.connect())
            routers.add(clients[-1].request("CLIENT", "ID") >> 48)
            assert shown(monitor)[1] == '"CLIENT" "ID"'
        for number, client in enumerate(clients):
            client.request("SELECT", 3)
            client.request("sEt", f"key:{number}", b'a\r\n"\\\x00\xff')
            found = shown_until(monitor, "key:")
            assert found[-1] == ("3", f'"sEt" "key:{number}" "a\\r\\n\\"\\\\\\x00\\xff"')
        for client in clients:
            client.close()


def test_transactions_are_shown_when_they_are_executed(cluster: Cluster) -> None:
    with cluster.connect() as monitor, cluster.connect() as client:
        monitor.request("MONITOR")
        client.request("MULTI")
        client.request("SET", "a", 1)
        client.request("get", "b")
        assert shown(monitor)[1] == '"MULTI"'
        assert monitor.request("PING") == "PONG"
        assert shown(monitor)[1] == '"PING"'
        client.request("EXEC")
        assert [shown(monitor)[1] for _ in range(3)] == ['"SET" "a" "1"', '"get" "b"', '"EXEC"']


def test_secrets_and_administration_are_not_shown(cluster: Cluster) -> None:
    with cluster.connect() as monitor, cluster.connect() as client:
        monitor.request("MONITOR")
        client.request("AUTH", "default", "secret")
        client.request("AUTH", "secret")
        client.request("HELLO", "3", "AUTH", "default", "secret", "SETNAME", "me")
        client.request("CONFIG", "GET", "maxmemory")
        client.request("ECHO", "end")
        found = [words for _, words in shown_until(monitor, "end")]
        assert found == [
            '"AUTH" "(redacted)" "(redacted)"', '"AUTH" "(redacted)"',
            '"HELLO" "3" "AUTH" "(redacted)" "(redacted)" "SETNAME" "me"', '"ECHO" "end"',
        ]  # fmt: skip


def test_scripts_are_shown_and_what_is_refused_is_not(cluster: Cluster) -> None:
    library = "#!lua name=shown\nserver.register_function{function_name='seen', callback=function() return 1 end, flags={'no-writes'}}"
    with cluster.connect() as client:
        client.request("FUNCTION", "LOAD", "REPLACE", library)
        digest = client.request("SCRIPT", "LOAD", "return 1").decode()
        client.request("ACL", "SETUSER", "reader", "on", "nopass", "~*", "+get", "+echo", "+auth")
    asked: list[tuple[object, ...]] = [
        ("EVAL", "return 1", 0), ("EVAL", "return 1", 2, "a", "b"), ("EVAL_RO", "return 1", 1, "a"), ("EVALSHA", digest, 0),
        ("EVALSHA_RO", digest, 1, "c"), ("FCALL", "seen", 0), ("FCALL_RO", "seen", 1, "a"),
    ]  # fmt: skip
    refused: list[tuple[object, ...]] = [
        ("GET",),
        ("nosuch", "x"),
        ("CLIENT",),
        ("CLIENT", "nosuch"),
        ("EVAL", "return 1"),
    ]
    with cluster.connect() as monitor, cluster.connect() as client:
        monitor.request("MONITOR")
        for words in asked:
            assert client.request(*words) == 1
        for words in refused:
            assert client.request(*words).message.startswith("ERR ")
        client.request("MULTI")
        client.request("EVAL", "return 1", 0)
        assert client.request("EXEC") == [1]
        assert client.request("AUTH", "reader", "") == "OK"
        assert client.request("SET", "a", 1).message.startswith("NOPERM ")
        client.request("ECHO", "end")
        found = [words for _, words in shown_until(monitor, "end")]
    shown_ones = [" ".join(f'"{word}"' for word in words) for words in asked]
    assert found == [
        *shown_ones, '"MULTI"', '"EVAL" "return 1" "0"', '"EXEC"', '"AUTH" "(redacted)" "(redacted)"', '"ECHO" "end"',
    ]  # fmt: skip


def test_times_have_microseconds(cluster: Cluster) -> None:
    with cluster.connect() as monitor, cluster.connect() as client:
        monitor.request("MONITOR")
        stamps = []
        for _ in range(20):
            client.request("PING")
            stamps.append(float(monitor.read().split()[0]))
        assert abs(stamps[-1] - time.time()) < 60
        assert any(round(stamp * 1_000_000) % 1000 for stamp in stamps)


def test_it_ends_with_reset_and_with_its_connection(cluster: Cluster) -> None:
    with cluster.connect() as monitor, cluster.connect() as client:
        monitor.request("MONITOR")
        assert "flags=O " in client.request("CLIENT", "LIST").decode()
        monitor.send(("RESET",))
        while monitor.read() != "RESET":
            pass
        client.request("SET", "quiet", 1)
        assert monitor.request("ECHO", "x") == b"x"
    with cluster.connect() as client:
        until(lambda: "flags=O " not in client.request("CLIENT", "LIST").decode(), "the monitor is gone")
        assert client.request("SET", "quiet", 1) == "OK"


def test_it_goes_on_when_its_shard_was_lost(cluster: Cluster) -> None:
    with cluster.connect() as monitor, cluster.connect() as client:
        monitor.request("MONITOR")
        cluster.kill(cluster.pid_of("shard", 0))
        until(lambda: client.request("SET", "b", "1") == "OK" and client.request("SET", "a", "1") == "OK", "it is back")

        def seen() -> bool:
            # What was executed before the monitor's router has its shard back is not shown.
            client.request("ECHO", "back")
            come = monitor.buffer or select.select([monitor.socket], [], [], 0.2)[0]
            return bool(come) and '"back"' in shown(monitor)[1]

        until(seen, "lines come again")
