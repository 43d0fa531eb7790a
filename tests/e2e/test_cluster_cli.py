"""The command line against a real cluster: what a user types, sees, and can test in a script."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from cluster import DEADLINE, KACHE, Cluster

from kache.cli.exits import PASSWORD_HINT


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2, maxmemory="64mb") as running:
        yield running


def test_ready_means_that_every_shard_answers() -> None:
    with Cluster(4) as running:
        assert running.request("mset", *[word for key in "abcdefghij" for word in (key, "1")]) == "OK"
        assert running.request("dbsize") == 10
        assert {child["state"] for child in running.status()["children"]} == {"up"}


def test_data_commands(cluster: Cluster) -> None:
    assert cluster.kache("set", "greeting", "hello").stdout == "OK\n"
    assert cluster.kache("get", "greeting").stdout == "hello\n"
    assert cluster.kache("get", "--pretty", "greeting").stdout == '"hello"\n'
    assert cluster.kache("exec", "--json", "mget", "greeting", "none").stdout == '["hello", null]\n'
    assert cluster.kache("incrby", "number", "-5").stdout == "-5\n"
    assert cluster.kache("set", "-x", "piped", data="from stdin").stdout == "OK\n"
    assert cluster.kache("strlen", "piped").stdout == "10\n"


def test_exit_status(cluster: Cluster) -> None:
    cluster.kache("set", "text", "x")
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))  # taken, but nobody listens: a connection is refused
    port = silent.getsockname()[1]
    for arguments, status, error in (
        (("get", "none"), 4, ""),
        (("incr", "text"), 1, "(error) ERR value is not an integer or out of range\n"),
        (("gett", "k"), 2, "kache: There is no command 'gett'. Did you mean 'get'? See `kache --help`.\n"),
        (("ping", "--port", port), 3, f"kache: No cluster answers at 127.0.0.1:{port}: Connection refused.\n"),
        (("cluster", "stop", "--port", port), 3, f"kache: No cluster runs on port {port}.\n"),
        (("cluster", "start", "--shards", "many"), 2, None),
        (("cluster", "start", "--nonsense"), 2, None),
        (("ping", "--timeout", "nan"), 2, None),
        (("cluster", "stop", "--timeout", "-1"), 2, None),
        (("completion",), 2, None),
        (("stats", "--shard", "9"), 1, "kache: There is no shard 9.\n"),
    ):
        done = cluster.kache(*arguments, check=False)
        assert done.returncode == status, (arguments, done)
        assert error is None or done.stderr == error
        assert done.stderr.count("\n") <= 1
    silent.close()


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (("psubscribe", "a"), "PSUBSCRIBE is for a connection that stays open, and this one ends with its reply: kache subscribe --pattern PATTERN."),
        (("exec", "subscribe", "a"), "kache subscribe CHANNEL."), (("exec", "ssubscribe", "a"), "kache subscribe --shard CHANNEL."),
        (("exec", "MONITOR"), "kache monitor."), (("exec", "client", "Tracking", "on", "bcast"), "kache.Client(near_cache=...)"),
        (("exec", "client", "reply", "skip"), "kache shell."),
    ],
)  # fmt: skip
def test_what_needs_a_connection_that_stays_is_refused(cluster: Cluster, words: tuple[str, ...], instead: str) -> None:
    done = cluster.kache(*words, check=False)
    assert done.returncode == 2 and done.stdout == "" and instead in done.stderr


def test_ping(cluster: Cluster) -> None:
    assert cluster.kache("ping").stdout.startswith("PONG (")


def test_stats(cluster: Cluster) -> None:
    cluster.request("flushall")
    for number in range(100):
        cluster.request("set", f"key:{number}", "x", *(("ex", 100) if number % 2 else ()))
    found = json.loads(cluster.kache("stats", "--json").stdout)
    assert [row["shard"] for row in found["shards"]] == [0, 1]
    assert found["total"]["keys"] == 100
    assert found["total"]["expires"] == 50
    assert all(row["pid"] == cluster.pid_of("shard", row["shard"]) for row in found["shards"])
    lines = cluster.kache("stats").stdout.splitlines()
    assert lines[0].split()[:3] == ["shard", "keys", "with"]
    assert lines[3].split()[:3] == ["total", "100", "50"]
    # Under `auto`, the default, a line says what it follows.
    _, row, followed = cluster.kache("stats", "--shard", 1).stdout.splitlines()
    assert row.split()[0] == "1" and followed.startswith("shard 1 follows s3fifo")


def test_shell_reads_a_pipe(cluster: Cluster) -> None:
    done = cluster.kache("shell", data='set "a b" "\\x41"\n\nget "a b"\n')
    assert done.stdout == "OK\nA\n"
    assert cluster.kache("shell", data="nonsense\n", check=False).returncode == 1
    done = cluster.kache("shell", data="multi\nset a 1\nset b 2\nexec\n")
    assert done.stdout.splitlines() == ["OK", "QUEUED", "QUEUED", "OK", "OK"]


def test_commands_and_help() -> None:
    for arguments, piece in (
        (["--help"], "Start, stop, restart and look at a cluster."),
        (["get", "--help"], "GET key"),
        (["commands"], "zquery"),
        (["commands", "config", "get"], "CONFIG GET"),
        (["cluster", "start", "--help"], "--maxmemory-policy"),
        (["cluster", "settings"], "max-frame-bytes"),
        (["--version"], "kache, version 0.1.0"),
        (["completion", "bash"], "_KACHE_COMPLETE"),
        (["completion", "zsh"], "_KACHE_COMPLETE"),
        (["completion", "fish"], "_KACHE_COMPLETE"),
    ):
        done = subprocess.run([*KACHE, *arguments], capture_output=True, text=True, timeout=DEADLINE, check=True)
        assert piece in done.stdout, arguments


def test_completion_completes() -> None:
    environment = {
        **os.environ,
        "_KACHE_COMPLETE": "bash_complete",
        "COMP_WORDS": "kache cluster st",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(KACHE, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert {line.split(",")[1] for line in done.stdout.splitlines()} == {"start", "status", "stop"}


def test_password() -> None:
    with Cluster(1, environment={"KACHE_REQUIREPASS": "sesame"}) as cluster:
        without = {**cluster.environment, "KACHE_PORT": str(cluster.port)}
        without.pop("KACHE_REQUIREPASS")
        refused = subprocess.run(
            [*KACHE, "get", "k"], env=without, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert (refused.returncode, refused.stderr) == (1, f"(error) NOAUTH Authentication required. {PASSWORD_HINT}\n")
        for arguments in (["stats"], ["stats", "--json"], ["ping"], ["get", "-n", "3", "k"], ["shell"]):
            done = subprocess.run(
                [*KACHE, *arguments], env=without, input="get k\n", capture_output=True, text=True, timeout=DEADLINE,
                check=False,
            )  # fmt: skip
            assert done.returncode == 1, arguments
            assert done.stderr.endswith(f"{PASSWORD_HINT}\n"), arguments
        asked = subprocess.run(
            [*KACHE, "cluster", "status"], env=without, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert asked.returncode == 0  # the owner of the processes needs no password
        assert cluster.kache("set", "k", "v", "--password", check=False).returncode != 0
        assert cluster.kache("get", "k", check=False).returncode == 4
        wrong = cluster.kache("get", "--password", "open", "k", check=False)
        assert wrong.returncode == 1
        assert "WRONGPASS" in wrong.stderr


def test_watch_ends_with_its_reader(cluster: Cluster) -> None:
    watching = subprocess.Popen(
        [*KACHE, "stats", "--watch", "--interval", "0.1"],
        env={**cluster.environment, "KACHE_PORT": str(cluster.port)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert watching.stdout is not None
    assert watching.stderr is not None
    while b"total" not in watching.stdout.readline():
        pass
    watching.stdout.close()
    started = time.monotonic()
    watching.wait(DEADLINE)
    assert time.monotonic() - started < 5
    assert b"Traceback" not in watching.stderr.read()
    watching.stderr.close()
