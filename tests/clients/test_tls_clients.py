"""Client libraries over TLS, with certificates of clients, as their users set them up."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import valkey
from authority import TlsCluster

HERE = Path(__file__).parent
RUN_SECONDS = 240


class Site:
    """A cluster that wants certificates, and a client's."""

    def __init__(self, cluster: TlsCluster) -> None:
        self.cluster = cluster
        self.port = cluster.tls_port
        self.ca = str(cluster.authority.ca_file)
        self.cert, self.key = map(str, cluster.authority.issue("client", "client@example.org"))

    def options(self, **more: Any) -> dict[str, Any]:
        """As redis-py and valkey-py call them."""
        return {"ssl_ca_certs": self.ca, "ssl_certfile": self.cert, "ssl_keyfile": self.key, **more}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with TlsCluster(2, routers=2, tls_auth_clients="yes", requirepass="open-sesame") as cluster:
        yield Site(cluster)


def use(client: Any) -> None:
    """What an application does."""
    client.set("k", "v" * 100_000)
    assert client.get("k") == b"v" * 100_000
    with client.pipeline(transaction=True) as pipe:
        for number in range(500):
            pipe.incrby("n", number)
        assert pipe.execute()[-1] % 124_750 == 0
    assert client.mget("k", "n", "none")[2] is None
    client.delete("n")
    listening = client.pubsub(ignore_subscribe_messages=True)
    listening.subscribe("news")
    while client.publish("news", "hello") == 0:
        pass  # the cluster has not heard of the subscription yet
    found = None
    for _ in range(200):
        found = listening.get_message(timeout=0.1)
        if found is not None:
            break
    assert found is not None and found["data"] == b"hello"
    listening.close()


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("library", [redis, valkey], ids=["redis-py", "valkey-py"])
def test_by_arguments(site: Site, library: Any, protocol: int) -> None:
    maker = library.Redis if library is redis else library.Valkey
    client = maker(
        host="localhost", port=site.port, ssl=True, password="open-sesame", protocol=protocol, **site.options()
    )
    use(client)
    client.close()


@pytest.mark.parametrize("protocol", [2, 3])
def test_by_url(site: Site, protocol: int) -> None:
    url = f"rediss://:open-sesame@localhost:{site.port}/3?protocol={protocol}"
    client = redis.Redis.from_url(url, **site.options())
    use(client)
    assert client.client_info()["db"] == 3
    client.close()


def test_names_are_verified(site: Site) -> None:
    """redis-py compares the name of the host with the certificate's."""
    with pytest.raises(redis.exceptions.ConnectionError, match=r"(?i)certificate"):
        redis.Redis(host="localhost", port=site.port, ssl=True, password="open-sesame").ping()
    without = redis.Redis(host="localhost", port=site.port, ssl=True, ssl_ca_certs=site.ca, password="open-sesame")
    with pytest.raises(redis.exceptions.ConnectionError):
        without.ping()


def test_asyncio(site: Site) -> None:
    async def ask() -> None:
        client = redis.asyncio.Redis(
            host="localhost", port=site.port, ssl=True, password="open-sesame", **site.options()
        )
        await asyncio.gather(*(client.set(f"a{number}", number) for number in range(100)))
        assert await client.mget("a1", "a99") == [b"1", b"99"]
        await client.aclose()

    asyncio.run(ask())


def test_redis_cli(site: Site) -> None:
    if shutil.which("redis-cli") is None:
        pytest.skip("redis-cli is not installed")
    command = ["redis-cli", "--tls", "--cacert", site.ca, "--cert", site.cert, "--key", site.key, "-h", "localhost",
               "-p", str(site.port), "--no-auth-warning", "-a", "open-sesame"]  # fmt: skip
    commands = "set cli 1\nincr cli\nhello 3\nincr cli\n"
    done = subprocess.run(command, input=commands, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    if "Unrecognized option" in done.stderr:
        pytest.skip("this redis-cli was built without TLS")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["OK", "2"] and done.stdout.splitlines()[-1] == "3"


def test_django(site: Site) -> None:
    program = """
import sys, django
from django.conf import settings
url, ca, cert, key = sys.argv[1:]
settings.configure(CACHES={"default": {
    "BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url,
    "OPTIONS": {"ssl_ca_certs": ca, "ssl_certfile": cert, "ssl_keyfile": key}}})
from django.core.cache import cache
cache.set_many({f"k{n}": [n] for n in range(50)}, timeout=60)
assert cache.get_many([f"k{n}" for n in range(50)]) == {f"k{n}": [n] for n in range(50)}
assert cache.add("k1", 2) is False
print("fine")
"""
    url = f"rediss://:open-sesame@localhost:{site.port}/1"
    done = subprocess.run(
        [sys.executable, "-c", program, url, site.ca, site.cert, site.key],
        capture_output=True, text=True, timeout=RUN_SECONDS, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "fine", done.stderr


def test_celery(tmp_path: Path) -> None:
    folder = tmp_path / "celery"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), "celery>=5.4"],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"Celery cannot be installed: {done.stderr[-200:]}")
    with TlsCluster(2, tls_auth_clients="yes") as cluster:
        site = Site(cluster)
        done = subprocess.run(
            [sys.executable, str(HERE / "celery_over_tls.py"), str(site.port), site.ca, site.cert, site.key],
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True, text=True, timeout=RUN_SECONDS, check=False,
        )  # fmt: skip
        assert "fine" in done.stdout, f"{done.stdout}\n{done.stderr}"
