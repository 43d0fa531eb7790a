"""What an idle cluster costs: CPU of each process, memory, and what 10,000 idle connections add; then each sends one byte.

    python tests/soak/idle.py [--shards 4] [--seconds 20] [--connections 10000]

Exit status 1 when a bar is missed: 0.3 % of a core a process, 35 MiB for 4 shards, 20 MiB more with the connections;
beside 10,000 beginnings of a command 200 MiB more, PING's p99 50 ms, and all of them closed when their time is over.
"""

from __future__ import annotations

import argparse
import resource
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster import Cluster, Connection, until

CPU_BAR = 0.3
PSS_BAR = 35.0
CONNECTIONS_BAR = 20.0
BEGUN_BAR = 200.0
PING_BAR_MS = 50.0
BEGUN_MS = 8000
PINGS = 500


def processes(cluster: Cluster) -> dict[str, int]:
    """The pid of every process by its name."""
    status = cluster.status()
    names = {f"{child['role']} {child['index']}": child["pid"] for child in status["children"]}
    return {"supervisor": status["pid"], **names}


def cpu_ns(pid: int) -> int:
    """Nanoseconds on a core, of all threads."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def pss_mib(pids: dict[str, int]) -> float:
    """The sum of the proportional set sizes."""
    total = 0
    for pid in pids.values():
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def percent(pids: dict[str, int], seconds: float) -> dict[str, float]:
    """Percent of a core that each process uses over this time."""
    before = {name: cpu_ns(pid) for name, pid in pids.items()}
    began = time.monotonic()
    time.sleep(seconds)  # this is the measurement
    passed = time.monotonic() - began
    return {name: (cpu_ns(pid) - before[name]) / passed / 1e7 for name, pid in pids.items()}


def shown(title: str, used: dict[str, float], pss: float) -> None:
    print(f"{title}: {pss:.1f} MiB PSS; " + ", ".join(f"{name} {value:.3f} %" for name, value in used.items()))


def begin_commands(cluster: Cluster, clients: list[socket.socket], connection: Connection) -> float:
    """Every client sends one byte, and is closed in the end; the p99 of PING meanwhile in milliseconds."""
    for client in clients:
        client.send(b"*")
    waits = []
    for _ in range(PINGS):
        due = time.perf_counter()
        assert connection.request("PING") == "PONG"
        waits.append((time.perf_counter() - due) * 1000)
        time.sleep(0.005)  # a fixed load, for half of their time
    until(lambda: b"connected_clients:1\r" in connection.request("info", "clients"), "all of them closed", 20)
    return sorted(waits)[int(PINGS * 0.99)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--connections", type=int, default=10000)
    chosen = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    options = {"maxclients": chosen.connections + 100, "preauth_timeout_ms": BEGUN_MS}
    with Cluster(chosen.shards, **options) as cluster:
        pids = processes(cluster)
        empty, pss = percent(pids, chosen.seconds), pss_mib(pids)
        shown("idle", empty, pss)
        clients = [socket.create_connection(("127.0.0.1", cluster.port), 30) for _ in range(chosen.connections)]
        with cluster.connect() as connection:
            count = b"connected_clients:%d\r\n" % (chosen.connections + 1)
            until(lambda: count in connection.request("info", "clients"), "all connections")
            held, more = percent(pids, chosen.seconds), pss_mib(pids)
            shown(f"{chosen.connections} idle connections", held, more)
            waited = begin_commands(cluster, clients, connection)
            begun = pss_mib(pids) - pss
        for client in clients:
            client.close()
    worst = max((*empty.values(), *held.values()))
    print(
        f"worst process {worst:.3f} % of a core (bar {CPU_BAR}), {pss:.1f} MiB (bar {PSS_BAR} for 4 shards), ", end=""
    )
    print(f"connections + {more - pss:.1f} MiB (bar {CONNECTIONS_BAR})")
    print(
        f"behind as many beginnings + {begun:.1f} MiB (bar {BEGUN_BAR}), PING's p99 {waited:.1f} ms (bar {PING_BAR_MS})"
    )
    small = chosen.shards > 4 or pss <= PSS_BAR
    quick = waited < PING_BAR_MS and begun < BEGUN_BAR
    return 0 if worst < CPU_BAR and small and more - pss <= CONNECTIONS_BAR and quick else 1


if __name__ == "__main__":
    sys.exit(main())
