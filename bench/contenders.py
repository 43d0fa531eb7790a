"""What is compared: each contender starts its processes on loopback, says where it listens, and stops them.

Every contender runs without persistence, with the defaults of its distribution otherwise; the exact
command lines are kept for the report. A contender whose program is not installed says so by raising
`Missing`, and the report names it as left out.
"""

from __future__ import annotations

import binascii
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import tied
from programs import Missing, compiled, first_line, free_port, free_ports, program, usable_cores, valkey_server

__all__ = ["CONTENDERS", "Contender", "versions_of"]

START_SECONDS = 20.0
STOP_SECONDS = 10.0
SLOTS = 16384


class Contender:
    """A server under test: `start`, `port`, `cpu_seconds`, `memory_bytes`, `stop`."""

    name = ""
    protocol = "resp"
    cluster = False  # whether clients have to know the topology
    ends_by = signal.SIGKILL  # how its processes end with a bench that is killed
    spins = False  # whether it keeps a core busy after its load has ended: then it is stopped between its turns

    def __init__(self, shards: int = 4, options: dict[str, str] | None = None) -> None:
        self.shards = shards
        self.options = options or {}
        self.port = 0
        self.commands: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.directory = Path(tempfile.mkdtemp(prefix="kb-"))
        self.ready_seconds = 0.0
        self.filled: tuple[int, int] | None = None  # the size of the values and the number of keys last stored
        self.generators = 1  # redis-benchmarks that share the connections
        self.load_cores: tuple[int, ...] = ()  # which they are pinned to, in turn

    # Overridden ------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """What has to be built before the clock of `ready_seconds` runs."""

    def launch(self) -> None:
        """Starts the processes; `self.port` is set."""
        raise NotImplementedError  # every contender below overrides it

    def version(self) -> str:
        """One line for the report."""
        return ""

    def ports(self) -> list[int]:
        """Where clients connect; several for a cluster."""
        return [self.port]

    def node_of(self, key: bytes) -> int:
        """The index in `ports` of the node that has a key."""
        return 0

    # Life ------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Starts and waits until the port answers; `ready_seconds` says how long that took."""
        try:
            self.prepare()
            began = time.perf_counter()
            self.launch()
            self.wait_for_port()
        except BaseException:
            self.stop()
            raise
        self.ready_seconds = time.perf_counter() - began

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """While it is measured. Between its turns one that spins stands still, or it would slow the others down."""
        self.tell(signal.SIGCONT)
        try:
            yield
        finally:
            self.tell(signal.SIGSTOP)

    def tell(self, number: signal.Signals) -> None:
        """To its processes, if it spins."""
        for process in self.processes if self.spins else []:
            if process.poll() is None:
                process.send_signal(number)

    def stop(self) -> None:
        """Ends the processes by id and removes their files."""
        self.tell(signal.SIGCONT)
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    def spawn(self, *command: str) -> None:
        """One process of the contender; its output goes to a file in its directory."""
        shown = ["python" if command[0] == sys.executable else Path(command[0]).name, *command[1:]]
        self.commands.append(" ".join(shown).replace(str(self.directory), "DIR"))
        with open(self.directory / "output.log", "ab") as log:
            self.processes.append(
                tied.started(
                    command, by=self.ends_by, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory
                )
            )

    def wait_for_port(self) -> None:
        """Until the server answers the first request."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for process in self.processes:
                if process.poll() is not None:
                    raise RuntimeError(f"{self.name} ended at once:\n{self.log_tail()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.settimeout(1)
                connection.sendall(
                    b"version\r\n" if self.protocol == "memcached" else b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
                )
                answer = connection.recv(64)
                if answer and not answer.startswith((b"-CLUSTERDOWN", b"-LOADING")):
                    return
            time.sleep(0.005)
        raise RuntimeError(f"{self.name} did not answer within {START_SECONDS:.0f} s:\n{self.log_tail()}")

    def wait_for_socket(self, path: Path) -> None:
        """Until something listens on a Unix socket."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
                return
            time.sleep(0.005)
        raise RuntimeError(f"{self.name}: nothing listens on {path}:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines the processes printed."""
        return self.whole_log()[-2000:]

    def whole_log(self) -> str:
        """All of them."""
        with contextlib.suppress(OSError):
            return (self.directory / "output.log").read_text(errors="replace")
        return ""

    # Measures --------------------------------------------------------------------------------------
    def members(self) -> list[psutil.Process]:
        """Every process of the contender, children included."""
        found: list[psutil.Process] = []
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                root = psutil.Process(process.pid)
                found += [root, *root.children(recursive=True)]
        return found

    def busy(self) -> list[psutil.Process]:
        """Those of them that work while a load is on."""
        return self.members()

    def cpu_seconds(self) -> float:
        """User and system time of all processes so far; on Linux in nanoseconds, not ticks, for short runs."""
        total = 0.0
        for member in self.members():
            with contextlib.suppress(psutil.NoSuchProcess, OSError):
                tasks = list(Path(f"/proc/{member.pid}/task").glob("*/schedstat"))
                if tasks:
                    total += sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
                else:
                    times = member.cpu_times()
                    total += times.user + times.system
        return total

    def memory_bytes(self) -> int:
        """Proportional set size of all processes together (shared pages counted once)."""
        total = 0
        for member in self.members():
            with contextlib.suppress(psutil.NoSuchProcess, OSError):
                total += member.memory_full_info().pss
        return total


class Kache(Contender):
    """Kache with N shards behind one router, everything that is on by default on."""

    name = "kache"
    ends_by = signal.SIGTERM  # the supervisor's, who ends the others and removes what it made
    routers = 1
    python = sys.executable

    def launch(self) -> None:
        self.port = free_port()
        extra = [word for name, value in self.options.items() for word in (f"--{name}", value)]
        self.spawn(
            self.python, "-m", "kache", "cluster", "start", *self.chosen_shards(),
            "--port", str(self.port), "--dir", str(self.directory), *extra,
        )  # fmt: skip

    def chosen_shards(self) -> list[str]:
        """The words of the command line about shards and routers."""
        return ["--shards", str(self.shards), "--routers", str(self.routers)]

    def busy(self) -> list[psutil.Process]:
        """All but the supervisor."""
        return self.members()[1:]

    def version(self) -> str:
        import kache

        return f"Kache {kache.__version__}, Python {sys.version.split()[0]}"


class KacheDefault(Kache):
    """Kache as `kache cluster start` starts it: one shard for each usable core, one router for two."""

    name = "kache-default"

    def chosen_shards(self) -> list[str]:
        """None: Kache decides."""
        return []

    def version(self) -> str:
        return f"{super().version()}, as many shards as usable cores: {usable_cores()}"


class KacheTwoRouters(Kache):
    """Kache with N shards and two routers on one port."""

    name = "kache-2-routers"
    routers = 2


class KacheFourRouters(Kache):
    """The same with four routers."""

    name = "kache-4-routers"
    routers = 4


class KacheBefore(Kache):
    """Another installed Kache: that of the interpreter in the variable KACHE_BEFORE, to see what a change costs."""

    name = "kache-before"
    python = os.environ.get("KACHE_BEFORE", "")

    def launch(self) -> None:
        if not self.python:
            raise Missing("set KACHE_BEFORE to the python of an environment that has the other Kache")
        super().launch()

    def version(self) -> str:
        return first_line(self.python, "-m", "kache", "--version")


class KacheBeforeDefault(KacheBefore, KacheDefault):
    """The same as `kache cluster start` starts it."""

    name = "kache-before-default"

    def version(self) -> str:
        return KacheBefore.version(self)


class Redis(Contender):
    """One redis-server without a proxy."""

    name = "redis"

    def launch(self) -> None:
        self.port = free_port()
        self.spawn(
            program("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", "no", "--dir", str(self.directory),
        )  # fmt: skip

    def version(self) -> str:
        return first_line(program("redis-server"), "--version")


class Valkey(Contender):
    """One valkey-server without a proxy."""

    name = "valkey"
    extra: tuple[str, ...] = ()

    def launch(self) -> None:
        self.port = free_port()
        self.spawn(
            valkey_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", "no", "--dir", str(self.directory), *self.extra,
        )  # fmt: skip

    def version(self) -> str:
        return first_line(valkey_server(), "--version")


class ValkeyThreads(Valkey):
    """One valkey-server with I/O threads, as many as cores."""

    name = "valkey-io"
    spins = True  # for some seconds after each load, all of a core
    extra = ("--io-threads", str(max(2, usable_cores())))


class Twemproxy(Contender):
    """twemproxy in front of N redis-servers on Unix sockets: the same shape as Kache, in C."""

    name = "twemproxy"
    extra: tuple[str, ...] = ()

    def launch(self) -> None:
        proxy, server = program("nutcracker"), program("redis-server")
        self.port = free_port()
        sockets = [self.directory / f"r{index}" for index in range(self.shards)]
        for path in sockets:
            self.spawn(server, "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no",
                       "--dir", str(self.directory))  # fmt: skip
        for path in sockets:
            self.wait_for_socket(path)
        lines = [
            "bench:",
            f"  listen: 127.0.0.1:{self.port}",
            "  hash: fnv1a_64",
            "  distribution: modula",
            "  redis: true",
            "  backlog: 1024",
            "  server_connections: 1",
            "  servers:",
            *(f"    - {path}:1 s{index}" for index, path in enumerate(sockets)),
        ]
        (self.directory / "nutcracker.yml").write_text("\n".join(lines) + "\n")
        self.spawn(
            proxy, "-c", str(self.directory / "nutcracker.yml"), "-s", str(free_port()), "-a", "127.0.0.1",
            "-m", self.options.get("mbuf", "16384"), "-o", str(self.directory / "nutcracker.log"), *self.extra,
        )  # fmt: skip

    def version(self) -> str:
        return f"{first_line(program('nutcracker'), '--version')} + {first_line(program('redis-server'), '--version')}"


class TwemproxyQuiet(Twemproxy):
    """The same one level of logging below its default, at which it asks for the peer's address with every request."""

    name = "twemproxy-quiet"
    extra = ("-v", "4")


class ValkeyCluster(Contender):
    """A Valkey Cluster of N primaries; clients must know the topology, so only a cluster-aware generator fits."""

    name = "valkey-cluster"
    cluster = True

    def server(self) -> str:
        """The program that each node runs."""
        return valkey_server()

    def launch(self) -> None:
        server, cli = self.server(), program("redis-cli")
        chosen = free_ports(2 * self.shards)
        self.nodes, buses = chosen[: self.shards], chosen[self.shards :]
        self.port = self.nodes[0]
        for port, bus in zip(self.nodes, buses, strict=True):
            home = self.directory / str(port)
            home.mkdir()
            self.spawn(server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                       "--cluster-enabled", "yes", "--cluster-port", str(bus), "--dir", str(home))  # fmt: skip
        for port in self.nodes:
            self._wait_listening(port)
        for index, port in enumerate(self.nodes):
            first, last = index * self._slots_each(), min((index + 1) * self._slots_each(), SLOTS) - 1
            self._cli(cli, port, "CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
            self._cli(cli, port, "CLUSTER", "SET-CONFIG-EPOCH", str(index + 1))
            self._cli(cli, port, "CLUSTER", "MEET", "127.0.0.1", str(self.port), str(buses[0]))
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            states = [self._cli(cli, port, "CLUSTER", "INFO") for port in self.nodes]
            if all("cluster_state:ok" in state and f"cluster_size:{self.shards}" in state for state in states):
                return
            time.sleep(0.1)
        raise RuntimeError(f"the cluster of {self.name} did not form")

    def ports(self) -> list[int]:
        return self.nodes

    def node_of(self, key: bytes) -> int:
        return binascii.crc_hqx(key, 0) % SLOTS // self._slots_each()

    def _slots_each(self) -> int:
        return -(-SLOTS // self.shards)

    def _wait_listening(self, port: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.01)
        raise RuntimeError(f"nothing listens on port {port}:\n{self.log_tail()}")

    @staticmethod
    def _cli(cli: str, port: int, *words: str) -> str:
        return subprocess.run([cli, "-p", str(port), *words], capture_output=True, text=True, check=False).stdout

    def wait_for_port(self) -> None:
        """The cluster is up once its nodes agree, which `launch` waited for."""

    def version(self) -> str:
        return first_line(self.server(), "--version")


class RedisCluster(ValkeyCluster):
    """The same of redis-servers."""

    name = "redis-cluster"

    def server(self) -> str:
        return program("redis-server")


class Memcached(Contender):
    """memcached, for the plain GET and SET rows."""

    name = "memcached"
    protocol = "memcached"

    def prepare(self) -> None:
        """Its load generator."""
        program("memcached")
        self.generator = compiled("load_memcached.c", self.directory)

    def launch(self) -> None:
        self.port = free_port()
        user = ["-u", "root"] if os.geteuid() == 0 else []
        self.spawn(
            program("memcached"), "-l", "127.0.0.1", "-p", str(self.port), "-t", str(usable_cores()),
            "-m", self.options.get("megabytes", "1024"), "-U", "0", *user,
        )  # fmt: skip

    def version(self) -> str:
        return first_line(program("memcached"), "--version")


class Limit(Contender):
    """limit.c: the least that a server of the shape can do (it only answers SET)."""

    name = "limit"
    hops = "two"

    def prepare(self) -> None:
        self.binary = compiled("limit.c", self.directory)

    def launch(self) -> None:
        self.port = free_port()
        backends = [str(self.shards)] if self.hops == "two" else []
        self.spawn(str(self.binary), self.hops, str(self.port), *backends)

    def version(self) -> str:
        return "limit.c, cc -O2"


class LimitOneHop(Limit):
    """The same in one process."""

    name = "limit-one"
    hops = "one"


CONTENDERS: dict[str, Callable[..., Contender]] = {
    cls.name: cls
    for cls in (
        KacheDefault, Kache, Twemproxy, Valkey, ValkeyThreads, Redis, ValkeyCluster, RedisCluster, Memcached, Limit,
        LimitOneHop, KacheTwoRouters, KacheFourRouters, TwemproxyQuiet, KacheBefore, KacheBeforeDefault,
    )
}  # fmt: skip


def versions_of(names: list[str]) -> dict[str, str]:
    """The version line of each contender that is installed; how it is missing for the others."""
    lines = {}
    for name in names:
        contender = CONTENDERS[name]()
        try:
            lines[name] = re.sub(r"\s+", " ", contender.version())
        except Missing as missing:
            lines[name] = f"left out: {missing}"
        finally:
            shutil.rmtree(contender.directory, ignore_errors=True)
    return lines
