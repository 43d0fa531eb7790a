"""``kache shell`` at a terminal: its prompt, and what it remembers when the connection or the cluster goes."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import DEADLINE, KACHE, Cluster, until
from ports import free_port

from kache.cli.connection import Address
from kache.cli.conversation import Conversation
from kache.cli.exits import Failure
from kache.cli.shell import _carry_out
from kache.errors import CommandError


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(1) as running:
        yield running


def words(line: str) -> list[bytes]:
    return [word.encode() for word in line.split()]


def conversation(port: int, password: str | None = None, db: int = 0) -> Conversation:
    return Conversation(Address("127.0.0.1", port, password, db=db))


def kill_connections(cluster: Cluster) -> None:
    with cluster.connect() as other:
        other.request("client", "kill", "type", "normal", "skipme", "yes")


def test_database_and_name_come_back(cluster: Cluster) -> None:
    shell = conversation(cluster.port)
    shell.connect()
    for line in ("select 3", "client setname ada", "set where three"):
        shell.request(words(line))
    assert shell.prompt == f"127.0.0.1:{cluster.port}[3]> "
    kill_connections(cluster)
    with pytest.raises(Failure, match="closed the connection"):
        shell.request(words("get where"))
    assert shell.prompt == f"127.0.0.1:{cluster.port} (not connected)> "
    assert shell.request(words("get where")) == b"three"
    assert shell.request(words("client getname")) == b"ada"
    assert shell.prompt == f"127.0.0.1:{cluster.port}[3]> "
    shell.request(words("reset"))
    assert shell.prompt == f"127.0.0.1:{cluster.port}> "
    assert shell.request(words("get where")) is None
    shell.disconnect()


def test_a_password_that_was_typed_comes_back() -> None:
    with Cluster(1, environment={"KACHE_REQUIREPASS": "sesame"}) as cluster:
        shell = conversation(cluster.port, db=2)
        shell.connect()
        assert shell.needs_password
        with pytest.raises(CommandError, match="NOAUTH"):
            shell.request(words("get k"))
        shell.request(words("auth sesame"))
        assert shell.request(words("hgetall none")) == {}  # RESP3, as it should be
        shell.request(words("set k v"))
        with pytest.raises(Failure):
            shell.request(words("client kill type normal skipme no"))
            shell.request(words("ping"))
        assert shell.request(words("get k")) == b"v"
        assert shell.prompt.endswith("[2]> ")
        shell.request(words("config set requirepass other"))
        shell.disconnect()
        with pytest.raises(
            Failure, match=r"it cannot be as before \(database 2\), so the connection was closed: WRONGPASS"
        ):
            shell.request(words("flushdb"))
        assert "not connected" in shell.prompt
        assert shell.request(words("auth other")) == b"OK"
        assert shell.request(words("get k")) == b"v"
        shell.disconnect()


def test_the_prompt_shows_an_open_transaction(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = conversation(cluster.port)
    shell.connect()
    open_, closed = f"127.0.0.1:{cluster.port}(TX)> ", f"127.0.0.1:{cluster.port}> "
    assert shell.request(words("multi")) == "OK" and shell.prompt == open_
    assert shell.request(words("set k v")) == "QUEUED" and shell.request(words("select 4")) == "QUEUED"
    with pytest.raises(CommandError, match="ERR"):
        shell.request(words("exec now"))
    assert shell.prompt == open_
    with pytest.raises(CommandError, match="EXECABORT"):
        shell.request(words("exec"))
    assert shell.prompt == closed
    for line in ("multi", "select 4", "exec"):
        shell.request(words(line))
    assert shell.prompt == f"127.0.0.1:{cluster.port}[4]> "
    for line in ("select 0", "multi", "discard"):
        shell.request(words(line))
    assert shell.prompt == closed
    shell.request(words("multi"))
    assert shell._connection is not None
    lost = CommandError("UNCERTAIN a shard was lost")
    monkeypatch.setattr(shell._connection, "request", lambda words: (_ for _ in ()).throw(lost))
    with pytest.raises(CommandError, match="UNCERTAIN"):
        shell.request(words("exec"))
    assert shell.prompt == closed
    shell.disconnect()


@pytest.mark.parametrize("line", ["set k v", "exec"])
def test_a_connection_that_is_lost_with_a_transaction(
    cluster: Cluster, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was never sent was not executed; of EXEC that cannot be said."""
    shell = conversation(cluster.port)
    shell.connect()
    shell.request(words("multi"))
    kill_connections(cluster)
    _carry_out(shell, line)
    said = capsys.readouterr().out
    assert ("nothing of it was executed" in said) == (line != "exec")
    assert ("not known" in said) == (line == "exec")
    assert not shell.in_transaction
    shell.disconnect()


