"""Clients made for a Redis Cluster, unchanged: they see one node that owns all slots, at the address they connected to."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
import redis
import valkey
from cluster import DEADLINE, Cluster, Connection
from oracle.servers import valkey as valkey_server
from ports import free_port
from redis.cluster import RedisCluster
from valkey.cluster import ValkeyCluster

from kache.errors import CommandError
from kache.slots import slot_of_key

CLI = shutil.which("redis-cli")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3, routers=2, unixsocket="clients.sock") as running:
        yield running


@pytest.fixture(scope="module")
def real() -> Iterator[int]:
    """A real server that is a cluster of one node and owns all slots."""
    # The bus would have the port 10,000 above, which there may not be.
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with valkey_server(*options) as port, Connection(port) as connection:
        assert connection.request("cluster", "addslotsrange", 0, 16383) == "OK"
        yield port


def exercise(client: RedisCluster | ValkeyCluster) -> None:
    """What an application does, over keys of all slots."""
    client.flushall()
    names = [f"name:{number}" for number in range(300)]
    for name in names:
        assert client.set(name, name)
    assert [client.get(name) for name in names] == names
    assert client.mset_nonatomic(dict.fromkeys(names, "v")) and set(client.mget_nonatomic(*names)) == {"v"}
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.append(name, "w")
        assert pipeline.execute() == [2] * 300
    assert client.rpush("list", *range(10)) == 10 and client.lrange("list", 0, -1)[-1] == "9"
    assert client.hset("hash", mapping={"a": 1, "b": 2}) == 2 and client.hgetall("hash") == {"a": "1", "b": "2"}
    assert client.dbsize() == 302 and len(client.keys("name:*")) == 300
    assert set(client.scan_iter(count=50)) == {*names, "list", "hash"}
    assert client.delete(*names[:100]) == 100 and client.exists(*names) == 200
    assert client.cluster_keyslot("name:1") == slot_of_key(b"name:1")
    assert client.cluster_countkeysinslot(slot_of_key(b"list")) >= 1


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py(cluster: Cluster, protocol: int) -> None:
    with RedisCluster(host="127.0.0.1", port=cluster.port, protocol=protocol, decode_responses=True) as client:
        exercise(client)
        (node,) = client.get_nodes()
        assert (node.host, node.port, node.server_type) == ("127.0.0.1", cluster.port, "primary")
        assert client.cluster_info(target_nodes=node)["cluster_state"] == "ok"


@pytest.mark.parametrize("protocol", [2, 3])
def test_valkey_py(cluster: Cluster, protocol: int) -> None:
    with ValkeyCluster(host="127.0.0.1", port=cluster.port, protocol=protocol, decode_responses=True) as client:
        exercise(client)
    assert valkey.__version__


@pytest.mark.skipif(CLI is None, reason="redis-cli is not installed")
def test_redis_cli(cluster: Cluster) -> None:
    script = "".join(f"set key:{n} {n}\nget key:{n}\n" for n in range(50)) + "cluster nodes\n"
    done = subprocess.run(
        [str(CLI), "-c", "-p", str(cluster.port)],
        input=script, capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[:100] == [line for number in range(50) for line in ("OK", str(number))] and not done.stderr
    assert f"127.0.0.1:{cluster.port}@0 myself,master - 0 0 1 connected 0-16383" in lines[100]


def test_both_kinds_of_clients_are_served(cluster: Cluster) -> None:
    """A client of one server finds one (SELECT works); what asks INFO is not told to switch to a cluster's rules."""
    with redis.Redis(port=cluster.port, db=3) as client:
        assert client.info("cluster") == {"cluster_enabled": 0}
        assert client.set("k", "v") and client.info("server")["redis_mode"] == "standalone"


SAME = ("keyslot foo", "keyslot {a}b", "keyslot", "countkeysinslot 5", "countkeysinslot 16384", "countkeysinslot -1",
        "countkeysinslot x", "getkeysinslot 5 10", "getkeysinslot 5 -1", "getkeysinslot 16384 1", "getkeysinslot 5 x",
        "links", "replicas x", "slaves x", "count-failure-reports x", "nosuch", "info x")  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 3])
def test_answers_as_a_real_node(cluster: Cluster, real: int, protocol: int) -> None:
    with cluster.connect() as ours, Connection(real) as theirs:
        for each in (ours, theirs):
            each.request("hello", protocol)
            each.request("flushall")
        for line in SAME:
            found, wanted = (each.request("cluster", *line.split()) for each in (ours, theirs))
            assert repr(found) == repr(wanted), line
        found, wanted = (shape(each.request("cluster", "slots")) for each in (ours, theirs))
        assert found == wanted
        found, wanted = (shape(each.request("cluster", "shards")) for each in (ours, theirs))
        assert found == wanted
        for each in (ours, theirs):
            name = each.request("cluster", "myid")
            assert re.fullmatch(rb"[0-9a-f]{40}", name) and each.request("cluster", "myshardid") != name
            assert each.request("cluster", "replicas", name) == []
            assert each.request("cluster", "count-failure-reports", name) == 0


def shape(value: object) -> object:
    """A reply with the kinds of its values instead of names and numbers that are each server's own."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return type(value).__name__


def test_every_router_is_the_same_node(cluster: Cluster) -> None:
    ids = set()
    seen: set[int] = set()
    while seen != {0, 1}:
        with cluster.connect() as connection:
            seen.add(connection.request("client", "id") >> 48)
            ids.add(connection.request("cluster", "myid"))
    assert len(ids) == 1


def test_the_keys_of_a_slot(cluster: Cluster) -> None:
    slot = slot_of_key(b"{tag}")
    with cluster.connect() as connection:
        connection.request("flushall")
        connection.send(*[("set", f"{{tag}}:{number}", number) for number in range(2500)])
        connection.read_many(2500)
        assert connection.request("cluster", "countkeysinslot", slot) == 2500
        every = connection.request("cluster", "getkeysinslot", slot, 10_000)
        assert sorted(every) == sorted(b"{tag}:%d" % number for number in range(2500))
        some = connection.request("cluster", "getkeysinslot", slot, 7)
        assert len(some) == 7 and set(some) <= set(every)
        assert connection.request("cluster", "getkeysinslot", slot, 0) == []


def test_the_address_is_never_empty(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        for command, wanted in (
            (("cluster-announce-ip", "cache.example", "cluster-announce-port", "6379"), [b"cache.example", 6379]),
            (("cluster-announce-ip", "", "cluster-announce-port", "0"), [b"127.0.0.1", cluster.port]),
        ):
            assert connection.request("config", "set", *command) == "OK"
            assert connection.request("cluster", "slots")[0][2][:2] == wanted
            host, port = wanted
            assert b" %s:%d@0 " % (host, port) in connection.request("cluster", "nodes")
    with redis.Redis(unix_socket_path=str(cluster.directory / "clients.sock")) as client:
        assert client.execute_command("CLUSTER SLOTS")[0][2][:2] == [b"127.0.0.1", cluster.port]


def test_what_changes_a_cluster_is_unknown(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        for line in ("meet 127.0.0.1 7000", "addslots 5", "reset", "failover"):
            name = line.partition(" ")[0]
            assert connection.request("cluster", *line.split()) == CommandError(
                f"ERR unknown subcommand '{name}'. Try CLUSTER HELP."
            )
        assert connection.request("asking") == connection.request("readonly") == connection.request("readwrite") == "OK"
