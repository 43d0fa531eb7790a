"""`kache top` in a real terminal: tmux, at two sizes, with keys pressed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import DEADLINE, KACHE, Cluster, until

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="no tmux here")


class Terminal:
    """One window of a tmux server of its own."""

    def __init__(self, folder: Path, width: int, height: int, command: list[str], environment: dict[str, str]) -> None:
        self._socket = str(folder / "tmux")
        variables = [f"{name}={environment[name]}" for name in environment if name.startswith("KACHE_")]
        self.run(
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            str(width),
            "-y",
            str(height),
            shlex.join(["env", *variables, *command]),
        )

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, *arguments], capture_output=True, text=True, timeout=DEADLINE, check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"},
        )  # fmt: skip
        return done.stdout

    def screen(self) -> str:
        """What is seen now."""
        return self.run("capture-pane", "-p")

    def press(self, *keys: str) -> None:
        self.run("send-keys", *keys)

    def close(self) -> None:
        self.run("kill-server")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2, maxmemory="64mb", environment={"KACHE_REQUIREPASS": "sesame"}) as cluster:
        with cluster.connect() as connection:
            connection.request("auth", "sesame")
            for number in range(200):
                connection.request("set", f"key:{number}", "x" * number)
                connection.request("get", "favourite")
            connection.request("set", "largest", "y" * 100_000)
        yield cluster


@pytest.fixture(params=[(80, 24), (160, 50)], ids=["small", "large"])
def terminal(request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path) -> Iterator[Terminal]:
    width, height = request.param
    environment = {**cluster.environment, "KACHE_PORT": str(cluster.port)}
    found = Terminal(tmp_path, width, height, [sys.executable, *KACHE[1:], "top", "--interval", "0.3"], environment)
    try:
        until(lambda: " q  quit" in found.screen(), "the screen")
        yield found
    finally:
        found.close()


def test_it_follows_keys(terminal: Terminal) -> None:
    until(lambda: re.search(r"[1-9]\d* commands/s +1 client ", terminal.screen()), "rates")
    first = terminal.screen()
    assert "2 shards, 1 router" in first.splitlines()[0]
    assert "of 64mb" in first
    assert "Traceback" not in first
    terminal.press("Tab", "Tab")  # hot keys
    until(lambda: "favourite" in terminal.screen(), "the hot key")
    terminal.press("Tab")
    until(lambda: re.search(r"largest +\d+(\.\d)?kb +string", terminal.screen()), "the big key")
    terminal.press("s")
    until(lambda: "sort: load" in terminal.screen(), "another order")
    terminal.press("p")
    until(lambda: "PAUSED" in terminal.screen(), "a pause")
    terminal.press("p", "Down")
    until(
        lambda: "─ shard 0 " in terminal.screen() and "Keys held, in all databases." in terminal.screen(), "one shard"
    )
    terminal.press("q")
    until(lambda: not terminal.screen().strip(), "its end")


def test_it_waits_for_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    with Cluster(1) as cluster:
        environment = {**cluster.environment, "KACHE_PORT": str(cluster.port)}
        command = [sys.executable, *KACHE[1:], "top", "--interval", "0.2", "--timeout", "0.5"]
        terminal = Terminal(tmp_path, 80, 24, command, environment)
        try:
            until(lambda: " q  quit" in terminal.screen(), "the screen")
            router = cluster.pid_of("router")
            cluster.kill(router, signal.SIGSTOP)
            until(lambda: "did not answer in time" in terminal.screen(), "the trouble")
            cluster.kill(router, signal.SIGCONT)
            until(
                lambda: "did not answer in time" not in (shown := terminal.screen()) and "1 shard, 1 router" in shown,
                "the cluster again",
            )
        finally:
            terminal.close()


def test_without_a_terminal(cluster: Cluster) -> None:
    done = cluster.kache("top", check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "kache: kache top needs a terminal; --once prints one screen without.\n",
    )
    done = cluster.kache("top", "--once", "--interval", "0.2")
    assert "2 shards, 1 router" in done.stdout
    assert done.stderr == ""
    wrong = cluster.kache("top", "--once", "--password", "open", check=False)
    assert wrong.returncode == 1 and "WRONGPASS" in wrong.stderr


def test_hot_shows_both(cluster: Cluster) -> None:
    until(lambda: "largest" in cluster.kache("hot").stdout, "the sweep")
    lines = cluster.kache("hot", "--count", "3").stdout.splitlines()
    assert lines[0].split() == ["hot", "key", "of", "all", "per", "second", "shard", "db"]
    assert lines[1].split()[0] == "favourite"
    assert float(lines[1].split()[1].rstrip("%")) > 30
    assert lines[6].split()[0] == "largest"
    assert '"type": "string"' in cluster.kache("hot", "--json").stdout
    assert cluster.kache("hot", "--count", "0", check=False).returncode == 2
    assert cluster.kache("hotkeys", "-1", check=False).returncode == 1
