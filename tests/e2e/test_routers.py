"""A real cluster with two routers on one port: whichever of them a client meets, it is served by the same cluster."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from cluster import DEADLINE, Cluster, Connection, until

from kache.errors import CommandError

MOST = 500
"""Connections after which both routers must have got some."""


class Client(Connection):
    """A connection that knows its id, and so its router."""

    def __init__(self, port: int, password: str = "") -> None:
        super().__init__(port)
        if password:
            refused = self.request("ping")
            assert isinstance(refused, CommandError) and refused.code == "NOAUTH"
            assert self.request("auth", password) == "OK"
        self.id: int = self.request("client", "id")
        self.router = self.id >> 48
        host, port_here = self.socket.getsockname()
        self.address = f"{host}:{port_here}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2, routers=2) as found:
        yield found


@pytest.fixture
def clients(cluster: Cluster) -> Iterator[list[Client]]:
    with ExitStack() as stack:
        yield on_both(cluster, stack)


def on_both(cluster: Cluster, stack: ExitStack, least: int = 2, password: str = "") -> list[Client]:
    """Connections opened one after the other until each router has `least`; nobody else is connected then."""
    found: list[Client] = []
    while min(len(of(found, 0)), len(of(found, 1))) < least:
        assert len(found) < MOST, "one router gets all connections"
        found.append(stack.enter_context(Client(cluster.port, password)))
    until(lambda: info(found[0])["connected_clients"] == len(found), "the end of earlier connections")
    return found


def of(clients: list[Client], router: int) -> list[Client]:
    return [client for client in clients if client.router == router]


def info(client: Client, *sections: str) -> dict[str, Any]:
    lines = client.request("info", *sections).decode().split("\r\n")
    pairs = dict(line.split(":", 1) for line in lines if ":" in line)
    return {name: int(value) if value.isdigit() else value for name, value in pairs.items()}


def listed(client: Client, *filters: object) -> list[dict[str, str]]:
    lines = client.request("client", "list", *filters).decode().splitlines()
    return [dict(pair.split("=", 1) for pair in line.split(" ")) for line in lines]


def is_closed(client: Client) -> bool:
    try:
        client.read()
    except ConnectionError:
        return True
    return False


def answer_in_order(clients: list[Client]) -> None:
    """Pipelines over all shards, sent by all before any reads."""
    for client in clients:
        client.send(*[("echo", f"{client.id}:{n}") if n % 2 else ("get", f"number:{n}") for n in range(200)])
    for client in clients:
        wanted = [b"%d:%d" % (client.id, n) if n % 2 else b"%d" % n for n in range(200)]
        assert client.read_many(200) == wanted


def test_connections_are_spread_and_see_the_same_data_in_order(clients: list[Client]) -> None:
    for n, client in zip(range(200), clients * 200, strict=False):
        assert client.request("set", f"number:{n}", n) == "OK"
    answer_in_order(clients)
    for number, client in enumerate(clients, 1):
        assert client.request("incr", "visits") == number
    assert all(client.request("dbsize") == 201 for client in clients)
    for client in clients:
        assert client.request("mget", "number:1", "number:2", "visits") == [b"1", b"2", b"%d" % len(clients)]
    assert clients[0].request("flushall") == "OK"


def test_client_list_has_the_clients_of_both(clients: list[Client]) -> None:
    for asker in (of(clients, 0)[0], of(clients, 1)[0]):
        found = listed(asker)
        assert sorted(int(one["id"]) for one in found) == sorted(client.id for client in clients)
        assert {one["addr"] for one in found} == {client.address for client in clients}
        assert {int(one["id"]): one["cmd"] for one in found}[asker.id] == "client|list"
        for client in clients:
            assert [one["addr"] for one in listed(asker, "id", client.id)] == [client.address]
        assert len(listed(asker, "skipme", "yes")) == len(clients) - 1
        assert listed(asker, "type", "pubsub") == []
        wrong = asker.request("client", "list", "id", "0")
        assert isinstance(wrong, CommandError) and wrong.message == "ERR client-id should be greater than 0"


def test_an_answer_may_be_longer_than_a_message_part(clients: list[Client]) -> None:
    name = "n" * 2_500_000
    assert of(clients, 1)[0].request("client", "setname", name) == "OK"
    assert name in {one["name"] for one in listed(of(clients, 0)[0])}


@pytest.mark.parametrize("by", ["id", "addr", "old form", "ids of both", "laddr", "user", "self"])
def test_client_kill_finds_its_client_on_either_router(clients: list[Client], by: str) -> None:
    asker, twin, victim = of(clients, 0)[0], of(clients, 0)[1], of(clients, 1)[0]
    others = [client for client in clients if client is not asker]
    server = f"127.0.0.1:{asker.socket.getpeername()[1]}"
    words, reply, gone = {
        "id": (("id", victim.id), 1, [victim]),
        "addr": (("addr", victim.address), 1, [victim]),
        "old form": ((victim.address,), "OK", [victim]),
        "ids of both": (("id", twin.id, victim.id, 12345), 2, [twin, victim]),
        "laddr": (("laddr", server), len(others), others),
        "user": (("user", "default", "type", "normal"), len(others), others),
        "self": (("laddr", server, "skipme", "no"), len(clients), clients),
    }[by]
    assert asker.request("client", "kill", *words) == reply
    assert all(is_closed(client) for client in gone)
    left = [client for client in clients if client not in gone]
    assert all(client.request("ping") == "PONG" for client in left)
    if left:
        until(lambda: len(listed(asker)) == len(left), "the others are gone")


def test_client_kill_of_nobody(clients: list[Client]) -> None:
    asker = clients[0]
    nobody = asker.request("client", "kill", "127.0.0.1:1")
    assert isinstance(nobody, CommandError) and nobody.message == "ERR No such client"
    assert asker.request("client", "kill", "id", 2**48 + 99999) == 0
    assert isinstance(asker.request("client", "kill", "user", "nobody"), CommandError)
    assert len(listed(asker)) == len(clients)


def test_info_stats_and_memory_stats_add_up_both(cluster: Cluster, clients: list[Client]) -> None:
    seen = [info(of(clients, router)[0]) for router in (0, 1)]
    assert [one["connected_clients"] for one in seen] == [len(clients)] * 2
    assert seen[1]["total_commands_processed"] == seen[0]["total_commands_processed"] + 1
    assert seen[1]["total_connections_received"] == seen[0]["total_connections_received"] >= len(clients)
    for client in clients:
        client.send(*[("echo", "x" * 100)] * 100)
        client.read_many(100)
    later = info(clients[0], "stats", "commandstats")
    assert later["total_commands_processed"] - seen[1]["total_commands_processed"] == 100 * len(clients) + 1
    assert later["total_net_input_bytes"] - seen[1]["total_net_input_bytes"] >= 10_000 * len(clients)
    assert int(later["cmdstat_echo"].split(",")[0].removeprefix("calls=")) >= 100 * len(clients)
    told = clients[0].request("stats", "all")
    total = dict(zip(told[7][::2], told[7][1::2], strict=True))
    assert total[b"clients"] == len(clients)
    assert f'"clients": {len(clients) + 1}' in cluster.kache("stats", "--json").stdout
    clients[0].request("set", "some", "value")
    memory = clients[0].request("memory", "stats")
    memory = dict(zip(memory[::2], memory[1::2], strict=True)) if isinstance(memory, list) else memory
    assert (
        memory[b"peak.allocated"]
        >= memory[b"total.allocated"]
        >= memory[b"slot.tables"] + memory[b"clients.normal"]
        > 0
    )


def test_the_peak_of_memory_stays(clients: list[Client]) -> None:
    """Until CONFIG RESETSTAT; INFO and MEMORY STATS say the same of the same."""
    clients[0].request("flushall")
    clients[0].request("config", "resetstat")
    for number in range(20):
        clients[0].request("set", f"big:{number}", "x" * 100_000)
    full = info(clients[0], "memory")
    clients[0].request("flushall")
    empty = info(clients[0], "memory")
    assert (
        empty["used_memory_peak"] >= full["used_memory_peak"] >= full["used_memory"] > empty["used_memory"] + 1_900_000
    )
    told = clients[0].request("memory", "stats")
    stats = dict(zip(told[::2], told[1::2], strict=True)) if isinstance(told, list) else told
    again = info(clients[0], "memory")
    assert stats[b"peak.allocated"] >= empty["used_memory_peak"]
    assert stats[b"startup.allocated"] == again["used_memory_startup"] < stats[b"total.allocated"]
    assert stats[b"overhead.total"] == stats[b"total.allocated"] - stats[b"dataset.bytes"]
    assert stats[b"shards.startup"] == again["mem_shards_startup"] > 0
    clients[0].request("config", "resetstat")
    assert info(clients[0], "memory")["used_memory_peak"] < full["used_memory_peak"] - 1_900_000


def test_resetstat_resets_both(clients: list[Client]) -> None:
    for client in clients:
        assert isinstance(client.request("get"), CommandError)
    assert info(clients[0])["total_error_replies"] >= len(clients)
    assert of(clients, 1)[0].request("config", "resetstat") == "OK"
    for router in (0, 1):
        after = info(of(clients, router)[0])
        assert after["total_commands_processed"] == router + 1
        assert (after["total_connections_received"], after["total_error_replies"]) == (0, 0)
        assert after["connected_clients"] == len(clients)


def test_slowlog_names_the_clients_of_both(clients: list[Client]) -> None:
    near, far = of(clients, 0)[0], of(clients, 1)[0]
    assert far.request("client", "setname", "far") == "OK"
    assert near.request("config", "set", "slowlog-log-slower-than", 0) == "OK"
    try:
        assert far.request("hset", "slow", "field", 1) == 1
        assert near.request("hget", "slow", "field") == b"1"
        found = {tuple(entry[3]): entry[4:] for entry in near.request("slowlog", "get", "-1")}
    finally:
        near.request("config", "set", "slowlog-log-slower-than", 10000)
        near.request("slowlog", "reset")
    assert found[b"hset", b"slow", b"field", b"1"] == [far.address.encode(), b"far"]
    assert found[b"hget", b"slow", b"field"] == [near.address.encode(), b""]


def test_config_set_reaches_both(cluster: Cluster, clients: list[Client]) -> None:
    near, far = of(clients, 0)[0], of(clients, 1)[0]
    assert far.request("config", "set", "maxclients", 2) == "OK"
    try:
        assert near.request("config", "get", "maxclients") == [b"maxclients", b"2"]
        for _ in range(30):  # every router has two, so that none may have one more
            with cluster.connect() as refused:
                reply = refused.read()
            assert isinstance(reply, CommandError) and reply.message == "ERR max number of clients reached"
    finally:
        assert near.request("config", "set", "maxclients", 10000) == "OK"
    assert info(near)["rejected_connections"] == 30
    assert near.request("config", "set", "requirepass", "secret") == "OK"
    try:
        # Not shown in clear, and not masked: tools write back what they read.
        assert far.request("config", "get", "requirepass") == []
        with ExitStack() as stack:
            until(lambda: info(near)["connected_clients"] == len(clients), "the end of the refused")
            strangers: list[Client] = []
            while {one.router for one in strangers} != {0, 1}:
                assert len(strangers) < MOST
                strangers.append(stack.enter_context(Client(cluster.port, "secret")))
    finally:
        assert far.request("config", "set", "requirepass", "") == "OK"
    assert cluster.request("ping") == "PONG"


def test_connections_that_come_one_by_one_are_spread_evenly(cluster: Cluster) -> None:
    def least() -> int:
        """How many of sixty the one with fewer gets."""
        with ExitStack() as stack:
            found: list[Client] = []
            for _ in range(60):
                found.append(stack.enter_context(Client(cluster.port)))
                time.sleep(0.005)  # long enough for both routers to sleep: then it is not who happens to be awake
            return min(len(of(found, 0)), len(of(found, 1)))

    # On a busy machine one of them may be kept from its turn for a while.
    until(lambda: least() >= 20, "even shares")


def test_a_router_with_fewer_clients_gets_the_next_ones(cluster: Cluster) -> None:
    def of_the_next() -> int:
        """How many of the sixteen next ones router 0 gets, whose clients have gone."""
        with ExitStack() as stack:
            first = on_both(cluster, stack, 20)
            asker = of(first, 1)[0]
            for client in of(first, 0):
                client.close()
            until(lambda: info(asker)["connected_clients"] == len(of(first, 1)), "the end of the clients of router 0")
            fresh: list[Client] = []
            for _ in range(16):
                fresh.append(stack.enter_context(Client(cluster.port)))
                time.sleep(0.005)
            return len(of(fresh, 0))

    until(lambda: of_the_next() >= 14, "most of them")


def test_maxclients_is_about_the_clients_of_both(cluster: Cluster, clients: list[Client]) -> None:
    near = of(clients, 0)[0]
    assert near.request("config", "set", "maxclients", len(clients) + 6) == "OK"
    try:
        with ExitStack() as stack:
            for _ in range(6):
                stack.enter_context(Client(cluster.port))
            for _ in range(6):
                with cluster.connect() as refused:
                    reply = refused.read()
                assert isinstance(reply, CommandError) and reply.message == "ERR max number of clients reached"
        until(lambda: info(near)["connected_clients"] == len(clients), "the end of the others")
        with Client(cluster.port) as welcome:
            assert welcome.request("ping") == "PONG"
    finally:
        assert near.request("config", "set", "maxclients", 10000) == "OK"


def test_a_killed_router_is_back_and_the_clients_of_the_other_notice_nothing() -> None:
    with Cluster(2, routers=2) as cluster, ExitStack() as stack:
        clients = on_both(cluster, stack)
        kept, lost = of(clients, 0), of(clients, 1)
        for n in range(200):
            assert clients[0].request("set", f"number:{n}", n) == "OK"
        before = cluster.pid_of("router", 1)
        cluster.kill(before)

        def is_back() -> bool:
            answer_in_order(kept)
            info(kept[0])
            child = cluster.child("router", 1)
            return child["state"] == "up" and child["pid"] != before

        until(is_back, "a new router")
        assert all(is_closed(client) for client in lost)
        assert cluster.child("router", 0)["restarts"] == 0
        assert info(kept[0])["connected_clients"] == len(kept)
        clients = kept + on_both_again(cluster, stack, kept)
        answer_in_order(clients)
        for client in clients:
            assert info(client)["connected_clients"] == len(clients)
            assert sorted(int(one["id"]) for one in listed(client)) == sorted(one.id for one in clients)


def on_both_again(cluster: Cluster, stack: ExitStack, kept: list[Client]) -> list[Client]:
    """New connections until the new router has two."""
    found: list[Client] = []
    while len(of(found, 1)) < 2:
        assert len(found) < MOST
        found.append(stack.enter_context(Client(cluster.port)))
    return found


def test_a_silent_router_is_left_out_and_not_obeyed_late() -> None:
    with Cluster(2, routers=2) as cluster, ExitStack() as stack:
        clients = on_both(cluster, stack)
        near, far = of(clients, 0), of(clients, 1)
        stopped = cluster.pid_of("router", 1)
        cluster.kill(stopped, signal.SIGSTOP)
        try:
            assert info(near[0])["connected_clients"] == len(near)
            assert near[0].request("client", "kill", "id", far[0].id) == 0
        finally:
            cluster.kill(stopped, signal.SIGCONT)
        assert all(client.request("ping") == "PONG" for client in clients)
        assert info(near[0])["connected_clients"] == len(clients)


@pytest.mark.parametrize("how", ["stop", "shutdown"])
def test_the_end_is_the_end_of_all(how: str) -> None:
    with Cluster(2, routers=2) as cluster, ExitStack() as stack:
        clients = on_both(cluster, stack, least=1)
        if how == "stop":
            assert cluster.kache("cluster", "stop").stdout == f"The cluster on port {cluster.port} has stopped.\n"
        else:
            of(clients, 1)[0].send(("shutdown",))
        assert cluster.process.wait(DEADLINE) == 0
        assert all(is_closed(client) for client in clients)
        assert cluster.kache("cluster", "status", check=False).returncode == 3
