"""The metrics process has a user of its own, so that it does not matter what `default` may do; the console has its visitor's."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from cluster import DEADLINE, Cluster
from ports import free_port
from test_metrics import ask, metrics

from kache.errors import CommandError


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def cluster(port: int) -> Iterator[Cluster]:
    """`default` is off; `root` may do everything, `looker` sees the keys of one program, `meter` none."""
    with Cluster(2, metrics_port=port) as running:
        with running.connect() as first:
            first.request("mset", "shop:1", "a", "secret:1", "b")
            for name, rules in (
                ("root", ("+@all", "~*", "&*")),
                (
                    "looker",
                    ("+get", "+type", "+pttl", "+strlen", "+getrange", "+object|encoding", "+memory|usage", "~shop:*"),
                ),
                ("meter", ("+stats",)),
            ):
                assert first.request("acl", "setuser", name, "on", f">{name}-pw", *rules) == "OK"
            assert first.request("acl", "setuser", "default", "off") == "OK"
        yield running


def visit(port: int, path: str, name: str = "", password: str = "") -> tuple[int, Any]:
    """(status, what the console answers)"""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if name:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as reply:
            text = reply.read().decode()
            return reply.status, json.loads(text) if "json" in reply.headers["Content-Type"] else text
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def key_path(key: bytes) -> str:
    return f"/api/key?key={base64.urlsafe_b64encode(key).decode().rstrip('=')}"


def test_figures_and_probes_do_not_need_the_default_user(cluster: Cluster, port: int) -> None:
    told = metrics(port)
    assert told["redis_up", ()] == 1
    assert sum(value for (name, _), value in told.items() if name == "redis_db_keys") == 2
    assert ask(port, "/healthz")[0] == 200
    assert ask(port, "/readyz")[0] == 200
    assert cluster.kache("cluster", "status").returncode == 0


def test_the_command_line_follows_as_a_user_that_may(cluster: Cluster) -> None:
    for name in ("root", "meter"):
        words = ("--user", name, "--password", f"{name}-pw")
        assert "  2 keys" in cluster.kache("top", "--once", "--interval", "0.2", *words).stdout
        assert json.loads(cluster.kache("stats", "--json", *words).stdout)["total"]["keys"] == 2
    refused = cluster.kache("top", "--once", "--user", "looker", "--password", "looker-pw", check=False)
    assert refused.returncode != 0 and "NOPERM" in refused.stderr


def test_who_visits_the_console_sees_what_its_user_may(cluster: Cluster, port: int) -> None:
    assert visit(port, "/")[0] == 401
    assert visit(port, "/api/now", "me", "")[0] == 401
    assert visit(port, "/", "root", "wrong")[0] == 401
    assert visit(port, "/", "default", "")[0] == 401
    status, now = visit(port, "/api/now", "root", "root-pw")
    assert status == 200 and any("user" in str(each) or each["cmd"] for each in now["clients"])
    assert visit(port, key_path(b"secret:1"), "root", "root-pw")[1]["value"] == "b"
    assert visit(port, key_path(b"shop:1"), "looker", "looker-pw")[1]["value"] == "a"
    status, text = visit(port, key_path(b"secret:1"), "looker", "looker-pw")
    assert status == 400 and "NOPERM" in text
    status, now = visit(port, "/api/now", "meter", "meter-pw")
    assert status == 200 and now["total"]["keys"] == 2 and now["clients"] == [] and now["slow"] == []


def test_nobody_else_is_that_user(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        for password in ("", "(metrics)", "x" * 64):
            reply = connection.request("auth", "(metrics)", password)
            assert isinstance(reply, CommandError) and reply.message.startswith("WRONGPASS")
        assert connection.request("auth", "root", "root-pw") == "OK"
        reply = connection.request("acl", "setuser", "(metrics)", "on", "nopass", "+@all", "~*")
        assert reply == CommandError("ERR That user is the cluster's own")
        assert b"(metrics)" not in connection.request("acl", "users")
        lines = connection.request("client", "list").decode().splitlines()
        assert any(" user=(metrics) " in line for line in lines)


def test_a_wrong_password_of_default_has_no_part_in_it() -> None:
    port = free_port()
    with Cluster(1, metrics_port=port) as cluster:
        cluster.request("acl", "setuser", "default", ">other")
        assert metrics(port)["redis_up", ()] == 1
        assert visit(port, "/")[0] == 401
        assert visit(port, "/", "anybody", "other")[0] == 200


@pytest.mark.parametrize(
    ("options", "missing"),
    [({}, "TLS and a password"), ({"requirepass": "sesame"}, "TLS")],
)
def test_beyond_this_machine_it_wants_tls_and_a_password(options: dict[str, str], missing: str) -> None:
    port = free_port()
    expected = f"Listening for metrics on 0.0.0.0 without {missing} is refused"
    with (
        pytest.raises(AssertionError, match=expected),
        Cluster(1, metrics_port=port, metrics_bind="0.0.0.0", **options),  # type: ignore[arg-type]  # options are objects
    ):
        pass
    with Cluster(1, metrics_port=port, metrics_bind="0.0.0.0", metrics_insecure="yes", **options):  # type: ignore[arg-type]
        assert ask(port, "/healthz")[0] == 200
