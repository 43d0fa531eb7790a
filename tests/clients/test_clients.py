"""Real client libraries against a real cluster, the way their users run them: one program per library.

redis-py 7 and 8 cannot live in one environment, so the older one is installed into a folder of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import DEADLINE, Cluster
from ports import free_port

HERE = Path(__file__).parent
INSTALL_SECONDS = 180
RUN_SECONDS = 240


@pytest.fixture(scope="module", params=[1, 4], ids=["1-shard", "4-shards"])
def shards(request: pytest.FixtureRequest) -> int:
    """How many shards the cluster has."""
    return int(request.param)


@pytest.fixture(scope="module")
def port(shards: int) -> Iterator[int]:
    """A cluster's port; several shards are behind two routers."""
    with Cluster(shards=shards, routers=1 if shards == 1 else 2) as cluster:
        yield cluster.port


def installed(folder: Path, *requirements: str, alone: bool = True) -> dict[str, str]:
    """An environment in which `requirements` (without what they need, if `alone`) shadow what is installed."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), *requirements]
    command += ["--no-deps"] if alone else []
    for _ in range(2):  # an index may fail once
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        if done.returncode == 0:
            break
    assert done.returncode == 0, f"{requirements} cannot be installed: {done.stderr}"
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.fixture(scope="session")
def redis7(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment with redis-py 7."""
    return installed(tmp_path_factory.mktemp("redis7"), "redis>=7,<8")


