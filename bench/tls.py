#!/usr/bin/env python3
"""What TLS costs: rates beside the plain port, a storm of handshakes, connections that idle. `python bench/tls.py`

    --part rates     redis-benchmark on the plain and the TLS port of the same server, in turns: GET and SET at P=1 and 16,
                     GET of 16 KiB; the same of a redis-server, so that the ratios can be compared. Below each, the
                     processor time of a command: of the process that speaks TLS, and of redis-benchmark, which on two
                     cores takes from the server what it needs for TLS itself
    --part storm     1,000 new handshakes a second from four processes, and the p99 of PING on established connections
    --part idle      memory of 10,000 idle TLS connections over that of plain ones, and of as many that stop behind their
                     first message, which must be gone within four seconds

The certificate is ECDSA P-256, made by the openssl program, or by trustme. Exit status 1 when a bar is missed: TLS at least 0.6 of plain
at P=1 and 0.85 at P=16, 0.5 for 16 KiB; p99 at most 2 × baseline + 3 ms, and an honest client connected within a second;
200 MiB for 10,000 idle ones, 64 MiB a router for 10,000 unfinished ones.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "soak"))

import tied
from cluster import Cluster, until
from idle import pss_mib
from programs import free_ports

RATE_BARS = {"P=1": 0.6, "P=16": 0.85, "16 KiB": 0.5}
IDLE_BAR, STUCK_BAR, STUCK_SECONDS = 200.0, 64.0, 4.0
PING = b"*1\r\n$4\r\nPING\r\n"


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for localhost, its own CA, and its key."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    if shutil.which("openssl") is None:
        return _by_trustme(cert, key)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    key.chmod(0o600)
    return cert, key


def _by_trustme(cert: Path, key: Path) -> tuple[Path, Path]:
    """The same where there is no openssl: the CA's certificate stands behind the server's."""
    import trustme

    ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
    leaf = ca.issue_cert("localhost", "127.0.0.1", key_type=trustme.KeyType.ECDSA)
    key.write_bytes(leaf.private_key_pem.bytes())
    cert.write_bytes(b"".join(blob.bytes() for blob in (*leaf.cert_chain_pems, ca.cert_pem)))
    key.chmod(0o600)
    return cert, key


@contextlib.contextmanager
def kache(files: tuple[Path, Path], **options: object) -> Iterator[tuple[Cluster, int, int]]:
    """(cluster, plain port, TLS port)"""
    plain, sealed = free_ports(2)
    settings = {"tls_cert_file": files[0], "tls_key_file": files[1], "tls_auth_clients": "no", "tls_port": sealed}
    with Cluster(2, port=plain, maxclients=50_000, **{**settings, **options}) as cluster:
        yield cluster, plain, sealed


@contextlib.contextmanager
def redis(files: tuple[Path, Path]) -> Iterator[tuple[int, int, int]]:
    """(plain port, TLS port, process) of a redis-server that keeps nothing."""
    plain, sealed = free_ports(2)
    server = tied.started(
        ["redis-server", "--port", str(plain), "--tls-port", str(sealed), "--tls-cert-file", str(files[0]),
         "--tls-key-file", str(files[1]), "--tls-ca-cert-file", str(files[0]), "--tls-auth-clients", "no",
         "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: _answers(plain), "redis-server answers")
        yield plain, sealed, server.pid
    finally:
        server.terminate()
        server.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


TICKS = os.sysconf("SC_CLK_TCK")


def used(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Run(NamedTuple):
    """What redis-benchmark measured: requests a second, and microseconds of processor time for each, of who terminates TLS
    (our router, or redis-server) and of redis-benchmark itself."""

    rate: float
    server_us: float
    generator_us: float


def run(port: int, ca: Path | None, pid: int, command: str, pipeline: int, size: int, requests: int) -> Run:
    """One run against a port that the process `pid` serves."""
    secure = ["--tls", "--cacert", str(ca)] if ca is not None else []
    before, mine = used(pid), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        ["redis-benchmark", "-h", "127.0.0.1", "-p", str(port), *secure, "-t", command, "-P", str(pipeline), "-n", str(requests),
         "-c", "50", "-r", "10000", "-d", str(size), "--csv"],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    generator = after.ru_utime + after.ru_stime - mine.ru_utime - mine.ru_stime
    rate = float(done.stdout.strip().splitlines()[-1].split(",")[1].strip('"'))
    return Run(rate, (used(pid) - before) * 1e6 / requests, generator * 1e6 / requests)


ROWS = (
    ("get P=1", "get", 1, 32, 1, "P=1"),
    ("get P=16", "get", 16, 32, 10, "P=16"),
    ("set P=1", "set", 1, 32, 1, "P=1"),
    ("set P=16", "set", 16, 32, 10, "P=16"),
    ("get 16 KiB", "get", 1, 16384, 0.5, "16 KiB"),
)


def rates(files: tuple[Path, Path], rounds: int, requests: int, rows: Sequence[str]) -> bool:
    """Prints two rows for each load, rates and processor time; whether Kache's ratios meet their bars."""
    fine = True
    print(f"{'':12}{'kache plain':>14}{'TLS':>10}{'ratio':>8}{'redis plain':>14}{'TLS':>10}{'ratio':>8}")
    with kache(files) as (cluster, plain, sealed), redis(files) as (redis_plain, redis_sealed, redis_pid):
        router = cluster.pid_of("router")
        ports = (
            (plain, None, router), (sealed, files[0], router),
            (redis_plain, None, redis_pid), (redis_sealed, files[0], redis_pid),
        )  # fmt: skip
        for name, command, pipeline, size, times, bar in ROWS:
            if rows and name not in rows:
                continue
            found: list[list[Run]] = [[], [], [], []]
            if command == "get":
                for port, ca, pid in ports:
                    run(port, ca, pid, "set", 16, size, 20_000)
            for _ in range(rounds):
                for at, (port, ca, pid) in enumerate(ports):
                    found[at].append(run(port, ca, pid, command, pipeline, size, int(requests * times)))
            fine &= shown(name, found, RATE_BARS[bar])
    return fine


