"""The real redis-cli and redis-benchmark against a cluster, as people use them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest
from cluster import DEADLINE, Cluster

CLI = shutil.which("redis-cli")
BENCHMARK = shutil.which("redis-benchmark")

pytestmark = pytest.mark.skipif(not CLI or not BENCHMARK, reason="redis-cli or redis-benchmark is not installed")

KEYS = 500
DEFAULT_TESTS = {
    "PING_INLINE",
    "PING_MBULK",
    "SET",
    "GET",
    "INCR",
    "LPUSH",
    "RPUSH",
    "LPOP",
    "RPOP",
    "SADD",
    "HSET",
    "SPOP",
    "ZADD",
    "ZPOPMIN",
    "LPUSH (needed to benchmark LRANGE)",
    "LRANGE_100 (first 100 elements)",
    "LRANGE_300 (first 300 elements)",
    "LRANGE_500 (first 500 elements)",
    "LRANGE_600 (first 600 elements)",
    "MSET (10 keys)",
}


@pytest.fixture
def filled(cluster: Cluster) -> Cluster:
    """With strings `key:0` … and one key of every other type, the largest of it."""
    with cluster.connect() as connection:
        connection.request("flushall")
        connection.send(*[("set", f"key:{number}", "v" * (1 + number % 50)) for number in range(KEYS)])
        connection.send(("set", "largest", "x" * 5000), ("rpush", "list", *range(40)), ("sadd", "set", *range(30)))
        connection.send(("hset", "hash", *range(20)), ("zadd", "zset", *range(100)))
        connection.read_many(KEYS + 5)
    return cluster


def arguments(cluster: Cluster, *words: object) -> list[str]:
    assert CLI is not None
    return [CLI, "-p", str(cluster.port), *map(str, words)]


def cli(cluster: Cluster, *words: object, data: str | bytes | None = None) -> str:
    """Its output; anything on its error stream fails the test."""
    done = subprocess.run(
        arguments(cluster, *words),
        input=data.encode() if isinstance(data, str) else data,
        stdin=subprocess.DEVNULL if data is None else None,
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, (done.returncode, done.stdout[-500:], done.stderr)
    return done.stdout.decode()


def test_one_command(cluster: Cluster) -> None:
    assert cli(cluster, "set", "greeting", "hello world") == "OK\n"
    assert cli(cluster, "get", "greeting") == "hello world\n"
    assert cli(cluster, "--no-raw", "get", "nothing") == "(nil)\n"
    assert cli(cluster, "-n", 3, "get", "greeting") == "\n"
    assert cli(cluster, "-x", "set", "from-stdin", data="piped") == "OK\n"
    assert cli(cluster, "--json", "get", "from-stdin") == '"piped"\n'
    assert cli(cluster, "--csv", "mget", "greeting", "none") == '"hello world",NULL\n'
    assert cli(cluster, "-r", 3, "incr", "repeated") == "1\n2\n3\n"
    assert cli(cluster, data="set a 1\nincr a\n\nget a\n") == "OK\n2\n2\n"
    assert cli(cluster, "info", "server").startswith("# Server\r\n")
    assert cli(cluster, "nonsense", "x").startswith("ERR unknown command 'nonsense', with args beginning with: 'x'")


def test_resp3(cluster: Cluster) -> None:
    cluster.request("del", "{3}hash", "{3}set", "{3}zset")
    cluster.request("hset", "{3}hash", "field", "value")
    cluster.request("sadd", "{3}set", "member")
    cluster.request("zadd", "{3}zset", "1.5", "name")
    assert cli(cluster, "-3", "--no-raw", "hgetall", "{3}hash") == '1# "field" => "value"\n'
    assert cli(cluster, "-3", "--no-raw", "smembers", "{3}set") == '1~ "member"\n'
    assert cli(cluster, "-3", "--no-raw", "zscore", "{3}zset", "name") == "(double) 1.5\n"
    assert cli(cluster, "-3", "--no-raw", "hget", "{3}hash", "none") == "(nil)\n"
    assert cli(cluster, "-3", "--json", "hgetall", "{3}hash") == '{"field":"value"}\n'
    assert cli(cluster, "-2", "--no-raw", "hgetall", "{3}hash") == '1) "field"\n2) "value"\n'


def test_scan(filled: Cluster) -> None:
    names = cli(filled, "--scan").split()
    assert set(names) == {f"key:{number}" for number in range(KEYS)} | {"largest", "list", "set", "hash", "zset"}
    found = cli(filled, "--scan", "--pattern", "key:1*").split()
    assert set(found) == {name for name in names if name.startswith("key:1")}
    assert cli(filled, "--scan", "--quoted-pattern", '"\\x6cist"') == "list\n"


def test_bigkeys(filled: Cluster) -> None:
    output = cli(filled, "--bigkeys")
    assert f"Sampled {KEYS + 5} keys in the keyspace!" in output
    for line in (
        "Biggest string found '\"largest\"' has 5000 bytes",
        "Biggest   list found '\"list\"' has 40 items",
        "Biggest    set found '\"set\"' has 30 members",
        "Biggest   hash found '\"hash\"' has 10 fields",
        "Biggest   zset found '\"zset\"' has 50 members",
        "0 streams with 0 entries",
    ):
        assert line in output


def test_memkeys(filled: Cluster) -> None:
    output = cli(filled, "--memkeys")
    assert f"Sampled {KEYS + 5} keys in the keyspace!" in output
    biggest = re.search(r"Biggest string found '\"largest\"' has (\d+) bytes", output)
    assert biggest and 5000 <= int(biggest[1]) < 7000
    for name in ("list", "set", "hash", "zset"):
        assert re.search(rf"Biggest +{name} found '\"{name}\"' has \d+ bytes", output)


def test_hotkeys_needs_an_lfu_policy(filled: Cluster) -> None:
    """Or one that counts uses, as the default does."""
    before = cli(filled, "config", "get", "maxmemory-policy").split()[1]
    cli(filled, "config", "set", "maxmemory-policy", "allkeys-lru")
    refused = subprocess.run(
        arguments(filled, "--hotkeys"), capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert "An LFU maxmemory policy is not selected" in refused.stdout + refused.stderr
    cli(filled, "config", "set", "maxmemory-policy", "allkeys-lfu")
    try:
        for _ in range(20):
            filled.request("get", "largest")
        assert "hot key found with counter" in cli(filled, "--hotkeys")
    finally:
        cli(filled, "config", "set", "maxmemory-policy", before)


def test_pipe(cluster: Cluster) -> None:
    cluster.request("flushall")
    inline = "".join(f"SET key:{number} value\r\n" for number in range(2000))
    output = cli(cluster, "--pipe", data=inline)
    assert "errors: 0, replies: 2000" in output
    framed = b"".join(b"*3\r\n$4\r\nSADD\r\n$1\r\ns\r\n$%d\r\n%d\r\n" % (len(b"%d" % n), n) for n in range(2000))
    assert "errors: 0, replies: 2000" in cli(cluster, "--pipe", data=framed)
    assert cluster.request("dbsize") == 2001 and cluster.request("scard", "s") == 2000


def test_latency(cluster: Cluster) -> None:
    """Without a terminal it measures for a second and prints minimum, maximum, average and how many."""
    minimum, maximum, average, samples = cli(cluster, "--latency").split()
    assert 0 <= float(minimum) <= float(average) <= float(maximum) and int(samples) > 10


def test_stat(filled: Cluster) -> None:
    with Terminal(arguments(filled, "--stat", "-i", "0.1")) as terminal:
        shown = terminal.until(rf"{KEYS + 5} +\d[\d.]*[KMG] +\d+ +\d+ +\d+ \(\+\d+\) +\d+")
    assert "------- data ------ --------------------- load -------------------- - child -" in shown


class Terminal:
    """A program in a terminal of its own, 200 columns wide."""

    def __init__(self, command: list[str], home: Path = Path("/nonexistent")) -> None:
        self.shown = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(command[0], command, {"TERM": "xterm", "HOME": str(home), "PATH": os.environ["PATH"]})
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))

    def type(self, keys: str) -> None:
        """Press keys; forget what was shown before."""
        self.shown = ""
        os.write(self.fd, keys.encode())

    def until(self, pattern: str) -> str:
        """What was shown since the last keys, once `pattern` is in it; colours removed."""
        deadline = time.monotonic() + DEADLINE
        while not re.search(pattern, plain := re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", self.shown)):
            assert time.monotonic() < deadline, f"{pattern!r} not in {plain!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                self.shown += os.read(self.fd, 65536).decode(errors="replace")
        return plain

    def ended(self) -> int:
        """Wait for its end; its exit code."""
        deadline = time.monotonic() + DEADLINE
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, "still running"
            with contextlib.suppress(OSError):
                if select.select([self.fd], [], [], 0.01)[0]:
                    os.read(self.fd, 65536)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


def test_interactively(cluster: Cluster, tmp_path: Path) -> None:
    """Hints and completion come from COMMAND DOCS: redis-cli does not know ZQUERY and LGET by itself."""
    prompt = rf"127\.0\.0\.1:{cluster.port}"
    with Terminal(arguments(cluster), tmp_path) as terminal:
        terminal.until(rf"{prompt}> $")
        terminal.type("zquery ")
        terminal.until(r"zquery key score name offset limit")
        terminal.type("b 1 ")
        terminal.until(r"zquery b 1 name offset limit")
        terminal.type("\x15lge\t")
        terminal.until(r"LGET key")
        terminal.type("\x15config get\t")
        terminal.until(r"CONFIG GET parameter \[parameter \.\.\.\]")
        # What is typed before the prompt is back would be thrown away by redis-cli.
        for line, answer in (
            ("\x15set k v ex 100", r"OK\r\n"),
            ("ttl k", r"\(integer\) (100|\d\d)\r\n"),
            ("help zquery", r"ZQUERY key score name offset limit.*summary: .*since: .*group: sorted-set.*"),
            ("get", r"\(error\) ERR wrong number of arguments for 'get' command\r\n"),
            ("info memory", r"# Memory\s+used_memory:\d+.*"),
            ("hello 3", r'1# "server" => "redis"\r\n2# "version" => "[\d.]+"\r\n3# "proto" => \(integer\) 3\r\n.*'),
            ("hello 2", r"6\) \(integer\) 2\r\n.*"),
        ):
            terminal.type(f"{line}\r")
            terminal.until(rf"(?s){answer}{prompt}> $")
        terminal.type("select 3\r")
        terminal.until(rf"OK\r\n{prompt}\[3\]> $")
        terminal.type("quit\r")
        assert terminal.ended() == 0


@pytest.mark.parametrize("options", [["-P", "1"], ["-P", "16", "-3"]], ids=["plain", "pipelined-resp3"])
def test_the_whole_default_list_of_redis_benchmark(cluster: Cluster, options: list[str]) -> None:
    cluster.request("flushall")
    assert BENCHMARK is not None
    done = subprocess.run(
        [BENCHMARK, "-p", str(cluster.port), "-n", "800", "-c", "10", "-r", "1000", "--csv", *options],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done
    assert not re.search("error|warning", done.stdout, re.IGNORECASE), done.stdout
    rates = dict(re.findall(r'^"([^"]+)","([\d.]+|inf)"', done.stdout, re.MULTILINE))
    assert set(rates) == DEFAULT_TESTS and all(float(rate) > 0 for rate in rates.values()), done.stdout


def test_redis_benchmark_with_a_command_of_its_user(cluster: Cluster) -> None:
    assert BENCHMARK is not None
    done = subprocess.run(
        [BENCHMARK, "-p", str(cluster.port), "-n", "500", "-c", "5", "-r", "99", "-q", "zadd", "own", "__rand_int__", "m:__rand_int__"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr and "requests per second" in done.stdout, done
    assert cluster.request("zcard", "own") > 0