@pytest.fixture(scope="session")
def coredis(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment with coredis and what it needs."""
    return installed(tmp_path_factory.mktemp("coredis"), "coredis>=6.9,<7", alone=False)


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment with libraries that keep something in Redis, and what they need."""
    folder = tmp_path_factory.mktemp("libraries")
    for requirement in ("django-redis>=5", "aiocache>=0.12", "celery>=5.4"):
        environment = installed(folder, requirement, alone=False)
    return environment


def of_node(folder: Path, *packages: str) -> dict[str, str]:
    """The environment with packages on Node's path; skips where there is no Node, or they cannot be installed."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node and npm are not installed")
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), *packages]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode:
        pytest.skip(f"{' '.join(packages)} cannot be installed: {done.stderr[-200:]}")
    return {**os.environ, "NODE_PATH": str(folder / "node_modules")}


@pytest.fixture(scope="session")
def ioredis(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment with ioredis on Node's path."""
    return of_node(tmp_path_factory.mktemp("ioredis"), "ioredis")


@pytest.fixture(scope="session")
def node_redis(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment with node-redis on Node's path."""
    return of_node(tmp_path_factory.mktemp("node-redis"), "redis")


@pytest.fixture(scope="session", params=[5, 6])
def bullmq(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment with BullMQ and the client that it uses, on Node's path."""
    version = request.param
    return of_node(tmp_path_factory.mktemp(f"bullmq-{version}"), f"bullmq@{version}", "ioredis@5")


@pytest.fixture(scope="session")
def queues(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment with kombu and rq, and what they need. Both keep what they have in lists, rq its results in streams."""
    return installed(tmp_path_factory.mktemp("queues"), "kombu[redis]>=5.4", "rq>=1.16,<2", alone=False)


@pytest.fixture(scope="session")
def rq3(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment with an rq that has unique jobs and limits of rates, and what it needs."""
    return installed(tmp_path_factory.mktemp("rq3"), "rq>=3,<4", alone=False)


@pytest.fixture(scope="session")
def scripting(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment with libraries whose locks, limits and groups are scripts."""
    wanted = ("limits>=4", "Flask-Limiter>=3", "channels_redis>=4", "dogpile.cache>=1.3", "cashews[redis]>=7")
    return installed(tmp_path_factory.mktemp("scripting"), *wanted, alone=False)


@pytest.fixture(scope="session")
def walrus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment with walrus, without what it needs: redis-py is here."""
    return installed(tmp_path_factory.mktemp("walrus"), "walrus>=0.9")


def run(program: str, *arguments: object, environment: dict[str, str] | None = None) -> str:
    """Runs a program of this folder; its output, or a failure that shows it."""
    done = subprocess.run(
        [sys.executable if program.endswith(".py") else "node", str(HERE / program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, f"{program}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("program", ["redis_sync.py", "redis_async.py"])
def test_redis_py_8(port: int, program: str, protocol: int) -> None:
    assert "redis-py 8" in run(program, port, protocol)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("program", ["redis_sync.py", "redis_async.py"])
def test_redis_py_7(port: int, program: str, protocol: int, redis7: dict[str, str]) -> None:
    assert "redis-py 7" in run(program, port, protocol, environment=redis7)


@pytest.mark.parametrize("protocol", [2, 3])
def test_valkey_py(port: int, protocol: int) -> None:
    assert "fine" in run("valkey_sync.py", port, protocol)


def test_coredis(port: int, coredis: dict[str, str]) -> None:
    """It refuses commands that are newer than the version that the server names."""
    assert "fine" in run("coredis_async.py", port, environment=coredis)


def test_kombu(port: int, queues: dict[str, str]) -> None:
    assert "fine" in run("kombu_queues.py", port, environment=queues)


def test_rq(port: int, queues: dict[str, str]) -> None:
    assert "fine" in run("rq_jobs.py", port, environment=queues)


def test_workers_of_rq(port: int, shards: int, rq3: dict[str, str]) -> None:
    assert "fine" in run("rq_workers.py", port, shards, environment=rq3)


@pytest.mark.parametrize("prefix", ["bull", "{bull}"])
def test_bullmq(port: int, shards: int, prefix: str, bullmq: dict[str, str]) -> None:
    """Its scripts find keys on their way: with several shards a queue has to be in one slot."""
    if prefix == "bull" and shards > 1:
        pytest.skip("BullMQ wants a prefix in braces where keys are on several shards")
    assert "fine" in run("bullmq_jobs.js", port, prefix, environment=bullmq)


def test_scripts_of_redis_py(port: int) -> None:
    assert "fine" in run("scripts_python.py", port, "redis")


def test_scripts_of_redis_py_7(port: int, redis7: dict[str, str]) -> None:
    assert "fine" in run("scripts_python.py", port, "redis", environment=redis7)


def test_functions_of_redis_py(port: int) -> None:
    assert "fine" in run("functions_python.py", port)


@pytest.mark.parametrize("part", ["limits", "flask", "channels", "dogpile", "cashews"])
def test_libraries_that_live_by_scripts(port: int, shards: int, part: str, scripting: dict[str, str]) -> None:
    assert "fine" in run("scripts_python.py", port, part, shards, environment=scripting)


@pytest.mark.parametrize("part", ["django", "aiocache"])
def test_locks_of_caches(port: int, part: str, libraries: dict[str, str]) -> None:
    assert "fine" in run("scripts_python.py", port, part, environment=libraries)


@pytest.mark.parametrize("protocol", [2, 3])
def test_streams_of_redis_py(port: int, protocol: int) -> None:
    assert "fine" in run("redis_streams.py", port, protocol)


def test_walrus(port: int, walrus: dict[str, str]) -> None:
    assert "fine" in run("walrus_groups.py", port, environment=walrus)


def test_streams_of_ioredis(port: int, ioredis: dict[str, str]) -> None:
    assert "fine" in run("node_streams.js", port, "ioredis", environment=ioredis)


def test_streams_of_node_redis(port: int, node_redis: dict[str, str]) -> None:
    assert "fine" in run("node_streams.js", port, "redis", environment=node_redis)


def test_ioredis_cluster(port: int, ioredis: dict[str, str]) -> None:
    assert "fine" in run("ioredis_cluster.js", port, environment=ioredis)


def test_django_cache(port: int) -> None:
    assert "fine" in run("django_cache.py", port)


@pytest.mark.parametrize("name", ["redis", "valkey"])
def test_transactions(port: int, name: str) -> None:
    assert "fine" in run("transactions.py", port, name)


def test_transactions_of_redis_py_7(port: int, redis7: dict[str, str]) -> None:
    assert "redis-py 7" in run("transactions.py", port, environment=redis7)


def test_django_redis(port: int, libraries: dict[str, str]) -> None:
    assert "fine" in run("django_redis_cache.py", port, environment=libraries)


def test_aiocache(port: int, libraries: dict[str, str]) -> None:
    assert "fine" in run("aiocache_redis.py", port, environment=libraries)


def test_results_of_celery(port: int, libraries: dict[str, str]) -> None:
    """What does not wait for a message: that needs pub/sub."""
    assert "fine" in run("celery_results.py", port, environment=libraries)


def test_redis_exporter(port: int) -> None:
    """The Prometheus exporter reads what it needs for the stock dashboards."""
    exporter = shutil.which("prometheus-redis-exporter") or shutil.which("redis_exporter")
    if exporter is None:
        pytest.skip("redis_exporter is not installed (Debian: prometheus-redis-exporter)")
    listen = free_port()
    command = [exporter, "-redis.addr", f"redis://127.0.0.1:{port}", "-web.listen-address", f"127.0.0.1:{listen}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        page = scrape(f"http://127.0.0.1:{listen}/metrics", process)
    finally:
        process.terminate()
        process.wait(10)
    for name in (
        "redis_up 1",
        "redis_uptime_in_seconds",
        "redis_connected_clients",
        "redis_memory_used_bytes",
        "redis_memory_max_bytes",
        "redis_commands_total",
        "redis_keyspace_hits_total",
        "redis_evicted_keys_total",
        "redis_net_input_bytes_total",
    ):
        assert name in page, f"{name} is missing"


def scrape(url: str, process: subprocess.Popen[bytes]) -> str:
    """The page, as soon as the exporter serves it."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        assert process.poll() is None, "the exporter ended"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:
            continue
    raise AssertionError("the exporter did not answer")
