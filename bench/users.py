"""Many users with many patterns: what they take, what a login and a command cost. Prints figures.

    python bench/users.py [--users 1000] [--patterns 100] [--rounds 5] [--requests 500000]

One cluster of two shards and one router. Figures: processor time of supervisor, router and shards for one ACL SETUSER; memory of
each process over that of a cluster without users; logins a second of one connection that changes its user, and the router's
processor time for each; GET at pipeline 16 as `default`, as a user whose first pattern fits, and as one whose last does, in
turns, each beside `default` of its round. A cluster with these users is started again from its file of users, and timed. Last, a
user with limit:commands=10000 that sends as fast as it can: what it gets [10,000 a second, within 10 %], and the p99 of somebody
else's GET beside it [at most 1.3 x that without it].
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "soak"))

import tied
from cluster import Cluster, Connection, encode
from idle import pss_mib

TICKS = os.sysconf("SC_CLK_TCK")


def used(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rules(number: int, patterns: int) -> list[str]:
    """Of one user: its own prefixes, the last of which is that of the keys that are asked for."""
    return ["on", ">secret", "+@all", *(f"~user:{number}:{each}:*" for each in range(patterns - 1)), "~key:*"]


def processes(cluster: Cluster) -> dict[str, int]:
    """Name and pid of each."""
    found = cluster.status()
    return {"supervisor": found["pid"]} | {f"{c['role']} {c['index']}": c["pid"] for c in found["children"]}


def made(cluster: Cluster, admin: Connection, users: int, patterns: int) -> None:
    """Makes the users, one after the other."""
    pids = processes(cluster)
    before, memory = {name: used(pid) for name, pid in pids.items()}, pss_mib(pids)
    each_before = {name: pss_mib({name: pid}) for name, pid in pids.items()}
    began = time.perf_counter()
    for number in range(users):
        assert admin.request("acl", "setuser", f"user{number}", *rules(number, patterns)) == "OK"
    took = time.perf_counter() - began
    costs = ", ".join(f"{name} {1e6 * (used(pid) - before[name]) / users:.0f}" for name, pid in pids.items())
    print(f"{users} users of {patterns} patterns: {1e3 * took / users:.2f} ms each; processor time in us: {costs}")
    sizes = ", ".join(f"{name} {pss_mib({name: pid}) - each_before[name]:.1f}" for name, pid in pids.items())
    print(f"memory over that without them: {pss_mib(pids) - memory:.1f} MiB ({sizes})", flush=True)


def logins(cluster: Cluster, users: int, count: int = 20_000) -> None:
    """A connection that is somebody else with every command."""
    router = cluster.pid_of("router")
    with cluster.connect() as connection:
        data = b"".join(encode(("auth", f"user{number % users}", "secret")) for number in range(100))
        before, began = used(router), time.perf_counter()
        for _ in range(count // 100):
            connection.socket.sendall(data)
            assert connection.read_many(100) == ["OK"] * 100
        took = time.perf_counter() - began
    print(
        f"logins: {count / took / 1000:.0f} k/s, {1e6 * (used(router) - before) / count:.1f} us of the router",
        flush=True,
    )


def measured(cluster: Cluster, router: int, user: str, requests: int) -> tuple[float, float]:
    """(requests a second, microseconds of the router for each)"""
    login = ["--user", user, "-a", "secret"] if user else []
    before, began = used(router), time.perf_counter()
    subprocess.run(
        ["redis-benchmark", "-p", str(cluster.port), *login, "-t", "get", "-P", "16", "-n", str(requests), "-c", "50",
         "-r", "10000", "-q"],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return requests / (time.perf_counter() - began), 1e6 * (used(router) - before) / requests


def commands(cluster: Cluster, admin: Connection, patterns: int, rounds: int, requests: int) -> None:
    """GET as somebody without limits, and as those whose first or last pattern fits."""
    router = cluster.pid_of("router")
    first = ["on", ">secret", "+@all", "~key:*", *(f"~other:{each}:*" for each in range(patterns - 1))]
    assert admin.request("acl", "setuser", "first", *first) == "OK"
    contenders = {"default": "", "first fits": "first", "last fits": "user7"}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, user in contenders.items():
            found[name].append(measured(cluster, router, user, requests))
    for name, runs in found.items():
        rate = statistics.median(rate for rate, _ in runs)
        cost = statistics.median(cost for _, cost in runs)
        beside = statistics.median(b - a for (_, a), (_, b) in zip(found["default"], runs, strict=True))
        print(
            f"get, {name}: {rate / 1000:.0f} k/s, {cost:.3f} us of the router, {1000 * beside:+.0f} ns beside default",
            flush=True,
        )


def p99(connection: Connection, seconds: float) -> float:
    """Milliseconds of a GET, 500 a second."""
    times, began = [], time.monotonic()
    while (now := time.monotonic()) - began < seconds:
        if (wait := began + len(times) / 500 - now) > 0:
            time.sleep(wait)
        start = time.perf_counter_ns()
        connection.request("get", "key:1")
        times.append((time.perf_counter_ns() - start) / 1e6)
    return sorted(times)[len(times) * 99 // 100]


def held_back(cluster: Cluster, admin: Connection, rounds: int) -> None:
    """A user that wants more than it may have."""
    assert admin.request("acl", "setuser", "greedy", "on", ">secret", "+@all", "~*", "limit:commands=10000") == "OK"
    alone, beside, rates = [], [], []
    for _ in range(rounds):
        alone.append(p99(admin, 3))
        load = tied.started(
            ["redis-benchmark", "-p", str(cluster.port), "--user", "greedy", "-a", "secret", "-t", "get", "-P", "16", "-n", "100000000",
             "-c", "20", "-q"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(0.5)
        before, began = calls(admin), time.monotonic()
        beside.append(p99(admin, 3))
        took = time.monotonic() - began
        rates.append((calls(admin) - before) / took - 500)
        load.terminate()
        load.wait()
    ratio = statistics.median(b / a for a, b in zip(alone, beside, strict=True))
    print(
        f"limit:commands=10000: {statistics.median(rates):,.0f} a second; p99 of another's GET {statistics.median(alone):.2f} ms alone, "
        f"{statistics.median(beside):.2f} ms beside it, x {ratio:.2f}",
        flush=True,
    )


def calls(admin: Connection) -> int:
    """GETs that were executed."""
    for line in admin.request("info", "commandstats").decode().splitlines():
        if line.startswith("cmdstat_get:"):
            return int(line.split("calls=")[1].split(",")[0])
    return 0


def restarted(folder: Path, patterns: int, users: int) -> None:
    """A cluster that begins with a file of them."""
    lines = [f"user user{number} {' '.join(rules(number, patterns))}" for number in range(users)]
    path = folder / "users.acl"
    path.write_text("user default on nopass ~* &* +@all\n" + "\n".join(lines) + "\n")
    path.chmod(0o600)
    for name, options in (("without", {}), ("with them", {"aclfile": path})):
        began = time.perf_counter()
        with Cluster(2, **options) as cluster:
            took = time.perf_counter() - began
            total = pss_mib(processes(cluster))
        print(f"started {name}: {took:.2f} s, {total:.0f} MiB", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--patterns", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=500_000)
    chosen = parser.parse_args()
    socket.setdefaulttimeout(60)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with Cluster(2) as cluster, cluster.connect() as admin:
        made(cluster, admin, chosen.users, chosen.patterns)
        logins(cluster, chosen.users)
        commands(cluster, admin, chosen.patterns, chosen.rounds, chosen.requests)
        held_back(cluster, admin, chosen.rounds)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        restarted(Path(folder), chosen.patterns, chosen.users)


if __name__ == "__main__":
    main()