def shown(name: str, found: list[list[Run]], bar: float) -> bool:
    """Prints the rows of one load; whether it meets its bar."""
    ours, theirs = (
        statistics.median(b.rate / a.rate for a, b in zip(found[at], found[at + 1], strict=True)) for at in (0, 2)
    )
    rates = [statistics.median(each.rate for each in runs) for runs in found]
    met = ours >= bar
    print(
        f"{name:12}{rates[0]:14,.0f}{rates[1]:10,.0f}{ours:8.2f}{rates[2]:14,.0f}{rates[3]:10,.0f}{theirs:8.2f}"
        f"   bar {bar}{'' if met else ' MISSED'};"
        f" x redis: plain {rates[0] / rates[2]:.2f}, TLS {rates[1] / rates[3]:.2f}"
    )
    server, generator = (
        [statistics.median(getattr(each, what) for each in runs) for runs in found]
        for what in ("server_us", "generator_us")
    )
    costs = (server[0], server[1], server[1] - server[0], server[2], server[3], server[3] - server[2])
    print(
        "   us a command".ljust(16)
        + "{:10.2f}{:10.2f}{:+8.2f}{:14.2f}{:10.2f}{:+8.2f}".format(*costs)
        + "   generator {:.2f} {:.2f} | {:.2f} {:.2f}".format(*generator),
        flush=True,
    )
    return met


# A storm of handshakes --------------------------------------------------------------------------------------------
AT_ONCE = 8
"""Handshakes that each of the four processes has under way: one after the other they would wait for each other's answers."""


