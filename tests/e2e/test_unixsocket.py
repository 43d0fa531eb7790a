"""The client port as a Unix socket: beside the TCP port, shared by all routers, gone with the cluster."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from cluster import Cluster, until
from ports import free_port

from kache.cluster.listeners import ClientSocket, ListenError
from kache.config.changing import redis_settings
from kache.config.reading import load
from kache.config.settings import ConfigError


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short path: those of Unix sockets are limited."""
    with tempfile.TemporaryDirectory(prefix="kache-") as folder:
        yield Path(folder)


@pytest.mark.parametrize("method", ["fork", "exec"])
def test_clients_find_the_cluster_by_its_path(place: Path, method: str) -> None:
    path = place / "kache.sock"
    with Cluster(2, routers=2, unixsocket=path, unixsocketperm="770", start_method=method) as cluster:
        assert stat.S_IMODE(path.stat().st_mode) == 0o770
        clients = [redis.Redis(unix_socket_path=str(path), decode_responses=True) for _ in range(8)]
        for number, client in enumerate(clients):
            assert client.set(f"key:{number}", number) and client.get(f"key:{number}") == str(number)
            found = client.client_info()
            assert found["addr"] == found["laddr"] == f"{path}:0"
        # All routers take their part of it, as of the port; on a busy machine one of them may take the first few.
        while {int(client.client_id()) >> 48 for client in clients} != {0, 1}:
            assert len(clients) < 500, "one router gets all connections"
            clients.append(redis.Redis(unix_socket_path=str(path), decode_responses=True))
        lines = cluster.request("client", "list")
        assert lines.count(b"addr=%s:0 " % os.fsencode(path)) == 2 * len(clients)  # addr and laddr
        assert cluster.request("client", "kill", "laddr", f"{path}:0") == len(clients)
        assert redis.Redis(port=cluster.port, decode_responses=True).get("key:7") == "7"
        assert cluster.request("config", "get", "unixsocket*") == [
            b"unixsocket", os.fsencode(path), b"unixsocketperm", b"770", b"unixsocketgroup", b"",
        ]  # fmt: skip
        for client in clients:
            client.close()
    assert not path.exists()


def test_a_stale_socket_is_replaced_and_a_restarted_router_serves_it(place: Path) -> None:
    path = place / "kache.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with Cluster(1, unixsocket=path) as cluster, redis.Redis(unix_socket_path=str(path)) as client:
        assert client.ping()
        before = cluster.pid_of("router")
        cluster.kill(before)
        until(lambda: cluster.child("router")["state"] == "up" and cluster.pid_of("router") != before, "a new router")
        assert client.ping()
    assert not path.exists()


def test_a_killed_cluster_is_started_again_on_its_socket(place: Path) -> None:
    path = place / "kache.sock"
    with Cluster(1, port=free_port(), unixsocket=path) as cluster:
        cluster.kill(cluster.status()["pid"])
        cluster.process.wait()
        assert path.exists()
        again = Cluster(
            1, port=cluster.port, unixsocket=path, environment={"KACHE_RUN_DIR": cluster.environment["KACHE_RUN_DIR"]}
        )
        with again, redis.Redis(unix_socket_path=str(path)) as client:
            assert client.ping()
    assert not path.exists()


def test_a_living_server_keeps_its_socket(place: Path) -> None:
    path = place / "kache.sock"
    with Cluster(1, unixsocket=path) as cluster, redis.Redis(unix_socket_path=str(path)) as client:
        second = cluster.kache("cluster", "start", "--port=0", f"--unixsocket={path}", check=False)
        assert second.returncode != 0 and f"The Unix socket {path} is in use by another server." in second.stderr
        assert client.ping()


def test_other_files_are_left_alone(place: Path) -> None:
    path = place / "precious"
    path.write_text("data")
    with pytest.raises(ListenError, match="is not a socket"):
        ClientSocket(str(path), 0o700, 10)
    assert path.read_text() == "data"
    with pytest.raises(ListenError, match="too long"):
        ClientSocket(str(place / ("x" * 120)), 0o700, 10)
    with pytest.raises(ListenError, match="cannot be made"):
        ClientSocket(str(place / "none" / "x.sock"), 0o700, 10)


def test_only_its_own_file_is_removed(place: Path) -> None:
    path = place / "x.sock"
    own = ClientSocket(str(path), 0o600, 10)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        own.remove()
        assert path.exists()
    os.close(own.fd)


def test_the_mode_is_octal(tmp_path: Path) -> None:
    assert load({"unixsocketperm": "770"}, {}).unixsocketperm == 0o770
    assert redis_settings(load({}, {"KACHE_UNIXSOCKETPERM": "0777"}))["unixsocketperm"] == "777"
    for wrong in ("8", "-1", "1000", "rwx", ""):
        with pytest.raises(ConfigError, match="octal"):
            load({"unixsocketperm": wrong}, {})
    file = tmp_path / "kache.toml"
    # A number of TOML would be decimal: 770 is 0o1402 then.
    file.write_text("unixsocketperm = 770\n")
    with pytest.raises(ConfigError, match="as text"):
        load({}, {}, str(file))
    file.write_text('unixsocketperm = "770"\n')
    assert load({}, {}, str(file)).unixsocketperm == 0o770


def test_a_group_may_have_the_socket(place: Path) -> None:
    path = place / "kache.sock"
    group = os.getgroups()[0] if os.getgroups() else os.getgid()
    with Cluster(1, unixsocket=path, unixsocketgroup=group, unixsocketperm="770"):
        found = path.stat()
        assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (group, 0o770)


def test_a_group_that_is_none(place: Path) -> None:
    with pytest.raises(ListenError, match="There is no group 'nobody-of-this-name'"):
        ClientSocket(str(place / "s"), 0o700, 1, group="nobody-of-this-name")
    assert list(place.iterdir()) == []


def test_no_socket_where_everybody_may_replace_it(place: Path) -> None:
    place.chmod(0o777)
    with pytest.raises(ListenError, match="everybody may replace it"):
        ClientSocket(str(place / "s"), 0o700, 1)
    place.chmod(0o1777)  # as /tmp is: only the owner removes
    made = ClientSocket(str(place / "s"), 0o700, 1)
    made.remove()
    os.close(made.fd)
