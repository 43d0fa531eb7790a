"""Libraries that live on publish and subscribe, unmodified, against a real cluster of four shards and two routers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from cluster import Cluster
from test_clients import INSTALL_SECONDS, installed, run


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A cluster's port."""
    with Cluster(shards=4, routers=2) as cluster:
        yield cluster.port


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment with what is built on pub/sub, and what that needs."""
    wanted = ["channels_redis>=4.2", "celery>=5.4", "kombu>=5.4", "packaging", "python-socketio>=5.11"]
    return installed(tmp_path_factory.mktemp("pubsub"), *wanted, alone=False)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("library", ["redis", "valkey"])
def test_redis_py_and_valkey_py(port: int, library: str, protocol: int) -> None:
    assert "fine" in run("pubsub_sync.py", port, library, protocol)


def test_client_side_cache_of_redis_py(port: int) -> None:
    assert "fine" in run("client_cache.py", port)


def test_channels_redis(port: int, packages: dict[str, str]) -> None:
    assert "fine" in run("channels_layer.py", port, environment=packages)


def test_fanout_of_kombu(port: int, packages: dict[str, str]) -> None:
    assert "fine" in run("kombu_fanout.py", port, environment=packages)


def test_events_and_results_of_celery(port: int, packages: dict[str, str]) -> None:
    """With the newest Kombu, whose workers give a lock back by a script."""
    assert "fine" in run("celery_events.py", port, environment=packages)


def test_manager_of_socketio(port: int, packages: dict[str, str]) -> None:
    assert "fine" in run("socketio_manager.py", port, environment=packages)


@pytest.mark.parametrize("version", [4, 5])
def test_node_redis(port: int, version: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node and npm are not installed")
    folder = tmp_path_factory.mktemp(f"node-redis-{version}")
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), f"redis@{version}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode:
        pytest.skip(f"node-redis cannot be installed: {done.stderr[-200:]}")
    environment = {**os.environ, "NODE_PATH": str(folder / "node_modules")}
    assert f"node-redis {version}" in run("node_redis_pubsub.js", port, environment=environment)