def _shake_for(port: int, seconds: float, each: float, results: object) -> None:
    """So many handshakes a second, of clients that do not verify, which is cheaper for them alone; (done, failed) at the end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    began = time.monotonic()
    done, failed = [0] * AT_ONCE, [0] * AT_ONCE

    def work(which: int) -> None:
        while (now := time.monotonic()) - began < seconds:
            if done[which] + failed[which] > (now - began) * each / AT_ONCE:
                time.sleep(0.002)
                continue
            try:
                with socket.create_connection(("127.0.0.1", port), 5) as plain:
                    context.wrap_socket(plain).close()
                done[which] += 1
            except OSError:
                failed[which] += 1

    threads = [threading.Thread(target=work, args=(which,)) for which in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put((sum(done), sum(failed)))  # type: ignore[attr-defined]  # of multiprocessing, which types it by a function


def _pings(connections: list[ssl.SSLSocket], seconds: float) -> list[float]:
    """Milliseconds of each PING, 200 a second over established connections."""
    times = []
    began = time.monotonic()
    number = 0
    while time.monotonic() - began < seconds:
        due = began + number / 200
        if (wait := due - time.monotonic()) > 0:
            time.sleep(wait)
        sock = connections[number % len(connections)]
        start = time.perf_counter_ns()
        sock.sendall(PING)
        sock.recv(100)
        times.append((time.perf_counter_ns() - start) / 1e6)
        number += 1
    return times


def _p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def storm(files: tuple[Path, Path], seconds: float, each: float) -> bool:
    """Prints the p99 of PING before and during, and how many handshakes there were."""
    context = ssl.create_default_context(cafile=str(files[0]))

    def connect() -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", sealed), 30)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain, server_hostname="localhost")

    with kache(files) as (_, _, sealed):
        established = [connect() for _ in range(10)]
        before = _p99(_pings(established, min(seconds, 5)))
        results: object = multiprocessing.Queue()
        workers = [
            multiprocessing.Process(target=_shake_for, args=(sealed, seconds, each / 4, results)) for _ in range(4)
        ]
        for worker in workers:
            worker.start()
        time.sleep(0.5)
        during = _p99(_pings(established, max(seconds - 2, 1)))
        began = time.monotonic()
        connect().close()
        honest = time.monotonic() - began
        counts = [results.get() for _ in workers]  # type: ignore[attr-defined]  # as above
        for worker in workers:
            worker.join()
    done, failed = sum(count[0] for count in counts), sum(count[1] for count in counts)
    bar = 2 * before + 3
    fine = during <= bar and honest <= 1.0
    print(
        f"storm: {done / seconds:,.0f} handshakes a second ({failed} failed) of {each:,.0f} wanted; PING p99 {before:.2f} ms "
        f"before, {during:.2f} during (bar {bar:.2f}); an honest client connected in {honest * 1000:.0f} ms"
        f"{'' if fine else '  MISSED'}"
    )
    return fine


# Idle connections -------------------------------------------------------------------------------------------------
def router_mib(cluster: Cluster) -> float:
    """Proportional set size of the router."""
    return pss_mib({"router": cluster.pid_of("router")})


def idle(files: tuple[Path, Path], count: int) -> bool:
    """Prints what plain, TLS and unfinished connections take of the router."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    del soft
    context = ssl.create_default_context(cafile=str(files[0]))
    fine = True
    with kache(files, maxmemory_clients="1gb", tls_handshake_timeout_ms=3000) as (cluster, plain, sealed):
        empty = router_mib(cluster)
        connections: list[socket.socket] = [socket.create_connection(("127.0.0.1", plain), 30) for _ in range(count)]
        for sock in connections:
            sock.sendall(PING)
            sock.recv(100)
        of_plain = router_mib(cluster) - empty
        for sock in connections:
            sock.close()
        until(lambda: b"connected_clients:1\r\n" in bytes(cluster.request("info", "clients")), "they are gone")
        settled = router_mib(cluster)
        connections = []
        for _ in range(count):
            sock = context.wrap_socket(socket.create_connection(("127.0.0.1", sealed), 30), server_hostname="localhost")
            sock.sendall(PING)
            sock.recv(100)
            connections.append(sock)
        of_tls = router_mib(cluster) - min(settled, empty)
        met = of_tls - of_plain <= IDLE_BAR * count / 10_000
        fine = fine and met
        print(f"{count} idle: plain {of_plain:.0f} MiB, TLS {of_tls:.0f} MiB; over plain {of_tls - of_plain:.0f} "
              f"(bar {IDLE_BAR * count / 10_000:.0f}){'' if met else '  MISSED'}", flush=True)  # fmt: skip
        for sock in connections:
            sock.close()
        until(lambda: b"connected_clients:1\r\n" in bytes(cluster.request("info", "clients")), "they are gone")
        settled = router_mib(cluster)
        hello = first_message(context)
        waiting = [socket.create_connection(("127.0.0.1", sealed), 30) for _ in range(count)]
        for sock in waiting:
            sock.sendall(hello)
        sent = time.monotonic()
        most = 0.0

        def gone() -> bool:
            nonlocal most
            most = max(most, router_mib(cluster) - settled)
            return b"tls_connected_clients:0\r\n" in bytes(cluster.request("info", "tls"))

        until(gone, "the unfinished ones are gone", 60)
        took = time.monotonic() - sent
        met = most <= STUCK_BAR and took <= STUCK_SECONDS + 1
        fine = fine and met
        print(f"{count} behind their first message: at most {most:.0f} MiB (bar {STUCK_BAR:.0f}), gone in {took:.1f} s "
              f"(bar {STUCK_SECONDS + 1:.0f}, looked at from outside){'' if met else '  MISSED'}")  # fmt: skip
        for sock in waiting:
            sock.close()
    return fine


def first_message(context: ssl.SSLContext) -> bytes:
    """A ClientHello."""
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def main() -> int:
    """Everything asked for; 1 when a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="*", choices=("rates", "storm", "idle"), default=["rates", "storm", "idle"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=100_000, help="of a run at P=1; ten times as many at P=16")
    parser.add_argument("--rows", nargs="*", choices=[row[0] for row in ROWS], default=[], help="of the rates; all")
    parser.add_argument("--seconds", type=float, default=30, help="of the storm")
    parser.add_argument("--handshakes", type=float, default=1000, help="a second")
    parser.add_argument("--connections", type=int, default=10_000)
    options = parser.parse_args()
    fine = True
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as directory:
        files = certificate(Path(directory))
        if "rates" in options.part:
            fine &= rates(files, options.rounds, options.requests, options.rows)
        if "storm" in options.part:
            fine &= storm(files, options.seconds, options.handshakes)
        if "idle" in options.part:
            fine &= idle(files, options.connections)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
