"""A real cluster for a test, started through the command line as a user starts it.

    with Cluster(shards=4) as cluster:
        cluster.request("set", "k", "v")          # one command over RESP
        cluster.kill(cluster.pid_of("shard", 2))

On a free port, in a directory of its own, tied to this process by --exit-with-fd, so that it cannot outlive a crashed
test. Leaving the block stops it and asserts that none of its processes and files is left. Nothing here sleeps for a
fixed time: it waits for what it needs, until a deadline.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import tied

from kache.cluster import control, messages
from kache.cluster.run_dir import find_control
from kache.errors import CommandError
from kache.wire.codec import ReplyTooShort, decode_reply

DEADLINE = 60.0
"""Seconds for what is over in a moment on a machine that has time for it: only a test that fails waits as long."""
KACHE = [sys.executable, "-m", "kache"]


def until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """The first true value of `condition`, asked again and again for `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)


def in_time(attempt: Callable[[], float], below: float, attempts: int = 5) -> None:
    """`attempt` does something and says how many seconds that took, which has to be less than `below`, if not the first time:
    a machine that is busy with something else makes anything slow, but not again and again."""
    took = [attempt()]
    while took[-1] >= below and len(took) < attempts:
        took.append(attempt())
    assert took[-1] < below, f"not less than {below} s: {took}"


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if sys.platform.startswith("linux"):
            return False
        try:
            os.kill(pid, 0)
        except OSError:
            return False
        return True
    return stat.rpartition(")")[2].split()[0] != "Z"


class Connection:
    """A RESP connection of a test; error replies are returned, not raised."""

    def __init__(self, port: int, timeout: float = DEADLINE) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()

    def send(self, *commands: tuple[Any, ...]) -> None:
        """Send commands as one pipeline."""
        self.socket.sendall(b"".join(map(encode, commands)))

    def read(self) -> Any:
        """The next reply; raises ConnectionError at the end."""
        while True:
            try:
                value, end = decode_reply(bytes(self.buffer))
            except ReplyTooShort:
                data = self.socket.recv(1 << 20)
                if not data:
                    raise ConnectionError("closed") from None
                self.buffer += data
                continue
            del self.buffer[:end]
            return value

    def read_many(self, count: int) -> list[Any]:
        """The next `count` replies, decoded in one go over what has come."""
        values: list[Any] = []
        at = 0
        data = bytes(self.buffer)
        while len(values) < count:
            try:
                value, at = decode_reply(data, at)
                values.append(value)
            except ReplyTooShort:
                more = self.socket.recv(1 << 20)
                if not more:
                    raise ConnectionError("closed") from None
                data, at = data[at:] + more, 0
        self.buffer = bytearray(data[at:])
        return values

    def request(self, *words: Any) -> Any:
        """One command and its reply."""
        self.send(words)
        return self.read()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def router_of(connection: Connection) -> int:
    """Whose connection it is: ids of clients have the index of their router above bit 48."""
    return int(connection.request("client", "id")) >> 48


def encode(words: tuple[Any, ...]) -> bytes:
    """A RESP request."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


class Cluster:
    """See the module. `options` are options of `kache cluster start`, e.g. maxmemory="1gb"."""

    def __init__(
        self,
        shards: int = 1,
        *,
        routers: int = 1,
        port: int = 0,
        command: list[str] | None = None,
        environment: dict[str, str] | None = None,
        **options: object,
    ) -> None:
        self.shards = shards
        self.routers = routers
        self.directory = Path(tempfile.mkdtemp(prefix="kache-"))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("KACHE_")},
            "KACHE_RUN_DIR": str(self.directory / "run"),
            "KACHE_LOGFORMAT": "text",
            **(environment or {}),
        }
        self.command = command or KACHE
        self.port = port
        self._options = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self._pids: set[int] = set()

    def __enter__(self) -> Cluster:
        try:
            self.start()
        except BaseException:
            self._clean()
            raise
        return self

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        tied.orderly()
        reader, self._tie = os.pipe()
        arguments = [
            "cluster",
            "start",
            f"--shards={self.shards}",
            f"--routers={self.routers}",
            f"--port={self.port}",
            f"--dir={self.directory}",
        ]
        log = open(self.directory / "log", "ab")  # noqa: SIM115  # the process has it as long as it lives
        self.process = subprocess.Popen(
            [*self.command, *arguments, f"--exit-with-fd={reader}", *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=(reader,),
            env=self.environment,
        )
        log.close()
        os.close(reader)
        assert self.process.stdout is not None
        self.ready_line = self.process.stdout.readline().decode()
        assert " ready on " in self.ready_line, f"the cluster did not start:\n{self.log()}"
        self.port = int(self.ready_line.split(" ready on ")[1].split(": ")[0].rsplit(":", 1)[1])
        self.status()

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if self.process.poll() is None:
                if kind is None:
                    self.status()
                    self.process.send_signal(signal.SIGTERM)
                else:
                    # Also if it cannot save: a test has failed, and waits for nothing more.
                    os.close(self._tie)
                    self._tie = None
                code = self.process.wait(DEADLINE)
                assert kind is not None or code == 0, f"ended with {code}:\n{self.log()}"
            for pid in self._pids:
                until(lambda pid=pid: not alive(pid), f"the end of process {pid}")
            left = list((self.directory / "run").rglob("*"))
            assert kind is not None or not left, f"left behind: {left}"
        finally:
            self._clean()

    def _clean(self) -> None:
        process = getattr(self, "process", None)
        if process is not None:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdout.close()
        tie = getattr(self, "_tie", None)
        if tie is not None:
            os.close(tie)
            self._tie = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def log(self) -> str:
        """What the processes logged so far."""
        return (self.directory / "log").read_text(errors="replace")

    def kache(
        self, *arguments: object, check: bool = True, data: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line against this cluster."""
        done = subprocess.run(
            [*self.command, *map(str, arguments)],
            env={**self.environment, "KACHE_PORT": str(self.port)},
            input=data,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}"
        )
        return done

    def status(self) -> dict[str, Any]:
        """What `kache cluster status --json` prints, without that process: it would be most of what a short test costs."""
        path = find_control(self.environment, self.port)
        assert path is not None, f"no cluster runs on port {self.port}:\n{self.log()}"
        with socket.socket(socket.AF_UNIX) as asker:
            asker.settimeout(DEADLINE)
            asker.connect(path)
            control.send(asker, messages.StatusRequest(1))
            answer = control.receive(asker, bytearray())
        assert isinstance(answer, messages.StatusReply)
        found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(answer.status))
        self._pids |= {found["pid"], *(child["pid"] for child in found["children"] if child["pid"])}
        return found

    def child(self, role: str, index: int = 0) -> dict[str, Any]:
        """The status of one child."""
        return next(c for c in self.status()["children"] if (c["role"], c["index"]) == (role, index))

    def pid_of(self, role: str, index: int = 0) -> int:
        """The pid of one child."""
        return int(self.child(role, index)["pid"])

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to one process of this cluster."""
        assert pid in self._pids
        os.kill(pid, number)

    def replaced(self, role: str, index: int, pid: int) -> None:
        """Wait until another process than this one, which was killed, is up in its place."""

        def is_replaced() -> bool:
            child = self.child(role, index)
            return child["pid"] not in (0, pid) and child["state"] == "up"

        until(is_replaced, f"another {role} {index}")

    def connect(self) -> Connection:
        """A new connection."""
        return Connection(self.port)

    def of_router(self, index: int, connect: Callable[[], Connection] | None = None) -> Connection:
        """A new connection to this one of the routers, all of which have to answer; the system spreads connections as it
        likes, and routers prefer who has fewer: so those to others stay until it is found."""
        with contextlib.ExitStack() as others:

            def look() -> Connection | None:
                try:
                    connection = (connect or self.connect)()
                    found = router_of(connection)
                except OSError:
                    return None  # it was one of a router that was ending
                if found == index:
                    return connection
                others.callback(connection.close)
                return None

            found: Connection = until(look, f"a connection to router {index}")
        return found

    @contextlib.contextmanager
    def every_router(self, connect: Callable[[], Connection] | None = None) -> Iterator[list[Connection]]:
        """A new connection to each router, by index: what a test changes by way of one has to hold at all of them."""
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(self.of_router(index, connect)) for index in range(self.routers)]

    def serves(self) -> None:
        """Wait until every shard answers by way of every router: also where nobody has waited until all are up."""
        keys = [found[0] for found in self.keys_by_shard()]
        with self.every_router() as connections:

            def all_answer() -> bool:
                for connection in connections:
                    connection.send(*[("exists", key) for key in keys])
                return all(isinstance(reply, int) for each in connections for reply in each.read_many(len(keys)))

            until(all_answer, "every shard answers by way of every router")

    def request(self, *words: object) -> Any:
        """One command over a connection of its own; raises an error reply."""
        with self.connect() as connection:
            reply = connection.request(*words)
        if isinstance(reply, CommandError):
            raise reply
        return reply

    def keys_by_shard(self, count: int = 1) -> list[list[str]]:
        """`count` keys of every shard."""
        from kache.slots import owners, slot_of_key

        owner = owners(self.status()["slots"], self.shards)
        found: list[list[str]] = [[] for _ in range(self.shards)]
        for number in self._numbers():
            if all(len(keys) == count for keys in found):
                return found
            keys = found[owner[slot_of_key(b"key:%d" % number)]]
            if len(keys) < count:
                keys.append(f"key:{number}")
        raise AssertionError

    @staticmethod
    def _numbers() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1


def kill_everything(cluster: Cluster) -> None:
    """kill -9 of the supervisor and of every child."""
    cluster.status()
    for pid in [cluster.process.pid, *cluster._pids]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # the supervisor's end has taken it with it
    cluster.process.wait()
