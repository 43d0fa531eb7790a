"""What clients may cost a router: everything within the budget is served, however late it is read; beyond it the costliest go."""

from __future__ import annotations

import random
import re
import signal
import socket
import sys
import threading
import time

import pytest
from cluster import Cluster, Connection, encode, until
from test_router_faults import code, resident_kib

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

MIB = 1 << 20


def budget_of(text: str) -> dict[str, str]:
    """The environment of a cluster; a reply may be late on a machine that has no time for all that is asked here."""
    return {"KACHE_MAXMEMORY_CLIENTS": text, "KACHE_REQUEST_TIMEOUT_MS": "60000"}


def receive(sock: socket.socket, size: int) -> int:
    """Reads up to `size` bytes; how many came before the end."""
    left = size
    into = bytearray(MIB)
    while left:
        n = sock.recv_into(into, min(left, MIB))
        if not n:
            break
        left -= n
    return size - left


def largest_output(connection: Connection) -> int:
    found = re.search(rb"client_recent_max_output_buffer:(\d+)", connection.request("INFO", "clients"))
    assert found is not None
    return int(found[1])


def test_fifty_megabytes_written_before_the_first_read() -> None:
    with Cluster(2) as cluster, cluster.connect() as connection:
        connection.socket.sendall(encode(("ECHO", "x" * 1024)) * 50_000)
        size = len("$1024\r\n") + 1026
        assert receive(connection.socket, 50_000 * size) == 50_000 * size
        assert connection.request("PING") == "PONG"


def test_two_hundred_megabytes_read_a_second_late() -> None:
    with Cluster(2, environment=budget_of("512mb")) as cluster, cluster.connect() as connection:
        assert connection.request("SET", "big", b"x" * (5 * MIB)) == "OK"
        connection.send(*[("GET", "big")] * 40)
        time.sleep(1)
        size = len("$5242880\r\n") + 5 * MIB + 2
        assert receive(connection.socket, 40 * size) == 40 * size
        assert connection.request("PING") == "PONG"


@pytest.mark.parametrize("command", ["GET", "MGET", "KEYS"])
def test_replies_that_nobody_reads_stay_within_the_budget(command: str) -> None:
    """Ten clients ask for 100 times what there is room for; somebody who reads is served all the while."""
    budget = 256 * MIB
    with Cluster(4, environment=budget_of("256mb")) as cluster, cluster.connect() as reader:
        keys = [key for keys in cluster.keys_by_shard(5) for key in keys]
        reader.send(*[("SET", key, "x" * MIB) for key in keys])
        reader.send(*[("SET", f"{'many' * 50}:{i}", "") for i in range(10_000)])
        assert reader.read_many(10_000 + len(keys)) == ["OK"] * (10_000 + len(keys))
        words = {"GET": ("GET", keys[0]), "MGET": ("MGET", *keys), "KEYS": ("KEYS", "*")}[command]
        router = cluster.pid_of("router")
        before = resident_kib(router)
        silent = [cluster.connect() for _ in range(10)]
        for client in silent:
            client.send(*[words] * 200)
        highest = 0
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            highest = max(highest, resident_kib(router) - before)
            assert len(reader.request("GET", keys[0])) == MIB
        print(f"{command}: {highest} KiB of {budget >> 10}")
        assert highest < 1.1 * (budget >> 10) + 8 * 1024
        for client in silent:
            client.close()


