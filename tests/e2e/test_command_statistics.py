"""INFO commandstats counts what clients have sent, however it was carried out."""

from __future__ import annotations

import re

import pytest
from cluster import Cluster, Connection


def calls(connection: Connection) -> dict[str, tuple[int, int]]:
    """{command: (calls, failed calls)}, without INFO itself."""
    found = re.findall(
        r"cmdstat_([^:]+):calls=(\d+),.*failed_calls=(\d+)", connection.request("info", "commandstats").decode()
    )
    return {name: (int(count), int(failed)) for name, count, failed in found if name != "info"}


@pytest.mark.parametrize("routers", [1, 2])
def test_a_divided_command_is_one_call(routers: int) -> None:
    with Cluster(4, routers=routers) as cluster, cluster.connect() as connection:
        keys = [key for keys in cluster.keys_by_shard(2) for key in keys]
        connection.request("config", "resetstat")
        assert connection.request("mset", *[word for key in keys for word in (key, "v")]) == "OK"
        for _ in range(3):
            assert connection.request("mget", *keys) == [b"v"] * 8
        assert connection.request("mget", keys[0]) == [b"v"]
        assert connection.request("get", keys[0]) == b"v"
        assert connection.request("rename", keys[0], keys[-1]) == "OK"
        assert connection.request("dbsize") == 7
        assert connection.request("sadd", keys[0], "m") == 1
        assert connection.request("sunion", keys[0], keys[2]).code == "WRONGTYPE"
        assert connection.request("del", *keys) == 8
        found = calls(connection)
        assert found.pop("config|resetstat", (1, 0)) == (1, 0)
        assert found == {
            "mset": (1, 0),
            "mget": (4, 0),
            "get": (1, 0),
            "rename": (1, 0),
            "dbsize": (1, 0),
            "sadd": (1, 0),
            "sunion": (1, 1),
            "del": (1, 0),
        }
        usec = re.search(r"cmdstat_mget:calls=4,usec=(\d+),", connection.request("info", "commandstats").decode())
        assert usec is not None and int(usec[1]) > 0
