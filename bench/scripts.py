"""Scripts: EVALSHA of a lock's release and of a sliding window, beside a Valkey, in one run on the same cores; and FCALL.

    python bench/scripts.py [--seconds 3] [--clients 50] [--rounds 3] [--shards 1 4] [--by evalsha fcall]

Prints calls a second, the ratio to Valkey's in the same round, and the CPU per call of each. Each server is asked by the same
clients in one process, one request in flight each.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from programs import valkey_server

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import tied

RELEASE = b"""
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end
return 0
"""
WINDOW = b"""
local now, width, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('zremrangebyscore', KEYS[1], '-inf', now - width)
if redis.call('zcard', KEYS[1]) < limit then
    redis.call('zadd', KEYS[1], now, ARGV[4])
    redis.call('pexpire', KEYS[1], width)
    return 1
end
return 0
"""


LIBRARY = b"#!lua name=bench" + b"".join(
    b"\nredis.register_function('%b', function(KEYS, ARGV)%bend)" % each
    for each in ((b"release", RELEASE), (b"window", WINDOW))
)
"""The same as functions."""


def encoded(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def requests(kind: str, by: str, client: int) -> list[bytes]:
    """What one client sends, over and over."""
    text = RELEASE if kind == "release" else WINDOW
    command = by.upper().encode()
    name = kind.encode() if by == "fcall" else hashlib.sha1(text).hexdigest().encode()
    if kind == "release":
        return [encoded(command, name, b"1", b"lock:%d" % client, b"token")]
    return [
        encoded(command, name, b"1", b"window:%d" % client, b"%d" % now, b"1000", b"20", b"%d" % now)
        for now in range(1_000_000, 1_000_000 + 2000, 20)
    ]


class Load:
    """Clients of one server, each with one request in flight."""

    def __init__(self, port: int, clients: int, kind: str, by: str) -> None:
        text = RELEASE if kind == "release" else WINDOW
        load = (
            encoded(b"FUNCTION", b"LOAD", b"REPLACE", LIBRARY) if by == "fcall" else encoded(b"SCRIPT", b"LOAD", text)
        )
        self.selector = selectors.DefaultSelector()
        for number in range(clients):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if number == 0:
                connection.sendall(load)
                connection.recv(100)
            words = requests(kind, by, number)
            self.selector.register(connection, selectors.EVENT_READ, [words, 0])

    def run(self, seconds: float) -> float:
        """Calls a second."""
        for key in self.selector.get_map().values():
            key.fileobj.sendall(key.data[0][0])  # type: ignore[union-attr]  # a socket
        count, began = 0, time.perf_counter()
        until = began + seconds
        while time.perf_counter() < until:
            for key, _ in self.selector.select(1):
                words, at = key.data
                reply = key.fileobj.recv(4096)  # type: ignore[union-attr]  # a socket
                if reply[:1] != b":":
                    raise SystemExit(f"an unexpected reply: {reply!r}")
                key.data[1] = at = (at + 1) % len(words)
                key.fileobj.send(words[at])  # type: ignore[union-attr]  # a socket
                count += 1
        took = time.perf_counter() - began
        for key in self.selector.get_map().values():
            key.fileobj.recv(4096)  # type: ignore[union-attr]  # a socket
        return count / took

    def close(self) -> None:
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]  # a socket


def cpu_seconds(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def valkey(folder: str) -> tuple[subprocess.Popen[bytes], int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(valkey_server()), "--port", str(port), "--save", "", "--dir", folder]
    process = tied.started(command, stdout=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process, port
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise SystemExit("the other server does not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--by", nargs="+", default=["evalsha"], choices=["evalsha", "fcall"])
    options = parser.parse_args()
    from cluster import Cluster

    print(f"{options.clients} clients, {options.rounds} rounds of {options.seconds} s, medians")
    with tempfile.TemporaryDirectory() as folder:
        process, port = valkey(folder)
        try:
            for shards in options.shards:
                with Cluster(shards=shards) as cluster:
                    roles = {c["role"]: [] for c in cluster.status()["children"]} | {"valkey": [process.pid]}
                    for child in cluster.status()["children"]:
                        roles[child["role"]].append(child["pid"])
                    for kind in ("release", "window"):
                        for by in options.by:
                            measure(options, kind, by, shards, port, cluster.port, roles)
        finally:
            process.terminate()
            process.wait(10)


def measure(
    options: argparse.Namespace, kind: str, by: str, shards: int, other: int, port: int, roles: dict[str, list[int]]
) -> None:
    rates: dict[int, list[float]] = {other: [], port: []}
    spent: dict[str, list[float]] = {"valkey": [], "shard": [], "router": []}
    for _ in range(options.rounds):
        for target, asked in ((other, ("valkey",)), (port, ("shard", "router"))):
            load = Load(target, options.clients, kind, by)
            before = {role: cpu_seconds(roles[role]) for role in asked}
            rate = load.run(options.seconds)
            rates[target].append(rate)
            for role in asked:
                spent[role].append((cpu_seconds(roles[role]) - before[role]) / (rate * options.seconds) * 1e6)
            load.close()
    ratio = statistics.median(mine / their for mine, their in zip(rates[port], rates[other], strict=True))
    cpu = {role: statistics.median(each) for role, each in spent.items()}
    print(
        f"{kind:8} {by:7} {shards} shards: valkey {statistics.median(rates[other]):8.0f}/s  "
        f"kache {statistics.median(rates[port]):8.0f}/s  ratio {ratio:.2f}  CPU per call: valkey {cpu['valkey']:.1f} us, "
        f"shards {cpu['shard']:.1f} us, routers {cpu['router']:.1f} us",
        flush=True,
    )


if __name__ == "__main__":
    main()