class Terminal:
    """``kache shell`` on a pseudo-terminal, without prompt_toolkit."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        (home / "prompt_toolkit.py").write_text("raise ImportError\n")
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*KACHE, "shell"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={
                **cluster.environment,
                "KACHE_PORT": str(cluster.port),
                "PYTHONPATH": str(home),
                "XDG_STATE_HOME": str(home),
                "TERM": "dumb",
                "NO_COLOR": "1",
            },
        )
        os.close(slave)
        self.seen = ""

    def until(self, text: str) -> str:
        """What is shown up to `text`."""
        end = time.monotonic() + DEADLINE
        while text not in self.seen:
            assert time.monotonic() < end, f"no {text!r} in {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536).decode()
        shown, _, self.seen = self.seen.partition(text)
        return shown

    def type(self, line: str) -> None:
        os.write(self.master, line.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def test_a_session(cluster: Cluster, home: Path) -> None:
    terminal = Terminal(cluster, home)
    prompt = f"127.0.0.1:{cluster.port}> "
    try:
        terminal.until(prompt)
        terminal.type('set k "one\n')
        terminal.until("... ")
        terminal.type('two"\n')
        terminal.until("OK")
        terminal.until(prompt)
        terminal.type("get k\n")
        terminal.until('"one\\ntwo"')
        terminal.type("select 5\n")
        terminal.until(f"127.0.0.1:{cluster.port}[5]> ")
        terminal.type("config set requirepass ''\nauth hidden\n")
        terminal.until("(error)")
        kill_connections(cluster)
        terminal.type("set lost 1\n")
        terminal.until("closed the connection.")
        terminal.until(f"127.0.0.1:{cluster.port}[5]> ")
        terminal.type("set here 1\n")
        terminal.until("OK")
        assert cluster.request("dbsize") == 1
        terminal.type("help gte\n")
        terminal.until("There is no command 'gte'. Did you mean 'get'?")
        terminal.until("[5]> ")
        terminal.type("\x04")
        assert terminal.process.wait(DEADLINE) == 0
        kept = (home / "kache" / "history").read_text()
        assert "select 5" in kept and "set here 1" in kept
        assert "requirepass" not in kept and "auth" not in kept
    finally:
        terminal.close()


def test_it_outlives_the_cluster(home: Path) -> None:
    cluster = Cluster(1, port=free_port())
    with cluster:
        terminal = Terminal(cluster, home)
        try:
            terminal.until("> ")
            terminal.type("select 2\n")
            terminal.until("[2]> ")
        except BaseException:
            terminal.close()
            raise
    try:
        terminal.type("flushdb\n")
        terminal.until("closed the connection.")
        terminal.until("(not connected)> ")
        terminal.type("get k\n")
        terminal.until("No cluster answers at")
        terminal.until("(not connected)> ")
        with Cluster(1, port=cluster.port):
            terminal.type("set k v\n")
            terminal.until("OK")
            terminal.until("[2]> ")
            terminal.type("\x03")
            terminal.type("exit\n")
            assert terminal.process.wait(DEADLINE) == 0
    finally:
        terminal.close()


def test_it_starts_where_no_cluster_is(home: Path) -> None:
    with Cluster(1, port=free_port()) as cluster:
        pass
    terminal = Terminal(cluster, home)
    try:
        terminal.until("No cluster answers at")
        terminal.until("Each command tries again.")
        terminal.until("(not connected)> ")
        terminal.type("\x04")
        assert until(lambda: terminal.process.poll() is not None, "its end")
    finally:
        terminal.close()