@pytest.mark.parametrize("last", ["QUIT", "half close", "drain"])
def test_a_last_reply_leaves_as_slowly_as_it_is_read(last: str) -> None:
    """More than sockets hold, read for longer than a close lingers behind the last byte."""
    environment = {"KACHE_LINGER_MS": "100", "KACHE_DRAIN_SECONDS": "60"}
    with Cluster(1, environment=environment) as cluster, cluster.connect() as connection:
        value = random.Random(1).randbytes(MIB // 2)
        assert connection.request("SET", "big", value) == "OK"
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            slow.connect(("127.0.0.1", cluster.port))
            slow.sendall(b"GET big\r\n" * 48 + b"QUIT\r\n" * (last == "QUIT"))
            reply = b"$%d\r\n%b\r\n" % (len(value), value)
            found = bytearray(slow.recv(1))
            if last == "half close":
                slow.shutdown(socket.SHUT_WR)
            elif last == "drain":
                # More than are under way before anything is known of the size of replies.
                while len(found) <= 8 * len(reply):
                    piece = slow.recv(1 << 18)
                    assert piece
                    found += piece
                cluster.process.send_signal(signal.SIGTERM)
            while piece := slow.recv(1 << 18):
                found += piece
                time.sleep(0.01)
        # What had waited to be read was not executed any more.
        count = len(found) // len(reply) if last == "drain" else 48
        assert count > 8
        assert bytes(found) == reply * count + b"+OK\r\n" * (last == "QUIT")


def test_who_is_not_to_be_evicted_is_not() -> None:
    with Cluster(1, environment=budget_of("16mb")) as cluster, cluster.connect() as connection:
        assert connection.request("SET", "big", "x" * (MIB // 2)) == "OK"
        with cluster.connect() as kept, cluster.connect() as evicted:
            assert [each.request("CLIENT", "NO-EVICT", "ON") for each in (kept, connection)] == ["OK", "OK"]
            kept.send(*[("GET", "big")] * 24)
            until(lambda: largest_output(connection) > 4 * MIB, "replies wait")
            assert connection.request("CONFIG", "SET", "maxmemory-clients", "4mb") == "OK"
            evicted.socket.sendall(b"*2\r\n$4\r\nECHO\r\n$%d\r\n" % (8 * MIB) + b"x" * MIB)
            until(lambda: b"evicted_clients:1" in connection.request("INFO", "stats"), "one is closed")
            assert kept.read_many(24) == [b"x" * (MIB // 2)] * 24


def test_unfinished_requests_stay_within_the_budget() -> None:
    with Cluster(2, environment=budget_of("256mb")) as cluster, cluster.connect() as reader:
        router = cluster.pid_of("router")
        before = resident_kib(router)
        clients = [cluster.connect() for _ in range(20)]

        def send(client: Connection) -> None:
            client.socket.settimeout(3)
            try:
                client.socket.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$67108865\r\n" + b"x" * (64 * MIB))
            except OSError:
                pass  # it is not read, or was closed

        threads = [threading.Thread(target=send, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        highest = 0
        while any(thread.is_alive() for thread in threads):
            highest = max(highest, resident_kib(router) - before)
            assert reader.request("PING") == "PONG"
        for thread in threads:
            thread.join()
        print(f"{highest} KiB of {256 << 10}")
        assert highest < 1.1 * (256 << 10)
        for client in clients:
            client.close()
        # The room is there again.
        assert reader.request("SET", "a", b"x" * (64 * MIB)) == "OK"


def test_writers_to_a_busy_shard_wait() -> None:
    with Cluster(2) as cluster:
        answers: list[object] = []

        def write(number: int) -> None:
            with cluster.connect() as connection:
                for turn in range(3):
                    answers.append(connection.request("SET", f"{{img}}{number}:{turn}", b"x" * 10_000_000))

        writers = [threading.Thread(target=write, args=(number,)) for number in range(12)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert answers == ["OK"] * 36


def test_more_arguments_than_a_million() -> None:
    with Cluster(2) as cluster, cluster.connect() as connection:
        connection.send(*[("SET", f"k{number}", "") for number in range(0, 1_100_000, 1000)])
        assert connection.read_many(1100) == ["OK"] * 1100
        assert connection.request("DEL", *(f"k{number}" for number in range(1_100_000))) == 1100
        router = cluster.pid_of("router")
        before = resident_kib(router)
        connection.socket.sendall(b"*2000000000\r\n$4\r\nECHO\r\n")
        with cluster.connect() as other:
            assert other.request("PING") == "PONG"
        assert resident_kib(router) - before < 1024


def test_what_unread_replies_have_cost_is_given_back() -> None:
    """Small pieces of many clients lie mixed in the heap, which would keep all of it for a few that stay."""
    with Cluster(2, environment=budget_of("256mb")) as cluster, cluster.connect() as connection:
        keys = [f"{'many' * 5}:{number}" for number in range(1000)]
        connection.send(*[("SET", key, "x" * 20) for key in keys])
        assert connection.read_many(1000) == ["OK"] * 1000
        router = cluster.pid_of("router")
        before = resident_kib(router)
        silent = [cluster.connect() for _ in range(60)]
        request = encode(("MGET", *keys)) * 20
        for client in silent:
            client.socket.setblocking(False)
        sent = dict.fromkeys(silent, 0)

        def ask_for_more() -> bool:
            """Each sends what is taken of its requests, which are whole; true when enough is unread."""
            for client in silent:
                at = sent[client] % len(request)
                try:
                    sent[client] += client.socket.send(request[at:])
                except BlockingIOError:
                    pass  # it is not read: that is what is wanted
            return resident_kib(router) > before + 48 * 1024

        until(ask_for_more, "unread replies", 60)
        later = [cluster.connect() for _ in range(50)]
        assert [client.request("PING") for client in later] == ["PONG"] * 50
        for client in silent:
            client.close()
        until(lambda: resident_kib(router) < before + 24 * 1024, "the memory is given back")
        for client in later:
            client.close()


def test_who_reads_too_little_of_what_the_class_allows_is_closed() -> None:
    with Cluster(1) as cluster, cluster.connect() as reader:
        assert reader.request("CONFIG", "SET", "client-output-buffer-limit", "normal 32mb 1mb 1") == "OK"
        assert reader.request("CONFIG", "GET", "client-output-buffer-limit") == [
            b"client-output-buffer-limit",
            b"normal 33554432 1048576 1 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
        ]
        for words in ("normal 1 2", "nobody 0 0 0", "normal -1 0 0", "normal 0 0 x", ""):
            assert code(reader.request("CONFIG", "SET", "client-output-buffer-limit", words)) == "ERR"
        assert reader.request("SET", "big", "x" * (MIB // 2)) == "OK"
        with cluster.connect() as hard, cluster.connect() as soft:
            hard.send(*[("GET", "big")] * 200)
            soft.send(*[("GET", "big")] * 24)
            until(
                lambda: b"client_output_buffer_limit_disconnections:2" in reader.request("INFO", "stats"), "both closed"
            )
        assert "over client-output-buffer-limit" in cluster.log()
        assert "soft client-output-buffer-limit" in cluster.log()
