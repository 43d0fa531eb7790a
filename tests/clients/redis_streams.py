"""The examples of redis-py's page on streams, and what a worker does beside. Run: python redis_streams.py PORT PROTOCOL."""

from __future__ import annotations

import sys
from typing import Any

import redis


def listed(reply: Any) -> dict[bytes, list[Any]]:
    """The reply of a read by stream, whichever shape the protocol gives it."""
    pairs = reply.items() if isinstance(reply, dict) else reply
    # RESP3's map has its entries in a list of one.
    return {
        name: entries[0] if len(entries) == 1 and isinstance(entries[0], list) else entries for name, entries in pairs
    }


def main() -> None:
    client = redis.Redis(port=int(sys.argv[1]), protocol=int(sys.argv[2]))
    client.flushall()
    first, second = "stream1", "stream2"
    numbers = [client.xadd(first, {"ts": number, "v": number}) for number in range(10)]
    assert client.xlen(first) == 10
    found = listed(client.xread(count=2, streams={first: 0}))
    assert [number for number, _ in found[b"stream1"]] == numbers[:2]
    last = found[b"stream1"][-1][0]
    assert len(listed(client.xread(count=5, streams={first: last}))[b"stream1"]) == 5
    assert not client.xread(count=10, block=20, streams={first: "$"})
    for number in range(1000, 1010):
        client.xadd(second, {"v": number})
    assert {name: len(entries) for name, entries in listed(client.xread(streams={first: 0, second: 0})).items()} == {
        b"stream1": 10,
        b"stream2": 10,
    }

    client.xgroup_create(first, "grp1", id=0)
    client.xgroup_create(first, "grp2", id=0)
    assert [group["name"] for group in client.xinfo_groups(first)] == [b"grp1", b"grp2"]
    for consumer, count in (("a", 2), ("b", 3)):
        got = listed(client.xreadgroup("grp1", consumer, {first: ">"}, count=count))
        assert len(got[b"stream1"]) == count
    assert client.xpending(first, "grp1")["pending"] == 5
    assert [each["times_delivered"] for each in client.xpending_range(first, "grp1", "-", "+", 5)] == [1] * 5
    assert client.xack(first, "grp1", *numbers[:2]) == 2
    assert [each["pending"] for each in client.xinfo_consumers(first, "grp1")] == [0, 3]
    assert len(client.xclaim(first, "grp1", "a", 0, numbers[2:4])) == 2
    start, claimed, deleted = client.xautoclaim(first, "grp1", "c", 0)
    assert (start, len(claimed), deleted) == (b"0-0", 3, [])
    assert client.xdel(first, numbers[4]) == 1
    assert client.xautoclaim(first, "grp1", "c", 0)[2] == [numbers[4]]
    assert client.xtrim(first, maxlen=3, approximate=False) == 6
    assert client.xrevrange(first, count=1)[0][0] == numbers[-1]
    assert client.xinfo_stream(first)["length"] == 3
    assert client.xinfo_stream(first, full=True)["groups"]
    assert client.xgroup_delconsumer(first, "grp1", "c") == 2
    assert client.xgroup_destroy(first, "grp1") == 1
    with client.pipeline() as pipeline:
        pipeline.xadd(first, {"in": "transaction"}).xlen(first)
        assert pipeline.execute()[1] == 4
    print(f"redis-py {redis.__version__}: fine")


main()
